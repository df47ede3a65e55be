// The modified ResNet of OpenAI's CLIP: images in, embeddings out.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/nn/attention.hpp>
#include <tandem/nn/block_chain.hpp>
#include <tandem/nn/convolution.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/pixel_rows.hpp>
#include <tandem/nn/stem.hpp>

namespace tandem::inline TANDEM_ABI {

template <Arithmetic T, auto config, std::size_t Embedding>
class ResNet;

/// open_clip's ModifiedResNet (CLIP/clip/model.py:94-154; He et al. 2016, with the stem and the anti-aliased strides of
/// He et al. 2019 and Zhang 2019): a stem of three convolutions, four stages of bottleneck blocks, attention pooling.
struct ResNetConfig {
    std::size_t image = 224;
    std::array<std::size_t, 4> layers{3, 4, 6, 3};  ///< blocks of every stage
    std::size_t width = 64;                         ///< channels of the first stage
    std::size_t head_width = 64;                    ///< of the attention that pools

    template <Arithmetic T, auto self, std::size_t Embedding>
    using Tower = ResNet<T, self, Embedding>;

    /// Channels behind the last stage, and pixels along a side there.
    constexpr std::size_t features() const { return 32 * width; }
    constexpr std::size_t grid() const { return image / 32; }
    constexpr std::size_t heads() const { return features() / head_width; }
    constexpr bool is_valid() const {
        return image > 0 && image % 32 == 0 && width > 0 && width % 2 == 0 && head_width > 0 &&
               features() % head_width == 0 &&
               std::ranges::all_of(layers, [](std::size_t blocks) { return blocks > 0; });
    }

    /// Its rectifiers are part of the architecture: an activation is for the other tower.
    template <class Other>
    constexpr ResNetConfig with_activation(Other) const {
        return *this;
    }

    /// One bottleneck, from side · side pixels.
    struct BlockShape {
        std::size_t side = 0, in = 0, planes = 0, stride = 0;

        constexpr std::size_t before() const { return side * side; }
        constexpr std::size_t after() const { return before() / (stride * stride); }
        constexpr bool pools() const { return stride > 1; }
        constexpr bool has_downsample() const { return pools() || in != 4 * planes; }
    };

    /// For one image, without the projection.
    constexpr Cost cost() const {
        if (!is_valid())
            throw Error("ResNetConfig",
                        "an image of a multiple of 32 pixels, an even width, blocks in every stage and heads that fit");
        Cost total = memory();
        for_each_convolution([&](const nn::ConvolutionShape& shape) {
            total = total + shape.cost() + Cost{.parameters = 2 * shape.out};
        });
        const std::size_t tokens = grid() * grid() + 1;
        const Cost keys = 2 * nn::linear_cost(features(), features(), true, tokens);
        // open_clip pools by all queries, and drops all rows but the first.
        Cost query = nn::linear_cost(features(), features(), true, 1) + product_cost(4 * tokens * features());
        query.flops *= tokens;
        return total + keys + query + Cost{.parameters = tokens * features()} +
               tokens * features() * Cost{.inference = 3, .saved = 3, .scratch = 3};
    }

    /// The projection is the pooling's last dense layer.
    constexpr Cost projection_cost(std::size_t embedding) const {
        Cost cost = nn::linear_cost(features(), embedding, true, 1) + held_cost(embedding);
        cost.flops *= grid() * grid() + 1;
        return cost;
    }

    constexpr std::array<nn::ConvolutionShape, 3> stem() const {
        using nn::ConvolutionShape;
        return {ConvolutionShape::padded(image, 3, width / 2, 3, 2),
                ConvolutionShape::padded(image / 2, width / 2, width / 2, 3, 1),
                ConvolutionShape::padded(image / 2, width / 2, width, 3, 1)};
    }

