// Folders of weights with their configs, shards, and positions of images of another size.
#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/zoo.hpp>

#include "saved_models.hpp"

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

inline constexpr td::ClipConfig small{
    .vision =
        td::VitConfig{.image = 16, .patch = 4, .width = 48, .layers = 1, .heads = 3, .activation = td::QuickGelu{}},
    .text =
        td::TextConfig{
            .vocabulary = 40, .context = 9, .width = 32, .layers = 1, .heads = 2, .activation = td::QuickGelu{}},
    .embedding = 24};
using Model = td::Clip<small>;

const std::string transformers_config = R"({"model_type": "clip", "projection_dim": 24,
    "vision_config": {"image_size": 16, "patch_size": 4, "hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 1,
                      "num_attention_heads": 3},
    "text_config": {"vocab_size": 40, "max_position_embeddings": 9, "hidden_size": 32, "intermediate_size": 128,
                    "num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": 39}})";
const std::string open_clip_config = R"({"model_cfg": {"embed_dim": 24, "quick_gelu": true,
    "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 48, "head_width": 16, "layers": 1},
    "text_cfg": {"vocab_size": 40, "context_length": 9, "width": 32, "heads": 2, "layers": 1}},
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a folder whose config contradicts the architecture is refused, both values named") {
    const Folder folder;
    td::save_weights(Model{td::Seed{3}}, folder / "model.safetensors");
    const auto refused = [&](const char* file, const std::string& config, const std::string& message) {
        folder.write(file, config);
        CHECK_THROWS_WITH(td::load<small>(folder.path()),
                          Contains("the checkpoint's config does not fit the architecture:\n  " + message));
    };
    folder.write("config.json", transformers_config);
    CHECK(same_bits(td::load<small>(folder.path()), Model{td::Seed{3}}));
    refused("config.json", replaced(transformers_config, R"("image_size": 16)", R"("hidden_act": "gelu")"),
            "vision.activation: expected quick_gelu, found gelu (config.json, vision_config.hidden_act)\n  "
            "with_activation");
    refused("config.json", replaced(transformers_config, R"("num_attention_heads": 3)", R"("num_attention_heads": 6)"),
            "vision.heads: expected 3, found 6");
    refused("config.json", replaced(transformers_config, R"("eos_token_id": 39)", R"("eos_token_id": 7)"),
            "text.pooling: expected argmax, found eos (config.json, text_config.eos_token_id)");
    refused("config.json", replaced(transformers_config, R"(, "num_attention_heads": 2)", ""),
            "text.heads: expected 2, found 8 (config.json, text_config.num_attention_heads by default)");
    refused("config.json",
            replaced(transformers_config, R"("vocab_size": 40)", R"("vocab_size": 40, "layer_norm_eps": 1e-06)"),
            "text.norm.eps: expected 1e-05, found 1e-06");
    refused("config.json",
            replaced(transformers_config, R"("vocab_size": 40)", R"("vocab_size": 40, "layer_norm_eps": 1.0005e-05)"),
            "text.norm.eps: expected 1e-05, found 1.0005e-05");
    refused("config.json", replaced(transformers_config, R"("projection_dim": 24)", R"("projection_dim": 512)"),
            "embedding: expected 24, found 512");
    refused("config.json",
            replaced(replaced(transformers_config, R"("clip")", R"("siglip")"), R"("projection_dim": 24,)", ""),
            "vision.activation: expected quick_gelu, found gelu_pytorch_tanh");

    folder.write("open_clip_config.json", open_clip_config);
    CHECK_NOTHROW(td::load<small>(folder.path()));
    refused("open_clip_config.json", replaced(open_clip_config, R"("quick_gelu": true,)", ""),
            "vision.activation: expected quick_gelu, found gelu");
    refused("open_clip_config.json",
            replaced(open_clip_config, R"("heads": 2)", R"("heads": 2, "no_causal_mask": true)"),
            "text.causal: expected true, found false");
    refused("open_clip_config.json", replaced(open_clip_config, R"("heads": 2)", R"("heads": 2, "pool_type": "last")"),
            "text.pooling: expected argmax, found last");
    refused("open_clip_config.json",
            replaced(open_clip_config, R"("patch_size": 4, "width": 48)",
                     R"("timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none")"),
            "vision.patch: expected 4, found 16 (open_clip_config.json, model_cfg.vision_cfg.timm_model_name)");
}

