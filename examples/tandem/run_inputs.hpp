// What the rows of a run depend on: to tell whether an earlier run's can be used.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/config_reader.hpp>

#include "checkpoint.hpp"

namespace program {

/// What the rows of a run depend on, by name. Two runs of which all is equal compute the same bits.
class Inputs {
public:
    void add(const std::string& name, const std::string& value) { values_.emplace_back(name, value); }
    /// A file by what it holds: one that was written anew with the same bytes is the same.
    void add_contents(const std::filesystem::path& path) {
        const td::MappedFile file(path);
        add("file " + path.filename().string(),
            digest(file.bytes()) + " of " + std::to_string(file.bytes().size()) + " bytes");
        file.forget(file.bytes());
    }
    /// What checkpoint_options say, but for the places.
    void add_options(const Arguments& options) {
        for (const char* const name : {"--precision", "--activation", "--prefix", "--resampling", "--resize-as",
                                       "--orientation", "--pixel-limit"})
            add(name, options.get(name, "by default"));
    }
    /// All that opening a checkpoint reads but its tokenizer; the weights by their checksum, where the model has one, or else by
    /// all that they hold.
    void add_model(const std::filesystem::path& weights, const std::string& checksum = "") {
        if (checksum.empty()) {
            add_folder(weights);
            add_shards(weights);
        } else {
            add("checksum of the weights", checksum);
            if (std::filesystem::is_directory(weights)) add_files(weights, {".json"});
        }
        if (!std::filesystem::is_directory(weights)) {
            for (const char* const name :
                 {"open_clip_config.json", "preprocessor_config.json", "processor_config.json", "config.json"}) {
                if (const auto file = weights.parent_path() / name; std::filesystem::is_regular_file(file))
                    add_contents(file);
            }
        }
    }
    void add_tokenizer(const std::filesystem::path& path) {
        add_folder(std::filesystem::is_directory(path) ? path : beside(path));
    }
    /// The files of a folder that decide on its model's rows, or the file.
    void add_folder(const std::filesystem::path& path) {
        if (!std::filesystem::is_directory(path)) return add_contents(path);
        add_files(path, {".safetensors", ".bin", ".pt", ".pth", ".json", ".txt", ".model", ".gz"});
    }
    /// The files that an index of shards names, whatever their endings.
    void add_shards(const std::filesystem::path& weights) {
        std::vector<std::filesystem::path> indices;
        if (weights.string().ends_with(".index.json")) indices.push_back(weights);
        if (std::filesystem::is_directory(weights)) {
            for (const auto& entry : std::filesystem::directory_iterator(weights)) {
                if (entry.path().string().ends_with(".index.json")) indices.push_back(entry.path());
            }
        }
        for (const std::filesystem::path& index : indices) {
            std::set<std::string> shards;
            for (const std::string& shard : td::detail::ConfigReader(index).values_below("weight_map."))
                shards.insert(shard);
            for (const std::string& shard : shards) {
                if (const auto path = index.parent_path() / shard; std::filesystem::is_regular_file(path))
                    add_contents(path);
            }
        }
    }
    /// Pictures by path, size and time of the last change: to read them all would take as long as to begin anew.
    void add_pictures(std::span<const std::filesystem::path> paths) {
        std::string all;
        for (const std::filesystem::path& path : paths) {
            std::error_code failed;
            all += path.string() + '\n' + std::to_string(std::filesystem::file_size(path, failed)) + ' ' +
                   std::to_string(std::filesystem::last_write_time(path, failed).time_since_epoch().count()) + '\n';
        }
        add("pictures", std::to_string(paths.size()) + " with digest " + digest(std::as_bytes(std::span(all))));
    }
    void add_texts(std::span<const std::string> texts) {
        std::string all;
        for (const std::string& text : texts) all += text + '\n';
        add("captions", std::to_string(texts.size()) + " with digest " + digest(std::as_bytes(std::span(all))));
    }

    /// One line a name.
    std::string text() const {
        std::string lines;
        for (const auto& [name, value] : values_) lines += name + ": " + value + "\n";
        return lines;
    }

private:
    void add_files(const std::filesystem::path& folder, std::initializer_list<std::string_view> endings) {
        std::vector<std::filesystem::path> files;
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            const std::string ending = entry.path().extension().string();
            if (entry.is_regular_file() && std::ranges::find(endings, ending) != endings.end()) files.push_back(entry.path());
        }
        std::ranges::sort(files);
        for (const std::filesystem::path& file : files) add_contents(file);
    }
    /// The folder of a file's neighbours where the tokenizer is looked for among them, as open_tokenizer does.
    static std::filesystem::path beside(const std::filesystem::path& file) {
        const std::string name = file.filename().string();
        const bool is_vocabulary =
            name.ends_with(".model") || name == "tokenizer.json" || name == "vocab.txt" || name.ends_with(".txt.gz");
        return is_vocabulary ? file : file.parent_path().empty() ? std::filesystem::path(".") : file.parent_path();
    }
    static std::string digest(std::span<const std::byte> bytes) {
        td::Digest sum;
        sum.add(bytes);
        return sum.text();
    }

    std::vector<std::pair<std::string, std::string>> values_;
};

/// What a model's rows depend on, but for what they are of.
inline Inputs inputs_of_rows(const Arguments& options, const Opened& opened) {
    Inputs inputs;
    inputs.add("weights", weights_of(options).string());
    inputs.add_options(options);
    // Sums are rounded in another order on another instruction set.
    inputs.add("instruction set", std::string(td::kernels::name_of(td::kernels::active_isa())));
    inputs.add_model(weights_of(options), opened.clip.checksum());
    return inputs;
}

}  // namespace program