    /// Calls visit(BlockShape) for all blocks in their order.
    constexpr void for_each_block(const auto& visit) const {
        std::size_t side = image / 4, in = width;
        for (std::size_t stage = 0; stage < 4; ++stage) {
            const std::size_t planes = width << stage;
            for (std::size_t block = 0; block < layers[stage]; ++block) {
                const std::size_t stride = stage > 0 && block == 0 ? 2 : 1;
                visit(BlockShape{side, in, planes, stride});
                side /= stride;
                in = 4 * planes;
            }
        }
    }

private:
    constexpr void for_each_convolution(const auto& visit) const {
        using nn::ConvolutionShape;
        for (const ConvolutionShape& shape : stem()) visit(shape);
        for_each_block([&](const BlockShape& block) {
            const std::size_t planes = block.planes, after = block.side / block.stride;
            visit(ConvolutionShape::padded(block.side, block.in, planes, 1, 1));
            visit(ConvolutionShape::padded(block.side, planes, planes, 3, 1));
            visit(ConvolutionShape::padded(after, planes, 4 * planes, 1, 1));
            if (block.has_downsample()) visit(ConvolutionShape::padded(after, block.in, 4 * planes, 1, 1));
        });
    }

    constexpr Cost memory() const {
        const std::size_t half = image * image / 4;
        nn::ChainMemory blocks;
        for_each_block([&](const BlockShape& block) {
            const std::size_t inner = block.before() * block.planes, outer = block.after() * 4 * block.planes;
            const std::size_t pooled = block.pools() ? block.after() * (block.planes + block.in) : 0;
            const std::size_t down = block.has_downsample() ? outer : 0;
            blocks.add(std::array{inner, inner, pooled, outer, down, outer}, 4 * inner + pooled + 3 * outer + 2 * down,
                       std::array{std::max(half * width / 2 * 9, 9 * inner), std::max(half * width / 2 * 9, 9 * inner),
                                  outer, inner, std::max(inner, block.after() * block.planes),
                                  block.has_downsample() ? block.after() * block.in : 0,
                                  std::max(half * width, block.before() * block.in),
                                  std::max(half * width, block.before() * block.in)});
        });
        const std::size_t stem = 3 * image * image + half * 2 * width, pooled = half / 4 * width;
        return blocks.cost() + held_cost(stem + pooled) + Cost{.saved = half * 2 * width};
    }
};

namespace nn {

/// CLIP/clip/model.py:10-55. A stride is an average pool, before the last convolution and in the shortcut.
template <Arithmetic T>
struct Bottleneck {
    using C = Compute<T>;

    std::size_t stride;
    NormedConvolution<T> conv1, conv2, conv3;
    std::vector<NormedConvolution<T>> downsample;  ///< one, where the shortcut is of another shape

    struct Saved {
        typename NormedConvolution<T>::Saved conv1, conv2, conv3, downsample;
        Pixels<C> pooled, shortcut, sum;

        const Pixels<C>& out() const { return sum; }
    };
    /// What one block needs at a time.
    struct Scratch {
        Pixels<C> windows, dwindows, g1, g2, g3, dshortcut;
    };

    explicit Bottleneck(const ResNetConfig::BlockShape& shape)
        : stride(shape.stride),
          conv1(ConvolutionShape::padded(shape.side, shape.in, shape.planes, 1, 1), kernels::Activation::relu),
          conv2(ConvolutionShape::padded(shape.side, shape.planes, shape.planes, 3, 1), kernels::Activation::relu),
          conv3(ConvolutionShape::padded(shape.side / stride, shape.planes, 4 * shape.planes, 1, 1),
                kernels::Activation::none) {
        if (shape.has_downsample())
            downsample.emplace_back(ConvolutionShape::padded(shape.side / stride, shape.in, 4 * shape.planes, 1, 1),
                                    kernels::Activation::none);
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        const auto list = [&](const char* weight, const char* norm, auto&... layer) {
            Convolution<T>::parameters(visit, at + weight, layer.convolution...);
            BatchNorm<T>::parameters(visit, at + norm, layer.norm...);
        };
        list("conv1.", "bn1.", self.conv1...);
        list("conv2.", "bn2.", self.conv2...);
        list("conv3.", "bn3.", self.conv3...);
        if ((!self.downsample.empty() && ...)) list("downsample.0.", "downsample.1.", self.downsample.front()...);
    }

