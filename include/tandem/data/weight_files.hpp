// The tensors of a checkpoint, whatever files they come in.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/data/json.hpp>
#include <tandem/data/safetensors.hpp>
#include <tandem/data/torch_archive.hpp>

namespace tandem::inline TANDEM_ABI {

/// A safetensors file, the shards of one (an index whose weight_map says which file has which tensor), or a file of
/// torch.save, told apart by what they hold. Nothing is copied that can be read in place. Move only.
class WeightFiles {
public:
    /// Opens a file, or what transformers and open_clip lay into a folder. Throws Error that names the file, or the shard,
    /// and the fault; of a folder without weights, the names it looked for.
    static WeightFiles open(const std::filesystem::path& path) {
        const std::filesystem::path file = std::filesystem::is_directory(path) ? in_folder(path) : path;
        WeightFiles result;
        if (file.string().ends_with(".index.json")) {
            result.add_shards(file);
        } else {
            result.add(file);
        }
        result.by_name_ = detail::positions_by_name(result.tensors_, file.string());
        return result;
    }

    WeightFiles(WeightFiles&&) noexcept = default;
    WeightFiles& operator=(WeightFiles&&) noexcept = default;

    /// All tensors, file by file. Their data is valid for as long as the object.
    std::span<const StoredTensor> tensors() const { return tensors_; }

    /// The tensor of that name, or nullptr.
    const StoredTensor* find(std::string_view name) const {
        const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                            [&](std::uint32_t i, std::string_view sought) { return tensors_[i].name < sought; });
        return found == by_name_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
    }

    /// Lets go of the memory that a tensor's data takes while its file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const {
        const std::size_t file = file_of_[static_cast<std::size_t>(&tensor - tensors_.data())];
        if (file < first_archive) {
            files_[file].forget(tensor);
        } else {
            archives_[file - first_archive].forget(tensor);
        }
    }

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
        by_name_ = detail::positions_by_name(tensors_, where);
    }

private:
    static constexpr std::array names{"model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json",
                                      "pytorch_model.bin", "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin"};

    WeightFiles() = default;

    [[gnu::cold]] static std::filesystem::path in_folder(const std::filesystem::path& folder) {
        std::string expected;
        for (const char* const name : names) {
            if (std::filesystem::exists(folder / name)) return folder / name;
            expected += (expected.empty() ? "" : ", ") + std::string(name);
        }
        throw Error(folder.string(), "one of " + expected + " in the folder", "none");
    }

    static bool is_torch(const std::filesystem::path& path) {
        const MappedFile file(path);
        const auto begins = [&](std::array<unsigned char, 4> with) {
            return file.bytes().size() >= with.size() &&
                   std::equal(with.begin(), with.end(), file.bytes().begin(),
                              [](unsigned char expected, std::byte found) { return std::byte{expected} == found; });
        };
        return begins({'P', 'K', 3, 4}) || begins({0x80, 2, 0x8a, 10});
    }

    [[gnu::cold]] void add(const std::filesystem::path& path) {
        const bool torch = is_torch(path);
        std::span<const StoredTensor> found;
        if (torch) {
            archives_.push_back(TorchArchive::open(path));
            found = archives_.back().tensors();
        } else {
            files_.push_back(Safetensors::open(path));
            found = files_.back().tensors();
        }
        tensors_.insert(tensors_.end(), found.begin(), found.end());
        file_of_.resize(tensors_.size(), torch ? first_archive + archives_.size() - 1 : files_.size() - 1);
    }

    [[gnu::cold]] void add_shards(const std::filesystem::path& index) {
        const MappedFile file(index);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        detail::JsonLeaves leaves;
        if (const auto fault = detail::json_fault(text, leaves)) {
            throw Error(index.string(), "not JSON near byte " + std::to_string(*fault));
        }
        constexpr std::string_view map = "weight_map.";
        std::map<std::string, std::vector<std::string>> shards;
        for (const detail::JsonLeaf& leaf : leaves.leaves) {
            if (leaf.path.starts_with(map)) shards[leaf.text].push_back(leaf.path.substr(map.size()));
        }
        if (shards.empty()) throw Error(index.string(), "a weight_map that names the file of every tensor", "none");
        for (const auto& [name, tensors] : shards) {
            // A name out of the index stays in its folder.
            if (std::filesystem::path(name).has_parent_path()) {
                throw Error(index.string(), "shards beside the index", detail::in_quotes(name));
            }
            const std::filesystem::path shard = index.parent_path() / name;
            if (!std::filesystem::exists(shard)) {
                throw Error(index.string(), "shard " + name + " beside the index, with " + std::to_string(tensors.size()) + " of the tensors", "no such file");
            }
            const std::size_t before = tensors_.size();
            add(shard);
            const auto begin = tensors_.begin() + static_cast<std::ptrdiff_t>(before);
            for (const std::string& tensor : tensors) {
                if (std::none_of(begin, tensors_.end(), [&](const StoredTensor& found) { return found.name == tensor; })) {
                    throw Error(shard.string(), "tensor " + detail::in_quotes(tensor) + ", which the index says it has", "none of that name");
                }
            }
        }
    }

    static constexpr std::size_t first_archive = std::size_t{1} << 32U;

    std::vector<Safetensors> files_;
    std::vector<TorchArchive> archives_;
    std::vector<StoredTensor> tensors_;
    std::vector<std::size_t> file_of_;  ///< of every tensor, a position in files_, or from first_archive on in archives_
    std::vector<std::uint32_t> by_name_;
};

}  // namespace tandem::inline TANDEM_ABI
