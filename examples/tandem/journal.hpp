// Rows that are computed one after the other, in a run that may be killed and go on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>

#include "progress.hpp"
#include "run_inputs.hpp"

namespace program {

/// Enough to keep the cores busy; what is decoded ahead is memory.
inline std::size_t rows_at_once() { return std::max<std::size_t>(16, 4 * td::core_count()); }

/// The rows computed so far, in a file, so that a run that is killed goes on where it was; or for this run alone.
class Journal {
public:
    explicit Journal(std::size_t width) : width_(width) {}
    /// Opens what an earlier run left. Throws Error that names what differs if its inputs were others.
    /// `kind` is the command and the version of what its rows are.
    Journal(std::filesystem::path path, const std::string& kind, const Inputs& inputs, std::size_t width)
        : path_(std::move(path)), width_(width) {
        const std::string header = "tandem " + kind + "\n" + inputs.text() + "\n";
        if (std::ifstream before(path_, std::ios::binary); before) {
            std::string found;
            for (std::string line; std::getline(before, line) && !line.empty() && found.size() < 65536;)
                found += line + (before.eof() ? "" : "\n");
            const bool is_whole = !before.eof();
            if (is_whole) found += "\n";
            // A run that was killed before its header was written has left nothing.
            if (is_whole ? found != header : !header.starts_with(found)) throw td::Error(path_.string(), difference(header, found));
            std::vector<float> row(width);
            while (
                before.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(width * sizeof(float))))
                rows_.insert(rows_.end(), row.begin(), row.end());
            before.close();
            // Half a row of a killed run goes.
            std::filesystem::resize_file(path_, is_whole ? header.size() + rows_.size() * sizeof(float) : 0);
        }
        file_.open(path_, std::ios::binary | std::ios::app);
        if (file_.tellp() == 0) file_ << header;
        flush();
    }

    std::size_t count() const { return rows_.size() / width_; }
    /// What was appended, which it then has only in its file.
    std::vector<float> take_rows() { return std::move(rows_); }
    void append(std::span<const float> rows) {
        rows_.insert(rows_.end(), rows.begin(), rows.end());
        if (path_.empty()) return;
        file_.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size_bytes()));
        flush();
    }
    void remove() {
        file_.close();
        std::filesystem::remove(path_);
    }

private:
    /// The first line in which two headers differ.
    static std::string difference(const std::string& wanted, const std::string& found) {
        std::istringstream ours(wanted), theirs(found);
        std::string a, b;
        do {
            a.clear();
            b.clear();
            std::getline(ours, a);
            std::getline(theirs, b);
        } while (a == b && (ours || theirs));
        return "it holds rows of an earlier run with other inputs: delete it to begin anew, or give the same again: "
               "expected " +
               (a.empty() ? "nothing more" : a) + ", found " + (b.empty() ? "nothing" : b);
    }
    void flush() {
        if (!file_.flush()) throw td::Error(path_.string(), "cannot write");
    }

    std::filesystem::path path_;
    std::size_t width_;
    std::vector<float> rows_;
    std::ofstream file_;
};

/// Rows for `count` items, a batch at a time; what a journal has is not computed again. The journal has them in its file alone then.
template <class Embed>
std::vector<float> all_rows(const char* what, Journal& journal, std::size_t count, const Embed& rows_of) {
    Progress progress(what, journal.count(), count);
    while (journal.count() < count) {
        const std::size_t first = journal.count();
        journal.append(rows_of(first, std::min(first + rows_at_once(), count)));
        progress.show(journal.count());
    }
    return journal.take_rows();
}

/// The same of pictures: read(i, pixels) writes the `floats` pixels of one, or throws td::Error, and rows_of(pixels) makes rows of those of several. A picture that
/// cannot be read has a row of NaN.
template <class Read, class RowsOf>
std::vector<float> picture_rows(const char* what, Journal& journal, std::size_t count, std::size_t floats, const Read& read, const RowsOf& rows_of) {
    std::vector<float> pixels;
    return all_rows(what, journal, count, [&](std::size_t first, std::size_t end) {
        pixels.resize((end - first) * floats);
        std::vector<char> failed(end - first);
        td::parallel_for(end - first, 1, [&](std::size_t i, std::size_t last) {
            for (; i < last; ++i) {
                const auto to = std::span(pixels).subspan(i * floats, floats);
                try {
                    read(first + i, to);
                } catch (const td::Error&) {
                    failed[i] = 1;
                    std::ranges::fill(to, 0.0F);
                }
            }
        });
        std::vector<float> rows = rows_of(std::span<const float>(pixels));
        const std::size_t width = rows.size() / failed.size();
        for (std::size_t i = 0; i < failed.size(); ++i) {
            if (failed[i] != 0) std::ranges::fill(std::span(rows).subspan(i * width, width), std::numeric_limits<float>::quiet_NaN());
        }
        return rows;
    });
}

}  // namespace program
