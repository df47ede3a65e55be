// What an architecture costs, part by part.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>

#include <tandem/models/describe.hpp>
#include <tandem/models/open.hpp>

#include "command.hpp"

namespace program {

namespace {

/// A name of the zoo as people write it: ViT-B-32 and vit_b_32 are the same.
std::string plain_name(std::string name) {
    std::ranges::transform(name, name.begin(), [](char c) {
        return c == '-' || c == '/' || c == '@' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    });
    return name;
}

int run(const Arguments& arguments) {
    const std::string& operand = arguments.operand();
    std::error_code failed;
    if (std::filesystem::exists(operand, failed)) {
        const td::OpenOptions options{
            .activation = arguments.choose("--activation", "", {"gelu", "quick_gelu", "gelu_pytorch_tanh"}),
            .prefix = arguments.get("--prefix"),
            .log = &std::cerr};
        const td::WeightFiles files = td::detail::open_files(operand, options);
        const td::detail::StoredModel stored = td::detail::stored_model(operand, files, options);
        td::detail::with_architecture(
            stored, files, [&]<auto config>(const char* name) {
                std::printf("%s: %s\n%s", operand.c_str(),
                            td::detail::sizes_of(name, config, stored.parts).architecture.c_str(),
                            td::describe(config).c_str());
            });
        return done;
    }
    std::string names, table;
    td::detail::for_each_architecture([&]<auto config>(const char* name) {
        names += (names.empty() ? "" : ", ") + std::string(name);
        if (plain_name(operand) == name) table = td::describe(config);
    });
    if (table.empty()) throw td::Error(operand, "a checkpoint, or a model of the zoo: " + names, "neither");
    std::fputs(table.c_str(), stdout);
    return done;
}

}  // namespace

Command describe_command() {
    return {
        .name = "describe",
        .purpose = "what a model is and costs: parts, parameters, FLOPs, memory",
        .operand = "MODEL|PATH",
        .synopsis = "MODEL|FOLDER|FILE",
        .description =
            "Prints the parts of a model of the zoo (vit_b_32, say), or of the architecture that a checkpoint has, "
            "with their parameters, FLOPs and memory, and the constant that stands for it in a program. Weights are "
            "not read.",
        .options = {{"--activation", "gelu|quick_gelu|gelu_pytorch_tanh", "for weights without a config"},
                    {"--prefix", "NAME", "which of several models in a file: what stands before its tensors' names"}},
        .run = run};
}

}  // namespace program
