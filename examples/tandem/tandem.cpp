// The program `tandem`: one command line for what people do with a CLIP.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <tandem/core/platform.hpp>

#include "command.hpp"
#include "manual.hpp"

namespace {

using namespace program;

/// All of them, in the order in which they are listed.
std::vector<Command> commands() {
    return {embed_command(), zero_shot_command(), attention_command(), evaluate_command(), describe_command(), config_command(), segment_command(), ask_command(),
            condition_command(), draw_command(), index_command(), search_command(), tag_command(), recommend_command(), moderate_command(),
            curate_command(), serve_command()};
}

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
    return exit_code(name, [&] { return run(std::vector<std::string>(arguments + std::min(count, 1), arguments + count)); });
}
