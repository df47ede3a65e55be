// Archives written and read back, by hand what others write, and damage of every kind.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <tandem/core/file.hpp>
#include <tandem/core/random.hpp>
#include <tandem/files/tar.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::vector<std::byte> read_all(const std::filesystem::path& path) {
    const td::MappedFile file(path);
    return {file.bytes().begin(), file.bytes().end()};
}

std::filesystem::path scratch(const char* name) { return std::filesystem::temp_directory_path() / name; }

/// A header of the old format, without "ustar", with its checksum right.
std::string header(const std::string& name, std::size_t size, char type, const std::string& magic = "") {
    std::string block(512, '\0');
    block.replace(0, name.size(), name);
    std::array<char, 16> octal{};
    std::snprintf(octal.data(), octal.size(), "%11zo ", size);
    block.replace(124, 12, octal.data(), 12);
    block[156] = type;
    block.replace(257, magic.size(), magic);
    block.replace(148, 8, "        ");
    unsigned sum = 0;
    for (const char c : block) sum += static_cast<unsigned char>(c);
    std::snprintf(octal.data(), octal.size(), "%06o", sum);
    block.replace(148, 7, std::string(octal.data()) + '\0');
    return block;
}

std::string padded(std::string text) {
    text.resize((text.size() + 511) / 512 * 512);
    return text;
}

}  // namespace

TEST_CASE("what is written is read, whatever the names and sizes") {
    std::vector<std::string> names{"a", std::string(100, 'n'), std::string(150, 'p') + "/" + std::string(100, 'q'), std::string(101, 'x'),
                                   std::string(200, 'y') + "/" + std::string(200, 'z'), "\xC3\xA9t\xC3\xA9/cat.jpg", std::string(98, 'd') + "/" + std::string(60, 'e')};
    for (std::size_t length = 80; length < 130; ++length) names.push_back(std::string(length / 2, 'k') + "/" + std::string(length - length / 2, 'l'));
    std::vector<std::string> contents;
    std::vector<td::TarEntry> entries;
    for (std::size_t i = 0; i < names.size(); ++i) contents.push_back(std::string(i * 97 % 1600, static_cast<char>('a' + i % 26)));
    for (std::size_t i = 0; i < names.size(); ++i) entries.push_back({names[i], bytes_of(contents[i])});
    const auto path = scratch("tandem_tar_test.tar");
    td::write_tar(path, entries);
    const std::vector<std::byte> archive = read_all(path);
    CHECK(archive.size() % 512 == 0);
    const td::TarContents found = td::read_tar(archive);
    CHECK(found.fault.empty());
    REQUIRE(found.members.size() == names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
        CHECK(found.members[i].name == names[i]);
        CHECK(std::ranges::equal(found.members[i].bytes(archive), bytes_of(contents[i])));
    }
    CHECK_THROWS_WITH(td::write_tar(path, std::vector<td::TarEntry>{{"", {}}}), Contains("write_tar: expected a name for every member"));
    std::filesystem::remove(path);
}

