// What turns pixels into one row a patch.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <string>
#include <tuple>
#include <utility>

#include <tandem/core/image_size.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/windows.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a stem knows of the tower it stands in: it makes a row of `width` of every patch of an image.
struct StemShape {
    ImageSize image{};
    std::size_t patch = 0;
    std::size_t width = 0;
    bool bias = false;  ///< of the convolution that cuts into patches

    constexpr ImageSize grid() const { return image / patch; }
    constexpr std::size_t patches() const { return grid().area(); }
};

/// Preprocessed images <N, 3, height, width>: what an image tower reads.
template <class C, ImageSize image>
using Images = View<const C, Shape<dynamic, 3, image.height, image.width>>;
/// Where the gradient of images is written; an empty one: it is not asked for.
template <class C, ImageSize image>
using ImagesGradient = View<C, Shape<dynamic, 3, image.height, image.width>>;

namespace nn {

/// Calls body(where it is in the images, where in the rows) for every line of every patch, bands of patches in
/// parallel.
template <ImageSize image, std::size_t Patch, std::size_t Row, class Body>
void for_each_patch_line(std::size_t count, const Body& body) {
    constexpr ImageSize grid = image / Patch;
    parallel_for(count * grid.height, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t band = begin; band < end; ++band) {
            const std::size_t first_line = band / grid.height * 3 * image.height + band % grid.height * Patch;
            for (std::size_t patch = 0; patch < grid.width; ++patch) {
                std::size_t element = (band * grid.width + patch) * Row;
                for (std::size_t channel = 0; channel < 3; ++channel) {
                    for (std::size_t y = 0; y < Patch; ++y, element += Patch) {
                        const std::size_t line = first_line + channel * image.height + y;
                        body(line * image.width + patch * Patch, element);
                    }
                }
            }
        }
    });
}

/// Cuts images <N, 3, height, width> into rows of Patch x Patch patches, left to right, top to bottom; a row begins
/// with the patch in the order channel, y, x: the order of a convolution's weight. Pixels behind the last whole patch
/// are left out, as a convolution without padding leaves them.
template <ImageSize image, std::size_t Patch, Real C, std::size_t Row>
void extract_patches(Images<C, image> images, Rows<C, Row> rows) {
    for_each_patch_line<image, Patch, Row>(images.extent(0), [&](std::size_t pixel, std::size_t element) {
        std::copy_n(images.data() + pixel, Patch, rows.data() + element);
    });
}

/// The way back: pixels in no patch become 0.
template <ImageSize image, std::size_t Patch, Real C, std::size_t Row>
void join_patches(Rows<const C, Row> rows, ImagesGradient<C, image> images) {
    if (!image.is_multiple_of(Patch)) std::fill_n(images.data(), images.size(), C{0});
    for_each_patch_line<image, Patch, Row>(images.extent(0), [&](std::size_t pixel, std::size_t element) {
        std::copy_n(rows.data() + element, Patch, images.data() + pixel);
    });
}

/// A convolution of the patch's own size and stride: CLIP/clip/model.py:224, without a bias; SigLIP's has one.
template <Arithmetic T, StemShape shape, auto parts>
struct PatchStem {
    static constexpr ImageSize image = shape.image;
    static constexpr std::size_t patch = shape.patch, width = shape.width;
    static constexpr std::size_t depth = 3 * patch * patch;
    using C = Compute<T>;
    static constexpr std::size_t depth_row = kernels::row_length<C>(depth);

    PackedMatrix<T, Shape<width, 3, patch, patch>> conv;
    Tensor<C, Shape<shape.bias ? width : 0>> bias;

    struct Saved {
        Tensor<C, Shape<dynamic, depth_row>> patches, patches_gradient;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "conv1.weight", self.conv...);
        if constexpr (shape.bias) visit(at + "conv1.bias", self.bias...);
    }

    void initialise(Random& random, const InitScale&) {
        fill_normal(conv, random, 1.0 / std::sqrt(static_cast<double>(depth)));
    }

    /// images <N, 3, height, width> to y <N · patches, width>.
    void forward(Images<C, image> images, Rows<C, width> y, Saved& saved, bool) const {
        saved.patches.resize(y.extent(0));
        extract_patches<image, patch, C, depth_row>(images, saved.patches);
        conv.product(y.extent(0), {saved.patches.data(), depth_row}, {y.data(), width},
                     {.bias = shape.bias ? bias.data() : nullptr});
    }

    /// Adds to the gradients, given dy; writes that of the images where it is asked for.
    void backward(Rows<const C, width> dy, Saved& saved, PatchStem& gradient,
                  ImagesGradient<C, image> dimages = {
                      nullptr, {{0, 3, image.height, image.width}}}) const requires Trainable<T> {
        if (dimages.size() > 0) saved.patches_gradient.resize(dy.extent(0));
        conv.product_backward(dy.extent(0), {saved.patches.data(), depth_row}, {dy.data(), width},
                              {dimages.size() > 0 ? saved.patches_gradient.data() : nullptr, depth_row}, gradient.conv,
                              0, width);
        if (dimages.size() > 0) join_patches<image, patch, C, depth_row>(saved.patches_gradient, dimages);
        if constexpr (shape.bias)
            detail::add_column_sums<C>(dy.extent(0), width, {dy.data(), width}, gradient.bias.data());
    }
};

