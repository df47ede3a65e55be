// A source of pairs knows how many there are.
// expect: tandem: a source of pairs needs size() const, the number of its pairs: see PairSource
#include <tandem/models/clip.hpp>

#include "training.hpp"

struct Endless {
    void fetch(std::size_t, tandem::Random&, std::span<float>, std::span<tandem::Id>) const {}
};

struct Program : Right {
#if defined(TANDEM_EXPECT_FAIL)
    using Data = Endless;
#endif
};

void train(tandem::Clip<config, Program::Element>& model, const Program::Data& data) {
    tandem::Trainer trainer(model, Program::Optimizer{}, Program::Schedule{}, Program::Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}
