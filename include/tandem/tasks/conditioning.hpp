// What image generators read of a CLIP: hidden states of prompts, noised embeddings. Language models read patches behind a Head.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/tokenizer.hpp>

namespace tandem::inline TANDEM_ABI {

/// Of prompts, what a UNet's cross attention reads, and what stands for each as a whole.
struct PromptCondition {
    std::size_t prompts = 0, tokens = 0, width = 0, pooled_width = 0;
    std::vector<float> embeds;  ///< [prompts, tokens, width]
    std::vector<float> pooled;  ///< [prompts, pooled_width]; empty where the generator has none
};

/// Stable Diffusion 1 and 2: the hidden states of every place of the context behind the text tower's last norm; `clip_skip` leaves
/// out as many of the last blocks (diffusers 0.42, stable_diffusion/pipeline_stable_diffusion.py, encode_prompt; of negative prompts,
/// which are "" where none is given, it leaves out none). The model is an AnyClip or a Clip whose text tower the generator's is; its
/// tokenizer pads as its own config says. Throws Error without prompts, and where so many blocks are not there.
template <class Model>
PromptCondition stable_diffusion_condition(const Model& text_encoder, const Tokenizer auto& tokenizer, std::span<const std::string> prompts,
                                           std::size_t clip_skip = 0);

/// Stable Diffusion XL: the hidden states before the last block of both text towers, side by side, and the second one's embedding, which
/// is not normalised; `clip_skip` leaves out as many blocks more (diffusers 0.42, stable_diffusion_xl/pipeline_stable_diffusion_xl.py,
/// encode_prompt; of negative prompts none, and for a negative prompt that is not given all is 0 with the published weights).
template <class First, class Second>
PromptCondition sdxl_condition(const First& text_encoder, const Tokenizer auto& tokenizer, const Second& text_encoder_2,
                               const Tokenizer auto& tokenizer_2, std::span<const std::string> prompts, std::size_t clip_skip = 0);

/// The noise that is added to embeddings in training, step by step: the share of the signal's variance that is left after each of the steps
/// ("squaredcos_cap_v2" of diffusers 0.42, schedulers/scheduling_ddpm.py, betas_for_alpha_bar).
std::vector<double> cosine_alphas(std::size_t steps = 1000);

/// Stable unCLIP: an image's embedding, not normalised, standardised by mean and deviation, noised as after `level` steps with a standard
/// normal `noise`, brought back, and followed by the sinusoids of the level, <2 · width> (diffusers 0.42,
/// stable_diffusion/pipeline_stable_unclip_img2img.py, noise_image_embeddings). Throws Error for sizes that differ, an odd width,
/// and a level that is none of the steps.
std::vector<float> unclip_condition(std::span<const float> embedding, std::span<const float> noise, std::span<const float> mean,
                                    std::span<const float> deviation, std::size_t level, std::span<const double> alphas);

namespace detail {

/// The context's length of a model.
template <class Model>
std::size_t prompt_context(const Model& model) {
    if constexpr (requires { model.sizes().context; }) {
        return model.sizes().context;
    } else {
        return Model::Text::context;
    }
}

/// text_tokens or encode_text of a Clip or an AnyClip.
template <class Model, class Call>
auto with_prompts(const Model& model, const Tokenizer auto& tokenizer, std::span<const std::string> prompts, const Call& call) {
    if (prompts.empty()) throw Error("a condition", "a prompt", "none");
    const std::vector<Id> ids = tokenizer.encode_batch(prompts, prompt_context(model));
    if constexpr (requires { model.sizes(); }) {
        return call(std::span<const Id>(ids));
    } else {
        return call(typename Model::Text::Input(std::span<const Id>(ids), prompts.size()));
    }
}

}  // namespace detail

template <class Model>
PromptCondition stable_diffusion_condition(const Model& text_encoder, const Tokenizer auto& tokenizer, std::span<const std::string> prompts,
                                           std::size_t clip_skip) {
    const auto tokens = detail::with_prompts(text_encoder, tokenizer, prompts, [&](const auto& ids) {
        return text_encoder.text_tokens(ids, -1 - static_cast<int>(clip_skip), true);
    });
    return {.prompts = prompts.size(),
            .tokens = tokens.extent(1),
            .width = tokens.extent(2),
            .embeds = {tokens.data(), tokens.data() + tokens.size()},
            .pooled = {}};
}

template <class First, class Second>
PromptCondition sdxl_condition(const First& text_encoder, const Tokenizer auto& tokenizer, const Second& text_encoder_2,
                               const Tokenizer auto& tokenizer_2, std::span<const std::string> prompts, std::size_t clip_skip) {
    const int layer = -2 - static_cast<int>(clip_skip);
    const auto first = detail::with_prompts(text_encoder, tokenizer, prompts, [&](const auto& ids) { return text_encoder.text_tokens(ids, layer); });
    const auto second = detail::with_prompts(text_encoder_2, tokenizer_2, prompts, [&](const auto& ids) { return text_encoder_2.text_tokens(ids, layer); });
    const auto pooled = detail::with_prompts(text_encoder_2, tokenizer_2, prompts, [&](const auto& ids) { return text_encoder_2.encode_text(ids, false); });
    if (first.extent(1) != second.extent(1))
        throw Error("sdxl_condition", "two text towers of one context", std::to_string(first.extent(1)) + " and " + std::to_string(second.extent(1)));
    PromptCondition found{.prompts = prompts.size(),
                          .tokens = first.extent(1),
                          .width = first.extent(2) + second.extent(2),
                          .pooled_width = pooled.extent(1),
                          .embeds = {},
                          .pooled = {pooled.data(), pooled.data() + pooled.size()}};
    for (std::size_t row = 0; row < found.prompts * found.tokens; ++row) {
        const auto append = [&](const auto& tokens) {
            const float* const from = tokens.data() + row * tokens.extent(2);
            found.embeds.insert(found.embeds.end(), from, from + tokens.extent(2));
        };
        append(first);
        append(second);
    }
    return found;
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/conditioning.impl.hpp>
#endif
