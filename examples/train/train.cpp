// Trains or fine-tunes a CLIP of any architecture, under open_clip's options: train --help.
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <tandem/images/webp.hpp>

#include "../quickstart/design.hpp"
#include "../tandem/manual.hpp"
#include "models.hpp"
#include "processes.hpp"
#include "training.hpp"

namespace {

/// The architecture that is trained where --model names no other: write your own here, as a td::ClipConfig.
constexpr auto architecture = quickstart::design;

const std::vector<std::string> names = training::model_names("architecture");

int run(training::Settings settings, tandem::Ranks* ranks) {
    settings.ranks = ranks;
    // The first rank's, which has the time of day in it.
    if (ranks != nullptr) {
        settings.name = tandem::gather_texts(*ranks, settings.name).front();
        training::give_up_after(*ranks, settings.rank_timeout);
    }
    // mpirun passes SIGUSR1 on, where SIGTERM and SIGINT give its processes a few seconds.
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) std::signal(signal, [](int which) {
        training::stop_asked = true;
        // Whoever asks twice does not wait.
        std::signal(which, SIG_DFL);
    });
    if (settings.model == names.front()) return training::run<architecture>(settings);
    return training::run_model(settings);
}

}  // namespace

int main(int count, char** arguments) {
    std::unique_ptr<tandem::Ranks> ranks;
    const int code = program::exit_code("train", [&] {
        ranks = training::join_ranks();
        try {
            const std::vector<std::string> words = training::as_words(count, arguments);
            const program::Command command = training::command(names);
            for (const std::string& word : words) {
                if (word != "--help" && word != "-h") continue;
                std::fputs(program::help(command, "").c_str(), stdout);
                return static_cast<int>(program::done);
            }
            return run(training::read_settings(program::Arguments(command, words), names), ranks.get());
        } catch (...) {
            // What all ranks find wrong, the first one says and ends them, which takes mpirun some seconds.
            if (ranks != nullptr && ranks->rank() > 0) {
                std::this_thread::sleep_for(std::chrono::seconds(5));
                std::fprintf(stderr, "rank %zu: ", ranks->rank());
            }
            throw;
        }
    });
    // The others would wait for this one.
    if (ranks != nullptr && code != program::done && code != training::stopped) training::end_ranks(*ranks, code);
    return code;
}
