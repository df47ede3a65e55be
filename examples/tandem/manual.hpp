// What the program says of itself: --help, manual pages and completions, from the table of commands.
#pragma once

#include <string>
#include <vector>

#include "command.hpp"

namespace program {

std::string version();

/// tandem --help.
std::string overview(const std::vector<Command>& commands);

/// tandem COMMAND --help; `program` is what stands before the command's name.
std::string help(const Command& command, const std::string& program = "tandem ");

/// tandem.1 and tandem-COMMAND.1, for man(7).
std::string manual_of_all(const std::vector<Command>& commands);
std::string manual(const Command& command);

/// A script that bash or zsh reads.
std::string completions(const std::vector<Command>& commands, const std::string& shell);

}  // namespace program
