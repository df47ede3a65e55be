// Definitions of models/packed_file.hpp.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dense.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/models/packed_file.hpp>
#include <tandem/tensor/packed.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// To be counted up with every change of what stands where in a packed weight that the names of panels do not tell.
inline constexpr const char* packed_version = "1";

inline constexpr std::size_t packed_alignment = 64, packed_page = 4096;

/// Keys of the metadata beside packed_key.
inline constexpr const char *packed_architecture = "tandem.architecture", *packed_constant = "tandem.constant",
                            *packed_precision = "tandem.precision", *packed_isa = "tandem.isa", *packed_layout = "tandem.layout",
                            *packed_towers = "tandem.towers", *packed_source = "tandem.source", *packed_finite = "tandem.finite",
                            *packed_header = "tandem.header";

TANDEM_INLINE std::string checksum_key(const std::string& tensor) {
    return "tandem.checksum " + tensor;
}

TANDEM_INLINE std::string name_of(Towers towers) {
    return towers == Towers::both ? "both towers" : towers == Towers::image ? "the image tower" : "the text tower";
}

/// Between the statements of one entry of the metadata.
inline constexpr std::string_view packed_separator = "; ";

TANDEM_INLINE std::string text_of(const std::vector<ArchitectureField>& fields) {
    std::string text;
    for (const ArchitectureField& field : fields)
        (text += text.empty() ? "" : packed_separator) += field.name + " = " + field.value;
    return text;
}

/// The first statement of either text that the other has not, as "expected ..., found ...".
TANDEM_INLINE std::string first_difference(std::string_view expected, std::string_view found) {
    const auto next = [](std::string_view& text) {
        const std::string_view statement = text.substr(0, text.find(packed_separator));
        text.remove_prefix(std::min(text.size(), statement.size() + packed_separator.size()));
        return statement;
    };
    while (!expected.empty() || !found.empty()) {
        const std::string_view wanted = next(expected), there = next(found);
        if (wanted != there)
            return "expected " + (wanted.empty() ? "no more" : std::string(wanted)) + ", found " +
                   (there.empty() ? "none" : std::string(there));
    }
    return {};
}

TANDEM_INLINE std::string header_checksum(const std::map<std::string, std::string>& metadata,
                                          std::span<const StoredTensor> tensors) {
    Digest digest;
    const auto add = [&](std::string_view text) { digest.add(std::span<const char>(text)); };
    for (const auto& [key, value] : metadata) {
        if (key == packed_header) continue;
        add(key);
        add(value);
    }
    for (const std::uint32_t i : positions_by_name(tensors, "packed file")) {
        add(tensors[i].name);
        add(name(tensors[i].type));
        add(shape_text(tensors[i].shape));
    }
    return digest.text();
}

TANDEM_INLINE std::string checksum_of(std::span<const std::byte> bytes) {
    Digest digest;
    digest.add(bytes);
    return digest.text();
}

/// Elements of a tensor in the file: with zeros behind them, so that the next one is aligned.
TANDEM_INLINE std::size_t padded_size(std::span<const std::byte> bytes) {
    return kernels::round_up(bytes.size(), packed_alignment);
}

TANDEM_INLINE PackedFile::PackedFile(Safetensors file, std::string where) : file_(std::move(file)), where_(std::move(where)) {
    const auto& metadata = file_.metadata();
    const auto version = metadata.find(packed_key);
    if (version == metadata.end()) throw Error(where_, "a packed model file, which save_packed writes", "other safetensors");
    if (version->second != packed_version)
        throw Error(where_, std::string("version ") + packed_version + " of the packed layout, this library's",
                    "version " + in_quotes(version->second) + ": pack it again");
    const auto sum = metadata.find(packed_header);
    if (sum == metadata.end() || sum->second != header_checksum(metadata, file_.tensors()))
        throw Error(where_, "the header as it was saved, with its checksum", "a damaged one");
}

TANDEM_INLINE PackedFile PackedFile::open(const std::filesystem::path& path) {
    return PackedFile(Safetensors::open(path), path.string());
}

TANDEM_INLINE PackedFile PackedFile::view(std::span<const std::byte> bytes) {
    return PackedFile(Safetensors::parse(bytes, "map_packed"), "map_packed");
}