TEST_CASE("a folder that is no checkpoint says why") {
    const Folder folder;
    CHECK_THROWS_WITH(td::load<small>(folder.path()),
                      Contains("expected one of model.safetensors, open_clip_model.safetensors"));
    folder.write("config.json", R"({"model_type": "flava"})");
    CHECK_THROWS_WITH(td::load<small>(folder.path()),
                      Contains("config.json: expected model_type = clip, siglip, align, "));
    folder.write("config.json", "{\"model_type\": ");
    CHECK_THROWS_WITH(td::load<small>(folder.path()),
                      Contains("config.json: expected a JSON object, found a fault at byte 15"));
}

TEST_CASE("weights of float64 are rounded to the model's precision") {
    const Folder folder;
    // A third has more digits than a float.
    td::Clip<small, double> exact{td::Seed{3}};
    const auto divide = [](const std::string&, auto& parameter) {
        if constexpr (requires { parameter.data(); }) {
            for (auto& x : parameter.elements()) x /= 3;
        }
    };
    td::for_each_parameter(divide, exact);
    td::save_weights(exact, folder / "double.safetensors");
    CHECK(same_bits(td::load<small, double>(folder / "double.safetensors"), exact));
    const auto as_float = [](const auto& model) {
        std::vector<float> values;
        td::for_each_parameter(
            [&](const std::string&, const auto& parameter) {
                const auto& rows = td::to_row_major(parameter);
                for (const auto x : rows.elements()) values.push_back(static_cast<float>(x));
            },
            model);
        return values;
    };
    CHECK(as_float(td::load<small>(folder / "double.safetensors")) == as_float(exact));
    CHECK_NOTHROW(td::load<small, td::bf16>(folder / "double.safetensors"));
    CHECK_NOTHROW(td::load<small, td::int8>(folder / "double.safetensors"));
}

TEST_CASE("tensors that cannot be weights are named with their kind, whether asked for or not") {
    const fs::path file = fs::path(TANDEM_TEST_DATA) / "files" / "fixtures" / "torch" / "unreadable.pt";
    CHECK_THROWS_WITH(td::load<small>(file),
                      Contains("\n  text_projection: a sparse tensor; save it as tensor.to_dense()\n") &&
                          Contains("\n  logit_scale: a tensor on the meta device, which has no elements") &&
                          Contains("\n  positional_embedding: expected elements of F64, F32, F16 or BF16, found "
                                   "F8_E4M3; save it as tensor.float()") &&
                          Contains("\n  extra: unexpected, a sparse tensor") && !Contains("array"));
}

TEST_CASE("on demand, weights that are not finite are refused") {
    const Folder folder;

    const auto spoiled = [&]<class T>(T) {
        td::Clip<small, T> model{td::Seed{3}};
        td::for_each_parameter(
            [](const std::string& name, auto& parameter) {
                if constexpr (requires { parameter.data(); }) {
                    using E = std::remove_cvref_t<decltype(parameter.data()[0])>;
                    if (name == "token_embedding.weight") {
                        parameter.data()[3] = static_cast<E>(std::numeric_limits<float>::quiet_NaN());
                        parameter.data()[7] = static_cast<E>(-std::numeric_limits<float>::infinity());
                    }
                }
            },
            model);
        td::save_weights(model, folder / "spoiled.safetensors");
        CHECK_THROWS_WITH(
            (td::load<small, T>(folder / "spoiled.safetensors", {.check_finite = true})),
            Contains("token_embedding.weight: expected finite elements, found 2 that are infinite or NaN"));
        CHECK_NOTHROW(td::load<small, T>(folder / "spoiled.safetensors"));
    };
    spoiled(float{});
    spoiled(td::bf16{});
    spoiled(double{});
    td::save_weights(Model{td::Seed{3}}, folder / "sound.safetensors");
    CHECK_NOTHROW(td::load<small>(folder / "sound.safetensors", {.check_finite = true}));
}

