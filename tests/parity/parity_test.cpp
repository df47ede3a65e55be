// One fixture of make_fixtures.py against the library: embeddings, loss, every gradient, twenty steps of AdamW.
//   parity_test FIXTURE.safetensors       built with -DTANDEM_FIXTURE_HEADER="..." from fixture_header.py
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/train/optimizer.hpp>

#include TANDEM_FIXTURE_HEADER

namespace td = tandem;
using Model = td::Clip<fixture>;

namespace {

constexpr double embedding_bar = 1e-5;
constexpr double gradient_bar = 1e-4;
constexpr double loss_bar = 1e-4;

int failures = 0;

/// Not "value > bar": a NaN must fail.
void check(const std::string& what, double value, double bar) {
    const bool passed = value <= bar;
    if (!passed) ++failures;
    if (!passed || what.find('.') == std::string::npos) {
        std::printf("%-60s %.3g (bar %.0e)%s\n", what.c_str(), value, bar, passed ? "" : "  FAILED");
    }
}

std::filesystem::path temporary_file() {
    return std::filesystem::temp_directory_path() / ("tandem-parity-" + std::to_string(::getpid()) + ".safetensors");
}

/// The tensors of the fixture below a prefix, without it.
std::vector<td::StoredTensor> part_of(const td::Safetensors& file, const std::string& prefix) {
    std::vector<td::StoredTensor> part;
    for (td::StoredTensor tensor : file.tensors()) {
        if (!tensor.name.starts_with(prefix)) continue;
        tensor.name.erase(0, prefix.size());
        part.push_back(tensor);
    }
    return part;
}

/// Loaded under the library's key maps, as a checkpoint of their own.
void load_part(const td::Safetensors& file, const std::string& prefix, Model& model) {
    td::save_safetensors(temporary_file(), part_of(file, prefix));
    td::load_weights(model, temporary_file());
    std::filesystem::remove(temporary_file());
}

/// What the library saves is, name by name and byte by byte, the state_dict that open_clip's model was saved from: so it
/// loads there with strict=True.
void check_saved(const td::Safetensors& file, const Model& model) {
    const std::vector<td::StoredTensor> expected = part_of(file, "weights/");
    td::save_weights(model, temporary_file());
    const td::Safetensors saved = td::Safetensors::open(temporary_file());
    std::size_t different = saved.tensors().size() == expected.size() ? 0 : 1;
    for (const td::StoredTensor& tensor : expected) {
        const td::StoredTensor* found = saved.find(tensor.name);
        if (found == nullptr || found->type != tensor.type || found->shape != tensor.shape ||
            !std::ranges::equal(found->data, tensor.data)) {
            std::printf("saved %s differs\n", tensor.name.c_str());
            ++different;
        }
    }
    check("saved tensors that differ from open_clip's", static_cast<double>(different), 0);
    std::filesystem::remove(temporary_file());
}

template <class Tensor>
void read(const td::Safetensors& file, const char* name, Tensor& tensor) {
    const td::StoredTensor* stored = file.find(name);
    if (stored == nullptr) throw td::Error(name, "missing from the fixture");
    td::read_elements(*stored, tensor.elements());
}

template <class Tensor>
double largest_difference(const Tensor& a, const Tensor& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]));
        largest = difference <= largest ? largest : difference;  // keeps a NaN
    }
    return largest;
}

/// ‖a − b‖ / ‖b‖ without the elements [first, last).
template <class Tensor>
double relative_difference(const Tensor& a, const Tensor& b, std::size_t first, std::size_t last) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (i >= first && i < last) continue;
        const double x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    return difference == 0 ? 0 : std::sqrt(difference / norm);
}

/// The largest difference beside the largest element: hidden states are of any size.
template <class Tensor>
double largest_relative_difference(const Tensor& a, const Tensor& b) {
    double largest = 0;
    for (std::size_t i = 0; i < b.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(b.data()[i])));
    return largest_difference(a, b) / largest;
}

