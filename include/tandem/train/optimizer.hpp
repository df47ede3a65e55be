// AdamW, Lion, Muon and SGD, and the norm of a gradient.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// A parameter as a plain vector: one instantiation of an update serves parameters of every shape.
template <class Tensor>
auto flat(Tensor& tensor) {
    const auto elements = tensor.elements();
    return View<typename decltype(elements)::element_type, Shape<dynamic>>(elements.data(), {{elements.size()}});
}

template <class T>
using Flat = View<T, Shape<dynamic>>;

/// Whether every element is a finite number.
template <Real T>
bool all_finite(const Flat<const T>& vector);

/// Σ x²; not finite if an element is not.
template <Real T>
double sum_of_squares(const Flat<const T>& vector);

/// What an update of AdamW multiplies by.
struct AdamWFactors {
    double beta1, beta2, eps, step, second_scale, gradient_scale;
    bool clip_update;
};

/// One parameter's update, its moments likewise; `decay` is the share that weight decay takes. Returns whether all weights are
/// finite.
template <Real T>
bool adamw_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& first, const Flat<T>& second,
                  double decay, const AdamWFactors& factors);

/// What an update of Lion multiplies by.
struct LionFactors {
    double beta1, beta2, step, gradient_scale;
};

/// One parameter's update by Lion; `keep` is what weight decay leaves.
template <Real T>
bool lion_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& momentum, double keep, const LionFactors& factors);

/// What an update of SGD multiplies by; `decay` is added to the gradient, times the weight.
struct SgdFactors {
    double momentum, decay, step, gradient_scale;
    bool nesterov;
};

template <Real T>
bool sgd_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& momentum, const SgdFactors& factors);

/// What an update of Muon multiplies by; `keep` is what weight decay leaves.
struct MuonFactors {
    double momentum, keep, step, gradient_scale;
    bool nesterov;
};

/// Where the elements of a matrix stand, in panels or row by row, and whether a model multiplies it in amp_bf16.
struct MatrixOrder {
    std::size_t rows = 0, columns = 0;
    std::optional<kernels::PanelLayout> panels{};
    bool is_reduced = false;

    /// visit(column, position) for all elements of a row.
    void for_each_column(std::size_t row, const auto& visit) const {
        if (panels) return panels->for_each_row(row, columns, visit);
        for (std::size_t column = 0; column < columns; ++column) visit(column, row * columns + column);
    }
};

/// One matrix's update by Muon.
template <Real T>
bool muon_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& momentum, const MatrixOrder& order, const MuonFactors& factors);

/// Calls all, several at a time; whether all return true.
bool all_true(const std::vector<std::function<bool()>>& tasks);

/// average = decay · average + (1 − decay) · parameter.
template <Real T>
void move_average(const Flat<T>& average, const Flat<const T>& parameter, double decay);

/// parameter -= momentum · slope; whether all are finite.
template <Real T>
bool move_mean(const Flat<T>& mean, const Flat<const T>& slope, double momentum);

/// Throws Error, which names the option, unless it holds.
void check_option(bool holds, const char* option, const char* expected, double value);

}  // namespace detail

/// What a parameter's rate is multiplied by, by its name: 0 leaves it alone, weight decay included. Empty: 1 for all.
using RateFactor = std::function<double(std::string_view)>;

/// The L2 norm over all parameters of a gradient but those of factor 0; not finite if any element is not, running means'
/// included.
template <class Model>
double gradient_norm(const Model& gradient, const RateFactor& factor = {}) {
    double squares = 0;
    for_each_parameter(
        [&](const ParameterName& name, const auto& tensor) {
            using T = typename std::remove_cvref_t<decltype(tensor)>::element;
            if (factor && factor(name.view()) == 0) return;
            const auto elements = detail::flat(tensor);
            if constexpr (is_running_mean<decltype(tensor)>) {
                if (!detail::all_finite<T>(elements)) squares = std::numeric_limits<double>::quiet_NaN();
            } else {
                squares += detail::sum_of_squares<T>(elements);
            }
        },
        gradient);
    return std::sqrt(squares);
}

