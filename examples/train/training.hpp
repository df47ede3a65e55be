// A run: data, model, recipe and measurements, of any architecture.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/tandem.hpp>

#include "../quickstart/embed_pictures.hpp"
#include "../quickstart/preprocess.hpp"
#include "../tandem/class_folder.hpp"
#include "records.hpp"
#include "settings.hpp"
#include "sources.hpp"
#include "teacher.hpp"

namespace training {

namespace fs = std::filesystem;

/// What becomes the exit code of a run that a signal stopped: it is saved, and goes on with --resume latest.
inline constexpr int stopped = 3;

/// Set by SIGTERM and SIGINT.
inline std::atomic<bool> stop_asked = false;

/// The run's tokenizer: that of --tokenizer, what lies beside --pretrained, or in the run's folder one that is learned from captions: those of
/// --tokenizer-data, or of `samples`.
td::AnyTokenizer find_tokenizer(const Settings& settings, const td::SampleList& samples, std::size_t vocabulary);

/// Throws UsageError where the run's folder holds another run; makes it.
void prepare_folder(const Settings& settings);

/// 10^9 operations a second of all processes' cores, of products in float32 or as amp_bf16 has them; measured. All ranks call it.
double measured_gflops(bool reduced, td::Ranks* ranks);

/// Tokens of a caption on average, padding left out, of some of them.
std::size_t mean_tokens(const td::SampleList& samples, const td::AnyTokenizer& tokenizer, std::size_t context);

/// What is trained on: a data set, or for measurements without one noise, with captions that differ. One type, so that a run is compiled once.
struct Source {
    const td::Dataset* data = nullptr;
    std::size_t count = 0, vocabulary = 0;  ///< without data

    std::size_t size() const { return data != nullptr ? data->size() : count; }
    std::size_t epoch_size() const { return data != nullptr ? data->epoch_size() : count; }
    std::vector<std::size_t> draws(std::size_t epoch) const;
    /// Tokens of a caption of noise.
    static constexpr std::size_t tokens(std::size_t context) { return context / 2 + 1; }
    void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const;
    std::map<std::string, std::string> fingerprint() const;
};

/// The schedule that --lr-scheduler names; one type, so that a run is compiled once.
struct Rates {
    bool is_cosine = true;
    td::WarmupCosine cosine{};
    td::WarmupConstant constant{};

    double at(const td::Progress& progress) const { return is_cosine ? cosine.at(progress) : constant.at(progress); }
    void check() const { is_cosine ? cosine.check() : constant.check(); }
};

template <auto config, class T>
class Run {
    using Model = td::Clip<config, T>;
    static constexpr bool has_blocks = requires { config.vision.tokens(); };

public:
    explicit Run(const Settings& settings) : settings_(settings), model_(td::Seed{settings.seed}) {}