    void initialise(Random& random) {
        for (NormedConvolution<T>* layer : {&conv1, &conv2, &conv3}) layer->convolution.initialise(random);
        for (NormedConvolution<T>& layer : downsample) layer.convolution.initialise(random);
        conv3.norm.weight.fill(0);  // the block begins as its shortcut (CLIP/clip/model.py:308-311)
    }

    /// x to saved.out().
    void forward(std::size_t count, const C* x, Saved& saved, Statistics statistics) const {
        const std::size_t side = conv1.shape().side, planes = conv1.shape().out, in = conv1.shape().in;
        conv1.forward(count, x, saved.conv1, statistics);
        conv2.forward(count, saved.conv1.out.data(), saved.conv2, statistics);
        const C *middle = saved.conv2.out.data(), *shortcut = x;
        if (stride > 1) {
            saved.pooled.resize(conv3.shape().rows(count), planes);
            average_pool(count, side, stride, planes, middle, saved.pooled.data());
            middle = saved.pooled.data();
            saved.shortcut.resize(conv3.shape().rows(count), in);
            average_pool(count, side, stride, in, x, saved.shortcut.data());
            shortcut = saved.shortcut.data();
        }
        conv3.forward(count, middle, saved.conv3, statistics);
        if (!downsample.empty()) {
            downsample.front().forward(count, shortcut, saved.downsample, statistics);
            shortcut = saved.downsample.out.data();
        }
        saved.sum.resize(saved.conv3.out.extents());
        add(saved.conv3.out.data(), shortcut, saved.sum.data(), saved.sum.size());
        activate(Relu{}, saved.sum.data(), saved.sum.data(), saved.sum.size());
    }

    /// g is the gradient of saved.out(), and is overwritten; writes dx.
    void backward(std::size_t count, const C* x, Pixels<C>& g, Pixels<C>& dx, Saved& saved, Scratch& scratch,
                  Bottleneck& gradient) const requires Trainable<T> {
        const std::size_t side = conv1.shape().side, planes = conv1.shape().out, in = conv1.shape().in;
        const std::size_t before = conv1.shape().rows(count), after = conv3.shape().rows(count);
        for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = saved.sum.data()[i] > 0 ? g.data()[i] : C{0};
        dx.resize(before, in);
        // The branch: its gradient is that of the sum, which the shortcut needs as well.
        scratch.g3.resize(g.extents());
        std::copy_n(g.data(), g.size(), scratch.g3.data());
        const bool pools = stride > 1;
        scratch.g2.resize(before, planes);
        scratch.g1.resize(std::max(before, after), planes);
        conv3.backward(count, pools ? saved.pooled.data() : saved.conv2.out.data(), scratch.g3.data(),
                       pools ? scratch.g1.data() : scratch.g2.data(), saved.conv3, scratch.windows, scratch.dwindows,
                       gradient.conv3);
        if (pools) average_pool_backward(count, side, stride, planes, scratch.g1.data(), scratch.g2.data());
        conv2.backward(count, saved.conv1.out.data(), scratch.g2.data(), scratch.g1.data(), saved.conv2,
                       scratch.windows, scratch.dwindows, gradient.conv2);
        conv1.backward(count, x, scratch.g1.data(), dx.data(), saved.conv1, scratch.windows, scratch.dwindows,
                       gradient.conv1);
        // The shortcut.
        const C* through = g.data();
        if (!downsample.empty()) {
            scratch.dshortcut.resize(after, in);
            downsample.front().backward(count, pools ? saved.shortcut.data() : x, g.data(), scratch.dshortcut.data(),
                                        saved.downsample, scratch.windows, scratch.dwindows,
                                        gradient.downsample.front());
            through = scratch.dshortcut.data();
            if (pools) {
                g.resize(before, in);
                average_pool_backward(count, side, stride, in, scratch.dshortcut.data(), g.data());
                through = g.data();
            }
        }
        std::transform(dx.data(), dx.data() + dx.size(), through, dx.data(), std::plus<C>());
    }
};

/// The mean pixel, and the pixels behind it, with learned positions; the mean attends to all
/// (CLIP/clip/model.py:58-91).
template <Arithmetic T, std::size_t Tokens, std::size_t Width, std::size_t Heads, std::size_t Embedding>
struct MeanQueryPool {
    using C = Compute<T>;
    using Stream = Tensor<C, Shape<dynamic, Width>>;

