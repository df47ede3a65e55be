// How often captions find their pictures and pictures their captions: recall MODEL TABLE... prints a line for each table.
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <tandem/tandem.hpp>

#include "../quickstart/design.hpp"
#include "../quickstart/embed_pictures.hpp"
#include "../quickstart/preprocess.hpp"

namespace {

namespace fs = std::filesystem;
namespace td = tandem;
using Model = td::Clip<quickstart::design>;

void measure(const Model& model, const td::AnyTokenizer& tokenizer, const fs::path& table) {
    td::DatasetOptions options{.view = {.preprocess = quickstart::preprocess_of(quickstart::design.vision.image)}, .strict = true};
    options.view.decode.background = options.view.preprocess.background;
    const td::Dataset data(td::read_table(table, {}, true), tokenizer, quickstart::design.text.context, options);
    std::vector<std::size_t> kept;
    const auto images = quickstart::embed_pictures(model, data.size(), [&](std::size_t i, std::span<float> pixels) { return data.fetch_image(i, pixels); }, kept);
    std::vector<std::string> captions;
    for (const std::size_t i : kept) captions.push_back(data.captions(i)[0]);
    const auto texts = td::embed_texts(model, tokenizer, captions);
    std::printf("%s\t%zu\t%.4f\t%.4f\n", table.stem().c_str(), kept.size(), td::recall_at(td::similarity(texts, images), 10), td::recall_at(td::similarity(images, texts), 10));
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) {
        std::fprintf(stderr, "usage: recall MODEL TABLE...\nA run of train's folder, and tables of pictures and captions (filepath, title). Prints for each its name, how many\n"
                             "pairs it has, and recall at 10 of pictures by captions and of captions by pictures.\n");
        return 2;
    }
    try {
        const fs::path folder = arguments[1];
        const Model model = td::load<quickstart::design>(folder / "model.safetensors");
        const td::AnyTokenizer tokenizer = td::open_tokenizer(folder / "tokenizer");
        for (int i = 2; i < count; ++i) measure(model, tokenizer, arguments[i]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "recall: %s\n", error.what());
        return 1;
    }
    return 0;
}
