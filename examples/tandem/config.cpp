// An open_clip model config as a constant of the library, or the names of what has no counterpart.
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <string>

#include <tandem/models/constant_of.hpp>
#include <tandem/models/open_clip_config.hpp>

#include "command.hpp"

namespace program {

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

int run(const Arguments& arguments) {
    const std::filesystem::path path = arguments.operand();
    if (!std::filesystem::is_regular_file(path))
        throw td::Error(path.string(), "an open_clip model config (JSON)",
                        std::filesystem::exists(path) ? "no regular file" : "no file");
    td::detail::ArchitectureReader config(path);
    td::detail::read_open_clip_config(config, config.has_below("model_cfg.") ? "model_cfg." : "");
    std::printf("inline constexpr td::ClipConfig %s = %s;\n", constant_name(path).c_str(),
                td::detail::constant_of(config.fields).c_str());
    return done;
}

}  // namespace

Command config_command() {
    return {.name = "config",
            .purpose = "an open_clip model config as a C++ constant",
            .operand = "FILE",
            .synopsis = "FILE.json",
            .description =
                "Prints open_clip/model_configs/NAME.json, or a checkpoint's open_clip_config.json, as the "
                "td::ClipConfig to write in a program, or names what has no counterpart.",
            .options = {},
            .run = run};
}

}  // namespace program
