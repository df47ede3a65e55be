// How good a checkpoint is, in the numbers that people report: zero-shot accuracy, linear and few-shot probes, retrieval.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <sstream>

#include <nlohmann/json.hpp>

#include <tandem/data/samples.hpp>
#include <tandem/tandem.hpp>
#include <tandem/tasks/linear_probe.hpp>

#include "checkpoint.hpp"
#include "class_folder.hpp"
#include "inputs.hpp"
#include "journal.hpp"
#include "table_options.hpp"

namespace program {

namespace {

using Scores = td::Tensor<float, td::Shape<td::dynamic, td::dynamic>>;

/// Pictures with what is known of them, those that can be read.
struct Embedded {
    Scores rows;
    std::vector<std::size_t> kept;  ///< which of the pictures they are
};

/// Embeds pictures in parts, each with a name, and keeps what it has of them in --journal's folder until the run is done.
class PictureRows {
public:
    PictureRows(const Opened& opened, const Arguments& options) : opened_(opened), folder_(options.get("--journal")) {
        if (folder_.empty()) return;
        std::filesystem::create_directories(folder_);
        inputs_ = inputs_of_rows(options, opened);
    }

    const Opened& opened() const { return opened_; }

    /// Makes a part ready, whose pictures `add_pictures` tells Inputs. Throws Error where an earlier run has left others.
    template <class AddPictures>
    void prepare(const std::string& part, const AddPictures& add_pictures) {
        const std::size_t width = opened_.clip.sizes().embedding;
        if (folder_.empty()) {
            journals_.try_emplace(part, width);
            return;
        }
        Inputs inputs = inputs_;
        add_pictures(inputs);
        journals_.try_emplace(part, folder_ / (part + ".rows"), "evaluate 1", inputs, width);
    }

    /// The pictures of a part, by number.
    Embedded embed(const std::string& part, std::size_t count, const std::function<td::Image(std::size_t)>& picture,
                   const std::function<std::string(std::size_t)>& name) {
        const std::size_t floats = opened_.preprocess.count(), width = opened_.clip.sizes().embedding;
        Journal& journal = journals_.at(part);
        std::vector<float> rows = picture_rows(
            part.c_str(), journal, count, floats, [&](std::size_t i, std::span<float> to) { to_pixels(opened_, picture(i), name(i), to); },
            [&](std::span<const float> pixels) {
                const auto embedded = opened_.clip.encode_image(pixels);
                if (!is_finite(embedded.elements())) throw td::Error(part, "finite numbers from the model", "infinities or NaN");
                return std::vector<float>(embedded.data(), embedded.data() + embedded.size());
            });
        Embedded found;
        for (std::size_t i = 0; i < count; ++i) {
            const auto row = std::span(rows).subspan(i * width, width);
            if (std::isnan(row[0])) {
                // Once more: for its message, which an earlier run may have had, or because it can be read by now.
                try {
                    std::ranges::copy(embed_picture(opened_, picture(i), name(i)), row.begin());
                } catch (const td::Error& error) {
                    std::fprintf(stderr, "left out: %s\n", error.what());
                    continue;
                }
            }
            // Rows close up.
            if (found.kept.size() < i) std::ranges::copy(row, rows.begin() + static_cast<std::ptrdiff_t>(found.kept.size() * width));
            found.kept.push_back(i);
        }
        if (found.kept.empty()) {
            journal.remove();  // there is nothing to go on from
            throw td::Error(part, "a picture that can be read", "none");
        }
        found.rows = Scores(found.kept.size(), width);
        std::copy_n(rows.data(), found.rows.size(), found.rows.data());
        return found;
    }

