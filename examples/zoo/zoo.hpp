// What the programs share that take any checkpoint: the zoo, compiled once for all of them, and their command lines.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
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
    {"--tokenizer", "PATH", "where it does not lie beside the weights"},
    {"--resampling", "pillow|torchvision",
     "whose pixels a resize gives (default: torchvision for the configs of transformers)"}};

class Arguments {
public:
    /// Takes checkpoint_options as well. Throws Error for an option that is not listed, or lacks its value. --help
    /// prints the list and ends the program.
    Arguments(int count, char** arguments, const char* purpose, std::vector<Option> options) {
        options.insert(options.end(), checkpoint_options.begin(), checkpoint_options.end());
        for (int i = 1; i < count; ++i) {
            const std::string name = arguments[i];
            if (name == "--help" || name == "-h") {
                std::printf("%s\n", purpose);
                for (const Option& option : options)
                    std::printf("  %-12s %-26s %s\n", option.name, option.value, option.help);
                std::exit(0);
            }
            const auto option = std::ranges::find_if(options, [&](const Option& known) { return known.name == name; });
            if (option == options.end()) throw td::Error(name, "an option of --help", "none of that name");
            if (*option->value != 0 && ++i == count) throw td::Error(name, option->value, "the end of the command");
            values_[name] = *option->value == 0 ? "" : arguments[i];
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
    std::size_t number(const std::string& name, std::size_t otherwise) const {
        if (!has(name)) return otherwise;
        const std::string text = get(name);
        char* end = nullptr;
        const unsigned long value = std::strtoul(text.c_str(), &end, 10);
        if (text.empty() || *end != 0 || value == 0) throw td::Error(name, "a whole number above 0", text);
        return value;
    }

private:
    std::map<std::string, std::string> values_;
};

/// A checkpoint with all that is needed to embed pictures and captions as its own library does.
struct Opened {
    td::AnyClip clip;
    td::Preprocess preprocess;
    std::optional<td::AnyTokenizer> tokenizer;
};

/// Opens what checkpoint_options say.
inline Opened open(const Arguments& arguments, td::Towers towers = td::Towers::both) {
    const std::filesystem::path path = arguments.require("--weights");
    const td::OpenOptions options{.towers = towers, .check_finite = true, .activation = arguments.get("--activation")};
    const std::string precision = arguments.get("--precision", "f32");
    if (precision != "f32" && precision != "bf16" && precision != "int8")
        throw td::Error("--precision", "f32, bf16 or int8", precision);
    td::AnyClip clip = precision == "f32"    ? td::open<float>(path, options)
                       : precision == "bf16" ? td::open<td::bf16>(path, options)
                                             : td::open<td::int8>(path, options);
    const td::ImageSize size = clip.sizes().image;
    td::Preprocess recipe =
        td::load_preprocess(path, clip.logit_bias() ? td::siglip_preprocess(size) : td::openai_preprocess(size));
    if (recipe.size != size)
        throw td::Error(path.string(), "preprocessing to the model's " + to_string(size) + " pixels",
                        to_string(recipe.size));
    if (const std::string resampling = arguments.get("--resampling"); !resampling.empty()) {
        if (resampling != "pillow" && resampling != "torchvision")
            throw td::Error("--resampling", "pillow or torchvision", resampling);
        recipe.resampling = resampling == "pillow" ? td::Resampling::pillow_13 : td::Resampling::torchvision;
    }
    std::optional<td::AnyTokenizer> tokenizer;
    if (towers != td::Towers::image) {
        tokenizer = td::open_tokenizer(
            arguments.has("--tokenizer") ? std::filesystem::path(arguments.get("--tokenizer")) : path);
    }
    return {std::move(clip), recipe, std::move(tokenizer)};
}

/// The lines of a text file, without a byte order mark. Throws Error if there is none.
inline std::vector<std::string> read_lines(const std::filesystem::path& path) {
    std::ifstream file(path);
    if (!file) throw td::Error(path.string(), "cannot read the file");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) {
        if (lines.empty() && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
        if (line.ends_with('\r')) line.pop_back();
        lines.push_back(line);
    }
    if (lines.empty()) throw td::Error(path.string(), "a text file with lines", "none");
    return lines;
}

/// A picture, on the background that the checkpoint's library gives it.
inline td::Image read_picture(const Opened& opened, const std::filesystem::path& path) {
    td::DecodeOptions options;
    options.background = opened.preprocess.background;
    return td::read_image(path, options);
}

/// The pictures of a folder, by name; one picture; or those that a text file lists, a path a line.
inline std::vector<std::filesystem::path> list_images(const std::filesystem::path& path) {
    static const std::set<std::string> endings{".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG"};
    std::vector<std::filesystem::path> images;
    if (std::filesystem::is_directory(path)) {
        for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
            if (entry.is_regular_file() && endings.contains(entry.path().extension().string()))
                images.push_back(entry.path());
        }
        std::ranges::sort(images);
    } else if (endings.contains(path.extension().string())) {
        images.push_back(path);
    } else {
        for (const std::string& line : read_lines(path)) {
            if (!line.empty()) images.push_back(path.parent_path() / line);
        }
    }
    if (images.empty())
        throw td::Error(path.string(), "a picture, a folder with some (.jpg, .jpeg, .png), or a file that lists some",
                        "none");
    return images;
}

/// Runs a program: its exceptions become one line and exit code 1.
template <class Body>
int run(const char* program, const Body& body) {
    try {
        return body();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", program, error.what());
        return 1;
    }
}

}  // namespace zoo
