// Definitions of data/samples.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/data/pairs.hpp>
#include <tandem/data/samples.hpp>
#include <tandem/data/shards.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/files/json.hpp>
#include <tandem/files/safetensors_types.hpp>
#include <tandem/files/tar.hpp>

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

namespace detail {

inline constexpr std::array<std::string_view, 4> picture_endings{"jpg", "jpeg", "png", "webp"};

/// Why a pair is left out, as it is counted.
struct SampleFault {
    std::string cause;
};

inline std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

[[gnu::cold]] TANDEM_INLINE void check_caption(std::string_view text) {
    if (text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos) throw SampleFault{"empty caption"};
    for (std::string_view rest = text; !rest.empty();) {
        const std::size_t length = utf8_sequence(rest);
        if (length == 0) throw SampleFault{"caption that is no UTF-8"};
        rest.remove_prefix(length);
    }
}

/// One or more captions of bytes. Throws SampleFault.
TANDEM_INLINE std::vector<std::string> parse_captions(std::string_view bytes, bool is_json) {
    std::vector<std::string> captions;
    if (!is_json) {
        captions.emplace_back(bytes);
    } else {
        JsonLeaves document;
        if (json_fault(bytes, document)) throw SampleFault{"damaged JSON"};
        for (const JsonLeaf& leaf : document.leaves) {
            const bool is_caption = leaf.path == "caption" || (leaf.path == "captions" && leaf.in_array);
            if (is_caption && leaf.kind == JsonLeaf::Kind::text) captions.push_back(leaf.text);
        }
        if (captions.empty()) throw SampleFault{"JSON without a caption"};
    }
    for (const std::string& caption : captions) check_caption(caption);
    return captions;
}

TANDEM_INLINE bool begins_as_picture(std::span<const std::byte> bytes) {
    const std::string_view text = text_of(bytes);
    return text.starts_with("\xFF\xD8\xFF") || text.starts_with("\x89PNG\r\n\x1A\n") ||
           (text.starts_with("RIFF") && text.size() >= 12 && text.substr(8, 4) == "WEBP");
}

/// Whether a name has a part that leads out of where it stands.
TANDEM_INLINE bool leads_out(std::string_view name) {
    if (name.starts_with('/')) return true;
    for (std::size_t begin = 0; begin <= name.size();) {
        const std::size_t end = std::min(name.find('/', begin), name.size());
        if (name.substr(begin, end - begin) == "..") return true;
        begin = end + 1;
    }
    return false;
}

/// Counts a fault, or throws it where it is strict.
TANDEM_INLINE void refuse(FaultCounts& faults, const std::string& cause, const std::string& file, const std::string& key, bool strict) {
    if (strict) throw Error(key.empty() ? file : file + ": " + key, cause);
    ++faults[cause][file];
}

/// Where files begin in a shard, as the index beside it says, NAME.idx; nothing if there is none, or none that can be read, which is counted.
TANDEM_INLINE std::vector<std::uint64_t> indexed_starts(const std::filesystem::path& shard, FaultCounts& faults) {
    const std::filesystem::path path = std::filesystem::path(shard).replace_extension(".idx");
    std::vector<std::uint64_t> starts;
    std::error_code failed;
    if (!std::filesystem::is_regular_file(path, failed)) return starts;
    try {
        const MappedFile file(path);
        for (const TarMember& member : read_shard_index(text_of(file.bytes()), path.filename().string())) starts.push_back(member.offset);
        std::ranges::sort(starts);
    } catch (const Error& error) {
        refuse(faults, "index that is passed over: " + std::string(error.what()), shard.string(), {}, false);
    }
    return starts;
}

/// One shard's pairs, with file 0.
TANDEM_INLINE SampleList read_shard(const std::filesystem::path& path, bool strict) {
    SampleList list;
    list.files.push_back(path);
    const std::string file = path.string();
    const MappedFile archive(path);
    const std::span<const std::byte> bytes = archive.bytes();
    Digest digest;
    digest.add(std::span<const char>(path.filename().string()));
    digest.add(bytes.size());
    TarContents contents = read_tar(bytes);
    // The index of a sound shard says nothing that its headers do not.
    if (!contents.fault.empty() && !strict) contents = read_tar(bytes, indexed_starts(path, list.faults));
    if (bytes.empty()) refuse(list.faults, "damaged shard: an empty file", file, {}, strict);
    if (!contents.fault.empty()) {
        const FileKind kind = file_kind(bytes.first(std::min<std::size_t>(512, bytes.size())));
        const std::string what = contents.members.empty() && !kind.name.empty() ? "is " + std::string(kind.name) + (kind.advice.empty() ? "" : ": " + std::string(kind.advice)) : contents.fault;
        refuse(list.faults, "damaged shard: " + what, file, {}, strict);
    }
    const std::size_t none = contents.members.size();
    for (const ShardSample& parts : group_samples(contents.members)) {
        try {
            const std::size_t picture = parts.part({"jpg", "jpeg", "png", "webp"}, none), text = parts.part({"txt", "caption"}, none),
                              json = parts.part({"json"}, none), caption = text != none ? text : json;
            if (leads_out(parts.key)) throw SampleFault{"name that leads out of its folder"};
            if (picture == none && caption == none) throw SampleFault{"neither picture nor caption of a known ending"};
            if (picture == none) throw SampleFault{"no picture of a known ending"};
            if (caption == none) throw SampleFault{"no caption of a known ending"};
            const TarMember &image = contents.members[picture], &words = contents.members[caption];
            if (words.size >= std::size_t{1} << 20) throw SampleFault{"caption of a megabyte or more"};
            if (image.size == 0) throw SampleFault{"empty picture"};
            if (!begins_as_picture(image.bytes(bytes))) throw SampleFault{"picture that is no JPEG, PNG or WebP"};
            parse_captions(text_of(words.bytes(bytes)), text == none);
            digest.add(image.offset);
            digest.add(image.size);
            digest.add(words.bytes(bytes));
            list.samples.push_back({.offset = image.offset, .size = image.size, .text_offset = words.offset,
                                    .text_size = static_cast<std::uint32_t>(words.size), .is_json = text == none, .key = parts.key});
        } catch (const SampleFault& fault) {
            refuse(list.faults, fault.cause, file, parts.key, strict);
        }
    }
    list.digest = digest.value();
    return list;
}

/// Puts another list's samples, with what they refer to and what was left out, behind those of `all`; its digest and shares are the caller's.
TANDEM_INLINE void append(SampleList& all, SampleList&& list) {
    for (Sample& sample : list.samples) {
        sample.file += static_cast<std::uint32_t>(all.files.size());
        sample.texts += static_cast<std::uint32_t>(all.texts.size());
        all.samples.push_back(std::move(sample));
    }
    std::ranges::move(list.files, std::back_inserter(all.files));
    std::ranges::move(list.texts, std::back_inserter(all.texts));
    for (const auto& [cause, files] : list.faults) {
        for (const auto& [file, count] : files) all.faults[cause][file] += count;
    }
}

/// The rows of a table; a field in quotes may hold separators, lines and doubled quotes.
TANDEM_INLINE std::vector<std::vector<std::string>> parse_table(std::string_view text, char separator, const std::string& where) {
    std::vector<std::vector<std::string>> rows;
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    std::vector<std::string> row;
    std::string field;
    std::size_t line = 1;
    const auto end_row = [&] {
        row.push_back(std::exchange(field, {}));
        if (row.size() > 1 || !row[0].empty()) rows.push_back(std::move(row));
        row.clear();
    };
    for (std::size_t at = 0; at < text.size();) {
        if (text[at] == '"' && field.empty()) {
            const std::size_t began = line;
            for (++at;; ++at) {
                if (at == text.size()) throw Error(where, "the end of the quotes that begin in line " + std::to_string(began), "the end of the file");
                if (text[at] == '"' && !text.substr(at).starts_with("\"\"")) break;
                if (text[at] == '"') ++at;
                line += text[at] == '\n' ? 1 : 0;
                field += text[at];
            }
            ++at;
            continue;
        }
        const char letter = text[at++];
        if (letter == separator) {
            row.push_back(std::exchange(field, {}));
        } else if (letter == '\n') {
            ++line;
            end_row();
        } else if (!(letter == '\r' && (at == text.size() || text[at] == '\n'))) {
            field += letter;
        }
    }
    if (!row.empty() || !field.empty()) end_row();
    return rows;
}

/// Adds pictures that are files of their own, with captions in memory.
TANDEM_INLINE void add_picture(SampleList& list, Digest& digest, const std::filesystem::path& path, std::string name, std::vector<std::string> captions) {
    digest.add(std::span<const char>(name));
    for (const std::string& caption : captions) digest.add(std::span<const char>(caption));
    list.samples.push_back({.file = static_cast<std::uint32_t>(list.files.size()), .texts = static_cast<std::uint32_t>(list.texts.size()), .key = {}});
    list.files.push_back(path);
    list.texts.push_back(std::move(captions));
}

}  // namespace detail

