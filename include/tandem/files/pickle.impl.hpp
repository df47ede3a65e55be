// Definitions of files/pickle.hpp.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/files/byte_reader.hpp>
#include <tandem/files/pickle.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE Unpickler::Unpickler(ByteReader& reader, std::string_view where) : reader_(reader), where_(where) {
    push({});
    push({.kind = Kind::mark});
    push({.integer = 1});
    stack_.clear();
}

[[gnu::cold]] TANDEM_INLINE std::uint32_t Unpickler::run() {
    while (true) {
        const auto opcode = reader_.number<std::uint8_t>();
        if (opcode == '.') return pop();
        step(opcode);
    }
}

[[noreturn, gnu::cold]] TANDEM_INLINE void Unpickler::damaged() const {
    throw Error(where_, "a whole file of torch.save",
                "a description of its tensors that is damaged near byte " + std::to_string(reader_.position()) +
                    ": copy or download it again");
}

TANDEM_INLINE std::uint32_t Unpickler::make(PickleValue value) {
    if (values_.size() >= max_values)
        throw Error(where_, "a file of weights",
                    "more than " + std::to_string(max_values) +
                        " Python objects: save the weights alone, torch.save(model.state_dict(), \"weights.pt\")");
    values_.push_back(std::move(value));
    return static_cast<std::uint32_t>(values_.size() - 1);
}

TANDEM_INLINE std::uint32_t Unpickler::top() const {
    if (stack_.empty()) damaged();
    return stack_.back();
}

TANDEM_INLINE std::uint32_t Unpickler::pop() {
    const std::uint32_t value = top();
    stack_.pop_back();
    return value;
}

TANDEM_INLINE std::vector<std::uint32_t> Unpickler::pop(std::size_t count) {
    if (count > stack_.size()) damaged();
    const std::vector<std::uint32_t> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
}

TANDEM_INLINE std::vector<std::uint32_t> Unpickler::pop_to_mark() {
    std::size_t count = 0;
    while (count < stack_.size() && stack_[stack_.size() - 1 - count] != mark) ++count;
    if (count == stack_.size()) damaged();
    std::vector<std::uint32_t> items = pop(count);
    pop();
    return items;
}

TANDEM_INLINE void Unpickler::recall(std::uint64_t name) {
    const auto found = memo_.find(name);
    if (found == memo_.end()) damaged();
    stack_.push_back(found->second);
}

TANDEM_INLINE void Unpickler::append(const std::vector<std::uint32_t>& items) {
    PickleValue& target = values_[top()];
    if (target.kind == Kind::list) {
        target.items.insert(target.items.end(), items.begin(), items.end());
    } else if (target.kind != Kind::object) {
        damaged();
    }
}

TANDEM_INLINE void Unpickler::set(const std::vector<std::uint32_t>& items) {
    PickleValue& target = values_[top()];
    if (items.size() % 2 != 0 || (target.kind != Kind::dictionary && target.kind != Kind::object)) damaged();
    target.items.insert(target.items.end(), items.begin(), items.end());
}

TANDEM_INLINE std::uint32_t Unpickler::global(std::string_view module, std::string_view name) {
    // As Python 2 calls it.
    if (module == "__builtin__") module = "builtins";
    return make(
        {.kind = Kind::global,
         .text = own(std::string(module.substr(0, max_global)) + "." + std::string(name.substr(0, max_global)))});
}

TANDEM_INLINE bool Unpickler::is_tensor(std::uint32_t position) const {
    return values_[position].kind == Kind::tensor || values_[position].kind == Kind::unreadable;
}

