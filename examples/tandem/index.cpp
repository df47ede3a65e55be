// The pictures of folders in a catalogue, which search reads.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <set>

#include <tbb/global_control.h>

#include <tandem/core/digest.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/data/pairs.hpp>

#include "catalogue.hpp"
#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"
#include "judge.hpp"
#include "metadata.hpp"
#include "progress.hpp"
#include "searcher.hpp"
#include "thumbnail.hpp"

namespace program {

namespace {

/// What is lost when the run is killed.
constexpr std::size_t batch = 32;

FileState state_of(const std::string& path) {
    struct stat64 status {};
    if (::stat64(path.c_str(), &status) != 0) throw td::Error(path, "cannot be looked at");
    return {status.st_size, status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec};
}

/// What people have written beside their pictures.
class Captions {
public:
    /// Reads a captions file, whose paths are below a folder.
    void add(const std::filesystem::path& file, const std::filesystem::path& folder) {
        td::SkipCounts skipped;
        for (const td::CaptionedImage& image : td::read_captions(file, skipped)) {
            std::string& lines = captions_[(folder / image.path).lexically_normal().string()];
            std::set<std::string> known;  // a line that stands twice weighs twice in training, and says no more here
            for (const std::string& caption : image.captions) {
                if (known.insert(caption).second) lines += (lines.empty() ? "" : "\n") + caption;
            }
        }
        for (const auto& [cause, count] : skipped)
            std::fprintf(stderr, "left out: %s: %zu lines: %s\n", file.c_str(), count, cause.c_str());
    }

    std::string of(const std::string& path) const {
        const auto found = captions_.find(path);
        std::string lines = found == captions_.end() ? std::string() : found->second;
        std::filesystem::path beside(path);
        beside.replace_extension(".txt");
        constexpr std::size_t most = 4096;
        std::error_code failed;
        if (!std::filesystem::is_regular_file(beside, failed)) return lines;
        if (std::ifstream file(beside, std::ios::binary); file) {
            std::string text(most, '\0');
            file.read(text.data(), most);
            text.resize(static_cast<std::size_t>(file.gcount()));
            while (!text.empty() && std::string_view("\n\r \t").find(text.back()) != std::string_view::npos) text.pop_back();
            if (!text.empty()) lines += (lines.empty() ? "" : "\n") + text;
        }
        return lines;
    }

private:
    std::map<std::string, std::string> captions_;
};

/// A picture on its way into the catalogue.
struct Work {
    PictureEntry entry;
    std::vector<std::byte> thumbnail;
    std::vector<float> vector;
};

struct Counts {
    std::size_t added = 0, changed = 0, moved = 0, copied = 0, removed = 0, unchanged = 0, failed = 0;
};

class Indexer {
public:
    Indexer(const Catalogue& catalogue, const Opened& opened, std::string fingerprint)
        : catalogue_(catalogue), opened_(opened), fingerprint_(std::move(fingerprint)) {}

    void add(const std::filesystem::path& root, const Pictures& pictures, const std::filesystem::path& captions) {
        if (!captions.empty()) captions_.add(captions, root);
        if (const auto own = root / "captions.tsv"; std::filesystem::is_regular_file(own)) captions_.add(own, root);
        for (auto& [path, entry] : catalogue_.below(root.string())) known_.insert_or_assign(path, entry);
        for (const std::filesystem::path& path : pictures.paths) paths_.insert(path.lexically_normal().string());
        for (const auto& fault : pictures.faults) unseen_.push_back(fault.first);
    }

    /// Brings the catalogue to what the folders hold now.
    Counts run() {
        std::vector<std::string> todo;
        for (const std::string& path : paths_) {
            if (!is_current(path)) todo.push_back(path);
        }
        // What is no longer where it was may be elsewhere.
        for (const auto& [path, entry] : known_) {
            if (!paths_.contains(path) && is_away(path)) gone_.emplace(entry.error.empty() ? entry.digest : std::string(), entry);
        }
        Progress progress("index", 0, todo.size());
        for (std::size_t begin = 0; begin < todo.size(); begin += batch) {
            const std::size_t end = std::min(begin + batch, todo.size());
            put(std::span(todo).subspan(begin, end - begin), std::to_string(end) + " of " + std::to_string(todo.size()));
            progress.show(end);
        }
        // What had the bytes of a picture that was written over meanwhile.
        const std::vector<std::string> again = std::move(again_);
        again_.clear();
        for (std::size_t begin = 0; begin < again.size(); begin += batch)
            put(std::span(again).subspan(begin, std::min(batch, again.size() - begin)), "");
        Transaction transaction(catalogue_.database());
        check_model();
        for (const auto& [digest, entry] : gone_) {
            // Unless another run has found it in another place meanwhile.
            const auto now = catalogue_.with_id(entry.id);
            if (!now || now->path != entry.path || !is_away(entry.path)) continue;
            catalogue_.erase(entry.id);
            ++counts_.removed;
        }
        if (counts_.removed > 0) catalogue_.make_stale();
        catalogue_.set("progress", "");
        transaction.commit();
        return counts_;
    }

