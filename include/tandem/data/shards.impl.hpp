// Definitions of data/shards.hpp.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/lines.hpp>
#include <tandem/data/shards.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::size_t ShardSample::part(std::initializer_list<std::string_view> endings, std::size_t otherwise) const {
    for (const std::string_view ending : endings) {
        const auto found = std::ranges::find(parts, ending, [](const auto& one) { return std::string_view(one.first); });
        if (found != parts.end()) return found->second;
    }
    return otherwise;
}

TANDEM_INLINE std::string detail::small_letters(std::string text) {
    std::ranges::transform(text, text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return text;
}

TANDEM_INLINE std::vector<ShardSample> group_samples(std::span<const TarMember> members) {
    std::vector<ShardSample> samples;
    for (std::size_t i = 0; i < members.size(); ++i) {
        const std::string& name = members[i].name;
        const std::size_t base = name.rfind('/') == std::string::npos ? 0 : name.rfind('/') + 1, dot = name.find('.', base);
        if (dot == std::string::npos || dot == base || dot + 1 == name.size()) continue;
        std::string ending = detail::small_letters(name.substr(dot + 1));
        const std::string key = name.substr(0, dot);
        const auto is_there = [&](const auto& part) { return part.first == ending; };
        if (samples.empty() || samples.back().key != key || std::ranges::any_of(samples.back().parts, is_there)) samples.push_back({.key = key, .parts = {}});
        samples.back().parts.emplace_back(std::move(ending), i);
    }
    return samples;
}

TANDEM_INLINE std::string shard_index(std::span<const TarMember> members) {
    const std::vector<ShardSample> samples = group_samples(members);
    std::string text = "v1.2 " + std::to_string(samples.size()) + "\n";
    for (const ShardSample& sample : samples) {
        for (const auto& [ending, number] : sample.parts) {
            const TarMember& member = members[number];
            if (member.name.find_first_of(" \t\r\n\v\f") != std::string::npos) throw Error("shard_index", "names without white space", detail::in_quotes(member.name));
            text += member.name.substr(sample.key.size() + 1) + " " + std::to_string(member.offset) + " " + std::to_string(member.size) + " " + member.name + " ";
        }
        text.back() = '\n';
    }
    return text;
}

TANDEM_INLINE std::vector<TarMember> read_shard_index(std::string_view text, const std::string& where) {
    std::size_t line = 0;
    const auto fail = [&](const std::string& expected, std::string_view found) -> Error { return {where + ", line " + std::to_string(line), expected, detail::in_quotes(found)}; };
    const auto next_line = [&] {
        ++line;
        return detail::take_line(text);
    };
    const auto next_word = [](std::string_view& words) { return detail::take_until(words, ' '); };
    const auto number = [&](std::string_view word, const char* what) {
        std::uint64_t value = 0;
        const auto [end, fault] = std::from_chars(word.data(), word.data() + word.size(), value);
        if (fault != std::errc() || end != word.data() + word.size()) throw fail(what, word);
        return value;
    };
    std::string_view words = next_line();
    const std::string_view version = next_word(words);
    if (version != "v1.1" && version != "v1.2") throw fail("an index of version v1.1 or v1.2", version);
    const std::uint64_t samples = number(words, "a number of samples");
    std::vector<TarMember> members;
    for (std::uint64_t sample = 0; sample < samples; ++sample) {
        if (text.empty()) throw Error(where, std::to_string(samples) + " samples, as its first line says", std::to_string(sample));
        for (words = next_line(); !words.empty();) {
            const std::string_view ending = next_word(words);
            TarMember member{.name = std::to_string(sample) + "." + std::string(ending), .offset = number(next_word(words), "an offset"), .size = number(next_word(words), "a size")};
            if (version == "v1.2") member.name = next_word(words);
            if (!member.name.ends_with("." + std::string(ending))) throw fail("a name that ends with " + detail::in_quotes(ending), member.name);
            members.push_back(std::move(member));
        }
    }
    return members;
}

}  // namespace tandem::inline TANDEM_ABI
