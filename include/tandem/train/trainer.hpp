// The training loop: batches ahead of time, guarded steps, progress, snapshots.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <iostream>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/losses/rules.hpp>
#include <tandem/models/batch_parts.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/train/layer_groups.hpp>
#include <tandem/train/optimizer.hpp>
#include <tandem/train/rules.hpp>
#include <tandem/train/schedule.hpp>
#include <tandem/train/snapshot.hpp>
#include <tandem/train/state_shards.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a Trainer trains on: pairs by number. fetch writes pair `index` as a preprocessed image [3, size, size] and ids
/// [context], drawing whatever is random from `random` alone; it is called from several threads at once. One that has epoch_size() and draws(epoch), as
/// Dataset has, decides how often an epoch has each pair.
template <class Data>
concept PairSource = detail::HasSize<Data> && detail::Fetches<Data>;

namespace detail {

/// What a type is called, without namespaces and template arguments, which compilers word differently; `text` is
/// __PRETTY_FUNCTION__ of a function whose one template argument is Type.
std::string short_name(std::string_view text);

template <class Type>
[[gnu::cold]] std::string short_type_name() {
    return short_name(__PRETTY_FUNCTION__);
}

/// A random order of all pairs, of which the last ones that fill no batch are left out, and the seed of what is drawn
/// for each pair.
struct Epoch {
    Epoch() = default;
    Epoch(std::size_t epoch, std::vector<std::size_t> draws, Seed run);

    bool is(std::size_t epoch, std::size_t size) const { return number == epoch && order.size() == size; }

    std::size_t number = 0;
    std::vector<std::size_t> order;
    Seed seed{};
};

/// `rest`, and 0 for what only a loss of pairs has gradients for.
RateFactor without_pairs(RateFactor rest);

template <class Data>
concept DrawsEpochs = requires(const Data& data) {
    { data.epoch_size() } -> std::convertible_to<std::size_t>;
    { data.draws(std::size_t{}) } -> std::convertible_to<std::vector<std::size_t>>;
};

/// How many pairs an epoch has, and which: each once, or as the source has it.
template <class Data>
std::size_t epoch_size(const Data& data) {
    if constexpr (DrawsEpochs<Data>) {
        return data.epoch_size();
    } else {
        return data.size();
    }
}
template <class Data>
std::vector<std::size_t> draws_of(const Data& data, std::size_t epoch) {
    if constexpr (DrawsEpochs<Data>) {
        std::vector<std::size_t> draws = data.draws(epoch);
        if (draws.size() != data.epoch_size())
            throw Error("draws of epoch " + std::to_string(epoch), "as many as epoch_size(), " + std::to_string(data.epoch_size()), std::to_string(draws.size()));
        return draws;
    } else {
        std::vector<std::size_t> draws(data.size());
        std::iota(draws.begin(), draws.end(), std::size_t{0});
        return draws;
    }
}

}  // namespace detail

/// A PairSource that says itself, by name, what a run on it depends on, as Pairs does; a snapshot keeps it. Of any
/// other source a snapshot keeps the size and four samples.
template <class Data>
concept FingerprintedSource = requires(const Data& data) {
    { data.fingerprint() } -> std::convertible_to<std::map<std::string, std::string>>;
};

/// What a step was, for whoever reports it.
struct StepReport {
    std::size_t step = 0, steps = 0;  ///< with this one, and of the whole run; 0 where time bounds it
    double loss = 0;
    double logit_scale = 0;    ///< what multiplies cosines: the exponential of the parameter
    double rate = 0;           ///< what the optimizer took: 0 where the step was skipped
    double gradient_norm = 0;  ///< before clipping
    double samples_per_second = 0, waiting = 0;  ///< since the report before: the second is the share of time that data were waited for
    double ceiling_share = 0;                    ///< of TrainerOptions.ceiling
    double seconds = 0, seconds_left = 0;        ///< of training
};

