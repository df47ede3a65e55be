// Definitions of tasks/index.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/tasks/index.hpp>
#include <tandem/tensor/packed.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Rows that came together, or were joined since. It does not change once it is there.
struct IndexBlock {
    IndexBlock(std::size_t first, std::size_t count, std::size_t width, Buffer<float> values);

    std::size_t first, count;
    Buffer<float> rows;         ///< [count, width]
    PackedWeight<int8> bytes;   ///< the same, rounded
    Buffer<float> errors;       ///< ‖x − s q‖ of every row, rounded up; runs on to the end of the last strip
    float largest_norm = 0;     ///< the largest ‖s q‖, rounded up
};

/// All rows at one moment.
struct IndexState {
    std::vector<std::shared_ptr<const IndexBlock>> blocks;
    std::vector<std::uint64_t> removed;  ///< a bit a position; words behind the last are 0
    std::size_t size = 0, removed_count = 0;

    /// Throws Error for a position that was never given.
    const float* row(const char* where, std::size_t position, std::size_t width) const {
        if (position >= size) throw Error(where, "a position below " + std::to_string(size), std::to_string(position));
        const auto after = std::ranges::upper_bound(blocks, position, {}, [](const auto& block) { return block->first; });
        const IndexBlock& block = **(after - 1);
        return block.rows.data() + (position - block.first) * width;
    }
};

struct IndexWriters {
    std::mutex writing;  ///< held by one add or remove
    std::mutex reading;
    std::shared_ptr<const IndexState> state = std::make_shared<const IndexState>();
};

/// Rows that are looked through together, a bit of a word each; and scores that are computed before they are looked
/// through, so that they stay in the caches.
inline constexpr std::size_t index_strip = 64, index_scores = std::size_t{1} << 19;
/// Blocks are joined up to this many rows, so that an index has few and adding a row copies few.
inline constexpr std::size_t index_block = 65536;
/// Queries that are compared together.
inline constexpr std::size_t index_batch = 64;

/// A number that is not below one that was computed in double from `terms` products.
inline float rounded_up(double value, std::size_t terms) {
    const double slack = 1 + static_cast<double>(terms + 8) * std::numeric_limits<double>::epsilon();
    return std::nextafter(static_cast<float>(value * slack), std::numeric_limits<float>::infinity());
}

inline double norm_of(const float* row, std::size_t width) {
    double squares = 0;
    for (std::size_t j = 0; j < width; ++j) squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
    return std::sqrt(squares);
}

/// The product of two rows, rounded once.
inline float exact_score(const float* x, const float* y, std::size_t width) {
    // Products of floats are exact in double. Eight sums, so that the compiler can keep them in vectors.
    std::array<double, 8> sums{};
    std::size_t j = 0;
    for (; j + sums.size() <= width; j += sums.size()) {
        for (std::size_t lane = 0; lane < sums.size(); ++lane)
            sums[lane] += static_cast<double>(x[j + lane]) * static_cast<double>(y[j + lane]);
    }
    for (; j < width; ++j) sums[j % sums.size()] += static_cast<double>(x[j]) * static_cast<double>(y[j]);
    double sum = 0;
    for (const double part : sums) sum += part;
    return static_cast<float>(sum);
}

/// Throws Error unless all rows are finite and of a length whose products float32 holds with room to spare, or zero.
TANDEM_INLINE void check_rows(const char* where, std::span<const float> rows, std::size_t width) {
    if (rows.size() % width != 0)
        throw Error(where, "whole rows of " + std::to_string(width), std::to_string(rows.size()) + " elements");
    constexpr double longest = 0x1p60;
    for (std::size_t i = 0; i < rows.size() / width; ++i) {
        const double norm = norm_of(rows.data() + i * width, width);
        if (norm != 0 && !(norm >= 1 / longest && norm <= longest))
            throw Error(where, "finite rows of a length between 2^-60 and 2^60, or zeros",
                        "a length of " + std::to_string(norm) + " in row " + std::to_string(i));
    }
}