    /// Throws Error if another run has embedded the catalogue anew with another model.
    void check_model() const {
        if (const std::string now = catalogue_.get("fingerprint"); now != fingerprint_)
            throw td::Error(catalogue_.database().path(), "the model that this run has opened, " + fingerprint_,
                            now + ", which another run has begun with");
    }

private:
    /// Whether nothing is in a place any more. What cannot be looked at may be there still.
    bool is_away(const std::string& path) const {
        struct stat64 status {};
        if (::lstat64(path.c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR)) return false;
        return std::ranges::none_of(unseen_, [&](const std::string& place) { return path == place || path.starts_with(place + "/"); });
    }

    /// Whether the picture is there as it is; what was written beside it may be new.
    bool is_current(const std::string& path) {
        const auto found = known_.find(path);
        if (found == known_.end()) return false;
        const PictureEntry& entry = found->second;
        try {
            if (entry.file != state_of(path)) return false;
        } catch (const td::Error&) {
            return false;  // it is gone, and its turn says so
        }
        if (!entry.error.empty()) {
            report(entry);
            return true;
        }
        if (const std::string caption = captions_.of(path); caption != entry.caption) {
            PictureEntry changed = entry;
            changed.caption = caption;
            Transaction transaction(catalogue_.database());
            check_model();
            // Unless another run has taken it out meanwhile.
            const auto now = catalogue_.with_id(changed.id);
            if (!now || now->path != path) return false;
            catalogue_.set_words(changed);
            transaction.commit();
            ++counts_.changed;
        } else {
            ++counts_.unchanged;
        }
        return true;
    }

    void report(const PictureEntry& entry) {
        std::fprintf(stderr, "left out: %s\n", entry.error.c_str());
        ++counts_.failed;
    }

    /// Embeds some pictures and writes all of them, or none.
    void put(std::span<const std::string> paths, const std::string& progress) {
        std::vector<Work> works(paths.size());
        std::vector<char> is_new(paths.size(), 1);
        std::vector<std::vector<std::byte>> files(paths.size());
        std::set<std::string> here;
        for (std::size_t i = 0; i < paths.size(); ++i) {
            PictureEntry& entry = works[i].entry;
            entry.path = paths[i];
            try {
                entry.file = state_of(paths[i]);
                const td::MappedFile file{paths[i]};
                files[i].assign(file.bytes().begin(), file.bytes().end());
                td::Digest digest;
                digest.add(file.bytes());
                entry.digest = digest.text() + "-" + std::to_string(file.bytes().size());
            } catch (const td::Error& error) {
                entry.error = error.what();
            }
            entry.caption = captions_.of(paths[i]);
            // Pixels that have a vector already do not get another one.
            if (entry.error.empty()) {
                const auto same = catalogue_.with_content(entry.digest);
                const bool is_kept = same && std::ranges::find(paths, same->path) == paths.end();
                is_new[i] = !gone_.contains(entry.digest) && !is_kept && here.insert(entry.digest).second ? 1 : 0;
            } else {
                is_new[i] = 0;
            }
        }
        embed(works, is_new, files);
        Transaction transaction(catalogue_.database());
        check_model();
        catalogue_.set("progress", progress);
        catalogue_.make_stale();
        for (std::size_t i = 0; i < works.size(); ++i) {
            PictureEntry& entry = works[i].entry;
            const auto before = known_.find(entry.path);
            const auto moved = entry.error.empty() ? gone_.find(entry.digest) : gone_.end();
            std::optional<PictureEntry> same;
            // Unless another run has found it meanwhile.
            const auto is_there = [&] {
                const auto now = catalogue_.with_id(moved->second.id);
                return now && now->path == moved->second.path;
            };
            if (moved != gone_.end() && before == known_.end() && !catalogue_.with_path(entry.path) && is_there()) {
                // With its tags.
                catalogue_.move(moved->second, entry.path, entry.file);
                if (moved->second.caption != entry.caption) {
                    entry.id = moved->second.id;
                    entry.keywords = moved->second.keywords;
                    catalogue_.set_words(entry);
                }
                gone_.erase(moved);
                ++counts_.moved;
                continue;
            }
            if (is_new[i] == 0 && entry.error.empty()) same = catalogue_.with_content(entry.digest);
            if (same) {
                entry.width = same->width, entry.height = same->height;
                entry.taken = same->taken, entry.keywords = same->keywords;
                catalogue_.put_copy(entry, same->id);
                ++counts_.copied;
                continue;
            }
            if (entry.error.empty() && works[i].vector.empty()) {
                // The same bytes stood earlier in this batch and could not be read, or in a place that was written over since.
                const auto first = std::ranges::find_if(works, [&](const Work& work) { return work.entry.digest == entry.digest && !work.entry.error.empty(); });
                if (first == works.end()) {
                    again_.push_back(entry.path);
                    continue;
                }
                entry.error = entry.path + ": as another file of the same bytes";
            }
            catalogue_.put(entry, works[i].vector, works[i].thumbnail);
            if (!entry.error.empty()) {
                report(entry);
            } else {
                ++(before == known_.end() || before->second.file.size < 0 ? counts_.added : counts_.changed);
            }
        }
        transaction.commit();
    }

