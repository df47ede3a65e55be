// Members of an archive become samples.
#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include <tandem/data/shards.hpp>

namespace td = tandem;

TEST_CASE("neighbours of one key are a sample, and an ending that comes again begins the next") {
    std::vector<td::TarMember> members;
    for (const char* const name : {"a/01.jpg", "a/01.txt", "a/02.JPG", "b/02.jpg", "03.jpg", "03.seg.png", "03.jpg", "readme", ".hidden.txt", "d.d/04.txt", "04.", "a/01.txt"})
        members.push_back({.name = name});
    const std::vector<td::ShardSample> samples = td::group_samples(members);
    std::vector<std::string> keys;
    for (const td::ShardSample& sample : samples) keys.push_back(sample.key);
    CHECK(keys == std::vector<std::string>{"a/01", "a/02", "b/02", "03", "03", "d.d/04", "a/01"});
    CHECK(samples[0].part({"png", "jpg"}, 99) == 0);
    CHECK(samples[0].part({"txt"}, 99) == 1);
    CHECK(samples[0].part({"png"}, 99) == 99);
    CHECK(samples[1].parts[0] == std::pair<std::string, std::size_t>{"jpg", 2});
    CHECK(samples[3].parts[1] == std::pair<std::string, std::size_t>{"seg.png", 5});
    CHECK(samples[4].parts.size() == 1);
    CHECK(td::group_samples({}).empty());
}

TEST_CASE("a shard's index says where the files of each sample stand") {
    const std::vector<td::TarMember> members{{"a/01.JPG", 512, 7}, {"a/01.seg.png", 1536, 9}, {"readme", 2560, 1}, {"02.txt", 3584, 0}};
    CHECK(td::shard_index(members) == "v1.2 2\nJPG 512 7 a/01.JPG seg.png 1536 9 a/01.seg.png\ntxt 3584 0 02.txt\n");
    CHECK(td::shard_index({}) == "v1.2 0\n");
    const std::vector<td::TarMember> spaced{{"a b.txt", 512, 1}};
    CHECK_THROWS_WITH(td::shard_index(spaced), "shard_index: expected names without white space, found 'a b.txt'");
}

TEST_CASE("an index is read as it was written, and nothing else is") {
    const std::vector<td::TarMember> members{{"a/01.JPG", 512, 7}, {"a/01.seg.png", 1536, 9}, {"02.txt", 3584, 0}};
    const std::vector<td::TarMember> found = td::read_shard_index(td::shard_index(members), "x.idx");
    REQUIRE(found.size() == members.size());
    for (std::size_t i = 0; i < members.size(); ++i) CHECK((found[i].name == members[i].name && found[i].offset == members[i].offset && found[i].size == members[i].size));
    CHECK(td::read_shard_index("v1.2 0", "x.idx").empty());
    // The version before has no names.
    const std::vector<td::TarMember> unnamed = td::read_shard_index("v1.1 2\r\njpg 512 7 txt 1536 9\r\njpg 3584 0\r\n", "x.idx");
    REQUIRE(unnamed.size() == 3);
    CHECK((unnamed[1].name == "0.txt" && unnamed[1].offset == 1536 && unnamed[2].name == "1.jpg"));
    const auto refused = [](const std::string& text, const std::string& message) { CHECK_THROWS_WITH(td::read_shard_index(text, "x.idx"), message); };
    refused("", "x.idx, line 1: expected an index of version v1.1 or v1.2, found ''");
    refused("v1.3 1\njpg 1 1 a.jpg\n", "x.idx, line 1: expected an index of version v1.1 or v1.2, found 'v1.3'");
    refused("v1.2 -1\n", "x.idx, line 1: expected a number of samples, found '-1'");
    refused("v1.2 2\njpg 512 7 a.jpg\n", "x.idx: expected 2 samples, as its first line says, found 1");
    refused("v1.2 1\njpg 512 7x a.jpg\n", "x.idx, line 2: expected a size, found '7x'");
    refused("v1.2 1\njpg 18446744073709551616 7 a.jpg\n", "x.idx, line 2: expected an offset, found '18446744073709551616'");
    refused("v1.2 1\njpg 512 7 a.png\n", "x.idx, line 2: expected a name that ends with 'jpg', found 'a.png'");
    refused("v1.2 1\njpg 512\n", "x.idx, line 2: expected a size, found ''");
}
