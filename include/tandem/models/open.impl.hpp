// Definitions of models/open.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/models/architecture.hpp>
#include <tandem/models/constant_of.hpp>
#include <tandem/models/model_config.hpp>
#include <tandem/models/naming.hpp>
#include <tandem/models/open.hpp>
#include <tandem/models/unwrap.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE AnyClip::AnyClip(ModelSizes sizes, ModelParts parts, std::string where,
                               std::unique_ptr<const detail::OpenedModel> model)
    : sizes_(std::move(sizes)), parts_(parts), where_(std::move(where)), model_(std::move(model)) {}

TANDEM_INLINE float AnyClip::logit_scale() const {
    if (!parts_.logit_scale) throw Error(where_, "a logit_scale, which probabilities need", "a checkpoint without");
    return model_->logit_scale();
}

TANDEM_INLINE Tensor<float, Shape<dynamic, dynamic>> AnyClip::encode_image(std::span<const float> pixels,
                                                                           bool normalize) const {
    const std::size_t count = images("encode_image", pixels);
    require_embeddings(parts_.image_embeds);
    Tensor<float, Shape<dynamic, dynamic>> embeddings(count, sizes_.embedding);
    model_->encode_image(count, pixels.data(), normalize, embeddings.data());
    return embeddings;
}

TANDEM_INLINE Tensor<float, Shape<dynamic, dynamic>> AnyClip::encode_text(std::span<const Id> ids, bool normalize) const {
    const std::size_t count = captions("encode_text", ids);
    require_embeddings(parts_.text_embeds);
    Tensor<float, Shape<dynamic, dynamic>> embeddings(count, sizes_.embedding);
    model_->encode_text(count, ids.data(), normalize, embeddings.data());
    return embeddings;
}

TANDEM_INLINE Tensor<float, Shape<dynamic, dynamic, dynamic, dynamic>> AnyClip::image_attention(
    std::span<const float> pixels, int layer) const {
    const std::size_t count = images("image_attention", pixels), tokens = sizes_.image_tokens;
    require_tokens("image_attention");
    Tensor<float, Shape<dynamic, dynamic, dynamic, dynamic>> weights(count, sizes_.image_heads, tokens, tokens);
    model_->image_attention(count, pixels.data(), layer, weights.data());
    return weights;
}

TANDEM_INLINE Tensor<float, Shape<dynamic, dynamic, dynamic>> AnyClip::patch_embeddings(
    std::span<const float> pixels, PatchFeatures features) const {
    const std::size_t count = images("patch_embeddings", pixels);
    require_tokens("patch_embeddings");
    require_embeddings(parts_.image_embeds);
    Tensor<float, Shape<dynamic, dynamic, dynamic>> embeddings(count, sizes_.image_tokens - sizes_.image_prefix,
                                                               sizes_.embedding);
    model_->patch_embeddings(count, pixels.data(), features, embeddings.data());
    return embeddings;
}

TANDEM_INLINE Tensor<float, Shape<dynamic, dynamic, dynamic>> AnyClip::image_tokens(std::span<const float> pixels,
                                                                                    int layer, bool normed) const {
    const std::size_t count = images("image_tokens", pixels);
    require_tokens("image_tokens");
    Tensor<float, Shape<dynamic, dynamic, dynamic>> tokens(count, sizes_.image_tokens, sizes_.image_width);
    model_->image_tokens(count, pixels.data(), layer, normed, tokens.data());
    return tokens;
}

TANDEM_INLINE Tensor<float, Shape<dynamic, dynamic, dynamic>> AnyClip::text_tokens(std::span<const Id> ids, int layer,
                                                                                   bool normed) const {
    const std::size_t count = captions("text_tokens", ids);
    Tensor<float, Shape<dynamic, dynamic, dynamic>> tokens(count, sizes_.context, sizes_.text_width);
    model_->text_tokens(count, ids.data(), layer, normed, tokens.data());
    return tokens;
}

TANDEM_INLINE void AnyClip::require_embeddings(bool has) const {
    if (!has) throw Error(where_, "a projection, which leads to embeddings", "a tower without: it has tokens alone");
}

TANDEM_INLINE void AnyClip::require_tokens(const char* where) const {
    if (sizes_.image_tokens == 0)
        throw Error(std::string("AnyClip::") + where, "an image tower of transformer blocks", sizes_.architecture);
}

