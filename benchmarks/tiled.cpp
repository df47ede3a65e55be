// Tiled losses in float32: the time of value and gradient beside that of the products they are made of (the logits twice, for the value and
// anew for the gradient, and the gradients of both factors), in turn in one process, and the memory that they take.
//   tiled [--pairs N] [--width D] [--rounds R] [--threads T]      default: 32,768 pairs of 512, 3 rounds, one thread a core
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/nn/normalize.hpp>
#include <tandem/tensor/gradient.hpp>

#include "ceiling.hpp"

namespace td = tandem;

namespace {

using Embeddings = td::Tensor<float, td::Shape<td::dynamic, td::dynamic>>;
using Scalar = td::Tensor<float, td::Shape<>>;

/// MiB of memory that the process has, or has had at most ("VmRSS", "VmHWM").
double memory(const char* what) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(what)) return std::strtod(line.c_str() + std::strlen(what) + 1, nullptr) / 1024;
    }
    return 0;
}

double seconds_of(const auto& run) {
    const double start = ceiling::detail::now();
    run();
    return ceiling::detail::now() - start;
}

double median(std::vector<double> values) {
    std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
    return values[values.size() / 2];
}

struct Batch {
    Embeddings image, text;
    Scalar scale, bias;

    Batch(std::size_t pairs, std::size_t width) : image(pairs, width), text(pairs, width) {
        td::Random random(td::Seed{1});
        for (Embeddings* side : {&image, &text}) {
            for (float& value : side->elements()) value = static_cast<float>(random.normal());
            td::nn::normalize_rows<float>(pairs, width, side->data(), nullptr);
        }
        scale.fill(20), bias.fill(-10);
    }
};

template <class L>
float value_and_gradient(const L& loss, const Batch& batch) {
    const auto e = td::call_loss(loss, td::as_expression(batch.image), td::as_expression(batch.text), td::as_expression(batch.scale),
                                 td::as_expression(batch.bias));
    if constexpr (std::invocable<const L&, const Embeddings&, const Embeddings&, const Scalar&, const Scalar&>) {
        return td::value_and_gradient(e, batch.image, batch.text, batch.scale, batch.bias).value;
    } else {
        return td::value_and_gradient(e, batch.image, batch.text, batch.scale).value;
    }
}

}  // namespace

int main(int count, char** arguments) {
    std::size_t pairs = 32768, width = 512, rounds = 3, threads = td::core_count();
    for (int i = 1; i + 1 < count; i += 2) {
        const std::size_t value = std::strtoul(arguments[i + 1], nullptr, 10);
        const std::string name = arguments[i];
        (name == "--pairs" ? pairs : name == "--width" ? width : name == "--rounds" ? rounds : threads) = value;
    }
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    const double before = memory("VmRSS:");
    const Batch batch(pairs, width);
    const auto info_nce = td::tiled(td::InfoNce{});
    const auto sigmoid = td::tiled(td::SigmoidLoss{});
    // Memory first: the products alone take more.
    value_and_gradient(info_nce, batch);
    value_and_gradient(sigmoid, batch);
    const double peak = memory("VmHWM:") - before;

    // The products that a tile is made of, over all tiles.
    constexpr std::size_t tile = 1024;
    std::vector<float> logits(tile * tile), sums(tile * width);
    const auto products = [&] {
        namespace kernels = td::kernels;
        for (std::size_t row = 0; row < pairs; row += tile) {
            for (std::size_t column = 0; column < pairs; column += tile) {
                const std::size_t m = std::min(tile, pairs - row), n = std::min(tile, pairs - column);
                const auto x = kernels::row_major(batch.image.data() + row * width, width), y = kernels::row_major(batch.text.data() + column * width, width);
                for (int twice = 0; twice < 2; ++twice) kernels::gemm<float>(m, n, width, x, y.transposed(), logits.data(), n);
                const auto g = kernels::row_major(logits.data(), n);
                kernels::gemm<float>(m, width, n, g, y, sums.data(), width);
                kernels::gemm<float>(n, width, m, g.transposed(), x, sums.data(), width);
            }
        }
    };
    std::vector<double> of_products, of_info_nce, of_sigmoid;
    for (std::size_t round = 0; round < rounds; ++round) {
        of_products.push_back(seconds_of(products));
        of_info_nce.push_back(seconds_of([&] { value_and_gradient(info_nce, batch); }));
        of_sigmoid.push_back(seconds_of([&] { value_and_gradient(sigmoid, batch); }));
    }
    const double operations = 8e-9 * static_cast<double>(pairs) * static_cast<double>(pairs) * static_cast<double>(width);
    const double rate = operations / median(of_products), most = ceiling::gflops(ceiling::Precision::f32, threads);
    std::printf("%zu pairs of %zu, %zu threads; the products run at %.0f GFLOP/s, %.0f %% of the ceiling\n", pairs, width, threads, rate, 100 * rate / most);
    std::printf("InfoNCE: %.2f times the products' time; sigmoid: %.2f\n", median(of_info_nce) / median(of_products), median(of_sigmoid) / median(of_products));
    std::printf("memory with the embeddings and their gradients (%.0f MiB): %.0f MiB\n", 4.0 * 4 * static_cast<double>(pairs * width) / (1 << 20), peak);
    return 0;
}
