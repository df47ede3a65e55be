// A schedule is no optimizer.
// expect: tandem: an optimizer needs a member double rate, which the schedule multiplies: see AdamW
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Optimizer = tandem::WarmupCosine;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
