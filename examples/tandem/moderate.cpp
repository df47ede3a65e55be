// A policy held against the pictures of a catalogue: allowed, to be looked at, or blocked, and why.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>
#include <tbb/global_control.h>

#include <tandem/core/digest.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/tasks/head.hpp>
#include <tandem/tasks/index.hpp>
#include <tandem/tasks/retrieval.hpp>

#include "contact_sheet.hpp"
#include "inputs.hpp"
#include "labelled.hpp"

namespace program {

namespace {

using Json = nlohmann::ordered_json;

/// A network on embeddings that somebody has trained.
struct HeadFile {
    std::string file;
    td::HeadActivation between = td::HeadActivation::none;
    bool is_probability = true;  ///< its number is brought between 0 and 1 by a sigmoid
    bool below = false;          ///< what is low is against the rule
};

/// What is not wanted, in words and in pictures or by a head, and from which score on what is done.
struct Rule {
    std::string name;
    std::vector<std::string> phrases, examples;
    std::optional<HeadFile> head;
    double review = 0.5, block = 0.9;
    double same = 0.97;  ///< the cosine with an example from which on a picture is blocked as one of them

    /// Scores and thresholds, so that more is more against the rule.
    double turned(double score) const { return head && head->below ? -score : score; }
    bool reaches(double score, double threshold) const { return turned(score) >= turned(threshold); }
};

struct Policy {
    std::vector<Rule> rules;
    std::string digest;

