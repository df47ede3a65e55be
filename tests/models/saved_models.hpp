// What the tests of saving and loading, and of equal models, share.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <span>
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

/// Every parameter by its bytes, where what is no number may be equal.
template <class Model>
void check_same_bytes(const Model& a, const Model& b) {
    tandem::for_each_parameter(
        [](const tandem::ParameterName& name, const auto& x, const auto& y) {
            INFO(name.view());
            CHECK(std::ranges::equal(std::as_bytes(x.elements()), std::as_bytes(y.elements())));
        },
        a, b);
}
