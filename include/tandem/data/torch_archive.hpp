// Files of torch.save and torch.jit.save, read without executing anything.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
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
#include <tandem/data/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Little-endian bytes read from front to back; `what` and `where` name them in the Error of a read beyond their end.
class ByteReader {
public:
    ByteReader(std::span<const std::byte> bytes, std::string_view where, std::string_view what)
        : bytes_(bytes), where_(where), what_(what) {}

    std::size_t position() const { return position_; }
    bool at_end() const { return position_ == bytes_.size(); }

    std::span<const std::byte> take(std::size_t count) {
        if (count > bytes_.size() - position_) {
            throw Error(where_, std::to_string(count) + " bytes at byte " + std::to_string(position_) + " of " + std::string(what_),
                        std::to_string(bytes_.size() - position_));
        }
        position_ += count;
        return bytes_.subspan(position_ - count, count);
    }

    template <std::integral T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }

    std::string_view text(std::size_t count) {
        const auto bytes = take(count);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    /// Up to the next line feed, which is taken too.
    std::string_view line() {
        const auto rest = bytes_.subspan(position_);
        const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
        const std::string_view found = text(static_cast<std::size_t>(end - rest.begin()));
        take(1);
        return found;
    }

private:
    std::span<const std::byte> bytes_;
    std::string_view where_, what_;
    std::size_t position_ = 0;
};

/// The entries of a zip archive that are stored as they are, with their bytes in place; compressed ones (TorchScript's
/// code) are left out. Read here and not by a zip library, since those copy what they read. APPNOTE.TXT 6.3.10,
/// sections 4.3.7 to 4.3.16.
[[gnu::cold]] inline std::map<std::string_view, std::span<const std::byte>> zip_entries(std::span<const std::byte> file,
                                                                                       std::string_view where) {
    constexpr std::size_t end_size = 22, locator_size = 20;
    const auto reader = [&](std::size_t at, std::string_view what) {
        if (at > file.size()) throw Error(where, "a whole zip archive", "one that is cut off before " + std::string(what));
        return ByteReader(file.subspan(at), where, what);
    };
    // The end record stands before a comment of at most 65,535 bytes.
    std::size_t end = file.size();
    for (std::size_t back = end_size; back <= std::min(file.size(), end_size + 0xffff); ++back) {
        if (reader(file.size() - back, "its end").number<std::uint32_t>() == 0x06054b50) {
            end = file.size() - back;
            break;
        }
    }
    if (end == file.size()) throw Error(where, "a whole zip archive", "no end record: the file is cut off, or of another kind");
    ByteReader record = reader(end + 10, "the end record");
    std::uint64_t count = record.number<std::uint16_t>();
    record.take(4);
    std::uint64_t directory = record.number<std::uint32_t>();
    if ((count == 0xffff || directory == 0xffffffff) && end >= locator_size) {
        ByteReader locator = reader(end - locator_size, "the zip64 locator");
        if (locator.number<std::uint32_t>() == 0x07064b50) {
            locator.take(4);
            ByteReader wide = reader(locator.number<std::uint64_t>(), "the zip64 end record");
            if (wide.number<std::uint32_t>() != 0x06064b50) throw Error(where, "a zip64 end record", "other bytes");
            wide.take(28);
            count = wide.number<std::uint64_t>();
            wide.take(8);
            directory = wide.number<std::uint64_t>();
        }
    }
    std::map<std::string_view, std::span<const std::byte>> entries;
    ByteReader header = reader(directory, "the directory");
    for (std::uint64_t i = 0; i < count; ++i) {
        if (header.number<std::uint32_t>() != 0x02014b50) throw Error(where, "entry " + std::to_string(i) + " of the zip directory", "other bytes");
        header.take(6);
        const auto method = header.number<std::uint16_t>();
        header.take(8);
        std::uint64_t stored = header.number<std::uint32_t>(), size = header.number<std::uint32_t>();
        const auto name_size = header.number<std::uint16_t>(), extra_size = header.number<std::uint16_t>(),
                   comment_size = header.number<std::uint16_t>();
        header.take(8);
        std::uint64_t at = header.number<std::uint32_t>();
        const std::string_view name = header.text(name_size);
        ByteReader extra(header.take(extra_size), where, "a zip entry's extra field");
        header.take(comment_size);
        while (!extra.at_end()) {
            const auto id = extra.number<std::uint16_t>();
            ByteReader field(extra.take(extra.number<std::uint16_t>()), where, "a zip64 field");
            if (id != 1) continue;
            if (size == 0xffffffff) size = field.number<std::uint64_t>();
            if (stored == 0xffffffff) stored = field.number<std::uint64_t>();
            if (at == 0xffffffff) at = field.number<std::uint64_t>();
        }
        if (method != 0) continue;
        ByteReader local = reader(at, "a zip entry");
        if (local.number<std::uint32_t>() != 0x04034b50) throw Error(where, "zip entry " + in_quotes(name), "other bytes at byte " + std::to_string(at));
        local.take(22);
        const auto local_name = local.number<std::uint16_t>(), local_extra = local.number<std::uint16_t>();
        local.take(local_name + std::size_t{local_extra});
        if (stored != size) throw Error(where, "zip entry " + in_quotes(name) + " of one size", std::to_string(stored) + " and " + std::to_string(size));
        entries[name] = local.take(size);
    }
    return entries;
}