TANDEM_INLINE IndexBlock::IndexBlock(std::size_t first_position, std::size_t row_count, std::size_t width,
                                     Buffer<float> values)
    : first(first_position),
      count(row_count),
      rows(std::move(values)),
      bytes(row_count, width),
      errors((row_count + index_strip - 1) / index_strip * index_strip) {
    bytes.pack(rows.data());
    std::mutex largest;
    parallel_for(count, 256, [&](std::size_t begin, std::size_t end) {
        float most = 0;
        for (std::size_t i = begin; i < end; ++i) {
            double error = 0, norm = 0;
            for (std::size_t j = 0; j < width; ++j) {
                const double rounded = static_cast<double>(bytes(i, j));
                const double difference = static_cast<double>(rows.data()[i * width + j]) - rounded;
                error += difference * difference;
                norm += rounded * rounded;
            }
            errors.data()[i] = rounded_up(std::sqrt(error), width);
            most = std::max(most, rounded_up(std::sqrt(norm), width));
        }
        const std::scoped_lock lock(largest);
        largest_norm = std::max(largest_norm, most);
    });
}

/// A query as rows of bytes to be: itself, and what the rounding leaves; and how far its bytes may lead astray.
struct ByteQueries {
    ByteQueries(std::span<const float> queries, std::size_t width, bool with_rest);

    std::size_t count, levels;
    std::vector<float> rows;      ///< [count, levels, width]
    std::vector<float> norms;     ///< ‖y‖, rounded up
    std::vector<float> slopes;    ///< of every ‖s q‖: ‖y − ŷ‖, and the roundings of float32 on the way
};

TANDEM_INLINE ByteQueries::ByteQueries(std::span<const float> queries, std::size_t width, bool with_rest)
    : count(queries.size() / width), levels(with_rest ? 2 : 1), rows(count * levels * width) {
    const kernels::ReducedKernels& reduced = kernels::active_reduced();
    std::vector<std::uint8_t> bytes(width);
    for (std::size_t i = 0; i < count; ++i) {
        const float* const query = queries.data() + i * width;
        float* row = rows.data() + i * levels * width;
        std::copy_n(query, width, row);
        double error = 0;
        for (std::size_t level = 0; level < levels; ++level, row += width) {
            float scale = 1;
            std::int32_t zero = 0;
            reduced.quantise(row, bytes.data(), width, scale, zero);
            error = 0;
            for (std::size_t j = 0; j < width; ++j) {
                const double left = static_cast<double>(row[j]) - static_cast<double>(scale) * (bytes[j] - zero);
                error += left * left;
                if (level + 1 < levels) row[width + j] = static_cast<float>(left);
            }
        }
        const double norm = norm_of(query, width);
        norms.push_back(rounded_up(norm, width));
        // A level's product of bytes is exact in blocks of 4096; then come three roundings, the sums' and the bounds' own. The
        // rest of a level was rounded to float32 as well.
        const double roundings =
            static_cast<double>(16 + width / 1024) * static_cast<double>(std::numeric_limits<float>::epsilon());
        slopes.push_back(rounded_up(std::sqrt(error) + roundings * norm, width));
    }
}

/// The best rows of one query so far: those that can still be among its k best.
class Candidates {
public:
    struct Candidate {
        const IndexBlock* block;
        std::size_t row;
        float lower, upper;
    };

    explicit Candidates(std::size_t k, float threshold = -std::numeric_limits<float>::infinity())
        : k_(k), threshold_(threshold) {}

    /// What an upper bound must reach.
    float threshold() const { return threshold_; }

    void add(const Candidate& candidate) {
        found_.push_back(candidate);
        if (found_.size() >= 2 * k_ + 1024 && found_.size() >= 2 * kept_) prune();
    }
    void add(std::span<const Candidate> candidates) {
        for (const Candidate& candidate : candidates) {
            if (candidate.upper >= threshold_) add(candidate);
        }
    }

    /// Lets go of those that cannot.
    void prune() {
        if (found_.size() >= k_) {
            std::vector<float> lower;
            for (const Candidate& candidate : found_) lower.push_back(candidate.lower);
            const auto last = lower.begin() + static_cast<std::ptrdiff_t>(k_) - 1;
            std::ranges::nth_element(lower, last, std::greater<>());
            threshold_ = std::max(threshold_, *last);
            std::erase_if(found_, [&](const Candidate& candidate) { return candidate.upper < threshold_; });
        }
        kept_ = found_.size();
    }

    const std::vector<Candidate>& found() const { return found_; }

private:
    std::size_t k_, kept_ = 0;
    float threshold_;
    std::vector<Candidate> found_;
};

