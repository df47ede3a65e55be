// A catalogue: the pictures of some folders in one SQLite file or on a server, with their vectors, words and thumbnails, and how well a
// model's scores are known to mean something. A picture, its vector and its words are written in one transaction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/tasks/relevance.hpp>

#include "command.hpp"
#include "database.hpp"

namespace program {

/// What a file is, to see that it has changed.
struct FileState {
    std::int64_t size = 0, modified = 0;  ///< nanoseconds

    friend bool operator==(const FileState&, const FileState&) = default;
};

/// A path as the catalogue has it: its folder without links, its own name.
inline std::filesystem::path catalogued(const std::filesystem::path& path) {
    const std::filesystem::path whole = std::filesystem::absolute(path).lexically_normal();
    return std::filesystem::weakly_canonical(whole.parent_path()) / whole.filename();
}

/// What paths below a folder begin with.
inline std::string inside(const std::string& folder) { return folder == "/" ? folder : folder + "/"; }

/// Paths below a folder are not less than the first, and less than the second, whose last byte is the one after the slash.
inline std::pair<std::string, std::string> range_below(const std::string& folder) {
    std::pair<std::string, std::string> range{inside(folder), inside(folder)};
    ++range.second.back();
    return range;
}

/// A picture in the catalogue.
struct PictureEntry {
    std::int64_t id = 0;
    std::string path;
    FileState file;
    std::string digest;   ///< of the file's bytes
    int width = 0, height = 0;
    std::string taken;    ///< when, as EXIF says: YYYY-MM-DD HH:MM:SS, or empty
    std::string caption;  ///< of captions.tsv and of the text beside the picture, a line each
    std::string keywords; ///< of the file's own XMP, IPTC and EXIF, a line each
    std::string error;    ///< why it has no vector, or empty

    /// When it was taken, or else when its file was written last (UTC).
    std::string date() const;
};

/// How scores of the catalogue's model become probabilities and rankings, and what that rests on.
struct Judgement {
    td::Logistic curve{{1.5, 0}, -6};  ///< of a standardised cosine and the cosine itself
    double cut = 0.5;                ///< the least probability of what is called relevant
    std::optional<double> words;     ///< the share of words in a mixture with meaning; nothing: ranks are fused
    double mixture_cut = 0.5;        ///< the least mixture of what is called relevant
    std::size_t fitted_on = 0;       ///< words of captions; 0: nothing was there to fit to
};

class Catalogue {
public:
    /// Whether there is one in a file, or on a server (postgresql://...).
    static bool exists(const std::string& where);
    /// It, for reading or writing. Throws Error if it is none.
    static Catalogue open(const std::string& where, Database::Mode mode);
    /// The same, made where it is not there.
    static Catalogue create(const std::string& where);

    /// What is said of the whole: fingerprint, weights and so on; empty where it is not there.
    std::string get(const std::string& key) const;
    /// In a Transaction, as all that writes: readers on other connections look for what these have written.
    void set(const std::string& key, const std::string& value) const;
    Judgement judgement() const;
    void set(const Judgement& judgement) const;
    /// The judgement rests on other pictures than are there now; what says so is another value each time.
    void make_stale() const;

    /// All pictures at or below a folder, or the file, by path.
    std::map<std::string, PictureEntry> below(const std::string& folder) const;
    std::optional<PictureEntry> with_id(std::int64_t id) const;
    std::optional<PictureEntry> with_path(const std::string& path) const;
    /// The picture of this content, with a vector, if there is one.
    std::optional<PictureEntry> with_content(const std::string& digest) const;

    /// Adds a picture, or replaces the one of this path, whose tags it keeps; with a vector unless it has an error.
    void put(const PictureEntry& entry, std::span<const float> vector, std::span<const std::byte> thumbnail) const;
    /// As another picture's vector and thumbnail.
    void put_copy(const PictureEntry& entry, std::int64_t of) const;
    /// The picture is in another place now.
    void move(const PictureEntry& entry, const std::string& to, const FileState& file) const;
    /// Caption and keywords.
    void set_words(const PictureEntry& entry) const;
    void erase(std::int64_t id) const;
    /// Takes all vectors out, and with them the pictures' rows but for their tags.
    void forget_vectors() const;

    /// A picture's path that is below none of some folders; empty if there is none.
    std::string outside(const std::vector<std::string>& folders) const;
    /// A picture's thumbnail, a JPEG; empty where it has none.
    std::vector<std::byte> thumbnail(std::int64_t id) const;

    /// Tags of a picture, accepted or refused.
    void set_tags(std::int64_t id, std::span<const std::string> labels, bool accepted) const;

    /// A picture's accepted and refused tags.
    std::pair<std::vector<std::string>, std::vector<std::string>> tags(std::int64_t id) const;
    /// The words that most captions have, but grammar, numbers and what fewer than three have.
    std::vector<std::string> frequent_words(std::size_t most) const;
    /// Why pictures have no vector.
    std::vector<std::string> errors(std::size_t most) const;
    std::size_t count() const;  ///< pictures with a vector
    const Database& database() const { return database_; }

private:
    explicit Catalogue(Database database) : database_(std::move(database)) {}
    void index_words(const PictureEntry& entry) const;
    /// The picture, if there is one, for which a condition on one value holds.
    template <class Value>
    std::optional<PictureEntry> first(const char* condition, const Value& value) const;

    Database database_;
};

}  // namespace program
