// A source of pairs hands them out.
// expect: tandem: a source of pairs needs fetch(std::size_t index, Random&, std::span<float> image, std::span<Id> ids) const: see PairSource
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Data = std::vector<float>;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
