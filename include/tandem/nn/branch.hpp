// A part of a block on its way into the residual stream.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/nn/attention.hpp>
#include <tandem/nn/layer_norm.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/part.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// A mixer or an MLP on its way into the residual stream: y = residual + drop · ls · after(part(x)), of which `after`
/// (the second norm of a sandwich), ls (layer scale) and drop (stochastic depth, one factor a sequence) are there where
/// the config has them.
template <Arithmetic T, std::size_t Width, auto parts, class Part>
struct Branch {
    using C = Compute<T>;
    static constexpr bool has_norm = parts.norm_position == NormPosition::sandwich;
    static constexpr bool has_scale = parts.ls_init_value != 0, drops = parts.drop_path_rate > 0;
    using Norm =
        std::conditional_t<has_norm, typename decltype(parts.norm)::template Layer<T, Width, parts.norm>, None>;

    Part part;
    [[no_unique_address]] Norm after;
    Tensor<C, Shape<has_scale ? Width : 0>> gamma;

    struct Saved {
        typename Part::Saved part;
        [[no_unique_address]] typename Norm::Saved norm;
        Tensor<C, Shape<dynamic, Width>> result, normed, gradient;  ///< of the part, where something stands behind it
        std::vector<C> drop;                                        ///< one factor a sequence; empty: all 1

        void lend(Saved& to) {
            std::swap(gradient, to.gradient);
            if constexpr (requires { part.lend(to.part); }) part.lend(to.part);
        }
    };

    Branch() { gamma.fill(static_cast<C>(parts.ls_init_value)); }

    static void parameters(const auto& visit, const ParameterName& part_at, const ParameterName& norm_at,
                           const ParameterName& scale_at, auto&... self) {
        Part::parameters(visit, part_at, self.part...);
        if constexpr (has_norm) Norm::parameters(visit, norm_at, self.after...);
        if constexpr (has_scale) visit(scale_at + "gamma", self.gamma...);
    }

    /// residual may be y.
    void forward(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y, const Sequences<C>& sequences,
                 Saved& saved, bool keep) const {
        run(residual, y, sequences, saved, keep, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            if constexpr (FinishingPart<Part, C, Width>) {
                part.forward(x, to, sequences, saved.part, keep, finish != nullptr ? *finish : kernels::Finish<C>{});
            } else {
                part.forward(x, to, sequences, saved.part, keep);
            }
        });
    }

    /// The same from rows of bfloat16, of a NarrowPart.
    void forward_narrow(NarrowView<Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                        const Sequences<C>& sequences, Saved& saved) const {
        run(residual, y, sequences, saved, false, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            part.forward_narrow(x, to, sequences, saved.part, finish != nullptr ? *finish : kernels::Finish<C>{});
        });
    }
    void forward_picked_narrow(NarrowView<Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                               const Sequences<C>& sequences, std::span<const std::size_t> picked,
                               const Sequences<C>& ends, Saved& saved) const {
        run(residual, y, ends, saved, false, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            part.forward_picked_narrow(x, to, sequences, picked, saved.part,
                                       finish != nullptr ? *finish : kernels::Finish<C>{});
        });
    }

    /// The same for the rows that `picked` names, one in every sequence; residual and y hold those rows alone, and
    /// `ends` says so.
    void forward_picked(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                        const Sequences<C>& sequences, std::span<const std::size_t> picked, const Sequences<C>& ends,
                        Saved& saved, bool keep) const {
        run(residual, y, ends, saved, keep, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            part.forward_picked(x, to, sequences, picked, saved.part,
                                finish != nullptr ? *finish : kernels::Finish<C>{});
        });
    }

    /// As forward, with a mixer's values mixed as `features` say.
    void forward_patches(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                         const Sequences<C>& sequences, PatchFeatures features, Saved& saved) const {
        run(residual, y, sequences, saved, false, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            part.forward_patches(x, to, sequences, features, saved.part, finish != nullptr ? *finish : kernels::Finish<C>{});
        });
    }

    /// dx, given the gradient g of y, which is that of the residual as well and stays as it is.
    void backward(Rows<const C, Width> x, Rows<const C, Width> g, Rows<C, Width> dx, const Sequences<C>& sequences,
                  Saved& saved, Branch& gradient) const requires Trainable<T> {
        part.backward(x, through(g, sequences, saved, gradient), dx, sequences, saved.part, gradient.part);
    }
    void backward_picked(Rows<const C, Width> x, Rows<const C, Width> g, Rows<C, Width> dx,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, const Sequences<C>& ends,
                         Saved& saved, Branch& gradient) const requires Trainable<T> {
        part.backward_picked(x, through(g, ends, saved, gradient), dx, sequences, picked, saved.part, gradient.part);
    }

