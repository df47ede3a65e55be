// Captions files and pair sets: what is skipped and why, what is drawn, what strict refuses.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include <tandem/data/pairs.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/texts/bpe_trainer.hpp>

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

/// Four good images of flat colours, one damaged, one too large, one missing, and captions for all of them.
class DataFolder {
public:
    DataFolder() {
        std::string name = (fs::temp_directory_path() / "tandem-pairs-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
        fs::create_directories(path_ / "sub");
        for (int i = 0; i < 4; ++i)
            write("sub/" + std::to_string(i) + ".png", picture(20 + i, 12, static_cast<std::uint8_t>(50 * i)));
        write("large.png", picture(80, 80, 9));
        auto damaged = td::encode_png(picture(20, 20, 7));
        damaged.resize(damaged.size() / 2);
        write("damaged.png", damaged);
        std::ofstream(path_ / "captions.tsv", std::ios::binary)
            << "sub/0.png\tzero\r\nsub/1.png\tone\nsub/0.png\tnull\nno tab here\n\nsub/2.png\t \t\nsub/2.png\ttwo\n"
               "damaged.png\tbroken\nlarge.png\tbig\ngone.png\tnowhere\n\tno path\nsub/3.png\tthree\twith a tab";
    }
    ~DataFolder() { fs::remove_all(path_); }
    DataFolder(const DataFolder&) = delete;
    DataFolder& operator=(const DataFolder&) = delete;

    static td::Image picture(int width, int height, std::uint8_t level) {
        const std::size_t size = static_cast<std::size_t>(3 * width * height);
        return {width, height, std::vector<std::uint8_t>(size, level)};
    }
    template <class What>
    void write(const std::string& name, const What& what) const {
        if constexpr (std::is_same_v<What, td::Image>) {
            write(name, td::encode_png(what));
        } else {
            std::ofstream(path_ / name, std::ios::binary)
                .write(reinterpret_cast<const char*>(what.data()), static_cast<std::streamsize>(what.size()));
        }
    }
    const fs::path& path() const { return path_; }
    fs::path captions() const { return path_ / "captions.tsv"; }

private:
    fs::path path_;
};

const td::Bpe& tokenizer() {
    static const std::vector<std::string> texts{"zero one two three null"};
    static const td::Bpe bpe = td::train_bpe(texts, 520);
    return bpe;
}

td::PairOptions options() {
    td::PairOptions made{.preprocess = td::openai_preprocess(8)};
    made.decode.pixel_limit = 1000;
    return made;
}

}  // namespace

TEST_CASE("captions are grouped by image in the order of first lines; faulty lines are counted") {
    const DataFolder folder;
    td::SkipCounts skipped;
    const auto images = td::read_captions(folder.captions(), skipped);
    REQUIRE(images.size() == 7);
    CHECK(images[0].path == "sub/0.png");
    CHECK(images[0].captions == std::vector<std::string>{"zero", "null"});
    CHECK(images.back().captions == std::vector<std::string>{"three\twith a tab"});
    CHECK(skipped == td::SkipCounts{{"empty caption", 1}, {"malformed line: expected path, tab, caption", 2}});
    CHECK_THROWS_WITH(td::read_captions(folder.captions(), skipped, true),
                      Contains("captions.tsv line 4: malformed line: expected path, tab, caption"));
    CHECK_THROWS_WITH(td::read_captions(folder.path() / "none.tsv", skipped), Contains("none.tsv: cannot be read"));
}

TEST_CASE("images that cannot be read are skipped by cause, and strict names the first") {
    const DataFolder folder;
    const td::Pairs pairs = td::Pairs::load(folder.path(), folder.captions(), tokenizer(), 8, options());
    REQUIRE(pairs.size() == 4);
    CHECK(pairs.path(2) == "sub/2.png");
    CHECK(pairs.skipped() == td::SkipCounts{{"damaged image", 1},
                                            {"empty caption", 1},
                                            {"malformed line: expected path, tab, caption", 2},
                                            {"missing image", 1},
                                            {"oversized image", 1}});
    std::ofstream(folder.captions()) << "sub/0.png\tzero\ndamaged.png\tbroken\ngone.png\tnowhere\n";
    td::PairOptions strict = options();
    strict.strict = true;
    CHECK_THROWS_WITH(td::Pairs::load(folder.path(), folder.captions(), tokenizer(), 8, strict),
                      Contains("damaged.png"));
}

TEST_CASE("one caption of several is drawn, and the same random state gives the same pair") {
    const DataFolder folder;
    td::PairOptions augmented = options();
    augmented.crop = td::RandomResizedCrop{};
    augmented.flip = 0.5;
    const td::Pairs pairs = td::Pairs::load(folder.path(), folder.captions(), tokenizer(), 8, augmented);
    std::vector<float> image(3 * 8 * 8), again(3 * 8 * 8);
    std::vector<td::Id> ids(8), same(8), zero(8), null(8);
    tokenizer().encode("zero", zero);
    tokenizer().encode("null", null);
    std::set<std::vector<td::Id>> drawn;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        td::Random a{td::Seed{seed}}, b{td::Seed{seed}};
        pairs.fetch(0, a, image, ids);
        pairs.fetch(0, b, again, same);
        CHECK(image == again);
        CHECK(ids == same);
        drawn.insert(ids);
    }
    CHECK(drawn == std::set<std::vector<td::Id>>{zero, null});
}

