// The expressions of the tensor layer on the device, compared with the same objects on the host.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <tuple>
#include <type_traits>

#include <tandem/core/random.hpp>
#include <tandem/cuda.cuh>
#include <tandem/nn/activation.hpp>

namespace {

namespace td = tandem;
using td::dynamic, td::Shape, td::Tensor;

constexpr int skipped = 77;

/// What the same arithmetic in another order and with another exp may differ by, relative to the largest element: tens
/// of roundings of 6e-8 in float, of 1.1e-16 in double.
template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-5;

int failures = 0;

void report(const std::string& name, bool good, const std::string& what) {
    std::printf("%s %s: %s\n", good ? "ok    " : "FAILED", name.c_str(), what.c_str());
    if (!good) ++failures;
}

template <class T, class S>
void compare(const std::string& name, const Tensor<T, S>& host, const td::cuda::DeviceTensor<T, S>& device) {
    const Tensor<T, S> copy = device.to_host();
    double difference = 0, largest = 0;
    bool finite = true;
    for (std::size_t i = 0; i < host.size(); ++i) {
        difference =
            std::max(difference, std::abs(static_cast<double>(host.data()[i]) - static_cast<double>(copy.data()[i])));
        largest = std::max(largest, std::abs(static_cast<double>(host.data()[i])));
        finite = finite && std::isfinite(static_cast<double>(copy.data()[i]));
    }
    const bool good = copy.extents() == host.extents() && finite && difference <= tolerance<td::Compute<T>> * largest;
    char text[64];
    std::snprintf(text, sizeof text, "off by %.1e of the largest element",
                  largest > 0 ? difference / largest : difference);
    report(name, good, text);
}

template <class T, class S>
Tensor<T, S> random_tensor(td::Random& random, auto... extents) {
    Tensor<T, S> result(td::detail::extents_of<S>(extents...));
    for (T& x : result.elements()) x = static_cast<T>(static_cast<float>(random.normal()));
    return result;
}

/// Evaluates make(tensors...), on the host and on the device.
template <class Make, class... Tensors>
void check(const std::string& name, const Make& make, const Tensors&... tensors) {
    const auto on_device = [&](const auto&... copies) { return td::cuda::evaluate(make(copies...)); };
    compare(name, td::evaluate(make(tensors...)), on_device(td::cuda::DeviceTensor(tensors)...));
}

/// How the tower below is computed: the one thing in which host and device differ.
struct OnHost {
    auto operator()(const auto& x) const { return td::evaluate(x); }
};
struct OnDevice {
    auto operator()(const auto& x) const { return td::cuda::evaluate(x); }
};

auto layer_norm(const auto& x, const auto& gain, const auto& bias) {
    const auto centred = x - td::mean<-1, true>(x);
    return centred / td::sqrt(td::mean<-1, true>(td::square(centred)) + 1e-5) * gain + bias;
}

/// An image tower of one pre-norm transformer block: patches <tokens, pixels> to a normalised embedding.
template <class Evaluate>
auto embed_image(const auto& weights, const auto& patches, const Evaluate& evaluate) {
    const auto& [embedding, positions, gain_1, bias_1, query, key, value, out, out_bias, gain_2, bias_2, up, up_bias,
                 down, down_bias, projection] = weights;
    const auto tokens = evaluate(td::matmul(patches, embedding) + positions);
    const auto normed = evaluate(layer_norm(tokens, gain_1, bias_1));
    const auto q = evaluate(td::matmul(normed, query));
    const auto k = evaluate(td::matmul(normed, key));
    const auto v = evaluate(td::matmul(normed, value));
    const double scale = 1.0 / std::sqrt(static_cast<double>(q.extent(1)));
    const auto mixed = evaluate(td::matmul(td::softmax(td::matmul(q, td::transpose(k)) * scale), v));
    const auto attended = evaluate(tokens + td::matmul(mixed, out) + out_bias);
    const auto hidden = evaluate(td::QuickGelu{}(td::matmul(layer_norm(attended, gain_2, bias_2), up) + up_bias));
    const auto block = evaluate(attended + td::matmul(hidden, down) + down_bias);
    return evaluate(td::normalize(td::matmul(td::mean<0, true>(block), projection)));
}

template <class T>
void check_tower(const std::string& name) {
    constexpr std::size_t pixels = 48, width = 40, inner = 96, embedding = 24, tokens = 19;
    td::Random random(td::Seed{3});
    const auto draw = [&]<std::size_t... Ns>(Shape<Ns...>, double deviation) {
        auto result = random_tensor<T, Shape<Ns...>>(random);
        for (T& x : result.elements()) x *= static_cast<T>(deviation);
        return result;
    };
    const auto matrix = [&]<std::size_t Rows, std::size_t Columns>(Shape<Rows, Columns> shape) {
        return draw(shape, 1.0 / std::sqrt(static_cast<double>(Rows)));
    };
    const auto vector = [&]<std::size_t N>(Shape<N> shape) { return draw(shape, 0.5); };
    constexpr Shape<width, width> square{};
    const std::tuple weights{matrix(Shape<pixels, width>{}),
                             draw(Shape<tokens, width>{}, 0.1),
                             vector(Shape<width>{}),
                             vector(Shape<width>{}),
                             matrix(square),
                             matrix(square),
                             matrix(square),
                             matrix(square),
                             vector(Shape<width>{}),
                             vector(Shape<width>{}),
                             vector(Shape<width>{}),
                             matrix(Shape<width, inner>{}),
                             vector(Shape<inner>{}),
                             matrix(Shape<inner, width>{}),
                             vector(Shape<width>{}),
                             matrix(Shape<width, embedding>{})};
    const auto patches = random_tensor<T, Shape<dynamic, pixels>>(random, tokens);
    const auto copies =
        std::apply([](const auto&... weight) { return std::tuple{td::cuda::DeviceTensor(weight)...}; }, weights);
    compare(name, embed_image(weights, patches, OnHost{}),
            embed_image(copies, td::cuda::DeviceTensor(patches), OnDevice{}));
}

template <class T>
void check_elementwise(const std::string& name) {
    td::Random random(td::Seed{1});
    const auto a = random_tensor<T, Shape<dynamic, 5, 33>>(random, 7);
    const auto b = random_tensor<T, Shape<5, 1>>(random);
    const auto c = random_tensor<T, Shape<33>>(random);
    const auto s = random_tensor<T, Shape<>>(random);
    check(
        name + " chain in one pass", [](const auto& x, const auto& k) { return td::tanh(x * k) / (1.5 + td::abs(x)); },
        a, s);
    check(
        name + " broadcasts",
        [](const auto& x, const auto& y, const auto& z) {
            return td::max(td::erf(x + y), td::sigmoid(z)) - td::softplus(x * z);
        },
        a, b, c);
    check(
        name + " comparison and roots",
        [](const auto& x, const auto& z) {
            return td::greater(x, z) * td::sqrt(td::square(z)) + td::log(td::exp(td::min(x, z)));
        },
        a, c);
}

template <class T>
void check_reductions(const std::string& name) {
    td::Random random(td::Seed{2});
    // Rows longer than a block of 256 threads, and shorter.
    const auto a = random_tensor<T, Shape<dynamic, 700>>(random, 9);
    const auto b = random_tensor<T, Shape<3, dynamic, 11>>(random, 300);
    check(
        name + " sum of all", [](const auto& x) { return td::sum(td::square(x)); }, a);
    check(
        name + " mean over rows", [](const auto& x) { return td::mean<0>(x); }, a);
    check(
        name + " sum over a middle axis", [](const auto& x) { return td::sum<1>(x * x); }, b);
    check(
        name + " max", [](const auto& x) { return td::max(x); }, a);
    check(
        name + " max over a middle axis", [](const auto& x) { return td::max<1, true>(x); }, b);
    check(
        name + " log-sum-exp", [](const auto& x) { return td::log_sum_exp(50.0 * x); }, a);
    check(
        name + " softmax along columns", [](const auto& x) { return td::softmax<0>(x); }, a);
    check(
        name + " normalise", [](const auto& x) { return td::normalize(x); }, b);
}

template <class T>
void check_products(const std::string& name) {
    td::Random random(td::Seed{4});
    const auto a = random_tensor<T, Shape<dynamic, 37>>(random, 21);
    const auto b = random_tensor<T, Shape<37, 50>>(random);
    const auto c = random_tensor<T, Shape<21, 50>>(random);
    check(
        name + " product", [](const auto& x, const auto& y) { return td::matmul(x, y); }, a, b);
    check(
        name + " product, left transposed",
        [](const auto& x, const auto& z) { return td::matmul(td::transpose(x), z); }, a, c);
    check(
        name + " product, right transposed",
        [](const auto& z, const auto& y) { return td::matmul(z, td::transpose(y)); }, c, b);
    check(
        name + " both transposed",
        [](const auto& x, const auto& y) { return td::matmul(td::transpose(y), td::transpose(x)); }, a, b);
    check(
        name + " product of expressions, with an epilogue",
        [](const auto& x, const auto& y, const auto& z) { return td::relu(td::matmul(2.0 * x, td::exp(y))) + z; }, a, b,
        c);
    check(
        name + " transpose of an expression", [](const auto& x) { return td::transpose(x * x) + 1.0; }, a);
    const auto square = random_tensor<T, Shape<dynamic, dynamic>>(random, 17, 17);
    check(
        name + " cross-entropy, diagonal", [](const auto& x) { return td::cross_entropy(x, td::diagonal); }, square);
    Tensor<td::Id, Shape<dynamic>> ids(17);
    for (std::size_t i = 0; i < ids.size(); ++i) ids(i) = static_cast<td::Id>(i * 5 % 17);
    check(
        name + " cross-entropy, ids", [&](const auto& x) { return td::cross_entropy(x, ids); }, square);
}

void check_storage() {
    td::Random random(td::Seed{5});
    const auto x = random_tensor<td::bf16, Shape<dynamic, 24>>(random, 6);
    check(
        "bfloat16 operands",
        [](const auto& a) { return td::matmul(a, td::transpose(a)) + td::mean<0>(td::sum<1, true>(a)); }, x);

    Tensor<td::bf16, Shape<dynamic, 24>> host(6);
    td::cuda::DeviceTensor<td::bf16, Shape<dynamic, 24>> device(6);
    td::cuda::DeviceTensor copy(x);
    td::assign(host, 3.0 * x);
    td::cuda::assign(device, 3.0 * copy);
    compare("bfloat16 result", host, device);

    td::cuda::assign(copy, copy + copy);
    td::assign(host, x + x);
    compare("in place", host, copy);

    Tensor<float, Shape<dynamic, 3>> y(2);
    y.fill(2);
    td::cuda::DeviceTensor z(y);
    compare("temporaries", td::evaluate(y + td::evaluate(y * y) + Tensor(y)),
            td::cuda::evaluate(z + td::cuda::evaluate(z * z) + Tensor(y)));
    auto kept = z;
    td::cuda::assign(z, 0.0 * z);
    compare("copies are deep", y, kept);
    compare("no rows", td::evaluate(td::sum<1>(Tensor<float, Shape<dynamic, 3>>(0))),
            td::cuda::evaluate(td::sum<1>(td::cuda::DeviceTensor<float, Shape<dynamic, 3>>(0))));
}

void check_error(const std::string& name, const std::string& words, auto&& call) {
    std::string what = "no error";
    try {
        call();
    } catch (const td::Error& error) {
        what = error.what();
    }
    report(name, what.find(words) != std::string::npos, what);
}

void check_errors() {
    const Tensor<float, Shape<dynamic>> host{1, 2};
    td::cuda::DeviceTensor device(host);
    check_error("host memory in a device expression", "host memory", [&] { td::cuda::evaluate(device + host); });
    check_error("extents", "expected [3], found [2]", [&] {
        td::cuda::DeviceTensor<float, Shape<dynamic>> three(3);
        td::cuda::assign(three, device * 2.0);
    });
    check_error("too large", "cudaMalloc of 4398046511104 bytes",
                [] { td::cuda::DeviceTensor<float, Shape<dynamic>> large(std::size_t{1} << 40); });
    compare("after the errors", td::evaluate(host + host), td::cuda::evaluate(device + device));
}

}  // namespace

int main() {
    if (td::cuda::device_count() == 0) {
        std::puts("no GPU here: compiled only");
        return skipped;
    }
    check_elementwise<float>("float");
    check_elementwise<double>("double");
    check_reductions<float>("float");
    check_products<double>("double");
    check_tower<float>("float image tower");
    check_tower<double>("double image tower");
    check_storage();
    check_errors();
    std::printf("%d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
