// Trains a CLIP from scratch on a folder of captioned images, evaluates it on the images it never saw, and reports.
// examples/quickstart.sh prepares the data and calls this program.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <tandem/tandem.hpp>

#include "design.hpp"
#include "design_text.hpp"
#include "pipeline.hpp"
#include "report.hpp"

namespace fs = std::filesystem;
namespace td = tandem;
using quickstart::design;
// Products of bfloat16 where the CPU multiplies it faster than float32, which elsewhere are float32's to the bit.
using Trained = td::Clip<design, td::amp_bf16>;
using Model = td::Clip<design>;

namespace {

struct Options : quickstart::DataOptions {
    fs::path out = "quickstart";
    double minutes = 10;
    std::size_t steps = 0;
    std::uint64_t seed = 0;
    bool resume = false;
};

Options parse(int count, char** arguments) {
    const quickstart::Arguments given(
        count, arguments, quickstart::Arguments::with_data({"--minutes", "--steps", "--seed"}), {"--resume"});
    Options options{given.data()};
    if (given.has("--minutes") && given.has("--steps")) throw td::Error("--steps", "no --minutes beside it", "both");
    options.minutes = given.number("--minutes", options.minutes, 0.001, 1e6);
    options.steps = given.count("--steps", options.steps);
    options.seed = given.number<std::uint64_t>("--seed", options.seed, 0, ~std::uint64_t{0});
    options.resume = given.has("--resume");
    options.out = given.out(options.out);
    return options;
}

/// What the weights are worth with elements of type T, beside float32's embeddings.
template <class T>
nlohmann::ordered_json evaluate_reduced(const quickstart::Data& data, const Model::Embeddings& images,
                                        const Options& options) {
    const auto model = td::load<design, T>(options.out / "model.safetensors");
    const Model::Embeddings reduced = quickstart::embed_images(model, data.test);
    float smallest = 1;
    for (std::size_t i = 0; i < data.test.size(); ++i) {
        float cosine = 0;
        for (std::size_t j = 0; j < Model::embedding; ++j) cosine += images(i, j) * reduced(i, j);
        smallest = std::min(smallest, cosine);
    }
    const quickstart::ZeroShot zero = quickstart::evaluate_zero_shot(model, data, reduced, options);
    return {{"zero_shot_top1", zero.score.top1}, {"zero_shot_macro", zero.score.macro}, {"smallest_cosine", smallest}};
}

quickstart::Picture picture(const td::Pairs& pairs, std::size_t index, float score) {
    return {pairs.image(index), pairs.captions(index)[0], score};
}

template <class Row>
std::vector<quickstart::Picture> best_pictures(const td::Pairs& pairs, const Row& scores, std::size_t count) {
    std::vector<quickstart::Picture> pictures;
    for (const std::size_t index : td::best_matches<float>(scores, count)) {
        pictures.push_back(picture(pairs, index, scores[index]));
    }
    return pictures;
}

std::string percent(double share) {
    std::array<char, 16> text;
    std::snprintf(text.data(), text.size(), "%.1f %%", 100 * share);
    return text.data();
}

int run(const Options& options) {
    const fs::path snapshot = options.out / "snapshot.safetensors";
    if (!options.resume) fs::remove(snapshot);
    else if (!fs::exists(snapshot))
        std::cerr << "no " << snapshot.string() << " yet: training from the start\n";

    const quickstart::Data data =
        quickstart::read_data(options, design.vision.image, design.text.vocabulary, design.text.context);
    const td::Pairs &pairs = data.training, &test = data.test;
    const td::Bpe& tokenizer = data.tokenizer;
    tokenizer.save(options.out / "tokenizer");

    const std::size_t batch = std::min<std::size_t>(128, pairs.size());
    Trained trained{td::Seed{options.seed}};
    td::Trainer trainer{trained, quickstart::optimizer, quickstart::schedule, td::InfoNce{},
                        td::TrainerOptions{.batch = batch,
                                           .steps = options.steps,
                                           .seconds = options.steps > 0 ? 0 : options.minutes * 60,
                                           .seed = td::Seed{options.seed},
                                           .snapshot = snapshot,
                                           .snapshot_every = 200,
                                           .report_every = 50}};
    const td::RunState state = trainer.fit(pairs);
    td::save_weights(trained, options.out / "model.safetensors");

    const Model model = td::load<design>(options.out / "model.safetensors");
    const Model::Embeddings images = quickstart::embed_images(model, test);
    const quickstart::Retrieval<Model> found(model, data, images);
    const std::vector<std::size_t>& with_text = found.rows;
    const std::vector<std::string>& test_texts = found.texts;
    const auto &image_to_text = found.image_to_text, &text_to_image = found.text_to_image;
    const quickstart::ZeroShot zero = quickstart::evaluate_zero_shot(model, data, images, options);

    nlohmann::ordered_json metrics;
    const bool has_classes = !zero.classes.empty();
    metrics["zero_shot_top1"] = has_classes ? nlohmann::ordered_json(zero.score.top1) : nlohmann::ordered_json();
    metrics["zero_shot_macro"] = has_classes ? nlohmann::ordered_json(zero.score.macro) : nlohmann::ordered_json();
    metrics["majority"] = has_classes ? nlohmann::ordered_json(zero.majority) : nlohmann::ordered_json();
    metrics["classes"] = zero.classes.size();
    metrics["zero_shot_images"] = zero.labels.size();
    metrics["t2i_r1"] = td::recall_at(text_to_image, 1);
    metrics["t2i_r10"] = td::recall_at(text_to_image, 10);
    metrics["i2t_r1"] = td::recall_at(image_to_text, 1);
    metrics["i2t_r10"] = td::recall_at(image_to_text, 10);
    metrics["test_pairs"] = with_text.size();
    metrics["train_pairs"] = pairs.size();
    metrics["steps"] = state.step;
    metrics["skipped_steps"] = state.skipped;
    metrics["samples_seen"] = state.step * batch;
    metrics["train_seconds"] = state.seconds;
    metrics["parameters"] = td::parameter_count(design);
    metrics["final_loss"] = state.losses.empty() ? 0.0F : state.losses.back();
    metrics["seed"] = options.seed;
    metrics["skipped"] = data.skipped;
    if (has_classes) {
        metrics["bf16"] = evaluate_reduced<td::bf16>(data, images, options);
        metrics["int8"] = evaluate_reduced<td::int8>(data, images, options);
    }
    td::write_file_atomically(options.out / "metrics.json", metrics.dump(2) + "\n");

    const double t2i = metrics["t2i_r10"], i2t = metrics["i2t_r10"];
    const double chance = 10.0 / std::max(10.0, static_cast<double>(with_text.size()));
    quickstart::ReportData report;
    report.title = "A CLIP trained from scratch";
    report.subtitle = std::to_string(pairs.size()) + " noisy image–text pairs, " +
                      std::to_string(static_cast<int>(std::lround(state.seconds / 60))) + " minutes on this machine's CPU";
    report.facts = {{"parameters", std::to_string(td::parameter_count(design))},
                    {"samples seen", std::to_string(state.step * batch)},
                    {"steps", std::to_string(state.step)},
                    {"training time", std::to_string(std::lround(state.seconds)) + " s"},
                    {"training pairs", std::to_string(pairs.size())},
                    {"held-out images", std::to_string(test.size())}};
    if (has_classes) {
        report.scores.push_back({"zero-shot top-1", zero.score.top1, zero.majority, "always the largest class"});
        report.scores.push_back(
            {"zero-shot, mean over classes", zero.score.macro, 1.0 / static_cast<double>(zero.classes.size()), "chance"});
    }
    report.scores.push_back({"recall@10, text to image", t2i, chance, "chance"});
    report.scores.push_back({"recall@10, image to text", i2t, chance, "chance"});
    report.losses = state.losses;
    report.chance_loss = std::log(static_cast<double>(batch));
    report.classes = zero.classes;
    report.confusion = zero.confusion;
    report.architecture = quickstart::design_text;
    // Sixteen pairs with texts of their own, spread over the test set.
    std::set<std::string> shown;
    std::vector<std::size_t> sixteen;
    for (std::size_t k = 0; k < with_text.size() && sixteen.size() < 16; ++k) {
        const std::size_t i = k * 97 % with_text.size();
        if (shown.insert(test_texts[i]).second) sixteen.push_back(i);
    }
    for (const std::size_t i : sixteen) {
        report.pair_pictures.push_back(picture(test, with_text[i], 0));
        for (const std::size_t j : sixteen) report.pair_cosines.push_back(image_to_text(i, j));
    }
    std::vector<std::string> queries{"a cat",   "a bird", "a flag",     "a red car", "a tree",        "a flower",
                                     "a house", "fruit",  "a computer", "an arrow",  "musical notes", "a smiling face"};
    if (options.retrieval.empty()) queries = has_classes ? zero.classes : std::vector<std::string>(shown.begin(), shown.end());
    queries.resize(std::min<std::size_t>(12, queries.size()));
    const auto query_scores = td::similarity(td::embed_texts(model, tokenizer, queries), images);
    for (std::size_t q = 0; q < queries.size(); ++q) {
        report.text_queries.push_back({queries[q], std::nullopt, best_pictures(test, query_scores[q].elements(), 8)});
    }
    for (std::size_t q = 0; q < std::min<std::size_t>(4, sixteen.size()); ++q) {
        const std::size_t index = with_text[sixteen[q]];
        Model::Embeddings query(1);
        std::copy_n(images[index].data(), Model::embedding, query.data());
        const auto scores = td::similarity(query, images);
        auto results = best_pictures(test, scores[0].elements(), 9);
        std::erase_if(results, [&](const quickstart::Picture& result) { return result.score > 0.99999F; });
        results.resize(std::min<std::size_t>(8, results.size()));
        report.image_queries.push_back({test.captions(index)[0], test.image(index), results});
    }
    td::write_file_atomically(options.out / "report.html", quickstart::render_report(report));

    if (has_classes) {
        std::cout << "zero-shot over " << zero.classes.size() << " classes, " << zero.labels.size()
                  << " held-out images: top-1 " << percent(zero.score.top1) << ", mean over classes "
                  << percent(zero.score.macro) << " (largest class " << percent(zero.majority) << ", chance "
                  << percent(1.0 / static_cast<double>(zero.classes.size())) << ")\n";
        for (const std::string precision : {"bf16", "int8"}) {
            const auto& reduced = metrics[precision];
            std::cout << "the same in " << precision << ": top-1 " << percent(reduced["zero_shot_top1"])
                      << ", mean over classes " << percent(reduced["zero_shot_macro"]) << "; cosine to float32 at least "
                      << reduced["smallest_cosine"] << '\n';
        }
    }
    std::cout << "recall among " << with_text.size() << " held-out pairs: text to image @1 "
              << percent(td::recall_at(text_to_image, 1)) << ", @10 " << percent(t2i) << "; image to text @1 "
              << percent(td::recall_at(image_to_text, 1)) << ", @10 " << percent(i2t) << " (chance @10 "
              << percent(chance) << ")\n"
              << "written to " << options.out.string() << ": model.safetensors, tokenizer/, metrics.json, report.html\n";
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run(parse(count, arguments));
    } catch (const std::exception& error) {
        std::cerr << "quickstart: " << error.what() << '\n';
        return 1;
    }
}
