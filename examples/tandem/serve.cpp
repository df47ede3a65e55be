// A page on which a catalogue is searched, and the JSON that it is made of.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <semaphore>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>

#include <tandem/core/parallel.hpp>
#include <tandem/images/transform.hpp>

#include "contact_sheet.hpp"
#include "heat_map.hpp"
#include "http_server.hpp"
#include "page_text.hpp"
#include "searcher.hpp"
#include "thumbnail.hpp"

namespace program {

namespace {

using Json = nlohmann::ordered_json;

/// What a client asked for wrongly, with the status that says how.
class Refusal : public td::Error {
public:
    Refusal(unsigned code, std::string_view where, std::string_view message) : Error(where, message), status(code) {}

    unsigned status;
};

HttpResponse json_response(const Json& json, unsigned status = 200) {
    return {status, "application/json", json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"};
}

/// The bytes of a picture of the catalogue, and of nothing else: the file that its path names now, no link on the way.
std::vector<std::byte> read_picture_file(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) throw Refusal(404, path, errno == ELOOP ? "is a link, which is not followed here" : "is not there any more");
    struct Close {
        int file;
        ~Close() { ::close(file); }
    } const close{file};
    struct stat64 status {};
    std::array<char, 4096> real{};
    const std::string link = "/proc/self/fd/" + std::to_string(file);
    const ssize_t length = ::readlink(link.c_str(), real.data(), real.size());
    constexpr std::int64_t most = std::int64_t{1} << 30;
    if (::fstat64(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > most || length < 0 ||
        std::string_view(real.data(), static_cast<std::size_t>(length)) != path)
        throw Refusal(404, path, "is no file of the indexed folders any more");
    std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
    std::size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t count = ::read(file, bytes.data() + done, bytes.size() - done);
        if (count <= 0) throw Refusal(404, path, "cannot be read");
        done += static_cast<std::size_t>(count);
    }
    return bytes;
}

/// The captions' most frequent words, as tags to suggest.
struct Vocabulary {
    std::int64_t version = -1;
    std::vector<std::string> words;
    std::vector<float> rows;
    std::vector<td::Standard> standards;
};

/// Pictures that look alike, around one of each kind.
struct Groups {
    std::int64_t version = -1;
    std::vector<std::vector<std::size_t>> groups;
};

class Page {
public:
    Page(const Arguments& arguments, std::string token, bool is_local)
        : session_(arguments), database_(database_of(arguments)), token_(std::move(token)), is_local_(is_local) {}

    /// Before this, nobody is answered.
    void begin(std::uint16_t port) { port_ = port; }
    void refresh() { session_.searcher.refresh(); }

    HttpResponse answer(const HttpRequest& request) {
        HttpResponse response;
        try {
            check(request);
            response = route(request);
        } catch (const Refusal& refusal) {
            response = json_response({{"error", refusal.what()}}, refusal.status);
        } catch (const DatabaseError& error) {
            std::fprintf(stderr, "tandem serve: %s\n", error.what());
            response = json_response({{"error", "the catalogue cannot be read just now"}}, 503);
        } catch (const td::Error& error) {
            response = json_response({{"error", error.what()}}, 400);
        } catch (const std::exception& error) {
            std::fprintf(stderr, "tandem serve: %s\n", error.what());
            response = json_response({{"error", "failed"}}, 500);
        }
        if (response.status == 503) response.headers["Retry-After"] = "1";
        response.headers["X-Content-Type-Options"] = "nosniff";
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin";
        response.headers["Referrer-Policy"] = "no-referrer";
        response.headers["Content-Security-Policy"] =
            "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
        if (!response.headers.contains("Cache-Control")) response.headers["Cache-Control"] = "no-store";
        return response;
    }

private:
    /// A piece of the work that only so many do at once.
    class Turn {
    public:
        explicit Turn(std::counting_semaphore<>& turns) : turns_(turns) {
            if (!turns_.try_acquire_for(std::chrono::milliseconds(500))) throw Refusal(503, "server", "too much at once; ask again");
        }
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        ~Turn() { turns_.release(); }

    private:
        std::counting_semaphore<>& turns_;
    };