private:
    /// A part that can finish its last product adds the residual there, and scales.
    template <class Forward>
    void run(Rows<const C, Width> residual, Rows<C, Width> y, const Sequences<C>& rows, Saved& saved, bool keep,
             const Forward& forward) const {
        constexpr bool finishes = FinishingPart<Part, C, Width> && !has_norm;
        if constexpr (finishes) {
            if (!drops || saved.drop.empty()) {
                kernels::Finish<C> finish{.residual = residual.data(), .residual_stride = Width};
                if constexpr (has_scale) {
                    finish.factor = gamma.data();
                    if (keep) {
                        saved.result.resize(rows.rows());
                        finish.before = saved.result.data();
                        finish.before_stride = Width;
                    }
                }
                return forward(y, &finish);
            }
        }
        if constexpr (!finishes || drops) {
            saved.result.resize(rows.rows());
            forward(saved.result, nullptr);
            const C* result = saved.result.data();
            if constexpr (has_norm) {
                saved.normed.resize(rows.rows());
                after.forward(saved.result, saved.normed, saved.norm);
                result = saved.normed.data();
            }
            for_each_row(rows, saved.drop, [&](std::size_t row, C drop) {
                for (std::size_t j = row * Width, column = 0; column < Width; ++j, ++column)
                    y.data()[j] = residual.data()[j] + drop * scale(column) * result[j];
            });
        }
    }

    C scale([[maybe_unused]] std::size_t column) const {
        if constexpr (has_scale) {
            return gamma.data()[column];
        } else {
            return C{1};
        }
    }

    /// The gradient of the part's result.
    Rows<const C, Width> through(Rows<const C, Width> g, const Sequences<C>& rows, Saved& saved,
                                 Branch& gradient) const requires Trainable<T> {
        if constexpr (!has_norm && !has_scale && !drops) {
            return g;
        } else {
            saved.gradient.resize(rows.rows());
            if constexpr (has_scale) {
                const C* const result = has_norm ? saved.normed.data() : saved.result.data();
                // Row by row in order, so that the sums' bits do not depend on the threads.
                for (std::size_t s = 0; s < rows.count(); ++s) {
                    const C drop = saved.drop.empty() ? C{1} : saved.drop[s];
                    for (std::size_t j = rows.offsets[s] * Width; j < rows.offsets[s + 1] * Width; ++j)
                        gradient.gamma.data()[j % Width] += drop * g.data()[j] * result[j];
                }
            }
            for_each_row(rows, saved.drop, [&](std::size_t row, C drop) {
                for (std::size_t j = row * Width, column = 0; column < Width; ++j, ++column)
                    saved.gradient.data()[j] = drop * scale(column) * g.data()[j];
            });
            if constexpr (has_norm)
                after.backward(saved.result, saved.gradient, saved.gradient, saved.norm, gradient.after, false);
            return saved.gradient;
        }
    }

    template <class Body>
    static void for_each_row(const Sequences<C>& rows, const std::vector<C>& drop, const Body& body) {
        parallel_for(rows.count(), 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t s = begin; s < end; ++s) {
                for (std::size_t row = rows.offsets[s]; row < rows.offsets[s + 1]; ++row)
                    body(row, drop.empty() ? C{1} : drop[s]);
            }
        });
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI
