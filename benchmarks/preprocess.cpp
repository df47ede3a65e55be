// A JPEG of 500 x 375 to the tower's input, on one core: the whole way and its parts, with libjpeg's own decoding
// beside it. benchmarks/preprocess.sh sets it beside Pillow and torchvision.
//   preprocess [PICTURE.jpg] [--benchmark_...]
//   preprocess [PICTURE.jpg] --write PICTURE.jpg TENSOR.f32      the picture used, and what tandem makes of it
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include <jpeglib.h>

#include <tandem/core/random.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/transform.hpp>

namespace td = tandem;

namespace {

constexpr int width = 500;
constexpr int height = 375;
constexpr td::Preprocess recipe = td::openai_preprocess(224);

/// Smooth noise of octaves of half the size and `fall` of the strength each: at 0.5, natural pictures' 1/f spectrum.
class Noise {
public:
    explicit Noise(std::uint64_t stream, double fall) : fall_(fall) {
        td::Random random(td::Seed{4}, stream);
        for (double& value : grid_) value = random.uniform(-1, 1);
    }
    double operator()(double x, double y) const {
        double sum = 0, strength = 1;
        for (double period = 250; period >= 2; period /= 2, strength *= fall_) {
            sum += strength * lattice(x / period, y / period);
            x += 37;
            y += 59;
        }
        return sum;
    }

private:
    double at(int x, int y) const { return grid_[static_cast<std::size_t>((y & 255) * 256 + (x & 255))]; }
    double lattice(double x, double y) const {
        const int left = static_cast<int>(std::floor(x)), top = static_cast<int>(std::floor(y));
        const auto ease = [](double t) { return t * t * (3 - 2 * t); };
        const double across = ease(x - left), down = ease(y - top);
        return std::lerp(std::lerp(at(left, top), at(left + 1, top), across),
                         std::lerp(at(left, top + 1), at(left + 1, top + 1), across), down);
    }
    std::vector<double> grid_ = std::vector<double>(256 * 256);
    double fall_;
};

/// A cloudy sky above leafy hills, discs with sharp edges, and a little grain: as many bytes as a photograph makes.
td::Image make_picture() {
    const Noise sky(0, 0.5), leaves(1, 0.95), warm(2, 0.5), hills(3, 0.5);
    td::Random random(td::Seed{5});
    td::Image image{width, height, std::vector<std::uint8_t>(std::size_t{3} * width * height)};
    std::uint8_t* pixel = image.pixels.data();
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x, pixel += 3) {
            const double edge = 130 + 60 * hills(0.7 * x, 0);
            const bool ground = y > edge;
            const bool disc = std::hypot((x + 17) % 125 - 60, (y + 31) % 110 - 50) < 19;
            double level = (ground ? 100 + 45 * leaves(x, y) : 165 + 30 * sky(x, y)) - (disc ? 45 : 0);
            level += 10.0 * (random.uniform() + random.uniform() - 1);
            const double tint = (ground ? 14 : -24) + 20 * warm(x, y) + (disc ? 40 : 0);
            const auto byte = [](double v) { return static_cast<std::uint8_t>(std::clamp(v, 0.0, 255.0)); };
            pixel[0] = byte(level + tint);
            pixel[1] = byte(level + 0.2 * tint);
            pixel[2] = byte(level - tint);
        }
    }
    return image;
}

/// At quality 90 with halved chroma, libjpeg's default.
std::vector<std::byte> encode(const td::Image& image) {
    jpeg_error_mgr errors;
    jpeg_compress_struct info;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* file = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &file, &size);
    info.image_width = width;
    info.image_height = height;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 90, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        auto* row = const_cast<std::uint8_t*>(image.pixels.data()) + std::size_t{3} * width * info.next_scanline;
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    const auto* begin = reinterpret_cast<const std::byte*>(file);
    std::vector<std::byte> bytes(begin, begin + size);
    std::free(file);
    return bytes;
}

std::vector<std::byte> picture;

void count(benchmark::State& state) {
    state.SetItemsProcessed(state.iterations());
}