    int operator()() {
        if (settings_.siglip != config.logit_bias)
            throw program::UsageError("--siglip", config.logit_bias ? "it, since this architecture has a logit bias" : "an architecture with .logit_bias = true", config.logit_bias ? "none" : "it");
        if (settings_.is_first_rank()) prepare_folder(settings_);
        settings_.meet();
        td::Preprocess recipe = settings_.model == "architecture" ? quickstart::preprocess_of(config.vision.image)
                                : config.logit_bias              ? td::siglip_preprocess(config.vision.image)
                                                                 : td::openai_preprocess(config.vision.image);
        if (!settings_.pretrained.empty()) {
            recipe = td::load_preprocess(settings_.pretrained, recipe);
            td::load_weights(model_, settings_.pretrained);
        }
        if (settings_.dataset_type == "synthetic") {
            if (!settings_.distill_pretrained.empty()) teacher_ = open_teacher(settings_, {recipe, config.text.context});
            caption_tokens_ = Source::tokens(config.text.context);
            return train({.count = settings_.train_num_samples, .vocabulary = config.text.vocabulary});
        }

        td::SampleList training = list_samples(settings_.train_data, settings_, settings_.upsampling);
        if (training.samples.empty()) {
            if (settings_.is_first_rank()) report_faults("training", training.faults);
            throw td::Error("--train-data", "pairs of a picture and a caption", "none in " + settings_.train_data);
        }
        // The first rank makes it, the others read it.
        if (settings_.is_first_rank()) tokenizer_ = find_tokenizer(settings_, training, config.text.vocabulary);
        settings_.meet();
        if (!settings_.is_first_rank()) tokenizer_ = find_tokenizer(settings_, training, config.text.vocabulary);
        if (!settings_.distill_pretrained.empty()) teacher_ = open_teacher(settings_, {recipe, config.text.context, &*tokenizer_, &training});
        td::DatasetOptions options{.view = {.preprocess = recipe, .crop = settings_.crop, .flip = settings_.hflip, .jitter = settings_.jitter, .jitter_share = settings_.color_jitter_prob, .grayscale_share = settings_.gray_scale_prob}, .strict = settings_.strict};
        options.view.decode.background = recipe.background;
        options.view.decode.pixel_limit = settings_.max_image_pixels;
        decode_ = options.view.decode;
        recipe_ = recipe;
        caption_tokens_ = mean_tokens(training, *tokenizer_, config.text.context);
        td::Dataset data(std::move(training), *tokenizer_, config.text.context, options);
        const td::FaultCounts faults = data.faults();
        if (settings_.is_first_rank()) {
            std::fprintf(stderr, "%zu pairs to train on", data.size());
            std::fprintf(stderr, data.epoch_size() == data.size() ? "\n" : ", %zu in an epoch\n", data.epoch_size());
            report_faults("training", faults);
            if (settings_.train_num_samples > 0 && settings_.train_num_samples != data.epoch_size())
                std::fprintf(stderr, "--train-num-samples %zu is not what an epoch has: %zu pairs\n", settings_.train_num_samples, data.epoch_size());
        }
        if (!settings_.val_data.empty() && settings_.is_first_rank()) {
            validation_.emplace(list_samples(settings_.val_data, settings_), *tokenizer_, config.text.context, options);
            std::fprintf(stderr, "%zu pairs to measure on\n", validation_->size());
            report_faults("validation", validation_->faults());
            if (validation_->size() < 2) throw td::Error("--val-data", "two pairs or more", std::to_string(validation_->size()));
        }
        const td::FaultCounts of_validation = validation_ ? validation_->faults() : td::FaultCounts{};
        if (!settings_.imagenet_val.empty() && settings_.is_first_rank()) classes_ = program::read_classes("--imagenet-val", settings_.imagenet_val, settings_.imagenet_names.empty() ? std::map<std::string, std::string>{} : program::read_class_names(settings_.imagenet_names));
        const int code = train({.data = &data});
        if (settings_.ranks != nullptr) share_damage(data, *settings_.ranks);
        if (settings_.is_first_rank()) report_faults("training", data.faults(), faults);
        if (validation_) report_faults("validation", validation_->faults(), of_validation);
        return code;
    }

private:
    int train(const Source& data) {
        const std::size_t parts = settings_.accum_freq * settings_.ranks_count(), batch = settings_.batch_size * parts, batches = data.epoch_size() / batch;
        if (batches == 0)
            throw program::UsageError("--batch-size", "at most " + std::to_string(data.epoch_size()) + " pairs in a batch, of --batch-size times --accum-freq" + (settings_.ranks == nullptr ? "" : " times ranks"), std::to_string(batch));
        steps_ = batches * settings_.epochs;
        const std::size_t warmup = settings_.warmup.value_or(std::min<std::size_t>(10000, steps_ / 10));
        if (warmup > steps_) throw program::UsageError("--warmup", "at most the run's " + std::to_string(steps_) + " steps", std::to_string(warmup));
        td::TrainerOptions options{.batch = batch,
                                   .micro_batch = parts > 1 ? settings_.batch_size : 0,
                                   .ranks = settings_.ranks,
                                   .shares = settings_.shares > 0 ? settings_.shares : settings_.ranks != nullptr ? std::max(settings_.ranks_count(), std::gcd(parts, std::size_t{8})) : 1,
                                   .epochs = settings_.epochs,
                                   .clip_norm = settings_.grad_clip_norm,
                                   .seed = td::Seed{settings_.seed},
                                   .snapshot = settings_.snapshot(),
                                   .snapshot_every = settings_.snapshot_steps,
                                   .report_every = settings_.log_every_n_steps};
        options.evaluate_every = batches;
        // A tower whose last groups learn is passed back through.
        options.lock_image = settings_.lock_image && settings_.lock_image_unlocked_groups == 0;
        options.lock_text = settings_.lock_text && settings_.lock_text_unlocked_layers == 0;
        td::LayerRates of_layers{.image_decay = settings_.image_layer_decay, .text_decay = settings_.text_layer_decay};
        if (settings_.lock_image && !options.lock_image) of_layers.image_unlocked = settings_.lock_image_unlocked_groups;
        if (settings_.lock_text && !options.lock_text) of_layers.text_unlocked = settings_.lock_text_unlocked_layers;
        if (of_layers != td::LayerRates{}) {
            if (of_layers.image_unlocked && Model::normalises_batches)
                throw program::UsageError("--lock-image-unlocked-groups", "an image tower that does not normalise batches", "one that does");
            if constexpr (td::HasLayerGroups<decltype(config)>) {
                options.rate_factor = td::layer_rates(config, of_layers);
            } else {
                throw program::UsageError("--image-layer-decay, --text-layer-decay, --lock-image-unlocked-groups and --lock-text-unlocked-layers",
                                          "towers of the library's", "one of your own");
            }
        }
        options.average_decay = settings_.ema_decay;
        options.shard_state = settings_.shard_optimizer;
        options.ceiling = pairs_per_second(options);
        options.stop = &stop_asked;
        if (settings_.grad_checkpointing_blocks > 0) {
            if (!Model::recomputes_image && !Model::recomputes_text) throw program::UsageError("--grad-checkpointing", "a tower of transformer blocks", "none");
            if (settings_.is_first_rank() && !(Model::recomputes_image && Model::recomputes_text))
                std::fprintf(stderr, "--grad-checkpointing: only the %s tower has transformer blocks to compute again\n", Model::recomputes_image ? "image" : "text");
            options.recompute = {settings_.grad_checkpointing_blocks};
        }
        Rates rates{.is_cosine = settings_.lr_scheduler == "cosine"};
        rates.cosine.warmup = rates.constant.warmup = static_cast<double>(warmup) / static_cast<double>(steps_);
        rates.constant.cooldown = static_cast<double>(settings_.epochs_cooldown) / static_cast<double>(settings_.epochs);
        rates.constant.floor = settings_.lr > 0 ? settings_.lr_cooldown_end / settings_.lr : 0;
        rates.constant.power = settings_.lr_cooldown_power;
        // The first rank's.
        std::optional<Records> records;
        if (settings_.is_first_rank())
            records.emplace(settings_.folder(), std::vector<std::pair<std::string, std::string>>{{"model", settings_.model},
                                                                                                 {"parameters", std::to_string(td::parameter_count(config))},
                                                                                                 {"pairs", std::to_string(data.size())},
                                                                                                 {"batch", std::to_string(batch)},
                                                                                                 {"ranks", std::to_string(settings_.ranks_count())},
                                                                                                 {"epochs", std::to_string(settings_.epochs)},
                                                                                                 {"optimizer", settings_.opt},
                                                                                                 {"rate", shown(settings_.lr)},
                                                                                                 {"precision", settings_.precision}});
        return with_loss(data, options, rates, batches, records);
    }

