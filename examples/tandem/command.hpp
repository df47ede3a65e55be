// A subcommand of the program `tandem`, and how its command line is read. What --help, the manual pages and the
// completions of shells say is generated from the same table.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>

namespace program {

namespace td = tandem;

/// What becomes the exit code of a wrong command line.
class UsageError : public td::Error {
public:
    using td::Error::Error;
};

/// The program's exit codes.
enum ExitCode { done = 0, not_done = 1, wrong_usage = 2 };

/// An option. Without a value's name it is a switch.
struct Option {
    const char *name, *value, *help;
};

class Arguments;

struct Command {
    const char* name;
    const char* purpose;      ///< one line
    const char* operand;      ///< the name of what stands without an option before it, or empty; with ... there are several, in
                              ///< brackets perhaps none
    const char* synopsis;     ///< what has to be given, and what is most often
    const char* description;  ///< what is written, and what to know
    std::vector<Option> options;
    int (*run)(const Arguments& arguments);
};

/// A whole number, all of a text.
std::optional<long long> whole_number(const std::string& text);

/// `found`, which must be one of some words. Throws UsageError, which lists them.
std::string one_of(const std::string& option, const std::string& found, std::initializer_list<const char*> words);

/// What a command was given.
class Arguments {
public:
    /// Throws UsageError for an option that the command does not have, that stands twice, or that lacks its value, and
    /// for an operand too many or too few.
    Arguments(const Command& command, std::vector<std::string> words);

    const std::string& operand() const { return operands_.front(); }
    const std::vector<std::string>& operands() const { return operands_; }
    void set(const std::string& name, const std::string& value) { values_[name] = value; }
    bool has(const std::string& name) const { return values_.contains(name); }
    std::string get(const std::string& name, const std::string& otherwise = {}) const;
    std::string require(const std::string& name) const;
    /// One of some words.
    std::string choose(const std::string& name, const std::string& otherwise,
                       std::initializer_list<const char*> words) const;
    std::size_t number(const std::string& name, std::size_t otherwise, std::size_t most = 1'000'000, std::size_t least = 1) const;
    /// What random numbers begin with; 0 where it is not given.
    td::Seed seed(const std::string& name = "--seed") const { return td::Seed{number(name, 0, 1'000'000, 0)}; }
    /// A number from 0 to 1.
    double share(const std::string& name, double otherwise) const;
    double real(const std::string& name, double otherwise, int least, int most) const;
    /// A layer, from the front or from the back.
    int layer(const std::string& name, int otherwise) const;

private:
    std::map<std::string, std::string> values_;
    std::vector<std::string> operands_;
};

Command embed_command();
Command zero_shot_command();
Command attention_command();
Command evaluate_command();
Command segment_command();
Command ask_command();
Command condition_command();
Command draw_command();
Command config_command();
Command describe_command();
Command index_command();
Command search_command();
Command serve_command();
Command tag_command();
Command recommend_command();
Command moderate_command();
Command curate_command();

/// What a program ends with that does this work: an error is said on standard error behind the program's name, as is output that did not arrive.
int exit_code(const std::string& name, const std::function<int()>& work);

}  // namespace program
