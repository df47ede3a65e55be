// The files that a command works on: texts line by line, and the pictures of a folder, each accounted for.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/files/safetensors_types.hpp>
#include <tandem/images/codec.hpp>

#include "command.hpp"

namespace program {

/// The lines of a text file, without a byte order mark. Throws Error if there is none.
inline std::vector<std::string> read_lines(const std::filesystem::path& path) {
    if (std::filesystem::is_directory(path)) throw td::Error(path.string(), "a text file with lines", "a folder");
    if (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path) && !std::filesystem::is_fifo(path))
        throw td::Error(path.string(), "a text file with lines", "a device");
    std::ifstream file(path, std::ios::binary);
    if (!file) throw td::Error(path.string(), "cannot read the file");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        if (lines.empty() && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
        if (line.ends_with('\r')) line.pop_back();
        if (line.find('\0') != std::string::npos)
            throw td::Error(path.string(), "a text file with lines",
                            "binary data at line " + std::to_string(lines.size() + 1));
        lines.push_back(line);
    }
    if (file.bad()) throw td::Error(path.string(), "cannot read the file to its end");
    if (lines.empty()) throw td::Error(path.string(), "a text file with lines", "none");
    return lines;
}

/// The captions of a file, a line each. Throws Error for what is no UTF-8.
inline std::vector<std::string> read_texts(const std::filesystem::path& path) {
    std::vector<std::string> texts;
    for (const std::string& line : read_lines(path)) {
        // Some editors end lines with CR alone.
        for (std::size_t begin = 0; begin <= line.size();) {
            const std::size_t end = std::min(line.find('\r', begin), line.size());
            texts.push_back(line.substr(begin, end - begin));
            begin = end + 1;
        }
        for (std::string_view rest = line; !rest.empty();) {
            const std::size_t length = td::detail::utf8_sequence(rest);
            if (length == 0)
                throw td::Error(path.string(), "a text in UTF-8",
                                "other bytes at line " + std::to_string(texts.size()));
            rest.remove_prefix(length);
        }
    }
    return texts;
}

/// What an option lists, each once: the lines of a file, or what stands between commas. `kind` is what one is called.
inline std::vector<std::string> read_list(const Arguments& options, const char* option, const std::string& kind) {
    const std::string argument = options.require(option), wanted = "a file with one " + kind + " a line, or " + kind + "s with commas between";
    std::vector<std::string> items;
    std::error_code failed;
    if (std::filesystem::exists(argument, failed) && !std::filesystem::is_directory(argument, failed)) {
        items = read_texts(argument);
    } else {
        // A path that leads nowhere is none; what has a blank in it is a text, whatever its signs.
        const std::string ending = std::filesystem::path(argument).extension().string();
        const bool is_path = argument.find('/') != std::string::npos || (argument.find(',') == std::string::npos && ending.size() > 1);
        if (is_path && argument.find(' ') == std::string::npos) throw td::Error(option, wanted, "no file " + argument);
        std::istringstream parts(argument);
        for (std::string item; std::getline(parts, item, ',');) {
            item.erase(0, item.find_first_not_of(' '));
            item.erase(item.find_last_not_of(' ') + 1);
            items.push_back(item);
        }
    }
    std::erase_if(items, [](const std::string& item) { return item.find_first_not_of(" \t") == std::string::npos; });
    if (items.empty()) throw td::Error(option, wanted, argument);
    std::vector<std::string> sorted = items;
    std::ranges::sort(sorted);
    if (const auto twice = std::ranges::adjacent_find(sorted); twice != sorted.end())
        throw td::Error(option, "every " + kind + " once", *twice + " twice");
    return items;
}

/// Throws UsageError where an option names a file that is read, or one that lies in a folder that is.
inline void require_other(const std::string& option, const std::filesystem::path& written, const std::filesystem::path& read) {
    std::error_code failed;
    const bool is_same = std::filesystem::equivalent(written, read, failed);
    const bool is_in = std::filesystem::is_directory(read, failed) && std::filesystem::exists(written, failed) && std::filesystem::equivalent(written.parent_path().empty() ? "." : written.parent_path(), read, failed);
    if (is_same || is_in) throw UsageError(option, "another file than what is read", written.string());
}

/// A name in a line of a list: what would end a column or the line is written \\t and \\n, and a backslash twice.
inline std::string in_a_line(const std::string& name) {
    std::string out;
    for (const char c : name) out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : c == '\\' ? "\\\\" : std::string(1, c);
    return out;
}

/// Writes a picture as a PNG, atomically.
inline void write_png(const std::filesystem::path& path, const td::Image& image) {
    const std::vector<std::byte> png = td::encode_png(image);
    const std::span<const std::byte> bytes(png);
    td::write_file_atomically(path, std::span(&bytes, 1));
}

/// The prompts of --templates, each with one hole for the label; or `otherwise` alone.
inline std::vector<std::string> read_templates(const Arguments& options, const char* otherwise) {
    if (!options.has("--templates")) return {otherwise};
    std::vector<std::string> templates = read_texts(options.get("--templates"));
    std::erase(templates, "");
    for (const std::string& prompt : templates) {
        const std::size_t hole = prompt.find("{}");
        if (hole == std::string::npos || prompt.find("{}", hole + 2) != std::string::npos)
            throw td::Error("--templates", "a template with {} once", prompt);
    }
    if (templates.empty())
        throw td::Error(options.get("--templates"), "a prompt a line, with {} for the label", "empty lines");
    return templates;
}

/// What stands in a place that pictures are looked for: all of it, one way or another.
struct Pictures {
    std::vector<std::filesystem::path> paths;                 ///< of the formats that are read, and what is named so
    std::map<std::string, std::size_t> counts;                ///< of the others, by kind
    std::vector<std::pair<std::string, std::string>> faults;  ///< what cannot be looked at, and why

