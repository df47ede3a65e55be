#include "contact_sheet.hpp"

#include <cmath>
#include <cstddef>
#include <span>

namespace program {

namespace {

std::string base64(std::span<const std::byte> bytes) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string text;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        unsigned group = 0;
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
        for (std::size_t j = 0; j < 3; ++j) group = group << 8 | (j < count ? static_cast<unsigned>(bytes[i + j]) : 0);
        for (std::size_t j = 0; j < 4; ++j) text += j <= count ? digits[group >> (18 - 6 * j) & 63] : '=';
    }
    return text;
}

constexpr const char* style = R"(
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1.25rem; list-style: none; padding: 0; }
img { width: 100%; height: 11rem; object-fit: contain; background: #8881; border-radius: 6px; }
p { margin: .35rem 0 0; overflow-wrap: anywhere; } .path { opacity: .7; font-size: .85em; }
.less { opacity: .55; }
)";

}  // namespace

std::string escaped(std::string_view text) {
    std::string html;
    for (const char c : text) {
        switch (c) {
            case '&': html += "&amp;"; break;
            case '<': html += "&lt;"; break;
            case '>': html += "&gt;"; break;
            case '"': html += "&quot;"; break;
            case '\'': html += "&#39;"; break;
            default: html += c;
        }
    }
    return html;
}

nlohmann::ordered_json to_json(const Answer& answer) {
    nlohmann::ordered_json json{{"relevant", answer.relevant}, {"searched", answer.searched}, {"results", nlohmann::ordered_json::array()}};
    for (const Found& found : answer.found) {
        json["results"].push_back({{"id", found.picture.id},
                                   {"path", found.picture.path},
                                   {"score", found.score},
                                   {"probability", found.meaning ? nlohmann::ordered_json(*found.meaning) : nlohmann::ordered_json()},
                                   {"relevant", found.is_relevant},
                                   {"words", found.words},
                                   {"caption", found.picture.caption},
                                   {"date", found.picture.date()},
                                   {"width", found.picture.width},
                                   {"height", found.picture.height}});
    }
    return json;
}

std::string contact_sheet(const Request& request, const Answer& answer, const Catalogue& catalogue) {
    std::string html = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
                       "content=\"width=device-width\"><title>" +
                       escaped(request.query) + "</title><style>" + style + "</style><h1>" + escaped(request.query) +
                       "</h1><p>" + std::to_string(answer.relevant) + " relevant of " + std::to_string(answer.searched) + "</p><ul>";
    for (const Found& found : answer.found) {
        const std::string name = std::filesystem::path(found.picture.path).filename().string();
        const std::string caption = found.picture.caption.substr(0, found.picture.caption.find('\n'));
        html += std::string(found.is_relevant ? "<li>" : "<li class=\"less\">") + "<img alt=\"" +
                escaped(caption.empty() ? name : caption) + "\" src=\"data:image/jpeg;base64," +
                base64(catalogue.thumbnail(found.picture.id)) + "\"><p>" + escaped(caption.empty() ? name : caption) + "</p><p class=\"path\">" +
                (found.meaning ? std::to_string(std::lround(100 * *found.meaning)) + " % &middot; " : "") + escaped(found.picture.path);
        for (const std::string& word : found.words) html += " <mark>" + escaped(word) + "</mark>";
        html += "</p></li>\n";
    }
    return html + "</ul></html>\n";
}

}  // namespace program
