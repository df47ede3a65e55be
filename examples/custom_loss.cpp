// A loss is an expression over the two embedding matrices. Its gradient is derived from the expression, and losses compose.
#include <cstdio>

#include <tandem/tandem.hpp>

namespace td = tandem;

int main() {
    // Hinge on cosine similarities: every mismatch should lie at least 0.2 below its row's match (Frome et al. 2013).
    const td::Loss hinge{[](auto image, auto text, auto) {
        const auto cosines = td::matmul(image, td::transpose(text));                        // <N, N>
        const auto matches = td::sum<1, true>(image * text);                                // <N, 1>
        return td::mean(td::relu(0.2 + cosines - matches));
    }};
    const auto mixed = td::InfoNce{} + 0.5 * hinge;

    // Sixteen pairs of embeddings on which both losses can be tried without a model.
    td::Tensor<float, td::Shape<td::dynamic, 32>> image(16), text(16);
    td::Tensor<float, td::Shape<>> log_scale{2.0F};
    td::Random random{td::Seed{0}};
    td::fill_normal(image, random, 1.0);
    td::fill_normal(text, random, 1.0);

    const auto loss = [&] {
        return td::call_loss(mixed, td::normalize(image), td::normalize(text), td::exp(log_scale), log_scale);
    };
    const float before = td::evaluate(loss()).item();
    for (int step = 0; step < 100; ++step) {
        const auto [value, gradients] = td::value_and_gradient(loss(), image, text);
        td::assign(image, image - 5.0 * std::get<0>(gradients));
        td::assign(text, text - 5.0 * std::get<1>(gradients));
    }
    const float after = td::evaluate(loss()).item();
    std::printf("loss %.3f -> %.3f\n", static_cast<double>(before), static_cast<double>(after));
    return after < 0.5F * before ? 0 : 1;
}