TANDEM_INLINE std::uint32_t Unpickler::called(std::uint32_t function, std::uint32_t arguments) {
    // The buffers of both stay where they are when values_ grows.
    std::string_view name = values_[function].kind == Kind::global ? values_[function].text : std::string_view{};
    std::span<const std::uint32_t> items = values_[arguments].items;
    if (values_[arguments].kind != Kind::list) items = {};
    constexpr std::string_view utilities = "torch._utils.";
    std::string_view subclass;
    // (function, type, arguments, state): the type adds nothing to the elements.
    if (name.starts_with("torch._tensor._rebuild_from_type") && items.size() >= 3) {
        const PickleValue &inner = values_[items[0]], &type = values_[items[1]], &of_inner = values_[items[2]];
        if (inner.kind == Kind::global && of_inner.kind == Kind::list) {
            name = inner.text;
            subclass = type.text;
            items = of_inner.items;
        }
    }
    const auto kind_of = [&](std::size_t i) { return i < items.size() ? values_[items[i]].kind : Kind::other; };
    if (name.starts_with(utilities)) return rebuilt(name.substr(utilities.size()), items, subclass);
    if (name == "torch.nested._internal.nested_tensor._rebuild_njt")
        return unreadable("a nested (jagged) tensor; save its parts, or torch.nested.to_padded_tensor(tensor, 0)");
    if (name.starts_with("torch.nn.parameter.Uninitialized"))
        return unreadable(
            "a parameter without elements, of a lazy module that has not run; save the model when it has");
    const bool is_parameter =
        name.starts_with("torch.nn.") && (name.ends_with(".Parameter") || name.ends_with(".Buffer"));
    if (is_parameter && !items.empty() && is_tensor(items[0])) return items[0];
    if (name == "collections.OrderedDict" || name == "builtins.dict" || name == "collections.defaultdict") {
        // Python 2 hands an OrderedDict its items as an argument.
        const std::uint32_t made = make({.kind = Kind::dictionary});
        if (kind_of(0) == Kind::list) values_[made].items = {pairs_of, items[0]};
        return made;
    }
    const bool is_sequence = name == "torch.Size" || name == "builtins.set" || name == "builtins.frozenset" ||
                             name == "builtins.list" || name == "builtins.tuple" ||
                             name.starts_with("torch.jit._pickle.");
    if (is_sequence && !items.empty()) return items[0];
    // Bytes of protocol 2: encode(text, 'latin1'), or bytes().
    if (name == "builtins.bytes" && items.empty()) return nothing;
    if (name == "_codecs.encode" && kind_of(0) == Kind::text)
        return make({.integer = 1, .text = values_[items[0]].text});
    return make({.kind = Kind::object, .integer = arguments, .text = name});
}

TANDEM_INLINE std::uint32_t Unpickler::from_numpy(std::uint32_t array, std::string_view dtype) {
    const auto part = [&](const std::vector<std::uint32_t>& of, std::size_t i) {
        return i < of.size() ? of[i] : nothing;
    };
    const PickleValue& object = values_[array];
    std::uint32_t shape = nothing, type = nothing, raw = nothing;
    bool is_by_columns = false;
    if (object.kind == Kind::object && object.text.ends_with("multiarray._reconstruct")) {
        // (version, shape, dtype, is by columns, bytes)
        const std::vector<std::uint32_t>& state = values_[part(object.items, 1)].items;
        shape = part(state, 1), type = part(state, 2), raw = part(state, 4);
        is_by_columns = values_[part(state, 3)].integer == 1;
    } else if (object.kind == Kind::object && object.text.ends_with("numeric._frombuffer")) {
        // (bytes, dtype, shape, order)
        const std::vector<std::uint32_t>& arguments = values_[static_cast<std::uint32_t>(object.integer)].items;
        raw = part(arguments, 0), type = part(arguments, 1), shape = part(arguments, 2);
        is_by_columns = values_[part(arguments, 3)].text == "F";
    }
    static constexpr std::array<std::array<std::string_view, 2>, 11> types{{{"f4", "torch.float32"},
                                                                            {"f2", "torch.float16"},
                                                                            {"f8", "torch.float64"},
                                                                            {"i8", "torch.int64"},
                                                                            {"i4", "torch.int32"},
                                                                            {"i2", "torch.int16"},
                                                                            {"i1", "torch.int8"},
                                                                            {"u1", "torch.uint8"},
                                                                            {"b1", "torch.bool"},
                                                                            {"u2", "torch.uint16"},
                                                                            {"u4", "torch.uint32"}}};
    std::string_view element;
    if (values_[type].kind == Kind::object && values_[type].text == "numpy.dtype") {
        const std::string_view code =
            values_[part(values_[static_cast<std::uint32_t>(values_[type].integer)].items, 0)].text;
        const bool is_swapped = values_[part(values_[part(values_[type].items, 1)].items, 1)].text == ">";
        for (const auto& [known, torch] : types) {
            if (known == code && !is_swapped) element = torch;
        }
    }
    // bfloat16, which NumPy has not, comes as float32; other conversions do not occur.
    const bool is_same = element == dtype || (element == "torch.float32" && dtype == "torch.bfloat16");
    const bool is_whole = values_[shape].kind == Kind::list && values_[shape].items.size() <= max_rank &&
                          values_[raw].kind == Kind::other;
    if (element.empty() || !is_same || !is_whole)
        return unreadable("a tensor of another device, kept as a NumPy array; save it as tensor.cpu()");
    std::vector<std::uint32_t> sizes = values_[shape].items, strides(sizes.size());
    std::uint64_t step = 1;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const std::size_t axis = is_by_columns ? i : sizes.size() - 1 - i;
        strides[axis] = make({.kind = Kind::integer, .integer = static_cast<std::int64_t>(step)});
        step *= static_cast<std::uint64_t>(values_[sizes[axis]].integer);
    }
    const std::uint32_t global = make({.kind = Kind::global, .text = element});
    const std::uint32_t storage = make({.kind = Kind::storage, .items = {global, raw}});
    const std::uint32_t offset = make({.kind = Kind::integer}),
                        axes = make({.kind = Kind::list, .items = std::move(strides)});
    return make({.kind = Kind::tensor, .items = {storage, offset, shape, axes, global}});
}

