// A whole CLIP in one executable: the model packed as this kind of CPU reads it, its tokenizer, and labels with their embeddings
// are linked in, so that the program needs no file beside itself, and starts in the time that it takes to map it.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/tandem.hpp>

#include "../quickstart/design.hpp"
#include "../quickstart/preprocess.hpp"
#include "baked.hpp"

// Weights lie at the start of a page: processes that run the program share them.
asm(".section .rodata\n"
    ".balign 4096\n"
    "baked_model: .incbin \"" TANDEM_BAKED "/model.safetensors\"\n"
    "baked_model_end: .byte 0\n"
    ".balign 64\n"
    "baked_words: .incbin \"" TANDEM_BAKED "/words.safetensors\"\n"
    "baked_words_end: .byte 0\n"
    ".previous\n");
extern "C" const std::byte baked_model[], baked_model_end[], baked_words[], baked_words_end[];

namespace {

namespace td = tandem;

constexpr const char* help =
    "usage: baked [--labels FILE] PICTURE...\n"
    "       baked --list\n"
    "\n"
    "Says of each picture, JPEG or PNG, which of the labels that were baked in it shows, the three most probable first. Results go\n"
    "to standard output, messages to standard error; the exit code is 0 if every picture was read.\n"
    "\n"
    "  --labels FILE    a label a line, instead of those\n"
    "  --list           prints the labels that were baked in\n"
    "  --help           prints this\n";

const td::Safetensors& baked_file() {
    static const td::Safetensors file = td::Safetensors::parse({baked_words, baked_words_end}, "baked words");
    return file;
}

std::vector<std::string> baked_labels() {
    std::vector<std::string> labels;
    std::string_view names = baked_file().metadata().at("labels");
    for (; !names.empty(); names.remove_prefix(labels.back().size() + 1)) labels.emplace_back(names.substr(0, names.find('\n')));
    return labels;
}

td::Bpe baked_tokenizer() {
    const td::StoredTensor& stored = *baked_file().find("merges");
    std::vector<td::Id> ids(2 * stored.shape[0]);
    td::read_elements(stored, std::span(ids));
    std::vector<td::Bpe::Merge> merges;
    for (std::size_t i = 0; i < ids.size(); i += 2) merges.push_back({ids[i], ids[i + 1]});
    const bool is_open_clip = baked_file().metadata().at("cleaning") == "open_clip";
    return td::Bpe(merges, is_open_clip ? td::Cleaning::open_clip : td::Cleaning::transformers);
}

int run(std::span<const std::string> arguments) {
    std::vector<std::string> pictures;
    std::optional<std::string> labels_file;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const std::string& argument = arguments[i];
        if (argument == "--help" || argument == "-h") return std::fputs(help, stdout) < 0 || std::fflush(stdout) != 0;
        if (argument == "--list") {
            for (const std::string& label : baked_labels()) std::printf("%s\n", label.c_str());
            return std::fflush(stdout) != 0;
        }
        if (argument == "--labels") {
            if (++i == arguments.size()) throw td::Error("--labels", "a file with a label a line", "none");
            labels_file = arguments[i];
        } else if (argument.starts_with("--")) {
            throw td::Error(argument, "--labels, --list or --help", "an option that is not there");
        } else {
            pictures.push_back(argument);
        }
    }
    if (pictures.empty()) throw td::Error("arguments", "pictures (--help says more)", "none");

    const auto model = td::map_packed<quickstart::design, baked::Precision>({baked_model, baked_model_end});
    using Model = std::remove_cvref_t<decltype(*model)>;
    const std::vector<std::string> labels = labels_file ? baked::read_labels(*labels_file) : baked_labels();
    Model::Embeddings embeddings(labels.size());
    if (labels_file) {
        const std::vector<std::string> templates{"{}"};
        embeddings = td::zero_shot_classifier(*model, baked_tokenizer(), labels, templates);
    } else {
        td::read_elements(*baked_file().find("labels"), embeddings.elements());
    }
    const td::Preprocess recipe = quickstart::preprocess_of(quickstart::design.vision.image);
    std::size_t failed = 0;
    for (const std::string& path : pictures) {
        td::Tensor<float, Model::Vision::Input::shape> pixels(1);
        try {
            td::preprocess(td::read_image(path, {.background = recipe.background, .orientation = td::Orientation::exif}), recipe,
                           pixels.elements());
        } catch (const td::Error& error) {
            std::fprintf(stderr, "left out: %s\n", error.what());
            ++failed;
            continue;
        }
        auto shares = td::similarity(model->encode_image(pixels), embeddings);
        td::probabilities_from<float>(shares, model->logit_scale(), std::nullopt);
        std::printf("%s\n", path.c_str());
        for (const std::size_t label : td::best_matches<float>(shares.elements(), std::min<std::size_t>(3, labels.size())))
            std::printf("  %6.2f %%  %s\n", 100 * static_cast<double>(shares(0, label)), labels[label].c_str());
    }
    if (failed > 0) std::fprintf(stderr, "%zu of %zu pictures left out\n", failed, pictures.size());
    return failed == 0 && std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run(std::vector<std::string>(arguments + 1, arguments + count));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "baked: %s\n", error.what());
        return 1;
    }
}