/// How long and how to train. One of steps, epochs and seconds bounds the run.
struct TrainerOptions {
    std::size_t batch = 256;
    /// Pairs of a batch that are in memory at a time: it has the gradients of the whole one, for a forward pass more; see
    /// Clip::loss_and_gradient. In float and double its size changes no bit. With a loss in tiles, tiled(InfoNce{}), a batch may have any size. 0: all of a share, or of the batch.
    std::size_t micro_batch = 0;
    /// Ranks that compute a batch together, all with the same data, model and options, the path of a snapshot that all can read among them: each has
    /// its parts of the batch in memory, the first one reports, evaluates and saves. A run is bounded by steps or epochs.
    Ranks* ranks = nullptr;
    /// How a batch's gradient is added up: see BatchParts. Runs with as many shares and the same batch (and micro_batch, in amp_bf16) end in the same bits
    /// whatever the number of ranks, and go on from each other's snapshots; a gradient more is in memory each time that a rank's shares double. 0: as many as
    /// there are ranks.
    std::size_t shares = 0;
    /// Each of several ranks updates some of the parameters, keeps the optimizer's state of those alone, and gets the others from the ranks that update
    /// them: ZeRO's first stage, with the same bits for an optimizer that takes a RateFactor and updates each parameter by itself. Weights are sent as well each
    /// step. All of the state is there for a moment when a run begins or goes on, and on the first rank while it saves.
    bool shard_state = false;
    std::size_t steps = 0;
    std::size_t epochs = 0;
    double seconds = 0;  ///< a budget of time; the schedule follows it, so the result depends on the machine's speed
    double clip_norm = 1.0;  ///< gradients longer than this are scaled to it; 0: never
    std::size_t max_skipped =
        10;  ///< so many steps, 1 or more, in a row without a finite loss and gradient end the run
    Seed seed{};
    std::filesystem::path snapshot{};  ///< where to save, and to go on from if it is there; empty: nowhere
    std::size_t snapshot_every = 200;  ///< steps; beside that, before the first step, and after the last one
    std::size_t report_every = 20;     ///< steps
    std::ostream* log = &std::clog;    ///< progress lines; nullptr: none
    double ceiling = 0;                ///< pairs a second that the CPUs' arithmetic allows, of which reports say the share; 0: unknown
    std::size_t evaluate_every = 0;    ///< steps between calls of the evaluation hook; 0: never
    /// Towers that stay as they are: open_clip's --lock-image and --lock-text. They embed as in inference, BatchNorm by its running means,
    /// and cost no backward pass.
    bool lock_image = false, lock_text = false;
    /// Of every other parameter; layer_rates() makes some. Layers of a transformer from the front whose factors are all 0 cost no backward pass.
    RateFactor rate_factor{};
    /// Memory for time, with the same gradients: open_clip's --grad-checkpointing, or so many blocks as memory lacks.
    Recompute recompute = Recompute::nothing;
    double average_decay = 0;  ///< of a running average of the weights, from where a run begins, below 1; 0: none. See Trainer::average()
    /// Ends a run where it is set, behind the step under way, saved if there is a snapshot: a signal's handler may set it.
    const std::atomic<bool>* stop = nullptr;

    /// Throws Error, which names the option, where one is out of range, or does not fit a loss that needs `least_pairs`
    /// in a batch and data of so many pairs.
    void check(std::size_t least_pairs, std::size_t pairs) const;

    /// The parts that a batch comes in.
    BatchParts parts() const;
    bool is_first_rank() const { return ranks == nullptr || ranks->rank() == 0; }

    /// What a run's result depends on of them, for a snapshot.
    void add_to(RunInputs& inputs) const;

    /// rate_factor, and 0 for what is locked; empty where neither is given.
    RateFactor whole_rate_factor() const;

    /// Writes a progress line to `log`.
    void report(const StepReport& report) const;
};

/// Trains a Clip on pairs. A step whose loss or gradient is not finite never reaches the weights: it is skipped,
/// counted and reported. With a snapshot and a bound in steps or epochs, a run that is killed at any moment and started
/// again ends in the same bits as one that was not; started again with anything else that its result depends on, it is
/// an Error that names it: options, optimizer, schedule and loss (by their types and values at some points),
/// architecture, element type, kernels (TANDEM_ISA) and data.
template <class Model, class Optimizer, class Schedule, class L>
class Trainer {
    using Call = detail::LossCall<L, typename Model::C, Model::embedding, Model::architecture.logit_bias>;
    using State = decltype(detail::state_of<Optimizer, Model>());
    static constexpr bool has_update = detail::Updates<Optimizer, Model, typename State::type>;
    static constexpr bool takes_factor = detail::TakesFactor<Optimizer, Model, typename State::type>;
    static constexpr bool fits =
        Model::trains && detail::HasRate<Optimizer> && has_update && detail::GivesFactors<Schedule> && Call::fits;
    static_assert(sizeof(detail::TrainingRules<Model::trains>) > 0);
    static_assert(sizeof(detail::OptimizerRules<Optimizer, detail::HasRate<Optimizer>, has_update>) > 0);
    static_assert(sizeof(detail::ScheduleRules<Schedule, detail::GivesFactors<Schedule>>) > 0);
    static_assert(sizeof(detail::loss_rules<L, Call, Model::architecture.logit_bias>()) > 0);
    static_assert(sizeof(detail::PairlessRules<embeds_pairs<L>, detail::MasksLanguage<typename Model::Text>, Model::architecture.shared>) > 0);

public:
    using Hook = std::function<void(const Model&, const RunState&)>;
    using ReportHook = std::function<void(const StepReport&)>;

    Trainer(Model& model, Optimizer optimizer, Schedule schedule, L loss, TrainerOptions options = {})
        : model_(model),
          optimizer_(std::move(optimizer)),
          schedule_(std::move(schedule)),
          loss_(std::move(loss)),
          options_(std::move(options)) {}

