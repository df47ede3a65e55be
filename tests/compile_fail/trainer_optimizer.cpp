// An optimizer updates.
// expect: tandem: an optimizer needs update(model, gradient, AdamW::State<Model>&, rate, gradient_scale), which returns whether all weights are finite: see AdamW
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Idle {
    double rate = 1;
};

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Optimizer = Idle;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
