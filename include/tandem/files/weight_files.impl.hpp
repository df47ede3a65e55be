// Definitions of files/weight_files.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/files/json.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/files/torch_archive.hpp>
#include <tandem/files/weight_files.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// What weights are expected as, for errors.
inline constexpr std::string_view weight_formats = "weights in safetensors or of torch.save";

inline constexpr std::string_view distributed_advice =
    "a distributed checkpoint (torch.distributed.checkpoint): "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, "
    "\"weights.pt\") makes one file of it";

inline constexpr std::string_view tensorflow_advice =
    "a TensorFlow model: its PyTorch weights are read, as safetensors or of torch.save";

/// What a folder has in place of weights under a known name; for errors.
[[gnu::cold]] TANDEM_INLINE std::string other_contents(const std::filesystem::path& folder) {
    std::vector<std::string> readable, foreign;
    bool is_distributed = false, is_deepspeed = false, is_tensorflow = false;
    for (const auto& entry :
         std::filesystem::directory_iterator(folder, std::filesystem::directory_options::skip_permission_denied)) {
        const std::string name = entry.path().filename().string();
        const auto ends_with = [&](std::string_view end) { return name.ends_with(end); };
        is_distributed = is_distributed || name == ".metadata" || ends_with(".distcp");
        is_deepspeed = is_deepspeed || name == "zero_to_fp32.py";
        is_tensorflow = is_tensorflow || name == "saved_model.pb" || name.find(".data-0") != name.npos;
        static constexpr std::array<std::string_view, 5> ours{".safetensors", ".pt", ".pth", ".bin", ".ckpt"},
            others{".h5", ".msgpack", ".onnx", ".gguf", ".npz"};
        if (std::ranges::any_of(ours, ends_with)) readable.push_back(in_quotes(name));
        if (std::ranges::any_of(others, ends_with)) foreign.push_back(in_quotes(name));
    }
    const auto list = [](std::vector<std::string>& names) {
        std::ranges::sort(names);
        std::string text;
        for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 5); ++i) text += (i > 0 ? ", " : "") + names[i];
        return text + (names.size() > 5 ? " and others" : "");
    };
    if (is_distributed) return "a folder of " + std::string(distributed_advice);
    if (is_deepspeed) return "a folder of DeepSpeed's: `python zero_to_fp32.py . weights` in it makes weights of it";
    if (!readable.empty()) return "none, but " + list(readable) + ": name the file";
    if (is_tensorflow) return "a folder of " + std::string(tensorflow_advice);
    if (!foreign.empty())
        return "none, but " + list(foreign) +
               ", which is another format: the model's PyTorch weights are read, as safetensors or of torch.save";
    return "none";
}

