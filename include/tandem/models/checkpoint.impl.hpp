// Definitions of models/checkpoint.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/images/filter.hpp>
#include <tandem/models/architecture.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/naming.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The shape the file must hold each of `parts` tensors in.
TANDEM_INLINE std::vector<std::size_t> stored_shape(std::vector<std::size_t> shape, const Source& source) {
    if (source.transposed) std::reverse(shape.begin(), shape.end());
    if (!shape.empty()) shape[0] = shape[0] / source.names.size() / (source.last - source.first) * source.shares;
    return shape;
}

TANDEM_INLINE bool is_floating(DataType type) {
    return type == DataType::F32 || type == DataType::F16 || type == DataType::BF16 || type == DataType::F64;
}

/// Up to axes of 1 in front: a scalar may be stored as [] or [1], positions with an axis for the batch.
TANDEM_INLINE bool same_shape(std::span<const std::size_t> a, std::span<const std::size_t> b) {
    while (!a.empty() && a.front() == 1) a = a.subspan(1);
    while (!b.empty() && b.front() == 1) b = b.subspan(1);
    return std::ranges::equal(a, b);
}

TANDEM_INLINE StoredTensor rows_of(StoredTensor stored, const Source& source) {
    if (source.shares == 1) return stored;
    const std::size_t share = stored.data.size() / source.shares;
    stored.data = stored.data.subspan(source.first * share, (source.last - source.first) * share);
    stored.shape[0] = stored.shape[0] / source.shares * (source.last - source.first);
    return stored;
}

/// How many elements of a floating-point tensor are infinite or NaN: whose exponent's bits are all set.
[[gnu::cold]] TANDEM_INLINE std::size_t count_not_finite(const StoredTensor& tensor) {
    const auto count = [&]<class Word>(Word exponent) {
        std::size_t found = 0;
        for (std::size_t at = 0; at < tensor.data.size(); at += sizeof(Word)) {
            Word word;
            std::memcpy(&word, tensor.data.data() + at, sizeof word);
            found += static_cast<std::size_t>((word & exponent) == exponent);
        }
        return found;
    };
    if (tensor.type == DataType::F32) return count(std::uint32_t{0x7f800000});
    if (tensor.type == DataType::F16) return count(std::uint16_t{0x7c00});
    if (tensor.type == DataType::BF16) return count(std::uint16_t{0x7f80});
    return count(std::uint64_t{0x7ff0000000000000});
}

TANDEM_INLINE CheckpointFit::CheckpointFit(const WeightFiles& file, const LoadOptions& options)
    : file_(file),
      naming_(file),
      options_(options),
      used_(file.tensors().size()),
      used_unreadable_(file.unreadable().size()) {}

TANDEM_INLINE void CheckpointFit::expect_computed(const std::string& name) {
    if (const StoredTensor* const stored = file_.find(naming_(name).names.front()); stored != nullptr)
        used_[position_of(*stored)] = true;
}

TANDEM_INLINE void CheckpointFit::resize_positions(std::string name, std::size_t prefix, const ImageSize& grid) {
    positions_ = std::move(name);
    prefix_ = prefix;
    grid_ = grid;
}

TANDEM_INLINE void CheckpointFit::load(const std::vector<LoadTarget>& targets, std::string_view where,
                                       std::string_view assumed) {
    std::vector<const LoadTarget*> wanted;
    for (const LoadTarget& target : targets) {
        if (check(target)) wanted.push_back(&target);
    }
    require(where, assumed);
    for (const LoadTarget* const target : wanted) target->read(*this, *target);
}

TANDEM_INLINE std::size_t CheckpointFit::elements_of(std::span<const std::size_t> shape) {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

TANDEM_INLINE bool CheckpointFit::resizes(const std::string& name, std::span<const std::size_t> stored,
                                          std::span<const std::size_t> wanted) const {
    if (name != positions_ || stored.size() < 2 || stored.back() != wanted.back()) return false;
    const std::size_t rows = elements_of(stored) / stored.back();
    return rows > prefix_ && side_of_square(rows - prefix_) > 0;
}

TANDEM_INLINE std::size_t CheckpointFit::position_of(const StoredTensor& tensor) const {
    return static_cast<std::size_t>(&tensor - file_.tensors().data());
}

TANDEM_INLINE std::size_t CheckpointFit::position_of(const UnreadableTensor& tensor) const {
    return static_cast<std::size_t>(&tensor - file_.unreadable().data());
}

TANDEM_INLINE bool CheckpointFit::is_left_out(std::string_view name) const {
    const auto begins = [&](std::initializer_list<std::string_view> prefixes) {
        return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return name.starts_with(prefix); });
    };
    if (options_.towers == Towers::both) return false;
    if (begins({"logit_", "temperature"})) return true;
    return begins({"visual.", "vision_model.", "visual_projection."}) != (options_.towers == Towers::image);
}

