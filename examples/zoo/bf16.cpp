#include "zoo.hpp"

template tandem::AnyClip zoo::open<tandem::bf16>(const std::filesystem::path&, const tandem::OpenOptions&);
