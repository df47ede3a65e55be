// What turns pixels and token ids into rows: patches, the class token, token and position tables.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/nn/attention.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI::nn {

/// Cuts images <N, 3, Image, Image> into rows of Patch x Patch patches, left to right, top to bottom; a row begins with
/// the patch in the order channel, y, x: the order of a convolution's weight.
template <std::size_t Image, std::size_t Patch, Real C, std::size_t Row>
void extract_patches(View<const C, Shape<dynamic, 3, Image, Image>> images, Rows<C, Row> rows) {
    constexpr std::size_t side = Image / Patch;
    parallel_for(images.extent(0) * side, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t band = begin; band < end; ++band) {
            const C* const image = images.data() + band / side * 3 * Image * Image;
            for (std::size_t patch = 0; patch < side; ++patch) {
                C* to = rows.data() + (band * side + patch) * Row;
                for (std::size_t channel = 0; channel < 3; ++channel) {
                    for (std::size_t y = 0; y < Patch; ++y, to += Patch) {
                        const std::size_t line = channel * Image + band % side * Patch + y;
                        std::copy_n(image + line * Image + patch * Patch, Patch, to);
                    }
                }
            }
        }
    });
}

/// Patches times a convolution's weight, with a learned class token in front where asked for, plus learned positions:
/// CLIP/clip/model.py:223-228.
template <Arithmetic T, std::size_t Image, std::size_t Patch, std::size_t Width, bool HasClass>
struct PatchEmbedding {
    static constexpr std::size_t patches = (Image / Patch) * (Image / Patch);
    static constexpr std::size_t tokens = patches + (HasClass ? 1 : 0);
    static constexpr std::size_t depth = 3 * Patch * Patch;
    using C = Compute<T>;
    static constexpr std::size_t depth_row = kernels::row_length<C>(depth);

    PackedMatrix<T, Shape<Width, 3, Patch, Patch>> conv;
    Tensor<C, Shape<HasClass ? Width : 0>> class_embedding;
    Tensor<C, Shape<tokens, Width>> positional_embedding;

    struct Saved {
        Tensor<C, Shape<dynamic, depth_row>> patches;
        Tensor<C, Shape<dynamic, Width>> embedded;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "conv1.weight", self.conv...);
        if constexpr (HasClass) visit(at + "class_embedding", self.class_embedding...);
        visit(at + "positional_embedding", self.positional_embedding...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(conv, random, 1.0 / std::sqrt(static_cast<double>(depth)));
        fill_normal(class_embedding, random, scale.attention());
        fill_normal(positional_embedding, random, scale.attention());
    }

    /// images <N, 3, Image, Image> to y <N · tokens, Width>.
    void forward(View<const C, Shape<dynamic, 3, Image, Image>> images, Rows<C, Width> y, Saved& saved) const {
        const std::size_t count = images.extent(0);
        saved.patches.resize(count * patches);
        saved.embedded.resize(count * patches);
        extract_patches<Image, Patch, C, depth_row>(images, saved.patches);
        conv.product(count * patches, {saved.patches.data(), depth_row}, {saved.embedded.data(), Width}, {});
        parallel_for(count, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                C* const rows = y.data() + i * tokens * Width;
                const C* const position = positional_embedding.data();
                if constexpr (HasClass) {
                    std::transform(class_embedding.data(), class_embedding.data() + Width, position, rows,
                                   std::plus<C>());
                }
                constexpr std::size_t skip = (tokens - patches) * Width;
                const C* const embedded = saved.embedded.data() + i * patches * Width;
                std::transform(embedded, embedded + patches * Width, position + skip, rows + skip, std::plus<C>());
            }
        });
    }

    /// Adds to the gradients, given dy; images get none.
    void backward(Rows<const C, Width> dy, Saved& saved, PatchEmbedding& gradient) const requires Trainable<T> {
        const std::size_t count = dy.extent(0) / tokens;
        constexpr std::size_t skip = (tokens - patches) * Width;
        detail::add_column_sums<C>(count, tokens * Width, {dy.data(), tokens * Width},
                                   gradient.positional_embedding.data());
        for (std::size_t i = 0; i < count; ++i) {
            const C* const rows = dy.data() + i * tokens * Width;
            if constexpr (HasClass) {
                C* const sums = gradient.class_embedding.data();
                std::transform(rows, rows + Width, sums, sums, std::plus<C>());
            }
            std::copy_n(rows + skip, patches * Width, saved.embedded.data() + i * patches * Width);
        }
        conv.product_backward(count * patches, {saved.patches.data(), depth_row}, {saved.embedded.data(), Width},
                              {nullptr, 0}, gradient.conv, 0, Width);
    }
};

/// Token rows plus position rows: CLIP/clip/model.py:344-346.
template <Arithmetic T, std::size_t Vocabulary, std::size_t Context, std::size_t Width>
struct TokenEmbedding {
    using C = Compute<T>;

    Tensor<Stored<T>, Shape<Vocabulary, Width>> token_embedding;
    Tensor<C, Shape<Context, Width>> positional_embedding;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "token_embedding.weight", self.token_embedding...);
        visit(at + "positional_embedding", self.positional_embedding...);
    }

    /// CLIP/clip/model.py:300-301.
    void initialise(Random& random, const InitScale&) {
        fill_normal(token_embedding, random, 0.02);
        fill_normal(positional_embedding, random, 0.01);
    }

    /// The first offsets[s + 1] − offsets[s] ids of every row s of ids, to y <offsets.back(), Width>. Throws Error for
    /// an id outside the vocabulary.
    void forward(View<const Id, Shape<dynamic, Context>> ids, Rows<C, Width> y, Offsets offsets) const {
        for_each_token(ids, offsets, [&](std::size_t id, std::size_t position, std::size_t row) {
            const Stored<T>* const token = token_embedding.data() + id * Width;
            const C* const place = positional_embedding.data() + position * Width;
            for (std::size_t j = 0; j < Width; ++j) y.data()[row * Width + j] = static_cast<C>(token[j]) + place[j];
        });
    }

    void backward(View<const Id, Shape<dynamic, Context>> ids, Rows<const C, Width> dy, Offsets offsets,
                  TokenEmbedding& gradient) const requires Trainable<T> {
        for_each_token(ids, offsets, [&](std::size_t id, std::size_t position, std::size_t row) {
            C* const token = gradient.token_embedding.data() + id * Width;
            C* const place = gradient.positional_embedding.data() + position * Width;
            for (std::size_t j = 0; j < Width; ++j) {
                token[j] += dy.data()[row * Width + j];
                place[j] += dy.data()[row * Width + j];
            }
        });
    }

private:
    template <class Body>
    static void for_each_token(View<const Id, Shape<dynamic, Context>> ids, Offsets offsets, const Body& body) {
        for (std::size_t sequence = 0; sequence + 1 < offsets.size(); ++sequence) {
            for (std::size_t row = offsets[sequence]; row < offsets[sequence + 1]; ++row) {
                const std::size_t position = row - offsets[sequence];
                const Id id = ids(sequence, position);
                if (id < 0 || static_cast<std::size_t>(id) >= Vocabulary) {
                    throw Error("token_embedding", "ids below the vocabulary of " + std::to_string(Vocabulary),
                                std::to_string(id));
                }
                body(static_cast<std::size_t>(id), position, row);
            }
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI::nn
