// A config's cost as a constant against what its model does: parameters, products, memory.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/models/zoo.hpp>

#include "../count_flops.hpp"
#include "saved_models.hpp"

namespace td = tandem;

namespace {

/// The most memory that `work` took beyond what was held before.
template <class Work>
std::size_t count_bytes(const Work& work) {
    const std::size_t before = td::held_memory();
    td::restart_peak_memory();
    work();
    return td::peak_memory() - before;
}

template <class Model>
struct Batch {
    td::Tensor<float, typename Model::Vision::Input::shape> images;
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids;

    /// Captions of `tokens` tokens each, with zeros behind.
    Batch(std::size_t count, std::size_t tokens) : images(count), ids(count) {
        images.fill(0.5F);
        ids.fill(1);
        for (std::size_t i = 0; i < count; ++i) {
            ids(i, tokens - 1) = static_cast<td::Id>(Model::architecture.text.vocabulary - 1);
            std::ranges::fill(ids[i].elements().subspan(tokens), td::Id{0});
        }
    }
};

constexpr bool is_within(double found, double expected, double share) {
    return found >= expected * (1 - share) && found <= expected * (1 + share);
}

/// Packed operands of a few products, one set a thread, come on top of what the constants count.
template <auto config>
void check_memory() {
    using Model = td::Clip<config>;
    constexpr std::size_t count = 48, tokens = config.text.context - 3;
    Model model{td::Seed{0}}, gradient;
    const Batch<Model> batch(count, tokens);
    typename Model::Embeddings embeddings(count);
    typename Model::Workspace work;
    const auto step = [&] { model.loss_and_gradient(batch.images, batch.ids, td::InfoNce{}, gradient, work); };
    const auto training = static_cast<double>(count_bytes(step));
    const double expected =
        static_cast<double>(count * sizeof(float) *
                            (td::image_cost(config).training() + td::text_cost(config, tokens).training()));
    CAPTURE(training, expected);
    CHECK(is_within(training, expected, 0.1));

    // Blocks computed again, all and some: the same gradient in less memory.
    double before = 0;
    for (const td::Recompute recompute : {td::Recompute::blocks, td::Recompute{2}, td::Recompute{1}}) {
        Model again;
        typename Model::Workspace less;
        less.recompute = recompute;
        const auto recomputed =
            static_cast<double>(count_bytes([&] { model.loss_and_gradient(batch.images, batch.ids, td::InfoNce{}, again, less); }));
        const double expected_less =
            static_cast<double>(count * sizeof(float) * (td::image_cost(config, recompute).training() +
                                                         td::text_cost(config, tokens, recompute).training()));
        CAPTURE(recompute.first, recomputed, expected_less);
        CHECK(is_within(recomputed, expected_less, 0.1));
        if (Model::recomputes_image) CHECK((before == 0 ? expected_less < 0.5 * expected : expected_less > before && expected_less < expected));
        before = expected_less;
        // Pictures that are all the same have no gradient through a batch's norm.
        check_same_bytes(gradient, again);
    }

    Model fresh{td::Seed{0}};
    // No more than a model takes at once.
    const std::size_t few = requires { config.vision.tokens(); } ? 4 : td::core_count();
    typename Model::Embeddings some(few);
    const auto image = static_cast<double>(
        count_bytes([&] { fresh.encode_image(batch.images.view().slice(0, few), some); }));
    const double expected_image = static_cast<double>(few * td::inference_bytes(config.vision));
    CAPTURE(image, expected_image);
    CHECK(is_within(image, expected_image, 0.1));
    const auto text = static_cast<double>(count_bytes([&] { fresh.encode_text(batch.ids, embeddings); }));
    const double expected_text = static_cast<double>(count * sizeof(float) * td::text_cost(config, tokens).inference);
    CAPTURE(text, expected_text);
    CHECK(is_within(text, expected_text, 0.1));
}

template <auto config>
void check() {
    using Model = td::Clip<config>;
    constexpr std::size_t count = 48, tokens = config.text.context - 3;
    Model model{td::Seed{0}};
    CHECK(td::count_parameters(model) == td::parameter_count(config));
    const Batch<Model> batch(count, tokens);
    typename Model::Embeddings embeddings(count);

    const std::size_t of_images = count_flops([&] { model.encode_image(batch.images, embeddings); });
    if constexpr (td::PicksRow<std::remove_cvref_t<decltype(config.vision.pooling)>>) {
        CHECK(of_images == count * td::image_cost(config).executed);
    } else {
        // Attention pooling projects its query once for the images it takes at a time, and the constant counts none.
        const std::size_t query = 2 * config.vision.width * config.vision.width;
        CHECK((of_images - count * td::image_cost(config).executed) % query == 0);
        CHECK((of_images - count * td::image_cost(config).executed) / query < count / 2);
    }
    CHECK(count_flops([&] { model.encode_text(batch.ids, embeddings); }) ==
          count * td::text_cost(config, tokens).executed);
    const Batch<Model> whole(2, config.text.context);
    CHECK(count_flops([&] { model.encode_text(whole.ids, embeddings.view().slice(0, 2)); }) == 2 * td::text_cost(config).executed);

    check_memory<config>();
}

inline constexpr td::ClipConfig plain{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3},
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3},
    .embedding = 128};

