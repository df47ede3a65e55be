// Definitions of models/unwrap.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/models/unwrap.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// What a name tells of where a model stands in a file: the prefix before a tensor that every such model has.
struct ModelPlace {
    std::string prefix;
    bool has_image = false, has_text = false;
    std::string bare;  ///< of a tower of transformers 5 alone, the tower's name, which its tensors lack
};

[[gnu::cold]] TANDEM_INLINE std::optional<ModelPlace> place_of(std::string_view name) {
    struct Anchor {
        std::string_view name;
        bool is_image;
        std::string_view bare;
    };
    // The first that ends a name counts, so longer ones stand before their own ends.
    static constexpr std::array anchors{Anchor{"vision_model.embeddings.patch_embedding.weight", true, ""},
                                        Anchor{"vision_model.embeddings.convolution.weight", true, ""},
                                        Anchor{"visual.trunk.patch_embed.proj.weight", true, ""},
                                        Anchor{"visual.conv1.weight", true, ""},
                                        Anchor{"text_model.embeddings.token_embedding.weight", false, ""},
                                        Anchor{"text_model.embeddings.word_embeddings.weight", false, ""},
                                        Anchor{"text.transformer.embeddings.word_embeddings.weight", false, ""},
                                        Anchor{"embeddings.patch_embedding.weight", true, "vision_model."},
                                        Anchor{"embeddings.convolution.weight", true, "vision_model."},
                                        Anchor{"embeddings.token_embedding.weight", false, "text_model."},
                                        Anchor{"embeddings.word_embeddings.weight", false, "text_model."},
                                        Anchor{"text.token_embedding.weight", false, ""},
                                        Anchor{"token_embedding.weight", false, ""}};
    for (const Anchor& anchor : anchors) {
        if (!name.ends_with(anchor.name)) continue;
        const std::string_view prefix = name.substr(0, name.size() - anchor.name.size());
        if (prefix.empty() || prefix.ends_with('.'))
            return ModelPlace{std::string(prefix), anchor.is_image, !anchor.is_image, std::string(anchor.bare)};
    }
    return std::nullopt;
}

/// Without what torch.compile, FSDP and activation checkpointing put between the parts of a name.
[[gnu::cold]] TANDEM_INLINE std::string without_wrappers(std::string name) {
    for (const std::string_view wrapper :
         {"_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module."}) {
        for (std::size_t at = name.find(wrapper); at != std::string::npos; at = name.find(wrapper, at)) {
            // DistributedDataParallel's stands before a whole model's names as a prefix that is told of.
            if ((at == 0 && wrapper != "module.") || (at > 0 && name[at - 1] == '.')) {
                name.erase(at, wrapper.size());
            } else {
                at += wrapper.size();
            }
        }
    }
    return name;
}

/// Whether a prefix names a running average of the weights, or the teacher that is one.
[[gnu::cold]] TANDEM_INLINE bool is_average(std::string_view prefix) {
    return std::ranges::any_of(std::array{"ema", "teacher", "momentum", "shadow", "averag", "swa"},
                               [&](std::string_view word) { return prefix.find(word) != std::string_view::npos; });
}