    void embed(std::vector<Work>& works, const std::vector<char>& is_new, const std::vector<std::vector<std::byte>>& files) {
        const std::size_t floats = opened_.preprocess.count(), width = opened_.clip.sizes().embedding;
        std::vector<std::size_t> places;
        for (std::size_t i = 0; i < works.size(); ++i) {
            if (is_new[i] != 0) places.push_back(i);
        }
        std::vector<float> pixels(places.size() * floats);
        std::mutex metadata;
        td::parallel_for(places.size(), 1, [&](std::size_t begin, std::size_t end) {
            for (; begin < end; ++begin) {
                Work& work = works[places[begin]];
                const std::vector<std::byte>& bytes = files[places[begin]];
                try {
                    const td::Image image = td::decode_image(bytes, work.entry.path, opened_.decode);
                    work.entry.width = image.width;
                    work.entry.height = image.height;
                    td::preprocess(image, opened_.preprocess, std::span(pixels).subspan(begin * floats, floats));
                    work.thumbnail = make_thumbnail(image, work.entry.path);
                } catch (const td::Error& error) {
                    const std::string message = error.what();
                    work.entry.error = message.starts_with(work.entry.path) ? message : work.entry.path + ": " + message;
                    continue;
                }
                const std::scoped_lock lock(metadata);
                const Metadata found = read_metadata(bytes);
                work.entry.taken = found.taken;
                work.entry.keywords = found.caption + (found.caption.empty() || found.keywords.empty() ? "" : "\n") + found.keywords;
            }
        });
        if (places.empty()) return;
        const auto rows = opened_.clip.encode_image(pixels);
        for (std::size_t i = 0; i < places.size(); ++i) {
            Work& work = works[places[i]];
            if (!work.entry.error.empty()) continue;
            const std::span<const float> row(rows.data() + i * width, width);
            if (is_finite(row)) {
                work.vector.assign(row.begin(), row.end());
            } else {
                work.entry.error = work.entry.path + ": the model gives no finite numbers for it";
            }
        }
    }

