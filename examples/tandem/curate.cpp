// What of a catalogue, or of shards, is worth keeping, and why the rest is not.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <sstream>

#include <tbb/global_control.h>

#include <tandem/core/file.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/data/shards.hpp>
#include <tandem/tasks/curation.hpp>
#include <tandem/tasks/index.hpp>

#include "inputs.hpp"
#include "journal.hpp"
#include "searcher.hpp"
#include "thumbnail.hpp"

namespace program {

namespace {

/// Pictures that may be the same are looked for among so many neighbours, with cosines from so much on.
constexpr std::size_t neighbours = 50;
constexpr float least_cosine = 0.8F;

/// What is to be curated: rows of pictures that can be read, in the order of their names.
struct Items {
    std::vector<std::string> names;
    std::vector<std::size_t> pixels;     ///< of the stored picture
    std::vector<float> rows;             ///< embeddings [items, width]
    std::vector<double> caption_cosines; ///< of the caption that fits best; NaN where there is none
    std::vector<td::PictureSignature> signatures;
    std::vector<std::pair<std::string, std::string>> faults;  ///< what cannot be read, and why

    std::size_t size() const { return names.size(); }
};

// ------------------------------------------------------------------------------------------------------------ what is read

Items read_catalogue(const Arguments& arguments) {
    const Session session(arguments);
    const auto data = session.searcher.snapshot();
    const Searcher::Lease catalogue(session.searcher);
    Items items;
    std::vector<std::string> captions;
    std::vector<std::size_t> of;
    for (std::size_t i = 0; i < data->ids.size(); ++i) {
        const auto entry = catalogue->with_id(data->ids[i]);
        if (!entry) continue;
        const std::vector<std::byte> thumbnail = catalogue->thumbnail(entry->id);
        std::error_code failed;
        if (const auto size = std::filesystem::file_size(entry->path, failed); failed || static_cast<std::int64_t>(size) != entry->file.size) {
            items.faults.emplace_back(entry->path, failed ? "it is no longer there; tandem index takes it out" : "another file than was indexed; tandem index looks at it");
            continue;
        }
        try {
            items.signatures.push_back(td::signature_of(td::decode_image(thumbnail, entry->path)));
        } catch (const td::Error& error) {
            items.faults.emplace_back(entry->path, error.what());
            continue;
        }
        const std::vector<float> row = data->index->row(i);
        items.rows.insert(items.rows.end(), row.begin(), row.end());
        std::istringstream lines(entry->caption);
        for (std::string line; std::getline(lines, line);) {
            captions.push_back(line);
            of.push_back(items.size());
        }
        items.names.push_back(entry->path);
        items.pixels.push_back(static_cast<std::size_t>(std::max(0, entry->width)) * static_cast<std::size_t>(std::max(0, entry->height)));
    }
    items.caption_cosines.assign(items.size(), std::numeric_limits<double>::quiet_NaN());
    if (items.size() > 0 && !captions.empty() && arguments.has("--caption-least")) {
        const std::size_t width = items.rows.size() / items.size();
        const std::vector<float> texts = embed_texts(session.opened, captions);
        for (std::size_t i = 0; i < captions.size(); ++i) {
            const float* const row = items.rows.data() + of[i] * width;
            const auto cosine = static_cast<double>(std::inner_product(row, row + width, texts.begin() + static_cast<std::ptrdiff_t>(i * width), 0.0F));
            double& best = items.caption_cosines[of[i]];
            if (!(best >= cosine)) best = cosine;
        }
    }
    return items;
}

/// A sample of a shard.
struct ShardItem {
    std::size_t shard;
    td::ShardSample sample;
};

/// Shards, and the samples in them.
class Shards {
public:
    explicit Shards(const std::vector<std::string>& paths) {
        for (const std::string& path : paths) {
            paths_.push_back(path);
            files_.emplace_back(path);
            const td::TarContents contents = td::read_tar(files_.back().bytes());
            if (!contents.fault.empty()) faults_.emplace_back(path, contents.fault);
            std::size_t parts = 0;
            for (td::ShardSample& sample : td::group_samples(contents.members)) {
                parts += sample.parts.size();
                items_.push_back({files_.size() - 1, std::move(sample)});
            }
            if (const std::size_t passed = contents.passed_over + contents.members.size() - parts; passed > 0)
                std::fprintf(stderr, "not read: %s: %zu members that are no files (links, say), or have no name and ending\n", path.c_str(), passed);
            members_.push_back(contents.members);
        }
        if (items_.empty())
            throw td::Error("the shards", "samples in them", faults_.empty() ? "none" : "none: " + faults_.front().first + ": " + faults_.front().second);
    }

