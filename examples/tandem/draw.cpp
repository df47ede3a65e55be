// Drawings and changed pictures that a text guides, by the gradient of a model of the quickstart's architecture.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>

#include <tandem/core/file.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/tasks/strokes.hpp>
#include <tandem/tasks/views.hpp>
#include <tandem/tasks/zero_shot.hpp>
#include <tandem/texts/any_tokenizer.hpp>
#include <tandem/train/optimizer.hpp>

#include "../quickstart/design.hpp"
#include "../quickstart/preprocess.hpp"
#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"
#include "progress.hpp"
#include "thumbnail.hpp"

namespace program {

namespace {

/// Whose gradient guides. Another architecture is another constant here.
using Model = td::Clip<quickstart::design>;
constexpr td::ImageSize seen = quickstart::design.vision.image;
constexpr td::Preprocess recipe = quickstart::preprocess_of(seen);

/// Towards some texts, away from others (with 0.3, as CLIPDraw has it).
struct Target {
    std::vector<float> direction;  ///< [embedding]; what is wanted of a picture is its product with it
};

/// A folder's weights, or the file.
std::filesystem::path model_file(const std::filesystem::path& weights) { return std::filesystem::is_directory(weights) ? weights / "model.safetensors" : weights; }

/// A model that looks at pictures, and says how they should change.
class Guide {
public:
    Guide(const std::filesystem::path& weights, const std::filesystem::path& tokenizer)
        : model_(td::load<quickstart::design>(model_file(weights))), tokenizer_(td::open_tokenizer(tokenizer)) {}

    std::vector<float> embed(const std::string& text) const {
        report_long_texts(tokenizer_, quickstart::design.text.context, std::span(&text, 1));
        const auto row = td::embed_texts(model_, tokenizer_, std::span(&text, 1));
        return {row.data(), row.data() + row.size()};
    }

    Target target(const std::string& wanted, const std::string& unwanted) const {
        Target target{embed(wanted)};
        if (!unwanted.empty()) {
            const std::vector<float> away = embed(unwanted);
            for (std::size_t i = 0; i < away.size(); ++i) target.direction[i] -= 0.3F * away[i];
        }
        return target;
    }

    /// The mean over views [N][3][seen] of a picture, levels from 0 to 1, of their product with the target; with its gradient by the views' levels.
    float gradient(std::span<const float> views, const Target& target, std::span<float> dviews) {
        const std::size_t count = views.size() / (3 * seen.area());
        pixels_.resize(count);
        const auto channel = [](std::size_t i) { return i / seen.area() % 3; };
        for (std::size_t i = 0; i < views.size(); ++i) pixels_.data()[i] = (views[i] - recipe.mean[channel(i)]) / recipe.deviation[channel(i)];
        td::Tensor<float, td::Shape<Model::embedding>> direction;
        std::ranges::copy(target.direction, direction.data());
        const float value = model_.image_gradient(pixels_, [&](auto image) { return td::sum(image * direction); }, slopes_);
        for (std::size_t i = 0; i < views.size(); ++i) dviews[i] = slopes_.data()[i] / recipe.deviation[channel(i)] / static_cast<float>(count);
        return value / static_cast<float>(count);
    }

