// The training loop: batches ahead of time, guarded steps, progress, snapshots.
#pragma once

#include <chrono>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <iostream>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/train/optimizer.hpp>
#include <tandem/train/schedule.hpp>
#include <tandem/train/snapshot.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a Trainer trains on: pairs by number. fetch writes pair `index` as a preprocessed image [3, size, size] and ids
/// [context], drawing whatever is random from `random` alone; it is called from several threads at once.
template <class Data>
concept PairSource = requires(const Data& data, Random& random, std::span<float> image, std::span<Id> ids) {
    { data.size() } -> std::convertible_to<std::size_t>;
    data.fetch(std::size_t{}, random, image, ids);
};

/// How long and how to train. One of steps, epochs and seconds bounds the run.
struct TrainerOptions {
    std::size_t batch = 256;
    std::size_t steps = 0;
    std::size_t epochs = 0;
    double seconds = 0;        ///< a budget of time; the schedule follows it, so the result depends on the machine's speed
    double clip_norm = 1.0;    ///< gradients longer than this are scaled to it; 0: never
    std::size_t max_skipped = 10;  ///< so many steps in a row without a finite loss and gradient end the run
    Seed seed{};
    std::filesystem::path snapshot{};    ///< where to save, and to go on from if it is there; empty: nowhere
    std::size_t snapshot_every = 200;    ///< steps
    std::size_t report_every = 20;       ///< steps
    std::ostream* log = &std::clog;      ///< progress lines; nullptr: none
    std::size_t evaluate_every = 0;      ///< steps between calls of the evaluation hook; 0: never
};

/// Trains a Clip on pairs. A step whose loss or gradient is not finite never reaches the weights: it is skipped, counted
/// and reported. With a snapshot and a bound in steps or epochs, a run that is killed at any moment and started again
/// ends in the same bits as one that was not.
template <class Model, class Optimizer, class Schedule, class L>
class Trainer {
public:
    using Hook = std::function<void(const Model&, const RunState&)>;

    Trainer(Model& model, Optimizer optimizer, Schedule schedule, L loss, TrainerOptions options = {})
        : model_(model),
          optimizer_(std::move(optimizer)),
          schedule_(std::move(schedule)),
          loss_(std::move(loss)),
          options_(std::move(options)) {}

    /// Called every options.evaluate_every steps.
    void on_evaluate(Hook hook) { hook_ = std::move(hook); }

    /// Trains until the bound is reached and returns what the run has got to. Throws Error if the data is smaller than a
    /// batch, if no bound or more than one is set, if a snapshot is of another run, or after max_skipped skipped steps in a
    /// row; a snapshot then still holds the last good weights.
    template <PairSource Data>
    RunState fit(const Data& data) {
        check(data.size());
        const std::size_t batches = data.size() / options_.batch;
        const std::size_t last = options_.epochs > 0 ? options_.epochs * batches : options_.steps;
        run_ = {};
        run_.seed = options_.seed.value;
        resume();
        auto next = prefetch(data, run_.step);
        Clock::time_point reported = Clock::now();
        std::size_t reported_step = run_.step;
        while (options_.seconds > 0 ? run_.seconds < options_.seconds : run_.step < last) {
            const Clock::time_point began = Clock::now();
            const Batch batch = next.get();
            next = prefetch(data, run_.step + 1);
            const double progress = options_.seconds > 0
                                        ? run_.seconds / options_.seconds
                                        : static_cast<double>(run_.step) / static_cast<double>(last);
            step(batch, progress);
            run_.seconds += std::chrono::duration<double>(Clock::now() - began).count();
            const bool ended = options_.seconds > 0 ? run_.seconds >= options_.seconds : run_.step == last;
            if (options_.log != nullptr && (run_.step % options_.report_every == 0 || ended)) {
                const double passed = std::chrono::duration<double>(Clock::now() - reported).count();
                report(last, static_cast<double>((run_.step - reported_step) * options_.batch) / passed);
                reported = Clock::now();
                reported_step = run_.step;
            }
            if (hook_ && options_.evaluate_every > 0 && run_.step % options_.evaluate_every == 0) hook_(model_, run_);
            if (!options_.snapshot.empty() && (run_.step % options_.snapshot_every == 0 || ended)) save();
        }
        if (options_.log != nullptr && run_.skipped > 0) {
            *options_.log << run_.skipped << " of " << run_.step << " steps were skipped: loss or gradient not finite\n";
        }
        return run_;
    }

private:
    using Clock = std::chrono::steady_clock;
    using T = typename Model::C;

    struct Batch {
        Tensor<T, typename Model::Vision::Input::shape> images;
        Tensor<Id, typename Model::Text::Input::shape> ids;
    };

