// Small networks of dense layers behind embeddings: what people train for safety and taste, and what leads to a language model.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/files/weight_files.hpp>

namespace tandem::inline TANDEM_ABI {

/// What stands between a head's layers; the files do not say.
enum class HeadActivation {
    none,  ///< nothing: then all layers together are one affine map, and are folded into it (the improved aesthetic predictor)
    relu,  ///< LAION's safety models (clip_retrieval/h14_nsfw_model.py)
    gelu   ///< by erf: LLaVA's mlp2x_gelu (LLaVA v1.5, multimodal_projector/builder.py:33-51)
};

/// Dense layers one after the other.
class Head {
public:
    /// Reads a file of torch.save or safetensors whose tensors are the weights [out, in] and biases of layers, in the order of
    /// the last number in their names ("layers.0.weight", "linear_1.weight"; one alone needs none). Throws Error that names a
    /// tensor that is neither, a layer without one of the two, numbers that are not finite, and layers that do not fit each other.
    static Head load(const std::filesystem::path& path, HeadActivation between);

    /// The projector of a model like LLaVA: mm_projector.bin, or the tensors of that name in a whole model's file or folder:
    /// "...mm_projector.0.weight", ".2.weight" and so on, "...mm_projector.weight", or transformers'
    /// "multi_modal_projector.linear_1.weight" and "linear_2". With the same errors.
    static Head load_projector(const std::filesystem::path& path);

    std::size_t in() const { return layers_.front().in; }
    std::size_t out() const { return layers_.back().out; }
    /// Layers that are computed: 1 where all were folded.
    std::size_t layers() const { return layers_.size(); }

    /// Rows [N, in] to rows [N, out]. Throws Error for what is no whole row.
    std::vector<float> operator()(std::span<const float> rows) const;

private:
    Head() = default;

    struct Layer {
        std::size_t in, out;
        std::vector<float> weight, bias;  ///< [out, in] and [out]
    };

    /// Of the tensors that `part_of(name)` gives a part of the name of, a layer's number and "weight" or "bias".
    template <class PartOf>
    static Head read(const WeightFiles& files, const std::string& where, HeadActivation between, const PartOf& part_of);
    void fold();

    std::vector<Layer> layers_;
    HeadActivation between_ = HeadActivation::none;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/head.impl.hpp>
#endif
