#include "zoo.hpp"

template tandem::AnyClip zoo::open<tandem::int8>(const std::filesystem::path&, const tandem::OpenOptions&);
