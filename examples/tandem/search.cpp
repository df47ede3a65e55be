// Pictures of a catalogue by what they show and by their words.
#include <algorithm>
#include <cstdio>
#include <string>

#include <nlohmann/json.hpp>

#include <tandem/core/file.hpp>

#include "contact_sheet.hpp"
#include "inputs.hpp"
#include "searcher.hpp"

namespace program {

namespace {

std::string joined(const std::vector<std::string>& parts, const char* between) {
    std::string text;
    for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
    return text;
}

/// Whether a text is YYYY, YYYY-MM, YYYY-MM-DD or more of a date and time.
void require_date(const Arguments& arguments, const char* name) {
    if (!arguments.has(name)) return;
    const std::string text = arguments.get(name), form = "dddd-dd-dd dd:dd:dd";
    bool fits = text.size() <= form.size() && (text.size() == 4 || text.size() >= 7);
    for (std::size_t i = 0; fits && i < text.size(); ++i)
        fits = form[i] == 'd' ? text[i] >= '0' && text[i] <= '9' : text[i] == form[i];
    const auto is_within = [&](std::size_t at, int least, int most) {
        if (text.size() < at + 2) return true;
        const int value = 10 * (text[at] - '0') + (text[at + 1] - '0');
        return value >= least && value <= most;
    };
    fits = fits && is_within(5, 1, 12) && is_within(8, 1, 31);
    if (!fits) throw UsageError(name, "YYYY, YYYY-MM or YYYY-MM-DD", text);
}

int run(const Arguments& arguments) {
    for (const char* const name : {"--after", "--before"}) require_date(arguments, name);
    const std::string ranking = arguments.choose("--by", "both", {"both", "meaning", "words"});
    const std::string order = arguments.choose("--sort", "relevance", {"relevance", "date", "name"});
    const std::filesystem::path sheet = arguments.get("--contact-sheet");
    if (!sheet.empty()) require_place(sheet);
    const Request request{
        .query = joined(arguments.operands(), " "),
        .names_files = true,
        .filter = {.folder = arguments.get("--folder"),
                   .tag = arguments.get("--tag"),
                   .word = arguments.get("--word"),
                   .after = arguments.get("--after"),
                   .before = arguments.get("--before")},
        .ranking = ranking == "both" ? Ranking::both : ranking == "meaning" ? Ranking::meaning : Ranking::words,
        .order = order == "date" ? Order::date : order == "name" ? Order::name : Order::relevance,
        .limit = arguments.number("--limit", 10, 100'000)};
    td::parse_query(request.query);  // before the work

    const Session session(arguments);
    const Searcher& searcher = session.searcher;
    const Answer answer = searcher.search(request);
    if (!sheet.empty()) td::write_file_atomically(sheet, contact_sheet(request, answer, *Searcher::Lease(searcher)));
    if (arguments.has("--json")) {
        std::printf("%s\n", to_json(answer).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
        return 0;
    }
    bool is_folded = false;
    for (std::size_t i = 0; i < answer.found.size(); ++i) {
        const Found& found = answer.found[i];
        if (!found.is_relevant && !is_folded) {
            is_folded = true;
            std::printf("---- less relevant ----\n");
        }
        const std::string meaning = found.meaning ? std::to_string(std::lround(100 * *found.meaning)) + " %" : "";
        std::printf("%3zu  %5s  %s%s\n", i + 1, meaning.c_str(), found.picture.path.c_str(),
                    found.words.empty() ? "" : ("  [" + joined(found.words, ", ") + "]").c_str());
    }
    std::printf("%zu relevant of %zu\n", answer.relevant, answer.searched);
    return 0;
}

}  // namespace

Command search_command() {
    return {.name = "search",
            .purpose = "pictures of a catalogue by what they show and by their words",
            .operand = "QUERY...",
            .synopsis = "QUERY... [--database FILE]",
            .description =
                "The query is a text, a picture's path, id:NUMBER for a picture of the catalogue, or a sum of them: \"2:golden "
                "retriever\" + pool.jpg - fruit. A result shows the probability that it is what was asked for, and in "
                "brackets the words of the query that its caption, name or tags have.",
            .options = with_checkpoint_options(
                {database_option,
                 approximate_option,
                 {"--limit", "N", "results shown (default 10)"},
                 {"--by", "both|meaning|words", "what counts: the picture, its words, or both (the default)"},
                 {"--sort", "relevance|date|name", "order of the relevant ones (default relevance)"},
                 {"--folder", "DIR", "only pictures below it"},
                 {"--tag", "LABEL", "only pictures with the tag"},
                 {"--word", "WORD", "only pictures with the word in caption, name or tags"},
                 {"--after", "DATE", "only pictures taken then or later: YYYY, YYYY-MM or YYYY-MM-DD"},
                 {"--before", "DATE", "only pictures taken earlier"},
                 {"--json", "", "JSON instead of a table"},
                 {"--contact-sheet", "FILE.html", "the results as a page with their thumbnails"}}),
            .run = run};
}

}  // namespace program
