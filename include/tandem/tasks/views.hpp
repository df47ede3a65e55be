// A picture seen from somewhat elsewhere, and how what is seen depends on its pixels: without it, guidance finds noise that only one
// model sees something in.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/image_size.hpp>
#include <tandem/core/random.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// Where the pixels of a view lie in a picture: (x, y) of it, from 0 to 1, at ((a x + b y + c) / w, (d x + e y + f) / w) of that, w = g x + h y + 1.
struct Perspective {
    std::array<double, 8> of{1, 0, 0, 0, 1, 0, 0, 0};

    /// The picture itself.
    static Perspective plain() { return {}; }

    /// torchvision's RandomPerspective and, behind it, RandomResizedCrop: each corner moves inwards by up to half of `distortion` of a
    /// side, then a part of `least` to `most` of the area is seen, with sides of 3 : 4 to 4 : 3 (CLIPDraw's are 0.5, 0.7 and 0.9).
    static Perspective random(Random& random, double distortion = 0.5, double least = 0.7, double most = 0.9) {
        const auto inwards = [&] { return random.uniform(0, distortion / 2); };
        // Where the corners of the picture come to lie: top left, top right, bottom right, bottom left.
        const double x[4] = {inwards(), 1 - inwards(), 1 - inwards(), inwards()}, y[4] = {inwards(), inwards(), 1 - inwards(), 1 - inwards()};
        Perspective view = through(x, y);
        double width = 1, height = 1;
        for (int turn = 0; turn < 10; ++turn) {
            const double area = random.uniform(least, most), ratio = std::exp(random.uniform(std::log(0.75), std::log(4.0 / 3)));
            width = std::sqrt(area * ratio), height = std::sqrt(area / ratio);
            if (width <= 1 && height <= 1) break;
            width = height = std::sqrt(area);
        }
        const double left = random.uniform(0, 1 - width), top = random.uniform(0, 1 - height);
        const std::array<double, 8> h = view.of;
        // The part first: x becomes left + width · x.
        const double w = h[6] * left + h[7] * top + 1;
        view.of = {h[0] * width / w, h[1] * height / w, (h[0] * left + h[1] * top + h[2]) / w, h[3] * width / w,
                   h[4] * height / w, (h[3] * left + h[4] * top + h[5]) / w, h[6] * width / w, h[7] * height / w};
        return view;
    }

    std::pair<double, double> at(double x, double y) const {
        const double w = of[6] * x + of[7] * y + 1;
        return {(of[0] * x + of[1] * y + of[2]) / w, (of[3] * x + of[4] * y + of[5]) / w};
    }

private:
    /// The view in which the corners (0, 0), (1, 0), (1, 1) and (0, 1) lie at these places.
    static Perspective through(const double (&x)[4], const double (&y)[4]) {
        constexpr double u[4] = {0, 1, 1, 0}, v[4] = {0, 0, 1, 1};
        std::array<std::array<double, 9>, 8> rows{};
        for (std::size_t i = 0; i < 4; ++i) {
            rows[2 * i] = {x[i], y[i], 1, 0, 0, 0, -u[i] * x[i], -u[i] * y[i], u[i]};
            rows[2 * i + 1] = {0, 0, 0, x[i], y[i], 1, -v[i] * x[i], -v[i] * y[i], v[i]};
        }
        for (std::size_t column = 0; column < 8; ++column) {  // Gauss, with the largest pivot
            std::size_t best = column;
            for (std::size_t row = column + 1; row < 8; ++row) {
                if (std::abs(rows[row][column]) > std::abs(rows[best][column])) best = row;
            }
            std::swap(rows[column], rows[best]);
            for (std::size_t row = 0; row < 8; ++row) {
                if (row == column) continue;
                const double factor = rows[row][column] / rows[column][column];
                for (std::size_t k = column; k < 9; ++k) rows[row][k] -= factor * rows[column][k];
            }
        }
        Perspective view;
        for (std::size_t i = 0; i < 8; ++i) view.of[i] = rows[i][8] / rows[i][i];
        return view;
    }
};

namespace detail {

/// visit(pixel of the view, place in the picture, weight) for what a pixel is made of: of a grid of places inside it, as fine as the
/// picture is finer than the view, the four pixels around each. Places outside the picture are visited as `outside`.
template <class Visit>
void visit_view(const Perspective& view, const ImageSize& picture, const ImageSize& size, std::size_t outside, const Visit& visit) {
    const std::size_t fine = std::max<std::size_t>(1, std::max(picture.height / size.height, picture.width / size.width));
    const double share = 1.0 / static_cast<double>(fine * fine);
    for (std::size_t pixel = 0; pixel < size.area(); ++pixel) {
        for (std::size_t part = 0; part < fine * fine; ++part) {
            const double inside_x = (static_cast<double>(part % fine) + 0.5) / static_cast<double>(fine), inside_y = (static_cast<double>(part / fine) + 0.5) / static_cast<double>(fine);
            const auto [u, v] = view.at((static_cast<double>(pixel % size.width) + inside_x) / static_cast<double>(size.width),
                                        (static_cast<double>(pixel / size.width) + inside_y) / static_cast<double>(size.height));
            const double x = u * static_cast<double>(picture.width) - 0.5, y = v * static_cast<double>(picture.height) - 0.5;
            const double left = std::floor(x), top = std::floor(y);
            for (int corner = 0; corner < 4; ++corner) {
                const double column = left + corner % 2, row = top + corner / 2;
                const double weight = share * (corner % 2 != 0 ? x - left : left + 1 - x) * (corner / 2 != 0 ? y - top : top + 1 - y);
                const bool is_inside = column >= 0 && row >= 0 && column < static_cast<double>(picture.width) && row < static_cast<double>(picture.height);
                visit(pixel, is_inside ? static_cast<std::size_t>(row) * picture.width + static_cast<std::size_t>(column) : outside, weight);
            }
        }
    }
}

inline void check_view(const char* where, std::size_t picture, const ImageSize& from, std::size_t view, const ImageSize& to) {
    if (picture != 3 * from.area() || view != 3 * to.area() || to.area() == 0)
        throw Error(where, "levels [3] of " + to_string(from) + " and " + to_string(to) + " pixels", std::to_string(picture) + " and " + std::to_string(view));
}

}  // namespace detail

/// What a view of a picture [3][height][width] shows, [3] of `to` pixels; 1, white, beyond the picture. Throws Error for sizes that differ.
template <Real T>
void look(const Perspective& view, std::span<const T> picture, const ImageSize& from, std::span<T> out, const ImageSize& to) {
    detail::check_view("look", picture.size(), from, out.size(), to);
    std::ranges::fill(out, T{0});
    detail::visit_view(view, from, to, from.area(), [&](std::size_t pixel, std::size_t place, double weight) {
        for (std::size_t c = 0; c < 3; ++c)
            out[c * to.area() + pixel] += static_cast<T>(weight) * (place == from.area() ? T{1} : picture[c * from.area() + place]);
    });
}

/// Adds to the gradient of the picture, given that of what is seen.
template <Real T>
void look_backward(const Perspective& view, std::span<const T> dout, const ImageSize& to, std::span<T> dpicture, const ImageSize& from) {
    detail::check_view("look_backward", dpicture.size(), from, dout.size(), to);
    detail::visit_view(view, from, to, from.area(), [&](std::size_t pixel, std::size_t place, double weight) {
        if (place == from.area()) return;
        for (std::size_t c = 0; c < 3; ++c) dpicture[c * from.area() + place] += static_cast<T>(weight) * dout[c * to.area() + pixel];
    });
}

}  // namespace tandem::inline TANDEM_ABI