/// Hidden states, attention and the pixels' gradient, as transformers has them.
template <class Images, class Ids>
void check_outputs(const td::Safetensors& file, const Model& model, const Images& images, const Ids& ids) {
    const auto agrees = [&](const std::string& name, const auto& found) {
        std::remove_cvref_t<decltype(found)> expected(fixture_batch);
        read(file, ("output/" + name).c_str(), expected);
        check(name + ", max |difference| / max", largest_relative_difference(found, expected), embedding_bar);
    };
    agrees("image_tokens", model.image_tokens(images, -2));
    agrees("text_tokens", model.text_tokens(ids, -2));
    agrees("text_tokens_normed", model.text_tokens(ids, -1, true));
    agrees("image_attention", model.image_attention(images));
    agrees("text_attention", model.text_attention(ids, 0));
    agrees("patches_plain", model.patch_embeddings(images));
    agrees("patches_mask_clip", model.patch_embeddings(images, td::PatchFeatures::mask_clip));
    agrees("patches_sclip", model.patch_embeddings(images, td::PatchFeatures::sclip));
    agrees("patches_clear_clip", model.patch_embeddings(images, td::PatchFeatures::clear_clip));
    const Model::Embeddings text = model.encode_text(ids);
    Images gradient;
    td::Tensor<float, td::Shape<>> expected;
    read(file, "output/similarity", expected);
    const float similarity = model.image_gradient(images, [&](auto image) { return td::sum(image * text); }, gradient);
    check("similarity, |difference|", std::abs(static_cast<double>(similarity) - static_cast<double>(expected.item())), 1e-5);
    agrees("image_relevance", model.image_relevance(images, [&](auto image) { return td::sum(image * text); }));
    Images expected_gradient(fixture_batch);
    read(file, "output/image_gradient", expected_gradient);
    check("image_gradient, relative L2 difference", relative_difference(gradient, expected_gradient, 0, 0), gradient_bar);
}

/// The batch norm behind the next convolution takes out what the bias of an EfficientNet's block adds, but for the last one's.
template <class Tower>
bool is_of_last_block(const Tower& tower, const std::string& name) {
    std::size_t blocks = 0;
    if constexpr (std::is_same_v<Tower, td::EfficientNetConfig>) tower.for_each_block([&](const auto&) { ++blocks; });
    return name.find("blocks." + std::to_string(blocks - 1) + ".") != std::string::npos;
}

/// Where in a parameter of `size` elements a key bias stands that is neither normed nor rotated, and so has no gradient.
std::pair<std::size_t, std::size_t> key_bias(const std::string& name, std::size_t size) {
    if (name.ends_with("pool.kv.bias")) return {0, size / 2};
    if (name.ends_with("attnpool.k_proj.bias")) return {0, size};
    if (name.ends_with("project_bn.bias") && !is_of_last_block(fixture.vision, name)) return {0, size};
    const bool is_image = name.starts_with("visual.");
    const auto of_tower = [](const auto& tower, const auto& ask) {
        if constexpr (requires { tower.block_shape(); }) {
            return ask(tower);
        } else {
            return decltype(ask(fixture.text)){};
        }
    };
    const auto shape_of = [](const auto& tower) { return tower.block_shape(); };
    const auto is_normed_in = [](const auto& tower) { return tower.qk_norm; };
    const auto rotates_in = [](const auto& tower) { return tower.pos_embed_type == td::PosEmbed::rotary; };
    const auto ask = [&](const auto& question) {
        return is_image ? of_tower(fixture.vision, question) : of_tower(fixture.text, question);
    };
    const td::BlockShape shape = ask(shape_of);
    const bool is_normed = ask(is_normed_in);
    const bool rotates = fixture.shared ? of_tower(fixture.vision, rotates_in) || of_tower(fixture.text, rotates_in) : ask(rotates_in);
    if (name.ends_with("ln_k.bias") && !rotates) return {0, size};
    if (!name.ends_with("in_proj_bias") || is_normed || rotates) return {0, 0};
    return {shape.heads * shape.head_width, (shape.heads + shape.kv_heads) * shape.head_width};
}

