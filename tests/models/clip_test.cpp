// Models as values: bits that do not depend on the batch, bfloat16, checkpoints, initialisation.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include <tandem/models/check_gradients.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>

#include "../kernels/isas.hpp"
#include "saved_models.hpp"

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

inline constexpr td::ClipConfig small{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 48, .layers = 2, .heads = 3, .activation = td::QuickGelu{}},
    .text = td::TextConfig{.vocabulary = 40, .context = 9, .width = 32, .layers = 2, .heads = 2, .activation = td::QuickGelu{}},
    .embedding = 24};
inline constexpr td::ClipConfig wider{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 48, .layers = 2, .heads = 3},
    .text = td::TextConfig{.vocabulary = 41, .context = 9, .width = 32, .layers = 1, .heads = 2},
    .embedding = 24,
    .logit_bias = true};
using Model = td::Clip<small>;

struct Batch {
    td::Tensor<float, Model::Vision::Input::shape> images;
    td::Tensor<td::Id, Model::Text::Input::shape> ids;

    explicit Batch(std::size_t count) : images(count), ids(count) {
        td::Random random{td::Seed{5}};
        for (float& pixel : images.elements()) pixel = static_cast<float>(random.normal());
        for (std::size_t i = 0; i < count; ++i) {
            ids(i, 0) = 38;
            for (std::size_t j = 1; j <= i % 7; ++j) ids(i, j) = static_cast<td::Id>(random.below(38));
            ids(i, i % 7 + 1) = 39;
        }
    }
};

}  // namespace

TEST_CASE("an item's embedding has the same bits in any batch and at any position") {
    const Model model{td::Seed{3}};
    const Batch batch(21);
    const auto images = model.encode_image(batch.images);
    const auto texts = model.encode_text(batch.ids);
    for (std::size_t i = 0; i < 21; ++i) {
        const auto image = model.encode_image(batch.images.view().slice(i, i + 1));
        const auto text = model.encode_text(batch.ids.view().slice(i, i + 1));
        CHECK(std::equal(image.elements().begin(), image.elements().end(), images[i].elements().begin()));
        CHECK(std::equal(text.elements().begin(), text.elements().end(), texts[i].elements().begin()));
    }
}

TEST_CASE("what stands behind the end-of-text token does not matter to a causal tower") {
    const Model model{td::Seed{3}};
    Batch batch(7);
    const auto before = model.encode_text(batch.ids);
    for (std::size_t i = 0; i < 7; ++i) {
        for (std::size_t j = i % 7 + 2; j < 9; ++j) batch.ids(i, j) = 17;
    }
    const auto after = model.encode_text(batch.ids);
    CHECK(std::equal(before.elements().begin(), before.elements().end(), after.elements().begin()));
}

inline constexpr td::ClipConfig chosen{
    .vision = td::VitConfig{.image = 16, .patch = 8, .width = 32, .layers = 2, .heads = 4, .kv_heads = 2, .class_token = false,
                            .reg_tokens = 2, .pos_embed_type = td::PosEmbed::rotary, .qk_norm = true, .ls_init_value = 0.5,
                            .norm = td::RmsNorm{}, .activation = td::Silu{}, .mlp = td::GatedMlp{},
                            .pooling = td::AttentionPool{}, .stem = td::ConvStem{}},
    .text = td::TextConfig{.vocabulary = 40, .context = 9, .width = 32, .layers = 2, .heads = 2,
                           .norm_position = td::NormPosition::post, .activation = td::SquaredRelu{}},
    .embedding = 16};

/// Blocks of one norm, in a tower that pools one row of its last block, with layer scale.
inline constexpr td::ClipConfig parallel{
    .vision = td::VitConfig{.image = 16, .patch = 4, .width = 48, .layers = 2, .heads = 3, .parallel = true, .ls_init_value = 0.5},
    .text = td::TextConfig{.vocabulary = 40, .context = 9, .width = 32, .layers = 2, .heads = 2, .parallel = true},
    .embedding = 24};

template <auto config, class T>
void check_lower_precision() {
    const float bar = std::is_same_v<T, td::int8> ? 0.99F : 0.9999F;
    const Folder folder;
    const td::Clip<config> model{td::Seed{3}};
    td::save_weights(model, folder / "model.safetensors");
    const auto rounded = td::load<config, T>(folder / "model.safetensors");
    td::Random random{td::Seed{5}};
    const td::detail::RandomPairs<td::Clip<config>> batch(random);
    const auto a = model.encode_image(batch.images), b = rounded.encode_image(batch.images);
    const auto c = model.encode_text(batch.ids), d = rounded.encode_text(batch.ids);
    for (std::size_t i = 0; i < batch.count; ++i) {
        CHECK(td::evaluate(td::sum(a[i] * b[i])).item() >= bar);
        CHECK(td::evaluate(td::sum(c[i] * d[i])).item() >= bar);
        // An item's bits do not depend on its batch.
        const auto image = rounded.encode_image(batch.images.view().slice(i, i + 1));
        const auto text = rounded.encode_text(batch.ids.view().slice(i, i + 1));
        CHECK(std::equal(image.elements().begin(), image.elements().end(), b[i].elements().begin()));
        CHECK(std::equal(text.elements().begin(), text.elements().end(), d[i].elements().begin()));
    }
    // What it saves, it loads again.
    td::save_weights(rounded, folder / "rounded.safetensors");
    const auto again = td::load<config, T>(folder / "rounded.safetensors").encode_image(batch.images);
    CHECK(td::evaluate(td::sum(again[0] * b[0])).item() >= 0.9999F);
}

TEMPLATE_TEST_CASE("a model of lower precision keeps the direction of its embeddings", "[models]", td::bf16, td::int8) {
    check_lower_precision<small, TestType>();
    check_lower_precision<chosen, TestType>();
    check_lower_precision<parallel, TestType>();
}

