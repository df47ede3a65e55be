// SIGKILL at random moments, some inside a save: the finished weights are those of a run nobody touched, bit for bit.
#include <catch2/catch.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "toy.hpp"

namespace td = tandem;
namespace fs = std::filesystem;

#if defined(__SANITIZE_THREAD__)

TEST_CASE("kills are not tried under ThreadSanitizer, which cannot follow threads that a forked child starts") { SUCCEED(); }

#else

namespace {

constexpr std::size_t steps = 400;

std::string contents(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// The whole run, snapshots after every step, in a process of its own: fork happens before any thread exists here.
pid_t start(const fs::path& folder) {
    const pid_t child = ::fork();
    if (child != 0) return child;
    int status = 1;
    try {
        toy::Model model{td::Seed{1}};
        td::Trainer trainer{model, td::AdamW{.rate = 1e-3}, td::WarmupCosine{}, td::InfoNce{},
                            td::TrainerOptions{.batch = 8, .steps = steps, .seed = td::Seed{1},
                                               .snapshot = folder / "run.safetensors", .snapshot_every = 1, .log = nullptr}};
        trainer.fit(toy::Pairs{});
        td::save_weights(model, folder / "final.safetensors");
        status = 0;
    } catch (const td::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
    }
    std::_Exit(status);
}

}  // namespace

TEST_CASE("a run killed twenty times ends in the bits of one that was not") {
    std::string name = (fs::temp_directory_path() / "tandem-kill-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    const fs::path folder = name, reference = folder / "reference", killed = folder / "killed";
    fs::create_directories(reference);
    fs::create_directories(killed);

    int status = 0;
    const auto began = std::chrono::steady_clock::now();
    REQUIRE(::waitpid(start(reference), &status, 0) > 0);
    REQUIRE(status == 0);
    const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began);

    td::Random random{td::Seed{static_cast<std::uint64_t>(::getpid())}};
    INFO("kill moments from seed " << ::getpid());
    int kills = 0, inside_save = 0;
    while (kills < 20) {
        const pid_t child = start(killed);
        if (kills % 2 == 0) {
            std::this_thread::sleep_for(whole * static_cast<long>(random.below(1000)) / 12000);
        } else {
            // Until the temporary of a save stands there, or the run is over.
            while (!fs::exists(killed / "run.safetensors.tandem-tmp") && ::waitpid(child, &status, WNOHANG) == 0) {
            }
        }
        const bool saving = fs::exists(killed / "run.safetensors.tandem-tmp");
        if (::kill(child, SIGKILL) == 0 && ::waitpid(child, &status, 0) > 0 && WIFSIGNALED(status)) {
            ++kills;
            inside_save += saving ? 1 : 0;
        } else {
            // The run finished first: begin another that will be killed in full.
            fs::remove_all(killed);
            fs::create_directories(killed);
        }
    }
    REQUIRE(::waitpid(start(killed), &status, 0) > 0);
    REQUIRE(status == 0);
    CHECK(inside_save > 0);
    const std::string expected = contents(reference / "final.safetensors");
    CHECK(expected.size() > 1000);
    CHECK(contents(killed / "final.safetensors") == expected);
    fs::remove_all(folder);
}

#endif
