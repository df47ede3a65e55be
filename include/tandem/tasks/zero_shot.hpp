// Classification by captions: no training on the classes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/data/image.hpp>
#include <tandem/data/tokenizer.hpp>
#include <tandem/data/transform.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI {

/// cosines[i, j] of images <N, E> and texts <M, E> of length 1.
template <Real T, std::size_t E>
Tensor<T, Shape<dynamic, dynamic>> similarity(const Tensor<T, Shape<dynamic, E>>& images,
                                              const Tensor<T, Shape<dynamic, E>>& texts) {
    Tensor<T, Shape<dynamic, dynamic>> cosines(images.extent(0), texts.extent(0));
    kernels::gemm<T>(images.extent(0), texts.extent(0), E, kernels::row_major(images.data(), E),
                     kernels::row_major(texts.data(), E).transposed(), cosines.data(), texts.extent(0));
    return cosines;
}

/// How well cosines [images, classes] pick the labels.
struct ZeroShotScore {
    double top1 = 0;   ///< share of images whose highest cosine is their label's
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
    }
    double present = 0;
    for (std::size_t c = 0; c < classes; ++c) {
        score.top1 += static_cast<double>(right[c]);
        if (seen[c] == 0) continue;
        present += 1;
        score.macro += static_cast<double>(right[c]) / static_cast<double>(seen[c]);
    }
    score.top1 /= std::max<double>(1.0, static_cast<double>(labels.size()));
    score.macro /= std::max(1.0, present);
    return score;
}

/// The embeddings of texts <M, E>, in batches of 256.
template <class Model>
typename Model::Embeddings embed_texts(const Model& model, const Tokenizer auto& tokenizer,
                                       std::span<const std::string> texts) {
    constexpr std::size_t batch = 256, context = Model::Text::context;
    const std::vector<Id> ids = tokenizer.encode_batch(texts, context);
    typename Model::Embeddings embeddings(texts.size());
    for (std::size_t first = 0; first < texts.size(); first += batch) {
        const std::size_t count = std::min(batch, texts.size() - first);
        const typename Model::Text::Input rows(std::span<const Id>(ids).subspan(first * context, count * context), count);
        const auto part = model.encode_text(rows);
        std::copy_n(part.data(), part.size(), embeddings[first].data());
    }
    return embeddings;
}

/// One classifier row a class, from the class's prompts: each prompt's embedding, their mean, normalised again
/// (open_clip/zero_shot_classifier.py:57-63). A template holds one {} for the class's name.
template <class Model>
typename Model::Embeddings zero_shot_classifier(const Model& model, const Tokenizer auto& tokenizer,
                                                std::span<const std::string> classes,
                                                std::span<const std::string> templates) {
    typename Model::Embeddings rows(classes.size());
    for (std::size_t c = 0; c < classes.size(); ++c) {
        std::vector<std::string> prompts;
        for (std::string prompt : templates) {
            const std::size_t hole = prompt.find("{}");
            if (hole == std::string::npos) throw Error("zero_shot_classifier", "a template with {}", prompt);
            prompts.push_back(prompt.replace(hole, 2, classes[c]));
        }
        auto row = rows[c];
        assign(row, normalize(mean<0>(embed_texts(model, tokenizer, prompts))));
    }
    return rows;
}

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

/// The probability of each caption for one picture: softmax(scale · cosines). The picture is preprocessed as OpenAI's
/// models expect, or by the recipe given.
template <class Model>
std::vector<float> zero_shot(const Model& model, const Tokenizer auto& tokenizer, const Image& picture,
                             const std::vector<std::string>& captions, const Preprocess* recipe = nullptr) {
    constexpr std::size_t size = Model::architecture.vision.image;
    const Preprocess standard = openai_preprocess(static_cast<int>(size));
    std::vector<float> pixels(3 * size * size);
    preprocess(picture, recipe == nullptr ? standard : *recipe, pixels);
    const auto image = model.encode_image(typename Model::Vision::Input(std::span<const float>(pixels), 1));
    const auto texts = embed_texts(model, tokenizer, captions);
    auto shares = similarity(image, texts);
    kernels::active<typename Model::C>().softmax(shares.data(), captions.size(), std::exp(model.logit_scale()));
    return {shares.elements().begin(), shares.elements().end()};
}

#endif

}  // namespace tandem::inline TANDEM_ABI
