// A checkpoint of any architecture of the zoo, which the checkpoint itself names: for programs, not for research code.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/models/architecture.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/constant_of.hpp>
#include <tandem/models/model_config.hpp>
#include <tandem/models/packed_file.hpp>
#include <tandem/models/unwrap.hpp>
#include <tandem/models/zoo.hpp>

namespace tandem::inline TANDEM_ABI {

/// What open() reads, and what the files do not tell it.
struct OpenOptions {
    Towers towers = Towers::both;
    bool check_finite = false;  ///< infinities and NaN among the weights are refused
    /// The GELU of weights that come without a config: gelu, quick_gelu or gelu_pytorch_tanh. Empty: what the config
    /// says.
    std::string activation{};
    std::string prefix{};            ///< as LoadOptions::prefix
    std::ostream* log = &std::clog;  ///< as LoadOptions::log
    /// A folder of packed copies: weights of what was opened once are mapped from there, shared between processes, and neither
    /// read nor packed again. A copy is made where there is none of the files as they are now, for this precision and instruction
    /// set.
    std::filesystem::path cache{};
    bool verify_cache = false;  ///< every tensor of a copy is held against its checksum; a damaged copy is made anew
};

/// The sizes of a model whose architecture is known at run time. Those of a tower that is not there are 0.
struct ModelSizes {
    std::string architecture;  ///< the zoo's name of it
    ImageSize image{0};
    std::size_t context = 0;
    std::size_t embedding = 0;                    ///< 0 where no projection leads to embeddings
    std::size_t image_width = 0, text_width = 0;  ///< of the towers' tokens; a convolutional tower has none
    std::size_t text_layers = 0;
    std::size_t image_tokens = 0, image_prefix = 0;  ///< tokens of an image, and how many of them stand before the
                                                     ///< patches; a convolutional tower has none
    std::size_t image_heads = 0, image_layers = 0;
    std::size_t image_patch = 0;  ///< the side of a patch in pixels
};

namespace detail {

/// What a model does, whatever its architecture.
class OpenedModel {
public:
    virtual ~OpenedModel() = default;
    virtual void encode_image(std::size_t count, const float* pixels, bool normalize, float* embeddings) const = 0;
    virtual void encode_text(std::size_t count, const Id* ids, bool normalize, float* embeddings) const = 0;
    virtual void image_attention(std::size_t count, const float* pixels, int layer, float* weights) const = 0;
    virtual void patch_embeddings(std::size_t count, const float* pixels, PatchFeatures features, float* embeddings) const = 0;
    virtual void image_tokens(std::size_t count, const float* pixels, int layer, bool normed, float* tokens) const = 0;
    virtual void text_tokens(std::size_t count, const Id* ids, int layer, bool normed, float* tokens) const = 0;
    virtual float logit_scale() const = 0;
    virtual std::optional<float> logit_bias() const = 0;
    virtual std::string checksum() const = 0;
};

}  // namespace detail

/// What of a model a checkpoint has.
struct ModelParts {
    bool image = true, text = true;                ///< the towers
    bool image_embeds = true, text_embeds = true;  ///< what leads from their tokens to embeddings
    bool logit_scale = true;
};

/// A model of any architecture of the zoo, with the weights that td::open found. Sizes are run-time numbers here, so
/// that one program serves all of them; where the architecture is known, td::load<config> gives a Clip, whose types
/// carry them. It infers. Of a checkpoint that lacks a tower, a projection or the logit scale, what needs it is an
/// Error.
class AnyClip {
public:
    AnyClip(ModelSizes sizes, ModelParts parts, std::string where, std::unique_ptr<const detail::OpenedModel> model);

    const ModelSizes& sizes() const { return sizes_; }
    const ModelParts& parts() const { return parts_; }
    float logit_scale() const;
    /// Of models that were trained with the sigmoid loss.
    std::optional<float> logit_bias() const { return parts_.logit_scale ? model_->logit_bias() : std::nullopt; }
    /// Of all weights, as they are packed here, in sixteen digits; empty where they were not mapped (OpenOptions::cache).
    std::string checksum() const { return model_->checksum(); }

