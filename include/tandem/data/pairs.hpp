// Image–text pairs from a folder and a captions file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/data/view.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/texts/tokenizer.hpp>

#if defined(TANDEM_COMPILED) || \
    (__has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>))

namespace tandem::inline TANDEM_ABI {

/// One image and all its captions, in the file's order.
struct CaptionedImage {
    std::string path;  ///< as the captions file names it, relative to the image folder
    std::vector<std::string> captions;
};

/// What was left out of a data set, by cause.
using SkipCounts = std::map<std::string, std::size_t>;

/// Reads a captions file: a line is `path<TAB>caption`; an image with several captions has several lines. Images come
/// in the order of their first line. A line without a tab or without a path, or with an empty caption, is skipped and
/// counted; with `strict` it is an Error that names file and line.
std::vector<CaptionedImage> read_captions(const std::filesystem::path& file, SkipCounts& skipped, bool strict = false);

/// How a pair becomes what a model reads.
struct PairOptions {
    Preprocess preprocess{};
    /// Each image is reduced once, by preprocess.fit, to this size in RGB, from which crops are taken; 0 keeps the
    /// whole image as its file stores it.
    ImageSize stored{};
    std::optional<RandomResizedCrop> crop{};  ///< a random part of the stored image; none: all of it
    double flip = 0.0;                        ///< the probability of a mirrored image
    DecodeOptions decode{};
    bool strict = false;                        ///< a damaged, missing or oversized image is an Error, not skipped
    std::size_t memory = std::size_t{4} << 30;  ///< bytes of stored images to keep; beyond, they are read when needed

    ViewOptions view() const { return {.preprocess = preprocess, .crop = crop, .flip = flip, .decode = decode}; }
};

/// Pairs a Trainer trains on. Every image is read once when the set is made, in parallel; one that cannot be is skipped
/// and counted by cause. The order is that of the captions file. Immutable: any number of threads may fetch.
class Pairs {
public:
    Pairs(std::filesystem::path folder, std::vector<CaptionedImage> images, const Tokenizer auto& tokenizer,
          std::size_t context, PairOptions options = {}, SkipCounts skipped = {})
        : folder_(std::move(folder)), options_(std::move(options)), context_(context), skipped_(std::move(skipped)) {
        read_images(std::move(images));
        for (const Item& item : items_) {
            const std::vector<Id> ids = tokenizer.encode_batch(item.captions, context);
            ids_.insert(ids_.end(), ids.begin(), ids.end());
        }
    }

    /// The images below `folder` that the captions file names.
    static Pairs load(const std::filesystem::path& folder, const std::filesystem::path& captions,
                      const Tokenizer auto& tokenizer, std::size_t context, PairOptions options = {}) {
        SkipCounts skipped;
        std::vector<CaptionedImage> images = read_captions(captions, skipped, options.strict);
        return Pairs(folder, std::move(images), tokenizer, context, std::move(options), std::move(skipped));
    }

    std::size_t size() const { return items_.size(); }
    const std::string& path(std::size_t index) const { return items_[index].path; }
    std::span<const std::string> captions(std::size_t index) const { return items_[index].captions; }

    /// What was left out, by cause.
    const SkipCounts& skipped() const { return skipped_; }

    /// The stored image; read again from its file where memory did not suffice to keep it.
    Image image(std::size_t index) const;

    /// Image `index`, cropped and mirrored at random where the options say so and normalised, and the ids of one of its
    /// captions, drawn at random.
    void fetch(std::size_t index, Random& random, std::span<float> image, std::span<Id> ids) const;

    /// Image `index` as evaluation sees it: nothing random.
    void fetch_image(std::size_t index, std::span<float> image) const;

    /// What training on these pairs depends on, by name: their number, the ids of all captions, all pixels (of images
    /// that are read when needed: sizes and times of their files), and what becomes of them.
    std::map<std::string, std::string> fingerprint() const;

private:
    struct Item {
        std::string path;
        std::vector<std::string> captions;
        std::size_t first_caption = 0;
        Image image;
    };

    std::uint64_t digest_of(const Item& item) const;

    Image stored_image(const std::string& path) const;

    void read_images(std::vector<CaptionedImage> images);

    std::filesystem::path folder_;
    PairOptions options_;
    std::size_t context_;
    SkipCounts skipped_;
    std::vector<Item> items_;
    std::vector<Id> ids_;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/data/pairs.impl.hpp>
#endif
