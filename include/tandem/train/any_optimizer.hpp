// An optimizer that is chosen when a program runs.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <variant>

#include <tandem/core/error.hpp>
#include <tandem/train/optimizer.hpp>

namespace tandem::inline TANDEM_ABI {

/// One of the library's optimizers: a program that lets its user choose compiles one Trainer for all of them. Its runs are those of the optimizer
/// itself, to the bit, and go on from each other's snapshots.
class AnyOptimizer {
public:
    using Chosen = std::variant<AdamW, Lion, Muon, Sgd>;

    const double rate;  ///< the chosen one's

    template <class Optimizer>
        requires std::constructible_from<Chosen, Optimizer>
    AnyOptimizer(Optimizer optimizer) : rate(optimizer.rate), chosen_(std::move(optimizer)) {}

    const Chosen& chosen() const { return chosen_; }

    /// As the chosen one's.
    void check() const {
        std::visit([](const auto& optimizer) { optimizer.check(); }, chosen_);
    }

    /// What the chosen one keeps; nothing before prepare().
    template <class Model>
    struct State {
        std::variant<std::monostate, AdamW::State<Model>, detail::Momentum<Model>> kept;
        std::size_t updates = 0;

        void reset() { kept = std::monostate{}, updates = 0; }

        static void moments(const auto& visit, auto& state) {
            std::visit(
                [&]<class Kept>(Kept& kept) {
                    if constexpr (!std::same_as<std::remove_const_t<Kept>, std::monostate>) Kept::moments(visit, kept);
                },
                state.kept);
        }
    };

    /// Makes a state ready for update(), as before the first one.
    template <class Model>
    void prepare(State<Model>& state) const {
        std::visit([&]<class Optimizer>(const Optimizer&) { state.kept.template emplace<typename Optimizer::template State<Model>>(); }, chosen_);
    }

    /// As AdamW's. Throws Error for a state that was not prepared for the chosen one.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate, double gradient_scale = 1.0,
                const RateFactor& factor = {}) const {
        return std::visit(
            [&]<class Optimizer>(const Optimizer& optimizer) {
                auto* const kept = std::get_if<typename Optimizer::template State<Model>>(&state.kept);
                if (kept == nullptr) throw Error("AnyOptimizer::update", "a state that prepare() made ready", "another");
                kept->updates = state.updates;
                const bool are_finite = optimizer.update(model, gradient, *kept, step_rate, gradient_scale, factor);
                state.updates = kept->updates;
                return are_finite;
            },
            chosen_);
    }

private:
    Chosen chosen_;
};

}  // namespace tandem::inline TANDEM_ABI
