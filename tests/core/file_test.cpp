// Files: mapping, and replacing so that neither faults nor kills leave half a file.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include <tandem/core/file.hpp>
#include <tandem/core/file_calls.hpp>

namespace fs = std::filesystem;
namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

/// A folder of its own for each test, gone at its end.
class Folder {
public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "tandem-file-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { fs::remove_all(path_); }
    fs::path operator/(const std::string& name) const { return path_ / name; }
    std::size_t entries() const {
        return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
    }

private:
    fs::path path_;
};

std::string contents(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

std::string text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What a write says when it fails, "" when it does not.
std::string failure(const fs::path& path, std::string_view content) {
    try {
        td::write_file_atomically(path, content);
    } catch (const td::Error& error) {
        return error.what();
    }
    return "";
}

/// What a script of faults does to each system call in turn, and what was called.
struct Script {
    int calls = 0;
    int fail_at = -1;
    int error = EIO;
    bool interrupt = false;
    std::size_t most_bytes = SIZE_MAX;
    std::string log;
    std::string failed;
    bool pending = true;

    bool fails(const std::string& name) {
        if (interrupt && std::exchange(pending, !pending)) {
            errno = EINTR;
            return true;
        }
        log += name + " ";
        if (calls++ != fail_at) return false;
        failed = name;
        errno = error;
        return true;
    }
};

struct ScriptedCalls {
    Script* script;
    using Real = td::detail::FileCalls;

    int open(const char* path, int flags) {
        const bool folder = (flags & O_DIRECTORY) != 0;
        return script->fails(folder ? "open_folder" : "open") ? -1 : Real::open(path, flags);
    }
    int lock(int file) { return script->fails("lock") ? -1 : Real::lock(file); }
    int truncate(int file) { return script->fails("truncate") ? -1 : Real::truncate(file); }
    ::ssize_t write(int file, const void* bytes, std::size_t count) {
        return script->fails("write") ? -1 : Real::write(file, bytes, std::min(count, script->most_bytes));
    }
    int permit(int file, ::mode_t mode) { return script->fails("permit") ? -1 : Real::permit(file, mode); }
    int sync(int file) {
        struct ::stat status {};
        ::fstat(file, &status);
        return script->fails(S_ISDIR(status.st_mode) ? "sync_folder" : "sync") ? -1 : Real::sync(file);
    }
    int rename(const char* from, const char* to) {
        // rename is never interrupted by a signal
        const bool interrupt = std::exchange(script->interrupt, false);
        const bool fails = script->fails("rename");
        script->interrupt = interrupt;
        return fails ? -1 : Real::rename(from, to);
    }
    int remove(const char* path) { return Real::remove(path); }
    int close(int file) { return Real::close(file); }
};

void replace(Script& script, const fs::path& path, const std::vector<std::string>& parts) {
    std::vector<std::span<const std::byte>> spans;
    for (const std::string& part : parts) spans.push_back(std::as_bytes(std::span(part)));
    td::detail::replace_file(ScriptedCalls{&script}, path, spans);
}

}  // namespace

TEST_CASE("A mapped file shows its bytes and survives moves", "[core][file]") {
    const Folder folder;
    std::ofstream(folder / "a") << "abc";
    std::ofstream(folder / "empty").flush();
    td::MappedFile file(folder / "a");
    CHECK(text(file.bytes()) == "abc");
    td::MappedFile moved(std::move(file));
    CHECK(text(moved.bytes()) == "abc");
    td::MappedFile empty(folder / "empty");
    CHECK(empty.bytes().empty());
    empty = std::move(moved);
    CHECK(text(empty.bytes()) == "abc");
    static_assert(!std::is_copy_constructible_v<td::MappedFile>);
}

TEST_CASE("A mapping outlives the replacement of its file", "[core][file]") {
    const Folder folder;
    td::write_file_atomically(folder / "a", "old contents");
    const td::MappedFile file(folder / "a");
    td::write_file_atomically(folder / "a", "new");
    CHECK(text(file.bytes()) == "old contents");
    CHECK(text(td::MappedFile(folder / "a").bytes()) == "new");
}

