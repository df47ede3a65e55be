// Pairs in shards, tables and folders: what is found, what damage costs, and that nothing else changes by it.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/file.hpp>
#include <tandem/data/dataset.hpp>
#include <tandem/data/shards.hpp>
#include <tandem/files/tar.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/texts/bpe_trainer.hpp>

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

std::vector<std::byte> picture(std::uint8_t level, int side = 9) {
    return td::encode_png({side, side, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * side * side), level)});
}

std::vector<std::byte> bytes_of(const std::string& text) {
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
}

/// A folder that goes with its test.
class Folder {
public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "tandem-dataset-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~Folder() { fs::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    std::string write(const std::string& name, std::span<const std::byte> bytes) const {
        fs::create_directories((path_ / name).parent_path());
        std::ofstream(path_ / name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        return (path_ / name).string();
    }
    std::string write(const std::string& name, const std::string& text) const { return write(name, std::as_bytes(std::span(text))); }

    struct Member {
        std::string name;
        std::vector<std::byte> bytes;
    };
    std::string shard(const std::string& name, const std::vector<Member>& members) const {
        std::vector<td::TarEntry> entries;
        for (const Member& member : members) entries.push_back({member.name, member.bytes});
        td::write_tar(path_ / name, entries);
        return (path_ / name).string();
    }
    const fs::path& path() const { return path_; }

private:
    fs::path path_;
};

std::vector<Folder::Member> good(std::size_t first, std::size_t count) {
    std::vector<Folder::Member> members;
    for (std::size_t i = first; i < first + count; ++i) {
        members.push_back({std::to_string(i) + ".png", picture(static_cast<std::uint8_t>(10 * i))});
        members.push_back({std::to_string(i) + ".txt", bytes_of("caption " + std::to_string(i))});
    }
    return members;
}

td::AnyTokenizer tokenizer() {
    const std::vector<std::string> texts{"caption 0 1 2 3 4 5 6 7 8 9", "many captions"};
    return td::train_bpe(texts, 560);
}

td::Dataset dataset(td::SampleList samples, bool strict = false) {
    td::DatasetOptions options{.view = {.preprocess = td::openai_preprocess(8)}, .strict = strict, .retry_seconds = 0.001};
    options.view.decode.pixel_limit = 1000;
    return {std::move(samples), tokenizer(), 16, options};
}

struct Fetched {
    std::vector<float> image = std::vector<float>(3 * 8 * 8);
    std::vector<td::Id> ids = std::vector<td::Id>(16);
    bool operator==(const Fetched&) const = default;
};

Fetched fetch(const td::Dataset& data, std::size_t index) {
    Fetched found;
    td::Random random{td::Seed{3}, index};
    data.fetch(index, random, found.image, found.ids);
    return found;
}

}  // namespace

TEST_CASE("names with ranges and choices are all that they stand for") {
    using Names = std::vector<std::string>;
    CHECK(td::expand_names("a.tar") == Names{"a.tar"});
    CHECK(td::expand_names("s-{008..011}.tar") == Names{"s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"});
    CHECK(td::expand_names("{08..10}") == Names{"08", "09", "10"});
    CHECK(td::expand_names("{8..10}") == Names{"8", "9", "10"});
    CHECK(td::expand_names("{08..100}").front() == "008");
    CHECK_THROWS_WITH(td::expand_names("{a,{b,c}}"), Contains("expected braces that do not stand within others"));
    CHECK(td::expand_names("{a,b}/{0..1}.tar::c.tar") == Names{"a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar", "c.tar"});
    CHECK_THROWS_WITH(td::expand_names("s-{00..a}.tar"), Contains("a range of numbers as {000..123}, found {00..a}"));
    CHECK_THROWS_WITH(td::expand_names("s-{3..1}.tar"), Contains("the smaller one first, found {3..1}"));
    CHECK_THROWS_WITH(td::expand_names("s-{3..1"), Contains("expected a } behind {, found none"));
    CHECK_THROWS_WITH(td::expand_names("a.tar::"), Contains("expected a name, found an empty one"));
}

