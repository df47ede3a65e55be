// A run on disk: everything needed to go on as if it had never stopped.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/models/checkpoint.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a run has got to, beside its weights and moments. The order of samples and all random draws follow from seed
/// and step, so these two are the whole random state.
struct RunState {
    std::uint64_t seed = 0;
    std::size_t step = 0;     ///< steps taken, skipped ones included
    std::size_t skipped = 0;  ///< steps whose loss or gradient was not finite
    std::size_t skipped_in_row = 0;
    double seconds = 0;         ///< time spent training
    std::vector<float> losses;  ///< one for each step; a skipped step's is what it was
};

/// All that a run's result depends on beside its state, each under a name and in words: a run goes on from a snapshot
/// only where every one of them is what it was.
using RunInputs = std::vector<std::pair<std::string, std::string>>;

namespace detail {

/// Of the metadata of a snapshot that names its inputs; what tandem wrote before did not.
inline constexpr const char* snapshot_format = "tandem snapshot 2";

/// Under which an input stands among the metadata.
inline constexpr const char* input_prefix = "run.";

/// Throws Error that names every input that is another one now, with both values.
void check_inputs(const std::map<std::string, std::string>& metadata, const RunInputs& now, const std::string& where);

/// Throws Error on all ranks, which names what differs, unless they have the same inputs.
void check_ranks(Ranks& ranks, const RunInputs& inputs);

template <class Number>
Number number_entry(const std::map<std::string, std::string>& metadata, const std::string& key,
                    const std::string& where) {
    const auto entry = metadata.find(key);
    Number value{};
    if (entry == metadata.end() ||
        std::from_chars(entry->second.data(), entry->second.data() + entry->second.size(), value).ec != std::errc()) {
        throw Error(where, "a snapshot with a number under \"" + key + "\" in its metadata", "none");
    }
    return value;
}

/// Throws Error unless the file has a tensor of this name, shape and type.
void check_stored(const Safetensors& file, const std::string& name, std::span<const std::size_t> shape, DataType type,
                  const std::string& where);

template <class Model>
void check_parameters(const Safetensors& file, const std::string& prefix, const Model& model,
                      const std::string& where) {
    for_each_parameter(
        [&]<class Parameter>(const std::string& name, const Parameter& parameter) {
            const auto extents = parameter.extents();
            check_stored(file, prefix + name, {extents.value, Parameter::shape::rank},
                         data_type_of<typename Parameter::element>(), where);
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

/// Writes a snapshot, atomically and durably: a process killed at any moment leaves the old one or the new one. `state` is an
/// optimizer's; `average` is that of the weights, where a run has one.
template <class Model, class State>
void save_snapshot(const std::filesystem::path& path, const Model& model, const State& state,
                   const RunState& run, const RunInputs& inputs, const Model* average = nullptr) {
    detail::SavedParameters saved;
    saved.append("model.", model);
    State::moments([&](const char* name, const Model& moment) { saved.append(name, moment); }, state);
    if (average != nullptr) saved.append("average.", *average);
    saved.tensors.push_back(stored_tensor<float>("losses", {run.losses.size()}, std::span<const float>(run.losses)));
    std::map<std::string, std::string> metadata{{"format", detail::snapshot_format},
                                                {"step", std::to_string(run.step)},
                                                {"updates", std::to_string(state.updates)},
                                                {"skipped", std::to_string(run.skipped)},
                                                {"skipped_in_row", std::to_string(run.skipped_in_row)},
                                                {"seconds", detail::to_text(run.seconds)}};
    for (const auto& [name, value] : inputs) metadata[detail::input_prefix + name] = value;
    save_safetensors(path, saved.tensors, metadata);
}

/// Reads the snapshot of a run with these inputs. Throws Error, and changes nothing, if it is damaged, written by a
/// tandem that did not save the inputs, of another model, or of a run with other inputs, each of which is named.
template <class Model, class State>
void load_snapshot(const std::filesystem::path& path, Model& model, State& state, RunState& run,
                   const RunInputs& inputs, Model* average = nullptr) {
    const Safetensors file = Safetensors::open(path);
    const std::string where = path.string();
    const auto& metadata = file.metadata();
    const auto format = metadata.find("format");
    if (format == metadata.end() || format->second != detail::snapshot_format) {
        throw Error(
            where,
            "a snapshot that names what its run depends on (format \"" + std::string(detail::snapshot_format) + "\")",
            format == metadata.end()
                ? "a file that is no snapshot: give the snapshot another path"
                : "format \"" + format->second +
                      "\", whose run only the tandem that wrote it can go on with: delete it to start anew");
    }
    detail::check_inputs(metadata, inputs, where);
    RunState read;
    read.seed = run.seed;
    read.step = detail::number_entry<std::size_t>(metadata, "step", where);
    read.skipped = detail::number_entry<std::size_t>(metadata, "skipped", where);
    read.skipped_in_row = detail::number_entry<std::size_t>(metadata, "skipped_in_row", where);
    read.seconds = detail::number_entry<double>(metadata, "seconds", where);
    const std::size_t updates = detail::number_entry<std::size_t>(metadata, "updates", where);
    detail::check_parameters(file, "model.", model, where);
    State::moments([&](const char* name, const Model& moment) { detail::check_parameters(file, name, moment, where); }, state);
    if (average != nullptr) detail::check_parameters(file, "average.", *average, where);
    const StoredTensor* losses = file.find("losses");
    if (losses == nullptr || losses->shape != std::vector<std::size_t>{read.step}) {
        throw Error(where, "a snapshot with one loss for each of its " + std::to_string(read.step) + " steps",
                    losses == nullptr ? "none" : detail::shape_text(losses->shape));
    }
    read.losses.resize(read.step);
    read_elements(*losses, std::span<float>(read.losses));
    detail::read_parameters(file, "model.", model);
    State::moments([&](const char* name, Model& moment) { detail::read_parameters(file, name, moment); }, state);
    if (average != nullptr) detail::read_parameters(file, "average.", *average);
    state.updates = updates;
    run = std::move(read);
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/train/snapshot.impl.hpp>
#endif