TANDEM_INLINE std::vector<std::string> expand_names(std::string_view pattern) {
    if (const std::size_t next = pattern.find("::"); next != std::string_view::npos) {
        std::vector<std::string> all = expand_names(pattern.substr(0, next));
        for (std::string& name : expand_names(pattern.substr(next + 2))) all.push_back(std::move(name));
        return all;
    }
    const std::size_t open = pattern.find('{');
    if (open == std::string_view::npos) {
        if (pattern.empty()) throw Error("a list of files", "a name", "an empty one");
        return {std::string(pattern)};
    }
    const std::size_t close = pattern.find('}', open);
    if (close == std::string_view::npos) throw Error(pattern, "a } behind {", "none");
    if (pattern.substr(open + 1, close - open - 1).find('{') != std::string_view::npos) throw Error(pattern, "braces that do not stand within others", "some that do");
    const std::string_view head = pattern.substr(0, open), inner = pattern.substr(open + 1, close - open - 1), tail = pattern.substr(close + 1);
    std::vector<std::string> choices;
    if (const std::size_t dots = inner.find(".."); dots != std::string_view::npos) {
        const std::string_view from = inner.substr(0, dots), to = inner.substr(dots + 2);
        const auto number = [&](std::string_view digits) {
            std::size_t value = 0;
            const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
            if (fault != std::errc() || end != digits.data() + digits.size()) throw Error(pattern, "a range of numbers as {000..123}", "{" + std::string(inner) + "}");
            return value;
        };
        const std::size_t first = number(from), last = number(to);
        if (last < first || last - first >= 10'000'000) throw Error(pattern, "a range of up to 10,000,000 numbers, the smaller one first", "{" + std::string(inner) + "}");
        const bool is_padded = (from.size() > 1 && from[0] == '0') || (to.size() > 1 && to[0] == '0');
        const std::size_t width = is_padded ? std::max(from.size(), to.size()) : 0;
        for (std::size_t i = first; i <= last; ++i) {
            std::string digits = std::to_string(i);
            if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
            choices.push_back(digits);
        }
    } else {
        for (std::size_t begin = 0; begin <= inner.size();) {
            const std::size_t end = std::min(inner.find(',', begin), inner.size());
            choices.emplace_back(inner.substr(begin, end - begin));
            begin = end + 1;
        }
    }
    std::vector<std::string> names;
    for (const std::string& choice : choices) {
        for (const std::string& name : expand_names(std::string(head) + choice + std::string(tail))) names.push_back(name);
    }
    return names;
}