TEST_CASE("samples of shards are read where they stand") {
    const Folder folder;
    std::vector<Folder::Member> members = good(0, 2);
    members.push_back({"x/2.png", picture(20)});
    members.push_back({"x/2.json", bytes_of(R"({"width": 9, "captions": ["first \u00e9", "second"], "caption": "third"})")});
    const std::vector<std::string> paths{folder.shard("a.tar", members), folder.shard("b.tar", good(3, 2))};
    const td::Dataset data = dataset(td::read_shards(paths));
    REQUIRE(data.size() == 5);
    CHECK(data.faults().empty());
    CHECK(data.captions(1) == std::vector<std::string>{"caption 1"});
    CHECK(data.captions(2) == std::vector<std::string>{"first é", "second", "third"});
    CHECK(data.name(2) == paths[0] + ": x/2");
    CHECK(data.image(3).pixels[0] == 30);
    std::set<std::vector<td::Id>> drawn;
    for (std::size_t i = 0; i < 30; ++i) {
        Fetched found;
        td::Random random{td::Seed{i}};
        data.fetch(2, random, found.image, found.ids);
        drawn.insert(found.ids);
    }
    CHECK(drawn.size() == 3);
}

TEST_CASE("damage of every kind is counted under its shard, and the others stay as they were") {
    const Folder folder;
    const std::string clean = folder.shard("clean.tar", good(0, 6));
    std::vector<Folder::Member> members = good(0, 2);
    const auto add = [&](const std::string& name, std::vector<std::byte> bytes) { members.push_back({name, std::move(bytes)}); };
    add("nothing.png", picture(1));
    add("alone.txt", bytes_of("no picture"));
    add("other.mp4", bytes_of("film"));
    add("other.json", bytes_of("{}"));
    add("empty.png", picture(1));
    add("empty.txt", bytes_of(" \n"));
    add("latin.png", picture(1));
    add("latin.txt", bytes_of("caf\xe9"));
    add("broken.png", picture(1));
    add("broken.json", bytes_of("{\"caption\": "));
    add("keyless.png", picture(1));
    add("keyless.json", bytes_of("{\"captions\": [3]}"));
    add("text.png", bytes_of("<html>not found</html>"));
    add("text.txt", bytes_of("a page instead of a picture"));
    add("../up.png", picture(1));
    add("../up.txt", bytes_of("climbs"));
    for (Folder::Member& member : good(2, 2)) members.push_back(member);
    std::vector<std::byte> half = picture(5);
    half.resize(half.size() / 2);
    add("half.png", half);
    add("half.txt", bytes_of("half a picture"));
    add("bomb.png", picture(5, 40));
    add("bomb.txt", bytes_of("too large"));
    for (Folder::Member& member : good(4, 2)) members.push_back(member);
    const std::string dirty = folder.shard("dirty.tar", members);

    const td::Dataset expected = dataset(td::read_shards(std::span(&clean, 1)));
    const td::Dataset data = dataset(td::read_shards(std::span(&dirty, 1)));
    REQUIRE(data.size() == 8);
    const std::size_t places[] = {0, 1, 2, 3, 6, 7};
    for (std::size_t i = 0; i < 6; ++i) {
        Fetched wanted;
        td::Random random{td::Seed{3}, places[i]};
        expected.fetch(i, random, wanted.image, wanted.ids);
        CHECK(fetch(data, places[i]) == wanted);
    }
    // The next good one stands in for those that cannot be decoded, which are counted once however often they are drawn.
    for (int times = 0; times < 2; ++times) {
        for (const std::size_t bad : {4U, 5U}) {
            Fetched wanted;
            td::Random random{td::Seed{3}, bad};
            data.fetch(6, random, wanted.image, wanted.ids);
            CHECK(fetch(data, bad) == wanted);
        }
    }
    td::FaultCounts counts = data.faults();
    std::map<std::string, std::size_t> by_cause;
    for (const auto& [cause, files] : counts) {
        CHECK(files.size() == 1);
        by_cause[cause] = files.at(dirty);
    }
    CHECK(by_cause == std::map<std::string, std::size_t>{{"no caption of a known ending", 1},
                                                         {"no picture of a known ending", 2},
                                                         {"empty caption", 1},
                                                         {"caption that is no UTF-8", 1},
                                                         {"damaged JSON", 1},
                                                         {"JSON without a caption", 1},
                                                         {"picture that is no JPEG, PNG or WebP", 1},
                                                         {"name that leads out of its folder", 1},
                                                         {"damaged picture", 1},
                                                         {"oversized picture", 1}});
    std::vector<float> pixels(3 * 8 * 8);
    CHECK_FALSE(data.fetch_image(4, pixels));
    CHECK(data.fetch_image(3, pixels));
    CHECK_THROWS_WITH(td::read_shards(std::span(&dirty, 1), true), dirty + ": nothing: no caption of a known ending");
    const td::Dataset strict = dataset(td::read_shards(std::span(&dirty, 1)), true);
    CHECK_THROWS_WITH(fetch(strict, 4), Contains(dirty + ": half: "));
}