    Tensor<C, Shape<Tokens, Width>> positional_embedding;
    Linear<T, Width, Width> q_proj, k_proj, v_proj;
    Linear<T, Width, Embedding> c_proj;

    struct Saved {
        Stream tokens, first, q, k, v, mixed;
        Stream dtokens, dq, dk, dv, scratch;
        std::vector<std::size_t> offsets;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "positional_embedding", self.positional_embedding...);
        decltype(k_proj)::parameters(visit, at + "k_proj.", self.k_proj...);
        decltype(q_proj)::parameters(visit, at + "q_proj.", self.q_proj...);
        decltype(v_proj)::parameters(visit, at + "v_proj.", self.v_proj...);
        decltype(c_proj)::parameters(visit, at + "c_proj.", self.c_proj...);
    }

    void initialise(Random& random) {
        const double deviation = 1 / std::sqrt(static_cast<double>(Width));
        fill_normal(positional_embedding, random, deviation);
        for (auto* layer : {&q_proj, &k_proj, &v_proj}) fill_normal(layer->weight, random, deviation);
        fill_normal(c_proj.weight, random, deviation);
    }

    /// pixels <N · (Tokens − 1), Width> to y <N, Embedding>.
    void forward(std::size_t count, const C* pixels, Rows<C, Embedding> y, Saved& saved) const {
        for (Stream* stream : {&saved.tokens, &saved.k, &saved.v}) stream->resize(count * Tokens);
        for (Stream* stream : {&saved.first, &saved.q, &saved.mixed}) stream->resize(count);
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                C* const mean = saved.tokens.data() + i * Tokens * Width;
                std::fill_n(mean, Width, C{0});
                for (std::size_t token = 1; token < Tokens; ++token) {
                    const C* const pixel = pixels + (i * (Tokens - 1) + token - 1) * Width;
                    std::transform(mean, mean + Width, pixel, mean, std::plus<C>());
                    std::transform(pixel, pixel + Width, positional_embedding.data() + token * Width,
                                   mean + token * Width, std::plus<C>());
                }
                for (std::size_t j = 0; j < Width; ++j)
                    mean[j] = mean[j] / static_cast<C>(Tokens - 1) + positional_embedding.data()[j];
                std::copy_n(mean, Width, saved.first.data() + i * Width);
            }
        });
        q_proj.forward(saved.first, saved.q);
        k_proj.forward(saved.tokens, saved.k);
        v_proj.forward(saved.tokens, saved.v);
        saved.offsets.resize(count + 1);
        for (std::size_t i = 0; i <= count; ++i) saved.offsets[i] = i * Tokens;
        kernels::attention<C>(shape(saved), operands(saved), saved.mixed.data(), Width);
        c_proj.forward(saved.mixed, y);
    }

    /// Adds to the gradients, and writes dpixels.
    void backward(std::size_t count, Rows<const C, Embedding> dy, C* dpixels, Saved& saved,
                  MeanQueryPool& gradient) const requires Trainable<T> {
        for (Stream* stream : {&saved.dtokens, &saved.dk, &saved.dv, &saved.scratch}) stream->resize(count * Tokens);
        saved.dq.resize(count);
        Stream& dmixed = saved.first;  // its rows stand in tokens as well
        c_proj.backward(saved.mixed, dy, dmixed, gradient.c_proj);
        kernels::attention_backward<C>(shape(saved), operands(saved), dmixed.data(), Width,
                                       {saved.dq.data(), Width, saved.dk.data(), Width, saved.dv.data(), Width});
        k_proj.backward(saved.tokens, saved.dk, saved.dtokens, gradient.k_proj);
        v_proj.backward(saved.tokens, saved.dv, saved.scratch, gradient.v_proj);
        std::transform(saved.dtokens.data(), saved.dtokens.data() + saved.dtokens.size(), saved.scratch.data(),
                       saved.dtokens.data(), std::plus<C>());
        for (std::size_t i = 0; i < count; ++i)
            std::copy_n(saved.tokens.data() + i * Tokens * Width, Width, saved.first.data() + i * Width);
        const Rows<C, Width> dfirst(saved.scratch.data(), {{count, Width}});
        q_proj.backward(saved.first, saved.dq, dfirst, gradient.q_proj);
        for (std::size_t i = 0; i < count; ++i) {
            C* const first = saved.dtokens.data() + i * Tokens * Width;
            std::transform(first, first + Width, dfirst.data() + i * Width, first, std::plus<C>());
        }
        detail::add_column_sums<C>(count, Tokens * Width, {saved.dtokens.data(), Tokens * Width},
                                   gradient.positional_embedding.data());
        for (std::size_t i = 0; i < count; ++i) {
            const C* const mean = saved.dtokens.data() + i * Tokens * Width;
            for (std::size_t token = 1; token < Tokens; ++token) {
                C* const to = dpixels + (i * (Tokens - 1) + token - 1) * Width;
                for (std::size_t j = 0; j < Width; ++j)
                    to[j] = mean[token * Width + j] + mean[j] / static_cast<C>(Tokens - 1);
            }
        }
    }

