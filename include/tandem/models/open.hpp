// A checkpoint of any architecture of the zoo, which the checkpoint itself names: for programs, not for research code.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/data/model_folder.hpp>
#include <tandem/data/weight_files.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/models/zoo.hpp>

namespace tandem::inline TANDEM_ABI {

struct OpenOptions {
    Towers towers = Towers::both;
    bool check_finite = false;  ///< infinities and NaN among the weights are refused
    /// The GELU of weights that come without a config: gelu, quick_gelu or gelu_pytorch_tanh. Empty: what the config
    /// says.
    std::string activation;
};

/// The sizes of a model whose architecture is known at run time.
struct ModelSizes {
    std::string architecture;  ///< the zoo's name of it
    ImageSize image;
    std::size_t context = 0, embedding = 0;
    std::size_t image_tokens = 0, image_prefix = 0;  ///< tokens of an image, and how many of them stand before the
                                                     ///< patches; a convolutional tower has none
    std::size_t image_heads = 0, image_layers = 0;
};

namespace detail {

/// What a model does, whatever its architecture.
class OpenedModel {
public:
    virtual ~OpenedModel() = default;
    virtual void encode_image(std::size_t count, const float* pixels, float* embeddings) const = 0;
    virtual void encode_text(std::size_t count, const Id* ids, float* embeddings) const = 0;
    virtual void image_attention(std::size_t count, const float* pixels, int layer, float* weights) const = 0;
    virtual void patch_embeddings(std::size_t count, const float* pixels, float* embeddings) const = 0;
    virtual float logit_scale() const = 0;
    virtual std::optional<float> logit_bias() const = 0;
};

}  // namespace detail

/// A model of any architecture of the zoo, with the weights that td::open found. Sizes are run-time numbers here, so
/// that one program serves all of them; where the architecture is known, td::load<config> gives a Clip, whose types
/// carry them. It infers.
class AnyClip {
public:
    AnyClip(ModelSizes sizes, Towers towers, std::unique_ptr<const detail::OpenedModel> model)
        : sizes_(std::move(sizes)), towers_(towers), model_(std::move(model)) {}

    const ModelSizes& sizes() const { return sizes_; }
    float logit_scale() const { return model_->logit_scale(); }
    /// Of models that were trained with the sigmoid loss.
    std::optional<float> logit_bias() const { return model_->logit_bias(); }

    /// pixels [N, 3, height, width], preprocessed, to embeddings <N, embedding> of length 1. Throws Error for pixels
    /// that are no whole images, and if the image tower was not loaded.
    Tensor<float, Shape<dynamic, dynamic>> encode_image(std::span<const float> pixels) const {
        const std::size_t count = images("encode_image", pixels);
        Tensor<float, Shape<dynamic, dynamic>> embeddings(count, sizes_.embedding);
        model_->encode_image(count, pixels.data(), embeddings.data());
        return embeddings;
    }

    /// ids [N, context] to embeddings <N, embedding> of length 1, with the same errors.
    Tensor<float, Shape<dynamic, dynamic>> encode_text(std::span<const Id> ids) const {
        require(Towers::text, "encode_text");
        const std::size_t count = items("encode_text", ids.size(), sizes_.context, "ids");
        Tensor<float, Shape<dynamic, dynamic>> embeddings(count, sizes_.embedding);
        model_->encode_text(count, ids.data(), embeddings.data());
        return embeddings;
    }

    /// The attention weights of a block of the image tower, counted from 0, or from the back: <N, heads, tokens,
    /// tokens>.
    Tensor<float, Shape<dynamic, dynamic, dynamic, dynamic>> image_attention(std::span<const float> pixels,
                                                                             int layer = -1) const {
        require_tokens("image_attention");
        const std::size_t count = images("image_attention", pixels), tokens = sizes_.image_tokens;
        Tensor<float, Shape<dynamic, dynamic, dynamic, dynamic>> weights(count, sizes_.image_heads, tokens, tokens);
        model_->image_attention(count, pixels.data(), layer, weights.data());
        return weights;
    }

