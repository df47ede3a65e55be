// Evaluation on the device: one kernel for each elementwise chain, and for each reduction, product or permutation in it.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/shape.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tensor/cuda_tensor.cuh>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI::cuda {

namespace detail {

inline constexpr unsigned threads_a_block = 256;
/// The kernels stride over what a grid does not cover, so this is a choice and not a limit.
inline constexpr std::size_t most_blocks = std::size_t{1} << 20;
/// Rows and columns of a matrix product that a block computes.
inline constexpr unsigned tile = 16;

/// Reads one element.
template <Real T>
struct ScalarAccess {
    std::size_t j;

    template <class From>
    __device__ T load(const From* row) const {
        return static_cast<T>(row[j]);
    }
    template <class From>
    __device__ T splat(From value) const {
        return static_cast<T>(value);
    }
};

template <std::size_t Rank>
__device__ Extents<Rank> element_index(const Extents<Rank>& extents, std::size_t element) {
    Extents<Rank> index{};
    for (std::size_t axis = Rank; axis-- > 0;) {
        index[axis] = element % extents[axis];
        element /= extents[axis];
    }
    return index;
}

template <Real T, std::size_t Rank, class E>
__device__ T element_at(const E& e, const Extents<Rank>& index) {
    return e.cursor(index).get(ScalarAccess<T>{index[Rank - 1]});
}

template <bool Flat, class T, std::size_t Rank, class E>
__global__ void write_elements(T* out, Extents<Rank> extents, std::size_t count, E e) {
    using C = Compute<T>;
    const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
    for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        if constexpr (Flat) {
            out[i] = static_cast<T>(e.cursor(WholeTensor{}).get(ScalarAccess<C>{i}));
        } else {
            out[i] = static_cast<T>(element_at<C>(e, element_index(extents, i)));
        }
    }
}

/// Folds one value of every thread of the block; each thread gets the result.
template <class F, Real T>
__device__ T fold_block(T value) {
    __shared__ T values[threads_a_block];
    __syncthreads();
    values[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = threads_a_block / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] = F{}(values[threadIdx.x], values[threadIdx.x + half]);
        __syncthreads();
    }
    return values[0];
}

/// A block computes a result where its elements are contiguous; elsewhere a thread does, and its neighbours compute the
/// neighbouring results, so that memory is read in order either way.
template <class Op, std::size_t Axis, Real T, class E, std::size_t Rank>
__global__ void reduce_axis(T* out, Extents<Rank> kept, std::size_t count, std::size_t width, E e) {
    constexpr bool by_block = Axis + 1 == Rank;
    const std::size_t first = by_block ? blockIdx.x : std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const std::size_t step = by_block ? gridDim.x : std::size_t{gridDim.x} * blockDim.x;
    const std::size_t first_k = by_block ? threadIdx.x : 0;
    const std::size_t step_k = by_block ? blockDim.x : 1;
    for (std::size_t i = first; i < count; i += step) {
        Extents<Rank> index = element_index(kept, i);
        T maximum{0};
        if constexpr (Op::needs_maximum) {
            maximum = tandem::detail::lowest<T>;
            for (std::size_t k = first_k; k < width; k += step_k) {
                index[Axis] = k;
                maximum = functions::Maximum{}(maximum, element_at<T>(e, index));
            }
            if constexpr (by_block) maximum = fold_block<functions::Maximum>(maximum);
        }
        T sum{0};
        for (std::size_t k = first_k; k < width; k += step_k) {
            index[Axis] = k;
            sum = Op::combine(sum, element_at<T>(e, index), maximum);
        }
        if constexpr (by_block) sum = fold_block<functions::Add>(sum);
        if (!by_block || threadIdx.x == 0) {
            out[i] = Op::needs_maximum && std::isinf(maximum) ? maximum : Op::finish(sum, maximum);
        }
    }
}

/// Reads the tile of an operand that starts at (row, column), zeros past its edges; neighbouring threads read
/// neighbouring elements whichever way the operand lies.
template <Real T, Element From>
__device__ void load_tile(const kernels::Operand<From>& operand, std::size_t row, std::size_t column, std::size_t rows,
                          std::size_t columns, T (&to)[tile][tile + 1]) {
    const bool by_rows = operand.column_stride == 1;
    const unsigned i = by_rows ? threadIdx.y : threadIdx.x;
    const unsigned j = by_rows ? threadIdx.x : threadIdx.y;
    const bool inside = row + i < rows && column + j < columns;
    to[i][j] = inside ? static_cast<T>(operand.data[(row + i) * operand.row_stride + (column + j) * operand.column_stride])
                      : T{0};
}

