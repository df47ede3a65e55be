#include "zoo.hpp"

template td::AnyClip td::open<td::bf16>(const std::filesystem::path&, const td::OpenOptions&);
