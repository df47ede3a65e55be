#include "class_folder.hpp"

#include <algorithm>
#include <set>
#include <system_error>

#include "inputs.hpp"

namespace program {

std::map<std::string, std::string> read_class_names(const std::filesystem::path& file) {
    std::map<std::string, std::string> names;
    for (const std::string& line : read_texts(file)) {
        if (line.empty()) continue;
        const std::size_t tab = line.find('\t');
        if (tab == std::string::npos || tab == 0 || tab + 1 == line.size()) throw td::Error(file.string(), "lines of folder<TAB>name", line);
        if (!names.emplace(line.substr(0, tab), line.substr(tab + 1)).second) throw td::Error(file.string(), "every folder once", line.substr(0, tab) + " twice");
    }
    return names;
}

ClassFolder read_classes(const std::string& option, const std::filesystem::path& folder, const std::map<std::string, std::string>& names, bool names_are_words) {
    ClassFolder found;
    if (!std::filesystem::is_directory(folder)) throw td::Error(option, "a folder of classes", folder.string());
    const auto listed = [&](const std::filesystem::path& place, bool folders_alone) {
        std::set<std::filesystem::path> entries;
        std::error_code failed;
        for (std::filesystem::directory_iterator entry(place, failed), end; !failed && entry != end; entry.increment(failed)) {
            if (!folders_alone || entry->is_directory(failed)) entries.insert(entry->path());
        }
        if (failed) throw td::Error(option, place.string() + " cannot be read: " + failed.message());
        return entries;
    };
    for (const std::filesystem::path& of_class : listed(folder, true)) {
        for (const std::filesystem::path& picture : listed(of_class, false)) {
            found.pictures.push_back(picture);
            found.labels.push_back(found.classes.size());
        }
        std::string name = of_class.filename().string();
        found.folders.push_back(name);
        if (const auto given = names.find(name); given != names.end()) {
            name = given->second;
        } else {
            // ImageNet's folders are WordNet's numbers, ImageNet v2's are the classes': no prompt can be made of these.
            const std::string digits = name.starts_with('n') && name.size() == 9 ? name.substr(1) : name;
            if (names_are_words && digits.find_first_not_of("0123456789") == digits.npos)
                throw td::Error(option, "folders that are named by what they show, since prompts are made of the names", of_class.string());
            std::ranges::replace_if(name, [](char c) { return c == '_' || c == '-'; }, ' ');
        }
        found.classes.push_back(name);
    }
    if (found.classes.size() < 2 || found.pictures.empty())
        throw td::Error(option, "a folder with a folder for each class, two or more", std::to_string(found.classes.size()) + " in " + folder.string());
    return found;
}

}  // namespace program
