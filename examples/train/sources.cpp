#include "sources.hpp"

#include <array>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>

namespace training {

td::SampleList list_samples(const std::string& what, const Settings& settings) {
    std::string type = settings.dataset_type;
    if (type == "auto") {
        const std::string ending = std::filesystem::path(what).extension().string();
        type = ending == ".tar" ? "webdataset" : ending == ".csv" || ending == ".tsv" ? "csv" : "folder";
    }
    if (type == "webdataset") return td::read_shards(td::expand_names(what), settings.strict);
    if (type == "csv") return td::read_table(what, settings.table, settings.strict);
    return td::read_folder(what, settings.strict);
}

td::FaultCounts faults_since(const td::FaultCounts& before, td::FaultCounts faults, td::Ranks* ranks) {
    for (const auto& [cause, files] : before) {
        for (const auto& [file, times] : files) {
            if ((faults[cause][file] -= times) == 0) faults[cause].erase(file);
        }
        if (faults[cause].empty()) faults.erase(cause);
    }
    if (ranks == nullptr) return faults;
    std::string mine;
    for (const auto& [cause, files] : faults) {
        for (const auto& [file, times] : files) mine += cause + '\0' + file + '\0' + std::to_string(times) + '\0';
    }
    td::FaultCounts all;
    for (const std::string& text : td::gather_texts(*ranks, mine)) {
        std::array<std::string, 3> fields;
        std::size_t field = 0;
        for (const char c : text) {
            if (c != '\0') {
                fields[field] += c;
            } else if (++field == fields.size()) {
                all[fields[0]][fields[1]] += std::stoull(fields[2]);
                fields = {}, field = 0;
            }
        }
    }
    return all;
}

void report_faults(const char* what, const td::FaultCounts& faults) {
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

}  // namespace training
