// The EfficientNet of ALIGN: images in, embeddings out.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/convolution.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/stem.hpp>

namespace tandem::inline TANDEM_ABI {

template <Arithmetic T, auto config, std::size_t Embedding>
class EfficientNet;

/// transformers' AlignVisionModel (modeling_align.py; Tan, Le 2019, table 1, scaled by two coefficients; ALIGN's are
/// B7's): a stem, inverted bottlenecks with squeeze and excitation, the mean of the last pixels, which is the
/// embedding.
struct EfficientNetConfig {
    std::size_t image = 289;
    double width_coefficient = 2.0;
    double depth_coefficient = 3.1;
    std::size_t depth_divisor = 8;  ///< of channels

    template <Arithmetic T, auto self, std::size_t Embedding>
    using Tower = EfficientNet<T, self, Embedding>;

    /// One inverted bottleneck. `pixels` are along a side, before and behind it.
    struct BlockShape {
        std::size_t in = 0, expanded = 0, squeezed = 0, out = 0, kernel = 0, stride = 0, side = 0, out_side = 0;
        bool is_residual = false;

        constexpr bool expands() const { return expanded != in; }
        /// A stride pads one pixel less before the image than behind it.
        constexpr nn::ConvolutionShape depthwise() const {
            const std::size_t pad = stride == 1 ? kernel / 2 : kernel / 2 - 1;
            return {side, expanded, expanded, kernel, stride, pad, out_side};
        }
    };

    /// Channels of the base model, scaled (round_filters).
    constexpr std::size_t channels(std::size_t base) const {
        const double scaled = static_cast<double>(base) * width_coefficient;
        const std::size_t rounded =
            std::max(depth_divisor, static_cast<std::size_t>(scaled + static_cast<double>(depth_divisor) / 2) /
                                        depth_divisor * depth_divisor);
        return static_cast<double>(rounded) < 0.9 * scaled ? rounded + depth_divisor : rounded;
    }
    /// Blocks of a stage of the base model, scaled and rounded up.
    constexpr std::size_t repeats(std::size_t base) const {
        const double scaled = depth_coefficient * static_cast<double>(base);
        const auto whole = static_cast<std::size_t>(scaled);
        return whole + (static_cast<double>(whole) < scaled ? 1 : 0);
    }
    constexpr std::size_t features() const { return channels(320); }
    constexpr std::size_t stem_side() const { return (image + 1 - 3) / 2 + 1; }
    constexpr bool is_valid() const {
        return image >= 32 && width_coefficient > 0 && depth_coefficient > 0 && depth_divisor > 0;
    }

    template <class Other>
    constexpr EfficientNetConfig with_activation(Other) const {
        return *this;
    }

    /// Calls visit(BlockShape) for all blocks in their order.
    constexpr void for_each_block(const auto& visit) const {
        struct Stage {
            std::size_t kernel, in, out, stride, repeats, expansion;
        };
        constexpr std::array<Stage, 7> stages{{{3, 32, 16, 1, 1, 1},
                                               {3, 16, 24, 2, 2, 6},
                                               {5, 24, 40, 2, 2, 6},
                                               {3, 40, 80, 2, 3, 6},
                                               {5, 80, 112, 1, 3, 6},
                                               {5, 112, 192, 2, 4, 6},
                                               {3, 192, 320, 1, 1, 6}}};
        std::size_t side = stem_side();
        for (const Stage& stage : stages) {
            for (std::size_t i = 0; i < repeats(stage.repeats); ++i) {
                const std::size_t in = channels(i == 0 ? stage.in : stage.out), stride = i == 0 ? stage.stride : 1;
                const std::size_t after = stride == 1 ? side : (side - 2) / 2 + 1;
                visit(BlockShape{in, in * stage.expansion, std::max<std::size_t>(1, in / 4), channels(stage.out),
                                 stage.kernel, stride, side, after, i > 0});
                side = after;
            }
        }
    }
    constexpr std::size_t last_side() const {
        std::size_t side = 0;
        for_each_block([&](const BlockShape& block) { side = block.out_side; });
        return side;
    }

