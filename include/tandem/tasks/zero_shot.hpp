// Classification by captions: no training on the classes.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/tasks/retrieval.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/texts/tokenizer.hpp>

namespace tandem::inline TANDEM_ABI {

/// cosines[i, j] of images <N, E> and texts <M, E> of length 1.
template <Real T, std::size_t E>
Tensor<T, Shape<dynamic, dynamic>> similarity(const Tensor<T, Shape<dynamic, E>>& images,
                                              const Tensor<T, Shape<dynamic, E>>& texts) {
    const std::size_t width = images.extent(1);
    if (texts.extent(1) != width)
        throw Error("similarity", "texts of width " + std::to_string(width), std::to_string(texts.extent(1)));
    Tensor<T, Shape<dynamic, dynamic>> cosines(images.extent(0), texts.extent(0));
    kernels::gemm<T>(images.extent(0), texts.extent(0), width, kernels::row_major(images.data(), width),
                     kernels::row_major(texts.data(), width).transposed(), cosines.data(), texts.extent(0));
    return cosines;
}

/// Embeddings that have no cosines: says why.
template <Element T, std::size_t E, Element U, std::size_t F>
    requires(!std::same_as<T, U> || E != F)
Tensor<float, Shape<dynamic, dynamic>> similarity(const Tensor<T, Shape<dynamic, E>>&,
                                                  const Tensor<U, Shape<dynamic, F>>&) {
    static_assert(E == F, "tandem: embeddings that are compared must be of one width (the images' == the texts')");
    static_assert(std::is_same_v<T, U>, "tandem: embeddings that are compared must be of one element type");
    return {};
}

/// How well cosines [images, classes] pick the labels.
struct ZeroShotScore {
    double top1 = 0;   ///< share of images whose highest cosine is their label's
    double top5 = 0;   ///< share of images whose label's cosine is among the five highest
    double macro = 0;  ///< the mean over classes of each class's own share
    std::vector<std::size_t> predicted;
};

/// labels[i] < classes is image i's class; classes without images do not count. The first of equal cosines wins.
template <Real T>
ZeroShotScore score_zero_shot(const Tensor<T, Shape<dynamic, dynamic>>& cosines, std::span<const std::size_t> labels) {
    if (labels.size() != cosines.extent(0)) {
        throw Error("score_zero_shot", std::to_string(cosines.extent(0)) + " labels", std::to_string(labels.size()));
    }
    ZeroShotScore score;
    const std::size_t classes = cosines.extent(1);
    std::vector<std::size_t> seen(classes), right(classes);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const auto row = cosines[i].elements();
        const auto best = static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
        score.predicted.push_back(best);
        ++seen.at(labels[i]);
        if (best == labels[i]) ++right[best];
        score.top5 += static_cast<double>(std::ranges::count(best_matches<T>(row, 5), labels[i]));
    }
    double present = 0;
    for (std::size_t c = 0; c < classes; ++c) {
        score.top1 += static_cast<double>(right[c]);
        if (seen[c] == 0) continue;
        present += 1;
        score.macro += static_cast<double>(right[c]) / static_cast<double>(seen[c]);
    }
    score.top1 /= std::max<double>(1.0, static_cast<double>(labels.size()));
    score.top5 /= std::max<double>(1.0, static_cast<double>(labels.size()));
    score.macro /= std::max(1.0, present);
    return score;
}

/// Labels that are none: says what they are.
template <Real T, class Labels>
    requires(!std::convertible_to<const Labels&, std::span<const std::size_t>>)
ZeroShotScore score_zero_shot(const Tensor<T, Shape<dynamic, dynamic>>&, const Labels&) {
    static_assert(std::convertible_to<const Labels&, std::span<const std::size_t>>,
                  "tandem: labels are the numbers of classes, a std::vector<std::size_t> or a span of one");
    return {};
}

namespace detail {

/// Room for `count` embeddings of a Clip, or of an AnyClip, whose sizes are run-time numbers.
template <class Model>
auto room_for_embeddings(const Model& model, std::size_t count) {
    if constexpr (requires { typename Model::Embeddings; }) {
        return typename Model::Embeddings(count);
    } else {
        return Tensor<float, Shape<dynamic, dynamic>>(count, model.sizes().embedding);
    }
}
template <class Model>
std::size_t context_of(const Model& model) {
    if constexpr (requires { typename Model::Embeddings; }) {
        return Model::Text::context;
    } else {
        return model.sizes().context;
    }
}
template <class Model>
auto encode_ids(const Model& model, std::span<const Id> ids) {
    if constexpr (requires { typename Model::Embeddings; }) {
        return model.encode_text(typename Model::Text::Input(ids, ids.size() / Model::Text::context));
    } else {
        return model.encode_text(ids);
    }
}

}  // namespace detail

