// Packed model files: weights as products read them, mapped and shared instead of read and packed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/files/safetensors.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/models/architecture.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/models/unwrap.hpp>

namespace tandem::inline TANDEM_ABI {

/// How map_packed opens a file.
struct PackedOptions {
    bool verify = false;  ///< every tensor is held against its checksum, which reads all of the file
    /// The checkpoint of both towers that the file is a packed copy of, as load() takes it. Where the file is not there, or not
    /// of it as it is now (the size and time of its files), or cannot be mapped here, the checkpoint is loaded and the file made
    /// anew; where it cannot be written, the log says so, and the model has memory of its own.
    std::filesystem::path source{};
    std::ostream* log = &std::clog;  ///< a line where the file is made, with the reason; nullptr: none
};

namespace detail {

/// What a packed file is of, and what of it depends on the machine. Two of which all is equal, made of files, have the same
/// weights.
struct PackedIdentity {
    std::vector<ArchitectureField> architecture;  ///< what files tell of it, for errors
    std::string constant;                         ///< all of it
    std::string precision;
    std::string layout;  ///< of panels, for that precision
    Towers towers = Towers::both;
    std::string source{};    ///< the files it was made of; empty: a model in memory
    bool is_finite = false;  ///< the weights were looked at
};

/// A packed file that is mapped, or in memory.
class PackedFile {
public:
    static PackedFile open(const std::filesystem::path& path);
    static PackedFile view(std::span<const std::byte> bytes);

    /// Gives the parameters their places in the file. Throws Error if it is not the one expected, and, where `verify`, for a
    /// tensor that has changed since it was saved.
    void lend(const LoadTargets& targets, const PackedIdentity& expected, bool verify) const;

    /// Of all tensors, as they were saved.
    std::string checksum() const;

private:
    PackedFile(Safetensors file, std::string where);

    /// Why the file is not the one expected, in one sentence with both values; empty if it is. A `source` is compared where one is
    /// expected.
    std::string difference(const PackedIdentity& expected) const;

    Safetensors file_;
    std::string where_;
};

void save_packed(const LoadTargets& targets, const PackedIdentity& identity, const std::filesystem::path& path);

/// lend() from the file at `path`, which is made anew where it is not the one expected: of what load() sets the parameters to.
/// Without a file, where none could be written. Throws Error, and leaves it, if something else stands there.
std::optional<PackedFile> lend_or_make(const LoadTargets& targets, const PackedIdentity& identity,
                                       const std::filesystem::path& path, bool verify, std::ostream* log,
                                       const std::function<void()>& load);

/// With the layout of T.
template <Arithmetic T>
PackedIdentity packed_identity(std::vector<ArchitectureField> architecture, std::string constant);

template <auto config, Arithmetic T>
PackedIdentity packed_identity() {
    return packed_identity<T>(whole_fields(config), constant_text(config));
}

/// Of all that the header of a packed file says but for this checksum itself.
std::string header_checksum(const std::map<std::string, std::string>& metadata, std::span<const StoredTensor> tensors);

/// "both towers" and so on.
std::string name_of(Towers towers);

/// What is mapped, and the model that reads it.
template <class Model>
struct Mapped {
    Model model;
    std::optional<PackedFile> file;

    static std::shared_ptr<const Model> shared(std::shared_ptr<const Mapped> mapped) {
        const Model* const model = &mapped->model;
        return {std::move(mapped), model};
    }
};

}  // namespace detail

/// Saves all parameters in the layout that products read here, atomically: a safetensors file, its metadata the architecture, the
/// precision, the instruction set, the version of the layout, and a checksum a tensor. It is for map_packed on machines of this
/// kind; what is kept or given away is save_weights' file.
template <auto config, Arithmetic T>
void save_packed(const Clip<config, T>& model, const std::filesystem::path& path) {
    // Only read: a list of targets is of what can be written.
    const detail::LoadTargets targets(const_cast<Clip<config, T>&>(model));
    detail::save_packed(targets, detail::packed_identity<config, T>(), path);
}

/// The model of a packed file, which is mapped: nothing is read before it is used, nothing is copied, and processes that map the
/// same file share its memory. A copy of the model, Clip(*mapped), is one of its own, which can be trained. Throws Error that
/// says what was expected and what the file is: of another architecture, precision, instruction set or version of the layout, or
/// damaged, unless options.source says what to make it of; damaged tensors are found where options.verify asks for it. Whoever
/// shortens a mapped file kills its readers (SIGBUS): replace files, as save_packed does.
template <auto config, Arithmetic T = float>
std::shared_ptr<const Clip<config, T>> map_packed(const std::filesystem::path& path, const PackedOptions& options = {}) {
    auto mapped = std::make_shared<detail::Mapped<Clip<config, T>>>();
    const detail::LoadTargets targets(mapped->model);
    detail::PackedIdentity identity = detail::packed_identity<config, T>();
    if (options.source.empty()) {
        mapped->file = detail::PackedFile::open(path);
        mapped->file->lend(targets, identity, options.verify);
    } else {
        WeightFiles files = WeightFiles::open(options.source);
        identity.source = files.stamp();
        if (std::filesystem::is_directory(options.source))
            detail::require_agreement(options.source, detail::architecture_fields(config), Towers::both);
        mapped->file = detail::lend_or_make(targets, identity, path, options.verify, options.log, [&] {
            load_weights(mapped->model, std::move(files), options.source.string(), {.log = options.log});
        });
    }
    return detail::Mapped<Clip<config, T>>::shared(std::move(mapped));
}

/// The same of a packed file in memory, such as one that is linked into the program, at an address that is a multiple of 64. It
/// must stay there as long as the model.
template <auto config, Arithmetic T = float>
std::shared_ptr<const Clip<config, T>> map_packed(std::span<const std::byte> bytes, bool verify = false) {
    auto mapped = std::make_shared<detail::Mapped<Clip<config, T>>>();
    mapped->file = detail::PackedFile::view(bytes);
    mapped->file->lend(detail::LoadTargets(mapped->model), detail::packed_identity<config, T>(), verify);
    return detail::Mapped<Clip<config, T>>::shared(std::move(mapped));
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/packed_file.impl.hpp>
#endif