    /// Throws Refusal for who is not to be answered: another site's page in the user's browser, and who has no token.
    void check(const HttpRequest& request) const {
        const std::string host = request.header("host");
        // The page is for this machine's own names of it, whatever a name of another site leads to.
        const std::uint16_t port = port_.load();
        if (port == 0) throw Refusal(503, "server", "not ready yet; ask again");
        const auto is_own = [&](const std::string& name) { return host == name + ":" + std::to_string(port); };
        if (is_local_ && !is_own("127.0.0.1") && !is_own("localhost") && !is_own("[::1]"))
            throw Refusal(421, "Host", "expected 127.0.0.1:" + std::to_string(port) + ", found " + (host.empty() ? "none" : host));
        if (request.method != "GET" && request.method != "HEAD" && request.method != "POST")
            throw Refusal(405, request.method, "expected GET or POST");
        const std::string origin = request.header("origin");
        if (request.method == "POST" && !origin.empty() && origin != "http://" + host && origin != "https://" + host)
            throw Refusal(403, "Origin", "expected this page, found " + origin);
        if (token_.empty() || request.path == "/healthz") return;
        const std::string bearer = request.header("authorization"), given = request.parameter("token");
        if (!is_token(given) && !(bearer.starts_with("Bearer ") && is_token(bearer.substr(7))) &&
            !is_token(cookie(request.header("cookie"))))
            throw Refusal(401, "token", "expected the one that --token gave, as ?token= or Authorization: Bearer");
    }
    /// Takes as long whatever differs.
    bool is_token(const std::string& given) const {
        unsigned difference = given.size() == token_.size() ? 0 : 1;
        for (std::size_t i = 0; i < std::min(given.size(), token_.size()); ++i)
            difference |= static_cast<unsigned>(given[i] ^ token_[i]);
        return difference == 0;
    }
    static std::string cookie(const std::string& header) {
        constexpr std::string_view name = "token=";
        std::istringstream parts(header);
        for (std::string part; std::getline(parts, part, ';');) {
            part.erase(0, part.find_first_not_of(' '));
            if (part.starts_with(name)) return part.substr(name.size());
        }
        return {};
    }

    HttpResponse route(const HttpRequest& request) {
        const std::string& path = request.path;
        const bool posts = request.method == "POST";
        if (posts && path != "/api/search" && path != "/api/tag") throw Refusal(405, path, "expected GET");
        if (path == "/") {
            HttpResponse page{200, "text/html; charset=utf-8", page_html};
            if (!token_.empty()) page.headers["Set-Cookie"] = "token=" + token_ + "; HttpOnly; SameSite=Strict; Path=/";
            return page;
        }
        if (path == "/page.css") return {200, "text/css; charset=utf-8", page_css};
        if (path == "/page.js") return {200, "text/javascript; charset=utf-8", page_js};
        if (path == "/favicon.ico") return {204, "image/x-icon", ""};
        if (path == "/healthz") return {200, "text/plain", "ok\n"};
        if (path == "/api/search") return search(request);
        if (path == "/api/status") return status();
        if (path == "/api/suggest") return suggest(picture_of(request.parameter("id")));
        if (path == "/api/duplicates") return duplicates();
        if (path == "/api/tag") return tag(request);
        for (const auto& [prefix, show] : {std::pair("/thumbnail/", &Page::thumbnail), std::pair("/picture/", &Page::picture),
                                           std::pair("/heat/", &Page::heat)}) {
            if (path.starts_with(prefix)) return (this->*show)(picture_of(path.substr(std::string_view(prefix).size())), request);
        }
        throw Refusal(404, path, "nothing there");
    }

    PictureEntry picture_of(const std::string& number) const {
        const auto id = whole_number(number);
        if (!id) throw Refusal(400, "id", "expected the number of a picture, found \"" + number.substr(0, 40) + "\"");
        const Searcher::Lease catalogue(session_.searcher);
        const auto entry = catalogue->with_id(*id);
        if (!entry || !entry->error.empty()) throw Refusal(404, "picture " + number, "not in the catalogue");
        return *entry;
    }

    static std::size_t count_of(const HttpRequest& request, const char* name, std::size_t otherwise, long long most) {
        if (request.parameter(name).empty()) return otherwise;
        const auto count = whole_number(request.parameter(name));
        if (!count || *count < 1 || *count > most)
            throw Refusal(400, name, "expected 1 to " + std::to_string(most) + ", found " + request.parameter(name).substr(0, 40));
        return static_cast<std::size_t>(*count);
    }
    template <class Value>
    static Value word_of(const HttpRequest& request, const char* name, const std::map<std::string, Value>& words, Value otherwise) {
        const std::string word = request.parameter(name);
        if (word.empty()) return otherwise;
        const auto found = words.find(word);
        if (found == words.end()) throw Refusal(400, name, "unknown word " + word.substr(0, 40));
        return found->second;
    }

