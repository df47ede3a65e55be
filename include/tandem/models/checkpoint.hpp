// Weights in files: saved under open_clip's names, loaded from open_clip's, OpenAI's, timm's or transformers'.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/data/filter.hpp>
#include <tandem/data/model_folder.hpp>
#include <tandem/data/safetensors.hpp>
#include <tandem/data/weight_files.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/efficientnet.hpp>
#include <tandem/models/resnet.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a checkpoint is loaded for. Weights of a tower that is not are left as they are; they take no memory in a model
/// that was made empty.
enum class Towers { both, image, text };

struct LoadOptions {
    Towers towers = Towers::both;
    bool check_finite = false;  ///< infinities and NaN among the weights are refused
};

namespace detail {

/// The tensors of a file that make up one parameter: their rows one after the other, transposed where said; of one that
/// several parameters share, the rows from share `first` to share `last` of `shares`.
struct Source {
    std::vector<std::string> names;
    bool transposed = false;
    std::size_t first = 0, last = 1, shares = 1;
    bool is_temperature = false;  ///< its reciprocal's logarithm is the parameter
};

inline bool replace_prefix(std::string& text, std::string_view from, std::string_view to) {
    if (!text.starts_with(from)) return false;
    text.replace(0, from.size(), to);
    return true;
}

/// Where transformers' SiglipModel keeps a parameter of the attention pooling (modeling_siglip.py,
/// SiglipMultiheadAttentionPoolingHead; torch.nn.MultiheadAttention has queries, keys and values in one matrix).
[[gnu::cold]] inline Source transformers_pool_source(std::string name) {
    const std::string at = "vision_model.head.";
    const auto rows = [&](const char* kind, std::size_t first, std::size_t last) {
        return Source{{at + "attention.in_proj_" + kind}, false, first, last, 3};
    };
    if (name == "latent") return {{at + "probe"}};
    if (name == "q.weight") return rows("weight", 0, 1);
    if (name == "q.bias") return rows("bias", 0, 1);
    if (name == "kv.weight") return rows("weight", 1, 3);
    if (name == "kv.bias") return rows("bias", 1, 3);
    replace_prefix(name, "proj.", "attention.out_proj.") || replace_prefix(name, "norm.", "layernorm.");
    return {{at + name}};
}

/// Where transformers' CLIPModel and SiglipModel keep the parameter open_clip calls `name`. The pairs are those of
/// transformers' convert_clip_original_pytorch_to_hf.py and convert_siglip_to_hf.py.
[[gnu::cold]] inline Source transformers_source(std::string name) {
    if (name == "visual.proj") return {{"visual_projection.weight"}, true};
    if (name == "text_projection") return {{"text_projection.weight"}, true};
    if (name == "logit_scale" || name == "logit_bias") return {{name}};
    if (replace_prefix(name, "text_projection.", "text_model.head.")) return {{name}};  // SigLIP's has a bias
    if (replace_prefix(name, "visual.attn_pool.", "")) return transformers_pool_source(name);
    const std::string tower = replace_prefix(name, "visual.", "") ? "vision_model." : "text_model.";
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        const std::string at = tower + "encoder.layers." + name.substr(0, dot + 1);
        std::string part = name.substr(dot + 1);
        if (part == "attn.in_proj_weight" || part == "attn.in_proj_bias") {
            const std::string kind = part == "attn.in_proj_weight" ? "weight" : "bias";
            return {
                {at + "self_attn.q_proj." + kind, at + "self_attn.k_proj." + kind, at + "self_attn.v_proj." + kind}};
        }
        replace_prefix(part, "ln_1.", "layer_norm1.") || replace_prefix(part, "ln_2.", "layer_norm2.") ||
            replace_prefix(part, "attn.", "self_attn.") || replace_prefix(part, "mlp.c_fc.", "mlp.fc1.") ||
            replace_prefix(part, "mlp.c_proj.", "mlp.fc2.");
        return {{at + part}};
    }
    replace_prefix(name, "conv1.", "embeddings.patch_embedding.") ||
        replace_prefix(name, "class_embedding", "embeddings.class_embedding") ||
        replace_prefix(name, "positional_embedding", "embeddings.position_embedding.weight") ||
        replace_prefix(name, "token_embedding.", "embeddings.token_embedding.") ||
        replace_prefix(name, "ln_pre.", "pre_layrnorm.") || replace_prefix(name, "ln_post.", "post_layernorm.") ||
        replace_prefix(name, "ln_final.", "final_layer_norm.");
    return {{tower + name}};
}

