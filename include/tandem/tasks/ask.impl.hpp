// Definitions of tasks/ask.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <numeric>
#include <sstream>

#include <tandem/core/error.hpp>
#include <tandem/tasks/ask.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Words of a question in lower case, without its marks.
TANDEM_INLINE std::vector<std::string> question_words(std::string_view question) {
    std::string text;
    for (const char c : question) {
        const auto byte = static_cast<unsigned char>(c);
        const bool is_kept = byte >= 128 || std::isalnum(byte) != 0 || c == '\'' || c == '-';
        text += is_kept ? static_cast<char>(byte < 128 ? std::tolower(byte) : c) : ' ';
    }
    std::vector<std::string> words;
    std::istringstream in(text);
    for (std::string word; in >> word;) words.push_back(word);
    return words;
}

TANDEM_INLINE std::string joined(std::span<const std::string> words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
}

TANDEM_INLINE bool is_one_of(std::string_view word, std::span<const std::string_view> words) {
    return std::ranges::find(words, word) != words.end();
}

inline constexpr std::array<std::string_view, 3> articles{"the", "a", "an"};
inline constexpr std::array<std::string_view, 12> auxiliaries{"is", "are", "was", "were", "does", "do", "did", "has", "have", "can", "could", "will"};

TANDEM_INLINE std::span<const std::string> without_article(std::span<const std::string> words) {
    return !words.empty() && is_one_of(words.front(), articles) ? words.subspan(1) : words;
}

/// "a dog", "an apple".
TANDEM_INLINE std::string with_article(const std::string& noun) {
    const bool is_vowel = !noun.empty() && std::string_view("aeiou").find(noun.front()) != std::string_view::npos;
    return (is_vowel ? "an " : "a ") + noun;
}

/// A question for yes or no as what it asks: "is there a dog" is "there is a dog", "is the car red" is "the car is red".
TANDEM_INLINE std::string as_statement(std::span<const std::string> words) {
    std::span<const std::string> rest = words.subspan(1);
    const std::string& verb = words.front();
    if (rest.empty()) return verb;
    const bool helps = verb == "does" || verb == "do" || verb == "did";
    if (helps) return joined(rest);
    // Behind the subject: an article with all that stands before the last word ("the red car"), or one word.
    const bool has_article = is_one_of(rest.front(), articles);
    const std::size_t subject = has_article ? std::max(std::min<std::size_t>(rest.size(), 2), rest.size() - 1) : 1;
    std::string text = joined(rest.first(subject)) + " " + verb;
    if (subject < rest.size()) text += " " + joined(rest.subspan(subject));
    return text;
}

}  // namespace detail

TANDEM_INLINE std::string_view name_of(QuestionKind kind) {
    constexpr std::array<std::string_view, 6> names{"yes or no", "colour", "count", "object", "place", "other"};
    return names[static_cast<std::size_t>(kind)];
}