    /// Called every options.evaluate_every steps.
    void on_evaluate(Hook hook) { hook_ = std::move(hook); }

    /// The running average of the weights: what the last fit left, where options.average_decay is set. Throws Error where there is none.
    const Model& average() const {
        if (!average_) throw Error("Trainer::average", "a fit with TrainerOptions.average_decay before", "none");
        return *average_;
    }

    /// Called every options.report_every steps, and behind the last one.
    void on_report(ReportHook hook) { report_hook_ = std::move(hook); }

    /// Trains until the bound is reached, or options.stop is set, and returns what the run has got to; every call is a run of its own. Throws
    /// Error before the first step where an option, a weight, the data's size or the snapshot is wrong or cannot be
    /// written; at a step whose captions or pictures are all the same, under a loss that has to tell them apart, or
    /// whose rate is no rate; and after max_skipped skipped steps in a row. The weights are then those of the last good
    /// step, and so are a snapshot's. An update that makes a weight infinite is an Error as well, and the model is
    /// lost: a snapshot still has what it was saved with before.
    template <class Data>
    RunState fit(const Data& data) {
        static_assert(sizeof(detail::DataRules<Data, detail::HasSize<Data>, detail::Fetches<Data>>) > 0);
        if constexpr (fits && PairSource<Data>) {
            return run(data);
        } else {
            return {};
        }
    }

private:
    using Clock = std::chrono::steady_clock;
    using T = typename Model::C;

    struct Batch {
        Tensor<T, typename Model::Vision::Input::shape> images;
        Tensor<Id, typename Model::Text::Input::shape> ids;
    };

    /// What a rank has seen of a step. All of them have the same loss and gradient.
    struct Sight {
        double loss = 0, norm = 0;
        std::uint64_t captions = 0, pictures = 0;  ///< of the first pair
        bool same_captions = false, same_pictures = false, stop = false;
    };

    [[gnu::cold]] void check(std::size_t size) const {
        options_.check(least_pairs<L>, size);
        if (Model::normalises_batches && options_.parts().ranks_count() > 1)
            throw Error("TrainerOptions.ranks", "one, since this model normalises batches as a whole", std::to_string(options_.ranks->size()));
        if (Model::normalises_batches && options_.parts().shares > 1)
            throw Error("TrainerOptions.shares", "1, since this model normalises batches as a whole", std::to_string(options_.shares));
        if (Model::normalises_batches && options_.parts().parts() > 1)
            throw Error("TrainerOptions.micro_batch", "0, since this model normalises batches as a whole", std::to_string(options_.micro_batch));
        if (options_.recompute != Recompute::nothing && !Model::recomputes_image && !Model::recomputes_text)
            throw Error("TrainerOptions.recompute", "Recompute::nothing, since this model has no tower of transformer blocks", "blocks to compute again");
        if (!embeds_pairs<L> && options_.lock_text)
            throw Error("TrainerOptions.lock_text", "false, since the loss NoPairs is about the text tower alone", "true");
        if (!embeds_pairs<L> && !takes_factor)
            throw Error("Trainer", "an optimizer whose update takes a RateFactor, since with the loss NoPairs the image tower stays", "one that takes none");
        if (!takes_factor && options_.shard_state)
            throw Error("TrainerOptions.shard_state", "false, since this optimizer's update takes no RateFactor", "true");
        if (!takes_factor && factor_)
            throw Error("TrainerOptions", "no rate_factor and no locked tower, since this optimizer's update takes no RateFactor", "one of them");
        if constexpr (requires { optimizer_.check(); }) optimizer_.check();
        if constexpr (requires { schedule_.check(); }) schedule_.check();
    }

    [[gnu::cold]] void check_weights() const {
        for_each_parameter(
            []<class Parameter>(const ParameterName& name, const Parameter& parameter) {
                if (!detail::all_finite<typename Parameter::element>(detail::flat(parameter))) {
                    throw Error(std::string(name), "finite weights to train from", "infinities or NaN among them");
                }
            },
            std::as_const(model_));
    }