TANDEM_INLINE std::string PackedFile::checksum() const {
    Digest digest;
    for (const auto& [key, value] : file_.metadata()) {
        if (!key.starts_with(checksum_key(""))) continue;
        digest.add(std::span<const char>(key));
        digest.add(std::span<const char>(value));
    }
    return digest.text();
}

/// The metadata of a file but for checksums.
TANDEM_INLINE std::map<std::string, std::string> packed_metadata(const PackedIdentity& identity) {
    std::map<std::string, std::string> metadata{{packed_key, packed_version},
                                                {packed_architecture, text_of(identity.architecture)},
                                                {packed_constant, identity.constant},
                                                {packed_precision, identity.precision},
                                                {packed_isa, std::string(kernels::name_of(kernels::active_isa()))},
                                                {packed_layout, identity.layout},
                                                {packed_towers, name_of(identity.towers)}};
    if (!identity.source.empty()) metadata.emplace(packed_source, identity.source);
    if (identity.is_finite) metadata.emplace(packed_finite, "looked at");
    return metadata;
}

TANDEM_INLINE std::string PackedFile::difference(const PackedIdentity& identity) const {
    const auto expected = packed_metadata(identity);
    const auto check = [&](const char* key, const char* what, const char* advice) -> std::string {
        const auto wanted = expected.find(key), there = file_.metadata().find(key);
        const std::string found = there == file_.metadata().end() ? "" : there->second;
        if (wanted == expected.end() || wanted->second == found) return {};
        return std::string(what) + first_difference(wanted->second, found) + advice;
    };
    for (const std::string& fault :
         {check(packed_architecture, "another architecture: ", ""), check(packed_constant, "another architecture: ", ""),
          check(packed_precision, "another precision: ", ""),
          check(packed_isa, "packed for another instruction set: ", ": pack it again here, or set TANDEM_ISA"),
          check(packed_layout, "packed in another layout: ", ": pack it again here"), check(packed_towers, "other parts: ", ""),
          check(packed_source, "packed of other files: ", ""), check(packed_finite, "for finite weights: ", "")}) {
        if (!fault.empty()) return fault;
    }
    return {};
}

TANDEM_INLINE void PackedFile::lend(const LoadTargets& targets, const PackedIdentity& expected, bool verify) const {
    if (const std::string fault = difference(expected); !fault.empty()) throw Error(where_, fault);
    const std::vector<KeptBuffer> buffers = targets.buffers(expected.towers);
    std::vector<const StoredTensor*> found;
    for (const KeptBuffer& buffer : buffers) {
        const StoredTensor* const tensor = file_.find(buffer.name);
        if (tensor == nullptr || tensor->type != buffer.type || tensor->data.size() != padded_size(buffer.bytes)) {
            const auto text = [](DataType type, std::size_t bytes) { return std::to_string(bytes) + " bytes of " + std::string(name(type)); };
            throw Error(where_, "tensor " + buffer.name + ": expected " + text(buffer.type, padded_size(buffer.bytes)) + ", found " +
                                    (tensor == nullptr ? "no such tensor" : text(tensor->type, tensor->data.size())));
        }
        if (reinterpret_cast<std::uintptr_t>(tensor->data.data()) % packed_alignment != 0)
            throw Error(where_, "bytes at a multiple of " + std::to_string(packed_alignment), "another address");
        found.push_back(tensor);
    }
    if (found.size() != file_.tensors().size())
        throw Error(where_, std::to_string(found.size()) + " tensors", std::to_string(file_.tensors().size()));
    if (verify) {
        std::vector<char> wrong(found.size());
        parallel_for(found.size(), 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const auto saved = file_.metadata().find(checksum_key(found[i]->name));
                wrong[i] = saved == file_.metadata().end() || saved->second != checksum_of(found[i]->data);
            }
        });
        const auto first = std::ranges::find(wrong, 1);
        if (first != wrong.end())
            throw Error(where_, "tensor " + found[static_cast<std::size_t>(first - wrong.begin())]->name +
                                    ": expected the bytes that were saved, by their checksum, found others: pack it again");
    }
    for (std::size_t i = 0; i < found.size(); ++i)
        buffers[i].borrow(buffers[i].buffer, found[i]->data.first(buffers[i].bytes.size()));
}