TANDEM_INLINE Statements statements_of(std::string_view question, std::span<const std::string> answers) {
    if (const std::size_t mark = question.find('?'); mark != std::string_view::npos && question.find_first_not_of("? \t", mark) != std::string_view::npos)
        throw Error("a question", "one alone", std::string(question));
    const std::vector<std::string> all = detail::question_words(question);
    if (all.empty()) throw Error("a question", "words", std::string(question).empty() ? "none" : std::string(question));
    for (const std::string& answer : answers) {
        if (detail::question_words(answer).empty()) throw Error("an answer", "words", answer.empty() ? "none" : answer);
    }
    const std::span<const std::string> words(all);
    const auto begins = [&](std::initializer_list<std::string_view> start) {
        return start.size() <= words.size() && std::equal(start.begin(), start.end(), words.begin());
    };
    const auto own = [&](std::initializer_list<const char*> otherwise) {
        return answers.empty() ? std::vector<std::string>(otherwise.begin(), otherwise.end()) : std::vector<std::string>(answers.begin(), answers.end());
    };
    Statements out;
    const auto fill = [&](const auto& text) {
        for (const std::string& answer : out.answers) out.texts.push_back(text(answer));
    };
    const bool asks_colour = begins({"what", "color"}) || begins({"what", "colour"}) || begins({"which", "color"}) || begins({"which", "colour"});
    if (asks_colour && words.size() > 3) {
        out.kind = QuestionKind::colour;
        out.answers = own({"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"});
        const std::string thing = detail::joined(detail::without_article(words.subspan(3)));
        const bool are_many = words[2] == "are" || words[2] == "were";
        fill([&](const std::string& answer) { return are_many ? answer + " " + thing : detail::with_article(answer + " " + thing); });
    } else if (begins({"how", "many"}) && words.size() > 2) {
        out.kind = QuestionKind::count;
        out.answers = own({"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"});
        const auto end = std::ranges::find_if(words.subspan(2), [](const std::string& word) { return detail::is_one_of(word, detail::auxiliaries); });
        const std::string things = detail::joined(std::span(words.subspan(2).begin(), end));
        if (things.empty()) throw Error("a question", "what is to be counted", std::string(question));
        fill([&](const std::string& answer) {
            const bool is_one = (answer == "one" || answer == "1") && things.size() > 1 && things.ends_with('s') && !things.ends_with("ss");
            return answer + " " + (is_one ? things.substr(0, things.size() - 1) : things);
        });
    } else if (detail::is_one_of(words.front(), detail::auxiliaries)) {
        if (std::ranges::find(words, "or") != words.end() && answers.empty())
            throw Error("a question", "one that yes or no answers, or answers to choose from", std::string(question));
        out.kind = QuestionKind::yes_no;
        out.answers = own({"yes", "no"});
        const std::string statement = detail::as_statement(words);
        const auto is_plain = [](const std::string& answer) { return answer == "yes" || answer == "no"; };
        if (std::ranges::all_of(out.answers, is_plain)) {
            // No is what a caption without it could say; "no dog" would be near every dog.
            const bool is_there = words.size() > 2 && words[1] == "there";
            fill([&](const std::string& answer) {
                const std::size_t thing = words.size() > 3 && (words[2] == "any" || words[2] == "some") ? 3 : 2;
                if (answer == "yes") return is_there ? "a picture of " + detail::joined(words.subspan(thing)) : statement;
                return std::string(is_there ? "a picture of something else" : "a picture where that is not so");
            });
        } else {
            fill([&](const std::string& answer) { return statement + ", " + answer; });
        }
    } else {
        if (answers.empty())
            throw Error("a question", "answers to choose from: only yes or no, colours and numbers go without", std::string(question));
        out.answers.assign(answers.begin(), answers.end());
        const bool asks_place = words.front() == "where";
        // "what is this", "what is in the picture", "what animal is it", "what kind of food is this"
        const auto verb = std::ranges::find_if(words, [](const std::string& word) { return detail::is_one_of(word, detail::auxiliaries); });
        std::span<const std::string> behind = verb == words.end() ? std::span<const std::string>{} : words.subspan(static_cast<std::size_t>(verb - words.begin()) + 1);
        constexpr std::array<std::string_view, 8> bare{"this", "that", "it", "there", "these", "shown", "in", "here"};
        if (asks_place && !behind.empty()) {
            out.kind = QuestionKind::place;
            fill([&](const std::string& answer) { return detail::joined(behind) + " " + answer; });
        } else if ((words.front() == "what" || words.front() == "which" || words.front() == "who") && (behind.empty() || detail::is_one_of(behind.front(), bare))) {
            out.kind = QuestionKind::object;
            fill([&](const std::string& answer) { return "a picture of " + detail::with_article(answer); });
        } else {
            const std::string rest = detail::joined(behind.empty() ? words : behind);
            fill([&](const std::string& answer) { return rest + " " + answer; });
        }
    }
    return out;
}

TANDEM_INLINE std::vector<double> answer_probabilities(std::span<const float> picture, std::span<const float> statements,
                                                       std::span<const float> others, double scale) {
    const std::size_t width = picture.size();
    if (width == 0 || statements.empty() || statements.size() % width != 0 || others.size() % width != 0)
        throw Error("answer_probabilities", "rows of width " + std::to_string(width),
                    std::to_string(statements.size()) + " numbers of statements, " + std::to_string(others.size()) + " of other pictures");
    std::vector<double> shares;
    for (std::size_t i = 0; i < statements.size(); i += width) {
        const auto cosine = [&](std::span<const float> row) {
            return static_cast<double>(std::inner_product(row.begin(), row.end(), statements.begin() + static_cast<std::ptrdiff_t>(i), 0.0F));
        };
        double prior = 0;
        for (std::size_t j = 0; j < others.size(); j += width) prior += cosine(others.subspan(j, width));
        shares.push_back(cosine(picture) - (others.empty() ? 0 : prior / static_cast<double>(others.size() / width)));
    }
    const double largest = *std::ranges::max_element(shares);
    double sum = 0;
    for (double& share : shares) sum += share = std::exp(scale * (share - largest));
    for (double& share : shares) share /= sum;
    return shares;
}

}  // namespace tandem::inline TANDEM_ABI