    /// The embedding, of length 1, that every patch alone would give: what the last block leaves of it behind the
    /// tower's norm, pooling and projection. <N, patches, embedding>, patches row by row. Their cosines with a caption
    /// say where in the image it is.
    Tensor<float, Shape<dynamic, dynamic, dynamic>> patch_embeddings(std::span<const float> pixels) const {
        require_tokens("patch_embeddings");
        const std::size_t count = images("patch_embeddings", pixels);
        Tensor<float, Shape<dynamic, dynamic, dynamic>> embeddings(count, sizes_.image_tokens - sizes_.image_prefix,
                                                                   sizes_.embedding);
        model_->patch_embeddings(count, pixels.data(), embeddings.data());
        return embeddings;
    }

private:
    void require(Towers tower, const char* where) const {
        if (towers_ != Towers::both && towers_ != tower)
            throw Error(std::string("AnyClip::") + where, "a model opened with this tower", "one with the other");
    }
    void require_tokens(const char* where) const {
        if (sizes_.image_tokens == 0)
            throw Error(std::string("AnyClip::") + where, "an image tower of transformer blocks", sizes_.architecture);
    }
    std::size_t images(const char* where, std::span<const float> pixels) const {
        require(Towers::image, where);
        return items(where, pixels.size(), 3 * sizes_.image.area(), "floats");
    }
    static std::size_t items(const char* where, std::size_t size, std::size_t each, const char* what) {
        if (size % each != 0)
            throw Error(std::string("AnyClip::") + where, "a multiple of " + std::to_string(each) + " " + what,
                        std::to_string(size));
        return size / each;
    }

    ModelSizes sizes_;
    Towers towers_;
    std::unique_ptr<const detail::OpenedModel> model_;
};

namespace detail {

/// What a checkpoint tells of its architecture.
struct StoredModel {
    const WeightFiles& files;
    std::string where;
    std::vector<ArchitectureField> fields;
    std::string faults;  ///< where configs and tensors differ

    std::string value(std::string_view name, std::string otherwise = {}) const {
        for (const ArchitectureField& field : fields) {
            if (field.name == name) return field.value;
        }
        return otherwise;
    }
    /// Whether nothing in it contradicts a constant.
    [[gnu::cold]] bool is(const auto& config) const {
        std::vector<ArchitectureField> ours = architecture_fields(config);
        ours.push_back({"vision.image", to_string(ImageSize(config.vision.image)), ""});
        if constexpr (requires { config.vision.grid(); })
            ours.push_back({"vision.grid", to_string(ImageSize(config.vision.grid())), ""});
        // What one kind of tower has, the others have not.
        for (const char* const kind : {"vision.stages", "vision.patch", "vision.blocks"}) {
            const auto is_kind = [&](const ArchitectureField& field) { return field.name == kind; };
            if (std::ranges::any_of(fields, is_kind) && std::ranges::none_of(ours, is_kind)) return false;
        }
        return std::ranges::none_of(fields, [&](const ArchitectureField& stored) {
            return std::ranges::any_of(ours, [&](const ArchitectureField& field) {
                return stored.name == field.name && !field.name.ends_with(".activation") &&
                       !same_value(stored.value, field.value);
            });
        });
    }
    kernels::Activation gelu(const char* tower) const {
        const std::string name = value(tower);
        if (name == "gelu") return kernels::Activation::gelu;
        if (name == "quick_gelu") return kernels::Activation::quick_gelu;
        if (name == "gelu_pytorch_tanh") return kernels::Activation::tanh_gelu;
        if (!name.empty()) throw Error(where, "an activation of gelu, quick_gelu or gelu_pytorch_tanh", name);
        throw Error(where,
                    "a config beside the weights, or OpenOptions::activation, to say which GELU they were trained with",
                    "neither");
    }
};

template <auto config, Arithmetic T>
class OpenedClip final : public OpenedModel {
    using Model = Clip<config, T>;
    using Vision = typename Model::Vision;
    using Text = typename Model::Text;
    using Rows = View<float, Shape<dynamic, Model::embedding>>;

public:
    OpenedClip(const StoredModel& stored, const LoadOptions& options) {
        if constexpr (requires { model_.visual().set_gelu(kernels::Activation::gelu); })
            model_.visual().set_gelu(stored.gelu("vision.activation"));
        model_.text().set_gelu(stored.gelu("text.activation"));
        load_weights(model_, stored.files, stored.where, options);
    }