    constexpr nn::ConvolutionShape stem() const { return {image, 3, channels(32), 3, 2, 0, stem_side()}; }

    /// For one image.
    constexpr Cost cost() const {
        if (!is_valid()) throw Error("EfficientNetConfig", "an image of at least 32 pixels, and coefficients above 0");
        const auto norm = [](std::size_t width, std::size_t pixels) {
            return Cost{.parameters = 2 * width, .inference = pixels * width, .saved = pixels * width};
        };
        Cost total = stem().cost() + norm(channels(32), stem_side() * stem_side());
        for_each_block([&](const BlockShape& block) {
            const std::size_t before = block.side * block.side, after = block.out_side * block.out_side;
            if (block.expands())
                total = total + nn::linear_cost(block.in, block.expanded, false, before) +
                        before * block.expanded * held_cost(1) + norm(block.expanded, before);
            const std::size_t taps = block.kernel * block.kernel;
            total = total + Cost{.parameters = taps * block.expanded} +
                    product_cost(2 * taps * after * block.expanded) + 2 * (after * block.expanded * held_cost(1)) +
                    norm(block.expanded, after) + nn::linear_cost(block.expanded, block.squeezed, true, 1) +
                    nn::linear_cost(block.squeezed, block.expanded, true, 1) +
                    nn::linear_cost(block.expanded, block.out, false, after) + 2 * (after * block.out * held_cost(1)) +
                    norm(block.out, after);
        });
        return total;
    }
};

namespace nn {

/// AlignVisionBlock: expansion, depthwise convolution, squeeze and excitation (Hu et al. 2018), projection, shortcut.
template <Arithmetic T>
struct InvertedBottleneck {
    using C = Compute<T>;
    using Shape4 = Shape<dynamic, dynamic, dynamic, dynamic>;

    static constexpr double eps = 1e-3;

    EfficientNetConfig::BlockShape shape;
    std::vector<NormedConvolution<T>> expansion;  ///< one, or none
    DepthwiseConvolution<T> depthwise;
    BatchNorm<T> depthwise_norm;
    PackedMatrix<T, Shape4> reduce, expand;
    Tensor<C, Shape<dynamic>> reduce_bias, expand_bias;
    NormedConvolution<T> projection;

    struct Saved {
        typename NormedConvolution<T>::Saved expansion, projection;
        typename BatchNorm<T>::Saved norm;
        Pixels<C> convolved, normed, means, before, reduced, gates, gated, out;
    };
    struct Scratch {
        Pixels<C> windows, dwindows, dgated, dnormed, dgates, dreduced, dmeans, dexpanded;
    };

    explicit InvertedBottleneck(const EfficientNetConfig::BlockShape& sizes)
        : shape(sizes),
          depthwise(sizes.depthwise()),
          depthwise_norm(sizes.expanded, Rectifier::silu, eps),
          reduce(Extents<4>{{sizes.squeezed, sizes.expanded, 1, 1}}),
          expand(Extents<4>{{sizes.expanded, sizes.squeezed, 1, 1}}),
          reduce_bias(sizes.squeezed),
          expand_bias(sizes.expanded),
          projection(ConvolutionShape::padded(sizes.out_side, sizes.expanded, sizes.out, 1, 1), Rectifier::none, eps) {
        if (shape.expands())
            expansion.emplace_back(ConvolutionShape::padded(sizes.side, sizes.in, sizes.expanded, 1, 1),
                                   Rectifier::silu, eps);
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        if ((!self.expansion.empty() && ...)) {
            Convolution<T>::parameters(visit, at + "expansion.expand_conv.", self.expansion.front().convolution...);
            BatchNorm<T>::parameters(visit, at + "expansion.expand_bn.", self.expansion.front().norm...);
        }
        DepthwiseConvolution<T>::parameters(visit, at + "depthwise_conv.depthwise_conv.", self.depthwise...);
        BatchNorm<T>::parameters(visit, at + "depthwise_conv.depthwise_norm.", self.depthwise_norm...);
        visit(at + "squeeze_excite.reduce.weight", self.reduce...);
        visit(at + "squeeze_excite.reduce.bias", self.reduce_bias...);
        visit(at + "squeeze_excite.expand.weight", self.expand...);
        visit(at + "squeeze_excite.expand.bias", self.expand_bias...);
        Convolution<T>::parameters(visit, at + "projection.project_conv.", self.projection.convolution...);
        BatchNorm<T>::parameters(visit, at + "projection.project_bn.", self.projection.norm...);
    }

