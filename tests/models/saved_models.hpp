// What the tests of saving and loading share.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include <catch2/catch.hpp>

#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/packed.hpp>

/// A folder that goes at the end of the test.
class Folder {
public:
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "tandem-models-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~Folder() { std::filesystem::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::filesystem::path operator/(const char* name) const { return path_ / name; }
    const std::filesystem::path& path() const { return path_; }
    void write(const char* name, const std::string& text) const { std::ofstream(path_ / name) << text; }

private:
    std::filesystem::path path_;
};

template <class A, class B>
bool same_bits(const A& a, const B& b) {
    bool same = true;
    tandem::for_each_parameter(
        [&](const std::string&, const auto& x, const auto& y) {
            const auto &left = tandem::to_row_major(x), &right = tandem::to_row_major(y);
            same = same && std::ranges::equal(left.elements(), right.elements());
        },
        a, b);
    return same;
}
