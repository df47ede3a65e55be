// Packed model files: the same bits from mapped weights, and every file that is not the one expected refused by name.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/memory.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/packed_file.hpp>
#include <tandem/models/resnet.hpp>
#include <tandem/models/zoo.hpp>

#include "../kernels/isas.hpp"
#include "saved_models.hpp"

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

// Widths that fill no panel.
inline constexpr td::ClipConfig small{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 44, .layers = 2, .heads = 4, .activation = td::QuickGelu{}},
    .text = td::TextConfig{.vocabulary = 41, .context = 9, .width = 36, .layers = 1, .heads = 2},
    .embedding = 23};

inline constexpr td::ClipConfig convolutional{
    .vision = td::ResNetConfig{.image = 32, .layers = {1, 1, 1, 1}, .width = 8, .head_width = 8},
    .text = td::TextConfig{.vocabulary = 41, .context = 9, .width = 36, .layers = 1, .heads = 2},
    .embedding = 24,
    .logit_bias = true};

template <class Model>
auto images() {
    td::Tensor<float, typename Model::Vision::Input::shape> batch(3);
    for (std::size_t i = 0; i < batch.size(); ++i) batch.data()[i] = static_cast<float>(i % 29) / 14 - 1;
    td::Tensor<typename Model::C, typename Model::Vision::Input::shape> converted(3);
    std::copy_n(batch.data(), batch.size(), converted.data());
    return converted;
}

template <class Model>
auto captions() {
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids(3);
    for (std::size_t i = 0; i < ids.size(); ++i) ids.data()[i] = static_cast<td::Id>(1 + i * 7 % 39);
    for (std::size_t i = 0; i < 3; ++i) ids(i, 5 + i) = 40;
    return ids;
}

template <class Model>
bool same_embeddings(const Model& a, const Model& b) {
    const auto pixels = images<Model>();
    const auto ids = captions<Model>();
    const auto images_a = a.encode_image(pixels), images_b = b.encode_image(pixels);
    const auto texts_a = a.encode_text(ids), texts_b = b.encode_text(ids);
    return std::ranges::equal(images_a.elements(), images_b.elements()) && std::ranges::equal(texts_a.elements(), texts_b.elements());
}

std::string bytes_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

void write(const fs::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The file with another value in its metadata, and the checksum of the header made anew, as if it had been packed so.
void repack_as(const fs::path& path, const std::string& key, const std::string& value) {
    const std::string whole = bytes_of(path);  // the tensors' memory while the file is written
    const td::Safetensors file = td::Safetensors::parse(std::as_bytes(std::span(whole)), "test");
    std::map<std::string, std::string> metadata = file.metadata();
    REQUIRE(metadata.at(key) != value);
    metadata[key] = value;
    metadata["tandem.header"] = td::detail::header_checksum(metadata, file.tensors());
    td::save_safetensors(path, file.tensors(), metadata, 4096);
}

}  // namespace

TEMPLATE_TEST_CASE("a mapped model has the bits of the one that was packed", "[models]", float, double, td::bf16, td::int8, td::amp_bf16) {
    const Folder folder;
    const fs::path path = folder / "packed";
    const auto check = [&]<auto config>() {
        const td::Clip<config, TestType> model{td::Seed{3}};
        td::save_packed(model, path);
        const auto mapped = td::map_packed<config, TestType>(path, {.verify = true});
        CHECK(same_bits(model, *mapped));
        CHECK(same_embeddings(model, *mapped));
        CHECK(mapped->logit_scale() == model.logit_scale());
        // What the file holds in its order, at multiples of a cache line.
        const td::Safetensors file = td::Safetensors::open(path);
        for (const td::StoredTensor& tensor : file.tensors()) CHECK(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % 64 == 0);
        // From memory.
        const std::string bytes = bytes_of(path);
        td::Buffer<std::byte> memory(bytes.size() + 64);
        std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), memory.data());
        CHECK(same_embeddings(model, *td::map_packed<config, TestType>({memory.data(), bytes.size()}, true)));
        std::copy_backward(memory.data(), memory.data() + bytes.size(), memory.data() + bytes.size() + 8);
        CHECK_THROWS_WITH((td::map_packed<config, TestType>({memory.data() + 8, bytes.size()})),
                          "map_packed: expected bytes at a multiple of 64, found another address");
    };
    check.template operator()<small>();
    if constexpr (requires { td::Clip<convolutional, TestType>{td::Seed{3}}; }) check.template operator()<convolutional>();
}

