// Approximate search for millions of rows, through hnswlib (Debian: libhnswlib-dev; CMake: tandem::hnsw): graphs over the rows
// of an index, in which a search goes from neighbour to neighbour. A plain Index is exact, and the better choice as long as
// looking at every row is fast enough.
#pragma once

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/tasks/index.hpp>

// hnswlib's own kernels are those of the build's instruction set, their header defines functions that are not inline, and
// its prefetches read behind the ends of its lists. It computes with the library's kernels here.
#define NO_MANUAL_VECTORIZATION
#include <hnswlib/hnswlib.h>

namespace tandem::inline TANDEM_ABI {

/// How a graph is made. The defaults are those of Malkov and Yashunin (2018), arXiv:1603.09320.
struct GraphOptions {
    std::size_t links = 16;     ///< neighbours that a row is given; twice as many on the lowest level. 2 to 256
    std::size_t breadth = 200;  ///< rows among which they are chosen; at least `links`
    /// Rows of a graph. Graphs are made, and searched, at the same time; one more costs a search about as much as the first.
    std::size_t rows = std::size_t{1} << 17;
};

/// What an update did.
struct GraphUpdate {
    std::size_t kept = 0;   ///< rows whose contents were there
    std::size_t added = 0;  ///< rows whose contents were not
    std::size_t gone = 0;   ///< contents that no row of the index has any more
};

/// Called with the number of rows that are linked and of those that are to be, now and then, by one thread at a time.
using GraphProgress = std::function<void(std::size_t, std::size_t)>;

/// What a search in graphs does beside looking for the nearest.
struct ApproximateOptions {
    std::span<const std::uint64_t> allowed{};  ///< as in SearchOptions
    /// Rows that are kept in view in every graph: more find more, and take longer. 0: breadth() of the index.
    std::size_t breadth = 0;
};

namespace detail {

using Hnsw = hnswlib::HierarchicalNSW<float>;

/// What hnswlib holds of a row is its address.
class RowSpace : public hnswlib::SpaceInterface<float> {
public:
    explicit RowSpace(std::size_t width) : meter_{kernels::active<float>().dot, width} {}

    std::size_t get_data_size() override { return sizeof(const float*); }
    hnswlib::DISTFUNC<float> get_dist_func() override { return distance; }
    void* get_dist_func_param() override { return &meter_; }

private:
    struct Meter {
        float (*dot)(const float*, const float*, std::size_t);
        std::size_t width;
    };

    static float distance(const void* x, const void* y, const void* meter) {
        const float *left, *right;
        std::memcpy(&left, x, sizeof(left));
        std::memcpy(&right, y, sizeof(right));
        const Meter& by = *static_cast<const Meter*>(meter);
        return -by.dot(left, right, by.width);
    }

    Meter meter_;
};

/// One graph. Nodes are numbered in the order in which they came.
struct RowGraph {
    static constexpr std::size_t nowhere = std::numeric_limits<std::size_t>::max();

    RowGraph(RowSpace& space, std::size_t capacity, const GraphOptions& options)
        : nodes(std::make_unique<Hnsw>(&space, capacity, options.links, options.breadth)) {
        // A node's level is −ln U / ln links, U from 53 bits. No later one is above the first, so that it stays the entry.
        const double most = 53 * std::log(2.0) / std::log(static_cast<double>(options.links));
        first_level = 1 + static_cast<int>(most);
    }

    std::size_t size() const { return keys.size(); }

    const std::uint32_t* links_of(std::size_t node, int level) const {
        return nodes->get_linklist_at_level(static_cast<hnswlib::tableint>(node), level);
    }

    void point(std::size_t node, const float* row) {
        std::memcpy(nodes->getDataByInternalId(static_cast<hnswlib::tableint>(node)), &row, sizeof(row));
    }

    /// Room for so many nodes.
    void reserve(std::size_t count) {
        if (count > nodes->max_elements_) nodes->resizeIndex(count);
        // So that what comes depends on what is there only, not on whether it was loaded.
        nodes->level_generator_.seed(static_cast<std::uint32_t>(size() + 1));
    }

    void add(const float* row, std::uint64_t key, std::size_t position) {
        nodes->addPoint(&row, size(), size() == 0 ? first_level : 0);
        keys.push_back(key);
        positions.push_back(position);
    }