    const Catalogue& catalogue_;
    const Opened& opened_;
    Captions captions_;
    std::map<std::string, PictureEntry> known_;
    std::multimap<std::string, PictureEntry> gone_;  ///< by what they held
    std::string fingerprint_;
    std::set<std::string> paths_;
    std::vector<std::string> unseen_;  ///< places that could not be looked at
    std::vector<std::string> again_;   ///< pictures for a second turn
    Counts counts_;
};

int run(const Arguments& arguments) {
    const std::string database = database_of(arguments);
    const bool is_file = !Database::is_server(database);
    tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                arguments.number("--threads", td::core_count(), 4096));
    std::vector<std::pair<std::filesystem::path, Pictures>> folders;
    std::vector<std::string> roots;
    for (const std::string& name : arguments.operands()) {
        std::error_code failed;
        const std::filesystem::path root = std::filesystem::canonical(name, failed);
        if (failed || !std::filesystem::is_directory(root)) throw td::Error(name, "a folder with pictures", failed ? failed.message() : "a file");
        folders.emplace_back(root, list_pictures(root));
        roots.push_back(root.string());
    }
    if (arguments.has("--captions") && folders.size() != 1)
        throw UsageError("--captions", "one folder, which its paths are below", std::to_string(folders.size()));
    if (const auto folder = std::filesystem::path(database).parent_path(); !folder.empty() && !arguments.has("--database")) std::filesystem::create_directories(folder);
    if (is_file) require_place(database);
    const bool is_new = !Catalogue::exists(database);
    std::optional<Catalogue> before;
    if (!is_new) before.emplace(Catalogue::create(database));
    const Arguments options = before && !arguments.has("--again") ? with_model_of(*before, arguments) : arguments;
    const Opened opened = open(options);
    require_both(opened, options, "pictures and texts");
    const std::string fingerprint = fingerprint_of(options, opened);
    const Catalogue catalogue = before ? std::move(*before) : Catalogue::create(database);
    Transaction beginning(catalogue.database());
    const std::string stored = catalogue.get("fingerprint");
    const bool begins_anew = stored != fingerprint || arguments.has("--again");
    if (!stored.empty() && begins_anew) {
        if (!arguments.has("--again"))
            throw td::Error(catalogue.database().path(), "the model that made its vectors, " + stored,
                            fingerprint + ", whose vectors have another meaning: give the old one, another --database, or "
                                          "--again to embed all anew");
        if (const auto left = catalogue.outside(roots); !left.empty())
            throw UsageError("--again", "all folders of the catalogue, for another model's vectors would be lost", "none of " + left);
        catalogue.forget_vectors();
    }
    if (begins_anew) {
        for (const Option& option : checkpoint_options) {
            const std::string name = option.name;
            std::string value = options.get(name);
            if (name == "--weights") value = std::filesystem::absolute(weights_of(options)).string();
            if (name == "--tokenizer") value = std::filesystem::absolute(tokenizer_of(options)).string();
            catalogue.set("option " + name, value);
        }
        catalogue.set("fingerprint", fingerprint);
    }
    beginning.commit();
    std::fprintf(stderr, "%s: %s\n", weights_of(options).c_str(), opened.clip.sizes().architecture.c_str());

    Indexer indexer(catalogue, opened, fingerprint);
    for (const auto& [root, pictures] : folders) indexer.add(root, pictures, arguments.get("--captions"));
    const Counts counts = indexer.run();
    for (const auto& folder : folders) folder.second.report();
    // Also what a run that was killed has left undone.
    if (const std::string stale = catalogue.get("relevance.stale"); !stale.empty() || begins_anew) {
        const Judgement judgement = fit_judgement(catalogue, opened, std::cerr);
        Transaction transaction(catalogue.database());
        indexer.check_model();
        catalogue.set(judgement);
        // What another run has written meanwhile is not in it.
        if (catalogue.get("relevance.stale") == stale) catalogue.set("relevance.stale", "");
        transaction.commit();
    }
    // What searches will load is made now.
    if (arguments.has(approximate_option.name)) const Searcher searcher(database, opened, true);
    std::printf("%zu added, %zu changed, %zu moved, %zu copies, %zu removed, %zu unchanged, %zu left out; %zu pictures in %s\n",
                counts.added, counts.changed, counts.moved, counts.copied, counts.removed, counts.unchanged, counts.failed,
                catalogue.count(), catalogue.database().path().c_str());
    return 0;
}

}  // namespace

Command index_command() {
    return {.name = "index",
            .purpose = "the pictures of folders in a catalogue, for search",
            .operand = "DIR...",
            .synopsis = "DIR... [--database FILE] [--weights PATH]",
            .description =
                "Brings the catalogue, one SQLite file or a schema of a PostgreSQL server, to what the folders hold: new and changed pictures are embedded, a moved "
                "one keeps its vector and tags, of equal files one is embedded, what is gone is taken out, and what cannot be "
                "read is named. Captions come from captions.tsv in a folder, from a .txt beside a picture, and from the "
                "picture's own EXIF, XMP and IPTC. A run that is killed loses the batch under way; started again it goes on. "
                "From the captions it learns what the model's scores are worth, and says so. Machines that share a server's catalogue "
                "must see a folder under one path: what a machine does not find there, it takes out.",
            .options = with_checkpoint_options(
                {database_option,
                 approximate_option,
                 {"--captions", "FILE", "captions that lie elsewhere: path<TAB>caption, with paths below DIR"},
                 {"--again", "", "embed all anew, with another model; tags stay"},
                 {"--threads", "N", "(default: one a core)"}}),
            .run = run};
}

}  // namespace program
