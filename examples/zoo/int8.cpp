#include "zoo.hpp"

template td::AnyClip td::open<td::int8>(const std::filesystem::path&, const td::OpenOptions&);