/// A 3x3 convolution of stride 2 without a bias, then norm and activation, over rows that are the pixels of images, to
/// `half` of their size. The weight's axes are [out, y, x, in].
template <Arithmetic T, std::size_t In, std::size_t Out, ImageSize half, auto parts>
struct ConvStage {
    static constexpr std::size_t depth = 9 * In;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, Out, parts.norm>;

    PackedMatrix<T, Shape<Out, 3, 3, In>> conv;
    Norm norm;

    struct Saved {
        Tensor<C, Shape<dynamic, depth>> windows, windows_gradient;
        Tensor<C, Shape<dynamic, Out>> convolved, normed, activated, gradient;
        typename Norm::Saved norm;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "conv.weight", self.conv...);
        Norm::parameters(visit, at + "norm.", self.norm...);
    }

    void initialise(Random& random) { fill_normal(conv, random, std::sqrt(2.0 / static_cast<double>(depth))); }

    /// pixel(at, to) writes the In channels of a pixel, which count on from image to image; writes saved.activated.
    template <class Pixel>
    void forward(std::size_t count, const Pixel& pixel, Saved& saved) const {
        const std::size_t rows = count * half.area();
        saved.windows.resize(rows);
        saved.convolved.resize(rows);
        saved.normed.resize(rows);
        saved.activated.resize(rows);
        for_each_image_window(count, [&](std::size_t row, std::size_t tap, std::size_t at) {
            C* const to = saved.windows.data() + row * depth + tap * In;
            if (at == outside) {
                std::fill_n(to, In, C{0});
            } else {
                pixel(at, to);
            }
        });
        conv.product(rows, {saved.windows.data(), depth}, {saved.convolved.data(), Out}, {});
        norm.forward(saved.convolved, saved.normed, saved.norm);
        activate(parts.activation, saved.normed.data(), saved.activated.data(), saved.activated.size());
    }

    /// In place saved.gradient, the gradient of saved.activated, becomes that of the convolution; dx [pixels, In] is
    /// its input's unless it is null.
    void backward(std::size_t count, C* dx, Saved& saved, ConvStage& gradient) const requires Trainable<T> {
        const std::size_t rows = count * half.area();
        activate_backward(parts.activation, saved.normed.data(), saved.gradient.data(), saved.gradient.size());
        norm.backward(saved.convolved, saved.gradient, saved.gradient, saved.norm, gradient.norm, false);
        if (dx != nullptr) saved.windows_gradient.resize(rows);
        conv.product_backward(rows, {saved.windows.data(), depth}, {saved.gradient.data(), Out},
                              {dx == nullptr ? nullptr : saved.windows_gradient.data(), depth}, gradient.conv, 0, Out);
        if (dx == nullptr) return;
        std::fill_n(dx, count * 4 * half.area() * In, C{0});
        for_each_image_window(count, [&](std::size_t row, std::size_t tap, std::size_t at) {
            if (at == outside) return;
            C* const to = dx + at * In;
            const C* const from = saved.windows_gradient.data() + row * depth + tap * In;
            std::transform(to, to + In, from, to, std::plus<C>());
        });
    }

private:
    /// for_each_window of all images, which are walked in parallel.
    template <class Body>
    static void for_each_image_window(std::size_t count, const Body& body) {
        static constexpr Windows windows{{2 * half.height, 2 * half.width}, half, 3, 2, 1};
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for_each_window(windows, begin * half.height, end * half.height, body);
        });
    }
};

/// Stages that halve the image until a pixel is a patch, the last one `width` channels wide and each other one half of
/// the next, then a 1x1 convolution: after Xiao et al. 2021, with the tower's norm and activation.
template <Arithmetic T, StemShape shape, auto parts>
struct ConvStem {
    static constexpr ImageSize image = shape.image;
    static constexpr std::size_t width = shape.width;
    static constexpr std::size_t stages = static_cast<std::size_t>(std::bit_width(shape.patch)) - 1;
    using C = Compute<T>;

    static constexpr std::size_t channels(std::size_t stage) { return stage == 0 ? 3 : width >> (stages - stage); }
    /// Of a stage's input.
    static constexpr ImageSize size(std::size_t stage) { return image / (std::size_t{1} << stage); }

    template <class Stages>
    struct Chain;
    template <std::size_t... I>
    struct Chain<std::index_sequence<I...>> {
        using Layers = std::tuple<ConvStage<T, channels(I), channels(I + 1), size(I + 1), parts>...>;
        using Saved = std::tuple<typename ConvStage<T, channels(I), channels(I + 1), size(I + 1), parts>::Saved...>;
    };
    using Stages = Chain<std::make_index_sequence<stages>>;

    typename Stages::Layers convolutions;
    Linear<T, width, width> proj;