    /// What the loss is: its name, and its value for random embeddings, into which go its parts, its weights and what
    /// it has captured. The types are those of a training step, which are compiled anyway.
    [[gnu::cold]] std::string loss_text() const {
        constexpr std::size_t embedding = Model::embedding, count = 8;
        Tensor<T, Shape<dynamic, embedding>> images(count), texts(count);
        Tensor<T, Shape<>> scale, bias;
        Random random(Seed{0});
        fill_normal(images, random, 1.0 / std::sqrt(static_cast<double>(embedding)));
        fill_normal(texts, random, 1.0 / std::sqrt(static_cast<double>(embedding)));
        scale.fill(10), bias.fill(-5);
        const auto value = [&](const L& loss) {
            const auto image = as_expression(images), caption = as_expression(texts);
            const auto factor = as_expression(scale);
            if constexpr (Model::architecture.logit_bias) {
                const auto offset = as_expression(std::as_const(bias));
                const auto expression = call_loss(loss, image, caption, factor, offset);
                if constexpr (std::invocable<const L&, decltype(image), decltype(caption), decltype(factor),
                                             decltype(offset)>) {
                    return value_and_gradient(expression, images, texts, scale, std::as_const(bias)).value;
                } else {
                    return value_and_gradient(expression, images, texts, scale).value;
                }
            } else {
                return value_and_gradient(loss(image, caption, factor), images, texts, scale).value;
            }
        };
        const auto text = [&](const L& loss) { return detail::short_type_name<L>() + " of value " + detail::number_text(static_cast<double>(value(loss)), 6); };
        if constexpr (sees_batch<L>) {
            // Of captions, the first and the last are the same.
            Batch batch;
            batch.images.resize(count);
            batch.ids.resize(count);
            fill_normal(batch.images, random, 1.0);
            for (std::size_t i = 0; i < count; ++i) batch.ids[i].elements().back() = static_cast<Id>(1 + i % (count - 1));
            L loss = loss_;
            detail::for_each_seeing(loss, [&](auto& seeing) {
                seeing.see(0, count, std::as_const(batch.images), std::as_const(batch.ids));
                seeing.seen(nullptr);
            });
            return text(loss);
        } else {
            return text(loss_);
        }
    }

    /// What the schedule is: its name, and its factors at 17 points.
    [[gnu::cold]] std::string schedule_text() const {
        std::string text = detail::short_type_name<Schedule>();
        if constexpr (std::copy_constructible<Schedule>) {
            Schedule schedule = schedule_;  // one that counts its calls is not disturbed
            text += " with";
            for (std::size_t i = 0; i <= 16; ++i) {
                const double share = static_cast<double>(i) / 16;
                const Progress progress{.step = 1000 * i, .steps = 16001, .begin = share, .end = share};
                text += " " + detail::number_text(detail::schedule_factor(schedule, progress), 6);
            }
        }
        return text;
    }

    /// Checks the factors of all parameters' rates, and locks the layers from the front whose are 0. Returns what tells factors apart: a digest.
    [[gnu::cold]] std::string take_factors() {
        constexpr bool has_groups = HasLayerGroups<std::remove_const_t<decltype(Model::architecture)>>;
        Digest digest;
        std::size_t locked = 0;
        std::array<std::size_t, 2> learning{~std::size_t{0}, ~std::size_t{0}};  // the first group of either tower that learns
        for_each_parameter(
            [&](const ParameterName& name, const auto&) {
                const double factor = factor_(name.view());
                if (!(factor >= 0 && std::isfinite(factor)))
                    throw Error("TrainerOptions.rate_factor, " + std::string(name), "a finite number, 0 or above", detail::to_text(factor));
                locked += factor == 0 ? 1 : 0;
                digest.add(std::bit_cast<std::uint64_t>(factor));
                if constexpr (has_groups) {
                    const bool is_image = name.view().starts_with("visual.");
                    if (factor == 0 || name.view().starts_with("logit_")) return;
                    const LayerGroups groups = is_image ? image_layer_groups(Model::architecture) : text_layer_groups(Model::architecture);
                    learning[is_image] = std::min(learning[is_image], groups.size() - 1 - groups.depth(name.view()));
                }
            },
            std::as_const(model_));
        // Shared blocks learn of both towers.
        if constexpr (has_groups && !Model::architecture.shared) {
            if constexpr (Model::recomputes_image) work_.vision.locked = std::min(learning[true], image_layer_groups(Model::architecture).count + 1);
            if constexpr (Model::recomputes_text) work_.text.locked = std::min(learning[false], text_layer_groups(Model::architecture).count + 1);
        }
        return digest.text() + ", " + std::to_string(locked) + " parameters locked";
    }

    template <class Data>
    [[gnu::cold]] RunInputs inputs(const Data& data) const {
        RunInputs found;
        const auto add = [&](const std::string& name, const std::string& value) { found.emplace_back(name, value); };
        const auto count = [&](const char* name, std::size_t value) { add(name, std::to_string(value)); };
        const auto number = [&](const char* name, double value) { add(name, detail::to_text(value)); };
        add("architecture", constant_text(Model::architecture));
        add("precision", detail::short_type_name<typename Model::element>());
        add("TANDEM_ISA", std::string(name_of(kernels::active_isa())));
        options_.add_to(found);
        add("schedule", schedule_text());
        add("loss", loss_text());
        number("rate", optimizer_.rate);
        const auto add_optimizer = [&]<class Chosen>(const Chosen& optimizer) {
            add("optimizer", detail::short_type_name<Chosen>());
            if constexpr (requires { optimizer.beta1; }) number("beta1", optimizer.beta1);
            if constexpr (requires { optimizer.beta2; }) number("beta2", optimizer.beta2);
            if constexpr (requires { optimizer.eps; }) number("eps", optimizer.eps);
            if constexpr (requires { optimizer.clip_update; }) {
                if (optimizer.clip_update) add("clip_update", "yes");
            }
            if constexpr (requires { optimizer.momentum; }) number("momentum", optimizer.momentum);
            if constexpr (requires { optimizer.nesterov; }) add("nesterov", optimizer.nesterov ? "yes" : "no");
            if constexpr (requires { optimizer.weight_decay; }) number("weight_decay", optimizer.weight_decay);
        };
        if constexpr (requires { optimizer_.chosen(); }) {
            std::visit(add_optimizer, optimizer_.chosen());
        } else {
            add_optimizer(optimizer_);
        }
        if (factor_) add("rate factors", factors_);
        // In float and double, parts of any size have the same sums.
        if constexpr (!Real<typename Model::element>) {
            if (parts_.parts() > 1) count("micro_batch", parts_.part);
        }
        if constexpr (FingerprintedSource<Data>) {
            for (const auto& [name, value] : std::map<std::string, std::string>(data.fingerprint()))
                add("data: " + name, value);
        } else {
            count("data: pairs", data.size());
            add("data: samples", samples_of(data));
        }
        return found;
    }

