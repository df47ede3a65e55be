// How a table of pairs is read, as a command line says.
#pragma once

#include <string>
#include <vector>

#include <tandem/data/samples.hpp>

#include "command.hpp"

namespace program {

/// open_clip's options for tables.
inline const std::vector<Option> table_option_list{{"--csv-separator", "CHARACTER", "of a table (default: a tab)"},
                                                   {"--csv-img-key", "NAME", "its column of paths (default filepath)"},
                                                   {"--csv-caption-key", "NAME", "its column of captions (default title)"}};

inline td::TableOptions table_options(const Arguments& given) {
    td::TableOptions table;
    table.image_key = given.get("--csv-img-key", table.image_key);
    table.caption_key = given.get("--csv-caption-key", table.caption_key);
    if (given.has("--csv-separator")) {
        const std::string text = given.get("--csv-separator");
        if (text != "\\t" && text.size() != 1) throw UsageError("--csv-separator", "one character, or \\t", text);
        table.separator = text == "\\t" ? '\t' : text[0];
    }
    return table;
}

}  // namespace program
