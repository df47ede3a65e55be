// SentencePiece vocabularies against transformers' SiglipTokenizer and open_clip's cleaning.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/texts/sentence_piece.hpp>

#include "token_goldens.hpp"

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using tandem::Cleaning;
using tandem::Id;
using tandem::SentencePiece;

namespace {

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "texts" / "fixtures" / "sentence_piece";

const std::vector<std::vector<std::string>>& goldens(const std::string& kind) {
    static const auto rows = token_goldens::read(fixtures / "goldens.tsv.gz");
    return rows.at(kind);
}

}  // namespace

TEST_CASE("ids are transformers' and open_clip's on ten thousand texts") {
    token_goldens::compare_texts(SentencePiece::load(fixtures), goldens("e"), 2);
    token_goldens::compare_texts(SentencePiece::load(fixtures / "spiece.model", Cleaning::open_clip), goldens("e"), 3);
}

TEST_CASE("rows are cut and padded with the end of text") {
    const SentencePiece tokenizer = SentencePiece::load(fixtures);
    token_goldens::compare_contexts(tokenizer, goldens("c"));
    token_goldens::check_batch(tokenizer);
    CHECK_THROWS_WITH(tokenizer.encode("a", std::span<Id>{}),
                      "SentencePiece::encode: expected a context of at least 1 token, found 0");
}

TEST_CASE("a folder says how its texts are cleaned, and what is no vocabulary is refused") {
    std::string name = (fs::temp_directory_path() / "tandem-sentence-piece-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const fs::path folder = name;
    CHECK_THROWS_WITH(SentencePiece::load(folder),
                      Contains("spiece.model: expected a model of SentencePiece, found no file"));
    fs::copy_file(fixtures / "spiece.model", folder / "spiece.model");
    CHECK(SentencePiece::load(folder).vocabulary() == 1200);
    const std::string text = "a_cat";  // one word to transformers, two to open_clip
    CHECK(SentencePiece::load(folder).encode(text) ==
          SentencePiece::load(fixtures, Cleaning::transformers).encode(text));
    std::ofstream(folder / "open_clip_config.json") << "{}";
    CHECK(SentencePiece::load(folder).encode(text) == SentencePiece::load(fixtures, Cleaning::open_clip).encode(text));
    CHECK(SentencePiece::load(folder).encode(text) != SentencePiece::load(fixtures).encode(text));

    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{1000}}) {
        std::ofstream(folder / "cut.model") << std::string(size, '\x12');
        CHECK_THROWS_WITH(SentencePiece::load(folder / "cut.model"),
                          Contains("cut.model: expected a model of SentencePiece"));
    }
    fs::remove_all(folder);
}

TEST_CASE("a damaged vocabulary is refused, or encodes without harm") {
    std::ifstream stream(fixtures / "spiece.model", std::ios::binary);
    const std::string model{std::istreambuf_iterator<char>(stream), {}};
    REQUIRE(model.size() > 100'000);
    std::size_t refused = 0;
    const auto attempt = [&](const std::string& damaged) {
        try {
            const std::vector<Id> ids = tandem::detail::UnigramModel(damaged).encode("a photo of ﬁve cats… 猫");
            for (const Id id : ids) CHECK(id >= 0);
        } catch (const tandem::Error&) {
            ++refused;
        }
    };
    for (std::size_t size = 0; size < model.size(); size += 4999) attempt(model.substr(0, size));
    CHECK(refused > 10);
    tandem::Random random{tandem::Seed{1}};
    for (int i = 0; i < 60; ++i) {
        std::string damaged = model;
        for (int k = 0; k < 20; ++k) damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
        attempt(damaged);
    }
}