TANDEM_INLINE bool CheckpointFit::is_behind_tokens(std::string_view name) {
    return name.starts_with("visual.proj") || name.starts_with("visual.attn_pool.") ||
           name.starts_with("text_projection") || name.starts_with("logit_");
}

[[gnu::cold]] TANDEM_INLINE bool CheckpointFit::check(const LoadTarget& target) {
    const Source source = naming_(target.name);
    const auto expected = stored_shape(target.shape, source);
    const bool is_left = is_left_out(target.name);
    bool is_there = true;
    for (const std::string& key : source.names) {
        const StoredTensor* stored = file_.find(key);
        is_there = is_there && stored != nullptr;
        if (stored != nullptr) used_[position_of(*stored)] = true;
        const UnreadableTensor* const unreadable = stored == nullptr ? file_.find_unreadable(key) : nullptr;
        if (unreadable != nullptr) used_unreadable_[position_of(*unreadable)] = true;
        const bool is_absent = stored == nullptr && unreadable == nullptr;
        if (is_left || (is_absent && options_.tokens_only && is_behind_tokens(target.name))) continue;
        ++asked_;
        if (unreadable != nullptr) {
            unfit_.push_back(key + ": " + unreadable->reason);
        } else if (stored == nullptr) {
            missing_.push_back(key + ": missing");
        } else if (const std::string fault = fault_of(*stored, target, expected); !fault.empty()) {
            unfit_.push_back(key + ": " + fault);
        }
    }
    return is_there && !is_left;
}

[[gnu::cold]] TANDEM_INLINE std::string CheckpointFit::fault_of(const StoredTensor& stored, const LoadTarget& target,
                                                                const std::vector<std::size_t>& expected) const {
    if (!same_shape(stored.shape, expected) && !resizes(target.name, stored.shape, expected))
        return "expected " + shape_text(expected) + ", found " + shape_text(stored.shape);
    if (!is_floating(stored.type)) {
        return "expected elements of F64, F32, F16 or BF16, found " + std::string(tandem::name(stored.type)) +
               (tandem::name(stored.type).starts_with("F8") ? "; save it as tensor.float()" : "");
    }
    if (!options_.check_finite) return {};
    const std::size_t count = count_not_finite(stored);
    file_.forget(stored);  // or all of the file would be held at once
    if (count > 0) return "expected finite elements, found " + std::to_string(count) + " that are infinite or NaN";
    return {};
}

[[gnu::cold]] TANDEM_INLINE void CheckpointFit::require(std::string_view where, std::string_view assumed) const {
    std::vector<std::string> unexpected;
    bool is_adapted = false;
    for (const UnreadableTensor& tensor : file_.unreadable()) {
        if (tensor.is_tensor && !used_unreadable_[position_of(tensor)] && !naming_.is_ignored(tensor.name) &&
            !is_left_out(tensor.name))
            unexpected.push_back(tensor.name + ": unexpected, " + tensor.reason);
    }
    for (const StoredTensor& tensor : file_.tensors()) {
        if (used_[position_of(tensor)] || naming_.is_ignored(tensor.name) || is_left_out(tensor.name)) continue;
        unexpected.push_back(tensor.name + ": unexpected");
        is_adapted = is_adapted || tensor.name.find("lora_") != std::string::npos;
    }
    if (missing_.empty() && unfit_.empty() && unexpected.empty()) return;
    const std::string of = " of " + std::to_string(asked_) + " tensors ";
    std::string text = "the checkpoint does not fit the model: " + std::to_string(missing_.size()) + of +
                       "are missing, " + std::to_string(unfit_.size()) + " do not fit, " +
                       std::to_string(unexpected.size()) + " others are unexpected; assumed was " +
                       std::string(assumed) + ", under the names of " + naming_.scheme();
    if (is_adapted) text += "\n  lora_ tensors are adapters: save the model after merge_and_unload()";
    for (const std::vector<std::string>* const faults : {&unfit_, &missing_, &std::as_const(unexpected)}) {
        constexpr std::size_t most = 10;
        for (std::size_t i = 0; i < std::min(most, faults->size()); ++i) text += "\n  " + (*faults)[i];
        if (faults->size() > most) {
            text += "\n  and " + std::to_string(faults->size() - most) + " more" +
                    (faults == &unfit_     ? ""
                     : faults == &missing_ ? ": missing"
                                           : ": unexpected");
        }
    }
    throw Error(where, text);
}

[[gnu::noinline]] TANDEM_INLINE void LoadTargets::add(const ParameterName& name, const std::size_t* extents,
                                                      std::size_t rank, void* parameter, std::size_t size,
                                                      decltype(LoadTarget::read) read) {
    targets_.push_back({std::string(name), {extents, extents + rank}, parameter, size, read});
}

}  // namespace tandem::inline TANDEM_ABI::detail
