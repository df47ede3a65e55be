// Needs the libraries of tandem::text.
#include <utf8proc.h>
#include <zlib.h>

extern const bool text_component;
const bool text_component = utf8proc_version() != nullptr && zlibVersion() != nullptr;
