#include <tandem/tandem.hpp>

namespace td = tandem;

template <auto config>
float first_cosine() {
    using Model = td::Clip<config>;
    const Model model{td::Seed{0}};
    const td::Tensor<float, typename Model::Vision::Input::shape> images(1);
    const td::Tensor<td::Id, typename Model::Text::Input::shape> ids(1);
    return td::similarity(model.encode_image(images), model.encode_text(ids))(0, 0);
}

int main() {
    return first_cosine<td::vit_b_32>() + first_cosine<td::vit_b_16>() + first_cosine<td::vit_l_14>() +
                       first_cosine<td::vit_l_14_336>() + first_cosine<td::vit_h_14>() + first_cosine<td::vit_g_14>() +
                       first_cosine<td::vit_bigg_14>() >
                   0
               ? 0
               : 1;
}
