#include "training.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <numeric>
#include <thread>

#include "../../benchmarks/ceiling.hpp"

namespace training {

namespace {

/// Those of some files that a folder has.
void copy_files(const fs::path& from, const fs::path& to, std::initializer_list<const char*> names) {
    for (const char* const name : names) {
        if (!fs::is_regular_file(from / name)) continue;
        fs::create_directories(to);
        std::error_code failed;
        if (fs::equivalent(from / name, to / name, failed)) continue;
        fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing);
    }
}

}  // namespace

td::AnyTokenizer find_tokenizer(const Settings& settings, const td::SampleList& samples, std::size_t vocabulary) {
    const fs::path folder = settings.folder() / "tokenizer";
    if (!settings.tokenizer.empty() || !settings.pretrained.empty()) {
        // Runs have it in a folder of its own.
        const fs::path given = settings.tokenizer.empty() ? settings.pretrained : settings.tokenizer, beside = fs::is_directory(given) ? given : given.parent_path();
        const fs::path place = fs::is_directory(beside / "tokenizer") ? beside / "tokenizer" : beside;
        if (settings.is_first_rank()) copy_files(place, folder, {"spiece.model", "sentencepiece.bpe.model", "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "bpe_simple_vocab_16e6.txt.gz",
                                   "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"});
        // How pictures and captions are prepared stands beside the weights.
        if (settings.is_first_rank()) copy_files(fs::is_directory(settings.pretrained) ? settings.pretrained : settings.pretrained.parent_path(), settings.folder(),
                   {"open_clip_config.json", "preprocessor_config.json", "processor_config.json"});
        return td::open_tokenizer(fs::is_directory(beside / "tokenizer") ? place : given, settings.folder());
    }
    // Behind the first snapshot it is whole, and once the first rank has made it.
    if (!settings.is_first_rank() || (settings.resume && fs::exists(settings.snapshot()))) return td::open_tokenizer(folder);
    // A million captions tell the pairs of letters that are frequent.
    const td::SampleList other = settings.tokenizer_data.empty() ? td::SampleList{} : list_samples(settings.tokenizer_data, settings);
    const td::SampleList& from = settings.tokenizer_data.empty() ? samples : other;
    const std::size_t step = from.samples.size() / 1'000'000 + 1;
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < from.samples.size(); i += step) {
        for (std::string& caption : td::captions_of(from, i)) texts.push_back(std::move(caption));
    }
    std::fprintf(stderr, "learning a tokenizer of %zu words from %zu captions\n", vocabulary, texts.size());
    const td::Bpe tokenizer = td::train_bpe(texts, vocabulary);
    tokenizer.save(folder);
    return tokenizer;
}

double measured_gflops(bool reduced, td::Ranks* ranks) {
    const double mine = ceiling::gflops(reduced ? ceiling::Precision::bf16 : ceiling::Precision::f32, td::core_count());
    if (ranks == nullptr) return mine;
    // Ranks that are bound to no cores share their machine's.
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    const std::vector<std::string> hosts = td::gather_texts(*ranks, host.data());
    const auto here = static_cast<double>(std::ranges::count(hosts, std::string(host.data())));
    const double cores = static_cast<double>(td::core_count()), share = std::min(1.0, std::thread::hardware_concurrency() / here / cores);
    std::vector<double> all(ranks->size());
    all[ranks->rank()] = mine * share;
    td::gather<double>(*ranks, all);
    return std::accumulate(all.begin(), all.end(), 0.0);
}

std::size_t mean_tokens(const td::SampleList& samples, const td::AnyTokenizer& tokenizer, std::size_t context) {
    std::vector<td::Id> ids(context);
    std::size_t tokens = 0, captions = 0;
    for (std::size_t i = 0; i < samples.samples.size(); i += samples.samples.size() / 64 + 1) {
        for (const std::string& caption : td::captions_of(samples, i)) {
            tokenizer.encode(caption, ids);
            // Whatever pads a caption, it comes again and again; one that fills the context has none.
            const bool is_padded = context > 1 && ids[context - 1] == ids[context - 2];
            const auto end = std::find_if(ids.rbegin(), ids.rend(), [&](td::Id id) { return !is_padded || id != ids.back(); });
            tokens += static_cast<std::size_t>(ids.rend() - end);
            ++captions;
        }
    }
    return captions == 0 ? 0 : std::max<std::size_t>(1, tokens / captions);
}

void Source::fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
    if (data != nullptr) return data->fetch(index, random, image, ids);
    for (float& pixel : image) pixel = static_cast<float>(random.normal());
    td::Random words{td::Seed{7}, index};
    std::ranges::fill(ids, 0);
    ids[0] = static_cast<td::Id>(vocabulary - 2);
    const std::size_t end = tokens(ids.size()) - 1;
    for (std::size_t i = 1; i < end; ++i) ids[i] = static_cast<td::Id>(1 + words.below(vocabulary - 3));
    ids[end] = static_cast<td::Id>(vocabulary - 1);
}

std::vector<std::size_t> Source::draws(std::size_t epoch) const {
    if (data != nullptr) return data->draws(epoch);
    std::vector<std::size_t> draws(count);
    std::iota(draws.begin(), draws.end(), std::size_t{0});
    return draws;
}

std::map<std::string, std::string> Source::fingerprint() const {
    if (data != nullptr) return data->fingerprint();
    return {{"pairs", "synthetic, " + std::to_string(count)}};
}

void prepare_folder(const Settings& settings) {
    const fs::path folder = settings.folder(), snapshot = settings.snapshot();
    std::error_code error;
    if (!settings.resume && (fs::exists(snapshot) || fs::exists(folder / "model.safetensors")))
        throw program::UsageError("--name", "a run that is not there yet, or --resume latest to go on with it", folder.string());
    if (settings.resume && !fs::exists(snapshot)) std::fprintf(stderr, "no %s yet: training from the start\n", snapshot.c_str());
    fs::create_directories(folder / "checkpoints", error);
    if (error) throw td::Error(folder.string(), "cannot be made: " + error.message());
}

}  // namespace training