TEST_CASE("a mapped model outlives its file, and copies of it are their own", "[models]") {
    const Folder folder;
    const fs::path path = folder / "packed";
    using Model = td::Clip<small>;
    const Model model{td::Seed{3}};
    td::save_packed(model, path);
    auto mapped = td::map_packed<small>(path);
    fs::remove(path);
    CHECK(same_embeddings(model, *mapped));
    Model copy(*mapped), assigned{td::Seed{4}};
    assigned = *mapped;
    Model moved = std::move(copy);
    mapped.reset();
    CHECK(same_bits(model, moved));
    CHECK(same_bits(model, assigned));
    td::zero_parameters(moved);
    CHECK_FALSE(same_bits(model, moved));
    CHECK(same_bits(model, assigned));
}

TEST_CASE("a packed file that is not the one expected is refused by name", "[models]") {
    const Folder folder;
    const fs::path path = folder / "packed";
    const auto open = [&] { return td::map_packed<small>(path); };
    CHECK_THROWS_WITH(open(), Contains("packed: cannot open"));
    td::save_weights(td::Clip<small>{td::Seed{3}}, path);
    CHECK_THROWS_WITH(open(), Contains("expected a packed model file, which save_packed writes, found other safetensors"));
    const auto pack = [&] { td::save_packed(td::Clip<small>{td::Seed{3}}, path); };
    pack();
    CHECK_THROWS_WITH(td::load<small>(path), Contains("expected weights in safetensors or of torch.save, found a packed copy of some"));
    CHECK_THROWS_WITH((td::map_packed<small, td::bf16>(path)), Contains("another precision: expected bfloat16, found float32"));
    constexpr td::ClipConfig wider = [] {
        auto config = small;
        config.vision.width = 48;
        return config;
    }();
    CHECK_THROWS_WITH((td::map_packed<wider>(path)), Contains("another architecture: expected vision.width = 48, found vision.width = 44"));
    // What no file tells of an architecture.
    constexpr td::ClipConfig after = [] {
        auto config = small;
        config.vision.norm_position = td::NormPosition::post;
        return config;
    }();
    CHECK_THROWS_WITH((td::map_packed<after>(path)), Contains("another architecture: expected td::ClipConfig{") && Contains("norm_position = td::NormPosition::post"));
    // The same tensors at other places.
    {
        const std::string whole = bytes_of(path);
        const td::Safetensors file = td::Safetensors::parse(std::as_bytes(std::span(whole)), "test");
        td::save_safetensors(folder / "moved", file.tensors(), file.metadata(), 8 + 64 * 1001);
        CHECK_THROWS_WITH(td::map_packed<small>(folder / "moved"), Contains("expected bytes at a multiple of 64, found another address"));
    }
    const auto refused = [&](const char* key, const char* value, const std::string& message) {
        pack();
        repack_as(path, key, value);
        CHECK_THROWS_WITH(open(), Contains(message));
    };
    const std::string isa(td::kernels::name_of(td::kernels::active_isa()));
    refused("tandem.isa", "mmx", "packed for another instruction set: expected " + isa + ", found mmx: pack it again here, or set TANDEM_ISA");
    refused("tandem.layout", "panels of 3 columns, 1 elements together", "packed in another layout: expected panels of ");
    refused("tandem.towers", "the image tower", "other parts: expected both towers, found the image tower");
    refused("tandem.packed", "0", "expected version 1 of the packed layout, this library's, found version '0': pack it again");
    pack();
    CHECK_NOTHROW(open());
}