    void check(std::size_t size) const {
        if ((options_.steps > 0) + (options_.epochs > 0) + (options_.seconds > 0) != 1) {
            throw Error("Trainer", "exactly one of steps, epochs and seconds to be set", "none or several");
        }
        if (options_.batch == 0 || size < options_.batch) {
            throw Error("Trainer", "at least one batch of " + std::to_string(options_.batch) + " pairs",
                        std::to_string(size) + " pairs");
        }
    }

    void resume() {
        if (options_.snapshot.empty() || !std::filesystem::exists(options_.snapshot)) return;
        load_snapshot(options_.snapshot, model_, state_, run_);
        if (options_.log != nullptr) *options_.log << "going on from step " << run_.step << '\n';
    }

    void save() const { save_snapshot(options_.snapshot, model_, state_, run_); }

    /// A random order of all pairs, of which the last ones that fill no batch are left out, and the seed of what is drawn
    /// for each pair.
    struct Epoch {
        Epoch() = default;
        Epoch(std::size_t epoch, std::size_t size, Seed run) : number(epoch), order(size) {
            std::iota(order.begin(), order.end(), std::size_t{0});
            Random shuffler(run, epoch);
            shuffle(order, shuffler);
            seed = Seed{shuffler.state()};
        }

        bool is(std::size_t epoch, std::size_t size) const { return number == epoch && order.size() == size; }

        std::size_t number = 0;
        std::vector<std::size_t> order;
        Seed seed{};
    };

    /// Batch number `step` of the run, made on another thread: a function of seed and step alone. One is made at a time.
    template <class Data>
    std::future<Batch> prefetch(const Data& data, std::size_t step) {
        return std::async(std::launch::async, [this, &data, step] {
            const std::size_t batches = data.size() / options_.batch;
            if (const std::size_t epoch = step / batches; !epoch_.is(epoch, data.size())) {
                epoch_ = Epoch(epoch, data.size(), options_.seed);
            }
            Batch batch;
            batch.images.resize(options_.batch);
            batch.ids.resize(options_.batch);
            const std::size_t pixels = batch.images.size() / options_.batch;
            parallel_for(options_.batch, 4, [&](std::size_t begin, std::size_t end) {
                std::vector<float> image(pixels);
                for (std::size_t i = begin; i < end; ++i) {
                    const std::size_t index = epoch_.order[step % batches * options_.batch + i];
                    Random random(epoch_.seed, index);
                    data.fetch(index, random, image, batch.ids[i].elements());
                    std::copy(image.begin(), image.end(), batch.images.data() + i * pixels);
                }
            });
            return batch;
        });
    }

    void step(const Batch& batch, double progress) {
        zero_parameters(gradient_);
        work_.dropout = Seed{Random(options_.seed, run_.step).next()};
        const T loss = model_.loss_and_gradient(batch.images, batch.ids, loss_, gradient_, work_);
        const double norm = gradient_norm(gradient_);
        ++run_.step;
        run_.losses.push_back(static_cast<float>(loss));
        if (!std::isfinite(loss) || !std::isfinite(norm)) {
            ++run_.skipped;
            ++run_.skipped_in_row;
            if (options_.log != nullptr) {
                *options_.log << "step " << run_.step << " skipped: loss " << loss << ", gradient norm " << norm << '\n';
            }
            if (run_.skipped_in_row >= options_.max_skipped) {
                throw Error("Trainer", "a finite loss and gradient within " + std::to_string(options_.max_skipped) +
                                           " steps in a row",
                            "none up to step " + std::to_string(run_.step) + "; the weights are those of the last good step");
            }
            return;
        }
        run_.skipped_in_row = 0;
        const double scale = options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
        optimizer_.update(model_, gradient_, state_, optimizer_.rate * schedule_(progress), scale);
        model_.clamp_logit_scale();
    }

    void report(std::size_t last, double rate) const {
        double left = options_.seconds - run_.seconds;
        if (options_.seconds == 0) {
            left = run_.seconds / static_cast<double>(run_.step) * static_cast<double>(last - run_.step);
        }
        const int seconds = static_cast<int>(std::max(0.0, left));
        std::array<char, 160> line;
        const std::string total = last > 0 ? "/" + std::to_string(last) : "";
        std::snprintf(line.data(), line.size(), "step %zu%s  loss %.4f  logit scale %.2f  %.0f samples/s  %d:%02d left\n",
                      run_.step, total.c_str(), static_cast<double>(run_.losses.back()),
                      std::exp(static_cast<double>(std::as_const(model_).logit_scale())), rate, seconds / 60, seconds % 60);
        *options_.log << line.data() << std::flush;
    }

    Model& model_;
    Optimizer optimizer_;
    Schedule schedule_;
    L loss_;
    TrainerOptions options_;
    Hook hook_;
    Model gradient_;
    typename Model::Workspace work_;
    AdamW::State<Model> state_;
    RunState run_;
    Epoch epoch_;  // the prefetching thread's
};

}  // namespace tandem::inline TANDEM_ABI
