// What a model gives beside embeddings: tokens of any layer, attention, and gradients of pixels. Their values are compared
// with transformers' in tests/parity; here stand the choices that it does not have.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <string>

#include <tandem/models/clip.hpp>
#include <tandem/models/zoo.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

inline constexpr td::TextConfig captions{.vocabulary = 40, .context = 8, .width = 24, .layers = 2, .heads = 3};
inline constexpr td::ClipConfig floored{
    .vision = td::VitConfig{.image = 17, .patch = 4, .width = 24, .layers = 2, .heads = 3, .floor_patches = true},
    .text = captions,
    .embedding = 20};
inline constexpr td::ClipConfig convolutional{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 24, .layers = 2, .heads = 3, .kv_heads = 1, .class_token = false,
                            .reg_tokens = 2, .pos_embed_type = td::PosEmbed::rotary, .qk_norm = true,
                            .pooling = td::AttentionPool{}, .stem = td::ConvStem{}},
    .text = captions,
    .embedding = 20};
inline constexpr td::ClipConfig shared{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 24, .layers = 2, .heads = 3,
                            .norm_position = td::NormPosition::post},
    .text = td::TextConfig{.vocabulary = 40, .context = 8, .width = 24, .layers = 2, .heads = 3,
                           .norm_position = td::NormPosition::post},
    .embedding = 20,
    .shared = true};

inline constexpr td::ClipConfig dropping{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 24, .layers = 2, .heads = 3, .patch_dropout = 0.5, .drop_path_rate = 0.5},
    .text = captions,
    .embedding = 20};
/// Every patch alike but for its place.
template <td::NormPosition norm, bool parallel, double scale>
inline constexpr td::ClipConfig even{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 24, .layers = 2, .heads = 3, .class_token = false,
                            .norm_position = norm, .parallel = parallel, .ls_init_value = scale, .pooling = td::Average{}},
    .text = captions,
    .embedding = 20};

inline constexpr td::ClipConfig residual{td::ResNetConfig{.image = 32, .layers = {1, 1, 1, 1}, .width = 2, .head_width = 16}, captions, 20};
inline constexpr td::ClipConfig inverted{
    td::EfficientNetConfig{.image = 32, .width_coefficient = 0.125, .depth_coefficient = 0.3}, captions, 40};
inline constexpr td::ClipConfig padded{
    .vision = floored.vision,
    .text = td::TextConfig{.vocabulary = 40, .context = 8, .width = 24, .layers = 2, .heads = 3, .causal = false,
                           .norm_position = td::NormPosition::post, .pad_id = 0, .token_types = 2, .ln_embed = true,
                           .no_ln_final = true, .pooling = td::First{}},
    .embedding = 20};

template <auto config, class T>
struct Inputs {
    using Model = td::Clip<config, T>;
    Model model{td::Seed{1}};
    td::Tensor<typename Model::C, typename Model::Vision::Input::shape> images;
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids;

    explicit Inputs(std::size_t count) : images(count), ids(count) {
        td::Random random{td::Seed{2}};
        td::fill_normal(images, random, 1.0);
        ids.fill(0);
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t j = 0; j < i % 6 + 1; ++j) ids(i, j) = static_cast<td::Id>(random.below(39));
            ids(i, i % 6 + 1) = 39;
        }
    }
};

template <auto config>
void check_pixel_gradient() {
    Inputs<config, double> in(2);
    const auto text = in.model.encode_text(in.ids);
    const auto similarity = [&](auto image) { return td::sum(image * text); };
    decltype(in.images) gradient, unused;
    const double value = in.model.image_gradient(in.images, similarity, gradient);
    // Again, through memory that has been used.
    CHECK(in.model.image_gradient(in.images, similarity, gradient) == value);
    td::Random random{td::Seed{3}};
    for (int check = 0; check < 40; ++check) {
        const std::size_t i = check == 0 ? 16 : random.below(gradient.size());
        const auto at = [&](double step) {
            auto moved = in.images;
            moved.data()[i] += step;
            return in.model.image_gradient(moved, similarity, unused);
        };
        CHECK(gradient.data()[i] == Approx((at(1e-5) - at(-1e-5)) / 2e-5).margin(1e-9));
    }
}