    void encode_image(std::size_t count, const float* pixels, float* embeddings) const override {
        model_.encode_image(input(count, pixels), Rows(embeddings, {{count, Model::embedding}}));
    }
    void encode_text(std::size_t count, const Id* ids, float* embeddings) const override {
        model_.encode_text(typename Text::Input(ids, {{count, Text::context}}),
                           Rows(embeddings, {{count, Model::embedding}}));
    }
    void image_attention(std::size_t count, const float* pixels, int layer, float* weights) const override {
        if constexpr (is_transformer) {
            const auto found = model_.image_attention(input(count, pixels), layer);
            std::copy_n(found.data(), found.size(), weights);
        }
    }
    void patch_embeddings(std::size_t count, const float* pixels, float* embeddings) const override {
        if constexpr (is_transformer) {
            const auto found = model_.patch_embeddings(input(count, pixels));
            std::copy_n(found.data(), found.size(), embeddings);
        }
    }
    float logit_scale() const override { return model_.logit_scale(); }
    std::optional<float> logit_bias() const override {
        if constexpr (config.logit_bias) {
            return model_.logit_bias();
        } else {
            return std::nullopt;
        }
    }

private:
    static constexpr bool is_transformer = requires { config.vision.tokens(); };

    static typename Vision::Input input(std::size_t count, const float* pixels) {
        constexpr ImageSize image = config.vision.image;
        return typename Vision::Input(pixels, {{count, 3, image.height, image.width}});
    }