    /// The run is done.
    void forget() {
        if (folder_.empty()) return;
        for (auto& [part, journal] : journals_) journal.remove();
        std::error_code there_is_more;
        std::filesystem::remove(folder_, there_is_more);
    }

private:
    const Opened& opened_;
    std::filesystem::path folder_;
    Inputs inputs_;
    std::map<std::string, Journal> journals_;
};

/// The classes' pictures that can be read, and their classes.
struct Labelled {
    Scores rows;
    std::vector<std::size_t> labels;
};

Labelled embed_classes(PictureRows& rows, const std::string& part, const ClassFolder& classes) {
    Embedded found = rows.embed(
        part, classes.pictures.size(), [&](std::size_t i) { return read_picture(rows.opened(), classes.pictures[i]); },
        [&](std::size_t i) { return classes.pictures[i].string(); });
    Labelled all{std::move(found.rows), {}};
    for (const std::size_t i : found.kept) all.labels.push_back(classes.labels[i]);
    return all;
}

td::LabelledRows known(const Labelled& of, std::size_t classes) { return {of.rows.elements(), of.labels, of.rows.extent(1), classes}; }

Labelled some_of(const Labelled& all, const std::vector<std::size_t>& places) {
    Labelled some{Scores(places.size(), all.rows.extent(1)), {}};
    for (std::size_t i = 0; i < places.size(); ++i) {
        std::ranges::copy(all.rows[places[i]].elements(), some.rows[i].data());
        some.labels.push_back(all.labels[places[i]]);
    }
    return some;
}

nlohmann::ordered_json accuracy(const Scores& scores, const std::vector<std::size_t>& labels) {
    const td::ZeroShotScore score = td::score_zero_shot(scores, std::span<const std::size_t>(labels));
    return {{"top1", score.top1}, {"top5", score.top5}, {"mean_per_class", score.macro}};
}

/// The probe whose strength does best on a fifth of each class's pictures, fitted to all of them.
nlohmann::ordered_json probe(const Labelled& training, const Labelled& test, std::size_t classes, double& strength) {
    std::vector<std::size_t> seen(classes), fitted, held_out;
    for (std::size_t i = 0; i < training.labels.size(); ++i) (seen[training.labels[i]]++ % 5 == 4 ? held_out : fitted).push_back(i);
    if (held_out.empty()) throw td::Error("--probe", "five pictures or more of a class, of which one tells how strong the probe may be", "fewer");
    const Labelled part = some_of(training, fitted), validation = some_of(training, held_out);
    const auto tried = td::sweep_strength(known(part, classes), known(validation, classes));
    strength = tried[0].strength;
    nlohmann::ordered_json found{{"strength", strength}, {"validation_top1", tried[0].accuracy}};
    found.update(accuracy(td::LinearProbe::fit(known(training, classes), strength).scores(test.rows.elements()), test.labels));
    return found;
}

/// Probes of some pictures a class, drawn several times.
nlohmann::ordered_json few_shot(const Labelled& training, const Labelled& test, std::size_t classes, std::size_t shots, std::size_t draws, double strength) {
    std::vector<std::size_t> there(classes);
    for (const std::size_t label : training.labels) ++there[label];
    if (const std::size_t fewest = *std::ranges::min_element(there); fewest < shots)
        throw td::Error("--shots", "at most as many pictures as every class of --probe has, " + std::to_string(fewest), std::to_string(shots));
    std::vector<double> found;
    for (std::size_t draw = 0; draw < draws; ++draw) {
        std::vector<std::size_t> order(training.labels.size()), taken(classes), places;
        std::iota(order.begin(), order.end(), std::size_t{0});
        td::Random random(td::Seed{draw}, shots);
        td::shuffle(order, random);
        for (const std::size_t i : order) {
            if (taken[training.labels[i]]++ < shots) places.push_back(i);
        }
        const Labelled some = some_of(training, places);
        found.push_back(td::score_zero_shot(td::LinearProbe::fit(known(some, classes), strength).scores(test.rows.elements()), std::span<const std::size_t>(test.labels)).top1);
    }
    double mean = 0, squares = 0;
    for (const double one : found) mean += one / static_cast<double>(draws);
    for (const double one : found) squares += (one - mean) * (one - mean);
    return {{"shots", shots}, {"draws", draws}, {"top1", mean}, {"deviation", draws > 1 ? std::sqrt(squares / static_cast<double>(draws - 1)) : 0}};
}

/// recall@1, 5, 10 of queries, a thousand at a time.
template <class MatchesOf>
nlohmann::ordered_json recalls(const Scores& queries, const Scores& items, const MatchesOf& matches_of) {
    constexpr std::size_t part = 1024;
    constexpr std::array<std::size_t, 3> ranks{1, 5, 10};
    std::array<double, 3> found{};
    for (std::size_t first = 0; first < queries.extent(0); first += part) {
        const std::size_t count = std::min(part, queries.extent(0) - first);
        Scores some(count, queries.extent(1));
        std::copy_n(queries[first].data(), some.size(), some.data());
        const auto scores = td::similarity(some, items);
        for (std::size_t i = 0; i < ranks.size(); ++i)
            found[i] += static_cast<double>(count) * td::recall_at_any(scores, ranks[i], [&](std::size_t query) { return matches_of(first + query); });
    }
    nlohmann::ordered_json table;
    for (std::size_t i = 0; i < ranks.size(); ++i) table["R@" + std::to_string(ranks[i])] = found[i] / static_cast<double>(queries.extent(0));
    return table;
}

td::SampleList read_pairs(const std::string& what, const td::TableOptions& table) {
    td::SampleList list = td::read_samples(what, table);
    for (const auto& [cause, files] : list.faults) {
        for (const auto& [file, times] : files) std::fprintf(stderr, "left out: %zu times %s: %s\n", times, cause.c_str(), file.c_str());
    }
    if (list.samples.size() < 2) throw td::Error("--pairs", "two pictures with captions or more", std::to_string(list.samples.size()));
    return list;
}

nlohmann::ordered_json retrieval(PictureRows& rows_of_parts, const td::SampleList& list) {
    const Opened& opened = rows_of_parts.opened();
    const auto name = [&](std::size_t i) { return td::name_of(list, i); };
    const Embedded pictures = rows_of_parts.embed(
        "pairs", list.samples.size(), [&](std::size_t i) { return td::decode_image(td::picture_of(list, i), name(i), opened.decode); }, name);
    // Captions of a picture stand together.
    std::vector<std::string> captions;
    std::vector<std::size_t> picture_of_caption, places;
    std::vector<std::size_t> begin{0};
    for (std::size_t i = 0; i < pictures.kept.size(); ++i) {
        for (std::string& caption : td::captions_of(list, pictures.kept[i])) {
            places.push_back(captions.size());
            captions.push_back(std::move(caption));
            picture_of_caption.push_back(i);
        }
        begin.push_back(captions.size());
    }
    const std::vector<float> rows = embed_texts(opened, captions);
    Scores texts(captions.size(), pictures.rows.extent(1));
    std::ranges::copy(rows, texts.data());
    return {{"pictures", pictures.kept.size()},
            {"captions", captions.size()},
            {"image_to_text", recalls(pictures.rows, texts, [&](std::size_t i) { return td::Matches(places).subspan(begin[i], begin[i + 1] - begin[i]); })},
            {"text_to_image", recalls(texts, pictures.rows, [&](std::size_t i) { return td::Matches(picture_of_caption).subspan(i, 1); })}};
}

void print(const nlohmann::ordered_json& found) {
    const auto line = [](const std::string& name, const nlohmann::ordered_json& numbers) {
        std::printf("%-24s", name.c_str());
        for (const auto& [key, value] : numbers.items()) {
            if (value.is_number_float()) {
                std::printf("  %s %.4g", key.c_str(), value.get<double>());
            } else {
                std::printf("  %s %s", key.c_str(), value.dump().c_str());
            }
        }
        std::printf("\n");
    };
    for (const auto& [name, part] : found.items()) {
        if (part.is_array()) {
            for (const auto& one : part) line(name, one);
        } else if (part.contains("image_to_text")) {
            line("image to text", part["image_to_text"]);
            line("text to image", part["text_to_image"]);
        } else {
            line(name, part);
        }
    }
}

int run(const Arguments& options) {
    const bool has_classes = options.has("--classes"), has_probe = options.has("--probe");
    if (!has_classes && !options.has("--pairs")) throw UsageError("evaluate", "--classes, --pairs or both", "neither");
    for (const char* const name : {"--probe", "--templates", "--names"}) {
        if (options.has(name) && !has_classes) throw UsageError(name, "--classes beside it, which is tested on", "none");
    }
    for (const char* const name : {"--shots", "--draws"}) {
        if (options.has(name) && !has_probe) throw UsageError(name, "--probe beside it, from which pictures are drawn", "none");
    }
    std::vector<std::size_t> shots;
    std::istringstream words(options.get("--shots"));
    for (std::string word; std::getline(words, word, ',');) {
        const auto number = whole_number(word);
        if (!number || *number < 1) throw UsageError("--shots", "numbers above 0, with commas between", word);
        shots.push_back(static_cast<std::size_t>(*number));
    }
    const std::size_t draws = options.number("--draws", 3);
    const td::TableOptions table = table_options(options);
    const std::vector<std::string> templates = read_templates(options, "a photo of a {}.");
    const std::map<std::string, std::string> names = options.has("--names") ? read_class_names(options.get("--names")) : std::map<std::string, std::string>{};
    ClassFolder tested, probed;
    if (has_classes) tested = read_classes("--classes", options.get("--classes"), names);
    if (has_probe) {
        probed = read_classes("--probe", options.get("--probe"), names, false);
        if (probed.folders != tested.folders) throw td::Error("--probe", "the folders of --classes", std::to_string(probed.folders.size()) + " folders, others");
    }
    const Opened opened = open(options);
    require_both(opened, options, "pictures and texts");
    PictureRows rows(opened, options);
    const auto of_folder = [](const ClassFolder& classes) { return [&](Inputs& inputs) { inputs.add_pictures(classes.pictures); }; };
    td::SampleList pairs;
    if (has_classes) rows.prepare("classes", of_folder(tested));
    if (has_probe) rows.prepare("probe", of_folder(probed));
    if (options.has("--pairs")) {
        pairs = read_pairs(options.get("--pairs"), table);
        rows.prepare("pairs", [&](Inputs& inputs) {
            inputs.add_pictures(pairs.files);
            inputs.add("digest of names, places and captions", std::to_string(pairs.digest));
        });
    }
    nlohmann::ordered_json found;
    if (has_classes) {
        const Labelled test = embed_classes(rows, "classes", tested);
        const auto cosines = td::similarity(test.rows, td::zero_shot_classifier(opened.clip, *opened.tokenizer, tested.classes, templates));
        found["zero-shot"] = {{"pictures", test.labels.size()}, {"classes", tested.classes.size()}};
        found["zero-shot"].update(accuracy(cosines, test.labels));
        if (has_probe) {
            const Labelled training = embed_classes(rows, "probe", probed);
            double strength = 0;
            found["linear probe"] = probe(training, test, tested.classes.size(), strength);
            for (const std::size_t count : shots) found["few-shot probe"].push_back(few_shot(training, test, tested.classes.size(), count, draws, strength));
        }
    }
    if (options.has("--pairs")) found["retrieval"] = retrieval(rows, pairs);
    if (options.has("--json")) {
        std::printf("%s\n", found.dump(2).c_str());
    } else {
        print(found);
    }
    rows.forget();
    return done;
}

}  // namespace

Command evaluate_command() {
    return {.name = "evaluate",
            .purpose = "how good a checkpoint is: zero-shot, probes, retrieval",
            .operand = "",
            .synopsis = "--weights PATH --classes DIR [--probe DIR] | --pairs PATH",
            .description =
                "With --classes, a folder of pictures for each class: zero-shot accuracy from prompts (the first, the first five, and the mean over classes). With --probe as well, "
                "folders of the same names to learn from: a linear probe (multinomial logistic regression on the embeddings, by L-BFGS), whose strength C is swept over 96 steps on a "
                "fifth of each class and which is then fitted to all (Radford et al. 2021, A.3); --shots adds probes of so many pictures a class, with the same C. With --pairs: recall at 1, 5 and 10 of captions by "
                "pictures, where any of a picture's captions counts, and of pictures by captions. What cannot be read is left out, by name.",
            .options = with_checkpoint_options({{"--classes", "DIR", "a folder with a folder of pictures for each class, named by what they show"},
                                                {"--names", "FILE", "names of classes: lines of folder<TAB>name, as for ImageNet's folders"},
                                                {"--templates", "FILE", "a prompt a line, with {} for the name; all of them count (default: a photo of a {}.)"},
                                                {"--probe", "DIR", "pictures that a linear probe learns from, in the same folders"},
                                                {"--shots", "K,K", "probes of so many pictures a class"},
                                                {"--draws", "N", "of each of those (default 3)"},
                                                {"--pairs", "PATH", "shards, a table, or a folder of pictures with captions, as train reads them"},
                                                table_option_list[0], table_option_list[1], table_option_list[2],
                                                {"--journal", "DIR", "keep embeddings there: a killed run goes on from them"},
                                                {"--json", "", "JSON instead of a table"}}),
            .run = run};
}

}  // namespace program
