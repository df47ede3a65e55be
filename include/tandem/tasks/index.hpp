// An index of embeddings: the nearest of many, exact by proof at the speed of a scan over bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// A row that was found: where it stands in its index, and its product with the query in float32.
struct Match {
    std::size_t position;
    float score;

    friend bool operator==(const Match&, const Match&) = default;
};

namespace detail {

/// Whether one match comes before another: the larger score, of equal ones the first row.
inline bool is_better(const Match& a, const Match& b) { return a.score > b.score || (a.score == b.score && a.position < b.position); }

}  // namespace detail

/// Whether a row may be found, as SearchOptions has it.
inline bool is_allowed(std::span<const std::uint64_t> allowed, std::size_t position) {
    return allowed.empty() || (position / 64 < allowed.size() && (allowed[position / 64] >> (position % 64) & 1U) != 0);
}

/// What a search does beside looking for the nearest.
struct SearchOptions {
    /// Bit p % 64 of word p / 64 says whether row p may be found; rows behind the last word may not. Empty: all rows.
    std::span<const std::uint64_t> allowed{};
    /// Without proof, the query is rounded to bytes as well, and the best 4 k + 32 rows by that are scored in float32: a
    /// batch takes half the time, and nearly every answer is the same.
    bool exact = true;
};

/// The answers to some queries, and what they cost.
struct SearchResult {
    std::vector<std::vector<Match>> matches;  ///< of every query, best first; of equal scores the first row first
    std::size_t scanned = 0;                  ///< rows that were compared as bytes, once a query
    std::size_t rescored = 0;                 ///< of these, rows whose float32 score was computed
};

/// The share of exact answers that another search found; of rows of equal scores any will do.
inline double recall_of(const SearchResult& exact, const SearchResult& found) {
    std::size_t hits = 0, all = 0;
    for (std::size_t i = 0; i < exact.matches.size(); ++i) {
        const std::vector<Match>& wanted = exact.matches[i];
        std::size_t right = 0;
        for (const Match& match : found.matches[i]) right += !wanted.empty() && match.score >= wanted.back().score ? 1U : 0U;
        all += wanted.size();
        hits += std::min(right, wanted.size());
    }
    return all == 0 ? 1 : static_cast<double>(hits) / static_cast<double>(all);
}

namespace detail {

struct IndexBlock;
struct IndexState;
struct IndexWriters;

}  // namespace detail

/// The rows of an index at one moment. They stay where they are while this lives.
struct IndexRows {
    std::vector<const float*> rows;  ///< by position; null where the row was removed
    std::shared_ptr<const void> held;
};

/// Rows of float32, found by their product with a query (their cosine, where both have length 1).
///
/// Every row x is kept as float32 and as signed bytes q with a scale s; the query y as two rows of bytes, the second for
/// what the first leaves. A scan over the bytes gives ⟨ŷ, s q⟩, and by Cauchy and Schwarz the product itself lies within
/// ‖y‖ ‖x − s q‖ + ‖y − ŷ‖ ‖s q‖ of it. The norms are known, so every row whose upper bound reaches the k-th largest lower
/// bound is scored in float32, and no other can be among the k best: the answer is the one that scoring all rows gives.
/// A score is the float32 nearest to the sum in double, so it depends neither on the threads nor on the instruction set.
///
/// add, remove and search may be called at the same time: a search sees the rows of some moment between its call and its
/// return, an add or a remove is in it as a whole or not at all, and both return after the searches that begin later see
/// them. Positions are given in order and never given again.
class Index {
public:
    /// An empty index. The fingerprint says what made its vectors (weights, preprocessing, tokenizer); any text will do.
    explicit Index(std::size_t width, std::string fingerprint = {});
    Index(Index&&) noexcept;
    Index& operator=(Index&&) noexcept;
    ~Index();

    std::size_t width() const { return width_; }
    const std::string& fingerprint() const { return fingerprint_; }
    /// Rows ever added: positions are below it.
    std::size_t size() const;
    /// Rows that can be found.
    std::size_t count() const;

    /// Adds rows [N, width]; returns the position of the first. Throws Error, and adds none, for what is no whole row or not
    /// finite.
    std::size_t add(std::span<const float> rows);

    /// Takes rows out. Their positions stay empty. Throws Error, and removes none, for a position that was never given.
    void remove(std::span<const std::size_t> positions);

    /// The k rows of the largest products with each of the queries [N, width], or all where there are fewer. Throws Error for
    /// what is no whole query or not finite.
    SearchResult search(std::span<const float> queries, std::size_t k, const SearchOptions& options = {}) const;

    /// The products of one query with rows, removed or not, as search() gives them. Throws Error as search() and row() do.
    std::vector<float> scores(std::span<const float> query, std::span<const std::size_t> positions) const;

    /// All rows that there are now.
    IndexRows rows() const;

    /// The row at a position, removed or not. Throws Error for a position that was never given.
    std::vector<float> row(std::size_t position) const;

    /// Throws Error, which says both and what to do, unless the index has this fingerprint: vectors of different models are
    /// in different spaces, and their products mean nothing.
    void require(const std::string& fingerprint) const;

    /// Writes rows, removals and the fingerprint as safetensors, atomically.
    void save(const std::filesystem::path& path) const;
    /// Reads what save() wrote. Throws Error that names the file and the fault.
    static Index load(const std::filesystem::path& path);

private:
    std::shared_ptr<const detail::IndexState> state() const;

    std::size_t width_;
    std::string fingerprint_;
    std::unique_ptr<detail::IndexWriters> writers_;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/index.impl.hpp>
#endif