template <Real T, Element A, Element B>
__global__ void multiply(kernels::Operand<A> a, kernels::Operand<B> b, T* out, std::size_t rows, std::size_t columns,
                         std::size_t inner) {
    // One column more than is used, so that a column's elements lie in different banks.
    __shared__ T left[tile][tile + 1];
    __shared__ T right[tile][tile + 1];
    const std::size_t tiles_a_row = (columns + tile - 1) / tile;
    const std::size_t row = blockIdx.x / tiles_a_row * tile, column = blockIdx.x % tiles_a_row * tile;
    T sum{0};
    for (std::size_t k = 0; k < inner; k += tile) {
        load_tile(a, row, k, rows, inner, left);
        load_tile(b, k, column, inner, columns, right);
        __syncthreads();
        for (unsigned i = 0; i < tile; ++i) sum += left[threadIdx.y][i] * right[i][threadIdx.x];
        __syncthreads();
    }
    if (row + threadIdx.y < rows && column + threadIdx.x < columns) {
        out[(row + threadIdx.y) * columns + column + threadIdx.x] = sum;
    }
}

// Where element i of a permutation stands in its operand.
struct TransposePosition {
    std::size_t rows, columns;
    __device__ std::size_t operator()(std::size_t i) const { return i % rows * columns + i / rows; }
};
struct DiagonalPosition {
    std::size_t columns;
    __device__ std::size_t operator()(std::size_t i) const { return i * (columns + 1); }
};
struct GatherPosition {
    std::size_t columns;
    const Id* ids;
    __device__ std::size_t operator()(std::size_t i) const { return i * columns + static_cast<std::size_t>(ids[i]); }
};

template <class T, class From, class Position>
__global__ void pick_elements(T* out, const From* from, std::size_t count, Position position) {
    const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
    for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        out[i] = static_cast<T>(from[position(i)]);
    }
}

/// Blocks for `count` pieces of work, `per_block` of them to a block.
inline unsigned blocks_for(std::size_t count, std::size_t per_block) {
    return static_cast<unsigned>(std::min(most_blocks, (count + per_block - 1) / per_block));
}

/// A kernel that followed a host pointer would take the whole process's device context down with it.
inline void check_on_device(const void* data, std::size_t size) {
    if (size == 0) return;
    cudaPointerAttributes attributes{};
    check("cudaPointerGetAttributes", cudaPointerGetAttributes(&attributes, data));
    if (attributes.type == cudaMemoryTypeUnregistered) {
        throw Error("cuda::assign", "tensors in device memory", "one in host memory; copy it into a DeviceTensor");
    }
}

/// out = e for an expression of elementwise nodes and leaves only.
template <class T, class S, class E>
void write(const View<T, S>& out, const E& e) {
    if (out.size() == 0) return;
    write_elements<S::rank == 0 || tandem::detail::is_flat<S, E>()>
        <<<blocks_for(out.size(), threads_a_block), threads_a_block>>>(out.data(), out.extents(), out.size(), e);
    check("launch of an elementwise kernel", cudaGetLastError());
}

template <class T, class From, class Position>
void pick(T* out, const From* from, std::size_t count, const Position& position) {
    if (count == 0) return;
    pick_elements<<<blocks_for(count, threads_a_block), threads_a_block>>>(out, from, count, position);
    check("launch of a permutation kernel", cudaGetLastError());
}

/// The results of the nodes that an elementwise kernel cannot compute, each computed once however often it occurs.
class Results {
public:
    /// The leaf that holds the result of `node`, which compute() returns as a DeviceTensor.
    template <class Node, class Make>
    auto result(const Node& node, const Make& compute) {
        using Stored = decltype(compute());
        tandem::detail::Key key;
        node.write_key(key);
        const void* type = &tandem::detail::type_mark<Node>;
        for (const Slot& slot : slots_) {
            if (slot.type == type && slot.key == key) return leaf_of(*static_cast<const Stored*>(slot.tensor.get()));
        }
        auto tensor = std::make_shared<const Stored>(compute());
        slots_.push_back({type, std::move(key), tensor});
        return leaf_of(*tensor);
    }

private:
    struct Slot {
        const void* type;
        tandem::detail::Key key;
        std::shared_ptr<const void> tensor;
    };

    template <class T, class S>
    static Leaf<T, S> leaf_of(const DeviceTensor<T, S>& tensor) {
        return Leaf<T, S>(tensor.view());
    }

    std::vector<Slot> slots_;
};

// prepare(node, results): the same expression with elementwise nodes and leaves in device memory only.
template <Element T, class S>
auto prepare(const Leaf<T, S>& leaf, Results&) {
    check_on_device(leaf.view.data(), leaf.view.size());
    return Leaf<T, S>(leaf.view);
}

template <Element T, class S, class Owner>
auto prepare(const Held<T, S, Owner>& held, Results& results) {
    if constexpr (std::same_as<Owner, DeviceTensor<T, S>>) {
        return Leaf<T, S>(held.tensor->view());
    } else {
        return results.result(held, [&] { return DeviceTensor<T, S>(*held.tensor); });
    }
}

inline auto prepare(const Constant& constant, Results&) { return constant; }

template <class F, class... Operands>
auto prepare(const Apply<F, Operands...>& node, Results& results) {
    return std::apply([&](const auto&... operand) { return apply<F>(prepare(operand, results)...); }, node.operands);
}

template <class S, class E>
auto prepare(const Expand<S, E>& node, Results& results) {
    auto operand = prepare(node.operand, results);
    return Expand<S, decltype(operand)>(std::move(operand), node.extents());
}

