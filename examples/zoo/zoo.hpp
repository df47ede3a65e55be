// What the programs share that take any checkpoint: the zoo, compiled once for all of them, and their command lines.
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/tandem.hpp>

namespace td = tandem;

extern template td::AnyClip td::open<float>(const std::filesystem::path&, const td::OpenOptions&);
extern template td::AnyClip td::open<td::bf16>(const std::filesystem::path&, const td::OpenOptions&);
extern template td::AnyClip td::open<td::int8>(const std::filesystem::path&, const td::OpenOptions&);

namespace zoo {

/// An option of a program. Without a value's name it is a switch.
struct Option {
    const char *name, *value, *help;
};

/// What open() reads.
inline const std::vector<Option> checkpoint_options{
    {"--weights", "PATH", "a checkpoint: a file, the index of a sharded one, or a folder with its config"},
    {"--precision", "f32|bf16|int8", "of the matrices (default f32)"},
    {"--activation", "NAME", "gelu, quick_gelu or gelu_pytorch_tanh, for weights without a config"},
    {"--prefix", "NAME", "which of several models in a file: what stands before its tensors' names (ema., say)"},
    {"--tokenizer", "PATH", "where it does not lie beside the weights"},
    {"--resampling", "pillow|torchvision",
     "whose pixels a resize gives (default: torchvision for the configs of transformers)"},
    {"--resize-as", "stored|rgb",
     "whether a picture becomes RGB before it is resized (default: as the config's library: open_clip's does not)"},
    {"--pixel-limit", "N", "pixels of a picture, beyond which it is left out (default 178956970, as Pillow's)"}};

/// A whole number, all of a text.
inline std::optional<long long> whole_number(const std::string& text) {
    long long value = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

class Arguments {
public:
    /// Takes checkpoint_options as well. Throws Error for an option that is not listed, stands twice, or lacks its
    /// value.
    /// --help prints the list and ends the program.
    Arguments(int count, char** arguments, const char* purpose, std::vector<Option> options) {
        options.insert(options.end(), checkpoint_options.begin(), checkpoint_options.end());
        for (int i = 1; i < count; ++i) {
            const std::string name = arguments[i];
            if (name == "--help" || name == "-h") {
                std::printf("%s\n", purpose);
                for (const Option& option : options)
                    std::printf("  %-13s %-26s %s\n", option.name, option.value, option.help);
                std::exit(0);
            }
            const auto option = std::ranges::find_if(options, [&](const Option& known) { return known.name == name; });
            if (option == options.end()) throw td::Error(name, "an option of --help", "none of that name");
            if (has(name)) throw td::Error(name, "the option once", "it twice");
            if (*option->value != 0 && ++i == count) throw td::Error(name, option->value, "the end of the command");
            values_[name] = *option->value == 0 ? "" : arguments[i];
            if (*option->value != 0 && values_[name].empty()) throw td::Error(name, option->value, "an empty text");
        }
    }

    bool has(const std::string& name) const { return values_.contains(name); }
    std::string get(const std::string& name, const std::string& otherwise = {}) const {
        const auto found = values_.find(name);
        return found == values_.end() ? otherwise : found->second;
    }
    std::string require(const std::string& name) const {
        if (!has(name)) throw td::Error(name, "this option: see --help", "none");
        return get(name);
    }
    /// One of some words.
    std::string choose(const std::string& name, const std::string& otherwise,
                       std::initializer_list<const char*> words) const {
        const std::string found = get(name, otherwise);
        std::string expected;
        for (const char* const word : words) {
            if (found == word) return found;
            expected += (expected.empty() ? "" : ", ") + std::string(word);
        }
        if (found == otherwise) return found;
        throw td::Error(name, "one of " + expected, found);
    }
    std::size_t number(const std::string& name, std::size_t otherwise, std::size_t most = 1'000'000) const {
        if (!has(name)) return otherwise;
        const auto value = whole_number(get(name));
        if (!value || *value < 1 || static_cast<unsigned long long>(*value) > most)
            throw td::Error(name, "a whole number from 1 to " + std::to_string(most), get(name));
        return static_cast<std::size_t>(*value);
    }
    /// A layer, from the front or from the back.
    int layer(const std::string& name, int otherwise) const {
        if (!has(name)) return otherwise;
        const auto value = whole_number(get(name));
        if (!value || *value < -1000 || *value > 1000)
            throw td::Error(name, "the number of a layer, from 0, or from the back with a minus", get(name));
        return static_cast<int>(*value);
    }

private:
    std::map<std::string, std::string> values_;
};

/// A checkpoint with all that is needed to embed pictures and captions as its own library does.
struct Opened {
    td::AnyClip clip;
    td::Preprocess preprocess;
    std::optional<td::AnyTokenizer> tokenizer;
    std::size_t pixel_limit = td::DecodeOptions{}.pixel_limit;
};

/// Opens what checkpoint_options say.
inline Opened open(const Arguments& arguments, td::Towers towers = td::Towers::both) {
    const std::filesystem::path path = arguments.require("--weights");
    const td::OpenOptions options{
        .towers = towers,
        .check_finite = true,
        .activation = arguments.choose("--activation", "", {"gelu", "quick_gelu", "gelu_pytorch_tanh"}),
        .prefix = arguments.get("--prefix"),
        .log = &std::cerr};
    const std::string precision = arguments.choose("--precision", "f32", {"f32", "bf16", "int8"});
    const std::string resampling = arguments.choose("--resampling", "", {"pillow", "torchvision"});
    const std::string resize_as = arguments.choose("--resize-as", "", {"stored", "rgb"});
    const std::size_t pixel_limit =
        arguments.number("--pixel-limit", td::DecodeOptions{}.pixel_limit, std::size_t{1} << 40);
    if (towers == td::Towers::image && arguments.has("--tokenizer"))
        throw td::Error("--tokenizer", "captions, which it is for", "none");
    for (const char* const name : {"--resampling", "--resize-as", "--pixel-limit"}) {
        if (towers == td::Towers::text && arguments.has(name))
            throw td::Error(name, "pictures, which it is for", "none");
    }
    td::AnyClip clip = precision == "f32"    ? td::open<float>(path, options)
                       : precision == "bf16" ? td::open<td::bf16>(path, options)
                                             : td::open<td::int8>(path, options);
    td::Preprocess recipe;
    if (clip.parts().image) {
        const td::ImageSize size = clip.sizes().image;
        recipe =
            td::load_preprocess(path, clip.logit_bias() ? td::siglip_preprocess(size) : td::openai_preprocess(size));
        if (recipe.size != size)
            throw td::Error(path.string(), "preprocessing to the model's " + to_string(size) + " pixels",
                            to_string(recipe.size));
        if (!resampling.empty())
            recipe.resampling = resampling == "pillow" ? td::Resampling::pillow_13 : td::Resampling::torchvision;
        if (!resize_as.empty()) recipe.resize_as = resize_as == "rgb" ? td::ResizeAs::rgb : td::ResizeAs::stored;
    }
    std::optional<td::AnyTokenizer> tokenizer;
    if (towers != td::Towers::image && clip.parts().text) {
        tokenizer = td::open_tokenizer(
            arguments.has("--tokenizer") ? std::filesystem::path(arguments.get("--tokenizer")) : path,
            std::filesystem::is_directory(path) ? path : path.parent_path());
    }
    return {std::move(clip), recipe, std::move(tokenizer), pixel_limit};
}

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
                throw td::Error(path.string(), "a text in UTF-8", "other bytes at line " + std::to_string(texts.size()));
            rest.remove_prefix(length);
        }
    }
    return texts;
}

