#include "teacher.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/images/preprocess_config.hpp>

#include "../tandem/checkpoint.hpp"
#include "../zoo/zoo.hpp"

namespace training {

namespace {

using program::UsageError;

/// Throws UsageError where two tokenizers differ on any of 64 captions.
void compare_tokenizers(const TaughtRun& run, const td::AnyTokenizer& other) {
    const std::size_t count = run.samples->samples.size(), step = std::max<std::size_t>(1, count / 64);
    std::vector<td::Id> mine(run.context), theirs(run.context);
    for (std::size_t i = 0; i < count; i += step) {
        for (const std::string& caption : td::captions_of(*run.samples, i)) {
            run.tokenizer->encode(caption, mine);
            other.encode(caption, theirs);
            if (mine != theirs)
                throw UsageError("--distill-pretrained", "a model that reads captions as the same ids, since they are tokenised once for both (--tokenizer gives a new run the teacher's)",
                                 "one that reads \"" + caption + "\" otherwise");
        }
    }
}

}  // namespace

td::AnyClip open_teacher(const Settings& settings, const TaughtRun& run) {
    const std::filesystem::path path = settings.distill_pretrained;
    td::AnyClip teacher = zoo::open<float>(path, {.check_finite = true, .log = settings.is_first_rank() ? &std::cerr : nullptr});
    const td::ModelSizes& sizes = teacher.sizes();
    if (!settings.distill_model.empty() && sizes.architecture != settings.distill_model)
        throw UsageError("--distill-model", sizes.architecture + ", which --distill-pretrained has", settings.distill_model);
    if (sizes.image != run.recipe.size || sizes.context != run.context)
        throw UsageError("--distill-pretrained", "a model of " + to_string(run.recipe.size) + " pixels and " + std::to_string(run.context) + " ids, as the one that is trained",
                         to_string(sizes.image) + " pixels and " + std::to_string(sizes.context) + " ids");
    const td::Preprocess recipe = program::preprocess_of(teacher, path);
    if (recipe.mean != run.recipe.mean || recipe.deviation != run.recipe.deviation)
        throw UsageError("--distill-pretrained", "a model whose pixels have the same mean and deviation, since they are prepared once for both", path.string());
    if (run.tokenizer == nullptr) return teacher;
    std::optional<td::AnyTokenizer> tokenizer;
    try {
        tokenizer = td::open_tokenizer(program::tokenizer_beside(path), std::filesystem::is_directory(path) ? path : path.parent_path());
    } catch (const td::Error& error) {
        if (settings.is_first_rank()) std::fprintf(stderr, "--distill-pretrained: its ids are taken to be the run's, since no tokenizer lies beside it (%s)\n", error.what());
    }
    if (tokenizer) compare_tokenizers(run, *tokenizer);
    return teacher;
}

}  // namespace training