void run(const char* path) {
    const td::Safetensors file = td::Safetensors::open(path);
    Model model;
    load_part(file, "weights/", model);
    const bool is_native = file.find("weights/visual.conv1.weight") != nullptr && file.find("weights/text.proj.0.weight") == nullptr;
    if (is_native) check_saved(file, model);
    td::Tensor<float, Model::Vision::Input::shape> images(fixture_batch);
    td::Tensor<td::Id, Model::Text::Input::shape> ids(fixture_batch);
    read(file, "input/image", images);
    read(file, "input/tokens", ids);

    Model::Embeddings expected_image(fixture_batch), expected_text(fixture_batch);
    read(file, "embedding/image", expected_image);
    read(file, "embedding/text", expected_text);
    check("image embeddings, max |difference|", largest_difference(model.encode_image(images), expected_image), embedding_bar);
    check("text embeddings, max |difference|", largest_difference(model.encode_text(ids), expected_text), embedding_bar);

    if constexpr (fixture_has_outputs) check_outputs(file, model, images, ids);

    Model gradient, expected_gradient;
    Model::Workspace work;
    const auto step = [&] {
        td::zero_parameters(gradient);
        if constexpr (fixture_siglip) {
            return model.loss_and_gradient(images, ids, td::SigmoidLoss{}, gradient, work);
        } else {
            return model.loss_and_gradient(images, ids, td::InfoNce{}, gradient, work);
        }
    };
    td::Tensor<float, td::Shape<>> expected_loss;
    read(file, "loss", expected_loss);
    check("loss, |difference|", std::abs(static_cast<double>(step()) - static_cast<double>(expected_loss.item())), loss_bar);

    load_part(file, "gradient/", expected_gradient);
    double worst = 0;
    td::for_each_parameter(
        [&](const std::string& name, const auto& found_parameter, const auto& expected_parameter) {
            const auto &found = td::to_row_major(found_parameter), &expected = td::to_row_major(expected_parameter);
            // softmax cannot see a key bias: its gradient is exactly 0, and what both sides hold is rounding noise.
            const auto [first, last] = key_bias(name, found.size());
            const double difference = relative_difference(found, expected, first, last);
            for (std::size_t i = first; i < last; ++i) {
                check("noise of " + name, std::abs(static_cast<double>(found.data()[i])), 1e-6);
            }
            check(name, difference, gradient_bar);
            worst = difference <= worst ? worst : difference;
        },
        gradient, expected_gradient);
    check("gradients, worst relative L2 difference", worst, gradient_bar);

    td::Tensor<float, td::Shape<20>> expected_losses;
    read(file, "adamw/losses", expected_losses);
    const td::AdamW optimizer{.rate = 1e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2};
    td::AdamW::State<Model> state;
    double drift = 0;
    for (std::size_t i = 0; i < 20; ++i) {
        const double difference = std::abs(static_cast<double>(step()) - static_cast<double>(expected_losses(i)));
        drift = difference <= drift ? drift : difference;
        optimizer.update(model, gradient, state, optimizer.rate);
        model.clamp_logit_scale();
    }
    check("losses of 20 AdamW steps, max |difference|", drift, loss_bar);
    if (file.find("adamw/image") != nullptr) {
        // By the running means, which the steps have moved as well. AdamW moves a weight by about the rate however small its
        // gradient: what rounding decides there is up to 20 * 1e-3 in a weight; a mean that is not moved shows as 0.1 and more.
        read(file, "adamw/image", expected_image);
        check("image embeddings after them, max |difference|", largest_difference(model.encode_image(images), expected_image), 1e-3);
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fprintf(stderr, "parity_test FIXTURE.safetensors\n");
        return 2;
    }
    try {
        std::printf("%s (%s)\n", fixture_name, fixture_library);
        run(arguments[1]);
    } catch (const td::Error& error) {
        std::printf("%s\n", error.what());
        return 1;
    }
    return failures == 0 ? 0 : 1;
}
