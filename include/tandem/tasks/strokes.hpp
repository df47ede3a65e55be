// Drawings of strokes, and how a drawing's pixels depend on them: what text-guided drawing moves.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/image_size.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// Numbers of one kind, for an optimizer that moves them at a rate of their own.
template <Real T>
struct ParameterGroup {
    using C = T;
    Tensor<T, Shape<dynamic>> values;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) { visit(at + "values", self.values...); }
};

/// Strokes on white, drawn one over the other: cubic Bézier curves, each of a width and a colour. Sides are parts of the canvas'
/// own: (0, 0) is top left, (1, 1) bottom right.
template <Real T>
struct Strokes {
    ParameterGroup<T> points;   ///< [strokes][4][x, y]
    ParameterGroup<T> widths;   ///< [strokes], in parts of the shorter side
    ParameterGroup<T> colours;  ///< [strokes][red, green, blue, alpha], from 0 to 1

    std::size_t size() const { return widths.values.size(); }

    void resize(std::size_t strokes) {
        points.values.resize(8 * strokes);
        widths.values.resize(strokes);
        colours.values.resize(4 * strokes);
        for (ParameterGroup<T>* const group : {&points, &widths, &colours}) group->values.fill(0);
    }

    /// Curves at random places, each about a tenth of a side from point to point (CLIPDraw, Frans et al. 2021, section 3).
    static Strokes random(std::size_t strokes, double width, Random& random) {
        Strokes made;
        made.resize(strokes);
        for (std::size_t i = 0; i < strokes; ++i) {
            double x = random.uniform(), y = random.uniform();
            for (std::size_t point = 0; point < 4; ++point) {
                made.points.values(8 * i + 2 * point) = static_cast<T>(x);
                made.points.values(8 * i + 2 * point + 1) = static_cast<T>(y);
                x += random.uniform(-0.1, 0.1);
                y += random.uniform(-0.1, 0.1);
            }
            made.widths.values(i) = static_cast<T>(width);
            for (std::size_t c = 0; c < 4; ++c) made.colours.values(4 * i + c) = static_cast<T>(random.uniform());
        }
        return made;
    }

    /// Brings widths and colours back to what can be drawn.
    void clamp(double least_width, double largest_width) {
        for (T& width : widths.values.elements()) width = std::clamp(width, static_cast<T>(least_width), static_cast<T>(largest_width));
        for (T& level : colours.values.elements()) level = std::clamp(level, T{0}, T{1});
    }

    /// The drawing as an SVG of `side` pixels.
    std::string svg(std::size_t side) const {
        const auto number = [](double value) {
            std::array<char, 32> text{};
            std::snprintf(text.data(), text.size(), "%.2f", value);
            return std::string(text.data());
        };
        const std::string all = std::to_string(side);
        std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + all + "\" height=\"" + all + "\" viewBox=\"0 0 " + all + " " + all +
                          "\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
        for (std::size_t i = 0; i < size(); ++i) {
            const auto at = [&](std::size_t point) {
                return number(static_cast<double>(points.values(8 * i + 2 * point)) * static_cast<double>(side)) + " " +
                       number(static_cast<double>(points.values(8 * i + 2 * point + 1)) * static_cast<double>(side));
            };
            const auto level = [&](std::size_t c) { return std::to_string(std::lround(255 * static_cast<double>(colours.values(4 * i + c)))); };
            out += "<path d=\"M " + at(0) + " C " + at(1) + ", " + at(2) + ", " + at(3) + "\" fill=\"none\" stroke=\"rgb(" + level(0) + "," + level(1) + "," +
                   level(2) + ")\" stroke-opacity=\"" + number(static_cast<double>(colours.values(4 * i + 3))) + "\" stroke-width=\"" +
                   number(static_cast<double>(widths.values(i)) * static_cast<double>(side)) + "\" stroke-linecap=\"round\"/>\n";
        }
        return out + "</svg>\n";
    }
};

/// Draws strokes as pixels [3][height][width] from 0 to 1, in which a gradient can flow: a stroke covers a pixel by alpha ·
/// sigmoid((w / 2 − d) / τ), d the distance of the pixel's centre from the curve, as 16 straight lines have it, and τ the
/// `softness`, in pixels (Li et al. 2020 filter exactly; a soft edge is what is needed of it). The same pixels and gradients for any number of threads.
template <Real T>
class StrokeCanvas {
public:
    explicit StrokeCanvas(ImageSize size, double softness = 0.5) : size_(size), softness_(softness) {
        if (size.area() == 0 || !(softness > 0)) throw Error("StrokeCanvas", "a size of 1 or more, and a softness above 0", to_string(size) + ", " + std::to_string(softness));
    }

