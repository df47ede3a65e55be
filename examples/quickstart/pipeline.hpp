// What the quickstart and the study share: how captioned images become training and held-out pairs, and what a model is
// worth on the latter.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/tandem.hpp>

#include "embed_pictures.hpp"
#include "preprocess.hpp"

namespace quickstart {

namespace fs = std::filesystem;
namespace td = tandem;

/// Where pairs come from. A class is a folder `class_depth` from the top with at least class_minimum images.
struct DataOptions {
    fs::path images, captions, retrieval;
    std::size_t class_depth = 2;
    std::size_t class_minimum = 30;
};

/// The options of a program: names followed by their values, and switches without. None is given twice.
class Arguments {
public:
    Arguments(int count, char** arguments, const std::set<std::string>& names,
              const std::set<std::string>& switches = {}) {
        for (int i = 1; i < count; ++i) {
            const std::string name = arguments[i];
            const bool is_switch = switches.contains(name);
            if (!is_switch && !names.contains(name)) throw td::Error(name, "is no option of this program");
            if (!is_switch && i + 1 == count) throw td::Error(name, "a value", "the end of the line");
            const std::string value = is_switch ? "given" : arguments[++i];
            if (value.empty()) throw td::Error(name, "a value", "an empty one");
            if (!values_.emplace(name, value).second) throw td::Error(name, "this option once", "it twice");
        }
    }

    bool has(const std::string& name) const { return values_.contains(name); }
    std::string text(const std::string& name, const std::string& otherwise = {}) const {
        const auto found = values_.find(name);
        return found == values_.end() ? otherwise : found->second;
    }
    /// Throws Error, which names the option, unless it is a number from `low` to `high`.
    template <class Number>
    Number number(const std::string& name, Number otherwise, Number low, Number high) const {
        if (!has(name)) return otherwise;
        const std::string given = text(name);
        Number value{};
        const auto result = std::from_chars(given.data(), given.data() + given.size(), value);
        if (result.ec != std::errc() || result.ptr != given.data() + given.size() || !(value >= low && value <= high)) {
            std::ostringstream expected;
            expected << "a number from " << low << " to " << high;
            throw td::Error(name, expected.str(), "\"" + given + "\"");
        }
        return value;
    }
    std::size_t count(const std::string& name, std::size_t otherwise) const {
        return number<std::size_t>(name, otherwise, 1, std::size_t{1} << 48);
    }

    /// The folder to write to, made where there is none.
    fs::path out(const fs::path& otherwise) const {
        fs::path path = text("--out", otherwise.string());
        std::error_code error;
        fs::create_directories(path, error);
        if (!fs::is_directory(path)) throw td::Error("--out", "a folder, or a place for one", path.string());
        return path;
    }

    /// --images, --captions, --retrieval, --class-depth, --class-minimum.
    DataOptions data() const {
        if (!has("--images") || !has("--captions"))
            throw td::Error("quickstart", "--images and --captions", "one of them missing");
        DataOptions options{
            .images = text("--images"), .captions = text("--captions"), .retrieval = text("--retrieval")};
        if (!fs::is_directory(options.images)) throw td::Error("--images", "a folder", options.images.string());
        for (const char* name : {"--captions", "--retrieval"}) {
            if (has(name) && !fs::is_regular_file(text(name))) throw td::Error(name, "a file", text(name));
        }
        options.class_depth = count("--class-depth", options.class_depth);
        options.class_minimum = count("--class-minimum", options.class_minimum);
        return options;
    }

