// Prints an open_clip model config (open_clip/model_configs/NAME.json, or a checkpoint's open_clip_config.json) as a
// tandem constant, or names the fields that have no counterpart.
//   config_from_open_clip FILE.json
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace {

using Json = nlohmann::json;

/// One object of the file: its fields are read, each once, and those that nobody reads are faults.
class Fields {
public:
    Fields(std::string where, const Json& object, std::vector<std::string>& faults)
        : where_(std::move(where)), object_(object), faults_(faults) {}

    bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

    template <class T>
    T get(const char* key, T otherwise) {
        read_.insert(key);
        if (!has(key)) return otherwise;
        try {
            return object_.at(key).get<T>();
        } catch (const Json::exception&) {
            fault(key, "");
            return otherwise;
        }
    }

    /// A field that says nothing about the architecture.
    void ignore(const char* key) { read_.insert(key); }

    /// A field that only has a counterpart at one value.
    void require(const char* key, const Json& value) {
        read_.insert(key);
        if (has(key) && object_.at(key) != value) fault(key, "");
    }

    void fault(const char* key, const std::string& why) {
        faults_.push_back(where_ + key + " = " + object_.at(key).dump() + (why.empty() ? "" : ": " + why));
    }

    void finish() {
        for (const auto& [key, value] : object_.items()) {
            if (!read_.contains(key) && !value.is_null() && value != false) fault(key.c_str(), "");
        }
    }

    const Json& operator[](const char* key) const { return object_.at(key); }

private:
    std::string where_;
    const Json& object_;
    std::vector<std::string>& faults_;
    std::set<std::string> read_;
};

/// An image_size, a number or [height, width], as a config's field.
std::string image_text(Fields& cfg) {
    const Json size = cfg.get("image_size", Json(224));
    if (size.is_number_integer()) return size.dump();
    const bool is_pair = size.is_array() && size.size() == 2 && size[0].is_number_integer() && size[1].is_number_integer();
    if (!is_pair) {
        cfg.fault("image_size", "a number, or height and width");
        return "";
    }
    return size[0] == size[1] ? size[0].dump() : "{" + size[0].dump() + ", " + size[1].dump() + "}";
}

std::string number(double value) {
    const Json text = value;
    return text.dump();
}

/// The fields that both towers have, in the order of tandem's configs; `sizes` come first, `middle` before the block's.
std::string tower(Fields& cfg, std::string sizes, const std::string& middle, const std::string& dropout,
                  const std::string& pooling, bool quick_gelu) {
    if (const double ratio = cfg.get("mlp_ratio", 4.0); ratio != 4.0) sizes += ", .mlp_ratio = " + number(ratio);
    sizes += middle;
    if (cfg.get("qk_norm", false)) sizes += ", .qk_norm = true";
    if (const double scale = cfg.get("ls_init_value", 0.0); scale != 0) sizes += ", .ls_init_value = " + number(scale);
    sizes += dropout;
    Json norm = cfg.get("norm_kwargs", Json::object()), act = cfg.get("act_kwargs", Json::object());
    if (norm.contains("eps")) {
        sizes += ", .norm = td::LayerNorm{.eps = " + norm["eps"].dump() + "f}";
        norm.erase("eps");
    }
    if (!norm.empty()) cfg.fault("norm_kwargs", "only eps has a counterpart");
    if (act.value("approximate", "none") == "tanh" && !quick_gelu) sizes += ", .activation = td::TanhGelu{}";
    act.erase("approximate");
    if (!act.empty()) cfg.fault("act_kwargs", "only approximate has a counterpart");
    if (quick_gelu) sizes += ", .activation = td::QuickGelu{}";
    for (const char* key : {"scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "output_tokens"})
        cfg.require(key, false);
    cfg.ignore("block_type");  // follows from the options
    return sizes + pooling + "}";
}

/// SigLIP's image towers, which timm names by their sizes (timm/models/vision_transformer.py); empty for any other tower.
std::string siglip_text(Fields& cfg) {
    static const std::regex form("vit_(base|large|so400m|giantopt)_patch([0-9]+)_siglip_([0-9]+)");
    const auto name = cfg.get<std::string>("timm_model_name", "");
    std::smatch parts;
    if (!std::regex_match(name, parts, form)) return "";
    const std::string kind = parts[1], patch = parts[2];
    const std::string sizes = kind == "base"    ? ".width = 768, .layers = 12, .heads = 12"
                              : kind == "large" ? ".width = 1024, .layers = 24, .heads = 16"
                              : kind == "so400m"
                                  ? ".width = 1152, .layers = 27, .heads = 16, .mlp_ratio = 3.7362"
                                  : ".width = 1536, .layers = 40, .heads = 16";
    // Those first trained for SigLIP 2 say act_layer = 'gelu_tanh'; the others are shared with SigLIP's.
    const bool is_tanh = patch == "32" || (kind == "large" && parts[3] == "512") || (kind == "so400m" && patch == "16") ||
                         kind == "giantopt";
    const int image = cfg.get("image_size", std::stoi(parts[3]));
    const std::string floor = image % std::stoi(patch) != 0 ? ", .floor_patches = true" : "";
    cfg.require("timm_pool", "map");
    cfg.require("timm_proj", "none");
    for (const char* key : {"timm_drop", "timm_drop_path", "patch_dropout"}) cfg.require(key, 0);
    cfg.ignore("timm_model_pretrained");
    return "td::VitConfig{.image = " + std::to_string(image) + ", .patch = " + patch + ", " + sizes +
           ", .class_token = false, .no_ln_pre = true, .patch_bias = true" + floor +
           ", .proj_type = td::Projection::none, .norm = td::LayerNorm{.eps = 1e-06f}" +
           (is_tanh ? ", .activation = td::TanhGelu{}" : "") + ", .pooling = td::AttentionPool{}}";
}

/// A ModifiedResNet; its heads are 64 wide unless the config says otherwise. It has no GELU.
std::string resnet_text(Fields& cfg) {
    if (cfg["layers"].size() != 4) cfg.fault("layers", "a ResNet has 4 stages");
    if (cfg.has("image_size") && cfg["image_size"].is_array()) cfg.fault("image_size", "a ResNet's images are square");
    std::string layers;
    for (const int blocks : cfg.get("layers", std::vector<int>{})) layers += (layers.empty() ? "" : ", ") + std::to_string(blocks);
    const int head_width = cfg.get("head_width", 64);
    cfg.ignore("patch_size");
    return "td::ResNetConfig{.image = " + image_text(cfg) + ", .layers = {" + layers + "}, .width = " +
           std::to_string(cfg.get("width", 64)) + (head_width == 64 ? "" : ", .head_width = " + std::to_string(head_width)) + "}";
}

std::string vision_text(Fields& cfg, bool quick_gelu) {
    if (std::string siglip = siglip_text(cfg); !siglip.empty()) return siglip;
    if (cfg.has("timm_model_name")) {
        cfg.fault("timm_model_name", "another kind of tower");
        return "";
    }
    if (cfg.has("layers") && cfg["layers"].is_array()) return resnet_text(cfg);
    const int width = cfg.get("width", 768), head_width = cfg.get("head_width", 64);
    if (head_width <= 0 || width % head_width != 0) cfg.fault("head_width", "width must be a multiple of it");
    std::string sizes = "td::VitConfig{.image = " + image_text(cfg) + ", .patch = " + std::to_string(cfg.get("patch_size", 16)) +
                        ", .width = " + std::to_string(width) + ", .layers = " + std::to_string(cfg.get("layers", 12)) +
                        ", .heads = " + std::to_string(width / std::max(1, head_width));
    std::string middle, dropout, pooling;
    const auto positions = cfg.get<std::string>("pos_embed_type", "learnable");
    if (positions == "sin_cos_2d") {
        middle += ", .pos_embed_type = td::PosEmbed::sin_cos_2d";
    } else if (positions != "learnable") {
        cfg.fault("pos_embed_type", "");
    }
    if (cfg.get("no_ln_pre", false)) middle += ", .no_ln_pre = true";
    if (cfg.get("final_ln_after_pool", false)) middle += ", .final_ln_after_pool = true";
    if (const double share = cfg.get("patch_dropout", 0.0); share != 0) dropout = ", .patch_dropout = " + number(share);
    const auto pool = cfg.get<std::string>("pool_type", "tok");
    if (pool == "avg") {
        pooling = ", .pooling = td::Average{}";
    } else if (pool != "tok") {
        cfg.fault("pool_type", "tok and avg have counterparts");
    }
    cfg.require("attentional_pool", false);
    for (const char* key : {"attn_pooler_queries", "attn_pooler_heads"}) cfg.ignore(key);
    return tower(cfg, sizes, middle, dropout, pooling, quick_gelu);
}

std::string text_text(Fields& cfg, bool quick_gelu) {
    if (cfg.has("hf_model_name")) {
        cfg.fault("hf_model_name", "another kind of tower");
        return "";
    }
    std::string sizes = "td::TextConfig{.vocabulary = " + std::to_string(cfg.get("vocab_size", 49408)) +
                        ", .context = " + std::to_string(cfg.get("context_length", 77)) +
                        ", .width = " + std::to_string(cfg.get("width", 512)) +
                        ", .layers = " + std::to_string(cfg.get("layers", 12)) +
                        ", .heads = " + std::to_string(cfg.get("heads", 8));
    std::string middle, pooling;
    if (cfg.get("no_causal_mask", false)) middle += ", .causal = false";
    if (cfg.get("final_ln_after_pool", false)) middle += ", .final_ln_after_pool = true";
    const auto pool = cfg.get<std::string>("pool_type", "argmax");
    if (pool == "last" || pool == "first") {
        pooling = std::string(", .pooling = td::") + (pool == "last" ? "Last{}" : "First{}");
    } else if (pool != "argmax") {
        cfg.fault("pool_type", "argmax, first and last have counterparts");
    }
    cfg.require("embed_cls", false);
    std::string projection;
    const auto type = cfg.get<std::string>("proj_type", "linear");
    if (type == "none") {
        projection = ", .proj_type = td::Projection::none";
    } else if (type != "linear") {
        cfg.fault("proj_type", "linear and none have counterparts");
    }
    if (cfg.get("proj_bias", false) && type == "linear") projection += ", .proj_bias = true";
    // The tokenizer's, and what only a class token or pool_type "eos" reads.
    for (const char* key : {"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "pad_id", "eos_id"}) cfg.ignore(key);
    return tower(cfg, sizes, middle, projection, pooling, quick_gelu);
}

/// The name of the file as a C++ name: ViT-B-32 becomes vit_b_32.
std::string constant_name(const std::filesystem::path& path) {
    std::string name;
    for (const char c : path.stem().string()) {
        const auto byte = static_cast<unsigned char>(c);
        name += std::isalnum(byte) ? static_cast<char>(std::tolower(byte)) : '_';
    }
    return name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) ? "model_" + name : name;
}

int translate(const std::filesystem::path& path) {
    std::ifstream file(path);
    if (!file) {
        std::fprintf(stderr, "%s: cannot be read\n", path.c_str());
        return 1;
    }
    Json root = Json::parse(file);
    if (root.contains("model_cfg")) root = Json(root["model_cfg"]);
    if (!root.is_object() || !root.contains("vision_cfg") || !root.contains("text_cfg")) {
        std::fprintf(stderr, "%s: expected an open_clip model config, with vision_cfg and text_cfg\n", path.c_str());
        return 1;
    }
    std::vector<std::string> faults;
    Fields top("", root, faults), vision("vision_cfg.", root["vision_cfg"], faults), text("text_cfg.", root["text_cfg"], faults);
    const bool quick_gelu = top.get("quick_gelu", false);
    const std::string image = vision_text(vision, quick_gelu), caption = text_text(text, quick_gelu);
    const int embedding = top.get("embed_dim", 512);
    const bool has_bias = top.has("init_logit_bias");
    // How the model is held and where its scale starts are not the architecture's.
    for (const char* key : {"vision_cfg", "text_cfg", "custom_text", "init_logit_bias", "init_logit_scale"}) top.ignore(key);
    top.finish();
    if (!image.empty()) vision.finish();
    if (!caption.empty()) text.finish();
    if (!faults.empty()) {
        std::fprintf(stderr, "%s: no counterpart in tandem for\n", path.c_str());
        for (const std::string& fault : faults) std::fprintf(stderr, "  %s\n", fault.c_str());
        return 1;
    }
    std::printf("inline constexpr td::ClipConfig %s{\n    .vision = %s,\n    .text = %s,\n    .embedding = %d%s};\n",
                constant_name(path).c_str(), image.c_str(), caption.c_str(), embedding,
                has_bias ? ",\n    .logit_bias = true" : "");
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    const std::string_view first = count > 1 ? arguments[1] : "";
    const bool helps = first == "--help" || first == "-h";
    if (helps || count != 2 || first.empty() || first.starts_with("--")) {
        std::fprintf(helps ? stdout : stderr,
                     "config_from_open_clip FILE.json: prints an open_clip model config as a tandem constant\n");
        if (!helps && count > 1)
            std::fprintf(stderr, "expected the name of a file, found %d arguments, \"%s\" first\n", count - 1,
                         arguments[1]);
        return helps ? 0 : 2;
    }
    try {
        return translate(arguments[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", arguments[1], error.what());
        return 1;
    }
}
