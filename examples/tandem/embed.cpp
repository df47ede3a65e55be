// Embeddings of pictures and captions by any checkpoint of the zoo, into safetensors or .npy.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include <tbb/global_control.h>
#include <nlohmann/json.hpp>

#include <tandem/tandem.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"
#include "journal.hpp"
#include "progress.hpp"
#include "run_inputs.hpp"

namespace program {

namespace {

void save_npy(const std::filesystem::path& path, std::span<const float> values, std::span<const std::size_t> shape) {
    std::string extents;
    for (const std::size_t extent : shape) extents += std::to_string(extent) + ", ";
    std::string head =
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + extents.substr(0, extents.size() - 2) + "), }";
    head.resize((10 + head.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
    head += '\n';
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes += static_cast<char>(head.size() & 255U);
    bytes += static_cast<char>(head.size() >> 8U);
    bytes += head;
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    td::write_file_atomically(path, bytes);
}

/// What is written of an item: its embedding, or what a layer holds of its tokens.
struct Output {
    bool tokens = false, normed = true;
    int layer = -1;
};

/// A run with its options, models and pictures.
class Embedder {
public:
    Embedder(const Arguments& options, std::filesystem::path out, const Opened& opened, Output output)
        : out_(std::move(out)), is_npy_(out_.extension() == ".npy"), opened_(opened), output_(output) {
        metadata_["architecture"] = opened.clip.sizes().architecture;
        inputs_ = inputs_of_rows(options, opened);
        inputs_.add("output", output.tokens ? "tokens of layer " + std::to_string(output.layer) +
                                                  (output.normed ? ", normed" : "")
                                            : "embeddings");
        tokenizer_ = tokenizer_of(options).string();
    }

    void images(const Pictures& pictures) {
        const td::ModelSizes& sizes = opened_.clip.sizes();
        const std::vector<std::filesystem::path>& paths = pictures.paths;
        Inputs inputs = inputs_;
        inputs.add_pictures(paths);
        const std::vector<std::size_t> shape =
            output_.tokens ? std::vector{sizes.image_tokens, sizes.image_width} : std::vector{sizes.embedding};
        const std::size_t width = product(shape);
        if (width == 0)
            output_.tokens ? void(opened_.clip.image_tokens({})) : void(opened_.clip.encode_image({}));  // they say why
        image_journal_.emplace(out_.string() + ".images.partial", "embed 2", inputs, width);
        const std::size_t floats = opened_.preprocess.count();
        const std::vector<float> rows = picture_rows(
            "images", *image_journal_, paths.size(), floats, [&](std::size_t i, std::span<float> to) { read_pixels(opened_, paths[i], to); },
            [&](std::span<const float> pixels) {
                std::vector<float> found = image_values(pixels);
                for (std::size_t at = 0; at < found.size(); at += width) {
                    const auto row = std::span(found).subspan(at, width);
                    if (!is_finite(row)) std::ranges::fill(row, std::numeric_limits<float>::quiet_NaN());
                }
                return found;
            });
        nlohmann::json names = nlohmann::json::array(), failures = nlohmann::json::array();
        std::vector<float> scratch(floats);
        for (std::size_t i = 0; i < paths.size(); ++i) {
            const auto row = std::span(rows).subspan(i * width, width);
            if (!std::isnan(row[0])) {
                image_rows_.insert(image_rows_.end(), row.begin(), row.end());
                names.push_back(paths[i].string());
                continue;
            }
            // Once more: for its message, which an earlier run may have had, or because it can be read by now.
            try {
                read_pixels(opened_, paths[i], scratch);
                const std::vector<float> found = image_values(scratch);
                if (is_finite(found)) {
                    image_rows_.insert(image_rows_.end(), found.begin(), found.end());
                    names.push_back(paths[i].string());
                    continue;
                }
                std::fprintf(stderr, "left out: %s: the model gives no finite numbers for it\n",
                             paths[i].string().c_str());
            } catch (const td::Error& error) {
                std::fprintf(stderr, "left out: %s\n", error.what());
            }
            failures.push_back(paths[i].string());
        }
        pictures.report();
        for (const auto& fault : pictures.faults) failures.push_back(fault.first);
        if (paths.size() > names.size())
            std::fprintf(stderr, "%zu of %zu pictures left out\n", paths.size() - names.size(), paths.size());
        if (names.empty()) {
            image_journal_->remove();  // there is nothing to go on from
            throw td::Error("embed", "a picture that can be read and gives numbers", "none");
        }
        name_rows("images", names);
        if (!failures.empty()) name_rows("failed", failures);
        add(output_.tokens ? "image_tokens" : "image_embeddings", names.size(), shape, image_rows_);
    }

    void texts(const std::vector<std::string>& texts) {
        const td::ModelSizes& sizes = opened_.clip.sizes();
        Inputs inputs = inputs_;
        inputs.add("tokenizer", tokenizer_);
        inputs.add_tokenizer(tokenizer_);
        inputs.add_texts(texts);
        const std::vector<std::size_t> shape =
            output_.tokens ? std::vector{sizes.context, sizes.text_width} : std::vector{sizes.embedding};
        const std::size_t width = product(shape);
        if (width == 0) opened_.clip.encode_text({});  // which says why
        text_journal_.emplace(out_.string() + ".texts.partial", "embed 2", inputs, width);
        text_rows_ = all_rows("texts", *text_journal_, texts.size(), [&](std::size_t first, std::size_t end) {
            const auto ids =
                opened_.tokenizer->encode_batch(std::span(texts).subspan(first, end - first), sizes.context);
            std::vector<float> found = output_.tokens
                                           ? values_of(opened_.clip.text_tokens(ids, output_.layer, output_.normed))
                                           : values_of(opened_.clip.encode_text(ids));
            if (!is_finite(found))
                throw td::Error("captions " + std::to_string(first + 1) + " to " + std::to_string(end),
                                "finite numbers from the model", "infinities or NaN");
            return found;
        });
        name_rows("texts", texts);
        add(output_.tokens ? "text_tokens" : "text_embeddings", texts.size(), shape, text_rows_);
    }

    void save() {
        if (is_npy_) {
            save_npy(out_, image_journal_ ? image_rows_ : text_rows_, tensors_.front().shape);
        } else {
            td::save_safetensors(out_, tensors_, metadata_);
        }
        if (image_journal_) image_journal_->remove();
        if (text_journal_) text_journal_->remove();
    }

private:
    static std::size_t product(const std::vector<std::size_t>& shape) {
        return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
    }
    std::vector<float> image_values(std::span<const float> pixels) const {
        return output_.tokens ? values_of(opened_.clip.image_tokens(pixels, output_.layer, output_.normed))
                              : values_of(opened_.clip.encode_image(pixels));
    }
    template <class Tensor>
    static std::vector<float> values_of(const Tensor& tensor) {
        return {tensor.data(), tensor.data() + tensor.size()};
    }
    /// Which row is whose: in the metadata, or, beyond what that may hold and beside .npy, in a file of its own.
    void name_rows(const std::string& what, const nlohmann::json& names) {
        const std::string text = names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        if (!is_npy_ && text.size() <= 400'000) {
            metadata_[what] = text;
            return;
        }
        td::write_file_atomically(out_.string() + "." + what + ".json", text);
    }
    void add(const char* name, std::size_t count, const std::vector<std::size_t>& shape, std::span<const float> rows) {
        std::vector<std::size_t> whole{count};
        whole.insert(whole.end(), shape.begin(), shape.end());
        tensors_.push_back(td::stored_tensor<float>(name, whole, rows));
    }

    std::filesystem::path out_;
    bool is_npy_;
    const Opened& opened_;
    Output output_;
    Inputs inputs_;
    std::string tokenizer_;
    std::vector<td::StoredTensor> tensors_;
    std::map<std::string, std::string> metadata_;
    std::vector<float> image_rows_, text_rows_;
    std::optional<Journal> image_journal_, text_journal_;
};

int run(const Arguments& options) {
    const std::filesystem::path out = options.require("--out");
    const bool has_images = options.has("--images"), has_texts = options.has("--texts");
    const Output output{options.has("--tokens"), !options.has("--no-norm"), options.layer("--layer", -1)};
    if (!has_images && !has_texts) throw td::Error("embed", "--images, --texts or both", "neither");
    for (const char* const name : {"--layer", "--no-norm"}) {
        if (!output.tokens && options.has(name))
            throw td::Error(name, "it beside --tokens, which it is about", "embeddings");
    }
    if (out.extension() != ".npy" && out.extension() != ".safetensors")
        throw td::Error("--out", "a name that ends in .safetensors or .npy", out.string());
    if (out.extension() == ".npy" && has_images && has_texts)
        throw td::Error("--out", "a .safetensors file for both images and texts", out.string());
    require_place(out);
    tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                options.number("--threads", td::core_count(), 4096));

    const Pictures pictures = has_images ? list_pictures(options.get("--images")) : Pictures();
    const std::vector<std::string> texts = has_texts ? read_texts(options.get("--texts")) : std::vector<std::string>();
    const auto opened = open(options, !has_texts    ? td::Towers::image
                                      : !has_images ? td::Towers::text
                                                    : td::Towers::both);
    const td::ModelParts& parts = opened.clip.parts();
    if ((has_images && !parts.image) || (has_texts && !parts.text))
        throw td::Error(weights_of(options).string(),
                        std::string("a tower for ") + (has_images && !parts.image ? "--images" : "--texts"),
                        opened.clip.sizes().architecture);
    std::fprintf(stderr, "%s: %s\n", weights_of(options).c_str(), opened.clip.sizes().architecture.c_str());
    const auto require_layer = [&](bool has, std::size_t layers) {
        const int most = static_cast<int>(layers);
        if (has && output.tokens && most > 0 && (output.layer > most || output.layer < -most - 1))
            throw td::Error("--layer", "0 to " + std::to_string(most) + ", or -1 to " + std::to_string(-most - 1),
                            std::to_string(output.layer));
    };
    require_layer(has_images, opened.clip.sizes().image_layers);
    require_layer(has_texts, opened.clip.sizes().text_layers);
    Embedder embedder(options, out, opened, output);
    if (has_images) embedder.images(pictures);
    if (has_texts) embedder.texts(texts);
    embedder.save();
    return 0;
}

}  // namespace

Command embed_command() {
    return {
        .name = "embed",
        .purpose = "embeddings of pictures and captions into a file",
        .operand = "",
        .synopsis = "--weights PATH (--images FILE|DIR | --texts FILE)... --out FILE.safetensors",
        .description =
            "Writes image_embeddings and text_embeddings [N, E], or one of them as .npy. Pictures are JPEG, PNG or "
            "WebP, told by their first bytes; what is left out is named or counted. A run that is killed goes on where "
            "it was when it is started again with the same inputs.",
        .options = with_checkpoint_options(
            {{"--images", "FILE|DIR", "a picture, a folder of them, or a text file with a path a line"},
             {"--texts", "FILE", "a caption a line"},
             {"--out", "FILE.safetensors|.npy", "image_embeddings and text_embeddings [N, E]; .npy holds one of them"},
             {"--tokens", "",
              "image_tokens and text_tokens [N, tokens, width] instead: what a tower holds of every token"},
             {"--layer", "N", "behind which block: 0 is what enters the first, -1 what leaves the last (default -1)"},
             {"--no-norm", "",
              "tokens without the tower's last norm. Stable Diffusion 1 and 2: --tokens; "
              "CLIPVisionModel's last_hidden_state: --tokens --no-norm; SDXL and LLaVA: "
              "--tokens --layer -2 --no-norm"},
             {"--threads", "N", "(default: one a core)"}}),
        .run = run};
}

}  // namespace program
