// Blocks that are computed again for their backward pass: the same gradients, whatever was asked for before.
#include <catch2/catch.hpp>

#include <cstddef>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>

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
        for (const td::Recompute recompute : {td::Recompute::blocks, td::Recompute::nothing, td::Recompute::blocks, td::Recompute::blocks}) {
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