    std::unique_ptr<Hnsw> nodes;
    std::vector<std::uint64_t> keys;     ///< of every node: what its row holds
    std::vector<std::size_t> positions;  ///< of every node: where the first row of these contents stands, or nowhere
    int first_level;
};

}  // namespace detail

/// Finds most of the nearest rows of an Index, looking at few: graphs by Malkov and Yashunin (2018), arXiv:1603.09320, each over a
/// part of the rows. It is made for rows of length 1; how many of the nearest it finds is a matter of the data and of the
/// queries, so measure it with queries of the kind that will be asked (recall(), choose_breadth()): texts lie outside the
/// distribution of pictures, and find fewer than pictures do. Rows of the same contents are one node: copies do not get in the way.
///
/// Scores are those of the Index, to the bit; the graphs do not depend on the number of threads. Where a search of graphs would
/// cost more than a look at every row (few rows, a large breadth, a filter that lets few through), the Index is asked.
/// Graphs have the rows that the Index had at the last update(), which must follow when rows were removed; the Index has those of now.
/// Searches may run at the same time, but not beside an update.
class ApproximateIndex {
public:
    /// Graphs over the rows of an index, which must outlive this and stay where it is. Throws Error for options out of bounds.
    explicit ApproximateIndex(const Index& index, const GraphOptions& options = {}, const GraphProgress& progress = {});

    /// Reads what save() wrote and brings it to the rows of an index. A row is known by what it holds, wherever it stands. Throws
    /// Error that names the file and the fault; also where the vectors were another model's.
    static ApproximateIndex load(const std::filesystem::path& path, const Index& index, const GraphProgress& progress = {});

    /// Links the rows that came, and forgets those that went. What went is passed through still, in the place of a neighbour; a graph
    /// of which a quarter went is made anew. Where it throws (no memory; what `progress` throws), searches ask the Index until one does not.
    GraphUpdate update(const GraphProgress& progress = {});
    /// What the last one did; the first one is that of making or loading it.
    const GraphUpdate& last_update() const { return last_; }

    /// The k rows of the largest products with each of the queries [N, width], but for those that were missed. `scanned` counts rows
    /// where the Index was asked, `rescored` those that the graphs found. Throws Error as Index::search.
    SearchResult search(std::span<const float> queries, std::size_t k, const ApproximateOptions& options = {}) const;

    /// The share of the k best of Index::search that search() finds, over all queries [N, width].
    double recall(std::span<const float> queries, std::size_t k, std::size_t breadth = 0) const;

    /// Sets breadth() to the least power of two that finds a share of the k best, or to the most, 4096, where none does; returns what
    /// it finds. What is found of other queries is another number.
    double choose_breadth(std::span<const float> queries, std::size_t k, double share);

    std::size_t breadth() const { return breadth_; }
    /// How many rows there were when it was chosen; 0: it was not.
    std::size_t breadth_chosen_for() const { return chosen_for_; }
    /// Rows that can be found.
    std::size_t count() const { return count_; }

    /// Writes the graphs, without the rows, as safetensors, atomically.
    void save(const std::filesystem::path& path) const;

private:
    struct Unlinked {};
    ApproximateIndex(const Index& index, const GraphOptions& options, Unlinked);

    /// Reads graph `number`; throws Error, whose text is the fault.
    void load_graph(const Safetensors& file, std::size_t number);
    void search_one(std::span<const float> query, std::size_t k, std::span<const std::uint64_t> allowed, double share, std::size_t breadth,
                    SearchResult& result, std::vector<Match>& matches) const;
    bool costs_more_than_all(std::size_t breadth) const;