/// Where transformers' BertModel and XLMRobertaModel keep the text parameter that open_clip's own tower calls `name`, behind
/// `at`; what stands behind the model, open_clip's HFTextEncoder keeps in `proj`, transformers' AlignModel beside it.
[[gnu::cold]] inline Source bert_source(std::string name, const std::string& at) {
    if (name.starts_with("text_projection")) {
        if (replace_prefix(name, "text_projection.0.", "0.") || replace_prefix(name, "text_projection.2.", "2."))
            return {{"text.proj." + name}};
        return {{name}};
    }
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        const std::string layer = at + "encoder.layer." + name.substr(0, dot + 1);
        std::string part = name.substr(dot + 1);
        if (replace_prefix(part, "attn.in_proj_", "")) {
            const std::string self = layer + "attention.self.";
            return {{self + "query." + part, self + "key." + part, self + "value." + part}};
        }
        replace_prefix(part, "attn.out_proj.", "attention.output.dense.") ||
            replace_prefix(part, "ln_1.", "attention.output.LayerNorm.") ||
            replace_prefix(part, "mlp.c_fc.", "intermediate.dense.") ||
            replace_prefix(part, "mlp.c_proj.", "output.dense.") || replace_prefix(part, "ln_2.", "output.LayerNorm.");
        return {{layer + part}};
    }
    replace_prefix(name, "token_embedding.", "word_embeddings.") ||
        replace_prefix(name, "positional_embedding", "position_embeddings.weight") ||
        replace_prefix(name, "token_type_embedding", "token_type_embeddings.weight") ||
        replace_prefix(name, "ln_embed.", "LayerNorm.");
    return {{at + "embeddings." + name}};
}

/// Where open_clip's TimmModel keeps the image parameter open_clip's own tower calls `name`: under the names of
/// timm/models/vision_transformer.py.
[[gnu::cold]] inline Source timm_source(std::string name) {
    replace_prefix(name, "visual.", "");
    if (name == "proj") return {{"visual.head.proj.weight"}, true};
    if (replace_prefix(name, "proj.", "visual.head.proj.")) return {{name}};
    const std::string at = "visual.trunk.";
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        std::string part = name.substr(dot + 1);
        static constexpr std::array<std::array<std::string_view, 2>, 10> names{{{"ln_1.", "norm1."},
                                                                                {"ln_2.", "norm2."},
                                                                                {"attn.in_proj_", "attn.qkv."},
                                                                                {"attn.out_proj.", "attn.proj."},
                                                                                {"attn.ln_q.", "attn.q_norm."},
                                                                                {"attn.ln_k.", "attn.k_norm."},
                                                                                {"mlp.c_fc.", "mlp.fc1."},
                                                                                {"mlp.c_proj.", "mlp.fc2."},
                                                                                {"ls_1.", "ls1."},
                                                                                {"ls_2.", "ls2."}}};
        for (const auto& [ours, theirs] : names) {
            if (replace_prefix(part, ours, theirs)) break;
        }
        return {{at + "blocks." + name.substr(0, dot + 1) + part}};
    }
    replace_prefix(name, "conv1.", "patch_embed.proj.") || replace_prefix(name, "class_embedding", "cls_token") ||
        replace_prefix(name, "positional_embedding", "pos_embed") || replace_prefix(name, "ln_pre.", "norm_pre.") || replace_prefix(name, "ln_post.", "norm.");
    return {{at + name}};
}

/// How the parameters of a file are named, told from the names themselves.
class Naming {
public:
    explicit Naming(const WeightFiles& file) {
        for (const StoredTensor& tensor : file.tensors()) {
            std::string_view name = tensor.name;
            if (name.starts_with("module.")) {
                module_prefix_ = true;
                name.remove_prefix(7);
            }
            transformers_ = transformers_ || name.starts_with("vision_model.") || name.starts_with("text_model.");
            timm_ = timm_ || name.starts_with("visual.trunk.");
            temperature_ = temperature_ || name == "temperature";
            text_prefix_ = text_prefix_ || name.starts_with("text.");
            if (const std::size_t end = name.find("embeddings.word_embeddings.weight"); end != std::string_view::npos)
                bert_ = name.substr(0, end);
        }
    }