    /// What the arithmetic units alone would allow: of a pair's products, those of its gradients are twice those forward, and a locked tower has none.
    double pairs_per_second(const td::TrainerOptions& options) const {
        const auto cost = [](std::size_t forward, bool is_locked) { return static_cast<double>(forward) * (is_locked ? 1 : 3); };
        const double flops = cost(td::image_cost(config).executed, options.lock_image) + cost(td::text_cost(config, caption_tokens_).executed, options.lock_text);
        return 1e9 * measured_gflops(settings_.precision == "amp_bf16", settings_.ranks) / flops;
    }

    td::AnyOptimizer optimizer() const {
        if (settings_.opt == "lion")
            return td::Lion{.rate = settings_.lr, .beta1 = settings_.beta1.value_or(0.9), .beta2 = settings_.beta2.value_or(0.99), .weight_decay = settings_.wd};
        if (settings_.opt == "sgd") return td::Sgd{.rate = settings_.lr, .momentum = settings_.momentum.value_or(0.9), .weight_decay = settings_.wd};
        // open_clip_train/params.py, get_default_params.
        const double beta1 = settings_.beta1.value_or(0.9), beta2 = settings_.beta2.value_or(has_blocks ? 0.98 : 0.999), eps = settings_.eps.value_or(has_blocks ? 1e-6 : 1e-8);
        if (settings_.opt == "muon")
            return td::Muon{.rate = settings_.lr, .momentum = settings_.momentum.value_or(0.95), .beta1 = beta1, .beta2 = beta2, .eps = eps, .weight_decay = settings_.wd};
        return td::AdamW{.rate = settings_.lr, .beta1 = beta1, .beta2 = beta2, .eps = eps, .weight_decay = settings_.wd, .clip_update = settings_.opt == "stableadamw"};
    }

