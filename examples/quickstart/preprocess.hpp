// How the quickstart's models see pictures.
#pragma once

#include <tandem/images/transform.hpp>

namespace quickstart {

namespace td = tandem;

/// Whole, on white.
constexpr td::Preprocess preprocess_of(td::ImageSize image) {
    td::Preprocess recipe = td::openai_preprocess(image);
    recipe.fit = td::Fit::pad;
    recipe.padding = td::white;
    recipe.background = td::white;
    return recipe;
}

}  // namespace quickstart
