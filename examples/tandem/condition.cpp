// What image generators and language models read of a CLIP, into a file that they take.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include <tandem/files/safetensors.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/tasks/conditioning.hpp>
#include <tandem/tasks/head.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"

namespace program {

namespace {

nlohmann::json read_json(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw td::Error(path.string(), "cannot read the file");
    nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
    if (!json.is_object()) throw td::Error(path.string(), "a JSON object", "something else");
    return json;
}

/// What is written: rows of floats under the names that the reader's arguments have.
class Output {
public:
    void add(const std::string& name, std::vector<std::size_t> shape, std::vector<float> values) {
        values_.push_back(std::move(values));
        named_.push_back({name, std::move(shape)});
    }
    void save(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata) const {
        std::vector<td::StoredTensor> tensors;
        auto values = values_.begin();
        for (const auto& [name, shape] : named_) {
            if (!is_finite(*values)) throw td::Error(name, "finite numbers from the model", "infinities or NaN");
            tensors.push_back(td::stored_tensor<float>(name, shape, std::span(*values++)));
        }
        td::save_safetensors(path, tensors, metadata);
        for (const auto& [name, shape] : named_) {
            std::string sides;
            for (const std::size_t side : shape) sides += (sides.empty() ? "" : " x ") + std::to_string(side);
            std::printf("%s: %s\n", name.c_str(), sides.c_str());
        }
    }

private:
    std::vector<std::vector<float>> values_;
    std::vector<std::pair<std::string, std::vector<std::size_t>>> named_;
};

/// A part of a pipeline's folder, opened as a command line says.
Opened open_part(const Arguments& arguments, const char* encoder, const char* tokenizer, td::Towers towers) {
    Arguments own = arguments;
    const std::filesystem::path pipeline = arguments.require("--pipeline");
    own.set("--weights", (pipeline / encoder).string());
    if (tokenizer != nullptr) own.set("--tokenizer", (pipeline / tokenizer).string());
    if (!std::filesystem::is_directory(pipeline / encoder))
        throw td::Error(pipeline.string(), std::string("the folder ") + encoder + " of a pipeline", "none");
    return open(own, towers);
}

void add_prompt(Output& out, const std::string& before, const td::PromptCondition& found) {
    out.add(before + "prompt_embeds", {1, found.tokens, found.width}, found.embeds);
    if (found.pooled_width > 0) out.add(before + "pooled_prompt_embeds", {1, found.pooled_width}, found.pooled);
}

void stable_diffusion(const Arguments& arguments, Output& out) {
    const std::vector<std::string> wanted{arguments.require("--prompt")}, unwanted{arguments.get("--negative")};
    const std::size_t skip = arguments.number("--clip-skip", 0, 100, 0);
    const Opened opened = open_part(arguments, "text_encoder", "tokenizer", td::Towers::text);
    add_prompt(out, "", td::stable_diffusion_condition(opened.clip, *opened.tokenizer, wanted, skip));
    add_prompt(out, "negative_", td::stable_diffusion_condition(opened.clip, *opened.tokenizer, unwanted));
}

void stable_diffusion_xl(const Arguments& arguments, Output& out) {
    const std::vector<std::string> wanted{arguments.require("--prompt")}, unwanted{arguments.get("--negative")};
    const std::size_t wanted_skip = arguments.number("--clip-skip", 0, 100, 0);
    const Opened first = open_part(arguments, "text_encoder", "tokenizer", td::Towers::text);
    const Opened second = open_part(arguments, "text_encoder_2", "tokenizer_2", td::Towers::text);
    const auto condition = [&](const std::vector<std::string>& prompts, std::size_t skip) {
        return td::sdxl_condition(first.clip, *first.tokenizer, second.clip, *second.tokenizer, prompts, skip);
    };
    add_prompt(out, "", condition(wanted, wanted_skip));
    const std::filesystem::path index = std::filesystem::path(arguments.get("--pipeline")) / "model_index.json";
    const bool zero_for_none = std::filesystem::exists(index) ? read_json(index).value("force_zeros_for_empty_prompt", true) : true;
    td::PromptCondition found = condition(unwanted, 0);
    // An empty one that is asked for is embedded.
    if (zero_for_none && !arguments.has("--negative")) {
        std::ranges::fill(found.embeds, 0.0F);
        std::ranges::fill(found.pooled, 0.0F);
    }
    add_prompt(out, "negative_", found);
}

/// A tensor of a file, whatever its leading sides of 1.
std::vector<float> read_vector(const std::filesystem::path& path, const char* name, std::size_t width) {
    const td::WeightFiles files = td::WeightFiles::open(path);
    const td::StoredTensor* const tensor = files.find(name);
    if (tensor == nullptr) throw td::Error(path.string(), std::string("a tensor ") + name, "none");
    std::size_t size = 1;
    for (const std::size_t side : tensor->shape) size *= side;
    if (size != width) throw td::Error(path.string(), std::string(name) + " of " + std::to_string(width) + " numbers", std::to_string(size));
    std::vector<float> values(width);
    td::read_elements(*tensor, std::span(values));
    return values;
}

std::vector<float> pixels_of(const Opened& opened, const td::Image& picture, const std::string& name) {
    std::vector<float> pixels(opened.preprocess.count());
    to_pixels(opened, picture, name, pixels);
    return pixels;
}

void unclip(const Arguments& arguments, Output& out) {
    const std::filesystem::path pipeline = arguments.require("--pipeline");
    const std::string picture = arguments.require("--image");
    Opened opened = open_part(arguments, "image_encoder", nullptr, td::Towers::image);
    if (const auto own = pipeline / "feature_extractor"; std::filesystem::is_directory(own)) opened.preprocess = td::load_preprocess(own, opened.preprocess);
    const std::filesystem::path scheduler = pipeline / "image_noising_scheduler" / "scheduler_config.json";
    const nlohmann::json config = read_json(scheduler);
    const std::string schedule = config.value("beta_schedule", std::string("linear"));
    if (schedule != "squaredcos_cap_v2") throw td::Error(scheduler.string(), "beta_schedule squaredcos_cap_v2, which is what unCLIP is trained with", schedule);
    const std::vector<double> alphas = td::cosine_alphas(config.value("num_train_timesteps", std::size_t{1000}));
    const std::size_t width = opened.clip.sizes().embedding;
    std::filesystem::path normalizer = pipeline / "image_normalizer" / "diffusion_pytorch_model.safetensors";
    if (!std::filesystem::exists(normalizer)) normalizer.replace_extension(".bin");
    const auto embedding = opened.clip.encode_image(pixels_of(opened, read_picture(opened, picture), picture), false);
    std::vector<float> noise(width);
    if (arguments.has("--noise")) {
        noise = read_vector(arguments.get("--noise"), "noise", width);
    } else {
        td::Random random(arguments.seed());
        for (float& value : noise) value = static_cast<float>(random.normal());
    }
    out.add("image_embeds", {1, 2 * width},
            td::unclip_condition({embedding.data(), width}, noise, read_vector(normalizer, "mean", width), read_vector(normalizer, "std", width),
                                 arguments.number("--noise-level", 0, 1'000'000, 0), alphas));
}

void llava(const Arguments& arguments, Output& out) {
    const std::string name = arguments.require("--image");
    const Opened opened = open(arguments, td::Towers::image);
    const td::ModelSizes& sizes = opened.clip.sizes();
    if (sizes.image_tokens == 0) throw td::Error(weights_of(arguments).string(), "an image tower that is a transformer", sizes.architecture);
    td::Image picture = read_picture(opened, name);
    if (arguments.has("--pad")) {
        // int(255 · mean), as LLaVA's process_images has it.
        const auto level = [&](std::size_t c) { return static_cast<std::uint8_t>(255 * opened.preprocess.mean[c]); };
        picture = td::pad_to_square(picture, {level(0), level(1), level(2)});
    }
    const auto tokens = opened.clip.image_tokens(pixels_of(opened, picture, name), arguments.layer("--layer", -2));
    const std::size_t patches = sizes.image_tokens - sizes.image_prefix;
    std::vector<float> features(tokens.data() + sizes.image_prefix * sizes.image_width, tokens.data() + tokens.size());
    std::size_t width = sizes.image_width;
    if (arguments.has("--projector")) {
        const td::Head projector = td::Head::load_projector(arguments.get("--projector"));
        if (projector.in() != width)
            throw td::Error(arguments.get("--projector"), "a projector of " + std::to_string(width) + " inputs, as wide as the tower", std::to_string(projector.in()));
        features = projector(features);
        width = projector.out();
    }
    out.add("image_features", {1, patches, width}, std::move(features));
}

int run(const Arguments& arguments) {
    const std::string kind = arguments.operand();
    if (kind != "sd" && kind != "sdxl" && kind != "unclip" && kind != "llava") throw UsageError("KIND", "sd, sdxl, unclip or llava", kind);
    struct Only {
        const char* option;
        std::vector<std::string> kinds;
    };
    for (const Only& only : {Only{"--prompt", {"sd", "sdxl"}}, Only{"--negative", {"sd", "sdxl"}}, Only{"--clip-skip", {"sd", "sdxl"}}, Only{"--image", {"unclip", "llava"}},
                             Only{"--noise-level", {"unclip"}}, Only{"--noise", {"unclip"}}, Only{"--seed", {"unclip"}}, Only{"--projector", {"llava"}},
                             Only{"--layer", {"llava"}}, Only{"--pad", {"llava"}}, Only{"--pipeline", {"sd", "sdxl", "unclip"}}, Only{"--weights", {"llava"}},
                             Only{"--tokenizer", {}}}) {
        if (!arguments.has(only.option) || std::ranges::find(only.kinds, kind) != only.kinds.end()) continue;
        std::string names;
        for (const std::string& one : only.kinds) names += (names.empty() ? "" : " or ") + one;
        throw UsageError(only.option, only.kinds.empty() ? "nothing: a pipeline has its own" : "it with " + names, kind);
    }
    const std::filesystem::path path = arguments.require("--out");
    if (path.extension() != ".safetensors") throw UsageError("--out", "a name that ends in .safetensors", path.string());
    require_place(path);
    if (kind == "llava") require_other("--out", path, weights_of(arguments));
    for (const char* const name : {"--projector", "--noise"}) {
        if (arguments.has(name)) require_other("--out", path, arguments.get(name));
    }
    Output out;
    kind == "sd"       ? stable_diffusion(arguments, out)
    : kind == "sdxl"   ? stable_diffusion_xl(arguments, out)
    : kind == "unclip" ? unclip(arguments, out)
                       : llava(arguments, out);
    out.save(path, {{"kind", kind}});
    return 0;
}

}  // namespace

Command condition_command() {
    return {.name = "condition",
            .purpose = "what Stable Diffusion, unCLIP and LLaVA read of a prompt or a picture",
            .operand = "KIND",
            .synopsis = "KIND --out FILE.safetensors (--pipeline DIR | --weights PATH) (--prompt TEXT | --image FILE)",
            .description =
                "KIND sd is Stable Diffusion 1 and 2, sdxl is XL: prompt_embeds and negative_prompt_embeds, with their pooled_ ones for XL, "
                "as diffusers' pipelines take them. unclip is Stable unCLIP: image_embeds with the noise level behind it. llava: "
                "image_features, the patches of an image tower through a projector. DIR is a pipeline's folder as diffusers saves it.",
            .options = with_checkpoint_options(
                {{"--out", "FILE.safetensors", "where it goes"},
                 {"--pipeline", "DIR", "a folder with text_encoder and tokenizer, and what else the kind has"},
                 {"--prompt", "TEXT", "what is to be drawn"},
                 {"--negative", "TEXT", "what is not (default: nothing, which for sdxl is zeros; \" \": an empty prompt)"},
                 {"--clip-skip", "N", "so many of the text towers' last blocks are left out for the prompt (default 0)"},
                 {"--image", "FILE", "a picture"},
                 {"--noise-level", "N", "steps of noise on the picture's embedding (default 0)"},
                 {"--noise", "FILE", "its noise, a tensor `noise` of a safetensors file (default: drawn from --seed)"},
                 {"--seed", "N", "(default 0; PyTorch draws other numbers)"},
                 {"--projector", "FILE|DIR", "mm_projector.bin, or a model that has one (default: the patches as they are)"},
                 {"--layer", "N", "whose patches these are, 0 what enters the first block, -1 what leaves the last one (default -2)"},
                 {"--pad", "", "the picture is made a square with the mean colour first, as LLaVA 1.5 does"}}),
            .run = run};
}

}  // namespace program