    /// pixels [N, 3, height, width], preprocessed, to embeddings <N, embedding>, of length 1 unless they are not to be
    /// normalised. Throws Error for pixels that are no whole images, and if the image tower was not loaded.
    Tensor<float, Shape<dynamic, dynamic>> encode_image(std::span<const float> pixels, bool normalize = true) const;

    /// ids [N, context] to embeddings <N, embedding>, with the same choice and errors.
    Tensor<float, Shape<dynamic, dynamic>> encode_text(std::span<const Id> ids, bool normalize = true) const;

    /// The attention weights of a block of the image tower, counted from 0, or from the back: <N, heads, tokens,
    /// tokens>.
    Tensor<float, Shape<dynamic, dynamic, dynamic, dynamic>> image_attention(std::span<const float> pixels,
                                                                             int layer = -1) const;

    /// The embedding, of length 1, that every patch alone would give: what the last block leaves of it behind the
    /// tower's norm, pooling and projection. <N, patches, embedding>, patches row by row. Their cosines with a caption
    /// say where in the image it is, better with other features than plain.
    Tensor<float, Shape<dynamic, dynamic, dynamic>> patch_embeddings(std::span<const float> pixels,
                                                                     PatchFeatures features = PatchFeatures::plain) const;

    /// What Clip::image_tokens gives, <N, tokens, image_width>.
    Tensor<float, Shape<dynamic, dynamic, dynamic>> image_tokens(std::span<const float> pixels, int layer = -1,
                                                                 bool normed = false) const;

    /// What Clip::text_tokens gives, <N, context, text_width>.
    Tensor<float, Shape<dynamic, dynamic, dynamic>> text_tokens(std::span<const Id> ids, int layer = -1,
                                                                bool normed = false) const;

private:
    void require_embeddings(bool has) const;
    void require_tokens(const char* where) const;
    std::size_t images(const char* where, std::span<const float> pixels) const;
    std::size_t captions(const char* where, std::span<const Id> ids) const;
    static std::size_t items(const char* where, std::size_t size, std::size_t each, const char* what);

    ModelSizes sizes_;
    ModelParts parts_;
    std::string where_;  ///< what was opened
    std::unique_ptr<const detail::OpenedModel> model_;
};

namespace detail {

/// What a checkpoint tells of its architecture.
struct StoredModel {
    const WeightFiles& files;
    std::string where;
    std::vector<ArchitectureField> fields;  ///< of the towers asked for
    ModelParts parts;                       ///< likewise
    std::vector<ArchitectureField> whole;   ///< of all that stands in the checkpoint
    std::string faults;                     ///< where configs and tensors differ

    std::string value(std::string_view name) const { return FieldValues(fields)(name); }
    /// Whether nothing in it contradicts a constant.
    [[gnu::cold]] bool is(const auto& config) const {
        const std::vector<ArchitectureField> ours = whole_fields(config);
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
    kernels::Activation gelu(const char* tower) const;
};

/// Where packed copies of what is opened are kept; nowhere without a folder.
struct PackedCache {
    std::filesystem::path folder;
    std::string name;    ///< of the architecture
    std::string prefix;  ///< OpenOptions::prefix
    std::ostream* log;
    bool verify;  ///< OpenOptions::verify_cache

    std::optional<PackedFile> lend(const LoadTargets& targets, PackedIdentity identity, const StoredModel& stored, const LoadOptions& options,
                    const std::function<void()>& load) const;
};

template <auto config, Arithmetic T>
class OpenedClip final : public OpenedModel {
    using Model = Clip<config, T>;
    using Vision = typename Model::Vision;
    using Text = typename Model::Text;
    using Rows = View<float, Shape<dynamic, Model::embedding>>;

public:
    OpenedClip(const StoredModel& stored, const LoadOptions& options, std::string_view assumed, const PackedCache& cache) {
        if constexpr (has_any_gelu<decltype(config.vision)>) {
            if (stored.parts.image) model_.visual().set_gelu(stored.gelu("vision.activation"));
        }
        if constexpr (has_any_gelu<decltype(config.text)>) {
            if (stored.parts.text) model_.text().set_gelu(stored.gelu("text.activation"));
        }
        const auto load = [&] { load_plain_weights(model_, stored.files, stored.where, options, assumed); };
        if (cache.folder.empty())
            load();
        else
            file_ = cache.lend(LoadTargets(model_), packed_identity<config, T>(), stored, options, load);
    }

    void encode_image(std::size_t count, const float* pixels, bool normalize, float* embeddings) const override {
        model_.encode_image(input(count, pixels), Rows(embeddings, {{count, Model::embedding}}), normalize);
    }
    void encode_text(std::size_t count, const Id* ids, bool normalize, float* embeddings) const override {
        model_.encode_text(typename Text::Input(ids, {{count, Text::context}}),
                           Rows(embeddings, {{count, Model::embedding}}), normalize);
    }
    void image_attention(std::size_t count, const float* pixels, int layer, float* weights) const override {
        if constexpr (is_transformer) {
            const auto found = model_.image_attention(input(count, pixels), layer);
            std::copy_n(found.data(), found.size(), weights);
        }
    }
    void patch_embeddings(std::size_t count, const float* pixels, PatchFeatures features, float* embeddings) const override {
        if constexpr (is_transformer) {
            const auto found = model_.patch_embeddings(input(count, pixels), features);
            std::copy_n(found.data(), found.size(), embeddings);
        }
    }
    void image_tokens(std::size_t count, const float* pixels, int layer, bool normed, float* tokens) const override {
        if constexpr (is_transformer) {
            const auto found = model_.image_tokens(input(count, pixels), layer, normed);
            std::copy_n(found.data(), found.size(), tokens);
        }
    }
    void text_tokens(std::size_t count, const Id* ids, int layer, bool normed, float* tokens) const override {
        const auto found = model_.text_tokens(typename Text::Input(ids, {{count, Text::context}}), layer, normed);
        std::copy_n(found.data(), found.size(), tokens);
    }
    float logit_scale() const override { return model_.logit_scale(); }
    std::string checksum() const override { return file_ ? file_->checksum() : ""; }
    std::optional<float> logit_bias() const override {
        if constexpr (config.logit_bias) {
            return model_.logit_bias();
        } else {
            return std::nullopt;
        }
    }

private:
    static constexpr bool is_transformer = requires { config.vision.tokens(); };
    template <class Tower>
    static constexpr bool has_any_gelu = requires(const Tower& tower) {
        requires std::is_same_v<std::remove_cvref_t<decltype(tower.activation)>, AnyGelu>;
    };

    static typename Vision::Input input(std::size_t count, const float* pixels) {
        constexpr ImageSize image = config.vision.image;
        return typename Vision::Input(pixels, {{count, 3, image.height, image.width}});
    }