TANDEM_INLINE std::size_t AnyClip::images(const char* where, std::span<const float> pixels) const {
    if (!parts_.image) throw Error(where_, "an image tower", "a text tower alone");
    return items(where, pixels.size(), 3 * sizes_.image.area(), "floats");
}

TANDEM_INLINE std::size_t AnyClip::captions(const char* where, std::span<const Id> ids) const {
    if (!parts_.text) throw Error(where_, "a text tower", "an image tower alone");
    return items(where, ids.size(), sizes_.context, "ids");
}

TANDEM_INLINE std::size_t AnyClip::items(const char* where, std::size_t size, std::size_t each, const char* what) {
    if (size % each != 0)
        throw Error(std::string("AnyClip::") + where, "a multiple of " + std::to_string(each) + " " + what,
                    std::to_string(size));
    return size / each;
}

}  // namespace tandem::inline TANDEM_ABI

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE kernels::Activation StoredModel::gelu(const char* tower) const {
    const std::string name = value(tower);
    if (name == "gelu") return kernels::Activation::gelu;
    if (name == "quick_gelu") return kernels::Activation::quick_gelu;
    if (name == "gelu_pytorch_tanh") return kernels::Activation::tanh_gelu;
    if (!name.empty()) throw Error(where, "an activation of gelu, quick_gelu or gelu_pytorch_tanh", name);
    throw Error(where,
                "the folder of the weights, whose config says which GELU they were trained with, or that activation "
                "(--activation, OpenOptions::activation)",
                "neither");
}

[[gnu::cold]] TANDEM_INLINE std::optional<PackedFile> PackedCache::lend(const LoadTargets& targets, PackedIdentity identity,
                                                                       const StoredModel& stored, const LoadOptions& options,
                                                                       const std::function<void()>& load) const {
    // A constant with AnyGelu leaves open which; the weights alone would not tell.
    std::string choice = (prefix.empty() ? "" : "those behind " + in_quotes(prefix) + "; ") + (options.tokens_only ? "tokens only; " : "");
    for (const char* const activation : {"vision.activation", "text.activation"}) {
        const std::string chosen = stored.value(activation);
        if (chosen.empty() || !FieldValues(identity.architecture)(activation).empty()) continue;
        identity.architecture.push_back({activation, chosen, ""});
        choice += chosen + "; ";
    }
    identity.towers = options.towers;
    identity.source = choice + stored.files.stamp();
    identity.is_finite = options.check_finite;
    Digest place;
    for (const std::string& text : {std::filesystem::absolute(stored.where).lexically_normal().string(), choice, name_of(identity.towers)})
        place.add(std::span<const char>(text));
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    if (!std::filesystem::is_directory(folder)) throw Error(folder.string(), "a folder for packed copies", failed ? failed.message() : "a file");
    const std::string file = name + "-" + identity.precision + "-" + std::string(kernels::name_of(kernels::active_isa())) + "-" +
                             place.text() + ".safetensors";
    return lend_or_make(targets, identity, folder / file, verify, log, load);
}

[[gnu::cold]] TANDEM_INLINE ModelParts stored_parts(const WeightFiles& files, Towers towers) {
    const Naming naming(files);
    const auto has = [&](std::initializer_list<const char*> names) {
        return std::ranges::any_of(names, [&](const char* name) {
            // What is there and cannot be read is named later, with the reason.
            const std::string key = naming(name).names.front();
            return files.find(key) != nullptr || files.find_unreadable(key) != nullptr;
        });
    };
    ModelParts parts;
    parts.image = towers != Towers::text &&
                  has({"visual.conv1.weight", "visual.encoder.blocks.0.projection.project_conv.weight"});
    parts.text = towers != Towers::image && has({"token_embedding.weight"});
    parts.logit_scale = has({"logit_scale"});
    if (!parts.image || !parts.text) {
        const bool is_convolutional =
            has({"visual.layer1.0.conv1.weight", "visual.encoder.blocks.0.projection.project_conv.weight"});
        parts.image_embeds = parts.image && (is_convolutional || has({"visual.proj", "visual.attn_pool.latent"}));
        // A text tower that stands beside an image tower may do without (open_clip's proj_type none).
        const bool is_whole = has({"visual.conv1.weight"}) && has({"token_embedding.weight"});
        parts.text_embeds =
            parts.text && (is_whole || has({"text_projection", "text_projection.weight", "text_projection.0.weight"}));
    }
    return parts;
}

