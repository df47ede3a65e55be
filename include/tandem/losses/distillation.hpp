// A loss that follows another model's similarities.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// The cross-entropy of a model's similarities from a teacher's, softmax over the batch, in both directions and averaged; the teacher scales its own
/// (open_clip/loss.py, DistillClipLoss, whose two terms are InfoNce{} + Distillation{teacher}). A teacher is a Clip that computes in the student's type,
/// bf16 and int8 ones among them, or an AnyClip; it takes images of the student's size, normalised likewise, and ids that mean the same. It embeds
/// every batch once, as in inference, a part at a time where the student does. It must outlive the loss.
template <class Teacher>
class Distillation : public LossNode {
public:
    static constexpr std::size_t least_pairs = 2;
    static constexpr bool sees_batch = true;

    explicit Distillation(const Teacher& teacher) : teacher_(&teacher) {}

    /// See sees_batch. Throws Error for an AnyClip whose images or context are of another size; a Clip's are a compile-time error.
    template <class Images, class Ids>
    void see(std::size_t first, std::size_t count, const Images& images, const Ids& ids) {
        const auto keep = [&](const auto& embeddings, std::size_t items, const char* size, Embeddings& all) {
            if (embeddings.extent(0) != items)
                throw Error("Distillation", std::string("a teacher of the student's ") + size + ", which embeds " + std::to_string(items) + " at a time",
                            "one that finds " + std::to_string(embeddings.extent(0)));
            all.resize(count, embeddings.extent(1));
            std::copy_n(embeddings.data(), embeddings.size(), all[first].data());
        };
        // An AnyClip has no types of its own for them.
        if constexpr (requires { typename Teacher::Vision; }) {
            keep(teacher_->encode_image(images), images.extent(0), "image size", images_);
            keep(teacher_->encode_text(ids), ids.extent(0), "context", texts_);
        } else {
            keep(teacher_->encode_image(std::span(images.data(), images.size())), images.extent(0), "image size", images_);
            keep(teacher_->encode_text(std::span(ids.data(), ids.size())), ids.extent(0), "context", texts_);
        }
    }

    void seen(Ranks* ranks) {
        if (ranks != nullptr) {
            gather<T>(*ranks, images_.elements());
            gather<T>(*ranks, texts_.elements());
        }
        const T scale = std::exp(teacher_->logit_scale());
        for (T& element : images_.elements()) element *= scale;
        of_images_.resize(images_.extent(0)), of_texts_.resize(images_.extent(0));
        write_log_sums(images_, texts_, of_images_.data());
        write_log_sums(texts_, images_, of_texts_.data());
    }

    auto operator()(const auto& image, const auto& text, const auto& scale) const {
        if (image.extents()[0] != of_texts_.size())
            throw Error("Distillation", "a batch that its teacher has seen, " + std::to_string(image.extents()[0]) + " pairs", std::to_string(of_texts_.size()));
        const auto logits = matmul(scale * image, transpose(text));
        const auto of_teacher = matmul(as_expression(images_), transpose(as_expression(texts_)));
        const auto targets = exp(of_teacher - as_expression(of_images_)) + exp(of_teacher - as_expression(of_texts_));
        return mean(0.5 * (log_sum_exp<1>(logits) + log_sum_exp<0>(logits) - sum<1>(targets * logits)));
    }

private:
    using T = std::remove_cvref_t<decltype(std::declval<const Teacher&>().logit_scale())>;
    using Embeddings = Tensor<T, Shape<dynamic, dynamic>>;

    /// log Σⱼ exp(xᵢ·yⱼ) for every i, some rows at a time.
    static void write_log_sums(const Embeddings& x, const Embeddings& y, T* sums) {
        constexpr std::size_t part = 256;
        for (std::size_t first = 0; first < x.extent(0); first += part) {
            const auto rows = x.view().slice(first, std::min(first + part, x.extent(0)));
            const Tensor<T, Shape<dynamic>> found = evaluate(log_sum_exp<1>(matmul(as_expression(rows), transpose(as_expression(y)))));
            std::copy_n(found.data(), found.size(), sums + first);
        }
    }

    const Teacher* teacher_;
    Embeddings images_, texts_;  // of the batch; the images' times the teacher's scale
    Tensor<T, Shape<dynamic, 1>> of_images_;  // log Σ exp over an image's texts, and over a text's images
    Tensor<T, Shape<dynamic>> of_texts_;
};

template <class Teacher>
Distillation(const Teacher&) -> Distillation<Teacher>;

}  // namespace tandem::inline TANDEM_ABI
