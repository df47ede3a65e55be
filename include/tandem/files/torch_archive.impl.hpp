// Definitions of files/torch_archive.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
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
#include <tandem/files/byte_reader.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/files/pickle.hpp>
#include <tandem/files/safetensors_types.hpp>
#include <tandem/files/torch_archive.hpp>
#include <tandem/files/zip.hpp>

namespace tandem::inline TANDEM_ABI::detail {

struct TorchType {
    std::string_view storage, dtype;  ///< "Float" of torch.FloatStorage, and "float32" of torch.float32
    DataType type;
};

/// torch/storage.py, _dtype_to_storage_type_map and _new_dtypes; complex128, the quantised and the packed types have no
/// counterpart.
inline constexpr std::array<TorchType, 20> torch_types{{{"Float", "float32", DataType::F32},
                                                        {"Half", "float16", DataType::F16},
                                                        {"BFloat16", "bfloat16", DataType::BF16},
                                                        {"Double", "float64", DataType::F64},
                                                        {"Long", "int64", DataType::I64},
                                                        {"Int", "int32", DataType::I32},
                                                        {"Short", "int16", DataType::I16},
                                                        {"Char", "int8", DataType::I8},
                                                        {"Byte", "uint8", DataType::U8},
                                                        {"Bool", "bool", DataType::BOOL},
                                                        {"ComplexFloat", "complex64", DataType::C64},
                                                        {"Untyped", "", DataType::U8},
                                                        {"", "uint16", DataType::U16},
                                                        {"", "uint32", DataType::U32},
                                                        {"", "uint64", DataType::U64},
                                                        {"", "float8_e4m3fn", DataType::F8_E4M3},
                                                        {"", "float8_e5m2", DataType::F8_E5M2},
                                                        {"", "float8_e4m3fnuz", DataType::F8_E4M3FNUZ},
                                                        {"", "float8_e5m2fnuz", DataType::F8_E5M2FNUZ},
                                                        {"", "float8_e8m0fnu", DataType::F8_E8M0}}};

/// The type a storage's class ("torch.FloatStorage", "torch.cuda.HalfStorage") or a dtype ("torch.uint16") names.
[[gnu::cold]] TANDEM_INLINE std::optional<DataType> torch_type(std::string_view global) {
    std::string_view name = global.substr(global.rfind('.') + 1);
    const bool is_storage = name.ends_with("Storage");
    if (is_storage) name.remove_suffix(std::string_view("Storage").size());
    if (is_storage && name.starts_with('_')) name.remove_prefix(1);
    for (const TorchType& known : torch_types) {
        if (!name.empty() && name == (is_storage ? known.storage : known.dtype)) return known.type;
    }
    return std::nullopt;
}

/// Elements of a strided view in row-major order. The view must lie within the storage.
[[gnu::cold]] TANDEM_INLINE void copy_strided(std::span<const std::byte> storage, std::size_t width, std::size_t offset,
                                              std::span<const std::size_t> shape, std::span<const std::size_t> strides,
                                              std::span<std::byte> out) {
    std::vector<std::size_t> index(shape.size());
    std::size_t from = offset;
    for (std::size_t to = 0; to < out.size(); to += width) {
        std::memcpy(out.data() + to, storage.data() + from * width, width);
        for (std::size_t axis = shape.size(); axis-- > 0;) {
            from += strides[axis];
            if (++index[axis] < shape[axis]) break;
            from -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

/// Turns the value of a pickle into tensors, named by the keys on the way to them.
class TorchTensors {
public:
    TorchTensors(const Unpickler& values, const Storages& storages, std::size_t file_bytes, std::string_view where)
        : values_(values),
          storages_(storages),
          where_(where),
          visits_(1'000'000 + 8 * values.size()),
          index_bytes_((std::size_t{64} << 20) + 8 * values.size()),
          copy_bytes_((std::size_t{64} << 20) + file_bytes),
          is_open_(values.size()),
          is_seen_(values.size()) {}

    [[gnu::cold]] void collect(std::uint32_t root) {
        const PickleValue& value = values_[root];
        std::optional<std::uint32_t> state;
        for_each_entry(value, [&](const PickleValue& key, std::uint32_t entry) {
            if (key.text == "state_dict") state = entry;
        });
        if (state) {
            visit(*state, 0);
            if (!state_dict.empty()) list_ = &others;
        }
        if (list_ == &others) {
            for_each_entry(value, [&](const PickleValue& key, std::uint32_t entry) {
                if (key.text != "state_dict") visit_named(key.text, entry, 0);
            });
        } else if (value.kind == Kind::list) {
            for (std::size_t i = 0; i < value.items.size(); ++i) visit_named(std::to_string(i), value.items[i], 0);
        } else {
            visit(root, 0);
        }
    }

    TorchTensorList state_dict;                  ///< those of the root's "state_dict"; all where it has none
    TorchTensorList others;                      ///< what stands beside it
    std::vector<std::vector<std::byte>> copies;  ///< of tensors that do not stand in the file row by row

private:
    using Kind = PickleValue::Kind;

    // A dictionary may hold one thing many times over: what is visited is bounded, not only what is stored. Python's
    // own pickler writes nothing deeper than its recursion limit, 1,000.
    static constexpr std::size_t max_depth = 1000, max_rank = 64;

    [[noreturn, gnu::cold]] void too_much() const {
        throw Error(where_, "a file of weights",
                    "more than any model has: save the weights alone, torch.save(model.state_dict(), \"weights.pt\")");
    }
    void spend(std::size_t& budget, std::size_t amount) const {
        if (amount > budget) too_much();
        budget -= amount;
    }

    /// Calls visit(key, position) for the entries of a dictionary, or of an object and its state.
    template <class Visit>
    void for_each_entry(const PickleValue& owner, const Visit& visit) {
        if (owner.kind != Kind::dictionary && owner.kind != Kind::object) return;
        for (std::size_t i = 0; i + 1 < owner.items.size(); i += 2) {
            spend(visits_, 1);
            const PickleValue& value = values_[owner.items[i + 1]];
            if (owner.items[i] == Unpickler::pairs_of) {
                for (const std::uint32_t pair : value.items) {
                    spend(visits_, 1);
                    const std::vector<std::uint32_t>& parts = values_[pair].items;
                    if (values_[pair].kind == Kind::list && parts.size() == 2) visit(values_[parts[0]], parts[1]);
                }
            } else if (owner.items[i] != Unpickler::state_of) {
                visit(values_[owner.items[i]], owner.items[i + 1]);
            } else if (value.kind == Kind::dictionary) {
                for_each_entry(value, visit);
            } else if (value.kind == Kind::list) {  // attributes, and those of __slots__
                for (const std::uint32_t part : value.items) {
                    spend(visits_, 1);
                    if (values_[part].kind == Kind::dictionary) for_each_entry(values_[part], visit);
                }
            }
        }
    }

    void visit_named(std::string_view key, std::uint32_t position, std::size_t depth) {
        const Kind kind = values_[position].kind;
        if (kind != Kind::tensor && kind != Kind::unreadable && kind != Kind::dictionary && kind != Kind::object)
            return;
        spend(index_bytes_, key.size());
        const std::size_t size = path_.size();
        if (size > 0) path_ += '.';
        path_ += key;
        visit(position, depth + 1);
        path_.resize(size);
    }

    void visit(std::uint32_t position, std::size_t depth) {
        if (depth > max_depth) too_much();
        spend(visits_, 1);
        const PickleValue& value = values_[position];
        if (value.kind == Kind::tensor) return add(value);
        if (value.kind == Kind::unreadable) return refuse(std::string(value.text));
        if (value.kind != Kind::dictionary && value.kind != Kind::object) return;
        if (value.text.ends_with("multiarray._reconstruct") || value.text.ends_with("numeric._frombuffer"))
            return refuse("a NumPy array; save it as torch.from_numpy(array)", false);
        if (value.text.ends_with(".ShardedTensor")) return refuse(std::string(Unpickler::distributed));
        // Objects refer to each other as they like; modules and dictionaries are known by every name they have.
        if (is_open_[position]) return;
        std::array<std::uint32_t, 4> parts{};
        const bool is_module = value.kind == Kind::object && find_module_parts(value, parts);
        if (value.kind == Kind::object && !is_module && !value.text.starts_with("__torch__")) {
            if (is_seen_[position]) return;
            is_seen_[position] = true;
        }
        is_open_[position] = true;
        if (is_module) {
            visit_module(parts, depth);
        } else {
            for_each_entry(value, [&](const PickleValue& key, std::uint32_t entry) {
                if (key.kind == Kind::text) visit_named(key.text, entry, depth);
            });
        }
        is_open_[position] = false;
    }

    /// Where an object is a torch.nn.Module, the positions of its parts.
    bool find_module_parts(const PickleValue& object, std::array<std::uint32_t, 4>& parts) {
        static constexpr std::array<std::string_view, 4> names{"_parameters", "_buffers", "_modules",
                                                               "_non_persistent_buffers_set"};
        for_each_entry(object, [&](const PickleValue& key, std::uint32_t entry) {
            for (std::size_t i = 0; i < names.size(); ++i) {
                if (key.text == names[i]) parts[i] = entry;
            }
        });
        return parts[0] != 0 && parts[1] != 0 && parts[2] != 0;
    }

    /// Names a whole module's tensors as its state_dict() does.
    void visit_module(const std::array<std::uint32_t, 4>& parts, std::size_t depth) {
        std::vector<std::string_view> left_out;
        for (const std::uint32_t name : values_[parts[3]].items) left_out.push_back(values_[name].text);
        spend(visits_, left_out.size());
        std::sort(left_out.begin(), left_out.end());
        for (const std::uint32_t part : {parts[0], parts[1], parts[2]}) {
            for_each_entry(values_[part], [&](const PickleValue& key, std::uint32_t entry) {
                const bool is_left_out =
                    part == parts[1] && std::binary_search(left_out.begin(), left_out.end(), key.text);
                if (key.kind == Kind::text && !is_left_out) visit_named(key.text, entry, depth);
            });
        }
    }

    [[gnu::cold]] void refuse(std::string reason, bool is_tensor = true) {
        spend(index_bytes_, index_cost(path_.size() + reason.size(), 0));
        list_->unreadable.push_back({path_, std::move(reason), is_tensor});
    }
    [[noreturn, gnu::cold]] void fail(const std::string& found) const {
        throw Error(where_, "tensor " + in_quotes(path_) + ": " + found);
    }

    /// Nothing where a size is not known.
    std::optional<std::vector<std::size_t>> extents(std::uint32_t position) const {
        std::vector<std::size_t> found;
        const PickleValue& list = values_[position];
        if (list.kind != Kind::list || list.items.size() > max_rank) return std::nullopt;
        for (const std::uint32_t item : list.items) {
            const PickleValue& value = values_[item];
            if (value.kind != Kind::integer || value.integer < 0) return std::nullopt;
            found.push_back(static_cast<std::size_t>(value.integer));
        }
        return found;
    }

    /// The bytes of a storage, in the file or, of a NumPy array, in the pickle; nothing where it has none, or where
    /// more would be copied than may be.
    std::optional<std::span<const std::byte>> bytes_of(const PickleValue& storage) {
        if (storage.items.size() == 1) {
            const auto entry = storages_.find(storage.text);
            return entry == storages_.end() ? std::nullopt : std::optional(entry->second);
        }
        const PickleValue& raw = values_[storage.items[1]];
        if (raw.integer == 0) return std::as_bytes(std::span(raw.text));
        // Latin-1 in UTF-8: a byte from 0x80 on is one of 0xc2 and 0xc3 and another.
        if (raw.text.size() > copy_bytes_) return std::nullopt;
        copy_bytes_ -= raw.text.size();
        std::vector<std::byte>& copy = copies.emplace_back();
        for (std::size_t i = 0; i < raw.text.size(); ++i) {
            const auto letter = [&] { return static_cast<unsigned>(static_cast<unsigned char>(raw.text[i])); };
            unsigned byte = letter();
            if (byte >= 0xc0 && i + 1 < raw.text.size()) {
                ++i;
                byte = byte << 6U | (letter() & 0x3fU);
            }
            copy.push_back(std::byte{static_cast<unsigned char>(byte)});
        }
        return copy;
    }

    [[gnu::cold]] void add(const PickleValue& value) {
        const PickleValue& storage = values_[value.items[0]];
        if (storage.kind != Kind::storage)
            return refuse("a tensor whose elements only code can make; save it as tensor.detach().clone()");
        const std::string_view type_name = values_[value.items.size() > 4 ? value.items[4] : storage.items[0]].text;
        const auto found_type = torch_type(type_name);
        if (!found_type) {
            const bool is_complex = type_name.find("omplex") != type_name.npos;
            return refuse("a tensor with elements of " + in_quotes(type_name) +
                          (is_complex ? "; save it as torch.view_as_real(tensor)" : "; save it as tensor.float()"));
        }
        const DataType type = *found_type;
        const std::size_t width = bits(type) / 8;
        const PickleValue& offset_value = values_[value.items[1]];
        const auto sizes = extents(value.items[2]), steps = extents(value.items[3]);
        if (!sizes || !steps || sizes->size() != steps->size() || offset_value.kind != Kind::integer ||
            offset_value.integer < 0 || storage.integer < 0)
            return refuse(
                "a tensor whose sizes only code can make, or of more than 64 axes; save it as tensor.detach().clone()");
        spend(index_bytes_, index_cost(path_.size(), sizes->size()));
        const std::optional<std::span<const std::byte>> entry = bytes_of(storage);
        if (!entry)
            fail("its storage " + in_quotes(storage.text) +
                 " is missing: the file is damaged; copy or download it again");
        const std::size_t offset =
            static_cast<std::size_t>(offset_value.integer) + static_cast<std::size_t>(storage.integer);
        const std::vector<std::size_t>&shape = *sizes, &strides = *steps;
        const auto size = byte_count(type, shape);
        // The last element's position; what overflows is beyond any storage.
        std::size_t last = offset;
        bool is_dense = true, overflows = !size;
        std::size_t expected = 1;
        for (std::size_t axis = shape.size(); axis-- > 0 && !overflows;) {
            std::size_t reach = 0;
            if (shape[axis] > 0) {
                overflows = __builtin_mul_overflow(shape[axis] - 1, strides[axis], &reach) ||
                            __builtin_add_overflow(last, reach, &last);
            }
            is_dense = is_dense && (shape[axis] <= 1 || strides[axis] == expected);
            expected *= shape[axis];
        }
        const std::size_t elements = entry->size() / width;
        if (overflows || (*size > 0 && last >= elements)) {
            fail("shape " + shape_text(shape) + " at element " + std::to_string(offset) +
                 " reaches beyond its storage of " + std::to_string(elements) +
                 " elements: the file is damaged; copy or download it again");
        }
        if (*size == 0 || is_dense) {
            list_->tensors.push_back(
                {path_, type, shape,
                 *size == 0 ? std::span<const std::byte>() : entry->subspan(offset * width, *size)});
            return;
        }
        if (*size > copy_bytes_) {
            return refuse(
                "a view that repeats elements: such views may take the file's size and 64 MiB of memory, and this one "
                "would exceed that; "
                "save it as tensor.contiguous()");
        }
        copy_bytes_ -= *size;
        std::vector<std::byte>& copy = copies.emplace_back(*size);
        copy_strided(*entry, width, offset, shape, strides, copy);
        list_->tensors.push_back({path_, type, shape, copy});
    }

    const Unpickler& values_;
    const Storages& storages_;
    std::string_view where_;
    std::size_t visits_, index_bytes_,
        copy_bytes_;                       ///< what may still be visited, be kept of names and shapes, be copied
    std::vector<bool> is_open_, is_seen_;  ///< of the pickle's values
    std::string path_;
    TorchTensorList* list_ = &state_dict;
};

/// The Error of a zip archive that torch.save did not write.
[[noreturn, gnu::cold]] TANDEM_INLINE void throw_other_zip(const std::map<std::string_view, ZipEntry>& entries,
                                                           std::string_view where) {
    const auto has = [&](std::string_view end) {
        return std::find_if(entries.begin(), entries.end(),
                            [&](const auto& entry) { return entry.first.ends_with(end); }) != entries.end();
    };
    std::string found = "a zip archive without its data.pkl";
    if (has(".npy"))
        found =
            "NumPy arrays (.npz): save them with safetensors.torch.save_file, or torch.save of a dictionary of tensors";
    for (const std::string_view inside : {".safetensors", ".pt", ".pth", ".bin"}) {
        if (has(inside)) found = "a zip archive of files: unpack it, and name the one with the weights";
    }
    if (has("model.weights.h5"))
        found = "a Keras model: the model's PyTorch weights are read, as safetensors or of torch.save";
    if (has("model.json") && !has("model.weights.h5"))
        found = "a file of torch.jit.save before PyTorch 1.4: load it with torch.jit.load and save it again";
    if (has("archive_format") || has("serialized_exported_program.json"))
        found =
            "a program of torch.export (.pt2): save its weights, torch.save(torch.export.load(file).state_dict, "
            "\"weights.pt\")";
    throw Error(where, "a file of torch.save", found);
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE TorchArchive TorchArchive::open(const std::filesystem::path& path) {
    MappedFile file(path);
    TorchArchive result(file.bytes(), path.string());
    result.file_ = std::move(file);
    return result;
}

TANDEM_INLINE TorchArchive TorchArchive::parse(std::span<const std::byte> bytes, std::string_view where) {
    return TorchArchive(bytes, where);
}

TANDEM_INLINE void TorchArchive::forget(const StoredTensor& tensor) const {
    const bool is_copy = std::any_of(copies_.begin(), copies_.end(),
                                     [&](const auto& copy) { return copy.data() == tensor.data.data(); });
    if (file_ && !is_copy) file_->forget(tensor.data);
}

[[gnu::cold]] TANDEM_INLINE TorchArchive::TorchArchive(std::span<const std::byte> bytes, std::string_view where) {
    if (detail::is_zip(bytes)) {
        read_zip(bytes, where);
    } else if (detail::is_legacy_torch(bytes)) {
        read_legacy(bytes, where);
    } else {
        detail::throw_other_kind(where, "a file of torch.save", bytes);
    }
}

TANDEM_INLINE void TorchArchive::read_zip(std::span<const std::byte> bytes, std::string_view where) {
    const auto entries = detail::zip_entries(bytes, where);
    const auto is_pickle = [](const auto& entry) {
        return entry.first == "data.pkl" || entry.first.ends_with("/data.pkl");
    };
    const auto pickle = std::find_if(entries.begin(), entries.end(), is_pickle);
    if (pickle == entries.end()) detail::throw_other_zip(entries, where);
    const std::string prefix(pickle->first.substr(0, pickle->first.size() - std::string_view("data.pkl").size()));
    const std::string data = prefix + "data/";
    detail::Storages storages;
    for (const auto& [name, entry] : entries) {
        if (entry.is_compressed && (name == pickle->first || name.starts_with(data))) {
            throw Error(where, "a file as torch.save writes it, uncompressed",
                        "its part " + detail::in_quotes(name) +
                            " compressed: another program zipped it anew; unpack it and zip it with `zip -0 -r`, "
                            "or torch.save(torch.load(file), \"weights.pt\")");
        }
        if (name.starts_with(data)) storages[name.substr(data.size())] = entry.bytes;
    }
    if (const auto order = entries.find(prefix + "byteorder"); order != entries.end()) {
        const std::string_view found(reinterpret_cast<const char*>(order->second.bytes.data()),
                                     order->second.bytes.size());
        if (found != "little") throw Error(where, "tensors in little-endian order", detail::in_quotes(found));
    }
    detail::ByteReader reader(pickle->second.bytes, where, "data.pkl");
    detail::Unpickler values(reader, where);
    const std::uint32_t root = values.run();
    collect(values, root, storages, bytes.size(), where);
}

TANDEM_INLINE void TorchArchive::read_legacy(std::span<const std::byte> bytes, std::string_view where) {
    detail::ByteReader reader(bytes, where, "the file");
    for (int head = 0; head < 3; ++head) detail::Unpickler(reader, where).run();
    detail::Unpickler values(reader, where);
    const std::uint32_t root = values.run();
    std::map<std::string_view, std::size_t> widths;
    for (const std::uint32_t position : values.storages()) {
        const std::string_view name = values[values[position].items[0]].text;
        const auto type = detail::torch_type(name);
        // Quantised types and complex128 have no counterpart, but elements all the same.
        const std::size_t other = name.find("ComplexDouble") != name.npos ? 16
                                  : name.find("QInt32") != name.npos      ? 4
                                                                          : 1;
        widths.try_emplace(values[position].text, type ? bits(*type) / 8 : other);
    }
    detail::Unpickler keys(reader, where);
    const std::uint32_t list = keys.run();
    detail::Storages storages;
    for (const std::uint32_t key : keys[list].items) {
        const auto width = widths.find(keys[key].text);
        const auto count = reader.number<std::uint64_t>();
        std::size_t size = 0;
        if (width == widths.end() || __builtin_mul_overflow(count, width->second, &size)) {
            throw Error(where, "a whole file of torch.save",
                        "a damaged list of its tensors' data: copy or download it again");
        }
        storages[keys[key].text] = reader.take(size);
    }
    collect(values, root, storages, bytes.size(), where);
}

TANDEM_INLINE void TorchArchive::collect(const detail::Unpickler& values, std::uint32_t root,
                                         const detail::Storages& storages, std::size_t file_bytes,
                                         std::string_view where) {
    detail::TorchTensors found(values, storages, file_bytes, where);
    found.collect(root);
    state_dict_ = std::move(found.state_dict);
    others_ = std::move(found.others);
    copies_ = std::move(found.copies);
}

}  // namespace tandem::inline TANDEM_ABI