    /// Rules, each above its phrases: it is as probable as the most probable of them.
    td::Taxonomy taxonomy() const {
        td::Taxonomy tree;
        for (const Rule& rule : rules) {
            const std::size_t top = tree.labels.size();
            tree.labels.push_back(rule.name);
            tree.parents.push_back(td::Taxonomy::root);
            for (const std::string& phrase : rule.phrases) {
                tree.labels.push_back(rule.name + ": " + phrase);
                tree.parents.push_back(top);
            }
        }
        return tree;
    }
};

HeadFile read_head(const std::string& at, const Json& entry, const std::function<void(const std::string&, const std::string&, const Json&)>& fail) {
    HeadFile head;
    if (!entry.is_object()) fail(at, "an object with a file", entry);
    for (const auto& [key, value] : entry.items()) {
        const std::string here = at + ", " + key;
        if (key == "file" && value.is_string()) {
            head.file = value;
        } else if (key == "between" && value.is_string()) {
            const std::string name = value;
            if (name != "none" && name != "relu" && name != "gelu") fail(here, "none, relu or gelu", value);
            head.between = name == "none" ? td::HeadActivation::none : name == "relu" ? td::HeadActivation::relu : td::HeadActivation::gelu;
        } else if (key == "output" && (value == "sigmoid" || value == "number")) {
            head.is_probability = value == "sigmoid";
        } else if (key == "below" && value.is_boolean()) {
            head.below = value;
        } else {
            fail(here, "file, between (none, relu or gelu), output (sigmoid or number) or below (true or false)", value);
        }
    }
    if (head.file.empty()) fail(at, "a file", entry);
    return head;
}

Policy read_policy(const std::filesystem::path& path) {
    const td::MappedFile file(path);
    const std::string text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    const Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) throw td::Error(path.string(), "JSON", "something else");
    const auto fail = [&](const std::string& where, const std::string& expected, const Json& found) -> void {
        throw td::Error(path.string() + ", " + where, expected, found.dump().substr(0, 100));
    };
    if (!json.is_object() || json.size() != 1 || !json.contains("rules") || !json["rules"].is_array() || json["rules"].empty())
        fail("the whole", "{\"rules\": [...]} with a rule or more", json);
    Policy policy;
    for (const Json& entry : json["rules"]) {
        Rule rule;
        const std::string at = "rule " + std::to_string(policy.rules.size() + 1);
        if (!entry.is_object()) fail(at, "an object", entry);
        for (const auto& [key, value] : entry.items()) {
            const std::string here = at + ", " + key;
            const auto texts = [&](std::vector<std::string>& to) {
                if (!value.is_array()) fail(here, "a list of texts", value);
                for (const Json& one : value) {
                    if (!one.is_string() || one.get<std::string>().empty()) fail(here, "texts", one);
                    to.push_back(one);
                }
            };
            const auto share = [&](double& to) {
                if (!value.is_number() || value.get<double>() < 0 || value.get<double>() > 1) fail(here, "a number from 0 to 1", value);
                to = value;
            };
            const auto threshold = [&](double& to) {
                if (!value.is_number() || !std::isfinite(value.get<double>())) fail(here, "a number", value);
                to = value;
            };
            if (key == "name" && value.is_string()) rule.name = value;
            else if (key == "phrases") texts(rule.phrases);
            else if (key == "examples") texts(rule.examples);
            else if (key == "head") rule.head = read_head(here, value, fail);
            else if (key == "review") threshold(rule.review);
            else if (key == "block") threshold(rule.block);
            else if (key == "same") share(rule.same);
            else fail(here, "name, phrases, examples, head, review, block or same", value);
        }
        if (rule.name.empty() || rule.name.find('\t') != std::string::npos) fail(at, "a name without tabs", entry);
        if (rule.phrases.empty() && rule.examples.empty() && !rule.head) fail(at, "phrases, examples or a head", entry);
        if (rule.head && !rule.phrases.empty()) fail(at, "a head or phrases, of which each has a score", entry);
        if (rule.head && !rule.head->is_probability && !(entry.contains("review") && entry.contains("block"))) fail(at, "review and block, in numbers of its head", entry);
        const auto is_share = [](double value) { return value >= 0 && value <= 1; };
        if ((!rule.head || rule.head->is_probability) && !(is_share(rule.review) && is_share(rule.block))) fail(at, "review and block from 0 to 1", entry);
        if (rule.turned(rule.review) > rule.turned(rule.block)) fail(at, rule.head && rule.head->below ? "review at least block" : "review at most block", entry);
        for (const Rule& other : policy.rules) {
            if (other.name == rule.name) fail(at, "every name once", entry);
        }
        policy.rules.push_back(std::move(rule));
    }
    td::Digest digest;
    digest.add(file.bytes());
    policy.digest = digest.text();
    return policy;
}

/// The labels' texts as the model reads them: a rule's own name is no phrase, and what stands for it is its first one.
std::vector<std::string> texts_of(const Policy& policy) {
    std::vector<std::string> texts;
    for (const Rule& rule : policy.rules) {
        texts.push_back(rule.phrases.empty() ? rule.name : rule.phrases.front());
        texts.insert(texts.end(), rule.phrases.begin(), rule.phrases.end());
    }
    return texts;
}

/// From 2.5 % to 97.5 % (Clopper, Pearson 1934): what share could have given so many hits.
std::pair<double, double> interval(std::size_t hits, std::size_t count) {
    // The chance of at most `most` hits.
    const auto at_most = [&](std::size_t most, double p) {
        double sum = 0;
        for (std::size_t i = 0; i <= most; ++i) {
            const auto n = static_cast<double>(count), k = static_cast<double>(i);
            const double chance = std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1);
            sum += std::exp(chance + (k > 0 ? k * std::log(p) : 0) + (n > k ? (n - k) * std::log1p(-p) : 0));
        }
        return sum;
    };
    const auto where = [](const auto& is_below) {
        double low = 0, high = 1;
        for (int step = 0; step < 60; ++step) {
            const double middle = (low + high) / 2;
            (is_below(middle) ? low : high) = middle;
        }
        return (low + high) / 2;
    };
    const double low = hits == 0 ? 0 : where([&](double p) { return 1 - at_most(hits - 1, p) < 0.025; });
    const double high = hits == count ? 1 : where([&](double p) { return at_most(hits, p) > 0.025; });
    return {low, high};
}

