#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <tandem/texts/bpe.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/mojibake.hpp>

#include "token_goldens.hpp"

namespace {

using tandem::Cleaning;
using tandem::detail::decode_utf8;
using tandem::detail::encode_utf8;
using token_goldens::unescaped;
namespace fs = std::filesystem;

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "texts/fixtures";

/// The rows of one kind; make_mojibake_goldens.py describes them.
const std::vector<std::vector<std::string>>& goldens(const std::string& kind) {
    static const auto rows = token_goldens::read(fixtures / "mojibake/goldens.tsv.gz");
    return rows.at(kind);
}

std::string ascii(const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', true);
}

std::string ftfy(std::string_view text) {
    return encode_utf8(tandem::detail::ftfy_fix_text(decode_utf8(text)));
}

std::string repeated(std::string_view text, std::size_t times) {
    std::string out;
    for (std::size_t i = 0; i < times; ++i) out += text;
    return out;
}

}  // namespace

TEST_CASE("mojibake: texts are mended as ftfy mends them, and cleaned as open_clip does") {
    const tandem::Bpe bpe = tandem::Bpe::load(fixtures / "bpe/bpe_simple_vocab_16e6.txt.gz");
    const auto& rows = goldens("f");
    REQUIRE(rows.size() > 7000);
    std::size_t wrong = 0;
    for (const auto& row : rows) {
        const std::string text = unescaped(row.at(1));
        const std::string fixed = row.at(2) == "=" ? text : unescaped(row.at(2));
        const std::string cleaned = row.at(3) == "=" ? fixed : unescaped(row.at(3));
        const bool right = ftfy(text) == fixed && tandem::clean_text(text, Cleaning::open_clip) == cleaned &&
                           bpe.encode(text) == token_goldens::parse_ids(row.at(4));
        if (right || ++wrong > 10) continue;
        UNSCOPED_INFO(ascii(text) << "\n  expected " << ascii(fixed) << "\n  found    " << ascii(ftfy(text)));
    }
    CHECK(wrong == 0);
}

TEST_CASE("mojibake: what looks mis-decoded is what ftfy takes for it") {
    const auto& rows = goldens("b");
    REQUIRE(rows.size() > 2500);
    for (const auto& row : rows) {
        INFO(ascii(unescaped(row.at(1))));
        CHECK(tandem::detail::is_bad(decode_utf8(unescaped(row.at(1)))) == (row.at(2) == "1"));
    }
}

TEST_CASE("mojibake: a caption of CLIP's training set") {
    const auto clean = [](std::string_view text) { return tandem::clean_text(text, Cleaning::open_clip); };
    CHECK(clean("The cafÃ© doesnâ€™t open") == "the café doesn't open");
    CHECK(clean("Joyeux NoÃ«l,  humanitÃ©") == "joyeux noël, humanité");
    CHECK(clean("â€œquotedâ€\xC2\x9D") == "\"quoted\"");
    // transformers' tokenizer does without ftfy.
    CHECK(tandem::clean_text("cafÃ©", Cleaning::transformers) == "cafã©");
}

TEST_CASE("mojibake: a million characters are mended at once, those after them for themselves") {
    const std::string plain(999'998, 'a');
    CHECK(ftfy(plain + "Ã©") == plain + "é");
    CHECK(ftfy(plain + "aÃ©") == plain + "aÃ©");
}

TEST_CASE("mojibake: of a text that needs many looks as many as ftfy takes, up to a bound") {
    // Each look takes one "Â" away.
    CHECK(ftfy(repeated("Â", 300) + "\u00A0x") == "\u00A0x");
    const std::string stays = ftfy(repeated("Â", 20'000) + "\u00A0x");
    CHECK(stays.size() > 20'000);
    CHECK(stays.size() < 40'000);
}
