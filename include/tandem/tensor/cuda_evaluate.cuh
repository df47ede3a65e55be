// Evaluation on the device: a kernel for each elementwise chain, and for each reduction, product or permutation in it.
#pragma once

#include <algorithm>
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
#include <tandem/tensor/cuda_kernels.cuh>
#include <tandem/tensor/cuda_tensor.cuh>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/pick.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI::cuda {

namespace detail {

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

    /// Keeps what a kernel reads until the evaluation has ended.
    void keep(std::shared_ptr<const void> owner) { owners_.push_back(std::move(owner)); }

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
    std::vector<std::shared_ptr<const void>> owners_;
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
    multiply<<<blocks_for(tiles, 1), dim3(tile, tile)>>>(a, b, out.data(), rows, columns, node.a.extents()[1]);
    check("launch of a matrix product kernel", cudaGetLastError());
}

template <class E, class Out>
void compute(const Materialised<E>& node, Out& out, Results& results) {
    write(out.view(), prepare(node.operand, results));
}

template <class E, class Out>
void compute(const Transposed<E>& node, Out& out, Results& results) {
    const auto operand = in_memory(node.operand, results);
    pick(out.data(), operand.view.data(), out.size(),
         TransposePosition{operand.view.extent(0), operand.view.extent(1)});
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
    const auto ids = std::make_shared<const DeviceTensor<Id, Ids>>(node.ids);
    results.keep(ids);
    pick(out.data(), operand.view.data(), out.size(), GatherPosition{operand.view.extent(1), ids->data()});
}

}  // namespace detail

/// out = e on the device, complete when the call returns. An elementwise chain may read what it overwrites, as on the
/// host. Throws Error where extents disagree, a tensor of e stands in host memory, or a CUDA call fails.
template <class T, class S, TensorOperand X>
requires(!std::is_const_v<T> && Real<Compute<T>>) void assign(const View<T, S>& out, X&& x) {
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
