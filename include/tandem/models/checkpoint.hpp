// Weights in files: saved under open_clip's names, loaded from open_clip's, OpenAI's, timm's or transformers'.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/memory.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/images/filter.hpp>
#include <tandem/models/architecture.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/naming.hpp>
#include <tandem/models/resnet.hpp>
#include <tandem/models/source.hpp>
#include <tandem/models/unwrap.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

/// What load() and load_weights() read, and what they insist on.
struct LoadOptions {
    Towers towers = Towers::both;
    bool check_finite = false;  ///< infinities and NaN among the weights are refused
    /// Projections and the logit scale may be missing, and stay as they are: for a model whose tokens alone are wanted.
    bool tokens_only = false;
    /// Where several models stand in a file (weights and their running average, a student and its teacher), what stands
    /// before the names of the one to read: "ema.", say.
    std::string prefix{};
    std::ostream* log = &std::clog;  ///< a line on what was decided, such as a prefix left out; nullptr: none
};

namespace detail {

template <std::size_t Rank>
std::vector<std::size_t> shape_of(const Extents<Rank>& extents) {
    return {extents.value, extents.value + Rank};
}

/// The rows of a stored tensor that a source names.
StoredTensor rows_of(StoredTensor stored, const Source& source);

class CheckpointFit;
struct LoadTarget;

/// A part of the memory that a parameter is kept in, its type erased.
struct KeptBuffer {
    std::string name;  ///< the parameter's, and behind it what of it this is
    DataType type;
    std::span<const std::byte> bytes;
    void* buffer;
    void (*borrow)(void* buffer, std::span<const std::byte> bytes);
};

/// What can be done with parameters of one type.
struct LoadOperations {
    void (*read)(const CheckpointFit& fit, const LoadTarget& target);
    void (*list)(const LoadTarget& target, std::vector<KeptBuffer>& buffers);
};

/// A parameter to be loaded, its type erased: the operations know what `parameter` points to, a buffer or a packed weight.
struct LoadTarget {
    std::string name;
    std::vector<std::size_t> shape;
    void* parameter;
    std::size_t size;
    const LoadOperations* operations;
};

/// Holds a file against a model, parameter by parameter, and collects every fault. No template: what a model's many
/// tensor types share is compiled once.
class CheckpointFit {
public:
    explicit CheckpointFit(const WeightFiles& file, const LoadOptions& options);
    CheckpointFit(const CheckpointFit&) = delete;
    CheckpointFit& operator=(const CheckpointFit&) = delete;
    ~CheckpointFit();

    /// A tensor that a file may have and the model does without: it computes it.
    void expect_computed(const std::string& name);

    /// Image positions of another number of patches are resized to `grid`; behind `prefix` rows the file's are those of
    /// a square, as open_clip takes them to be.
    void resize_positions(std::string name, std::size_t prefix, const ImageSize& grid);

    /// Reads the parameters of the towers asked for, or throws before it has read any. `assumed` says which
    /// architecture they are those of.
    void load(const std::vector<LoadTarget>& targets, std::string_view where, std::string_view assumed);

    /// Of tensors of elements T.
    template <class T>
    static const LoadOperations& of_tensor();

    /// Of weights kept in panels.
    template <class T>
    static const LoadOperations& of_packed();

private:
    template <class T>
    static void read(const CheckpointFit& fit, const LoadTarget& target);
    template <class T>
    static void read_packed(const CheckpointFit& fit, const LoadTarget& target);

    template <class T>
    void read_into(const LoadTarget& target, std::span<T> elements) const;

    static std::size_t elements_of(std::span<const std::size_t> shape);

    bool resizes(const std::string& name, std::span<const std::size_t> stored,
                 std::span<const std::size_t> wanted) const;

    template <class T>
    void read_resized(const StoredTensor& stored, const std::vector<std::size_t>& shape, std::span<T> elements) const;

    std::size_t position_of(const StoredTensor& tensor) const;
    std::size_t position_of(const UnreadableTensor& tensor) const;

    /// Whether a parameter of that name, or a tensor of the file, is of what was not asked for.
    bool is_left_out(std::string_view name) const;
    /// Whether tokens come without it.
    static bool is_behind_tokens(std::string_view name);

    /// Collects the faults of what is there for a parameter; false where nothing is to be read.
    bool check(const LoadTarget& target);

    std::string fault_of(const StoredTensor& stored, const LoadTarget& target,
                         const std::vector<std::size_t>& expected) const;

    /// Throws if any parameter did not fit, or the file has a tensor that none asked for.
    void require(std::string_view where, std::string_view assumed) const;

