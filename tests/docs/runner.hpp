// What the program of the snippets stands on: assertions in every build, results as numbers, errors by their text.
#pragma once

#include <concepts>
#include <cstdio>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <tandem/tandem.hpp>

#undef NDEBUG
#include <cassert>

struct Snippet {
    std::string_view page;
    int line;
    void (*run)();
    std::string_view message;  ///< of the Error that it throws; empty: none
};

/// Prints `name`, a tab, and the numbers.
inline void report_numbers(const char* name, std::span<const double> numbers) {
    std::printf("%s\t", name);
    for (const double number : numbers) std::printf(" %.9g", number);
    std::printf("\n");
}

/// A number, or anything whose elements are numbers: a tensor, a view, a vector.
template <class Result>
void report(const char* name, const Result& result) {
    std::vector<double> numbers;
    const auto add = [&](const auto& elements) {
        for (const auto& element : elements) numbers.push_back(static_cast<double>(element));
    };
    if constexpr (std::is_arithmetic_v<Result>) {
        numbers.push_back(static_cast<double>(result));
    } else if constexpr (requires { result.elements(); }) {
        add(result.elements());
    } else {
        add(result);
    }
    report_numbers(name, numbers);
}

inline bool runs(const Snippet& snippet) {
    std::string found;
    try {
        snippet.run();
    } catch (const tandem::Error& error) {
        found = error.what();
    } catch (const std::exception& error) {
        found = std::string("an exception that is no tandem::Error: ") + error.what();
    }
    if (found == snippet.message) return true;
    std::fprintf(stderr, "%.*s.md:%d: expected \"%.*s\", found \"%s\"\n", static_cast<int>(snippet.page.size()),
                 snippet.page.data(), snippet.line, static_cast<int>(snippet.message.size()), snippet.message.data(),
                 found.c_str());
    return false;
}

/// Runs the snippets of the page named on the command line.
inline int run_page(std::span<const Snippet> snippets, int count, char** arguments) {
    int run = 0, failed = 0;
    for (const Snippet& snippet : snippets) {
        if (count != 2 || snippet.page != arguments[1]) continue;
        ++run;
        failed += runs(snippet) ? 0 : 1;
    }
    std::fprintf(stderr, "%d snippets, %d failed\n", run, failed);
    return run > 0 && failed == 0 ? 0 : 1;
}
