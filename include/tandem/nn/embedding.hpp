// From patch rows and token ids to token rows: class token, registers, token and position tables.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/core/image_size.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/positions.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI::nn {

/// The tokens of images: a learned class token where asked for, learned registers (Darcet et al. 2024), patches; positions
/// are added to class token and patches, as `positions` says (CLIP/clip/model.py:223-228). Registers have none: a
/// learned row beside a learned row would be one too many.
template <Arithmetic T, ImageSize grid, std::size_t Width, bool HasClass, std::size_t Registers, PosEmbed positions>
struct ImageTokens {
    static constexpr std::size_t patches = grid.area(), prefix = (HasClass ? 1 : 0) + Registers;
    static constexpr std::size_t tokens = prefix + patches;
    static constexpr bool is_learned = positions == PosEmbed::learnable;
    using C = Compute<T>;

    Tensor<C, Shape<HasClass ? Width : 0>> class_embedding;
    Tensor<C, Shape<Registers, Width>> reg_token;
    /// The class token's, then the patches'.
    Tensor<C, Shape<is_learned ? tokens - Registers : 0, Width>> positional_embedding;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        if constexpr (HasClass) visit(at + "class_embedding", self.class_embedding...);
        if constexpr (Registers > 0) visit(at + "reg_token", self.reg_token...);
        if constexpr (is_learned) visit(at + "positional_embedding", self.positional_embedding...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(class_embedding, random, scale.attention());
        fill_normal(positional_embedding, random, scale.attention());
        fill_normal(reg_token, random, scale.attention());
    }

    /// patch rows <N · patches, Width> to y <N · tokens, Width>.
    void forward(Rows<const C, Width> embedded, Rows<C, Width> y) const {
        const C* const place = table();
        parallel_for(embedded.extent(0) / patches, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                C* const rows = y.data() + i * tokens * Width;
                const C* const from = embedded.data() + i * patches * Width;
                if constexpr (HasClass) add(class_embedding.data(), place, rows, Width);
                if constexpr (Registers > 0)
                    std::copy_n(reg_token.data(), reg_token.size(), rows + (HasClass ? Width : 0));
                add(from, place == nullptr ? nullptr : place + (HasClass ? Width : 0), rows + prefix * Width,
                    patches * Width);
            }
        });
    }

    /// Adds to the gradients, and writes the patch rows' gradient to dembedded.
    void backward(Rows<const C, Width> dy, Rows<C, Width> dembedded, ImageTokens& gradient) const
        requires Trainable<T>
    {
        const std::size_t count = dy.extent(0) / tokens;
        const auto sums = [&](std::size_t token, std::size_t width, C* to) {
            detail::add_column_sums<C>(count, width, {dy.data() + token * Width, tokens * Width}, to);
        };
        if constexpr (HasClass) sums(0, Width, gradient.class_embedding.data());
        if constexpr (Registers > 0) sums(HasClass ? 1 : 0, Registers * Width, gradient.reg_token.data());
        if constexpr (is_learned) {
            C* const places = gradient.positional_embedding.data();
            if constexpr (HasClass) sums(0, Width, places);
            sums(prefix, patches * Width, places + (HasClass ? Width : 0));
        }
        for (std::size_t i = 0; i < count; ++i) {
            std::copy_n(dy.data() + (i * tokens + prefix) * Width, patches * Width,
                        dembedded.data() + i * patches * Width);
        }
    }

private:
    /// The positions to add, class token's first if there is one; null: none.
    const C* table() const {
        if constexpr (is_learned) {
            return positional_embedding.data();
        } else if constexpr (positions == PosEmbed::sin_cos_2d) {
            return sin_cos_2d<C, grid, Width>().data() + (HasClass ? 0 : Width);
        } else {
            return nullptr;
        }
    }

    static void add(const C* a, const C* b, C* to, std::size_t size) {
        if (b == nullptr) {
            std::copy_n(a, size, to);
        } else {
            std::transform(a, a + size, b, to, std::plus<C>());
        }
    }
};

/// Token rows plus learned position rows (CLIP/clip/model.py:344-346), or alone. The first token has the row `First` of
/// `Places`. Where there are rows for types of tokens, as in BERT, every token has the first one.
template <Arithmetic T, std::size_t Vocabulary, std::size_t Context, std::size_t Width, std::size_t Places,
          std::size_t First = 0, std::size_t Types = 0>
struct TokenEmbedding {
    static constexpr bool HasPositions = Places > 0;
    using C = Compute<T>;

    Tensor<Stored<T>, Shape<Vocabulary, Width>> token_embedding;
    Tensor<C, Shape<Places, Width>> positional_embedding;
    Tensor<C, Shape<Types, Width>> token_type_embedding;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "token_embedding.weight", self.token_embedding...);
        if constexpr (HasPositions) visit(at + "positional_embedding", self.positional_embedding...);
        if constexpr (Types > 0) visit(at + "token_type_embedding", self.token_type_embedding...);
    }

    /// CLIP/clip/model.py:300-301.
    void initialise(Random& random, const InitScale&) {
        fill_normal(token_embedding, random, 0.02);
        fill_normal(positional_embedding, random, 0.01);
        fill_normal(token_type_embedding, random, 0.02);
    }

    /// The first offsets[s + 1] − offsets[s] ids of every row s of ids, to y <offsets.back(), Width>. Throws Error for
    /// an id outside the vocabulary.
    void forward(View<const Id, Shape<dynamic, Context>> ids, Rows<C, Width> y, Offsets offsets) const {
        for_each_token(ids, offsets, [&](std::size_t id, [[maybe_unused]] std::size_t position, std::size_t row) {
            const Stored<T>* const token = token_embedding.data() + id * Width;
            C* const to = y.data() + row * Width;
            std::copy_n(token, Width, to);
            if constexpr (Types > 0) std::transform(to, to + Width, token_type_embedding.data(), to, std::plus<C>());
            if constexpr (HasPositions)
                std::transform(to, to + Width, positional_embedding.data() + (First + position) * Width, to, std::plus<C>());
        });
    }

    void backward(View<const Id, Shape<dynamic, Context>> ids, Rows<const C, Width> dy, Offsets offsets,
                  TokenEmbedding& gradient) const requires Trainable<T> {
        for_each_token(ids, offsets, [&](std::size_t id, [[maybe_unused]] std::size_t position, std::size_t row) {
            const C* const g = dy.data() + row * Width;
            const auto add_to = [&](C* sums) { std::transform(sums, sums + Width, g, sums, std::plus<C>()); };
            add_to(gradient.token_embedding.data() + id * Width);
            if constexpr (Types > 0) add_to(gradient.token_type_embedding.data());
            if constexpr (HasPositions) add_to(gradient.positional_embedding.data() + (First + position) * Width);
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