TEST_CASE("models of lower precision under every instruction set that multiplies pairs", "[models]") {
    if (std::getenv("TANDEM_ISA") != nullptr) return;  // the runs that this test starts
    for (const auto isa : isas_with_pairs()) {
        CAPTURE(std::string(name_of(isa)));
        CHECK(run_with_isa(std::string(name_of(isa)), "a model of lower precision*") == 0);
    }
}

TEST_CASE("weights survive saving and loading to the bit, also with prefixes") {
    const Folder folder;
    const Model model{td::Seed{3}};
    td::save_weights(model, folder / "model.safetensors");
    CHECK(same_bits(td::load<small>(folder / "model.safetensors"), model));
    CHECK(same_bits(td::load<small>(folder.path()), model));

    const td::Safetensors file = td::Safetensors::open(folder / "model.safetensors");
    std::vector<td::StoredTensor> renamed(file.tensors().begin(), file.tensors().end());
    for (td::StoredTensor& tensor : renamed) tensor.name = "module." + tensor.name;
    td::save_safetensors(folder / "prefixed.safetensors", renamed);
    CHECK(same_bits(td::load<small>(folder / "prefixed.safetensors"), model));

    renamed.assign(file.tensors().begin(), file.tensors().end());
    for (td::StoredTensor& tensor : renamed) {
        if (!tensor.name.starts_with("visual.") && tensor.name != "logit_scale") tensor.name = "text." + tensor.name;
    }
    td::save_safetensors(folder / "custom.safetensors", renamed);
    CHECK(same_bits(td::load<small>(folder / "custom.safetensors"), model));
}

TEST_CASE("a fixed table of positions in a checkpoint is not asked for, a learned one is not passed over") {
    static constexpr auto with_positions = [](td::PosEmbed positions) {
        td::ClipConfig config = small;
        config.vision.pos_embed_type = positions;
        return config;
    };
    const Folder folder;
    td::save_weights(td::Clip<small>{td::Seed{3}}, folder / "learned.safetensors");
    td::Clip<with_positions(td::PosEmbed::sin_cos_2d)> fixed;
    td::load_weights(fixed, folder / "learned.safetensors");
    td::Clip<with_positions(td::PosEmbed::rotary)> rotary;
    CHECK_THROWS_WITH(td::load_weights(rotary, folder / "learned.safetensors"),
                      Contains("visual.positional_embedding: unexpected"));
}

TEST_CASE("a checkpoint that does not fit is refused whole, every fault named") {
    const Folder folder;
    td::save_weights(td::Clip<wider>{td::Seed{1}}, folder / "other.safetensors");
    Model model{td::Seed{3}};
    const Model before = model;
    std::string message;
    try {
        td::load_weights(model, folder / "other.safetensors");
    } catch (const td::Error& error) {
        message = error.what();
    }
    CHECK_THAT(message, Contains("other.safetensors: the checkpoint does not fit the model:") &&
                            Contains("\n  token_embedding.weight: expected [40, 32], found [41, 32]") &&
                            Contains("\n  transformer.resblocks.1.ln_1.weight: missing") &&
                            Contains("\n  logit_bias: unexpected"));
    CHECK(same_bits(model, before));
}

TEST_CASE("initialisation has OpenAI's deviations and depends on the seed alone") {
    const Model model{td::Seed{3}};
    CHECK(same_bits(model, Model{td::Seed{3}}));
    CHECK_FALSE(same_bits(model, Model{td::Seed{4}}));
    std::map<std::string, double> deviation;
    td::for_each_parameter(
        [&](const std::string& name, const auto& tensor) {
            double squares = 0;
            for (const float x : tensor.elements()) squares += static_cast<double>(x) * static_cast<double>(x);
            deviation[name] = std::sqrt(squares / static_cast<double>(tensor.size()));
        },
        model);
    // Half a percent to five percent of sampling error, by the size of the tensor.
    CHECK(deviation["transformer.resblocks.0.attn.in_proj_weight"] == Approx(std::pow(32, -0.5)).epsilon(0.05));
    CHECK(deviation["transformer.resblocks.1.attn.out_proj.weight"] == Approx(std::pow(32 * 4, -0.5)).epsilon(0.08));
    CHECK(deviation["transformer.resblocks.0.mlp.c_fc.weight"] == Approx(std::pow(64, -0.5)).epsilon(0.05));
    CHECK(deviation["visual.transformer.resblocks.0.mlp.c_proj.weight"] == Approx(std::pow(48 * 4, -0.5)).epsilon(0.05));
    CHECK(deviation["token_embedding.weight"] == Approx(0.02).epsilon(0.08));
    CHECK(deviation["positional_embedding"] == Approx(0.01).epsilon(0.15));
    CHECK(deviation["visual.proj"] == Approx(std::pow(48, -0.5)).epsilon(0.08));
    CHECK(deviation["transformer.resblocks.0.attn.in_proj_bias"] == 0.0);
    CHECK(deviation["ln_final.weight"] == 1.0);
    CHECK(deviation["logit_scale"] == Approx(std::log(1 / 0.07)));
}

TEST_CASE("an id outside the vocabulary and unequal halves of a batch are errors") {
    const Model model{td::Seed{3}};
    Batch batch(3);
    batch.ids(1, 1) = 40;
    CHECK_THROWS_WITH(model.encode_text(batch.ids), "token_embedding: expected ids below the vocabulary of 40, found 40");
    Model gradient;
    Model::Workspace work;
    CHECK_THROWS_WITH(model.loss_and_gradient(batch.images, Batch(2).ids, td::InfoNce{}, gradient, work),
                      Contains("expected 3 images and as many captions, found 3 and 2"));
}
