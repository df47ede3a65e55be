// Files and folders that are given as weights: what they are is said, and what to do instead.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <tandem/files/weight_files.hpp>

namespace fs = std::filesystem;
namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

const fs::path fixtures = fs::path(TANDEM_TEST_DATA) / "files" / "fixtures" / "torch";

/// A folder that is removed again.
class Folder {
public:
    Folder() { fs::create_directories(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { fs::remove_all(path_); }

    fs::path write(const std::string& name, const std::string& contents) const {
        fs::create_directories((path_ / name).parent_path());
        std::ofstream(path_ / name, std::ios::binary) << contents;
        return path_ / name;
    }
    const fs::path& path() const { return path_; }

private:
    fs::path path_ = fs::temp_directory_path() / ("tandem_weight_files_test_" + std::to_string(::getpid()));
};

std::string fault(const fs::path& path) {
    try {
        td::WeightFiles::open(path);
    } catch (const td::Error& error) {
        CHECK(fs::path(error.where()).filename() == path.filename());
        return error.what();
    }
    return "";
}

}  // namespace

TEST_CASE("What is no weight file is named, with what to do") {
    struct Case {
        std::string name, contents, message;
    };
    const std::string zeros(300, '\0');
    std::string tar = "weights.pt" + zeros;
    tar.replace(257, 5, "ustar");
    std::string old_tar = "sys_info" + zeros;
    old_tar.replace(257, 5, "ustar");
    const std::vector<Case> cases{
        {"model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 1710540580\n",
         "a Git LFS pointer, which stands for a file that was not downloaded: run `git lfs pull`"},
        {"page.pt", "<!DOCTYPE html><html><head>404</head></html>",
         "HTML data: a page in place of the file: the download failed, or wants a login"},
        {"lower.pt", "\n<!doctype html>\n<HTML lang=\"en\">", "HTML data: a page"},
        {"error.pt", "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "SVG or XML data: a page"},
        {"text.bin", "Entry not found\n", "a text that begins 'Entry not found'"},
        {"empty.safetensors", "", "an empty file: the download or the copy failed"},
        {"config.json", "{\"model_type\": \"clip\"}", "JSON: a config has no weights: name the folder it is in"},
        {"model.gguf", "GGUF\3" + zeros, "a GGUF file: weights of llama.cpp"},
        {"model.onnx", "\x8\x8\x12\7pytorch\x1a\0052.1.0:", "an ONNX model: the weights it was exported from are read"},
        {"array.npy", "\x93NUMPY\1" + zeros, "a NumPy array (.npy): torch.save or safetensors"},
        {"tf_model.h5", "\x89HDF\r\n\x1a\n" + zeros, "an HDF5 file (Keras, TensorFlow)"},
        {"flax_model.msgpack", "\x81\xa6params\x81", "MessagePack data (Flax): the model's PyTorch weights"},
        {"model.ckpt.index", zeros + "\x57\xfb\x80\x8b\x24\x75\x47\xdb", "a part of a TensorFlow model"},
        {"model.ckpt.data-00000-of-00001", zeros, "a part of a TensorFlow model"},
        {"plain.pkl", "\x80\4\x95\x20" + zeros,
         "a pickle that torch.save did not write: load it with pickle in Python"},
        {"text.pkl", "(dp0\nS'a'\nI1\ns.", "a pickle that torch.save did not write"},
        {"files.tar", tar, "a tar archive: unpack it"},
        {"old.pt", old_tar, "a file of torch.save before PyTorch 0.2 (tar): load it with torch.load and save it again"},
        {"model.pt.gz", "\x1f\x8b\x8" + zeros, "gzip data: unpack it"},
        {"model.7z", "7z\xbc\xaf\x27\x1c" + zeros, "a 7-Zip archive: unpack it"},
        {"cat.png", "\x89PNG\r\n\x1a\n" + zeros, "found PNG data"},
        {"cat.jpg", "\xff\xd8\xff\xe0" + zeros, "found JPEG data"},
        {"__0_0.distcp", "PK\3\4" + zeros,
         "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, \"weights.pt\") makes one file of it"},
        {"noise.bin", "\xc7\x01\xfe\x93\x20\x77\xaa\x91\x4d" + zeros,
         "another kind of file, or one whose beginning is damaged"},
    };
    const Folder folder;
    for (const Case& each : cases) {
        INFO(each.name);
        CHECK_THAT(fault(folder.write(each.name, each.contents)),
                   Contains("expected weights in safetensors or of torch.save, found ") && Contains(each.message));
    }
    CHECK_THAT(fault(fixtures / "arrays.npz"), Contains("NumPy arrays (.npz)"));
    const fs::path none = folder.write("none.pt", "");
    const std::string head = "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3.\x80\2}.\x80\2";
    folder.write("none.pt", head + "}.\x80\2].");
    CHECK_THAT(
        fault(none),
        Contains(
            "a file of torch.save without tensors: save the model's, torch.save(model.state_dict(), \"weights.pt\")"));
    // Cut off within its first bytes, a safetensors file is still called one.
    CHECK_THAT(fault(folder.write("short.safetensors", std::string("\x38\0\0\0\0\0\0\0{\"w", 11))),
               Contains("expected a header of 56 bytes"));
    CHECK_THAT(fault(folder.write("shorter.safetensors", std::string("\x38\0\0", 3))),
               Contains("a file of at least 8 bytes"));
}

TEST_CASE("A safetensors file whose length looks like another kind's first bytes is read") {
    // 19,778 is "BM", as a BMP begins.
    const Folder folder;
    std::string header = R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
    header.resize(19778, ' ');
    const td::WeightFiles files =
        td::WeightFiles::open(folder.write("a.safetensors", std::string("BM\0\0\0\0\0\0", 8) + header + "x"));
    CHECK(files.find("w") != nullptr);
}

TEST_CASE("A folder without weights under a known name says what it has") {
    const Folder folder;
    const auto refused = [&](const std::string& name, const std::string& message) {
        folder.write(name, "");
        CHECK_THAT(fault(folder.path()), Contains("expected one of model.safetensors, ") &&
                                             Contains("in the folder, found ") && Contains(message));
    };
    CHECK_THAT(fault(folder.path()), Contains("found none"));
    refused("flax_model.msgpack", "none, but 'flax_model.msgpack', which is another format");
    refused("saved_model.pb", "a folder of a TensorFlow model");
    refused("epoch_2.pt", "none, but 'epoch_2.pt': name the file");
    refused("epoch_1.pt", "none, but 'epoch_1.pt', 'epoch_2.pt': name the file");
    refused("zero_to_fp32.py", "a folder of DeepSpeed's: `python zero_to_fp32.py . weights`");
    refused(".metadata",
            "a folder of a distributed checkpoint (torch.distributed.checkpoint): "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save");
}

TEST_CASE("What stands beside a state_dict and what cannot be read is told") {
    const td::WeightFiles files = td::WeightFiles::open(fixtures / "ema.pt");
    REQUIRE(files.others().size() == 1);
    CHECK(files.others()[0].name == "state_dict_ema.weight");
    CHECK(files.find("weight") != nullptr);
    CHECK(files.find("state_dict_ema.weight") == nullptr);
    CHECK(files.unreadable().empty());
    CHECK(files.unreadable_others().size() == 1);
    for (const td::StoredTensor& each : files.tensors()) files.forget(each);
    for (const td::StoredTensor& each : files.others()) {
        files.forget(each);
        std::vector<float> values(2);
        td::read_elements(each, std::span(values));
        CHECK(values == std::vector<float>{1, 1});
    }
    const td::WeightFiles kinds = td::WeightFiles::open(fixtures / "kinds.pt");
    CHECK(kinds.find("coo") == nullptr);
    REQUIRE(kinds.find_unreadable("coo") != nullptr);
    CHECK(kinds.find_unreadable("coo")->reason == "a sparse tensor; save it as tensor.to_dense()");
    CHECK(kinds.find_unreadable("weight") == nullptr);
}

TEST_CASE("Shards of torch.save are read by their index, tensors that cannot be read too") {
    const Folder folder;
    const auto copied = [](const char* name) {
        std::ifstream file(fixtures / name, std::ios::binary);
        return std::string{std::istreambuf_iterator<char>(file), {}};
    };
    folder.write("1.bin", copied("kinds.pt"));
    folder.write("2.bin", copied("attributes.pt"));
    const fs::path index = folder.write("pytorch_model.bin.index.json",
                                        R"({"weight_map": {"weight": "1.bin", "coo": "1.bin", "parameter": "2.bin"}})");
    const td::WeightFiles files = td::WeightFiles::open(index);
    CHECK(files.find("weight") != nullptr);
    CHECK(files.find("parameter") != nullptr);
    CHECK(files.find_unreadable("coo") != nullptr);
    folder.write("pytorch_model.bin.index.json", "version https://git-lfs.github.com/spec/v1\n");
    CHECK_THAT(fault(index), Contains("expected the JSON index of shards, found a Git LFS pointer"));
}
