// Losses of batches in which a caption comes more than once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// What the other pairs of a batch that have a pair's caption are to it.
enum class Repeats {
    negatives,  ///< what it is told from, like all others
    positives,  ///< matches, each as good as its own: UniCL (Yang et al. 2022, arXiv:2204.03610, eq. 3 and 4)
    ignored,    ///< neither matches nor what it is told from
};

namespace detail {

/// Which captions of a batch are the same, id for id.
template <Real T>
class CaptionLabels : public LossNode {
public:
    static constexpr std::size_t least_pairs = 2;
    static constexpr bool sees_batch = true;

    explicit CaptionLabels(Repeats repeats) : repeats_(repeats) {}

    /// See sees_batch.
    template <class Images, class Ids>
    void see(std::size_t first, std::size_t count, const Images&, const Ids& ids) {
        digests_.resize(count);
        const std::size_t context = ids.size() / ids.extent(0);
        for (std::size_t i = 0; i < ids.extent(0); ++i) {
            Digest digest;
            digest.add(std::span<const Id>(ids.data() + i * context, context));
            digests_[first + i] = digest.value();
        }
    }

    void seen(Ranks* ranks) {
        const std::size_t count = digests_.size();
        if (ranks != nullptr) gather<std::uint64_t>(*ranks, digests_);
        by_digest_.clear();
        for (std::size_t i = 0; i < count; ++i) by_digest_.emplace_back(digests_[i], i);
        std::ranges::sort(by_digest_);
        for (auto* const numbers : {&numbers_, &matches_, &told_apart_, &shares_, &log_negatives_}) numbers->resize(count);
        for (std::size_t first = 0; first < count;) {
            std::size_t last = first + 1;
            while (last < count && by_digest_[last].first == by_digest_[first].first) ++last;
            for (std::size_t i = first; i < last; ++i) {
                const std::size_t pair = by_digest_[i].second;
                const auto number = static_cast<T>(pair), label = static_cast<T>(by_digest_[first].second);
                numbers_(pair) = number;
                matches_(pair) = repeats_ == Repeats::positives ? label : number;
                told_apart_(pair) = repeats_ == Repeats::ignored ? label : number;
                log_negatives_(pair) = std::log(static_cast<T>(count - (last - first)));
                shares_(pair) = repeats_ == Repeats::positives ? T{1} / static_cast<T>(last - first) : T{1};
            }
            first = last;
        }
    }

protected:
    /// 1 for every pair of an image and a text that match.
    auto matching() const { return equal(matches_); }

    /// Logits without those of pairs that are ignored: their exponentials are 0.
    auto counted(const auto& logits) const { return logits - (equal(told_apart_) - equal(numbers_)) * 1e30; }

    /// By how much a match counts where a caption's matches count as one.
    auto shares() const { return column(shares_); }

    /// Of every pair, the logarithm of how many have another caption.
    auto log_negatives() const { return as_expression(log_negatives_); }

    /// Throws Error unless as many pairs were seen last.
    void check(const char* where, const auto& image) const {
        if (image.extents()[0] != numbers_.size())
            throw Error(where, "a batch whose captions it has seen, " + std::to_string(image.extents()[0]) + " pairs", std::to_string(numbers_.size()));
    }

private:
    /// Numbers of pairs are exact in float up to 2^24 of them.
    using Numbers = Tensor<T, Shape<dynamic>>;

    static auto column(const Numbers& numbers) {
        return Leaf<T, Shape<dynamic, 1>>(View<const T, Shape<dynamic, 1>>(numbers.data(), {{numbers.size(), 1}}));
    }
    static auto equal(const Numbers& numbers) { return apply<functions::Equal>(column(numbers), as_expression(numbers)); }

    Repeats repeats_;
    std::vector<std::uint64_t> digests_;
    std::vector<std::pair<std::uint64_t, std::size_t>> by_digest_;
    Numbers numbers_, matches_, told_apart_, shares_, log_negatives_;
};

}  // namespace detail