/// What a pickle makes, one value of it. Values refer to each other by position: nothing is copied, whatever a hostile
/// file repeats.
struct PickleValue {
    enum class Kind : std::uint8_t { mark, other, integer, text, global, list, dictionary, object, storage, tensor };

    Kind kind = Kind::other;
    std::int64_t integer = 0;
    std::string text;                  ///< of a text, a global ("torch.FloatStorage") and a storage's key
    std::vector<std::uint32_t> items;  ///< of a list, of a dictionary (keys and values in turn), or an object's state
};

/// A stack machine for the part of Python's pickle protocols 2 to 4 that tensors, dictionaries of them and modules of
/// TorchScript are written in (Lib/pickletools.py says what every opcode does). It calls nothing: the few functions that
/// torch.save names are understood, and any other is an Error with its name.
class Unpickler {
public:
    using Kind = PickleValue::Kind;

    Unpickler(std::span<const std::byte> bytes, std::string_view where) : reader_(bytes, where, "data.pkl"), where_(where) {}

    /// The position of the value that the pickle describes.
    [[gnu::cold]] std::uint32_t run() {
        while (true) {
            const auto opcode = reader_.number<std::uint8_t>();
            if (opcode == '.') return pop();
            step(opcode);
        }
    }

    const PickleValue& operator[](std::uint32_t position) const { return values_[position]; }

private:
    [[noreturn, gnu::cold]] void fail(const std::string& found) const {
        throw Error(where_, "a pickle of tensors", found + " at byte " + std::to_string(reader_.position()) + " of data.pkl");
    }

    std::uint32_t push(PickleValue value) {
        values_.push_back(std::move(value));
        stack_.push_back(static_cast<std::uint32_t>(values_.size() - 1));
        return stack_.back();
    }
    void push_number(std::int64_t value) { push({.kind = Kind::integer, .integer = value, .text = {}, .items = {}}); }
    void push_text(Kind kind, std::string_view text) { push({.kind = kind, .integer = 0, .text = std::string(text), .items = {}}); }
    void push_items(Kind kind, std::vector<std::uint32_t> items) { push({.kind = kind, .integer = 0, .text = {}, .items = std::move(items)}); }

    std::uint32_t pop() {
        if (stack_.empty()) fail("a value taken from an empty stack");
        const std::uint32_t top = stack_.back();
        stack_.pop_back();
        return top;
    }
    std::uint32_t top() {
        if (stack_.empty()) fail("a value taken from an empty stack");
        return stack_.back();
    }
    std::vector<std::uint32_t> pop(std::size_t count) {
        if (count > stack_.size()) fail("a value taken from an empty stack");
        const std::vector<std::uint32_t> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
        stack_.resize(stack_.size() - count);
        return items;
    }
    std::vector<std::uint32_t> pop_to_mark() {
        std::size_t count = 0;
        while (count < stack_.size() && values_[stack_[stack_.size() - 1 - count]].kind != Kind::mark) ++count;
        if (count == stack_.size()) fail("no mark on the stack");
        std::vector<std::uint32_t> items = pop(count);
        pop();
        return items;
    }

