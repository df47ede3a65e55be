// tandem's side of search.sh: an index over rows of a file, searched as standard input says.
//   search ROWS.f32 QUERIES.f32 WIDTH THREADS
// Prints "ready", what two cores can read (GB/s) and which kernels run. Then, for every line "exact|fast|graphs COUNT K REPEATS", the
// seconds of the shortest of so many searches for the first COUNT queries, the rows scored again a query, and the positions
// found; for a line "make COUNT K PERCENT", the seconds that graphs take to make, and the breadth that finds that share of the K
// nearest of all queries but the first COUNT.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/error.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/tasks/approximate_index.hpp>
#include <tandem/tasks/index.hpp>

#include "ceiling.hpp"

namespace td = tandem;

namespace {

std::vector<float> read_floats(const char* path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw td::Error(path, "cannot read the file");
    std::vector<float> values(static_cast<std::size_t>(file.tellg()) / sizeof(float));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
    return values;
}

}  // namespace

int main(int count, char** arguments) try {
    if (count != 5) {
        std::fputs("search ROWS.f32 QUERIES.f32 WIDTH THREADS; search.sh runs it\n", stderr);
        return 2;
    }
    const std::size_t width = std::strtoul(arguments[3], nullptr, 10), threads = std::strtoul(arguments[4], nullptr, 10);
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    td::Index index(width);
    index.add(read_floats(arguments[1]));
    const std::vector<float> queries = read_floats(arguments[2]);
    std::printf("ready %.2f %s\n", ceiling::read_rate(index.size() * width, threads),
                std::string(td::kernels::name_of(td::kernels::active_isa())).c_str());
    std::fflush(stdout);
    std::string kind;
    std::optional<td::ApproximateIndex> graphs;
    for (std::size_t asked = 0, k = 0, repeats = 0; std::cin >> kind >> asked >> k >> repeats;) {
        if (kind == "make") {
            const double start = ceiling::detail::now();
            graphs.emplace(index, td::GraphOptions{}, [](std::size_t done, std::size_t all) {
                if (done % 50000 == 0) std::fprintf(stderr, "%zu of %zu rows are linked\n", done, all);
            });
            const double seconds = ceiling::detail::now() - start;
            graphs->choose_breadth(std::span(queries).subspan(asked * width), k, 0.01 * static_cast<double>(repeats));
            std::printf("%.1f %zu\n", seconds, graphs->breadth());
            std::fflush(stdout);
            continue;
        }
        const auto some = std::span(queries).first(asked * width);
        td::SearchResult result;
        double best = 1e9;
        for (std::size_t i = 0; i < repeats; ++i) {
            const double start = ceiling::detail::now();
            result = kind == "graphs" ? graphs->search(some, k) : index.search(some, k, {.exact = kind == "exact"});
            best = std::min(best, ceiling::detail::now() - start);
        }
        std::printf("%.9f %.1f", best, static_cast<double>(result.rescored) / static_cast<double>(asked));
        for (const auto& matches : result.matches) {
            for (const td::Match& match : matches) std::printf(" %zu", match.position);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "search: %s\n", error.what());
    return 1;
}
