// Answers of a search as JSON and as a page.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "searcher.hpp"

namespace program {

/// A text as HTML shows it.
std::string escaped(std::string_view text);

nlohmann::ordered_json to_json(const Answer& answer);

/// A page that needs nothing but itself.
std::string contact_sheet(const Request& request, const Answer& answer, const Catalogue& catalogue);

}  // namespace program