/// Adds the rows of a strip that can be among the k best. `scores` hold the products of the query's levels, `stride` apart.
inline void look_through(const IndexBlock& block, std::size_t row, std::uint64_t allowed, const float* scores,
                         std::size_t stride, std::size_t levels, float norm, float slack, Candidates& best) {
    const float* const errors = block.errors.data() + row;
    std::array<float, index_strip> middle, upper;
    if (levels == 1) {
        for (std::size_t i = 0; i < index_strip; ++i) middle[i] = scores[i];
    } else {
        for (std::size_t i = 0; i < index_strip; ++i) middle[i] = scores[i] + scores[stride + i];
    }
    const float threshold = best.threshold();
    std::int32_t reached = 0;
    for (std::size_t i = 0; i < index_strip; ++i) {
        upper[i] = middle[i] + (errors[i] * norm + slack);
        reached += upper[i] >= threshold ? 1 : 0;
    }
    if (reached == 0) return;
    for (std::size_t i = 0; i < std::min(index_strip, block.count - row); ++i) {
        if (upper[i] < threshold || ((allowed >> i) & 1U) == 0) continue;
        best.add({&block, row + i, middle[i] - (errors[i] * norm + slack), upper[i]});
    }
}

}  // namespace detail

TANDEM_INLINE Index::Index(std::size_t width, std::string fingerprint)
    : width_(width), fingerprint_(std::move(fingerprint)), writers_(std::make_unique<detail::IndexWriters>()) {
    if (width == 0) throw Error("Index", "rows of at least one element", "width 0");
}
TANDEM_INLINE Index::Index(Index&&) noexcept = default;
TANDEM_INLINE Index& Index::operator=(Index&&) noexcept = default;
TANDEM_INLINE Index::~Index() = default;

TANDEM_INLINE std::shared_ptr<const detail::IndexState> Index::state() const {
    const std::scoped_lock lock(writers_->reading);
    return writers_->state;
}

TANDEM_INLINE std::size_t Index::size() const { return state()->size; }

TANDEM_INLINE std::size_t Index::count() const {
    const auto now = state();
    return now->size - now->removed_count;
}

TANDEM_INLINE std::size_t Index::add(std::span<const float> rows) {
    detail::check_rows("Index::add", rows, width_);
    const std::size_t added = rows.size() / width_;
    const std::scoped_lock writing(writers_->writing);
    auto next = std::make_shared<detail::IndexState>(*state());
    const std::size_t position = next->size;
    for (std::size_t begin = 0; begin < added; begin += detail::index_block) {
        std::size_t count = std::min(detail::index_block, added - begin), first = position + begin;
        // As a binary counter carries: a row is copied once for every doubling of its block.
        std::size_t joined = 0;
        while (joined < next->blocks.size()) {
            const detail::IndexBlock& before = *next->blocks[next->blocks.size() - 1 - joined];
            if (before.count >= 2 * count || before.count + count > detail::index_block) break;
            count += before.count;
            first = before.first;
            ++joined;
        }
        Buffer<float> values(count * width_);
        float* to = values.data();
        for (std::size_t i = joined; i > 0; --i) {
            const detail::IndexBlock& before = *next->blocks[next->blocks.size() - i];
            to = std::copy_n(before.rows.data(), before.rows.size(), to);
        }
        std::copy_n(rows.data() + begin * width_, static_cast<std::size_t>(values.data() + values.size() - to), to);
        next->blocks.resize(next->blocks.size() - joined);
        next->blocks.push_back(std::make_shared<const detail::IndexBlock>(first, count, width_, std::move(values)));
    }
    next->size += added;
    const std::scoped_lock reading(writers_->reading);
    writers_->state = std::move(next);
    return position;
}

TANDEM_INLINE void Index::remove(std::span<const std::size_t> positions) {
    const std::scoped_lock writing(writers_->writing);
    auto next = std::make_shared<detail::IndexState>(*state());
    for (const std::size_t position : positions) {
        if (position >= next->size)
            throw Error("Index::remove", "a position below " + std::to_string(next->size), std::to_string(position));
        if (next->removed.size() <= position / 64) next->removed.resize((next->size + 63) / 64);
        std::uint64_t& word = next->removed[position / 64];
        const std::uint64_t bit = std::uint64_t{1} << (position % 64);
        if ((word & bit) == 0) ++next->removed_count;
        word |= bit;
    }
    const std::scoped_lock reading(writers_->reading);
    writers_->state = std::move(next);
}