    const Index* index_;
    GraphOptions options_;
    std::unique_ptr<detail::RowSpace> space_;
    std::vector<detail::RowGraph> graphs_;
    IndexRows rows_;
    std::vector<std::size_t> next_same_;  ///< by position: where the next row of the same contents stands, or nowhere
    std::vector<float> nothing_;          ///< a row of zeros: the place of what went with all of its neighbours
    std::size_t breadth_ = 64, chosen_for_ = 0, count_ = 0;
    bool is_whole_ = false;  ///< whether the last update came to its end
    GraphUpdate last_;
};

namespace detail {

/// Where rows that went are passed through: the first neighbours that are there.
inline void stand_in(RowGraph& graph, std::span<const float* const> rows, const float* nothing) {
    for (std::size_t node = 0; node < graph.size(); ++node) {
        if (graph.positions[node] != RowGraph::nowhere) {
            graph.point(node, rows[graph.positions[node]]);
            continue;
        }
        const std::uint32_t* const links = graph.links_of(node, 0);
        const float* place = nothing;
        for (std::size_t i = 1; i <= graph.nodes->getListCount(const_cast<std::uint32_t*>(links)) && place == nothing; ++i) {
            if (const std::size_t position = graph.positions[links[i]]; position != RowGraph::nowhere) place = rows[position];
        }
        graph.point(node, place);
    }
}

}  // namespace detail

inline ApproximateIndex::ApproximateIndex(const Index& index, const GraphOptions& options, Unlinked)
    : index_(&index),
      options_(options),
      space_(std::make_unique<detail::RowSpace>(index.width())),
      nothing_(index.width()) {
    if (options.links < 2 || options.links > 256)
        throw Error("GraphOptions::links", "2 to 256", std::to_string(options.links));
    if (options.breadth < options.links || options.breadth > 65536)
        throw Error("GraphOptions::breadth", "links (" + std::to_string(options.links) + ") to 65536", std::to_string(options.breadth));
    if (options.rows == 0 || options.rows > (std::size_t{1} << 30))
        throw Error("GraphOptions::rows", "1 to 2^30", std::to_string(options.rows));
}

inline ApproximateIndex::ApproximateIndex(const Index& index, const GraphOptions& options, const GraphProgress& progress)
    : ApproximateIndex(index, options, Unlinked{}) {
    update(progress);
}

inline GraphUpdate ApproximateIndex::update(const GraphProgress& progress) {
    GraphUpdate done;
    is_whole_ = false;
    // Nodes have the addresses of the rows before, which nobody reads before they have those of now.
    rows_ = index_->rows();
    const std::size_t width = index_->width();
    // Rows and nodes by what they hold. Equal rows are one node, at the first one's place.
    using Keyed = std::pair<std::uint64_t, std::size_t>;
    std::vector<Keyed> rows(rows_.rows.size()), nodes;
    parallel_for(rows_.rows.size(), 1024, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            Digest digest;
            if (rows_.rows[i] != nullptr) digest.add(std::span(rows_.rows[i], width));
            rows[i] = {digest.value(), i};
        }
    });
    std::erase_if(rows, [&](const Keyed& row) { return rows_.rows[row.second] == nullptr; });
    count_ = rows.size();
    std::ranges::sort(rows);
    std::vector<std::uint64_t> keys(rows_.rows.size());
    next_same_.assign(rows_.rows.size(), detail::RowGraph::nowhere);
    std::vector<std::size_t> copies(rows_.rows.size(), 1);  // of the first row of some contents: how many have them
    std::vector<Keyed> different;
    std::size_t last = 0;
    for (const auto& [key, position] : rows) {
        if (!different.empty() && different.back().first == key) {
            next_same_[last] = position;
            ++copies[different.back().second];
        } else {
            keys[position] = key;
            different.emplace_back(key, position);
        }
        last = position;
    }
    std::vector<std::pair<std::size_t, std::size_t>> places;  // graph and node, by what stands in `nodes`
    for (std::size_t g = 0; g < graphs_.size(); ++g) {
        for (std::size_t node = 0; node < graphs_[g].size(); ++node) {
            nodes.emplace_back(graphs_[g].keys[node], places.size());
            places.emplace_back(g, node);
        }
    }
    std::ranges::sort(nodes);
    std::vector<std::size_t> unlinked, gone(graphs_.size());
    auto node = nodes.begin();
    const auto forget_until = [&](auto is_before) {
        for (; node != nodes.end() && is_before(node->first); ++node) {
            const auto [g, i] = places[node->second];
            if (graphs_[g].positions[i] != detail::RowGraph::nowhere) ++done.gone;
            graphs_[g].positions[i] = detail::RowGraph::nowhere;
            ++gone[g];
        }
    };
    for (const auto& [key, position] : different) {
        forget_until([&, at = key](std::uint64_t other) { return other < at; });
        if (node == nodes.end() || node->first != key) {
            unlinked.push_back(position);
            continue;
        }
        const auto [g, i] = places[node->second];
        graphs_[g].positions[i] = position;
        ++node;
    }
    forget_until([](std::uint64_t) { return true; });

    std::vector<detail::RowGraph> kept;
    for (std::size_t g = 0; g < graphs_.size(); ++g) {
        detail::RowGraph& graph = graphs_[g];
        if (graph.size() == 0) continue;
        if (4 * gone[g] <= graph.size()) {
            detail::stand_in(graph, rows_.rows, nothing_.data());
            kept.push_back(std::move(graph));
            continue;
        }
        for (const std::size_t position : graph.positions) {
            if (position != detail::RowGraph::nowhere) unlinked.push_back(position);
        }
    }
    graphs_ = std::move(kept);
    std::ranges::sort(unlinked);
    for (const std::size_t position : unlinked) done.added += copies[position];
    done.kept = count_ - done.added;

    // They fill the last graph, or make new ones of equal size.
    struct Piece {
        std::size_t graph, begin, end;
    };
    std::vector<Piece> pieces;
    if (!graphs_.empty() && graphs_.back().size() + unlinked.size() <= options_.rows) {
        pieces.push_back({graphs_.size() - 1, 0, unlinked.size()});
        graphs_.back().reserve(graphs_.back().size() + unlinked.size());
    } else {
        const std::size_t made = (unlinked.size() + options_.rows - 1) / options_.rows;
        for (std::size_t i = 0; i < made; ++i) {
            const std::size_t begin = unlinked.size() * i / made, end = unlinked.size() * (i + 1) / made;
            pieces.push_back({graphs_.size(), begin, end});
            graphs_.emplace_back(*space_, end - begin, options_);
        }
    }
    std::mutex reporting;
    std::size_t linked = 0;
    parallel_for(pieces.size(), 1, [&](std::size_t from, std::size_t to) {
        for (std::size_t piece = from; piece < to; ++piece) {
            detail::RowGraph& graph = graphs_[pieces[piece].graph];
            constexpr std::size_t step = 1000;
            for (std::size_t i = pieces[piece].begin; i < pieces[piece].end; ++i) {
                const std::size_t position = unlinked[i];
                graph.add(rows_.rows[position], keys[position], position);
                const std::size_t count = i + 1 - pieces[piece].begin;
                if (count % step != 0 && i + 1 < pieces[piece].end) continue;
                const std::scoped_lock lock(reporting);
                linked += count % step == 0 ? step : count % step;
                if (progress) progress(linked, unlinked.size());
            }
        }
    });
    is_whole_ = true;
    return last_ = done;
}

/// A step to a neighbour costs what scanning about as many rows does (measured, rows of 512).
inline bool ApproximateIndex::costs_more_than_all(std::size_t breadth) const {
    constexpr std::size_t rows_a_step = 64;
    return graphs_.size() * breadth * rows_a_step >= count_;
}

inline void ApproximateIndex::search_one(std::span<const float> query, std::size_t k, std::span<const std::uint64_t> allowed, double share,
                                         std::size_t breadth, SearchResult& result, std::vector<Match>& matches) const {
    const float* const row = query.data();
    for (double view = static_cast<double>(std::max(breadth, k)) / share;; view *= 4) {
        if (!(view < static_cast<double>(count_)) || costs_more_than_all(static_cast<std::size_t>(view))) break;
        std::vector<std::size_t> found;
        for (const detail::RowGraph& graph : graphs_) {
            auto nearest = graph.nodes->searchKnn(&row, static_cast<std::size_t>(view));
            for (; !nearest.empty(); nearest.pop()) {
                // Of equal rows the first k are as many as can be among the best.
                std::size_t position = graph.positions[nearest.top().second];
                for (std::size_t taken = 0; position != detail::RowGraph::nowhere && taken < k; position = next_same_[position]) {
                    if (!is_allowed(allowed, position)) continue;
                    found.push_back(position);
                    ++taken;
                }
            }
        }
        if (found.size() < k) continue;
        const std::vector<float> scores = index_->scores(query, found);
        for (std::size_t i = 0; i < found.size(); ++i) matches.push_back({found[i], scores[i]});
        result.rescored += found.size();
        std::partial_sort(matches.begin(), matches.begin() + static_cast<std::ptrdiff_t>(k), matches.end(), detail::is_better);
        matches.resize(k);
        return;
    }
    SearchResult all = index_->search(query, k, {.allowed = allowed});
    result.scanned += all.scanned;
    result.rescored += all.rescored;
    matches = std::move(all.matches.front());
}