private:
    static kernels::AttentionShape shape(const Saved& saved) {
        return {.offsets = saved.offsets,
                .heads = Heads,
                .kv_heads = Heads,
                .head_width = Width / Heads,
                .causal = false,
                .picked = Offsets(saved.offsets).first(saved.offsets.size() - 1)};
    }
    static kernels::AttentionOperands<const C> operands(const Saved& saved) {
        return {saved.q.data(), Width, saved.k.data(), Width, saved.v.data(), Width};
    }
};

}  // namespace nn

/// The tower of a ResNetConfig. It trains by the statistics of every batch, as PyTorch's model in train() does, and
/// infers, and is differentiated with respect to images, by the running means.
template <Arithmetic T, auto config, std::size_t Embedding>
class ResNet {
    static constexpr ResNetConfig stand_in =
        config.is_valid() ? config : ResNetConfig{.image = 32, .layers = {1, 1, 1, 1}, .width = 2};
    static constexpr std::size_t image = stand_in.image, width = stand_in.features(), grid = stand_in.grid();

public:
    using C = Compute<T>;
    using Input = Images<C, image>;
    using InputGradient = ImagesGradient<C, image>;
    using Pool = nn::MeanQueryPool<T, grid * grid + 1, width, stand_in.heads(), Embedding>;
    using Blocks = nn::BlockChain<nn::Bottleneck<T>>;

    struct Workspace {
        bool uses_running_means = false;  ///< also in a forward with `keep`
        nn::Pixels<C> pixels, pooled;
        std::array<typename nn::NormedConvolution<T>::Saved, 3> stem;
        typename Blocks::Saved chain;
        typename Pool::Saved pool;
    };

