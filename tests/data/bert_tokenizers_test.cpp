// XLM-RoBERTa's and BERT's tokenizers against transformers.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <tandem/data/any_tokenizer.hpp>
#include <tandem/data/word_piece.hpp>
#include <tandem/data/xlm_roberta_tokenizer.hpp>

#include "token_goldens.hpp"

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using tandem::Cleaning;
using tandem::Id;
using tandem::WordPiece;
using tandem::XlmRobertaTokenizer;
using token_goldens::parse_ids;
using token_goldens::unescaped;

namespace {

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "data" / "fixtures";

using Rows = std::vector<std::vector<std::string>>;

std::string text_of(const std::vector<Id>& ids) {
    std::string text;
    for (const Id id : ids) text += std::to_string(id) + " ";
    return text;
}

template <class Tokenizer>
void compare_texts(const Tokenizer& tokenizer, const Rows& rows, std::size_t column) {
    std::size_t wrong = 0;
    for (const auto& row : rows) {
        const std::vector<Id> found = tokenizer.encode(unescaped(row.at(1)));
        if (found == parse_ids(row.at(column)) || ++wrong > 10) continue;
        UNSCOPED_INFO(row.at(1) << "\n  expected " << row.at(column) << "\n  found    " << text_of(found));
    }
    CHECK(wrong == 0);
    CHECK(rows.size() > 10'000);
}

template <class Tokenizer>
void compare_with_originals(const fs::path& folder, const char* file) {
    const auto goldens = token_goldens::read(folder / "goldens.tsv.gz");
    compare_texts(Tokenizer::load(folder), goldens.at("e"), 2);
    compare_texts(Tokenizer::load(folder / file, Cleaning::open_clip), goldens.at("e"), 3);
    const Tokenizer from_json = Tokenizer::load(folder / "tokenizer.json");
    compare_texts(from_json, goldens.at("e"), 2);
    std::size_t wrong = 0;
    for (const auto& row : goldens.at("c")) {
        std::vector<Id> found(std::stoul(row.at(1)));
        from_json.encode(unescaped(row.at(2)), found);
        if (found == parse_ids(row.at(3)) || ++wrong > 10) continue;
        UNSCOPED_INFO(row.at(2) << "\n  expected " << row.at(3) << "\n  found    " << text_of(found));
    }
    CHECK(wrong == 0);
    std::vector<Id> one(1);
    CHECK_THROWS_WITH(from_json.encode("a", one), Contains("expected a context of at least 2 tokens, found 1"));
}

}  // namespace

TEST_CASE("XLM-RoBERTa's ids are those of transformers on ten thousand texts") {
    compare_with_originals<XlmRobertaTokenizer>(fixtures / "xlm_roberta", "sentencepiece.bpe.model");
}

TEST_CASE("BERT's ids are those of transformers on ten thousand texts") {
    compare_with_originals<WordPiece>(fixtures / "word_piece", "vocab.txt");
}

TEST_CASE("a folder's tokenizer is told by its files") {
    std::vector<Id> expected(16), found(16);
    const auto check = [&](const auto& tokenizer, const fs::path& path) {
        tokenizer.encode("Two dogs, running", expected);
        tandem::open_tokenizer(path).encode("Two dogs, running", found);
        CHECK(found == expected);
    };
    check(XlmRobertaTokenizer::load(fixtures / "xlm_roberta"), fixtures / "xlm_roberta");
    check(XlmRobertaTokenizer::load(fixtures / "xlm_roberta"), fixtures / "xlm_roberta" / "tokenizer.json");
    check(WordPiece::load(fixtures / "word_piece"), fixtures / "word_piece");
    check(WordPiece::load(fixtures / "word_piece"), fixtures / "word_piece" / "tokenizer.json");
    check(tandem::SentencePiece::load(fixtures / "sentence_piece"), fixtures / "sentence_piece");
    check(tandem::JsonTokenizer::load(fixtures / "json_tokenizer"), fixtures / "json_tokenizer");
    CHECK_THROWS_WITH(tandem::open_tokenizer(fixtures / "image"), Contains("expected a tokenizer beside the weights: spiece.model"));
}

TEST_CASE("a damaged vocabulary is refused") {
    const fs::path folder = fs::temp_directory_path() / ("tandem-bert-" + std::to_string(::getpid()));
    fs::create_directory(folder);
    std::ofstream(folder / "vocab.txt") << "[PAD]\n[UNK]\n[CLS]\nword\n";
    CHECK_THROWS_WITH(WordPiece::load(folder), Contains("vocab.txt: expected a piece [SEP], found none"));
    std::ofstream(folder / "sentencepiece.bpe.model") << "\x0a\xff";
    CHECK_THROWS_WITH(XlmRobertaTokenizer::load(folder), Contains("expected a model of SentencePiece"));
    std::ofstream(folder / "tokenizer.json") << R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0], ["<pad>", 0]]}})";
    CHECK_THROWS_WITH(XlmRobertaTokenizer::load(folder / "tokenizer.json"), Contains("expected a piece </s> in model.vocab, found none"));
    fs::remove_all(folder);
}