TEST_CASE("members of other writers: GNU's long names, pax, directories, links, and the format before ustar") {
    const std::string long_name(300, 'g'), pax = "28 path=from/the/pax/header\n10 size=5\n14 mtime=1.25\n";
    const std::string archive = header("old.txt", 3, '\0') + padded("old") + header("folder/", 0, '\0') + header("dir/", 0, '5', "ustar") +
                                header("link", 700, '1', "ustar") + header("dir/", 512, '5', "ustar") + header("././@LongLink", long_name.size() + 1, 'L', "ustar  ") + padded(long_name + '\0') +
                                header("cut", 4, '0', "ustar  ") + padded("long") + header("PaxHeader", pax.size(), 'x', "ustar") + padded(pax) +
                                header("short", 0, '0', "ustar") + padded("sized") + header("g", 12, 'g', "ustar") + padded("12 charset=\n") +
                                header("last", 1, '7', "ustar") + padded("!");
    const auto found = td::read_tar(bytes_of(archive));
    CHECK(found.fault.empty());  // without the blocks of zeros at its end
    REQUIRE(found.members.size() == 4);
    CHECK(found.passed_over == 1);
    const auto text = [&](std::size_t i) {
        const auto bytes = found.members[i].bytes(bytes_of(archive));
        return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    CHECK(found.members[0].name == "old.txt");
    CHECK(found.members[1].name == long_name);
    CHECK(text(1) == "long");
    CHECK(found.members[2].name == "from/the/pax/header");
    CHECK(text(2) == "sized");
    CHECK(found.members[3].name == "last");
    // Behind two blocks of zeros nothing is looked at.
    CHECK(td::read_tar(bytes_of(archive + std::string(1024, '\0') + "anything")).members.size() == 4);
}

TEST_CASE("what stands before damage is given, and the damage named") {
    const std::string good = header("a.jpg", 600, '0', "ustar") + padded(std::string(600, 'x'));
    const auto fault = [&](const std::string& archive) { return td::read_tar(bytes_of(archive)).fault; };
    CHECK(fault(good + std::string(300, 'z')) == "the archive is cut off within a header at byte 1536");
    CHECK(fault(good + header("b.jpg", 900, '0', "ustar") + std::string(512, 'y')) == "the archive is cut off within a member at byte 1536");
    std::string wrong = header("b.jpg", 1, '0', "ustar");
    wrong[0] = 'c';
    CHECK(fault(good + wrong + padded("1")) == "a header whose checksum is wrong at byte 1536");
    CHECK(fault("<html>" + std::string(600, 'h')) == "no tar archive: a header whose checksum is wrong at byte 0");
    CHECK(fault(header("x", 5, 'x', "ustar") + padded("nope\n")) == "a pax header that cannot be read at byte 0");
    CHECK(fault(header("s", 5, 'S', "ustar  ") + padded("holes")) == "a sparse file, which is not read at byte 0");
    CHECK(td::read_tar(bytes_of(good + wrong)).members.size() == 1);
    CHECK(fault("").empty());
    CHECK(fault(good + std::string(100, '\0')).empty());
}

TEST_CASE("random damage is never read beyond the archive") {
    const std::string pax = "28 path=from/the/pax/header\n10 size=5\n";
    std::string archive = header("a", 700, '0', "ustar") + padded(std::string(700, 'x')) + header("P", pax.size(), 'x', "ustar") + padded(pax) +
                          header("b", 5, '0', "ustar") + padded("12345") + header("L", 4, 'L', "ustar  ") + padded("name") + header("c", 2, '0', "ustar  ") + padded("cc");
    td::Random random{td::Seed{1}};
    std::size_t whole = 0, damaged = 0;
    for (int turn = 0; turn < 20'000; ++turn) {
        std::string some = archive;
        for (std::size_t i = random.below(4); i > 0; --i) some[random.below(some.size())] = static_cast<char>(random.below(256));
        if (random.below(3) == 0) some.resize(random.below(some.size()));
        // Where the checksum is made right again, the fields behind it are reached.
        for (std::size_t at = 0; at + 512 <= some.size(); at += 512) {
            if (random.below(2) != 0 || some[at] == '\0') continue;
            some.replace(at + 148, 8, "        ");
            unsigned sum = 0;
            for (std::size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(some[at + i]);
            std::array<char, 16> octal{};
            std::snprintf(octal.data(), octal.size(), "%06o", sum);
            some.replace(at + 148, 7, std::string(octal.data()) + '\0');
        }
        const std::vector<std::byte> exact(bytes_of(some).begin(), bytes_of(some).end());
        // An index that is right, wrong, or of something else.
        std::vector<std::uint64_t> starts{512, random.below(archive.size()), 4608, 5632, ~std::uint64_t{0}};
        starts.resize(random.below(starts.size() + 1));
        const td::TarContents found = td::read_tar(exact, starts);
        (found.fault.empty() ? whole : damaged) += 1;
        for (const td::TarMember& member : found.members) {
            REQUIRE(member.offset <= exact.size());
            REQUIRE(member.size <= exact.size() - member.offset);
            REQUIRE_FALSE(member.name.empty());
        }
    }
    CHECK(whole > 100);
    CHECK(damaged > 1000);
}
