// Every key that a library's config takes, set in turn to another value: used, refused, or shown by the library not to
// matter (make_config_keys.py).
#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <tandem/images/preprocess_config.hpp>
#include <tandem/models/constant_of.hpp>
#include <tandem/models/model_config.hpp>
#include <tandem/models/open_clip_config.hpp>
#include <tandem/texts/any_tokenizer.hpp>
#include <tandem/texts/bpe.hpp>

#include "saved_models.hpp"

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

const std::string recorded = std::string(TANDEM_TEST_DATA) + "/models/fixtures/config_keys.jsonl";

/// What tandem makes of a config, as text.
std::string outcome(const Folder& folder, const std::string& kind, const nlohmann::json& config) {
    if (kind.find("preprocess") != std::string::npos) {
        if (kind == "open_clip preprocess") {
            nlohmann::json whole{{"model_cfg", {{"vision_cfg", {{"image_size", 64}}}}}};
            if (!config.empty()) whole["preprocess_cfg"] = config;
            folder.write("open_clip_config.json", whole.dump());
        } else {
            folder.write("preprocessor_config.json", config.dump());
        }
        const td::Preprocess recipe = td::load_preprocess(folder.path(), td::openai_preprocess(224));
        std::string text = to_string(recipe.size) + " " + std::to_string(static_cast<int>(recipe.fit)) + " " +
                           std::to_string(static_cast<int>(recipe.filter)) + " " + std::to_string(recipe.resize);
        for (std::size_t i = 0; i < 3; ++i)
            text += " " + std::to_string(recipe.mean[i]) + " " + std::to_string(recipe.deviation[i]);
        return text;
    }
    if (kind.starts_with("tokenizer ")) {
        const std::filesystem::path fixtures = std::filesystem::path(TANDEM_TEST_DATA) / "texts/fixtures";
        if (kind.ends_with(" CLIP")) {
            static const td::Bpe bpe =
                td::Bpe::load(fixtures / "bpe/bpe_simple_vocab_16e6.txt.gz", td::Cleaning::transformers);
            bpe.save(folder.path());
        } else {
            const char* const file = kind.ends_with(" Bert") ? "word_piece/vocab.txt" : "xlm_roberta/tokenizer.json";
            std::filesystem::create_symlink(fixtures / file, folder.path() / std::filesystem::path(file).filename());
        }
        folder.write("tokenizer_config.json", config.dump());
        std::string text;
        for (const char* const caption : {"A photo of a Cat", "naïve café  two", "a [MASK] <mask> <|endoftext|> b",
                                          "猫の写真 in Ａ", "don't  stop", ""}) {
            std::vector<td::Id> ids(12);
            td::open_tokenizer(folder.path()).encode(caption, ids);
            for (const td::Id id : ids) text += std::to_string(id) + " ";
        }
        return text;
    }
    const bool is_open_clip = kind == "open_clip";
    folder.write(is_open_clip ? "open_clip_config.json" : "config.json",
                 is_open_clip ? nlohmann::json{{"model_cfg", config}}.dump() : config.dump());
    std::string text;
    for (const auto& field : td::detail::stored_architecture(folder.path()))
        text += field.name + "=" + field.value + "\n";
    return text;
}

}  // namespace

TEST_CASE("every key of every config is used, refused, or shown not to matter") {
    std::ifstream file(recorded);
    REQUIRE(file);
    std::map<std::string, nlohmann::json> bases;
    std::size_t rows = 0;
    for (std::string line; std::getline(file, line);) {
        const nlohmann::json row = nlohmann::json::parse(line);
        const std::string kind = row.at("kind");
        if (row.contains("config")) {
            bases[kind] = row.at("config");
            continue;
        }
        ++rows;
        nlohmann::json config = bases.at(kind);
        const std::string base = outcome(Folder(), kind, config);
        std::string pointer = "/" + row.at("key").get<std::string>();
        std::ranges::replace(pointer, '.', '/');
        config[nlohmann::json::json_pointer(pointer)] = row.at("value");
        INFO(line);
        std::string found;
        try {
            found = outcome(Folder(), kind, config);
        } catch (const td::Error& error) {
            // It names the key, or that of the size which this value contradicts.
            const std::string key = pointer.substr(pointer.rfind('/') + 1), what = error.what();
            CHECK((what.find(key) != std::string::npos || what.find("size") != std::string::npos));
            continue;
        }
        // Here a scale may be [] or [1] whatever the config says, and precision is the caller's choice.
        if (pointer.ends_with("/nonscalar_logit_scale") || pointer.ends_with("/dtype")) continue;
        // What changes nothing here changed nothing there.
        if (found == base) CHECK(row.at("verdict") == "same");
    }
    CHECK(rows > 250);
}

