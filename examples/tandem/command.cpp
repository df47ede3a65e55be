#include "command.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <system_error>
#include <utility>

namespace program {

std::optional<long long> whole_number(const std::string& text) {
    long long value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (fault != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

Arguments::Arguments(const Command& command, std::vector<std::string> words) {
    const std::string operand = command.operand;
    const std::size_t most = operand.empty() ? 0 : operand.find("...") != std::string::npos ? words.size() : 1;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string name = words[i];
        if (operands_.size() < most && !name.starts_with("--")) {
            if (name.empty()) throw UsageError(operand, operand, "an empty text");
            operands_.push_back(name);
            continue;
        }
        const auto option =
            std::ranges::find_if(command.options, [&](const Option& known) { return known.name == name; });
        if (option == command.options.end()) throw UsageError(name, "an option of --help", "none of that name");
        if (has(name)) throw UsageError(name, "the option once", "it twice");
        if (*option->value == 0) {
            values_[name] = "";
            continue;
        }
        if (++i == words.size()) throw UsageError(name, option->value, "the end of the command");
        if (words[i].empty()) throw UsageError(name, option->value, "an empty text");
        values_[name] = words[i];
    }
    if (!operand.empty() && !operand.starts_with('[') && operands_.empty())
        throw UsageError("tandem " + std::string(command.name), operand, "nothing: see --help");
}

std::string Arguments::get(const std::string& name, const std::string& otherwise) const {
    const auto found = values_.find(name);
    return found == values_.end() ? otherwise : found->second;
}

std::string Arguments::require(const std::string& name) const {
    if (!has(name)) throw UsageError(name, "this option: see --help", "none");
    return get(name);
}

std::string one_of(const std::string& option, const std::string& found, std::initializer_list<const char*> words) {
    std::string expected;
    for (const char* const word : words) {
        if (found == word) return found;
        expected += (expected.empty() ? "" : ", ") + std::string(word);
    }
    throw UsageError(option, "one of " + expected, found);
}

std::string Arguments::choose(const std::string& name, const std::string& otherwise,
                              std::initializer_list<const char*> words) const {
    const std::string found = get(name, otherwise);
    return found == otherwise ? found : one_of(name, found, words);
}

std::size_t Arguments::number(const std::string& name, std::size_t otherwise, std::size_t most, std::size_t least) const {
    if (!has(name)) return otherwise;
    const auto value = whole_number(get(name));
    if (!value || *value < 0 || static_cast<unsigned long long>(*value) < least || static_cast<unsigned long long>(*value) > most)
        throw UsageError(name, "a whole number from " + std::to_string(least) + " to " + std::to_string(most), get(name));
    return static_cast<std::size_t>(*value);
}

double Arguments::share(const std::string& name, double otherwise) const { return real(name, otherwise, 0, 1); }

double Arguments::real(const std::string& name, double otherwise, int least, int most) const {
    if (!has(name)) return otherwise;
    const std::string text = get(name);
    double value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (fault != std::errc() || end != text.data() + text.size() || !(value >= least && value <= most))
        throw UsageError(name, "a number from " + std::to_string(least) + " to " + std::to_string(most), text);
    return value;
}

int Arguments::layer(const std::string& name, int otherwise) const {
    if (!has(name)) return otherwise;
    const auto value = whole_number(get(name));
    if (!value || *value < -1000 || *value > 1000)
        throw UsageError(name, "the number of a layer, from 0, or from the back with a minus", get(name));
    return static_cast<int>(*value);
}

int exit_code(const std::string& name, const std::function<int()>& work) {
    try {
        const int code = work();
        // What was printed may not have arrived: a full disk, a closed pipe.
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
            throw td::Error("standard output", "cannot be written");
        return code;
    } catch (const UsageError& error) {
        std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
        return wrong_usage;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
        return not_done;
    }
}

}  // namespace program