template <Expression Node>
    requires requires { typename Node::has_rule; }
auto prepare(const Node& node, Results& results) {
    return results.result(node, [&] {
        auto out = DeviceTensor<typename Node::element, typename Node::shape>::uninitialised(node.extents());
        compute(node, out, results);
        return out;
    });
}

/// The expression as one leaf in memory.
template <class E>
auto in_memory(const E& e, Results& results) {
    if constexpr (tandem::detail::is_leaf<decltype(prepare(e, results))>) {
        return prepare(e, results);
    } else {
        return prepare(Materialised<E>(e), results);
    }
}

template <class E>
auto factor_of(const E& e, Results& results) {
    const auto leaf = in_memory(e, results);
    return kernels::row_major(leaf.view.data(), leaf.view.extent(1));
}
template <class E>
auto factor_of(const Transposed<E>& e, Results& results) {
    return factor_of(e.operand, results).transposed();
}

// compute(node, out, results): the result of a node that has a rule on the host.
template <class Op, std::size_t Axis, bool Keep, class E, class Out>
void compute(const Reduction<Op, Axis, Keep, E>& node, Out& out, Results& results) {
    const auto operand = prepare(node.operand, results);
    if (out.size() == 0) return;
    const auto extents = operand.extents();
    const std::size_t a_block = Axis + 1 == E::shape::rank ? 1 : threads_a_block;
    reduce_axis<Op, Axis><<<blocks_for(out.size(), a_block), threads_a_block>>>(
        out.data(), without_axis<Axis, true>(extents), out.size(), extents[Axis], operand);
    check("launch of a reduction kernel", cudaGetLastError());
}

template <class A, class B, class Out>
void compute(const Product<A, B>& node, Out& out, Results& results) {
    const auto a = factor_of(node.a, results);
    const auto b = factor_of(node.b, results);
    if (out.size() == 0) return;
    const std::size_t rows = out.extent(0), columns = out.extent(1);
    const std::size_t tiles = (rows + tile - 1) / tile * ((columns + tile - 1) / tile);
    multiply<<<static_cast<unsigned>(tiles), dim3(tile, tile)>>>(a, b, out.data(), rows, columns, node.a.extents()[1]);
    check("launch of a matrix product kernel", cudaGetLastError());
}

template <class E, class Out>
void compute(const Materialised<E>& node, Out& out, Results& results) {
    write(out.view(), prepare(node.operand, results));
}

template <class E, class Out>
void compute(const Transposed<E>& node, Out& out, Results& results) {
    const auto operand = in_memory(node.operand, results);
    pick(out.data(), operand.view.data(), out.size(), TransposePosition{operand.view.extent(0), operand.view.extent(1)});
}

template <class E, class Out>
void compute(const Diagonal<E>& node, Out& out, Results& results) {
    const auto operand = in_memory(node.operand, results);
    pick(out.data(), operand.view.data(), out.size(), DiagonalPosition{operand.view.extent(1)});
}

/// The ids stand in host memory, where gather() has checked them.
template <class E, class Ids, class Out>
void compute(const Gathered<E, Ids>& node, Out& out, Results& results) {
    const auto operand = in_memory(node.operand, results);
    const DeviceTensor<Id, Ids> ids(node.ids);
    pick(out.data(), operand.view.data(), out.size(), GatherPosition{operand.view.extent(1), ids.data()});
}

}  // namespace detail

/// out = e on the device, complete when the call returns. An elementwise chain may read what it overwrites, as on the
/// host. Throws Error where extents disagree, a tensor of e stands in host memory, or a CUDA call fails.
template <class T, class S, TensorOperand X>
    requires(!std::is_const_v<T> && Real<Compute<T>>)
void assign(const View<T, S>& out, X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    using E = std::remove_const_t<decltype(e)>;
    static_assert(can_broadcast<S, typename E::shape> && S::rank >= E::shape::rank,
                  "tandem: the expression's shape does not fit the tensor it is assigned to");
    static_assert(std::same_as<Compute<T>, typename E::element>,
                  "tandem: the expression's element type is not that of the tensor it is assigned to");
    const auto extents = broadcast_extents<S, typename E::shape>(out.extents(), e.extents());
    if (extents != out.extents()) throw Error("cuda::assign", to_string(out.extents()), to_string(e.extents()));
    detail::check_on_device(out.data(), out.size());
    detail::Results results;
    detail::write(out, prepare(e, results));
    // The operands' memory may go when this returns, and a failed kernel is reported by the evaluation it belongs to.
    detail::check("cudaDeviceSynchronize", cudaDeviceSynchronize());
}

template <Element T, class S, TensorOperand X>
void assign(DeviceTensor<T, S>& out, X&& x) {
    cuda::assign(out.view(), std::forward<X>(x));
}

/// The value of an expression over device memory, as a tensor in device memory.
template <TensorOperand X>
auto evaluate(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    using E = std::remove_const_t<decltype(e)>;
    auto result = DeviceTensor<typename E::element, typename E::shape>::uninitialised(e.extents());
    cuda::assign(result.view(), e);
    return result;
}

}  // namespace tandem::inline TANDEM_ABI::cuda