TEST_CASE("of a shard that ends early or is damaged, what stands before is used") {
    const Folder folder;
    const std::string whole = folder.shard("a.tar", good(0, 4));
    const td::MappedFile file(whole);
    const auto cut = [&](std::size_t size) { return folder.write("cut.tar", file.bytes().first(size)); };
    for (std::size_t size = 0; size < file.bytes().size(); size += 256) {
        const std::string path = cut(size);
        const td::SampleList list = td::read_shards(std::span(&path, 1));
        CAPTURE(size);
        CHECK(list.samples.size() <= 4);
        for (std::size_t i = 0; i < list.samples.size(); ++i) {
            CHECK(list.samples[i].key == std::to_string(i));
            CHECK(td::captions_of(list, i)[0] == "caption " + std::to_string(i));
        }
    }
    const std::string path = cut(file.bytes().size() / 2);
    CHECK(td::read_shards(std::span(&path, 1)).faults.begin()->first.starts_with("damaged shard: "));
    const std::string packed = folder.write("a.tar.gz", std::string("\x1f\x8b\x08\x00 and so on", 14));
    CHECK_THAT(td::read_shards(std::span(&packed, 1)).faults.begin()->first, Contains("damaged shard: is gzip data: "));
    const std::string empty = folder.write("empty.tar", std::string());
    CHECK(td::read_shards(std::span(&empty, 1)).faults == td::FaultCounts{{"damaged shard: an empty file", {{empty, 1}}}});
    const std::string gone = (folder.path() / "gone.tar").string();
    CHECK_THROWS_WITH(td::read_shards(std::span(&gone, 1)), Contains("gone.tar: cannot open: No such file"));
    CHECK_THROWS_WITH(dataset(td::read_shards(std::span(&packed, 1))), Contains("expected pairs of a picture and a caption, found none; left out 1: damaged shard"));
}

TEST_CASE("a shard that goes away is tried again, and named when it stays away") {
    const Folder folder;
    const std::string path = folder.shard("a.tar", good(0, 2));
    const td::Dataset data = dataset(td::read_shards(std::span(&path, 1)));
    fs::rename(path, path + ".away");
    CHECK_THROWS_WITH(fetch(data, 0), path + ": cannot open: No such file or directory, tried 4 times");
    fs::rename(path + ".away", path);
    CHECK_NOTHROW(fetch(data, 0));
    CHECK(data.faults().empty());
    fs::resize_file(path, 512);
    CHECK_THROWS_WITH(fetch(data, 1), Contains(path + ": expected a file of ") && Contains(" bytes or more, found a shorter one, tried 4 times"));
}

TEST_CASE("tables are read with quotes, lines and separators in fields") {
    const Folder folder;
    folder.write("p/1.png", picture(1));
    folder.write("p/2.png", picture(2));
    folder.write("p/3,4.png", picture(3));
    const std::string table = folder.write("t.csv", std::string("\xEF\xBB\xBFid,filepath,title\r\n"
                                                               "1,p/1.png,plain\r\n"
                                                               "2,p/2.png,\"with \"\"quotes\"\", and\na line\"\n"
                                                               "\n"
                                                               "3,\"p/3,4.png\",third\n"
                                                               "4,p/gone.png,gone\n"
                                                               "5,p/1.png\n"
                                                               "6,p/1.png, \n"
                                                               "7,,no path"));
    const td::Dataset data = dataset(td::read_table(table, {.separator = ','}));
    REQUIRE(data.size() == 3);
    CHECK(data.captions(1) == std::vector<std::string>{"with \"quotes\", and\na line"});
    CHECK(data.image(2).pixels[0] == 3);
    const td::FaultCounts expected{{"missing picture", {{table, 1}}},
                                   {"row of another number of fields than the first one's 3", {{table, 1}}},
                                   {"empty caption", {{table, 1}}},
                                   {"row without a path", {{table, 1}}}};
    CHECK(data.faults() == expected);
    CHECK_THROWS_WITH(td::read_table(table), Contains("expected a column 'filepath' (--csv-img-key), found 'id,filepath,title'"));
    CHECK_THROWS_WITH(td::read_table(table, {.separator = ','}, true), table + ": row 4: missing picture");
    const std::string open = folder.write("open.csv", std::string("filepath\ttitle\na\t\"never closed\n"));
    CHECK_THROWS_WITH(td::read_table(open), Contains("expected the end of the quotes that begin in line 2"));
}

