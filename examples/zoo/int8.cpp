// td::open<td::int8>, compiled once for all programs.
#include <tandem/models/open.hpp>

template tandem::AnyClip tandem::open<tandem::int8>(const std::filesystem::path&, const tandem::OpenOptions&);
