// Digests of data: equal for equal contents, and different for the smallest difference.
#include <catch2/catch.hpp>

#include <set>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/digest.hpp>

namespace td = tandem;

TEST_CASE("a digest tells every bit, every length and every order apart") {
    const auto digest_of = [](const std::vector<unsigned char>& bytes) {
        td::Digest digest;
        digest.add(std::span<const unsigned char>(bytes));
        return digest.text();
    };
    std::set<std::string> seen;
    std::size_t count = 0;
    for (std::size_t length = 0; length < 20; ++length) {
        std::vector<unsigned char> bytes(length);
        seen.insert(digest_of(bytes)), ++count;
        CHECK(digest_of(bytes) == digest_of(bytes));
        for (std::size_t bit = 0; bit < 8 * length; ++bit) {
            bytes[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
            seen.insert(digest_of(bytes)), ++count;
            bytes[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
        }
    }
    CHECK(seen.size() == count);
    CHECK(digest_of({1, 2}) != digest_of({2, 1}));
    CHECK(digest_of({1, 2}).size() == 16);
}
