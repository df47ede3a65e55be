// Searches a catalogue: by meaning, by words, or both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/tasks/index.hpp>
#include <tandem/tasks/query.hpp>

#include "catalogue.hpp"
#include "checkpoint.hpp"
#include "nearby.hpp"
#include "words.hpp"

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
    std::vector<float> picture{};  ///< the embedding of one that is asked for beside the query, or empty
    bool names_files = false;      ///< whether a term of the query may be the path of a picture
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
    std::vector<std::string> words;  ///< of its own, those that the query has
    bool is_relevant = false;
};

struct Answer {
    std::vector<Found> found;
    std::size_t relevant = 0;  ///< of those that may be found
    std::size_t searched = 0;  ///< that may be found
};

/// All that is loaded of a catalogue, at one moment.
class Snapshot {
public:
    std::int64_t version = -1;  ///< of the data
    std::vector<std::int64_t> ids;  ///< of the index' rows, in order
    std::optional<td::Index> index;
    std::unique_ptr<const Nearby> nearby;  ///< null: the index is asked, which is exact
    std::vector<float> background;
    Judgement judgement;

    /// Where a picture stands in the index.
    std::optional<std::size_t> position_of(std::int64_t id) const;
    /// The k pictures that fit a query best, of those allowed (see td::SearchOptions).
    std::vector<td::Match> nearest(const Catalogue& catalogue, std::span<const float> query, std::size_t k,
                                   std::span<const std::uint64_t> allowed) const;
    /// How many pictures have a word; what was counted once is known.
    std::size_t word_count(const std::string& word, const Catalogue& catalogue) const;

private:
    mutable std::mutex counting_;
    mutable std::map<std::string, std::size_t> counts_;
};

/// The number of a picture that a text id:NUMBER names.
std::optional<long long> picture_number(const std::string& text);

/// Searches may be asked for by several threads at once.
class Searcher {
public:
    /// Loads the vectors of a catalogue that `opened` made; searches them exactly, or as Nearby does.
    Searcher(std::string path, const Opened& opened, bool is_approximate);

    /// Throws Error that says what is wrong with the request.
    Answer search(const Request& request) const;

    /// Loads anew if something was written since.
    void refresh();

    std::shared_ptr<const Snapshot> snapshot() const;

    /// A connection of its own for whoever works with the catalogue, for as long as it lives.
    class Lease {
    public:
        explicit Lease(const Searcher& owner) : owner_(owner), catalogue_(owner.take()) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() { owner_.give(std::move(catalogue_)); }

        const Catalogue& operator*() const { return *catalogue_; }
        const Catalogue* operator->() const { return catalogue_.get(); }

    private:
        const Searcher& owner_;
        std::unique_ptr<Catalogue> catalogue_;
    };

    /// The embedding of a picture, or of a text. Throws Error unless it is finite.
    std::vector<float> embed_picture(const td::Image& picture, const std::string& name) const;
    std::vector<float> embed_text(const std::string& text) const;

    const Opened& opened() const { return *opened_; }
    const std::string& place() const { return watched_.database().path(); }

private:
    void load(std::int64_t version);
    std::unique_ptr<Catalogue> take() const;
    void give(std::unique_ptr<Catalogue> catalogue) const;
    std::vector<float> embed(const std::vector<td::QueryTerm>& terms, const Request& request, const Snapshot& data) const;

    std::string path_;
    const Opened* opened_;
    bool is_approximate_;
    Catalogue watched_;  ///< whose connection sees that another one has written
    std::int64_t seen_ = -1;
    std::mutex loading_;
    mutable std::mutex holding_;
    std::shared_ptr<const Snapshot> snapshot_;
    mutable std::vector<std::unique_ptr<Catalogue>> free_;
};

/// What makes a model's vectors, in a line; and which options of `arguments` it is opened with.
std::string fingerprint_of(const Arguments& arguments, const Opened& opened);

/// The catalogue that the options name, or the user's own.
std::string database_of(const Arguments& arguments);
inline const Option database_option{"--database", "FILE|postgresql://...", "the catalogue (default: $XDG_DATA_HOME/tandem/pictures.db)"};

/// The options under which a catalogue's model was opened, for opening it again; those of the command line come before.
Arguments with_model_of(const Catalogue& catalogue, const Arguments& arguments);

/// A catalogue that was opened as a command line says, with its model.
struct Session {
    explicit Session(const Arguments& arguments);

    Arguments options;  ///< with those of the catalogue
    Opened opened;
    Searcher searcher;
};

}  // namespace program
