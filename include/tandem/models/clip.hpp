// The model: two towers, one space, and a training step through both.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <future>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/losses/rules.hpp>
#include <tandem/models/batch_parts.hpp>
#include <tandem/models/config.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/part_rules.hpp>
#include <tandem/models/text.hpp>
#include <tandem/models/vit.hpp>
#include <tandem/nn/normalize.hpp>
#include <tandem/tensor/argument.hpp>
#include <tandem/tensor/gradient.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The types of a model's towers. A tower of a user's own knows nothing of blocks.
template <Arithmetic T, auto config>
struct TowerTypes {
    static constexpr bool shared = config.shared && blocks_agree<config>();

    static constexpr BlockShape shape_of(const auto& tower) {
        if constexpr (shared) {
            return shared_shape(config);
        } else if constexpr (requires { tower.block_shape(); }) {
            return tower.block_shape();
        } else {
            return {};
        }
    }

    template <auto tower, auto... blocks>
    static auto type_of() {
        using Config = decltype(tower);
        if constexpr (requires { tower.block_shape(); }) {
            return std::type_identity<typename Config::template Tower<T, tower, config.embedding, blocks...>>{};
        } else {
            return std::type_identity<typename Config::template Tower<T, tower, config.embedding>>{};
        }
    }

    using Vision = typename decltype(type_of<config.vision, shape_of(config.vision)>())::type;
    using Text = typename decltype(type_of<config.text, shape_of(config.text), !shared>())::type;
};

/// Whether the blocks of a tower attend.
template <class Tower>
concept Attends = requires { &Tower::Blocks::Layer::Mixer::weights; };

/// Whether the last block of a tower can mix its patches otherwise.
template <class Tower>
concept MixesPatches = requires { requires Tower::Blocks::Layer::Mixer::mixes_patches; };

/// Of a model that is asked for PatchFeatures.
template <bool mixes>
struct PatchRules {
    static_assert(mixes, "tandem: PatchFeatures need blocks that attend, with as many heads of keys as of queries (heads == kv_heads)");
};

/// Of a model that is asked for attention maps.
template <bool has_weights>
struct AttentionRules {
    static_assert(has_weights, "tandem: attention maps need blocks that attend: this mixer has no weights()");
};

}  // namespace detail

/// A CLIP of the architecture `config`, with elements of type T. Clip<config> trains in float32; Clip<config, double>
/// in double; Clip<config, amp_bf16> in float32 with products of bfloat16, where the CPU multiplies it faster than float32.
/// Clip<config, bf16> keeps its matrices in bfloat16 (products sum in float32, their input rounded likewise on such CPUs),
/// Clip<config, int8> in bytes (products round their input likewise, and sum exactly); these two only infer.
template <auto config, Arithmetic T = float>
class Clip {
    // First, so that an error that a config is refused with stands in nothing but this class.
    static_assert(sizeof(detail::rules_of<config.vision, config.embedding>(0)) > 0);
    static_assert(sizeof(detail::rules_of<config.text, config.embedding>(0)) > 0);
    static_assert(sizeof(detail::ClipRules<!config.shared || detail::blocks_agree<config>()>) > 0);
    using VisionParts = detail::TowerParts<T, config.vision, detail::TowerTypes<T, config>::shape_of(config.vision)>;
    using TextParts = detail::TowerParts<T, config.text, detail::TowerTypes<T, config>::shape_of(config.text)>;
    static_assert(sizeof(typename VisionParts::Mixer) + sizeof(typename VisionParts::Mlp) > 0);
    static_assert(sizeof(typename VisionParts::Norm) + sizeof(typename VisionParts::Pooling) > 0);
    static_assert(sizeof(typename VisionParts::Stem) + sizeof(typename VisionParts::Activation) > 0);
    static_assert(sizeof(typename TextParts::Mixer) + sizeof(typename TextParts::Mlp) > 0);
    static_assert(sizeof(typename TextParts::Norm) + sizeof(typename TextParts::Pooling) > 0);
    static_assert(sizeof(typename TextParts::Activation) > 0);

public:
    static constexpr auto architecture = config;
    static constexpr std::size_t embedding = config.embedding;
    using element = T;
    using C = Compute<T>;
    using Vision = typename detail::TowerTypes<T, config>::Vision;
    using Text = typename detail::TowerTypes<T, config>::Text;
    using ImageInput = Argument<typename Vision::Input>;
    using TextInput = Argument<typename Text::Input>;
    using ImageGradient = Tensor<C, typename Vision::Input::shape>;
    using Embeddings = Tensor<C, Shape<dynamic, embedding>>;
    static constexpr bool trains = Trainable<T>;

