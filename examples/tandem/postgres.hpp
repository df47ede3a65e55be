// PostgreSQL: a database that several machines write and read.
#pragma once

#include <memory>
#include <string>

#include "database.hpp"

namespace program {

/// Such a place as it may be shown: without the password.
std::string without_password(const std::string& where);

/// Connects to where postgresql://user:password@host:port/database says. All is kept in the schema "tandem" there.
std::unique_ptr<detail::Connection> connect_postgres(const std::string& where, Database::Mode mode);

}  // namespace program
