// Convolutions and batch norm against their definitions, and their gradients against central differences.
#include <catch2/catch.hpp>

#include <cmath>
#include <vector>

#include <tandem/nn/convolution.hpp>
#include <tandem/nn/pixel_rows.hpp>

namespace td = tandem;
using td::nn::ConvolutionShape;

namespace {

std::vector<double> draw(td::Random& random, std::size_t size) {
    std::vector<double> values(size);
    for (double& value : values) value = random.normal();
    return values;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// The sum that defines a convolution; `group` channels of the input make one of the output.
std::vector<double> convolve(const ConvolutionShape& shape, std::size_t count, std::size_t group,
                             const std::vector<double>& weight, const std::vector<double>& x) {
    std::vector<double> y(shape.rows(count) * shape.out);
    const auto side = static_cast<long>(shape.side), out_side = static_cast<long>(shape.out_side),
               kernel = static_cast<long>(shape.kernel);
    for (std::size_t n = 0; n < count; ++n) {
        for (long v = 0; v < out_side; ++v) {
            for (long u = 0; u < out_side; ++u) {
                for (std::size_t out = 0; out < shape.out; ++out) {
                    double sum = 0;
                    for (std::size_t in = 0; in < group; ++in) {
                        const std::size_t channel = group == 1 ? out : in;
                        for (long tap = 0; tap < kernel * kernel; ++tap) {
                            const long line =
                                v * static_cast<long>(shape.stride) + tap / kernel - static_cast<long>(shape.pad);
                            const long column =
                                u * static_cast<long>(shape.stride) + tap % kernel - static_cast<long>(shape.pad);
                            if (line < 0 || column < 0 || line >= side || column >= side) continue;
                            const auto pixel =
                                n * shape.side * shape.side + static_cast<std::size_t>(line * side + column);
                            sum += weight[(out * group + in) * static_cast<std::size_t>(kernel * kernel) +
                                          static_cast<std::size_t>(tap)] *
                                   x[pixel * shape.in + channel];
                        }
                    }
                    y[((n * shape.out_side + static_cast<std::size_t>(v)) * shape.out_side +
                       static_cast<std::size_t>(u)) *
                          shape.out +
                      out] = sum;
                }
            }
        }
    }
    return y;
}

std::vector<ConvolutionShape> shapes(bool depthwise) {
    std::vector<ConvolutionShape> all;
    for (const std::size_t side : {1U, 2U, 5U, 8U}) {
        for (const std::size_t kernel : {1U, 3U, 5U}) {
            for (const std::size_t stride : {1U, 2U}) {
                const std::size_t in = 3, out = depthwise ? 3 : 4;
                all.push_back(ConvolutionShape::padded(side, in, out, kernel, stride));
                // ALIGN's stride, which pads one less before than behind.
                if (kernel > 1 && stride == 2 && side > 1)
                    all.push_back({side, in, out, kernel, stride, kernel / 2 - 1, (side - 2) / 2 + 1});
            }
        }
    }
    return all;
}

/// y is linear in x and in the weight: g · y(x, w) = dx · x = dw · w, and the products with other x and w agree as
/// well.
template <class Layer, class Forward, class Backward>
void check(const ConvolutionShape& shape, std::size_t group, const Forward& forward, const Backward& backward) {
    constexpr std::size_t count = 3;
    td::Random random{td::Seed{7}};
    const auto weight = draw(random, shape.out * group * shape.kernel * shape.kernel),
               x = draw(random, count * shape.side * shape.side * shape.in);
    const auto g = draw(random, shape.rows(count) * shape.out), other_x = draw(random, x.size()),
               other_weight = draw(random, weight.size());
    Layer layer(shape), gradient(shape);
    const auto expected = convolve(shape, count, group, weight, x);
    std::vector<double> y(expected.size()), dx(x.size()), dweight(weight.size());
    forward(layer, weight, count, x, y);
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == Approx(expected[i]).margin(1e-12));
    backward(layer, count, x, g, dx, gradient, dweight);
    CHECK(dot(dx, other_x) == Approx(dot(g, convolve(shape, count, group, weight, other_x))).margin(1e-10));
    CHECK(dot(dweight, other_weight) == Approx(dot(g, convolve(shape, count, group, other_weight, x))).margin(1e-10));
}

}  // namespace

