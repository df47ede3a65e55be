#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/kernels/attention.hpp>
#include <tandem/kernels/dispatch.hpp>

#include "../guarded.hpp"

namespace {

using tandem::Random;
using tandem::Seed;
using tandem::kernels::AttentionShape;

/// Sequences of these lengths one after the other; an empty one is allowed.
std::vector<std::size_t> offsets_of(const std::vector<std::size_t>& lengths) {
    std::vector<std::size_t> offsets{0};
    for (const std::size_t length : lengths) offsets.push_back(offsets.back() + length);
    return offsets;
}

std::size_t kv_width(const AttentionShape& shape) { return shape.kv_heads * shape.head_width; }
std::size_t qkv_width(const AttentionShape& shape) { return shape.width() + 2 * kv_width(shape); }

/// Queries, keys and values side by side.
template <class T>
tandem::kernels::AttentionOperands<T> side_by_side(const AttentionShape& shape, T* qkv) {
    const std::size_t stride = qkv_width(shape);
    T* const k = qkv + shape.width();
    return {qkv, stride, k, stride, k + kv_width(shape), stride};
}

template <class T>
void attention(const AttentionShape& shape, const T* qkv, T* out) {
    tandem::kernels::attention<T>(shape, side_by_side(shape, qkv), out, shape.width());
}

template <class T>
void attention_backward(const AttentionShape& shape, const T* qkv, const T* dout, T* dqkv) {
    tandem::kernels::attention_backward<T>(shape, side_by_side(shape, qkv), dout, shape.width(),
                                           side_by_side(shape, dqkv));
}

/// Attention as it is defined, in double.
std::vector<double> defined_attention(const AttentionShape& shape, const std::vector<double>& qkv) {
    const std::size_t width = shape.width(), stride = qkv_width(shape);
    std::vector<double> out(shape.offsets.back() * width);
    for (std::size_t s = 0; s < shape.sequences(); ++s) {
        for (std::size_t head = 0; head < shape.heads; ++head) {
            const std::size_t column = head * shape.head_width;
            const std::size_t key = width + head * shape.kv_heads / shape.heads * shape.head_width,
                              value = key + kv_width(shape);
            for (std::size_t i = shape.offsets[s]; i < shape.offsets[s + 1]; ++i) {
                const std::size_t last = shape.causal ? i + 1 : shape.offsets[s + 1];
                std::vector<double> weights;
                double total = 0;
                for (std::size_t j = shape.offsets[s]; j < last; ++j) {
                    double dot = 0;
                    for (std::size_t c = 0; c < shape.head_width; ++c) {
                        dot += qkv[i * stride + column + c] * qkv[j * stride + key + c];
                    }
                    weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(shape.head_width))));
                    total += weights.back();
                }
                for (std::size_t j = shape.offsets[s]; j < last; ++j) {
                    for (std::size_t c = 0; c < shape.head_width; ++c) {
                        out[i * width + column + c] +=
                            weights[j - shape.offsets[s]] / total * qkv[j * stride + value + c];
                    }
                }
            }
        }
    }
    return out;
}

struct Case {
    std::vector<std::size_t> lengths;
    std::size_t heads, head_width, kv_heads = heads;
};

const std::vector<Case> cases{{{1}, 1, 1},          {{5}, 1, 8},       {{3, 1, 7}, 3, 5}, {{16, 33}, 2, 17},
                              {{65, 2, 31}, 1, 64}, {{0, 4, 0}, 2, 3}, {{50, 50}, 2, 32}, {{}, 2, 4}, {{5, 18}, 4, 9, 2}, {{33}, 6, 8, 1}, {{150}, 2, 80}};

}  // namespace