    /// Trains by the loss that is asked for. In tiles, a batch may have any size.
    int with_loss(const Source& data, const td::TrainerOptions& options, const Rates& schedule, std::size_t batches, std::optional<Records>& records) {
        const auto fit_by = [&](auto loss) { return fit(data, options, td::tiled(std::move(loss)), schedule, batches, records); };
        const bool is_plain = settings_.same_captions == td::Repeats::negatives && settings_.label_smoothing == 0;
        if constexpr (config.logit_bias) {
            const td::SigmoidLossByCaption by_caption(settings_.same_captions);
            if (teacher_) return fit_by(by_caption + td::Distillation{*teacher_});
            return is_plain ? fit_by(td::SigmoidLoss{}) : fit_by(by_caption);
        } else {
            const auto by_caption = td::InfoNceByCaption(settings_.same_captions) + settings_.label_smoothing * td::LabelSmoothing{};
            if (teacher_) return fit_by(by_caption + td::Distillation{*teacher_});
            return is_plain ? fit_by(td::InfoNce{}) : fit_by(by_caption);
        }
    }

    template <class L>
    int fit(const Source& data, const td::TrainerOptions& options, L loss, const Rates& schedule, std::size_t batches, std::optional<Records>& records) {
        td::Trainer trainer{model_, optimizer(), schedule, std::move(loss), options};
        bool was_reported = false;
        trainer.on_report([&](const td::StepReport& report) {
            was_reported = true;
            // Where a signal stops a run is no place that another one reports.
            if (report.step % settings_.log_every_n_steps != 0 && report.step != steps_) return;
            records->add(report.step, {{"train/loss", report.loss},
                                      {"train/lr", report.rate},
                                      {"train/scale", report.logit_scale},
                                      {"train/grad_norm", report.gradient_norm},
                                      {"train/samples_per_second", report.samples_per_second},
                                      {"train/share_of_ceiling", report.ceiling_share},
                                      {"train/waiting_for_data", report.waiting}});
            records->write_report(report.step, steps_, "running");
        });
        trainer.on_evaluate([&](const Model& model, const td::RunState& run) {
            const std::size_t epoch = run.step / batches;
            if (validation_ && is_due(epoch, settings_.val_frequency)) retrieve(model, run.step, *records);
            if (!classes_.classes.empty() && is_due(epoch, settings_.zeroshot_frequency)) classify(model, run.step, *records);
            save_epoch(model, epoch);
        });
        const td::RunState run = trainer.fit(data);
        const bool is_done = run.step == steps_;
        if (was_reported) records->write_report(run.step, steps_, is_done ? "done" : "stopped by a signal, to be resumed");
        if (!is_done) {
            if (settings_.is_first_rank()) std::fprintf(stderr, "stopped at step %zu of %zu and saved: --resume latest goes on\n", run.step, steps_);
            return stopped;
        }
        if (!settings_.is_first_rank()) return program::done;
        if (settings_.ema_decay > 0) td::save_weights(trainer.average(), settings_.folder() / "model_ema.safetensors");
        td::save_weights(model_, settings_.folder() / "model.safetensors");
        std::printf("%s: %zu steps, loss %.4f", settings_.folder().c_str(), run.step, run.losses.empty() ? 0.0 : static_cast<double>(run.losses.back()));
        for (const auto& [tag, value] : measured_) std::printf(", %s %.4f", tag.c_str(), value);
        std::printf("\n");
        return program::done;
    }