/// The embeddings of the tokens' rows: the last tokens are what the head pools.
template <auto config, class T>
void check_tokens(double bar) {
    Inputs<config, T> in(70);  // more than are computed at once
    const auto all = in.model.image_tokens(in.images), before = in.model.image_tokens(in.images, -2);
    const auto first = in.model.image_tokens(in.images, 0), weights = in.model.image_attention(in.images, 1);
    const std::size_t tokens = config.vision.tokens(), width = config.vision.width;
    CHECK(all.extents() == td::Extents<3>{{70, tokens, width}});
    CHECK(weights.extents() == td::Extents<4>{{70, config.vision.heads, tokens, tokens}});
    const auto alone = in.model.image_tokens(in.images.view().slice(69, 70), 1);
    double worst = 0;
    for (std::size_t i = 0; i < alone.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(alone.data()[i]) -
                                         static_cast<double>(before.data()[69 * tokens * width + i])));
    CHECK(worst <= bar);
    CHECK_FALSE(std::ranges::equal(first.elements(), before.elements()));
    for (std::size_t row = 0; row < weights.size() / tokens; ++row) {
        double sum = 0;
        for (std::size_t j = 0; j < tokens; ++j) sum += static_cast<double>(weights.data()[row * tokens + j]);
        REQUIRE(sum == Approx(1).margin(1e-5));
    }
    const auto text = in.model.text_attention(in.ids);
    CHECK(in.model.text_tokens(in.ids, -2, true).extents() == td::Extents<3>{{70, 8, 24}});
    CHECK(static_cast<double>(text(0, 0, 2, 3)) == 0);  // causal
    CHECK(static_cast<double>(text(0, 0, 3, 2)) > 0);
}

}  // namespace

TEST_CASE("gradients of pixels are those of central differences") {
    check_pixel_gradient<floored>();
    check_pixel_gradient<convolutional>();
    check_pixel_gradient<shared>();
    check_pixel_gradient<dropping>();  // guidance drops nothing
}

namespace {

/// Whether the last block's values are mixed alike in every kind of block: where all patches are equal, softmax mixes what is
/// already the same, so that mask_clip is clear_clip, and sclip is what two equal parts add up to.
template <auto config>
void check_patches() {
    Inputs<config, double> in(3);
    in.images.fill(0.3);
    // Positions tell patches apart.
    td::for_each_parameter(
        [](const std::string& name, auto& parameter) {
            if constexpr (requires { parameter.fill(0); }) {
                if (name.find("positional_embedding") != std::string::npos) parameter.fill(0);
            }
        },
        in.model);
    const auto values = in.model.patch_embeddings(in.images, td::PatchFeatures::mask_clip);
    const auto mixed = in.model.patch_embeddings(in.images, td::PatchFeatures::clear_clip);
    const auto both = in.model.patch_embeddings(in.images, td::PatchFeatures::sclip);
    const auto plain = in.model.patch_embeddings(in.images, td::PatchFeatures::plain);
    double worst = 0, apart = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        worst = std::max(worst, std::abs(values.data()[i] - mixed.data()[i]));
        apart = std::max(apart, std::abs(both.data()[i] - plain.data()[i]));
        REQUIRE(std::isfinite(both.data()[i]));
    }
    CHECK(worst < 1e-9);
    CHECK(apart > 1e-7);
    const auto again = in.model.patch_embeddings(in.images);
    CHECK(std::ranges::equal(again.elements(), plain.elements()));
}

}  // namespace

TEST_CASE("the last block mixes patches as asked, whatever stands around its mixer") {
    using enum td::NormPosition;
    check_patches<even<pre, false, 0.0>>();
    check_patches<even<pre, true, 0.5>>();
    check_patches<even<sandwich, false, 0.5>>();
    check_patches<even<post, false, 0.0>>();
}

TEST_CASE("gradients of pixels go through convolutional towers as they infer") {
    check_pixel_gradient<residual>();
    check_pixel_gradient<inverted>();
}

