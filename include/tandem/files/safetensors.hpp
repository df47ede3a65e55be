// Safetensors files: a memory-mapped reader, typed access to the elements, and an atomic writer.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/safetensors_header.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI {

/// A safetensors file, checked to the last rule before anything of it is seen: the rules of the reference
/// (safetensors/src/tensor.rs, release 0.8.0) and of its README, by which a duplicate key is an error too. Stricter
/// than the reference in three points: unknown keys of a tensor, a null __metadata__, and sizes no real file has (a
/// string above 512 KiB; names, shapes and metadata of more than 6 MiB) are refused. Like it, allows JSON whitespace
/// around the header. Data is neither copied nor checksummed. Move only.
class Safetensors {
public:
    /// Maps the file. Throws Error that names it and the fault.
    static Safetensors open(const std::filesystem::path& path);

    /// Reads a file that is in memory already; the bytes must outlive the object. `where` begins every error.
    static Safetensors parse(std::span<const std::byte> bytes, std::string_view where);

    /// The free-form entries of the header's __metadata__; empty if it has none.
    const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

    /// All tensors in the order of their bytes in the file. Their data is valid for as long as the mapping.
    std::span<const StoredTensor> tensors() const { return header_.tensors; }

    /// The tensor of that name, or nullptr.
    const StoredTensor* find(std::string_view name) const;

    /// Lets go of the memory that a tensor's data takes while the file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const;

private:
    explicit Safetensors(detail::Header header) : header_(std::move(header)) {}

    detail::Header header_;
    std::optional<MappedFile> file_;
};

namespace detail {

/// What stands in the metadata of a packed model file, and of no other: the version of its layout.
inline constexpr const char* packed_key = "tandem.packed";

}  // namespace detail

/// Types that read_elements converts to and stored_tensor stores.
template <class T>
concept StoredElement = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16> ||
    std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t> || std::same_as<T, std::uint8_t>;

/// Reads all elements in row-major order. Floating T takes F64, F32, F16 and BF16 and rounds to nearest (to bfloat16 by
/// way of float); integer T takes I64, I32 and U8. Throws Error that names the tensor if the type is another, if `out`
/// has not as many elements as the shape, or if an integer does not fit T; `out` may then be written in part.
template <StoredElement T>
void read_elements(const StoredTensor& tensor, std::span<T> out);

/// Describes elements in memory as a tensor to save; they must outlive it.
template <StoredElement T>
StoredTensor stored_tensor(std::string name, std::vector<std::size_t> shape, std::span<const T> elements) {
    return {std::move(name), data_type_of<T>(), std::move(shape), std::as_bytes(elements)};
}

/// Writes a safetensors file, atomically and durably (write_file_atomically). Tensors keep their order within an
/// element width, wider elements first, so that each is aligned to its element. Throws Error, and writes nothing, on
/// duplicate names, on data that does not match shape and type, on names or metadata that are not UTF-8, on names,
/// shapes and metadata beyond what Safetensors reads, and on the name __metadata__. The first tensor begins at a multiple
/// of `alignment` bytes.
void save_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                      const std::map<std::string, std::string>& metadata = {}, std::size_t alignment = 8);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/files/safetensors.impl.hpp>
#endif