    Source operator()(const std::string& name) const {
        Source source = in_scheme(name);
        if (module_prefix_) {
            for (std::string& key : source.names) key.insert(0, "module.");
        }
        return source;
    }

    /// Buffers, not weights: masks, position lists, and what OpenAI's archives add (CLIP/clip/model.py:430).
    static bool is_ignored(std::string_view name) {
        return name.ends_with("position_ids") || name.ends_with("token_type_ids") || name.ends_with("attn_mask") || name.ends_with("num_batches_tracked") ||
               name.starts_with("text_model.pooler.") || name == "input_resolution" ||
               name == "context_length" || name == "vocab_size";
    }

private:
    Source in_scheme(const std::string& name) const {
        const bool of_text = !name.starts_with("visual.") && !name.starts_with("logit_");
        if (temperature_ && name == "logit_scale") return {.names = {"temperature"}, .is_temperature = true};
        if (bert_ && of_text) return bert_source(name, *bert_);
        if (transformers_) return transformers_source(name);
        if (timm_ && name.starts_with("visual.")) return timm_source(name);
        return {{(text_prefix_ && of_text ? "text." : "") + name}};
    }

    std::optional<std::string> bert_;  ///< what stands before the names of a BERT
    bool temperature_ = false, transformers_ = false, timm_ = false, text_prefix_ = false, module_prefix_ = false;
};

/// The shape the file must hold each of `parts` tensors in.
inline std::vector<std::size_t> stored_shape(std::vector<std::size_t> shape, const Source& source) {
    if (source.transposed) std::reverse(shape.begin(), shape.end());
    if (!shape.empty()) shape[0] = shape[0] / source.names.size() / (source.last - source.first) * source.shares;
    return shape;
}

template <std::size_t Rank>
std::vector<std::size_t> shape_of(const Extents<Rank>& extents) {
    return {extents.value, extents.value + Rank};
}

inline bool is_floating(DataType type) {
    return type == DataType::F32 || type == DataType::F16 || type == DataType::BF16 || type == DataType::F64;
}

/// Up to axes of 1 in front: a scalar may be stored as [] or [1], positions with an axis for the batch.
inline bool same_shape(std::span<const std::size_t> a, std::span<const std::size_t> b) {
    while (!a.empty() && a.front() == 1) a = a.subspan(1);
    while (!b.empty() && b.front() == 1) b = b.subspan(1);
    return std::ranges::equal(a, b);
}

/// The rows of a stored tensor that a source names.
inline StoredTensor rows_of(StoredTensor stored, const Source& source) {
    if (source.shares == 1) return stored;
    const std::size_t share = stored.data.size() / source.shares;
    stored.data = stored.data.subspan(source.first * share, (source.last - source.first) * share);
    stored.shape[0] = stored.shape[0] / source.shares * (source.last - source.first);
    return stored;
}

/// How many elements of a floating-point tensor are infinite or NaN: whose exponent's bits are all set.
[[gnu::cold]] inline std::size_t count_not_finite(const StoredTensor& tensor) {
    const auto count = [&]<class Word>(Word exponent) {
        std::size_t found = 0;
        for (std::size_t at = 0; at < tensor.data.size(); at += sizeof(Word)) {
            Word word;
            std::memcpy(&word, tensor.data.data() + at, sizeof word);
            found += static_cast<std::size_t>((word & exponent) == exponent);
        }
        return found;
    };
    if (tensor.type == DataType::F32) return count(std::uint32_t{0x7f800000});
    if (tensor.type == DataType::F16) return count(std::uint16_t{0x7c00});
    if (tensor.type == DataType::BF16) return count(std::uint16_t{0x7f80});
    return count(std::uint64_t{0x7ff0000000000000});
}

class CheckpointFit;

/// A parameter to be loaded, its type erased: `read` knows what `parameter` points to, elements or a packed weight.
struct LoadTarget {
    std::string name;
    std::vector<std::size_t> shape;
    void* parameter;
    std::size_t size;
    void (*read)(const CheckpointFit& fit, const LoadTarget& target);
};