TEST_CASE("a sharded checkpoint loads, and says what is missing") {
    const Folder folder;
    const Model model{td::Seed{3}};
    td::save_weights(model, folder / "whole.safetensors");
    const td::Safetensors whole = td::Safetensors::open(folder / "whole.safetensors");
    std::vector<td::StoredTensor> shards[2];
    std::string map;
    for (std::size_t i = 0; i < whole.tensors().size(); ++i) {
        const td::StoredTensor& tensor = whole.tensors()[i];
        shards[i % 2].push_back(tensor);
        map += (map.empty() ? "" : ", ") + ("\"" + tensor.name + "\": \"" + std::to_string(i % 2) + ".safetensors\"");
    }
    td::save_safetensors(folder / "0.safetensors", shards[0]);
    td::save_safetensors(folder / "1.safetensors", shards[1]);
    folder.write("model.safetensors.index.json", "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {" + map + "}}");
    CHECK(same_bits(td::load<small>(folder.path()), model));
    CHECK(same_bits(td::load<small>(folder / "model.safetensors.index.json"), model));

    const td::StoredTensor lost = shards[1].back();
    shards[1].pop_back();
    td::save_safetensors(folder / "1.safetensors", shards[1]);
    CHECK_THROWS_WITH(td::load<small>(folder.path()),
                      Contains("1.safetensors: expected tensor '" + lost.name + "', which the index says it has"));
    fs::remove(folder / "1.safetensors");
    CHECK_THROWS_WITH(td::load<small>(folder.path()),
                      Contains("index.json: expected shard 1.safetensors beside the index, with " +
                               std::to_string(shards[1].size() + 1) + " of the tensors, found no such file"));
    folder.write("model.safetensors.index.json", R"({"weight_map": {"logit_scale": "../1.safetensors"}})");
    CHECK_THROWS_WITH(td::load<small>(folder.path()),
                      Contains("expected shards beside the index, found '../1.safetensors'"));
    folder.write("model.safetensors.index.json", "{}");
    CHECK_THROWS_WITH(td::load<small>(folder.path()), Contains("expected a weight_map"));
}

TEST_CASE("positions for another image size are resized as open_clip resizes them") {
    const Folder folder;
    const td::Safetensors golden =
        td::Safetensors::open(fs::path(TANDEM_TEST_DATA) / "models" / "fixtures" / "positions.safetensors");
    td::save_weights(Model{td::Seed{3}}, folder / "model.safetensors");
    const td::Safetensors saved = td::Safetensors::open(folder / "model.safetensors");
    std::vector<td::StoredTensor> tensors(saved.tensors().begin(), saved.tensors().end());
    for (td::StoredTensor& tensor : tensors) {
        if (tensor.name == "visual.positional_embedding") tensor.data = golden.find("4")->data;
    }
    td::save_safetensors(folder / "golden.safetensors", tensors);

    const auto positions = [&](const auto& model) {
        std::vector<float> values;
        td::for_each_parameter(
            [&](const std::string& name, const auto& parameter) {
                if (name != "visual.positional_embedding") return;
                const auto& rows = td::to_row_major(parameter);
                values.assign(rows.elements().begin(), rows.elements().end());
            },
            model);
        return values;
    };
    const auto check = [&](const std::vector<float>& found, const char* name) {
        std::vector<float> expected(found.size());
        td::read_elements(*golden.find(name), std::span(expected));
        // PyTorch sums 4 to 16 products of about 1 in float32.
        for (std::size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == Approx(expected[i]).margin(1e-6));
    };
    check(positions(td::load<small>(folder / "golden.safetensors")), "4");
    check(positions(td::load<td::with_image(small, 12)>(folder / "golden.safetensors")), "3");
    check(positions(td::load<td::with_image(small, 28)>(folder / "golden.safetensors")), "7");
    check(positions(td::load<td::with_image(small, {12, 24})>(folder / "golden.safetensors")), "3x6");

    for (td::StoredTensor& tensor : tensors) {
        if (tensor.name != "visual.positional_embedding") continue;
        tensor.shape[0] = 16;  // no square behind the class token
        tensor.data = tensor.data.first(16 * 48 * sizeof(float));
    }
    td::save_safetensors(folder / "odd.safetensors", tensors);
    CHECK_THROWS_WITH(td::load<small>(folder / "odd.safetensors"),
                      Contains("visual.positional_embedding: expected [17, 48], found [16, 48]"));
}
