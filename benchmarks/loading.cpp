// Seconds that td::load needs for ViT-L/14 in float32, beside those of reading its file into memory that was not used
// before, on all cores, in turn. The file was just written, or read in a first round that does not count, so it is in
// the system's memory, and no disk is measured.
//   loading [--rounds N] [FILE]        a checkpoint of ViT-L/14; without one, random weights are written to a temporary
//   file
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <tandem/core/parallel.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/zoo.hpp>

namespace td = tandem;

namespace {

/// Of body, whose result is destroyed after the clock has stopped.
template <class Body>
double seconds(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    const auto result = body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::unique_ptr<char[]> read_whole(const std::filesystem::path& path) {
    const std::size_t size = std::filesystem::file_size(path), part = std::size_t{1} << 22;
    auto bytes = std::make_unique_for_overwrite<char[]>(size);
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw td::Error(path.string(), "cannot open the file");
    td::parallel_for((size + part - 1) / part, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t at = begin * part; at < std::min(end * part, size);) {
            const ssize_t count = ::pread(file, bytes.get() + at, std::min(part, size - at), static_cast<off_t>(at));
            if (count <= 0) throw td::Error(path.string(), "a file that can be read to its end");
            at += static_cast<std::size_t>(count);
        }
    });
    ::close(file);
    return bytes;
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

int run(int count, char** arguments) {
    std::size_t rounds = 5;
    std::filesystem::path path;
    for (int i = 1; i < count; ++i) {
        if (std::string(arguments[i]) == "--rounds" && i + 1 < count) {
            rounds = std::max<std::size_t>(1, std::strtoull(arguments[++i], nullptr, 10));
        } else {
            path = arguments[i];
        }
    }
    std::filesystem::path written;
    if (path.empty()) {
        path = written =
            std::filesystem::temp_directory_path() / ("tandem-loading-" + std::to_string(::getpid()) + ".safetensors");
        td::save_weights(td::Clip<td::vit_l_14>{td::Seed{0}}, path);
    }
    std::vector<double> reads, loads;
    for (std::size_t round = 0; round <= rounds; ++round) {
        const double read = seconds([&] { return read_whole(path); });
        const double load =
            seconds([&] { return std::make_unique<td::Clip<td::vit_l_14>>(td::load<td::vit_l_14>(path)); });
        if (round == 0) continue;
        reads.push_back(read);
        loads.push_back(load);
        std::printf("round %zu: read %.2f s, load %.2f s, ratio %.2f\n", round, read, load, load / read);
    }
    std::printf("ViT-L/14, %.2f GB: reading %.2f s (%.1f GB/s), td::load %.2f s; median ratio %.2f\n",
                static_cast<double>(std::filesystem::file_size(path)) * 1e-9, median(reads),
                static_cast<double>(std::filesystem::file_size(path)) * 1e-9 / median(reads), median(loads),
                median(loads) / median(reads));
    if (!written.empty()) std::filesystem::remove(written);
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run(count, arguments);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "loading: %s\n", error.what());
        return 1;
    }
}
