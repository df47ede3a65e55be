// What the quickstart's report writes into HTML: escaped text, numbers, pictures as data URIs, and the loss curve as
// SVG.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/images/codec.hpp>
#include <tandem/images/image.hpp>

namespace quickstart {

/// Text for HTML content and quoted attributes, cut at a letter after at most `limit` bytes. Control characters become
/// blanks; line breaks stay.
inline std::string escape(std::string_view text, std::size_t limit = 400) {
    std::size_t size = std::min(text.size(), limit);
    if (size < text.size()) {
        while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0U) == 0x80U) --size;
    }
    std::string html;
    for (const char letter : text.substr(0, size)) {
        switch (letter) {
            case '&':
                html += "&amp;";
                break;
            case '<':
                html += "&lt;";
                break;
            case '>':
                html += "&gt;";
                break;
            case '"':
                html += "&quot;";
                break;
            case '\'':
                html += "&#39;";
                break;
            case '\n':
                html += '\n';
                break;
            default:
                html += static_cast<unsigned char>(letter) < 0x20U || letter == 0x7F ? ' ' : letter;
        }
    }
    if (size < text.size()) html += "…";
    return html;
}

/// A number with `digits` decimals, independent of the locale; a dash where it is not finite.
inline std::string fixed(double value, int digits) {
    if (!std::isfinite(value)) return "–";
    char text[64];
    const bool long_number = std::abs(value) >= 1e7;
    const auto end = long_number ? std::to_chars(text, text + sizeof text, value, std::chars_format::general, 3)
                                 : std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, digits);
    std::string result(text, end.ptr);
    if (result[0] != '-') return result;
    const bool zero = result.find_first_not_of("-0.") == result.npos;
    return zero ? result.substr(1) : "−" + result.substr(1);
}

inline std::string percent(double share, int digits = 1) {
    return std::isfinite(share) ? fixed(100 * share, digits) + "\u202F%" : "–";
}

/// A run of digits with commas between its thousands; any other text as it is.
inline std::string grouped(std::string text) {
    if (text.empty() || text.size() > 30 || text.find_first_not_of("0123456789") != text.npos) return text;
    for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, 1, ',');
    return text;
}

/// The picture as a PNG inside an address (RFC 2397, base64 of RFC 4648).
inline std::string data_uri(const tandem::Image& image) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::vector<std::byte> bytes = tandem::encode_png(image);
    std::string uri = "data:image/png;base64,";
    uri.reserve(uri.size() + (bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const auto byte = [&](std::size_t k) { return k < bytes.size() ? std::to_integer<std::size_t>(bytes[k]) : 0; };
        const std::size_t three = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
        uri += digits[three >> 18];
        uri += digits[three >> 12 & 63U];
        uri += i + 1 < bytes.size() ? digits[three >> 6 & 63U] : '=';
        uri += i + 2 < bytes.size() ? digits[three & 63U] : '=';
    }
    return uri;
}

/// A point of the bold curve: the median of the finite losses around step number `index`, counted from 0.
struct Median {
    std::size_t index;
    double loss;
};

/// How many steps on either side of a step its median covers.
inline std::size_t smoothing_reach(std::size_t steps) {
    return std::min<std::size_t>(steps / 50 + 1, steps / 2);
}

/// The bold curve in at most 300 points, a median so that one outlier neither bends it nor costs it digits. The reach
/// shrinks towards the first step, as a lopsided window would misstate the steep fall there.
inline std::vector<Median> running_median(std::span<const float> losses) {
    const std::size_t count = std::min<std::size_t>(losses.size(), 300);
    std::vector<Median> curve;
    for (std::size_t k = 0; k < count; ++k) {
        const std::size_t index = count > 1 ? k * (losses.size() - 1) / (count - 1) : 0;
        const std::size_t reach = std::min(smoothing_reach(losses.size()), index);
        std::vector<float> window;
        for (std::size_t i = index - reach; i < std::min(losses.size(), index + reach + 1); ++i) {
            if (std::isfinite(losses[i])) window.push_back(losses[i]);
        }
        if (window.empty()) continue;
        const auto middle = window.begin() + static_cast<std::ptrdiff_t>(window.size() / 2);
        std::nth_element(window.begin(), middle, window.end());
        const float below = window.size() % 2 == 0 ? *std::max_element(window.begin(), middle) : *middle;
        curve.push_back({index, (static_cast<double>(below) + static_cast<double>(*middle)) / 2});
    }
    return curve;
}