TEST_CASE("What cannot be mapped is named", "[core][file]") {
    const Folder folder;
    CHECK_THROWS_WITH(td::MappedFile(folder / "none"), Contains("none: cannot open: No such file or directory"));
    fs::create_directory(folder / "folder");
    CHECK_THROWS_WITH(td::MappedFile(folder / "folder"), Contains("folder: cannot open: not a regular file"));
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK_THROWS_WITH(td::MappedFile(folder / "pipe"), Contains("pipe: cannot open: not a regular file"));
    CHECK_THROWS_WITH(td::MappedFile("/dev/zero"), Contains("/dev/zero: cannot open: not a regular file"));
}

TEST_CASE("Files are written and replaced whole", "[core][file]") {
    const Folder folder;
    const fs::path path = folder / "a";
    td::write_file_atomically(path, "first and longer");
    CHECK(contents(path) == "first and longer");
    td::write_file_atomically(path, "second");
    CHECK(contents(path) == "second");
    td::write_file_atomically(path, "");
    CHECK(contents(path).empty());
    CHECK(folder.entries() == 1);

    const std::string a = "one ";
    const std::string b = "two";
    const std::vector<std::span<const std::byte>> parts{std::as_bytes(std::span(a)), {}, std::as_bytes(std::span(b))};
    td::write_file_atomically(path, parts);
    CHECK(contents(path) == "one two");

    const fs::path before = fs::current_path();
    fs::current_path(path.parent_path());
    CHECK(failure("relative", "x").empty());
    fs::current_path(before);
    CHECK(contents(folder / "relative") == "x");
}

TEST_CASE("A replaced file keeps its permissions", "[core][file]") {
    const Folder folder;
    td::write_file_atomically(folder / "a", "x");
    fs::permissions(folder / "a", fs::perms{0640});
    td::write_file_atomically(folder / "a", "y");
    CHECK(fs::status(folder / "a").permissions() == fs::perms{0640});
}

TEST_CASE("A stale temporary is taken over", "[core][file]") {
    const Folder folder;
    std::ofstream(folder / "a.tandem-tmp") << "left by a killed process";
    td::write_file_atomically(folder / "a", "x");
    CHECK(contents(folder / "a") == "x");
    CHECK(folder.entries() == 1);
}

TEST_CASE("Targets that cannot be written are named and leave nothing behind", "[core][file]") {
    const Folder folder;
    CHECK_THAT(failure(folder / "none/a", "x"), Contains("none/a: cannot open its folder: No such file or directory"));
    fs::create_directory(folder / "folder");
    CHECK_THAT(failure(folder / "folder", "x"), Contains("folder: cannot write: not a regular file"));
    CHECK_THAT(failure(folder / "folder/", "x"), Contains("folder/: cannot write: not a regular file"));
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK_THAT(failure(folder / "pipe", "x"), Contains("pipe: cannot write: not a regular file"));
    CHECK(fs::is_fifo(folder / "pipe"));
    fs::remove(folder / "pipe");
    CHECK_THAT(failure(folder / std::string(255, 'n'), "x"),
               Contains("cannot create") && Contains("File name too long"));
    std::ofstream(folder / "file").flush();
    CHECK_THAT(failure(folder / "file/a", "x"), Contains("file/a: cannot open its folder: Not a directory"));
    fs::create_symlink(folder / "file", folder / "b.tandem-tmp");
    CHECK_THAT(failure(folder / "b", "x"), Contains("cannot create b.tandem-tmp beside it"));
    fs::remove(folder / "b.tandem-tmp");
    CHECK(folder.entries() == 2);
    CHECK(fs::is_empty(folder / "folder"));

    if (::geteuid() != 0) {  // root writes into read-only folders
        fs::permissions(folder / "folder", fs::perms{0500});
        CHECK_THAT(failure(folder / "folder/a", "x"), Contains("folder/a: cannot create") && Contains("denied"));
    }
}