inline SearchResult ApproximateIndex::search(std::span<const float> queries, std::size_t k, const ApproximateOptions& options) const {
    index_->search(queries, 0);  // refuses what is no query
    const std::size_t width = index_->width(), count = queries.size() / width;
    SearchResult result;
    result.matches.resize(count);
    k = std::min(k, count_);
    if (k == 0) return result;
    double share = 1;
    if (!options.allowed.empty()) {
        std::size_t bits = 0;
        for (const std::uint64_t word : options.allowed) bits += static_cast<std::size_t>(std::popcount(word));
        share = std::min(1.0, static_cast<double>(bits) / static_cast<double>(count_));
    }
    const std::size_t breadth = options.breadth == 0 ? breadth_ : options.breadth;
    if (!is_whole_ || !(share > 0) || costs_more_than_all(std::max(breadth, k))) return index_->search(queries, k, {.allowed = options.allowed});
    std::mutex adding;
    parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            SearchResult cost;
            search_one(queries.subspan(i * width, width), k, options.allowed, share, breadth, cost, result.matches[i]);
            const std::scoped_lock lock(adding);
            result.scanned += cost.scanned;
            result.rescored += cost.rescored;
        }
    });
    return result;
}

inline double ApproximateIndex::recall(std::span<const float> queries, std::size_t k, std::size_t breadth) const {
    return recall_of(index_->search(queries, k), search(queries, k, {.breadth = breadth}));
}

inline double ApproximateIndex::choose_breadth(std::span<const float> queries, std::size_t k, double share) {
    if (!(share >= 0 && share <= 1)) throw Error("ApproximateIndex::choose_breadth", "a share from 0 to 1", std::to_string(share));
    constexpr std::size_t most = 4096;
    double found = 0;
    for (breadth_ = 16;; breadth_ *= 2) {
        chosen_for_ = count_;
        found = recall(queries, k);
        if (found >= share || breadth_ >= most) return found;
    }
}

inline void ApproximateIndex::save(const std::filesystem::path& path) const {
    struct Parts {
        std::vector<std::int64_t> keys;
        std::vector<std::int32_t> levels, links;
    };
    std::vector<Parts> parts(graphs_.size());
    std::vector<StoredTensor> tensors;
    for (std::size_t g = 0; g < graphs_.size(); ++g) {
        const detail::RowGraph& graph = graphs_[g];
        Parts& part = parts[g];
        for (std::size_t node = 0; node < graph.size(); ++node) {
            part.keys.push_back(std::bit_cast<std::int64_t>(graph.keys[node]));
            part.levels.push_back(graph.nodes->element_levels_[node]);
            for (int level = 0; level <= part.levels.back(); ++level) {
                const std::uint32_t* const links = graph.links_of(node, level);
                const std::size_t count = graph.nodes->getListCount(const_cast<std::uint32_t*>(links));
                part.links.push_back(static_cast<std::int32_t>(count));
                for (std::size_t i = 1; i <= count; ++i) part.links.push_back(static_cast<std::int32_t>(links[i]));
            }
        }
        const std::string number = std::to_string(g);
        tensors.push_back(stored_tensor<std::int64_t>("keys." + number, {part.keys.size()}, part.keys));
        tensors.push_back(stored_tensor<std::int32_t>("levels." + number, {part.levels.size()}, part.levels));
        tensors.push_back(stored_tensor<std::int32_t>("links." + number, {part.links.size()}, part.links));
    }
    save_safetensors(path, tensors,
                     {{"format", "tandem approximate index 1"},
                      {"fingerprint", index_->fingerprint()},
                      {"graphs", std::to_string(graphs_.size())},
                      {"links", std::to_string(options_.links)},
                      {"made with breadth", std::to_string(options_.breadth)},
                      {"rows of a graph", std::to_string(options_.rows)},
                      {"breadth", std::to_string(breadth_)},
                      {"breadth chosen for", std::to_string(chosen_for_)}});
}

