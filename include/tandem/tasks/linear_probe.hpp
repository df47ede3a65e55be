// A linear probe: how well classes can be told from embeddings that stay as they are. Needs NLopt (Debian: libnlopt-dev; CMake: tandem::nlopt).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tasks/zero_shot.hpp>
#include <tandem/tensor/tensor.hpp>

#include <nlopt.h>

namespace tandem::inline TANDEM_ABI {

/// Rows [N, width] of which the classes are known, each below `classes`.
struct LabelledRows {
    std::span<const float> rows;
    std::span<const std::size_t> labels;
    std::size_t width, classes;

    /// Throws Error, which names `where`, unless there is a label for every row, and all are finite and below `classes`.
    void check(const char* where) const;
};

/// Multinomial logistic regression: the weights W [classes, width] and offsets b that minimise Σ −log softmax(W x + b)[label] + |W|² / (2 C), which is
/// scikit-learn's LogisticRegression(C = C), with which Radford et al. 2021 (section 3.2, A.3) probe CLIP. The sums are in double and do not depend on
/// the threads.
class LinearProbe {
public:
    /// By NLopt's L-BFGS (Nocedal 1980; Liu, Nocedal 1989), at most a thousand evaluations, from `begin` if it is given. Throws Error for rows that do
    /// not fit, fewer than two classes, and a strength C that is not above 0.
    static LinearProbe fit(const LabelledRows& known, double strength, const LinearProbe* begin = nullptr);

    /// A probe that has weights already: W [classes, width], and b behind it. Throws Error for another number of them.
    LinearProbe(std::size_t width, std::size_t classes, double strength, std::vector<double> weights)
        : width_(width), classes_(classes), strength_(strength), weights_(std::move(weights)) {
        if (weights_.size() != (width + 1) * classes)
            throw Error("LinearProbe", std::to_string((width + 1) * classes) + " weights", std::to_string(weights_.size()));
    }

    std::span<const double> weights() const { return weights_; }
    std::size_t width() const { return width_; }
    std::size_t classes() const { return classes_; }
    double strength() const { return strength_; }

    /// W x + b for rows [N, width]. Throws Error for what is no whole row.
    Tensor<float, Shape<dynamic, dynamic>> scores(std::span<const float> rows) const;

    /// What fit() minimises, at these weights; and its slopes by weights and offsets, if there is room for them.
    double objective(const LabelledRows& known, std::span<double> slopes = {}) const;

private:
    static double objective(const LabelledRows& known, double strength, const double* weights, double* slopes);

    std::size_t width_, classes_;
    double strength_;
    std::vector<double> weights_;  // [classes, width], and offsets behind them
};

/// A strength C that was tried, and the share of right answers among the rows it was chosen by.
struct StrengthTried {
    double strength, accuracy;
};

/// The strength, of 96 steps between 10⁻⁶ and 10⁶, whose probe of `known` is right most often about `validation`: seven are tried, then the middles of the
/// intervals beside the best one, until steps are an eighth of a decade (Radford et al. 2021, A.3). The first is the best; of equal ones the smallest.
std::vector<StrengthTried> sweep_strength(const LabelledRows& known, const LabelledRows& validation);

// Definitions. They are inline, as the component is not among what is compiled once.

inline void LabelledRows::check(const char* where) const {
    if (width == 0 || classes == 0 || rows.size() != labels.size() * width)
        throw Error(where, "a label for every row of " + std::to_string(width), std::to_string(rows.size()) + " elements and " + std::to_string(labels.size()) + " labels");
    if (const auto wrong = std::ranges::find_if(labels, [&](std::size_t label) { return label >= classes; }); wrong != labels.end())
        throw Error(where, "labels below " + std::to_string(classes), std::to_string(*wrong));
    if (!std::ranges::all_of(rows, [](float value) { return std::isfinite(value); })) throw Error(where, "finite rows", "infinities or NaN among them");
}

namespace detail {

/// Rows that are in memory as double, with their scores, at a time.
inline constexpr std::size_t probe_rows = 8192;

/// scores [rows, classes] of rows in double.
inline void probe_scores(std::span<const double> rows, std::size_t width, std::size_t classes, const double* weights, std::vector<double>& scores) {
    const std::size_t count = rows.size() / width;
    scores.resize(count * classes);
    kernels::gemm<double>(count, classes, width, kernels::row_major(rows.data(), width), kernels::row_major(weights, width).transposed(), scores.data(), classes);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t c = 0; c < classes; ++c) scores[i * classes + c] += weights[classes * width + c];
    }
}

}  // namespace detail

inline double LinearProbe::objective(const LabelledRows& known, double strength, const double* weights, double* slopes) {
    const std::size_t width = known.width, classes = known.classes, matrix = classes * width;
    double value = 0;
    for (std::size_t i = 0; i < matrix; ++i) value += weights[i] * weights[i] / (2 * strength);
    if (slopes != nullptr) {
        for (std::size_t i = 0; i < matrix; ++i) slopes[i] = weights[i] / strength;
        std::fill_n(slopes + matrix, classes, 0.0);
    }
    std::vector<double> rows, scores, losses;
    for (std::size_t first = 0; first < known.labels.size(); first += detail::probe_rows) {
        const std::size_t count = std::min(detail::probe_rows, known.labels.size() - first);
        const auto part = known.rows.subspan(first * width, count * width);
        rows.assign(part.begin(), part.end());
        detail::probe_scores(rows, width, classes, weights, scores);
        losses.resize(count);
        // Scores become probabilities, less 1 for the right one.
        parallel_for(count, 64, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::span<double> of_row = std::span(scores).subspan(i * classes, classes);
                const double largest = *std::ranges::max_element(of_row), right = of_row[known.labels[first + i]];
                double sum = 0;
                for (double& score : of_row) sum += score = std::exp(score - largest);
                for (double& score : of_row) score /= sum;
                of_row[known.labels[first + i]] -= 1;
                losses[i] = largest + std::log(sum) - right;
            }
        });
        for (const double loss : losses) value += loss;
        if (slopes == nullptr) continue;
        kernels::gemm<double>(classes, width, count, kernels::row_major(std::as_const(scores).data(), classes).transposed(),
                              kernels::row_major(std::as_const(rows).data(), width), slopes, width, true);
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t c = 0; c < classes; ++c) slopes[matrix + c] += scores[i * classes + c];
        }
    }
    return value;
}

