// What bake.cpp and baked.cpp share.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>

namespace baked {

/// Of the matrices: half of float32's bytes.
using Precision = tandem::bf16;

/// A label a line. Throws Error where there are fewer than two: the probability of one alone is always 100 %.
inline std::vector<std::string> read_labels(const std::filesystem::path& path) {
    std::ifstream file(path);
    if (!file) throw tandem::Error(path.string(), "a file with a label a line", "none that can be read");
    std::vector<std::string> labels;
    for (std::string line; std::getline(file, line);) {
        if (line.ends_with('\r')) line.pop_back();
        if (!line.empty()) labels.push_back(line);
    }
    if (labels.size() < 2) throw tandem::Error(path.string(), "two labels or more, one a line", std::to_string(labels.size()));
    return labels;
}

}  // namespace baked
