// A run on disk: everything needed to go on as if it had never stopped.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/data/safetensors.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/train/optimizer.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a run has got to, beside its weights and moments. The order of samples and all random draws follow from seed and
/// step, so these two are the whole random state.
struct RunState {
    std::uint64_t seed = 0;
    std::size_t step = 0;           ///< steps taken, skipped ones included
    std::size_t skipped = 0;        ///< steps whose loss or gradient was not finite
    std::size_t skipped_in_row = 0;
    double seconds = 0;             ///< time spent training
    std::vector<float> losses;      ///< one for each step; a skipped step's is what it was
};

namespace detail {

template <class Number>
Number number_entry(const std::map<std::string, std::string>& metadata, const std::string& key, const std::string& where) {
    const auto entry = metadata.find(key);
    Number value{};
    if (entry == metadata.end() ||
        std::from_chars(entry->second.data(), entry->second.data() + entry->second.size(), value).ec != std::errc()) {
        throw Error(where, "a snapshot with a number under \"" + key + "\" in its metadata", "none");
    }
    return value;
}

template <class Model>
void check_parameters(const Safetensors& file, const std::string& prefix, const Model& model, const std::string& where) {
    for_each_parameter(
        [&]<class Parameter>(const std::string& name, const Parameter& parameter) {
            const StoredTensor* stored = file.find(prefix + name);
            const auto shape = shape_of(parameter.extents());
            if (stored == nullptr || stored->shape != shape || stored->type != data_type_of<typename Parameter::element>()) {
                throw Error(where, "a snapshot of this model, with " + prefix + name + " of shape " + shape_text(shape),
                            stored == nullptr ? "no such tensor" : shape_text(stored->shape));
            }
        },
        model);
}

template <class Model>
void read_parameters(const Safetensors& file, const std::string& prefix, Model& model) {
    for_each_parameter(
        [&]<class Parameter>(const std::string& name, Parameter& parameter) {
            Tensor<typename Parameter::element, typename Parameter::shape> values(parameter.extents());
            read_elements(*file.find(prefix + name), values.elements());
            from_row_major(parameter, values);
        },
        model);
}

}  // namespace detail

/// Writes a snapshot, atomically and durably: a process killed at any moment leaves the old one or the new one.
template <class Model>
void save_snapshot(const std::filesystem::path& path, const Model& model, const AdamW::State<Model>& state,
                   const RunState& run) {
    detail::SavedParameters saved;
    saved.append("model.", model);
    saved.append("first.", state.first);
    saved.append("second.", state.second);
    saved.tensors.push_back(stored_tensor<float>("losses", {run.losses.size()}, std::span<const float>(run.losses)));
    save_safetensors(path, saved.tensors,
                     {{"format", "tandem snapshot 1"},
                      {"seed", std::to_string(run.seed)},
                      {"step", std::to_string(run.step)},
                      {"updates", std::to_string(state.updates)},
                      {"skipped", std::to_string(run.skipped)},
                      {"skipped_in_row", std::to_string(run.skipped_in_row)},
                      {"seconds", detail::to_text(run.seconds)}});
}

/// Reads the snapshot of a run of seed `run.seed`. Throws Error, and changes nothing, if it is damaged, of another model or
/// of another seed.
template <class Model>
void load_snapshot(const std::filesystem::path& path, Model& model, AdamW::State<Model>& state, RunState& run) {
    const Safetensors file = Safetensors::open(path);
    const std::string where = path.string();
    const auto& metadata = file.metadata();
    RunState read;
    read.seed = detail::number_entry<std::uint64_t>(metadata, "seed", where);
    if (read.seed != run.seed) {
        throw Error(where, "a run of seed " + std::to_string(run.seed), "seed " + std::to_string(read.seed));
    }
    read.step = detail::number_entry<std::size_t>(metadata, "step", where);
    read.skipped = detail::number_entry<std::size_t>(metadata, "skipped", where);
    read.skipped_in_row = detail::number_entry<std::size_t>(metadata, "skipped_in_row", where);
    read.seconds = detail::number_entry<double>(metadata, "seconds", where);
    const std::size_t updates = detail::number_entry<std::size_t>(metadata, "updates", where);
    detail::check_parameters(file, "model.", model, where);
    detail::check_parameters(file, "first.", state.first, where);
    detail::check_parameters(file, "second.", state.second, where);
    const StoredTensor* losses = file.find("losses");
    if (losses == nullptr || losses->shape != std::vector<std::size_t>{read.step}) {
        throw Error(where, "a snapshot with one loss for each of its " + std::to_string(read.step) + " steps",
                    losses == nullptr ? "none" : detail::shape_text(losses->shape));
    }
    read.losses.resize(read.step);
    read_elements(*losses, std::span<float>(read.losses));
    detail::read_parameters(file, "model.", model);
    detail::read_parameters(file, "first.", state.first);
    detail::read_parameters(file, "second.", state.second);
    state.updates = updates;
    run = std::move(read);
}

}  // namespace tandem::inline TANDEM_ABI