namespace detail {

/// How a parameter is updated.
struct UpdateOf {
    double factor;  ///< of the rate; not 0
    bool decays;
    std::optional<MatrixOrder> of_block{};  ///< of a matrix of a block, one of several layers that are alike
};

/// Whether a name has a number among its parts, as those of blocks have, but for layers of a projection.
bool is_of_block(std::string_view name);

/// update(parameter, slope, moments..., of) for every parameter but those of factor 0, all but the last as plain
/// vectors; whether all weights are finite. Matrices decay; vectors and scalars (biases, gains, the class token, the logit scale)
/// do not, as in open_clip (open_clip_train/main.py, exclude), where the class token of timm's towers, which has three
/// dimensions, does.
template <class Update, class Model, class... Moments>
bool update_parameters(const Update& update, const RateFactor& factor, Model& model, const Model& gradient, Moments&... moments) {
    bool are_finite = true;
    for_each_parameter(
        [&]<class Parameter>(const ParameterName& name, Parameter& parameter, const Parameter& slope, auto&... moment) {
            using T = typename Parameter::element;
            const double share = factor ? factor(name.view()) : 1.0;
            if (share == 0) return;
            bool is_finite = false;
            if constexpr (is_running_mean<Parameter>) {
                is_finite = move_mean<T>(flat(parameter), flat(slope), Parameter::momentum);
            } else {
                UpdateOf of{share, Parameter::shape::rank >= 2};
                if constexpr (Parameter::shape::rank == 2) {
                    if (is_of_block(name.view())) of.of_block = MatrixOrder{parameter.extents()[0], parameter.extents()[1]};
                    if constexpr (requires { Parameter::layout(); }) {
                        if (of.of_block) of.of_block->panels = Parameter::layout(), of.of_block->is_reduced = std::same_as<typename Parameter::arithmetic, amp_bf16>;
                    }
                }
                is_finite = update(std::type_identity<T>{}, flat(parameter), flat(slope), flat(moment)..., of);
            }
            are_finite = are_finite && is_finite;
        },
        model, gradient, moments...);
    return are_finite;
}

/// The state of an optimizer with one moment.
template <class Model>
struct Momentum {
    Model momentum;
    std::size_t updates = 0;

    Momentum() { reset(); }

    void reset() {
        zero_parameters(momentum);
        updates = 0;
    }

    static void moments(const auto& visit, auto& state) { visit("momentum.", state.momentum); }
};

}  // namespace detail

/// Moves a running average of a model's weights, running means among them, towards them.
template <class Model>
void move_average(Model& average, const Model& model, double decay) {
    for_each_parameter(
        [&]<class Parameter>(const ParameterName&, Parameter& mean, const Parameter& parameter) {
            detail::move_average<typename Parameter::element>(detail::flat(mean), detail::flat(parameter), decay);
        },
        average, model);
}

// An optimizer has a member double rate, a template State of a model, and update(model, gradient, state, rate, gradient_scale), which may
// take a RateFactor as well. A state counts its updates and lists its moments, which are models, for snapshots; prepare(state) makes ready one whose
// type does not say what it holds.

/// AdamW (Loshchilov, Hutter 2019, alg. 2) with torch.optim.AdamW's arithmetic; of what decays see update_parameters.
struct AdamW {
    double rate = 5e-4;
    double beta1 = 0.9;
    double beta2 = 0.98;
    double eps = 1e-6;
    double weight_decay = 0.2;
    /// StableAdamW (Wortsman et al. 2023, arXiv:2304.13013, alg. 2): a parameter whose gradients are larger than its second moment tells,
    /// by the root of their mean square, takes so much smaller a step. It keeps loss spikes away where no gradient is clipped.
    bool clip_update = false;

    /// The first and second moments are models themselves.
    template <class Model>
    struct State {
        Model first, second;
        std::size_t updates = 0;

        State() { reset(); }

        /// As before the first update.
        void reset() {
            zero_parameters(first);
            zero_parameters(second);
            updates = 0;
        }

        static void moments(const auto& visit, auto& state) {
            visit("first.", state.first);
            visit("second.", state.second);
        }
    };

    /// Throws Error, which names the member, where one is out of range. An eps below float's smallest normal number
    /// would be 0 beside weights in float, and an update of 0 / 0.
    void check() const;

    /// One update of `model` at learning rate `step_rate`, the gradient multiplied by `gradient_scale` first. Returns
    /// whether all weights are finite after it: at an absurd rate they are not, and the old ones are gone.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate,
                double gradient_scale = 1.0, const RateFactor& factor = {}) const {
        ++state.updates;
        const detail::AdamWFactors factors = this->factors(state.updates, step_rate, gradient_scale);
        return detail::update_parameters(
            [&]<class T>(std::type_identity<T>, const auto& parameter, const auto& slope, const auto& first, const auto& second, const detail::UpdateOf& of) {
                return update_one<T>(parameter, slope, first, second, of, step_rate, factors);
            },
            factor, model, gradient, state.first, state.second);
    }

