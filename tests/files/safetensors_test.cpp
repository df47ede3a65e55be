// Safetensors: each rule of the format with its own broken file, hostile files, conversions, round trips, the
// reference.
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>

#include <tandem/files/safetensors.hpp>

#include "../temporary_folder.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TANDEM_TEST_SANITIZED 1
#elif defined(__has_feature)
#define TANDEM_TEST_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define TANDEM_TEST_SANITIZED 0
#endif

namespace fs = std::filesystem;
namespace td = tandem;
using Catch::Matchers::Contains;
using td::DataType;
using td::StoredTensor;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
}

/// A file of this header and data; the length field can be made to lie.
std::string file_of(const std::string& header, const std::string& data = "", std::int64_t length = -1) {
    const std::uint64_t stated = length < 0 ? header.size() : static_cast<std::uint64_t>(length);
    std::string file(8, '\0');
    std::memcpy(file.data(), &stated, 8);
    return file + header + data;
}

/// One tensor's entry.
std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
    return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string zeros(std::size_t count) {
    return std::string(count, '\0');
}

/// The error's text, "" for a good file.
std::string fault(const std::string& file) {
    try {
        td::Safetensors::parse(bytes_of(file), "x.safetensors");
    } catch (const td::Error& error) {
        CHECK(error.where() == "x.safetensors");
        return error.what();
    }
    return "";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets, std::size_t data) {
    return fault(file_of("{" + entry("w", dtype, shape, offsets) + "}", zeros(data)));
}

/// A small file with all that a header can hold.
std::string small_file() {
    return file_of(R"({"__metadata__":{"format":"pt"},)" + entry("a.b", "F32", "[1,2]", "[0,8]") + "," +
                       entry("c", "BF16", "[3]", "[8,14]") + "," + entry("empty", "U8", "[0]", "[14,14]") + "}  ",
                   zeros(14));
}

template <class T>
std::vector<T> elements(const StoredTensor* tensor, std::size_t count) {
    REQUIRE(tensor != nullptr);
    std::vector<T> result(count);
    td::read_elements<T>(*tensor, result);
    return result;
}

template <class T>
std::string element_fault(const StoredTensor& tensor, std::size_t count) {
    std::vector<T> out(count);
    try {
        td::read_elements<T>(tensor, out);
    } catch (const td::Error& error) {
        return error.what();
    }
    return "";
}

/// Runs check_safetensors.py with the interpreter $TANDEM_PYTHON (default python3). Nothing if it has no safetensors.
std::optional<std::string> python(const std::string& command, const fs::path& file) {
    const char* named = std::getenv("TANDEM_PYTHON");
    const std::string interpreter = named != nullptr ? named : "python3";
    if (std::system((interpreter + " -c 'import safetensors, numpy' 2>/dev/null").c_str()) != 0) return std::nullopt;
    const fs::path script = fs::path(TANDEM_TEST_DATA) / "files/check_safetensors.py";
    std::FILE* pipe =
        ::popen((interpreter + " '" + script.string() + "' " + command + " '" + file.string() + "'").c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string output;
    std::array<char, 4096> block{};
    while (const std::size_t count = std::fread(block.data(), 1, block.size(), pipe))
        output.append(block.data(), count);
    CHECK(::pclose(pipe) == 0);
    return output;
}

const std::string no_python = "no Python with safetensors and numpy (set TANDEM_PYTHON): the reference was not asked";

std::string hexadecimal(std::span<const std::byte> bytes) {
    std::ostringstream text;
    for (const std::byte byte : bytes) {
        constexpr std::string_view digits = "0123456789abcdef";
        text << digits[std::to_integer<std::size_t>(byte >> 4)]
             << digits[std::to_integer<std::size_t>(byte & std::byte{15})];
    }
    return text.str();
}

}  // namespace

