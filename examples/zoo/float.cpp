#include "zoo.hpp"

template tandem::AnyClip zoo::open<float>(const std::filesystem::path&, const tandem::OpenOptions&);
