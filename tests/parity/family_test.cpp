// A checkpoint folder of families.py against the library: what the architecture's own program would embed.
//   family_test FOLDER BAR       built with -DTANDEM_FAMILY=td::vit_b_32 or another architecture constant
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/zoo.hpp>

namespace td = tandem;

namespace {

template <class Tensor>
void read(const td::Safetensors& file, const char* name, Tensor& tensor) {
    const td::StoredTensor* stored = file.find(name);
    if (stored == nullptr) throw td::Error(name, "missing from expected.safetensors");
    td::read_elements(*stored, tensor.elements());
}

template <class Tensor>
bool agrees(const char* what, const Tensor& found, const Tensor& expected, double bar) {
    double largest = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
        const double difference = std::abs(static_cast<double>(found.data()[i]) - static_cast<double>(expected.data()[i]));
        largest = difference <= largest ? largest : difference;  // keeps a NaN
    }
    std::printf("  %-18s max |difference| %.2e (bar %.0e)%s\n", what, largest, bar, largest <= bar ? "" : "  FAILED");
    return largest <= bar;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::fprintf(stderr, "family_test FOLDER BAR\n");
        return 2;
    }
    try {
        using Model = td::Clip<TANDEM_FAMILY>;
        const std::filesystem::path folder = arguments[1];
        const double bar = std::strtod(arguments[2], nullptr);
        const td::Safetensors file = td::Safetensors::open(folder / "expected.safetensors");
        const td::StoredTensor* const stored = file.find("input/image");
        const std::size_t items = stored == nullptr ? 0 : stored->shape.at(0);
        td::Tensor<float, Model::Vision::Input::shape> images(items);
        td::Tensor<td::Id, Model::Text::Input::shape> ids(items);
        Model::Embeddings expected_image(items), expected_text(items);
        read(file, "input/image", images);
        read(file, "input/tokens", ids);
        read(file, "embedding/image", expected_image);
        read(file, "embedding/text", expected_text);

        const Model model = td::load<TANDEM_FAMILY>(folder, {.check_finite = true});
        const bool same_image = agrees("image embeddings", model.encode_image(images), expected_image, bar);
        const bool same_text = agrees("text embeddings", model.encode_text(ids), expected_text, bar);
        return same_image && same_text ? 0 : 1;
    } catch (const td::Error& error) {
        std::printf("  %s\n", error.what());
        return 1;
    }
}
