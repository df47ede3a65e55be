// A folder with a folder of pictures for each class.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "command.hpp"

namespace program {

/// The classes in the order of their folders, and their pictures.
struct ClassFolder {
    std::vector<std::string> folders, classes;
    std::vector<std::filesystem::path> pictures;
    std::vector<std::size_t> labels;
};

/// What the classes of folders are called, of a file with lines of folder<TAB>name, as ImageNet's need them. Throws Error for another line.
std::map<std::string, std::string> read_class_names(const std::filesystem::path& file);

/// Classes are called as `names` has it, or as their folders, with blanks for _ and -. Throws Error that names the option for fewer than two classes, for
/// a folder that cannot be read, and, where prompts are to be made of names, for one that is a number of WordNet's or a dataset's.
ClassFolder read_classes(const std::string& option, const std::filesystem::path& folder, const std::map<std::string, std::string>& names = {}, bool names_are_words = true);

}  // namespace program
