// Embeddings of pictures and captions by any checkpoint of the zoo, into safetensors or .npy.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include <nlohmann/json.hpp>

#include "zoo.hpp"

namespace {

using Matrix = td::Tensor<float, td::Shape<td::dynamic, td::dynamic>>;

/// Enough to keep the cores busy; what is decoded ahead is memory.
constexpr std::size_t batch = 16;

/// One line on a terminal that is written over; elsewhere a line every ten seconds.
class Progress {
public:
    Progress(const char* what, std::size_t done, std::size_t all) : what_(what), first_(done), all_(all) {}

    void show(std::size_t done) {
        const auto now = Clock::now();
        const bool terminal = ::isatty(STDERR_FILENO) == 1, ended = done == all_;
        if (!ended && now - shown_ < (terminal ? std::chrono::milliseconds(100) : std::chrono::seconds(10))) return;
        shown_ = now;
        const double seconds = std::chrono::duration<double>(now - start_).count();
        constexpr std::size_t width = 30;
        const std::size_t filled = all_ == 0 ? width : width * done / all_;
        std::fprintf(stderr, "%s%-6s [%s%s] %zu/%zu, %.1f/s%s", terminal ? "\r" : "", what_,
                     std::string(filled, '#').c_str(), std::string(width - filled, '.').c_str(), done, all_,
                     static_cast<double>(done - first_) / std::max(seconds, 1e-9), terminal && !ended ? "" : "\n");
    }

private:
    using Clock = std::chrono::steady_clock;
    const char* what_;
    std::size_t first_, all_;
    Clock::time_point start_ = Clock::now(), shown_ = start_;
};

/// The rows computed so far, in a file beside the output, so that a run that is killed goes on where it was.
class Journal {
public:
    /// Opens what an earlier run of the same kind left. Throws Error if it is another run's.
    Journal(std::filesystem::path path, const std::string& signature, std::size_t width)
        : path_(std::move(path)), width_(width) {
        const std::string header = "tandem embed " + std::to_string(std::hash<std::string>{}(signature)) + "\n";
        if (std::ifstream before(path_, std::ios::binary); before) {
            std::string found(header.size(), 0);
            before.read(found.data(), static_cast<std::streamsize>(found.size()));
            if (found != header)
                throw td::Error(path_.string(), "what an earlier run left with the same weights, precision and inputs",
                                "another run's: delete it to begin anew");
            std::vector<float> row(width);
            while (
                before.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(width * sizeof(float))))
                rows_.insert(rows_.end(), row.begin(), row.end());
        }
        // Written anew, so that half a row of a killed run goes.
        file_.open(path_, std::ios::binary | std::ios::trunc);
        file_ << header;
        file_.write(reinterpret_cast<const char*>(rows_.data()),
                    static_cast<std::streamsize>(rows_.size() * sizeof(float)));
        flush();
    }

    std::size_t count() const { return rows_.size() / width_; }
    const std::vector<float>& rows() const { return rows_; }
    void append(std::span<const float> rows) {
        rows_.insert(rows_.end(), rows.begin(), rows.end());
        file_.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size_bytes()));
        flush();
    }
    void remove() {
        file_.close();
        std::filesystem::remove(path_);
    }

private:
    void flush() {
        if (!file_.flush()) throw td::Error(path_.string(), "cannot write");
    }

    std::filesystem::path path_;
    std::size_t width_;
    std::vector<float> rows_;
    std::ofstream file_;
};

