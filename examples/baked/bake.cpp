// What baked.cpp links into itself, made of a model that examples/quickstart.sh has trained:
//   bake MODEL LABELS OUT
// MODEL is the quickstart's folder, LABELS a file with a label a line. OUT/model.safetensors is the model packed for this kind of
// CPU, OUT/words.safetensors the tokenizer's merges and the labels with their embeddings.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <tandem/tandem.hpp>

#include "../quickstart/design.hpp"
#include "baked.hpp"

namespace {

namespace td = tandem;
namespace fs = std::filesystem;

void bake(const fs::path& source, const fs::path& labels_file, const fs::path& out) {
    const std::vector<std::string> labels = baked::read_labels(labels_file);
    const auto model = td::load<quickstart::design, baked::Precision>(source / "model.safetensors");
    const td::Bpe tokenizer = td::Bpe::load(source / "tokenizer");
    const std::vector<std::string> templates{"{}"};
    const auto embeddings = td::zero_shot_classifier(model, tokenizer, labels, templates);

    std::vector<td::Id> merges;
    for (const td::Bpe::Merge& merge : tokenizer.merges()) merges.insert(merges.end(), {merge.left, merge.right});
    std::string names;
    for (const std::string& label : labels) names += label + "\n";
    const std::vector<td::StoredTensor> tensors{
        td::stored_tensor<float>("labels", {labels.size(), model.embedding}, embeddings.elements()),
        td::stored_tensor<td::Id>("merges", {merges.size() / 2, 2}, merges)};
    const bool is_open_clip = tokenizer.cleaning() == td::Cleaning::open_clip;
    const std::map<std::string, std::string> metadata{{"labels", names}, {"cleaning", is_open_clip ? "open_clip" : "transformers"}};
    fs::create_directories(out);
    td::save_packed(model, out / "model.safetensors");
    td::save_safetensors(out / "words.safetensors", tensors, metadata);
    std::fprintf(stderr, "baked %zu labels and a model for %s into %s\n", labels.size(),
                 std::string(td::kernels::name_of(td::kernels::active_isa())).c_str(), out.c_str());
}

}  // namespace

int main(int count, char** arguments) {
    try {
        if (count != 4) throw td::Error("bake", "MODEL LABELS OUT", std::to_string(count - 1) + " arguments");
        bake(arguments[1], arguments[2], arguments[3]);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "bake: %s\n", error.what());
        return 1;
    }
}