/// The lowest and highest of an axis and the distance of its ticks: 1, 2 or 5 times a power of ten.
struct Axis {
    double low, high, step;

    Axis(double first, double last, double ticks) {
        const double raw = std::max(last - first, 1e-3 * std::max(std::abs(last), 1e-3)) / ticks;
        const double power = std::pow(10, std::floor(std::log10(raw)));
        step = power * (raw <= power ? 1 : raw <= 2 * power ? 2 : raw <= 5 * power ? 5 : 10);
        low = std::floor(first / step) * step;
        high = std::max(std::ceil(last / step), std::floor(first / step) + 1) * step;
    }

    int digits() const { return static_cast<int>(std::clamp(-std::floor(std::log10(step) + 1e-9), 0.0, 6.0)); }
};

/// The range of the loss axis: a hundredth of the steps may lie outside, lest one outlier flatten the curve.
inline Axis loss_axis(std::span<const float> losses, std::span<const Median> curve, double chance) {
    std::vector<double> values;
    std::copy_if(losses.begin(), losses.end(), std::back_inserter(values), [](float x) { return std::isfinite(x); });
    std::sort(values.begin(), values.end());
    if (values.size() > 100) values = {values[values.size() / 100], values[values.size() - 1 - values.size() / 100]};
    for (const Median& point : curve) values.push_back(point.loss);
    if (chance > 0 && std::isfinite(chance)) values.push_back(chance);
    if (values.empty()) return {0, 1, 5};
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return {*low > 0 && *low < 0.3 * *high ? 0 : *low, *high, 5};
}

/// The loss at every step: raw, smoothed, the loss of guessing, and a mark below each step whose loss was not finite.
class LossChart {
public:
    LossChart(std::span<const float> losses, double chance, int width, int height)
        : losses_(losses),
          curve_(running_median(losses)),
          chance_(chance),
          loss_(loss_axis(losses, curve_, chance)),
          // (a lone step stands in the middle)
          steps_(losses.size() == 1 ? 2 : static_cast<double>(losses.size())),
          right_(width - 52),
          bottom_(height - 44),
          width_(width),
          height_(height) {}

    std::string render(std::string_view css_class) {
        svg_ = "<svg role=\"img\" class=\"" + std::string(css_class) + "\" viewBox=\"0 0 " + std::to_string(width_) +
               ' ' + std::to_string(height_) + "\"><title>" + description() + "</title>";
        axes();
        raw_curve();
        skipped();
        bold_curve();
        if (chance_ > 0 && std::isfinite(chance_)) {
            line("chance", left, y(chance_), right_, y(chance_));
            text(right_ - 4, y(chance_) - 8, "end", "halo", "guessing: " + fixed(chance_, 2));
        }
        return std::move(svg_) + "</svg>";
    }

private:
    static constexpr double left = 46, top = 30;

    double x(double step) const { return left + (right_ - left) * step / steps_; }
    double y(double value) const {
        const double share = (std::clamp(value, loss_.low, loss_.high) - loss_.low) / (loss_.high - loss_.low);
        return bottom_ - (bottom_ - top) * share;
    }

    std::string point(std::size_t index, double value) const {
        return fixed(x(static_cast<double>(index + 1)), 1) + ' ' + fixed(y(value), 1);
    }

    std::string description() const {
        std::string sentence = "Training loss over " + std::to_string(losses_.size()) + " steps";
        if (!curve_.empty()) {
            sentence += ", from " + fixed(curve_.front().loss, 2) + " to " + fixed(curve_.back().loss, 2);
        }
        return sentence + (chance_ > 0 ? "; guessing would cost " + fixed(chance_, 2) : "");
    }

