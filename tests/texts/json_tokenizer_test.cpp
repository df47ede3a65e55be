// Byte-pair encodings of a tokenizer.json against the tokenizers package.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/texts/json_tokenizer.hpp>

#include "token_goldens.hpp"

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using tandem::Id;
using tandem::JsonTokenizer;

namespace {

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "texts" / "fixtures" / "json_tokenizer";

const std::vector<std::vector<std::string>>& goldens(const std::string& kind) {
    static const auto rows = token_goldens::read(fixtures / "goldens.tsv.gz");
    return rows.at(kind);
}

std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("ids are those of the tokenizers package on ten thousand texts") {
    token_goldens::compare_texts(JsonTokenizer::load(fixtures), goldens("e"), 2);
    token_goldens::compare_texts(JsonTokenizer::load(fixtures, tandem::Cleaning::open_clip), goldens("e"), 3);
}

TEST_CASE("rows of a tokenizer.json are cut before the end of text, and padded") {
    const JsonTokenizer tokenizer = JsonTokenizer::load(fixtures / "tokenizer.json");
    token_goldens::compare_contexts(tokenizer, goldens("c"));
    token_goldens::check_batch(tokenizer);
    CHECK_THROWS_WITH(tokenizer.encode("a", std::span<Id>{}),
                      "JsonTokenizer::encode: expected a context of at least 1 tokens, found 0");
}

TEST_CASE("the padding stands where the folder's config says") {
    std::string name = (fs::temp_directory_path() / "tandem-json-tokenizer-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const fs::path folder = name;
    fs::copy_file(fixtures / "tokenizer.json", folder / "tokenizer.json");
    const auto row = [&] {
        std::vector<Id> ids(12, -1);
        JsonTokenizer::load(folder).encode("a cat", ids);
        return ids;
    };
    const std::vector<Id> right = row(), text = JsonTokenizer::load(folder).encode("a cat");
    REQUIRE(text.size() < 12);
    std::ofstream(folder / "tokenizer_config.json") << R"({"padding_side": "right"})";
    CHECK(row() == right);
    std::ofstream(folder / "tokenizer_config.json") << R"({"padding_side": "left"})";
    const std::vector<Id> left = row();
    CHECK(std::equal(text.rbegin(), text.rend(), left.rbegin()));
    CHECK(std::count(left.begin(), left.end() - static_cast<std::ptrdiff_t>(text.size()), right.back()) ==
          static_cast<std::ptrdiff_t>(12 - text.size()));
    fs::remove_all(folder);
}

TEST_CASE("what a tokenizer.json asks for and is not here is named") {
    std::string name = (fs::temp_directory_path() / "tandem-json-tokenizer-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const fs::path folder = name;
    const std::string sound = contents(fixtures / "tokenizer.json");
    CHECK_THROWS_WITH(JsonTokenizer::load(folder),
                      Contains("tokenizer.json: expected a tokenizer.json, found no file"));
    const auto refused = [&](const std::string& from, const std::string& to, const std::string& message) {
        const std::size_t at = sound.find(from);
        REQUIRE(at != std::string::npos);
        std::ofstream(folder / "tokenizer.json", std::ios::binary) << std::string(sound).replace(at, from.size(), to);
        CHECK_THROWS_WITH(JsonTokenizer::load(folder), Contains(message));
    };
    refused(R"("type":"BPE")", R"("type":"WordPiece")", "expected model.type = BPE, found WordPiece");
    refused(R"("byte_fallback":true)", R"("byte_fallback":false)", "expected model.byte_fallback = true, found false");
    refused(R"("type":"Lowercase")", R"("type":"NFKC")",
            "normalizer.normalizers.0 of type Sequence, Lowercase, or Replace of a string, found NFKC");
    refused(R"("type":"Split")", R"("type":"Metaspace")",
            "expected no pre_tokenizer, or a Split at what the normalizer replaces, found Metaspace");
    refused(R"("type":"TemplateProcessing")", R"("type":"ByteLevel")",
            "expected a post_processor of type TemplateProcessing, found ByteLevel");
    refused(R"("<0x41>")", R"("<0x4Z>")", R"(expected all bytes in model.vocab, found "<0x41>")");
    refused(R"("id":0,)", R"("id":"0x",)", "expected added_tokens.0.id = a whole number, found 0x");
    refused(R"("version":"1.0")", R"("version":"1.0","sampling":0.5)",
            "the file asks for what has no counterpart here:\n  sampling = 0.5");
    refused(R"("merges":[[)", R"("merges":[["never seen","x"],[)",
            R"(expected all merges in model.vocab, found "never seen")");
    for (std::size_t size = 0; size < sound.size(); size += 997) {
        std::ofstream(folder / "tokenizer.json", std::ios::binary) << sound.substr(0, size);
        CHECK_THROWS_AS(JsonTokenizer::load(folder), tandem::Error);
    }
    fs::remove_all(folder);
}