TEST_CASE("A full disk leaves the old file", "[core][file]") {
    const Folder folder;
    const fs::path path = folder / "a";
    td::write_file_atomically(path, "old");
    const ::pid_t child = ::fork();
    if (child == 0) {
        ::signal(SIGXFSZ, SIG_IGN);
        const ::rlimit limit{1000, 1000};  // the first write is cut short, the second fails
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const std::string message = failure(path, std::string(5000, 'x'));
        ::_exit(message.find("a: cannot write: File too large") != std::string::npos ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(contents(path) == "old");
    CHECK(folder.entries() == 1);
}

TEST_CASE("A safe write makes its calls in the one durable order", "[core][file]") {
    const Folder folder;
    Script script;
    replace(script, folder / "a", {"x", "y"});
    CHECK(script.log == "open_folder open lock truncate write write sync rename sync_folder ");
    Script again;
    replace(again, folder / "a", {"z"});
    CHECK(again.log == "open_folder open lock truncate write permit sync rename sync_folder ");
}

TEST_CASE("Each call of a safe write may fail", "[core][file]") {
    const Folder folder;
    const fs::path path = folder / "a";
    std::vector<std::string> failed;
    for (int n = 0;; ++n) {
        td::write_file_atomically(path, "old");
        Script script;
        script.fail_at = n;
        script.most_bytes = 2;
        std::string message;
        try {
            replace(script, path, {"new", "er"});
        } catch (const td::Error& error) {
            message = error.what();
        }
        INFO(n << " " << script.failed << " " << message);
        CHECK(folder.entries() == 1);
        if (script.failed.empty()) {
            CHECK(contents(path) == "newer");
            break;
        }
        failed.push_back(script.failed);
        CHECK_THAT(message, Contains(path.string() + ": cannot ") && Contains("Input/output error"));
        CHECK(contents(path) == (script.failed == "sync_folder" ? "newer" : "old"));
    }
    CHECK(failed.size() == 11);
}

TEST_CASE("A file system without locks, or without fsync of folders, is written all the same", "[core][file]") {
    const Folder folder;
    for (const auto& [call, error] : {std::pair{2, ENOSYS}, {2, ENOLCK}, {2, EOPNOTSUPP}, {7, EINVAL}}) {
        Script script;
        script.fail_at = call;
        script.error = error;
        fs::remove(folder / "a");
        replace(script, folder / "a", {"x"});
        CHECK(script.failed == (call == 2 ? "lock" : "sync_folder"));
        CHECK(contents(folder / "a") == "x");
    }
}

TEST_CASE("Interrupted and short writes are continued", "[core][file]") {
    const Folder folder;
    Script script;
    script.interrupt = true;
    script.most_bytes = 3;
    std::string long_text;
    for (int i = 0; i < 1000; ++i) long_text += std::to_string(i);
    replace(script, folder / "a", {long_text, "", long_text});
    CHECK(contents(folder / "a") == long_text + long_text);
}

TEST_CASE("Writers of one file wait for each other", "[core][file]") {
    const Folder folder;
    const fs::path path = folder / "a";
    std::vector<std::thread> writers;
    std::vector<std::string> messages(4);
    for (std::size_t w = 0; w < messages.size(); ++w)
        writers.emplace_back([&, w] {
            for (int i = 0; i < 25 && messages[w].empty(); ++i)
                messages[w] = failure(path, std::string(20000 + 1000 * w, static_cast<char>('a' + w)));
        });
    for (std::thread& writer : writers) writer.join();
    for (const std::string& message : messages) CHECK(message.empty());
    const std::string last = contents(path);
    REQUIRE(!last.empty());
    CHECK(last == std::string(20000 + 1000 * static_cast<std::size_t>(last[0] - 'a'), last[0]));
    CHECK(folder.entries() == 1);
}

TEST_CASE("Kill at any moment: the old file or the new one", "[core][file]") {
    const Folder folder;
    const fs::path path = folder / "a";
    const std::string first(700'000, 'a');
    const std::string second(1'000'000, 'b');
    td::write_file_atomically(path, first);
    int in_a_save = 0;
    unsigned state = 12345;
    for (int kill = 0; kill < 40; ++kill) {
        const ::pid_t child = ::fork();
        if (child == 0)
            for (bool turn = false;; turn = !turn) td::write_file_atomically(path, turn ? first : second);
        state = state * 1664525U + 1013904223U;
        std::this_thread::sleep_for(std::chrono::microseconds(500 + (state >> 8) % 15000));
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        in_a_save += fs::exists(folder / "a.tandem-tmp");
        const std::string found = contents(path);
        CHECK((found == first || found == second));
    }
    CHECK(in_a_save > 0);
    td::write_file_atomically(path, "after");
    CHECK(contents(path) == "after");
    CHECK(folder.entries() == 1);
}