    /// The digest of four pairs, spread over the source.
    template <class Data>
    [[gnu::cold]] static std::string samples_of(const Data& data) {
        Batch batch;
        batch.images.resize(1);
        batch.ids.resize(1);
        std::vector<float> image(batch.images.size());
        Digest digest;
        for (std::size_t i = 0; i < 4; ++i) {
            const std::size_t index = i * (data.size() - 1) / 3;
            Random random(Seed{0}, index);
            data.fetch(index, random, image, batch.ids.elements());
            digest.add(std::span<const float>(image));
            digest.add(std::span<const Id>(batch.ids.elements()));
        }
        return digest.text();
    }

    template <PairSource Data>
    RunState run(const Data& data) {
        factor_ = options_.whole_rate_factor();
        if constexpr (!embeds_pairs<L>) factor_ = detail::without_pairs(std::move(factor_));
        check(detail::epoch_size(data));
        parts_ = options_.parts();
        if (!options_.is_first_rank()) options_.log = nullptr;
        if constexpr (Model::recomputes_image) work_.vision.locked = 0;
        if constexpr (Model::recomputes_text) work_.text.locked = 0;
        if (factor_) factors_ = take_factors();
        work_.lock_image = options_.lock_image || !embeds_pairs<L>;
        work_.lock_text = options_.lock_text;
        work_.recompute = options_.recompute;
        work_.shares = parts_.shares;
        work_.ranks = parts_.ranks;
        average_.reset();
        if (options_.average_decay > 0) average_ = model_;
        const std::size_t batches = detail::epoch_size(data) / options_.batch;
        const std::size_t last = options_.epochs > 0 ? options_.epochs * batches : options_.steps;
        run_ = {};
        run_.seed = options_.seed.value;
        state_.reset();
        if constexpr (requires { optimizer_.prepare(state_); }) optimizer_.prepare(state_);
        own_factor_ = factor_;
        shards_ = {};
        if (options_.shard_state && parts_.ranks_count() > 1) shard_state();
        // Ranks stop together: they have told each other behind their last step.
        is_stopped_ = is_stop_asked();
        const auto is_stopped = [&] { return parts_.ranks == nullptr ? is_stop_asked() : is_stopped_; };
        const auto is_over = [&] {
            return options_.seconds > 0 ? run_.seconds >= options_.seconds : run_.step >= last;
        };
        if (!options_.snapshot.empty() || parts_.ranks != nullptr) inputs_ = inputs(data);
        if (!options_.snapshot.empty()) resume();
        check_weights();
        if (parts_.ranks != nullptr) meet();
        // Not only after hours is it found that nothing can be written there, or not as much.
        if (!options_.snapshot.empty() && !is_over()) save();
        auto next = prefetch(data, run_.step, parts_.part_at(0));
        Clock::time_point reported = Clock::now();
        std::size_t reported_step = run_.step;
        bool ended = is_over() || is_stopped();
        while (!ended) {
            const Clock::time_point began = Clock::now();
            StepReport report = step(data, next, last, began);
            run_.seconds += std::chrono::duration<double>(Clock::now() - began).count();
            ended = is_over() || is_stopped();
            const bool is_reported = run_.step % options_.report_every == 0 || ended;
            if (is_reported) {
                const double passed = std::chrono::duration<double>(Clock::now() - reported).count();
                complete(report, last, passed, static_cast<double>((run_.step - reported_step) * options_.batch) / passed);
                if (options_.log != nullptr) options_.report(report);
                if (report_hook_ && options_.is_first_rank()) report_hook_(report);
            }
            if (options_.evaluate_every > 0 && run_.step % options_.evaluate_every == 0) {
                // What is evaluated, and saved as it is evaluated, all ranks have.
                if (parts_.ranks != nullptr) compare_weights();
                // Who stops a run may not wait until it has been evaluated.
                if (is_stopped() && !options_.snapshot.empty()) save();
                if (hook_ && options_.is_first_rank()) hook_(model_, run_);
                ended = ended || is_stopped();
            }
            if (!options_.snapshot.empty() && (run_.step % options_.snapshot_every == 0 || ended)) save();
            if (is_reported) {
                waited_ = 0;
                reported = Clock::now();
                reported_step = run_.step;
            }
        }
        if (options_.log != nullptr && run_.skipped > 0) {
            *options_.log << run_.skipped << " of " << run_.step
                          << " steps were skipped: loss or gradient not finite\n";
        }
        return run_;
    }

