// Properties of an architecture, read from a config file.
#pragma once

#include <cstddef>
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

// Reasons why a key of a config does not matter.
inline constexpr std::string_view names_only = "a name, or where the file comes from";

inline constexpr std::string_view of_training = "of training, or of weights that are drawn and not loaded";

inline constexpr std::string_view of_generation = "of language models that generate text";

inline constexpr std::string_view of_interface = "how results are handed over, or computed with the same numbers";

inline constexpr std::string_view of_heads = "of classifiers on top of a model, which are no part of it";

inline constexpr std::string_view in_tensors = "where the value starts in training; the checkpoint has what it became";

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/architecture_reader.impl.hpp>
#endif
