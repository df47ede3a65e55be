// Files of torch.save: what PyTorch wrote, and what no one should open.
#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/files/safetensors.hpp>
#include <tandem/files/torch_archive.hpp>

namespace fs = std::filesystem;
namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

const fs::path folder = fs::path(TANDEM_TEST_DATA) / "files" / "fixtures" / "torch";

const td::StoredTensor& tensor(const td::TorchArchive& archive, const std::string& name) {
    for (const td::StoredTensor& each : archive.tensors()) {
        if (each.name == name) return each;
    }
    FAIL("no tensor " << name);
    return archive.tensors()[0];
}

std::vector<float> values(const td::TorchArchive& archive, const std::string& name) {
    const td::StoredTensor& stored = tensor(archive, name);
    std::vector<float> elements(stored.data.size() * 8 / td::bits(stored.type));
    td::read_elements(stored, std::span(elements));
    return elements;
}

std::string contents(const char* name) {
    std::ifstream file(folder / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// The error's text, "" for a good file.
std::string fault(const std::string& file) {
    try {
        td::TorchArchive::parse(std::as_bytes(std::span(file)), "x.pt");
    } catch (const td::Error& error) {
        CHECK(error.where() == "x.pt");
        return error.what();
    }
    return "";
}

/// A literal with what stands behind its NULs.
template <std::size_t size>
std::string bytes(const char (&literal)[size]) {
    return {literal, size - 1};
}

/// A storage's persistent id: 4-byte elements under the key "0".
const std::string storage_of = "(U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\1NtQ";

/// What rebuilds a tensor of that storage, of sizes and strides given as opcodes.
std::string tensor_of(const std::string& sizes, const std::string& strides) {
    return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage_of + "K" + bytes("\0") + sizes + strides + "\x89NtR";
}

/// A file of torch.save before PyTorch 1.6, of a pickle by hand and, where it has one, the storage "0".
std::string legacy(const std::string& pickle, const std::string& storage) {
    const std::string head = "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3.\x80\2}.\x80\2";
    return head + pickle + "\x80\2](" + (storage.empty() ? "" : "U\0010") + "e." + storage;
}

std::vector<std::string> names(auto tensors) {
    std::vector<std::string> found;
    for (const auto& each : tensors) found.push_back(each.name);
    return found;
}

void check_model(const td::TorchArchive& archive, const std::string& prefix) {
    CHECK(archive.tensors().size() == 4);
    CHECK(tensor(archive, prefix + "inner.0.weight").shape == std::vector<std::size_t>{4, 3});
    std::vector<float> eighths(12);
    for (std::size_t i = 0; i < 12; ++i) eighths[i] = static_cast<float>(i) / 8;
    CHECK(values(archive, prefix + "inner.0.weight") == eighths);
    CHECK(tensor(archive, prefix + "inner.0.offset").type == td::DataType::F16);
    CHECK(values(archive, prefix + "inner.0.offset") == std::vector<float>{-1, 0, 1});
    CHECK(tensor(archive, prefix + "scale").shape.empty());
    CHECK(values(archive, prefix + "scale") == std::vector<float>{1.5F});
    std::vector<std::int64_t> count(2);
    td::read_elements(tensor(archive, prefix + "count"), std::span(count));
    CHECK(count == std::vector<std::int64_t>{7, 300});
}

}  // namespace

TEST_CASE("state_dicts, parameters, training checkpoints and TorchScript modules have their tensors' names") {
    for (const char* const name : {"state_dict.pt", "protocol_4.pt", "parameters.pt", "script.pt"}) {
        INFO(name);
        check_model(td::TorchArchive::open(folder / name), "");
    }
    check_model(td::TorchArchive::open(folder / "checkpoint.pt"), "module.");
}

TEST_CASE("Views of a storage are read by offset and stride") {
    const td::TorchArchive archive = td::TorchArchive::open(folder / "views.pt");
    CHECK(values(archive, "transposed") == std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
    CHECK(values(archive, "stepped") == std::vector<float>{2, 5, 8});
    CHECK(values(archive, "shared") == std::vector<float>{4, 5});
    CHECK(values(archive, "bfloat16") == std::vector<float>{0, 1});
    CHECK(tensor(archive, "empty").shape == std::vector<std::size_t>{0, 3});
    for (const td::StoredTensor& each : archive.tensors()) archive.forget(each);
    CHECK(values(archive, "transposed")[1] == 4);
}

TEST_CASE("What stands beside a state_dict is not called and does no harm") {
    for (const char* const name : {"beside_2.pt", "beside_4.pt", "beside_5.pt"}) {
        INFO(name);
        const td::TorchArchive archive = td::TorchArchive::open(folder / name);
        CHECK(names(archive.tensors()) == std::vector<std::string>{"weight"});
        CHECK(values(archive, "weight") == std::vector<float>{0, 1});
        CHECK(archive.unreadable().empty());
        CHECK(names(archive.others()) == std::vector<std::string>{"cyclic.children.tensor"});
        CHECK(std::ranges::none_of(archive.unreadable_others(), &td::UnreadableTensor::is_tensor));
    }
    const td::TorchArchive archive = td::TorchArchive::open(folder / "calls.pt");
    CHECK(values(archive, "weight") == std::vector<float>{0, 0});
}

TEST_CASE("Files from before PyTorch 1.6 are read, of whatever pickle protocol") {
    check_model(td::TorchArchive::open(folder / "legacy.pt"), "");
    check_model(td::TorchArchive::open(folder / "legacy_3.pt"), "");
    check_model(td::TorchArchive::open(folder / "legacy_5.pt"), "");
}

TEST_CASE("Tensors with attributes are those without") {
    const td::TorchArchive archive = td::TorchArchive::open(folder / "attributes.pt");
    for (const char* const name : {"parameter", "tensor", "buffer"})
        CHECK(values(archive, name) == std::vector<float>{0, 1});
}

TEST_CASE("Tensors of a device without storages are read from their NumPy arrays") {
    std::vector<float> expected;
    for (int i = 200; i < 206; ++i) expected.push_back(static_cast<float>(i) / 7);
    for (const char* const file : {"device_2.pt", "device_5.pt"}) {
        INFO(file);
        const td::TorchArchive archive = td::TorchArchive::open(folder / file);
        for (const char* const name : {"rows", "columns", "bfloat16"}) {
            CHECK(tensor(archive, name).shape == std::vector<std::size_t>{2, 3});
            CHECK(values(archive, name) == expected);
        }
        std::vector<std::int64_t> count(1);
        td::read_elements(tensor(archive, "count"), std::span(count));
        CHECK(count[0] == 300);
        CHECK(tensor(archive, "none").shape == std::vector<std::size_t>{0, 3});
        REQUIRE(archive.unreadable().size() == 1);
        CHECK(archive.unreadable()[0].name == "swapped");
        for (const td::StoredTensor& each : archive.tensors()) archive.forget(each);
        CHECK(values(archive, "rows") == expected);
    }
}

TEST_CASE("Tensors that are no weights are listed with their kind and how to save them") {
    for (const char* const file : {"kinds.pt", "legacy_kinds.pt"}) {
        INFO(file);
        const td::TorchArchive archive = td::TorchArchive::open(folder / file);
        CHECK(names(archive.tensors()) == std::vector<std::string>{"weight"});
        const std::vector<std::pair<std::string, std::string>> kinds{
            {"coo", "a sparse tensor; save it as tensor.to_dense()"},
            {"csr", "a sparse tensor; save it as tensor.to_dense()"},
            {"quantised", "a quantised tensor; save it as tensor.dequantize()"},
            {"meta", "on the meta device, which has no elements"},
            {"nested", "a nested tensor; save its parts"},
            {"complex", "elements of 'torch.ComplexDoubleStorage'"},
            {"conjugate", "save it as tensor.resolve_conj()"},
            {"array", "a NumPy array; save it as torch.from_numpy(array)"},
            {"lazy", "a parameter without elements"}};
        REQUIRE(archive.unreadable().size() == kinds.size());
        for (std::size_t i = 0; i < kinds.size(); ++i) {
            CHECK(archive.unreadable()[i].name == kinds[i].first);
            CHECK_THAT(archive.unreadable()[i].reason, Contains(kinds[i].second));
            CHECK(archive.unreadable()[i].is_tensor == (kinds[i].first != "array"));
        }
    }
}

TEST_CASE("Every element type that safetensors has is read") {
    const td::TorchArchive archive = td::TorchArchive::open(folder / "types.pt");
    const std::vector<std::pair<std::string, td::DataType>> types{{"uint16", td::DataType::U16},
                                                                  {"uint32", td::DataType::U32},
                                                                  {"uint64", td::DataType::U64},
                                                                  {"float8_e4m3fn", td::DataType::F8_E4M3},
                                                                  {"float8_e5m2", td::DataType::F8_E5M2},
                                                                  {"complex64", td::DataType::C64},
                                                                  {"float64", td::DataType::F64},
                                                                  {"int8", td::DataType::I8},
                                                                  {"int16", td::DataType::I16},
                                                                  {"int32", td::DataType::I32},
                                                                  {"bool", td::DataType::BOOL}};
    REQUIRE(archive.tensors().size() == types.size());
    for (const auto& [name, type] : types) {
        INFO(name);
        CHECK(tensor(archive, name).type == type);
        CHECK(tensor(archive, name).data.size() == 2 * td::bits(type) / 8);
    }
    CHECK(values(archive, "float64") == std::vector<float>{0, 1});
    CHECK(static_cast<unsigned>(tensor(archive, "uint32").data[4]) == 1);
}

TEST_CASE("A whole module has the names of its state_dict") {
    CHECK(names(td::TorchArchive::open(folder / "module.pt").tensors()) ==
          std::vector<std::string>{"norm.weight", "again.weight"});
    const td::TorchArchive archive = td::TorchArchive::open(folder / "legacy_module.pt");
    CHECK(names(archive.tensors()) == std::vector<std::string>{"model.norm.weight", "model.again.weight"});
    CHECK(values(archive, "model.again.weight") == std::vector<float>{1, 1});
}

TEST_CASE("What stands beside a state_dict can be had under its own names") {
    const td::TorchArchive archive = td::TorchArchive::open(folder / "ema.pt");
    CHECK(names(archive.tensors()) == std::vector<std::string>{"weight"});
    CHECK(archive.unreadable().empty());
    REQUIRE(names(archive.others()) == std::vector<std::string>{"state_dict_ema.weight"});
    std::vector<float> average(2);
    td::read_elements(archive.others()[0], std::span(average));
    CHECK(average == std::vector<float>{1, 1});
    REQUIRE(archive.unreadable_others().size() == 1);
    CHECK(archive.unreadable_others()[0].name == "ema.sparse");
    CHECK(names(td::TorchArchive::open(folder / "list.pt").tensors()) ==
          std::vector<std::string>{"0.weight", "1.weight"});
}

TEST_CASE("Views that repeat elements are written out, within bounds") {
    CHECK(values(td::TorchArchive::open(folder / "repeated.pt"), "repeated") == std::vector<float>(5, 0));
    const std::string storage = "\1" + std::string(7, '\0') + bytes("\0\0\x80\x3f");
    // 64 MiB and the file are allowed.
    const auto repeated = [&](const std::string& size) {
        return legacy("}U\1w" + tensor_of("J" + size + "\x85", "K" + bytes("\0") + "\x85") + "s.", storage);
    };
    const std::string small = repeated(bytes("\x0a\0\0\0"));
    const td::TorchArchive archive = td::TorchArchive::parse(std::as_bytes(std::span(small)), "x.pt");
    CHECK(values(archive, "w") == std::vector<float>(10, 1));
    for (const std::string& size : {bytes("\0\0\0\x02"), bytes("\xff\xff\xff\x7f")}) {
        const std::string large = repeated(size);
        const td::TorchArchive refused = td::TorchArchive::parse(std::as_bytes(std::span(large)), "x.pt");
        CHECK(refused.tensors().empty());
        REQUIRE(refused.unreadable().size() == 1);
        CHECK_THAT(refused.unreadable()[0].reason, Contains("64 MiB") && Contains("save it as tensor.contiguous()"));
    }
}

TEST_CASE("Every opcode of Python's pickles is understood") {
    // Each makes one value.
    const std::vector<std::string> fragments{"I5\n",
                                             "I01\n",
                                             "L123456789012345678901234567890L\n",
                                             "F1.5\n",
                                             "S'text'\n",
                                             "V\\u00e4\n",
                                             "Pid\n",
                                             "(I1\nl",
                                             "(I1\nt",
                                             "(S'a'\nI1\nd",
                                             "(imodule\nClass\n",
                                             "(cmodule\nClass\nI1\no",
                                             "cmodule\nClass\n(tR",
                                             "cmodule\nClass\n)\x81",
                                             "cmodule\nClass\n)}\x92",
                                             "cmodule\nClass\n)\x81}b",
                                             "cmodule\nClass\n)R}b",
                                             "N",
                                             "\x88",
                                             "\x89",
                                             bytes("G\0\0\0\0\0\0\0\0"),
                                             bytes("J\1\0\0\0"),
                                             "K\1",
                                             bytes("M\1\0"),
                                             bytes("\x8a\0"),
                                             "\x8a\1\xff",
                                             bytes("\x8b\x01\0\0\0\1"),
                                             bytes("T\1\0\0\0a"),
                                             "U\1a",
                                             bytes("X\1\0\0\0a"),
                                             "\x8c\1a",
                                             bytes("\x8d\1\0\0\0\0\0\0\0a"),
                                             bytes("B\1\0\0\0a"),
                                             "C\1a",
                                             bytes("\x8e\1\0\0\0\0\0\0\0a"),
                                             bytes("\x96\1\0\0\0\0\0\0\0a"),
                                             ")",
                                             "]",
                                             "}",
                                             "\x8f",
                                             "]Na",
                                             "](NNe",
                                             "\x8f(N\x90",
                                             "(N\x91",
                                             "N\x85",
                                             "NN\x86",
                                             "NNN\x87",
                                             "}NNs",
                                             "}(NNu",
                                             "N20",
                                             "(NN1N",
                                             "Np7\ng7\n0",
                                             "Nq\7h\7"
                                             "0",
                                             std::string("Nr\7\0\0\0j\7\0\0\0"
                                                         "0",
                                                         12),
                                             "N\x94",
                                             "\x8c\6module\x8c\5Class\x93",
                                             bytes("\x95\1\0\0\0\0\0\0\0N"),
                                             "cbuiltins\ngetattr\n(NU\1atR)R",
                                             "cmodule\nClass\n)\x81NNsNa"};
    const std::string storage = "\1" + std::string(7, '\0') + bytes("\0\0\x80\x3f");
    for (const std::string& fragment : fragments) {
        CAPTURE(fragment);
        const std::string file = legacy("}U\1o" + fragment + "sU\1w" + tensor_of("K\1\x85", "K\1\x85") + "s.", storage);
        REQUIRE(fault(file) == "");
        const td::TorchArchive archive = td::TorchArchive::parse(std::as_bytes(std::span(file)), "x.pt");
        CHECK(archive.tensors().size() == 1);
        CHECK(values(archive, "w") == std::vector<float>{1});
    }
    CHECK_THAT(fault(legacy("\x82\1.", "")),
               Contains("extension registry") && Contains("torch.save(model.state_dict(), \"weights.pt\")"));
    CHECK_THAT(fault(legacy("\x97.", "")),
               Contains("buffers stand elsewhere") && Contains("torch.save(model.state_dict(), \"weights.pt\")"));
    // Python 2 hands an OrderedDict its items; before PyTorch 0.2, tensors were built by their state.
    const std::string pairs =
        legacy("ccollections\nOrderedDict\n(((U\1w" + tensor_of("K\1\x85", "K\1\x85") + "lltR.", storage);
    CHECK(values(td::TorchArchive::parse(std::as_bytes(std::span(pairs)), "x.pt"), "w") == std::vector<float>{1});
    const std::string state =
        legacy(bytes("}U\1wctorch\nFloatTensor\n)\x81(") + storage_of + bytes("K\0K\1\x85K\1\x85tbs."), storage);
    CHECK(values(td::TorchArchive::parse(std::as_bytes(std::span(state)), "x.pt"), "w") == std::vector<float>{1});
    // Files before PyTorch 0.4 have views of storages: (key, offset, elements).
    std::string view =
        legacy("}U\1w" + tensor_of("K\1\x85", "K\1\x85") + "s.", "\2" + std::string(11, '\0') + bytes("\0\0\x80\x3f"));
    CHECK(values(td::TorchArchive::parse(std::as_bytes(std::span(view)), "x.pt"), "w") == std::vector<float>{0});
    view.replace(view.find("K\1NtQ"), 5, "K\2(U\1vK\1K\1ttQ");
    CHECK(values(td::TorchArchive::parse(std::as_bytes(std::span(view)), "x.pt"), "w") == std::vector<float>{1});
    // A tensor that depends on what only code can make.
    const std::string opaque =
        legacy("}U\1wctorch._utils\n_rebuild_tensor_v2\n(cmodule\nmake\n)RK" + bytes("\0") + "K\1\x85K\1\x85tRs.", "");
    const td::TorchArchive dependent = td::TorchArchive::parse(std::as_bytes(std::span(opaque)), "x.pt");
    REQUIRE(dependent.unreadable().size() == 1);
    CHECK_THAT(dependent.unreadable()[0].reason,
               Contains("only code can make ('module.make'); save it as tensor.detach().clone()"));
    // FSDP's and tensor parallelism's parts, and a class that wraps its tensors.
    const auto wrapped = [](const std::string& type) {
        return "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_wrapper_subclass\n" + type + "(" +
               type + "t}tR";
    };
    const std::string parts =
        legacy("}(U\1actorch.distributed._shard.sharded_tensor.api\nShardedTensor\n)\x81(NNNNtbU\1b" +
                   wrapped("ctorch.distributed.tensor\nDTensor\n") + "U\1c" + wrapped("cmodule\nPacked\n") + "u.",
               "");
    const td::TorchArchive distributed = td::TorchArchive::parse(std::as_bytes(std::span(parts)), "x.pt");
    REQUIRE(distributed.unreadable().size() == 3);
    CHECK_THAT(distributed.unreadable()[0].reason,
               Contains("one process's part of a distributed tensor; save it as tensor.full_tensor()"));
    CHECK_THAT(distributed.unreadable()[1].reason, Contains("StateDictOptions(full_state_dict=True)"));
    CHECK_THAT(distributed.unreadable()[2].reason,
               Contains("a tensor of class 'module.Packed', which only that class's code can read"));
}

TEST_CASE("Hostile pickles take bounded time and memory") {
    // Dictionaries of dictionaries, each twice in the next: 2^60 ways to the last.
    std::string doubling = "}q" + bytes("\0");
    for (char i = 1; i < 60; ++i)
        doubling +=
            std::string("}q") + i + "(U\1ah" + static_cast<char>(i - 1) + "U\1bh" + static_cast<char>(i - 1) + "u";
    CHECK_THAT(fault(legacy(doubling + ".", "")), Contains("more than any model has: save the weights alone"));
    // A key of 60 kB, in the names of 2^14 tensors.
    std::string names = "}U\1w" + tensor_of("K\1\x85", "K\1\x85") + "sq" + bytes("\0") + "0";
    for (char i = 0; i < 14; ++i)
        names += std::string("}(U\1ah") + i + "U\1bh" + i + "uq" + static_cast<char>(i + 1) + "0";
    names = bytes("}X\x60\xea\0\0") + std::string(60'000, 'a') + names + "h\x0es.";
    CHECK_THAT(fault(legacy(names, "\1" + std::string(11, '\0'))), Contains("more than any model has"));
    // What contains itself, also among its attributes, and attributes given over and over.
    CHECK(fault(legacy(bytes("}q\0U\1ah\0s."), "")) == "");
    CHECK(fault(legacy(bytes("]q\0h\0a."), "")) == "");
    CHECK(fault(legacy(bytes("cmodule\nClass\n)\x81q\0h\0b."), "")) == "");
    std::string built = "cmodule\nClass\n)\x81}(";
    for (int i = 0; i < 1000; ++i) built += "U\1aN";
    built += "uq" + bytes("\0") + "b";
    for (int i = 0; i < 100'000; ++i) built += bytes("h\0b");
    CHECK_THAT(fault(legacy(built + ".", "")), Contains("more than any model has"));
    // Deep nesting, of what is kept and of what is read.
    const auto nested = [](int depth) {
        std::string text;
        for (int i = 0; i < depth; ++i) text += "}U\1a";
        return text + "N" + std::string(static_cast<std::size_t>(depth), 's') + ".";
    };
    CHECK(fault(legacy(nested(900), "")) == "");
    CHECK_THAT(fault(legacy(nested(100'000), "")), Contains("more than any model has"));
    // Sizes of 2^63.
    CHECK_THAT(fault(legacy("}U\1w" + tensor_of("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85", "K\1\x85") + "s.",
                            "\1" + std::string(11, '\0'))),
               Contains("reaches beyond its storage of 1 elements"));
    CHECK_THAT(fault(legacy(bytes("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "")), Contains("bytes at byte"));
    CHECK_THAT(fault(legacy("}U\1w" + tensor_of("K\1\x85", "K\1\x85") + "s.", std::string(8, '\xff'))),
               Contains("a damaged list of its tensors' data"));
    // A name that is made again and again is short.
    CHECK(fault(legacy(
              bytes("X\xff\xff\0\0") + std::string(65535, 'm') + bytes("q\0U\1nq\1") +
                  [] {
                      std::string text;
                      for (int i = 0; i < 100'000; ++i) text += bytes("h\0h\1\x93") + "0";
                      return text;
                  }() +
                  ".",
              "")) == "");
}

TEST_CASE("Files of other kinds say what they are") {
    CHECK_THAT(fault("no archive at all"),
               Contains("expected a file of torch.save, found a text that begins 'no archive at all'"));
    CHECK_THAT(fault(""), Contains("an empty file"));
    CHECK_THAT(fault(contents("state_dict.pt").substr(0, 300)),
               Contains("no end record: the file is cut off; copy or download it again"));
    CHECK_THAT(fault(contents("rezipped.pt")), Contains("'state_dict/data.pkl' compressed") &&
                                                   Contains("torch.save(torch.load(file), \"weights.pt\")"));
    CHECK_THAT(fault(contents("arrays.npz")), Contains("found NumPy arrays (.npz)"));
    CHECK_THAT(fault(contents("program.pt2")), Contains("a program of torch.export (.pt2): save its weights"));
}

TEST_CASE("Whatever is cut off or changed in a file ends in an error or in tensors that lie within it") {
    for (const char* const name : {"state_dict.pt", "script.pt", "legacy.pt", "repeated.pt", "attributes.pt"}) {
        const std::string whole = contents(name);
        for (std::size_t size = 0; size < whole.size(); size += 7) CHECK(fault(whole.substr(0, size)) != "");
        for (std::size_t i = 0; i < whole.size(); ++i) {
            for (const unsigned change : {0x01U, 0x80U, 0xffU}) {
                std::string changed = whole;
                changed[i] = static_cast<char>(static_cast<unsigned char>(changed[i]) ^ change);
                const std::span<const std::byte> content = std::as_bytes(std::span(changed));
                try {
                    const td::TorchArchive archive = td::TorchArchive::parse(content, "x.pt");
                    for (const td::StoredTensor& each : archive.tensors()) {
                        unsigned sum = 0;
                        for (const std::byte byte : each.data) sum += static_cast<unsigned>(byte);
                        CHECK((sum > 0 || each.data.size() < content.size()));
                    }
                } catch (const td::Error&) {
                }
            }
        }
    }
}