TEMPLATE_TEST_CASE("attention over ragged sequences", "[kernels]", float, double) {
    using T = TestType;
    Random random(Seed{1});
    for (const Case& now : cases) {
        for (const bool causal : {false, true}) {
            const std::vector<std::size_t> offsets = offsets_of(now.lengths);
            const AttentionShape shape{offsets, now.heads, now.kv_heads, now.head_width, causal};
            CAPTURE(now.lengths, now.heads, now.kv_heads, now.head_width, causal);
            const std::size_t rows = offsets.back(), width = shape.width();
            const Guarded<T> qkv_memory(rows * qkv_width(shape)), out_memory(rows * width);
            const T* const qkv = qkv_memory.random(rows * qkv_width(shape), random, -2, 2);
            T* const out = out_memory.random(rows * width, random);
            attention<T>(shape, qkv, out);
            const std::vector<double> expected = defined_attention(shape, {qkv, qkv + rows * qkv_width(shape)});
            double largest = 0;
            for (std::size_t i = 0; i < expected.size(); ++i)
                largest = std::max(largest, std::abs(out[i] - expected[i]));
            // Scores are sums of up to 64 products of size 4 over sqrt(64); values are below 2.
            CHECK(largest < 256 * std::numeric_limits<T>::epsilon());
        }
    }
}

TEST_CASE("attention's gradient against central differences", "[kernels]") {
    Random random(Seed{2});
    for (const Case& now : {Case{{1}, 1, 1}, Case{{3, 1, 7}, 3, 5}, Case{{0, 17}, 1, 9}, Case{{4, 3}, 4, 5, 2}, Case{{6}, 3, 2, 1}}) {
        for (const bool causal : {false, true}) {
            const std::vector<std::size_t> offsets = offsets_of(now.lengths);
            const AttentionShape shape{offsets, now.heads, now.kv_heads, now.head_width, causal};
            CAPTURE(now.lengths, now.heads, now.kv_heads, now.head_width, causal);
            const std::size_t rows = offsets.back(), width = shape.width();
            std::vector<double> qkv(rows * qkv_width(shape)), dout(rows * width), dqkv(rows * qkv_width(shape), 99.0);
            for (double& value : qkv) value = random.uniform(-1, 1);
            for (double& value : dout) value = random.uniform(-1, 1);
            attention_backward<double>(shape, qkv.data(), dout.data(), dqkv.data());
            double largest = 0;
            const auto loss = [&] {
                const std::vector<double> out = defined_attention(shape, qkv);
                double sum = 0;
                for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
                return sum;
            };
            for (std::size_t i = 0; i < qkv.size(); ++i) {
                const double held = qkv[i], step = 1e-5;
                qkv[i] = held + step;
                const double above = loss();
                qkv[i] = held - step;
                const double below = loss();
                qkv[i] = held;
                largest = std::max(largest, std::abs(dqkv[i] - (above - below) / (2 * step)));
            }
            // step² times third derivatives of size 1, and epsilon / step times sums of size 10.
            CHECK(largest < 1e-8);
        }
    }
}

TEMPLATE_TEST_CASE("attention's gradient touches nothing outside its rows", "[kernels]", float, double) {
    using T = TestType;
    Random random(Seed{3});
    for (const Case& now : cases) {
        for (const bool causal : {false, true}) {
            const std::vector<std::size_t> offsets = offsets_of(now.lengths);
            const AttentionShape shape{offsets, now.heads, now.kv_heads, now.head_width, causal};
            CAPTURE(now.lengths, now.heads, now.kv_heads, now.head_width, causal);
            const std::size_t rows = offsets.back(), width = shape.width();
            const Guarded<T> qkv_memory(rows * qkv_width(shape)), dout_memory(rows * width), dqkv_memory(rows * qkv_width(shape));
            const T* const qkv = qkv_memory.random(rows * qkv_width(shape), random);
            const T* const dout = dout_memory.random(rows * width, random);
            T* const dqkv = dqkv_memory.random(rows * qkv_width(shape), random);
            attention_backward<T>(shape, qkv, dout, dqkv);
            const std::vector<double> wide_qkv(qkv, qkv + rows * qkv_width(shape)), wide_dout(dout, dout + rows * width);
            std::vector<double> expected(rows * qkv_width(shape));
            attention_backward<double>(shape, wide_qkv.data(), wide_dout.data(), expected.data());
            double largest = 0;
            for (std::size_t i = 0; i < expected.size(); ++i)
                largest = std::max(largest, std::abs(dqkv[i] - expected[i]));
            CHECK(largest <= 256 * std::numeric_limits<T>::epsilon());
        }
    }
}

