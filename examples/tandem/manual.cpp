#include "manual.hpp"

#include <algorithm>
#include <cstddef>
#include <sstream>

#include <tandem/core/platform.hpp>

namespace program {

namespace {

constexpr std::size_t line_width = 100;

constexpr const char* summary = "Find, label and compare pictures and captions with CLIP models, on the CPU.";

/// Text in lines of at most line_width, each behind `indent` blanks; the first stands behind `used` columns already.
std::string wrapped(const std::string& text, std::size_t indent, std::size_t used) {
    std::istringstream words(text);
    std::string lines;
    std::size_t column = used;
    for (std::string word; words >> word;) {
        if (column > indent && column + 1 + word.size() > line_width) {
            lines += "\n" + std::string(indent, ' ');
            column = indent;
        } else if (column > indent) {
            lines += " ";
            ++column;
        } else if (column < indent) {
            lines += std::string(indent - column, ' ');
            column = indent;
        }
        lines += word;
        column += word.size();
    }
    return lines;
}

std::string usage(const Command& command, const std::string& program) {
    return program + command.name + " " + command.synopsis;
}

struct Outcome {
    int code;
    const char* meaning;
};

constexpr Outcome outcomes[] = {
    {done, "the work was done; single inputs that could not be read are named on standard error"},
    {not_done, "it was not done, and the message says why"},
    {wrong_usage, "the command line is wrong; nothing was begun"}};

std::string exit_codes() {
    std::string text;
    for (const Outcome& outcome : outcomes) text += "  " + std::to_string(outcome.code) + "  " + outcome.meaning + "\n";
    return text;
}

/// For man(7): a line must not begin with a dot or a quote, and a hyphen is one.
std::string roff(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\\') {
            out += "\\e";
        } else if (c == '-') {
            out += "\\-";
        } else if (c == '\'') {
            out += "\\(aq";
        } else {
            out += c;
        }
    }
    return (text.starts_with('.') ? "\\&" : "") + out;
}

