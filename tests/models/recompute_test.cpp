// Blocks that are computed again for their backward pass, and such as have none: the same gradients, whatever was asked for before.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/train/layer_groups.hpp>

#include "../count_flops.hpp"
#include "saved_models.hpp"

namespace td = tandem;

namespace {

/// A tower that picks its class token and drops branches and patches, beside one of a single block.
inline constexpr td::ClipConfig dropping{
    .vision = td::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 4, .heads = 2, .patch_dropout = 0.25, .drop_path_rate = 0.4},
    .text = td::TextConfig{.vocabulary = 64, .context = 12, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};
using Model = td::Clip<dropping>;

struct Pairs {
    td::Tensor<float, Model::Vision::Input::shape> images{count};
    td::Tensor<td::Id, Model::Text::Input::shape> ids{count};
    static constexpr std::size_t count = 12;

    Pairs() {
        td::Random random{td::Seed{4}};
        for (float& value : images.elements()) value = static_cast<float>(random.normal());
        ids.fill(0);
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t j = 0; j < 3 + i % 8; ++j) ids(i, j) = static_cast<td::Id>(1 + random.below(60));
            ids(i, 3 + i % 8) = 63;
        }
    }

    struct Part {
        Model::Vision::Input images;
        Model::Text::Input ids;
    };
    Part operator()(std::size_t first, std::size_t last) const { return {images.view().slice(first, last), ids.view().slice(first, last)}; }
};

void step(const Model& model, const Pairs& pairs, std::size_t part, Model& gradient, Model::Workspace& work) {
    td::zero_parameters(gradient);
    work.dropout = td::Seed{9};
    model.loss_and_gradient(Pairs::count, part, pairs, td::InfoNce{}, gradient, work);
}

}  // namespace

TEST_CASE("blocks that are computed again give the same gradients", "[models]") {
    const Model model{td::Seed{2}};
    const Pairs pairs;
    for (const std::size_t part : {Pairs::count, std::size_t{5}}) {
        CAPTURE(part);
        Model kept, gradient;
        Model::Workspace fresh, work;
        step(model, pairs, part, kept, fresh);
        // One workspace that is asked for either in turn.
        for (const td::Recompute recompute : {td::Recompute::blocks, td::Recompute::nothing, td::Recompute{1}, td::Recompute{2}, td::Recompute::blocks, td::Recompute::blocks}) {
            CAPTURE(recompute.first);
            work.recompute = recompute;
            step(model, pairs, part, gradient, work);
            check_same_bytes(kept, gradient);
        }
    }
}

TEST_CASE("a locked tower embeds, and the other one computes its blocks again", "[models]") {
    const Model model{td::Seed{2}};
    const Pairs pairs;
    for (const bool image : {true, false}) {
        CAPTURE(image);
        Model kept, gradient;
        Model::Workspace fresh, work;
        (image ? fresh.lock_image : fresh.lock_text) = (image ? work.lock_image : work.lock_text) = true;
        work.recompute = td::Recompute::blocks;
        step(model, pairs, 5, kept, fresh);
        step(model, pairs, 5, gradient, work);
        check_same_bytes(kept, gradient);
    }
}

TEST_CASE("what learns nothing is not passed back through, and changes no gradient of what is behind it", "[models]") {
    const Model model{td::Seed{2}};
    const Pairs pairs;
    Model kept;
    Model::Workspace fresh, work;
    const std::size_t most = count_flops([&] { step(model, pairs, Pairs::count, kept, fresh); });
    const td::LayerGroups groups = td::image_layer_groups(dropping);
    // The text tower's one block, and none of it: its head is what is left.
    work.text.locked = 2;
    for (const std::size_t locked : {0, 1, 2, 4, 5, 0, 3}) {
        for (const td::Recompute recompute : {td::Recompute::nothing, td::Recompute{3}, td::Recompute::blocks}) {
            CAPTURE(locked, recompute.first);
            work.vision.locked = locked;
            work.recompute = recompute;
            Model gradient;
            const std::size_t some = count_flops([&] { step(model, pairs, Pairs::count, gradient, work); });
            if (recompute == td::Recompute::nothing) CHECK(some < most);
            td::for_each_parameter(
                [&](const td::ParameterName& name, const auto& expected, const auto& found) {
                    CAPTURE(name.view());
                    const bool is_image = name.view().starts_with("visual."), is_scale = name.view().starts_with("logit_");
                    const std::size_t group = is_image ? groups.size() - 1 - groups.depth(name.view()) : 2 - td::text_layer_groups(dropping).depth(name.view());
                    const bool learns = is_scale || group >= (is_image ? locked : 2);
                    const auto has = found.elements();
                    // The norm behind the last block stands in its group, and is passed through anyway.
                    if (name.view().starts_with("visual.ln_post") || name.view().starts_with("ln_final")) return;
                    CHECK((learns ? std::ranges::equal(expected.elements(), has) : std::ranges::all_of(has, [](float g) { return g == 0; })));
                },
                std::as_const(kept), std::as_const(gradient));
        }
    }
}

TEST_CASE("a tower by itself leaves out nothing unless it is given what draws, one for each item", "[models]") {
    const Model model{td::Seed{2}};
    const Pairs pairs;
    Model::Vision::Workspace work;
    Model::Embeddings kept(Pairs::count), plain(Pairs::count);
    Model gradient;
    td::zero_parameters(gradient);
    model.visual().forward(pairs.images, kept, work, true);
    model.visual().forward(pairs.images, plain, work, false);
    CHECK(std::ranges::equal(kept.elements(), plain.elements()));
    model.visual().forward(pairs.images, kept, work, true);
    model.visual().backward(kept, work, gradient.visual());
    td::for_each_parameter(
        [&](const td::ParameterName& name, const auto& tensor) {
            CAPTURE(name.view());
            if (name.view().starts_with("visual.")) CHECK(std::ranges::any_of(tensor.elements(), [](float g) { return g != 0; }));
        },
        std::as_const(gradient));
    work.random.assign(Pairs::count - 1, td::Random(td::Seed{1}));
    CHECK_THROWS_WITH(model.visual().forward(pairs.images, kept, work, true), "VisionTransformer::forward: expected a Random for each of 12 items, or none, found 11");
    work.random.clear();
    work.locked = 1;
    model.visual().forward(pairs.images, kept, work, true);
    Model::ImageGradient pixels(Pairs::count);
    CHECK_THROWS_WITH(model.visual().backward(kept, work, gradient.visual(), pixels), Catch::Matchers::Contains("a tower without locked layers"));
}