    ResNet() {
        for (const nn::ConvolutionShape& shape : stand_in.stem()) stem_.emplace_back(shape, kernels::Activation::relu);
        stand_in.for_each_block([&](const ResNetConfig::BlockShape& shape) { chain_.blocks.emplace_back(shape); });
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        for (std::size_t i = 0; i < 3; ++i) {
            const std::string number = std::to_string(i + 1);
            nn::Convolution<T>::parameters(visit, at + "conv" + number + ".", self.stem_[i].convolution...);
            nn::BatchNorm<T>::parameters(visit, at + "bn" + number + ".", self.stem_[i].norm...);
        }
        std::size_t index = 0;
        for (std::size_t stage = 0; stage < 4; ++stage) {
            const ParameterName layer = at + "layer" + std::to_string(stage + 1) + ".";
            for (std::size_t block = 0; block < stand_in.layers[stage]; ++block, ++index)
                nn::Bottleneck<T>::parameters(visit, layer + std::to_string(block) + ".", self.chain_.blocks[index]...);
        }
        Pool::parameters(visit, at + "attnpool.", self.pool_...);
    }

    void initialise(Random& random) {
        for (auto& layer : stem_) layer.convolution.initialise(random);
        for (auto& block : chain_.blocks) block.initialise(random);
        pool_.initialise(random);
    }

    /// images <N, 3, image, image>, already normalised, to embeddings <N, Embedding>, not normalised.
    void forward(Input images, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        const std::size_t count = images.extent(0), first = stand_in.width;
        const auto statistics = nn::statistics_of(keep, work.uses_running_means);
        work.pixels.resize(count * image * image, std::size_t{3});
        nn::channels_last(count, 3, image * image, images.data(), work.pixels.data());
        const C* x = work.pixels.data();
        for (std::size_t i = 0; i < 3; ++i) {
            stem_[i].forward(count, x, work.stem[i], statistics);
            x = work.stem[i].out.data();
        }
        work.pooled.resize(count * image / 4 * (image / 4), first);
        nn::average_pool(count, image / 2, 2, first, x, work.pooled.data());
        pool_.forward(count, chain_.forward(count, work.pooled.data(), work.chain, keep, statistics), embeddings,
                      work.pool);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`;
    /// writes that of the images where it is asked for.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, ResNet& gradient,
                  InputGradient gradient_of_images = {nullptr, {{0, 3, image, image}}}) const requires Trainable<T> {
        const std::size_t count = gradient_of_embeddings.extent(0), first = stand_in.width;
        auto &g = work.chain.g, &dx = work.chain.dx;
        g.resize(work.chain.blocks.back().out().extents());
        pool_.backward(count, gradient_of_embeddings, g.data(), work.pool, gradient.pool_);
        chain_.backward(count, work.pooled.data(), work.chain, gradient.chain_);
        dx.resize(work.stem[2].out.extents());
        nn::average_pool_backward(count, image / 2, 2, first, g.data(), dx.data());
        for (std::size_t i = 3; i-- > 0;) {
            const C* const x = i > 0 ? work.stem[i - 1].out.data() : work.pixels.data();
            const bool needed = i > 0 || gradient_of_images.size() > 0;
            g.resize(stem_[i].shape().side * stem_[i].shape().side * count, stem_[i].shape().in);
            stem_[i].backward(count, x, dx.data(), needed ? g.data() : nullptr, work.stem[i],
                              work.chain.scratch.windows, work.chain.scratch.dwindows, gradient.stem_[i]);
            std::swap(g, dx);
        }
        if (gradient_of_images.size() > 0)
            nn::channels_first(count, 3, image * image, dx.data(), gradient_of_images.data());
    }

private:
    std::vector<nn::NormedConvolution<T>> stem_;
    Blocks chain_;
    Pool pool_;

    static_assert(config.is_valid(),
                  "tandem: ResNetConfig: image must be a multiple of 32, width even, every stage have blocks, and "
                  "head_width divide 32 width");
};

}  // namespace tandem::inline TANDEM_ABI