/// The side of the square that so many patches make up, or 0.
inline std::size_t side_of_square(std::size_t patches) {
    const auto side = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(patches))));
    return side * side == patches ? side : 0;
}

/// Holds a file against a model, parameter by parameter, and collects every fault. No template: what a model's many
/// tensor types share is compiled once.
class CheckpointFit {
public:
    explicit CheckpointFit(const WeightFiles& file) : file_(file), naming_(file), used_(file.tensors().size()), used_unreadable_(file.unreadable().size()) {}

    /// A tensor that a file may have and the model does without: it computes it.
    void expect_computed(const std::string& name) {
        if (const StoredTensor* const stored = file_.find(naming_(name).names.front()); stored != nullptr)
            used_[position_of(*stored)] = true;
    }

    /// Image positions of another number of patches are resized to `grid`; behind `prefix` rows the file's are those of a
    /// square, as open_clip takes them to be.
    void resize_positions(std::string name, std::size_t prefix, const ImageSize& grid) {
        positions_ = std::move(name);
        prefix_ = prefix;
        grid_ = grid;
    }

    /// Reads the parameters of a model's towers, or throws before it has read any.
    void load(const std::vector<LoadTarget>& targets, std::string_view where, const LoadOptions& options) {
        for (const LoadTarget& target : targets) check(target, options);
        require(where);
        for (const LoadTarget& target : targets) {
            const Towers needed = target.name.starts_with("visual.")  ? Towers::image
                                  : target.name.starts_with("logit_") ? Towers::both
                                                                      : Towers::text;
            if (options.towers == Towers::both || needed == Towers::both || needed == options.towers) target.read(*this, target);
        }
    }

    /// Reads a tensor of elements T.
    template <class T>
    static void read(const CheckpointFit& fit, const LoadTarget& target) {
        fit.read_into(target, std::span<T>(static_cast<T*>(target.parameter), target.size));
    }