    const std::vector<ShardItem>& items() const { return items_; }
    const std::vector<std::pair<std::string, std::string>>& faults() const { return faults_; }
    std::string name(const ShardItem& item) const { return paths_[item.shard].string() + "/" + item.sample.key; }
    std::span<const std::filesystem::path> paths() const { return paths_; }

    /// The first part of a sample with one of some endings; nothing if it has none.
    std::span<const std::byte> part(const ShardItem& item, std::initializer_list<std::string_view> endings) const {
        const std::vector<td::TarMember>& members = members_[item.shard];
        const std::size_t at = item.sample.part(endings, members.size());
        return at == members.size() ? std::span<const std::byte>{} : members[at].bytes(files_[item.shard].bytes());
    }
    std::span<const std::byte> bytes(const ShardItem& item, std::size_t part) const {
        return members_[item.shard][item.sample.parts[part].second].bytes(files_[item.shard].bytes());
    }

private:
    std::vector<std::filesystem::path> paths_;
    std::vector<td::MappedFile> files_;
    std::vector<std::vector<td::TarMember>> members_;
    std::vector<ShardItem> items_;
    std::vector<std::pair<std::string, std::string>> faults_;
};

/// Embeds the samples' pictures and captions; a run that is killed goes on where it was. `of` says which sample each item is.
Items read_shards(const Arguments& arguments, const Shards& shards, const std::filesystem::path& journal, std::vector<std::size_t>& of) {
    const Opened opened = open(arguments);
    require_both(opened, arguments, "pictures and captions");
    const std::size_t width = opened.clip.sizes().embedding, floats = opened.preprocess.count();
    // A row is the embedding, the cosine of the caption, the pixels, and the signature's bytes.
    static_assert(sizeof(td::PictureSignature) % sizeof(float) == 0);
    constexpr std::size_t of_signature = sizeof(td::PictureSignature) / sizeof(float);
    const std::size_t row_width = width + 2 + of_signature;
    Inputs inputs = inputs_of_rows(arguments, opened);
    inputs.add_tokenizer(tokenizer_of(arguments));
    inputs.add_pictures(shards.paths());
    Journal done(journal, "curate 1", inputs, row_width);
    std::map<std::size_t, std::string> reasons;
    const auto read = [&](std::size_t i, std::span<float> pixels, float* row) -> std::string {
        const ShardItem& item = shards.items()[i];
        const auto picture = shards.part(item, {"jpg", "jpeg", "png", "webp"});
        if (picture.empty()) return "no picture (.jpg, .jpeg, .png or .webp)";
        try {
            const td::Image image = td::decode_image(picture, shards.name(item), opened.decode);
            to_pixels(opened, image, shards.name(item), pixels);
            row[width + 1] = static_cast<float>(image.width) * static_cast<float>(image.height);
            const td::PictureSignature signature = td::signature_of(on_white(image));
            std::memcpy(row + width + 2, &signature, sizeof(signature));
        } catch (const td::Error& error) {
            return error.what();
        }
        return {};
    };
    const std::vector<float> all = all_rows("curate", done, shards.items().size(), [&](std::size_t first, std::size_t end) {
        std::vector<float> pixels((end - first) * floats), rows((end - first) * row_width);
        std::vector<std::string> failed(end - first), captions(end - first);
        td::parallel_for(end - first, 1, [&](std::size_t i, std::size_t last) {
            for (; i < last; ++i) {
                failed[i] = read(first + i, std::span(pixels).subspan(i * floats, floats), rows.data() + i * row_width);
                const auto text = shards.part(shards.items()[first + i], {"txt", "caption"});
                captions[i].assign(reinterpret_cast<const char*>(text.data()), text.size());
                if (captions[i].find_first_not_of(" \t\r\n") == std::string::npos) captions[i].clear();
            }
        });
        const auto images = opened.clip.encode_image(pixels);
        const std::vector<float> texts = embed_texts(opened, captions);
        for (std::size_t i = 0; i < failed.size(); ++i) {
            float* const row = rows.data() + i * row_width;
            std::copy_n(images.data() + i * width, width, row);
            row[width] = captions[i].empty() ? std::numeric_limits<float>::quiet_NaN()
                                             : std::inner_product(row, row + width, texts.begin() + static_cast<std::ptrdiff_t>(i * width), 0.0F);
            if (!failed[i].empty() || !is_finite({row, width})) std::fill_n(row, row_width, std::numeric_limits<float>::quiet_NaN());
        }
        return rows;
    });
    Items items;
    items.faults = shards.faults();
    std::vector<float> scratch(floats), row(row_width);
    for (std::size_t i = 0; i < shards.items().size(); ++i) {
        const float* const found = all.data() + i * row_width;
        const std::string name = shards.name(shards.items()[i]);
        if (std::isnan(found[0])) {
            const std::string reason = read(i, scratch, row.data());
            items.faults.emplace_back(name, reason.empty() ? "the model gives no finite numbers for it" : reason);
            continue;
        }
        of.push_back(i);
        items.names.push_back(name);
        items.rows.insert(items.rows.end(), found, found + width);
        items.caption_cosines.push_back(static_cast<double>(found[width]));
        items.pixels.push_back(static_cast<std::size_t>(found[width + 1]));
        std::memcpy(static_cast<void*>(&items.signatures.emplace_back()), found + width + 2, sizeof(td::PictureSignature));
    }
    return items;
}

// ---------------------------------------------------------------------------------------------------------- what is decided

/// Why items went; empty for what stays.
class Decisions {
public:
    explicit Decisions(const Items& items) : items_(items), reasons_(items.size()) {}