TEST_CASE("a damaged packed file is refused", "[models]") {
    const Folder folder;
    const fs::path path = folder / "packed";
    td::save_packed(td::Clip<small>{td::Seed{3}}, path);
    const std::string whole = bytes_of(path);
    std::uint64_t header = 0;
    std::memcpy(&header, whole.data(), sizeof header);
    header += sizeof header;
    REQUIRE(header % 4096 == 0);
    const auto refuses = [&](std::string bytes, bool verify) {
        td::Buffer<std::byte> memory(std::max<std::size_t>(bytes.size(), 1));
        std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), memory.data());
        try {
            td::map_packed<small>({memory.data(), bytes.size()}, verify);
        } catch (const td::Error&) {
            return true;
        }
        return false;
    };
    CHECK_FALSE(refuses(whole, true));
    // A flipped bit of the header is always found, one of the weights where that is asked for.
    std::size_t missed = 0;
    for (std::size_t at = 0; at < header; ++at) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
        missed += refuses(damaged, false) ? 0U : 1U;
    }
    CHECK(missed == 0);
    for (std::size_t at = header; at < whole.size(); at += 61) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
        missed += refuses(damaged, true) ? 0U : 1U;
    }
    CHECK(missed == 0);
    std::string damaged = whole;
    damaged[header] = static_cast<char>(damaged[header] ^ 1);
    write(path, damaged);
    CHECK_THROWS_WITH((td::map_packed<small>(path, {.verify = true})),
                      Contains("expected the bytes that were saved, by their checksum, found others: pack it again"));
    for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{100}, static_cast<std::size_t>(header), whole.size() / 2, whole.size() - 1})
        missed += refuses(whole.substr(0, size), false) ? 0U : 1U;
    missed += refuses(whole + "x", false) ? 0U : 1U;
    CHECK(missed == 0);
}

TEST_CASE("a packed copy of a checkpoint is made where it is not as it should be", "[models]") {
    const Folder folder;
    const fs::path source = folder / "model.safetensors", path = folder / "packed";
    using Model = td::Clip<small>;
    td::save_weights(Model{td::Seed{3}}, source);
    std::ostringstream log;
    const auto opens_as = [&](std::uint64_t seed, const std::string& said) {
        log.str("");
        const bool same = same_bits(*td::map_packed<small>(path, {.source = source, .log = &log}), Model{td::Seed{seed}});
        if (said.empty()) {
            CHECK(log.str().empty());
        } else {
            CHECK_THAT(log.str(), Catch::Matchers::StartsWith("packing into " + path.string()) && Contains(said));
        }
        return same;
    };
    CHECK(opens_as(3, "(not there yet)"));
    CHECK(opens_as(3, ""));
    td::save_weights(Model{td::Seed{4}}, source);
    CHECK(opens_as(4, "packed of other files: expected 'model.safetensors' of "));
    CHECK(opens_as(4, ""));
    repack_as(path, "tandem.isa", "mmx");
    CHECK(opens_as(4, "packed for another instruction set: expected "));
    write(path, bytes_of(path).substr(0, 5000));
    CHECK(opens_as(4, "(expected a header of "));
    // Another file is not written over, least of all the checkpoint itself.
    write(folder / "notes", "no safetensors");
    CHECK_THROWS_WITH(td::map_packed<small>(folder / "notes", {.source = source, .log = nullptr}),
                      Contains("notes: expected a packed model file, or none, found a file of another kind, which is left as it is"));
    CHECK(bytes_of(folder / "notes") == "no safetensors");
    CHECK_THROWS_WITH(td::map_packed<small>(source, {.source = source, .log = nullptr}), Contains("found a file of another kind"));
    CHECK(same_bits(td::load<small>(source), Model{td::Seed{4}}));
    // Where nothing can be written, the model is there all the same.
    log.str("");
    CHECK(same_bits(*td::map_packed<small>(folder / "no folder/packed", {.source = source, .log = &log}), Model{td::Seed{4}}));
    CHECK_THAT(log.str(), Contains("goes on without a packed copy: "));
    td::save_packed(Model{td::Seed{9}}, path);  // of no files
    CHECK(opens_as(4, "packed of other files: expected 'model.safetensors' of "));
    CHECK(opens_as(4, ""));
    // What is wrong with the checkpoint is said as load() says it, and the copy is not made.
    td::save_weights(td::Clip<convolutional>{td::Seed{3}}, source);
    const std::string before = bytes_of(path);
    CHECK_THROWS_WITH(opens_as(4, ""), Contains("the checkpoint does not fit the model"));
    CHECK(bytes_of(path) == before);
}