    HttpResponse search(const HttpRequest& request) {
        for (const auto& [name, value] : request.parameters) {
            static const std::set<std::string> known{"q", "by", "sort", "folder", "tag", "word", "after", "before", "limit", "token"};
            if (!known.contains(name)) throw Refusal(400, name.substr(0, 40), "no parameter of that name");
            if (value.size() > 2048) throw Refusal(400, name, "expected at most 2048 bytes");
        }
        Request wanted{.query = request.parameter("q"),
                       .filter = {.folder = request.parameter("folder"),
                                  .tag = request.parameter("tag"),
                                  .word = request.parameter("word"),
                                  .after = request.parameter("after"),
                                  .before = request.parameter("before")},
                       .ranking = word_of<Ranking>(
                           request, "by", {{"both", Ranking::both}, {"meaning", Ranking::meaning}, {"words", Ranking::words}},
                           Ranking::both),
                       .order = word_of<Order>(
                           request, "sort", {{"relevance", Order::relevance}, {"date", Order::date}, {"name", Order::name}},
                           Order::relevance),
                       .limit = count_of(request, "limit", 60, 1000)};
        if (request.method == "POST") {
            if (request.body.empty()) throw Refusal(400, "body", "expected a JPEG, PNG or WebP picture, found nothing");
            const Turn turn(turns_);
            td::DecodeOptions options = session_.opened.decode;
            options.pixel_limit = std::min<std::size_t>(options.pixel_limit, 64'000'000);
            wanted.picture = session_.searcher.embed_picture(
                td::decode_image(std::as_bytes(std::span(request.body)), "the picture", options), "the picture");
        }
        const auto start = std::chrono::steady_clock::now();
        const Answer answer = session_.searcher.search(wanted);
        Json json = to_json(answer);
        json["milliseconds"] =
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
        const Searcher::Lease catalogue(session_.searcher);
        for (Json& result : json["results"]) {
            const auto [accepted, refused] = catalogue->tags(result["id"]);
            result["tags"] = accepted;
            result["alt"] = alternative(result["caption"], accepted, result["path"]);
        }
        return json_response(json);
    }

    /// What is read aloud for a picture.
    static std::string alternative(const std::string& caption, const std::vector<std::string>& tags, const std::string& path) {
        std::string text = caption.substr(0, caption.find('\n'));
        for (const std::string& tag : tags) text += (text.empty() ? "" : ", ") + tag;
        return text.empty() ? std::filesystem::path(path).stem().string() : text;
    }

    HttpResponse status() const {
        const Searcher::Lease catalogue(session_.searcher);
        Json json{{"model", session_.opened.clip.sizes().architecture},
                  {"pictures", session_.searcher.snapshot()->ids.size()},
                  {"indexing", catalogue->get("progress")},
                  {"fitted_on", session_.searcher.snapshot()->judgement.fitted_on},
                  {"unreadable", Json::array()}};
        for (const std::string& error : catalogue->errors(200)) json["unreadable"].push_back(error);
        return json_response(json);
    }

    HttpResponse suggest(const PictureEntry& picture) {
        const auto data = session_.searcher.snapshot();
        const auto position = data->position_of(picture.id);
        if (!position) throw Refusal(404, "picture", "not loaded yet");
        const Turn turn(turns_);
        const std::shared_ptr<const Vocabulary> vocabulary = words_of_catalogue(*data);
        const Searcher::Lease catalogue(session_.searcher);
        const auto [accepted, refused] = catalogue->tags(picture.id);
        const std::vector<float> row = data->index->row(*position);
        std::vector<std::pair<double, std::size_t>> scores;
        for (std::size_t i = 0; i < vocabulary->words.size(); ++i) {
            const std::string& word = vocabulary->words[i];
            if (std::ranges::find(accepted, word) != accepted.end() || std::ranges::find(refused, word) != refused.end()) continue;
            const double cosine = td::detail::product_in_double(row, std::span(vocabulary->rows).subspan(i * row.size(), row.size()));
            scores.emplace_back(data->judgement.curve(std::array{vocabulary->standards[i](cosine), cosine}), i);
        }
        const std::size_t shown = std::min<std::size_t>(8, scores.size());
        std::ranges::partial_sort(scores, scores.begin() + static_cast<std::ptrdiff_t>(shown), std::greater<>());
        Json json{{"accepted", accepted}, {"refused", refused}, {"suggested", Json::array()}};
        for (std::size_t i = 0; i < shown; ++i)
            json["suggested"].push_back({{"label", vocabulary->words[scores[i].second]}, {"probability", scores[i].first}});
        return json_response(json);
    }

