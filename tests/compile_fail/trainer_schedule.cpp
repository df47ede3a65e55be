// An optimizer is no schedule.
// expect: tandem: a schedule is called with the share of the run that has passed, a double, or has at(Progress), and returns a factor of the rate: WarmupCosine, ConstantRate, or a lambda
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Schedule = tandem::AdamW;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
