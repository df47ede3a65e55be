// System calls on files, and the replacing of one in a durable step over any set of them: what is behind
// write_file_atomically.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// "model.safetensors: cannot write: No space left on device", from the errno of the call that just failed.
[[noreturn]] inline void throw_file_error(const std::filesystem::path& path, std::string_view operation) {
    const int code = errno;
    throw Error(path.string(), "cannot " + std::string(operation) + ": " + std::generic_category().message(code));
}

/// Repeats a system call for as long as a signal interrupts it.
template <class Call>
auto uninterrupted(Call call) {
    auto result = call();
    while (result == -1 && errno == EINTR) result = call();
    return result;
}

/// The system calls of a safe write, in one place so that a test can make any of them fail. Each sets errno.
struct FileCalls {
    static int open(const char* path, int flags) { return ::open(path, flags | O_CLOEXEC, 0666); }
    static int lock(int file) { return ::flock(file, LOCK_EX); }
    static int truncate(int file) { return ::ftruncate(file, 0); }
    static ::ssize_t write(int file, const void* bytes, std::size_t count) { return ::write(file, bytes, count); }
    static int permit(int file, ::mode_t mode) { return ::fchmod(file, mode); }
    static int sync(int file) { return ::fsync(file); }
    static int rename(const char* from, const char* to) { return std::rename(from, to); }
    static int remove(const char* path) { return ::unlink(path); }
    static int close(int file) { return ::close(file); }
};

/// An open file, closed at the end of its scope.
template <class Calls = FileCalls>
class Descriptor {
public:
    Descriptor(Calls& calls, int number) : calls_(calls), number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) calls_.close(number_);
    }
    int number() const { return number_; }

private:
    Calls& calls_;
    int number_;
};

/// Opens the temporary of one target and waits for its lock. A process killed in mid-write leaves the temporary
/// behind, unlocked: the next writer takes it over, so that at most one lies about.
template <class Calls>
int open_temporary(Calls& calls, const std::filesystem::path& temporary, const std::filesystem::path& target) {
    while (true) {
        const int file =
            uninterrupted([&] { return calls.open(temporary.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK); });
        if (file < 0) throw_file_error(target, "create " + temporary.filename().string() + " beside it");
        struct ::stat opened {};
        struct ::stat named {};
        // Cluster file systems without locks (Lustre's default mount) leave writers of one path unordered, as
        // elsewhere.
        const bool locked = uninterrupted([&] { return calls.lock(file); }) == 0 || errno == ENOSYS ||
                            errno == ENOLCK || errno == EOPNOTSUPP;
        if (!locked || ::fstat(file, &opened) != 0) {
            const int code = errno;
            calls.remove(temporary.c_str());
            calls.close(file);
            errno = code;
            throw_file_error(target, "lock " + temporary.filename().string());
        }
        // While this writer waited, the one before it may have renamed the very file it holds: that one is the target
        // now and must not be touched.
        if (::lstat(temporary.c_str(), &named) == 0 && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev)
            return file;
        calls.close(file);
    }
}

template <class Calls>
void write_parts(Calls& calls, int file, std::span<const std::span<const std::byte>> parts,
                 const std::filesystem::path& target) {
    for (std::span<const std::byte> rest : parts) {
        while (!rest.empty()) {
            const auto written = uninterrupted([&] { return calls.write(file, rest.data(), rest.size()); });
            if (written == 0) errno = EIO;
            if (written <= 0) throw_file_error(target, "write");
            rest = rest.subspan(static_cast<std::size_t>(written));
        }
    }
}

/// write_file_atomically over any set of system calls.
template <class Calls>
void replace_file(Calls calls, const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts) {
    struct ::stat old {};
    const bool replaces = ::stat(path.c_str(), &old) == 0;
    if (replaces && !S_ISREG(old.st_mode)) throw Error(path.string(), "cannot write: not a regular file");

    // Opened first, so that nothing that can be known beforehand fails after the rename.
    const std::filesystem::path parent = path.parent_path().empty() ? "." : path.parent_path();
    const Descriptor<Calls> folder(calls,
                                   uninterrupted([&] { return calls.open(parent.c_str(), O_RDONLY | O_DIRECTORY); }));
    if (folder.number() < 0) throw_file_error(path, "open its folder");

    std::filesystem::path temporary = path;
    temporary += ".tandem-tmp";
    // The lock ends with the descriptor, hence after the temporary has gone one way or the other.
    const Descriptor<Calls> file(calls, open_temporary(calls, temporary, path));
    try {
        if (uninterrupted([&] { return calls.truncate(file.number()); }) != 0) throw_file_error(path, "truncate");
        write_parts(calls, file.number(), parts, path);
        if (replaces && uninterrupted([&] { return calls.permit(file.number(), old.st_mode & 07777U); }) != 0)
            throw_file_error(path, "keep its permissions");
        if (uninterrupted([&] { return calls.sync(file.number()); }) != 0) throw_file_error(path, "fsync");
        if (calls.rename(temporary.c_str(), path.c_str()) != 0) throw_file_error(path, "rename");
    } catch (...) {
        calls.remove(temporary.c_str());
        throw;
    }
    // Some network file systems know no fsync of folders and say EINVAL: there is nothing more to be had from them.
    if (uninterrupted([&] { return calls.sync(folder.number()); }) != 0 && errno != EINVAL)
        throw_file_error(path, "fsync its folder (the new file is in place, but a power loss may undo it)");
}

}  // namespace tandem::inline TANDEM_ABI::detail