    void line(std::string_view css_class, double x0, double y0, double x1, double y1) {
        svg_ += "<path class=\"" + std::string(css_class) + "\" d=\"M" + fixed(x0, 1) + ' ' + fixed(y0, 1) + 'L' +
                fixed(x1, 1) + ' ' + fixed(y1, 1) + "\"/>";
    }

    void text(double at_x, double at_y, std::string_view anchor, std::string_view css_class, std::string_view words) {
        svg_ += "<text x=\"" + fixed(at_x, 1) + "\" y=\"" + fixed(at_y, 1) + "\" text-anchor=\"" + std::string(anchor) +
                "\" class=\"" + std::string(css_class) + "\">" + std::string(words) + "</text>";
    }

    void axes() {
        const auto ticks = static_cast<int>(std::min(20.0, std::round((loss_.high - loss_.low) / loss_.step)));
        for (int k = 0; k <= ticks; ++k) {
            const double value = loss_.low + k * loss_.step;
            line(k == 0 ? "axis" : "grid", left, y(value), right_, y(value));
            text(left - 8, y(value) + 4.5, "end", "", fixed(value, loss_.digits()));
        }
        const Axis step(0, steps_, std::max(2.0, (right_ - left) / 75));
        const double distance = std::max(1.0, step.step);
        for (double at = 0; at <= steps_; at += distance) {
            line("axis", x(at), bottom_, x(at), bottom_ + 5);
            text(x(at), bottom_ + 20, "middle", "", grouped(fixed(at, 0)));
        }
        text(0, 14, "start", "", "loss");
        text((left + right_) / 2, height_ - 4, "middle", "", "training step");
    }

    /// One column a pixel; one of several steps shows its lowest and highest, so that no spike is lost.
    void raw_curve() {
        const std::size_t count = losses_.size(), columns = std::min(count, static_cast<std::size_t>(right_ - left));
        std::string points;
        bool pen_down = false;
        const auto draw = [&](std::size_t i) {
            // A segment of no length makes a dot of a step that has no neighbour.
            points += (pen_down ? "L" : "M") + point(i, static_cast<double>(losses_[i])) + (pen_down ? "" : "h0");
            pen_down = true;
        };
        for (std::size_t column = 0; column < columns; ++column) {
            std::size_t low = count, high = count;
            for (std::size_t i = column * count / columns; i < (column + 1) * count / columns; ++i) {
                if (!std::isfinite(losses_[i])) continue;
                if (low == count || losses_[i] < losses_[low]) low = i;
                if (high == count || losses_[i] > losses_[high]) high = i;
            }
            if (low == count) {
                pen_down = false;
                continue;
            }
            draw(std::min(low, high));
            if (low != high) draw(std::max(low, high));
        }
        svg_ += "<path class=\"raw\" d=\"" + points + "\"/>";
    }

    /// The medians, and the last one's value at the end.
    void bold_curve() {
        if (curve_.empty()) return;
        std::string points;
        for (const Median& median : curve_) points += (points.empty() ? "M" : "L") + point(median.index, median.loss);
        const Median& last = curve_.back();
        const double at = x(static_cast<double>(last.index + 1)), height = y(last.loss);
        svg_ += "<path class=\"smooth\" d=\"" + points + "\"/><circle class=\"end\" cx=\"" + fixed(at, 1) + "\" cy=\"" +
                fixed(height, 1) + "\" r=\"5\"/>";
        text(at + 10, height + 4.5, "start", "value", fixed(last.loss, 2));
    }

    void skipped() {
        double drawn = -1;
        for (std::size_t i = 0; i < losses_.size(); ++i) {
            const double at = x(static_cast<double>(i + 1));
            if (std::isfinite(losses_[i]) || at < drawn + 1) continue;
            line("skipped", at, bottom_ - 10, at, bottom_);
            drawn = at;
        }
    }

    std::span<const float> losses_;
    std::vector<Median> curve_;
    double chance_;
    Axis loss_;
    double steps_, right_, bottom_;
    int width_, height_;
    std::string svg_;
};

}  // namespace quickstart