/// Precision over recall for every threshold, as a picture.
std::string curve_svg(const std::string& name, const std::vector<double>& scores, const std::vector<std::uint8_t>& has) {
    const std::vector<std::size_t> order = td::best_matches<double>(scores, scores.size());
    const auto there = static_cast<double>(std::ranges::count(has, std::uint8_t{1}));
    std::string points;
    double hits = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        hits += has[order[i]];
        if (i + 1 < order.size() && scores[order[i + 1]] == scores[order[i]]) continue;
        points += std::to_string(50 + 400 * hits / there) + "," + std::to_string(450 - 400 * hits / static_cast<double>(i + 1)) + " ";
    }
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 500 500\" font-family=\"sans-serif\" font-size=\"14\"><rect width=\"500\" "
           "height=\"500\" fill=\"#fff\"/><path d=\"M50 50V450H450\" fill=\"none\" stroke=\"#888\"/><text x=\"250\" y=\"30\" "
           "text-anchor=\"middle\">" + escaped(name) + "</text><text x=\"250\" y=\"485\" text-anchor=\"middle\">recall, 0 to 1</text><text x=\"20\" "
           "y=\"250\" transform=\"rotate(-90 20 250)\" text-anchor=\"middle\">precision, 0 to 1</text><polyline fill=\"none\" stroke=\"#1f5fbf\" "
           "stroke-width=\"2\" points=\"" + points + "\"/></svg>\n";
}

class Moderator {
public:
    Moderator(Policy policy, const Session& session, const std::filesystem::path& folder)
        : policy_(std::move(policy)), tree_(policy_.taxonomy()), tagger_(tree_, embed_texts(session.opened, texts_of(policy_)), embed_neutral(session.opened)) {
        report_long_texts(session.opened, texts_of(policy_));
        std::size_t label = 0;
        for (const Rule& rule : policy_.rules) {
            tops_.push_back(label);
            label += 1 + rule.phrases.size();
            heads_.emplace_back();
            if (rule.head) {
                heads_.back() = td::Head::load(folder / rule.head->file, rule.head->between);
                const td::Head& head = *heads_.back();
                if (head.in() != tagger_.width() || head.out() != 1)
                    throw td::Error((folder / rule.head->file).string(), "a head from " + std::to_string(tagger_.width()) + " numbers, as this model's embeddings have, to 1",
                                    std::to_string(head.in()) + " to " + std::to_string(head.out()));
            }
            examples_.emplace_back(tagger_.width());
            for (const std::string& example : rule.examples) {
                const std::filesystem::path path = folder / example;
                examples_.back().add(session.searcher.embed_picture(read_picture(session.opened, path), path.string()));
            }
        }
    }

    const td::Taxonomy& tree() const { return tree_; }
    const Policy& policy() const { return policy_; }
    std::size_t width() const { return tagger_.width(); }
    std::size_t label_of(std::size_t rule) const { return tops_[rule]; }

    /// Labels of rules become those of their phrases as well: which of them it was, nobody has said.
    void spread(td::LabelledPictures& known) const {
        const std::size_t labels = tree_.size();
        for (std::size_t i = 0; i < known.has.size(); ++i) {
            const std::size_t parent = tree_.parents[i % labels];
            if (parent != td::Taxonomy::root) known.has[i] = known.has[i - i % labels + parent];
        }
    }

    /// The probabilities of all rules and phrases for rows, without the examples.
    Scores probabilities(std::span<const float> rows) const {
        return scores_of(rows, tagger_.width(), tree_.size(), [&](std::span<const float> row) { return tagger_.probabilities(row); });
    }

    /// What rows have by a rule alone: its head's scores, or its phrases' probabilities.
    std::vector<double> scores(std::size_t rule, std::span<const float> rows, const Scores& probabilities) const {
        if (!heads_[rule]) return column_of(probabilities, tops_[rule], tree_.size());
        std::vector<double> found;
        for (const float value : (*heads_[rule])(rows)) {
            const auto score = static_cast<double>(value);
            found.push_back(policy_.rules[rule].head->is_probability ? 1 / (1 + std::exp(-score)) : score);
        }
        return found;
    }