    bool stays(std::size_t item) const { return reasons_[item].empty(); }
    const std::string& reason(std::size_t item) const { return reasons_[item]; }
    void remove(std::size_t item, const std::string& kind, const std::string& detail) {
        reasons_[item] = kind + "\t" + detail;
        ++counts_[kind];
    }
    const std::map<std::string, std::size_t>& counts() const { return counts_; }

    /// What stays so far: largest pictures first, so that these are what others are the same as.
    std::vector<std::size_t> order() const {
        std::vector<std::size_t> all;
        for (std::size_t i = 0; i < items_.size(); ++i) {
            if (stays(i)) all.push_back(i);
        }
        std::ranges::sort(all, {}, [&](std::size_t i) { return std::pair(-static_cast<double>(items_.pixels[i]), i); });
        return all;
    }

private:
    const Items& items_;
    std::vector<std::string> reasons_;
    std::map<std::string, std::size_t> counts_;
};

std::string two_digits(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.3f", value);
    return text.data();
}

std::vector<float> rows_of(const Items& items, std::span<const std::size_t> some) {
    const std::size_t width = items.rows.size() / std::max<std::size_t>(1, items.size());
    std::vector<float> rows;
    for (const std::size_t i : some) rows.insert(rows.end(), items.rows.begin() + static_cast<std::ptrdiff_t>(i * width), items.rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
    return rows;
}

/// For every row, the others that may be the same picture, nearest first.
std::vector<std::vector<td::Match>> candidates(std::span<const float> rows, std::size_t width) {
    td::Index index(width);
    index.add(rows);
    std::vector<std::vector<td::Match>> found;
    constexpr std::size_t at_once = 1024;
    for (std::size_t first = 0; first * width < rows.size(); first += at_once) {
        const std::size_t some = std::min(at_once, rows.size() / width - first);
        for (auto& matches : index.search(rows.subspan(first * width, some * width), neighbours).matches) found.push_back(std::move(matches));
    }
    for (std::size_t i = 0; i < found.size(); ++i)
        std::erase_if(found[i], [&](const td::Match& match) { return match.position == i || match.score < least_cosine; });
    return found;
}

/// The same picture as a larger one that stays, or as an earlier one of its size.
void remove_same(const Items& items, Decisions& decisions) {
    const std::vector<std::size_t> order = decisions.order();
    const auto near = candidates(rows_of(items, order), items.rows.size() / items.size());
    std::vector<std::vector<double>> scores(order.size());
    td::parallel_for(order.size(), 16, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            for (const td::Match& match : near[i])
                scores[i].push_back(match.position < i ? td::same_picture(items.signatures[order[match.position]], items.signatures[order[i]]) : 0);
        }
    });
    for (std::size_t i = 0; i < order.size(); ++i) {
        for (std::size_t j = 0; j < near[i].size(); ++j) {
            const std::size_t other = order[near[i][j].position];
            if (scores[i][j] < td::same_picture_score || !decisions.stays(other)) continue;
            decisions.remove(order[i], "same", in_a_line(items.names[other]));
            break;
        }
    }
}

void remove_likenesses(const Items& items, Decisions& decisions, std::span<const std::size_t> some, const char* kind,
                       const std::vector<std::optional<td::Likeness>>& found) {
    for (std::size_t i = 0; i < some.size(); ++i) {
        if (found[i]) decisions.remove(some[i], kind, in_a_line(items.names[some[found[i]->like]]) + "\t" + two_digits(static_cast<double>(found[i]->cosine)));
    }
}

Decisions decide(const Items& items, const Arguments& arguments) {
    Decisions decisions(items);
    const std::size_t width = items.rows.size() / items.size();
    if (!arguments.has("--keep-same")) remove_same(items, decisions);
    if (arguments.has("--alike")) {
        const std::vector<std::size_t> order = decisions.order();
        std::vector<std::size_t> places(order.size());
        std::iota(places.begin(), places.end(), std::size_t{0});
        remove_likenesses(items, decisions, order, "alike", td::group_alike(rows_of(items, order), width, places, static_cast<float>(arguments.share("--alike", 1))));
    }
    if (arguments.has("--semdedup")) {
        const std::vector<std::size_t> order = decisions.order();
        const std::size_t clusters = std::clamp<std::size_t>(arguments.number("--clusters", static_cast<std::size_t>(std::sqrt(static_cast<double>(order.size())))), 1, order.size());
        const std::vector<float> rows = rows_of(items, order);
        remove_likenesses(items, decisions, order, "semdedup",
                          td::semantic_duplicates(rows, width, td::spherical_k_means(rows, width, clusters, arguments.seed()), arguments.share("--semdedup", 0.05)));
    }
    if (arguments.has("--caption-least")) {
        const double least = arguments.share("--caption-least", 0.3);
        for (std::size_t i = 0; i < items.size(); ++i) {
            if (!decisions.stays(i) || items.caption_cosines[i] >= least) continue;
            decisions.remove(i, "caption", std::isnan(items.caption_cosines[i]) ? "none" : two_digits(items.caption_cosines[i]));
        }
    }
    if (arguments.has("--outliers")) {
        const double deviations = arguments.real("--outliers", 4, 0, 1000);
        const std::vector<std::size_t> order = decisions.order();
        if (order.size() > 2) {
            const std::vector<double> near = td::nearness(rows_of(items, order), width), scores = td::robust_scores(near);
            for (std::size_t i = 0; i < order.size(); ++i) {
                if (scores[i] < -deviations) decisions.remove(order[i], "outlier", two_digits(near[i]));
            }
        }
    }
    return decisions;
}

// ---------------------------------------------------------------------------------------------------------- what is written

/// Shards of what stays, its files as they were, under running numbers; `list` gets which is what.
void write_shards(const std::filesystem::path& folder, std::size_t each, const Shards& shards, std::span<const std::size_t> of, const Decisions& decisions,
                  std::string& list) {
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < of.size(); ++i) {
        if (decisions.stays(i)) kept.push_back(of[i]);
    }
    for (std::size_t first = 0, number = 0; first < kept.size(); first += each, ++number) {
        std::vector<td::TarEntry> entries;
        std::array<char, 32> name{};
        for (std::size_t i = first; i < std::min(first + each, kept.size()); ++i) {
            const ShardItem& item = shards.items()[kept[i]];
            std::snprintf(name.data(), name.size(), "%09zu", i);
            list += std::string(name.data()) + "\t" + in_a_line(shards.name(item)) + "\n";
            for (std::size_t part = 0; part < item.sample.parts.size(); ++part)
                entries.push_back({std::string(name.data()) + "." + item.sample.parts[part].first, shards.bytes(item, part)});
        }
        std::snprintf(name.data(), name.size(), "%05zu.tar", number);
        td::write_tar(folder / name.data(), entries);
    }
}