    void initialise(Random& random) {
        for (NormedConvolution<T>& layer : expansion) layer.convolution.initialise(random);
        depthwise.initialise(random);
        fill_normal(reduce, random, 1 / std::sqrt(static_cast<double>(shape.expanded)));
        fill_normal(expand, random, 1 / std::sqrt(static_cast<double>(shape.squeezed)));
        projection.convolution.initialise(random);
    }

    /// x to saved.out.
    void forward(std::size_t count, const C* x, Saved& saved, Scratch& scratch, bool by_batch) const {
        const std::size_t width = shape.expanded, rows = depthwise.shape.rows(count),
                          pixels = shape.out_side * shape.out_side;
        const C* from = x;
        if (!expansion.empty()) {
            expansion.front().forward(count, x, saved.expansion, scratch.windows, by_batch);
            from = saved.expansion.out.data();
        }
        for (Pixels<C>* stream : {&saved.convolved, &saved.normed, &saved.gated}) stream->resize(rows, width);
        depthwise.forward(count, from, saved.convolved.data());
        depthwise_norm.forward(rows, saved.convolved.data(), saved.normed.data(), saved.norm, by_batch);
        saved.means.resize(count, width);
        saved.gates.resize(count, width);
        saved.before.resize(count, shape.squeezed);
        saved.reduced.resize(count, shape.squeezed);
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i)
                mean_of(saved.normed.data() + i * pixels * width, pixels, width, saved.means.data() + i * width);
        });
        reduce.product(count, {saved.means.data(), width}, {saved.before.data(), shape.squeezed},
                       {.bias = reduce_bias.data()});
        activate(Silu{}, saved.before.data(), saved.reduced.data(), saved.reduced.size());
        expand.product(count, {saved.reduced.data(), shape.squeezed}, {saved.gates.data(), width},
                       {.bias = expand_bias.data()});
        for (C& gate : saved.gates.elements()) gate = 1 / (1 + std::exp(-gate));
        parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
            for (std::size_t row = begin; row < end; ++row) {
                const C *const value = saved.normed.data() + row * width, *const gate =
                                                                              saved.gates.data() + row / pixels * width;
                std::transform(value, value + width, gate, saved.gated.data() + row * width, std::multiplies<C>());
            }
        });
        projection.forward(count, saved.gated.data(), saved.projection, scratch.windows, by_batch);
        saved.out.resize(saved.projection.out.extents());
        if (shape.is_residual) {
            std::transform(x, x + saved.out.size(), saved.projection.out.data(), saved.out.data(), std::plus<C>());
        } else {
            std::copy_n(saved.projection.out.data(), saved.out.size(), saved.out.data());
        }
    }

    /// g is the gradient of saved.out, and is overwritten; writes dx.
    void backward(std::size_t count, const C* x, Pixels<C>& g, Pixels<C>& dx, Saved& saved, Scratch& scratch,
                  InvertedBottleneck& gradient) const requires Trainable<T> {
        const std::size_t width = shape.expanded, squeezed = shape.squeezed, rows = depthwise.shape.rows(count),
                          pixels = shape.out_side * shape.out_side;
        const std::size_t before = count * shape.side * shape.side;
        dx.resize(before, shape.in);
        if (shape.is_residual) {
            std::copy_n(g.data(), g.size(), dx.data());
        } else {
            dx.fill(0);
        }
        scratch.dgated.resize(rows, width);
        projection.backward(count, saved.gated.data(), g.data(), scratch.dgated.data(), saved.projection,
                            scratch.windows, scratch.dwindows, gradient.projection);
        scratch.dnormed.resize(rows, width);
        scratch.dgates.resize(count, width);
        scratch.dgates.fill(0);
        scratch.dmeans.resize(count, width);
        scratch.dreduced.resize(count, squeezed);
        for (std::size_t row = 0; row < rows; ++row) {
            for (std::size_t c = 0; c < width; ++c) {
                const C slope = scratch.dgated(row, c);
                scratch.dgates(row / pixels, c) += slope * saved.normed(row, c);
                scratch.dnormed(row, c) = slope * saved.gates(row / pixels, c);
            }
        }
        for (std::size_t i = 0; i < scratch.dgates.size(); ++i)
            scratch.dgates.data()[i] *= saved.gates.data()[i] * (1 - saved.gates.data()[i]);
        expand.product_backward(count, {saved.reduced.data(), squeezed}, {scratch.dgates.data(), width},
                                {scratch.dreduced.data(), squeezed}, gradient.expand, 0, width);
        detail::add_column_sums<C>(count, width, {scratch.dgates.data(), width}, gradient.expand_bias.data());
        activate_backward(Silu{}, saved.before.data(), scratch.dreduced.data(), scratch.dreduced.size());
        reduce.product_backward(count, {saved.means.data(), width}, {scratch.dreduced.data(), squeezed},
                                {scratch.dmeans.data(), width}, gradient.reduce, 0, squeezed);
        detail::add_column_sums<C>(count, squeezed, {scratch.dreduced.data(), squeezed}, gradient.reduce_bias.data());
        for (std::size_t row = 0; row < rows; ++row) {
            for (std::size_t c = 0; c < width; ++c)
                scratch.dnormed(row, c) += scratch.dmeans(row / pixels, c) / static_cast<C>(pixels);
        }
        depthwise_norm.backward(rows, saved.convolved.data(), scratch.dnormed.data(), saved.norm,
                                gradient.depthwise_norm);
        scratch.dexpanded.resize(before, width);
        depthwise.backward(count, expansion.empty() ? x : saved.expansion.out.data(), scratch.dnormed.data(),
                           scratch.dexpanded.data(), gradient.depthwise);
        const C* through = scratch.dexpanded.data();
        if (!expansion.empty()) {
            g.resize(before, shape.in);
            expansion.front().backward(count, x, scratch.dexpanded.data(), g.data(), saved.expansion, scratch.windows,
                                       scratch.dwindows, gradient.expansion.front());
            through = g.data();
        }
        std::transform(dx.data(), dx.data() + dx.size(), through, dx.data(), std::plus<C>());
    }

    /// The mean of `pixels` rows.
    static void mean_of(const C* x, std::size_t pixels, std::size_t width, C* mean) {
        std::fill_n(mean, width, C{0});
        for (std::size_t i = 0; i < pixels; ++i)
            std::transform(mean, mean + width, x + i * width, mean, std::plus<C>());
        for (std::size_t c = 0; c < width; ++c) mean[c] /= static_cast<C>(pixels);
    }
};

}  // namespace nn

