// Definitions of files/file_kind.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/files/file_kind.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
    return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

TANDEM_INLINE bool is_legacy_torch(std::span<const std::byte> bytes) {
    if (bytes.size() < 2 || bytes[0] != std::byte{0x80} || bytes[1] > std::byte{5}) return false;
    const std::size_t frame = bytes.size() > 11 && bytes[2] == std::byte{0x95} ? 9 : 0;
    return starts_with(bytes.subspan(2 + frame),
                       std::string_view("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 12));
}

TANDEM_INLINE bool is_zip(std::span<const std::byte> bytes) {
    return starts_with(bytes, "PK\x03\x04") || starts_with(bytes, "PK\x05\x06");
}

TANDEM_INLINE bool is_safetensors(std::span<const std::byte> bytes) {
    std::uint64_t length = 0;
    if (bytes.size() < 9) return false;
    std::memcpy(&length, bytes.data(), sizeof length);
    return length <= 100'000'000 &&
           std::string_view("{ \t\r\n").find(static_cast<char>(bytes[8])) != std::string_view::npos;
}

/// Text up to its end or 512 bytes, in lower case; empty where a byte is none of ASCII's printable ones or whitespace.
[[gnu::cold]] TANDEM_INLINE std::string beginning_of_text(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes.first(std::min<std::size_t>(bytes.size(), 512))) {
        const char letter = static_cast<char>(byte);
        if ((letter < ' ' || letter > '~') && letter != '\n' && letter != '\r' && letter != '\t') return {};
        text += letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
    }
    return text;
}

TANDEM_INLINE bool is_text(std::span<const std::byte> bytes) {
    return !beginning_of_text(bytes).empty();
}

[[gnu::cold]] TANDEM_INLINE FileKind file_kind(std::span<const std::byte> bytes) {
    struct Magic {
        std::string_view bytes;
        FileKind kind;
        std::size_t at = 0;
    };
    static constexpr std::string_view unpack = "unpack it, and name the file that is in it";
    static constexpr std::string_view gguf = "weights of llama.cpp; the model it was made from has them as safetensors";
    static constexpr std::array<Magic, 34> magics{{
        {"version https://git-lfs",
         {"a Git LFS pointer, which stands for a file that was not downloaded", "run `git lfs pull` in its folder"}},
        {"GIF8", {"GIF data", ""}},
        {"\x89PNG\r\n\x1a\n", {"PNG data", ""}},
        {"\xff\xd8\xff", {"JPEG data", ""}},
        {"WEBP", {"WebP data", ""}, 8},
        {{"II*\0", 4}, {"TIFF data", ""}},
        {{"MM\0*", 4}, {"TIFF data", ""}},
        {"BM", {"BMP data", ""}},
        {"ftypavi", {"AVIF data", ""}, 4},
        {"ftyphe", {"HEIC data", ""}, 4},
        {"ftypmif1", {"HEIC data", ""}, 4},
        {"ftypmsf1", {"HEIC data", ""}, 4},
        {{"\xff\x0a", 2}, {"JPEG XL data", ""}},
        {{"\0\0\0\x0cJXL ", 8}, {"JPEG XL data", ""}},
        {"ftyp", {"a video", ""}, 4},
        {"%PDF", {"PDF data", ""}},
        {"\x1f\x8b", {"gzip data", unpack}},
        {"BZh", {"bzip2 data", unpack}},
        {{"\xfd\x37zXZ\0", 6}, {"xz data", unpack}},
        {"\x28\xb5\x2f\xfd", {"zstd data", unpack}},
        {"7z\xbc\xaf\x27\x1c", {"a 7-Zip archive", unpack}},
        {"Rar!", {"a RAR archive", unpack}},
        {"GGUF", {"a GGUF file", gguf}},
        {"lmgg", {"a GGML file", gguf}},
        {"tjgg", {"a GGML file", gguf}},
        {"\x93NUMPY", {"a NumPy array (.npy)", "torch.save or safetensors keep several tensors with their names"}},
        {"\x89HDF\r\n\x1a\n",
         {"an HDF5 file (Keras, TensorFlow)", "the model's PyTorch weights are read, as safetensors or of torch.save"}},
        {"TFL3",
         {"a TensorFlow Lite model", "the model's PyTorch weights are read, as safetensors or of torch.save"},
         4},
        {"ORTM",
         {"a model of ONNX Runtime", "the weights it was exported from are read, as safetensors or of torch.save"},
         4},
        {{"sys_info\0", 9},
         {"a file of torch.save before PyTorch 0.2 (tar)", "load it with torch.load and save it again"}},
        {{"storages\0", 9},
         {"a file of torch.save before PyTorch 0.2 (tar)", "load it with torch.load and save it again"}},
        {"ustar", {"a tar archive", unpack}, 257},
        {"\x7f"
         "ELF",
         {"a program or library", ""}},
        {"SQLite format 3", {"an SQLite database", ""}},
    }};
    if (bytes.empty()) return {"an empty file", "the download or the copy failed"};
    if (is_safetensors(bytes)) return {};
    for (const Magic& magic : magics) {
        if (bytes.size() >= magic.at && starts_with(bytes.subspan(magic.at), magic.bytes)) return magic.kind;
    }
    const std::string_view all(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 512));
    static constexpr std::string_view page = "a page in place of the file: the download failed, or wants a login";
    if (all.find("<svg") != all.npos || all.starts_with("<?xml")) return {"SVG or XML data", page};
    const auto unsigned_at = [&](std::size_t at) { return at < all.size() ? static_cast<unsigned char>(all[at]) : 0U; };
    const std::string text = beginning_of_text(bytes);
    if (all.find("<html") != all.npos || all.find("<!DOCTYPE html") != all.npos ||
        text.find("<!doctype html") != text.npos || text.find("<html") != text.npos)
        return {"HTML data", page};
    if (const std::size_t first = text.find_first_not_of(" \t\r\n");
        first != text.npos && (text[first] == '{' || text[first] == '['))
        return {"JSON", "a config has no weights: name the folder it is in, or the file with the weights"};
    // A map of MessagePack whose first key is a text.
    const bool is_map = (unsigned_at(0) > 0x80 && unsigned_at(0) <= 0x8f && (unsigned_at(1) & 0xe0U) == 0xa0) ||
                        (unsigned_at(0) == 0xde && (unsigned_at(3) & 0xe0U) == 0xa0);
    if (is_map)
        return {"MessagePack data (Flax)", "the model's PyTorch weights are read, as safetensors or of torch.save"};
    // A ModelProto: ir_version, then the producer's name, domain, or the graph (onnx.proto, fields 1, 2, 4, 7 and 8).
    if (unsigned_at(0) == 8 && unsigned_at(1) > 0 && unsigned_at(1) < 32 &&
        std::string_view("\x12\x22\x3a\x42").find(static_cast<char>(unsigned_at(2))) != all.npos)
        return {"an ONNX model", "the weights it was exported from are read, as safetensors or of torch.save"};
    if (is_legacy_torch(bytes)) return {"a file of torch.save", ""};
    if ((unsigned_at(0) == 0x80 && unsigned_at(1) <= 5) || all.starts_with("(dp") || all.starts_with("(lp")) {
        return {"a pickle that torch.save did not write",
                "load it with pickle in Python and save its tensors with torch.save or safetensors.torch.save_file"};
    }
    return {};
}

[[noreturn, gnu::cold]] TANDEM_INLINE void throw_other_kind(std::string_view where, std::string_view expected,
                                                            std::span<const std::byte> bytes) {
    FileKind kind = file_kind(bytes);
    if (is_safetensors(bytes)) kind = {"a safetensors file", ""};
    std::string found(kind.name);
    if (found.empty()) {
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                                    std::min<std::size_t>(bytes.size(), 60));
        found = is_text(bytes) ? "a text that begins '" + std::string(text.substr(0, text.find('\n'))) + "'"
                               : "another kind of file, or one whose beginning is damaged";
    }
    if (!kind.advice.empty()) found += ": " + std::string(kind.advice);
    throw Error(where, expected, found);
}

}  // namespace tandem::inline TANDEM_ABI::detail
