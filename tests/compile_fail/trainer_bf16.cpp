// A bfloat16 model infers only.
// expect: tandem: bf16 and int8 models only infer: their weights have too few bits for gradients and updates; amp_bf16 trains
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Element = tandem::bf16;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