inline constexpr td::ClipConfig modern{
    .vision = td::VitConfig{.image = {64, 80}, .patch = 8, .width = 192, .layers = 6, .heads = 4, .head_width = 64, .kv_heads = 2,
                            .mlp_ratio = 2.0, .class_token = false, .reg_tokens = 4, .pos_embed_type = td::PosEmbed::rotary,
                            .qk_norm = true, .ls_init_value = 0.1, .norm = td::RmsNorm{}, .activation = td::Silu{},
                            .mlp = td::GatedMlp{}, .pooling = td::AttentionPool{}, .stem = td::ConvStem{}},
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 128, .layers = 5, .heads = 2, .causal = false,
                           .norm_position = td::NormPosition::sandwich, .drop_path_rate = 0.1, .pooling = td::Average{}},
    .embedding = 128};

inline constexpr td::ClipConfig parallel{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 128, .layers = 6, .heads = 2,
                            .norm_position = td::NormPosition::post},
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3, .parallel = true},
    .embedding = 128};

/// Training has every caption twice.
inline constexpr td::ClipConfig masked{
    .vision = plain.vision,
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3, .causal = false, .pad_id = 0,
                           .masked_language = {.share = 0.15, .mask = 2}},
    .embedding = 128};

inline constexpr td::ClipConfig residual{td::ResNetConfig{.image = 160, .layers = {2, 1, 3, 1}, .width = 32}, plain.text, 64};
inline constexpr td::ClipConfig scaled{
    td::EfficientNetConfig{.image = 161, .width_coefficient = 0.5, .depth_coefficient = 0.6}, plain.text, 160};

}  // namespace

TEST_CASE("the cost of a plain model") { check<plain>(); }
TEST_CASE("the cost of a modern model") { check<modern>(); }
TEST_CASE("the cost of post-norm and parallel blocks") { check<parallel>(); }

TEST_CASE("the memory of masked language") { check_memory<masked>(); }

TEST_CASE("the memory of convolutional towers") {
    check_memory<residual>();
    check_memory<scaled>();
}

TEST_CASE("describe adds up, and gives the constant back") {
    td::Cost sum;
    for (const td::PartCost& part : td::cost_by_part(modern)) {
        if (part.depth == 0) sum = sum + part.cost;
    }
    CHECK(sum == td::detail::whole_cost(modern));
    CHECK(td::constant_text(plain.vision) ==
          "td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3}");
    CHECK(td::constant_text(modern.vision).starts_with("td::VitConfig{.image = {64, 80}, .patch = 8, "));
    CHECK(td::constant_text(modern.text) ==
          "td::TextConfig{.vocabulary = 4096, .context = 32, .width = 128, .layers = 5, .heads = 2, .causal = false, "
          ".norm_position = td::NormPosition::sandwich, .drop_path_rate = 0.1, .pooling = td::Average{}}");
    CHECK(td::describe<td::vit_b_32>().find("151277313") != std::string::npos);
}
