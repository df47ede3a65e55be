// Writes the tar shards that `train` and webdataset read, from a folder of captioned pictures, a table or other shards: make_shards --help.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/random.hpp>
#include <tandem/data/samples.hpp>
#include <tandem/data/shards.hpp>
#include <tandem/files/tar.hpp>

#include "../tandem/manual.hpp"
#include "../tandem/progress.hpp"
#include "../tandem/table_options.hpp"
#include "settings.hpp"
#include "sources.hpp"
#include "unpack.hpp"

namespace {

namespace fs = std::filesystem;
namespace td = tandem;
using training::Settings;

std::string padded(std::size_t number, std::size_t width) {
    std::string digits = std::to_string(number);
    return std::string(width - std::min(width, digits.size()), '0') + digits;
}

/// How a picture's name ends, by its first byte; empty where it is none.
std::string ending_of(std::span<const std::byte> bytes) {
    if (!td::detail::begins_as_picture(bytes)) return "";
    const auto first = std::to_integer<int>(bytes[0]);
    return first == 0xFF ? ".jpg" : first == 0x89 ? ".png" : ".webp";
}

/// A folder that goes when it is done with, however that ends.
class Passing {
public:
    explicit Passing(fs::path path) : path_(std::move(path)) {}
    ~Passing() {
        std::error_code failed;
        fs::remove_all(path_, failed);
    }
    Passing(const Passing&) = delete;
    Passing& operator=(const Passing&) = delete;
    const fs::path& path() const { return path_; }

private:
    fs::path path_;
};

/// Whether a source is shards, some of them compressed, and neither a folder nor a table.
bool are_shards(const std::string& from) {
    const auto is_shard = [](std::string_view name) { return name.ends_with(".tar") || !training::compressed_ending(name).empty(); };
    return !fs::is_directory(from) && (is_shard(from) || from.find("::") != std::string::npos) && std::ranges::all_of(td::expand_names(from), is_shard);
}

/// The pairs of shards, of which those that are compressed are unpacked first: the first one below `unpacked`/0, and so on.
td::SampleList list_shards(const std::vector<std::string>& names, const fs::path& unpacked) {
    std::vector<std::string> paths = names;
    for (std::size_t i = 0; i < paths.size(); ++i) {
        if (!training::compressed_ending(paths[i]).empty()) paths[i] = training::unpack(paths[i], unpacked / std::to_string(i)).string();
    }
    td::SampleList list = td::read_shards(paths);
    // What is left out is said of the archive that the user knows.
    for (auto& [cause, files] : list.faults) {
        for (std::size_t i = 0; i < paths.size(); ++i) {
            if (auto fault = files.extract(paths[i]); !fault.empty()) files[names[i]] += fault.mapped();
        }
    }
    return list;
}

int run(const program::Arguments& given) {
    Settings settings;
    const std::string from = given.operand();
    settings.dataset_type = fs::is_directory(from) ? "folder" : "csv";  // whatever a table's name ends with
    settings.table = program::table_options(given);
    const fs::path out = given.require("--out");
    const std::size_t in_each = given.number("--pairs", 10000);
    if (fs::exists(out) && !fs::is_empty(out)) throw program::UsageError("--out", "a folder that is empty or not there yet", out.string());
    const Passing unpacked(out / "unpacked");
    const td::SampleList list = are_shards(from) ? list_shards(td::expand_names(from), unpacked.path()) : training::list_samples(from, settings);
    training::report_faults(from.c_str(), list.faults);
    std::vector<std::size_t> order(list.samples.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (given.has("--shuffle")) {
        td::Random random(given.seed("--shuffle"));
        td::shuffle(order, random);
    }
    fs::create_directories(out);
    const std::size_t shards = (order.size() + in_each - 1) / in_each, digits = std::max<std::size_t>(6, std::to_string(shards).size());
    program::Progress progress("shards", 0, order.size());
    std::size_t written = 0;
    td::FaultCounts faults;
    for (std::size_t shard = 0; shard < shards; ++shard) {
        std::vector<std::pair<std::string, std::vector<std::byte>>> members;
        for (std::size_t i = shard * in_each; i < std::min(order.size(), (shard + 1) * in_each); ++i) {
            std::vector<std::byte> picture = td::picture_of(list, order[i]);
            const std::string ending = ending_of(picture), key = padded(i, 9);
            progress.show(i + 1);
            if (ending.empty()) {
                ++faults["picture that is no JPEG, PNG or WebP"][td::name_of(list, order[i])];
                continue;
            }
            const std::vector<std::string> captions = td::captions_of(list, order[i]);
            const std::string text = captions.size() == 1 ? captions[0] : nlohmann::json{{"captions", captions}}.dump();
            const auto bytes = std::as_bytes(std::span(text));
            members.emplace_back(key + ending, std::move(picture));
            members.emplace_back(key + (captions.size() == 1 ? ".txt" : ".json"), std::vector<std::byte>(bytes.begin(), bytes.end()));
            ++written;
        }
        std::vector<td::TarEntry> entries;
        for (const auto& [name, content] : members) entries.push_back({name, content});
        const fs::path path = out / (padded(shard, digits) + ".tar");
        td::write_tar(path, entries);
        td::write_file_atomically(out / (padded(shard, digits) + ".idx"), td::shard_index(td::read_tar(td::MappedFile(path).bytes()).members));
    }
    training::report_faults(from.c_str(), faults);
    if (written == 0) throw td::Error(from, "pairs of a picture and a caption", "none");
    std::printf("%zu pairs in %zu shards: train --train-data '%s/{%s..%s}.tar'\n", written, shards, out.c_str(), padded(0, digits).c_str(), padded(shards - 1, digits).c_str());
    return program::done;
}

}  // namespace

int main(int count, char** arguments) {
    return program::exit_code("make_shards", [&] {
        const program::Command command{"make_shards",
                                       "write shards",
                                       "PATH",
                                       "PATH --out DIR [--pairs N] [--shuffle SEED]",
                                       "PATH is a folder of pictures with captions (captions.tsv, or .txt, .caption or .json beside each), a table, or tar shards (as --train-data names them), "
                                       "which may be compressed (gzip, zstd, xz, bzip2, lz4) and are unpacked within --out for the time. Pictures are copied as they are; "
                                       "what begins as no picture or has no caption is left out and counted. A pair's caption is in .txt, several are in .json. Beside each shard stands an index, .idx, as DALI reads it.",
                                       {{"--out", "DIR", "where the shards go: empty, or not there yet"},
                                        {"--pairs", "N", "in a shard (default 10000)"},
                                        {"--shuffle", "SEED", "mix the pairs (default: as they are listed)"},
                                        program::table_option_list[0], program::table_option_list[1], program::table_option_list[2]},
                                       run};
        const std::vector<std::string> words(arguments + std::min(count, 1), arguments + count);
        if (std::ranges::any_of(words, [](const std::string& word) { return word == "--help" || word == "-h"; })) {
            std::fputs(program::help(command, "").c_str(), stdout);
            return static_cast<int>(program::done);
        }
        return run(program::Arguments(command, words));
    });
}