    /// Retrieval among the validation pairs, by their first captions, in open_clip's numbers (open_clip_train/train.py, get_clip_metrics).
    void retrieve(const Model& model, std::size_t step, Records& records) {
        std::vector<std::size_t> kept;
        const auto images = quickstart::embed_pictures(model, validation_->size(), [&](std::size_t i, std::span<float> pixels) { return validation_->fetch_image(i, pixels); }, kept);
        if (kept.size() < 2) {
            std::fprintf(stderr, "step %zu: fewer than two pairs of --val-data can be decoded: nothing is measured\n", step);
            return;
        }
        std::vector<std::string> captions;
        for (const std::size_t i : kept) captions.push_back(validation_->captions(i)[0]);
        const auto texts = td::embed_texts(model, *tokenizer_, captions);
        Scalars scalars;
        add_recall(scalars, "val/image_to_text_R@", images, texts);
        add_recall(scalars, "val/text_to_image_R@", texts, images);
        std::vector<Found> found;
        for (std::size_t i = 0; i < std::min<std::size_t>(6, kept.size()); ++i) {
            const std::size_t query = i * (kept.size() - 1) / 5;
            Found one{captions[query], {}, 8};
            const auto scores = td::similarity(rows_of(texts, query, 1), images);
            for (const std::size_t match : td::best_matches<float>(scores.elements(), 8)) {
                if (match == query) one.right = one.pictures.size();
                one.pictures.push_back(td::resize_shortest(validation_->image(kept[match]), 112, td::Filter::bicubic));
            }
            found.push_back(std::move(one));
        }
        records.show(std::move(found));
        tell(step, std::move(scalars), records);
    }

    using Embeddings = typename Model::Embeddings;

    static Embeddings rows_of(const Embeddings& all, std::size_t first, std::size_t count) {
        Embeddings rows(count);
        std::copy_n(all[first].data(), rows.size(), rows.data());
        return rows;
    }

    /// A thousand queries at a time, so that no matrix of all pairs is needed.
    static void add_recall(Scalars& scalars, const std::string& tag, const Embeddings& queries, const Embeddings& items) {
        constexpr std::size_t part = 1024;
        constexpr std::array<std::size_t, 3> ranks{1, 5, 10};
        std::array<double, 3> found{};
        const std::size_t count = queries.extent(0);
        for (std::size_t first = 0; first < count; first += part) {
            const std::size_t rows = std::min(part, count - first);
            const auto scores = td::similarity(rows_of(queries, first, rows), items);
            for (std::size_t i = 0; i < ranks.size(); ++i) found[i] += static_cast<double>(rows) * td::recall_at(scores, ranks[i], first);
        }
        for (std::size_t i = 0; i < ranks.size(); ++i) scalars.emplace_back(tag + std::to_string(ranks[i]), found[i] / static_cast<double>(count));
    }