TANDEM_INLINE SampleList read_shards(std::span<const std::string> paths, bool strict) {
    std::vector<SampleList> shards(paths.size());
    std::vector<std::exception_ptr> errors(paths.size());
    parallel_for(paths.size(), 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            try {
                shards[i] = detail::read_shard(paths[i], strict);
            } catch (const Error&) {
                errors[i] = std::current_exception();
            }
        }
    });
    for (const std::exception_ptr& error : errors) {
        if (error) std::rethrow_exception(error);
    }
    SampleList all;
    Digest digest;
    for (SampleList& shard : shards) {
        digest.add(shard.digest);
        detail::append(all, std::move(shard));
    }
    all.digest = digest.value();
    return all;
}

TANDEM_INLINE SampleList read_table(const std::filesystem::path& path, const TableOptions& options, bool strict) {
    const MappedFile file(path);
    const std::string where = path.string();
    std::vector<std::vector<std::string>> rows = detail::parse_table(detail::text_of(file.bytes()), options.separator, where);
    if (rows.empty()) throw Error(where, "a line of column names", "an empty file");
    const std::vector<std::string> header = std::move(rows.front());
    const auto column = [&](const std::string& key, const char* option) {
        const auto found = std::ranges::find(header, key);
        if (found == header.end()) {
            std::string names;
            for (const std::string& name : header) names += (names.empty() ? "" : ", ") + detail::in_quotes(name);
            throw Error(where, "a column " + detail::in_quotes(key) + " (" + option + ")", names);
        }
        return static_cast<std::size_t>(found - header.begin());
    };
    const std::size_t image = column(options.image_key, "--csv-img-key"), caption = column(options.caption_key, "--csv-caption-key");
    SampleList list;
    Digest digest;
    for (std::size_t i = 1; i < rows.size(); ++i) {
        std::vector<std::string>& row = rows[i];
        const std::string at = "row " + std::to_string(i);
        try {
            if (row.size() != header.size()) throw detail::SampleFault{"row of another number of fields than the first one's " + std::to_string(header.size())};
            if (row[image].empty()) throw detail::SampleFault{"row without a path"};
            detail::check_caption(row[caption]);
            std::filesystem::path picture = row[image];
            std::error_code failed;
            if (!std::filesystem::is_regular_file(picture, failed)) picture = path.parent_path() / picture;
            if (!std::filesystem::is_regular_file(picture, failed)) throw detail::SampleFault{"missing picture"};
            detail::add_picture(list, digest, picture, row[image], {std::move(row[caption])});
        } catch (const detail::SampleFault& fault) {
            detail::refuse(list.faults, fault.cause, where, at, strict);
        }
    }
    list.digest = digest.value();
    return list;
}

TANDEM_INLINE SampleList read_folder(const std::filesystem::path& folder, bool strict) {
    SampleList list;
    Digest digest;
    if (!std::filesystem::is_directory(folder)) throw Error(folder.string(), "a folder of pictures", "none");
    if (const std::filesystem::path captions = folder / "captions.tsv"; std::filesystem::exists(captions)) {
        SkipCounts skipped;
        for (CaptionedImage& image : read_captions(captions, skipped, strict)) {
            std::error_code failed;
            try {
                if (!std::filesystem::is_regular_file(folder / image.path, failed)) throw detail::SampleFault{"missing picture"};
                for (const std::string& caption : image.captions) detail::check_caption(caption);
                detail::add_picture(list, digest, folder / image.path, image.path, std::move(image.captions));
            } catch (const detail::SampleFault& fault) {
                detail::refuse(list.faults, fault.cause, captions.string(), image.path, strict);
            }
        }
        for (const auto& [cause, count] : skipped) list.faults[cause][captions.string()] += count;
        list.digest = digest.value();
        return list;
    }
    std::vector<std::filesystem::path> pictures, folders{folder};
    while (!folders.empty()) {
        const std::filesystem::path at = std::move(folders.back());
        folders.pop_back();
        std::error_code failed, ignored;
        for (std::filesystem::directory_iterator entry(at, failed), end; !failed && entry != end; entry.increment(failed)) {
            const std::string ending = detail::small_letters(entry->path().extension().string());
            if (entry->is_directory(ignored) && !entry->is_symlink(ignored)) {
                folders.push_back(entry->path());
            } else if (!ending.empty() && std::ranges::find(detail::picture_endings, ending.substr(1)) != detail::picture_endings.end()) {
                pictures.push_back(entry->path());
            }
        }
        if (failed) detail::refuse(list.faults, "folder that cannot be read: " + failed.message(), at.string(), {}, strict);
    }
    std::ranges::sort(pictures);
    for (const std::filesystem::path& picture : pictures) {
        const std::string name = picture.lexically_relative(folder).string();
        try {
            std::error_code failed;
            if (!std::filesystem::is_regular_file(picture, failed)) throw detail::SampleFault{"name of a picture that is no file"};
            std::optional<std::vector<std::string>> captions;
            for (const char* const ending : {".txt", ".caption", ".json"}) {
                std::filesystem::path text = picture;
                text.replace_extension(ending);
                if (!std::filesystem::is_regular_file(text, failed)) continue;
                captions = detail::parse_captions(detail::text_of(MappedFile(text).bytes()), std::string_view(ending) == ".json");
                break;
            }
            if (!captions) throw detail::SampleFault{"no caption beside the picture"};
            detail::add_picture(list, digest, picture, name, std::move(*captions));
        } catch (const detail::SampleFault& fault) {
            detail::refuse(list.faults, fault.cause, folder.string(), name, strict);
        }
    }
    list.digest = digest.value();
    return list;
}