TANDEM_INLINE std::uint32_t Unpickler::rebuilt(std::string_view name, std::span<const std::uint32_t> items,
                                               std::string_view subclass) {
    const auto value = [&](std::size_t i) -> const PickleValue& {
        return values_[i < items.size() ? items[i] : nothing];
    };
    const bool is_v3 = name == "_rebuild_tensor_v3";
    if (is_v3 || name == "_rebuild_tensor" || name == "_rebuild_tensor_v2") {
        if (items.size() < (is_v3 ? 7 : 4) || value(0).kind != Kind::storage) {
            return unreadable(own("a tensor whose elements only code can make" +
                                  (value(0).text.empty() ? std::string() : " (" + in_quotes(value(0).text) + ")") +
                                  "; save it as tensor.detach().clone()"));
        }
        if (!value(is_v3 ? 7 : 6).items.empty())
            return unreadable("a conjugated or negated view; save it as tensor.resolve_conj().resolve_neg()");
        std::vector<std::uint32_t> parts(items.begin(), items.begin() + 4);
        if (is_v3) parts.push_back(items[6]);
        return make({.kind = Kind::tensor, .items = std::move(parts)});
    }
    if (name.starts_with("_rebuild_parameter") || name == "_rebuild_device_tensor_from_cpu_tensor") {
        if (!items.empty() && is_tensor(items[0])) return items[0];
        return unreadable("a parameter whose elements only code can make; save it as tensor.detach().clone()");
    }
    if (name == "_rebuild_sparse_tensor") return unreadable("a sparse tensor; save it as tensor.to_dense()");
    if (name == "_rebuild_qtensor") return unreadable("a quantised tensor; save it as tensor.dequantize()");
    if (name == "_rebuild_nested_tensor")
        return unreadable("a nested tensor; save its parts, or torch.nested.to_padded_tensor(tensor, 0)");
    if (name.starts_with("_rebuild_meta_tensor"))
        return unreadable(
            "a tensor on the meta device, which has no elements; save the model when its weights are there");
    if (name == "_rebuild_device_tensor_from_numpy" || name == "_rebuild_xla_tensor")
        return from_numpy(items.empty() ? nothing : items[0], value(1).text);
    if (name == "_rebuild_wrapper_subclass") {
        const std::string_view type = subclass.empty() ? value(0).text : subclass;
        if (type.ends_with(".DTensor")) return unreadable(distributed);
        return unreadable(
            own("a tensor of class " + in_quotes(type) +
                ", which only that class's code can read; save it as tensor.dequantize() or another dense copy"));
    }
    if (name.starts_with("_rebuild_"))
        return unreadable(own("a tensor that is rebuilt by " + in_quotes(name) +
                              ", which is not known here; save it as tensor.detach().clone()"));
    return make({.kind = Kind::object, .text = name});
}

