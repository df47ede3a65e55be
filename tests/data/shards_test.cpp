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
