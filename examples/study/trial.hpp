// One trial of study.sh: trains a variant on the quickstart's data, evaluates it, and writes trial.json. It goes on from its
// snapshot where it was killed.
//   PROGRAM --images DIR --captions FILE [--retrieval FILE] [--class-depth N] [--class-minimum N]
//           --out DIR --seed N (--samples N | --flops N | --minutes X)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../quickstart/pipeline.hpp"

namespace study {

namespace td = tandem;
namespace fs = std::filesystem;

inline constexpr std::size_t batch_size = 128;

/// What a training step computes for a sample: the forward pass, and twice as much backwards (Kaplan et al. 2020, section
/// 2.1).
template <auto config>
constexpr double flops_per_sample() {
    return 3.0 * static_cast<double>(td::forward_flops(config));
}

/// The losses of all steps as at most 200 means of neighbours, each at its last step.
inline nlohmann::json curve(const std::vector<float>& losses) {
    nlohmann::json points = nlohmann::json::array();
    const std::size_t each = std::max<std::size_t>(1, (losses.size() + 199) / 200);
    for (std::size_t first = 0; first < losses.size(); first += each) {
        const std::size_t last = std::min(first + each, losses.size());
        double sum = 0;
        for (std::size_t i = first; i < last; ++i) sum += static_cast<double>(losses[i]);
        points.push_back({last, sum / static_cast<double>(last - first)});
    }
    return points;
}

/// The mean of InfoNCE over batches of held-out pairs: a loss that all variants can be compared by.
template <class Model>
double held_out_loss(const Model& model, const quickstart::Retrieval<Model>& found) {
    td::Tensor<float, td::Shape<>> scale;
    scale.fill(std::exp(model.logit_scale()));
    double sum = 0;
    std::size_t count = 0;
    for (std::size_t first = 0; first + batch_size <= found.rows.size(); first += batch_size, ++count) {
        const auto images = found.image_embeddings.view().slice(first, first + batch_size);
        const auto texts = found.text_embeddings.view().slice(first, first + batch_size);
        sum += static_cast<double>(td::evaluate(td::InfoNce{}(images, texts, td::as_expression(scale))).item());
    }
    return count > 0 ? sum / static_cast<double>(count) : std::nan("");
}

template <auto config, class L>
int run(const quickstart::Arguments& options, const L& loss) {
    const quickstart::DataOptions data_options = options.data();
    const td::Seed seed{options.number<std::uint64_t>("--seed", 0, 0, ~std::uint64_t{0})};
    if (options.has("--samples") + options.has("--flops") + options.has("--minutes") != 1) {
        throw td::Error("the trial", "one of --samples, --flops and --minutes", "none or several");
    }
    constexpr double each = flops_per_sample<config>();
    const double minutes = options.number("--minutes", 0.0, 0.001, 1e6);
    const double samples = options.has("--flops") ? options.number("--flops", 0.0, each, 1e15 * each) / each
                                                  : options.number("--samples", 0.0, 1.0, 1e15);
    const fs::path out = options.out(".");
    const quickstart::Data data =
        quickstart::read_data(data_options, config.vision.image, config.text.vocabulary, config.text.context);

    using Model = td::Clip<config>;
    const std::size_t batch = std::min(batch_size, data.training.size());
    const std::size_t steps = static_cast<std::size_t>(std::ceil(samples / static_cast<double>(batch)));
    Model model{seed};
    td::Trainer trainer{model, quickstart::optimizer, quickstart::schedule, loss,
                        td::TrainerOptions{.batch = batch,
                                           .steps = minutes > 0 ? 0 : steps,
                                           .seconds = minutes * 60,
                                           .seed = seed,
                                           .snapshot = out / "snapshot.safetensors",
                                           .snapshot_every = 50,
                                           .report_every = 50}};
    const td::RunState state = trainer.fit(data.training);

    const auto images = quickstart::embed_images(model, data.test);
    const quickstart::Retrieval<Model> found(model, data, images);
    const quickstart::ZeroShot zero = quickstart::evaluate_zero_shot(model, data, images, data_options);
    nlohmann::ordered_json result;
    result["seed"] = seed.value;
    result["steps"] = state.step;
    result["skipped_steps"] = state.skipped;
    result["samples"] = state.step * batch;
    result["train_flops"] = static_cast<double>(state.step * batch) * flops_per_sample<config>();
    result["train_seconds"] = state.seconds;
    result["final_train_loss"] = state.losses.empty() ? 0.0F : state.losses.back();
    result["held_out_loss"] = held_out_loss(model, found);
    if (!zero.classes.empty()) {
        result["zero_shot_top1"] = zero.score.top1;
        result["zero_shot_macro"] = zero.score.macro;
    }
    result["t2i_r10"] = td::recall_at(found.text_to_image, 10);
    result["i2t_r10"] = td::recall_at(found.image_to_text, 10);
    result["test_pairs"] = found.rows.size();
    result["classes"] = zero.classes.size();
    result["curve"] = curve(state.losses);
    td::write_file_atomically(out / "trial.json", result.dump(1) + "\n");
    return 0;
}

/// The loss of a config that its list gives none: the sigmoid loss where there is a bias for it.
template <auto config>
int run(const quickstart::Arguments& options) {
    if constexpr (config.logit_bias) {
        return run<config>(options, td::SigmoidLoss{});
    } else {
        return run<config>(options, td::InfoNce{});
    }
}

template <auto config, class... Losses>
int main(int count, char** arguments, const Losses&... loss) {
    try {
        const quickstart::Arguments options(
            count, arguments, quickstart::Arguments::with_data({"--seed", "--samples", "--flops", "--minutes"}));
        return run<config>(options, loss...);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}

}  // namespace study
