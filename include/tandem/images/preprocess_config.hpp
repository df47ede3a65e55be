// A model's preprocessing as the files beside its weights tell it.
#pragma once

#include <filesystem>
#include <string>

#include <tandem/files/config_reader.hpp>
#include <tandem/images/transform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

int read_pixels(const ConfigReader& config, const std::string& path);

}  // namespace detail

/// The preprocessing that the files of a checkpoint ask for: open_clip_config.json, or transformers'
/// processor_config.json or preprocessor_config.json, in the folder `path` or beside the file. For the latter it
/// resizes as transformers 5 does where torchvision is installed; its processors without torchvision, and most of
/// version 4, which leave the same files, have Pillow's pixels: set .resampling. Without either, `otherwise`: what the
/// model was trained with, if the caller knows. Throws Error that names the file, key and value of what it asks for and
/// is not here: nothing in these files is passed over.
Preprocess load_preprocess(const std::filesystem::path& path, const Preprocess& otherwise);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/preprocess_config.impl.hpp>
#endif
