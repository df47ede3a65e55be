// td::open<td::bf16>, compiled once for all programs.
#include <tandem/models/open.hpp>

template tandem::AnyClip tandem::open<tandem::bf16>(const std::filesystem::path&, const tandem::OpenOptions&);