    static std::set<std::string> with_data(std::set<std::string> names) {
        names.insert({"--images", "--captions", "--retrieval", "--class-depth", "--class-minimum", "--out"});
        return names;
    }

private:
    std::map<std::string, std::string> values_;
};

struct Data {
    std::map<std::string, std::size_t> folders;  ///< images of every folder that may be a class
    td::Bpe tokenizer;
    td::Pairs training, test;
    td::SkipCounts skipped;
};

/// A fifth of all images, by a hash of the path without its ending, is never trained on.
inline bool held_out(const std::string& path) {
    const std::string stem = fs::path(path).replace_extension().string();
    return crc32(0, reinterpret_cast<const Bytef*>(stem.data()), static_cast<uInt>(stem.size())) % 5 == 0;
}

/// The first `depth` folders an image lies in, or nothing if it lies in fewer.
inline std::string folder_class(const std::string& path, std::size_t depth) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < depth; ++i) {
        const std::size_t slash = path.find('/', i == 0 ? 0 : end + 1);
        if (slash == std::string::npos) return {};
        end = slash;
    }
    return path.substr(0, end);
}

/// "food/meats_and_eggs" is the class "meats and eggs".
inline std::string class_name(const std::string& folder) {
    std::string name = folder.substr(folder.rfind('/') + 1);
    std::replace_if(name.begin(), name.end(), [](char c) { return c == '_' || c == '-'; }, ' ');
    return name;
}

inline td::PairOptions pair_options(td::ImageSize image) {
    const td::Preprocess recipe = preprocess_of(image);
    td::PairOptions options{.preprocess = recipe, .stored = {image.height * 4 / 3, image.width * 4 / 3}};
    options.decode.background = recipe.background;
    return options;
}

/// Reads and splits the pairs, for images and captions of the config's sizes, and learns a tokenizer from the training
/// captions. A held-out image's caption is that of options.retrieval, or " " where that has none. Throws Error if fewer
/// than 2 pairs are left on a side, or fewer than 2 held-out images have a caption.
inline Data read_data(const DataOptions& options, td::ImageSize image, std::size_t vocabulary, std::size_t context) {
    td::SkipCounts skipped;
    std::map<std::string, std::size_t> folders;
    std::vector<td::CaptionedImage> training, testing;
    for (td::CaptionedImage& item : td::read_captions(options.captions, skipped)) {
        const std::string folder = folder_class(item.path, options.class_depth);
        if (!folder.empty()) ++folders[folder];
        (held_out(item.path) ? testing : training).push_back(std::move(item));
    }
    std::map<std::string, std::string> retrieval;
    if (!options.retrieval.empty()) {
        for (const td::CaptionedImage& item : td::read_captions(options.retrieval, skipped)) {
            retrieval.emplace(item.path, item.captions[0]);
        }
    }
    std::size_t captioned = testing.size();
    for (td::CaptionedImage& item : testing) {
        const auto text = retrieval.find(item.path);
        if (text != retrieval.end()) item.captions = {text->second};
        else if (!options.retrieval.empty())
            item.captions = {" "}, --captioned;
    }
    if (!options.retrieval.empty() && captioned < 2) {
        throw td::Error(options.retrieval.string(),
                        "captions of 2 or more held-out images of " + options.captions.string(),
                        std::to_string(captioned));
    }
    std::vector<std::string> texts;
    for (const td::CaptionedImage& item : training) texts.insert(texts.end(), item.captions.begin(), item.captions.end());
    td::Bpe tokenizer = td::train_bpe(texts, vocabulary);
    std::cerr << "reading " << training.size() + testing.size() << " images\n";
    td::PairOptions training_options = pair_options(image);
    training_options.crop = td::RandomResizedCrop{.scale_low = 0.6, .scale_high = 1.0, .ratio_low = 0.8, .ratio_high = 1.25};
    training_options.flip = 0.5;
    td::Pairs pairs(options.images, std::move(training), tokenizer, context, training_options, skipped);
    td::Pairs test(options.images, std::move(testing), tokenizer, context, pair_options(image));
    td::SkipCounts all_skipped = pairs.skipped();
    for (const auto& [cause, count] : test.skipped()) all_skipped[cause] += count;
    std::cerr << pairs.size() << " pairs to train on, " << test.size() << " held out";
    for (const auto& [cause, count] : all_skipped) std::cerr << "; skipped " << count << ": " << cause;
    std::cerr << '\n';
    if (pairs.size() < 2 || test.size() < 2) {
        throw td::Error(options.captions.string(), "at least 2 readable pairs to train on and 2 to hold out",
                        std::to_string(pairs.size()) + " and " + std::to_string(test.size()));
    }
    return {std::move(folders), std::move(tokenizer), std::move(pairs), std::move(test), std::move(all_skipped)};
}