    /// Says on standard error what is not among the paths.
    void report() const {
        for (const auto& [path, reason] : faults)
            std::fprintf(stderr, "left out: %s: %s\n", path.c_str(), reason.c_str());
        for (const auto& [kind, count] : counts) std::fprintf(stderr, "not read: %zu %s\n", count, kind.c_str());
    }
};

/// Formats of pictures that are told apart, those that are read first.
inline constexpr std::array formats{"JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "HEIC", "JPEG XL"};
inline constexpr std::span read_formats = std::span(formats).first<3>();

inline bool is_read(std::string_view format) {
    return std::ranges::find(read_formats, format) != read_formats.end();
}

/// Which kind of picture a file is, by its first bytes: one of these formats, or nothing. Of a file that cannot be
/// read, `fault` says why.
inline std::string picture_format(const std::filesystem::path& path, std::string& fault) {
    std::ifstream file(path, std::ios::binary);
    std::array<char, 512> first{};
    file.read(first.data(), static_cast<std::streamsize>(first.size()));
    if (!file.is_open() || file.bad()) fault = "cannot be read";
    const auto bytes = std::as_bytes(std::span(first.data(), static_cast<std::size_t>(file.gcount())));
    const std::string kind(td::detail::file_kind(bytes).name);
    if (kind == "BMP data" && td::detail::is_text(bytes)) return {};  // a list of paths may begin with BM
    for (const char* const format : formats) {
        if (kind == std::string(format) + " data") return format;
    }
    return {};
}

/// How pictures of a format that is not read are made ones that are.
inline std::string conversion(const std::string& format) {
    const std::string tool = format == "HEIC" ? "heif-convert (libheif-examples)" : "convert (ImageMagick)";
    return "not a format that tandem reads; convert them, for instance with " + tool;
}

/// Adds a file of a folder.
inline void add_file(const std::filesystem::path& path, Pictures& pictures) {
    static const std::set<std::string> endings{".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"};
    std::string ending = path.extension().string(), fault;
    std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::string format = picture_format(path, fault);
    if (!fault.empty()) {
        pictures.faults.emplace_back(path.string(), fault);
    } else if (is_read(format) || (format.empty() && endings.contains(ending))) {
        pictures.paths.push_back(path);  // what is only named so is read, and its fault named
    } else if (format.empty()) {
        ++pictures.counts["files that are no pictures"];
    } else {
        ++pictures.counts[(ending.empty() ? format : ending) + " pictures: " + conversion(format)];
    }
}

inline void add_folder(const std::filesystem::path& folder, Pictures& pictures) {
    std::error_code failed;
    std::vector<std::filesystem::path> entries;
    for (std::filesystem::directory_iterator entry(folder, failed), end; !failed && entry != end;
         entry.increment(failed))
        entries.push_back(entry->path());
    if (failed) pictures.faults.emplace_back(folder.string(), "the folder cannot be read: " + failed.message());
    std::ranges::sort(entries);
    for (const std::filesystem::path& path : entries) {
        const std::filesystem::file_status link = std::filesystem::symlink_status(path, failed);
        const std::filesystem::file_status status = std::filesystem::status(path, failed);
        if (path.filename().string().starts_with('.')) {
            ++pictures.counts["hidden files and folders, whose names begin with a dot"];
        } else if (failed || status.type() == std::filesystem::file_type::not_found) {
            pictures.faults.emplace_back(path.string(),
                                         is_symlink(link) ? "a link that leads to no file" : "cannot be looked at");
        } else if (is_directory(status) && is_symlink(link)) {
            pictures.faults.emplace_back(path.string(), "a link to a folder, which is not followed: name that folder");
        } else if (is_directory(status)) {
            add_folder(path, pictures);
        } else if (is_regular_file(status)) {
            add_file(path, pictures);
        } else {
            pictures.faults.emplace_back(path.string(), "neither a file nor a folder");
        }
    }
}

/// The pictures of a folder, by name; one picture; or those that a text file lists, a path a line. Which of them a file
/// is, its first bytes tell.
inline Pictures list_pictures(const std::filesystem::path& path) {
    Pictures pictures;
    std::error_code failed;
    if (std::filesystem::is_directory(path, failed)) {
        add_folder(path, pictures);
        std::ranges::sort(pictures.paths);
    } else if (std::filesystem::exists(path, failed) && !std::filesystem::is_regular_file(path, failed)) {
        throw td::Error(path.string(), "a picture, a folder, or a text file that lists pictures",
                        "neither a file nor a folder");
    } else {
        std::string fault;
        const std::string format = picture_format(path, fault);
        if (is_read(format)) {
            pictures.paths.push_back(path);
        } else if (!format.empty()) {
            throw td::Error(path.string(), "a JPEG, PNG or WebP picture", format + " data: " + conversion(format));
        } else {
            for (const std::string& line : read_lines(path)) {
                if (!line.empty()) pictures.paths.push_back(path.parent_path() / line);
            }
        }
    }
    if (pictures.paths.empty()) {
        pictures.report();
        throw td::Error(path.string(), "a JPEG, PNG or WebP picture, a folder with some, or a file that lists some",
                        "none");
    }
    return pictures;
}

/// Throws Error unless a file can be written there when the work is done.
inline void require_place(const std::filesystem::path& out) {
    if (std::filesystem::is_directory(out)) throw td::Error(out.string(), "the name of a file to write", "a folder");
    if (out.has_parent_path() && !std::filesystem::is_directory(out.parent_path()))
        throw td::Error(out.string(), "a folder that is there", out.parent_path().string());
}

}  // namespace program