    /// What of a report is known behind the step.
    void complete(StepReport& report, std::size_t last, double passed, double samples_per_second) const {
        report.step = run_.step;
        report.steps = last;
        report.logit_scale = std::exp(static_cast<double>(std::as_const(model_).logit_scale()));
        report.samples_per_second = samples_per_second;
        report.waiting = std::min(1.0, waited_ / passed);
        if (options_.ceiling > 0) report.ceiling_share = samples_per_second / options_.ceiling;
        report.seconds = run_.seconds;
        report.seconds_left = options_.seconds > 0 ? std::max(0.0, options_.seconds - run_.seconds)
                                                   : run_.seconds / static_cast<double>(run_.step) * static_cast<double>(last - run_.step);
    }

    bool is_stop_asked() const { return options_.stop != nullptr && options_.stop->load(); }

    /// Throws Error unless all ranks are to do the same, from the same weights.
    [[gnu::cold]] void meet() {
        RunInputs all = inputs_;
        all.emplace_back("step", std::to_string(run_.step));
        // When they compare what they have.
        all.emplace_back("snapshot", options_.snapshot.empty() ? "no" : "yes");
        all.emplace_back("snapshot_every", std::to_string(options_.snapshot_every));
        all.emplace_back("evaluate_every", std::to_string(options_.evaluate_every));
        all.emplace_back("shard_state", options_.shard_state ? "yes" : "no");
        all.emplace_back("weights", digest_of_weights().text());
        detail::check_ranks(*parts_.ranks, all);
        Sight mine;
        mine.stop = is_stop_asked();
        is_stopped_ = std::ranges::any_of(of_all(mine), &Sight::stop);
    }

    [[gnu::cold]] Digest digest_of_weights() const {
        Digest weights;
        const auto add = [&](const ParameterName&, const auto& tensor) {
            weights.add(std::span<const typename std::remove_cvref_t<decltype(tensor)>::element>(tensor.elements()));
        };
        for_each_parameter(add, std::as_const(model_));
        if (average_) for_each_parameter(add, std::as_const(*average_));
        return weights;
    }

    /// What all ranks have of something.
    template <class Fact>
    std::vector<Fact> of_all(const Fact& mine) {
        std::vector<Fact> all(parts_.ranks->size());
        all[parts_.ranks->rank()] = mine;
        gather<Fact>(*parts_.ranks, all);
        return all;
    }

    void resume() {
        if (!std::filesystem::exists(options_.snapshot)) return;
        load_snapshot(options_.snapshot, model_, state_, run_, inputs_, average_ ? &*average_ : nullptr);
        if (shards_) release_state();
        if (options_.log != nullptr) *options_.log << "going on from step " << run_.step << '\n';
    }

    /// Throws Error unless all ranks have the same weights, and the same average of them.
    [[gnu::cold]] void compare_weights() {
        const auto weights = of_all(digest_of_weights().value());
        const auto other = std::ranges::find_if(weights, [&](std::uint64_t of_rank) { return of_rank != weights[0]; });
        if (other != weights.end())
            throw Error("Trainer, step " + std::to_string(run_.step), "ranks with the same weights",
                        "others on rank " + std::to_string(other - weights.begin()) + ": they are not saved");
    }

    void save() {
        if (parts_.ranks != nullptr) compare_weights();
        if (shards_) State::type::moments([&](const char*, Model& moment) { shards_.collect(moment); }, state_);
        if (options_.is_first_rank()) save_snapshot(options_.snapshot, model_, state_, run_, inputs_, average_ ? &*average_ : nullptr);
        if (shards_) release_state();
        saved_step_ = run_.step;
    }

    /// This rank keeps its part of the optimizer's state.
    [[gnu::cold]] void shard_state() {
        std::vector<std::pair<std::string, std::size_t>> sizes;
        for_each_parameter(
            [&](const ParameterName& name, const auto& tensor) {
                if (!factor_ || factor_(name.view()) != 0) sizes.emplace_back(name, tensor.size());
            },
            std::as_const(model_));
        shards_ = detail::StateShards(*parts_.ranks, sizes);
        own_factor_ = shards_.of_mine(factor_);
        release_state();
    }
    [[gnu::cold]] void release_state() {
        State::type::moments([&](const char*, Model& moment) { shards_.release(moment); }, state_);
    }