// --------------------------------------------------------------------------------------------------- how good that is

struct Change {
    const char* name;
    td::Image (*of)(const td::Image& picture);
    bool is_same;  ///< whether it is the same picture by what the program promises
};

td::Image recoded(const td::Image& picture, int quality) { return td::decode_image(encode_jpeg(picture, "a copy", quality), "a copy"); }
td::Image scaled(const td::Image& picture, double by) {
    const auto side = [&](int pixels) { return std::max(1, static_cast<int>(std::lround(pixels * by))); };
    return td::resize(picture, side(picture.width), side(picture.height), td::Filter::bicubic);
}
td::Image cropped(const td::Image& picture, double share) {
    const int across = static_cast<int>(picture.width * share), down = static_cast<int>(picture.height * share);
    return td::crop(picture, {across, down / 2, std::max(1, picture.width - across - across / 2), std::max(1, picture.height - down)});
}
td::Image grey(const td::Image& picture) {
    td::Image out = picture;
    for (std::size_t i = 0; i < out.pixels.size(); i += 3) {
        const double light = 0.299 * out.pixels[i] + 0.587 * out.pixels[i + 1] + 0.114 * out.pixels[i + 2];
        std::fill_n(out.pixels.begin() + static_cast<std::ptrdiff_t>(i), 3, static_cast<std::uint8_t>(std::lround(light)));
    }
    return out;
}
td::Image exchanged(const td::Image& picture) {
    td::Image out = picture;
    for (std::size_t i = 0; i < out.pixels.size(); i += 3) std::rotate(out.pixels.begin() + static_cast<std::ptrdiff_t>(i), out.pixels.begin() + static_cast<std::ptrdiff_t>(i + 1), out.pixels.begin() + static_cast<std::ptrdiff_t>(i + 3));
    return out;
}

