// Searches a catalogue: by meaning, by words, or both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/tasks/index.hpp>
#include <tandem/tasks/query.hpp>

#include "catalogue.hpp"
#include "checkpoint.hpp"

namespace program {

/// What of a catalogue may be found.
struct Filter {
    std::string folder;         ///< at or below it
    std::string tag;            ///< accepted
    std::string word;           ///< in caption, name or tags
    std::string after, before;  ///< YYYY-MM-DD or the beginning of one: taken then or later; earlier than then

    bool is_empty() const { return folder.empty() && tag.empty() && word.empty() && after.empty() && before.empty(); }
};

enum class Ranking { both, meaning, words };
enum class Order { relevance, date, name };

struct Request {
    std::string query;
    Filter filter{};
    Ranking ranking = Ranking::both;
    Order order = Order::relevance;
    std::size_t limit = 10;
};

/// A picture that was found, and why.
struct Found {
    PictureEntry picture;
    double score = 0;                ///< what it is ranked by
    std::optional<double> meaning;   ///< the probability that its vector fits; nothing where only words were asked for
    std::vector<std::string> words;  ///< the words of the query that it has
    bool is_relevant = false;
};

struct Answer {
    std::vector<Found> found;
    std::size_t relevant = 0;  ///< of those that may be found
    std::size_t searched = 0;  ///< that may be found
};

/// The words of a text as they are looked for: letters and digits of any script together.
std::vector<std::string> words_of(std::string_view text);

/// Of these, those that are more than grammar, unless none is.
std::vector<std::string> content_words(std::string_view text);

/// The query of FTS5 for words joined by AND or OR; empty without words.
std::string words_query(const std::vector<std::string>& words, const char* joined_by);

class Searcher {
public:
    /// Loads the vectors of a catalogue that `opened` made.
    Searcher(Catalogue catalogue, const Opened& opened);

    /// Throws Error that says what is wrong with the request.
    Answer search(const Request& request) const;

    /// Another search for the vectors may be needed: something was written since.
    void refresh();

    std::size_t size() const { return ids_.size(); }
    const Catalogue& catalogue() const { return catalogue_; }

private:
    std::vector<float> embed(const std::vector<td::QueryTerm>& terms) const;
    std::vector<std::uint64_t> allowed(const Filter& filter, std::size_t& count) const;
    std::map<std::size_t, double> word_scores(const std::vector<std::string>& words,
                                              const std::vector<std::uint64_t>& allowed) const;
    PictureEntry entry(std::size_t position) const;
    std::vector<std::string> hits(std::size_t position, const std::vector<std::string>& words) const;

    Catalogue catalogue_;
    const Opened* opened_;
    std::int64_t version_ = -1;  ///< of the data that were loaded
    std::vector<std::int64_t> ids_;
    std::map<std::int64_t, std::size_t> positions_;
    std::optional<td::Index> index_;
    std::vector<float> background_;
    Judgement judgement_;
};

/// What makes a model's vectors, in a line; and which options of `arguments` it is opened with.
std::string fingerprint_of(const Arguments& arguments, const Opened& opened);

/// The catalogue that the options name, or the user's own.
std::filesystem::path database_of(const Arguments& arguments);
inline const Option database_option{"--database", "FILE", "the catalogue (default: $XDG_DATA_HOME/tandem/pictures.db)"};

/// The options under which a catalogue's model was opened, for opening it again; those of the command line come before.
Arguments with_model_of(const Catalogue& catalogue, const Arguments& arguments);

/// A catalogue that was opened as a command line says, with its model.
struct Session {
    explicit Session(const Arguments& arguments);

    Arguments options;  ///< with those of the catalogue
    Opened opened;
    Searcher searcher;

private:
    Session(const Arguments& arguments, Catalogue catalogue);
};

}  // namespace program