    std::shared_ptr<const Vocabulary> words_of_catalogue(const Snapshot& data) {
        const std::scoped_lock lock(making_);
        if (vocabulary_ && vocabulary_->version == data.version) return vocabulary_;
        constexpr std::size_t most = 400;
        const auto next = std::make_shared<Vocabulary>();
        next->version = data.version;
        const Searcher::Lease catalogue(session_.searcher);
        next->words = catalogue->frequent_words(most);
        next->rows = embed_texts(session_.opened, next->words);
        const std::size_t width = session_.opened.clip.sizes().embedding;
        next->standards.resize(next->words.size());
        td::parallel_for(next->words.size(), 1, [&](std::size_t begin, std::size_t end) {
            for (; begin < end; ++begin)
                next->standards[begin] = td::standardise(std::span(next->rows).subspan(begin * width, width), data.background);
        });
        return vocabulary_ = next;
    }

    HttpResponse duplicates() {
        const auto data = session_.searcher.snapshot();
        const Turn turn(turns_);
        const std::shared_ptr<const Groups> found = groups_of(*data);
        const Searcher::Lease catalogue(session_.searcher);
        Json json{{"groups", Json::array()}};
        for (const std::vector<std::size_t>& group : found->groups) {
            Json pictures = Json::array();
            std::set<std::string> contents;
            for (const std::size_t position : group) {
                const auto entry = catalogue->with_id(data->ids[position]);
                if (!entry) continue;
                contents.insert(entry->digest);
                pictures.push_back({{"id", entry->id}, {"path", entry->path}, {"width", entry->width}, {"height", entry->height}});
            }
            json["groups"].push_back({{"same_file", contents.size() == 1}, {"pictures", pictures}});
        }
        return json_response(json);
    }

    /// Stars: every member is near the first, so that no chain joins what is unlike.
    std::shared_ptr<const Groups> groups_of(const Snapshot& data) {
        constexpr float alike = 0.985F;
        constexpr std::size_t batch = 256, nearest = 16, most = 300;
        const std::scoped_lock lock(making_);
        if (groups_ && groups_->version == data.version) return groups_;
        const auto next = std::make_shared<Groups>();
        next->version = data.version;
        std::vector<char> taken(data.ids.size());
        for (std::size_t begin = 0; begin < data.ids.size() && next->groups.size() < most; begin += batch) {
            std::vector<float> rows;
            const std::size_t end = std::min(begin + batch, data.ids.size());
            for (std::size_t i = begin; i < end; ++i) {
                const std::vector<float> row = data.index->row(i);
                rows.insert(rows.end(), row.begin(), row.end());
            }
            const td::SearchResult result = data.index->search(rows, nearest, {.exact = false});
            for (std::size_t i = begin; i < end; ++i) {
                if (taken[i] != 0) continue;
                std::vector<std::size_t> group{i};
                for (const td::Match& match : result.matches[i - begin]) {
                    if (match.position != i && match.score >= alike && taken[match.position] == 0) group.push_back(match.position);
                }
                if (group.size() < 2) continue;
                for (const std::size_t member : group) taken[member] = 1;
                next->groups.push_back(std::move(group));
            }
        }
        return groups_ = next;
    }

    HttpResponse tag(const HttpRequest& request) {
        if (request.method != "POST" || !request.header("content-type").starts_with("application/json"))
            throw Refusal(415, "/api/tag", "expected a POST of JSON");
        const Json json = Json::parse(request.body, nullptr, false);
        if (!json.is_object() || !json.contains("id") || !json["id"].is_number_integer() || !json.contains("label") ||
            !json["label"].is_string() || !json.contains("accepted") || !json["accepted"].is_boolean())
            throw Refusal(400, "/api/tag", "expected {\"id\": number, \"label\": text, \"accepted\": true or false}");
        const std::string label = json["label"];
        if (label.empty() || label.size() > 200 || std::ranges::any_of(label, [](char c) { return c >= 0 && c < ' '; }))
            throw Refusal(400, "label", "expected 1 to 200 bytes without control characters");
        const PictureEntry picture = picture_of(std::to_string(json["id"].get<std::int64_t>()));
        const std::scoped_lock lock(writing_);
        Catalogue::open(database_, Database::Mode::write).set_tags(picture.id, std::span(&label, 1), json["accepted"]);
        return json_response({{"id", picture.id}, {"label", label}, {"accepted", json["accepted"]}});
    }

