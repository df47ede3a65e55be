// The one list of parameters: every layer names its tensors once, and loading, saving, counting, initialising and
// updating walk that list.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/tensor/packed.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// The name of a parameter, in memory of its own: walking a model allocates nothing. Wherever a std::string is wanted, it
/// is one, and the other way round.
class ParameterName {
public:
    static constexpr std::size_t capacity = 256;

    ParameterName() = default;
    /// Throws Error if the text has more than `capacity` bytes.
    ParameterName(const std::string& text) { append(text); }

    // Not inlined: a model's list has it once a parameter.
    [[gnu::noinline]] friend ParameterName operator+(const ParameterName& left, std::string_view right) {
        ParameterName name = left;
        name.append(right);
        return name;
    }

    [[gnu::noinline]] operator std::string() const { return std::string(view()); }
    std::string_view view() const { return {text_.data(), size_}; }

private:
    void append(std::string_view more) {
        if (more.size() > capacity - size_) {
            throw Error("ParameterName", "at most " + std::to_string(capacity) + " bytes",
                        std::string(view()) + std::string(more));
        }
        std::copy(more.begin(), more.end(), text_.begin() + static_cast<std::ptrdiff_t>(size_));
        size_ += more.size();
    }

    std::array<char, capacity> text_{};
    std::size_t size_ = 0;
};

/// Calls visitor(name, tensor...) for every parameter of `model` and of the models of the same type beside it, in
/// lockstep: the gradients, moments and averages of a model are values of the model's own type. A layer takes part
/// through
///     static void parameters(const auto& visit, const ParameterName& at, auto&... self)
/// which calls visit(at + "weight", self.weight...) and passes `at + "part."` to the layers it holds. Names are
/// open_clip's.
template <class Visitor, class Model, class... Same>
void for_each_parameter(Visitor&& visitor, Model& model, Same&... same) {
    static_assert((std::is_same_v<std::remove_const_t<Model>, std::remove_const_t<Same>> && ...),
                  "tandem: for_each_parameter walks models of one type in lockstep");
    std::remove_const_t<Model>::parameters(visitor, ParameterName(), model, same...);
}

/// A mean over the batches a model has seen, which is listed, saved and loaded with the parameters and is none: it has no
/// gradient. In a gradient it stands for its difference from the last batch's; an update moves it by `momentum` of that.
template <Real C>
struct RunningMean : Tensor<C, Shape<dynamic>> {
    static constexpr double momentum = 0.1;  // torch.nn.BatchNorm2d's

    using Tensor<C, Shape<dynamic>>::Tensor;
};

/// Whether what a model lists is a RunningMean, and no parameter.
template <class Listed>
inline constexpr bool is_running_mean = requires { std::remove_cvref_t<Listed>::momentum; };

/// The number of scalars in all parameters.
template <class Model>
std::size_t count_parameters(const Model& model) {
    std::size_t count = 0;
    for_each_parameter([&](const ParameterName&, const auto& tensor) { count += is_running_mean<decltype(tensor)> ? 0 : tensor.size(); },
                       model);
    return count;
}

/// Sets every parameter to zero, as gradients are before a step.
template <class Model>
void zero_parameters(Model& model) {
    for_each_parameter([](const ParameterName&, auto& tensor) { tensor.fill(0); }, model);
}

/// Fills a parameter with normal random numbers of mean 0, in row-major order whatever its layout.
template <Element T, class S>
void fill_normal(Tensor<T, S>& tensor, Random& random, double deviation) {
    for (T& value : tensor.elements()) value = static_cast<T>(static_cast<Compute<T>>(deviation * random.normal()));
}
template <Arithmetic T, class S>
void fill_normal(PackedMatrix<T, S>& weight, Random& random, double deviation) {
    Tensor<typename PackedMatrix<T, S>::element, S> values(weight.extents());
    fill_normal(values, random, deviation);
    weight.pack(values.data());
}

/// What the initialisation of a part depends on.
struct InitScale {
    std::size_t width = 0;
    std::size_t layers = 0;

