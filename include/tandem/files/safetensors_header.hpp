// The header of a safetensors file: the parser that enforces every rule of the format.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// What a header says: the tensors in the order of their bytes, and their positions in the order of their names.
struct Header {
    std::map<std::string, std::string> metadata;
    std::vector<StoredTensor> tensors;
    std::vector<std::uint32_t> by_name;
};

/// Reads the header of a whole file and checks everything a file can be wrong in; `where` begins every error.
Header read_header(std::span<const std::byte> file, std::string_view where);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/files/safetensors_header.impl.hpp>
#endif
