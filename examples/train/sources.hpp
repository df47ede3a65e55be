// The pairs that a command line names.
#pragma once

#include <span>
#include <string>

#include <tandem/core/ranks.hpp>
#include <tandem/data/dataset.hpp>
#include <tandem/data/samples.hpp>

#include "settings.hpp"

namespace training {

/// How the name of a compressed tar archive ends: .tar.gz, .tgz, .tar.zst, ...; empty for any other name.
std::string_view compressed_ending(std::string_view name);

/// The pairs that an option names, of one source or several; with a factor for each, or 1.
td::SampleList list_samples(const std::string& what, const Settings& settings, std::span<const double> factors = {});

/// Says on standard error what of a data set is left out, but for what has been said `before`.
void report_faults(const char* what, td::FaultCounts faults, const td::FaultCounts& before = {});

/// Every rank knows what others found damaged.
void share_damage(td::Dataset& data, td::Ranks& ranks);

}  // namespace training