[[gnu::cold]] TANDEM_INLINE std::vector<std::string> unwrap(WeightFiles& file, std::string_view where, Towers towers,
                                                            std::string wanted) {
    // What stands beside a "state_dict" is looked at only where it is asked for.
    if (!wanted.empty()) file.add_others(where);
    std::vector<ModelPlace> places;
    const auto is_plain = [](const ModelPlace& place) { return place.prefix.empty(); };
    const auto take_place = [&](const std::string& name) {
        const auto found = place_of(without_wrappers(name));
        if (!found) return;
        const auto known = std::ranges::find(places, found->prefix, &ModelPlace::prefix);
        if (known == places.end()) {
            places.push_back(*found);
        } else {
            known->has_image = known->has_image || found->has_image;
            known->has_text = known->has_text || found->has_text;
        }
    };
    for (const StoredTensor& tensor : file.tensors()) take_place(tensor.name);
    for (const UnreadableTensor& tensor : file.unreadable()) take_place(tensor.name);
    std::ranges::sort(places, {}, &ModelPlace::prefix);
    const auto quoted = [](const ModelPlace& place) { return in_quotes(place.prefix); };
    const auto listed = [&](const auto& of) {
        std::string text;
        for (const ModelPlace& place : of) text += (text.empty() ? "" : ", ") + quoted(place);
        return text;
    };
    std::vector<std::string> notes;
    std::set<std::string> beside;
    for (const StoredTensor& tensor : file.others()) {
        if (const auto found = place_of(without_wrappers(tensor.name))) beside.insert(found->prefix);
    }
    for (const std::string& prefix : beside)
        notes.push_back("beside its state_dict stands a model behind " + in_quotes(prefix) +
                        ", which the prefix option chooses");
    const ModelPlace* chosen = nullptr;
    if (!wanted.empty()) {
        if (!wanted.ends_with('.')) wanted += '.';
        auto found = std::ranges::find(places, wanted, &ModelPlace::prefix);
        // "ema" for what stands behind "ema.state_dict.module.", if nothing else does.
        const auto is_behind = [&](const ModelPlace& place) { return place.prefix.starts_with(wanted); };
        if (found == places.end() && std::ranges::count_if(places, is_behind) == 1)
            found = std::ranges::find_if(places, is_behind);
        if (found == places.end())
            throw Error(where, "a model behind the prefix " + in_quotes(wanted),
                        places.empty() ? "none" : "models behind " + listed(places));
        chosen = &*found;
    } else if (std::ranges::none_of(places, is_plain) && !places.empty()) {
        const bool any_both =
            std::ranges::any_of(places, [](const ModelPlace& p) { return p.has_image && p.has_text; });
        std::vector<ModelPlace> whole;
        std::ranges::copy_if(places, std::back_inserter(whole), [&](const ModelPlace& place) {
            if (towers == Towers::image) return place.has_image;
            if (towers == Towers::text) return place.has_text;
            return any_both ? place.has_image && place.has_text : true;
        });
        std::vector<ModelPlace> trained;
        std::ranges::copy_if(whole, std::back_inserter(trained),
                             [](const auto& place) { return !is_average(place.prefix); });
        const std::vector<ModelPlace>& candidates = trained.empty() ? whole : trained;
        if (candidates.size() > 1)
            throw Error(where, "one model",
                        "several, behind the prefixes " + listed(candidates) +
                            ": say which (LoadOptions::prefix, or --prefix)");
        if (!candidates.empty()) {
            chosen = &*std::ranges::find(places, candidates.front().prefix, &ModelPlace::prefix);
            if (whole.size() > 1)
                notes.push_back("of the models behind " + listed(whole) + ", that behind " + quoted(*chosen) +
                                " is read; the prefix option chooses another");
        }
    } else if (const auto plain = std::ranges::find_if(places, is_plain); plain != places.end()) {
        chosen = &*plain;
    }
    // Beside a model whose names are plain, others are left out whole.
    std::vector<std::string> left;
    if (chosen != nullptr && chosen->prefix.empty()) {
        for (const ModelPlace& place : places) {
            if (!place.prefix.empty()) left.push_back(place.prefix);
        }
        if (!left.empty()) {
            std::vector<ModelPlace> others;
            std::ranges::copy_if(places, std::back_inserter(others),
                                 [&](const auto& place) { return !is_plain(place); });
            notes.push_back("the model behind no prefix is read; the prefix option chooses that behind " +
                            listed(others));
        }
    }
    const auto is_left_out = [&](const std::string& name) {
        return std::ranges::any_of(left, [&](const std::string& other) { return name.starts_with(other); });
    };
    const std::string prefix = chosen == nullptr ? "" : chosen->prefix, bare = chosen == nullptr ? "" : chosen->bare;
    std::set<std::string> outside;
    bool changes = !prefix.empty() || !bare.empty() || !left.empty();
    for (const StoredTensor& tensor : file.tensors()) {
        const std::string name = without_wrappers(tensor.name);
        changes = changes || name != tensor.name;
        if (!name.starts_with(prefix)) outside.insert(name.substr(0, name.find('.')));
    }
    if (!changes) return notes;
    if (!prefix.empty()) notes.push_back("the names of its tensors are read without " + in_quotes(prefix));
    if (!outside.empty()) {
        std::string some;
        std::size_t count = 0;
        for (const std::string& part : outside) {
            if (++count <= 10) some += (some.empty() ? "" : ", ") + part;
        }
        if (count > 10) some += " and " + std::to_string(count - 10) + " more";
        notes.push_back("not read, since they stand outside of it: " + some);
    }
    file.rename(
        [&](const std::string& stored) -> std::optional<std::string> {
            std::string name = without_wrappers(stored);
            if (!name.starts_with(prefix) || is_left_out(name)) return std::nullopt;
            name.erase(0, prefix.size());
            const bool is_of_tower = !bare.empty() && !name.starts_with("text_projection") &&
                                     !name.starts_with("visual_projection") && !name.starts_with("logit_");
            return is_of_tower ? bare + name : name;
        },
        where);
    return notes;
}

}  // namespace tandem::inline TANDEM_ABI::detail