TEST_CASE("a folder's pictures have the captions that lie beside them, or those of captions.tsv") {
    const Folder folder;
    folder.write("b/2.png", picture(2));
    folder.write("b/2.caption", std::string("two"));
    folder.write("a.PNG", picture(1));
    folder.write("a.txt", std::string("one"));
    folder.write("c.png", picture(3));
    folder.write("d.txt", std::string("no picture"));
    const td::Dataset data = dataset(td::read_folder(folder.path()));
    REQUIRE(data.size() == 2);
    CHECK(data.captions(0)[0] == "one");
    CHECK(data.captions(1)[0] == "two");
    CHECK(data.faults() == td::FaultCounts{{"no caption beside the picture", {{folder.path().string(), 1}}}});
    fs::create_symlink("loop.png", folder.path() / "loop.png");
    fs::create_symlink(folder.path(), folder.path() / "round");
    CHECK(td::read_folder(folder.path()).faults.at("name of a picture that is no file") == std::map<std::string, std::size_t>{{folder.path().string(), 1}});
    CHECK(td::read_folder(folder.path()).samples.size() == 2);
    folder.write("captions.tsv", std::string("a.PNG\tcaf\xe9\nb\ta folder\nc.png\tthree\nc.png\tdrei\ngone.png\tgone\n"));
    const td::Dataset listed = dataset(td::read_folder(folder.path()));
    REQUIRE(listed.size() == 1);
    CHECK(listed.captions(0) == std::vector<std::string>{"three", "drei"});
    CHECK(listed.faults() == td::FaultCounts{{"missing picture", {{(folder.path() / "captions.tsv").string(), 2}}},
                                                {"caption that is no UTF-8", {{(folder.path() / "captions.tsv").string(), 1}}}});
}

TEST_CASE("other samples, captions or views have another fingerprint") {
    const Folder folder;
    const std::string path = folder.shard("a.tar", good(0, 4)), same = folder.shard("sub.tar", good(0, 4));
    const td::Dataset data = dataset(td::read_shards(std::span(&path, 1)));
    CHECK(data.fingerprint() == dataset(td::read_shards(std::span(&path, 1))).fingerprint());
    std::vector<Folder::Member> members = good(0, 4);
    members[3].bytes = bytes_of("caption 7");
    const std::string other = folder.shard("a.tar", members);
    CHECK(data.fingerprint() != dataset(td::read_shards(std::span(&other, 1))).fingerprint());
    CHECK(data.fingerprint() != dataset(td::read_shards(std::span(&same, 1))).fingerprint());
}

