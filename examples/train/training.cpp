#include "training.hpp"

#include <set>

namespace training {

td::SampleList list_samples(const std::string& what, const Settings& settings) {
    if (settings.dataset_type == "webdataset") return td::read_shards(td::expand_names(what), settings.strict);
    if (settings.dataset_type == "csv") return td::read_table(what, settings.table, settings.strict);
    return td::read_folder(what, settings.strict);
}

void report_faults(const char* what, td::FaultCounts faults, const td::FaultCounts& before) {
    for (const auto& [cause, files] : before) {
        for (const auto& [file, times] : files) {
            if ((faults[cause][file] -= times) == 0) faults[cause].erase(file);
        }
        if (faults[cause].empty()) faults.erase(cause);
    }
    for (const auto& [cause, files] : faults) {
        std::size_t count = 0, named = 0;
        for (const auto& [file, times] : files) count += times;
        std::fprintf(stderr, "%s: left out %zu: %s:", what, count, cause.c_str());
        for (const auto& [file, times] : files) {
            if (++named > 5) break;
            std::fprintf(stderr, " %s (%zu)", file.c_str(), times);
        }
        std::fprintf(stderr, files.size() > 5 ? " and %zu files more\n" : "\n", files.size() - 5);
    }
}

td::AnyTokenizer find_tokenizer(const Settings& settings, const td::SampleList& samples, std::size_t vocabulary) {
    if (!settings.tokenizer.empty()) return td::open_tokenizer(settings.tokenizer);
    // Runs have it in a folder of its own.
    if (const fs::path beside = settings.pretrained / "tokenizer"; !settings.pretrained.empty()) return td::open_tokenizer(fs::is_directory(beside) ? beside : settings.pretrained);
    const fs::path folder = settings.folder() / "tokenizer";
    if (settings.resume && fs::exists(folder)) return td::open_tokenizer(folder);
    // A million captions tell the pairs of letters that are frequent.
    const std::size_t step = samples.samples.size() / 1'000'000 + 1;
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < samples.samples.size(); i += step) {
        for (std::string& caption : td::captions_of(samples, i)) texts.push_back(std::move(caption));
    }
    std::fprintf(stderr, "learning a tokenizer of %zu words from %zu captions\n", vocabulary, texts.size());
    const td::Bpe tokenizer = td::train_bpe(texts, vocabulary);
    tokenizer.save(folder);
    return tokenizer;
}

void Source::fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
    if (data != nullptr) return data->fetch(index, random, image, ids);
    for (float& pixel : image) pixel = static_cast<float>(random.normal());
    td::Random words{td::Seed{7}, index};
    std::ranges::fill(ids, 0);
    ids[0] = static_cast<td::Id>(vocabulary - 2);
    const std::size_t end = ids.size() / 2;
    for (std::size_t i = 1; i < end; ++i) ids[i] = static_cast<td::Id>(1 + words.below(vocabulary - 3));
    ids[end] = static_cast<td::Id>(vocabulary - 1);
}

std::map<std::string, std::string> Source::fingerprint() const {
    if (data != nullptr) return data->fingerprint();
    return {{"pairs", "synthetic, " + std::to_string(count)}};
}

ClassFolder read_classes(const fs::path& folder) {
    ClassFolder found;
    if (!fs::is_directory(folder)) throw td::Error("--imagenet-val", "a folder of classes", folder.string());
    std::set<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (entry.is_directory()) folders.insert(entry.path());
    }
    for (const fs::path& of_class : folders) {
        std::set<fs::path> pictures;
        for (const auto& entry : fs::directory_iterator(of_class)) {
            if (entry.is_regular_file()) pictures.insert(entry.path());
        }
        for (const fs::path& picture : pictures) {
            found.pictures.push_back(picture);
            found.labels.push_back(found.classes.size());
        }
        std::string name = of_class.filename().string();
        std::ranges::replace_if(name, [](char c) { return c == '_' || c == '-'; }, ' ');
        found.classes.push_back(name);
    }
    if (found.classes.size() < 2 || found.pictures.empty())
        throw td::Error("--imagenet-val", "a folder with a folder for each class, two or more", std::to_string(found.classes.size()) + " in " + folder.string());
    return found;
}

void prepare_folder(const Settings& settings) {
    const fs::path folder = settings.folder(), snapshot = folder / "checkpoints" / "snapshot.safetensors";
    std::error_code error;
    if (!settings.resume && (fs::exists(snapshot) || fs::exists(folder / "model.safetensors")))
        throw program::UsageError("--name", "a run that is not there yet, or --resume latest to go on with it", folder.string());
    if (settings.resume && !fs::exists(snapshot)) std::fprintf(stderr, "no %s yet: training from the start\n", snapshot.c_str());
    fs::create_directories(folder / "checkpoints", error);
    if (error) throw td::Error(folder.string(), "cannot be made: " + error.message());
}

}  // namespace training
