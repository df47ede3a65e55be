// A mixer of one's own with a backward pass by hand: a 3x3 convolution of every channel over the grid of patches
// (ConvMixer, Trockman, Kolter 2022, has larger ones).
#include <cstdio>

#include <tandem/tandem.hpp>

#include "colours.hpp"

namespace td = tandem;

struct DepthwiseConvolution {
    template <td::Arithmetic T, td::BlockShape shape, auto parts>
    struct Layer {
        static_assert(shape.grid.area() > 0 && shape.prefix == 0, "DepthwiseConvolution: the tokens must be a grid of patches");
        static constexpr std::size_t width = shape.width, lines = shape.grid.height, columns = shape.grid.width;
        using C = td::Compute<T>;
        td::Tensor<C, td::Shape<9, width>> weight;
        struct Saved {};

        static void parameters(const auto& visit, const td::ParameterName& at, auto&... self) {
            visit(at + "weight", self.weight...);
        }

        void forward(td::Rows<const C, width> x, td::Rows<C, width> y, const td::Sequences<C>&, Saved&, bool) const {
            std::fill_n(y.data(), y.size(), C{0});
            each_tap(x.extent(0), [&](std::size_t to, std::size_t from, std::size_t tap) {
                for (std::size_t j = 0; j < width; ++j) y(to, j) += weight(tap, j) * x(from, j);
            });
        }

        void backward(td::Rows<const C, width> x, td::Rows<const C, width> dy, td::Rows<C, width> dx,
                      const td::Sequences<C>&, Saved&, Layer& gradient) const {
            std::fill_n(dx.data(), dx.size(), C{0});
            each_tap(x.extent(0), [&](std::size_t to, std::size_t from, std::size_t tap) {
                for (std::size_t j = 0; j < width; ++j) {
                    dx(from, j) += weight(tap, j) * dy(to, j);
                    gradient.weight(tap, j) += x(from, j) * dy(to, j);
                }
            });
        }

        static void each_tap(std::size_t rows, const auto& body) {
            for (std::size_t row = 0; row < rows; ++row) {
                const std::size_t y = row / columns % lines, x = row % columns, first = row - y * columns - x;
                for (std::size_t tap = 0; tap < 9; ++tap) {
                    const std::size_t above = y + tap / 3 - 1, left = x + tap % 3 - 1;    // -1 wraps to a large number
                    if (above < lines && left < columns) body(row, first + above * columns + left, tap);
                }
            }
        }
    };

    static constexpr td::Cost cost(const td::BlockShape& shape, std::size_t) { return {.parameters = 9 * shape.width}; }
};

template <std::size_t image, std::size_t width, std::size_t layers>
inline constexpr td::ClipConfig convolutional{
    .vision = td::VitConfig{.image = image, .patch = 4, .width = width, .layers = layers, .heads = 1, .class_token = false,
                            .mixer = DepthwiseConvolution{}, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 64, .context = 8, .width = 48, .layers = 2, .heads = 3},
    .embedding = 32};

int main() {
    const td::GradientCheck check = td::check_gradients<convolutional<12, 6, 1>>();
    std::printf("gradients: %.1e off in %s\n", check.difference, check.parameter.c_str());
    td::Clip<convolutional<32, 64, 4>> model{td::Seed{0}};
    td::Trainer trainer{model, td::AdamW{.rate = 2e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{},
                        td::TrainerOptions{.batch = 8, .steps = 40}};
    const td::RunState run = trainer.fit(Colours{});
    std::printf("loss %.3f -> %.3f\n", static_cast<double>(run.losses.front()), static_cast<double>(run.losses.back()));
    return check.difference < 1e-5 && run.losses.back() < 0.5F * run.losses.front() ? 0 : 1;
}