/// InfoNce where captions repeat within a batch, as those of class names and short captions do: there it pushes an image away from the text that
/// describes it. The matches of a caption count as one, so that without repeats it is InfoNce. T is what the model computes in.
template <Real T = float>
class InfoNceByCaption : public detail::CaptionLabels<T> {
public:
    explicit InfoNceByCaption(Repeats repeats = Repeats::positives) : detail::CaptionLabels<T>(repeats) {}

    auto operator()(const auto& image, const auto& text, const auto& scale) const {
        this->check("InfoNceByCaption", image);
        const auto logits = matmul(scale * image, transpose(text));
        const auto counted = this->counted(logits);
        return mean(0.5 * (log_sum_exp<1>(counted) + log_sum_exp<0>(counted)) - sum<1>(this->matching() * this->shares() * logits));
    }
};

/// InfoNce whose negatives, pairs of another caption, count the more the closer they are: HN-NCE (Radenovic et al. 2023, arXiv:2301.02280, section 3.3;
/// Robinson et al. 2021, arXiv:2010.04592). Of a row of logits l, with p its match and n negatives: −log(eˡᵖ / (α eˡᵖ + Σⱼ wⱼ eˡʲ)), where wⱼ = n eᵝˡʲ / Σₖ eᵝˡᵏ,
/// and so of a column; the mean of both. Without repeats, β = 0 and α = 1 it is InfoNCE. It is no sum over
/// rows, and tiled() does not take it.
template <Real T = float>
class HardNegativeInfoNce : public detail::CaptionLabels<T> {
public:
    /// `beta` is 0 or above; `alpha`, above 0 and at most 1, is how much of a match stands beneath the line. Throws Error for others.
    explicit HardNegativeInfoNce(double beta = 0.25, double alpha = 1) : detail::CaptionLabels<T>(Repeats::positives), beta_(beta), alpha_(alpha) {
        if (!(beta >= 0 && std::isfinite(beta))) throw Error("HardNegativeInfoNce", "a beta of 0 or above", detail::to_text(beta));
        if (!(alpha > 0 && alpha <= 1)) throw Error("HardNegativeInfoNce", "an alpha above 0, at most 1", detail::to_text(alpha));
    }

    auto operator()(const auto& image, const auto& text, const auto& scale) const {
        this->check("HardNegativeInfoNce", image);
        const auto logits = matmul(scale * image, transpose(text));
        // The exponential of a match is 0 among the negatives'.
        const auto matches = this->matching() * 1e30;
        const auto hard = (1 + beta_) * logits - matches, weights = beta_ * logits - matches;
        const auto beside = this->log_negatives() - diagonal(logits) - std::log(alpha_);
        const auto of_rows = softplus(log_sum_exp<1>(hard) - log_sum_exp<1>(weights) + beside);
        const auto of_columns = softplus(log_sum_exp<0>(hard) - log_sum_exp<0>(weights) + beside);
        return mean(0.5 * (of_rows + of_columns)) + std::log(alpha_);
    }

private:
    double beta_, alpha_;
};

/// SigmoidLoss by captions: every match of one counts, or repeats are left out of the sum.
template <Real T = float>
class SigmoidLossByCaption : public detail::CaptionLabels<T> {
public:
    explicit SigmoidLossByCaption(Repeats repeats = Repeats::positives) : detail::CaptionLabels<T>(repeats) {}

    auto operator()(const auto& image, const auto& text, const auto& scale, const auto& bias) const {
        this->check("SigmoidLossByCaption", image);
        const auto logits = matmul(scale * image, transpose(text)) + bias;
        const double count = static_cast<double>(image.extents()[0]);
        return (sum(softplus(this->counted(logits))) - sum(this->matching() * logits)) * (1.0 / count);
    }
};

}  // namespace tandem::inline TANDEM_ABI