    /// All memory of a training step but the gradients; reused from step to step.
    struct Workspace {
        typename Vision::Workspace vision;
        typename Text::Workspace text;
        Embeddings image_embeddings, text_embeddings;           ///< of length 1, as long as the loss needs them
        Tensor<C, Shape<dynamic>> image_lengths, text_lengths;  ///< what they were divided by
        Tensor<C, Shape<>> scale;                               ///< the exponential of the logit scale
        Seed dropout{};  ///< decides what the config's dropouts leave out; a trainer sets it for every step
        /// A locked tower embeds as in inference and has no gradient: it costs no backward pass (LiT, Zhai et al. 2022).
        bool lock_image = false, lock_text = false;
        /// What the towers that have transformer blocks compute again: less memory, for nearly a forward pass more.
        Recompute recompute = Recompute::nothing;
        std::size_t shares = 1;  ///< see BatchParts
        Ranks* ranks = nullptr;
        std::vector<Clip> sums{};                ///< of shares, beside the gradient itself
        std::vector<Clip> of_texts{};            ///< where towers share blocks: what a share's captions give them
        SumRoom<C> room{};                       ///< for sums over ranks
        /// Of each caption, where language is masked: the tokens to be told, and the sum of their cross-entropies.
        Tensor<C, Shape<dynamic>> masked_counts{}, masked_losses{};
    };

    /// Zero weights and unit gains: what gradients and moments start as, and a checkpoint is loaded into.
    Clip() {
        logit_scale() = static_cast<C>(std::log(1.0 / 0.07));
        logit_bias_.fill(-10);
    }

