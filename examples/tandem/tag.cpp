// Labels of one's own list or tree for the pictures of a catalogue.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <set>

#include <nlohmann/json.hpp>
#include <tbb/global_control.h>

#include <tandem/core/file.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/tasks/tagging.hpp>
#include <tandem/tasks/zero_shot.hpp>

#include "inputs.hpp"
#include "labelled.hpp"
#include "metadata.hpp"
#include "searcher.hpp"

namespace program {

namespace {

/// Labelled pictures that a threshold must find rightly before it counts as good.
constexpr std::size_t least_right = 5;

td::Taxonomy read_taxonomy(const std::string& argument) {
    const bool is_wordnet = argument == "wordnet";
    const std::filesystem::path path = is_wordnet ? "/usr/share/wordnet/data.noun" : argument;
    if (is_wordnet && !std::filesystem::exists(path))
        throw td::Error("--labels", "WordNet's nouns (Debian: wordnet-base)", "no " + path.string());
    std::string text;
    for (const std::string& line : is_wordnet ? read_lines(path) : read_texts(path)) text += line + "\n";
    td::Taxonomy taxonomy =
        is_wordnet ? td::Taxonomy::parse_wordnet(text, path.string()) : td::Taxonomy::parse(text, path.string());
    if (taxonomy.size() == 0) throw td::Error(path.string(), "a label a line", "none");
    return taxonomy;
}

/// The mean average precision over labels with enough positives to tell.
double mean_average_precision(const Scores& scores, const td::LabelledPictures& test, std::span<const std::size_t> judged, std::size_t labels) {
    double sum = 0;
    for (const std::size_t label : judged)
        sum += td::average_precision(column_of(scores, label, labels), column_of(test.has, label, labels)).value_or(0);
    return judged.empty() ? 0 : sum / static_cast<double>(judged.size());
}

/// A regression on the embeddings for each judged label, which needs no text: what labels are worth at most.
Scores probe(const td::LabelledPictures& training, const td::LabelledPictures& test, std::span<const std::size_t> judged, std::size_t width,
             std::size_t labels) {
    const std::size_t tests = test.has.size() / labels;
    const std::vector<double> features(training.rows.begin(), training.rows.end());
    Scores scores(tests * labels);
    td::parallel_for(judged.size(), 1, [&](std::size_t begin, std::size_t end) {
        for (; begin < end; ++begin) {
            const td::Logistic fitted = td::fit_logistic(features, column_of(training.has, judged[begin], labels), 1e-3);
            for (std::size_t i = 0; i < tests; ++i) {
                const std::vector<double> row(test.rows.begin() + static_cast<std::ptrdiff_t>(i * width),
                                              test.rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
                scores[i * labels + judged[begin]] = fitted(row);
            }
        }
    });
    return scores;
}

/// Fits on one half, and says how good that is on the other.
void report(const td::Tagger& plain, const Collection& collection, const Known& known) {
    const std::size_t width = plain.width(), labels = plain.taxonomy().size();
    const auto halves = split(collection, known);
    const td::LabelledPictures training = part_of(known, halves[0], labels), test = part_of(known, halves[1], labels);
    std::vector<std::size_t> judged;
    const auto positives = [&](const td::LabelledPictures& some, std::size_t label) {
        return std::ranges::count(column_of(some.has, label, labels), std::uint8_t{1});
    };
    for (std::size_t label = 0; label < labels; ++label) {
        if (positives(training, label) >= 3 && positives(test, label) >= 3) judged.push_back(label);
    }
    if (judged.empty()) {
        std::fprintf(stderr, "tag: too few labelled pictures to tell how good the labels are: a label needs three on each side of a split\n");
        return;
    }
    td::Tagger fitted = plain;
    fitted.calibrate(training);
    const std::size_t count = halves[1].size();
    const auto scores = [&](const auto& of) { return scores_of(test.rows, width, labels, of); };
    const Scores raw = scores([&](std::span<const float> row) { return plain.evidence(row).cosines; });
    const Scores evidence = scores([&](std::span<const float> row) {
        td::Tagger::Evidence found = plain.evidence(row);
        for (double& cosine : found.cosines) cosine -= found.neutral;
        return found.cosines;
    });
    const Scores before = scores([&](std::span<const float> row) { return plain.probabilities(row); });
    const Scores after = scores([&](std::span<const float> row) { return fitted.probabilities(row); });
    const auto map = [&](const Scores& some) { return mean_average_precision(some, test, judged, labels); };
    std::fprintf(stderr,
                 "tag: fitted on %zu labelled pictures; on %zu others, none of them like one of those, over %zu labels:\n"
                 "  mean average precision: cosine %.3f, against neutral prompts %.3f, calibrated and by the tree %.3f",
                 halves[0].size(), count, judged.size(), map(raw), map(evidence), map(after));
    // A step of the regression is a matrix [width, width] from every picture.
    const double work = static_cast<double>(judged.size()) * static_cast<double>(halves[0].size()) * static_cast<double>(width * width);
    if (work < 5e10) std::fprintf(stderr, ", a regression without texts %.3f", map(probe(training, test, judged, width, labels)));
    std::fprintf(stderr, "\n  expected calibration error: %.4f before, %.4f after\n", td::expected_calibration_error(before, test.has),
                 td::expected_calibration_error(after, test.has));
    // Down the tree: of the pictures that have a label at a depth, whether the most probable one there is theirs.
    std::map<std::size_t, std::pair<std::size_t, std::size_t>> depths;
    std::vector<std::size_t> depth_of(labels);
    for (std::size_t label = 0; label < labels; ++label) depth_of[label] = plain.taxonomy().path(label).size();
    for (std::size_t i = 0; i < count; ++i) {
        std::map<std::size_t, std::pair<double, std::size_t>> best;
        std::set<std::size_t> there;
        for (std::size_t label = 0; label < labels; ++label) {
            const std::size_t depth = depth_of[label];
            if (test.has[i * labels + label] != 0) there.insert(depth);
            const double p = after[i * labels + label];
            if (!best.contains(depth) || p > best[depth].first) best[depth] = {p, label};
        }
        for (const std::size_t depth : there) {
            ++depths[depth].second;
            depths[depth].first += test.has[i * labels + best[depth].second];
        }
    }
    for (const auto& [depth, hits] : depths)
        std::fprintf(stderr, "  level %zu of the tree: the most probable label is right for %.1f %% of %zu\n", depth,
                     100 * static_cast<double>(hits.first) / static_cast<double>(hits.second), hits.second);
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
    return out + "\"";
}

int run(const Arguments& arguments) {
    const td::Taxonomy taxonomy = read_taxonomy(arguments.require("--labels"));
    const std::vector<std::string> templates = read_templates(arguments, "{}");
    const std::filesystem::path out = arguments.get("--out");
    if (!out.empty()) {
        if (out.extension() != ".csv" && out.extension() != ".json") throw UsageError("--out", "a name that ends in .csv or .json", out.string());
        require_place(out);
    }
    const std::size_t top = arguments.number("--top", 5);
    const double least = arguments.share("--least", 0.5);
    if (arguments.has("--aim") && !arguments.has("--labelled")) throw UsageError("--aim", "--labelled beside it, to find the thresholds on", "none");
    tbb::global_control threads(tbb::global_control::max_allowed_parallelism, arguments.number("--threads", td::core_count(), 4096));

    const Session session(arguments);
    const auto data = session.searcher.snapshot();
    const Searcher::Lease catalogue(session.searcher);
    const Collection collection = read_collection(*catalogue, *data);
    report_long_texts(session.opened, taxonomy.labels);
    const auto classifier = td::zero_shot_classifier(session.opened.clip, *session.opened.tokenizer, taxonomy.labels, templates);
    td::Tagger tagger(taxonomy, {classifier.data(), classifier.data() + classifier.size()},
                      embed_neutral(session.opened));
    const std::size_t width = tagger.width(), labels = taxonomy.size();
    std::vector<double> thresholds(labels, least);
    if (arguments.has("--labelled")) {
        const Known known = read_labelled(arguments.get("--labelled"), collection, taxonomy);
        report(tagger, collection, known);
        tagger.calibrate(known.data);
        if (arguments.has("--aim")) {
            const double aim = arguments.share("--aim", 0.9);
            const Scores all = scores_of(known.data.rows, width, labels, [&](std::span<const float> row) { return tagger.probabilities(row); });
            for (std::size_t label = 0; label < labels; ++label) {
                const std::vector<double> some = column_of(all, label, labels);
                const std::vector<std::uint8_t> has = column_of(known.data.has, label, labels);
                // Without a threshold that is good enough the label is never given.
                thresholds[label] = td::threshold_for_precision(some, has, aim, least_right).value_or(2);
            }
        }
    } else {
        std::fprintf(stderr, "tag: without --labelled, probabilities are as of an average model\n");
    }

    const Scores all = scores_of(collection.rows, width, labels, [&](std::span<const float> row) { return tagger.probabilities(row); });
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    std::string csv = "path,label,probability,above\n";
    std::size_t tagged = 0, given = 0;
    std::optional<Catalogue> writer;
    if (arguments.has("--apply")) writer.emplace(Catalogue::open(database_of(arguments), Database::Mode::write));
    for (std::size_t i = 0; i < collection.pictures.size(); ++i) {
        const PictureEntry& picture = collection.pictures[i];
        std::vector<std::size_t> order;
        for (std::size_t label = 0; label < labels; ++label) {
            if (all[i * labels + label] >= thresholds[label]) order.push_back(label);
        }
        const auto likely_first = [&](std::size_t label) { return std::pair(-all[i * labels + label], label); };
        std::ranges::sort(order, {}, likely_first);
        // A label comes with those that it is below, whose probabilities are not less.
        std::set<std::size_t> kept;
        for (const std::size_t label : order) {
            const std::vector<std::size_t> path = taxonomy.path(label);
            if (kept.size() < top) kept.insert(path.begin(), path.end());
        }
        std::vector<std::size_t> shown(kept.begin(), kept.end());
        std::ranges::sort(shown, {}, likely_first);
        nlohmann::ordered_json entry{{"path", picture.path}, {"labels", nlohmann::ordered_json::array()}};
        std::string line;
        std::vector<std::string> names;
        for (const std::size_t label : shown) {
            const double p = all[i * labels + label];
            const std::size_t parent = taxonomy.parents[label];
            const std::string above = parent == td::Taxonomy::root ? "" : taxonomy.labels[parent];
            entry["labels"].push_back({{"label", taxonomy.labels[label]}, {"probability", p}, {"above", above}});
            csv += quoted(picture.path) + "," + quoted(taxonomy.labels[label]) + "," + std::to_string(p) + "," + quoted(above) + "\n";
            line += (line.empty() ? "" : ", ") + taxonomy.labels[label] + " " + std::to_string(std::lround(100 * p)) + " %";
            names.push_back(taxonomy.labels[label]);
        }
        if (writer && !names.empty()) {
            // What somebody has refused stays refused.
            const auto [accepted, refused] = writer->tags(picture.id);
            std::vector<std::string> open;
            for (const std::string& name : names) {
                if (std::ranges::find(refused, name) == refused.end()) open.push_back(name);
            }
            writer->set_tags(picture.id, open, true);
        }
        if (arguments.has("--xmp") && !names.empty()) write_sidecar(picture.path + ".xmp", names);
        tagged += names.empty() ? 0 : 1;
        given += names.size();
        if (out.empty()) std::printf("%s\t%s\n", picture.path.c_str(), line.c_str());
        json.push_back(std::move(entry));
    }
    if (!out.empty())
        td::write_file_atomically(out, out.extension() == ".csv" ? csv : json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
    std::fprintf(stderr, "%zu labels for %zu of %zu pictures\n", given, tagged, collection.pictures.size());
    return 0;
}

}  // namespace

Command tag_command() {
    return {.name = "tag",
            .purpose = "labels of a list or a tree for the pictures of a catalogue",
            .operand = "",
            .synopsis = "--labels FILE|wordnet [--database FILE] [--labelled FILE]",
            .description =
                "Every label gets a probability of its own, from how much better it fits than prompts that say nothing; a label comes "
                "with those that it is below. With --labelled, a few pictures of which the labels are known, the probabilities are "
                "fitted to them; half of them are held out first, and tell how good that is.",
            .options = with_checkpoint_options(
                {database_option,
                 {"--labels", "FILE|wordnet", "a label a line, two blanks before it for each one that it is below; or WordNet's nouns (Debian: wordnet-base)"},
                 {"--labelled", "FILE", "what some pictures show: path<TAB>label lines, paths from the file's folder; a path alone has no label"},
                 {"--templates", "FILE", "a prompt a line, with {} for the label; all of them count (default: {})"},
                 {"--least", "P", "the least probability of a label that is given (default 0.5)"},
                 {"--aim", "P", "instead: thresholds for each label at which that share of the given labels is right, among the labelled"},
                 {"--top", "K", "labels of a picture at most, beside those that they are below (default 5)"},
                 {"--out", "FILE.csv|.json", "where the labels go (default: standard output)"},
                 {"--apply", "", "also as tags of the catalogue; what is refused there stays refused"},
                 {"--xmp", "", "also as keywords in a sidecar beside each picture, PICTURE.xmp"},
                 {"--threads", "N", "(default: one a core)"}}),
            .run = run};
}

}  // namespace program
