// The one exception type of the library, and the sentence it carries.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// Every run-time failure of tandem. what() reads "where: what was expected and what was found".
class Error : public std::runtime_error {
public:
    [[gnu::cold]] Error(std::string_view where, std::string_view message)
        : std::runtime_error(std::string(where) + ": " + std::string(message)), where_(where) {}

    [[gnu::cold]] Error(std::string_view where, std::string_view expected, std::string_view found)
        : Error(where, "expected " + std::string(expected) + ", found " + std::string(found)) {}

    /// The file, tensor, option or function the error speaks of.
    const std::string& where() const noexcept { return where_; }

private:
    std::string where_;
};

}  // namespace tandem::inline TANDEM_ABI