/// A picture, on the background that the checkpoint's library gives it.
inline td::Image read_picture(const Opened& opened, const std::filesystem::path& path) {
    td::DecodeOptions options;
    options.background = opened.preprocess.background;
    options.pixel_limit = opened.pixel_limit;
    return td::read_image(path, options);
}

/// The same, as the model's input. Throws Error that names the picture.
inline void read_pixels(const Opened& opened, const std::filesystem::path& path, std::span<float> pixels) {
    const td::Image picture = read_picture(opened, path);
    try {
        td::preprocess(picture, opened.preprocess, pixels);
    } catch (const td::Error& error) {
        throw td::Error(path.string(), error.what());
    }
}

/// What stands in a place that pictures are looked for: all of it, one way or another.
struct Pictures {
    std::vector<std::filesystem::path> paths;                 ///< JPEG and PNG, and what is named so
    std::map<std::string, std::size_t> counts;                ///< of the others, by kind
    std::vector<std::pair<std::string, std::string>> faults;  ///< what cannot be looked at, and why

    /// Says on standard error what is not among the paths.
    void report() const {
        for (const auto& [path, reason] : faults)
            std::fprintf(stderr, "left out: %s: %s\n", path.c_str(), reason.c_str());
        for (const auto& [kind, count] : counts) std::fprintf(stderr, "not read: %zu %s\n", count, kind.c_str());
    }
};

