// The pairs that a command line names.
#pragma once

#include <string>

#include <tandem/data/samples.hpp>

#include "settings.hpp"

namespace training {

/// The pairs that an option names.
td::SampleList list_samples(const std::string& what, const Settings& settings);

/// What all ranks have left out since `before`, which all of them had.
td::FaultCounts faults_since(const td::FaultCounts& before, td::FaultCounts faults, td::Ranks* ranks);

/// Says on standard error what of a data set is left out.
void report_faults(const char* what, const td::FaultCounts& faults);

}  // namespace training