    const ImageSize& size() const { return size_; }

    void forward(const Strokes<T>& strokes, std::span<T> pixels) {
        check(strokes, pixels.size());
        prepare(strokes);
        parallel_for(size_.height, 4, [&](std::size_t begin, std::size_t end) {
            for (std::size_t y = begin; y < end; ++y) {
                for (std::size_t x = 0; x < size_.width; ++x) {
                    std::array<T, 3> colour{1, 1, 1};
                    for (std::size_t i = 0; i < curves_.size(); ++i) {
                        const Hit hit = nearest(i, x, y);
                        if (hit.coverage == 0) continue;
                        const T* const own = strokes.colours.values.data() + 4 * i;
                        for (std::size_t c = 0; c < 3; ++c) colour[c] += own[3] * hit.coverage * (own[c] - colour[c]);
                    }
                    for (std::size_t c = 0; c < 3; ++c) pixels[(c * size_.height + y) * size_.width + x] = colour[c];
                }
            }
        });
    }

    /// Adds to the gradient of the strokes, given that of the pixels. After forward with the same strokes.
    void backward(const Strokes<T>& strokes, std::span<const T> dpixels, Strokes<T>& gradient) {
        check(strokes, dpixels.size());
        check(gradient, dpixels.size());
        const std::size_t count = curves_.size();
        if (strokes.size() != count || gradient.size() != count)
            throw Error("StrokeCanvas", "the strokes of the last forward, and a gradient of as many, which are " + std::to_string(count),
                        std::to_string(strokes.size()) + " and " + std::to_string(gradient.size()));
        // A row's share each, so that sums do not depend on the threads.
        std::vector<Strokes<T>> parts(size_.height);
        parallel_for(size_.height, 1, [&](std::size_t begin, std::size_t end) {
            std::vector<Hit> hits;
            std::vector<std::array<T, 3>> under;
            for (std::size_t y = begin; y < end; ++y) {
                parts[y].resize(count);
                for (std::size_t x = 0; x < size_.width; ++x) backward_pixel(strokes, dpixels, x, y, parts[y], hits, under);
            }
        });
        for (const Strokes<T>& part : parts) {
            const auto add = [](const ParameterGroup<T>& from, ParameterGroup<T>& to) {
                for (std::size_t i = 0; i < from.values.size(); ++i) to.values.data()[i] += from.values.data()[i];
            };
            add(part.points, gradient.points);
            add(part.widths, gradient.widths);
            add(part.colours, gradient.colours);
        }
    }

private:
    static constexpr std::size_t segments = 16;
    using Point = std::array<T, 2>;

    /// A stroke as straight lines, in pixels, and where it can be seen.
    struct Curve {
        std::array<Point, segments + 1> points;
        T left, top, right, bottom, half_width;
    };
    /// How a stroke covers a pixel: by the place t of a segment, at a distance in a direction.
    struct Hit {
        std::size_t stroke = 0, segment = 0;
        T t = 0, distance = 0, coverage = 0;
        Point towards{};
    };

    /// Bernstein's polynomials of degree 3.
    static std::array<T, 4> blend(std::size_t i) {
        const T t = static_cast<T>(i) / static_cast<T>(segments), s = 1 - t;
        return {s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t};
    }

    void check(const Strokes<T>& strokes, std::size_t pixels) const {
        if (pixels != 3 * size_.area() || strokes.points.values.size() != 8 * strokes.size() || strokes.colours.values.size() != 4 * strokes.size())
            throw Error("StrokeCanvas", "pixels [3][" + std::to_string(size_.height) + "][" + std::to_string(size_.width) + "], and 8 coordinates and 4 levels a stroke",
                        std::to_string(pixels) + " pixels' levels, and " + std::to_string(strokes.points.values.size()) + " and " +
                            std::to_string(strokes.colours.values.size()) + " for " + std::to_string(strokes.size()) + " strokes");
    }

    void prepare(const Strokes<T>& strokes) {
        curves_.resize(strokes.size());
        const T width = static_cast<T>(size_.width), height = static_cast<T>(size_.height), shorter = std::min(width, height);
        // Beyond 14 softnesses a sigmoid is below 1e-6.
        const T margin = static_cast<T>(14 * softness_);
        for (std::size_t i = 0; i < curves_.size(); ++i) {
            Curve& curve = curves_[i];
            curve.half_width = strokes.widths.values(i) * shorter / 2;
            curve.left = curve.top = static_cast<T>(1e30);
            curve.right = curve.bottom = static_cast<T>(-1e30);
            for (std::size_t j = 0; j <= segments; ++j) {
                const std::array<T, 4> weights = blend(j);
                Point at{};
                for (std::size_t k = 0; k < 4; ++k) {
                    at[0] += weights[k] * strokes.points.values(8 * i + 2 * k) * width;
                    at[1] += weights[k] * strokes.points.values(8 * i + 2 * k + 1) * height;
                }
                curve.points[j] = at;
                curve.left = std::min(curve.left, at[0] - curve.half_width - margin);
                curve.right = std::max(curve.right, at[0] + curve.half_width + margin);
                curve.top = std::min(curve.top, at[1] - curve.half_width - margin);
                curve.bottom = std::max(curve.bottom, at[1] + curve.half_width + margin);
            }
        }
    }