/// The tower of an EfficientNetConfig, without the dropouts that transformers' has in training. It trains by the
/// statistics of every batch, and infers, and is differentiated with respect to images, by the running means.
template <Arithmetic T, auto config, std::size_t Embedding>
class EfficientNet {
    static constexpr EfficientNetConfig stand_in =
        config.is_valid() ? config
                          : EfficientNetConfig{.image = 32, .width_coefficient = 0.1, .depth_coefficient = 0.1};
    static constexpr std::size_t image = stand_in.image;

public:
    using C = Compute<T>;
    using Input = Images<C, image>;
    using InputGradient = ImagesGradient<C, image>;
    using Block = nn::InvertedBottleneck<T>;

    struct Workspace {
        bool uses_running_means = false;  ///< also in a forward with `keep`
        nn::Pixels<C> pixels;
        typename nn::NormedConvolution<T>::Saved stem;
        std::vector<typename Block::Saved> blocks;
        typename Block::Scratch scratch;
        nn::Pixels<C> g, dx;
    };

    EfficientNet() : stem_(stand_in.stem(), nn::Rectifier::silu, Block::eps) {
        stand_in.for_each_block([&](const EfficientNetConfig::BlockShape& shape) { blocks_.emplace_back(shape); });
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        nn::Convolution<T>::parameters(visit, at + "embeddings.convolution.", self.stem_.convolution...);
        nn::BatchNorm<T>::parameters(visit, at + "embeddings.batchnorm.", self.stem_.norm...);
        for (std::size_t i = 0; i < std::min({self.blocks_.size()...}); ++i)
            Block::parameters(visit, at + "encoder.blocks." + std::to_string(i) + ".", self.blocks_[i]...);
    }