TANDEM_INLINE void save_packed(const LoadTargets& targets, const PackedIdentity& identity, const std::filesystem::path& path) {
    const std::vector<KeptBuffer> buffers = targets.buffers(identity.towers);
    std::vector<StoredTensor> tensors(buffers.size());
    std::vector<std::vector<std::byte>> padded(buffers.size());
    std::vector<std::string> checksums(buffers.size());
    parallel_for(buffers.size(), 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            std::span<const std::byte> bytes = buffers[i].bytes;
            if (const std::size_t size = padded_size(bytes); size != bytes.size()) {
                padded[i].assign(bytes.begin(), bytes.end());
                padded[i].resize(size);
                bytes = padded[i];
            }
            tensors[i] = {buffers[i].name, buffers[i].type, {bytes.size() * 8 / bits(buffers[i].type)}, bytes};
            checksums[i] = checksum_of(bytes);
        }
    });
    auto metadata = packed_metadata(identity);
    for (std::size_t i = 0; i < tensors.size(); ++i) metadata.emplace(checksum_key(tensors[i].name), checksums[i]);
    metadata.emplace(packed_header, header_checksum(metadata, tensors));
    save_safetensors(path, tensors, metadata, packed_page);
}

/// Whether a file begins as save_packed lets it begin, whatever has become of the rest.
TANDEM_INLINE bool was_packed(const std::filesystem::path& path) {
    static constexpr std::string_view begin = "{\"__metadata__\":{\"tandem.";
    const MappedFile file(path);
    const std::span<const std::byte> bytes = file.bytes();
    constexpr std::size_t length = sizeof(std::uint64_t);
    return bytes.size() >= length + begin.size() &&
           std::ranges::equal(bytes.subspan(length, begin.size()), std::as_bytes(std::span<const char>(begin)));
}

TANDEM_INLINE std::optional<PackedFile> lend_or_make(const LoadTargets& targets, const PackedIdentity& identity,
                                                     const std::filesystem::path& path, bool verify, std::ostream* log,
                                                     const std::function<void()>& load) {
    const auto lend = [&] {
        PackedFile file = PackedFile::open(path);
        file.lend(targets, identity, verify);
        return file;
    };
    std::string reason = "not there yet";
    if (std::filesystem::exists(path)) {
        if (!was_packed(path)) throw Error(path.string(), "a packed model file, or none", "a file of another kind, which is left as it is");
        try {
            return lend();
        } catch (const Error& error) {
            reason = error.what();
            if (error.where() == path.string()) reason.erase(0, error.where().size() + std::string_view(": ").size());
        }
    }
    if (log != nullptr) *log << "packing into " << path.string() << " (" << reason << ")\n";
    load();
    try {
        save_packed(targets, identity, path);
        return lend();
    } catch (const Error& error) {
        if (log != nullptr) *log << "goes on without a packed copy: " << error.what() << '\n';
        return std::nullopt;
    }
}

template <Arithmetic T>
PackedIdentity packed_identity(std::vector<ArchitectureField> architecture, std::string constant) {
    const kernels::PanelLayout layout = kernels::weight_layout<T>();
    std::string panels = "panels of " + std::to_string(layout.width) + " columns, " + std::to_string(layout.group) + " elements together";
    std::string precision = "float32";
    if constexpr (std::same_as<T, double>) precision = "float64";
    if constexpr (std::same_as<T, bfloat16>) precision = "bfloat16";
    if constexpr (std::same_as<T, amp_bf16>) precision = "amp_bf16";
    if constexpr (std::same_as<T, int8>) {
        precision = "int8";
        panels += ", sums of " + std::to_string(PackedWeight<int8>::block());
    }
    // On one line, since a line's end has two spellings in JSON.
    std::ranges::replace(constant, '\n', ' ');
    return {std::move(architecture), std::move(constant), std::move(precision), std::move(panels)};
}

#if defined(TANDEM_COMPILED)
template PackedIdentity packed_identity<float>(std::vector<ArchitectureField>, std::string);
template PackedIdentity packed_identity<double>(std::vector<ArchitectureField>, std::string);
template PackedIdentity packed_identity<amp_bf16>(std::vector<ArchitectureField>, std::string);
template PackedIdentity packed_identity<bfloat16>(std::vector<ArchitectureField>, std::string);
template PackedIdentity packed_identity<int8>(std::vector<ArchitectureField>, std::string);
#endif

}  // namespace tandem::inline TANDEM_ABI::detail
