// The sigmoid loss needs a model with a learned bias.
// expect: tandem: this loss takes a bias: set .logit_bias = true in the ClipConfig
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Loss = tandem::SigmoidLoss;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
