#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <zlib.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/texts/bpe.hpp>
#include <tandem/texts/bpe_trainer.hpp>

#include "token_goldens.hpp"

namespace {

using tandem::Bpe;
using tandem::Cleaning;
using tandem::Id;
using token_goldens::parse_ids;
using token_goldens::unescaped;
namespace fs = std::filesystem;

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "texts/fixtures/bpe";
const fs::path vocabulary_file = fixtures / "bpe_simple_vocab_16e6.txt.gz";

/// A folder that goes at the end of the test.
class Scratch {
public:
    Scratch() {
        std::string name = (fs::temp_directory_path() / "tandem-bpe-XXXXXX").string();
        if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
        path_ = name;
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    fs::path operator/(const char* name) const { return path_ / name; }

private:
    fs::path path_;
};

std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void put(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

const Bpe& open_clip_bpe() {
    static const Bpe bpe = Bpe::load(vocabulary_file);
    return bpe;
}

/// The same vocabulary from vocab.json and merges.txt, as transformers ships them (no mark of another cleaning).
const Bpe& transformers_bpe() {
    static const Bpe bpe = [] {
        const Scratch folder;
        open_clip_bpe().save(folder / "saved");
        return Bpe::load(folder / "saved", Cleaning::transformers);
    }();
    return bpe;
}

/// The rows of one kind in goldens.tsv.gz; make_bpe_goldens.py describes them.
const std::vector<std::vector<std::string>>& goldens(const std::string& kind) {
    static const auto rows = token_goldens::read(fixtures / "goldens.tsv.gz");
    return rows.at(kind);
}

/// Checks every row in both modes; names the first texts that differ.
template <class Encode>
void compare(const std::vector<std::vector<std::string>>& rows, std::size_t text_field, const Encode& encode) {
    for (const Cleaning cleaning : {Cleaning::open_clip, Cleaning::transformers}) {
        const bool first = cleaning == Cleaning::open_clip;
        std::size_t wrong = 0;
        for (const auto& row : rows) {
            const std::string& own = row.at(text_field + (first ? 1 : 2));
            const std::vector<Id> expected = parse_ids(own == "=" ? row.at(text_field + 1) : own);
            const std::vector<Id> found = encode(row, first ? open_clip_bpe() : transformers_bpe());
            if (expected == found || ++wrong > 10) continue;
            UNSCOPED_INFO(
                (first ? "open_clip: " : "transformers: ")
                << nlohmann::json(row.at(text_field)).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
            UNSCOPED_INFO("  expected " << open_clip_bpe().decode(expected));
            UNSCOPED_INFO("  found    " << open_clip_bpe().decode(found));
        }
        CHECK(wrong == 0);
    }
}

/// The UTF-8 of "a?! a?! ..." over the 256 code points of a block.
std::string block_text(char32_t block) {
    std::string text;
    for (char32_t c = block * 256; c < block * 256 + 256; ++c) {
        text += text.empty() ? "a" : " a";
        tandem::detail::append_utf8(c, text);
        text += '!';
    }
    return text;
}

std::string crc(const std::vector<Id>& ids) {
    std::ostringstream out;
    out << std::hex << std::setw(8) << std::setfill('0')
        << crc32(0, reinterpret_cast<const Bytef*>(ids.data()), static_cast<uInt>(ids.size() * sizeof(Id)));
    return out.str();
}

std::string error_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const tandem::Error& error) {
        return error.what();
    }
    return "no error";
}

using Catch::Contains;

}  // namespace

TEST_CASE("bpe: ids are those of open_clip and transformers") {
    const auto& rows = goldens("e");
    REQUIRE(rows.size() >= 10'000);
    compare(rows, 1, [](const auto& row, const Bpe& bpe) { return bpe.encode(unescaped(row[1])); });
}

TEST_CASE("bpe: every code point is cleaned and classed as in the originals") {
    const auto& rows = goldens("b");
    REQUIRE(rows.size() > 1000);
    for (const auto& row : rows) {
        const std::string text = block_text(static_cast<char32_t>(std::stoul(row[1])));
        INFO("block " << row[1]);
        CHECK(crc(open_clip_bpe().encode(text)) == row[2]);
        CHECK(crc(transformers_bpe().encode(text)) == row[3]);
    }
}

TEST_CASE("bpe: a context is padded with zeros and cut as in the originals") {
    compare(goldens("c"), 2, [](const auto& row, const Bpe& bpe) {
        std::vector<Id> out(std::stoul(row[1]), -1);
        bpe.encode(unescaped(row[2]), out);
        return out;
    });
    // One token is what open_clip leaves of any text: [SOT, ...][:1] with the last forced to EOT.
    std::vector<Id> one(1);
    open_clip_bpe().encode("a cat", one);
    CHECK(one.front() == open_clip_bpe().end());
    CHECK_THAT(error_of([] { open_clip_bpe().encode("a cat", std::span<Id>()); }),
               Contains("at least 1 token, found 0"));
}

TEST_CASE("bpe: decoding gives the originals' texts") {
    for (const auto& row : goldens("d")) {
        const std::vector<Id> ids = parse_ids(row[1]);
        CHECK(open_clip_bpe().decode(ids) == unescaped(row[2]));
        CHECK(transformers_bpe().decode(ids) == unescaped(row[3]));
    }
    CHECK_THAT(error_of([] { open_clip_bpe().decode(std::vector<Id>{49408}); }), Contains("0 to 49407, found 49408"));
    CHECK_THAT(error_of([] { open_clip_bpe().decode(std::vector<Id>{-1}); }), Contains("found -1"));
}

TEST_CASE("bpe: CLIP's vocabulary") {
    CHECK(open_clip_bpe().vocabulary() == 49408);
    CHECK(open_clip_bpe().start() == 49406);
    CHECK(open_clip_bpe().end() == 49407);
    CHECK(open_clip_bpe().cleaning() == Cleaning::open_clip);
    CHECK(open_clip_bpe().encode("a photo of a cat") == std::vector<Id>{320, 1125, 539, 320, 2368});
    CHECK(open_clip_bpe().encode("").empty());
}

TEST_CASE("bpe: a batch is the rows one by one, from any thread") {
    std::vector<std::string> texts;
    for (const auto& row : goldens("e")) texts.push_back(unescaped(row[1]));
    texts.resize(3000);
    constexpr std::size_t context = 32;
    std::vector<Id> expected(texts.size() * context);
    for (std::size_t i = 0; i < texts.size(); ++i)
        open_clip_bpe().encode(texts[i], std::span(expected).subspan(i * context, context));
    std::vector<std::vector<Id>> found(3);
    std::vector<std::thread> threads;
    for (auto& ids : found) threads.emplace_back([&] { ids = open_clip_bpe().encode_batch(texts, context); });
    for (auto& thread : threads) thread.join();
    for (const auto& ids : found) CHECK(ids == expected);
    CHECK(open_clip_bpe().encode_batch({}, context).empty());
}

TEST_CASE("bpe: words of any length merge alike and in good time") {
    // 64 bytes is where the scan gives way to the queue; rank order decides both.
    const std::string letters = "supercalifragilisticexpialidocious";
    for (std::size_t length = 60; length < 70; ++length) {
        std::string word;
        while (word.size() < length) word += letters[word.size() % letters.size()];
        const std::vector<Id> ids = open_clip_bpe().encode(word);
        CHECK(open_clip_bpe().decode(ids) == word + ' ');
    }
    CHECK(open_clip_bpe().encode(std::string(1 << 20, 'a')).size() > 1000);
    std::string nested = "&";
    for (int i = 0; i < 100'000; ++i) nested += "amp;";
    CHECK(open_clip_bpe().encode(nested).size() > 1000);
    std::string marks = "a";
    for (int i = 0; i < 100'000; ++i) marks += i % 2 ? "\u0301" : "\u0323";
    CHECK(transformers_bpe().encode(marks).size() > 1000);
}

TEST_CASE("bpe: a saved vocabulary loads as it was") {
    const Scratch folder;
    for (const Cleaning cleaning : {Cleaning::open_clip, Cleaning::transformers}) {
        const Bpe bpe = Bpe::load(vocabulary_file, cleaning);
        bpe.save(folder / "saved");
        const Bpe again = Bpe::load(folder / "saved");
        CHECK(again.cleaning() == cleaning);
        CHECK(again.vocabulary() == bpe.vocabulary());
        CHECK(again.start() == bpe.start());
        CHECK(again.end() == bpe.end());
        const std::string text = "It’s “fine” <start_of_text> x <|endoftext|> &amp; ΑΣ 12";
        CHECK(again.encode(text) == bpe.encode(text));
        CHECK(again.decode(bpe.encode(text)) == bpe.decode(bpe.encode(text)));
    }
    const nlohmann::json saved = nlohmann::json::parse(contents(folder / "saved/vocab.json"));
    CHECK(saved.size() == 49408);
    CHECK(saved.at("cat</w>") == 2368);
    CHECK(saved.at("<|startoftext|>") == 49406);
    CHECK(saved.at("Ġ") == 220);

    // Other writers escape what is not ASCII, order the tokens otherwise, and end lines otherwise.
    put(folder / "saved/vocab.json", saved.dump(2, ' ', true));
    std::string merges = contents(folder / "saved/merges.txt");
    for (std::size_t at = merges.find('\n'); at != std::string::npos; at = merges.find('\n', at + 2))
        merges.insert(at, "\r");
    put(folder / "saved/merges.txt", merges);
    CHECK(Bpe::load(folder / "saved").encode("Ein schöner Tag") == transformers_bpe().encode("Ein schöner Tag"));
}

TEST_CASE("bpe: a tokenizer.json is the vocabulary and merges in one file") {
    const Scratch folder;
    Bpe::load(vocabulary_file).save(folder / "saved");
    nlohmann::json json{{"added_tokens", {{{"id", 49407}, {"content", "<|endoftext|>"}}}},
                        {"model", {{"type", "BPE"}, {"end_of_word_suffix", "</w>"}}}};
    // As transformers 5 saves it.
    json.update(nlohmann::json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Removed", "invert": true,
            "pattern": {"Regex": "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 49407], "cls": ["<|startoftext|>", 49406],
            "trim_offsets": false, "add_prefix_space": false}})"));
    json["model"]["vocab"] = nlohmann::json::parse(contents(folder / "saved/vocab.json"));
    json["model"]["vocab"].erase("<|endoftext|>");  // stands among the added ones
    std::istringstream merges(contents(folder / "saved/merges.txt"));
    std::string line, left, right;
    std::getline(merges, line);
    while (merges >> left >> right) json["model"]["merges"].push_back({left, right});
    fs::create_directories(folder / "json");
    put(folder / "json/tokenizer.json", json.dump());
    for (const fs::path& path : {folder / "json", folder / "json/tokenizer.json"}) {
        const Bpe bpe = Bpe::load(path);
        CHECK(bpe.cleaning() == Cleaning::transformers);
        CHECK(bpe.vocabulary() == 49408);
        CHECK(bpe.end() == 49407);
        for (const char* text : {"It’s “fine” &amp; ΑΣ 12", "Ein schöner Tag <|endoftext|>", "\u5bff\u53f8 caf\u00e9"})
            CHECK(bpe.encode(text) == transformers_bpe().encode(text));
    }
    const auto error = [&] {
        put(folder / "json/tokenizer.json", json.dump());
        return error_of([&] { Bpe::load(folder / "json"); });
    };
    // Ids of transformers 5.23, CLIPTokenizer.add_tokens of these.
    const auto added = [](const char* content, int id, bool single_word, bool strips, bool normalized) {
        return nlohmann::json{{"id", id},         {"content", content}, {"single_word", single_word},
                              {"lstrip", strips}, {"rstrip", strips},   {"normalized", normalized},
                              {"special", false}};
    };
    const nlohmann::json plain = json["added_tokens"];
    json["added_tokens"].push_back(added("<my-cat>", 49408, false, false, true));
    json["added_tokens"].push_back(added("Foo", 49409, false, false, false));
    json["added_tokens"].push_back(added("bar", 1040, true, false, true));
    json["added_tokens"].push_back(added("\u00c4b", 49410, false, true, true));
    json["added_tokens"].push_back(added("[SPX]", 49411, false, false, false));
    put(folder / "json/tokenizer.json", json.dump());
    const Bpe added_to = Bpe::load(folder / "json");
    const auto ids = [&](const char* text) { return added_to.encode(text); };
    CHECK(ids("a photo of <my-cat>") == std::vector<Id>{320, 1125, 539, 49408});
    CHECK(ids("a photo of <MY-CAT> and<my-cat>s") == std::vector<Id>{320, 1125, 539, 49408, 537, 49408, 338});
    CHECK(ids("Foo foo FOO") == std::vector<Id>{49409, 23435, 23435});
    CHECK(ids("bar bars abar bar. (bar)") == std::vector<Id>{1040, 8616, 39805, 1040, 269, 263, 1040, 264});
    CHECK(ids("x  \u00e4b  y \u00c4b z") == std::vector<Id>{343, 49410, 344, 49410, 345});
    CHECK(ids("a [SPX] b [spx]") == std::vector<Id>{320, 49411, 321, 314, 20584, 316});
    CHECK(ids("<|endoftext|> bar") == std::vector<Id>{49407, 1040});
    json["added_tokens"] = plain;
    // Padding is transformers' own, unless the folder names another: Stable Diffusion 2's is "!".
    std::vector<Id> row(5);
    put(folder / "json/tokenizer.json", json.dump());
    Bpe::load(folder / "json").encode("cat", row);
    CHECK(row == std::vector<Id>{49406, 2368, 49407, 49407, 49407});
    put(folder / "json/tokenizer_config.json",
        R"({"tokenizer_class": "CLIPTokenizer", "pad_token": "!", "do_lower_case": true})");
    Bpe::load(folder / "json").encode("cat", row);
    CHECK(row == std::vector<Id>{49406, 2368, 49407, 0, 0});
    CHECK(Bpe::load(folder / "json").encode("hi! there!!") ==
          std::vector<Id>{1883, 0, 997, 0, 0});  // as transformers has it
    put(folder / "json/tokenizer_config.json", R"({"unk_token": "a"})");
    CHECK_THAT(error(), Contains("expected unk_token = <|endoftext|>, found a"));
    put(folder / "json/tokenizer_config.json", R"({"extra_special_tokens": ["<x>"]})");
    CHECK_THAT(error(), Contains("expected additional_special_tokens (extra_special_tokens) that have ids"));
    put(folder / "json/tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
    CHECK_THAT(error(), Contains("tokenizer_config.json: expected tokenizer_class = CLIPTokenizer"));
    put(folder / "json/tokenizer_config.json", R"({"split_special_tokens": true})");
    CHECK_THAT(error(), Contains("expected split_special_tokens = false, found true"));
    put(folder / "json/tokenizer_config.json", R"({"no_such_key": 3})");
    CHECK_THAT(error(), Contains("the file asks for what has no counterpart here:\n  no_such_key = 3"));
    fs::remove(folder / "json/tokenizer_config.json");
    json["normalizer"]["normalizers"][2]["type"] = "Strip";
    CHECK_THAT(error(), Contains("tokenizer.json: expected normalizer.normalizers.2.type = Lowercase, found Strip"));
    json["normalizer"]["normalizers"][2]["type"] = "Lowercase";
    json["something"] = 1;
    CHECK_THAT(error(), Contains("tokenizer.json: the file asks for what has no counterpart here:\n  something = 1"));
    json.erase("something");
    json["model"]["merges"].push_back({left, right});
    CHECK_THAT(error(), Contains("tokenizer.json: the same merge stands earlier"));
    json["model"]["merges"].back() = {"qq", "zzz"};
    CHECK_THAT(error(), Contains("tokenizer.json: the two symbols or what they make are not in the vocabulary"));
    json["model"]["merges"].back() = {"\u4e00", "a"};
    CHECK_THAT(error(), Contains("tokenizer.json: a merge holds a character that stands for no byte"));
    json["model"].erase("end_of_word_suffix");
    CHECK_THAT(
        error(),
        Contains("tokenizer.json: expected a BPE with merges and model.end_of_word_suffix = </w>, found nothing"));
}

TEST_CASE("bpe: a damaged vocabulary is refused by name and line") {
    const Scratch folder;
    const auto load = [&](const char* name) { return error_of([&] { Bpe::load(folder / name); }); };
    CHECK_THAT(load("none"), Contains("none: expected a vocabulary file, or a folder") && Contains("nothing there"));

    const std::string gz = contents(vocabulary_file);
    put(folder / "cut.txt.gz", gz.substr(0, gz.size() / 2));
    CHECK_THAT(load("cut.txt.gz"), Contains("cut.txt.gz: damaged gzip data"));
    std::string flipped = gz;
    for (std::size_t i = 5000; i < 5100; ++i) flipped[i] = static_cast<char>(~flipped[i]);
    put(folder / "flipped.txt.gz", flipped);
    CHECK_THAT(load("flipped.txt.gz"), Contains("flipped.txt.gz"));
    put(folder / "empty.txt", "");
    CHECK_THAT(load("empty.txt"), Contains("no merge"));

    put(folder / "small.txt", "#version\ni n\nin g</w>\n");
    CHECK(Bpe::load(folder / "small.txt").vocabulary() == 516);
    CHECK(Bpe::load(folder / "small.txt").encode("xing") == std::vector<Id>{87, 513});
    put(folder / "three.txt", "#version\ni n\nin g</w> x\n");
    CHECK_THAT(load("three.txt"), Contains("three.txt line 3: expected two symbols"));
    put(folder / "order.txt", "#version\nin g</w>\ni n\n");
    CHECK_THAT(load("order.txt"), Contains("order.txt line 2: it joins a token that no earlier line makes"));
    put(folder / "twice.txt", "#version\ni n\ni n\n");
    CHECK_THAT(load("twice.txt"), Contains("twice.txt line 3: it makes a token that is already there"));
    put(folder / "alien.txt", "#version\ni \u4e00\n");
    CHECK_THAT(load("alien.txt"), Contains("alien.txt line 2: a symbol holds a character that stands for no byte"));

    Bpe::load(folder / "small.txt").save(folder / "good");
    CHECK(Bpe::load(folder / "good").vocabulary() == 516);
    const nlohmann::json good = nlohmann::json::parse(contents(folder / "good/vocab.json"));
    const std::string merges = contents(folder / "good/merges.txt");
    const auto with = [&](const std::string& vocabulary, const std::string& lines) {
        fs::create_directories(folder / "bad");
        put(folder / "bad/vocab.json", vocabulary);
        put(folder / "bad/merges.txt", lines);
        return load("bad");
    };
    const auto changed = [&](const char* name, const nlohmann::json& id) {
        nlohmann::json json = good;
        json[name] = id;
        return with(json.dump(), merges);
    };
    CHECK(with(good.dump(), merges) == "no error");
    CHECK_THAT(with("[1, 2", merges), Contains("vocab.json: expected a JSON object"));
    CHECK_THAT(with("", merges), Contains("vocab.json: expected a JSON object"));
    CHECK_THAT(changed("in", 600), Contains("ids from 0 to 515") && Contains("\"in\": 600"));
    CHECK_THAT(changed("in", -1), Contains("\"in\": -1"));
    CHECK_THAT(changed("in", "x"), Contains("\"in\": \"x\""));
    CHECK_THAT(changed("in", 3), Contains("expected each id once"));
    CHECK_THAT(changed("\u4e00", 516), Contains("stands for no byte"));
    const auto renamed = [&](const char* from, const char* to) {
        nlohmann::json json = good;
        json[to] = json[from];
        json.erase(from);
        return with(json.dump(), merges);
    };
    CHECK_THAT(renamed("<|endoftext|>", "zzz"), Contains("lacks <|startoftext|> or <|endoftext|>"));
    CHECK_THAT(renamed("q</w>", "zzz"), Contains("lacks \"q\" or \"q</w>\""));
    CHECK_THAT(renamed("in", "zzz"), Contains("merges.txt line 2: the two symbols or what they make are not"));
    CHECK(renamed("<|endoftext|>", "<end_of_text>") == "no error");
    CHECK_THAT(with(good.dump(), merges + "i n\n"), Contains("merges.txt line 4: the same merge"));
    CHECK_THAT(with(good.dump(), merges + "i\n"), Contains("merges.txt line 4: expected two symbols"));
    fs::remove(folder / "bad/vocab.json");
    CHECK_THAT(load("bad"), Contains("vocab.json: cannot open"));

    const std::vector<Bpe::Merge> early{{513, 3}};
    CHECK_THAT(error_of([&] { Bpe(early, Cleaning::open_clip); }), Contains("merge 0: it joins a token"));
    const std::vector<Bpe::Merge> double_merge{{3, 4}, {3, 4}};
    CHECK_THAT(error_of([&] { Bpe(double_merge, Cleaning::open_clip); }), Contains("merge 1: it makes a token"));
}

namespace {

/// BPE training written down as the paper has it, all counts anew for each merge.
std::vector<std::pair<std::string, std::string>> reference_merges(std::map<std::vector<std::string>, int> words,
                                                                  std::size_t count) {
    std::vector<std::pair<std::string, std::string>> merges;
    // Symbols compare by id: bytes as GPT-2 orders them do so by value here, longer tokens by age.
    std::map<std::string, std::size_t> age;
    const auto rank = [&](const std::string& symbol) {
        const auto found = age.find(symbol);
        const bool last = symbol.ends_with("</w>");
        return found != age.end() ? 1000 + found->second : (last ? 256U : 0U) + static_cast<unsigned char>(symbol[0]);
    };
    while (merges.size() < count) {
        std::map<std::pair<std::string, std::string>, int> pairs;
        for (const auto& [word, times] : words)
            for (std::size_t i = 0; i + 1 < word.size(); ++i) pairs[{word[i], word[i + 1]}] += times;
        if (pairs.empty()) break;
        const auto best = std::max_element(pairs.begin(), pairs.end(), [&](const auto& a, const auto& b) {
            if (a.second != b.second) return a.second < b.second;
            return std::pair(rank(a.first.first), rank(a.first.second)) >
                   std::pair(rank(b.first.first), rank(b.first.second));
        });
        const auto pair = best->first;
        age.emplace(pair.first + pair.second, merges.size());
        merges.push_back(pair);
        std::map<std::vector<std::string>, int> merged;
        for (const auto& [word, times] : words) {
            std::vector<std::string> next;
            for (std::size_t i = 0; i < word.size(); ++i) {
                const bool here = i + 1 < word.size() && word[i] == pair.first && word[i + 1] == pair.second;
                next.push_back(here ? word[i] + word[i + 1] : word[i]);
                i += here ? 1 : 0;
            }
            merged[next] += times;
        }
        words = std::move(merged);
    }
    return merges;
}

/// Captions of random words over few letters, so that counts tie and pairs overlap.
std::vector<std::string> random_captions(std::size_t count, std::uint64_t seed, std::size_t letters,
                                         std::size_t longest = 7) {
    tandem::Random random{tandem::Seed{seed}};
    std::vector<std::string> captions(count);
    for (std::string& caption : captions) {
        for (std::size_t word = 0; word < 5; ++word) {
            if (word) caption += ' ';
            for (std::size_t n = 1 + random.below(longest); n > 0; --n)
                caption += static_cast<char>('a' + random.below(1 + random.below(letters)));
        }
    }
    return captions;
}

}  // namespace

TEST_CASE("bpe trainer: merges are those of the plain algorithm") {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
        // The third has long words of two letters, where pairs overlap.
        const std::vector<std::string> captions = random_captions(80, seed, seed == 3 ? 2 : 6, seed == 3 ? 20 : 7);
        std::map<std::vector<std::string>, int> words;
        for (const std::string& caption : captions) {
            std::istringstream stream(caption);
            for (std::string word; stream >> word;) {
                std::vector<std::string> symbols;
                for (const char c : word) symbols.emplace_back(1, c);
                symbols.back() += "</w>";
                ++words[symbols];
            }
        }
        const auto expected = reference_merges(words, 150);
        REQUIRE(expected.size() > 50);
        const Scratch folder;
        tandem::train_bpe(captions, 514 + 150).save(folder / "saved");
        std::istringstream saved(contents(folder / "saved/merges.txt"));
        std::string line;
        std::getline(saved, line);
        std::size_t at = 0;
        for (; std::getline(saved, line); ++at) {
            REQUIRE(at < expected.size());
            CHECK(line == expected[at].first + ' ' + expected[at].second);
        }
        CHECK(at == expected.size());
    }
}

TEST_CASE("bpe trainer: size, special tokens, and the same result each time") {
    std::vector<std::string> captions = random_captions(400, 7, 20);
    captions.push_back("Ein Kätzchen, «müde» &amp; <start_of_text> 12 \xF0\x9F\x98\xBA\xFF");
    const Bpe bpe = tandem::train_bpe(captions, 900);
    CHECK(bpe.vocabulary() == 900);
    CHECK(bpe.start() == 898);
    CHECK(bpe.end() == 899);
    CHECK(bpe.cleaning() == Cleaning::open_clip);
    for (const std::string& caption : captions) {
        for (const Id id : bpe.encode(caption)) CHECK((id >= 0 && id < bpe.end()));
    }
    CHECK(bpe.encode("x").size() == 1);
    CHECK(bpe.encode("<start_of_text>") == std::vector<Id>{898});

    std::reverse(captions.begin(), captions.end());
    const Scratch folder;
    bpe.save(folder / "one");
    tandem::train_bpe(captions, 900).save(folder / "two");
    CHECK(contents(folder / "one/merges.txt") == contents(folder / "two/merges.txt"));
    CHECK(contents(folder / "one/vocab.json") == contents(folder / "two/vocab.json"));
    const Bpe again = Bpe::load(folder / "one");
    for (const std::string& caption : captions) CHECK(again.encode(caption) == bpe.encode(caption));
}

TEST_CASE("bpe trainer: the edges of the vocabulary's size") {
    const std::vector<std::string> captions{"ab ab ab", "abc"};
    CHECK_THAT(error_of([&] { tandem::train_bpe(captions, 513); }), Contains("at least 514") && Contains("found 513"));
    CHECK(tandem::train_bpe(captions, 514).vocabulary() == 514);
    CHECK(tandem::train_bpe({}, 1000).vocabulary() == 514);
    // "ab</w>", "ab", "abc</w>": then each word is one token.
    const Bpe bpe = tandem::train_bpe(captions, 1000);
    CHECK(bpe.vocabulary() == 517);
    CHECK(bpe.encode("abc").size() == 1);
    CHECK(bpe.end() == 516);
    CHECK(tandem::train_bpe(captions, 1000, Cleaning::transformers).encode("<|startoftext|>") == std::vector<Id>{515});
}