void save_npy(const std::filesystem::path& path, std::span<const float> rows, std::size_t width) {
    std::string head = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows.size() / width) +
                       ", " + std::to_string(width) + "), }";
    head.resize((10 + head.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
    head += '\n';
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes += static_cast<char>(head.size() & 255U);
    bytes += static_cast<char>(head.size() >> 8U);
    bytes += head;
    bytes.append(reinterpret_cast<const char*>(rows.data()), rows.size_bytes());
    td::write_file_atomically(path, bytes);
}

/// Rows of `width` for `count` items, a batch at a time; what a journal has is not computed again.
template <class Embed>
std::vector<float> embed_all(const char* what, Journal& journal, std::size_t count, const Embed& embed) {
    Progress progress(what, journal.count(), count);
    while (journal.count() < count) {
        const std::size_t first = journal.count();
        const Matrix rows = embed(first, std::min(first + batch, count));
        journal.append(rows.elements());
        progress.show(journal.count());
    }
    return journal.rows();
}

int run(int count, char** arguments) {
    const zoo::Arguments options(
        count, arguments, "embed --weights PATH (--images FILE|DIR | --texts FILE)... --out FILE.safetensors",
        {{"--images", "FILE|DIR", "a picture, a folder of them, or a text file with a path a line"},
         {"--texts", "FILE", "a caption a line"},
         {"--out", "FILE.safetensors|.npy", "image_embeddings and text_embeddings [N, E]; .npy holds one of them"},
         {"--threads", "N", "(default: one a core)"}});
    const std::filesystem::path out = options.require("--out");
    const bool npy = out.extension() == ".npy";
    const bool has_images = options.has("--images"), has_texts = options.has("--texts");
    if (!has_images && !has_texts) throw td::Error("embed", "--images, --texts or both", "neither");
    if (!npy && out.extension() != ".safetensors")
        throw td::Error("--out", "a name that ends in .safetensors or .npy", out.string());
    if (npy && has_images && has_texts)
        throw td::Error("--out", "a .safetensors file for both images and texts", out.string());
    if (out.has_parent_path() && !std::filesystem::is_directory(out.parent_path()))
        throw td::Error(out.string(), "a folder that is there", out.parent_path().string());
    tbb::global_control threads(tbb::global_control::max_allowed_parallelism,
                                options.number("--threads", td::core_count()));

    const std::filesystem::path weights = options.require("--weights");
    const std::vector<std::filesystem::path> images =
        has_images ? zoo::list_images(options.get("--images")) : std::vector<std::filesystem::path>();
    const std::vector<std::string> texts =
        has_texts ? zoo::read_lines(options.get("--texts")) : std::vector<std::string>();
    const auto opened = zoo::open(options, !has_texts    ? td::Towers::image
                                           : !has_images ? td::Towers::text
                                                         : td::Towers::both);
    const td::ModelSizes& sizes = opened.clip.sizes();
    std::fprintf(stderr, "%s: %s\n", weights.string().c_str(), sizes.architecture.c_str());

    const auto written = std::filesystem::last_write_time(weights).time_since_epoch().count();
    const std::string kind = weights.string() + " " + std::to_string(written) + "\n" +
                             options.get("--precision", "f32") + options.get("--activation") +
                             options.get("--resampling") + "\n";
    std::vector<td::StoredTensor> tensors;
    std::map<std::string, std::string> metadata{{"architecture", sizes.architecture}};
    // Which row is whose: in the metadata, or, beyond what that may hold and beside .npy, in a file of its own.
    const auto name_rows = [&](const std::string& what, const nlohmann::json& names) {
        const std::string text = names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        if (!npy && text.size() <= 400'000) {
            metadata[what] = text;
            return;
        }
        td::write_file_atomically(out.string() + "." + what + ".json", text);
    };
    std::vector<float> image_rows, text_rows;
    std::optional<Journal> image_journal, text_journal;
    if (has_images) {
        std::string signature = kind;
        for (const auto& image : images) signature += image.string() + "\n";
        image_journal.emplace(out.string() + ".images.partial", signature, sizes.embedding);
        const std::size_t floats = opened.preprocess.count();
        std::vector<float> pixels;
        const auto read = [&](std::size_t image, std::span<float> to) {
            td::preprocess(zoo::read_picture(opened, images[image]), opened.preprocess, to);
        };
        const std::vector<float> rows =
            embed_all("images", *image_journal, images.size(), [&](std::size_t first, std::size_t end) {
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
                Matrix found = opened.clip.encode_image(pixels);
                for (std::size_t i = 0; i < failed.size(); ++i) {
                    if (failed[i] != 0) std::ranges::fill(found[i].elements(), std::numeric_limits<float>::quiet_NaN());
                }
                return found;
            });
        nlohmann::json names = nlohmann::json::array(), failures = nlohmann::json::array();
        std::vector<float> scratch(floats);
        for (std::size_t i = 0; i < images.size(); ++i) {
            const auto row = std::span(rows).subspan(i * sizes.embedding, sizes.embedding);
            if (!std::isnan(row[0])) {
                image_rows.insert(image_rows.end(), row.begin(), row.end());
                names.push_back(images[i].string());
                continue;
            }
            // Read once more for its message, which an earlier run may have had.
            failures.push_back(images[i].string());
            try {
                read(i, scratch);
                std::fprintf(stderr, "left out: %s: could not be read, or gave no numbers, before\n",
                             images[i].string().c_str());
            } catch (const td::Error& error) {
                std::fprintf(stderr, "left out: %s\n", error.what());
            }
        }
        name_rows("images", names);
        if (!failures.empty()) {
            name_rows("failed", failures);
            std::fprintf(stderr, "%zu of %zu pictures left out\n", failures.size(), images.size());
            if (names.empty()) throw td::Error("embed", "a picture that can be read", "none");
        }
        const std::size_t embedded = image_rows.size() / sizes.embedding;
        tensors.push_back(td::stored_tensor<float>("image_embeddings", {embedded, sizes.embedding},
                                                   std::span<const float>(image_rows)));
    }
    if (has_texts) {
        std::string signature = kind;
        for (const std::string& text : texts) signature += text + "\n";
        text_journal.emplace(out.string() + ".texts.partial", signature, sizes.embedding);
        text_rows = embed_all("texts", *text_journal, texts.size(), [&](std::size_t first, std::size_t end) {
            return opened.clip.encode_text(
                opened.tokenizer->encode_batch(std::span(texts).subspan(first, end - first), sizes.context));
        });
        name_rows("texts", texts);
        tensors.push_back(td::stored_tensor<float>("text_embeddings", {texts.size(), sizes.embedding},
                                                   std::span<const float>(text_rows)));
    }
    if (npy) {
        save_npy(out, has_images ? image_rows : text_rows, sizes.embedding);
    } else {
        td::save_safetensors(out, tensors, metadata);
    }
    if (image_journal) image_journal->remove();
    if (text_journal) text_journal->remove();
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    return zoo::run("embed", [&] { return run(count, arguments); });
}