    /// Reads a weight kept in panels.
    template <class T>
    static void read_packed(const CheckpointFit& fit, const LoadTarget& target) {
        using E = typename PackedWeight<T>::element;
        PackedWeight<T>& weight = *static_cast<PackedWeight<T>*>(target.parameter);
        const Source source = fit.naming_(target.name);
        const StoredTensor& whole = *fit.file_.find(source.names.front());
        const StoredTensor stored = rows_of(whole, source);
        const bool is_aligned = reinterpret_cast<std::uintptr_t>(stored.data.data()) % alignof(E) == 0;
        if (source.names.size() == 1 && !source.transposed && stored.type == data_type_of<E>() && is_aligned) {
            weight.pack(reinterpret_cast<const E*>(stored.data.data()));
            return fit.file_.forget(whole);
        }
        Buffer<E> values(target.size);
        fit.read_into(target, std::span(values.data(), values.size()));
        weight.pack(values.data());
    }

private:
    template <class T>
    void read_into(const LoadTarget& target, std::span<T> elements) const {
        const Source source = naming_(target.name);
        const std::size_t part = elements.size() / source.names.size();
        for (std::size_t i = 0; i < source.names.size(); ++i) {
            const StoredTensor& stored = *file_.find(source.names[i]);
            if (elements_of(stored.shape) == part * source.shares / (source.last - source.first)) {
                read_elements(rows_of(stored, source), elements.subspan(i * part, part));
            } else {
                read_resized(stored, target.shape, elements);
            }
            file_.forget(stored);
        }
        if (source.is_temperature) {
            for (T& x : elements) x = static_cast<T>(static_cast<Compute<T>>(-std::log(static_cast<double>(static_cast<Compute<T>>(x)))));
        }
        if (!source.transposed) return;
        const std::vector<T> stored(elements.begin(), elements.end());
        const std::size_t rows = target.shape[0], columns = target.shape[1];
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) elements[i * columns + j] = stored[j * rows + i];
        }
    }

    static std::size_t elements_of(std::span<const std::size_t> shape) {
        return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
    }

    bool resizes(const std::string& name, std::span<const std::size_t> stored, std::span<const std::size_t> wanted) const {
        if (name != positions_ || stored.size() < 2 || stored.back() != wanted.back())
            return false;
        const std::size_t rows = elements_of(stored) / stored.back();
        return rows > prefix_ && side_of_square(rows - prefix_) > 0;
    }

    template <class T>
    void read_resized(const StoredTensor& stored, const std::vector<std::size_t>& shape, std::span<T> elements) const {
        const std::size_t width = shape[1], rows = elements_of(stored.shape) / width;
        std::vector<float> table(rows * width);
        read_elements(stored, std::span(table));
        const std::vector<float> resized =
            detail::resize_positions(table, prefix_, side_of_square(rows - prefix_), grid_, width);
        std::ranges::transform(resized, elements.begin(), [](float x) { return static_cast<T>(x); });
    }

    std::size_t position_of(const StoredTensor& tensor) const {
        return static_cast<std::size_t>(&tensor - file_.tensors().data());
    }
    std::size_t position_of(const UnreadableTensor& tensor) const {
        return static_cast<std::size_t>(&tensor - file_.unreadable().data());
    }

    [[gnu::cold]] void check(const LoadTarget& target, const LoadOptions& options) {
        const Source source = naming_(target.name);
        const auto expected = stored_shape(target.shape, source);
        for (const std::string& key : source.names) {
            const StoredTensor* stored = file_.find(key);
            if (stored != nullptr) used_[position_of(*stored)] = true;
            if (const UnreadableTensor* unreadable = stored == nullptr ? file_.find_unreadable(key) : nullptr) {
                used_unreadable_[position_of(*unreadable)] = true;
                faults_ += "\n  " + key + ": " + unreadable->reason;
            } else if (const std::string fault = fault_of(stored, target, expected, options); !fault.empty()) {
                faults_ += "\n  " + key + ": " + fault;
            }
        }
    }

    [[gnu::cold]] std::string fault_of(const StoredTensor* stored, const LoadTarget& target,
                                       const std::vector<std::size_t>& expected, const LoadOptions& options) const {
        if (stored == nullptr) return "missing";
        if (!same_shape(stored->shape, expected) && !resizes(target.name, stored->shape, expected))
            return "expected " + shape_text(expected) + ", found " + shape_text(stored->shape);
        if (!is_floating(stored->type)) {
            return "expected elements of F64, F32, F16 or BF16, found " + std::string(tandem::name(stored->type)) +
                   "; save it as tensor.float()";
        }
        if (!options.check_finite) return {};
        const std::size_t count = count_not_finite(*stored);
        file_.forget(*stored);  // or all of the file would be held at once
        if (count > 0) return "expected finite elements, found " + std::to_string(count) + " that are infinite or NaN";
        return {};
    }

    /// Throws if any parameter did not fit, or the file has a tensor that none asked for, readable or not.
    [[gnu::cold]] void require(std::string_view where) {
        for (const UnreadableTensor& tensor : file_.unreadable()) {
            if (tensor.is_tensor && !used_unreadable_[position_of(tensor)] && !Naming::is_ignored(tensor.name))
                faults_ += "\n  " + tensor.name + ": unexpected, " + tensor.reason;
        }
        for (const StoredTensor& tensor : file_.tensors()) {
            if (!used_[position_of(tensor)] && !Naming::is_ignored(tensor.name)) {
                faults_ += "\n  " + tensor.name + ": unexpected";
            }
        }
        if (!faults_.empty()) throw Error(where, "the checkpoint does not fit the model:" + faults_);
    }

    const WeightFiles& file_;
    Naming naming_;
    std::vector<bool> used_, used_unreadable_;  ///< of the file's tensors
    std::string positions_;
    std::size_t prefix_ = 0;
    ImageSize grid_;
    std::string faults_;
};

/// What is to be loaded, in the model's order.
class LoadTargets {
public:
    template <class T, class S>
    void add(const ParameterName& name, Tensor<T, S>& tensor) {
        add(name, tensor.extents().value, S::rank, tensor.data(), tensor.size(), CheckpointFit::read<T>);
    }
    template <class T, class S>
    void add(const ParameterName& name, PackedMatrix<T, S>& weight) {
        PackedWeight<T>& base = weight;
        add(name, weight.extents().value, S::rank, &base, weight.size(), CheckpointFit::read_packed<T>);
    }

