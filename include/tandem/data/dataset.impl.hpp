// Definitions of data/dataset.hpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <mutex>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/data/dataset.hpp>
#include <tandem/data/samples.hpp>
#include <tandem/data/view.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>) && \
    __has_include(<zlib.h>) && __has_include(<zconf.h>)

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Dataset::Dataset(SampleList samples, AnyTokenizer tokenizer, std::size_t context, DatasetOptions options)
    : samples_(std::move(samples)), tokenizer_(std::move(tokenizer)), context_(context), options_(std::move(options)) {
    if (!samples_.samples.empty()) return;
    std::string found = "none";
    for (const auto& [cause, files] : samples_.faults) {
        std::size_t count = 0;
        for (const auto& [file, times] : files) count += times;
        found += "; left out " + std::to_string(count) + ": " + cause + " (" + files.begin()->first + (files.size() > 1 ? " and others)" : ")");
    }
    throw Error("Dataset", "pairs of a picture and a caption", found);
}

TANDEM_INLINE std::size_t Dataset::epoch_size() const {
    if (samples_.shares.empty()) return size();
    std::size_t pairs = 0;
    for (const SampleShare& share : samples_.shares) pairs += share.pairs();
    return pairs;
}

TANDEM_INLINE std::vector<std::size_t> Dataset::draws(std::size_t epoch) const {
    std::vector<std::size_t> draws;
    draws.reserve(epoch_size());
    const auto add = [&](const SampleShare& share) {
        const std::size_t whole = share.pairs() / share.count, rest = share.pairs() % share.count;
        for (std::size_t i = 0; i < whole * share.count; ++i) draws.push_back(i / share.count * size() + share.first + i % share.count);
        if (rest == 0) return;
        // In an order of its own, so that no part of a source comes first.
        std::vector<std::size_t> order(share.count);
        std::iota(order.begin(), order.end(), share.first);
        Random random(Seed{0}, share.first);
        shuffle(order, random);
        for (std::size_t i = 0; i < rest; ++i) draws.push_back(whole * size() + order[(epoch % share.count * rest + i) % share.count]);
    };
    if (samples_.shares.empty()) add({0, size(), 1});
    for (const SampleShare& share : samples_.shares) add(share);
    return draws;
}

template <class Read>
auto Dataset::patiently(const Read& read) const {
    double wait = options_.retry_seconds;
    for (std::size_t tries = 0;; ++tries) {
        try {
            return read();
        } catch (const Error& error) {
            if (tries == options_.retries) {
                if (tries == 0) throw;
                throw Error(error.where(), std::string(error.what()).substr(error.where().size() + 2) + ", tried " + std::to_string(tries + 1) + " times");
            }
        }
        std::this_thread::sleep_for(std::chrono::duration<double>(wait));
        wait *= 2;
    }
}

TANDEM_INLINE std::vector<std::string> Dataset::captions(std::size_t index) const {
    return patiently([&] { return captions_of(samples_, index); });
}

TANDEM_INLINE Image Dataset::image(std::size_t index) const {
    const std::vector<std::byte> bytes = patiently([&] { return picture_of(samples_, index); });
    return decode_image(bytes, name(index), options_.view.decode);
}

TANDEM_INLINE bool Dataset::decode(std::size_t index, Image& image) const {
    const std::vector<std::byte> bytes = patiently([&] { return picture_of(samples_, index); });
    try {
        image = decode_image(bytes, name(index), options_.view.decode);
        return true;
    } catch (const Error& error) {
        if (options_.strict) throw;
        const bool is_oversized = dynamic_cast<const OversizedImage*>(&error) != nullptr;
        const std::lock_guard lock(damage_->guard);
        damage_->causes.emplace(index, is_oversized ? "oversized picture" : "damaged picture");
        return false;
    }
}

TANDEM_INLINE void Dataset::fetch(std::size_t index, Random& random, std::span<float> image, std::span<Id> ids) const {
    Image whole;
    std::size_t seen = index;
    for (std::size_t tries = 0; !decode(seen, whole); ++tries) {
        if (tries + 1 == size()) throw Error("Dataset", "a picture that can be decoded", "none among " + std::to_string(size()));
        seen = (seen + 1) % size();
    }
    const std::vector<std::string> texts = captions(seen);
    tokenizer_.encode(texts[random.below(texts.size())], ids);
    detail::write_view(whole, options_.view, random, image);
}

TANDEM_INLINE bool Dataset::fetch_image(std::size_t index, std::span<float> image) const {
    Image whole;
    if (!decode(index, whole)) return false;
    preprocess(whole, options_.view.preprocess, image);
    return true;
}

TANDEM_INLINE FaultCounts Dataset::faults() const {
    FaultCounts all = samples_.faults;
    for (const auto& [index, cause] : damaged()) ++all[cause][samples_.files[samples_.samples[index].file].string()];
    return all;
}

TANDEM_INLINE std::map<std::size_t, std::string> Dataset::damaged() const {
    const std::lock_guard lock(damage_->guard);
    return damage_->causes;
}

TANDEM_INLINE void Dataset::add_damaged(const std::map<std::size_t, std::string>& found) {
    const std::lock_guard lock(damage_->guard);
    damage_->causes.insert(found.begin(), found.end());
}

[[gnu::cold]] TANDEM_INLINE std::map<std::string, std::string> Dataset::fingerprint() const {
    std::map<std::string, std::string> all = detail::describe_view(options_.view);
    Digest tokens;
    std::vector<Id> ids(context_);
    for (std::size_t i = 0; i < 16; ++i) {
        tokenizer_.encode(captions(i * (size() - 1) / 15)[0], ids);
        tokens.add(std::span<const Id>(ids));
    }
    Digest samples;
    samples.add(samples_.digest);
    all.merge(std::map<std::string, std::string>{{"pairs", std::to_string(size())}, {"samples", samples.text()}, {"ids", tokens.text()}});
    return all;
}

}  // namespace tandem::inline TANDEM_ABI

#endif
