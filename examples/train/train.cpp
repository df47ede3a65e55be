// Trains or fine-tunes a CLIP of any architecture, under open_clip's options: train --help.
#include <csignal>
#include <string>
#include <vector>

#include <tandem/images/webp.hpp>

#include "../quickstart/design.hpp"
#include "../tandem/manual.hpp"
#include "models.hpp"
#include "training.hpp"

namespace {

/// The architecture that is trained where --model names no other: write your own here, as a td::ClipConfig.
constexpr auto architecture = quickstart::design;

const std::vector<std::string> names = training::model_names("architecture");

int run(const program::Arguments& given) {
    const training::Settings settings = training::read_settings(given, names);
    for (const int signal : {SIGTERM, SIGINT}) std::signal(signal, [](int which) {
        training::stop_asked = true;
        // Whoever asks twice does not wait.
        std::signal(which, SIG_DFL);
    });
    if (settings.model == names.front()) return training::run<architecture>(settings);
    return training::run_model(settings);
}

}  // namespace

int main(int count, char** arguments) {
    return program::exit_code("train", [&] {
        const std::vector<std::string> words = training::as_words(count, arguments);
        const program::Command command = training::command(names, run);
        for (const std::string& word : words) {
            if (word != "--help" && word != "-h") continue;
            std::fputs(program::help(command, "").c_str(), stdout);
            return static_cast<int>(program::done);
        }
        return run(program::Arguments(command, words));
    });
}