TANDEM_INLINE std::vector<float> Index::row(std::size_t position) const {
    const auto now = state();
    const float* const from = now->row("Index::row", position, width_);
    return {from, from + width_};
}

TANDEM_INLINE std::vector<float> Index::scores(std::span<const float> query, std::span<const std::size_t> positions) const {
    if (query.size() != width_)
        throw Error("Index::scores", "one query of " + std::to_string(width_), std::to_string(query.size()) + " elements");
    detail::check_rows("Index::scores", query, width_);
    const auto now = state();
    std::vector<float> scores;
    scores.reserve(positions.size());
    for (const std::size_t position : positions)
        scores.push_back(detail::exact_score(now->row("Index::scores", position, width_), query.data(), width_));
    return scores;
}

TANDEM_INLINE IndexRows Index::rows() const {
    const auto now = state();
    IndexRows all{.rows = std::vector<const float*>(now->size), .held = now};
    for (const auto& block : now->blocks) {
        for (std::size_t i = 0; i < block->count; ++i) {
            const std::size_t position = block->first + i, word = position / 64;
            const bool is_removed = word < now->removed.size() && (now->removed[word] >> (position % 64) & 1U) != 0;
            if (!is_removed) all.rows[position] = block->rows.data() + i * width_;
        }
    }
    return all;
}

TANDEM_INLINE SearchResult Index::search(std::span<const float> queries, std::size_t k, const SearchOptions& options) const {
    detail::check_rows("Index::search", queries, width_);
    const auto now = state();
    const std::size_t all = queries.size() / width_;
    SearchResult result;
    result.matches.resize(all);
    k = std::min(k, now->size);
    if (k == 0) return result;

    // What may be found of the 64 rows from a position on.
    const auto word_of = [](std::span<const std::uint64_t> words, std::size_t at) { return at < words.size() ? words[at] : 0; };
    const auto findable = [&](std::size_t position) {
        const std::size_t word = position / 64, shift = position % 64;
        const auto part = [&](std::size_t at) {
            const std::uint64_t given = options.allowed.empty() ? ~std::uint64_t{0} : word_of(options.allowed, at);
            return given & ~word_of(now->removed, at);
        };
        return shift == 0 ? part(word) : (part(word) >> shift) | (part(word + 1) << (64 - shift));
    };

    const std::size_t wanted = options.exact ? k : 4 * k + 32;
    std::vector<float> scores;
    for (std::size_t begin = 0; begin < all; begin += detail::index_batch) {
        const std::size_t count = std::min(detail::index_batch, all - begin);
        const auto batch = queries.subspan(begin * width_, count * width_);
        const detail::ByteQueries query(batch, width_, options.exact);
        std::vector<detail::Candidates> best(count, detail::Candidates(wanted));
        const std::size_t levels = query.levels, rows = count * levels;
        // A chunk begins a strip and a panel.
        const std::size_t unit = detail::index_strip * PackedWeight<int8>::layout().width;
        const std::size_t chunk = std::max<std::size_t>(1, detail::index_scores / rows / unit) * unit;
        for (const auto& held : now->blocks) {
            const detail::IndexBlock& block = *held;
            const float slack_of_one = options.exact ? block.largest_norm : 0;
            for (std::size_t first = 0; first < block.count; first += chunk) {
                const std::size_t size = std::min(chunk, block.count - first), strips = (size + detail::index_strip - 1) / detail::index_strip;
                std::vector<std::uint64_t> allowed(strips);
                for (std::size_t i = 0; i < strips; ++i) allowed[i] = findable(block.first + first + 64 * i);
                if (std::ranges::all_of(allowed, [](std::uint64_t word) { return word == 0; })) continue;
                result.scanned += size * count;
                const std::size_t stride = strips * detail::index_strip;
                scores.resize(std::max(scores.size(), rows * stride));
                block.bytes.product(rows, {query.rows.data(), width_}, {scores.data(), stride}, {}, first, first + size);
                // Queries on all cores, or the strips of one.
                const std::size_t pieces = std::max<std::size_t>(1, std::min(strips, 4 * core_count() / count));
                std::vector<detail::Candidates> found;
                for (std::size_t task = 0; pieces > 1 && task < count * pieces; ++task)
                    found.emplace_back(wanted, best[task / pieces].threshold());
                parallel_for(count * pieces, 1, [&](std::size_t from, std::size_t to) {
                    for (std::size_t task = from; task < to; ++task) {
                        const std::size_t q = task / pieces, piece = task % pieces;
                        const float slack = slack_of_one * query.slopes[q], norm = options.exact ? query.norms[q] : 0;
                        detail::Candidates& mine = pieces == 1 ? best[q] : found[task];
                        for (std::size_t i = strips * piece / pieces; i < strips * (piece + 1) / pieces; ++i) {
                            if (allowed[i] == 0) continue;
                            detail::look_through(block, first + 64 * i, allowed[i], scores.data() + q * levels * stride + 64 * i,
                                                 stride, levels, norm, slack, mine);
                        }
                    }
                });
                if (pieces == 1) continue;
                for (std::size_t task = 0; task < found.size(); ++task) best[task / pieces].add(found[task].found());
                for (detail::Candidates& of_query : best) of_query.prune();
            }
        }
        for (std::size_t q = 0; q < count; ++q) {
            best[q].prune();
            const auto& left = best[q].found();
            std::vector<Match>& matches = result.matches[begin + q];
            matches.resize(left.size());
            parallel_for(left.size(), 64, [&](std::size_t from, std::size_t to) {
                for (std::size_t i = from; i < to; ++i) {
                    const float* const row = left[i].block->rows.data() + left[i].row * width_;
                    matches[i] = {left[i].block->first + left[i].row,
                                  detail::exact_score(row, batch.data() + q * width_, width_)};
                }
            });
            result.rescored += matches.size();
            const auto last = matches.begin() + static_cast<std::ptrdiff_t>(std::min(k, matches.size()));
            std::partial_sort(matches.begin(), last, matches.end(), detail::is_better);
            matches.erase(last, matches.end());
        }
    }
    return result;
}