constexpr std::array changes{
    Change{"JPEG of quality 90", [](const td::Image& picture) { return recoded(picture, 90); }, true},
    Change{"JPEG of quality 60", [](const td::Image& picture) { return recoded(picture, 60); }, true},
    Change{"JPEG of quality 30", [](const td::Image& picture) { return recoded(picture, 30); }, true},
    Change{"three quarters as large", [](const td::Image& picture) { return scaled(picture, 0.75); }, true},
    Change{"half as large", [](const td::Image& picture) { return scaled(picture, 0.5); }, true},
    Change{"half again as large", [](const td::Image& picture) { return scaled(picture, 1.5); }, true},
    Change{"5 % cut off", [](const td::Image& picture) { return cropped(picture, 0.05); }, true},
    Change{"10 % cut off", [](const td::Image& picture) { return cropped(picture, 0.10); }, true},
    Change{"10 % cut off, half as large, quality 60", [](const td::Image& picture) { return recoded(scaled(cropped(picture, 0.1), 0.5), 60); }, true},
    Change{"grey", grey, false},
    Change{"mirrored", [](const td::Image& picture) { return td::flip_horizontal(picture); }, false},
    Change{"colours exchanged", exchanged, false}};

/// Copies of pictures drawn from the catalogue, change by change: how many are called the same, by pixels and by cosine alone, at the
/// same share of wrong answers for each picture's nearest others.
int report(const Arguments& arguments) {
    const std::size_t most = arguments.number("--report", 300, 100'000);
    const Session session(arguments);
    const auto data = session.searcher.snapshot();
    const Searcher::Lease catalogue(session.searcher);
    const std::size_t count = data->ids.size();
    if (count < 10 || most == 0) throw td::Error("--report", "a catalogue of 10 pictures or more", std::to_string(count));
    td::Random random(arguments.seed());
    std::vector<std::size_t> places(count);
    std::iota(places.begin(), places.end(), std::size_t{0});
    td::shuffle(places, random);
    places.resize(std::min(most, count));
    struct Found {
        std::vector<double> pixels, cosines;
    };
    std::vector<Found> found(changes.size());
    Found others;
    Progress progress("curate", 0, places.size());
    std::size_t unread = 0;
    for (std::size_t n = 0; n < places.size(); ++n) {
        const auto entry = catalogue->with_id(data->ids[places[n]]);
        const std::vector<float> row = data->index->row(places[n]);
        progress.show(n + 1);
        try {
            if (!entry) throw td::Error("a picture", "it in the catalogue", "none");
            const td::Image picture = on_white(td::read_image(entry->path, session.opened.decode));
            const td::PictureSignature own = td::signature_of(picture);
            const auto cosine = [&](std::span<const float> with) { return static_cast<double>(std::inner_product(row.begin(), row.end(), with.begin(), 0.0F)); };
            for (std::size_t change = 0; change < changes.size(); ++change) {
                const td::Image copy = changes[change].of(picture);
                found[change].pixels.push_back(td::same_picture(own, td::signature_of(fitted(copy, thumbnail_side))));
                found[change].cosines.push_back(cosine(session.searcher.embed_picture(copy, "a copy")));
            }
            // The nearest others, which are the hardest to tell apart; pictures whose files are equal are no others.
            const td::SearchResult near = data->index->search(row, 6);
            for (const td::Match& match : near.matches.front()) {
                const auto other = catalogue->with_id(data->ids[match.position]);
                if (match.position == places[n] || !other || other->digest == entry->digest) continue;
                const td::Image seen = td::decode_image(catalogue->thumbnail(other->id), other->path);
                others.pixels.push_back(td::same_picture(own, td::signature_of(seen)));
                others.cosines.push_back(static_cast<double>(match.score));
                if (arguments.has("--list") && others.pixels.back() >= td::same_picture_score)
                    std::printf("called the same: %s\t%s\t%.3f\n", entry->path.c_str(), other->path.c_str(), others.pixels.back());
            }
        } catch (const td::Error&) {
            ++unread;
        }
    }
    if (unread > 0) std::fprintf(stderr, "curate: %zu pictures can no longer be read\n", unread);
    const auto share = [](const std::vector<double>& scores, double least) {
        return scores.empty() ? 0 : 100 * static_cast<double>(std::ranges::count_if(scores, [&](double score) { return score >= least; })) / static_cast<double>(scores.size());
    };
    // The cosine at which as many others are called the same.
    std::vector<double> sorted = others.cosines;
    std::ranges::sort(sorted, std::greater<>());
    const auto wrong = static_cast<std::size_t>(std::ranges::count_if(others.pixels, [](double score) { return score >= td::same_picture_score; }));
    const double equal = sorted.empty() ? 1 : wrong == 0 ? sorted.front() + 1e-6 : sorted[wrong - 1];
    std::printf("%zu pictures, copies called the same:          by pixels  by cosine >= %.4f\n", places.size() - unread, equal);
    for (std::size_t change = 0; change < changes.size(); ++change)
        std::printf("%-48s %7.1f %% %12.1f %%%s\n", changes[change].name, share(found[change].pixels, td::same_picture_score), share(found[change].cosines, equal),
                    changes[change].is_same ? "" : "   (another picture)");
    std::printf("%-48s %7.2f %% %12.2f %%\n", "the five nearest other files (--list shows them)", share(others.pixels, td::same_picture_score), share(others.cosines, equal));
    return 0;
}

/// Before anything is begun.
void check_options(const Arguments& arguments) {
    arguments.share("--alike", 1), arguments.share("--semdedup", 0.05), arguments.share("--caption-least", 0.3), arguments.real("--outliers", 4, 0, 1000);
    arguments.number("--clusters", 1), arguments.number("--shard-size", 1, 10'000'000), arguments.seed();
    const bool reports = arguments.has("--report");
    if (arguments.has("--list") && !reports) throw UsageError("--list", "--report beside it, whose pairs it lists", "none");
    if (arguments.has("--seed") && !reports && !arguments.has("--semdedup")) throw UsageError("--seed", "--semdedup or --report beside it", "neither");
    if (arguments.has("--shard-size") && !arguments.has("--shards")) throw UsageError("--shard-size", "--shards beside it", "none");
    for (const char* const name : {"--out", "--shards", "--alike", "--semdedup", "--caption-least", "--outliers", "--keep-same"}) {
        if (reports && arguments.has(name)) throw UsageError(name, "no --report beside it, which decides nothing", "both");
    }
    if (reports && !arguments.operands().empty()) throw UsageError("--report", "a catalogue", "shards");
}

int run(const Arguments& arguments) {
    check_options(arguments);
    if (arguments.has("--clusters") && !arguments.has("--semdedup")) throw UsageError("--clusters", "--semdedup beside it, whose clusters they are", "none");
    tbb::global_control threads(tbb::global_control::max_allowed_parallelism, arguments.number("--threads", td::core_count(), 4096));
    if (arguments.has("--report")) return report(arguments);
    const bool has_shards = !arguments.operands().empty();
    for (const char* const name : {"--shards", "--shard-size"}) {
        if (arguments.has(name) && !has_shards) throw UsageError(name, "shards to read, whose samples it is about", "a catalogue");
    }
    if (has_shards && arguments.has("--database")) throw UsageError("--database", "shards or a catalogue", "both");
    const std::filesystem::path out = arguments.require("--out");
    require_place(out);
    std::vector<std::string> inputs = arguments.operands();
    if (!has_shards) inputs.push_back(database_of(arguments));
    for (const std::string& input : inputs) {
        require_other("--out", out, input);
        require_other("--out", out.string() + ".gone.tsv", input);
    }
    const std::size_t shard_size = arguments.number("--shard-size", 10'000, 10'000'000);
    if (const std::filesystem::path folder = arguments.get("--shards"); !folder.empty()) {
        std::filesystem::create_directories(folder);
        // Shards of another run would be taken for this one's, and those that are read must not be written over.
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            if (entry.path().extension() == ".tar") throw td::Error("--shards", "a folder without shards", entry.path().string());
        }
    }
    std::optional<Shards> shards;
    std::vector<std::size_t> of;
    const std::filesystem::path journal = out.string() + ".partial";
    if (has_shards) shards.emplace(arguments.operands());
    const Items items = has_shards ? read_shards(arguments, *shards, journal, of) : read_catalogue(arguments);
    for (const auto& [name, fault] : items.faults) std::fprintf(stderr, "left out: %s: %s\n", name.c_str(), fault.c_str());
    if (items.size() == 0) {
        if (has_shards) std::filesystem::remove(journal);  // there is nothing to go on from
        throw td::Error("the pictures", "one that can be read", "none");
    }
    const Decisions decisions = decide(items, arguments);
    std::string kept, gone;
    std::size_t stays = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (decisions.stays(i)) {
            ++stays;
            if (!arguments.has("--shards")) kept += in_a_line(items.names[i]) + "\n";
        } else {
            gone += in_a_line(items.names[i]) + "\t" + decisions.reason(i) + "\n";
        }
    }
    for (const auto& [name, fault] : items.faults) gone += in_a_line(name) + "\tunreadable\t" + in_a_line(fault) + "\n";
    if (arguments.has("--shards")) write_shards(arguments.get("--shards"), shard_size, *shards, of, decisions, kept);
    td::write_file_atomically(out.string() + ".gone.tsv", gone);
    td::write_file_atomically(out, kept);
    if (has_shards) std::filesystem::remove(journal);
    std::printf("%zu of %zu stay\n", stays, items.size() + items.faults.size());
    for (const auto& [kind, count] : decisions.counts()) std::printf("%zu %s\n", count, kind.c_str());
    if (!items.faults.empty()) std::printf("%zu unreadable\n", items.faults.size());
    return 0;
}

}  // namespace

