// Where in a picture phrases are, pixel by pixel, by any checkpoint of the zoo.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>

#include <nlohmann/json.hpp>

#include <tandem/tandem.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "heat_map.hpp"
#include "inputs.hpp"
#include "labelled.hpp"
#include "progress.hpp"
#include "scenes.hpp"

namespace program {

namespace {

/// Colours far from each other: hues by the golden angle.
td::Colour colour_of(std::size_t label) {
    const double hue = std::fmod(static_cast<double>(label) * 0.381966 + 0.02, 1.0) * 6;
    const auto channel = [&](double at) {
        const double away = std::min(std::abs(std::fmod(hue - at + 6, 6.0)), std::abs(std::fmod(at - hue + 6, 6.0)));
        return static_cast<std::uint8_t>(std::lround(40 + 200 * std::clamp(2 - away, 0.0, 1.0)));
    };
    return {channel(0), channel(2), channel(4)};
}

struct Method {
    const char* name;
    td::PatchFeatures features;
};
constexpr std::array methods{Method{"plain", td::PatchFeatures::plain}, Method{"mask_clip", td::PatchFeatures::mask_clip},
                             Method{"sclip", td::PatchFeatures::sclip}, Method{"clear_clip", td::PatchFeatures::clear_clip}};

td::PatchFeatures features_of(const Arguments& arguments) {
    const std::string name = arguments.choose("--features", "sclip", {"plain", "mask_clip", "sclip", "clear_clip"});
    return std::ranges::find_if(methods, [&](const Method& method) { return name == method.name; })->features;
}

td::PhraseMaps maps_of(const Opened& opened, const td::Image& picture, td::PatchFeatures features, std::span<const float> rows, std::size_t windows) {
    const td::ModelSizes& sizes = opened.clip.sizes();
    return td::phrase_maps(
        picture, opened.preprocess, sizes.image_patch,
        [&](std::span<const float> pixels) {
            const auto patches = opened.clip.patch_embeddings(pixels, features);
            return std::vector<float>(patches.data(), patches.data() + patches.size());
        },
        rows, rows.size() / sizes.embedding, windows);
}

/// The maps of some of the phrases.
td::PhraseMaps of_phrases(const td::PhraseMaps& maps, std::span<const std::size_t> phrases) {
    td::PhraseMaps some{.phrases = phrases.size(), .grid = maps.grid, .values = {}};
    for (const std::size_t phrase : phrases) some.values.insert(some.values.end(), maps.of(phrase).begin(), maps.of(phrase).end());
    return some;
}

/// What is no phrase: the texts of --background, or what says nothing in particular.
std::vector<float> background_rows(const Opened& opened, const Arguments& arguments) {
    if (!arguments.has("--background")) return embed_neutral(opened);
    if (arguments.get("--background") == "none") return {};
    return embed_texts(opened, read_list(arguments, "--background", "text"));
}

void require_transformer(const Opened& opened, const Arguments& arguments) {
    if (!opened.clip.parts().image || !opened.clip.parts().text || opened.clip.sizes().image_tokens == 0)
        throw td::Error(weights_of(arguments).string(), "both towers of a model, and an image tower that is a transformer, to compare patches and phrases",
                        opened.clip.sizes().architecture);
}

/// Mean IoU on scenes whose pixels are known, method by method: among the labels of a scene, and among all of the drawings'.
int report(const Arguments& arguments) {
    const Drawings drawings = read_drawings(arguments.get("--report"));
    const std::size_t count = arguments.number("--scenes", 200), windows = arguments.number("--windows", 2, 64);
    const std::vector<std::string> templates = read_templates(arguments, "{}");
    const Opened opened = open(arguments);
    require_transformer(opened, arguments);
    const std::size_t width = opened.clip.sizes().embedding, labels = drawings.labels.size();
    const auto classifier = td::zero_shot_classifier(opened.clip, *opened.tokenizer, drawings.labels, templates);
    const std::vector<float> background = background_rows(opened, arguments);
    std::vector<float> all(classifier.data(), classifier.data() + classifier.size());
    all.insert(all.end(), background.begin(), background.end());
    const int side = 2 * static_cast<int>(opened.preprocess.size.height);
    // What background phrases are handicapped by is chosen on the first half of the scenes, method by method, and judged on the second.
    std::vector<double> handicaps;
    for (int step = -12; step <= 2; ++step) handicaps.push_back(step / 40.0);
    struct Score {
        std::string name;
        std::vector<td::Overlap> fitted{};  ///< one a handicap, of the first half
        td::Overlap here, all;
        std::size_t hits = 0, choice = 0;  ///< things whose most probable pixel lies on them; which handicap
    };
    std::vector<Score> scores;
    for (const Method& method : methods)
        scores.push_back({method.name, std::vector<td::Overlap>(handicaps.size(), {labels, true}), {labels, true}, {labels, true}});
    scores.push_back({"a label for the whole scene", {}, {labels, true}, {labels, true}});
    SceneMaker maker(drawings, arguments.seed());
    Progress progress("scenes", 0, count);
    std::size_t things = 0;
    const td::ImageSize size(side, side);
    for (std::size_t i = 0; i < count; ++i) {
        const Scene scene = maker.compose(maker.some_labels(2 + maker.below(3)), side);
        const bool is_judged = i >= count / 2;
        // Of all phrases, those of the scene's labels, and what is background.
        std::vector<std::size_t> here;
        for (const Placed& placed : scene.placed) here.push_back(placed.label);
        for (std::size_t row = labels; row * width < all.size(); ++row) here.push_back(row);
        td::SegmentOptions options{.background = background.size() / width, .least = arguments.share("--least", 0)};
        const auto named = [&](std::vector<std::uint16_t> found) {
            for (std::uint16_t& label : found) {
                if (label != td::Segmentation::background) label = static_cast<std::uint16_t>(scene.placed[label].label);
            }
            return found;
        };
        things += is_judged ? scene.placed.size() : 0;
        for (std::size_t m = 0; m < methods.size(); ++m) {
            Score& score = scores[m];
            const td::PhraseMaps everything = maps_of(opened, scene.image, methods[m].features, all, windows);
            const td::PhraseMaps maps = of_phrases(everything, here);
            if (!is_judged) {
                for (std::size_t h = 0; h < handicaps.size(); ++h) {
                    options.handicap = handicaps[h];
                    score.fitted[h].add(named(td::segment(maps, size, options).labels), scene.labels);
                }
                score.choice = static_cast<std::size_t>(std::ranges::max_element(score.fitted, {}, [](const td::Overlap& one) { return one.mean_iou(); }) - score.fitted.begin());
                continue;
            }
            options.handicap = handicaps[score.choice];
            score.here.add(named(td::segment(maps, size, options).labels), scene.labels);
            score.all.add(td::segment(everything, size, options).labels, scene.labels);
            for (std::size_t thing = 0; thing < scene.placed.size(); ++thing) {
                const std::vector<float> large = td::enlarge(maps.of(thing), maps.grid, size);
                const auto best = static_cast<std::size_t>(std::ranges::max_element(large) - large.begin());
                score.hits += scene.labels[best] == scene.placed[thing].label ? 1 : 0;
            }
        }
        progress.show(i + 1);
        if (!is_judged) continue;
        std::vector<float> pixels(opened.preprocess.count());
        to_pixels(opened, scene.image, "a scene", pixels);
        const auto whole = opened.clip.encode_image(pixels);
        const auto best = [&](std::size_t phrases, const auto& row_of) {
            std::size_t at = 0;
            float most = -2;
            for (std::size_t phrase = 0; phrase < phrases; ++phrase) {
                const float cosine = std::inner_product(whole.data(), whole.data() + width, all.data() + row_of(phrase) * width, 0.0F);
                if (cosine > most) most = cosine, at = phrase;
            }
            return std::vector<std::uint16_t>(size.area(), static_cast<std::uint16_t>(at));
        };
        scores.back().here.add(named(best(scene.placed.size(), [&](std::size_t phrase) { return here[phrase]; })), scene.labels);
        scores.back().all.add(best(labels, [](std::size_t phrase) { return phrase; }), scene.labels);
    }
    std::printf("%zu scenes of %d pixels, %zu things of %zu labels, %zu windows a side; as many others for the handicap\n", count - count / 2, side, things,
                labels, windows);
    std::printf("%-28s mean IoU  accuracy  mean IoU  best place    handicap of\n", "");
    std::printf("%-28s among the scene's labels  all %3zu  on the thing  background\n", "", labels);
    for (const Score& score : scores) {
        std::printf("%-28s    %.3f     %.3f     %.3f", score.name.c_str(), score.here.mean_iou(), score.here.accuracy(), score.all.mean_iou());
        if (&score != &scores.back()) std::printf("       %.3f        %6.3f", static_cast<double>(score.hits) / static_cast<double>(things), handicaps[score.choice]);
        std::printf("\n");
    }
    return 0;
}

int run(const Arguments& arguments) {
    if (arguments.has("--report")) {
        for (const char* const name : {"--image", "--phrases", "--out", "--masks", "--features", "--handicap", "--json"}) {
            if (arguments.has(name)) throw UsageError(name, "no --report beside it, which measures all on scenes of its own", "both");
        }
        return report(arguments);
    }
    const std::vector<std::string> phrases = read_list(arguments, "--phrases", "phrase");
    const std::vector<std::string> templates = read_templates(arguments, "{}");
    if (!arguments.require("--out").ends_with(".png")) throw UsageError("--out", "a name that ends in .png", arguments.get("--out"));
    const std::size_t windows = arguments.number("--windows", 2, 64);
    td::SegmentOptions options{.handicap = -arguments.share("--handicap", 0), .least = arguments.share("--least", 0)};
    const td::PatchFeatures features = features_of(arguments);
    require_place(arguments.get("--out"));
    require_other("--out", arguments.get("--out"), arguments.require("--image"));
    const std::filesystem::path masks = arguments.get("--masks");
    if (!masks.empty()) {
        std::error_code failed;
        std::filesystem::create_directories(masks, failed);
        if (failed) throw td::Error("--masks", "a folder that can be made", masks.string() + ": " + failed.message());
        require_other("--masks", masks / "0.png", arguments.get("--image"));
        if (const auto folder = std::filesystem::path(arguments.get("--out")).parent_path(); std::filesystem::equivalent(folder.empty() ? "." : folder, masks))
            throw UsageError("--masks", "another folder than that of --out", masks.string());
    }
    const Opened opened = open(arguments);
    require_transformer(opened, arguments);
    const td::ModelSizes& sizes = opened.clip.sizes();
    const td::Image picture = read_picture(opened, arguments.require("--image"));
    report_long_texts(opened, phrases);
    const auto classifier = td::zero_shot_classifier(opened.clip, *opened.tokenizer, phrases, templates);
    std::vector<float> rows(classifier.data(), classifier.data() + classifier.size());
    const std::vector<float> background = background_rows(opened, arguments);
    rows.insert(rows.end(), background.begin(), background.end());
    options.background = background.size() / sizes.embedding;
    if (phrases.size() + options.background < 2)
        throw UsageError("--phrases", "two phrases or more, or a background: of one alone everything is shown to be it", phrases.front());
    const td::PhraseMaps maps = maps_of(opened, picture, features, rows, windows);
    if (!is_finite(maps.values)) throw td::Error(arguments.get("--image"), "finite numbers from the model", "infinities or NaN");
    const td::ImageSize size(picture.height, picture.width);
    const td::Segmentation found = td::segment(maps, size, options);

    td::Image painted = picture;
    for (std::size_t i = 0; i < found.labels.size(); ++i) {
        if (found.labels[i] != td::Segmentation::background) blend(painted, i, colour_of(found.labels[i]), 12);
    }
    write_png(arguments.get("--out"), painted);
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (std::size_t label = 0; label < phrases.size(); ++label) {
        const auto place = static_cast<std::uint16_t>(label);
        double sum = 0;
        std::size_t pixels = 0;
        td::Image mask{.width = picture.width, .height = picture.height, .pixels = std::vector<std::uint8_t>(3 * size.area())};
        for (std::size_t i = 0; i < found.labels.size(); ++i) {
            if (found.labels[i] != place) continue;
            std::fill_n(mask.pixels.begin() + static_cast<std::ptrdiff_t>(3 * i), 3, std::uint8_t{255});
            sum += static_cast<double>(found.probabilities[i]);
            ++pixels;
        }
        if (!masks.empty()) write_png(masks / (std::to_string(label) + ".png"), mask);
        const td::Colour colour = colour_of(label);
        std::array<char, 8> hex{};
        std::snprintf(hex.data(), hex.size(), "#%02x%02x%02x", colour.red, colour.green, colour.blue);
        const double probability = pixels == 0 ? 0 : sum / static_cast<double>(pixels);
        if (arguments.has("--json")) {
            json.push_back({{"phrase", phrases[label]}, {"share", found.share(place)}, {"probability", probability}, {"colour", hex.data()}});
        } else {
            std::printf("%5.1f %%  %s  %.2f  %s\n", 100 * found.share(place), hex.data(), probability, phrases[label].c_str());
        }
    }
    const double rest = found.share(td::Segmentation::background);
    if (arguments.has("--json")) {
        std::printf("%s\n", nlohmann::ordered_json({{"phrases", json}, {"background", rest}}).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    } else {
        std::printf("%5.1f %%  none of them\n", 100 * rest);
    }
    std::fprintf(stderr, "%s: %s, %s patches of the picture\n", arguments.get("--out").c_str(), sizes.architecture.c_str(), to_string(maps.grid).c_str());
    return 0;
}

}  // namespace

Command segment_command() {
    return {.name = "segment",
            .purpose = "which pixels of a picture show which phrase",
            .operand = "",
            .synopsis = "--image FILE --phrases PHRASE,...|FILE --out FILE.png [--windows N]",
            .description =
                "Compares the picture's patches with every phrase, and paints each pixel with the colour of the best one. The table has of "
                "every phrase its share of the picture, its colour, and the mean probability of its pixels. No training stands behind it: "
                "masks are as coarse as the model's patches, and finer with more windows.",
            .options = with_checkpoint_options(
                {{"--image", "FILE", "a picture"},
                 {"--phrases", "PHRASE,...|FILE", "what is looked for: a phrase a line, or with commas between"},
                 {"--out", "FILE.png", "the picture, its pixels painted"},
                 {"--masks", "DIR", "also a mask a phrase: DIR/0.png, DIR/1.png, ..., white where it is"},
                 {"--windows", "N", "how many of the model's inputs stand along the shorter side, half a window apart (default 2)"},
                 {"--features", "NAME",
                  "what the last block makes of patches: sclip (the default), clear_clip, mask_clip, or plain, as it was trained"},
                 {"--background", "TEXT,...|FILE|none",
                  "what stands for everything else (default: texts that say nothing in particular)"},
                 {"--handicap", "C", "taken off the cosines of the background's texts (default 0); --report finds one"},
                 {"--least", "P", "a pixel where no phrase is as probable is none (default 0)"},
                 {"--templates", "FILE", "a prompt a line, with {} for the phrase; all of them count (default: {})"},
                 {"--json", "", "JSON instead of a table"},
                 {"--report", "FILE",
                  "instead: mean IoU of every choice of features on scenes put together from the drawings that FILE names, path<TAB>label "
                  "lines; their transparent ground is what is known"},
                 {"--scenes", "N", "of --report (default 200)"},
                 {"--seed", "N", "of --report (default 0)"}}),
            .run = run};
}

}  // namespace program