inline void ApproximateIndex::load_graph(const Safetensors& file, std::size_t number) {
    const auto whole = [&]<class T>(const char* what, std::vector<T>& values) {
        const std::string name = what + ("." + std::to_string(number));
        const StoredTensor* const tensor = file.find(name);
        if (tensor == nullptr || tensor->shape.size() != 1) throw Error(name, "a row of numbers", tensor == nullptr ? "nothing" : "another shape");
        values.resize(tensor->shape[0]);
        read_elements<T>(*tensor, values);
    };
    std::vector<std::int64_t> keys;
    std::vector<std::int32_t> levels, links;
    whole("keys", keys);
    whole("levels", levels);
    whole("links", links);
    const std::string where = "graph " + std::to_string(number);
    const std::size_t count = keys.size();
    if (count == 0 || levels.size() != count)
        throw Error(where, "a level for each of its nodes", std::to_string(levels.size()) + " levels of " + std::to_string(count) + " nodes");
    detail::RowGraph graph(*space_, count, options_);
    // The first node is the entry of every search, and above all others.
    for (const std::int32_t level : levels) {
        if (level < 0 || level > levels.front() || levels.front() > graph.first_level)
            throw Error(where, "levels from 0 to that of the first node", std::to_string(level));
    }
    detail::Hnsw& nodes = *graph.nodes;
    std::size_t at = 0;
    for (std::size_t node = 0; node < count; ++node) {
        std::byte* const base = reinterpret_cast<std::byte*>(nodes.data_level0_memory_) + node * nodes.size_data_per_element_;
        std::memset(base, 0, nodes.size_data_per_element_);
        nodes.setExternalLabel(static_cast<hnswlib::tableint>(node), node);
        nodes.label_lookup_[node] = static_cast<hnswlib::tableint>(node);
        const auto levels_above = static_cast<std::size_t>(levels[node]);
        if (levels_above > 0) {
            // As hnswlib allocates them; its destructor frees those of levels above 0.
            const std::size_t bytes = nodes.size_links_per_element_ * levels_above + 1;
            nodes.linkLists_[node] = static_cast<char*>(std::calloc(bytes, 1));
            if (nodes.linkLists_[node] == nullptr) throw std::bad_alloc();
        }
        nodes.element_levels_[node] = levels[node];
        nodes.cur_element_count = node + 1;
        for (int level = 0; level <= levels[node]; ++level) {
            const std::size_t most = level == 0 ? nodes.maxM0_ : nodes.maxM_;
            const std::int32_t size = at < links.size() ? links[at++] : -1;
            if (size < 0 || static_cast<std::size_t>(size) > most || static_cast<std::size_t>(size) > links.size() - at)
                throw Error(where, "links of node " + std::to_string(node), std::to_string(size) + " of them");
            std::uint32_t* const list = nodes.get_linklist_at_level(static_cast<hnswlib::tableint>(node), level);
            nodes.setListCount(list, static_cast<std::uint16_t>(size));
            for (std::int32_t i = 1; i <= size; ++i) {
                const std::int32_t to = links[at++];
                if (to < 0 || static_cast<std::size_t>(to) >= count || levels[static_cast<std::size_t>(to)] < level)
                    throw Error(where, "a link to a node of its level", std::to_string(to) + " from node " + std::to_string(node));
                list[i] = static_cast<std::uint32_t>(to);
            }
        }
    }
    if (at != links.size()) throw Error(where, std::to_string(at) + " links", std::to_string(links.size()));
    nodes.enterpoint_node_ = 0;
    nodes.maxlevel_ = levels.front();
    for (const std::int64_t key : keys) graph.keys.push_back(std::bit_cast<std::uint64_t>(key));
    graph.positions.assign(count, detail::RowGraph::nowhere);
    graphs_.push_back(std::move(graph));
}

inline ApproximateIndex ApproximateIndex::load(const std::filesystem::path& path, const Index& index, const GraphProgress& progress) {
    const Safetensors file = Safetensors::open(path);
    const auto text = [&](const char* key) {
        const auto found = file.metadata().find(key);
        return found == file.metadata().end() ? std::string() : found->second;
    };
    if (text("format") != "tandem approximate index 1")
        throw Error(path.string(), "graphs that tandem saved (format \"tandem approximate index 1\")",
                    text("format").empty() ? "no format in its metadata" : "format \"" + text("format") + "\"");
    try {
        index.require(text("fingerprint"));
        const auto number = [&](const char* key) {
            std::size_t value = 0;
            const std::string digits = text(key);
            const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
            if (fault != std::errc() || end != digits.data() + digits.size() || digits.empty()) throw Error(key, "a number", "\"" + digits + "\"");
            return value;
        };
        ApproximateIndex loaded(index, {.links = number("links"), .breadth = number("made with breadth"), .rows = number("rows of a graph")}, Unlinked{});
        loaded.breadth_ = number("breadth");
        loaded.chosen_for_ = number("breadth chosen for");
        if (loaded.breadth_ == 0) throw Error("ApproximateIndex::load", "a breadth of 1 or more", "0");
        const std::size_t graphs = number("graphs");
        for (std::size_t g = 0; g < graphs; ++g) loaded.load_graph(file, g);
        loaded.update(progress);
        return loaded;
    } catch (const Error& error) {
        throw Error(path.string(), error.what());
    } catch (const std::runtime_error& error) {  // hnswlib's
        throw Error(path.string(), error.what());
    } catch (const std::bad_alloc&) {
        throw Error(path.string(), "graphs that there is memory for", "more");
    }
}

}  // namespace tandem::inline TANDEM_ABI