std::string roff_head(const std::string& page, const std::string& purpose) {
    std::string title = page;
    std::ranges::transform(title, title.begin(),
                           [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
    return ".TH " + roff(title) + " 1 \"\" \"tandem " + version() + "\" \"User Commands\"\n.SH NAME\n" + roff(page) +
           " \\- " + roff(purpose) + "\n";
}

std::string roff_tail() {
    std::string text = ".SH EXIT STATUS\n";
    for (const Outcome& outcome : outcomes)
        text += ".TP\n" + std::to_string(outcome.code) + "\n" + roff(outcome.meaning) + "\n";
    return text;
}

/// Words for bash and zsh, which both take single quotes.
std::string quoted(const std::string& text) {
    std::string out = "'";
    for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + "'";
}

/// Whether the value of an option is a path, and the words it can be otherwise.
std::string choices(const Option& option) {
    const std::string value = option.value;
    if (value.find('|') == std::string::npos || value.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ.") != std::string::npos)
        return {};
    std::string words = value;
    std::ranges::replace(words, '|', ' ');
    return words;
}

std::string option_names(const Command& command) {
    std::string names;
    for (const Option& option : command.options) names += std::string(option.name) + " ";
    return names + "--help";
}

std::string bash_completions(const std::vector<Command>& commands) {
    std::string names, cases, values;
    for (const Command& command : commands) {
        names += std::string(command.name) + " ";
        cases += std::string("        ") + command.name + ") words=" + quoted(option_names(command)) + " ;;\n";
        for (const Option& option : command.options) {
            const std::string line =
                std::string("        ") + option.name + ") words=" + quoted(choices(option)) + " ;;\n";
            if (!choices(option).empty() && values.find(line) == std::string::npos) values += line;
        }
    }
    return "# bash completion for tandem\n"
           "_tandem() {\n"
           "    local words current=${COMP_WORDS[COMP_CWORD]}\n"
           "    if ((COMP_CWORD == 1)); then\n"
           "        COMPREPLY=($(compgen -W " +
           quoted(names + "completions man --help --version") +
           " -- \"$current\"))\n"
           "        return\n"
           "    fi\n"
           "    case ${COMP_WORDS[COMP_CWORD - 1]} in\n" +
           values +
           "    esac\n"
           "    if [[ -z $words && $current == -* ]]; then\n"
           "        case ${COMP_WORDS[1]} in\n" +
           cases +
           "        esac\n"
           "    fi\n"
           "    if [[ ${COMP_WORDS[1]} == completions ]]; then words='bash zsh'; fi\n"
           "    if [[ ${COMP_WORDS[1]} == man ]]; then words=" +
           quoted(names) +
           "; fi\n"
           "    if [[ -n $words ]]; then COMPREPLY=($(compgen -W \"$words\" -- \"$current\")); fi\n"
           "}\n"
           "complete -o default -F _tandem tandem\n";
}

std::string zsh_completions(const std::vector<Command>& commands) {
    std::string list, cases;
    for (const Command& command : commands) {
        list += "            " + quoted(std::string(command.name) + ":" + command.purpose) + "\n";
        cases += std::string("        ") + command.name + ")\n            _arguments";
        for (const Option& option : command.options) {
            std::string help = option.help;
            for (const char special : {'[', ']', ':'}) std::erase(help, special);
            std::string spec = std::string(option.name) + "[" + help + "]";
            if (*option.value != 0)
                spec += std::string(":value:") + (choices(option).empty() ? "_files" : "(" + choices(option) + ")");
            cases += " \\\n                " + quoted(spec);
        }
        if (*command.operand != 0) cases += " \\\n                '1:operand:_files'";
        cases += "\n            ;;\n";
    }
    return "#compdef tandem\n"
           "_tandem() {\n"
           "    local -a commands\n"
           "    if ((CURRENT == 2)); then\n"
           "        commands=(\n" +
           list +
           "            'completions:print a script for a shell'\n            'man:print a manual page'\n"
           "        )\n"
           "        _describe command commands\n"
           "        return\n"
           "    fi\n"
           "    local command=$words[2]\n"
           "    shift words\n"
           "    ((CURRENT--))\n"
           "    case $command in\n" +
           cases +
           "        completions) _values shell bash zsh ;;\n"
           "    esac\n"
           "}\n"
           "_tandem \"$@\"\n";
}

}  // namespace

std::string version() {
    return std::to_string(td::version_major) + "." + std::to_string(td::version_minor) + "." +
           std::to_string(td::version_patch);
}

std::string overview(const std::vector<Command>& commands) {
    std::string text = std::string("tandem COMMAND [OPTIONS]\n\n") + summary + "\n\nCommands:\n";
    const auto line = [&](const std::string& name, const std::string& purpose) {
        text += "  " + name + std::string(name.size() < 18 ? 18 - name.size() : 1, ' ') + purpose + "\n";
    };
    for (const Command& command : commands) line(command.name, command.purpose);
    line("completions SHELL", "print completions for bash or zsh");
    line("man [COMMAND]", "print a manual page");
    return text +
           "\ntandem COMMAND --help says what a command takes; tandem --version which tandem this is.\n"
           "Results go to standard output, messages to standard error. Exit codes:\n" +
           exit_codes();
}

std::string help(const Command& command, const std::string& program) {
    constexpr std::size_t name_width = 15, value_width = 24;
    std::string text = usage(command, program) + "\n\n" + wrapped(command.description, 0, 0) + "\n\n";
    for (const Option& option : command.options) {
        std::string head = "  " + std::string(option.name);
        head.resize(std::max(head.size() + 1, name_width), ' ');
        head += option.value;
        head.resize(std::max(head.size() + 1, name_width + value_width), ' ');
        text += head + wrapped(option.help, name_width + value_width, head.size()) + "\n";
    }
    return text;
}

std::string manual_of_all(const std::vector<Command>& commands) {
    std::string text = roff_head("tandem", "CLIP models on the CPU") +
                       ".SH SYNOPSIS\n.B tandem\n.I COMMAND\n[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n" + roff(summary) +
                       "\nResults go to standard output, messages to standard error.\n.SH COMMANDS\n";
    for (const Command& command : commands)
        text += std::string(".TP\n.BR tandem\\-") + roff(command.name) + " (1)\n" + roff(command.purpose) + "\n";
    text += ".TP\n\\fBtandem completions\\fR bash|zsh\nprint completions for a shell\n";
    text += ".TP\n\\fBtandem man\\fR [\\fICOMMAND\\fR]\nprint a manual page\n";
    return text + roff_tail();
}

std::string manual(const Command& command) {
    std::string text = roff_head(std::string("tandem-") + command.name, command.purpose) + ".SH SYNOPSIS\n.B " +
                       roff("tandem " + std::string(command.name)) + "\n" + roff(command.synopsis) +
                       "\n.SH DESCRIPTION\n" + roff(command.description) + "\n";
    if (!command.options.empty()) text += ".SH OPTIONS\n";
    for (const Option& option : command.options) {
        text += ".TP\n\\fB" + roff(option.name) + "\\fR" +
                (*option.value == 0 ? "" : " \\fI" + roff(option.value) + "\\fR") + "\n" + roff(option.help) + "\n";
    }
    return text + roff_tail() + ".SH SEE ALSO\n.BR tandem (1)\n";
}

std::string completions(const std::vector<Command>& commands, const std::string& shell) {
    return shell == "bash" ? bash_completions(commands) : zsh_completions(commands);
}

}  // namespace program