TANDEM_INLINE void Index::require(const std::string& fingerprint) const {
    if (fingerprint == fingerprint_) return;
    throw Error("Index", "vectors of the model at hand, \"" + fingerprint + "\"",
                "\"" + fingerprint_ + "\", whose vectors have another meaning: embed anew, or open the model that they came from");
}

TANDEM_INLINE void Index::save(const std::filesystem::path& path) const {
    const auto now = state();
    std::vector<float> rows;
    rows.reserve(now->size * width_);
    for (const auto& block : now->blocks) rows.insert(rows.end(), block->rows.data(), block->rows.data() + block->rows.size());
    std::vector<std::int64_t> removed;
    for (std::size_t position = 0; position < 64 * now->removed.size(); ++position) {
        if ((now->removed[position / 64] >> (position % 64) & 1U) != 0) removed.push_back(static_cast<std::int64_t>(position));
    }
    const std::vector<StoredTensor> tensors{
        stored_tensor<float>("rows", {now->size, width_}, rows),
        stored_tensor<std::int64_t>("removed", {removed.size()}, removed)};
    save_safetensors(path, tensors, {{"format", "tandem index 1"}, {"fingerprint", fingerprint_}});
}

TANDEM_INLINE Index Index::load(const std::filesystem::path& path) {
    const Safetensors file = Safetensors::open(path);
    const auto& metadata = file.metadata();
    const auto format = metadata.find("format"), fingerprint = metadata.find("fingerprint");
    const StoredTensor* const rows = file.find("rows");
    const StoredTensor* const removed = file.find("removed");
    if (format == metadata.end() || format->second != "tandem index 1" || fingerprint == metadata.end() || rows == nullptr ||
        removed == nullptr || rows->shape.size() != 2 || removed->shape.size() != 1)
        throw Error(path.string(), "an index that tandem saved (format \"tandem index 1\")",
                    format == metadata.end() ? "no format in its metadata" : "format \"" + format->second + "\"");
    try {
        Index index(rows->shape[1], fingerprint->second);
        std::vector<float> values(rows->shape[0] * rows->shape[1]);
        read_elements<float>(*rows, values);
        std::vector<std::int64_t> positions(removed->shape[0]);
        read_elements<std::int64_t>(*removed, positions);
        index.add(values);
        std::vector<std::size_t> places;
        for (const std::int64_t position : positions) places.push_back(static_cast<std::size_t>(position));
        index.remove(places);
        return index;
    } catch (const Error& error) {
        throw Error(path.string(), error.what());
    }
}

}  // namespace tandem::inline TANDEM_ABI
