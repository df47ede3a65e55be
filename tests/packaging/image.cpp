// Needs the libraries of tandem::image.
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>
#include <png.h>

extern const bool image_component;
const bool image_component = [] {
    jpeg_error_mgr manager;
    return jpeg_std_error(&manager) == &manager && png_access_version_number() != 0;
}();