/// libjpeg alone: its default settings, rows into memory that is there already.
void libjpeg(benchmark::State& state) {
    std::vector<std::uint8_t> pixels;
    for (auto _ : state) {
        jpeg_error_mgr errors;
        jpeg_decompress_struct info;
        info.err = jpeg_std_error(&errors);
        jpeg_create_decompress(&info);
        jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(picture.data()), picture.size());
        jpeg_read_header(&info, TRUE);
        info.out_color_space = JCS_RGB;
        jpeg_start_decompress(&info);
        const std::size_t row = std::size_t{3} * info.output_width;
        pixels.resize(row * info.output_height);
        while (info.output_scanline < info.output_height) {
            JSAMPROW target = pixels.data() + row * info.output_scanline;
            jpeg_read_scanlines(&info, &target, 1);
        }
        jpeg_finish_decompress(&info);
        jpeg_destroy_decompress(&info);
        benchmark::ClobberMemory();
    }
    count(state);
}

void decode(benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(td::decode_image(picture, "picture"));
    count(state);
}

void resize(benchmark::State& state) {
    const td::Image image = td::decode_image(picture, "picture");
    for (auto _ : state) benchmark::DoNotOptimize(td::fit_image(image, recipe));
    count(state);
}

void normalise(benchmark::State& state) {
    const td::Image square = td::fit_image(td::decode_image(picture, "picture"), recipe);
    std::vector<float> out(recipe.count());
    for (auto _ : state) {
        td::normalise(square, recipe.mean, recipe.deviation, out);
        benchmark::ClobberMemory();
    }
    count(state);
}

void preprocess(benchmark::State& state) {
    std::vector<float> out(recipe.count());
    for (auto _ : state) {
        td::preprocess(td::decode_image(picture, "picture"), recipe, out);
        benchmark::ClobberMemory();
    }
    count(state);
}

BENCHMARK(libjpeg)->Unit(benchmark::kMicrosecond);
BENCHMARK(decode)->Unit(benchmark::kMicrosecond);
BENCHMARK(resize)->Unit(benchmark::kMicrosecond);
BENCHMARK(normalise)->Unit(benchmark::kMicrosecond);
BENCHMARK(preprocess)->Unit(benchmark::kMicrosecond);

int write(const char* picture_file, const char* tensor_file) {
    std::vector<float> out(recipe.count());
    td::preprocess(td::decode_image(picture, "picture"), recipe, out);
    std::ofstream(picture_file, std::ios::binary)
        .write(reinterpret_cast<const char*>(picture.data()), static_cast<std::streamsize>(picture.size()));
    std::ofstream tensor(tensor_file, std::ios::binary);
    tensor.write(reinterpret_cast<const char*>(out.data()), static_cast<std::streamsize>(out.size() * sizeof(float)));
    return tensor ? 0 : 1;
}

}  // namespace

int main(int count_of_arguments, char** arguments) {
    benchmark::Initialize(&count_of_arguments, arguments);
    std::vector<std::string> rest(arguments + 1, arguments + count_of_arguments);
    std::string kind = "made of noise and shapes, quality 90, 4:2:0";
    if (!rest.empty() && !rest.front().starts_with("--")) {
        kind = rest.front();
        std::ifstream file(kind, std::ios::binary);
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        const auto* begin = reinterpret_cast<const std::byte*>(text.data());
        picture.assign(begin, begin + text.size());
        rest.erase(rest.begin());
    } else {
        picture = encode(make_picture());
    }
    if (rest.size() == 3 && rest[0] == "--write") return write(rest[1].c_str(), rest[2].c_str());
    if (!rest.empty()) {
        std::fprintf(stderr, "preprocess [PICTURE.jpg] [--write PICTURE.jpg TENSOR.f32]\n");
        return 2;
    }
    const td::Image image = td::decode_image(picture, kind);
    benchmark::AddCustomContext("picture", kind + ", " + std::to_string(image.width) + " x " +
                                               std::to_string(image.height) + ", " + std::to_string(picture.size()) +
                                               " bytes");
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
