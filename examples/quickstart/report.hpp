// The quickstart's report: one HTML file without scripts that shows what was trained, how, and what it can do.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/images/image.hpp>

#include "report_style.hpp"
#include "report_svg.hpp"

namespace quickstart {

/// A small picture (48 to 96 pixels a side), its caption, and how well it answers a query.
struct Picture {
    tandem::Image image;
    std::string caption;
    float score = 0;
};

/// A text query, or an image query with the image's caption as its text, and the pictures found, best first.
struct Query {
    std::string text;
    std::optional<tandem::Image> image;
    std::vector<Picture> results;
};

/// All that the report shows; what is empty is left out.
struct ReportData {
    std::string title;
    std::string subtitle;
    std::vector<std::pair<std::string, std::string>> facts;  ///< label and value: parameters, training time ...

    /// Shares from 0 to 1; `reference` is chance or another simple answer's share, named by `reference_label`.
    struct Score {
        std::string label;
        double value;
        double reference;
        std::string reference_label;
    };
    std::vector<Score> scores;

    std::vector<float> losses;  ///< one a step; not finite where a step was skipped
    double chance_loss = 0;     ///< ln(batch), the loss of guessing; 0: not drawn

    std::vector<Picture> pair_pictures;
    std::vector<float> pair_cosines;  ///< [pictures][pictures], row by row: image i, text j

    std::vector<Query> text_queries, image_queries;

    std::vector<std::string> classes;
    std::vector<std::size_t> confusion;  ///< [classes][classes], row by row: true class, predicted class