    HttpResponse thumbnail(const PictureEntry& picture, const HttpRequest&) {
        const Searcher::Lease catalogue(session_.searcher);
        const std::vector<std::byte> bytes = catalogue->thumbnail(picture.id);
        if (bytes.empty()) throw Refusal(404, "thumbnail", "none");
        HttpResponse response{200, "image/jpeg", std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
        response.headers["Cache-Control"] = "private, max-age=60";
        return response;
    }

    /// Decoded and encoded anew: what is sent is a picture, whatever the file has become.
    td::Image decoded(const PictureEntry& picture) const {
        return td::decode_image(read_picture_file(picture.path), picture.path, session_.opened.decode);
    }
    static HttpResponse jpeg(const td::Image& image, const std::string& name) {
        const std::vector<std::byte> bytes = encode_jpeg(image, name, 88);
        HttpResponse response{200, "image/jpeg", std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())};
        response.headers["Cache-Control"] = "private, max-age=60";
        return response;
    }
    HttpResponse picture(const PictureEntry& picture, const HttpRequest&) {
        const Turn turn(turns_);
        return jpeg(fitted(on_white(decoded(picture)), 1600), picture.path);
    }
    HttpResponse heat(const PictureEntry& picture, const HttpRequest& request) {
        if (request.parameter("q").empty() || request.parameter("q").size() > 2048)
            throw Refusal(400, "q", "expected the text to look for");
        const Turn turn(turns_);
        const td::Image image = decoded(picture);
        std::vector<float> pixels(session_.opened.preprocess.count());
        td::preprocess(image, session_.opened.preprocess, pixels);
        const std::vector<float> text = session_.searcher.embed_text(request.parameter("q"));
        return jpeg(overlay(session_.opened, image, patch_cosines(session_.opened, pixels, text)), picture.path);
    }

    Session session_;
    std::string database_;
    std::string token_;
    bool is_local_;
    std::atomic<std::uint16_t> port_ = 0;
    std::counting_semaphore<> turns_{static_cast<std::ptrdiff_t>(std::max<std::size_t>(2, td::core_count()))};
    std::mutex making_, writing_;
    std::shared_ptr<const Vocabulary> vocabulary_;
    std::shared_ptr<const Groups> groups_;
};

int run(const Arguments& arguments) {
    const std::string address = arguments.get("--listen", "127.0.0.1"), token = arguments.get("--token");
    const bool is_local = address == "127.0.0.1" || address == "::1";
    if (!is_local && token.size() < 16)
        throw UsageError("--listen", "a --token of 16 characters or more beside an address that others reach", address);
    if (!std::ranges::all_of(token, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_'; }))
        throw UsageError("--token", "letters, digits, - and _", token);
    const auto port = arguments.has("--port") ? whole_number(arguments.get("--port")) : 8765;
    if (!port || *port < 0 || *port > 65535) throw UsageError("--port", "0 to 65535; 0 is any that is free", arguments.get("--port"));

    // Signals come to this thread alone, which waits for them.
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGTERM, SIGINT}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    Page page(arguments, token, is_local);
    const HttpServer server(address, static_cast<std::uint16_t>(*port), [&](const HttpRequest& request) { return page.answer(request); });
    const std::string at = (address.find(':') == std::string::npos ? address : "[" + address + "]") + ":" + std::to_string(server.port());
    page.begin(server.port());
    std::printf("http://%s/%s\n", at.c_str(), token.empty() ? "" : "?token=...");
    std::fflush(stdout);
    std::fprintf(stderr, "Ctrl-C ends it\n");
    while (true) {
        const timespec second{1, 0};
        if (sigtimedwait(&signals, nullptr, &second) > 0) break;
        try {
            page.refresh();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "tandem serve: %s\n", error.what());
        }
    }
    return 0;
}

}  // namespace

Command serve_command() {
    return {.name = "serve",
            .purpose = "a page on which a catalogue is searched",
            .operand = "",
            .synopsis = "[--database FILE] [--port N]",
            .description =
                "Serves a page, and the JSON that it is made of, which the page documents. Only programs of this machine reach "
                "it; another address needs a token, which every request then has to bring. It serves pictures of the catalogue "
                "and nothing else. What tandem index adds meanwhile appears. SIGTERM and Ctrl-C end it.",
            .options = with_checkpoint_options(
                {database_option,
                 approximate_option,
                 {"--port", "N", "(default 8765; 0: any that is free, which is printed)"},
                 {"--listen", "ADDRESS", "another address than 127.0.0.1; needs --token"},
                 {"--token", "TEXT", "what requests have to bring, 16 characters or more"}}),
            .run = run};
}

}  // namespace program