    const std::vector<LoadTarget>& all() const { return targets_; }

private:
    // Not inlined: a model's list has it once a parameter.
    [[gnu::noinline]] void add(const ParameterName& name, const std::size_t* extents, std::size_t rank, void* parameter,
                               std::size_t size, decltype(LoadTarget::read) read) {
        targets_.push_back({std::string(name), {extents, extents + rank}, parameter, size, read});
    }

    std::vector<LoadTarget> targets_;
};

/// The parameters of models as row-major tensors to save, with the memory of those that are kept in another layout.
struct SavedParameters {
    std::vector<StoredTensor> tensors;
    std::vector<std::shared_ptr<const void>> memory;

    /// Adds a model's, their names behind a prefix that tells several models apart.
    template <class Model>
    void append(const std::string& prefix, const Model& model) {
        for_each_parameter([&](const std::string& name, const auto& parameter) { add(prefix + name, parameter); },
                           model);
    }

private:
    template <class T, class S>
    void add(const std::string& name, const Tensor<T, S>& tensor) {
        tensors.push_back(stored_tensor<T>(name, shape_of(tensor.extents()), tensor.elements()));
    }
    template <class T, class S>
    void add(const std::string& name, const PackedMatrix<T, S>& weight) {
        using Values = std::vector<typename PackedWeight<T>::element>;
        const auto values = std::make_shared<Values>(weight.size());
        weight.unpack(values->data());
        tensors.push_back(stored_tensor<typename Values::value_type>(name, shape_of(weight.extents()),
                                                                     std::span(std::as_const(*values))));
        memory.push_back(values);
    }
};

}  // namespace detail

/// Saves all parameters under open_clip's names, atomically; Python's safetensors opens the file, and open_clip's
/// load_state_dict takes it into a model of the same shape.
template <class Model>
void save_weights(const Model& model, const std::filesystem::path& path,
                  const std::map<std::string, std::string>& metadata = {}) {
    detail::SavedParameters saved;
    saved.append("", model);
    save_safetensors(path, saved.tensors, metadata);
}

/// Loads the parameters of `model`, or of one of its towers, from an open file that has them all. Learned positions of
/// square images of another size are resized, bicubic and antialiased, as open_clip does; a table of as many rows as the
/// model has stays as it is. What does not fit is refused whole: the Error names every tensor that is missing, unexpected or
/// of another shape, and the model is as it was.
template <class Model>
void load_weights(Model& model, const WeightFiles& file, std::string_view where, const LoadOptions& options = {}) {
    detail::LoadTargets targets;
    for_each_parameter([&](const ParameterName& name, auto& parameter) { targets.add(name, parameter); }, model);
    detail::CheckpointFit fit(file);
    if constexpr (requires { Model::architecture.vision.pos_embed_type; }) {
        // open_clip keeps its fixed table in the checkpoint.
        if (Model::architecture.vision.pos_embed_type == PosEmbed::sin_cos_2d)
            fit.expect_computed("visual.positional_embedding");
        if (Model::architecture.vision.pos_embed_type == PosEmbed::learnable)
            fit.resize_positions("visual.positional_embedding", Model::architecture.vision.class_token ? 1 : 0,
                                 Model::architecture.vision.grid());
    }
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(Model::architecture.vision)>, ResNetConfig>)
        fit.resize_positions("visual.attnpool.positional_embedding", 1, Model::architecture.vision.grid());
    fit.load(targets.all(), where, options);
}

template <class Model>
void load_weights(Model& model, const std::filesystem::path& path, const LoadOptions& options = {}) {
    load_weights(model, WeightFiles::open(path), path.string(), options);
}