    /// width^-1/2 · (2 · layers)^-1/2: for the projections that write into the residual stream, of which there are two
    /// a layer (CLIP/clip/model.py:316-323).
    double residual() const { return std::pow(static_cast<double>(width * 2 * layers), -0.5); }
    double attention() const { return std::pow(static_cast<double>(width), -0.5); }
    double hidden() const { return std::pow(static_cast<double>(2 * width), -0.5); }
};

/// Initialises a part: by its own initialise(random, scale), or, where it has none, every matrix as N(0, 1 / fan-in)
/// and vectors as they were made.
template <class Part>
void initialise_part(Part& part, Random& random, const InitScale& scale) {
    if constexpr (requires { part.initialise(random, scale); }) {
        part.initialise(random, scale);
    } else {
        const auto fill = [&](const ParameterName&, auto& tensor) {
            if constexpr (std::remove_reference_t<decltype(tensor)>::shape::rank >= 2) {
                const double fan_in = static_cast<double>(tensor.size() / tensor.extents()[0]);
                fill_normal(tensor, random, 1.0 / std::sqrt(fan_in));
            }
        };
        for_each_parameter(fill, part);
    }
}

/// What a backward pass computes again instead of finding it in memory: of a transformer the `first` blocks from the front, of which the
/// inputs alone are kept, and which are run once more before their backward pass (Chen et al. 2016, arXiv:1604.06174; all of them:
/// open_clip's --grad-checkpointing). What the last block left is there anyway. Gradients are the same to the bit; a forward pass has one
/// backward pass.
struct Recompute {
    std::size_t first = 0;

    static const Recompute nothing, blocks;

    /// Blocks of so many that are computed again.
    constexpr std::size_t of(std::size_t layers) const { return std::min(first, layers - 1); }
    friend constexpr bool operator==(const Recompute&, const Recompute&) = default;
};
/// No block.
inline constexpr Recompute Recompute::nothing{};
/// All blocks.
inline constexpr Recompute Recompute::blocks{std::numeric_limits<std::size_t>::max()};

/// What a part costs for one sequence of some number of tokens. Memory counts scalars of the compute type.
struct Cost {
    std::size_t parameters = 0;
    std::size_t matrices = 0;  ///< of the parameters, those in matrices that reduced precision keeps in its own elements
    std::size_t tables = 0;    ///< and those in tables of token rows and projections
    /// Multiplications and additions of the matrix products, two for each multiply-accumulate, as fvcore counts.
    std::size_t flops = 0;
    /// Of these, what is computed after the exact savings.
    std::size_t executed = 0;
    std::size_t inference = 0;  ///< held by a forward pass that keeps nothing
    std::size_t saved = 0;      ///< kept from the forward pass for the backward pass
    std::size_t scratch = 0;    ///< what the backward pass needs beside that, blocks in turn

    /// All that a training step holds for one item.
    constexpr std::size_t training() const { return saved + scratch; }

    friend constexpr Cost operator+(const Cost& a, const Cost& b) {
        return {a.parameters + b.parameters, a.matrices + b.matrices,   a.tables + b.tables, a.flops + b.flops,
                a.executed + b.executed,     a.inference + b.inference, a.saved + b.saved,   a.scratch + b.scratch};
    }
    friend constexpr Cost operator*(std::size_t n, const Cost& a) {
        return {n * a.parameters, n * a.matrices,  n * a.tables, n * a.flops,
                n * a.executed,   n * a.inference, n * a.saved,  n * a.scratch};
    }
    friend constexpr bool operator==(const Cost&, const Cost&) = default;
};

/// The cost of matrix products, all of them computed.
constexpr Cost product_cost(std::size_t flops) { return {.flops = flops, .executed = flops}; }

/// Scalars that a part holds in either pass.
constexpr Cost held_cost(std::size_t scalars) { return {.inference = scalars, .saved = scalars}; }

}  // namespace tandem::inline TANDEM_ABI