    Model model_;
};

using MakeOpenedModel = std::unique_ptr<const OpenedModel> (*)(const StoredModel& stored, const LoadOptions& options);

template <auto config, Arithmetic T>
std::unique_ptr<const OpenedModel> make_opened(const StoredModel& stored, const LoadOptions& options) {
    return std::make_unique<OpenedClip<config, T>>(stored, options);
}

[[gnu::cold]] ModelSizes sizes_of(const char* name, const auto& config) {
    ModelSizes sizes{.architecture = name,
                     .image = config.vision.image,
                     .context = config.text.context,
                     .embedding = config.embedding};
    if constexpr (requires { config.vision.tokens(); }) {
        sizes.image_tokens = config.vision.tokens();
        sizes.image_prefix = config.vision.prefix();
        sizes.image_heads = config.vision.heads;
        sizes.image_layers = config.vision.layers;
    }
    return sizes;
}

/// Calls visit.operator()<config>(name) for every architecture that open() knows, each with the GELU that the
/// checkpoint names.
template <class Visit>
void for_each_architecture(const Visit& visit) {
    visit.template operator()<vit_b_32>("vit_b_32");
    visit.template operator()<vit_b_32_256>("vit_b_32_256");
    visit.template operator()<vit_b_16>("vit_b_16");
    visit.template operator()<vit_b_16_plus_240>("vit_b_16_plus_240");
    visit.template operator()<vit_l_14>("vit_l_14");
    visit.template operator()<vit_l_14_336>("vit_l_14_336");
    visit.template operator()<vit_h_14>("vit_h_14");
    visit.template operator()<vit_h_14_378>("vit_h_14_378");
    visit.template operator()<vit_g_14>("vit_g_14");
    visit.template operator()<vit_bigg_14>("vit_bigg_14");
    visit.template operator()<rn50>("rn50");
    visit.template operator()<rn101>("rn101");
    visit.template operator()<rn50x4>("rn50x4");
    visit.template operator()<rn50x16>("rn50x16");
    visit.template operator()<rn50x64>("rn50x64");
    visit.template operator()<align_base>("align_base");
    visit.template operator()<xlm_roberta_base_vit_b_32>("xlm_roberta_base_vit_b_32");
    visit.template operator()<xlm_roberta_large_vit_h_14>("xlm_roberta_large_vit_h_14");
    visit.template operator()<vit_b_16_siglip>("vit_b_16_siglip");
    visit.template operator()<vit_b_16_siglip_256>("vit_b_16_siglip_256");
    visit.template operator()<vit_b_16_siglip_384>("vit_b_16_siglip_384");
    visit.template operator()<vit_b_16_siglip_512>("vit_b_16_siglip_512");
    visit.template operator()<vit_b_16_siglip_i18n_256>("vit_b_16_siglip_i18n_256");
    visit.template operator()<vit_l_16_siglip_256>("vit_l_16_siglip_256");
    visit.template operator()<vit_l_16_siglip_384>("vit_l_16_siglip_384");
    visit.template operator()<vit_so400m_14_siglip>("vit_so400m_14_siglip");
    visit.template operator()<vit_so400m_14_siglip_378>("vit_so400m_14_siglip_378");
    visit.template operator()<vit_so400m_14_siglip_384>("vit_so400m_14_siglip_384");
    visit.template operator()<vit_so400m_16_siglip_i18n_256>("vit_so400m_16_siglip_i18n_256");
    visit.template operator()<vit_b_32_siglip2_256>("vit_b_32_siglip2_256");
    visit.template operator()<vit_b_16_siglip2>("vit_b_16_siglip2");
    visit.template operator()<vit_b_16_siglip2_256>("vit_b_16_siglip2_256");
    visit.template operator()<vit_b_16_siglip2_384>("vit_b_16_siglip2_384");
    visit.template operator()<vit_b_16_siglip2_512>("vit_b_16_siglip2_512");
    visit.template operator()<vit_l_16_siglip2_256>("vit_l_16_siglip2_256");
    visit.template operator()<vit_l_16_siglip2_384>("vit_l_16_siglip2_384");
    visit.template operator()<vit_l_16_siglip2_512>("vit_l_16_siglip2_512");
    visit.template operator()<vit_so400m_14_siglip2>("vit_so400m_14_siglip2");
    visit.template operator()<vit_so400m_14_siglip2_378>("vit_so400m_14_siglip2_378");
    visit.template operator()<vit_so400m_14_siglip2_384>("vit_so400m_14_siglip2_384");
    visit.template operator()<vit_so400m_16_siglip2_256>("vit_so400m_16_siglip2_256");
    visit.template operator()<vit_so400m_16_siglip2_384>("vit_so400m_16_siglip2_384");
    visit.template operator()<vit_so400m_16_siglip2_512>("vit_so400m_16_siglip2_512");
    visit.template operator()<vit_gopt_16_siglip2_256>("vit_gopt_16_siglip2_256");
    visit.template operator()<vit_gopt_16_siglip2_384>("vit_gopt_16_siglip2_384");
}

[[gnu::cold]] inline std::size_t number_of(const StoredModel& stored, const char* name, std::size_t otherwise = 0) {
    const std::string value = stored.value(name);
    return value.empty() ? otherwise : static_cast<std::size_t>(std::strtoull(value.c_str(), nullptr, 10));
}

/// What a config says, or the square that the positions make up.
[[gnu::cold]] inline ImageSize image_of(const StoredModel& stored) {
    const std::string sides = stored.value("vision.image");
    if (sides.empty()) return number_of(stored, "vision.grid") * number_of(stored, "vision.patch");
    const std::size_t cross = sides.find('x'), height = std::strtoull(sides.c_str(), nullptr, 10);
    return {height, cross == std::string::npos ? height : std::strtoull(sides.c_str() + cross + 1, nullptr, 10)};
}

/// The constant of an architecture that is not in the zoo, as far as the checkpoint tells.
[[gnu::cold]] inline std::string constant_of(const StoredModel& stored) {
    const auto number = [&](const char* name, std::size_t otherwise = 0) { return number_of(stored, name, otherwise); };
    const auto ratio = [&](const char* hidden, std::size_t width) {
        return width == 0 ? 4.0 : static_cast<double>(number(hidden, 4 * width)) / static_cast<double>(width);
    };
    const auto norm = [&](const char* eps) {
        const std::string value = stored.value(eps);
        return value.empty() ? LayerNorm{} : LayerNorm{std::strtof(value.c_str(), nullptr)};
    };
    const auto text_of = [&](const auto& vision, const auto& text, bool bias) {
        const auto with = [](const auto& tower, std::string_view activation, const auto& then) {
            if (activation == "quick_gelu") return then(tower.with_activation(QuickGelu{}));
            if (activation == "gelu_pytorch_tanh") return then(tower.with_activation(TanhGelu{}));
            return then(tower.with_activation(Gelu{}));
        };
        return with(vision, stored.value("vision.activation"), [&](const auto& image) {
            return with(text, stored.value("text.activation"), [&](const auto& words) {
                return constant_text(ClipConfig{image, words, number("embedding"), bias});
            });
        });
    };
    const std::size_t width = number("vision.width"), text_width = number("text.width");
    const ImageSize image = image_of(stored);
    if (stored.value("vision.pooling") == "map") {
        auto vision = siglip_vision(image, number("vision.patch", 1), width, number("vision.layers"),
                                    number("vision.heads", width / 64), ratio("vision.hidden", width));
        return text_of(vision,
                       siglip_text(number("text.vocabulary"), text_width, number("text.layers"),
                                   number("text.heads", text_width / 64), ratio("text.hidden", text_width),
                                   number("text.context")),
                       true);
    }
    const TextConfig text{.vocabulary = number("text.vocabulary"),
                          .context = number("text.context"),
                          .width = text_width,
                          .layers = number("text.layers"),
                          .heads = number("text.heads", text_width / 64),
                          .mlp_ratio = ratio("text.hidden", text_width),
                          .norm = norm("text.norm.eps")};
    if (const std::string stages = stored.value("vision.stages"); !stages.empty()) {
        ResNetConfig vision{.image = number("vision.image", 32 * number("vision.grid")), .width = width};
        std::istringstream numbers(stages);
        for (std::size_t& blocks : vision.layers) {
            numbers >> blocks;
            numbers.ignore();
        }
        return text_of(vision, text, false);
    }
    const VitConfig vision{.image = image,
                           .patch = number("vision.patch"),
                           .width = width,
                           .layers = number("vision.layers"),
                           .heads = number("vision.heads", width / 64),
                           .mlp_ratio = ratio("vision.hidden", width),
                           .norm = norm("vision.norm.eps")};
    return text_of(vision, text, false);
}

/// Reads what configs and shapes tell, and settles the activations.
[[gnu::cold]] inline StoredModel stored_model(const std::filesystem::path& path, const WeightFiles& files,
                                              const std::string& activation) {
    StoredModel stored{files, path.string(), {}, {}};
    if (std::filesystem::is_directory(path)) stored.fields = stored_architecture(path);
    for (ArchitectureField& size : stored_sizes(files)) {
        for (const ArchitectureField& said : stored.fields) {
            if (said.name == size.name && !said.value.empty() && !same_value(said.value, size.value))
                stored.faults += "\n  " + size.name + ": expected " + said.value + " (" + said.source + "), found " +
                                 size.value + " in the tensors";
        }
        // Where a config says it as well, it counts; where the two differ, loading names the tensors.
        const bool is_said =
            !stored.value(size.name).empty() || (size.name == "vision.grid" && !stored.value("vision.image").empty());
        if (!is_said) stored.fields.push_back(std::move(size));
    }
    for (const char* const name : {"vision.activation", "text.activation"}) {
        if (!activation.empty()) {
            std::erase_if(stored.fields, [&](const ArchitectureField& field) { return field.name == name; });
            stored.fields.push_back({name, activation, "OpenOptions::activation"});
        }
    }
    return stored;
}

}  // namespace detail

/// A model with the weights of `path`, a file or a folder as load() takes it, of the architecture among the zoo that
/// its config and the shapes of its tensors tell. Weights without a config do not say which GELU they were trained
/// with: then options.activation must, but for OpenAI's own archives. Throws Error with what load() does, and for an
/// architecture outside the zoo with the constant that td::load needs.
template <Arithmetic T = float>
AnyClip open(const std::filesystem::path& path, const OpenOptions& options = {}) {
    const WeightFiles files = WeightFiles::open(path);
    const detail::StoredModel stored = detail::stored_model(path, files, options.activation);
    ModelSizes sizes;
    detail::MakeOpenedModel make = nullptr;
    detail::for_each_architecture([&]<auto config>(const char* name) {
        if (make == nullptr && stored.is(config)) {
            sizes = detail::sizes_of(name, config);
            make = detail::make_opened<with_activation(config, AnyGelu{}), T>;
        }
    });
    if (make == nullptr) {
        if (!stored.faults.empty()) throw Error(stored.where, "the config contradicts the tensors:" + stored.faults);
        throw Error(stored.where,
                    "no architecture of the zoo fits; td::load<mine>(path) opens it, where heads are right, with\n"
                    "inline constexpr td::ClipConfig mine = " +
                        detail::constant_of(stored) + ";");
    }
    return AnyClip(std::move(sizes), options.towers, make(stored, {options.towers, options.check_finite}));
}

}  // namespace tandem::inline TANDEM_ABI