TANDEM_INLINE void Unpickler::build() {
    const std::uint32_t state = pop(), target = top();
    PickleValue& object = values_[target];
    // A dictionary's state is its attributes: state_dict() has _metadata.
    if (object.kind != Kind::object) return;
    object.items.insert(object.items.end(), {state_of, state});
    const PickleValue& parts = values_[state];
    if (!object.text.starts_with("torch.") || parts.kind != Kind::list || parts.items.size() < 4) return;
    // Tensors were built so before PyTorch 0.2: of (storage, offset, sizes, strides), Variables around a tensor.
    const PickleValue& first = values_[parts.items[0]];
    if (first.kind == Kind::storage)
        object = {.kind = Kind::tensor, .items = {parts.items.begin(), parts.items.begin() + 4}};
    if (first.kind == Kind::tensor || first.kind == Kind::unreadable) object = PickleValue(first);
}

TANDEM_INLINE void Unpickler::persistent() {
    const std::uint32_t id = pop();
    const std::vector<std::uint32_t>& items = values_[id].items;
    const auto value = [&](std::size_t i) -> const PickleValue& {
        return values_[i < items.size() ? items[i] : nothing];
    };
    if (values_[id].kind == Kind::list && value(0).text == "module" && value(1).kind == Kind::global)
        return stack_.push_back(items[1]);
    if (values_[id].kind != Kind::list || value(0).text != "storage" || value(1).kind != Kind::global ||
        value(2).kind != Kind::text) {
        return push_opaque();
    }
    const std::vector<std::uint32_t>& view = value(5).items;
    PickleValue storage{.kind = Kind::storage, .text = value(2).text, .items = {items[1]}};
    if (view.size() == 3) storage.integer = values_[view[1]].integer;
    push(std::move(storage));
    storages_.push_back(top());
}

TANDEM_INLINE std::int64_t Unpickler::number_of(std::string_view line) const {
    if (line.ends_with('L')) line.remove_suffix(1);
    std::int64_t value = 0;
    std::from_chars(line.data(), line.data() + line.size(), value);
    return value;
}

TANDEM_INLINE std::uint64_t Unpickler::name_of(std::string_view line) const {
    const std::int64_t name = number_of(line);
    if (name < 0) damaged();
    return static_cast<std::uint64_t>(name);
}

TANDEM_INLINE std::string_view Unpickler::unquoted(std::string_view line) const {
    return line.size() < 2 ? std::string_view{} : line.substr(1, line.size() - 2);
}