    void remember(std::uint64_t name) { memo_[name] = top(); }
    void recall(std::uint64_t name) {
        const auto found = memo_.find(name);
        if (found == memo_.end()) fail("a memory of nothing");
        stack_.push_back(found->second);
    }

    void add(std::vector<std::uint32_t> items) {
        PickleValue& target = values_[top()];
        if (target.kind == Kind::dictionary && items.size() % 2 != 0) fail("a key without a value");
        if (target.kind != Kind::dictionary && target.kind != Kind::list) fail("items for what is no list or dictionary");
        target.items.insert(target.items.end(), items.begin(), items.end());
    }

    void global(std::string_view module, std::string_view name) {
        const std::string whole = std::string(module) + "." + std::string(name);
        static constexpr std::array known{std::string_view("collections.OrderedDict"), std::string_view("torch._utils._rebuild_tensor_v2"),
                                          std::string_view("torch._utils._rebuild_parameter")};
        const bool is_storage = module == "torch" && name.ends_with("Storage");
        const bool is_script = module.starts_with("__torch__") || module == "torch.jit._pickle";
        if (!is_storage && !is_script && std::find(known.begin(), known.end(), whole) == known.end()) {
            throw Error(where_, "a pickle of tensors, which needs no function but torch's to rebuild them",
                        in_quotes(whole) + ", which is not called");
        }
        push_text(Kind::global, whole);
    }

    void call() {
        const std::uint32_t arguments = pop(), function = pop();
        if (values_[function].kind != Kind::global || values_[arguments].kind != Kind::list) fail("a call of what is no function");
        const std::string& name = values_[function].text;
        const std::vector<std::uint32_t>& items = values_[arguments].items;
        if (name == "collections.OrderedDict") return void(push_items(Kind::dictionary, {}));
        if (name == "torch._utils._rebuild_tensor_v2") {
            if (items.size() < 4 || values_[items[0]].kind != Kind::storage) fail("a tensor without a storage");
            return push_items(Kind::tensor, {items.begin(), items.begin() + 4});
        }
        // _rebuild_parameter(tensor, ...), and TorchScript's lists of integers, which come as a list.
        if (items.empty()) fail(in_quotes(name) + " without arguments");
        stack_.push_back(items[0]);
    }

    void persistent() {
        const std::vector<std::uint32_t> items = values_[pop()].items;
        if (items.size() < 5 || values_[items[0]].text != "storage" || values_[items[1]].kind != Kind::global ||
            values_[items[2]].kind != Kind::text) {
            fail("a persistent id that is no storage");
        }
        push({.kind = Kind::storage, .integer = 0, .text = values_[items[2]].text, .items = {items[1]}});
    }

