// Pictures of a catalogue that are like some of it, and not all the same.
#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include <tandem/core/random.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/recommend.hpp>
#include <tandem/tasks/retrieval.hpp>

#include "contact_sheet.hpp"
#include "inputs.hpp"
#include "searcher.hpp"

namespace program {

namespace {

/// Where pictures of the catalogue stand, by their paths or id:NUMBER.
std::vector<std::size_t> positions_of(const std::vector<std::string>& names, const Snapshot& data, const Catalogue& catalogue) {
    std::vector<std::size_t> positions;
    for (const std::string& name : names) {
        std::optional<std::size_t> position;
        if (const auto id = picture_number(name)) {
            position = data.position_of(*id);
        } else if (const auto entry = catalogue.with_path(catalogued(name).string())) {
            position = data.position_of(entry->id);
        }
        if (!position) throw td::Error(name, "a picture of the catalogue, by path or id:NUMBER", "none of that name");
        positions.push_back(*position);
    }
    return positions;
}

/// nDCG@10 of lists for pictures drawn from the catalogue, where what shares a picture's folder is relevant, or what shares a word
/// of its caption that few have: by meaning with some diversities, by the words of the caption alone, and at random.
void report(const Snapshot& data, const Catalogue& catalogue) {
    constexpr std::size_t most = 300, listed = 10;
    const std::size_t count = data.ids.size();
    std::vector<std::string> folders(count);
    std::vector<std::set<std::string>> words(count);
    std::map<std::string, std::size_t> frequency;
    for (std::size_t i = 0; i < count; ++i) {
        const auto entry = catalogue.with_id(data.ids[i]);
        if (!entry) continue;
        folders[i] = std::filesystem::path(entry->path).parent_path().string();
        for (const std::string& word : content_words(entry->caption)) words[i].insert(word);
        for (const std::string& word : words[i]) ++frequency[word];
    }
    // A word of one picture says nothing of others, one of a tenth of them little.
    for (std::set<std::string>& some : words)
        std::erase_if(some, [&](const std::string& word) { return frequency[word] < 2 || frequency[word] > count / 10 + 2; });
    std::map<std::string, std::vector<std::size_t>> having;
    for (std::size_t i = 0; i < count; ++i) {
        for (const std::string& word : words[i]) having[word].push_back(i);
    }
    // Words are what is asked for: of half of the pictures they are hidden from the list by words, or it could not be wrong.
    td::Random coin(td::Seed{1});
    std::vector<bool> hidden(count);
    for (std::size_t i = 0; i < count; ++i) hidden[i] = coin.uniform(0, 1) < 0.5;
    struct Row {
        std::string name;
        double folder = 0, word = 0, diversity = 0;
    };
    std::vector<Row> rows{{"meaning, diversity 0"}, {"meaning, diversity 0.3"}, {"meaning, diversity 0.6"}, {"words alone, half hidden"}, {"random"}};
    constexpr std::array diversities{0.0, 0.3, 0.6};
    td::Random random(td::Seed{0});
    std::size_t judged = 0;
    for (std::size_t turn = 0; turn < 4 * most && judged < most; ++turn) {
        const auto asked = std::min(static_cast<std::size_t>(random.uniform(0, 1) * static_cast<double>(count)), count - 1);
        std::vector<std::uint8_t> same_folder(count), same_word(count);
        for (std::size_t i = 0; i < count; ++i) same_folder[i] = i != asked && folders[i] == folders[asked] ? 1 : 0;
        std::vector<double> overlap(count);
        for (const std::string& word : words[asked]) {
            for (const std::size_t i : having[word]) {
                same_word[i] = i != asked ? 1 : 0;
                overlap[i] += i != asked && !hidden[i] ? 1.0 / static_cast<double>(frequency[word]) : 0;
            }
        }
        if (std::ranges::count(same_folder, 1) == 0 || std::ranges::count(same_word, 1) == 0) continue;
        ++judged;
        for (std::size_t kind = 0; kind < rows.size(); ++kind) {
            std::vector<td::Match> list;
            if (kind < diversities.size()) {
                list = td::recommend(*data.index, std::span(&asked, 1), {}, {.count = listed, .diversity = diversities[kind]});
            } else {
                std::vector<float> scored(count, -1);  // below all, for what is asked with
                for (std::size_t i = 0; i < count; ++i) {
                    if (i != asked) scored[i] = kind == 3 ? static_cast<float>(overlap[i]) : static_cast<float>(random.uniform(0, 1));
                }
                std::vector<td::Match> best;
                for (const std::size_t i : td::best_matches<float>(scored, std::min<std::size_t>(100, count - 1))) best.push_back({i, scored[i]});
                list = td::diversify(*data.index, best, listed, 0, td::RecommendOptions{}.same);
            }
            std::vector<double> scores(count);
            for (std::size_t rank = 0; rank < list.size(); ++rank) scores[list[rank].position] = static_cast<double>(listed - rank);
            rows[kind].folder += td::ndcg_at(scores, same_folder, listed);
            rows[kind].word += td::ndcg_at(scores, same_word, listed);
            rows[kind].diversity += td::diversity_of(*data.index, list);
        }
    }
    if (judged == 0) throw td::Error("--report", "pictures that share folders and words of captions", "none");
    std::printf("%zu pictures asked for          nDCG@10 by folder  by words  diversity\n", judged);
    for (const Row& row : rows)
        std::printf("%-30s %18.3f %9.3f %10.3f\n", row.name.c_str(), row.folder / static_cast<double>(judged),
                    row.word / static_cast<double>(judged), row.diversity / static_cast<double>(judged));
}

int run(const Arguments& arguments) {
    const double diversity = arguments.share("--diversity", td::RecommendOptions{}.diversity);
    const std::size_t limit = arguments.number("--limit", 10, 1000), half_life = arguments.number("--half-life", 0);
    const Session session(arguments);
    const auto data = session.searcher.snapshot();
    const Searcher::Lease catalogue(session.searcher);
    if (arguments.has("--report")) return report(*data, *catalogue), 0;
    if (arguments.operands().empty()) throw UsageError("LIKED...", "pictures that were liked, or --report", "none");
    const std::vector<std::size_t> liked = positions_of(arguments.operands(), *data, *catalogue);
    std::vector<std::size_t> disliked;
    if (arguments.has("--disliked")) disliked = positions_of(read_lines(arguments.get("--disliked")), *data, *catalogue);
    const std::vector<td::Match> matches =
        td::recommend(*data->index, liked, disliked,
                      {.count = limit, .diversity = diversity, .half_life = static_cast<double>(half_life)});
    Answer answer{.found = {}, .relevant = matches.size(), .searched = data->ids.size()};
    for (const td::Match& match : matches) {
        const auto entry = catalogue->with_id(data->ids[match.position]);
        if (entry) answer.found.push_back({.picture = *entry, .score = static_cast<double>(match.score), .meaning = {}, .words = {}, .is_relevant = true});
    }
    if (arguments.has("--json")) {
        std::printf("%s\n", to_json(answer).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
        return 0;
    }
    for (std::size_t i = 0; i < answer.found.size(); ++i)
        std::printf("%3zu  %.3f  %s\n", i + 1, answer.found[i].score, answer.found[i].picture.path.c_str());
    return 0;
}

}  // namespace

Command recommend_command() {
    return {.name = "recommend",
            .purpose = "pictures of a catalogue that are like some of it, and not all the same",
            .operand = "[LIKED...]",
            .synopsis = "LIKED... [--database FILE]",
            .description =
                "LIKED are paths or id:NUMBER of pictures in the catalogue, oldest first. Their mean is asked for; what was liked is not "
                "shown again, of pictures that are the same one is, and --diversity trades nearness for variety. --report measures that "
                "on the catalogue itself, against words alone and chance.",
            .options = with_checkpoint_options(
                {database_option,
                 {"--disliked", "FILE", "pictures that were not liked, a path or id:NUMBER a line"},
                 {"--half-life", "N", "a picture's weight halves with every N that were liked after it (default: all weigh alike)"},
                 {"--diversity", "D", "0 (the nearest) to 1 (default 0.3)"},
                 {"--limit", "N", "pictures shown (default 10)"},
                 {"--report", "", "instead: nDCG@10 by folder and by words, and diversity, for pictures drawn from the catalogue"},
                 {"--json", "", "JSON instead of a table"}}),
            .run = run};
}

}  // namespace program