inline double LinearProbe::objective(const LabelledRows& known, std::span<double> slopes) const {
    known.check("LinearProbe::objective");
    if (known.width != width_ || known.classes != classes_ || (!slopes.empty() && slopes.size() != weights_.size()))
        throw Error("LinearProbe::objective", "rows, classes and slopes of this probe", "others");
    return objective(known, strength_, weights_.data(), slopes.empty() ? nullptr : slopes.data());
}

inline LinearProbe LinearProbe::fit(const LabelledRows& known, double strength, const LinearProbe* begin) {
    known.check("LinearProbe::fit");
    if (known.classes < 2 || known.labels.empty()) throw Error("LinearProbe::fit", "rows of two classes or more", std::to_string(known.labels.size()) + " rows, " + std::to_string(known.classes) + " classes");
    if (!(strength > 0 && std::isfinite(strength))) throw Error("LinearProbe::fit", "a strength above 0", std::to_string(strength));
    LinearProbe probe(known.width, known.classes, strength, std::vector<double>((known.width + 1) * known.classes));
    if (begin != nullptr && begin->weights_.size() == probe.weights_.size()) probe.weights_ = begin->weights_;
    struct Problem {
        const LabelledRows& known;
        double strength;
        nlopt_opt optimizer;
        std::exception_ptr thrown{};
    };
    const std::unique_ptr<nlopt_opt_s, decltype(&nlopt_destroy)> optimizer(nlopt_create(NLOPT_LD_LBFGS, static_cast<unsigned>(probe.weights_.size())), &nlopt_destroy);
    if (optimizer == nullptr) throw Error("LinearProbe::fit", "weights that NLopt has memory for", std::to_string(probe.weights_.size()));
    Problem problem{known, strength, optimizer.get()};
    nlopt_set_min_objective(
        optimizer.get(),
        [](unsigned, const double* weights, double* slopes, void* data) {
            Problem& of = *static_cast<Problem*>(data);
            // No exception passes through NLopt's C.
            try {
                return objective(of.known, of.strength, weights, slopes);
            } catch (...) {
                of.thrown = std::current_exception();
                nlopt_force_stop(of.optimizer);
                return std::numeric_limits<double>::infinity();
            }
        },
        &problem);
    nlopt_set_ftol_rel(optimizer.get(), 1e-12);
    nlopt_set_maxeval(optimizer.get(), 1000);
    double value = 0;
    // It ends in what it calls a failure where rounding leaves it no lower value to find; the weights are the best ones then, too.
    const nlopt_result result = nlopt_optimize(optimizer.get(), probe.weights_.data(), &value);
    if (problem.thrown) std::rethrow_exception(problem.thrown);
    if (result == NLOPT_OUT_OF_MEMORY || result == NLOPT_INVALID_ARGS || !std::isfinite(value))
        throw Error("LinearProbe::fit", "an optimum", std::string(nlopt_result_to_string(result)));
    return probe;
}

inline Tensor<float, Shape<dynamic, dynamic>> LinearProbe::scores(std::span<const float> rows) const {
    if (rows.size() % width_ != 0) throw Error("LinearProbe::scores", "whole rows of " + std::to_string(width_), std::to_string(rows.size()) + " elements");
    Tensor<float, Shape<dynamic, dynamic>> all(rows.size() / width_, classes_);
    std::vector<double> part, found;
    for (std::size_t first = 0; first < all.extent(0); first += detail::probe_rows) {
        const auto some = rows.subspan(first * width_, std::min(detail::probe_rows, all.extent(0) - first) * width_);
        part.assign(some.begin(), some.end());
        detail::probe_scores(part, width_, classes_, weights_.data(), found);
        std::ranges::transform(found, all[first].data(), [](double score) { return static_cast<float>(score); });
    }
    return all;
}

inline std::vector<StrengthTried> sweep_strength(const LabelledRows& known, const LabelledRows& validation) {
    validation.check("sweep_strength");
    std::map<int, double> tried;  // by eighths of a decade
    std::unique_ptr<LinearProbe> last;
    const auto strength_of = [](int eighths) { return std::pow(10.0, eighths / 8.0); };
    const auto try_it = [&](int eighths) {
        if (eighths < -48 || eighths > 48 || tried.contains(eighths)) return;
        last = std::make_unique<LinearProbe>(LinearProbe::fit(known, strength_of(eighths), last.get()));
        tried[eighths] = score_zero_shot(last->scores(validation.rows), validation.labels).top1;
    };
    const auto best = [&] { return std::ranges::max_element(tried, {}, [](const auto& one) { return one.second; })->first; };
    for (int eighths = -48; eighths <= 48; eighths += 16) try_it(eighths);
    for (int step = 8; step >= 1; step /= 2) {
        const int middle = best();
        try_it(middle - step);
        try_it(middle + step);
    }
    std::vector<StrengthTried> found{{strength_of(best()), tried[best()]}};
    for (const auto& [eighths, accuracy] : tried) {
        if (eighths != best()) found.push_back({strength_of(eighths), accuracy});
    }
    return found;
}

}  // namespace tandem::inline TANDEM_ABI
