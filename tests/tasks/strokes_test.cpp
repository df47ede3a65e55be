// Strokes and views: what they draw, and gradients against central differences.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/tasks/strokes.hpp>
#include <tandem/tasks/views.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

template <class T>
td::Strokes<T> some_strokes() {
    td::Random random{td::Seed{5}};
    td::Strokes<T> strokes = td::Strokes<T>::random(6, 0.12, random);
    for (T& level : strokes.colours.values.elements()) level = static_cast<T>(0.2 + 0.6 * static_cast<double>(level));
    return strokes;
}

/// A number that depends on all pixels, each by a weight of its own.
std::vector<double> weights(std::size_t count, std::uint64_t seed) {
    td::Random random{td::Seed{seed}};
    std::vector<double> some(count);
    for (double& weight : some) weight = random.normal();
    return some;
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

}  // namespace

TEST_CASE("a straight stroke is as wide as it says, and lies over what was drawn before") {
    td::Strokes<double> strokes;
    strokes.resize(2);
    for (std::size_t i = 0; i < 2; ++i) {
        for (std::size_t point = 0; point < 4; ++point) {
            strokes.points.values(8 * i + 2 * point + i) = 0.1 + 0.8 * static_cast<double>(point) / 3;  // the first across, the second down
            strokes.points.values(8 * i + 2 * point + 1 - i) = 0.5;
        }
        strokes.widths.values(i) = 0.2;
        strokes.colours.values(4 * i + 2 * i) = 1;  // red, then blue
        strokes.colours.values(4 * i + 3) = 1;
    }
    td::StrokeCanvas<double> canvas(td::ImageSize(50, 50), 0.1);
    std::vector<double> pixels(3 * 2500);
    canvas.forward(strokes, pixels);
    const auto colour = [&](std::size_t x, std::size_t y) { return std::array{pixels[y * 50 + x], pixels[2500 + y * 50 + x], pixels[5000 + y * 50 + x]}; };
    CHECK(colour(0, 0) == std::array{1.0, 1.0, 1.0});
    CHECK(colour(10, 25)[0] == Approx(1).margin(1e-6));
    CHECK(colour(10, 25)[1] == Approx(0).margin(1e-6));
    CHECK(colour(25, 25)[0] == Approx(0).margin(1e-6));  // blue over red
    CHECK(colour(25, 25)[2] == Approx(1).margin(1e-6));
    CHECK(colour(10, 19)[1] == Approx(1).margin(1e-2));  // half a width is 5 pixels
    CHECK(colour(10, 21)[1] == Approx(0).margin(1e-2));
    CHECK(strokes.svg(100).find("M 10.00 50.00 C 36.67 50.00, 63.33 50.00, 90.00 50.00\" fill=\"none\" stroke=\"rgb(255,0,0)\" stroke-opacity=\"1.00\" stroke-width=\"20.00\"") !=
          std::string::npos);
    CHECK_THROWS_WITH(canvas.forward(strokes, std::span(pixels).first(9)), Contains("StrokeCanvas: expected pixels [3][50][50]"));
    td::Strokes<double> none;
    CHECK_THROWS_WITH(canvas.backward(strokes, pixels, none), Contains("the strokes of the last forward"));
    CHECK_THROWS_WITH(td::StrokeCanvas<double>(td::ImageSize(0, 3)), Contains("a size of 1 or more"));
}

TEST_CASE("gradients of strokes are those of central differences") {
    const td::ImageSize size(19, 27);
    td::Strokes<double> strokes = some_strokes<double>();
    td::StrokeCanvas<double> canvas(size, 0.7);
    std::vector<double> pixels(3 * size.area());
    const std::vector<double> dpixels = weights(pixels.size(), 1);
    td::Strokes<double> gradient;
    gradient.resize(strokes.size());
    canvas.forward(strokes, pixels);
    canvas.backward(strokes, dpixels, gradient);
    const auto check = [&](td::ParameterGroup<double>& group, const td::ParameterGroup<double>& slopes) {
        double largest = 0;
        for (std::size_t i = 0; i < group.values.size(); ++i) {
            const auto moved = [&](double step) {
                const double before = group.values(i);
                group.values(i) += step;
                canvas.forward(strokes, pixels);
                group.values(i) = before;
                return product(pixels, dpixels);
            };
            // Which of the lines is nearest changes in a few pixels of a step: what it is at a smaller one.
            CHECK(slopes.values(i) == Approx((moved(1e-7) - moved(-1e-7)) / 2e-7).margin(2e-4).epsilon(1e-4));
            largest = std::max(largest, std::abs(slopes.values(i)));
        }
        CHECK(largest > 0.1);
    };
    check(strokes.points, gradient.points);
    check(strokes.widths, gradient.widths);
    check(strokes.colours, gradient.colours);
}

TEST_CASE("a plain view is the picture, and its mean where it is smaller") {
    const std::vector<double> picture = weights(3 * 6 * 8, 2);
    std::vector<double> same(picture.size()), small(3 * 3 * 4);
    td::look<double>(td::Perspective::plain(), picture, td::ImageSize(6, 8), same, td::ImageSize(6, 8));
    for (std::size_t i = 0; i < same.size(); ++i) CHECK(same[i] == Approx(picture[i]).margin(1e-12));
    td::look<double>(td::Perspective::plain(), picture, td::ImageSize(6, 8), small, td::ImageSize(3, 4));
    CHECK(small[0] == Approx((picture[0] + picture[1] + picture[8] + picture[9]) / 4));
}

TEST_CASE("a random view sees most of the picture, and its gradient is its transpose") {
    td::Random random{td::Seed{3}};
    const td::ImageSize from(21, 33), to(10, 12);
    double least = 2, most = -1;
    for (int turn = 0; turn < 40; ++turn) {
        const td::Perspective view = td::Perspective::random(random);
        for (const auto& [x, y] : {std::pair{0.5, 0.5}, {0.4, 0.6}}) {
            const auto [u, v] = view.at(x, y);
            least = std::min({least, u, v});
            most = std::max({most, u, v});
        }
        const std::vector<double> picture = weights(3 * from.area(), 10), dout = weights(3 * to.area(), 11);
        std::vector<double> out(dout.size()), white(dout.size()), dpicture(picture.size());
        td::look<double>(view, picture, from, out, to);
        td::look<double>(view, std::vector<double>(picture.size()), from, white, to);  // what of it is white beyond the picture
        td::look_backward<double>(view, dout, to, dpicture, from);
        CHECK(product(out, dout) - product(white, dout) == Approx(product(picture, dpicture)).margin(1e-9));
        td::look<double>(view, std::vector<double>(picture.size(), 1.0), from, out, to);
        for (const double level : out) CHECK(level == Approx(1));
    }
    CHECK(least > 0.1);
    CHECK(most < 0.9);
    std::vector<double> some(5);
    CHECK_THROWS_WITH(td::look<double>(td::Perspective::plain(), some, 2, some, 1), Contains("look: expected levels [3] of 2 and 1 pixels"));
}

TEST_CASE("corners lie where the perspective puts them") {
    // Without a crop, the corners of the picture are seen inside the view, at most a quarter of a side from its own.
    td::Random random{td::Seed{4}};
    for (int turn = 0; turn < 20; ++turn) {
        const td::Perspective view = td::Perspective::random(random, 0.5, 1, 1);
        const auto [u, v] = view.at(0, 0);
        CHECK(std::min(u, v) <= 1e-9);
        const auto [far_u, far_v] = view.at(0.25, 0.25);
        CHECK(far_u >= -1e-9);
        CHECK(far_v >= -1e-9);
    }
}
