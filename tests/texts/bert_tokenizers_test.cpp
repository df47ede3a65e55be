// XLM-RoBERTa's and BERT's tokenizers against transformers.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <tandem/texts/any_tokenizer.hpp>
#include <tandem/texts/json_tokenizer.hpp>
#include <tandem/texts/sentence_piece.hpp>
#include <tandem/texts/word_piece.hpp>
#include <tandem/texts/xlm_roberta_tokenizer.hpp>

#include "token_goldens.hpp"

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using tandem::Cleaning;
using tandem::Id;
using tandem::WordPiece;
using tandem::XlmRobertaTokenizer;
using token_goldens::compare_contexts;
using token_goldens::compare_texts;
using token_goldens::parse_ids;
using token_goldens::text_of;

namespace {

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "texts" / "fixtures";

template <class Tokenizer>
void compare_with_originals(const fs::path& folder, const char* file) {
    const auto goldens = token_goldens::read(folder / "goldens.tsv.gz");
    compare_texts(Tokenizer::load(folder), goldens.at("e"), 2);
    compare_texts(Tokenizer::load(folder / file, Cleaning::open_clip), goldens.at("e"), 3);
    const Tokenizer from_json = Tokenizer::load(folder / "tokenizer.json");
    compare_texts(from_json, goldens.at("e"), 2);
    compare_contexts(from_json, goldens.at("c"));
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
    CHECK_THROWS_WITH(tandem::open_tokenizer(fixtures / "mojibake"),
                      Contains("expected a tokenizer beside the weights: spiece.model"));
}

TEST_CASE("a damaged vocabulary is refused") {
    const fs::path folder = fs::temp_directory_path() / ("tandem-bert-" + std::to_string(::getpid()));
    fs::create_directory(folder);
    std::ofstream(folder / "vocab.txt") << "[PAD]\n[UNK]\n[CLS]\nword\n";
    CHECK_THROWS_WITH(WordPiece::load(folder), Contains("vocab.txt: expected a piece [SEP], found none"));
    std::ofstream(folder / "sentencepiece.bpe.model") << "\x0a\xff";
    CHECK_THROWS_WITH(XlmRobertaTokenizer::load(folder), Contains("expected a model of SentencePiece"));
    std::ofstream(folder / "tokenizer.json")
        << R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0], ["<pad>", 0]]}})";
    CHECK_THROWS_WITH(XlmRobertaTokenizer::load(folder / "tokenizer.json"),
                      Contains("expected a piece </s> in model.vocab, found none"));
    fs::remove_all(folder);
}

TEST_CASE("a tokenizer.json of T5's form, as SigLIP's repositories have it") {
    std::string name = (fs::temp_directory_path() / "tandem-t5-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const fs::path folder = name;
    const auto write = [&](const char* file, const std::string& text) {
        std::ofstream(folder / file, std::ios::binary) << text;
    };
    // As make_t5_goldens.py makes it.
    nlohmann::json json = nlohmann::json::parse(std::ifstream(fixtures / "xlm_roberta/tokenizer.json"));
    nlohmann::json pieces = nlohmann::json::array({{"<pad>", 0.0}, {"</s>", 0.0}, {"<unk>", 0.0}}),
                   added = nlohmann::json::array();
    for (const auto& piece : json["model"]["vocab"]) {
        const std::string text = piece[0];
        if (text != "<s>" && text != "<pad>" && text != "</s>" && text != "<unk>" && text != "<mask>")
            pieces.push_back(piece);
    }
    json["model"]["vocab"] = pieces;
    json["model"]["unk_id"] = 2;
    for (int id = 0; id < 3; ++id)
        added.push_back({{"id", id},
                         {"content", pieces[static_cast<std::size_t>(id)][0]},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false},
                         {"special", true}});
    json["added_tokens"] = added;
    json["pre_tokenizer"] = {
        {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}, {"split", true}};
    json["post_processor"]["single"] =
        nlohmann::json::parse(R"([{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}])");
    json["post_processor"]["special_tokens"]["</s>"]["ids"] = {1};
    write("tokenizer.json", json.dump());
    write("tokenizer_config.json", R"({"tokenizer_class": "T5Tokenizer", "pad_token": "</s>", "eos_token": "</s>"})");
    const auto transformers = tandem::open_tokenizer(folder);
    write("open_clip_config.json",
          R"({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize"}}}})");
    const auto open_clip = tandem::open_tokenizer(folder);
    const auto file_alone = tandem::open_tokenizer(folder / "tokenizer.json");
    std::ifstream goldens(fixtures / "t5/goldens.tsv");
    std::size_t rows = 0;
    for (std::string text, ours, theirs, whole;
         std::getline(goldens, text, '\t') && std::getline(goldens, ours, '\t') &&
         std::getline(goldens, theirs, '\t') && std::getline(goldens, whole);
         ++rows) {
        INFO(text);
        const std::string caption = nlohmann::json::parse(text);
        std::vector<Id> found(16);
        open_clip.encode(caption, found);
        CHECK(text_of(found) == ours + " ");
        transformers.encode(caption, found);
        CHECK(text_of(found) == theirs + " ");
        std::vector<Id> expected = parse_ids(whole);
        found.resize(expected.size());
        file_alone.encode(caption, found);
        CHECK(found == expected);
    }
    CHECK(rows > 200);
    write("open_clip_config.json", R"({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x"}}})");
    CHECK_THROWS_WITH(tandem::open_tokenizer(folder), Contains("tokenizer_kwargs.clean = canonicalize"));
    fs::remove(folder / "open_clip_config.json");
    json["normalizer"] = {{"type", "Lowercase"}};
    write("tokenizer.json", json.dump());
    CHECK_THROWS_WITH(tandem::open_tokenizer(folder),
                      Contains("expected normalizer.type = Precompiled, found Lowercase"));
    fs::remove_all(folder);
}

TEST_CASE("open_clip's strip_sep_token writes the end of a caption as 0") {
    std::string name = (fs::temp_directory_path() / "tandem-clipa-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const fs::path folder = name;
    std::ofstream(folder / "open_clip_config.json")
        << R"({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": true}}}})";
    const fs::path vocabulary = fixtures / "word_piece/vocab.txt";
    std::vector<Id> with(8), without(8);
    tandem::open_tokenizer(vocabulary, folder).encode("a cat", with);
    tandem::open_tokenizer(vocabulary).encode("a cat", without);
    const auto end = std::find(without.begin(), without.end(), 3);  // [SEP]
    REQUIRE(end != without.end());
    *end = 0;
    CHECK(with == without);
    std::ofstream(folder / "open_clip_config.json")
        << R"({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"language": "en"}}}})";
    CHECK_THROWS_WITH(tandem::open_tokenizer(vocabulary, folder),
                      Contains("model_cfg.text_cfg.tokenizer_kwargs.language = \"en\""));
    fs::remove_all(folder);
}