    void step(std::uint8_t opcode) {
        switch (opcode) {
            case 0x80: reader_.take(1); return;                                               // PROTO
            case 0x95: reader_.take(8); return;                                               // FRAME
            case 'c': {                                                                       // GLOBAL
                const std::string_view module = reader_.line();
                return global(module, reader_.line());
            }
            case 0x93: {  // STACK_GLOBAL
                const std::uint32_t name = pop(), module = pop();
                return global(std::string(values_[module].text), std::string(values_[name].text));
            }
            case 'q': return remember(reader_.number<std::uint8_t>());                        // BINPUT
            case 'r': return remember(reader_.number<std::uint32_t>());                       // LONG_BINPUT
            case 0x94: return remember(memo_.size());                                         // MEMOIZE
            case 'h': return recall(reader_.number<std::uint8_t>());                          // BINGET
            case 'j': return recall(reader_.number<std::uint32_t>());                         // LONG_BINGET
            case '(': return void(push({.kind = Kind::mark, .integer = 0, .text = {}, .items = {}}));
            case '0': return void(pop());                                                     // POP
            case '1': return void(pop_to_mark());                                             // POP_MARK
            case 'N': case 0x88: case 0x89: return void(push({}));                            // NONE, NEWTRUE, NEWFALSE
            case 'K': return push_number(reader_.number<std::uint8_t>());                     // BININT1
            case 'M': return push_number(reader_.number<std::uint16_t>());                    // BININT2
            case 'J': return push_number(reader_.number<std::int32_t>());                     // BININT
            case 0x8a: return push_long(reader_.number<std::uint8_t>());                      // LONG1
            case 'G': reader_.take(8); return void(push({}));                                 // BINFLOAT
            case 'X': return push_text(Kind::text, reader_.text(reader_.number<std::uint32_t>()));   // BINUNICODE
            case 0x8c: return push_text(Kind::text, reader_.text(reader_.number<std::uint8_t>()));   // SHORT_BINUNICODE
            case 'U': return push_text(Kind::text, reader_.text(reader_.number<std::uint8_t>()));    // SHORT_BINSTRING
            case ')': case ']': return push_items(Kind::list, {});                            // EMPTY_TUPLE, EMPTY_LIST
            case '}': return push_items(Kind::dictionary, {});                                // EMPTY_DICT
            case 0x85: case 0x86: case 0x87: return push_items(Kind::list, pop(opcode - 0x84U));     // TUPLE1 to TUPLE3
            case 't': case 'l': {                                                             // TUPLE, LIST
                std::vector<std::uint32_t> items = pop_to_mark();
                return push_items(Kind::list, std::move(items));
            }
            case 'a': return add(pop(1));                                                     // APPEND
            case 's': return add(pop(2));                                                     // SETITEM
            case 'e': case 'u': return add(pop_to_mark());                                    // APPENDS, SETITEMS
            case 'Q': return persistent();                                                    // BINPERSID
            case 'R': return call();                                                          // REDUCE
            case 0x81: {                                                                      // NEWOBJ
                pop(2);
                return push_items(Kind::object, {});
            }
            case 'b': {                                                                       // BUILD
                const std::uint32_t state = pop();
                PickleValue& target = values_[top()];
                // A dictionary's state is its attributes: state_dict() has _metadata.
                if (target.kind == Kind::object) target.items = {state};
                return;
            }
            default: fail("opcode " + std::to_string(opcode));
        }
    }

    void push_long(std::size_t size) {
        const auto bytes = reader_.take(size);
        std::int64_t value = 0;
        if (size > 8) return void(push({}));
        std::memcpy(&value, bytes.data(), size);
        if (size > 0 && size < 8 && (static_cast<unsigned>(bytes.back()) & 0x80U) != 0) value -= std::int64_t{1} << (8 * size);
        push_number(value);
    }

    ByteReader reader_;
    std::string_view where_;
    std::vector<PickleValue> values_;
    std::vector<std::uint32_t> stack_;
    std::map<std::uint64_t, std::uint32_t> memo_;
};

}  // namespace detail

namespace detail {

/// Turns the value of a pickle into tensors, named by the keys on the way to them.
class TorchTensors {
public:
    TorchTensors(const Unpickler& values, const std::map<std::string_view, std::span<const std::byte>>& entries, std::string prefix,
                 std::string_view where)
        : values_(values), entries_(entries), prefix_(std::move(prefix)), where_(where) {}

    [[gnu::cold]] void collect(std::uint32_t root) {
        const PickleValue& value = values_[root];
        for (std::size_t i = 0; value.kind == Kind::dictionary && i + 1 < value.items.size(); i += 2) {
            if (values_[value.items[i]].text == "state_dict") return visit(value.items[i + 1], "", 0);
        }
        visit(root, "", 0);
    }

    std::vector<StoredTensor> tensors;
    std::vector<std::vector<std::byte>> copies;  ///< of tensors that do not stand in the file row by row

private:
    using Kind = PickleValue::Kind;

    // A dictionary may hold one thing many times over: what is visited is bounded, not only what is stored.
    static constexpr std::size_t max_depth = 64, max_visits = 1'000'000;

