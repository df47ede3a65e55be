// Prints an open_clip model config (open_clip/model_configs/NAME.json, or a checkpoint's open_clip_config.json) as a
// tandem constant, or names what has no counterpart.
#include <cctype>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>

#include <tandem/models/constant_of.hpp>
#include <tandem/models/model_config.hpp>

namespace {

/// The name of the file as a C++ name: ViT-B-32 becomes vit_b_32.
std::string constant_name(const std::filesystem::path& path) {
    std::string name;
    for (const char c : path.stem().string()) {
        const auto byte = static_cast<unsigned char>(c);
        name += std::isalnum(byte) ? static_cast<char>(std::tolower(byte)) : '_';
    }
    return name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) ? "model_" + name : name;
}

void translate(const std::filesystem::path& path) {
    if (!std::filesystem::is_regular_file(path))
        throw tandem::Error(path.string(), "an open_clip model config (JSON)", std::filesystem::exists(path) ? "no regular file" : "no file");
    tandem::detail::ArchitectureReader config(path);
    tandem::detail::read_open_clip_config(config, config.has_below("model_cfg.") ? "model_cfg." : "");
    std::printf("inline constexpr td::ClipConfig %s = %s;\n", constant_name(path).c_str(),
                tandem::detail::constant_of(config.fields).c_str());
}

}  // namespace

int main(int count, char** arguments) {
    constexpr const char* usage =
        "config_from_open_clip FILE.json: prints an open_clip model config as a tandem constant";
    const bool asks = count == 2 && (std::strcmp(arguments[1], "--help") == 0 || std::strcmp(arguments[1], "-h") == 0);
    if (count != 2 || asks) {
        std::fprintf(asks ? stdout : stderr, "%s\n", usage);
        return asks ? 0 : 2;
    }
    try {
        translate(arguments[1]);
        if (std::fflush(stdout) != 0) throw tandem::Error("standard output", "cannot be written");
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "config_from_open_clip: %s\n", error.what());
        return 1;
    }
}
