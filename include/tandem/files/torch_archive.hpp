// Files of torch.save and torch.jit.save, read without executing anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/file.hpp>
#include <tandem/files/pickle.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI {

/// A tensor that stands in a file and cannot be read as a weight.
struct UnreadableTensor {
    std::string name;
    std::string
        reason;  ///< its kind, and how to save it so that it can be: "a sparse tensor; save it as tensor.to_dense()"
    bool is_tensor = true;  ///< not a NumPy array, which is no weight unless it has a weight's name
};

namespace detail {

using Storages = std::map<std::string_view, std::span<const std::byte>>;

struct TorchTensorList {
    std::vector<StoredTensor> tensors;
    std::vector<UnreadableTensor> unreadable;

    bool empty() const { return tensors.empty() && unreadable.empty(); }
};

}  // namespace detail

/// A file of torch.save, of a state_dict, of a dictionary that has one, or of a whole module, whatever other objects
/// stand beside; or a module of TorchScript (OpenAI's downloads). Nothing of it is executed: objects that only their
/// own code can make are passed over, unless they hold tensors among their attributes. A view that repeats elements is
/// written out, as long as all such views together take no more than the file's size and 64 MiB. Move only.
class TorchArchive {
public:
    /// Maps the file. Throws Error that names it and the fault; what is no file of torch.save is named.
    static TorchArchive open(const std::filesystem::path& path);

    /// Reads a file that is in memory already; the bytes must outlive the object. `where` begins every error.
    static TorchArchive parse(std::span<const std::byte> bytes, std::string_view where);

    TorchArchive(TorchArchive&&) noexcept = default;
    TorchArchive& operator=(TorchArchive&&) noexcept = default;

    /// The tensors of the file's "state_dict", under their names in it; of a file without one, all tensors, under the
    /// keys on the way to them, joined by dots ("model.visual.proj"). Their data is valid for as long as the object.
    std::span<const StoredTensor> tensors() const { return state_dict_.tensors; }

    /// What stands among tensors() in the file and cannot be read: sparse, quantised, meta tensors and so on.
    std::span<const UnreadableTensor> unreadable() const { return state_dict_.unreadable; }

    /// What stands beside the "state_dict", under its keys ("ema_state_dict.visual.proj", "optimizer.…"); empty in a
    /// file that has none. Keys that are no text (an optimizer's numbered parameters) are left out.
    std::span<const StoredTensor> others() const { return others_.tensors; }
    std::span<const UnreadableTensor> unreadable_others() const { return others_.unreadable; }

    /// Lets go of the memory that a tensor's data takes while the file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const;

private:
    TorchArchive(std::span<const std::byte> bytes, std::string_view where);

    /// Since PyTorch 1.6: a zip archive of the pickle and of every storage.
    void read_zip(std::span<const std::byte> bytes, std::string_view where);

    /// Before: pickles of a magic number, a version, the machine, the object and the storages' keys, then every
    /// storage, its number of elements before it (torch/serialization.py, _legacy_save).
    void read_legacy(std::span<const std::byte> bytes, std::string_view where);

    void collect(const detail::Unpickler& values, std::uint32_t root, const detail::Storages& storages,
                 std::size_t file_bytes, std::string_view where);

    detail::TorchTensorList state_dict_, others_;
    std::vector<std::vector<std::byte>> copies_;
    std::optional<MappedFile> file_;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/files/torch_archive.impl.hpp>
#endif
