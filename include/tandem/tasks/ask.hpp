// Questions about a picture, answered by comparing statements: what a model of captions can tell of them.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a question asks for. CLIP tells objects, and colours of single things; it counts badly, and which of two things is
/// left of the other it does not know (Yuksekgonul et al., ICLR 2023: embeddings are near bags of words).
enum class QuestionKind { yes_no, colour, count, object, place, other };

/// "yes or no", "colour", "count", "object", "place" or "other".
std::string_view name_of(QuestionKind kind);

/// The answers to a question, and a statement for each: what a caption would say if the answer were right.
struct Statements {
    QuestionKind kind = QuestionKind::other;
    std::vector<std::string> answers, texts;
};

/// Turns an English question into statements by rules (in place of the language model of TAP-C, Song et al., ACL 2022, section 3.1): "What
/// colour is the car?" becomes "a red car", "a blue car", ... Questions for yes or no, for a colour and for a number have answers of
/// their own, which `answers` replace; other questions need some. Throws Error for an empty question or answer, and for a question
/// without answers.
Statements statements_of(std::string_view question, std::span<const std::string> answers = {});

/// The probability of each answer: softmax(scale · (cosine − prior)) over the statements [answers, width], where an answer's prior is
/// the mean cosine of its statement with other pictures [any, width], which it says nothing about; without any it is 0. Of a
/// frequent answer the cosine alone is high in every picture. Rows are of length 1. Throws Error for sizes that differ.
std::vector<double> answer_probabilities(std::span<const float> picture, std::span<const float> statements, std::span<const float> others,
                                         double scale);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/ask.impl.hpp>
#endif
