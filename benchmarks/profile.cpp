// Where the time of encode_image goes, by samples of what the CPU executes: ViT-B/32 with random weights, one image and a batch,
// under each instruction set of this CPU.
//   profile [--precision f32|bf16|int8] [--batch N] [--isa NAME] [--seconds S] [--functions]
// Without options every precision, batches 1 and 32, and all instruction sets but the two in plain C++, which are slow. --seconds is
// the time of each line, 4 by default; --functions lists the functions below each line. Products are those of attention, too.
// "packing" is what brings operands into the order and type that products read. A thread that waits for another is "waiting".
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <tandem/core/error.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/zoo.hpp>
#include <tandem/tensor/tensor.hpp>

namespace td = tandem;

namespace {

constexpr auto config = td::vit_b_32;

// Where the program was when the timer rang; a handler may do no more than write this down.
constexpr std::size_t most_samples = std::size_t{1} << 17;
std::array<std::atomic<std::uintptr_t>, most_samples> samples;
std::atomic<std::size_t> sample_count = 0;

void take_sample(int, siginfo_t*, void* context) {
    const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    const auto place = static_cast<std::uintptr_t>(machine.gregs[REG_RIP]);
#elif defined(__aarch64__)
    const auto place = static_cast<std::uintptr_t>(machine.pc);
#else
#error "profile.cpp knows where x86-64 and AArch64 keep the address that they execute"
#endif
    const std::size_t index = sample_count.fetch_add(1, std::memory_order_relaxed);
    if (index < most_samples) samples[index].store(place, std::memory_order_relaxed);
}

/// Rings with every tick of the system's clock (1 to 10 ms) that the process's threads run through, in one of them.
void set_timer(bool on) {
    const itimerval interval{{0, on ? 1000 : 0}, {0, on ? 1000 : 0}};
    if (::setitimer(ITIMER_PROF, &interval, nullptr) != 0) throw td::Error("profile", "a timer, which setitimer refuses");
}

/// The program's own functions by where they begin, and what they are called; nm reads them.
using Functions = std::map<std::uintptr_t, std::pair<std::uintptr_t, std::string>>;
Functions read_functions() {
    std::uintptr_t base = 0;
    ::dl_iterate_phdr([](dl_phdr_info* info, std::size_t, void* to) { return *static_cast<std::uintptr_t*>(to) = info->dlpi_addr, 1; }, &base);
    Functions functions;
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    std::FILE* const list = ::popen(("nm --demangle --defined-only --print-size '" + self + "'").c_str(), "r");
    if (list == nullptr) throw td::Error("profile", "nm (Debian: binutils), which names functions");
    char* line = nullptr;
    std::size_t room = 0;
    while (::getline(&line, &room, list) > 0) {
        unsigned long begin = 0, size = 0;
        char kind = 0;
        int name = 0;
        if (std::sscanf(line, "%lx %lx %c %n", &begin, &size, &kind, &name) != 3 || std::string_view("tTwWiu").find(kind) == std::string_view::npos) continue;
        std::string text = line + name;
        while (text.ends_with('\n')) text.pop_back();
        functions[base + begin] = {base + begin + size, std::move(text)};
    }
    std::free(line);
    if (::pclose(list) != 0 || functions.empty()) throw td::Error(self, "functions that nm can name", "none");
    return functions;
}

const Functions& own_functions() {
    static const Functions functions = read_functions();
    return functions;
}

/// A function's name without its arguments, and what of its template's arguments is not a class that it belongs to.
std::string_view plain_name(std::string_view function) {
    std::size_t depth = 0, end = function.size();
    for (std::size_t i = 0; i < function.size(); ++i) {
        if (function[i] == '(') return function.substr(0, std::min(i, end));
        if (function[i] == '<' && depth++ == 0) end = i;
        if (function[i] == '>' && --depth == 0 && function.substr(i + 1, 2) == "::") end = function.size();
    }
    return function;
}

/// What a function belongs to, by the first of these words in its name.
std::string_view kind_of(std::string_view function) {
    function = plain_name(function);
    static constexpr auto words = std::to_array<std::pair<std::string_view, std::string_view>>(
        {{"Finishing", "epilogues"},  {"finish", "epilogues"},    {"Finish", "epilogues"},  {"activate", "epilogues"},
         {"layer_norm", "norms"},     {"softmax", "attention"},   {"multiply_panels", "packing"},
         {"TileProduct", "products"}, {"TileKernels", "products"}, {"multiply", "products"}, {"product", "products"},
         {"attention", "attention"},  {"Attention", "attention"}, {"narrow", "packing"},    {"quantise", "packing"},
         {"interleave", "packing"},   {"transpose", "packing"},   {"pack", "packing"},      {"copy_", "packing"},
         {"padded_rows", "packing"},  {"in_pairs", "packing"},    {"pixel", "packing"},     {"Pixel", "packing"},
         {"libtbb", "waiting"},       {"ld-linux", "waiting"},    {"sched_yield", "waiting"},
         {"libc.so", "memory"}});
    for (const auto& [word, kind] : words) {
        if (function.find(word) != std::string_view::npos) return kind;
    }
    return "rest";
}

constexpr std::array<std::string_view, 8> kinds{"products", "epilogues", "norms", "attention", "packing", "memory", "waiting", "rest"};

struct Options {
    std::string precision, isa;
    std::size_t batch = 0;
    double seconds = 4;
    bool functions = false;
};

template <class T>
void profile(const char* precision, std::size_t batch, const Options& options) {
    using Model = td::Clip<config, T>;
    const Model model{td::Seed{1}};
    td::Tensor<float, typename Model::Vision::Input::shape> images(batch);
    for (std::size_t i = 0; i < images.size(); ++i) images.data()[i] = static_cast<float>(i % 251) / 125 - 1;
    const auto seconds = [begin = std::chrono::steady_clock::now()] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    (void)model.encode_image(images);
    sample_count = 0;
    std::size_t runs = 0;
    const double begin = seconds();
    set_timer(true);
    do {
        (void)model.encode_image(images);
        ++runs;
    } while (seconds() - begin < options.seconds);
    set_timer(false);
    const double each = 1e3 * (seconds() - begin) / static_cast<double>(runs * batch);

    const Functions& functions = own_functions();
    std::map<std::string, double> by_function;
    const std::size_t count = std::min(sample_count.load(), most_samples);
    if (count < 100) throw td::Error("profile", "a hundred samples or more: give it more --seconds", std::to_string(count));
    for (std::size_t i = 0; i < count; ++i) {
        const std::uintptr_t place = samples[i];
        auto found = functions.upper_bound(place);
        std::string name = "unknown";
        Dl_info library{};
        if (found != functions.begin() && place < (--found)->second.first) {
            name = found->second.second;
        } else if (::dladdr(reinterpret_cast<void*>(place), &library) != 0) {
            name = std::string(library.dli_sname == nullptr ? "" : library.dli_sname) + " in " + library.dli_fname;
        }
        by_function[name] += 100.0 / static_cast<double>(count);
    }
    std::map<std::string_view, double> by_kind;
    for (const auto& [name, share] : by_function) by_kind[kind_of(name)] += share;
    std::printf("%-13s %-5s %5zu %9.2f", std::string(td::kernels::name_of(td::kernels::active_isa())).c_str(), precision, batch, each);
    for (const std::string_view kind : kinds) std::printf(" %9.1f", by_kind[kind]);
    std::printf(" %9zu\n", count);
    if (!options.functions) return;
    std::vector<std::pair<double, std::string>> sorted;
    for (const auto& [name, share] : by_function) sorted.emplace_back(share, name);
    std::ranges::sort(sorted, std::greater());
    for (const auto& [share, name] : sorted) {
        if (share >= 0.5) std::printf("    %5.1f %%  %-9s %.150s\n", share, std::string(kind_of(name)).c_str(), name.c_str());
    }
}

/// What the options ask for, under the instruction set in use.
void run_here(const Options& options) {
    const auto run = [&]<class T>(const char* precision, T) {
        if (!options.precision.empty() && options.precision != precision) return;
        for (const std::size_t batch : {std::size_t{1}, std::size_t{32}}) {
            if (options.batch == 0) profile<T>(precision, batch, options);
        }
        if (options.batch != 0) profile<T>(precision, options.batch, options);
    };
    run("f32", float{});
    run("bf16", td::bf16{});
    run("int8", td::int8{});
    std::fflush(stdout);
}

/// The choice is made once a process: one for each instruction set.
void run_in_processes(const Options& options) {
    for (std::size_t i = 0; i < td::kernels::isa_names.size(); ++i) {
        const td::kernels::Isa isa{static_cast<int>(i)};
        const std::string_view name = td::kernels::name_of(isa);
        const bool is_usual = td::kernels::has(td::kernels::cpu_features(), isa) && isa != td::kernels::Isa::scalar && isa != td::kernels::Isa::amx_emulated;
        if (options.isa.empty() ? !is_usual : options.isa != name) continue;
        const ::pid_t child = ::fork();
        if (child == 0) {
            ::setenv("TANDEM_ISA", std::string(name).c_str(), 1);
            try {
                run_here(options);
                std::_Exit(0);
            } catch (const std::exception& error) {
                std::fprintf(stderr, "profile: %s\n", error.what());
                std::_Exit(1);
            }
        }
        int status = 0;
        if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0) throw td::Error("profile", std::string(name) + " ended with an error");
    }
}