TEST_CASE("convolutions are the sums that define them, backward as well") {
    td::nn::Pixels<double> windows, dwindows;
    for (const ConvolutionShape& shape : shapes(false)) {
        CAPTURE(shape.side, shape.kernel, shape.stride, shape.pad);
        check<td::nn::Convolution<double>>(
            shape, shape.in,
            [&](auto& layer, const auto& weight, std::size_t count, const auto& x, auto& y) {
                layer.weight.pack(weight.data());
                layer.forward(count, x.data(), y.data());
            },
            [&](auto& layer, std::size_t count, const auto& x, const auto& g, auto& dx, auto& gradient, auto& dweight) {
                gradient.weight.fill(0);
                layer.backward(count, x.data(), g.data(), dx.data(), windows, dwindows, gradient);
                gradient.weight.unpack(dweight.data());
            });
    }
}

TEST_CASE("depthwise convolutions are the sums that define them, backward as well") {
    for (const ConvolutionShape& shape : shapes(true)) {
        CAPTURE(shape.side, shape.kernel, shape.stride, shape.pad);
        check<td::nn::DepthwiseConvolution<double>>(
            shape, 1,
            [&](auto& layer, const auto& weight, std::size_t count, const auto& x, auto& y) {
                std::copy(weight.begin(), weight.end(), layer.weight.data());
                layer.forward(count, x.data(), y.data());
            },
            [&](auto& layer, std::size_t count, const auto& x, const auto& g, auto& dx, auto& gradient, auto& dweight) {
                layer.backward(count, x.data(), g.data(), dx.data(), gradient);
                std::copy_n(gradient.weight.data(), dweight.size(), dweight.data());
            });
    }
}

TEST_CASE("batch norm: its gradient by the batch and by the running means") {
    using td::kernels::Activation;
    constexpr std::size_t rows = 7, width = 5;
    for (const Activation activation : {Activation::none, Activation::silu}) {
        for (const bool by_batch : {true, false}) {
            td::Random random{td::Seed{3}};
            td::nn::BatchNorm<double> norm(width, activation), gradient(width, activation);
            td::zero_parameters(gradient);
            for (auto* vector : {&norm.weight, &norm.bias}) td::fill_normal(*vector, random, 1);
            for (double& mean : norm.running_mean.elements()) mean = random.normal();
            for (double& variance : norm.running_var.elements()) variance = 0.5 + random.uniform();
            auto x = draw(random, rows * width);
            const auto g = draw(random, rows * width);
            td::nn::BatchNorm<double>::Saved saved;
            const auto value = [&] {
                std::vector<double> y(x.size());
                norm.forward(rows, x.data(), y.data(), saved, by_batch);
                return dot(y, g);
            };
            value();
            std::vector<double> dx = g;
            norm.backward(rows, x.data(), dx.data(), saved, gradient);
            const auto slope = [&](double& at) {
                const double kept = at, h = 1e-5;
                at = kept + h;
                const double above = value();
                at = kept - h;
                const double below = value();
                at = kept;
                return (above - below) / (2 * h);
            };
            for (std::size_t i = 0; i < x.size(); ++i) CHECK(dx[i] == Approx(slope(x[i])).margin(1e-8));
            for (std::size_t c = 0; c < width; ++c) {
                CHECK(gradient.weight.data()[c] == Approx(slope(norm.weight.data()[c])).margin(1e-8));
                CHECK(gradient.bias.data()[c] == Approx(slope(norm.bias.data()[c])).margin(1e-8));
                double mean = 0;
                for (std::size_t row = 0; row < rows; ++row) mean += x[row * width + c] / rows;
                CHECK(gradient.running_mean.data()[c] ==
                      Approx(by_batch ? norm.running_mean.data()[c] - mean : 0.0).margin(1e-12));
            }
        }
    }
}

TEST_CASE("average pooling is a mean, and spreads its gradient") {
    constexpr std::size_t count = 2, side = 6, size = 3, width = 2;
    td::Random random{td::Seed{4}};
    const auto x = draw(random, count * side * side * width), g = draw(random, count * 4 * width);
    std::vector<double> y(g.size()), dx(x.size());
    td::nn::average_pool(count, side, size, width, x.data(), y.data());
    double first = 0;
    for (std::size_t v = 0; v < size; ++v) {
        for (std::size_t u = 0; u < size; ++u) first += x[(v * side + size + u) * width + 1] / (size * size);
    }
    CHECK(y[width + 1] == Approx(first));
    td::nn::average_pool_backward(count, side, size, width, g.data(), dx.data());
    CHECK(dot(dx, x) == Approx(dot(g, y)));
}