/// Throws for a file whose name, not its bytes, tells that it is a part of something else.
[[gnu::cold]] TANDEM_INLINE void refuse_part(const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    if (name.ends_with(".distcp") || name == ".metadata")
        throw Error(path.string(), weight_formats, "a part of " + std::string(distributed_advice));
    if (name.find(".data-0") != name.npos)
        throw Error(path.string(), weight_formats, "a part of " + std::string(tensorflow_advice));
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE WeightFiles WeightFiles::open(const std::filesystem::path& path) {
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

TANDEM_INLINE const StoredTensor* WeightFiles::find(std::string_view name) const {
    const auto found =
        std::lower_bound(by_name_.begin(), by_name_.end(), name,
                         [&](std::uint32_t i, std::string_view sought) { return tensors_[i].name < sought; });
    return found == by_name_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
}

TANDEM_INLINE const UnreadableTensor* WeightFiles::find_unreadable(std::string_view name) const {
    const auto found = std::find_if(unreadable_.begin(), unreadable_.end(),
                                    [&](const UnreadableTensor& tensor) { return tensor.name == name; });
    return found == unreadable_.end() ? nullptr : &*found;
}

TANDEM_INLINE void WeightFiles::add_others(std::string_view where) {
    const auto move = [](auto& from, auto& to) {
        to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
        from.clear();
    };
    move(others_, tensors_);
    move(file_of_other_, file_of_);
    move(unreadable_others_, unreadable_);
    by_name_ = detail::positions_by_name(tensors_, where);
}

TANDEM_INLINE void WeightFiles::forget(const StoredTensor& tensor) const {
    const auto is_in = [&](const std::vector<StoredTensor>& list) {
        return !std::less<>()(&tensor, list.data()) && std::less<>()(&tensor, list.data() + list.size());
    };
    const std::size_t file = is_in(tensors_) ? file_of_[static_cast<std::size_t>(&tensor - tensors_.data())]
                                             : file_of_other_[static_cast<std::size_t>(&tensor - others_.data())];
    if (file < first_archive) {
        files_[file].forget(tensor);
    } else {
        archives_[file - first_archive].forget(tensor);
    }
}

[[gnu::cold]] TANDEM_INLINE std::filesystem::path WeightFiles::in_folder(const std::filesystem::path& folder) {
    std::string expected;
    for (const char* const name : names) {
        if (std::filesystem::exists(folder / name)) return folder / name;
        if (std::filesystem::is_symlink(folder / name))
            throw Error((folder / name).string(), "weights", "a link that leads to no file: download it again");
        expected += (expected.empty() ? "" : ", ") + std::string(name);
    }
    throw Error(folder.string(), "one of " + expected + " in the folder", detail::other_contents(folder));
}

[[gnu::cold]] TANDEM_INLINE WeightFiles::Format WeightFiles::format_of(const std::filesystem::path& path) {
    detail::refuse_part(path);
    const MappedFile file(path);
    if (detail::is_zip(file.bytes()) || detail::is_legacy_torch(file.bytes())) return Format::torch;
    // The last bytes of LevelDB's tables, which TensorFlow's .index files are (leveldb/table/format.h).
    constexpr std::string_view table_end = "\x57\xfb\x80\x8b\x24\x75\x47\xdb";
    if (file.bytes().size() >= table_end.size() && detail::starts_with(file.bytes().last(table_end.size()), table_end))
        throw Error(path.string(), detail::weight_formats, "a part of " + std::string(detail::tensorflow_advice));
    // What ends within the first bytes of a safetensors file is called so.
    const bool is_whole = file.bytes().size() > 8;
    const bool is_named = !detail::file_kind(file.bytes()).name.empty() || detail::is_text(file.bytes());
    if (is_named || (is_whole && !detail::is_safetensors(file.bytes())))
        detail::throw_other_kind(path.string(), detail::weight_formats, file.bytes());
    return Format::safetensors;
}

TANDEM_INLINE void WeightFiles::add_stamp(const std::filesystem::path& path) {
    struct ::stat status {};
    if (::stat(path.c_str(), &status) != 0) return;  // opening it says why
    // The time of the inode: a copy with another's date has its own.
    stamp_ += (stamp_.empty() ? "" : "; ") + detail::in_quotes(path.filename().string()) + " of " + std::to_string(status.st_size) +
              " bytes and time " + std::to_string(status.st_ctim.tv_sec) + "." + std::to_string(status.st_ctim.tv_nsec);
}

[[gnu::cold]] TANDEM_INLINE void WeightFiles::add(const std::filesystem::path& path) {
    add_stamp(path);  // before it is mapped: what replaces it meanwhile has another
    const bool torch = format_of(path) == Format::torch;
    std::span<const StoredTensor> found;
    if (torch) {
        archives_.push_back(TorchArchive::open(path));
        const TorchArchive& archive = archives_.back();
        found = archive.tensors();
        unreadable_.insert(unreadable_.end(), archive.unreadable().begin(), archive.unreadable().end());
        others_.insert(others_.end(), archive.others().begin(), archive.others().end());
        unreadable_others_.insert(unreadable_others_.end(), archive.unreadable_others().begin(),
                                  archive.unreadable_others().end());
        if (found.empty() && archive.unreadable().empty() && archive.others().empty()) {
            throw Error(path.string(), detail::weight_formats,
                        "a file of torch.save without tensors: save the model's, torch.save(model.state_dict(), "
                        "\"weights.pt\")");
        }
    } else {
        files_.push_back(Safetensors::open(path));
        found = files_.back().tensors();
        if (files_.back().metadata().contains(detail::packed_key))
            throw Error(path.string(), detail::weight_formats, "a packed copy of some, for one instruction set, which map_packed opens");
    }
    const std::size_t file = torch ? first_archive + archives_.size() - 1 : files_.size() - 1;
    tensors_.insert(tensors_.end(), found.begin(), found.end());
    file_of_.resize(tensors_.size(), file);
    file_of_other_.resize(others_.size(), file);
}

[[gnu::cold]] TANDEM_INLINE void WeightFiles::add_shards(const std::filesystem::path& index) {
    add_stamp(index);
    detail::JsonLeaves leaves;
    detail::read_json(index, leaves, "the JSON index of shards");
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
            throw Error(
                index.string(),
                "shard " + name + " beside the index, with " + std::to_string(tensors.size()) + " of the tensors",
                "no such file");
        }
        const std::size_t before = tensors_.size();
        add(shard);
        const auto begin = tensors_.begin() + static_cast<std::ptrdiff_t>(before);
        for (const std::string& tensor : tensors) {
            const bool is_there =
                std::any_of(begin, tensors_.end(), [&](const StoredTensor& found) { return found.name == tensor; });
            if (!is_there && find_unreadable(tensor) == nullptr) {
                throw Error(shard.string(), "tensor " + detail::in_quotes(tensor) + ", which the index says it has",
                            "none of that name");
            }
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI
