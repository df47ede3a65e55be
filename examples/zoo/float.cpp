#include "zoo.hpp"

template td::AnyClip td::open<float>(const std::filesystem::path&, const td::OpenOptions&);