    /// Random weights as OpenAI drew them (CLIP/clip/model.py:299-327), the blocks of both towers by the rule that file
    /// has for the text tower. The logit scale starts at ln(1 / 0.07), a logit bias at −10 (Zhai et al. 2023).
    explicit Clip(Seed seed) : Clip() {
        Random random(seed);
        visual_.initialise(random);
        text_.initialise(random);
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "logit_scale", self.logit_scale_...);
        if constexpr (config.logit_bias) visit(at + "logit_bias", self.logit_bias_...);
        Vision::parameters(visit, at + "visual.", self.visual_...);
        Text::parameters(visit, at, self.text_...);
    }

    /// The learned ln of the scale that multiplies cosine similarities.
    C& logit_scale() { return *logit_scale_.data(); }
    C logit_scale() const { return *logit_scale_.data(); }
    C& logit_bias() requires(config.logit_bias) { return *logit_bias_.data(); }
    C logit_bias() const requires(config.logit_bias) { return *logit_bias_.data(); }

    /// After an optimizer step: the scale never exceeds 100 (Radford et al. 2021, section 2.5), nor falls below 1
    /// (open_clip clamps ln scale to [0, ln 100]).
    void clamp_logit_scale() { logit_scale() = std::clamp(logit_scale(), C{0}, static_cast<C>(std::log(100.0))); }

    /// images <N, 3, image, image>, already preprocessed, to embeddings <N, embedding>, of length 1 unless they are not to be
    /// normalised.
    Embeddings encode_image(ImageInput images, bool normalize = true) const {
        Embeddings embeddings(images.extent(0));
        encode_image(images, embeddings, normalize);
        return embeddings;
    }
    /// The same into memory of the caller's: once it has seen its largest batch, a model allocates nothing.
    void encode_image(ImageInput images, View<C, Shape<dynamic, embedding>> embeddings, bool normalize = true) const {
        encode<Vision>(images, embeddings, normalize, vision_memory_, images_at_once(),
                       [&](const auto& part, const auto& into, auto& work) { visual_.forward(part, into, work, false); });
    }

    /// ids <N, context> (start, tokens, end, zeros) to embeddings <N, embedding>, with the same choice.
    Embeddings encode_text(TextInput ids, bool normalize = true) const {
        Embeddings embeddings(ids.extent(0));
        encode_text(ids, embeddings, normalize);
        return embeddings;
    }
    void encode_text(TextInput ids, View<C, Shape<dynamic, embedding>> embeddings, bool normalize = true) const {
        encode<Text>(ids, embeddings, normalize, text_memory_, std::max<std::size_t>(1, ids.extent(0)),
                     [&](const auto& part, const auto& into, auto& work) { text_forward(part, into, work, false); });
    }

    /// What the image tower holds of every token, class token first and patches row by row: <N, tokens, width>. `layer`
    /// counts as transformers' hidden_states does: 0 is what enters the first block, −1 what leaves the last one, −2 what
    /// leaves the one before it. With `normed`, behind the tower's last norm. Throws Error if there is no such layer.
    auto image_tokens(ImageInput images, int layer = -1, bool normed = false) const {
        Tensor<C, Shape<dynamic, Vision::tokens, Vision::width>> tokens(images.extent(0));
        const std::size_t blocks = layer_at("image_tokens", layer, Vision::layers + 1);
        in_parts<Vision>(images, vision_memory_, images_at_once(), [&](auto part, std::size_t first, auto& work) {
            const Rows<C, Vision::width> to(tokens.data() + first * Vision::tokens * Vision::width,
                                            {{part.extent(0) * Vision::tokens, Vision::width}});
            visual_.tokens_after(blocks, normed, part, to, work);
        });
        return tokens;
    }

    /// The same of every place of the context, padding included: <N, context, width>. What Stable Diffusion is conditioned
    /// on is (ids, −1, true); its "clip skip 2" is (ids, −2, true), and SDXL's is (ids, −2).
    auto text_tokens(TextInput ids, int layer = -1, bool normed = false) const {
        Tensor<C, Shape<dynamic, Text::tokens, Text::width>> tokens(ids.extent(0));
        const std::size_t blocks = layer_at("text_tokens", layer, Text::layers + 1);
        in_parts<Text>(ids, text_memory_, std::max<std::size_t>(1, ids.extent(0)), [&](auto part, std::size_t, auto& work) {
            const Rows<C, Text::width> to(tokens.data(), {{part.extent(0) * Text::tokens, Text::width}});
            if constexpr (is_shared) {
                text_.tokens_after(blocks, normed, part, to, work, visual_.blocks());
            } else {
                text_.tokens_after(blocks, normed, part, to, work);
            }
        });
        return tokens;
    }

    /// The embedding, of length 1, that the tower's norm, pooling and projection make of every patch alone, as the last
    /// block leaves it: <N, patches, embedding>, patches row by row. Their cosines with a caption's embedding say where in
    /// the image it is.
    auto patch_embeddings(ImageInput images) const { return patch_embeddings_of(images, PatchFeatures::plain); }

    /// The same with the last block changed so that patches keep to themselves; see PatchFeatures.
    auto patch_embeddings(ImageInput images, PatchFeatures features) const {
        static_assert(sizeof(detail::PatchRules<detail::MixesPatches<Vision>>) > 0);
        return patch_embeddings_of(images, features);
    }

    /// How much every token of an image attends to every other, <N, heads, tokens, tokens>, in block `layer`: 0 is the
    /// first, −1 the last one. Rows add up to 1. Throws Error if there is no such block.
    auto image_attention(ImageInput images, int layer = -1) const {
        static_assert(sizeof(detail::AttentionRules<detail::Attends<Vision>>) > 0);
        if constexpr (detail::Attends<Vision>) {
            Tensor<C, Shape<dynamic, Vision::heads, Vision::tokens, Vision::tokens>> weights(images.extent(0));
            const std::size_t block = layer_at("image_attention", layer, Vision::layers);
            in_parts<Vision>(images, vision_memory_, images_at_once(), [&](auto part, std::size_t first, auto& work) {
                visual_.attention_weights(block, part, weights.data() + first * Vision::heads * Vision::tokens * Vision::tokens,
                                          work);
            });
            return weights;
        } else {
            return Tensor<C, Shape<dynamic>>{};
        }
    }

    /// The same of captions: <N, heads, context, context>.
    auto text_attention(TextInput ids, int layer = -1) const {
        static_assert(sizeof(detail::AttentionRules<detail::Attends<Text>>) > 0);
        if constexpr (detail::Attends<Text>) {
            Tensor<C, Shape<dynamic, Text::heads, Text::tokens, Text::tokens>> weights(ids.extent(0));
            const std::size_t block = layer_at("text_attention", layer, Text::layers);
            in_parts<Text>(ids, text_memory_, std::max<std::size_t>(1, ids.extent(0)), [&](auto part, std::size_t, auto& work) {
                if constexpr (is_shared) {
                    text_.attention_weights(block, part, weights.data(), work, visual_.blocks());
                } else {
                    text_.attention_weights(block, part, weights.data(), work);
                }
            });
            return weights;
        } else {
            return Tensor<C, Shape<dynamic>>{};
        }
    }

    /// For guidance: the value of objective(embeddings), a scalar expression of the images' embeddings of length 1 <N,
    /// embedding>, and its gradient with respect to the pixels, in `gradient` <N, 3, image, image>. Computes as much as a
    /// training step of the image tower, and keeps as much memory for the next call; the config's dropouts leave nothing out.
    template <class Objective>
    C image_gradient(ImageInput images, const Objective& objective,
                     ImageGradient& gradient) const {
        static_assert(sizeof(detail::TrainingRules<trains>) > 0);
        if constexpr (trains) {
            gradient.resize(images.extent(0));
            return guide(images, objective, [&](const Embeddings& of_embeddings, Guidance& work) {
                visual_.backward(of_embeddings, work.vision, work.parameters, gradient);
            });
        } else {
            return C{0};
        }
    }

    /// What of every image counts for objective(embeddings), a scalar expression as image_gradient's: <N, patches>, patches row
    /// by row. Of every patch the mean over heads of relu(A ∘ ∂objective/∂A) in the last block's attention A, over what is
    /// pooled (Chefer et al., ICCV 2021, eq. 5, of the last layer, as the authors' notebook for CLIP has it).
    template <class Objective>
    auto image_relevance(ImageInput images, const Objective& objective) const {
        static_assert(sizeof(detail::TrainingRules<trains>) > 0);
        static_assert(sizeof(detail::AttentionRules<detail::Attends<Vision>>) > 0);
        if constexpr (trains && detail::Attends<Vision>) {
            Tensor<C, Shape<dynamic, Vision::patches>> counts(images.extent(0));
            std::vector<C> all(images.extent(0) * Vision::tokens);
            guide(images, objective, [&](const Embeddings& of_embeddings, Guidance& work) {
                visual_.relevance(of_embeddings, work.vision, work.parameters, all.data());
            });
            constexpr std::size_t prefix = Vision::tokens - Vision::patches;
            for (std::size_t i = 0; i < images.extent(0); ++i)
                std::copy_n(all.data() + i * Vision::tokens + prefix, Vision::patches, counts.data() + i * Vision::patches);
            return counts;
        } else {
            return Tensor<C, Shape<dynamic>>{};
        }
    }

    /// The loss of a batch of matching pairs, and its gradients added to `gradient`, a Clip of the same type: one
    /// step's forward and backward pass.
    template <class L>
    C loss_and_gradient(ImageInput images, TextInput ids, L&& loss, Clip& gradient,
                        Workspace& work) const {
        using Call = detail::LossCall<std::remove_cvref_t<L>, C, embedding, config.logit_bias>;
        static_assert(sizeof(detail::TrainingRules<trains>) > 0);
        static_assert(sizeof(detail::loss_rules<std::remove_cvref_t<L>, Call, config.logit_bias>()) > 0);
        static_assert(sizeof(detail::SeeingLossRules<detail::may_see<L>>) > 0);
        static_assert(sizeof(detail::PairlessRules<embeds_pairs<std::remove_cvref_t<L>>, masks_language, is_shared>) > 0);
        if constexpr (trains && Call::fits && detail::may_see<L>) {
            struct Batch {
                typename Vision::Input images;
                typename Text::Input ids;
            };
            return forward_and_backward(images.extent(0), images.extent(0), [&](std::size_t, std::size_t) { return Batch{images, ids}; }, loss, gradient, work);
        } else {
            return C{0};
        }
    }

    /// Whether a tower has transformer blocks, which Recompute is about. A convolutional one has none.
    static constexpr bool recomputes_image = requires(Workspace& work) { work.vision.blocks.recompute; };
    static constexpr bool recomputes_text = requires(Workspace& work) { work.text.blocks.recompute; };

    /// Whether a batch in parts has other gradients than the whole one, whatever the loss: where batches are normalised.
    static constexpr bool normalises_batches = requires(Workspace& work) { work.vision.uses_running_means; };

    /// The same for `count` pairs of which `part` are in memory at a time, with what the towers keep of them: each part is embedded, the
    /// loss has the embeddings of all, and each part but the first is embedded once more to pass its gradient on (Gao et al. 2021,
    /// arXiv:2101.06983). pairs(first, last) gives a part: something with `images` and `ids`, the same ones each time it is asked for;
    /// asked from the last part to the first, and then in order for all but the first. Gradients are those of the whole batch, to the bit:
    /// sums go on from pair to pair, and dropouts draw for each pair alone (a part of a user's own has to add to its gradient likewise).
    /// In amp_bf16 products take many tokens in a step, and sums differ in their last bits where a part ends within one. Not for models
    /// that normalise batches.
    ///
    /// With work.shares, sums are those of BatchParts. With work.ranks, each computes its parts, all have
    /// the embeddings of all, and the gradient, which must be zero before (see zero_parameters), comes out the same everywhere; it is exchanged while a text tower that
    /// has blocks of its own is still passed back through.
    template <class Pairs, class L>
    C loss_and_gradient(std::size_t count, std::size_t part, const Pairs& pairs, L&& loss, Clip& gradient, Workspace& work) const {
        using Call = detail::LossCall<std::remove_cvref_t<L>, C, embedding, config.logit_bias>;
        static_assert(sizeof(detail::TrainingRules<trains>) > 0);
        static_assert(sizeof(detail::loss_rules<std::remove_cvref_t<L>, Call, config.logit_bias>()) > 0);
        static_assert(sizeof(detail::SeeingLossRules<detail::may_see<L>>) > 0);
        static_assert(sizeof(detail::PairlessRules<embeds_pairs<std::remove_cvref_t<L>>, masks_language, is_shared>) > 0);
        if (normalises_batches && work.ranks != nullptr && work.ranks->size() > 1)
            throw Error("Clip::loss_and_gradient", "one rank, since this model normalises batches as a whole", std::to_string(work.ranks->size()));
        if (normalises_batches && part > 0 && part < count)
            throw Error("Clip::loss_and_gradient", "a batch as a whole, since this model normalises it", "parts of " + std::to_string(part) + " of " + std::to_string(count));
        if constexpr (trains && Call::fits && detail::may_see<L>) {
            return forward_and_backward(count, part, pairs, loss, gradient, work);
        } else {
            return C{0};
        }
    }

    const Vision& visual() const { return visual_; }
    const Text& text() const { return text_; }
    Vision& visual() { return visual_; }
    Text& text() { return text_; }

