// The tensors of a checkpoint, whatever files they come in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/files/safetensors.hpp>
#include <tandem/files/torch_archive.hpp>

namespace tandem::inline TANDEM_ABI {

/// A safetensors file, the shards of one (an index whose weight_map says which file has which tensor), or a file of
/// torch.save, told apart by what they hold. Nothing is copied that can be read in place. Move only.
class WeightFiles {
public:
    /// Opens a file, or what transformers and open_clip lay into a folder. Throws Error that names the file, or the
    /// shard, and the fault: of a file of another kind, what it is; of a folder without weights, the names it looked
    /// for.
    static WeightFiles open(const std::filesystem::path& path);

    WeightFiles(WeightFiles&&) noexcept = default;
    WeightFiles& operator=(WeightFiles&&) noexcept = default;

    /// Names, sizes and times of the last change of the files, an index of shards among them, as they were found when they were
    /// opened: tells whether they are others now.
    const std::string& stamp() const { return stamp_; }

    /// All tensors, file by file. Their data is valid for as long as the object.
    std::span<const StoredTensor> tensors() const { return tensors_; }

    /// The tensor of that name, or nullptr.
    const StoredTensor* find(std::string_view name) const;

    /// What stands among the tensors of files of torch.save and cannot be read, with the reason.
    std::span<const UnreadableTensor> unreadable() const { return unreadable_; }

    /// The unreadable tensor of that name, or nullptr.
    const UnreadableTensor* find_unreadable(std::string_view name) const;

    /// What stands beside the "state_dict" of files of torch.save, under its keys ("ema_state_dict.visual.proj"); see
    /// TorchArchive::others.
    std::span<const StoredTensor> others() const { return others_; }
    std::span<const UnreadableTensor> unreadable_others() const { return unreadable_others_; }

    /// Puts what stands beside the "state_dict" among the tensors, under its keys.
    void add_others(std::string_view where);

    /// Lets go of the memory that a tensor's data takes while its file is mapped; it can still be read. Of tensors() or
    /// others().
    void forget(const StoredTensor& tensor) const;

    /// Gives every tensor the name that `name` makes of its own, and leaves out those it makes nothing of. Throws Error
    /// where two would have one name.
    template <class Name>
    void rename(const Name& name, std::string_view where) {
        std::size_t kept = 0;
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            std::optional<std::string> to = name(tensors_[i].name);
            if (!to) continue;
            if (kept != i) tensors_[kept] = std::move(tensors_[i]);
            tensors_[kept].name = std::move(*to);
            file_of_[kept++] = file_of_[i];
        }
        tensors_.resize(kept);
        file_of_.resize(kept);
        std::erase_if(unreadable_, [&](UnreadableTensor& tensor) {
            const std::optional<std::string> to = name(tensor.name);
            if (to) tensor.name = *to;
            return !to;
        });
        by_name_ = detail::positions_by_name(tensors_, where);
    }

private:
    static constexpr std::array names{
        "model.safetensors", "open_clip_model.safetensors",  "model.safetensors.index.json",
        "pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin"};

    WeightFiles() = default;

    static std::filesystem::path in_folder(const std::filesystem::path& folder);

    enum class Format { safetensors, torch };

    /// Throws Error for a file that is neither, with what it is.
    static Format format_of(const std::filesystem::path& path);

    void add(const std::filesystem::path& path);

    void add_stamp(const std::filesystem::path& path);

    void add_shards(const std::filesystem::path& index);

    static constexpr std::size_t first_archive = std::size_t{1} << 32U;

    std::string stamp_;
    std::vector<Safetensors> files_;
    std::vector<TorchArchive> archives_;
    std::vector<StoredTensor> tensors_;
    std::vector<StoredTensor> others_;
    std::vector<UnreadableTensor> unreadable_, unreadable_others_;
    /// Of every tensor, a position in files_, or from first_archive on in archives_.
    std::vector<std::size_t> file_of_, file_of_other_;
    std::vector<std::uint32_t> by_name_;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/files/weight_files.impl.hpp>
#endif