TEST_CASE("images that do not fit in memory are read again, with the same pixels") {
    const DataFolder folder;
    td::PairOptions small = options();
    small.stored = 10;
    const td::Pairs kept = td::Pairs::load(folder.path(), folder.captions(), tokenizer(), 8, small);
    small.memory = 650;  // two squares of 10
    const td::Pairs reread = td::Pairs::load(folder.path(), folder.captions(), tokenizer(), 8, small);
    REQUIRE(reread.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(kept.image(i) == reread.image(i));
        CHECK(kept.image(i).width == 10);
        std::vector<float> pixels(3 * 8 * 8);
        reread.fetch_image(i, pixels);
        const float expected = (static_cast<float>(50 * i) / 255.0F - 0.48145466F) / 0.26862954F;
        CHECK(pixels[0] == Approx(expected));
    }
}

TEST_CASE("pictures that are not RGB are resized as the recipe says, in training and in evaluation") {
    const fs::path folder = fs::path(TANDEM_TEST_DATA) / "images/fixtures/image";
    const std::vector<td::CaptionedImage> images{{"transparent_white.png", {"zero"}}};
    const td::Image whole = td::read_image(folder / images[0].path);
    REQUIRE(whole.storage == td::Storage::alpha);
    std::vector<std::vector<float>> seen;
    for (const td::ResizeAs resize_as : {td::ResizeAs::stored, td::ResizeAs::rgb}) {
        td::PairOptions made{.preprocess = td::openai_preprocess(8), .crop = td::RandomResizedCrop{}};
        made.preprocess.resize_as = resize_as;
        const td::Pairs pairs(folder, images, tokenizer(), 8, made);
        std::vector<float> found(3 * 8 * 8), expected(3 * 8 * 8);
        std::vector<td::Id> ids(8);
        td::Random random{td::Seed{3}}, again{td::Seed{3}};
        pairs.fetch(0, random, found, ids);
        again.below(1);  // the caption
        const td::Image part = (*made.crop)(whole, 8, made.preprocess.filter, again, resize_as);
        td::normalise(part, made.preprocess.mean, made.preprocess.deviation, expected);
        CHECK(found == expected);
        seen.push_back(found);
        pairs.fetch_image(0, found);
        td::preprocess(whole, made.preprocess, expected);
        CHECK(found == expected);
        seen.push_back(found);
        CHECK((pairs.image(0) == whole) == (resize_as == td::ResizeAs::stored));
        // What is reduced when it is read is RGB from then on.
        made.stored = 16;
        CHECK(td::Pairs(folder, images, tokenizer(), 8, made).image(0).storage == td::Storage::rgb);
    }
    CHECK(seen[0] != seen[2]);
    CHECK(seen[1] != seen[3]);
}

TEST_CASE("a fingerprint names what training depends on: each change alone changes its own word") {
    const DataFolder folder;
    const td::PairOptions usual{.preprocess = td::openai_preprocess(8), .stored = 10};
    const auto load = [&](const td::PairOptions& options) {
        return td::Pairs::load(folder.path(), folder.captions(), tokenizer(), 8, options).fingerprint();
    };
    const auto before = load(usual);
    CHECK(load(usual) == before);
    CHECK(before.at("pairs") == "5");
    const auto changed = [&](const auto& now) {
        std::string names;
        for (const auto& [name, value] : before) {
            if (now.at(name) != value) names += name + ";";
        }
        return names;
    };
    const auto with = [&](const auto& change) {
        td::PairOptions options = usual;
        change(options);
        return changed(load(options));
    };
    CHECK(with([](auto& o) { o.flip = 0.5; }) == "flip;");
    CHECK(with([](auto& o) { o.crop = td::RandomResizedCrop{}; }) == "crop;");
    CHECK(with([](auto& o) { o.preprocess.mean[1] += 1e-6F; }) == "preprocess;");
    CHECK(with([](auto& o) { o.preprocess.deviation[2] *= 2; }) == "preprocess;");
    CHECK(with([](auto& o) { o.preprocess.padding = td::white; }) == "preprocess;");
    CHECK(with([](auto& o) { o.preprocess.size = 9; }) == "preprocess;");
    CHECK(with([](auto& o) { o.preprocess.resize_as = td::ResizeAs::rgb; }) == "preprocess;");
    CHECK(with([](auto& o) { o.decode.background = td::white; }) == "preprocess;");
    CHECK(with([](auto& o) { o.preprocess.filter = td::Filter::bilinear; }) == "preprocess;");
    CHECK(with([](auto& o) { o.stored = 11; }) == "images;stored;");
    CHECK(with([](auto& o) { o.memory = 0; }) == "images;images in memory;");

    // The same sizes and captions, one pixel value apart.
    folder.write("sub/1.png", DataFolder::picture(21, 12, 51));
    CHECK(changed(load(usual)) == "images;");
    folder.write("sub/1.png", DataFolder::picture(21, 12, 50));
    CHECK(changed(load(usual)).empty());
    std::ofstream(folder.captions(), std::ios::app) << "\nsub/0.png\tthree\n";
    CHECK(changed(load(usual)) == "captions;");
}