private:
    static constexpr bool is_shared = detail::TowerTypes<T, config>::shared;
    static constexpr bool masks_language = detail::MasksLanguage<Text>;

    auto patch_embeddings_of(ImageInput images, PatchFeatures features) const {
        Tensor<C, Shape<dynamic, Vision::patches, embedding>> embeddings(images.extent(0));
        in_parts<Vision>(images, vision_memory_, images_at_once(), [&](auto part, std::size_t first, auto& work) {
            const Rows<C, embedding> to(embeddings.data() + first * Vision::patches * embedding,
                                        {{part.extent(0) * Vision::patches, embedding}});
            visual_.patch_embeddings(part, features, to, work);
        });
        nn::normalize_rows<C>(images.extent(0) * Vision::patches, embedding, embeddings.data(), nullptr);
        return embeddings;
    }

    void text_forward(typename Text::Input ids, View<C, Shape<dynamic, embedding>> embeddings,
                      typename Text::Workspace& work, bool keep) const {
        if constexpr (is_shared) {
            text_.forward(ids, embeddings, work, keep, visual_.blocks());
        } else {
            text_.forward(ids, embeddings, work, keep);
        }
    }
    /// Blocks that are the image tower's have their gradient added to `of_shared`.
    void text_backward(const Embeddings& gradient_of_embeddings, typename Text::Workspace& work, Clip& gradient, [[maybe_unused]] Clip& of_shared) const {
        if constexpr (is_shared) {
            text_.backward(gradient_of_embeddings, work, gradient.text_, visual_.blocks(), of_shared.visual_.blocks());
        } else {
            text_.backward(gradient_of_embeddings, work, gradient.text_);
        }
    }

    struct Guidance {
        typename Vision::Workspace vision;
        Vision parameters;  ///< what backward adds to, which nobody asked for
        Embeddings embeddings;
        Tensor<C, Shape<dynamic>> lengths;
    };

    /// backward(gradient of the embeddings before they are normalised, memory), after a forward pass that keeps what it needs;
    /// returns the objective's value.
    template <class Objective, class Backward>
    C guide(ImageInput images, const Objective& objective, const Backward& backward) const {
        const typename Reused<Guidance>::Lease guidance(guidance_memory_);
        Guidance& work = *guidance;
        work.embeddings.resize(images.extent(0));
        if constexpr (requires { work.vision.uses_running_means; }) work.vision.uses_running_means = true;
        visual_.forward(images, work.embeddings, work.vision, true);
        normalize_embeddings(work.embeddings, work.lengths);
        auto result = value_and_gradient(objective(as_expression(work.embeddings)), work.embeddings);
        backward(through_normalize(work.embeddings, work.lengths, std::get<0>(result.gradients)), work);
        return result.value;
    }

    /// `layer` from the front, of `count`; a negative one counts from the back.
    static std::size_t layer_at(const char* where, int layer, std::size_t count) {
        const auto size = static_cast<int>(count);
        if (layer < -size || layer >= size) {
            throw Error(std::string("Clip::") + where, "a layer from " + std::to_string(-size) + " to " + std::to_string(size - 1),
                        std::to_string(layer));
        }
        return static_cast<std::size_t>(layer < 0 ? layer + size : layer);
    }

    /// body(items, first, workspace) for `at_once` items at a time.
    template <class Tower, class Body>
    static void in_parts(typename Tower::Input input, Reused<typename Tower::Workspace>& memory, std::size_t at_once,
                         const Body& body) {
        const typename Reused<typename Tower::Workspace>::Lease work(memory);
        const std::size_t count = input.extent(0);
        for (std::size_t first = 0; first < count; first += at_once)
            body(input.slice(first, std::min(first + at_once, count)), first, *work);
    }

    template <class Tower, class Forward>
    static void encode(typename Tower::Input input, View<C, Shape<dynamic, embedding>> embeddings,
                       bool normalize, Reused<typename Tower::Workspace>& memory, std::size_t at_once, const Forward& forward) {
        if (embeddings.extent(0) != input.extent(0)) {
            throw Error("Clip::encode", "room for " + std::to_string(input.extent(0)) + " embeddings",
                        std::to_string(embeddings.extent(0)));
        }
        in_parts<Tower>(input, memory, at_once, [&](const auto& part, std::size_t first, auto& work) {
            forward(part, embeddings.slice(first, first + part.extent(0)), work);
        });
        if (normalize) nn::normalize_rows<C>(input.extent(0), embedding, embeddings.data(), nullptr);
    }

    /// Images of about 400 tokens a core, or one of a convolutional tower: what passes between layers then stays in the
    /// caches. An embedding's bits do not depend on it.
    static std::size_t images_at_once() {
        if constexpr (requires { config.vision.tokens(); }) {
            return std::max<std::size_t>(1, 400 * core_count() / config.vision.tokens());
        } else {
            return core_count();
        }
    }

    /// What the items [first, last) of a tower draw from.
    static void draw_for(std::size_t first, std::size_t last, Random tower, std::vector<Random>& random) {
        const Seed seed{tower.next()};
        random.clear();
        for (std::size_t i = first; i < last; ++i) random.emplace_back(seed, i);
    }

    static void normalize_embeddings(Embeddings& embeddings, Tensor<C, Shape<dynamic>>& lengths) {
        lengths.resize(embeddings.extent(0));
        nn::normalize_rows<C>(embeddings.extent(0), embedding, embeddings.data(), lengths.data());
    }
    static const Embeddings& through_normalize(const Embeddings& embeddings, const Tensor<C, Shape<dynamic>>& lengths,
                                               Embeddings& gradient_of_embeddings) {
        nn::normalize_rows_backward<C>(embeddings.extent(0), embedding, embeddings.data(), lengths.data(),
                                       gradient_of_embeddings.data());
        return gradient_of_embeddings;
    }

    /// Elements of a gradient, tensor by tensor; of each tower.
    struct GradientTensors {
        std::vector<std::span<C>> image, text;

        explicit GradientTensors(Clip& gradient) {
            for_each_parameter(
                [&]<class Parameter>(const ParameterName& name, Parameter& tensor) {
                    if constexpr (std::same_as<typename Parameter::element, C>) {
                        if (!name.view().starts_with("logit_")) (name.view().starts_with("visual.") ? image : text).push_back(tensor.elements());
                    }
                },
                gradient);
        }
    };

    /// The sums of a rank's shares: as the digits of a binary number that counts them, each twice as many shares as the next.
    class ShareSums {
    public:
        ShareSums(Clip& gradient, Workspace& work) : gradient_(gradient), work_(work) {}

        /// What the share under way is added to.
        Clip& under_way() { return sum(digits_ - 1); }

        /// The share's sums join those of as many shares; of one tower, and of the other.
        void close(std::vector<std::span<C>> GradientTensors::* tower) {
            for (std::size_t i = digits_ - 1, joined = joined_sums(); joined > 0; --i, --joined)
                detail::add_tensors<C>(GradientTensors(sum(i - 1)).*tower, GradientTensors(sum(i)).*tower);
        }

        /// The next share begins.
        void next() {
            digits_ = digits_ - joined_sums() + 1;
            ++closed_;
            if (work_.sums.size() + 1 < digits_) work_.sums.emplace_back();
            zero_parameters(under_way());
        }

    private:
        Clip& sum(std::size_t i) { return i == 0 ? gradient_ : work_.sums[i - 1]; }
        std::size_t joined_sums() const { return static_cast<std::size_t>(std::countr_one(closed_)); }

        Clip& gradient_;
        Workspace& work_;
        std::size_t closed_ = 0;  // shares
        std::size_t digits_ = 1;
    };

    /// The sum of a batch's values, of which each rank has those of its pairs.
    static C sum_of_all(Tensor<C, Shape<dynamic>>& values, Ranks* ranks) {
        if (ranks != nullptr) gather<C>(*ranks, values.elements());
        return std::accumulate(values.elements().begin(), values.elements().end(), C{0});
    }

    /// One step over pairs(first, last), `part` pairs at a time. A part whose activations are still there is not computed again.
    template <class Pairs, class L>
    C forward_and_backward(std::size_t count, std::size_t part, const Pairs& pairs, L& loss, Clip& gradient, Workspace& work) const {
        const BatchParts parts{count, part, work.shares, work.ranks};
        parts.check("Clip::loss_and_gradient");
        const bool lock_image = work.lock_image || !embeds_pairs<L>;
        if (is_shared && lock_image != work.lock_text)
            throw Error("Clip::loss_and_gradient", "both towers locked or none, since they share their blocks", "one of them");
        if (work.recompute != Recompute::nothing && !recomputes_image && !recomputes_text)
            throw Error("Clip::loss_and_gradient", "a tower of transformer blocks, which Recompute is about", "none");
        if constexpr (recomputes_image) work.vision.blocks.recompute = work.recompute;
        if constexpr (recomputes_text) work.text.blocks.recompute = work.recompute;
        Ranks* const ranks = parts.ranks_count() > 1 ? work.ranks : nullptr;
        work.image_embeddings.resize(count);
        work.text_embeddings.resize(count);
        if constexpr (!embeds_pairs<L>) work.image_embeddings.fill(1);
        if constexpr (masks_language) {
            if (!embeds_pairs<L> && work.lock_text) throw Error("Clip::loss_and_gradient", "a text tower that is not locked, since NoPairs is about it alone", "a locked one");
            work.masked_counts.resize(count);
            work.masked_losses.resize(count);
            text_.begin_share(work.text);
        }
        // Locked towers embed once.
        const auto forward = [&](std::size_t number, bool with_locked) {
            const std::size_t first = number * part, last = std::min(first + part, count);
            // A pair draws the same each time it is computed, whatever stands beside it.
            if constexpr (requires { work.vision.random; }) draw_for(first, last, Random(work.dropout, 0), work.vision.random);
            if constexpr (requires { work.text.random; }) draw_for(first, last, Random(work.dropout, 1), work.text.random);
            const auto& batch = pairs(first, last);
            if (batch.images.extent(0) != last - first || batch.ids.extent(0) != last - first)
                throw Error("Clip::loss_and_gradient", std::to_string(last - first) + " images and as many captions",
                            std::to_string(batch.images.extent(0)) + " and " + std::to_string(batch.ids.extent(0)));
            if constexpr (sees_batch<L>) {
                if (with_locked) detail::for_each_seeing(loss, [&](auto& seeing) { seeing.see(first, count, batch.images, batch.ids); });
            }
            if (embeds_pairs<L> && (with_locked || !lock_image))
                visual_.forward(batch.images, work.image_embeddings.view().slice(first, last), work.vision, !lock_image);
            if (with_locked || !work.lock_text)
                text_forward(batch.ids, work.text_embeddings.view().slice(first, last), work.text, !work.lock_text);
            if constexpr (masks_language) {
                if (with_locked && !work.lock_text) std::ranges::copy(work.text.masked.counts, work.masked_counts.data() + first);
            }
        };
        const std::size_t own = parts.own_parts();
        for (std::size_t i = 0; i < own; ++i) forward(parts.part_at(i), true);
        if (ranks != nullptr) {
            gather<C>(*ranks, work.image_embeddings.elements());
            gather<C>(*ranks, work.text_embeddings.elements());
        }
        if constexpr (masks_language) {
            if (!work.lock_text) {
                // The mean is over the tokens of the whole batch.
                const C tokens = sum_of_all(work.masked_counts, ranks);
                work.text.masked.scale = tokens > 0 ? static_cast<C>(config.text.masked_language.weight) / tokens : C{0};
            }
        }
        if constexpr (sees_batch<L>) detail::for_each_seeing(loss, [&](auto& seeing) { seeing.seen(ranks); });
        normalize_embeddings(work.image_embeddings, work.image_lengths);
        normalize_embeddings(work.text_embeddings, work.text_lengths);
        const auto image = as_expression(work.image_embeddings), text = as_expression(work.text_embeddings);
        // Its own tensor, not exp(logit_scale_): the loss is compiled, and computed, without an exponential in every chain.
        work.scale.fill(std::exp(logit_scale()));
        const auto scale = as_expression(work.scale);
        const auto finish = [&](auto&& result) {
            gradient.logit_scale() += std::get<2>(result.gradients).item() * work.scale.item();
            const Embeddings& of_images = through_normalize(work.image_embeddings, work.image_lengths, std::get<0>(result.gradients));
            const Embeddings& of_texts = through_normalize(work.text_embeddings, work.text_lengths, std::get<1>(result.gradients));
            Embeddings images, texts;
            const auto rows_of = [&](const Embeddings& all, std::size_t number, Embeddings& rows) -> const Embeddings& {
                if (parts.parts() == 1) return all;
                const std::size_t first = number * part;
                rows.resize(std::min(part, count - first));
                std::copy_n(all.data() + first * embedding, rows.size(), rows.data());
                return rows;
            };
            ShareSums sums(gradient, work);
            const auto exchange = [&](std::vector<std::span<C>> GradientTensors::* tower) { add_up<C>(*ranks, GradientTensors(gradient).*tower, work.room); };
            std::future<void> exchanged;
            // Shared blocks have the sums of pictures and of captions apart until a share ends: alternating, they would depend on the parts.
            if (is_shared && !work.lock_text) {
                if (work.of_texts.empty()) work.of_texts.emplace_back();
                zero_parameters(work.of_texts[0]);
            }
            for (std::size_t i = 0; i < own; ++i) {
                const std::size_t number = parts.part_at(own - 1 + i);
                if (i > 0) forward(number, false);
                const bool ends_share = (i + 1) % parts.share() == 0, is_last = i + 1 == own;
                if (!lock_image) visual_.backward(rows_of(of_images, number, images), work.vision, sums.under_way().visual_);
                // Shared blocks are the image tower's, and wait for the text tower's share in them.
                if (ends_share && !is_shared && !lock_image) {
                    sums.close(&GradientTensors::image);
                    if (is_last && ranks != nullptr) exchanged = std::async(std::launch::async, exchange, &GradientTensors::image);
                }
                if (!work.lock_text) text_backward(rows_of(of_texts, number, texts), work.text, sums.under_way(), is_shared ? work.of_texts[0] : gradient);
                if constexpr (masks_language) {
                    if (!work.lock_text) std::ranges::copy(work.text.masked.losses, work.masked_losses.data() + number * part);
                    if (!work.lock_text && ends_share) text_.close_share(work.text, sums.under_way().text_);
                }
                if (!ends_share) continue;
                if (is_shared && !lock_image) {
                    detail::add_tensors<C>(GradientTensors(sums.under_way()).image, GradientTensors(work.of_texts[0]).image);
                    if (!is_last) zero_parameters(work.of_texts[0]);
                    sums.close(&GradientTensors::image);
                }
                if (!work.lock_text) sums.close(&GradientTensors::text);
                if (!is_last) sums.next();
                if (!is_last || ranks == nullptr) continue;
                if (exchanged.valid()) exchanged.get();
                if (is_shared && !lock_image) exchange(&GradientTensors::image);
                if (!work.lock_text) exchange(&GradientTensors::text);
            }
            if constexpr (masks_language) {
                if (!work.lock_text) return result.value + work.text.masked.scale * sum_of_all(work.masked_losses, ranks);
            }
            return result.value;
        };
        if constexpr (config.logit_bias) {
            const auto bias = as_expression(logit_bias_);
            const auto expression = call_loss(loss, image, text, scale, bias);
            if constexpr (std::invocable<const L&, decltype(image), decltype(text), decltype(scale), decltype(bias)>) {
                auto result = value_and_gradient(expression, work.image_embeddings, work.text_embeddings, work.scale,
                                                 logit_bias_);
                gradient.logit_bias() += std::get<3>(result.gradients).item();
                return finish(result);
            } else {
                return finish(
                    value_and_gradient(expression, work.image_embeddings, work.text_embeddings, work.scale));
            }
        } else {
            const auto expression = loss(image, text, scale);
            return finish(value_and_gradient(expression, work.image_embeddings, work.text_embeddings, work.scale));
        }
    }

    Tensor<C, Shape<>> logit_scale_;
    Tensor<C, Shape<>> logit_bias_;
    Vision visual_;
    Text text_;
    mutable Reused<typename Vision::Workspace> vision_memory_;
    mutable Reused<typename Text::Workspace> text_memory_;
    mutable Reused<Guidance> guidance_memory_;
};

}  // namespace tandem::inline TANDEM_ABI
