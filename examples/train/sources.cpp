#include "sources.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace training {

namespace {

td::SampleList list_source(const std::string& what, const Settings& settings) {
    const std::string& type = settings.dataset_type;
    if (!compressed_ending(what).empty() && !std::filesystem::is_directory(what))
        throw program::UsageError(what, "shards that are not compressed, since pairs are read in any order (make_shards 'PATTERN' --out DIR unpacks them)", "compressed ones");
    if (type == "auto") return td::read_samples(what, settings.table, settings.strict);
    if (type == "webdataset") return td::read_shards(td::expand_names(what), settings.strict);
    if (type == "csv") return td::read_table(what, settings.table, settings.strict);
    return td::read_folder(what, settings.strict);
}

}  // namespace

std::string_view compressed_ending(std::string_view name) {
    static constexpr std::array<std::string_view, 9> endings{".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.lz4"};
    const auto found = std::ranges::find_if(endings, [&](std::string_view ending) { return name.ends_with(ending); });
    return found == endings.end() ? std::string_view() : *found;
}

td::SampleList list_samples(const std::string& what, const Settings& settings, std::span<const double> factors) {
    std::vector<td::SampleList> sources;
    for (std::size_t begin = 0; begin <= what.size();) {
        const std::size_t end = std::min(what.find("::", begin), what.size());
        sources.push_back(list_source(what.substr(begin, end - begin), settings));
        begin = end + 2;
    }
    if (!factors.empty() && factors.size() != sources.size())
        throw program::UsageError("--train-data-upsampling-factors", "a factor for each of the " + std::to_string(sources.size()) + " sources in --train-data", std::to_string(factors.size()));
    if (sources.size() == 1 && factors.empty()) return std::move(sources.front());
    return td::join_samples(std::move(sources), factors);
}

void report_faults(const char* what, td::FaultCounts faults, const td::FaultCounts& before) {
    for (const auto& [cause, files] : before) {
        for (const auto& [file, times] : files) {
            if ((faults[cause][file] -= times) == 0) faults[cause].erase(file);
        }
        if (faults[cause].empty()) faults.erase(cause);
    }
    for (const auto& [cause, files] : faults) {
        std::size_t count = 0, named = 0;
        for (const auto& [file, times] : files) count += times;
        std::fprintf(stderr, "%s: left out %zu: %s:", what, count, cause.c_str());
        for (const auto& [file, times] : files) {
            if (++named > 5) break;
            std::fprintf(stderr, " %s (%zu)", file.c_str(), times);
        }
        std::fprintf(stderr, files.size() > 5 ? " and %zu files more\n" : "\n", files.size() - 5);
    }
}

void share_damage(td::Dataset& data, td::Ranks& ranks) {
    // A line a sample.
    std::ostringstream mine;
    for (const auto& [index, cause] : data.damaged()) mine << index << ' ' << cause << '\n';
    std::map<std::size_t, std::string> all;
    for (const std::string& text : td::gather_texts(ranks, mine.str())) {
        std::istringstream lines(text);
        std::size_t index = 0;
        for (std::string cause; lines >> index && lines.ignore() && std::getline(lines, cause);) all[index] = cause;
    }
    data.add_damaged(all);
}

}  // namespace training