    void visit(std::uint32_t position, const std::string& name, std::size_t depth) {
        if (depth > max_depth || ++visits_ > max_visits) throw Error(where_, "modules in modules", "more than any model has");
        const PickleValue& value = values_[position];
        if (value.kind == Kind::tensor) {
            add(value, name);
        } else if (value.kind == Kind::object) {
            for (const std::uint32_t state : value.items) visit(state, name, depth + 1);
        } else if (value.kind == Kind::dictionary) {
            for (std::size_t i = 0; i + 1 < value.items.size(); i += 2) {
                const PickleValue& key = values_[value.items[i]];
                if (key.kind != Kind::text) continue;
                visit(value.items[i + 1], name.empty() ? key.text : name + "." + key.text, depth + 1);
            }
        }
    }

    [[noreturn, gnu::cold]] void fail(const std::string& name, const std::string& found) const {
        throw Error(where_, "tensor " + in_quotes(name) + ": " + found);
    }

    std::vector<std::size_t> extents(std::uint32_t position, const std::string& name) const {
        std::vector<std::size_t> found;
        for (const std::uint32_t item : values_[position].items) {
            const PickleValue& value = values_[item];
            if (value.kind != Kind::integer || value.integer < 0) fail(name, "a size or stride that is no whole number");
            found.push_back(static_cast<std::size_t>(value.integer));
        }
        return found;
    }

    DataType type_of(const PickleValue& storage, const std::string& name) const {
        static constexpr std::array<std::pair<std::string_view, DataType>, 10> types{{{"torch.FloatStorage", DataType::F32},
                                                                                     {"torch.HalfStorage", DataType::F16},
                                                                                     {"torch.BFloat16Storage", DataType::BF16},
                                                                                     {"torch.DoubleStorage", DataType::F64},
                                                                                     {"torch.LongStorage", DataType::I64},
                                                                                     {"torch.IntStorage", DataType::I32},
                                                                                     {"torch.ShortStorage", DataType::I16},
                                                                                     {"torch.CharStorage", DataType::I8},
                                                                                     {"torch.ByteStorage", DataType::U8},
                                                                                     {"torch.BoolStorage", DataType::BOOL}}};
        const std::string& found = values_[storage.items[0]].text;
        for (const auto& [known, type] : types) {
            if (known == found) return type;
        }
        fail(name, "elements of " + in_quotes(found) + ", which no tensor here has");
    }

    void add(const PickleValue& value, const std::string& name) {
        const PickleValue& storage = values_[value.items[0]];
        const DataType type = type_of(storage, name);
        const std::size_t width = bits(type) / 8;
        const auto entry = entries_.find(prefix_ + "data/" + storage.text);
        if (entry == entries_.end()) fail(name, "its storage data/" + storage.text + " is missing");
        const PickleValue& offset_value = values_[value.items[1]];
        if (offset_value.kind != Kind::integer || offset_value.integer < 0) fail(name, "an offset that is no whole number");
        const auto offset = static_cast<std::size_t>(offset_value.integer);
        const std::vector<std::size_t> shape = extents(value.items[2], name), strides = extents(value.items[3], name);
        if (shape.size() != strides.size()) fail(name, "as many strides as sizes expected");
        const auto size = byte_count(type, shape);
        // The last element's position; what overflows is beyond any storage.
        std::size_t last = offset;
        bool is_dense = true, overflows = !size;
        std::size_t expected = 1;
        for (std::size_t axis = shape.size(); axis-- > 0 && !overflows;) {
            std::size_t reach = 0;
            if (shape[axis] > 0) {
                overflows = __builtin_mul_overflow(shape[axis] - 1, strides[axis], &reach) || __builtin_add_overflow(last, reach, &last);
            }
            is_dense = is_dense && (shape[axis] <= 1 || strides[axis] == expected);
            expected *= shape[axis];
        }
        const std::size_t elements = entry->second.size() / width;
        if (overflows || (*size > 0 && last >= elements)) {
            fail(name, "shape " + shape_text(shape) + " at element " + std::to_string(offset) + " reaches beyond its storage of " +
                           std::to_string(elements) + " elements");
        }
        if (*size == 0 || is_dense) {
            tensors.push_back({name, type, shape, *size == 0 ? std::span<const std::byte>() : entry->second.subspan(offset * width, *size)});
            return;
        }
        // A tensor may repeat elements by strides of 0: it is not made larger than what it repeats.
        if (*size > entry->second.size()) fail(name, "strides that repeat elements");
        std::vector<std::byte>& copy = copies.emplace_back(*size);
        std::vector<std::size_t> index(shape.size());
        for (std::size_t to = 0; to < *size; to += width) {
            std::size_t from = offset;
            for (std::size_t axis = 0; axis < shape.size(); ++axis) from += index[axis] * strides[axis];
            std::memcpy(copy.data() + to, entry->second.data() + from * width, width);
            for (std::size_t axis = shape.size(); axis-- > 0 && ++index[axis] == shape[axis];) index[axis] = 0;
        }
        tensors.push_back({name, type, shape, copy});
    }