TEST_CASE("A small file reads as written", "[data][safetensors]") {
    const std::string file = small_file();
    const td::Safetensors read = td::Safetensors::parse(bytes_of(file), "x");
    CHECK(read.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
    REQUIRE(read.tensors().size() == 3);
    CHECK(read.tensors()[0].name == "a.b");
    CHECK(read.tensors()[0].type == DataType::F32);
    CHECK(read.tensors()[0].shape == std::vector<std::size_t>{1, 2});
    CHECK(read.tensors()[1].data.size() == 6);
    CHECK(read.tensors()[2].data.empty());
    CHECK(read.find("c") == &read.tensors()[1]);
    CHECK(read.find("b") == nullptr);
    CHECK(read.find("") == nullptr);
}

TEST_CASE("Rule 1: a file has at least 8 bytes", "[data][safetensors]") {
    CHECK_THAT(fault(""), Contains("expected a file of at least 8 bytes, found 0 bytes"));
    CHECK_THAT(fault("1234567"), Contains("found 7 bytes"));
}

TEST_CASE("Rule 2: a header has at most 100,000,000 bytes", "[data][safetensors]") {
    CHECK_THAT(fault(file_of("{}", "", 100'000'001)),
               Contains("expected a header of at most 100000000 bytes, found a header length of 100000001"));
    CHECK_THAT(fault(std::string(16, '\xff')), Contains("18446744073709551615"));
}

TEST_CASE("Rule 3: the header ends within the file", "[data][safetensors]") {
    CHECK_THAT(fault(file_of("{}", "", 3)), Contains("expected a header of 3 bytes, found a file that ends after 2"));
    CHECK_THAT(fault(file_of("{}", "", 100'000'000)), Contains("expected a header of 100000000 bytes"));
}

TEST_CASE("Rule 4: the header is UTF-8", "[data][safetensors]") {
    const auto named = [](const std::string& name) {
        return fault(file_of("{" + entry(name, "U8", "[0]", "[0,0]") + "}"));
    };
    for (const std::string good : {"\xc3\xa9", "\xe4\xb8\xad", "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
        CHECK(named(good).empty());
    // stray continuation, overlong forms, surrogate, beyond U+10FFFF, cut short
    for (const std::string bad :
         {"\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
          "\xf8\x88\x80\x80\x80", "\xff", "\xc3", "\xe4\xb8", "\xf0\x9f\x98"})
        CHECK_THAT(named(bad), Contains("header is not UTF-8 at byte 2"));
    CHECK_THAT(fault(file_of("{}\xc3")), Contains("header is not UTF-8 at byte 2"));
}

TEST_CASE("Rule 5: the header is one complete JSON object", "[data][safetensors]") {
    CHECK(fault(file_of("{}")).empty());
    CHECK_THAT(fault(file_of("")), Contains("header is empty"));
    CHECK_THAT(fault(file_of("  \n")), Contains("header is empty"));
    for (const std::string bad : {"[]", "null", "3", "\"a\"", "\xef\xbb\xbf{}"})
        CHECK_THAT(fault(file_of(bad)), Contains("header is not JSON: expected an object at byte 0"));
    for (const std::string bad : {"{", "{}}", "{}{}", "{} x", "{,}", "{\"a\"}", "{\"a\":}", "{'a':1}", "{\"a\" 1}",
                                  "{/**/}", "{}\f", "{\"a", "{\"\\", "{\"\\q\":1}", "{\"\\ud800\":1}", "{\"\x01\":1}"})
        CHECK_THAT(fault(file_of(bad)), Contains("header is not JSON near its byte "));
    const std::string good = "{" + entry("w", "U8", "[1]", "[0,1]");
    CHECK_THAT(fault(file_of(good + ",}", "x")), Contains("header is not JSON near"));
    CHECK_THAT(fault(file_of(good + "}" + zeros(1), "x")), Contains("header is not JSON: NUL at byte 53"));
    CHECK_THAT(fault(file_of(good + zeros(1) + "}", "x")), Contains("header is not JSON: NUL at byte 52"));
}

TEST_CASE("Rule 6: JSON whitespace may stand around the header, as the reference has it", "[data][safetensors]") {
    const std::string good = "{" + entry("w", "U8", "[1]", "[0,1]") + "}";
    for (const std::string space : {" ", "\t", "\n", "\r", "  \r\n\t ", "        "}) {
        CHECK(fault(file_of(good + space, "x")).empty());
        CHECK(fault(file_of(space + good, "x")).empty());
    }
    for (const std::string space : {"\v", "\f", "\xc2\xa0"}) {
        CHECK_THAT(fault(file_of(good + space, "x")), Contains("header is not JSON near its byte 5"));
        CHECK_THAT(fault(file_of(space + good, "x")), Contains("header is not JSON: expected an object at byte 0"));
    }
}

TEST_CASE("Rule 7: metadata maps strings to strings", "[data][safetensors]") {
    CHECK(fault(file_of(R"({"__metadata__":{}})")).empty());
    for (const auto& [value, found] : {std::pair{"1", "a number"},
                                       {"-1", "a negative number"},
                                       {"1.5", "the number 1.5"},
                                       {"true", "a boolean"},
                                       {"null", "null"},
                                       {"{}", "an object"},
                                       {"[]", "an array"}}) {
        const std::string text = value;
        CHECK_THAT(fault(file_of(R"({"__metadata__":{"key":)" + text + "}}")),
                   Contains("__metadata__ 'key': expected a string, found " + std::string(found)));
        if (text != "{}")
            CHECK_THAT(fault(file_of(R"({"__metadata__":)" + text + "}")),
                       Contains("__metadata__: expected an object, found " + std::string(found)));
    }
    CHECK_THAT(fault(file_of(R"({"__metadata__":"x"})")),
               Contains("__metadata__: expected an object, found the string"));
}

TEST_CASE("Rule 8: dtype is one of 22 names", "[data][safetensors]") {
    // Python: safetensors 0.8.0's own list, from its error message for an unknown name.
    const std::vector<std::pair<std::string, std::size_t>> known{
        {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
        {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
        {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
        {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
    CHECK(td::detail::data_types.size() == known.size());
    for (std::size_t i = 0; i < known.size(); ++i) {
        CHECK(td::name(static_cast<DataType>(i)) == known[i].first);
        CHECK(td::bits(static_cast<DataType>(i)) == known[i].second);
        CHECK(
            one(known[i].first, "[4]", "[0," + std::to_string(known[i].second / 2) + "]", known[i].second / 2).empty());
    }
    for (const std::string bad : {"", "f32", "F33", "F32 ", "FLOAT", "F8_E4M3FN", "U128", "C128"})
        CHECK_THAT(one(bad, "[4]", "[0,16]", 16), Contains("tensor 'w': unknown dtype '" + bad + "'"));
    for (const std::string bad : {"1", "null", "[]", "{}"})
        CHECK_THAT(fault(file_of(R"({"w":{"dtype":)" + bad + "}}")),
                   Contains("tensor 'w': dtype: expected a string, found"));
}

TEST_CASE("Rule 9: shape is an array of unsigned integers", "[data][safetensors]") {
    CHECK(one("F32", "[]", "[0,4]", 4).empty());
    CHECK(one("F32", "[0]", "[0,0]", 0).empty());
    CHECK(one("F32", "[3,0,5]", "[0,0]", 0).empty());
    CHECK(one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4).empty());
    for (const std::string bad : {"-1", "-0", "1.0", "1e0", "true", "null", "\"1\"", "[1]", "18446744073709551616"})
        CHECK_THAT(one("F32", "[" + bad + "]", "[0,4]", 4),
                   Contains("tensor 'w': shape: expected unsigned 64-bit integers, found "));
    CHECK_THAT(one("F32", "[{}]", "[0,4]", 4), Contains("shape: expected unsigned 64-bit integers, found an object"));
    for (const std::string bad : {"1", "null", "\"[1]\"", "{}"})
        CHECK_THAT(one("F32", bad, "[0,4]", 4), Contains("tensor 'w': shape: expected an array, found "));
    CHECK_THAT(one("F32", "[01]", "[0,4]", 4), Contains("header is not JSON near"));
}

TEST_CASE("Rule 10: data_offsets are two unsigned integers in order", "[data][safetensors]") {
    CHECK_THAT(one("U8", "[1]", "[]", 1), Contains("tensor 'w': data_offsets: expected two numbers, found 0"));
    CHECK_THAT(one("U8", "[1]", "[0]", 1), Contains("expected two numbers, found 1"));
    CHECK_THAT(one("U8", "[1]", "[0,1,1]", 1), Contains("expected two numbers, found more"));
    CHECK_THAT(one("U8", "[1]", "[1,0]", 1), Contains("tensor 'w': data_offsets [1, 0] end before they begin"));
    for (const std::string bad : {"-1", "0.5", "null", "\"0\"", "[0]", "{}", "18446744073709551616"})
        CHECK_THAT(one("U8", "[1]", "[" + bad + ",1]", 1),
                   Contains("tensor 'w': data_offsets: expected unsigned 64-bit integers, found "));
    for (const std::string bad : {"1", "null", "\"01\"", "{}"})
        CHECK_THAT(one("U8", "[1]", bad, 1), Contains("tensor 'w': data_offsets: expected an array, found "));
}

TEST_CASE("Rule 11: tensors cover the data without hole or overlap", "[data][safetensors]") {
    const auto two = [](const std::string& a, const std::string& b, std::size_t data) {
        return fault(file_of("{" + entry("a", "U8", "[2]", a) + "," + entry("b", "U8", "[2]", b) + "}", zeros(data)));
    };
    CHECK(two("[0,2]", "[2,4]", 4).empty());
    CHECK(two("[2,4]", "[0,2]", 4).empty());
    CHECK_THAT(two("[1,3]", "[3,5]", 5), Contains("tensor 'a': data_offsets expected to begin at 0, found 1 (hole"));
    CHECK_THAT(two("[0,2]", "[3,5]", 5), Contains("tensor 'b': data_offsets expected to begin at 2, found 3 (hole"));
    CHECK_THAT(two("[0,2]", "[1,3]", 3),
               Contains("tensor 'b': data_offsets expected to begin at 2, found 1 (overlaps"));
    CHECK_THAT(two("[0,2]", "[0,2]", 2),
               Contains("tensor 'b': data_offsets expected to begin at 2, found 0 (overlaps"));
    CHECK_THAT(
        fault(file_of("{" + entry("a", "U8", "[2]", "[0,2]") + "," + entry("b", "U8", "[0]", "[1,1]") + "}", "xx")),
        Contains("tensor 'b': data_offsets expected to begin at 2, found 1"));
}

TEST_CASE("Rule 12: sizes neither overflow nor end within a byte", "[data][safetensors]") {
    const std::string overflow = "overflows 64 bits or ends within a byte";
    CHECK_THAT(one("U8", "[4294967296,4294967296]", "[0,0]", 0), Contains(overflow));
    CHECK_THAT(one("U8", "[4294967296,4294967297]", "[0,4294967296]", 0), Contains("exceed the file's 0 bytes"));
    CHECK_THAT(one("U8", "[4294967296,4294967296,0]", "[0,0]", 0), Contains(overflow));
    CHECK(one("U8", "[0,4294967296,4294967296]", "[0,0]", 0).empty());
    CHECK_THAT(one("F64", "[288230376151711744]", "[0,0]", 0), Contains(overflow));  // x 64 bits = 2^64
    CHECK_THAT(one("U8", "[2305843009213693952]", "[0,0]", 0), Contains(overflow));  // x 8 bits = 2^64
    CHECK_THAT(one("U8", "[18446744073709551615]", "[0,0]", 0),
               Contains("tensor 'w': shape: U8 [18446744073709551615]"));
    CHECK(one("F4", "[2]", "[0,1]", 1).empty());
    CHECK_THAT(one("F4", "[3]", "[0,1]", 1), Contains(overflow));
    CHECK_THAT(one("F4", "[3]", "[0,2]", 2), Contains(overflow));
    CHECK(one("F6_E2M3", "[4]", "[0,3]", 3).empty());
    CHECK_THAT(one("F6_E3M2", "[2]", "[0,1]", 1), Contains(overflow));
}

TEST_CASE("Rule 13: a tensor has exactly the bytes of its shape", "[data][safetensors]") {
    CHECK_THAT(one("F32", "[2]", "[0,7]", 7),
               Contains("tensor 'w': data_offsets [0, 7]: expected 8 bytes for F32 [2], found 7"));
    CHECK_THAT(one("F32", "[2]", "[0,9]", 9), Contains("expected 8 bytes for F32 [2], found 9"));
    CHECK_THAT(one("F32", "[]", "[0,0]", 0), Contains("expected 4 bytes for F32 [], found 0"));
    CHECK_THAT(one("F32", "[0]", "[0,4]", 4), Contains("expected 0 bytes for F32 [0], found 4"));
}

TEST_CASE("Rule 14: the data ends with the file", "[data][safetensors]") {
    CHECK_THAT(one("U8", "[4]", "[0,4]", 3),
               Contains("tensor 'w': data_offsets [0, 4] exceed the file's 3 bytes of tensor data"));
    CHECK_THAT(one("U8", "[4]", "[0,4]", 5), Contains("1 bytes after the last tensor belong to none"));
    CHECK_THAT(fault(file_of("{}", "x")), Contains("1 bytes after the last tensor belong to none"));
    CHECK_THAT(one("U8", "[4]", "[18446744073709551614,18446744073709551615]", 4),
               Contains("exceed the file's 4 bytes"));
}

TEST_CASE("Rule 15: no key comes twice", "[data][safetensors]") {
    const std::string a = entry("a", "U8", "[1]", "[0,1]");
    CHECK_THAT(fault(file_of("{" + a + "," + a + "}", "x")), Contains("tensor 'a': duplicate name"));
    CHECK_THAT(fault(file_of("{" + a + "," + entry("b", "U8", "[1]", "[1,2]") + "," +
                                 entry("\\u0061", "U8", "[1]", "[2,3]") + "}",
                             "xyz")),
               Contains("tensor 'a': duplicate name"));
    const std::string empty = entry("e", "U8", "[0]", "[0,0]");
    CHECK_THAT(fault(file_of("{" + empty + "," + empty + "}")), Contains("tensor 'e': duplicate name"));
    CHECK_THAT(fault(file_of(R"({"__metadata__":{},"__metadata__":{}})")), Contains("duplicate key '__metadata__'"));
    CHECK_THAT(fault(file_of(R"({"__metadata__":{"k":"1","j":"2","k":"1"}})")),
               Contains("__metadata__: duplicate key 'k'"));
    const std::vector<std::string> fields{R"("dtype":"U8")", R"("shape":[1])", R"("data_offsets":[0,1])"};
    const std::vector<std::string> names{"dtype", "shape", "data_offsets"};
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK_THAT(
            fault(file_of(R"({"w":{)" + fields[0] + "," + fields[1] + "," + fields[2] + "," + fields[i] + "}}", "x")),
            Contains("tensor 'w': duplicate key '" + names[i] + "'"));
        CHECK_THAT(fault(file_of(R"({"w":{)" + fields[(i + 1) % 3] + "," + fields[(i + 2) % 3] + "}}", "x")),
                   Contains("tensor 'w': missing key '" + names[i] + "'"));
        // any order of keys is a good one
        CHECK(
            fault(file_of(R"({"w":{)" + fields[i] + "," + fields[(i + 1) % 3] + "," + fields[(i + 2) % 3] + "}}", "x"))
                .empty());
    }
}

TEST_CASE("Other structure is refused and named", "[data][safetensors]") {
    CHECK_THAT(fault(file_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}})", "x")),
               Contains("tensor 'w': unknown key 'more'"));
    CHECK_THAT(fault(file_of(R"({"w":["U8",[1],[0,1]]})", "x")),
               Contains("tensor 'w': expected an object, found an array"));
    CHECK_THAT(fault(file_of(R"({"w":null})")), Contains("tensor 'w': expected an object, found null"));
    const std::string message = fault(file_of("{\"" + std::string(5000, 'n') + "\\u001b\\n\":1}"));
    CHECK_THAT(message, Contains("tensor '" + std::string(100, 'n') + "...'"));
    CHECK(message.size() < 200);
    CHECK_THAT(fault(file_of(R"({"\u001b[31m":1})")), Contains("tensor '?[31m'"));
}

TEST_CASE("Every truncation of a file is refused", "[data][safetensors]") {
    const std::string file = small_file();
    REQUIRE(fault(file).empty());
    for (std::size_t length = 0; length < file.size(); ++length) {
        INFO(length);
        // a copy of exactly this length, for the address sanitizer to watch over
        const std::vector<char> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length));
        CHECK_THROWS_AS(td::Safetensors::parse(std::as_bytes(std::span(cut)), "x"), td::Error);
    }
}

TEST_CASE("Bit flips in a header are refused or harmless, as the reference sees them", "[data][safetensors]") {
    const std::string file = small_file();
    const std::size_t header_bits = (file.size() - 14) * 8;
    std::string cases;
    std::string verdicts;
    const auto judge = [&](const std::string& mutant) {
        bool good = true;
        try {
            const td::Safetensors read = td::Safetensors::parse(bytes_of(mutant), "x");
            std::size_t sum = 0;
            for (const StoredTensor& tensor : read.tensors()) {
                sum += tensor.data.size();
                CHECK(read.find(tensor.name) == &tensor);
                CHECK(td::detail::byte_count(tensor.type, tensor.shape) == tensor.data.size());
            }
            CHECK(sum == 14);
        } catch (const td::Error&) {
            good = false;
        }
        const auto size = static_cast<std::uint32_t>(mutant.size());
        cases.append(reinterpret_cast<const char*>(&size), sizeof(size)).append(mutant);
        verdicts += good ? '1' : '0';
    };
    for (std::size_t bit = 0; bit < header_bits; ++bit) {
        std::string mutant = file;
        mutant[bit / 8] = static_cast<char>(mutant[bit / 8] ^ (1 << bit % 8));
        judge(mutant);
    }
    std::uint32_t state = 1;
    const auto draw = [&](std::size_t below) {
        state = state * 1664525U + 1013904223U;
        return (state >> 8) % below;
    };
    const std::string alphabet = "{}[]\",:0123456789.-eE\\ \n\tUFB_truenl\x80\xc3\xff";
    for (int i = 0; i < 20000; ++i) {  // one to three edits: change, insert, erase
        std::string mutant = file;
        for (std::size_t edits = 1 + draw(3); edits > 0; --edits) {
            const std::size_t at = 8 + draw(mutant.size() - 8);
            const char c = alphabet[draw(alphabet.size())];
            const std::size_t kind = draw(3);
            if (kind == 0) mutant[at] = c;
            if (kind == 1) mutant.insert(at, 1, c);
            if (kind == 2) mutant.erase(at, 1);
        }
        const std::uint64_t length = mutant.size() - 8 - 14;
        if (draw(4) != 0) std::memcpy(mutant.data(), &length, 8);
        judge(mutant);
    }
    CHECK(verdicts.find('1') != std::string::npos);

    const TemporaryFolder folder;
    std::ofstream(folder / "cases", std::ios::binary) << cases;
    const std::optional<std::string> reference = python("verdicts", folder / "cases");
    if (!reference) {
        WARN(no_python);
        return;
    }
    CHECK(*reference == verdicts + "\n");
}

#if !TANDEM_TEST_SANITIZED  // sanitizers keep shadow memory of their own
TEST_CASE("Hostile headers cost no more memory than the file and 16 MB", "[data][safetensors]") {
    constexpr std::size_t size = 24'000'000;
    const auto in_child = [](auto work) {
        const ::pid_t child = ::fork();
        if (child == 0) ::_exit(work());
        int status = 0;
        ::waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    };
    // The header is made by one process and read by another, so that no memory of the making is there to be reused.
    const auto check = [&](const std::string& what, auto make_header, const std::string& expected) {
        const TemporaryFolder folder;
        const fs::path path = folder / "x.safetensors";
        REQUIRE(in_child([&] {
                    std::ofstream stream(path, std::ios::binary);
                    stream << file_of(make_header()) << std::flush;
                    return stream ? 0 : 1;
                }) == 0);
        ::malloc_trim(0);  // before the fork: what the child gave back would stay in its peak
        const int status = in_child([&] {
            std::ifstream statm("/proc/self/statm");
            std::int64_t pages = 0;
            statm >> pages >> pages;
            std::string message;
            try {
                td::Safetensors::open(path);
            } catch (const td::Error& error) {
                message = error.what();
            }
            ::rusage usage{};
            ::getrusage(RUSAGE_SELF, &usage);
            const std::int64_t grown = usage.ru_maxrss * 1024 - pages * ::sysconf(_SC_PAGESIZE);
            const bool named = expected.empty() ? message.empty() : message.find(expected) != std::string::npos;
            const bool small = grown <= static_cast<std::int64_t>(fs::file_size(path)) + 16'000'000;
            if (!named || !small) std::fprintf(stderr, "%ld bytes: %s\n", static_cast<long>(grown), message.c_str());
            return (named ? 0 : 1) + (small ? 0 : 2);
        });
        INFO(what);
        CHECK(status == 0);
    };
    const auto repeated = [](const std::string& head, const std::string& unit, const std::string& tail) {
        return [=] {
            std::string header = head;
            while (header.size() + unit.size() + tail.size() <= size) header += unit;
            return header + tail;
        };
    };
    const auto numbered = [](const std::string& head, auto unit, const std::string& tail) {
        return [=] {
            std::string header = head + unit(0);
            for (int i = 1; header.size() + unit(i).size() + tail.size() < size; ++i) header += "," + unit(i);
            return header + tail;
        };
    };
    const auto tensor = [](int i) { return entry(std::to_string(i), "U8", "[0]", "[0,0]"); };
    const auto text = [](int i) { return "\"" + std::to_string(i) + "\":\"\""; };
    const auto long_text = [](int i) { return "\"" + std::to_string(i) + "\":\"" + std::string(500'000, 'm') + "\""; };
    const auto deep = [](int i) { return entry(std::to_string(i), "U8", "[0,1,1,1,1,1,1,1,1,1]", "[0,0]"); };
    const std::string open = R"({"__metadata__":{)";
    check("spaces after the header", repeated("{}", " ", ""), "");
    check("spaces in the header", repeated("{", "\n", "}"), "16 KiB without a string");
    check("deep arrays", repeated("", "[", ""), "expected an object");
    check("deep arrays in an object", repeated("{\"a\":", "[", ""), "16 KiB without a string");
    check("deep objects", repeated("", "{\"a\":", ""), "tensor 'a': unknown key 'a'");
    check("one string", repeated("{\"", "a", ""), "a string longer than 512 KiB");
    check("one string of escapes", repeated("{\"", "\\\"", "\":1}"), "a string longer than 512 KiB");
    check("one number", repeated("{\"a\":", "1", ""), "16 KiB without a string");
    check("one shape", repeated(R"({"a":{"shape":[1)", ",1", "]"), "16 KiB without a string");
    check("garbage", repeated("{", "garbage ", ""), "16 KiB without a string");
    check("garbage strings", repeated("{", "\"garbage\"", ""), "header is not JSON near its byte 10");
    check("many tensors", numbered("{", tensor, "}"), "more than 6 MiB of names");
    check("many shapes", numbered("{", deep, "}"), "more than 6 MiB of names");
    check("much metadata", numbered(open, text, "}}"), "more than 6 MiB of names");
    check("long metadata", numbered(open, long_text, "}}"), "more than 6 MiB of names");
    check(
        "as much as may be, broken at the end",
        [&] {
            std::string header = "{";
            for (int i = 0; i < 35'000; ++i) header += tensor(i) + ",";
            return header + "\"" + std::string(500'000, 'm') + "\":" + std::string(16'000, '\n') + "!}";
        },
        "header is not JSON near");
}
#endif

TEST_CASE("Elements convert exactly, and only where they may", "[data][safetensors]") {
    const std::vector<std::uint16_t> halves{0x3c00, 0xc000, 0x0001, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x8000, 0x0400};
    const StoredTensor half{"h", DataType::F16, {halves.size()}, std::as_bytes(std::span(halves))};
    const std::vector<float> expected{1.0F,     -2.0F,     0x1p-24F, -1023 * 0x1p-24F, 65504.0F,
                                      INFINITY, -INFINITY, -0.0F,    0x1p-14F};
    CHECK(elements<float>(&half, halves.size()) == expected);
    CHECK(std::signbit(elements<float>(&half, halves.size())[7]));
    CHECK(elements<double>(&half, halves.size())[2] == 0x1p-24);
    CHECK(static_cast<float>(elements<td::bfloat16>(&half, halves.size())[4]) == 65536.0F);
    const std::uint16_t nan = 0x7e00;
    CHECK(std::isnan(elements<float>(
        std::array{StoredTensor{"n", DataType::F16, {}, std::as_bytes(std::span(&nan, 1))}}.data(), 1)[0]));

    const std::vector<double> doubles{0.1, -1e300, 3.0};
    const StoredTensor wide = td::stored_tensor<double>("d", {3}, doubles);
    CHECK(elements<float>(&wide, 3) == std::vector<float>{0.1F, -INFINITY, 3.0F});
    const std::vector<td::bfloat16> brains{1.5F, -3.0F};
    const StoredTensor brain = td::stored_tensor<td::bfloat16>("b", {1, 2}, brains);
    CHECK(elements<double>(&brain, 2) == std::vector<double>{1.5, -3.0});

    const std::vector<std::int64_t> longs{-1, 300, 1LL << 40};
    const StoredTensor integer = td::stored_tensor<std::int64_t>("i", {3}, longs);
    CHECK(elements<std::int64_t>(&integer, 3) == longs);
    const StoredTensor two{"i", DataType::I64, {2}, integer.data.first(16)};
    CHECK(elements<std::int32_t>(&two, 2) == std::vector<std::int32_t>{-1, 300});
    CHECK(element_fault<std::int32_t>(integer, 3) ==
          "i: expected values that fit I32, found 1099511627776 at element 2");
    CHECK(element_fault<std::uint8_t>(integer, 3) == "i: expected values that fit U8, found -1 at element 0");

    CHECK(element_fault<float>(integer, 3) == "i: expected F64, F32, F16 or BF16, found I64");
    CHECK(element_fault<std::int32_t>(wide, 3) == "d: expected I64, I32 or U8, found F64");
    CHECK(element_fault<float>(wide, 2) == "d: expected 2 elements, found 3 (shape [3])");
    CHECK(element_fault<float>({"s", DataType::F32, {3}, wide.data}, 3) ==
          "s: expected data of shape [3] and type F32, found 24 bytes");

    const std::string unaligned = "x" + std::string("\0\0\x80\x3f", 4);
    CHECK(elements<double>(std::array{StoredTensor{"u", DataType::F32, {}, bytes_of(unaligned).subspan(1)}}.data(),
                           1) == std::vector<double>{1.0});
}

TEMPLATE_TEST_CASE("What is saved reads back", "[data][safetensors]", float, double, td::bfloat16, std::int32_t,
                   std::int64_t, std::uint8_t) {
    const TemporaryFolder folder;
    std::vector<TestType> values;
    for (int i = 0; i < 6; ++i) values.push_back(static_cast<TestType>(static_cast<float>(i * 21)));
    const std::vector<StoredTensor> tensors{td::stored_tensor<TestType>("z.first", {2, 3}, values),
                                            td::stored_tensor<TestType>("scalar", {}, std::span(values).first(1)),
                                            td::stored_tensor<TestType>("a.last", {3, 0}, {})};
    const std::map<std::string, std::string> metadata{{"step", "7"}, {"quote", "\"\\\n\x01\x7f\xc3\xa9"}};
    td::save_safetensors(folder / "m.safetensors", tensors, metadata);
    td::Safetensors opened = td::Safetensors::open(folder / "m.safetensors");
    const td::Safetensors read = std::move(opened);
    CHECK(read.metadata() == metadata);
    REQUIRE(read.tensors().size() == 3);
    CHECK(read.tensors()[0].name == "z.first");
    CHECK(read.find("z.first")->shape == std::vector<std::size_t>{2, 3});
    CHECK(read.find("z.first")->type == td::data_type_of<TestType>());
    const auto equal = [](TestType a, TestType b) { return !(a < b) && !(b < a); };
    const auto found = elements<TestType>(read.find("z.first"), 6);
    CHECK(std::equal(found.begin(), found.end(), values.begin(), equal));
    CHECK(elements<TestType>(read.find("scalar"), 1).size() == 1);
    CHECK(elements<TestType>(read.find("a.last"), 0).empty());
    CHECK(reinterpret_cast<std::uintptr_t>(read.tensors()[0].data.data()) % 8 == 0);
}

TEST_CASE("Tensors of mixed width are each aligned", "[data][safetensors]") {
    const TemporaryFolder folder;
    const std::string data = zeros(64);
    const std::vector<StoredTensor> tensors{{"a", DataType::U8, {3}, bytes_of(data).first(3)},
                                            {"b", DataType::F64, {2}, bytes_of(data).first(16)},
                                            {"c", DataType::F16, {1}, bytes_of(data).first(2)},
                                            {"d", DataType::F32, {3}, bytes_of(data).first(12)},
                                            {"e", DataType::I64, {1}, bytes_of(data).first(8)}};
    td::save_safetensors(folder / "m", tensors);
    const td::Safetensors read = td::Safetensors::open(folder / "m");
    std::string order;
    for (const StoredTensor& tensor : read.tensors()) {
        order += tensor.name;
        CHECK(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % (td::bits(tensor.type) / 8) == 0);
    }
    CHECK(order == "bedca");
}

TEST_CASE("An empty file of tensors is a file", "[data][safetensors]") {
    const TemporaryFolder folder;
    td::save_safetensors(folder / "m", {});
    CHECK(fs::file_size(folder / "m") == 16);
    CHECK(td::Safetensors::open(folder / "m").tensors().empty());
}

TEST_CASE("What must not be saved is refused and the old file stays", "[data][safetensors]") {
    const TemporaryFolder folder;
    const std::string data = zeros(8);
    const auto refusal = [&](const std::vector<StoredTensor>& tensors,
                             const std::map<std::string, std::string>& metadata = {}) -> std::string {
        td::save_safetensors(folder / "m", {});
        try {
            td::save_safetensors(folder / "m", tensors, metadata);
        } catch (const td::Error& error) {
            CHECK(fs::file_size(folder / "m") == 16);
            CHECK(std::distance(fs::directory_iterator(folder / ""), fs::directory_iterator()) == 1);
            return error.what();
        }
        return "";
    };
    const auto bytes = bytes_of(data);
    CHECK_THAT(
        refusal({{"w", DataType::F32, {2}, bytes}, {"v", DataType::F32, {2}, bytes}, {"w", DataType::F64, {1}, bytes}}),
        Contains("m: tensor 'w': duplicate name"));
    CHECK_THAT(refusal({{"w", DataType::F32, {3}, bytes}}), Contains("tensor 'w': F32 [3] does not take 8 bytes"));
    CHECK_THAT(refusal({{"w", DataType::F4, {3}, bytes.first(2)}}),
               Contains("tensor 'w': F4 [3] does not take 2 bytes"));
    CHECK_THAT(refusal({{"w", DataType::U8, {1ULL << 32, 1ULL << 32}, {}}}), Contains("does not take 0 bytes"));
    CHECK_THAT(refusal({{"__metadata__", DataType::F64, {1}, bytes}}), Contains("reserved name '__metadata__'"));
    CHECK_THAT(refusal({{"\xff", DataType::F64, {1}, bytes}}), Contains("is not UTF-8"));
    CHECK_THAT(refusal({}, {{"key", "\xc3"}}), Contains("is not UTF-8"));
    CHECK_THAT(refusal({}, {{"key", std::string(2'000'000, 'x')}}), Contains("is longer than 512 KiB"));
    std::map<std::string, std::string> much;
    for (int i = 0; i < 14; ++i) much[std::to_string(i)] = std::string(500'000, 'x');
    CHECK_THAT(refusal({}, much), Contains("more than 6 MiB"));
    CHECK(refusal({{"w", DataType::F64, {1}, bytes}}).empty());
    CHECK_THROWS_WITH(td::save_safetensors(folder / "none/m", {}), Contains("none/m: cannot open its folder"));
}

TEST_CASE("The reference's own file reads", "[data][safetensors]") {
    const td::Safetensors read =
        td::Safetensors::open(fs::path(TANDEM_TEST_DATA) / "files/fixtures/safetensors/reference.safetensors");
    CHECK(read.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"quote", "a \"b\"\n\\"}});
    CHECK(read.tensors().size() == 8);
    CHECK(elements<float>(read.find("half"), 5) == std::vector<float>{1.5F, -2.0F, 0x1p-24F, 65504.0F, INFINITY});
    CHECK(elements<float>(read.find("brain"), 2) == std::vector<float>{1.5F, -2.0F});
    CHECK(elements<float>(read.find("single"), 6) == std::vector<float>{0, 0.5F, 1, 1.5F, 2, 2.5F});
    CHECK(elements<double>(read.find("double"), 2) == std::vector<double>{0.1, -1e300});
    CHECK(elements<std::int64_t>(read.find("long"), 2) == std::vector<std::int64_t>{-1, 1LL << 40});
    CHECK(elements<std::int32_t>(read.find("byte"), 3) == std::vector<std::int32_t>{0, 127, 255});
    REQUIRE(read.find("flag") != nullptr);
    CHECK(read.find("flag")->type == DataType::BOOL);
    REQUIRE(read.find("nichts \u00e9\u4e2d\U0001f600") != nullptr);
    CHECK(read.find("nichts \u00e9\u4e2d\U0001f600")->shape == std::vector<std::size_t>{0, 4});
}

TEST_CASE("The reference reads what is saved, in all 22 types", "[data][safetensors]") {
    const TemporaryFolder folder;
    std::string data;
    for (int i = 0; i < 256; ++i) data += static_cast<char>(i);
    const std::map<std::string, std::string> metadata{{"a", "1"}, {"\xc3\xa9 \"q\"\\", "\xf0\x9f\x98\x80\t"}};
    std::vector<StoredTensor> tensors{{"empty \xe4\xb8\xad", DataType::F32, {2, 0}, {}},
                                      {"scalar \"\\\x01", DataType::F64, {}, bytes_of(data).first(8)}};
    for (std::size_t i = 0; i < td::detail::data_types.size(); ++i) {
        const auto type = static_cast<DataType>(i);
        tensors.push_back({"t" + std::to_string(i), type, {3, 4}, bytes_of(data).subspan(i, 12 * td::bits(type) / 8)});
    }
    td::save_safetensors(folder / "m", tensors, metadata);
    const std::optional<std::string> reference = python("read", folder / "m");
    if (!reference) {
        WARN(no_python);
        return;
    }

    std::ranges::sort(tensors, {}, &StoredTensor::name);
    std::string expected;
    for (const auto& [key, value] : metadata) expected += key + "=" + value + "\n";
    for (const StoredTensor& tensor : tensors) {
        expected += tensor.name + ":" + std::string(td::name(tensor.type)) + "[";
        for (std::size_t i = 0; i < tensor.shape.size(); ++i)
            expected += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
        expected += "]" + hexadecimal(tensor.data) + "\n";
    }
    CHECK(*reference == expected);
}
