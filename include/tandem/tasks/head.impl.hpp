// Definitions of tasks/head.hpp.
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <numbers>
#include <optional>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tasks/head.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The last number in a text; 0 where there is none.
TANDEM_INLINE std::size_t last_number(std::string_view text) {
    const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
    const auto end = std::find_if(text.rbegin(), text.rend(), is_digit);
    const auto begin = std::find_if_not(end, text.rend(), is_digit);
    std::size_t number = 0;
    for (auto at = begin.base(); at != end.base() && number < 1'000'000; ++at) number = number * 10 + static_cast<std::size_t>(*at - '0');
    return number;
}

}  // namespace detail

template <class PartOf>
Head Head::read(const WeightFiles& files, const std::string& where, HeadActivation between, const PartOf& part_of) {
    std::map<std::size_t, std::pair<const StoredTensor*, const StoredTensor*>> found;  // by number: weight and bias
    for (const StoredTensor& tensor : files.tensors()) {
        const std::optional<std::string_view> part = part_of(tensor.name);
        if (!part) continue;
        const bool is_weight = part->ends_with("weight"), is_bias = part->ends_with("bias");
        if (!is_weight && !is_bias) throw Error(where, "weights and biases of dense layers", tensor.name);
        auto& pair = found[detail::last_number(*part)];
        const StoredTensor*& place = is_weight ? pair.first : pair.second;
        if (place != nullptr) throw Error(where, "layers with numbers of their own", place->name + " and " + tensor.name);
        place = &tensor;
    }
    if (found.empty()) throw Error(where, "weights and biases of dense layers", "none");
    Head head;
    head.between_ = between;
    for (const auto& [number, pair] : found) {
        const auto [weight, bias] = pair;
        if (weight == nullptr || bias == nullptr) throw Error(where, "weight and bias of layer " + std::to_string(number), (weight == nullptr ? bias : weight)->name + " alone");
        if (weight->shape.size() != 2 || bias->shape.size() != 1 || bias->shape[0] != weight->shape[0] || weight->shape[0] == 0 || weight->shape[1] == 0)
            throw Error(where, "a matrix and as many biases", weight->name + " and " + bias->name + " of other shapes");
        Layer layer{.in = weight->shape[1], .out = weight->shape[0], .weight = std::vector<float>(weight->shape[0] * weight->shape[1]), .bias = std::vector<float>(weight->shape[0])};
        if (!head.layers_.empty() && head.out() != layer.in)
            throw Error(where, "a layer of " + std::to_string(head.out()) + " inputs behind one of as many outputs", weight->name + " with " + std::to_string(layer.in));
        read_elements(*weight, std::span(layer.weight));
        read_elements(*bias, std::span(layer.bias));
        const auto is_finite = [](float value) { return std::isfinite(value); };
        if (!std::ranges::all_of(layer.weight, is_finite) || !std::ranges::all_of(layer.bias, is_finite))
            throw Error(where, "finite numbers", "infinities or NaN in " + weight->name + " or " + bias->name);
        head.layers_.push_back(std::move(layer));
    }
    if (between == HeadActivation::none) head.fold();
    return head;
}

TANDEM_INLINE void Head::fold() {
    // From the last layer to the first, so that what is multiplied stays as narrow as the result.
    std::vector<double> weight(layers_.back().weight.begin(), layers_.back().weight.end()), bias(layers_.back().bias.begin(), layers_.back().bias.end());
    const std::size_t rows = out();
    for (std::size_t n = layers_.size() - 1; n-- > 0;) {
        const Layer& layer = layers_[n];
        std::vector<double> next(rows * layer.in);
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t k = 0; k < layer.out; ++k) {
                const double factor = weight[i * layer.out + k];
                bias[i] += factor * static_cast<double>(layer.bias[k]);
                for (std::size_t j = 0; j < layer.in; ++j) next[i * layer.in + j] += factor * static_cast<double>(layer.weight[k * layer.in + j]);
            }
        }
        weight = std::move(next);
    }
    layers_ = {Layer{.in = in(), .out = rows, .weight = {weight.begin(), weight.end()}, .bias = {bias.begin(), bias.end()}}};
}

TANDEM_INLINE Head Head::load(const std::filesystem::path& path, HeadActivation between) {
    return read(WeightFiles::open(path), path.string(), between, [](const std::string& name) { return std::optional<std::string_view>(name); });
}

TANDEM_INLINE Head Head::load_projector(const std::filesystem::path& path) {
    // A folder with this one file and no model is what LLaVA publishes beside a base model.
    const std::filesystem::path own = path / "mm_projector.bin";
    const std::filesystem::path file = std::filesystem::is_regular_file(own) ? own : path;
    return read(WeightFiles::open(file), file.string() + ", its projector", HeadActivation::gelu, [](const std::string& name) -> std::optional<std::string_view> {
        for (const std::string_view prefix : {"mm_projector.", "multi_modal_projector."}) {
            if (const std::size_t begin = name.find(prefix); begin != std::string::npos) return std::string_view(name).substr(begin + prefix.size());
        }
        return std::nullopt;
    });
}

TANDEM_INLINE std::vector<float> Head::operator()(std::span<const float> rows) const {
    if (rows.size() % in() != 0) throw Error("Head", "rows of width " + std::to_string(in()), std::to_string(rows.size()) + " numbers");
    std::vector<float> from(rows.begin(), rows.end()), to;
    for (const Layer& layer : layers_) {
        const std::size_t count = from.size() / layer.in;
        if (&layer != &layers_.front()) {
            for (float& value : from) {
                const auto x = static_cast<double>(value);
                value = between_ == HeadActivation::relu ? std::max(value, 0.0F) : static_cast<float>(0.5 * x * (1 + std::erf(x / std::numbers::sqrt2)));
            }
        }
        to.resize(count * layer.out);
        kernels::gemm<float>(count, layer.out, layer.in, kernels::row_major(from.data(), layer.in), kernels::row_major(layer.weight.data(), layer.in).transposed(),
                             to.data(), layer.out);
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += layer.bias[i % layer.out];
        std::swap(from, to);
    }
    return from;
}

}  // namespace tandem::inline TANDEM_ABI