Command curate_command() {
    return {.name = "curate",
            .purpose = "what of a catalogue or of shards is worth keeping, and why the rest is not",
            .operand = "[SHARD.tar...]",
            .synopsis = "[SHARD.tar...] --out FILE [--alike C] [--caption-least C]",
            .description =
                "Without shards, the pictures of a catalogue. What is the same picture as a larger one goes: in another size or compression, "
                "or with a few percent cut off; then, as asked for, what is alike, what does not fit its caption, and what fits nothing. "
                "FILE lists what stays (with --shards, its new name and the old one), FILE.gone.tsv what does not: name, kind, and the picture "
                "it is like or the number that decided. Tabs, line ends and backslashes in names are written \\\\t, \\\\n and \\\\\\\\. A sample's picture is its .jpg, .jpeg, .png or .webp, "
                "its caption its .txt or .caption. No picture is touched.",
            .options = with_checkpoint_options(
                {database_option,
                 {"--out", "FILE", "the list of what stays"},
                 {"--keep-same", "", "the same picture in other files stays"},
                 {"--alike", "C", "of pictures with a cosine of that or more to one, the largest, that one stays"},
                 {"--semdedup", "E", "SemDeDup: inside a cluster, of pictures with a cosine above 1 - E those farthest from its centre stay"},
                 {"--clusters", "N", "of --semdedup (default: the square root of the pictures)"},
                 {"--caption-least", "C", "what has no caption with that cosine goes (LAION-400M: 0.3 with ViT-B/32)"},
                 {"--outliers", "Z", "what is that many deviations farther from its ten neighbours than the median goes"},
                 {"--shards", "DIR", "also the samples that stay, in shards of their own: DIR/00000.tar, ...; there must be none yet"},
                 {"--shard-size", "N", "samples a shard (default 10000)"},
                 {"--report", "N", "instead: how many copies of N pictures of the catalogue are found, change by change"},
                 {"--list", "", "with --report: pairs of different files that are called the same"},
                 {"--seed", "N", "of --semdedup and --report (default 0)"},
                 {"--threads", "N", "(default: one a core)"}}),
            .run = run};
}

}  // namespace program