/// Which kind of picture a file is, by its first bytes: JPEG, PNG, another format's name, or nothing. Of a file that
/// cannot be read, `fault` says why.
inline std::string picture_format(const std::filesystem::path& path, std::string& fault) {
    std::ifstream file(path, std::ios::binary);
    std::array<char, 512> first{};
    file.read(first.data(), static_cast<std::streamsize>(first.size()));
    if (!file.is_open() || file.bad()) fault = "cannot be read";
    const auto bytes = std::as_bytes(std::span(first.data(), static_cast<std::size_t>(file.gcount())));
    const std::string_view kind = td::detail::file_kind(bytes).name;
    for (const char* const format : {"JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "AVIF, HEIC or a video"}) {
        // A list of paths may begin with BM.
        if (kind == std::string(format) + " data" && !(kind == "BMP data" && td::detail::is_text(bytes))) return format;
    }
    return {};
}

/// Adds a file of a folder.
inline void add_file(const std::filesystem::path& path, Pictures& pictures) {
    static const std::set<std::string> endings{".jpg", ".jpeg", ".jpe", ".jfif", ".png"};
    std::string ending = path.extension().string(), fault;
    std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::string format = picture_format(path, fault);
    if (!fault.empty()) {
        pictures.faults.emplace_back(path.string(), fault);
    } else if (format == "JPEG" || format == "PNG" || (format.empty() && endings.contains(ending))) {
        pictures.paths.push_back(path);  // what is only named so is read, and its fault named
    } else if (format.empty()) {
        ++pictures.counts["files that are neither JPEG nor PNG"];
    } else {
        ++pictures.counts["pictures of " + format + ": no format that is read here; convert them to JPEG or PNG"];
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
        if (format == "JPEG" || format == "PNG") {
            pictures.paths.push_back(path);
        } else if (!format.empty()) {
            throw td::Error(path.string(), "a JPEG or PNG picture", format + " data: convert it");
        } else {
            for (const std::string& line : read_lines(path)) {
                if (!line.empty()) pictures.paths.push_back(path.parent_path() / line);
            }
        }
    }
    if (pictures.paths.empty()) {
        pictures.report();
        throw td::Error(path.string(), "a JPEG or PNG picture, a folder with some, or a file that lists some", "none");
    }
    return pictures;
}

/// Throws Error unless a file can be written there when the work is done.
inline void require_place(const std::filesystem::path& out) {
    if (std::filesystem::is_directory(out)) throw td::Error(out.string(), "the name of a file to write", "a folder");
    if (out.has_parent_path() && !std::filesystem::is_directory(out.parent_path()))
        throw td::Error(out.string(), "a folder that is there", out.parent_path().string());
}

/// Runs a program: its exceptions become one line and exit code 1.
template <class Body>
int run(const char* program, const Body& body) {
    try {
        const int code = body();
        // What was printed may not have arrived: a full disk, a closed pipe.
        if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) throw td::Error("standard output", "cannot be written");
        return code;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", program, error.what());
        return 1;
    }
}

}  // namespace zoo