template <class Model>
typename Model::Embeddings embed_images(const Model& model, const td::Pairs& pairs) {
    std::vector<std::size_t> all;
    return embed_pictures(
        model, pairs.size(),
        [&](std::size_t i, std::span<float> pixels) {
            pairs.fetch_image(i, pixels);
            return true;
        },
        all);
}

template <class Model>
typename Model::Embeddings rows_of(const typename Model::Embeddings& embeddings, const std::vector<std::size_t>& rows) {
    typename Model::Embeddings chosen(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) std::copy_n(embeddings[rows[i]].data(), Model::embedding, chosen[i].data());
    return chosen;
}

struct ZeroShot {
    std::vector<std::string> classes;
    std::vector<std::size_t> labels;
    td::ZeroShotScore score;
    double majority = 0;
    std::vector<std::size_t> confusion;
};

/// Classifies the held-out images of every folder with enough images in all by the folder's name.
template <class Model>
ZeroShot evaluate_zero_shot(const Model& model, const Data& data, const typename Model::Embeddings& images,
                            const DataOptions& options) {
    ZeroShot result;
    std::map<std::string, std::size_t> numbers;
    for (const auto& [folder, count] : data.folders) {
        if (count >= options.class_minimum) {
            numbers.emplace(folder, result.classes.size());
            result.classes.push_back(class_name(folder));
        }
    }
    if (result.classes.size() < 2) return {};
    std::vector<std::size_t> rows;
    for (std::size_t i = 0; i < data.test.size(); ++i) {
        const auto found = numbers.find(folder_class(data.test.path(i), options.class_depth));
        if (found == numbers.end()) continue;
        rows.push_back(i);
        result.labels.push_back(found->second);
    }
    const std::vector<std::string> templates{"{}"};
    const auto classifier = td::zero_shot_classifier(model, data.tokenizer, result.classes, templates);
    result.score = td::score_zero_shot(td::similarity(rows_of<Model>(images, rows), classifier), result.labels);
    const std::size_t classes = result.classes.size();
    result.confusion.resize(classes * classes);
    std::vector<std::size_t> seen(classes);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        ++result.confusion[result.labels[i] * classes + result.score.predicted[i]];
        ++seen[result.labels[i]];
    }
    result.majority = static_cast<double>(*std::max_element(seen.begin(), seen.end())) /
                      std::max(1.0, static_cast<double>(rows.size()));
    return result;
}

/// The held-out pairs that have a caption, and how each side finds the other.
template <class Model>
struct Retrieval {
    std::vector<std::size_t> rows;  ///< of the held-out pairs
    std::vector<std::string> texts;
    typename Model::Embeddings image_embeddings, text_embeddings;
    td::Tensor<float, td::Shape<td::dynamic, td::dynamic>> image_to_text, text_to_image;

    Retrieval(const Model& model, const Data& data, const typename Model::Embeddings& images) {
        for (std::size_t i = 0; i < data.test.size(); ++i) {
            if (data.test.captions(i)[0] == " ") continue;
            rows.push_back(i);
            texts.push_back(data.test.captions(i)[0]);
        }
        text_embeddings = td::embed_texts(model, data.tokenizer, texts);
        image_embeddings = rows_of<Model>(images, rows);
        image_to_text = td::similarity(image_embeddings, text_embeddings);
        text_to_image = td::similarity(text_embeddings, image_embeddings);
    }
};

/// The optimizer and schedule of both.
inline constexpr td::Muon optimizer{.rate = 1.5e-3, .weight_decay = 0.1};
inline constexpr td::WarmupCosine schedule{.warmup = 0.08};

}  // namespace quickstart
