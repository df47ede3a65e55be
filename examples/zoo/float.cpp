// td::open<float>, compiled once for all programs.
#include <tandem/models/open.hpp>

template tandem::AnyClip tandem::open<float>(const std::filesystem::path&, const tandem::OpenOptions&);