private:
    friend struct Muon;

    detail::AdamWFactors factors(std::size_t updates, double step_rate, double gradient_scale) const;

    template <class T>
    bool update_one(const auto& parameter, const auto& slope, const auto& first, const auto& second, const detail::UpdateOf& of, double step_rate,
                detail::AdamWFactors factors) const {
        factors.step *= of.factor;
        return detail::adamw_update<T>(parameter, slope, first, second, of.decays ? of.factor * step_rate * weight_decay : 0.0, factors);
    }
};

/// Lion (Chen et al. 2023, arXiv:2302.06675, alg. 2): steps by the sign of a mean of momentum and gradient. Its rate is a third to a
/// tenth of AdamW's, its decay as many times larger (section 5 there).
struct Lion {
    double rate = 1e-4;
    double beta1 = 0.9;
    double beta2 = 0.99;
    double weight_decay = 1.0;

    template <class Model>
    using State = detail::Momentum<Model>;

    /// Throws Error, which names the member, where one is out of range.
    void check() const;

    /// As AdamW's.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate, double gradient_scale = 1.0,
                const RateFactor& factor = {}) const {
        ++state.updates;
        return detail::update_parameters(
            [&]<class T>(std::type_identity<T>, const auto& parameter, const auto& slope, const auto& momentum, const detail::UpdateOf& of) {
                return detail::lion_update<T>(parameter, slope, momentum, of.decays ? 1.0 - of.factor * step_rate * weight_decay : 1.0,
                                              {beta1, beta2, of.factor * step_rate, gradient_scale});
            },
            factor, model, gradient, state.momentum);
    }
};

/// Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for the matrices of blocks: a momentum whose singular values are all made about 1, by
/// five steps of Newton and Schulz; AdamW for embeddings, projections, vectors and scalars. A matrix's step is 0.2 √max(rows, columns) times the rate
/// (Liu et al. 2025, arXiv:2502.16982, section 2.2), as long as AdamW's is, so that both take one rate and one decay. torch.optim.Muon's arithmetic
/// under adjust_lr_fn "match_rms_adamw", with the model's products (bfloat16 in an amp_bf16 one) where that one's are always of bfloat16. A state is as
/// large as AdamW's.
struct Muon {
    double rate = 5e-4;
    double momentum = 0.95;
    bool nesterov = true;
    double beta1 = 0.9;  ///< with beta2 and eps, of AdamW
    double beta2 = 0.98;
    double eps = 1e-6;
    double weight_decay = 0.2;

    template <class Model>
    using State = AdamW::State<Model>;

    /// Throws Error, which names the member, where one is out of range.
    void check() const;

    /// As AdamW's.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate, double gradient_scale = 1.0,
                const RateFactor& factor = {}) const {
        ++state.updates;
        const AdamW rest{.rate = rate, .beta1 = beta1, .beta2 = beta2, .eps = eps, .weight_decay = weight_decay};
        const detail::AdamWFactors factors = rest.factors(state.updates, step_rate, gradient_scale);
        // Products of one matrix are small for all cores: several matrices are updated at a time.
        std::vector<std::function<bool()>> matrices;
        const bool are_finite = detail::update_parameters(
            [&]<class T>(std::type_identity<T>, const auto& parameter, const auto& slope, const auto& first, const auto& second, const detail::UpdateOf& of) {
                if (!of.of_block) return rest.update_one<T>(parameter, slope, first, second, of, step_rate, factors);
                const detail::MuonFactors of_matrix{momentum, 1.0 - of.factor * step_rate * weight_decay, of.factor * step_rate, gradient_scale, nesterov};
                matrices.push_back([=, order = *of.of_block] { return detail::muon_update<T>(parameter, slope, first, order, of_matrix); });
                return true;
            },
            factor, model, gradient, state.first, state.second);
        return detail::all_true(matrices) && are_finite;
    }
};

/// Stochastic gradient descent with torch.optim.SGD's arithmetic: momentum without dampening, Nesterov's on request, weight decay added to
/// the gradient.
struct Sgd {
    double rate = 0.1;
    double momentum = 0.9;
    double weight_decay = 0;
    bool nesterov = false;

    template <class Model>
    using State = detail::Momentum<Model>;

    /// Throws Error, which names the member, where one is out of range.
    void check() const;

    /// As AdamW's.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate, double gradient_scale = 1.0,
                const RateFactor& factor = {}) const {
        ++state.updates;
        return detail::update_parameters(
            [&]<class T>(std::type_identity<T>, const auto& parameter, const auto& slope, const auto& moment, const detail::UpdateOf& of) {
                return detail::sgd_update<T>(parameter, slope, moment, {momentum, of.decays ? weight_decay : 0.0, of.factor * step_rate, gradient_scale, nesterov});
            },
            factor, model, gradient, state.momentum);
    }
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/train/optimizer.impl.hpp>
#endif
