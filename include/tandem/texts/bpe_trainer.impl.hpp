// Definitions of texts/bpe_trainer.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/bpe.hpp>
#include <tandem/texts/bpe_trainer.hpp>
#include <tandem/texts/byte_alphabet.hpp>
#include <tandem/texts/caption_words.hpp>

#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// Pair counts over a set of distinct words, kept up to date from merge to merge.
class PairCounts {
public:
    /// An ordered pair of tokens as one number, so that the lower pair wins where counts are equal.
    using Pair = std::uint64_t;

    explicit PairCounts(const std::map<std::string, std::int64_t>& words) {
        std::array<Id, 256> ids{};
        for (std::size_t id = 0; id < ids.size(); ++id) ids[byte_alphabet.byte_of_id[id]] = static_cast<Id>(id);
        for (const auto& [text, count] : words) {
            Word word{{}, count};
            for (const char byte : text) word.ids.push_back(ids[static_cast<unsigned char>(byte)]);
            word.ids.back() += 256;
            words_.push_back(std::move(word));
        }
        for (std::size_t i = 0; i < words_.size(); ++i) {
            for_each_pair(words_[i], [&](Pair pair) {
                State& state = pairs_[pair];
                state.count += words_[i].count;
                if (state.words.empty() || state.words.back() != i) state.words.push_back(i);
            });
        }
        for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
    }

    static Id left(Pair pair) { return static_cast<Id>(pair >> 32); }
    static Id right(Pair pair) { return static_cast<Id>(pair & 0xFFFFFFFFU); }

    /// Removes and gives the most frequent pair, the lowest one of several; false when no word has two tokens left.
    bool pop(Pair& pair) {
        while (!queue_.empty()) {
            const Entry top = queue_.top();
            queue_.pop();
            const std::int64_t count = pairs_.at(top.pair).count;
            if (count == top.count && count > 0) {
                pair = top.pair;
                return true;
            }
            // Merges elsewhere took some of it since it was queued.
            if (count > 0 && count < top.count) queue_.push({count, top.pair});
        }
        return false;
    }

    /// Replaces every occurrence of a pair, left to right in each word.
    void merge(Pair pair, Id result) {
        std::unordered_set<Pair> fresh;
        const std::vector<std::size_t> affected = std::move(pairs_.at(pair).words);
        for (const std::size_t i : affected) {
            Word& word = words_[i];
            for_each_pair(word, [&](Pair old) { pairs_.at(old).count -= word.count; });
            std::size_t kept = 0;
            for (std::size_t at = 0; at < word.ids.size(); ++kept) {
                const bool here = at + 1 < word.ids.size() && key(word.ids[at], word.ids[at + 1]) == pair;
                word.ids[kept] = here ? result : word.ids[at];
                at += here ? 2 : 1;
            }
            word.ids.resize(kept);
            for_each_pair(word, [&](Pair now) {
                State& state = pairs_[now];
                state.count += word.count;
                if (left(now) != result && right(now) != result) return;
                fresh.insert(now);
                if (state.words.empty() || state.words.back() != i) state.words.push_back(i);
            });
        }
        for (const Pair now : fresh) queue_.push({pairs_.at(now).count, now});
    }

private:
    struct Word {
        std::vector<Id> ids;
        std::int64_t count = 0;
    };

    struct State {
        std::int64_t count = 0;
        std::vector<std::size_t> words;  ///< where it occurs, or did
    };

    struct Entry {
        std::int64_t count = 0;
        Pair pair = 0;
        bool operator<(const Entry& other) const {
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };

    static Pair key(Id left, Id right) {
        return (static_cast<Pair>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
    }

    template <class Body>
    static void for_each_pair(const Word& word, const Body& body) {
        for (std::size_t i = 0; i + 1 < word.ids.size(); ++i) body(key(word.ids[i], word.ids[i + 1]));
    }

    std::vector<Word> words_;
    std::unordered_map<Pair, State> pairs_;
    std::priority_queue<Entry> queue_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Bpe train_bpe(std::span<const std::string> captions, std::size_t vocabulary, Cleaning cleaning) {
    constexpr std::size_t bytes = 512;
    constexpr std::size_t specials = 2;
    if (vocabulary < bytes + specials) {
        throw Error("train_bpe", "a vocabulary of at least 514 (512 bytes and 2 special tokens)",
                    std::to_string(vocabulary));
    }
    std::map<std::string, std::int64_t> words;
    for (const std::string& caption : captions) {
        detail::split_text(
            caption, cleaning, [&](std::string_view word) { ++words[std::string(word)]; }, [](bool) {});
    }
    detail::PairCounts pairs(words);
    std::vector<Bpe::Merge> merges;
    detail::PairCounts::Pair pair = 0;
    // No pair makes a token that another made before: within its ends a token is always merged in the same order.
    while (merges.size() + bytes + specials < vocabulary && pairs.pop(pair)) {
        pairs.merge(pair, static_cast<Id>(bytes + merges.size()));
        merges.push_back({detail::PairCounts::left(pair), detail::PairCounts::right(pair)});
    }
    return Bpe(merges, cleaning);
}

}  // namespace tandem::inline TANDEM_ABI

#endif