    Json decide(std::span<const float> row) const {
        const std::vector<double> probabilities = tagger_.probabilities(row);
        Json decision{{"decision", "allow"}, {"rule", nullptr}, {"evidence", nullptr}, {"scores", Json::object()}};
        int worst = 0;
        double most = 0;
        for (std::size_t r = 0; r < policy_.rules.size(); ++r) {
            const Rule& rule = policy_.rules[r];
            const std::size_t top = tops_[r];
            double p = rule.phrases.empty() ? 0 : probabilities[top];
            Json evidence;
            if (!rule.phrases.empty()) {
                const auto first = probabilities.begin() + static_cast<std::ptrdiff_t>(top) + 1;
                const auto best = std::max_element(first, first + static_cast<std::ptrdiff_t>(rule.phrases.size()));
                evidence = {{"phrase", rule.phrases[static_cast<std::size_t>(best - first)]}, {"probability", *best}};
            }
            if (rule.head) {
                p = scores(r, row, probabilities).front();
                evidence = {{"head", rule.head->file}, {"score", p}};
            }
            const bool has_score = rule.head || !rule.phrases.empty();
            int level = has_score && rule.reaches(p, rule.block) ? 2 : has_score && rule.reaches(p, rule.review) ? 1 : 0;
            // Of rules with scores of different kinds, the one whose score is farther beyond its threshold counts, and an example most.
            double beyond = rule.turned(p) - rule.turned(level == 2 ? rule.block : rule.review);
            if (!rule.examples.empty()) {
                const td::SearchResult nearest = examples_[r].search(row, 1);
                const td::Match& match = nearest.matches.front().front();
                if (static_cast<double>(match.score) >= rule.same) {
                    level = 2;
                    beyond = std::numeric_limits<double>::infinity();
                    if (!rule.head) p = 1;
                    evidence = {{"example", rule.examples[match.position]}, {"cosine", match.score}};
                }
            }
            decision["scores"][rule.name] = p;
            if (level > worst || (level == worst && level > 0 && beyond > most)) {
                worst = level;
                most = beyond;
                decision["decision"] = level == 2 ? "block" : "review";
                decision["rule"] = rule.name;
                decision["evidence"] = evidence;
            }
        }
        return decision;
    }

    /// Fits probabilities to what is known, and thresholds at which at most a share of `miss` of the labelled pictures is
    /// missed, and of what is blocked a share of `right` or more is rightly.
    void fit(const td::LabelledPictures& known, double miss, double right) {
        tagger_.calibrate(known);
        const Scores all = probabilities(known.rows);
        for (std::size_t r = 0; r < policy_.rules.size(); ++r) {
            Rule& rule = policy_.rules[r];
            std::vector<double> some = scores(r, known.rows, all);
            for (double& score : some) score = rule.turned(score);
            const std::vector<std::uint8_t> has = column_of(known.has, tops_[r], tree_.size());
            if (std::ranges::count(has, std::uint8_t{1}) == 0) continue;
            const double review = td::threshold_for_recall(some, has, 1 - miss).value_or(rule.turned(rule.review));
            // Where no threshold is right enough, nothing is blocked.
            const double highest = rule.head && !rule.head->is_probability ? std::numeric_limits<double>::max() : rule.turned(rule.head && rule.head->below ? 0 : 1);
            rule.review = rule.turned(review);
            rule.block = rule.turned(std::max(review, td::threshold_for_precision(some, has, right, 5).value_or(highest)));
        }
    }

private:
    Policy policy_;
    td::Taxonomy tree_;
    td::Tagger tagger_;
    std::vector<std::size_t> tops_;
    std::vector<std::optional<td::Head>> heads_;
    std::vector<td::Index> examples_;
};

