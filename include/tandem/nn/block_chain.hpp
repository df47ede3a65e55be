// Convolutional blocks that follow one another, and what they hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include <tandem/nn/convolution.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI::nn {

/// What a chain of blocks holds (see BlockChain), in elements for one image: in inference the buffers of two blocks in
/// turn, in training those of all, and of what the backward pass needs the largest of each.
class ChainMemory {
public:
    template <std::size_t Held, std::size_t Needed>
    constexpr void add(const std::array<std::size_t, Held>& held, std::size_t saved,
                       const std::array<std::size_t, Needed>& needed) {
        for (std::size_t i = 0; i < Held; ++i) turns_[count_ % 2][i] = std::max(turns_[count_ % 2][i], held[i]);
        for (std::size_t i = 0; i < Needed; ++i) needed_[i] = std::max(needed_[i], needed[i]);
        saved_ += saved;
        ++count_;
    }
    constexpr Cost cost() const {
        Cost cost{.saved = saved_};
        for (const auto& turn : turns_) {
            for (const std::size_t buffer : turn) cost.inference += buffer;
        }
        for (const std::size_t buffer : needed_) cost.scratch += buffer;
        return cost;
    }

private:
    std::array<std::array<std::size_t, 8>, 2> turns_{};
    std::array<std::size_t, 8> needed_{};
    std::size_t saved_ = 0, count_ = 0;
};

/// Blocks that follow one another, from pixels to pixels. In inference, two share their memory in turn.
template <class Block>
struct BlockChain {
    using C = typename Block::C;

    std::vector<Block> blocks;

    struct Saved {
        std::vector<typename Block::Saved> blocks;
        typename Block::Scratch scratch;
        Pixels<C> g, dx;
    };

    /// x to what it returns, which stands in `saved`.
    const C* forward(std::size_t count, const C* x, Saved& saved, bool keep, Statistics statistics) const {
        saved.blocks.resize(keep ? blocks.size() : 2);
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            auto& own = saved.blocks[keep ? i : i % 2];
            blocks[i].forward(count, x, own, statistics);
            x = own.out().data();
        }
        return x;
    }

    /// In place saved.g, the gradient of what forward returned, becomes that of x.
    void backward(std::size_t count, const C* x, Saved& saved, BlockChain& gradient) const {
        for (std::size_t i = blocks.size(); i-- > 0;) {
            const C* const from = i > 0 ? saved.blocks[i - 1].out().data() : x;
            blocks[i].backward(count, from, saved.g, saved.dx, saved.blocks[i], saved.scratch, gradient.blocks[i]);
            std::swap(saved.g, saved.dx);
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI::nn
