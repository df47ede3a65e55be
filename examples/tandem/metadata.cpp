#include "metadata.hpp"

#include <algorithm>
#include <cctype>
#include <set>

#include <exiv2/exiv2.hpp>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>

namespace program {

namespace td = tandem;

namespace {

/// Appends a line unless it stands there already.
void add_line(std::string& lines, std::set<std::string>& known, std::string line) {
    std::ranges::replace(line, '\n', ' ');
    std::ranges::replace(line, '\r', ' ');
    while (line.ends_with(' ') || line.ends_with('\0')) line.pop_back();
    if (line.empty() || !known.insert(line).second) return;
    lines += (lines.empty() ? "" : "\n") + line;
}

/// YYYY:MM:DD HH:MM:SS, as EXIF has it, with the hyphens that sort and read as dates do; empty where it is no date.
std::string date_of(const std::string& text) {
    if (text.size() < 10 || !std::ranges::all_of(text.substr(0, 4), [](unsigned char c) { return std::isdigit(c) != 0; }) ||
        text.starts_with("0000"))
        return {};
    std::string date = text.substr(0, 19);
    date[4] = date[7] = '-';
    return date;
}

/// Exiv2 writes warnings of its own to standard error.
void begin_quietly() {
    static const bool is_begun = (Exiv2::LogMsg::setLevel(Exiv2::LogMsg::mute), Exiv2::XmpParser::initialize());
    if (!is_begun) throw td::Error("Exiv2", "its XMP parser", "none");
}

}  // namespace

void write_sidecar(const std::filesystem::path& path, const std::vector<std::string>& keywords) {
    begin_quietly();
    try {
        Exiv2::XmpData data;
        if (std::filesystem::exists(path)) {
            const td::MappedFile file(path);
            const std::string packet(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
            if (Exiv2::XmpParser::decode(data, packet) != 0) throw td::Error(path.string(), "an XMP sidecar", "something else");
        }
        Exiv2::XmpArrayValue subject(Exiv2::xmpBag);
        std::set<std::string> known;
        const auto before = data.findKey(Exiv2::XmpKey("Xmp.dc.subject"));
        for (long i = 0; before != data.end() && i < before->count(); ++i) {
            if (known.insert(before->toString(i)).second) subject.read(before->toString(i));
        }
        for (const std::string& keyword : keywords) {
            if (known.insert(keyword).second) subject.read(keyword);
        }
        if (before != data.end()) data.erase(before);
        data.add(Exiv2::XmpKey("Xmp.dc.subject"), &subject);
        std::string packet;
        if (Exiv2::XmpParser::encode(packet, data, Exiv2::XmpParser::useCompactFormat) != 0)
            throw td::Error(path.string(), "keywords that XMP can hold", "others");
        td::write_file_atomically(path, packet);
    } catch (const Exiv2::AnyError& error) {
        throw td::Error(path.string(), error.what());
    }
}

Metadata read_metadata(std::span<const std::byte> bytes) {
    begin_quietly();
    Metadata metadata;
    if (bytes.empty()) return metadata;
    try {
        const auto image = Exiv2::ImageFactory::open(reinterpret_cast<const Exiv2::byte*>(bytes.data()),
                                                     static_cast<long>(bytes.size()));
        image->readMetadata();
        for (const char* const key : {"Exif.Photo.DateTimeOriginal", "Exif.Photo.DateTimeDigitized", "Exif.Image.DateTime"}) {
            const auto found = image->exifData().findKey(Exiv2::ExifKey(key));
            if (metadata.taken.empty() && found != image->exifData().end()) metadata.taken = date_of(found->toString());
        }
        std::set<std::string> captions, keywords;
        if (const auto found = image->exifData().findKey(Exiv2::ExifKey("Exif.Image.ImageDescription"));
            found != image->exifData().end())
            add_line(metadata.caption, captions, found->toString());
        for (const Exiv2::Xmpdatum& datum : image->xmpData()) {
            const std::string key = datum.key();
            const bool is_caption = key == "Xmp.dc.title" || key == "Xmp.dc.description";
            if (!is_caption && key != "Xmp.dc.subject" && key != "Xmp.lr.hierarchicalSubject") continue;
            if (const auto* const texts = dynamic_cast<const Exiv2::LangAltValue*>(&datum.value())) {
                for (const auto& [language, text] : texts->value_) add_line(metadata.caption, captions, text);
                continue;
            }
            for (long i = 0; i < datum.count(); ++i)
                add_line(is_caption ? metadata.caption : metadata.keywords, is_caption ? captions : keywords, datum.toString(i));
        }
        for (const Exiv2::Iptcdatum& datum : image->iptcData()) {
            const std::string key = datum.key();
            if (key == "Iptc.Application2.Keywords") add_line(metadata.keywords, keywords, datum.toString());
            if (key == "Iptc.Application2.Caption" || key == "Iptc.Application2.ObjectName")
                add_line(metadata.caption, captions, datum.toString());
        }
    } catch (const std::exception&) {
        // Of what it throws nothing is about the pixels.
    }
    return metadata;
}

}  // namespace program