TEST_CASE("a packed copy of a folder is of what load() takes", "[models]") {
    const Folder folder;
    td::save_weights(td::Clip<small>{td::Seed{3}}, folder / "model.safetensors");
    folder.write("open_clip_config.json", R"({"model_cfg": {"embed_dim": 23,
        "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 44, "head_width": 11, "layers": 2},
        "text_cfg": {"vocab_size": 41, "context_length": 9, "width": 36, "heads": 2, "layers": 1}}})");
    // For images of another size, whose positions are resized.
    constexpr auto larger = td::with_activation(td::with_image(small, 32), td::Gelu{});
    const auto mapped = td::map_packed<larger>(folder / "packed", {.source = folder.path(), .log = nullptr});
    CHECK(same_bits(*mapped, td::load<larger>(folder.path())));
    constexpr auto wrong = td::with_activation(small, td::QuickGelu{});
    CHECK_THROWS_WITH(td::map_packed<wrong>(folder / "packed", {.source = folder.path(), .log = nullptr}), Contains("vision.activation: expected quick_gelu, found gelu"));
}

// The next test runs it in a process of its own, beside one that has the file mapped.
TEST_CASE("a second process shares a mapped file", "[models]") {
    const char* const path = std::getenv("TANDEM_TEST_PACKED");
    if (path == nullptr) return;
    const auto mapped = td::map_packed<small>(path, {.verify = true});
    CHECK(same_bits(td::Clip<small>{td::Seed{3}}, *mapped));
    CHECK(same_embeddings(td::Clip<small>{td::Seed{3}}, *mapped));
    std::ifstream maps("/proc/self/smaps");
    bool is_ours = false;
    std::size_t shared = 0, own = 0;
    for (std::string line; std::getline(maps, line);) {
        std::istringstream words(line);
        std::string name;
        std::size_t kilobytes = 0;
        words >> name;
        if (!name.ends_with(":")) is_ours = line.ends_with(path);
        if (!is_ours || !(words >> kilobytes)) continue;
        if (name == "Shared_Clean:") shared += kilobytes;
        if (name == "Private_Clean:" || name == "Private_Dirty:") own += kilobytes;
    }
    CHECK(own == 0);
    CHECK(shared * 1024 >= fs::file_size(path) / 4096 * 4096);
}

TEST_CASE("processes that map a packed file share its memory", "[models]") {
    if constexpr (std::string_view(TANDEM_TEST_EMULATOR).empty()) {
        const Folder folder;
        const fs::path path = folder / "packed";
        td::save_packed(td::Clip<small>{td::Seed{3}}, path);
        const auto mapped = td::map_packed<small>(path, {.verify = true});
        const std::string self = fs::read_symlink("/proc/self/exe").string();
        CHECK(std::system(("TANDEM_TEST_PACKED='" + path.string() + "' '" + self + "' 'a second process shares a mapped file' -w NoTests > /dev/null").c_str()) == 0);
        CHECK(same_bits(td::Clip<small>{td::Seed{3}}, *mapped));
    }
}

TEST_CASE("packed files are mapped under every instruction set", "[models]") {
    for (const td::kernels::Isa isa : available_isas()) {
        CAPTURE(td::kernels::name_of(isa));
        CHECK(run_with_isa(std::string(td::kernels::name_of(isa)), "a mapped model has the bits of the one that was packed*") == 0);
    }
}
