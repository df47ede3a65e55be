// The architectures of the zoo that this build of `train` has: CMake's TANDEM_TRAIN_MODELS, each compiled by itself.
#pragma once

#include <string>
#include <vector>

#include "settings.hpp"

namespace training {

/// `first`, and the names of the zoo's.
std::vector<std::string> model_names(const std::string& first);

/// The run of the model that settings.model names, one of the zoo's.
int run_model(const Settings& settings);

}  // namespace training