TEST_CASE("a key that no class has, a word that none knows and a number in a text are refused by name") {
    const Folder folder;
    const auto refused = [&](const char* file, const std::string& config, const std::string& message) {
        folder.write(file, config);
        CHECK_THROWS_WITH(td::detail::stored_architecture(folder.path()), Contains(message));
    };
    refused("config.json", R"({"model_type": "clip", "vision_config": {"hidden_sise": 768}})",
            "config.json: the file asks for what has no counterpart here:\n  vision_config.hidden_sise = 768");
    refused("config.json", R"({"model_type": "clip", "vision_config": {"hidden_size": "768"}})",
            "expected vision_config.hidden_size = a whole number up to 2^32, found \"768\"");
    refused("config.json", R"({"model_type": "clip", "vision_config": {"layer_norm_eps": "1e-5"}})",
            "expected vision_config.layer_norm_eps = a number, found \"1e-5\"");
    refused("config.json", R"({"model_type": "clip", "text_config": {"vocab_size": 1, "vocab_size": 2}})",
            "expected every key once, found text_config.vocab_size twice");
    refused(
        "config.json",
        R"({"model_type": "clip", "quantization_config": {"load_in_8bit": true}, "text_config": {"vocab_size": 9}})",
        "quantization_config.load_in_8bit = true");
    refused("open_clip_config.json", R"({"model_cfg": {"vision_cfg": {"pool_type": "max"}, "text_cfg": {}}})",
            "expected model_cfg.vision_cfg.pool_type = tok or avg, found \"max\"");
    refused("open_clip_config.json", R"({"model_cfg": {"vision_cfg": {}, "multimodal_cfg": {"layers": 2}}})",
            "model_cfg.multimodal_cfg.layers = 2");
}

TEST_CASE("transformers' image processors have defaults of their own") {
    const Folder folder;
    const auto recipe = [&](const std::string& config) {
        folder.write("preprocessor_config.json", config);
        return td::load_preprocess(folder.path(), td::openai_preprocess(224));
    };
    const td::Preprocess vit = recipe(R"({"image_processor_type": "ViTImageProcessor"})");
    CHECK(vit.fit == td::Fit::squash);
    CHECK(vit.filter == td::Filter::bilinear);
    CHECK(vit.mean == std::array{0.5F, 0.5F, 0.5F});
    const td::Preprocess blip = recipe(R"({"image_processor_type": "BlipImageProcessorFast"})");
    CHECK(blip.fit == td::Fit::squash);
    CHECK(blip.size == 384);
    CHECK(blip.mean == td::openai_preprocess(224).mean);
    CHECK(recipe(R"({"image_processor_type": "CLIPImageProcessor", "size": [224, 224]})").fit == td::Fit::squash);
    CHECK(recipe(R"({"image_processor_type": "CLIPImageProcessor", "size": 224})").fit == td::Fit::shortest_then_crop);
    CHECK(recipe(R"({"image_processor_type": "CLIPImageProcessor", "use_square_size": true})").fit == td::Fit::squash);
    CHECK(recipe(R"({"image_processor_type": "EfficientNetImageProcessor"})").deviation[0] == Approx(0.25));
    CHECK_THROWS_WITH(recipe(R"({"image_processor_type": "LlavaImageProcessor"})"),
                      Contains("found \"LlavaImageProcessor\""));
    CHECK_THROWS_WITH(recipe(R"({"image_processor_type": "CLIPImageProcessor", "rescale_factor": "1/255"})"),
                      Contains("expected rescale_factor = a number, found \"1/255\""));
    CHECK_THROWS_WITH(recipe(R"({"image_processor_type": "CLIPImageProcessor", "do_reduce_labels": true})"),
                      Contains("do_reduce_labels = true"));
}

TEST_CASE("a constant that files tell says all of them") {
    const Folder folder;
    const auto constant = [&](const std::string& config) {
        folder.write("open_clip_config.json", R"({"model_cfg": )" + config + "}");
        return td::detail::constant_of(td::detail::stored_architecture(folder.path()));
    };
    const std::string clipa =
        constant(R"({"embed_dim": 768, "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14,
        "no_ln_pre": true, "pool_type": "avg", "final_ln_after_pool": true}, "text_cfg": {"context_length": 32, "vocab_size": 32000,
        "hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": true}, "width": 768, "heads": 12, "layers": 12,
        "pool_type": "last", "no_causal_mask": true}})");
    CHECK(
        clipa ==
        "td::ClipConfig{\n    .vision = td::VitConfig{.image = 224, .patch = 14, .width = 1024, .layers = 24, .heads = "
        "16, "
        ".no_ln_pre = true, .final_ln_after_pool = true, .pooling = td::Average{}},\n    .text = "
        "td::TextConfig{.vocabulary = "
        "32000, .context = 32, .width = 768, .layers = 12, .heads = 12, .causal = false, .pooling = td::Last{}},\n    "
        ".embedding = 768}");
    CHECK_THAT(constant(R"({"vision_cfg": {}, "text_cfg": {"pool_type": "eos", "eos_id": 2, "vocab_size": 901629}})"),
               Contains(".pooling = td::Eos{2}"));
    CHECK_THAT(
        constant(
            R"({"vision_cfg": {"width": 1152, "mlp_ratio": 3.7362, "head_width": 72}, "text_cfg": {"norm_kwargs": {"eps": 1e-6}}})"),
        Contains(".mlp_ratio = 3.7362") && Contains(".norm = td::LayerNorm{.eps = 1e-06f}"));
}
