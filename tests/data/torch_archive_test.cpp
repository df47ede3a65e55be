// Files of torch.save: what PyTorch wrote, and what no one should open.
#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <tandem/data/safetensors.hpp>
#include <tandem/data/torch_archive.hpp>

namespace fs = std::filesystem;
namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

const fs::path folder = fs::path(TANDEM_TEST_DATA) / "data" / "fixtures" / "torch";

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

TEST_CASE("A pickle that calls a function is refused by the function's name") {
    CHECK_THAT(fault(contents("calls.pt")), Contains("'posix.system', which is not called"));
}

TEST_CASE("Files of other kinds say what they are") {
    CHECK_THAT(fault(contents("legacy.pt")), Contains("since PyTorch 1.6, found an older one"));
    CHECK_THAT(fault("no archive at all"), Contains("no end record"));
    CHECK_THAT(fault(""), Contains("no end record"));
    CHECK_THAT(fault(contents("repeated.pt")), Contains("tensor 'repeated': strides that repeat elements"));
}

TEST_CASE("Whatever is cut off or changed in a file ends in an error or in tensors that lie within it") {
    for (const char* const name : {"state_dict.pt", "script.pt"}) {
        const std::string whole = contents(name);
        for (std::size_t size = 0; size < whole.size(); size += 7) CHECK(fault(whole.substr(0, size)) != "");
        for (std::size_t i = 0; i < whole.size(); ++i) {
            for (const unsigned change : {0x01U, 0x80U, 0xffU}) {
                std::string changed = whole;
                changed[i] = static_cast<char>(static_cast<unsigned char>(changed[i]) ^ change);
                const std::span<const std::byte> bytes = std::as_bytes(std::span(changed));
                try {
                    const td::TorchArchive archive = td::TorchArchive::parse(bytes, "x.pt");
                    for (const td::StoredTensor& each : archive.tensors()) {
                        unsigned sum = 0;
                        for (const std::byte byte : each.data) sum += static_cast<unsigned>(byte);
                        CHECK((sum > 0 || each.data.size() < bytes.size()));
                    }
                } catch (const td::Error&) {
                }
            }
        }
    }
}
