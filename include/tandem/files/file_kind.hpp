// What a file is, told from its first bytes, so that one given in another's place is named.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

bool starts_with(std::span<const std::byte> bytes, std::string_view magic);

/// A kind of file, as a sentence names it; empty where the bytes tell nothing.
struct FileKind {
    std::string_view name;
    std::string_view advice;  ///< how weights are had instead; may be empty
};

/// Whether a file begins as a text; an empty one does not.
bool is_text(std::span<const std::byte> bytes);

/// The kind of a file by its first 512 bytes; weights that are read here have none.
FileKind file_kind(std::span<const std::byte> bytes);

/// Whether the bytes begin as a file of torch.save before PyTorch 1.6: the pickle, of protocol 2 to 5, of a number that
/// torch/serialization.py calls MAGIC_NUMBER.
bool is_legacy_torch(std::span<const std::byte> bytes);

bool is_zip(std::span<const std::byte> bytes);

/// A safetensors file's first 9 bytes: a length that the format allows, and an object.
bool is_safetensors(std::span<const std::byte> bytes);

/// The Error of a file that is none of those expected.
[[noreturn, gnu::cold]] void throw_other_kind(std::string_view where, std::string_view expected,
                                              std::span<const std::byte> bytes);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/files/file_kind.impl.hpp>
#endif
