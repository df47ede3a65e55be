// What a run leaves to look at beside its weights: log.jsonl, TensorBoard's event files, report.html.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <tandem/images/image.hpp>

namespace training {

/// Numbers by their tag, open_clip's where it has one (open_clip_train/train.py: train/loss, val/image_to_text_R@1).
using Scalars = std::vector<std::pair<std::string, double>>;

/// A caption that is not trained on, and the pictures that the model finds for it, best first.
struct Found {
    std::string caption;
    std::vector<tandem::Image> pictures;
    std::size_t right = 0;  ///< which of them is the caption's own; as many as there are: none
};

/// A record of TensorFlow's file format (tensorflow/core/lib/io/record_writer.h): length and bytes, each with its masked CRC-32C.
std::string framed_record(const std::string& bytes);

class Records {
public:
    /// Goes on with what stands in the folder. Throws Error where nothing can be written there, and for a log that is none.
    Records(std::filesystem::path folder, std::vector<std::pair<std::string, std::string>> facts);
    Records(const Records&) = delete;
    Records& operator=(const Records&) = delete;
    ~Records();

    /// Of a step. What was recorded of this and later ones, by a run that was killed behind its snapshot, goes.
    void add(std::size_t step, Scalars scalars);

    void show(std::vector<Found> found) { found_ = std::move(found); }

    /// Replaces report.html; while a run goes on, not more than every few seconds.
    void write_report(std::size_t step, std::size_t steps, const std::string& state);

private:
    struct Entry {
        std::size_t step;
        Scalars scalars;
    };

    std::string line(const Entry& entry) const;
    std::string chart(const std::string& tag) const;

    std::filesystem::path folder_;
    std::vector<std::pair<std::string, std::string>> facts_;
    std::vector<Entry> entries_;
    std::vector<Found> found_;
    bool is_of_before_ = false;  // the log: nothing has been added to it yet
    std::chrono::steady_clock::time_point written_{};  // the report
    std::FILE* events_ = nullptr;
};

}  // namespace training
