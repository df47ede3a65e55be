// Questions about a picture, by any checkpoint of the zoo.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <functional>

#include <nlohmann/json.hpp>

#include <tandem/tasks/ask.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"
#include "progress.hpp"
#include "scenes.hpp"

namespace program {

namespace {

/// Other pictures than the one that is asked about, at most 200 of them.
std::vector<float> embed_others(const Opened& opened, const std::filesystem::path& folder, const std::filesystem::path& asked) {
    constexpr std::size_t most = 200;
    const Pictures pictures = list_pictures(folder);
    std::vector<float> rows;
    std::size_t unread = 0;
    const std::size_t step = std::max<std::size_t>(1, (pictures.paths.size() + most - 1) / most);
    for (std::size_t i = 0; i < pictures.paths.size(); i += step) {
        try {
            if (std::error_code failed; std::filesystem::equivalent(pictures.paths[i], asked, failed)) continue;
            const std::vector<float> row = embed_picture(opened, read_picture(opened, pictures.paths[i]), pictures.paths[i].string());
            rows.insert(rows.end(), row.begin(), row.end());
        } catch (const td::Error& error) {
            std::fprintf(stderr, "left out: %s\n", error.what());
            ++unread;
        }
    }
    if (unread > 0) std::fprintf(stderr, "ask: %zu pictures of %s cannot be read\n", unread, folder.c_str());
    if (rows.empty()) throw td::Error(folder.string(), "pictures that can be read", "none");
    return rows;
}

double scale_of(const Opened& opened) { return std::exp(static_cast<double>(opened.clip.logit_scale())); }

struct Tint {
    const char* name;
    td::Colour colour;
};
constexpr std::array tints{Tint{"red", {230, 30, 30}}, Tint{"orange", {245, 140, 20}}, Tint{"yellow", {245, 225, 30}}, Tint{"green", {40, 160, 50}},
                           Tint{"blue", {40, 80, 220}}, Tint{"purple", {140, 40, 170}}, Tint{"brown", {120, 70, 30}}, Tint{"grey", {130, 130, 130}}};
constexpr std::array numbers{"one", "two", "three", "four"};

/// A question about a scene, with the place of its right answer.
struct Example {
    td::Image scene;
    std::string question;
    std::vector<std::string> answers;
    std::size_t right;
};

/// How many questions of each kind are answered rightly, on scenes put together from drawings; half of them are what priors are taken of.
int report(const Arguments& arguments) {
    const Drawings drawings = read_drawings(arguments.get("--report"));
    const std::size_t count = std::max<std::size_t>(4, arguments.number("--scenes", 200));
    const Opened opened = open(arguments);
    require_both(opened, arguments, "pictures and statements");
    const int side = 2 * static_cast<int>(opened.preprocess.size.height);
    const double scale = scale_of(opened);
    SceneMaker maker(drawings, arguments.seed());
    const auto two_of = [&](bool is_first) {
        const std::vector<std::size_t> pair = maker.some_labels(2);
        // Of the four places the first two are above, left and right.
        Example example{maker.compose(pair, side, false).image, is_first ? "Where is the " + drawings.labels[pair[0]] + "?" : "", {"on the left", "on the right"}, 0};
        if (!is_first) example.question = "Where is the " + drawings.labels[pair[1]] + "?", example.right = 1;
        return example;
    };
    struct Kind {
        const char* name;
        std::function<Example()> make;
        std::size_t right = 0, fair = 0, choices = 0;
    };
    std::vector<Kind> kinds{
        {"which of four objects", [&] {
             const std::vector<std::size_t> labels = maker.some_labels(4);
             Example example{maker.compose({labels[0]}, side).image, "What is this?", {}, 0};
             for (const std::size_t label : labels) example.answers.push_back(drawings.labels[label]);
             return example;
         }},
        {"is it there, yes or no", [&] {
             const std::vector<std::size_t> labels = maker.some_labels(2);
             const bool is_there = maker.below(2) == 0;
             return Example{maker.compose({labels[is_there ? 0 : 1]}, side).image, "Is there a " + drawings.labels[labels[0]] + "?", {"yes", "no"}, is_there ? 0U : 1U};
         }},
        {"which colour of eight", [&] {
             const std::size_t tint = maker.below(tints.size()), label = maker.some_labels(1).front();
             Example example{maker.tinted(label, tints[tint].colour, side).image, "What colour is the " + drawings.labels[label] + "?", {}, tint};
             for (const Tint& one : tints) example.answers.emplace_back(one.name);
             return example;
         }},
        {"how many, one to four", [&] {
             const std::size_t number = maker.below(numbers.size()), label = maker.some_labels(1).front();
             return Example{maker.repeat(label, number + 1, side).image, "How many " + drawings.labels[label] + " are there?", {numbers.begin(), numbers.end()}, number};
         }},
        {"left or right", [&] { return two_of(maker.below(2) == 0); }},
    };
    Progress progress("questions", 0, kinds.size() * count);
    std::size_t done = 0;
    for (Kind& kind : kinds) {
        std::vector<Example> examples;
        std::vector<float> rows;
        for (std::size_t i = 0; i < count; ++i) {
            examples.push_back(kind.make());
            const std::vector<float> row = embed_picture(opened, examples.back().scene, "a scene");
            rows.insert(rows.end(), row.begin(), row.end());
            examples.back().scene = {};
            progress.show(++done);
        }
        const std::size_t width = rows.size() / count, judged = count / 2;
        const std::span<const float> others = std::span(rows).subspan(judged * width);
        for (std::size_t i = 0; i < judged; ++i) {
            const td::Statements asked = td::statements_of(examples[i].question, examples[i].answers);
            const std::vector<float> texts = embed_texts(opened, asked.texts);
            const auto picture = std::span(rows).subspan(i * width, width);
            const auto is_right = [&](const std::vector<double>& shares) {
                return static_cast<std::size_t>(std::ranges::max_element(shares) - shares.begin()) == examples[i].right ? 1U : 0U;
            };
            kind.right += is_right(td::answer_probabilities(picture, texts, {}, scale));
            kind.fair += is_right(td::answer_probabilities(picture, texts, others, scale));
            kind.choices = asked.answers.size();
        }
    }
    std::printf("%zu questions of each kind          right  without prior  chance\n", count / 2);
    for (const Kind& kind : kinds) {
        const auto share = [&](std::size_t right) { return 100 * static_cast<double>(right) / static_cast<double>(count / 2); };
        std::printf("%-30s %8.1f %% %12.1f %% %5.1f %%\n", kind.name, share(kind.fair), share(kind.right), 100 / static_cast<double>(kind.choices));
    }
    return 0;
}

int run(const Arguments& arguments) {
    if (arguments.has("--report")) {
        for (const char* const name : {"--image", "--question", "--answers", "--others", "--top", "--json"}) {
            if (arguments.has(name)) throw UsageError(name, "no --report beside it, which asks questions of its own", "both");
        }
        return report(arguments);
    }
    const td::Statements asked = td::statements_of(
        arguments.require("--question"), arguments.has("--answers") ? read_list(arguments, "--answers", "answer") : std::vector<std::string>{});
    const std::size_t top = arguments.number("--top", 5);
    const std::string picture = arguments.require("--image");
    const Opened opened = open(arguments);
    require_both(opened, arguments, "pictures and statements");
    const std::vector<float> row = embed_picture(opened, read_picture(opened, picture), picture);
    const std::vector<float> others = arguments.has("--others") ? embed_others(opened, arguments.get("--others"), picture) : std::vector<float>{};
    report_long_texts(opened, asked.texts);
    const std::vector<double> shares = td::answer_probabilities(row, embed_texts(opened, asked.texts), others, scale_of(opened));
    std::vector<std::size_t> order(shares.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(-shares[i], i); });
    order.resize(std::min(top, order.size()));
    if (asked.kind == td::QuestionKind::count || asked.kind == td::QuestionKind::place)
        std::fprintf(stderr, "ask: models of captions count badly, and hardly know where things are: trust no such answer\n");
    if (arguments.has("--json")) {
        nlohmann::ordered_json answers = nlohmann::ordered_json::array();
        for (const std::size_t i : order) answers.push_back({{"answer", asked.answers[i]}, {"probability", shares[i]}, {"statement", asked.texts[i]}});
        std::printf("%s\n", nlohmann::ordered_json({{"kind", td::name_of(asked.kind)}, {"answers", answers}}).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
        return 0;
    }
    for (const std::size_t i : order) std::printf("%5.1f %%  %s  (%s)\n", 100 * shares[i], asked.answers[i].c_str(), asked.texts[i].c_str());
    return 0;
}

}  // namespace

Command ask_command() {
    return {.name = "ask",
            .purpose = "answers to a question about a picture, with their probabilities",
            .operand = "",
            .synopsis = "--image FILE --question TEXT [--answers ANSWER,...|FILE]",
            .description =
                "An English question becomes a statement an answer, and the picture is compared with these. Questions for yes or no, a colour "
                "or a number have answers of their own. What such a model can tell is which thing is there, and the colour of a single one; it "
                "counts badly, and hardly knows where things are: --report measures that.",
            .options = with_checkpoint_options(
                {{"--image", "FILE", "a picture"},
                 {"--question", "TEXT", "in English: \"What colour is the car?\""},
                 {"--answers", "ANSWER,...|FILE", "what to choose from: an answer a line, or with commas between"},
                 {"--others", "DIR", "other pictures, which show how well a statement fits anything; 200 of them are used"},
                 {"--top", "K", "answers shown (default 5)"},
                 {"--json", "", "JSON instead of a table"},
                 {"--report", "FILE",
                  "instead: the share of right answers on scenes put together from the drawings that FILE names, path<TAB>label lines, by kind of question"},
                 {"--scenes", "N", "of each kind, for --report; half are judged, half are the others (default 200)"},
                 {"--seed", "N", "of --report (default 0)"}}),
            .run = run};
}

}  // namespace program