TANDEM_INLINE SampleList read_samples(const std::string& what, const TableOptions& table, bool strict) {
    const std::string ending = std::filesystem::path(what).extension().string();
    if (ending == ".tar") return read_shards(expand_names(what), strict);
    if (ending == ".csv" || ending == ".tsv") return read_table(what, table, strict);
    return read_folder(what, strict);
}

TANDEM_INLINE std::size_t SampleShare::pairs() const { return static_cast<std::size_t>(std::llround(factor * static_cast<double>(count))); }

TANDEM_INLINE SampleList join_samples(std::vector<SampleList> sources, std::span<const double> factors) {
    if (!factors.empty() && factors.size() != sources.size())
        throw Error("join_samples", "a factor for each of " + std::to_string(sources.size()) + " sources", std::to_string(factors.size()));
    SampleList all;
    Digest digest;
    for (std::size_t i = 0; i < sources.size(); ++i) {
        SampleList& source = sources[i];
        const double factor = factors.empty() ? 1 : factors[i];
        if (!(factor > 0 && factor <= 1000)) throw Error("join_samples", "factors above 0, at most 1000", detail::to_text(factor));
        // A source may have been joined itself.
        if (source.shares.empty()) source.shares.push_back({0, source.samples.size(), 1});
        for (const SampleShare& part : source.shares) {
            const SampleShare share{all.samples.size() + part.first, part.count, factor * part.factor};
            if (share.pairs() == 0)
                throw Error("join_samples", "a pair or more of each source in an epoch", "none of " + std::to_string(share.count) + " with a factor of " + detail::to_text(share.factor));
            digest.add(share.pairs());
            all.shares.push_back(share);
        }
        digest.add(source.digest);
        detail::append(all, std::move(source));
    }
    all.digest = digest.value();
    return all;
}

TANDEM_INLINE std::vector<std::string> captions_of(const SampleList& list, std::size_t index) {
    const Sample& sample = list.samples[index];
    if (sample.text_size == 0) return list.texts[sample.texts];
    std::string text(sample.text_size, '\0');
    read_part(list.files[sample.file], sample.text_offset, std::as_writable_bytes(std::span(text)));
    try {
        return detail::parse_captions(text, sample.is_json);
    } catch (const detail::SampleFault& fault) {
        throw Error(name_of(list, index), "the captions that were there when it was opened", fault.cause);
    }
}

TANDEM_INLINE std::vector<std::byte> picture_of(const SampleList& list, std::size_t index) {
    const Sample& sample = list.samples[index];
    const std::filesystem::path& path = list.files[sample.file];
    std::error_code failed;
    const std::uint64_t size = sample.size != Sample::whole ? sample.size : std::filesystem::file_size(path, failed);
    if (failed) throw Error(path.string(), "cannot read: " + failed.message());
    std::vector<std::byte> bytes(size);
    read_part(path, sample.offset, bytes);
    return bytes;
}

TANDEM_INLINE std::string name_of(const SampleList& list, std::size_t index) {
    const Sample& sample = list.samples[index];
    const std::string file = list.files[sample.file].string();
    return sample.key.empty() ? file : file + ": " + sample.key;
}

}  // namespace tandem::inline TANDEM_ABI

#endif