[[gnu::cold]] TANDEM_INLINE void Unpickler::step(std::uint8_t opcode) {
    switch (opcode) {
        case 0x80:
            reader_.take(1);
            return;  // PROTO
        case 0x95:
            reader_.take(8);
            return;  // FRAME
        case 'c': {  // GLOBAL
            const std::string_view module = reader_.line();
            return push_global(module, reader_.line());
        }
        case 0x93: {  // STACK_GLOBAL
            const std::uint32_t name = pop(), module = pop();
            if (values_[module].kind != Kind::text || values_[name].kind != Kind::text) damaged();
            return push_global(values_[module].text, values_[name].text);
        }
        case 'p':
            return remember(name_of(reader_.line()));  // PUT
        case 'q':
            return remember(reader_.number<std::uint8_t>());  // BINPUT
        case 'r':
            return remember(reader_.number<std::uint32_t>());  // LONG_BINPUT
        case 0x94:
            return remember(memo_.size());  // MEMOIZE
        case 'g':
            return recall(name_of(reader_.line()));  // GET
        case 'h':
            return recall(reader_.number<std::uint8_t>());  // BINGET
        case 'j':
            return recall(reader_.number<std::uint32_t>());  // LONG_BINGET
        case '(':
            return stack_.push_back(mark);  // MARK
        case '0':
            return void(pop());  // POP
        case '1':
            return void(pop_to_mark());  // POP_MARK
        case '2':
            return stack_.push_back(top());  // DUP
        case 'N':
        case 0x89:
            return stack_.push_back(nothing);  // NONE, NEWFALSE
        case 0x88:
            return stack_.push_back(truth);  // NEWTRUE
        case 'I':
        case 'L':
            return push_number(number_of(reader_.line()));  // INT, LONG
        case 'K':
            return push_number(reader_.number<std::uint8_t>());  // BININT1
        case 'M':
            return push_number(reader_.number<std::uint16_t>());  // BININT2
        case 'J':
            return push_number(reader_.number<std::int32_t>());  // BININT
        case 0x8a:
            return push_long(reader_.number<std::uint8_t>());  // LONG1
        case 0x8b:
            return push_long(reader_.number<std::uint32_t>());  // LONG4
        case 'F':
            reader_.line();
            return stack_.push_back(nothing);  // FLOAT
        case 'G':
            reader_.take(8);
            return stack_.push_back(nothing);  // BINFLOAT
        case 'S':
            return push_text(unquoted(reader_.line()));  // STRING
        case 'V':
            return push_text(reader_.line());  // UNICODE
        case 'X':
        case 'T':
            return push_text(text<std::uint32_t>());  // BINUNICODE, BINSTRING
        case 0x8c:
        case 'U':
            return push_text(text<std::uint8_t>());  // SHORT_BINUNICODE, SHORT_BINSTRING
        case 0x8d:
            return push_text(text<std::uint64_t>());  // BINUNICODE8
        case 'C':
            return push_bytes(reader_.number<std::uint8_t>());  // SHORT_BINBYTES
        case 'B':
            return push_bytes(reader_.number<std::uint32_t>());  // BINBYTES
        case 0x8e:
            return push_bytes(reader_.number<std::uint64_t>());  // BINBYTES8
        case 0x96:
            return push_bytes(reader_.number<std::uint64_t>());  // BYTEARRAY8
        case ')':
        case ']':
        case 0x8f:
            return push_list({});  // EMPTY_TUPLE, EMPTY_LIST, EMPTY_SET
        case '}':
            return push({.kind = Kind::dictionary});  // EMPTY_DICT
        case 0x85:
        case 0x86:
        case 0x87:
            return push_list(pop(opcode - 0x84U));  // TUPLE1 to TUPLE3
        case 't':
        case 'l':
        case 0x91:
            return push_list(pop_to_mark());  // TUPLE, LIST, FROZENSET
        case 'd': {                           // DICT
            const std::vector<std::uint32_t> items = pop_to_mark();
            push({.kind = Kind::dictionary});
            return set(items);
        }
        case 'a':
            return append(pop(1));  // APPEND
        case 'e':
        case 0x90:
            return append(pop_to_mark());  // APPENDS, ADDITEMS
        case 's':
            return set(pop(2));  // SETITEM
        case 'u':
            return set(pop_to_mark());  // SETITEMS
        case 'Q':
            return persistent();  // BINPERSID
        case 'P':
            reader_.line();
            return push_opaque();  // PERSID
        case 0x92:
            pop();
            [[fallthrough]];  // NEWOBJ_EX
        case 'R':
        case 0x81: {  // REDUCE, NEWOBJ
            const std::uint32_t arguments = pop(), function = pop();
            return stack_.push_back(called(function, arguments));
        }
        case 'i': {  // INST
            const std::string_view module = reader_.line();
            const std::uint32_t function = global(module, reader_.line());
            push_list(pop_to_mark());
            const std::uint32_t arguments = pop();
            return stack_.push_back(called(function, arguments));
        }
        case 'o': {  // OBJ
            std::vector<std::uint32_t> items = pop_to_mark();
            if (items.empty()) damaged();
            const std::uint32_t function = items.front();
            items.erase(items.begin());
            push_list(std::move(items));
            const std::uint32_t arguments = pop();
            return stack_.push_back(called(function, arguments));
        }
        case 'b':
            return build();  // BUILD
        case 0x82:
        case 0x83:
        case 0x84:  // EXT1, EXT2, EXT4
            throw Error(where_, "a file of torch.save",
                        "classes by numbers of copyreg's extension registry, which only the program that wrote it "
                        "knows: save the weights alone, torch.save(model.state_dict(), \"weights.pt\")");
        case 0x97:
        case 0x98:  // NEXT_BUFFER, READONLY_BUFFER
            throw Error(where_, "a file of torch.save",
                        "a pickle whose buffers stand elsewhere (buffer_callback): save the weights with "
                        "torch.save(model.state_dict(), \"weights.pt\")");
        default:
            damaged();
    }
}

TANDEM_INLINE void Unpickler::push_long(std::size_t size) {
    const std::string_view bytes = reader_.text(size);
    if (size > 8) return push({.kind = Kind::other, .text = bytes});
    std::int64_t value = 0;
    std::memcpy(&value, bytes.data(), size);
    if (size > 0 && size < 8 && (static_cast<unsigned char>(bytes.back()) & 0x80U) != 0)
        value -= std::int64_t{1} << (8 * size);
    push_number(value);
}

}  // namespace tandem::inline TANDEM_ABI::detail
