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
#include <tandem/nn/block_chain.hpp>
#include <tandem/nn/convolution.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/pixel_rows.hpp>
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
        constexpr std::size_t before() const { return side * side; }
        constexpr std::size_t after() const { return out_side * out_side; }
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
        Cost total = memory() + stem().cost() + Cost{.parameters = 2 * channels(32)};
        for_each_block([&](const BlockShape& block) {
            if (block.expands())
                total = total + nn::linear_cost(block.in, block.expanded, false, block.before()) +
                        Cost{.parameters = 2 * block.expanded};
            const std::size_t taps = block.kernel * block.kernel;
            total = total + Cost{.parameters = (taps + 2) * block.expanded + 2 * block.out} +
                    product_cost(2 * taps * block.after() * block.expanded) +
                    nn::linear_cost(block.expanded, block.squeezed, true, 1) +
                    nn::linear_cost(block.squeezed, block.expanded, true, 1) +
                    nn::linear_cost(block.expanded, block.out, false, block.after());
        });
        return total;
    }

private:
    constexpr Cost memory() const {
        const nn::ConvolutionShape first = stem();
        const std::size_t half = first.out_side * first.out_side;
        nn::ChainMemory blocks;
        for_each_block([&](const BlockShape& block) {
            const std::size_t wide = block.before() * block.expanded, inner = block.after() * block.expanded,
                              outer = block.after() * block.out, gates = 2 * (block.expanded + block.squeezed);
            const std::size_t expansion = block.expands() ? wide : 0, in = block.before() * block.in;
            blocks.add(std::array{expansion, inner, inner, gates, outer}, 2 * expansion + 3 * inner + gates + 2 * outer,
                       std::array{half * first.depth(), inner, inner, gates, wide, std::max(in, outer), in});
        });
        return blocks.cost() + held_cost(3 * image * image + half * first.out) + Cost{.saved = half * first.out};
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
        Pixels<C> convolved, normed, means, before, reduced, gates, gated;

        const Pixels<C>& out() const { return projection.out; }
    };
    struct Scratch {
        Pixels<C> windows, dwindows, dgated, dnormed, dgates, dreduced, dmeans, dexpanded;
    };

    explicit InvertedBottleneck(const EfficientNetConfig::BlockShape& sizes)
        : shape(sizes),
          depthwise(sizes.depthwise()),
          depthwise_norm(sizes.expanded, kernels::Activation::silu, eps),
          reduce(Extents<4>{{sizes.squeezed, sizes.expanded, 1, 1}}),
          expand(Extents<4>{{sizes.expanded, sizes.squeezed, 1, 1}}),
          reduce_bias(sizes.squeezed),
          expand_bias(sizes.expanded),
          projection(ConvolutionShape::padded(sizes.out_side, sizes.expanded, sizes.out, 1, 1),
                     kernels::Activation::none, eps) {
        if (shape.expands())
            expansion.emplace_back(ConvolutionShape::padded(sizes.side, sizes.in, sizes.expanded, 1, 1),
                                   kernels::Activation::silu, eps);
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

    /// x to saved.out().
    void forward(std::size_t count, const C* x, Saved& saved, Statistics statistics) const {
        const std::size_t width = shape.expanded, rows = depthwise.shape.rows(count),
                          pixels = shape.out_side * shape.out_side;
        const C* from = x;
        if (!expansion.empty()) {
            expansion.front().forward(count, x, saved.expansion, statistics);
            from = saved.expansion.out.data();
        }
        for (Pixels<C>* stream : {&saved.normed, &saved.gated}) stream->resize(rows, width);
        if (statistics == Statistics::folded) {
            depthwise_norm.fold(saved.norm);
            depthwise.forward(count, from, saved.normed.data(), saved.norm.scale.data(), saved.norm.shift.data(),
                              depthwise_norm.activation);
        } else {
            saved.convolved.resize(rows, width);
            depthwise.forward(count, from, saved.convolved.data());
            depthwise_norm.forward(rows, saved.convolved.data(), saved.normed.data(), saved.norm,
                                   statistics == Statistics::batch);
        }
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
            for (std::size_t row = begin; row < end; ++row)
                kernels::active<C>().finish_tile(saved.normed.data() + row * width, width, 1, width,
                                                 saved.gated.data() + row * width, width, false,
                                                 {.factor = saved.gates.data() + row / pixels * width});
        });
        projection.forward(count, saved.gated.data(), saved.projection, statistics);
        if (shape.is_residual) add(x, saved.out().data(), saved.projection.out.data(), saved.out().size());
    }

    /// g is the gradient of saved.out(), and is overwritten; writes dx.
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
    using Blocks = nn::BlockChain<Block>;

    struct Workspace {
        bool uses_running_means = false;  ///< also in a forward with `keep`
        nn::Pixels<C> pixels;
        typename nn::NormedConvolution<T>::Saved stem;
        typename Blocks::Saved chain;
    };

    EfficientNet() : stem_(stand_in.stem(), kernels::Activation::silu, Block::eps) {
        stand_in.for_each_block(
            [&](const EfficientNetConfig::BlockShape& shape) { chain_.blocks.emplace_back(shape); });
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        nn::Convolution<T>::parameters(visit, at + "embeddings.convolution.", self.stem_.convolution...);
        nn::BatchNorm<T>::parameters(visit, at + "embeddings.batchnorm.", self.stem_.norm...);
        for (std::size_t i = 0; i < std::min({self.chain_.blocks.size()...}); ++i)
            Block::parameters(visit, at + "encoder.blocks." + std::to_string(i) + ".", self.chain_.blocks[i]...);
    }

    void initialise(Random& random) {
        stem_.convolution.initialise(random);
        for (Block& block : chain_.blocks) block.initialise(random);
    }

    /// images <N, 3, image, image>, already normalised, to embeddings <N, Embedding>, not normalised.
    void forward(Input images, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        const std::size_t count = images.extent(0);
        const auto statistics = nn::statistics_of(keep, work.uses_running_means);
        work.pixels.resize(count * image * image, std::size_t{3});
        nn::channels_last(count, 3, image * image, images.data(), work.pixels.data());
        stem_.forward(count, work.pixels.data(), work.stem, statistics);
        const C* const x = chain_.forward(count, work.stem.out.data(), work.chain, keep, statistics);
        for (std::size_t i = 0; i < count; ++i)
            Block::mean_of(x + i * last_pixels * Embedding, last_pixels, Embedding, embeddings.data() + i * Embedding);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`;
    /// writes that of the images where it is asked for.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, EfficientNet& gradient,
                  InputGradient gradient_of_images = {nullptr, {{0, 3, image, image}}}) const requires Trainable<T> {
        const std::size_t count = gradient_of_embeddings.extent(0);
        auto &g = work.chain.g, &dx = work.chain.dx;
        g.resize(count * last_pixels, Embedding);
        for (std::size_t i = 0; i < g.size(); ++i)
            g.data()[i] = gradient_of_embeddings.data()[i / (last_pixels * Embedding) * Embedding + i % Embedding] /
                          static_cast<C>(last_pixels);
        chain_.backward(count, work.stem.out.data(), work.chain, gradient.chain_);
        const bool needed = gradient_of_images.size() > 0;
        if (needed) dx.resize(count * image * image, std::size_t{3});
        stem_.backward(count, work.pixels.data(), g.data(), needed ? dx.data() : nullptr, work.stem,
                       work.chain.scratch.windows, work.chain.scratch.dwindows, gradient.stem_);
        if (needed) nn::channels_first(count, 3, image * image, dx.data(), gradient_of_images.data());
    }

private:
    static constexpr std::size_t last_pixels = stand_in.last_side() * stand_in.last_side();

    nn::NormedConvolution<T> stem_;
    Blocks chain_;

    static_assert(config.is_valid(),
                  "tandem: EfficientNetConfig: image must be at least 32 pixels, and the coefficients above 0");
    static_assert(!config.is_valid() || stand_in.features() == Embedding,
                  "tandem: EfficientNetConfig: its last channels are the embedding: set the ClipConfig's embedding to "
                  "features()");
};

}  // namespace tandem::inline TANDEM_ABI