    void initialise(Random& random) {
        stem_.convolution.initialise(random);
        for (Block& block : blocks_) block.initialise(random);
    }

    /// images <N, 3, image, image>, already normalised, to embeddings <N, Embedding>, not normalised.
    void forward(Input images, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        const std::size_t count = images.extent(0);
        const bool by_batch = keep && !work.uses_running_means;
        work.pixels.resize(count * image * image, std::size_t{3});
        nn::channels_last(count, 3, image * image, images.data(), work.pixels.data());
        stem_.forward(count, work.pixels.data(), work.stem, work.scratch.windows, by_batch);
        const C* x = work.stem.out.data();
        work.blocks.resize(keep ? blocks_.size() : 2);
        for (std::size_t i = 0; i < blocks_.size(); ++i) {
            auto& saved = work.blocks[keep ? i : i % 2];
            blocks_[i].forward(count, x, saved, work.scratch, by_batch);
            x = saved.out.data();
        }
        for (std::size_t i = 0; i < count; ++i)
            Block::mean_of(x + i * last_pixels * Embedding, last_pixels, Embedding, embeddings.data() + i * Embedding);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`;
    /// writes that of the images where it is asked for.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, EfficientNet& gradient,
                  InputGradient gradient_of_images = {nullptr, {{0, 3, image, image}}}) const requires Trainable<T> {
        const std::size_t count = gradient_of_embeddings.extent(0);
        work.g.resize(count * last_pixels, Embedding);
        for (std::size_t i = 0; i < work.g.size(); ++i)
            work.g.data()[i] =
                gradient_of_embeddings.data()[i / (last_pixels * Embedding) * Embedding + i % Embedding] /
                static_cast<C>(last_pixels);
        for (std::size_t i = blocks_.size(); i-- > 0;) {
            const C* const x = i > 0 ? work.blocks[i - 1].out.data() : work.stem.out.data();
            blocks_[i].backward(count, x, work.g, work.dx, work.blocks[i], work.scratch, gradient.blocks_[i]);
            std::swap(work.g, work.dx);
        }
        const bool needed = gradient_of_images.size() > 0;
        work.dx.resize(count * image * image, std::size_t{3});
        stem_.backward(count, work.pixels.data(), work.g.data(), needed ? work.dx.data() : nullptr, work.stem,
                       work.scratch.windows, work.scratch.dwindows, gradient.stem_);
        if (needed) nn::channels_first(count, 3, image * image, work.dx.data(), gradient_of_images.data());
    }

private:
    static constexpr std::size_t last_pixels = stand_in.last_side() * stand_in.last_side();

    nn::NormedConvolution<T> stem_;
    std::vector<Block> blocks_;

    static_assert(config.is_valid(),
                  "tandem: EfficientNetConfig: image must be at least 32 pixels, and the coefficients above 0");
    static_assert(!config.is_valid() || stand_in.features() == Embedding,
                  "tandem: EfficientNetConfig: its last channels are the embedding: set the ClipConfig's embedding to "
                  "features()");
};

}  // namespace tandem::inline TANDEM_ABI