    struct Saved {
        typename Stages::Saved stages;
        Tensor<C, Shape<dynamic, 3>> pixels_gradient;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        const auto stage = [&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
            std::tuple_element_t<I, typename Stages::Layers>::parameters(visit, at + "stem." + std::to_string(I) + ".",
                                                                         std::get<I>(self.convolutions)...);
        };
        for_each_stage(stage);
        decltype(proj)::parameters(visit, at + "stem.proj.", self.proj...);
    }

    void initialise(Random& random, const InitScale&) {
        for_each_stage([&](auto stage) { std::get<stage()>(convolutions).initialise(random); });
        fill_normal(proj.weight, random, 1.0 / std::sqrt(static_cast<double>(width)));
    }

    void forward(Images<C, image> images, Rows<C, width> y, Saved& saved, bool) const {
        const std::size_t count = images.extent(0);
        for_each_stage([&](auto stage) {
            constexpr std::size_t in = channels(stage());
            const auto& layer = std::get<stage()>(convolutions);
            if constexpr (stage() == 0) {
                layer.forward(
                    count,
                    [&](std::size_t at, C* to) {
                        const C* const from = images.data() + at / image.area() * 3 * image.area() + at % image.area();
                        for (std::size_t c = 0; c < 3; ++c) to[c] = from[c * image.area()];
                    },
                    std::get<0>(saved.stages));
            } else {
                const C* const from = std::get<stage() - 1>(saved.stages).activated.data();
                layer.forward(
                    count, [&](std::size_t at, C* to) { std::copy_n(from + at * in, in, to); },
                    std::get<stage()>(saved.stages));
            }
        });
        proj.forward(std::get<stages - 1>(saved.stages).activated, y);
    }

    void backward(Rows<const C, width> dy, Saved& saved, ConvStem& gradient,
                  ImagesGradient<C, image> dimages = {
                      nullptr, {{0, 3, image.height, image.width}}}) const requires Trainable<T> {
        const std::size_t count = dy.extent(0) / shape.patches();
        if (dimages.size() > 0) saved.pixels_gradient.resize(count * image.area());
        auto& last = std::get<stages - 1>(saved.stages);
        last.gradient.resize(dy.extent(0));
        proj.backward(last.activated, dy, last.gradient, gradient.proj);
        for_each_stage([&](auto reversed) {
            constexpr std::size_t stage = stages - 1 - reversed();
            C* dx = dimages.size() > 0 ? saved.pixels_gradient.data() : nullptr;
            if constexpr (stage > 0) {
                auto& before = std::get<stage - 1>(saved.stages);
                before.gradient.resize(before.activated.extent(0));
                dx = before.gradient.data();
            }
            std::get<stage>(convolutions)
                .backward(count, dx, std::get<stage>(saved.stages), std::get<stage>(gradient.convolutions));
        });
        for (std::size_t i = 0; i < dimages.size(); ++i) {
            const std::size_t n = i / (3 * image.area()), channel = i / image.area() % 3, pixel = i % image.area();
            dimages.data()[i] = saved.pixels_gradient(n * image.area() + pixel, channel);
        }
    }

private:
    template <class Body>
    static void for_each_stage(const Body& body) {
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            (body(std::integral_constant<std::size_t, I>{}), ...);
        }
        (std::make_index_sequence<stages>{});
    }
};

}  // namespace nn

/// The stem of an image tower: patches times a matrix. Another stem is another type with a template
/// Layer<T, StemShape, parts> that has this layer's members, and cost().
struct PatchStem {
    template <Arithmetic T, StemShape shape, auto parts>
    using Layer = nn::PatchStem<T, shape, parts>;

    static constexpr bool fits(const StemShape&) { return true; }

    static constexpr Cost cost(const StemShape& shape, const auto&) {
        const std::size_t depth = 3 * shape.patch * shape.patch;
        return nn::linear_cost(depth, shape.width, shape.bias, shape.patches()) + held_cost(depth * shape.patches());
    }
};

/// A convolutional stem: early convolutions see a patch's surroundings.
struct ConvStem {
    template <Arithmetic T, StemShape shape, auto parts>
    using Layer = nn::ConvStem<T, shape, parts>;

    /// Every stage halves the image and doubles the channels. Its last convolution has a bias anyway.
    static constexpr bool fits(const StemShape& shape) {
        return !shape.bias && shape.patch > 1 && std::has_single_bit(shape.patch) && shape.width % shape.patch == 0;
    }

    static constexpr Cost cost(const StemShape& shape, const auto& parts) {
        Cost total = nn::linear_cost(shape.width, shape.width, true, shape.patches());
        std::size_t in = 3, out = 2 * shape.width / shape.patch;
        for (std::size_t stride = 2; stride <= shape.patch; stride *= 2, in = out, out *= 2) {
            const std::size_t pixels = (shape.image / stride).area();
            total = total + nn::linear_cost(9 * in, out, false, pixels) + parts.norm.cost(out, pixels) +
                    pixels * Cost{.inference = 9 * in + 3 * out,
                                  .saved = 9 * in + 3 * out,
                                  .scratch = (stride == 2 ? 0 : 9 * in) + out};
        }
        return total;
    }
};

}  // namespace tandem::inline TANDEM_ABI