    std::string architecture;  ///< the design as C++ text
};

namespace detail {

/// One section of the page: what it is called, and one sentence on what is seen.
inline std::string section(std::string_view heading, std::string_view sentence, std::string_view body) {
    std::string html = "<section><hgroup><h2>";
    html.append(heading).append("</h2><p>").append(sentence).append("</p></hgroup>").append(body);
    return html + "</section>\n";
}

inline std::string picture_tag(const tandem::Image& image, std::string_view caption) {
    const std::string text = escape(caption);
    return "<img src=\"" + data_uri(image) + "\" alt=\"" + text + "\" title=\"" + text + "\">";
}

inline std::string bar(double share, std::string_view css_class) {
    const double width = std::isfinite(share) ? std::clamp(100 * share, 0.0, 100.0) : 0;
    return "<div class=\"track\"><i class=\"" + std::string(css_class) + "\" style=\"width:" + fixed(width, 2) +
           "%\"></i></div>";
}

/// A heat-map cell; `share` from 0 to 1 is the strength of its colour, a style-sheet variable.
inline std::string cell(double share, std::string_view colour, std::string css_classes, std::string_view title,
                        std::string_view text) {
    share = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0;
    // (report_style says why 0.72)
    if (share >= 0.72) css_classes += " high";
    std::string html = "<td class=\"cell" + css_classes + '"';
    if (share > 0) html += " style=\"background:rgb(var(--" + std::string(colour) + ")/" + fixed(share, 2) + ")\"";
    if (!title.empty()) html.append(" title=\"").append(title) += '"';
    return html.append(">").append(text) + "</td>";
}

/// A table that scrolls sideways, by keyboard too, where the screen is narrower.
inline std::string scrolling_table(std::string_view css_class, std::size_t cell_size, std::string_view name,
                                   std::string_view rows) {
    std::string html = "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"" + std::string(name) +
                       "\"><table class=\"" + std::string(css_class) + '"';
    if (cell_size > 0) html += " style=\"--cell:" + std::to_string(cell_size) + "px\"";
    return html.append(">").append(rows) + "</table></div>";
}

inline std::string render_header(const ReportData& data) {
    std::string html = "<header><h1>" + escape(data.title) + "</h1>";
    if (!data.subtitle.empty()) html += "<p class=\"subtitle\">" + escape(data.subtitle) + "</p>";
    if (!data.facts.empty()) {
        html += "<dl class=\"facts\">";
        for (const auto& [label, value] : data.facts) {
            html += "<div><dt>" + escape(label) + "</dt><dd>" + escape(grouped(value)) + "</dd></div>";
        }
        html += "</dl>";
    }
    return html + "</header>\n";
}

inline std::string render_scores(const ReportData& data) {
    std::string body = "<div class=\"scores\">";
    for (const ReportData::Score& score : data.scores) {
        body += "<div class=\"score\"><p><span>" + escape(score.label) + "</span><b>" + percent(score.value) +
                "</b></p>" + bar(score.value, "") + bar(score.reference, "other") + "<p class=\"reference\"><span>" +
                escape(score.reference_label) + "</span><span>" + percent(score.reference) + "</span></p></div>";
    }
    return section("What it can do with pictures it never saw",
                   "Each thick bar is a share of right answers, out of 100\u202F%; the thin bar below it is what the "
                   "comparison named there reaches.",
                   body + "</div>");
}

inline std::string render_losses(const ReportData& data) {
    const auto swatch = [](std::string_view css_class, std::string_view text) {
        return "<span><svg viewBox=\"0 0 30 10\" aria-hidden=\"true\"><path class=\"" + std::string(css_class) +
               "\" d=\"M1 5L29 5\"/></svg>" + std::string(text) + "</span>";
    };
    LossChart wide(data.losses, data.chance_loss, 1072, 400), narrow(data.losses, data.chance_loss, 390, 300);
    std::string body =
        "<figure>" + wide.render("wide") + narrow.render("narrow") + "<figcaption>" + swatch("raw", "each step");
    const std::size_t reach = smoothing_reach(data.losses.size());
    if (reach > 0) body += swatch("smooth", "median of " + grouped(std::to_string(2 * reach + 1)) + " steps");
    if (data.chance_loss > 0) body += swatch("chance", "guessing which text of a batch belongs to which picture");
    const auto bad = std::count_if(data.losses.begin(), data.losses.end(), [](float x) { return !std::isfinite(x); });
    if (bad > 0)
        body += swatch("skipped", std::to_string(bad) + (bad == 1 ? " step" : " steps") + " without a finite loss");
    return section(
        "How it learned",
        "The loss at every step of training: the lower, the more surely the model tells which text belongs to "
        "which picture.",
        body + "</figcaption></figure>");
}

inline std::string render_queries(const std::vector<Query>& queries, std::string_view heading,
                                  std::string_view sentence) {
    std::string body = "<div class=\"sheets\">";
    for (const Query& query : queries) {
        const std::string text = escape(query.text, 200);
        body += "<article class=\"sheet\">";
        if (query.image) {
            body += "<div class=\"query\">" + picture_tag(*query.image, query.text) + "<h3 dir=\"auto\">" + text +
                    "</h3></div>";
        } else {
            body += "<h3 dir=\"auto\">“" + text + "”</h3>";
        }
        body += "<ol class=\"pictures\">";
        for (const Picture& result : query.results) {
            body += "<li>" + picture_tag(result.image, result.caption) + fixed(result.score, 2) + "</li>";
        }
        body += "</ol></article>";
    }
    return section(heading, sentence, body + "</div>");
}

inline std::string render_similarity(const ReportData& data) {
    const std::size_t count = data.pair_pictures.size();
    if (data.pair_cosines.size() != count * count) {
        throw tandem::Error("render_report", std::to_string(count * count) + " pair_cosines",
                            std::to_string(data.pair_cosines.size()));
    }
    // No colour at cosines of 0 and below, nor at the lowest of all.
    double low = 1, high = 0;
    for (const float cosine : data.pair_cosines) {
        if (!std::isfinite(cosine)) continue;
        low = std::min(low, static_cast<double>(cosine));
        high = std::max(high, static_cast<double>(cosine));
    }
    low = std::max(low, 0.0);
    std::string rows = "<thead><tr><td></td>";
    for (const Picture& picture : data.pair_pictures) {
        rows += "<th scope=\"col\">" + picture_tag(picture.image, picture.caption) + "</th>";
    }
    rows += "</tr></thead><tbody>";
    std::size_t right = 0;
    for (std::size_t text = 0; text < count; ++text) {
        const auto cosine = [&](std::size_t picture) { return data.pair_cosines[picture * count + text]; };
        const std::string caption = escape(data.pair_pictures[text].caption);
        rows += "<tr><th scope=\"row\" title=\"" + caption + "\"><span class=\"clamp\" dir=\"auto\">" + caption +
                "</span></th>";
        std::size_t best = 0;
        for (std::size_t picture = 1; picture < count; ++picture) {
            if (cosine(picture) > cosine(best) || !std::isfinite(cosine(best))) best = picture;
        }
        right += best == text;
        for (std::size_t picture = 0; picture < count; ++picture) {
            const double share = high > low ? (static_cast<double>(cosine(picture)) - low) / (high - low) : 0;
            rows +=
                cell(share, "hit", std::string(picture == text ? " diagonal" : "") + (picture == best ? " best" : ""),
                     "", fixed(cosine(picture), 2));
        }
        rows += "</tr>";
    }
    return section(
        "Which text belongs to which picture",
        "The cosine similarity of " + std::to_string(count) +
            " held-out texts (rows) and their pictures (columns): own pairs are outlined, each text's best picture "
            "is underlined, and " +
            std::to_string(right) + " of " + std::to_string(count) + " agree.",
        scrolling_table("similarity", 0, "Similarity of texts and pictures", rows + "</tbody>"));
}

/// Row and column numbers of the classes with the most pictures, in their given order.
inline std::vector<std::size_t> shown_classes(const std::vector<std::size_t>& totals, std::size_t limit) {
    std::vector<std::size_t> order(totals.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return totals[a] != totals[b] ? totals[a] > totals[b] : a < b; });
    order.resize(std::min(order.size(), limit));
    std::sort(order.begin(), order.end());
    return order;
}

inline std::string render_confusion(const ReportData& data) {
    constexpr std::size_t limit = 48;  // more cells than a screen has room for
    const std::size_t count = data.classes.size();
    if (data.confusion.size() != count * count) {
        throw tandem::Error("render_report", std::to_string(count * count) + " counts in confusion",
                            std::to_string(data.confusion.size()));
    }
    std::vector<std::size_t> totals(count);
    for (std::size_t i = 0; i < data.confusion.size(); ++i) totals[i / count] += data.confusion[i];
    const std::vector<std::size_t> shown = shown_classes(totals, limit);

    std::string rows = "<thead><tr><td></td>";
    for (const std::size_t predicted : shown) {
        const std::string name = escape(data.classes[predicted]);
        rows += "<th scope=\"col\" title=\"" + name + "\"><span>" + name + "</span></th>";
    }
    rows += "<th scope=\"col\" class=\"share\">right, of</th></tr></thead><tbody>";
    for (const std::size_t truth : shown) {
        const std::string name = escape(data.classes[truth]);
        const double total = static_cast<double>(totals[truth]);
        rows += "<tr><th scope=\"row\" title=\"" + name + "\"><span>" + name + "</span></th>";
        for (const std::size_t predicted : shown) {
            const std::size_t pictures = data.confusion[truth * count + predicted];
            const double share = pictures > 0 ? static_cast<double>(pictures) / total : 0;
            const bool right = truth == predicted;
            const std::string title = name + " taken for " + escape(data.classes[predicted]) + ": " +
                                      std::to_string(pictures) + " of " + std::to_string(totals[truth]);
            rows += cell(share, right ? "hit" : "miss", right ? " diagonal" : "", pictures > 0 ? title : "",
                         share >= 0.005 ? fixed(100 * share, 0) : "");
        }
        const double accuracy = static_cast<double>(data.confusion[truth * count + truth]) / total;
        rows += "<td class=\"share\">" + bar(accuracy, "") + percent(accuracy, 0) + " <small>of " +
                grouped(std::to_string(totals[truth])) + "</small></td></tr>";
    }
    std::string sentence =
        "Each row shows, in per cent, what the model called the pictures of one class when it had only the class names "
        "to "
        "choose from; the outlined diagonal is right.";
    if (count > limit) {
        sentence += " Of " + std::to_string(count) + " classes, the " + std::to_string(limit) +
                    " with the most pictures are shown.";
    }
    const std::size_t cell_size = count <= 8 ? 64 : count <= 16 ? 40 : 21;
    return section("Naming what is in a picture, class by class", sentence,
                   "<figure>" + scrolling_table("confusion", cell_size, "Confusion of classes", rows + "</tbody>") +
                       "<figcaption class=\"key\"><span><i style=\"background:rgb(var(--hit))\"></i>right</span>"
                       "<span><i style=\"background:rgb(var(--miss))\"></i>mistaken for another "
                       "class</span></figcaption></figure>");
}

}  // namespace detail