[[gnu::cold]] TANDEM_INLINE StoredModel stored_model(const std::filesystem::path& path, const WeightFiles& files,
                                                     const OpenOptions& options) {
    StoredModel stored{files, path.string(), {}, stored_parts(files, options.towers), {}, {}};
    if (!stored.parts.image && !stored.parts.text) {
        std::string some;
        for (std::size_t i = 0; i < std::min<std::size_t>(3, files.tensors().size()); ++i)
            some += (i == 0 ? ", such as " : ", ") + files.tensors()[i].name;
        throw Error(stored.where,
                    options.towers == Towers::both
                        ? "the tensors of a CLIP under the names of open_clip, OpenAI, timm or transformers"
                        : std::string("the tensors of ") + (options.towers == Towers::image ? "an image" : "a text") +
                              " tower under the names of open_clip, OpenAI, timm or transformers",
                    std::to_string(files.tensors().size()) + " others" + some);
    }
    if (std::filesystem::is_directory(path)) stored.fields = stored_architecture(path);
    for (ArchitectureField& size : stored_sizes(files)) {
        const bool is_usual = size.source.ends_with("by default");
        for (const ArchitectureField& said : stored.fields) {
            if (said.name == size.name && !is_usual && !said.value.empty() && !same_value(said.value, size.value))
                stored.faults += "\n  " + size.name + ": expected " + said.value + " (" + said.source + "), found " +
                                 size.value + " in the tensors";
        }
        // Where a config says it as well, it counts; where the two differ, loading names the tensors.
        const bool is_said =
            !stored.value(size.name).empty() || (size.name == "vision.grid" && !stored.value("vision.image").empty());
        if (!is_said) stored.fields.push_back(std::move(size));
    }
    for (const char* const name : {"vision.activation", "text.activation"}) {
        if (!options.activation.empty()) {
            for (const ArchitectureField& field : stored.fields) {
                if (field.name == name && field.source.find(".json") != std::string::npos &&
                    field.value != options.activation)
                    throw Error(stored.where,
                                "activation " + field.value + ", as the config says (" + field.source + ")",
                                options.activation);
            }
            std::erase_if(stored.fields, [&](const ArchitectureField& field) { return field.name == name; });
            stored.fields.push_back({name, options.activation, "OpenOptions::activation"});
        }
    }
    stored.whole = stored.fields;
    std::erase_if(stored.fields, [&](const ArchitectureField& field) {
        if (field.name.starts_with("vision.")) return !stored.parts.image;
        if (field.name.starts_with("text.")) return !stored.parts.text;
        // A tower's config has a default for the width of a projection that it may lack.
        if (field.name == "embedding")
            return !(stored.parts.image ? stored.parts.image_embeds : stored.parts.text_embeds);
        return !stored.parts.image || !stored.parts.text;
    });
    return stored;
}

TANDEM_INLINE void throw_unknown_architecture(const StoredModel& stored, const WeightFiles& files) {
    if (!stored.faults.empty()) throw Error(stored.where, "the config contradicts the tensors:" + stored.faults);
    const ModelParts all = stored_parts(files, Towers::both);
    const std::string one = all.image && all.text ? ""
                            : all.text            ? ", {.towers = td::Towers::text}"
                                                  : ", {.towers = td::Towers::image}";
    throw Error(stored.where, "no architecture of the zoo fits; td::load<mine>(path" + one +
                                  ") opens it, where heads are right, with\n"
                                  "inline constexpr td::ClipConfig mine = " +
                                  constant_of(stored.whole) + ";");
}

TANDEM_INLINE WeightFiles open_files(const std::filesystem::path& path, const OpenOptions& options) {
    WeightFiles files = WeightFiles::open(path);
    for (const std::string& note : unwrap(files, path.string(), options.towers, options.prefix)) {
        if (options.log != nullptr) *options.log << path.string() << ": " << note << '\n';
    }
    return files;
}

}  // namespace tandem::inline TANDEM_ABI::detail
