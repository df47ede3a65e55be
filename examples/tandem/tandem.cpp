// The program `tandem`: one command line for what people do with a CLIP.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include <tandem/core/platform.hpp>

#include "command.hpp"
#include "manual.hpp"

namespace {

using namespace program;

int run(const std::vector<std::string>& words) {
    const std::vector<Command> known = commands();
    const auto asks_for_help = [](const std::string& word) { return word == "--help" || word == "-h"; };
    const auto print = [](const std::string& text) { std::fputs(text.c_str(), stdout); };
    const auto find = [&](const std::string& name) {
        const auto found = std::ranges::find_if(known, [&](const Command& command) { return command.name == name; });
        if (found == known.end()) {
            std::string names;
            for (const Command& command : known) names += std::string(command.name) + ", ";
            throw UsageError("tandem", "a command: " + names + "completions or man; see tandem --help",
                             "\"" + name + "\"");
        }
        return *found;
    };
    if (words.empty()) throw UsageError("tandem", "a command: see tandem --help", "none");
    const std::string& first = words.front();
    const std::vector<std::string> rest(words.begin() + 1, words.end());
    if (asks_for_help(first)) return print(overview(known)), done;
    if (first == "--version") return print("tandem " + version() + "\n"), done;
    if (first == "completions") {
        if (rest.size() != 1 || (rest[0] != "bash" && rest[0] != "zsh"))
            throw UsageError("tandem completions", "bash or zsh", rest.empty() ? "nothing" : rest[0]);
        return print(completions(known, rest[0])), done;
    }
    if (first == "man") {
        if (rest.size() > 1) throw UsageError("tandem man", "one command, or none", rest[1]);
        return print(rest.empty() ? manual_of_all(known) : manual(find(rest[0]))), done;
    }
    const Command command = find(first);
    if (std::ranges::any_of(rest, asks_for_help)) return print(help(command)), done;
    return command.run(Arguments(command, rest));
}

}  // namespace

int main(int count, char** arguments) {
    // A message names the command that it is about.
    const std::string name = count > 1 && arguments[1][0] != '-' ? "tandem " + std::string(arguments[1]) : "tandem";
    try {
        const int code = run(std::vector<std::string>(arguments + std::min(count, 1), arguments + count));
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