TEMPLATE_TEST_CASE("attention of a sequence has the same bits in any batch and on any number of threads", "[kernels]",
                   float, double) {
    using T = TestType;
    Random random(Seed{4});
    const std::vector<std::size_t> lengths{9, 1, 40, 77};
    const std::vector<std::size_t> offsets = offsets_of(lengths);
    const bool causal = GENERATE(false, true);
    const AttentionShape shape{offsets, 4, 2, 24, causal};
    const std::size_t width = shape.width(), rows = offsets.back();
    std::vector<T> qkv(rows * qkv_width(shape)), dout(rows * width), out(rows * width), dqkv(rows * qkv_width(shape));
    for (T& value : qkv) value = static_cast<T>(random.uniform(-1, 1));
    for (T& value : dout) value = static_cast<T>(random.uniform(-1, 1));
    attention<T>(shape, qkv.data(), out.data());
    attention_backward<T>(shape, qkv.data(), dout.data(), dqkv.data());
    const auto same = [](const std::vector<T>& part, const T* whole) {
        return std::memcmp(part.data(), whole, part.size() * sizeof(T)) == 0;
    };
    for (const std::size_t threads : {1U, 2U, 5U}) {
        const tbb::global_control control(tbb::global_control::max_allowed_parallelism, threads);
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const std::vector<std::size_t> alone{0, lengths[s]};
            const AttentionShape one{alone, 4, 2, 24, causal};
            std::vector<T> one_out(lengths[s] * width), one_dqkv(lengths[s] * qkv_width(shape));
            attention<T>(one, qkv.data() + offsets[s] * qkv_width(shape), one_out.data());
            attention_backward<T>(one, qkv.data() + offsets[s] * qkv_width(shape),
                                                   dout.data() + offsets[s] * width, one_dqkv.data());
            CHECK(same(one_out, out.data() + offsets[s] * width));
            CHECK(same(one_dqkv, dqkv.data() + offsets[s] * qkv_width(shape)));
        }
        std::vector<T> again(out.size());
        attention<T>(shape, qkv.data(), again.data());
        CHECK(same(again, out.data()));
    }
}

TEST_CASE("attention over rows of bfloat16", "[kernels]") {
    using tandem::bfloat16;
    if (tandem::kernels::active_reduced().narrow_rows.finish == nullptr) return;
    Random random(Seed{5});
    for (const Case& now : cases) {
        if (now.head_width % 2 != 0) continue;
        for (const bool causal : {false, true}) {
            const std::vector<std::size_t> offsets = offsets_of(now.lengths);
            const AttentionShape shape{offsets, now.heads, now.kv_heads, now.head_width, causal};
            CAPTURE(now.lengths, now.heads, now.kv_heads, now.head_width, causal);
            const std::size_t rows = offsets.back(), width = shape.width(), size = rows * qkv_width(shape);
            const Guarded<bfloat16> qkv_memory(size), out_memory(rows * width);
            const bfloat16* const qkv = qkv_memory.random(size, random, -2, 2);
            bfloat16* const out = out_memory.random(rows * width, random);
            tandem::kernels::attention(shape, side_by_side(shape, qkv), out, width);
            const std::vector<double> expected = defined_attention(shape, {qkv, qkv + size});
            double largest = 0;
            for (std::size_t i = 0; i < expected.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(out[i]) - expected[i]));
            // Weights and results are rounded to 8 bits, values are below 2.
            CHECK(largest <= 2 * 2 / 256.0);

            // Sequences alone, and their rows picked, have the same bits.
            for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
                const std::vector<std::size_t> own{0, offsets[s + 1] - offsets[s]};
                if (own[1] == 0) continue;
                AttentionShape one = shape;
                one.offsets = own;
                const bfloat16* const from = qkv + offsets[s] * qkv_width(shape);
                std::vector<bfloat16> alone(own[1] * width), row(width);
                tandem::kernels::attention(one, side_by_side(shape, from), alone.data(), width);
                CHECK(std::memcmp(alone.data(), out + offsets[s] * width, alone.size() * sizeof(bfloat16)) == 0);
                for (std::size_t i = 0; i < own[1]; i += 7) {
                    one.picked = {&i, 1};
                    auto operands = side_by_side(shape, from);
                    operands.q += i * operands.q_stride;
                    tandem::kernels::attention(one, operands, row.data(), width);
                    CHECK(std::memcmp(row.data(), alone.data() + i * width, width * sizeof(bfloat16)) == 0);
                }
            }
        }
    }
}