/// How well rules tell what they are about, on pictures that nothing was fitted on.
void report(const Moderator& moderator, const td::LabelledPictures& test, const std::filesystem::path& curves) {
    const std::size_t labels = moderator.tree().size();
    const Scores all = moderator.probabilities(test.rows);
    for (std::size_t r = 0; r < moderator.policy().rules.size(); ++r) {
        const Rule& rule = moderator.policy().rules[r];
        std::vector<double> scores = moderator.scores(r, test.rows, all);
        for (double& score : scores) score = rule.turned(score);
        const double review = rule.turned(rule.review), block = rule.turned(rule.block);
        const std::vector<std::uint8_t> has = column_of(test.has, moderator.label_of(r), labels);
        const auto positives = static_cast<std::size_t>(std::ranges::count(has, std::uint8_t{1})), negatives = has.size() - positives;
        if (positives == 0 || negatives == 0) {
            std::fprintf(stderr, "moderate: %s: no held-out pictures to tell\n", rule.name.c_str());
            continue;
        }
        // The threshold that one in a hundred of the others passes, or fewer.
        std::vector<double> others;
        std::size_t missed = 0, stopped = 0, blocked = 0, hits = 0;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            if (has[i] == 0) others.push_back(scores[i]);
            missed += has[i] != 0 && scores[i] < review ? 1 : 0;
            stopped += has[i] == 0 && scores[i] >= review ? 1 : 0;
            blocked += scores[i] >= block ? 1 : 0;
        }
        std::ranges::sort(others, std::greater<>());
        const double threshold = others[others.size() / 100];
        for (std::size_t i = 0; i < scores.size(); ++i) hits += has[i] != 0 && scores[i] > threshold ? 1 : 0;
        const auto [low, high] = interval(hits, positives);
        std::fprintf(stderr,
                     "moderate: %s, on %zu held-out pictures of which %zu are it: average precision %.3f; at 1 %% false alarms it finds "
                     "%.1f %% (%.1f to %.1f, 95 %%); at its thresholds %.1f %% are missed, %.1f %% of the others are looked at, %zu are blocked\n",
                     rule.name.c_str(), has.size(), positives, td::average_precision(scores, has).value_or(0),
                     100 * static_cast<double>(hits) / static_cast<double>(positives), 100 * low, 100 * high,
                     100 * static_cast<double>(missed) / static_cast<double>(positives), 100 * static_cast<double>(stopped) / static_cast<double>(negatives), blocked);
        if (!curves.empty()) {
            std::string name = rule.name;
            for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
            td::write_file_atomically(curves / (std::to_string(r + 1) + "_" + name + ".svg"), curve_svg(rule.name, scores, has));
        }
    }
}