    Model model_;
    std::optional<PackedFile> file_;
};

using MakeOpenedModel = std::unique_ptr<const OpenedModel> (*)(const StoredModel& stored, const LoadOptions& options,
                                                               std::string_view assumed, const PackedCache& cache);

template <auto config, Arithmetic T>
std::unique_ptr<const OpenedModel> make_opened(const StoredModel& stored, const LoadOptions& options,
                                               std::string_view assumed, const PackedCache& cache) {
    return std::make_unique<OpenedClip<config, T>>(stored, options, assumed, cache);
}

[[gnu::cold]] ModelSizes sizes_of(const char* name, const auto& config, const ModelParts& parts) {
    ModelSizes sizes{.architecture = std::string(parts.image && parts.text ? ""
                                                 : parts.text              ? "text tower of "
                                                                           : "image tower of ") +
                                     name};
    const bool embeds = parts.image ? parts.image_embeds : parts.text_embeds;
    if (embeds) sizes.embedding = config.embedding;
    if (parts.image) sizes.image = config.vision.image;
    if (parts.text) {
        sizes.context = config.text.context;
        sizes.text_width = config.text.width;
        sizes.text_layers = config.text.layers;
    }
    if constexpr (requires { config.vision.tokens(); }) {
        if (parts.image) {
            sizes.image_tokens = config.vision.tokens();
            sizes.image_prefix = config.vision.prefix();
            sizes.image_heads = config.vision.heads;
            sizes.image_layers = config.vision.layers;
            sizes.image_patch = config.vision.patch;
            sizes.image_width = config.vision.width;
        }
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
    visit.template operator()<vit_so400m_16_siglip_i18n_256_head>("vit_so400m_16_siglip_i18n_256_head");
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
    visit.template operator()<vit_h_14_penultimate>("vit_h_14_penultimate");
}

/// Throws the Error of a model that is none of the zoo's.
[[noreturn]] void throw_unknown_architecture(const StoredModel& stored, const WeightFiles& files);

/// Calls visit.operator()<config>(name) for the architecture of the zoo that a checkpoint has. Throws Error if it has
/// none.
template <class Visit>
void with_architecture(const StoredModel& stored, const WeightFiles& files, const Visit& visit) {
    bool is_known = false;
    for_each_architecture([&]<auto config>(const char* name) {
        if (is_known || !stored.is(config)) return;
        is_known = true;
        visit.template operator()<config>(name);
    });
    if (!is_known) throw_unknown_architecture(stored, files);
}

/// What of a model the tensors are, by those that every tower, projection and so on has.
ModelParts stored_parts(const WeightFiles& files, Towers towers);

/// The files of a checkpoint, their names without what trainers put around them.
WeightFiles open_files(const std::filesystem::path& path, const OpenOptions& options);

/// Reads what configs and shapes tell, and settles the activations.
StoredModel stored_model(const std::filesystem::path& path, const WeightFiles& files, const OpenOptions& options);

}  // namespace detail

/// An architecture of a program's own, for open() to know beside the zoo's.
template <class Config, std::size_t Size>
struct Named {
    char name[Size]{};
    Config config;

    constexpr Named(const char (&text)[Size], Config of) : config(of) { std::copy_n(text, Size, name); }
};

/// A model with the weights of `path`, a file or a folder as load() takes it, of the architecture among `own` and the zoo
/// that its config and the shapes of its tensors tell (own ones first, each with the activation of its constant); or one tower of such a model, as transformers saves its
/// CLIPTextModel, CLIPVisionModelWithProjection, SiglipVisionModel and so on (Stable Diffusion's text_encoder/,
/// IP-Adapter's image_encoder/). Weights without a config do not say which GELU they were trained with: then
/// options.activation must, but for OpenAI's own archives. Throws Error with what load() does, and for an architecture
/// outside the zoo with the constant that td::load needs.
template <Arithmetic T = float, Named... own>
AnyClip open(const std::filesystem::path& path, const OpenOptions& options = {}) {
    WeightFiles files = detail::open_files(path, options);
    const detail::StoredModel stored = detail::stored_model(path, files, options);
    const ModelParts& parts = stored.parts;
    ModelSizes sizes;
    std::string name;
    detail::MakeOpenedModel make = nullptr;
    const auto choose = [&]<auto config>(const char* known) {
        name = known;
        sizes = detail::sizes_of(known, config, parts);
        make = detail::make_opened<config, T>;
    };
    ((make == nullptr && stored.is(own.config) ? choose.template operator()<own.config>(own.name) : void()), ...);
    if (make == nullptr) {
        detail::with_architecture(stored, files, [&]<auto config>(const char* known) {
            choose.template operator()<with_activation(config, AnyGelu{})>(known);
        });
    }
    const LoadOptions load{.towers = parts.image && parts.text ? Towers::both
                                     : parts.text              ? Towers::text
                                                               : Towers::image,
                           .check_finite = options.check_finite,
                           .tokens_only = !(parts.image ? parts.image_embeds : parts.text_embeds)};
    const bool has_config = std::ranges::any_of(
        stored.fields, [](const auto& field) { return field.source.find(".json") != std::string::npos; });
    return AnyClip(
        std::move(sizes), parts, path.string(),
        make(stored, load, name + (has_config ? ", as the config says" : ", as the shapes of the tensors say"),
             {options.cache, name, options.prefix, options.log, options.verify_cache}));
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/open.impl.hpp>
#endif