    /// The embedding of a picture of the model's size, levels from 0 to 1.
    std::vector<float> look_at(std::span<const float> levels) const {
        td::Tensor<float, Model::Vision::Input::shape> pixels(1);
        for (std::size_t i = 0; i < levels.size(); ++i) pixels.data()[i] = (levels[i] - recipe.mean[i / seen.area()]) / recipe.deviation[i / seen.area()];
        const auto row = model_.encode_image(pixels);
        return {row.data(), row.data() + row.size()};
    }

private:
    Model model_;
    td::AnyTokenizer tokenizer_;
    td::Tensor<float, Model::Vision::Input::shape> pixels_, slopes_;
};

/// TEXT, in one word of the command line or in several.
std::string text_of(const Arguments& arguments) {
    std::string text;
    for (const std::string& word : arguments.operands()) text += (text.empty() ? "" : " ") + word;
    return text;
}

float product(std::span<const float> a, std::span<const float> b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0F); }

/// A picture of levels [3][side][side] seen as a whole.
std::vector<float> seen_whole(std::span<const float> levels, const td::ImageSize& size) {
    std::vector<float> out(3 * seen.area());
    td::look<float>(td::Perspective::plain(), levels, size, out, seen);
    return out;
}

struct Plan {
    std::size_t strokes = 64, steps = 250, views = 8;
    bool augments = true;
};

/// The gradient of a picture's levels, looked at from some places; returns how well it fits.
float guided(Guide& guide, const Target& target, std::span<const float> levels, const td::ImageSize& size, const Plan& plan, td::Random& random, std::span<float> dlevels) {
    const std::size_t each = 3 * seen.area(), count = plan.augments ? plan.views : 1;
    std::vector<td::Perspective> places;
    std::vector<float> views(count * each), dviews(count * each);
    for (std::size_t i = 0; i < count; ++i) {
        places.push_back(plan.augments ? td::Perspective::random(random) : td::Perspective::plain());
        td::look<float>(places[i], levels, size, std::span(views).subspan(i * each, each), seen);
    }
    const float value = guide.gradient(views, target, dviews);
    std::ranges::fill(dlevels, 0.0F);
    for (std::size_t i = 0; i < count; ++i) td::look_backward<float>(places[i], std::span<const float>(dviews).subspan(i * each, each), seen, dlevels, size);
    return value;
}

/// The pixels that strokes are drawn on while they are moved.
constexpr td::ImageSize canvas_size(2 * seen.height, 2 * seen.width);

/// Draws; after_step(step, strokes, value).
template <class AfterStep>
td::Strokes<float> draw(Guide& guide, const Target& target, const Plan& plan, td::Random& random, const AfterStep& after_step) {
    td::Strokes<float> strokes = td::Strokes<float>::random(plan.strokes, 0.02, random), gradient = strokes;
    td::StrokeCanvas<float> canvas(canvas_size);
    std::vector<float> levels(3 * canvas_size.area()), dlevels(levels.size());
    const td::AdamW optimizer{.beta2 = 0.999, .eps = 1e-8, .weight_decay = 0};
    using Group = td::ParameterGroup<float>;
    struct Moments {
        td::AdamW::State<Group> points, widths, colours;
    } moments;
    const auto start = [](td::AdamW::State<Group>& state, const Group& of) {
        state.first = state.second = of;
        state.reset();
    };
    start(moments.points, strokes.points), start(moments.widths, strokes.widths), start(moments.colours, strokes.colours);
    for (std::size_t step = 0; step < plan.steps; ++step) {
        canvas.forward(strokes, levels);
        const float value = guided(guide, target, levels, canvas_size, plan, random, dlevels);
        for (float& slope : dlevels) slope = -slope;
        gradient.resize(plan.strokes);
        canvas.backward(strokes, dlevels, gradient);
        // CLIPDraw's rates, for a canvas of 224 pixels: 1 pixel, 0.1 pixels of width, 0.01 of colour; less towards the end.
        const double share = step < plan.steps / 2 ? 1 : step < plan.steps * 3 / 4 ? 0.4 : 0.1;
        optimizer.update(strokes.points, gradient.points, moments.points, share / 224);
        optimizer.update(strokes.widths, gradient.widths, moments.widths, share * 0.1 / 224);
        optimizer.update(strokes.colours, gradient.colours, moments.colours, share * 0.01);
        strokes.clamp(1.0 / 224, 50.0 / 224);
        after_step(step, strokes, value);
    }
    return strokes;
}

/// Some moments of a drawing beside each other.
std::string history_of(const std::vector<std::pair<std::string, std::string>>& moments) {
    constexpr std::size_t side = 160;
    const std::string width = std::to_string(moments.size() * (side + 10)), height = std::to_string(side + 24);
    std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + width + "\" height=\"" + height + "\" font-family=\"sans-serif\" font-size=\"12\">\n";
    for (std::size_t i = 0; i < moments.size(); ++i) {
        const std::string x = std::to_string(i * (side + 10));
        out += "<g transform=\"translate(" + x + ",0)\">" + moments[i].second + "<rect width=\"160\" height=\"160\" fill=\"none\" stroke=\"#888\"/><text y=\"176\">" + moments[i].first + "</text></g>\n";
    }
    return out + "</svg>\n";
}

std::string number(const char* format, double value) {
    std::array<char, 48> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

/// The model of --judge, if there is one; before the work, for it may not be there.
std::optional<Guide> open_judge(const Arguments& arguments) {
    if (!arguments.has("--judge")) return std::nullopt;
    const std::filesystem::path weights = arguments.get("--judge");
    return Guide(weights, tokenizer_beside(weights));
}

void say_judgement(const std::optional<Guide>& judge, const std::string& text, std::span<const float> levels, const td::ImageSize& size) {
    if (judge) std::printf("judge: cosine %.3f\n", static_cast<double>(product(judge->look_at(seen_whole(levels, size)), judge->embed(text))));
}

/// Changes a picture, no level of it by more than a bound.
int change(const Arguments& arguments, Guide& guide, const Plan& plan) {
    const std::filesystem::path out = arguments.require("--out");
    if (out.extension() != ".png") throw UsageError("--out", "a name that ends in .png, for a picture that is changed", out.string());
    const std::string text = text_of(arguments);
    const std::optional<Guide> judge = open_judge(arguments);
    const std::size_t bound = arguments.number("--change", 16, 255);
    require_other("--out", out, arguments.get("--image"));
    if (arguments.has("--strokes")) throw UsageError("--strokes", "no --image beside it, which is changed without strokes", "both");
    const td::Image picture = fitted(on_white(td::read_image(arguments.get("--image"), {.background = td::white, .orientation = td::Orientation::exif})), 256);
    const td::Image square = td::pad_to_square(picture, td::white);
    const int side = square.width;
    const td::ImageSize size(side, side);
    const Target target = guide.target(text, arguments.get("--negative"));
    // What was added as a frame stays as it is.
    const int left = (side - picture.width) / 2, top = (side - picture.height) / 2;
    std::vector<float> before(3 * size.area());
    std::vector<bool> is_frame(size.area());
    for (std::size_t i = 0; i < size.area(); ++i) {
        const int x = static_cast<int>(i) % side - left, y = static_cast<int>(i) / side - top;
        is_frame[i] = x < 0 || y < 0 || x >= picture.width || y >= picture.height;
        for (std::size_t c = 0; c < 3; ++c) before[c * size.area() + i] = static_cast<float>(square.pixels[3 * i + c]) / 255;
    }
    td::ParameterGroup<float> levels, gradient;
    levels.values.resize(before.size());
    gradient.values.resize(before.size());
    std::ranges::copy(before, levels.values.data());
    const td::AdamW optimizer{.beta2 = 0.999, .eps = 1e-8, .weight_decay = 0};
    td::AdamW::State<td::ParameterGroup<float>> moments;
    moments.first = moments.second = levels;
    moments.reset();
    const float most = static_cast<float>(bound) / 255;
    td::Random random(arguments.seed());
    Progress progress("draw", 0, plan.steps);
    const float at_first = product(guide.look_at(seen_whole(before, size)), target.direction);
    for (std::size_t step = 0; step < plan.steps; ++step) {
        guided(guide, target, levels.values.elements(), size, plan, random, gradient.values.elements());
        for (float& slope : gradient.values.elements()) slope = -slope;
        optimizer.update(levels, gradient, moments, static_cast<double>(most) / 16);
        for (std::size_t i = 0; i < before.size(); ++i) {
            const float bounded = std::clamp(levels.values.data()[i], before[i] - most, before[i] + most);
            levels.values.data()[i] = is_frame[i % size.area()] ? before[i] : std::clamp(bounded, 0.0F, 1.0F);
        }
        progress.show(step + 1);
    }
    td::Image changed = picture;
    int largest = 0;
    for (int i = 0; i < picture.width * picture.height; ++i) {
        const auto at = static_cast<std::size_t>((i / picture.width + top) * side + i % picture.width + left);
        for (std::size_t c = 0; c < 3; ++c) {
            std::uint8_t& level = changed.pixels[3 * static_cast<std::size_t>(i) + c];
            const auto now = static_cast<std::uint8_t>(std::lround(255 * levels.values.data()[c * size.area() + at]));
            largest = std::max(largest, std::abs(int{now} - int{level}));
            level = now;
        }
    }
    write_png(out, changed);
    std::printf("%s: cosine %.3f, was %.3f; no level changed by more than %d\n", out.c_str(),
                static_cast<double>(product(guide.look_at(seen_whole(levels.values.elements(), size)), target.direction)), static_cast<double>(at_first), largest);
    say_judgement(judge, text, levels.values.elements(), size);
    return 0;
}

/// Whether those who did not guide see the drawings' texts in them, and what of that random strokes and drawings without other views have.
int report(const Arguments& arguments, const std::filesystem::path& weights, Guide& guide, Plan plan) {
    const std::vector<std::string> texts = read_list(arguments, "--report", "text");
    if (texts.size() < 2) throw td::Error("--report", "two texts or more, to tell apart", std::to_string(texts.size()));
    const std::filesystem::path other = arguments.require("--judge");
    if (std::filesystem::equivalent(model_file(other), model_file(weights))) throw UsageError("--judge", "another model than the one that guides", other.string());
    const Guide judge(other, tokenizer_beside(other));
    struct Row {
        const char* name;
        std::size_t by_guide = 0, by_judge = 0;
        double cosine = 0;
    };
    std::array rows{Row{"random strokes"}, Row{"guided, one view"}, Row{"guided, many views"}};
    Progress progress("draw", 0, rows.size() * texts.size());
    for (std::size_t text = 0; text < texts.size(); ++text) {
        for (std::size_t row = 0; row < rows.size(); ++row) {
            td::Random random(td::Seed{arguments.number("--seed", 0, 1'000'000, 0) * 1000 + text});
            plan.augments = row == 2;
            const td::Strokes<float> strokes = row == 0 ? td::Strokes<float>::random(plan.strokes, 0.02, random)
                                                        : draw(guide, guide.target(texts[text], ""), plan, random, [](std::size_t, const auto&, float) {});
            std::vector<float> levels(3 * canvas_size.area());
            td::StrokeCanvas<float>(canvas_size).forward(strokes, levels);
            const auto is_found = [&](const Guide& by) {
                const std::vector<float> embedding = by.look_at(seen_whole(levels, canvas_size));
                std::size_t best = 0;
                float most = -2;
                for (std::size_t i = 0; i < texts.size(); ++i) {
                    const float cosine = product(embedding, by.embed(texts[i]));
                    if (cosine > most) most = cosine, best = i;
                }
                return best == text ? 1U : 0U;
            };
            rows[row].by_guide += is_found(guide);
            rows[row].by_judge += is_found(judge);
            rows[row].cosine += static_cast<double>(product(judge.look_at(seen_whole(levels, canvas_size)), judge.embed(texts[text]))) / static_cast<double>(texts.size());
            progress.show(text * rows.size() + row + 1);
        }
    }
    std::printf("%zu drawings of %zu strokes, %zu steps: whose text is the nearest of all\n%-22s    guide    judge    judge's cosine\n", texts.size(), plan.strokes, plan.steps, "");
    for (const Row& row : rows) {
        const auto share = [&](std::size_t found) { return 100 * static_cast<double>(found) / static_cast<double>(texts.size()); };
        std::printf("%-22s %6.1f %% %6.1f %% %12.3f\n", row.name, share(row.by_guide), share(row.by_judge), row.cosine);
    }
    return 0;
}

int run(const Arguments& arguments) {
    Plan plan;
    plan.strokes = arguments.number("--strokes", plan.strokes, 10'000);
    plan.steps = arguments.number("--steps", plan.steps, 100'000);
    plan.views = arguments.number("--views", plan.views, 256);
    plan.augments = !arguments.has("--one-view");
    if (arguments.has("--change") && !arguments.has("--image")) throw UsageError("--change", "--image beside it, the picture that is changed", "none");
    if (arguments.has("--one-view") && arguments.has("--views")) throw UsageError("--one-view", "no --views beside it", "both");
    if (!arguments.has("--report")) {
        if (arguments.operands().empty()) throw UsageError("TEXT", "what is to be drawn, or --report", "none");
        require_place(arguments.require("--out"));
    }
    const std::filesystem::path weights = weights_of(arguments);
    Guide guide(weights, tokenizer_of(arguments));
    if (arguments.has("--report")) return report(arguments, weights, guide, plan);
    if (arguments.has("--image")) return change(arguments, guide, plan);
    const std::filesystem::path out = arguments.get("--out");
    if (out.extension() != ".svg") throw UsageError("--out", "a name that ends in .svg", out.string());
    const std::string text = text_of(arguments);
    const std::optional<Guide> judge = open_judge(arguments);
    const Target target = guide.target(text, arguments.get("--negative"));
    td::Random random(arguments.seed());
    Progress progress("draw", 0, plan.steps);
    std::vector<std::pair<std::string, std::string>> moments;
    constexpr std::size_t shown = 8;
    const td::Strokes<float> strokes = draw(guide, target, plan, random, [&](std::size_t step, const td::Strokes<float>& now, float value) {
        progress.show(step + 1);
        if (step * shown / plan.steps != (step + 1) * shown / plan.steps || step == 0)
            moments.emplace_back("step " + std::to_string(step + 1) + ": " + number("%.3f", static_cast<double>(value)), now.svg(160));
    });
    td::write_file_atomically(out, strokes.svg(448));
    std::filesystem::path history = out;
    history.replace_extension(".history.svg");
    td::write_file_atomically(history, history_of(moments));
    std::vector<float> levels(3 * canvas_size.area());
    td::StrokeCanvas<float>(canvas_size).forward(strokes, levels);
    std::printf("%s: %zu strokes, cosine %.3f; %s: how it came about\n", out.c_str(), plan.strokes,
                static_cast<double>(product(guide.look_at(seen_whole(levels, canvas_size)), guide.embed(text))), history.c_str());
    say_judgement(judge, text, levels, canvas_size);
    return 0;
}

}  // namespace

Command draw_command() {
    return {.name = "draw",
            .purpose = "a drawing that a text guides, or a picture changed towards one",
            .operand = "[TEXT...]",
            .synopsis = "TEXT --out FILE.svg [--strokes N] | TEXT --image FILE --change LEVELS --out FILE.png",
            .description =
                "Strokes are moved until a model finds the text in what they show, looked at from many places (CLIPDraw). The drawing is an SVG; "
                "FILE.history.svg shows how it came about. With --image a picture is changed instead, no level of it by more than LEVELS of 255. "
                "The model is one of the quickstart's architecture, with whose gradients the program is built.",
            .options = {{"--out", "FILE.svg|.png", "the drawing, or the changed picture (at most 256 pixels a side)"},
                        {"--weights", "PATH", "a model that the quickstart trained (default: the folder quickstart)"},
                        {"--tokenizer", "PATH", "where it does not lie beside the weights"},
                        {"--negative", "TEXT", "what it should not show"},
                        {"--strokes", "N", "(default 64)"},
                        {"--steps", "N", "(default 250)"},
                        {"--views", "N", "places that each step looks from (default 8)"},
                        {"--one-view", "", "only from the front, which finds what fools the model"},
                        {"--image", "FILE", "a picture to change"},
                        {"--change", "LEVELS", "how far, of 255 (default 16)"},
                        {"--judge", "PATH", "another model of the same architecture, trained apart: what it makes of the result"},
                        {"--report", "TEXT,...|FILE", "instead, with --judge: whether judge and guide find each of these texts in its drawing, beside random strokes and one view"},
                        {"--seed", "N", "(default 0)"}},
            .run = run};
}

}  // namespace program