    /// Where stroke i covers a pixel; coverage 0 where it is too far.
    Hit nearest(std::size_t i, std::size_t column, std::size_t row) const {
        const Curve& curve = curves_[i];
        const T x = static_cast<T>(column) + T{0.5}, y = static_cast<T>(row) + T{0.5};
        Hit hit{.stroke = i};
        if (x < curve.left || x > curve.right || y < curve.top || y > curve.bottom) return hit;
        T least = static_cast<T>(1e30);
        for (std::size_t j = 0; j < segments; ++j) {
            const Point &a = curve.points[j], &b = curve.points[j + 1];
            const T dx = b[0] - a[0], dy = b[1] - a[1], length = dx * dx + dy * dy;
            const T t = length > 0 ? std::clamp(((x - a[0]) * dx + (y - a[1]) * dy) / length, T{0}, T{1}) : T{0};
            const T across = x - a[0] - t * dx, down = y - a[1] - t * dy, squares = across * across + down * down;
            if (squares < least) {
                least = squares;
                hit.segment = j;
                hit.t = t;
                hit.towards = {across, down};
            }
        }
        hit.distance = std::sqrt(least);
        const T inner = (curve.half_width - hit.distance) / static_cast<T>(softness_);
        hit.coverage = inner < -14 ? T{0} : 1 / (1 + std::exp(-inner));
        return hit;
    }

    void backward_pixel(const Strokes<T>& strokes, std::span<const T> dpixels, std::size_t x, std::size_t y, Strokes<T>& gradient,
                        std::vector<Hit>& hits, std::vector<std::array<T, 3>>& under) const {
        hits.clear();
        under.clear();
        std::array<T, 3> colour{1, 1, 1};
        for (std::size_t i = 0; i < curves_.size(); ++i) {
            const Hit hit = nearest(i, x, y);
            if (hit.coverage == 0) continue;
            hits.push_back(hit);
            under.push_back(colour);
            const T* const own = strokes.colours.values.data() + 4 * i;
            for (std::size_t c = 0; c < 3; ++c) colour[c] += own[3] * hit.coverage * (own[c] - colour[c]);
        }
        std::array<T, 3> slope{};
        for (std::size_t c = 0; c < 3; ++c) slope[c] = dpixels[(c * size_.height + y) * size_.width + x];
        const T width = static_cast<T>(size_.width), height = static_cast<T>(size_.height);
        for (std::size_t n = hits.size(); n-- > 0;) {
            const Hit& hit = hits[n];
            const std::size_t i = hit.stroke;
            const T* const own = strokes.colours.values.data() + 4 * i;
            const T share = own[3] * hit.coverage;
            T dshare = 0;
            for (std::size_t c = 0; c < 3; ++c) {
                gradient.colours.values(4 * i + c) += slope[c] * share;
                dshare += slope[c] * (own[c] - under[n][c]);
                slope[c] *= 1 - share;
            }
            gradient.colours.values(4 * i + 3) += dshare * hit.coverage;
            const T dinner = dshare * own[3] * hit.coverage * (1 - hit.coverage) / static_cast<T>(softness_);
            gradient.widths.values(i) += dinner * std::min(width, height) / 2;
            if (hit.distance == 0) continue;
            // The nearest place of a line does not move to first order, so that its ends alone count.
            const Point away{dinner * hit.towards[0] / hit.distance, dinner * hit.towards[1] / hit.distance};
            const std::array<T, 4> first = blend(hit.segment), second = blend(hit.segment + 1);
            for (std::size_t k = 0; k < 4; ++k) {
                const T weight = (1 - hit.t) * first[k] + hit.t * second[k];
                gradient.points.values(8 * i + 2 * k) += weight * away[0] * width;
                gradient.points.values(8 * i + 2 * k + 1) += weight * away[1] * height;
            }
        }
    }

    ImageSize size_;
    double softness_;
    std::vector<Curve> curves_;
};

}  // namespace tandem::inline TANDEM_ABI
