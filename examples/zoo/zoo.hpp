// td::open of every architecture of the zoo and of the quickstart's, compiled once for all programs.
#pragma once

#include <filesystem>

#include <tandem/models/open.hpp>

#include "../quickstart/design.hpp"
#include "../quickstart/preprocess.hpp"

namespace zoo {

namespace td = tandem;

template <td::Arithmetic T>
td::AnyClip open(const std::filesystem::path& path, const td::OpenOptions& options) {
    return td::open<T, td::Named{"quickstart", quickstart::design}>(path, options);
}

extern template td::AnyClip open<float>(const std::filesystem::path&, const td::OpenOptions&);
extern template td::AnyClip open<td::bf16>(const std::filesystem::path&, const td::OpenOptions&);
extern template td::AnyClip open<td::int8>(const std::filesystem::path&, const td::OpenOptions&);

}  // namespace zoo
