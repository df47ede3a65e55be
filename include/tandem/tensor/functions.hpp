// Elementwise functions: on the host, in SIMD vectors and on the device, each with its derivative beside it.
#pragma once

#include <cmath>
#include <cstddef>
#include <numbers>

#include <tandem/tensor/expression.hpp>

namespace tandem::inline TANDEM_ABI {

// A vector type's own exp, log, max and so on are found by argument-dependent lookup; scalars use these.
namespace detail {

using std::abs;
using std::erf;
using std::exp;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;

template <Real T>
TANDEM_DEVICE T max(T a, T b) {
    return a > b ? a : b;
}
template <Real T>
TANDEM_DEVICE T min(T a, T b) {
    return a < b ? a : b;
}
template <Real T>
TANDEM_DEVICE T select(bool condition, T a, T b) {
    return condition ? a : b;
}

}  // namespace detail

/// The functors behind the operators and functions below.
namespace functions {

struct Add {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a + b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        return g;
    }
};

struct Negate {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        return -a;
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A&) {
        return -g;
    }
};

struct Subtract {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a - b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        if constexpr (I == 0) {
            return g;
        } else {
            return -g;
        }
    }
};

struct Multiply {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a * b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g * b;
        } else {
            return g * a;
        }
    }
};

struct Divide {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a / b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g / b;
        } else {
            return -(g * a / (b * b));
        }
    }
};

struct Greater {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::select;
        return select(a > b, V(1), V(0));
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        return 0.0 * g;
    }
};

struct Equal {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::select;
        return select(a == b, V(1), V(0));
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        return 0.0 * g;
    }
};

/// Where both are equal the gradient goes to the first operand.
struct Maximum {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::max;
        return max(a, b);
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g * (1.0 - apply<Greater>(b, a));
        } else {
            return g * apply<Greater>(b, a);
        }
    }
};

struct Minimum {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::min;
        return min(a, b);
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g * (1.0 - apply<Greater>(a, b));
        } else {
            return g * apply<Greater>(a, b);
        }
    }
};

struct Absolute {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::abs;
        return abs(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * (apply<Greater>(a, Constant(0)) - apply<Greater>(Constant(0), a));
    }
};

struct Exp {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::exp;
        return exp(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * apply<Exp>(a);
    }
};

struct Log {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::log;
        return log(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g / a;
    }
};

struct SquareRoot {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::sqrt;
        return sqrt(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return 0.5 * g / apply<SquareRoot>(a);
    }
};

/// sqrt(a) of a sum of squares. Its gradient at 0 is 0 where sqrt's is infinite: a row of zeros must not make a NaN.
struct Norm {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        return SquareRoot{}(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return 0.5 * g * apply<Greater>(a, Constant(0)) / apply<Maximum>(apply<SquareRoot>(a), Constant(1e-30));
    }
};

struct Tanh {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::tanh;
        return tanh(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        const auto y = apply<Tanh>(a);
        return g * (1.0 - y * y);
    }
};

struct Erf {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::erf;
        return erf(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * (2.0 * std::numbers::inv_sqrtpi) * apply<Exp>(-(a * a));
    }
};

/// 1 / (1 + exp(−a)); exp overflows to infinity for very negative a, and the quotient is then the right 0.
struct Sigmoid {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::exp;
        return V(1) / (V(1) + exp(-a));
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        const auto y = apply<Sigmoid>(a);
        return g * (y * (1.0 - y));
    }
};

/// log(1 + exp(a)) = max(a, 0) + log1p(exp(−|a|)), which does not overflow.
struct Softplus {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::abs, detail::exp, detail::log1p, detail::max;
        return max(a, V(0)) + log1p(exp(-abs(a)));
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * apply<Sigmoid>(a);
    }
};

}  // namespace functions

// At least one operand must be a tensor or an expression; a number may stand for the other.
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator+(A&& a, B&& b) {
    return apply<functions::Add>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator-(A&& a, B&& b) {
    return apply<functions::Subtract>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator*(A&& a, B&& b) {
    return apply<functions::Multiply>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator/(A&& a, B&& b) {
    return apply<functions::Divide>(std::forward<A>(a), std::forward<B>(b));
}
template <TensorOperand A>
auto operator-(A&& a) {
    return apply<functions::Negate>(std::forward<A>(a));
}

/// |a|; its gradient at 0 is 0.
template <TensorOperand A>
auto abs(A&& a) {
    return apply<functions::Absolute>(std::forward<A>(a));
}
/// e to the a, element by element.
template <TensorOperand A>
auto exp(A&& a) {
    return apply<functions::Exp>(std::forward<A>(a));
}
/// The natural logarithm, element by element.
template <TensorOperand A>
auto log(A&& a) {
    return apply<functions::Log>(std::forward<A>(a));
}
/// The square root, element by element; its gradient at 0 is infinite (see norm).
template <TensorOperand A>
auto sqrt(A&& a) {
    return apply<functions::SquareRoot>(std::forward<A>(a));
}
/// The hyperbolic tangent, element by element.
template <TensorOperand A>
auto tanh(A&& a) {
    return apply<functions::Tanh>(std::forward<A>(a));
}
/// The error function, element by element.
template <TensorOperand A>
auto erf(A&& a) {
    return apply<functions::Erf>(std::forward<A>(a));
}
/// 1 / (1 + exp(−a)).
template <TensorOperand A>
auto sigmoid(A&& a) {
    return apply<functions::Sigmoid>(std::forward<A>(a));
}
/// log(1 + exp(a)), without overflow; log σ(a) is −softplus(−a).
template <TensorOperand A>
auto softplus(A&& a) {
    return apply<functions::Softplus>(std::forward<A>(a));
}
/// a · a.
template <TensorOperand A>
auto square(A&& a) {
    const auto x = as_expression(std::forward<A>(a));
    return x * x;
}
/// The larger of each two elements; where they are equal, the gradient goes to a.
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto max(A&& a, B&& b) {
    return apply<functions::Maximum>(std::forward<A>(a), std::forward<B>(b));
}
/// The smaller of each two elements; where they are equal, the gradient goes to a.
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto min(A&& a, B&& b) {
    return apply<functions::Minimum>(std::forward<A>(a), std::forward<B>(b));
}
/// 1 where a > b, else 0; its gradient is zero.
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto greater(A&& a, B&& b) {
    return apply<functions::Greater>(std::forward<A>(a), std::forward<B>(b));
}
/// max(a, 0); its gradient at 0 is 1.
template <TensorOperand A>
auto relu(A&& a) {
    return max(std::forward<A>(a), 0.0);
}

}  // namespace tandem::inline TANDEM_ABI