std::string now() {
    const std::time_t seconds = std::time(nullptr);
    std::tm parts{};
    std::array<char, 32> text{};
    gmtime_r(&seconds, &parts);
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

int run(const Arguments& arguments) {
    const std::filesystem::path path = arguments.require("--policy"), curves = arguments.get("--curves"), log = arguments.get("--log");
    for (const char* const name : {"--miss", "--right", "--curves"}) {
        if (arguments.has(name) && !arguments.has("--labelled")) throw UsageError(name, "--labelled beside it", "none");
    }
    if (!curves.empty() && !std::filesystem::is_directory(curves)) throw td::Error("--curves", "a folder", curves.string());
    if (!log.empty()) require_place(log);
    const double miss = arguments.share("--miss", 0.05), right = arguments.share("--right", 0.95);
    Policy policy = read_policy(path);
    tbb::global_control threads(tbb::global_control::max_allowed_parallelism, arguments.number("--threads", td::core_count(), 4096));
    const Session session(arguments);
    const auto data = session.searcher.snapshot();
    const Searcher::Lease catalogue(session.searcher);
    Moderator moderator(std::move(policy), session, path.parent_path());
    const Collection collection = read_collection(*catalogue, *data);
    const std::size_t width = moderator.width();
    if (arguments.has("--labelled")) {
        Known known = read_labelled(arguments.get("--labelled"), collection, moderator.tree());
        moderator.spread(known.data);
        const auto halves = split(collection, known);
        const td::LabelledPictures first = part_of(known, halves[0], moderator.tree().size());
        if (std::ranges::count(first.has, std::uint8_t{1}) > 0 && std::ranges::count(first.has, std::uint8_t{0}) > 0 && !halves[1].empty()) {
            moderator.fit(first, miss, right);
            report(moderator, part_of(known, halves[1], moderator.tree().size()), curves);
        } else {
            std::fprintf(stderr, "moderate: too few labelled pictures that do not look alike: nothing can be held out to tell how good the rules are\n");
        }
        moderator.fit(known.data, miss, right);
        for (const Rule& rule : moderator.policy().rules)
            std::fprintf(stderr, "moderate: %s: looked at from %.3f on, blocked from %.3f on\n", rule.name.c_str(), rule.review, rule.block);
    }

    std::ofstream audit;
    if (!log.empty()) {
        audit.open(log, std::ios::app);
        if (!audit) throw td::Error(log.string(), "cannot be written");
    }
    std::map<std::string, std::size_t> counts;
    const std::string fingerprint = catalogue->get("fingerprint");
    for (std::size_t i = 0; i < collection.pictures.size(); ++i) {
        const PictureEntry& picture = collection.pictures[i];
        const Json decision = moderator.decide(std::span(collection.rows).subspan(i * width, width));
        const std::string verdict = decision["decision"];
        ++counts[verdict];
        Json line{{"time", now()}, {"path", picture.path}, {"content", picture.digest}};
        line.update(decision);
        line["policy"] = moderator.policy().digest;
        line["model"] = fingerprint;
        const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace);
        if (audit.is_open()) audit << text << '\n';
        if (arguments.has("--json")) {
            std::printf("%s\n", text.c_str());
        } else if (verdict != "allow") {
            const Json& evidence = decision["evidence"];
            std::printf("%s\t%s\t%s\t%s\n", verdict.c_str(), picture.path.c_str(), decision["rule"].get<std::string>().c_str(),
                        evidence.contains("example") ? ("like " + evidence["example"].get<std::string>()).c_str()
                        : evidence.contains("head")  ? (evidence["head"].get<std::string>() + " " + std::to_string(evidence["score"].get<double>())).c_str()
                                                     : (evidence["phrase"].get<std::string>() + " " + std::to_string(std::lround(100 * evidence["probability"].get<double>())) + " %").c_str());
        }
    }
    if (audit.is_open() && !audit.flush()) throw td::Error(log.string(), "cannot be written");
    std::fprintf(stderr, "%zu allowed, %zu to be looked at, %zu blocked\n", counts["allow"], counts["review"], counts["block"]);
    return 0;
}

}  // namespace

Command moderate_command() {
    return {.name = "moderate",
            .purpose = "a policy held against the pictures of a catalogue",
            .operand = "",
            .synopsis = "--policy FILE.json [--database FILE] [--labelled FILE]",
            .description =
                "A policy is {\"rules\": [{\"name\": ..., \"phrases\": [...], \"examples\": [...], \"review\": 0.5, \"block\": 0.9, \"same\": "
                "0.97}]}: a picture is as much against a rule as the phrase that fits it best is probable, and blocked where it is an "
                "example or nearly so. In place of phrases, \"head\": {\"file\": \"safety.pth\", \"between\": \"relu\", \"output\": \"sigmoid\"} is a "
                "network on the embeddings that somebody has trained (output number: its thresholds are numbers of its own; below: what is low is "
                "against the rule). Prints what is not allowed, with the rule and its evidence. With --labelled, thresholds are found "
                "for a wanted miss rate; half of the labelled pictures are held out first, and tell how good that is. It finds what "
                "looks like what you name, with the errors it reports; nothing is promised for what was not measured.",
            .options = with_checkpoint_options(
                {database_option,
                 {"--policy", "FILE.json", "the rules; examples are paths from its folder"},
                 {"--labelled", "FILE", "what some pictures are: path<TAB>rule lines, a path alone where it is against none"},
                 {"--miss", "P", "with --labelled: the share of what is against a rule that may be missed (default 0.05)"},
                 {"--right", "P", "with --labelled: the share of what is blocked that must be against the rule (default 0.95)"},
                 {"--curves", "DIR", "with --labelled: precision over recall of every rule, as SVG"},
                 {"--log", "FILE", "appends every decision as a line of JSON: time, path, content, rule, evidence, scores, policy, model"},
                 {"--json", "", "these lines on standard output instead of a table"},
                 {"--threads", "N", "(default: one a core)"}}),
            .run = run};
}

}  // namespace program