TEST_CASE("an epoch has each sample as often as its source's factor says") {
    const Folder folder;
    const std::string path = folder.shard("a.tar", good(0, 6));
    folder.write("b/x.png", picture(200));
    folder.write("b/x.txt", "of a folder");
    for (int i = 0; i < 4; ++i) {
        folder.write("c/" + std::to_string(i) + ".png", picture(static_cast<std::uint8_t>(100 + i)));
        folder.write("c/" + std::to_string(i) + ".txt", "another " + std::to_string(i));
    }
    const auto sources = [&] {
        std::vector<td::SampleList> lists;
        lists.push_back(td::read_shards(std::span(&path, 1)));
        lists.push_back(td::read_folder(folder.path() / "b"));
        lists.push_back(td::read_folder(folder.path() / "c"));
        return lists;
    };
    const double factors[]{0.5, 3, 1.25};
    const td::Dataset data = dataset(td::join_samples(sources(), factors));
    REQUIRE(data.size() == 11);
    CHECK(data.epoch_size() == 3 + 3 + 5);
    CHECK(data.captions(6) == std::vector<std::string>{"of a folder"});
    CHECK(data.captions(10) == std::vector<std::string>{"another 3"});
    std::vector<std::size_t> seen(11);
    for (std::size_t epoch = 0; epoch < 4; ++epoch) {
        const std::vector<std::size_t> draws = data.draws(epoch);
        REQUIRE(draws.size() == data.epoch_size());
        // Each draw draws for itself.
        CHECK(std::set<std::size_t>(draws.begin(), draws.end()).size() == draws.size());
        for (const std::size_t draw : draws) ++seen[draw % data.size()];
        CHECK(seen[6] == 3 * (epoch + 1));
        if (epoch == 1) {
            for (std::size_t i = 0; i < 6; ++i) CHECK(seen[i] == 1);
        }
    }
    for (std::size_t i = 0; i < 6; ++i) CHECK(seen[i] == 2);
    for (std::size_t i = 7; i < 11; ++i) CHECK(seen[i] == 5);

    std::vector<td::SampleList> again;
    again.push_back(td::join_samples(sources(), factors));
    again.push_back(td::read_folder(folder.path() / "b"));
    const double halves[]{2, 1};
    CHECK(dataset(td::join_samples(std::move(again), halves)).epoch_size() == 6 + 6 + 10 + 1);
    const td::Dataset plain = dataset(td::join_samples(sources()));
    CHECK(plain.epoch_size() == 11);
    CHECK(plain.draws(5) == plain.draws(6));
    CHECK(plain.fingerprint() != data.fingerprint());
    CHECK_THROWS_WITH(td::join_samples(sources(), std::span(factors).first(2)), "join_samples: expected a factor for each of 3 sources, found 2");
    const double nothing[]{1, 0.4, 1}, negative[]{1, -1, 1};
    CHECK_THROWS_WITH(td::join_samples(sources(), nothing), "join_samples: expected a pair or more of each source in an epoch, found none of 1 with a factor of 0.4");
    CHECK_THROWS_WITH(td::join_samples(sources(), negative), "join_samples: expected factors above 0, at most 1000, found -1");
}

TEST_CASE("what stands behind damage is found by an index, of which headers have the last word") {
    const Folder folder;
    const std::string path = folder.shard("s.tar", good(0, 6)), other = folder.shard("other.tar", good(1, 7));
    std::string archive;
    {
        const td::MappedFile file(path);
        archive.assign(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    }
    const std::vector<td::TarMember> members = td::read_tar(std::as_bytes(std::span(archive))).members;
    const std::string index = td::shard_index(members);
    // The header of the third sample's picture.
    archive[members[4].offset - 512] ^= 1;
    folder.write("s.tar", archive);
    const auto keys = [&] {
        std::string all;
        for (const td::Sample& sample : td::read_shards(std::span(&path, 1)).samples) all += sample.key;
        return all;
    };
    const auto causes = [&] {
        std::string all;
        for (const auto& [cause, files] : td::read_shards(std::span(&path, 1)).faults) all += cause + "\n";
        return all;
    };
    CHECK(keys() == "01");
    folder.write("s.idx", index);
    CHECK(keys() == "01345");
    CHECK_THAT(causes(), Contains("a header whose checksum is wrong at byte 4096, read on from byte 5120, where its index says that a file begins\n") && Contains("no picture of a known ending\n"));
    const td::Dataset data = dataset(td::read_shards(std::span(&path, 1)));
    CHECK(data.captions(4)[0] == "caption 5");
    CHECK_THROWS_WITH(td::read_shards(std::span(&path, 1), true), Contains("damaged shard"));

    // Headers are believed, not an index that says something else of them; of a sound shard it is not asked.
    std::string foreign = td::shard_index(td::read_tar(td::MappedFile(other).bytes()).members);
    folder.write("s.idx", foreign + foreign);
    CHECK(keys() == "01345");
    folder.write("s.idx", "v1.2 3\njpg 1 1 a.jpg\njpg 5633 9 b.jpg\njpg 18446744073709551615 9 c.jpg\n");
    CHECK(keys() == "01");
    folder.write("s.idx", "v1.2 one\n");
    CHECK(keys() == "01");
    CHECK_THAT(causes(), Contains("index that is passed over: s.idx, line 1: expected a number of samples, found 'one'\n"));
    // A second one, and the end of the archive as well.
    folder.write("s.idx", index);
    archive[members[8].offset - 512] ^= 1;
    folder.write("s.tar", archive.substr(0, members[11].offset - 400));
    CHECK(keys() == "013");
    archive[members[4].offset - 512] ^= 1;
    archive[members[8].offset - 512] ^= 1;
    folder.write("s.tar", archive);
    folder.write("s.idx", std::string("{}"));
    CHECK(keys() == "012345");
    CHECK(causes() == "");
    CHECK(td::read_shards(std::span(&path, 1), true).samples.size() == 6);
}
