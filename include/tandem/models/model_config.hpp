// What the config beside a checkpoint says of its architecture.
#pragma once

#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/files/config_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// A property of an architecture that a file tells, or a constant has. `name` is the constant's ("vision.layers");
/// sizes are decimal, activations in transformers' words, poolings in open_clip's.
struct ArchitectureField {
    std::string name;
    std::string value;
    std::string source;  ///< where a file says so, or that it does not and means its default
};

/// Numbers are the same however they are written: 1e-6 and 1e-06.
bool same_value(const std::string& a, const std::string& b);

/// Fields of an architecture from a config file.
class ArchitectureReader : public ConfigReader {
public:
    using ConfigReader::ConfigReader;

    std::vector<ArchitectureField> fields;

    /// Adds a size that the file says at `path`, or what its absence means.
    void add_count(const std::string& field, const std::string& path, std::size_t otherwise);
    void add_number(const std::string& field, const std::string& path, double otherwise);
    void add_flag(const std::string& field, const std::string& path, bool otherwise);
    void add_word(const std::string& field, const std::string& path, std::string_view otherwise,
                  std::initializer_list<std::string_view> known);
    /// Adds the size of an image, a number or [height, width].
    void add_image(const std::string& field, const std::string& path, std::size_t otherwise);
    /// Adds what follows from the file.
    void conclude(const std::string& field, std::string value, const std::string& path);

private:
    void add(const std::string& field, const std::string& path, std::string value, bool is_said);
};

/// open_clip's open_clip_config.json, or one of its model configs (then `root` is empty), with the defaults of its
/// CLIPVisionCfg and CLIPTextCfg (open_clip/model.py, 3.3).
void read_open_clip_config(ArchitectureReader& config, const std::string& root);

/// What a folder's configs say; nothing where it has none. Throws Error for a config that is no JSON, and for all that
/// a config asks for and is not here.
std::vector<ArchitectureField> stored_architecture(const std::filesystem::path& folder);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/model_config.impl.hpp>
#endif