    const WeightFiles& file_;
    Naming naming_;
    const LoadOptions& options_;
    std::vector<bool> used_, used_unreadable_;  ///< of the file's tensors
    std::string positions_;
    std::size_t prefix_ = 0;
    ImageSize grid_;
    std::size_t asked_ = 0;
    bool has_mlm_head_;
    std::vector<std::string> missing_, unfit_;
};

/// What is to be loaded, in the model's order.
class LoadTargets {
public:
    template <class Model>
    explicit LoadTargets(Model& model) {
        for_each_parameter([&](const ParameterName& name, auto& parameter) { add(name, parameter); }, model);
    }

    const std::vector<LoadTarget>& all() const { return targets_; }

    /// All memory of the parameters of these towers.
    std::vector<KeptBuffer> buffers(Towers towers) const;

private:
    template <class T, class S>
    void add(const ParameterName& name, Tensor<T, S>& tensor) {
        add(name, tensor.extents().value, S::rank, &tensor.buffer(), tensor.size(), CheckpointFit::of_tensor<T>());
    }
    template <class T, class S>
    void add(const ParameterName& name, PackedMatrix<T, S>& weight) {
        PackedWeight<T>& base = weight;
        add(name, weight.extents().value, S::rank, &base, weight.size(), CheckpointFit::of_packed<T>());
    }
    // Not inlined: a model's list has it once a parameter.
    void add(const ParameterName& name, const std::size_t* extents, std::size_t rank, void* parameter, std::size_t size,
             const LoadOperations& operations);

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
        add_packed<T>(name, shape_of(weight.extents()), weight);
    }
    template <class T>
    void add_packed(const std::string& name, std::vector<std::size_t> shape, const PackedWeight<T>& weight);
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

namespace detail {

/// Loads what load_weights loads, from files whose names are plain. `assumed` says whose architecture the model's is.
template <class Model>
void load_plain_weights(Model& model, const WeightFiles& file, std::string_view where, const LoadOptions& options,
                        std::string_view assumed) {
    const LoadTargets targets(model);
    CheckpointFit fit(file, options);
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
    fit.load(targets.all(), where, assumed);
}

}  // namespace detail

/// Loads the parameters of `model`, or of one of its towers, from an open file that has them all, under the names of a
/// whole model, of one tower of transformers, or behind what a trainer has wrapped around it (LoadOptions::prefix).
/// A head for masked language stays as it is where the file has none.
/// Learned positions of square images of another size are resized, bicubic and antialiased, as open_clip does; a table
/// of as many rows as the model has stays as it is. What does not fit is refused whole: the Error says how many tensors
/// are missing, unexpected or of another shape and names them, and the model is as it was.
template <class Model>
void load_weights(Model& model, WeightFiles file, std::string_view where, const LoadOptions& options = {}) {
    for (const std::string& note : detail::unwrap(file, where, options.towers, options.prefix)) {
        if (options.log != nullptr) *options.log << where << ": " << note << '\n';
    }
    detail::load_plain_weights(model, file, where, options, "the model's own architecture");
}

template <class Model>
void load_weights(Model& model, const std::filesystem::path& path, const LoadOptions& options = {}) {
    load_weights(model, WeightFiles::open(path), path.string(), options);
}

/// A model of architecture `config` with the weights of `path`, or those of one tower: a file of safetensors or of
/// torch.save, the index of a sharded one, or a folder as transformers and open_clip lay it out, with its config beside
/// the weights (see WeightFiles). Where that config and the architecture disagree, in sizes, activation, eps, pooling
/// or mask, the Error names both values; what the config asks for and is not here is an Error too. The path of the
/// weights' file leaves the config unread. A head for masked language begins at random where there is none.
template <auto config, Arithmetic T = float>
    requires detail::HasTwoTowers<decltype(config)>
Clip<config, T> load(const std::filesystem::path& path, const LoadOptions& options = {}) {
    if (std::filesystem::is_directory(path)) {
        detail::require_agreement(path, detail::architecture_fields(config), options.towers);
    }
    Clip<config, T> model;
    if constexpr (detail::MasksLanguage<typename Clip<config, T>::Text>) {
        Random random(Seed{0});
        model.text().initialise_mlm_head(random);
    }
    load_weights(model, path, options);
    return model;
}

/// What is no architecture: says what is one.
template <auto config, Arithmetic T = float>
    requires(!detail::HasTwoTowers<decltype(config)>)
void load(const std::filesystem::path&, const LoadOptions& = {}) {
    static_assert(detail::HasTwoTowers<decltype(config)>,
                  "tandem: load<config> takes a ClipConfig, such as vit_b_32; open() finds it from the files alone");
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/checkpoint.impl.hpp>
#endif