    /// Ends a run whose weights are good.
    [[noreturn]] [[gnu::cold]] void stop(const std::string& expected, std::string found) {
        found += "; the weights are those of the last good step";
        try {
            if (!options_.snapshot.empty()) save();
        } catch (const Error& error) {
            found += ", but the snapshot's are older: " + std::string(error.what());
        }
        throw Error("Trainer, step " + std::to_string(run_.step + 1), expected, found);
    }

    /// A part of batch number `step` of the run, made on another thread: a function of seed, step and part alone. One is made at a
    /// time.
    template <class Data>
    std::future<Batch> prefetch(const Data& data, std::size_t step, std::size_t part) {
        return std::async(std::launch::async, [this, &data, step, part] {
            const std::size_t size = detail::epoch_size(data), batches = size / options_.batch;
            if (const std::size_t epoch = step / batches; !epoch_.is(epoch, size)) {
                epoch_ = detail::Epoch(epoch, detail::draws_of(data, epoch), options_.seed);
            }
            const std::size_t first = part * parts_.part, count = std::min(parts_.part, options_.batch - first);
            Batch batch;
            batch.images.resize(count);
            batch.ids.resize(count);
            const std::size_t pixels = batch.images.size() / count;
            parallel_for(count, 4, [&](std::size_t begin, std::size_t end) {
                std::vector<float> image(pixels);
                for (std::size_t i = begin; i < end; ++i) {
                    const std::size_t draw = epoch_.order[step % batches * options_.batch + first + i];
                    Random random(epoch_.seed, draw);
                    data.fetch(draw % data.size(), random, image, batch.ids[i].elements());
                    std::copy(image.begin(), image.end(), batch.images.data() + i * pixels);
                }
            });
            return batch;
        });
    }

    /// Whether all items of a batch have been the same so far, bit for bit.
    template <class Items>
    class Sameness {
    public:
        bool is_there() const { return are_same_; }
        std::uint64_t digest() const {
            Digest digest;
            digest.add(std::span<const typename Items::element>(first_));
            return digest.value();
        }

        void add(const Items& items, std::size_t count) {
            const std::size_t size = items.size() / count;
            if (first_.empty()) first_.assign(items.data(), items.data() + size);
            for (std::size_t i = 0; are_same_ && i < count; ++i)
                are_same_ = std::memcmp(first_.data(), items.data() + i * size, size * sizeof(*items.data())) == 0;
        }

    private:
        std::vector<typename Items::element> first_;
        bool are_same_ = true;
    };

    /// A loss that tells pairs apart finds nothing in a batch that is one caption, or one picture, again and again.
    void check_batch(bool captions, bool pictures) {
        if (!captions && !pictures) return;
        stop(std::string(captions ? "captions" : "pictures") + " that differ within a batch, since this loss tells them apart",
             (captions ? "the same ids " : "the same pixels ") + std::to_string(options_.batch) + " times");
    }

    /// The rate of the step that comes next and began then; its gradient is there.
    double rate(std::size_t last, Clock::time_point began) {
        const auto share = [&](double now, double whole) { return std::min(1.0, now / whole); };
        Progress progress{.step = run_.step, .steps = last};
        if (last > 0) {
            progress.begin = share(static_cast<double>(run_.step), static_cast<double>(last));
            progress.end = share(static_cast<double>(run_.step + 1), static_cast<double>(last));
        } else {
            const double passed = std::chrono::duration<double>(Clock::now() - began).count();
            progress.begin = share(run_.seconds, options_.seconds);
            progress.end = share(run_.seconds + passed, options_.seconds);
        }
        const double factor = detail::schedule_factor(schedule_, progress);
        if (!std::isfinite(factor) || factor < 0)
            stop("a factor of the rate that is finite, 0 or above, of the schedule", detail::to_text(factor));
        return optimizer_.rate * factor;
    }

    /// Loss and gradient of the step's batch. The part that is asked for next is made meanwhile.
    template <class Data>
    Sight loss_and_gradient(const Data& data, std::future<Batch>& next) {
        std::size_t asked = 0;
        Batch batch;
        Sameness<decltype(batch.ids)> captions;
        Sameness<decltype(batch.images)> pictures;
        const auto pairs = [&](std::size_t, std::size_t) -> const Batch& {
            const Clock::time_point began = Clock::now();
            batch = next.get();
            waited_ += std::chrono::duration<double>(Clock::now() - began).count();
            ++asked;
            next = asked < parts_.computed() ? prefetch(data, run_.step, parts_.part_at(asked)) : prefetch(data, run_.step + 1, parts_.part_at(0));
            if constexpr (least_pairs < L >> 1) {
                if (asked <= parts_.own_parts()) {
                    captions.add(batch.ids, batch.ids.extent(0));
                    pictures.add(batch.images, batch.images.extent(0));
                }
            }
            return batch;
        };
        Sight sight;
        sight.loss = static_cast<double>(model_.loss_and_gradient(options_.batch, parts_.part, pairs, loss_, gradient_, work_));
        sight.norm = gradient_norm(gradient_, factor_);
        if (parts_.ranks != nullptr) {
            sight.captions = captions.digest();
            sight.pictures = pictures.digest();
        }
        sight.same_captions = least_pairs<L> > 1 && captions.is_there();
        sight.same_pictures = least_pairs<L> > 1 && pictures.is_there();
        return sight;
    }

