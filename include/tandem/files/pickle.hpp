// What a pickle of torch.save describes, read without executing anything.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/files/byte_reader.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// What a pickle makes, one value of it. Values refer to each other by position: nothing is copied, whatever a hostile
/// file repeats.
struct PickleValue {
    /// A tuple and a set are lists. An object is whatever else a class or function would have made; nobody calls it.
    enum class Kind : std::uint8_t {
        mark,
        other,
        integer,
        text,
        global,
        list,
        dictionary,
        object,
        storage,
        tensor,
        unreadable
    };

    Kind kind = Kind::other;
    /// Of a storage: the element of its file where it begins; of an object: the position of its arguments; of other: 1
    /// for True, and for bytes that the pickle has as Latin-1 characters in UTF-8.
    std::int64_t integer = 0;
    /// A text; bytes (other); a global's name ("torch.FloatStorage"); an object's class or function; a storage's key;
    /// why a tensor is unreadable.
    std::string_view text = {};
    /// A list's items; keys and values in turn of a dictionary or object; a storage's type, and its bytes where those
    /// stand in the pickle itself; of a tensor its storage, offset, sizes, strides, and its element type where the
    /// storage's does not say it.
    std::vector<std::uint32_t> items = {};
};

/// A stack machine for Python's pickle protocols 0 to 5 (Lib/pickletools.py says what every opcode does). It calls
/// nothing: the functions by which torch.save rebuilds tensors are understood, every other gives an opaque object.
class Unpickler {
public:
    using Kind = PickleValue::Kind;

    /// Instead of a key: the value is the object's state, a dictionary or a tuple of them; a list of [key, value].
    static constexpr std::uint32_t state_of = 0xffffffff, pairs_of = 0xfffffffe;

    static constexpr std::string_view distributed =
        "one process's part of a distributed tensor; save it as tensor.full_tensor(), or with "
        "StateDictOptions(full_state_dict=True) of torch.distributed.checkpoint.state_dict";

    /// Reads one pickle where `reader` stands. Values refer to its bytes.
    Unpickler(ByteReader& reader, std::string_view where);

    /// The position of the value that the pickle describes.
    std::uint32_t run();

    const PickleValue& operator[](std::uint32_t position) const { return values_[position]; }
    std::size_t size() const { return values_.size(); }

    /// Positions of all storages, as often as the pickle names them.
    std::span<const std::uint32_t> storages() const { return storages_; }

private:
    static constexpr std::uint32_t nothing = 0, mark = 1,
                                   truth = 2;  ///< shared by all None, False, floats; by all marks; by all True
    static constexpr std::size_t max_values = std::size_t{1} << 26, max_global = 300, max_rank = 64;

    [[noreturn]] void damaged() const;

    std::uint32_t make(PickleValue value);
    void push(PickleValue value) { stack_.push_back(make(std::move(value))); }
    void push_number(std::int64_t value) { push({.kind = Kind::integer, .integer = value}); }
    void push_text(std::string_view text) { push({.kind = Kind::text, .text = text}); }
    void push_list(std::vector<std::uint32_t> items) { push({.kind = Kind::list, .items = std::move(items)}); }
    void push_opaque() { push({.kind = Kind::object}); }

    std::uint32_t top() const;
    std::uint32_t pop();
    std::vector<std::uint32_t> pop(std::size_t count);
    std::vector<std::uint32_t> pop_to_mark();

    void remember(std::uint64_t name) { memo_[name] = top(); }
    void recall(std::uint64_t name);

    void append(const std::vector<std::uint32_t>& items);
    void set(const std::vector<std::uint32_t>& items);

    std::string_view own(std::string text) { return own_.emplace_back(std::move(text)); }

    /// A class or function by its name, which is cut where no real one is so long: a file may name it again and again.
    std::uint32_t global(std::string_view module, std::string_view name);
    void push_global(std::string_view module, std::string_view name) { stack_.push_back(global(module, name)); }

    std::uint32_t unreadable(std::string_view reason) { return make({.kind = Kind::unreadable, .text = reason}); }

    bool is_tensor(std::uint32_t position) const;

    /// What a call of `function`, or a new object of such a class, would give.
    std::uint32_t called(std::uint32_t function, std::uint32_t arguments);

    /// The tensor of a NumPy array, which a device without storages (XLA) is saved as;
    /// numpy/_core/src/multiarray/methods.c, array_reduce, and numpy/_core/numeric.py, _frombuffer, say what stands in
    /// the pickle.
    std::uint32_t from_numpy(std::uint32_t array, std::string_view dtype);

    /// What a function of torch/_utils.py that begins with _rebuild_ gives.
    std::uint32_t rebuilt(std::string_view name, std::span<const std::uint32_t> items, std::string_view subclass);

    /// BUILD: gives what is below it on the stack its attributes.
    void build();

    /// A persistent id: ("storage", type, key, location, elements), since PyTorch 0.2 with a view of it or None; of
    /// files before PyTorch 1.6 also ("module", class, its source's file, its source).
    void persistent();

    std::int64_t number_of(std::string_view line) const;
    std::uint64_t name_of(std::string_view line) const;
    std::string_view unquoted(std::string_view line) const;

    template <std::unsigned_integral Size>
    std::string_view text() {
        return reader_.text(reader_.number<Size>());
    }
    void push_bytes(std::size_t size) { push({.text = reader_.text(size)}); }

    void step(std::uint8_t opcode);

    /// A whole number of any length; one beyond 64 bits keeps its bytes as a text.
    void push_long(std::size_t size);

    ByteReader& reader_;
    std::string_view where_;
    std::vector<PickleValue> values_;
    std::vector<std::uint32_t> stack_, storages_;
    std::map<std::uint64_t, std::uint32_t> memo_;
    std::deque<std::string> own_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/files/pickle.impl.hpp>
#endif