/// The report as one HTML file that needs nothing from elsewhere. All text is escaped. Throws tandem::Error where
/// pair_cosines or confusion do not fit pair_pictures or classes, or an image's pixels its sides.
inline std::string render_report(const ReportData& data) {
    std::string html =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
        "content=\"width=device-width,initial-scale=1\"><title>" +
        escape(data.title) + "</title><link rel=\"icon\" href=\"data:,\"><style>" + std::string(report_style) +
        "</style></head><body><main>\n" + detail::render_header(data);
    if (!data.scores.empty()) html += detail::render_scores(data);
    if (!data.losses.empty()) html += detail::render_losses(data);
    if (!data.text_queries.empty()) {
        html += detail::render_queries(
            data.text_queries, "Pictures found by a text",
            "The held-out pictures most similar to each text, best first, each with its cosine.");
    }
    if (!data.image_queries.empty()) {
        html += detail::render_queries(
            data.image_queries, "Pictures found by a picture",
            "The held-out pictures most similar to the ringed one, best first; no text took part.");
    }
    if (!data.pair_pictures.empty()) html += detail::render_similarity(data);
    if (!data.classes.empty()) html += detail::render_confusion(data);
    if (!data.architecture.empty()) {
        html += detail::section("The architecture", "The whole design is this one C++ value, known to the compiler.",
                                "<pre tabindex=\"0\"><code>" + escape(data.architecture, 20000) + "</code></pre>");
    }
    return html + "</main></body></html>\n";
}

}  // namespace quickstart