    /// What all ranks have seen together.
    Sight compared(Sight mine) {
        mine.stop = is_stop_asked();
        const std::vector<Sight> sights = of_all(mine);
        const auto bits = [](double value) { return std::bit_cast<std::uint64_t>(value); };
        const auto text = [](const Sight& sight) { return "loss " + detail::to_text(sight.loss) + " and gradient norm " + detail::to_text(sight.norm); };
        for (const Sight& sight : sights) {
            if (bits(sight.loss) != bits(sights[0].loss) || bits(sight.norm) != bits(sights[0].norm))
                throw Error("Trainer, step " + std::to_string(run_.step + 1), "ranks that compute the same",
                            text(sights[0]) + " on rank 0, " + text(sight) + " on rank " + std::to_string(&sight - sights.data()));
            mine.same_captions = mine.same_captions && sight.same_captions && sight.captions == sights[0].captions;
            mine.same_pictures = mine.same_pictures && sight.same_pictures && sight.pictures == sights[0].pictures;
            mine.stop = mine.stop || sight.stop;
        }
        return mine;
    }

    template <class Data>
    StepReport step(const Data& data, std::future<Batch>& next, std::size_t last, Clock::time_point began) {
        zero_parameters(gradient_);
        work_.dropout = Seed{Random(options_.seed, run_.step).next()};
        Sight sight = loss_and_gradient(data, next);
        if (parts_.ranks != nullptr) {
            sight = compared(sight);
            is_stopped_ = sight.stop;
        }
        check_batch(sight.same_captions, sight.same_pictures);
        const double loss = sight.loss, norm = sight.norm;
        const bool is_good = std::isfinite(loss) && std::isfinite(norm);
        const double step_rate = is_good ? rate(last, began) : 0;
        const StepReport report{.loss = loss, .rate = step_rate, .gradient_norm = norm};
        ++run_.step;
        run_.losses.push_back(static_cast<float>(loss));
        if (!is_good) {
            ++run_.skipped;
            ++run_.skipped_in_row;
            if (options_.log != nullptr) {
                *options_.log << "step " << run_.step << " skipped: loss " << loss << ", gradient norm " << norm
                              << '\n';
            }
            if (run_.skipped_in_row >= options_.max_skipped) {
                stop("a finite loss and gradient within " + std::to_string(options_.max_skipped) + " steps in a row",
                     "none up to step " + std::to_string(run_.step));
            }
            return report;
        }
        run_.skipped_in_row = 0;
        const double scale = options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
        if (!update(step_rate, scale)) {
            throw Error(
                "Trainer, step " + std::to_string(run_.step), "finite weights after an update",
                "infinities or NaN at a rate of " + detail::to_text(step_rate) + ": the model is of no more use" +
                    (options_.snapshot.empty() ? ""
                                               : "; " + options_.snapshot.string() + " has the weights of step " +
                                                     std::to_string(saved_step_)));
        }
        model_.clamp_logit_scale();
        if (average_) move_average(*average_, model_, options_.average_decay);
        return report;
    }

    bool update(double step_rate, double scale) {
        if constexpr (takes_factor) {
            const bool are_finite = optimizer_.update(model_, gradient_, state_, step_rate, scale, own_factor_);
            if (!shards_) return are_finite;
            shards_.share(model_);
            return std::ranges::all_of(of_all(static_cast<char>(are_finite)), [](char of_rank) { return of_rank != 0; });
        } else {
            return optimizer_.update(model_, gradient_, state_, step_rate, scale);
        }
    }

    Model& model_;
    Optimizer optimizer_;
    Schedule schedule_;
    L loss_;
    TrainerOptions options_;
    Hook hook_;
    ReportHook report_hook_;
    RateFactor factor_;
    std::string factors_;  // in words
    RateFactor own_factor_;  // of the parameters that this rank updates
    detail::StateShards shards_;
    Model gradient_;
    std::optional<Model> average_;
    typename Model::Workspace work_;
    BatchParts parts_;
    bool is_stopped_ = false;         // all ranks, as one of them was asked to
    std::conditional_t<Model::trains, typename State::type, std::monostate> state_;
    RunState run_;
    double waited_ = 0;           // seconds for data, since the last report
    RunInputs inputs_;            // of a run with a snapshot
    std::size_t saved_step_ = 0;  // of the snapshot
    detail::Epoch epoch_;         // the prefetching thread's
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/train/trainer.impl.hpp>
#endif
