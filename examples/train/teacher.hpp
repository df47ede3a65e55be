// The model that a run distils from.
#pragma once

#include <tandem/data/samples.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/models/open.hpp>
#include <tandem/texts/any_tokenizer.hpp>

#include "settings.hpp"

namespace training {

/// What a teacher has to have in common with a run.
struct TaughtRun {
    td::Preprocess recipe;
    std::size_t context;
    const td::AnyTokenizer* tokenizer = nullptr;  ///< none of synthetic data
    const td::SampleList* samples = nullptr;      ///< on whose captions tokenizers are held against each other
};

/// Opens what --distill-pretrained names. Throws UsageError where it sees other images, normalises them otherwise, or reads captions as other ids.
td::AnyClip open_teacher(const Settings& settings, const TaughtRun& run);

}  // namespace training
