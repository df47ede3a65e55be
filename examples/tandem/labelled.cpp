#include "labelled.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <set>

#include <tandem/core/parallel.hpp>
#include <tandem/tasks/index.hpp>

#include "inputs.hpp"

namespace program {

namespace {

/// What says nothing in particular of a picture.
constexpr std::array neutral_prompts{"a picture",         "an image",          "a photo",           "a drawing",
                                     "something",         "a thing",           "a photo of something", "a picture of things",
                                     "a small picture",   "this",              "an illustration",   "a photograph",
                                     "a simple picture",  "a detailed picture", "an object",        "a scene"};

/// Pictures that look alike are one example, not two: they stand on one side of a split.
constexpr float alike = 0.97F;

}  // namespace

Collection read_collection(const Catalogue& catalogue, const Snapshot& data) {
    Collection collection;
    for (std::size_t i = 0; i < data.ids.size(); ++i) {
        auto entry = catalogue.with_id(data.ids[i]);
        if (!entry) continue;
        const std::vector<float> row = data.index->row(i);
        collection.pictures.push_back(std::move(*entry));
        collection.rows.insert(collection.rows.end(), row.begin(), row.end());
    }
    return collection;
}

Known read_labelled(const std::filesystem::path& file, const Collection& collection, const td::Taxonomy& taxonomy) {
    std::map<std::string, std::size_t> places, labels;
    for (std::size_t i = 0; i < collection.pictures.size(); ++i) places[collection.pictures[i].path] = i;
    for (std::size_t i = 0; i < taxonomy.size(); ++i) labels[taxonomy.labels[i]] = i;
    std::map<std::size_t, std::set<std::size_t>> has;
    std::map<std::string, std::size_t> unknown;
    std::size_t strange = 0;
    for (const std::string& line : read_texts(file)) {
        if (line.empty()) continue;
        const std::size_t tab = line.find('\t');
        const std::filesystem::path path = catalogued(file.parent_path() / line.substr(0, tab));
        const auto place = places.find(path.string());
        const std::string name = tab == std::string::npos ? std::string() : line.substr(tab + 1);
        const auto label = labels.find(name);
        if (place == places.end()) {
            ++strange;
        } else {
            has[place->second];
            if (name.empty()) continue;
            if (label == labels.end()) ++unknown[name];
            else for (const std::size_t one : taxonomy.path(label->second)) has[place->second].insert(one);
        }
    }
    if (strange > 0) std::fprintf(stderr, "%s: %zu lines about pictures that the catalogue has not\n", file.c_str(), strange);
    if (!unknown.empty())
        std::fprintf(stderr, "%s: %zu labels that are not among those asked for, such as \"%s\"\n", file.c_str(), unknown.size(), unknown.begin()->first.c_str());
    Known known;
    const std::size_t width = collection.rows.size() / std::max<std::size_t>(1, collection.pictures.size());
    for (const auto& [place, some] : has) {
        known.pictures.push_back(place);
        const auto row = std::span(collection.rows).subspan(place * width, width);
        known.data.rows.insert(known.data.rows.end(), row.begin(), row.end());
        for (std::size_t label = 0; label < taxonomy.size(); ++label) known.data.has.push_back(some.contains(label) ? 1 : 0);
    }
    if (known.pictures.empty()) throw td::Error(file.string(), "labels of pictures in the catalogue", "none");
    return known;
}

td::LabelledPictures part_of(const Known& known, std::span<const std::size_t> places, std::size_t labels) {
    const std::size_t width = known.data.rows.size() / known.pictures.size();
    td::LabelledPictures part;
    for (const std::size_t i : places) {
        const auto row = std::span(known.data.rows).subspan(i * width, width);
        const auto has = std::span(known.data.has).subspan(i * labels, labels);
        part.rows.insert(part.rows.end(), row.begin(), row.end());
        part.has.insert(part.has.end(), has.begin(), has.end());
    }
    return part;
}

std::array<std::vector<std::size_t>, 2> split(const Collection& collection, const Known& known) {
    const std::size_t width = known.data.rows.size() / known.pictures.size();
    td::Index index(width);
    index.add(known.data.rows);
    std::vector<std::size_t> group(known.pictures.size());
    for (std::size_t i = 0; i < group.size(); ++i) {
        group[i] = i;
        const auto row = std::span(known.data.rows).subspan(i * width, width);
        const td::SearchResult near = index.search(row, 16, {.exact = false});
        for (const td::Match& match : near.matches[0]) {
            if (match.score >= alike && match.position < i) group[i] = std::min(group[i], group[match.position]);
        }
    }
    std::array<std::vector<std::size_t>, 2> halves;
    for (std::size_t i = 0; i < group.size(); ++i) {
        halves[scattered(collection.pictures[known.pictures[group[i]]].digest) % 2].push_back(i);
    }
    return halves;
}

std::vector<float> embed_neutral(const Opened& opened) {
    return embed_texts(opened, std::vector<std::string>(neutral_prompts.begin(), neutral_prompts.end()));
}

Scores scores_of(std::span<const float> rows, std::size_t width, std::size_t labels,
                 const std::function<std::vector<double>(std::span<const float>)>& of) {
    const std::size_t count = rows.size() / width;
    Scores scores(count * labels);
    td::parallel_for(count, 8, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i)
            std::ranges::copy(of(rows.subspan(i * width, width)), scores.begin() + static_cast<std::ptrdiff_t>(i * labels));
    });
    return scores;
}

namespace {

template <class T>
std::vector<T> column(const std::vector<T>& values, std::size_t label, std::size_t labels) {
    std::vector<T> found;
    for (std::size_t i = label; i < values.size(); i += labels) found.push_back(values[i]);
    return found;
}

}  // namespace

std::vector<double> column_of(const Scores& scores, std::size_t label, std::size_t labels) { return column(scores, label, labels); }

std::vector<std::uint8_t> column_of(const std::vector<std::uint8_t>& has, std::size_t label, std::size_t labels) {
    return column(has, label, labels);
}

}  // namespace program
