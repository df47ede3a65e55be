// Definitions of models/checkpoint.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
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
#include <tandem/models/source.hpp>
#include <tandem/models/unwrap.hpp>
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
      used_unreadable_(file.unreadable().size()),
      has_mlm_head_(std::ranges::any_of(file.tensors(), [](const StoredTensor& tensor) { return tensor.name.find("mlm_head.") != std::string::npos; })) {}

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
    for (const LoadTarget* const target : wanted) target->operations->read(*this, *target);
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

/// Whether a parameter of that name, or a tensor of a file, is of what these towers leave out.
TANDEM_INLINE bool is_left_out(std::string_view name, Towers towers) {
    const auto begins = [&](std::initializer_list<std::string_view> prefixes) {
        return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return name.starts_with(prefix); });
    };
    if (towers == Towers::both) return false;
    if (begins({"logit_", "temperature"})) return true;
    return begins({"visual.", "vision_model.", "visual_projection."}) != (towers == Towers::image);
}

TANDEM_INLINE bool CheckpointFit::is_left_out(std::string_view name) const {
    return detail::is_left_out(name, options_.towers);
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
        if (is_left || (is_absent && ((options_.tokens_only && is_behind_tokens(target.name)) || (!has_mlm_head_ && target.name.starts_with("mlm_head."))))) continue;
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
                                                      const LoadOperations& operations) {
    targets_.push_back({std::string(name), {extents, extents + rank}, parameter, size, &operations});
}

TANDEM_INLINE std::vector<KeptBuffer> LoadTargets::buffers(Towers towers) const {
    std::vector<KeptBuffer> buffers;
    for (const LoadTarget& target : targets_) {
        if (!is_left_out(target.name, towers)) target.operations->list(target, buffers);
    }
    return buffers;
}

TANDEM_INLINE CheckpointFit::~CheckpointFit() = default;

template <class T>
void CheckpointFit::read_resized(const StoredTensor& stored, const std::vector<std::size_t>& shape,
                                 std::span<T> elements) const {
    const std::size_t width = shape[1], rows = elements_of(stored.shape) / width;
    std::vector<float> table(rows * width);
    read_elements(stored, std::span(table));
    const std::vector<float> resized =
        detail::resize_positions(table, prefix_, side_of_square(rows - prefix_), grid_, width);
    std::ranges::transform(resized, elements.begin(), [](float x) { return static_cast<T>(x); });
}

template <class T>
void CheckpointFit::read_into(const LoadTarget& target, std::span<T> elements) const {
    const Source source = naming_(target.name);
    const std::size_t part = elements.size() / source.names.size();
    for (std::size_t i = 0; i < source.names.size(); ++i) {
        const StoredTensor& stored = *file_.find(source.names[i]);
        if (elements_of(stored.shape) == part * source.shares / (source.last - source.first)) {
            read_elements(rows_of(stored, source), elements.subspan(i * part, part));
        } else {
            read_resized(stored, target.shape, elements);
        }
        file_.forget(stored);
    }
    if (source.is_temperature) {
        for (T& x : elements)
            x = static_cast<T>(static_cast<Compute<T>>(-std::log(static_cast<double>(static_cast<Compute<T>>(x)))));
    }
    if (!source.transposed) return;
    const std::vector<T> stored(elements.begin(), elements.end());
    const std::size_t rows = target.shape[0], columns = target.shape[1];
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) elements[i * columns + j] = stored[j * rows + i];
    }
}

template <class T>
void CheckpointFit::read(const CheckpointFit& fit, const LoadTarget& target) {
    fit.read_into(target, std::span<T>(static_cast<Buffer<T>*>(target.parameter)->data(), target.size));
}

template <class T>
void CheckpointFit::read_packed(const CheckpointFit& fit, const LoadTarget& target) {
    using E = typename PackedWeight<T>::element;
    PackedWeight<T>& weight = *static_cast<PackedWeight<T>*>(target.parameter);
    const Source source = fit.naming_(target.name);
    const StoredTensor& whole = *fit.file_.find(source.names.front());
    const StoredTensor stored = rows_of(whole, source);
    const bool is_aligned = reinterpret_cast<std::uintptr_t>(stored.data.data()) % alignof(E) == 0;
    if (source.names.size() == 1 && !source.transposed && stored.type == data_type_of<E>() && is_aligned) {
        weight.pack(reinterpret_cast<const E*>(stored.data.data()));
        return fit.file_.forget(whole);
    }
    Buffer<E> values(target.size);
    fit.read_into(target, std::span(values.data(), values.size()));
    weight.pack(values.data());
}

template <class T>
KeptBuffer kept_buffer(std::string name, Buffer<T>& buffer) {
    return {std::move(name), data_type_of<T>(), std::as_bytes(std::span<const T>(buffer.data(), buffer.size())), &buffer,
            [](void* to, std::span<const std::byte> bytes) {
                static_cast<Buffer<T>*>(to)->borrow({reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)});
            }};
}

template <class T>
const LoadOperations& CheckpointFit::of_tensor() {
    static constexpr LoadOperations operations{
        read<T>, [](const LoadTarget& target, std::vector<KeptBuffer>& buffers) {
            buffers.push_back(kept_buffer(target.name, *static_cast<Buffer<T>*>(target.parameter)));
        }};
    return operations;
}

template <class T>
const LoadOperations& CheckpointFit::of_packed() {
    static constexpr LoadOperations operations{
        read_packed<T>, [](const LoadTarget& target, std::vector<KeptBuffer>& buffers) {
            static_cast<PackedWeight<T>*>(target.parameter)->for_each_buffer([&](const char* part, auto& buffer) {
                buffers.push_back(kept_buffer(target.name + part, buffer));
            });
        }};
    return operations;
}

template <class T>
void SavedParameters::add_packed(const std::string& name, std::vector<std::size_t> shape,
                                 const PackedWeight<T>& weight) {
    using Values = std::vector<typename PackedWeight<T>::element>;
    const auto values = std::make_shared<Values>(weight.size());
    weight.unpack(values->data());
    tensors.push_back(
        stored_tensor<typename Values::value_type>(name, std::move(shape), std::span(std::as_const(*values))));
    memory.push_back(values);
}

#if defined(TANDEM_COMPILED)
template const LoadOperations& CheckpointFit::of_tensor<float>();
template const LoadOperations& CheckpointFit::of_tensor<double>();
template const LoadOperations& CheckpointFit::of_tensor<bfloat16>();
template const LoadOperations& CheckpointFit::of_packed<float>();
template const LoadOperations& CheckpointFit::of_packed<double>();
template const LoadOperations& CheckpointFit::of_packed<amp_bf16>();
template const LoadOperations& CheckpointFit::of_packed<bfloat16>();
template const LoadOperations& CheckpointFit::of_packed<int8>();
template void SavedParameters::add_packed<float>(const std::string&, std::vector<std::size_t>,
                                                 const PackedWeight<float>&);
template void SavedParameters::add_packed<double>(const std::string&, std::vector<std::size_t>,
                                                  const PackedWeight<double>&);
template void SavedParameters::add_packed<amp_bf16>(const std::string&, std::vector<std::size_t>,
                                                    const PackedWeight<amp_bf16>&);
template void SavedParameters::add_packed<bfloat16>(const std::string&, std::vector<std::size_t>,
                                                    const PackedWeight<bfloat16>&);
template void SavedParameters::add_packed<int8>(const std::string&, std::vector<std::size_t>,
                                                const PackedWeight<int8>&);
#endif

}  // namespace tandem::inline TANDEM_ABI::detail
