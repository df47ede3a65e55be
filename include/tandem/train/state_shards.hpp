// The optimizer's state in shares: each of several ranks has that of its parameters.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <tandem/core/memory.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/train/optimizer.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Tensors by the ranks that have them.
template <class T>
using ByRank = std::vector<std::vector<std::span<T>>>;

/// Each rank's tensors are there, and then all ranks have all. Each tensor goes once to every other rank, a few megabytes at a time, through `room`.
template <class T>
void share_tensors(Ranks& ranks, const ByRank<T>& tensors, SumRoom<T>& room);

/// The same, but that only the first rank gets them.
template <class T>
void collect_tensors(Ranks& ranks, const ByRank<T>& tensors);

/// Which rank updates which parameter, and has its moments: ZeRO's first stage (Rajbhandari et al. 2020, arXiv:1910.02054, section 5.1), by whole
/// parameters, so that an optimizer sees each as it always does: where its update of one depends on no other, it has the same bits. A rank has at least
/// the largest parameter's moments.
class StateShards {
public:
    /// None: this process has all.
    StateShards() = default;
    /// Parameters that learn, by name and size: the largest first, each to the rank that has least.
    StateShards(Ranks& ranks, const std::vector<std::pair<std::string, std::size_t>>& sizes);

    explicit operator bool() const { return ranks_ != nullptr; }

    /// The rank that has a parameter; none of one that does not learn.
    std::optional<std::size_t> owner(std::string_view name) const {
        const auto found = owners_.find(name);
        return found == owners_.end() ? std::nullopt : std::optional(found->second);
    }
    bool is_mine(std::string_view name) const { return owner(name) == ranks_->rank(); }

    /// `rest`, and 0 for parameters that other ranks update.
    RateFactor of_mine(RateFactor rest) const;

    /// Gives the memory of what other ranks have of a moment back to the system: zeros, until it is written.
    template <class Model>
    void release(Model& moment) const {
        for_each_parameter(
            [&](const ParameterName& name, auto& tensor) {
                if (!is_mine(name.view())) zero_and_release(std::as_writable_bytes(tensor.elements()));
            },
            moment);
    }

    /// All ranks get each parameter from the one that updated it.
    template <class Model>
    void share(Model& model) {
        share_tensors<typename Model::C>(*ranks_, by_rank(model), std::get<SumRoom<typename Model::C>>(room_));
    }

    /// The first rank gets what the others have of a moment.
    template <class Model>
    void collect(Model& moment) const {
        collect_tensors<typename Model::C>(*ranks_, by_rank(moment));
    }

private:
    template <class Model>
    ByRank<typename Model::C> by_rank(Model& model) const {
        ByRank<typename Model::C> tensors(ranks_->size());
        for_each_parameter(
            [&](const ParameterName& name, auto& tensor) {
                if (const auto rank = owner(name.view())) tensors[*rank].push_back(tensor.elements());
            },
            model);
        return tensors;
    }

    Ranks* ranks_ = nullptr;
    std::map<std::string, std::size_t, std::less<>> owners_;
    std::tuple<SumRoom<float>, SumRoom<double>> room_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/train/state_shards.impl.hpp>
#endif
