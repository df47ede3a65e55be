// Labels for pictures: each with a probability of its own, and none without the labels above it in a tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/tasks/relevance.hpp>

namespace tandem::inline TANDEM_ABI {

/// Labels, some below others.
struct Taxonomy {
    static constexpr std::size_t root = static_cast<std::size_t>(-1);

    std::vector<std::string> labels;
    std::vector<std::size_t> parents;  ///< of every label, before it in the list; root: none

    /// A label a line, two blanks or a tab more before it for each label that it is below; empty lines count for nothing.
    /// Throws Error that names `where` and the line for a label that stands twice or two steps further in than the one before.
    static Taxonomy parse(std::string_view text, std::string_view where);

    /// The nouns of WordNet's data.noun (its wndb(5WN)): the first word of every synset, below its first hypernym. A word that an
    /// earlier synset has is left out, with what is below it hung to what is above. Throws Error for what is no such file.
    static Taxonomy parse_wordnet(std::string_view text, std::string_view where);

    std::size_t size() const { return labels.size(); }
    /// A label with all that it is below, from the top.
    std::vector<std::size_t> path(std::size_t label) const;
};

/// Pictures of which is known what they show.
struct LabelledPictures {
    std::vector<float> rows;             ///< [pictures, width], of length 1
    std::vector<std::uint8_t> has;       ///< [pictures, labels]
};

/// From embeddings to probabilities of labels, independent of each other: a picture may have many or none.
class Tagger {
public:
    /// Rows of the labels' prompts [labels, width], and of prompts that say nothing in particular [some, width] ("a picture",
    /// "a photo of something"): what these find in a picture is no evidence for any label. Throws Error for sizes that differ,
    /// and without a label or such a prompt.
    Tagger(Taxonomy taxonomy, std::vector<float> rows, std::span<const float> neutral);

    const Taxonomy& taxonomy() const { return taxonomy_; }
    std::size_t width() const { return width_; }

    /// The cosine of every label with a picture; and the mean of the neutral prompts', which is no evidence.
    struct Evidence {
        std::vector<double> cosines;
        double neutral = 0;
    };
    /// Throws Error unless the picture's row has the labels' width.
    Evidence evidence(std::span<const float> picture) const;

    /// Fits the curves from cosine and neutral cosine to probability: one for all labels (Platt 1999, of two features), and for a
    /// label with n positives its own mixed into that with the weight n / (n + 20), so that rare ones stay near what holds for
    /// all. Throws Error for sizes that differ, and where no label has positives and negatives.
    void calibrate(const LabelledPictures& known);

    /// Probabilities of all labels; a label is at least as probable as those below it. Before calibrate() they are of an average
    /// model.
    std::vector<double> probabilities(std::span<const float> picture) const;

private:
    Taxonomy taxonomy_;
    std::size_t width_;
    std::vector<float> rows_, neutral_;
    std::vector<Logistic> curves_;
};

/// A parent gets the largest probability of its children where that is larger than its own.
void raise_parents(const Taxonomy& taxonomy, std::span<double> probabilities);

/// The mean of the precision at every positive, best score first (Everingham et al. 2010, without interpolation); of equal scores
/// the negative comes first. Nothing where there is no positive. Throws Error for sizes that differ.
std::optional<double> average_precision(std::span<const double> scores, std::span<const std::uint8_t> positive);

/// The least threshold at or above which a share of `precision` or more is positive, and `least` positives are: of few, a share
/// says little. Nothing if there is none. Throws Error for sizes that differ.
std::optional<double> threshold_for_precision(std::span<const double> scores, std::span<const std::uint8_t> positive,
                                              double precision, std::size_t least = 1);

/// The largest threshold at or above which a share of `recall` or more of the positives is; nothing without a positive: for what must
/// not be missed. Throws Error for sizes that differ.
std::optional<double> threshold_for_recall(std::span<const double> scores, std::span<const std::uint8_t> positive,
                                           double recall);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/tagging.impl.hpp>
#endif
