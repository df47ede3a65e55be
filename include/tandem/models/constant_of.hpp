// The constant of an architecture as files tell it, as program text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/image_size.hpp>
#include <tandem/models/architecture_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Fields by their names.
class FieldValues {
public:
    explicit FieldValues(const std::vector<ArchitectureField>& fields) : fields_(fields) {}

    std::string operator()(std::string_view name, std::string otherwise = {}) const;
    std::size_t count(std::string_view name, std::size_t otherwise = 0) const;
    bool is(std::string_view name, bool otherwise = false) const;
    /// What a config says, or the square that the positions make up.
    ImageSize image() const;

private:
    const std::vector<ArchitectureField>& fields_;
};

/// The constant that fields tell, td being the library's namespace. A tower of which they say nothing is the default
/// one.
std::string constant_of(const std::vector<ArchitectureField>& fields);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/constant_of.impl.hpp>
#endif