    const Unpickler& values_;
    const std::map<std::string_view, std::span<const std::byte>>& entries_;
    std::string prefix_;
    std::string_view where_;
    std::size_t visits_ = 0;
};

}  // namespace detail

/// A file of torch.save since PyTorch 1.6, of a state_dict, of a dictionary that has one as its "state_dict", or of a
/// module of TorchScript (OpenAI's downloads). Nothing of it is executed. Move only.
class TorchArchive {
public:
    /// Maps the file. Throws Error that names it and the fault.
    static TorchArchive open(const std::filesystem::path& path) {
        MappedFile file(path);
        TorchArchive result(file.bytes(), path.string());
        result.file_ = std::move(file);
        return result;
    }

    /// Reads a file that is in memory already; the bytes must outlive the object. `where` begins every error.
    static TorchArchive parse(std::span<const std::byte> bytes, std::string_view where) { return TorchArchive(bytes, where); }

    TorchArchive(TorchArchive&&) noexcept = default;
    TorchArchive& operator=(TorchArchive&&) noexcept = default;

    /// All tensors, under their names in the module or dictionary. Their data is valid for as long as the object.
    std::span<const StoredTensor> tensors() const { return tensors_; }

    /// Lets go of the memory that a tensor's data takes while the file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const {
        const bool is_copy = std::any_of(copies_.begin(), copies_.end(),
                                         [&](const auto& copy) { return copy.data() == tensor.data.data(); });
        if (file_ && !is_copy) file_->forget(tensor.data);
    }

private:
    [[gnu::cold]] TorchArchive(std::span<const std::byte> bytes, std::string_view where) {
        constexpr std::array legacy{std::byte{0x80}, std::byte{0x02}, std::byte{0x8a}, std::byte{0x0a}};
        if (bytes.size() >= legacy.size() && std::equal(legacy.begin(), legacy.end(), bytes.begin())) {
            throw Error(where, "a file of torch.save since PyTorch 1.6", "an older one: load it and save it again");
        }
        const auto entries = detail::zip_entries(bytes, where);
        const auto is_pickle = [](const auto& entry) { return entry.first == "data.pkl" || entry.first.ends_with("/data.pkl"); };
        const auto pickle = std::find_if(entries.begin(), entries.end(), is_pickle);
        if (pickle == entries.end()) throw Error(where, "a file of torch.save, with an entry data.pkl", "a zip archive without");
        const std::string prefix(pickle->first.substr(0, pickle->first.size() - std::string_view("data.pkl").size()));
        if (const auto order = entries.find(prefix + "byteorder"); order != entries.end()) {
            const std::string_view found(reinterpret_cast<const char*>(order->second.data()), order->second.size());
            if (found != "little") throw Error(where, "tensors in little-endian order", detail::in_quotes(found));
        }
        detail::Unpickler values(pickle->second, where);
        const std::uint32_t root = values.run();
        detail::TorchTensors found(values, entries, prefix, where);
        found.collect(root);
        tensors_ = std::move(found.tensors);
        copies_ = std::move(found.copies);
    }

    std::vector<StoredTensor> tensors_;
    std::vector<std::vector<std::byte>> copies_;
    std::optional<MappedFile> file_;
};

}  // namespace tandem::inline TANDEM_ABI