/// The embeddings of texts <M, E>, in batches of 256. The model is a Clip or an AnyClip.
template <class Model>
auto embed_texts(const Model& model, const Tokenizer auto& tokenizer, std::span<const std::string> texts) {
    constexpr std::size_t batch = 256;
    const std::size_t context = detail::context_of(model);
    const std::vector<Id> ids = tokenizer.encode_batch(texts, context);
    auto embeddings = detail::room_for_embeddings(model, texts.size());
    for (std::size_t first = 0; first < texts.size(); first += batch) {
        const std::size_t count = std::min(batch, texts.size() - first);
        const auto part = detail::encode_ids(model, std::span<const Id>(ids).subspan(first * context, count * context));
        std::copy_n(part.data(), part.size(), embeddings[first].data());
    }
    return embeddings;
}

/// One classifier row a class, from the class's prompts: each prompt's embedding, their mean, normalised again
/// (open_clip/zero_shot_classifier.py:57-63). A template holds one {} for the class's name.
template <class Model>
auto zero_shot_classifier(const Model& model, const Tokenizer auto& tokenizer, std::span<const std::string> classes,
                          std::span<const std::string> templates) {
    auto rows = detail::room_for_embeddings(model, classes.size());
    for (std::size_t c = 0; c < classes.size(); ++c) {
        std::vector<std::string> prompts;
        for (std::string prompt : templates) {
            const std::size_t hole = prompt.find("{}");
            if (hole == std::string::npos || prompt.find("{}", hole + 2) != std::string::npos)
                throw Error("zero_shot_classifier", "a template with {} once", prompt);
            prompts.push_back(prompt.replace(hole, 2, classes[c]));
        }
        auto row = rows[c];
        assign(row, normalize(mean<0>(embed_texts(model, tokenizer, prompts))));
    }
    return rows;
}

/// What a model's training loss makes of cosines [images, classes], in place: probabilities among the classes,
/// softmax(scale · cosines), or, with the logit bias of a sigmoid loss, of each class alone, sigmoid(scale · cosines +
/// bias). Throws Error for a scale that overflows, as damaged checkpoints have it.
template <Real T>
void probabilities_from(Tensor<T, Shape<dynamic, dynamic>>& cosines, T logit_scale, std::optional<T> logit_bias) {
    const T scale = std::exp(logit_scale);
    if (!std::isfinite(scale))
        throw Error("logit_scale", "the logarithm of a finite scale (models are trained to at most ln 100 = 4.6)",
                    std::to_string(logit_scale));
    for (std::size_t i = 0; i < cosines.extent(0); ++i) {
        auto row = cosines[i].elements();
        if (logit_bias) {
            for (T& value : row) value = 1 / (1 + std::exp(-(scale * value + *logit_bias)));
        } else {
            kernels::active<T>().softmax(row.data(), row.size(), scale);
        }
    }
}

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

/// The probability of each caption for one picture (see probabilities_from). The picture is preprocessed by the recipe
/// given, or as the models of this kind were trained: a logit bias tells SigLIP's from OpenAI's.
template <class Model>
std::vector<float> zero_shot(const Model& model, const Tokenizer auto& tokenizer, const Image& picture,
                             const std::vector<std::string>& captions, const Preprocess* recipe = nullptr) {
    constexpr ImageSize size = Model::architecture.vision.image;
    const Preprocess standard = Model::architecture.logit_bias ? siglip_preprocess(size) : openai_preprocess(size);
    std::vector<float> pixels(3 * size.area());
    preprocess(picture, recipe == nullptr ? standard : *recipe, pixels);
    const auto image = model.encode_image(typename Model::Vision::Input(std::span<const float>(pixels), 1));
    const auto texts = embed_texts(model, tokenizer, captions);
    auto shares = similarity(image, texts);
    std::optional<typename Model::C> bias;
    if constexpr (Model::architecture.logit_bias) bias = model.logit_bias();
    probabilities_from(shares, model.logit_scale(), bias);
    return {shares.elements().begin(), shares.elements().end()};
}

#endif

}  // namespace tandem::inline TANDEM_ABI