/// Whether all of the text is a number.
template <class T>
bool number_from(const std::string& text, T& number) {
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
    return fault == std::errc() && end == text.data() + text.size();
}

Options parse(int count, char** arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string argument = arguments[i];
        if (argument == "--functions") {
            options.functions = true;
            continue;
        }
        if (i + 1 == count) throw td::Error(argument, "an option of profile.cpp's first lines, with its value", "neither");
        const std::string value = arguments[++i];
        if (argument == "--precision" && (value == "f32" || value == "bf16" || value == "int8")) {
            options.precision = value;
        } else if (argument == "--isa" && std::ranges::find(td::kernels::isa_names, value) != td::kernels::isa_names.end()) {
            options.isa = value;
        } else if (argument == "--batch" && number_from(value, options.batch) && options.batch > 0) {
        } else if (argument == "--seconds" && number_from(value, options.seconds) && options.seconds > 0) {
        } else {
            throw td::Error(argument, "an option of profile.cpp's first lines", value);
        }
    }
    return options;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        const Options options = parse(count, arguments);
        struct sigaction action {};
        action.sa_sigaction = take_sample;
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
        ::sigaction(SIGPROF, &action, nullptr);
        std::printf("Shares of the CPU time in %%, ViT-B/32\n%-13s %-5s %5s %9s", "kernels", "", "batch", "ms/image");
        for (const std::string_view kind : kinds) std::printf(" %9s", std::string(kind).c_str());
        std::printf(" %9s\n", "samples");
        std::fflush(stdout);
        run_in_processes(options);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "profile: %s\n", error.what());
        return 1;
    }
}