namespace detail {

/// Names as files have them; empty for a user's own part, which no file names.
template <class Activation>
constexpr std::string_view activation_name() {
    if constexpr (std::is_same_v<Activation, QuickGelu>) return "quick_gelu";
    if constexpr (std::is_same_v<Activation, Gelu>) return "gelu";
    if constexpr (std::is_same_v<Activation, TanhGelu>) return "gelu_pytorch_tanh";
    return {};
}
template <class Pooling>
constexpr std::string_view pooling_name() {
    if constexpr (std::is_same_v<Pooling, ClassToken>) return "tok";
    if constexpr (std::is_same_v<Pooling, Average>) return "avg";
    if constexpr (std::is_same_v<Pooling, AttentionPool>) return "map";
    if constexpr (std::is_same_v<Pooling, Eot>) return "argmax";
    if constexpr (std::is_same_v<Pooling, Last>) return "last";
    if constexpr (std::is_same_v<Pooling, First>) return "first";
    return {};
}

/// What a tower's constant has of what files tell. The image's size is not among it: positions are resized.
template <class Tower>
[[gnu::cold]] void add_tower_fields(std::vector<ArchitectureField>& fields, const std::string& at, const Tower& tower) {
    const auto add = [&](const char* name, std::string value) {
        if (!value.empty()) fields.push_back({at + name, std::move(value), ""});
    };
    if constexpr (requires { tower.patch; }) add("patch", std::to_string(tower.patch));
    if constexpr (std::is_same_v<Tower, EfficientNetConfig>) {
        std::size_t blocks = 0;
        tower.for_each_block([&](const auto&) { ++blocks; });
        add("blocks", std::to_string(blocks));
        std::array<char, 32> coefficient;
        for (const auto& [name, value] : {std::pair("width_coefficient", tower.width_coefficient), std::pair("depth_coefficient", tower.depth_coefficient)}) {
            std::snprintf(coefficient.data(), coefficient.size(), "%.6g", value);
            add(name, coefficient.data());
        }
    }
    if constexpr (std::is_same_v<Tower, ResNetConfig>) {
        std::string layers;
        for (const std::size_t blocks : tower.layers) layers += (layers.empty() ? "" : ",") + std::to_string(blocks);
        add("stages", layers);
        add("width", std::to_string(tower.width));
    }
    if constexpr (requires { tower.vocabulary; }) {
        add("vocabulary", std::to_string(tower.vocabulary));
        add("context", std::to_string(tower.context));
        add("positions", std::to_string(tower.places()));
        add("causal", tower.causal ? "true" : "false");
    }
    if constexpr (requires { tower.block_shape(); }) {
        add("width", std::to_string(tower.width));
        add("hidden", std::to_string(hidden_of(tower)));
        add("layers", std::to_string(tower.layers));
        add("heads", std::to_string(tower.heads));
        add("activation", std::string(activation_name<std::remove_cvref_t<decltype(tower.activation)>>()));
        add("pooling", std::string(pooling_name<std::remove_cvref_t<decltype(tower.pooling)>>()));
        if constexpr (requires { tower.norm.eps; }) {
            std::array<char, 32> eps;
            std::snprintf(eps.data(), eps.size(), "%.3g", static_cast<double>(tower.norm.eps));
            add("norm.eps", eps.data());
        }
    }
}

/// What files tell of a model, as its constant has it.
[[gnu::cold]] std::vector<ArchitectureField> architecture_fields(const auto& config) {
    std::vector<ArchitectureField> fields{{"embedding", std::to_string(config.embedding), ""}};
    add_tower_fields(fields, "vision.", config.vision);
    add_tower_fields(fields, "text.", config.text);
    return fields;
}

/// What the names and shapes of a file's tensors tell of the architecture.
[[gnu::cold]] inline std::vector<ArchitectureField> stored_sizes(const WeightFiles& file) {
    const Naming naming(file);
    const auto shape = [&](const std::string& name) {
        const Source source = naming(name);
        const StoredTensor* const stored = file.find(source.names.front());
        std::vector<std::size_t> extents;
        if (stored == nullptr) return extents;
        extents = stored->shape;
        while (extents.size() > 2 && extents.front() == 1) extents.erase(extents.begin());
        if (source.transposed) std::ranges::reverse(extents);
        return extents;
    };
    std::vector<ArchitectureField> fields;
    const auto add = [&](const char* name, std::size_t value) {
        if (value > 0) fields.push_back({name, std::to_string(value), "the tensors"});
    };
    const auto blocks = [&](const std::string& at, const std::string& tower) {
        std::size_t layers = 0;
        while (!shape(at + std::to_string(layers) + ".ln_1.weight").empty()) ++layers;
        add((tower + "layers").c_str(), layers);
        if (const auto hidden = shape(at + "0.mlp.c_fc.weight"); hidden.size() == 2) add((tower + "hidden").c_str(), hidden[0]);
    };
    const auto blocks_of_stage = [&](std::size_t stage) {
        std::size_t found = 0;
        while (!shape("visual.layer" + std::to_string(stage) + "." + std::to_string(found) + ".conv1.weight").empty()) ++found;
        return found;
    };
    std::size_t inverted = 0;
    while (!shape("visual.encoder.blocks." + std::to_string(inverted) + ".projection.project_conv.weight").empty()) ++inverted;
    add("vision.blocks", inverted);
    if (const auto first = shape("visual.layer1.0.conv1.weight"); !first.empty()) {
        std::string stages;
        for (std::size_t stage = 1; stage <= 4; ++stage) stages += (stage > 1 ? "," : "") + std::to_string(blocks_of_stage(stage));
        fields.push_back({"vision.stages", stages, "the tensors"});
        add("vision.width", first[0]);
        if (const auto positions = shape("visual.attnpool.positional_embedding"); positions.size() == 2)
            add("vision.grid", side_of_square(positions[0] - 1));
    } else if (const auto patches = shape("visual.conv1.weight"); patches.size() == 4) {
        add("vision.width", patches[0]);
        add("vision.patch", patches[2]);
    }
    const bool has_class_token = !shape("visual.class_embedding").empty();
    if (const auto positions = shape("visual.positional_embedding"); positions.size() == 2) {
        add("vision.grid", side_of_square(positions[0] - (has_class_token ? 1 : 0)));
    }
    if (!shape("visual.attn_pool.latent").empty()) fields.push_back({"vision.pooling", "map", "the tensors"});
    if (has_class_token) fields.push_back({"vision.pooling", "tok", "the tensors"});
    blocks("visual.transformer.resblocks.", "vision.");
    if (const auto table = shape("token_embedding.weight"); table.size() == 2) {
        add("text.vocabulary", table[0]);
        add("text.width", table[1]);
    }
    if (const auto positions = shape("positional_embedding"); positions.size() == 2) {
        // A BERT's table says how long a caption may be, not how long it is.
        add(shape("token_type_embedding").empty() ? "text.context" : "text.positions", positions[0]);
    }
    blocks("transformer.resblocks.", "text.");
    if (const auto projection = shape("text_projection"); projection.size() == 2) add("embedding", projection[1]);
    if (const auto projection = shape("text_projection.2.weight"); projection.size() == 2) add("embedding", projection[0]);
    if (const auto projection = shape("text_projection.weight"); projection.size() == 2) add("embedding", projection[0]);
    if (file.find("input_resolution") != nullptr) {
        // OpenAI's archives; all of their models have it (CLIP/clip/model.py:171-180).
        for (const char* const name : {"vision.activation", "text.activation"})
            fields.push_back({name, "quick_gelu", "OpenAI's archive"});
    }
    return fields;
}

/// Throws Error where the configs of a folder contradict the architecture. Much of that would load, and give wrong
/// embeddings.
[[gnu::cold]] inline void require_agreement(const std::filesystem::path& folder,
                                            const std::vector<ArchitectureField>& architecture) {
    std::string faults;
    for (const ArchitectureField& stored : stored_architecture(folder)) {
        for (const ArchitectureField& ours : architecture) {
            if (stored.name == ours.name && !same_value(stored.value, ours.value))
                faults += "\n  " + stored.name + ": expected " + ours.value + ", found " + stored.value + " (" + stored.source + ")";
        }
    }
    if (faults.find("activation") != std::string::npos) faults += "\n  with_activation makes the same architecture with another";
    if (!faults.empty()) throw Error(folder.string(), "the checkpoint's config does not fit the architecture:" + faults);
}

}  // namespace detail

/// A model of architecture `config` with the weights of `path`, or those of one tower: a file of safetensors or of
/// torch.save, the index of a sharded one, or a folder as transformers and open_clip lay it out, with its config beside the
/// weights (see WeightFiles). Where that config and the architecture disagree, in sizes, activation, eps, pooling or mask,
/// the Error names both values.
template <auto config, Arithmetic T = float>
Clip<config, T> load(const std::filesystem::path& path, const LoadOptions& options = {}) {
    if (std::filesystem::is_directory(path)) {
        detail::require_agreement(path, detail::architecture_fields(config));
    }
    Clip<config, T> model;
    load_weights(model, path, options);
    return model;
}

}  // namespace tandem::inline TANDEM_ABI
