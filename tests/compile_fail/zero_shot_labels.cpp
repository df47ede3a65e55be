// Labels are numbers of classes, not their names.
// expect: tandem: labels are the numbers of classes, a std::vector<std::size_t> or a span of one
#include <tandem/models/clip.hpp>
#include <tandem/tasks/zero_shot.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Label = std::string;
#else
using Label = std::size_t;
#endif

auto score(const tandem::Tensor<float, tandem::Shape<tandem::dynamic, tandem::dynamic>>& cosines, const std::vector<Label>& labels) {
    return tandem::score_zero_shot(cosines, labels);
}

int main() {}
