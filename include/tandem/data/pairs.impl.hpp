// Definitions of data/pairs.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tandem/core/digest.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/data/pairs.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::vector<CaptionedImage> read_captions(const std::filesystem::path& file, SkipCounts& skipped,
                                                        bool strict) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw Error(file.string(), "cannot be read");
    std::vector<CaptionedImage> images;
    std::unordered_map<std::string, Id> positions;
    std::string line;
    for (std::size_t number = 1; std::getline(stream, line); ++number) {
        if (line.ends_with('\r')) line.pop_back();
        const auto refuse = [&](const char* cause) {
            if (strict) throw Error(file.string() + " line " + std::to_string(number), cause);
            ++skipped[cause];
        };
        if (line.empty()) continue;
        const std::size_t tab = line.find('\t');
        if (tab == std::string::npos || tab == 0) {
            refuse("malformed line: expected path, tab, caption");
            continue;
        }
        if (line.find_first_not_of(" \t\v\f", tab) == std::string::npos) {
            refuse("empty caption");
            continue;
        }
        const auto [position, is_new] = positions.emplace(line.substr(0, tab), static_cast<Id>(images.size()));
        if (is_new) images.push_back({line.substr(0, tab), {}});
        images[static_cast<std::size_t>(position->second)].captions.push_back(line.substr(tab + 1));
    }
    return images;
}

TANDEM_INLINE Image Pairs::image(std::size_t index) const {
    const Item& item = items_[index];
    return item.image.pixels.empty() ? stored_image(item.path) : item.image;
}

TANDEM_INLINE void Pairs::fetch(std::size_t index, Random& random, std::span<float> image, std::span<Id> ids) const {
    const Item& item = items_[index];
    const std::size_t caption = item.first_caption + random.below(item.captions.size());
    std::copy_n(ids_.begin() + static_cast<std::ptrdiff_t>(caption * context_), context_, ids.begin());
    detail::write_view(this->image(index), options_.view(), random, image);
}

TANDEM_INLINE void Pairs::fetch_image(std::size_t index, std::span<float> image) const {
    preprocess(this->image(index), options_.preprocess, image);
}

[[gnu::cold]] TANDEM_INLINE std::map<std::string, std::string> Pairs::fingerprint() const {
    std::vector<std::uint64_t> digests(items_.size());
    std::size_t kept = 0;
    for (const Item& item : items_) kept += item.image.pixels.empty() ? 0 : 1;
    parallel_for(items_.size(), 16, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) digests[i] = digest_of(items_[i]);
    });
    Digest images, captions;
    images.add(std::span<const std::uint64_t>(digests));
    for (const Item& item : items_) captions.add(item.captions.size());
    captions.add(std::span<const Id>(ids_));
    std::map<std::string, std::string> all = detail::describe_view(options_.view());
    all.merge(std::map<std::string, std::string>{{"pairs", std::to_string(size())},
                                                 {"captions", captions.text()},
                                                 {"images", images.text()},
                                                 {"images in memory", std::to_string(kept)},
                                                 {"stored", to_string(options_.stored)}});
    return all;
}

TANDEM_INLINE std::uint64_t Pairs::digest_of(const Item& item) const {
    Digest digest;
    if (item.image.pixels.empty()) {
        const std::filesystem::path path = folder_ / item.path;
        digest.add(std::span<const char>(item.path));
        digest.add(std::filesystem::file_size(path));
        digest.add(static_cast<std::uint64_t>(std::filesystem::last_write_time(path).time_since_epoch().count()));
    } else {
        digest.add(static_cast<std::uint64_t>(item.image.width));
        digest.add(static_cast<std::uint64_t>(item.image.storage));
        digest.add(std::span<const std::uint8_t>(item.image.samples));
        digest.add(std::span<const std::uint8_t>(item.image.pixels));
    }
    return digest.value();
}

TANDEM_INLINE Image Pairs::stored_image(const std::string& path) const {
    Image whole = read_image(folder_ / path, options_.decode);
    if (options_.stored == ImageSize{}) {
        if (options_.preprocess.resize_as == ResizeAs::stored) return whole;
        return {whole.width, whole.height, std::move(whole.pixels)};
    }
    Preprocess recipe = options_.preprocess;
    recipe.size = options_.stored;
    return fit_image(whole, recipe);
}

TANDEM_INLINE void Pairs::read_images(std::vector<CaptionedImage> images) {
    std::vector<Image> read(images.size());
    std::vector<const char*> causes(images.size(), nullptr);
    std::mutex strict_error_guard;
    std::optional<Error> strict_error;
    std::size_t strict_position = images.size();
    parallel_for(images.size(), 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            try {
                if (!std::filesystem::exists(folder_ / images[i].path)) {
                    throw Error((folder_ / images[i].path).string(), "no such file");
                }
                read[i] = stored_image(images[i].path);
            } catch (const Error& error) {
                const bool missing = !std::filesystem::exists(folder_ / images[i].path);
                const bool oversized = dynamic_cast<const OversizedImage*>(&error) != nullptr;
                causes[i] = missing ? "missing image" : oversized ? "oversized image" : "damaged image";
                const std::lock_guard lock(strict_error_guard);
                if (i < strict_position) {
                    strict_position = i;
                    strict_error = error;
                }
            }
        }
    });
    if (options_.strict && strict_error) throw Error(*strict_error);
    std::size_t used = 0, captions = 0;
    for (std::size_t i = 0; i < images.size(); ++i) {
        if (causes[i] != nullptr) {
            ++skipped_[causes[i]];
            continue;
        }
        used += read[i].pixels.size() + read[i].samples.size();
        if (used > options_.memory) read[i] = {};
        const std::size_t count = images[i].captions.size();
        items_.push_back({std::move(images[i].path), std::move(images[i].captions), captions, std::move(read[i])});
        captions += count;
    }
}

}  // namespace tandem::inline TANDEM_ABI

#endif