TEST_CASE("padding that a tower knows has no tokens, is not attended to, and changes nothing") {
    Inputs<padded, double> in(6);
    const auto embeddings = in.model.encode_text(in.ids);
    const auto tokens = in.model.text_tokens(in.ids), normed = in.model.text_tokens(in.ids, -1, true);
    const auto weights = in.model.text_attention(in.ids, 0);
    // Caption 1 with its padding in front and between: what counts is which tokens there are, in which order.
    auto moved = in.ids;
    const td::Id first = in.ids(1, 0), second = in.ids(1, 1), end = in.ids(1, 2);
    moved[1].elements()[0] = 0;
    moved(1, 1) = first, moved(1, 2) = 0, moved(1, 3) = second, moved(1, 4) = 0, moved(1, 5) = end;
    const bool has_zero = first == 0 || second == 0;
    CHECK_FALSE(has_zero);
    const auto same = in.model.encode_text(moved);
    CHECK(std::ranges::equal(same[1].elements(), embeddings[1].elements()));
    for (std::size_t place = 0; place < 8; ++place) {
        double size = 0, sum = 0;
        for (std::size_t j = 0; j < 24; ++j) size += std::abs(tokens(1, place, j));
        for (std::size_t j = 0; j < 8; ++j) sum += weights(1, 2, place, j);
        CHECK((size > 0) == (in.ids(1, place) != 0));
        CHECK(sum == Approx(in.ids(1, place) != 0 ? 1 : 0));
    }
    CHECK(weights(1, 0, 0, 1) > 0);  // bidirectional
    CHECK(std::ranges::equal(tokens.elements(), normed.elements()));
    const auto moved_tokens = in.model.text_tokens(moved);
    CHECK(std::ranges::equal(moved_tokens[1][5].elements(), tokens[1][2].elements()));
    auto empty = in.ids;
    empty[0].elements()[0] = 0;
    std::ranges::fill(empty[0].elements(), 0);
    CHECK_THROWS_WITH(in.model.encode_text(empty), Contains("expected a caption with a token that is no padding"));
}

TEST_CASE("a patch's embedding is what the head makes of it alone") {
    Inputs<floored, double> in(3);
    const auto patches = in.model.patch_embeddings(in.images);
    const auto normed = in.model.image_tokens(in.images, -1, true);
    const auto* projection = static_cast<const double*>(nullptr);
    td::for_each_parameter(
        [&](const std::string& name, const auto& parameter) {
            if constexpr (requires { { parameter.data() } -> std::convertible_to<const double*>; }) {
                if (name == "visual.proj") projection = parameter.data();
            }
        },
        in.model);
    REQUIRE(projection != nullptr);
    for (const std::size_t patch : {std::size_t{0}, std::size_t{5}, std::size_t{15}}) {
        double row[20] = {}, length = 0;
        for (std::size_t k = 0; k < 20; ++k) {
            for (std::size_t j = 0; j < 24; ++j) row[k] += normed(2, 1 + patch, j) * projection[j * 20 + k];
            length += row[k] * row[k];
        }
        for (std::size_t k = 0; k < 20; ++k) CHECK(patches(2, patch, k) == Approx(row[k] / std::sqrt(length)).margin(1e-12));
    }
    Inputs<convolutional, float> map(2);
    const auto found = map.model.patch_embeddings(map.images);
    CHECK(found.extents() == td::Extents<3>{{2, 16, 20}});
}

TEST_CASE("tokens and attention of any layer, in any precision") {
    check_tokens<floored, float>(0);
    check_tokens<convolutional, float>(0);
    check_tokens<shared, float>(0);
    check_tokens<floored, td::bf16>(0);
    check_tokens<floored, td::int8>(0);
}

TEST_CASE("a pooled row is a row of the tokens") {
    Inputs<floored, double> in(3);
    const auto normed = in.model.text_tokens(in.ids, -1, true);
    const auto embeddings = in.model.encode_text(in.ids);
    const auto* projection = static_cast<const double*>(nullptr);
    td::for_each_parameter(
        [&](const std::string& name, const auto& parameter) {
            if constexpr (requires { { parameter.data() } -> std::convertible_to<const double*>; }) {
                if (name == "text_projection") projection = parameter.data();
            }
        },
        in.model);
    REQUIRE(projection != nullptr);
    for (std::size_t i = 0; i < 3; ++i) {
        double row[20] = {}, length = 0;
        for (std::size_t k = 0; k < 20; ++k) {
            for (std::size_t j = 0; j < 24; ++j) row[k] += normed(i, i % 6 + 1, j) * projection[j * 20 + k];
            length += row[k] * row[k];
        }
        for (std::size_t k = 0; k < 20; ++k) CHECK(embeddings(i, k) == Approx(row[k] / std::sqrt(length)).margin(1e-12));
    }
}

TEST_CASE("a layer that is not there is named") {
    const Inputs<floored, float> in(1);
    CHECK_THROWS_WITH(in.model.image_tokens(in.images, 3), "Clip::image_tokens: expected a layer from -3 to 2, found 3");
    CHECK_THROWS_WITH(in.model.text_tokens(in.ids, -4), "Clip::text_tokens: expected a layer from -3 to 2, found -4");
    CHECK_THROWS_WITH(in.model.image_attention(in.images, 2), "Clip::image_attention: expected a layer from -2 to 1, found 2");
    CHECK_THROWS_WITH(in.model.text_attention(in.ids, -3), "Clip::text_attention: expected a layer from -2 to 1, found -3");
}