    /// Whether an epoch, or the last one, ends such a number of them.
    bool is_due(std::size_t epoch, std::size_t frequency) const { return frequency > 0 && (epoch % frequency == 0 || epoch == settings_.epochs); }

    void classify(const Model& model, std::size_t step, Records& records) {
        std::vector<std::size_t> kept, labels;
        const auto images = quickstart::embed_pictures(
            model, classes_.pictures.size(),
            [&](std::size_t i, std::span<float> pixels) {
                try {
                    td::preprocess(td::read_image(classes_.pictures[i], decode_), recipe_, pixels);
                    return true;
                } catch (const td::Error&) {
                    return false;
                }
            },
            kept);
        for (const std::size_t i : kept) labels.push_back(classes_.labels[i]);
        if (kept.size() < classes_.pictures.size()) std::fprintf(stderr, "--imagenet-val: %zu pictures cannot be decoded\n", classes_.pictures.size() - kept.size());
        const std::vector<std::string> templates{"a photo of a {}."};
        const auto cosines = td::similarity(images, td::zero_shot_classifier(model, *tokenizer_, classes_.classes, templates));
        const td::ZeroShotScore score = td::score_zero_shot(cosines, labels);
        tell(step, {{"val/zeroshot-top1", score.top1},
                    {"val/zeroshot-top5", score.top5},
                    {"val/zeroshot-mean-per-class", score.macro}}, records);
    }

    void tell(std::size_t step, Scalars scalars, Records& records) {
        std::string line = "step " + std::to_string(step);
        for (const auto& [tag, value] : scalars) {
            line += "  " + tag + " " + shown(value);
            std::erase_if(measured_, [&](const auto& known) { return known.first == tag; });
            measured_.emplace_back(tag, value);
        }
        std::fprintf(stderr, "%s\n", line.c_str());
        records.add(step, std::move(scalars));
        records.write_report(step, steps_, "running");
    }

    void save_epoch(const Model& model, std::size_t epoch) {
        const fs::path folder = settings_.folder() / "checkpoints";
        const auto file = [&](std::size_t number) { return folder / ("epoch_" + std::to_string(number) + ".safetensors"); };
        if (is_due(epoch, settings_.save_frequency)) {
            td::save_weights(model, file(epoch));
            const std::size_t before = (epoch - 1) / settings_.save_frequency * settings_.save_frequency;
            if (settings_.delete_previous_checkpoint && before > 0) fs::remove(file(before));
        }
        if (settings_.save_most_recent) td::save_weights(model, folder / "epoch_latest.safetensors");
    }

    static std::string shown(double value) {
        std::array<char, 32> text;
        std::snprintf(text.data(), text.size(), "%.4g", value);
        return text.data();
    }

    const Settings& settings_;
    Model model_;
    std::optional<td::AnyTokenizer> tokenizer_;
    std::optional<td::Dataset> validation_;
    program::ClassFolder classes_;
    td::Preprocess recipe_;
    td::DecodeOptions decode_;
    Scalars measured_;  // the last of each
    std::size_t steps_ = 0, caption_tokens_ = 0;  // the latter of a caption on average; 0: the context
    std::optional<td::AnyClip> teacher_;
};

/// A run of one architecture in the precision that is asked for.
template <auto config>
int run(const Settings& settings) {
    if (settings.precision == "amp_bf16") return Run<config, td::amp_bf16>(settings)();
    return Run<config, float>(settings)();
}

}  // namespace training
