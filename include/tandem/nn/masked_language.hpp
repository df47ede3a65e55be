// Masked-language modelling: tokens that a text tower does not see, and the head that tells them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <type_traits>
#include <vector>

#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/part.hpp>

namespace tandem::inline TANDEM_ABI {

/// Masked-language modelling of a text tower in training, beside the loss of pairs or, with the loss NoPairs, alone (Devlin et al. 2019, BERT,
/// section 3.1 and appendix A.1): of the tokens between a caption's first and last one, each is chosen with probability `share`; of the chosen ones
/// 80 % are replaced by `mask`, 10 % by any token of the vocabulary, and 10 % stay; a head tells all of them from what the tower makes of the
/// caption so changed. Its loss is the mean cross-entropy over the chosen tokens of a batch, as transformers' DataCollatorForLanguageModeling and
/// BertForMaskedLM have it; products with the table of tokens are of float32 in an amp_bf16 model as well. Memory grows with the most tokens that a step
/// has chosen.
struct MaskedLanguage {
    double share = 0;   ///< BERT's is 0.15; 0: there is no head
    Id mask = -1;       ///< [MASK]: 103 in BERT's vocabulary, 250001 in XLM-R's
    double weight = 1;  ///< of its loss, which is added to that of the pairs; above 0

    friend constexpr bool operator==(const MaskedLanguage&, const MaskedLanguage&) = default;
};

namespace nn {

/// A token that is to be told.
struct ChosenToken {
    std::size_t position = 0;
    Id id = 0;
};

/// Chooses among the tokens between the first and the last of `ids`, which are without padding, and changes them in place, as MaskedLanguage
/// says; those chosen come behind what stands in `chosen`, in order.
inline void mask_tokens(std::span<Id> ids, const MaskedLanguage& choice, std::size_t vocabulary, Random& random, std::vector<ChosenToken>& chosen) {
    for (std::size_t i = 1; i + 1 < ids.size(); ++i) {
        if (random.uniform() >= choice.share) continue;
        chosen.push_back({i, ids[i]});
        const double fate = random.uniform();
        if (fate < 0.8) {
            ids[i] = choice.mask;
        } else if (fate < 0.9) {
            ids[i] = static_cast<Id>(random.below(vocabulary));
        }
    }
}

/// Tells tokens from rows: a dense layer, the tower's activation and norm, and a product with the table of tokens, which is the tower's own, and
/// a bias (transformers/models/bert/modeling_bert.py, BertLMPredictionHead). Rows that come from a tower whose last norm stands behind its blocks are
/// normed first, by a norm of the head's own.
template <Arithmetic T, std::size_t Vocabulary, std::size_t Width, auto norm_part, bool norms_input>
struct MaskedLanguageHead {
    using C = Compute<T>;
    using Norm = typename decltype(norm_part)::template Layer<T, Width, norm_part>;
    using InputNorm = std::conditional_t<norms_input, Norm, None>;
    using Table = Tensor<Stored<T>, Shape<Vocabulary, Width>>;
    using Stream = Tensor<C, Shape<dynamic, Width>>;

    [[no_unique_address]] InputNorm ln_in;
    Linear<T, Width, Width> dense;
    Norm norm;
    Tensor<C, Shape<Vocabulary>> bias;

    /// Memory of one pass.
    struct Saved {
        [[no_unique_address]] typename InputNorm::Saved ln_in;
        typename Norm::Saved norm;
        Stream normed, hidden, active, outputs, gradient;
        Tensor<C, Shape<dynamic, Vocabulary>> logits;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        if constexpr (norms_input) Norm::parameters(visit, at + "ln_in.", self.ln_in...);
        decltype(dense)::parameters(visit, at + "dense.", self.dense...);
        Norm::parameters(visit, at + "norm.", self.norm...);
        visit(at + "bias", self.bias...);
    }

    void initialise(Random& random, const InitScale& scale) { fill_normal(dense.weight, random, scale.attention()); }

    /// The cross-entropy of every row of x <rows, Width>, whose right answer is in `labels`, to `losses`; dx = the gradient of scale · their sum. Adds
    /// to the gradients of the head, and of the table to `of_table` [Vocabulary, Width], unless it is null.
    template <class Activation>
    void loss_and_gradient(Rows<const C, Width> x, std::span<const Id> labels, C scale, const Table& table, const Activation& activation, Rows<C, Width> dx,
               std::span<C> losses, Saved& saved, MaskedLanguageHead& gradient, C* of_table) const
        requires Trainable<T>
    {
        const std::size_t rows = x.extent(0);
        for (Stream* stream : {&saved.hidden, &saved.active, &saved.outputs, &saved.gradient}) stream->resize(rows);
        Rows<const C, Width> input = x;
        if constexpr (norms_input) {
            saved.normed.resize(rows);
            ln_in.forward(x, saved.normed, saved.ln_in);
            input = saved.normed;
        }
        dense.forward(input, saved.hidden);
        activate(activation, saved.hidden.data(), saved.active.data(), saved.active.size());
        norm.forward(saved.active, saved.outputs, saved.norm);
        // Of so many rows at a time there are logits.
        constexpr std::size_t at_once = std::max<std::size_t>(1, (std::size_t{1} << 22) / Vocabulary);
        const auto words = kernels::row_major<C>(table.data(), Width);
        for (std::size_t first = 0; first < rows; first += at_once) {
            const std::size_t count = std::min(at_once, rows - first);
            saved.logits.resize(count);
            const auto outputs = kernels::row_major<C>(saved.outputs.data() + first * Width, Width);
            kernels::gemm<C>(count, Vocabulary, Width, outputs, words.transposed(), saved.logits.data(), Vocabulary);
            parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) {
                    C* const row = saved.logits.data() + i * Vocabulary;
                    const auto label = static_cast<std::size_t>(labels[first + i]);
                    std::transform(row, row + Vocabulary, bias.data(), row, std::plus<C>());
                    const auto top = static_cast<std::size_t>(std::max_element(row, row + Vocabulary) - row);
                    const C largest = row[top], right = row[label];
                    kernels::active<C>().softmax(row, Vocabulary, C{1});
                    losses[first + i] = largest - std::log(row[top]) - right;
                    std::transform(row, row + Vocabulary, row, [&](C share) { return scale * share; });
                    row[label] -= scale;
                }
            });
            const auto slopes = kernels::row_major<C>(saved.logits.data(), Vocabulary);
            detail::add_column_sums<C>(count, Vocabulary, {saved.logits.data(), Vocabulary}, gradient.bias.data());
            kernels::gemm<C>(count, Width, Vocabulary, slopes, words, saved.gradient.data() + first * Width, Width);
            if (of_table != nullptr) kernels::gemm<C>(Vocabulary, Width, count, slopes.transposed(), outputs, of_table, Width, true);
        }
        norm.backward(saved.active, saved.gradient, saved.gradient, saved.norm, gradient.norm, false);
        activate_backward(activation, saved.hidden.data(), saved.gradient.data(), saved.gradient.size());
        if constexpr (norms_input) {
            dense.backward(input, saved.gradient, saved.hidden, gradient.dense);
            ln_in.backward(x, saved.hidden, dx, saved.ln_in, gradient.ln_in, false);
        } else {
            dense.backward(input, saved.gradient, dx, gradient.dense);
        }
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI
