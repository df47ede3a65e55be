// Which of some labels each picture shows, by any checkpoint of the zoo.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <nlohmann/json.hpp>

#include <tandem/tandem.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"

namespace program {

namespace {

int run(const Arguments& options) {
    const std::vector<std::string> labels = read_list(options, "--labels", "label");
    const std::vector<std::string> templates = read_templates(options, "a photo of a {}.");
    const std::size_t top = std::min(options.number("--top", 5), labels.size());
    const Pictures pictures = list_pictures(options.require("--images"));
    const Opened opened = open(options);
    require_both(opened, options, "pictures and labels");
    if (labels.size() < 2 && !opened.clip.logit_bias())
        throw td::Error("--labels", "two labels or more: the probability of one alone is always 100 %", labels.front());
    opened.clip.logit_scale();  // there, before the work
    report_long_texts(opened, labels);
    const auto classifier = td::zero_shot_classifier(opened.clip, *opened.tokenizer, labels, templates);

    // A folder a label: then it is known what the pictures show.
    std::size_t right = 0, known = 0, failed = 0;
    nlohmann::ordered_json report = nlohmann::ordered_json::array();
    std::vector<float> pixels(opened.preprocess.count());
    for (const std::filesystem::path& image : pictures.paths) {
        try {
            read_pixels(opened, image, pixels);
        } catch (const td::Error& error) {
            std::fprintf(stderr, "left out: %s\n", error.what());
            ++failed;
            continue;
        }
        auto shares = td::similarity(opened.clip.encode_image(pixels), classifier);
        td::probabilities_from(shares, opened.clip.logit_scale(), opened.clip.logit_bias());
        if (!is_finite(shares.elements())) {
            std::fprintf(stderr, "left out: %s: the model gives no finite numbers for it\n", image.string().c_str());
            ++failed;
            continue;
        }
        const auto best = td::best_matches<float>(shares.elements(), top);
        const auto truth = std::ranges::find(labels, image.parent_path().filename().string());
        if (truth != labels.end()) {
            ++known;
            right += best[0] == static_cast<std::size_t>(truth - labels.begin()) ? 1 : 0;
        }
        nlohmann::ordered_json entry{{"image", image.string()}, {"labels", nlohmann::ordered_json::array()}};
        if (!options.has("--json")) std::printf("%s\n", image.string().c_str());
        for (const std::size_t label : best) {
            entry["labels"].push_back({{"label", labels[label]}, {"probability", shares(0, label)}});
            if (!options.has("--json"))
                std::printf("  %6.2f %%  %s\n", 100 * static_cast<double>(shares(0, label)), labels[label].c_str());
        }
        report.push_back(std::move(entry));
    }
    if (options.has("--json")) {
        std::printf("%s\n", report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    } else if (known > 0) {
        std::printf("%zu of %zu pictures as their folders say\n", right, known);
    }
    pictures.report();
    if (failed > 0) std::fprintf(stderr, "%zu of %zu pictures left out\n", failed, pictures.paths.size());
    if (failed == pictures.paths.size())
        throw td::Error("zero_shot", "a picture that can be read and gives numbers", "none");
    return 0;
}

}  // namespace

Command zero_shot_command() {
    return {.name = "zero-shot",
            .purpose = "which of some labels each picture shows",
            .operand = "",
            .synopsis = "--weights PATH --images FILE|DIR --labels FILE|\"LABEL, LABEL\"",
            .description =
                "Prints every picture with its most probable labels. Where pictures lie in folders that are named as "
                "labels, it counts how many are right. A model with a logit bias (SigLIP) gives every label a "
                "probability of its own.",
            .options = with_checkpoint_options(
                {{"--images", "FILE|DIR", "a picture, a folder of them, or a text file with a path a line"},
                 {"--labels", "FILE|LABELS", "a file with a label a line, or labels with commas between"},
                 {"--templates", "FILE",
                  "a prompt a line, with {} for the label; all of them count (default: a photo of a {}.)"},
                 {"--top", "K", "labels shown of every picture (default 5)"},
                 {"--json", "", "JSON instead of a table"}}),
            .run = run};
}

}  // namespace program
