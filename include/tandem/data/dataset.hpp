// Image–text pairs for training that are read and decoded when they are needed.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/data/samples.hpp>
#include <tandem/data/view.hpp>
#include <tandem/images/image.hpp>
#include <tandem/texts/any_tokenizer.hpp>

#if defined(TANDEM_COMPILED) ||                                                                                       \
    (__has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>) && \
     __has_include(<zlib.h>) && __has_include(<zconf.h>))

namespace tandem::inline TANDEM_ABI {

/// How samples become what a model reads.
struct DatasetOptions {
    ViewOptions view{};
    bool strict = false;  ///< a picture that cannot be decoded is an Error
    /// How often a file that cannot be read is tried again, the first time after so many seconds, then after twice as many each
    /// time: shards on other machines go away and come back. Then it is an Error, with its name.
    std::size_t retries = 3;
    double retry_seconds = 1;
};

/// A PairSource over samples of any number, of which none is in memory. What a pair is follows from its number alone, so
/// a Trainer sees every sample once an epoch in an order of its seed, and goes on within an epoch in the same bits. A picture that turns
/// out damaged, or larger than options.view.decode allows, is counted under its file's name, and the next good sample stands in
/// its place as well: all others stay where they were. Any number of threads may fetch.
class Dataset {
public:
    /// `context` is the number of ids of a caption. Throws Error if there are no samples.
    Dataset(SampleList samples, AnyTokenizer tokenizer, std::size_t context, DatasetOptions options = {});

    std::size_t size() const { return samples_.samples.size(); }

    /// How many pairs an epoch has, and which: sample `draw % size()` for every draw, whose crop and caption are drawn by its whole number. Of a source
    /// that an epoch has a fraction of, the next one goes on where it ended.
    std::size_t epoch_size() const;
    std::vector<std::size_t> draws(std::size_t epoch) const;

    /// What errors call a sample.
    std::string name(std::size_t index) const { return name_of(samples_, index); }

    /// Its captions, as they stand there.
    std::vector<std::string> captions(std::size_t index) const;

    /// Sample `index`, or the one in its place: its picture as the options have it, and the ids of one of its captions, drawn at
    /// random.
    void fetch(std::size_t index, Random& random, std::span<float> image, std::span<Id> ids) const;

    /// The picture of a sample as evaluation sees it, nothing random; false where it is damaged, which is counted.
    bool fetch_image(std::size_t index, std::span<float> image) const;

    /// The picture itself. Throws Error where it cannot be read or decoded.
    Image image(std::size_t index) const;

    /// What has been left out so far: when the samples were listed, and while they were fetched, each once.
    FaultCounts faults() const;

    /// Of these, what was found damaged while it was fetched: causes by sample.
    std::map<std::size_t, std::string> damaged() const;

    /// Counts what another process found damaged in the same samples.
    void add_damaged(const std::map<std::size_t, std::string>& found);

    /// What training on these pairs depends on.
    std::map<std::string, std::string> fingerprint() const;

private:
    struct Damage {
        std::mutex guard;
        std::map<std::size_t, std::string> causes;  // by sample
    };

    template <class Read>
    auto patiently(const Read& read) const;

    /// The picture, unless it is damaged, which is counted.
    bool decode(std::size_t index, Image& image) const;

    SampleList samples_;
    AnyTokenizer tokenizer_;
    std::size_t context_;
    DatasetOptions options_;
    std::unique_ptr<Damage> damage_ = std::make_unique<Damage>();
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/data/dataset.impl.hpp>
#endif
