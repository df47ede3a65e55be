// What a model's scores are worth in a catalogue, learned from the captions that are in it.
#pragma once

#include <ostream>

#include "catalogue.hpp"
#include "checkpoint.hpp"

namespace program {

/// The curve from standardised cosines to probabilities, the cut of what is relevant and the share of words in a mixture, fitted
/// on words of captions: relevant to a word is what has it in its caption. Half of the words are fitted on, the other half tell
/// how well that went, which is written to `report`. Where too few captions are there, the judgement is the one by default.
Judgement fit_judgement(const Catalogue& catalogue, const Opened& opened, std::ostream& report);

}  // namespace program
