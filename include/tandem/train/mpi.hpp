// Ranks that are processes of MPI. The component mpi links it; a plain include does not know it.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/ranks.hpp>

// Both implementations of Debian's: the C functions alone.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

namespace tandem::inline TANDEM_ABI {

/// The processes that mpirun has started. A thread of its own calls MPI, and nothing else may: it tells the next rank every half second that this one
/// lives, so that a rank that computes, evaluates or saves for long is told from one that is gone. When one is gone, whoever misses it says so with
/// its number, host and process, and ends all of them with exit code `lost` (mpirun itself ends them where one is killed, and says so in its own
/// words): started again, a run goes on from its last snapshot. Exchanges are polled. Where an exception may end the work of one rank, catch it inside of
/// what this lives in, say what it says, and call abort(): the destructor ends all ranks, and nothing is said after it.
class MpiRanks : public Ranks {
public:
    /// Exit code of a run that lost a rank.
    static constexpr int lost = 4;

    /// Whether this process was started by mpirun, or srun with its plugin.
    static bool is_launched() {
        return std::getenv("OMPI_COMM_WORLD_RANK") != nullptr || std::getenv("PMI_RANK") != nullptr || std::getenv("PMIX_RANK") != nullptr;
    }

    /// Once a process. Throws Error where MPI cannot be used by a thread of its own, and where the ranks are no power of two.
    MpiRanks() : exceptions_(std::uncaught_exceptions()) {
        thread_ = std::thread([this] { work(); });
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return is_ready_; });
        if (level_ < MPI_THREAD_FUNNELED) {
            lock.unlock();
            thread_.join();
            throw Error("MpiRanks", "an MPI whose functions a thread may call (MPI_THREAD_FUNNELED)", "level " + std::to_string(level_));
        }
        for (const char* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
            const char* const launched = std::getenv(name);
            if (launched == nullptr || std::strtoul(launched, nullptr, 10) == size()) continue;
            lock.unlock();
            end();
            throw Error("mpirun", "the launcher of the MPI that this program is linked with, which would have started " + std::to_string(size_), std::string(launched) + " processes");
        }
        if (!std::has_single_bit(size())) {
            lock.unlock();
            end();
            throw Error("mpirun", "a number of ranks that is a power of two", std::to_string(size_));
        }
    }

    /// Waits for the other ranks; if an exception is under way, ends them.
    ~MpiRanks() override {
        if (!thread_.joinable()) return;
        if (std::uncaught_exceptions() > exceptions_) {
            std::fprintf(stderr, "rank %d: ends the run, for it failed\n", rank_);
            abort(EXIT_FAILURE);
        }
        end();
    }

    std::size_t rank() const override { return static_cast<std::size_t>(rank_); }
    std::size_t size() const override { return static_cast<std::size_t>(size_); }

    /// Seconds: a rank of which nothing is heard for longer, stopped or cut off, ends the run, as does one that lives and does not come to an exchange:
    /// for as long as the first rank evaluates, the others wait. Throws Error for silence of less than two seconds, which a rank that is only busy keeps too.
    void give_up_after(double silence, double absence = std::numeric_limits<double>::infinity()) {
        if (!(silence >= 2)) throw Error("MpiRanks::give_up_after", "two seconds or more", std::to_string(silence));
        silence_ = silence;
        absence_ = absence;
    }

    void exchange(std::size_t partner, std::span<const std::byte> out, std::span<std::byte> in) override {
        std::unique_lock lock(mutex_);
        asked_ = {static_cast<int>(partner), out, in};
        is_asked_ = true;
        changed_.notify_all();
        changed_.wait(lock, [&] { return !is_asked_; });
    }

    /// Ends all ranks; this one with the code, or 1 for 0.
    [[noreturn]] void abort(int code) {
        abort_code_ = code != 0 ? code : EXIT_FAILURE;
        {
            const std::scoped_lock lock(mutex_);
            changed_.notify_all();
        }
        thread_.join();
        std::_Exit(abort_code_);
    }

private:
    void end() {
        {
            const std::scoped_lock lock(mutex_);
            is_over_ = true;
            changed_.notify_all();
        }
        thread_.join();
    }

    using Clock = std::chrono::steady_clock;
    static constexpr auto beat_every = std::chrono::milliseconds(500);
    static constexpr int beat_tag = 1, letter_tag = 2;
    static constexpr char farewell = 1;

    struct Letter {
        int partner = 0;
        std::span<const std::byte> out{};
        std::span<std::byte> in{};
    };

    // All that follows runs on the thread that calls MPI.

    void work() {
        start();
        if (level_ < MPI_THREAD_FUNNELED) {
            MPI_Finalize();
            return;
        }
        std::unique_lock lock(mutex_);
        while (!is_over_) {
            changed_.wait_for(lock, beat_every, [&] { return is_asked_ || is_over_ || abort_code_ != 0; });
            if (is_asked_) {
                lock.unlock();
                deliver();
                lock.lock();
                is_asked_ = false;
                changed_.notify_all();
            }
            lock.unlock();
            beat();
            lock.lock();
        }
        lock.unlock();
        finish();
    }

    void start() {
        int level = 0;
        MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
        MPI_Comm_size(MPI_COMM_WORLD, &size_);
        // Errors end the process by MPI's own means, with a text.
        std::array<char, MPI_MAX_PROCESSOR_NAME + 32> mine{};
        int length = 0;
        MPI_Get_processor_name(mine.data(), &length);
        const std::string text = std::string(mine.data(), static_cast<std::size_t>(length)) + ", process " + std::to_string(::getpid());
        mine.fill('\0');
        std::memcpy(mine.data(), text.data(), std::min(text.size(), mine.size() - 1));
        std::vector<char> all(mine.size() * static_cast<std::size_t>(size_));
        MPI_Allgather(mine.data(), static_cast<int>(mine.size()), MPI_CHAR, all.data(), static_cast<int>(mine.size()), MPI_CHAR, MPI_COMM_WORLD);
        for (std::size_t i = 0; i < size(); ++i) names_.emplace_back(all.data() + i * mine.size());
        heard_ = asked_last_ = Clock::now();
        const std::scoped_lock lock(mutex_);
        level_ = level;
        is_ready_ = true;
        changed_.notify_all();
    }

    std::string name(int rank) const { return "rank " + std::to_string(rank) + " (" + names_[static_cast<std::size_t>(rank)] + ")"; }

    int before() const { return (rank_ + size_ - 1) % size_; }

    /// Tells the next rank that this one lives, and listens to the one before.
    void beat() {
        if (abort_code_ != 0) MPI_Abort(MPI_COMM_WORLD, abort_code_);
        if (size_ == 1) return;
        const auto now = Clock::now();
        // A process that was stopped itself has heard nothing, and blames nobody.
        if (now - asked_last_ > std::max<std::chrono::duration<double>>(std::chrono::duration<double>(silence_ / 2), 3 * beat_every)) heard_ = now;
        asked_last_ = now;
        int is_done = 1;
        if (now - told_ >= beat_every) {
            if (sent_ != MPI_REQUEST_NULL) MPI_Test(&sent_, &is_done, MPI_STATUS_IGNORE);
            if (is_done != 0) MPI_Isend(&beat_, 1, MPI_CHAR, (rank_ + 1) % size_, beat_tag, MPI_COMM_WORLD, &sent_);
            told_ = now;
        }
        while (listen()) heard_ = now;
        const double silence = std::chrono::duration<double>(now - heard_).count();
        if (silence > silence_) lose(before(), "has not been heard for " + std::to_string(static_cast<int>(silence)) + " s");
    }

    /// Whether something has come from the rank before this one since it was asked last.
    bool listen() {
        if (has_parted_) return false;
        if (listening_ == MPI_REQUEST_NULL) MPI_Irecv(&heard_beat_, 1, MPI_CHAR, before(), beat_tag, MPI_COMM_WORLD, &listening_);
        int is_done = 0;
        MPI_Test(&listening_, &is_done, MPI_STATUS_IGNORE);
        has_parted_ = is_done != 0 && heard_beat_ == farewell;
        return is_done != 0;
    }

    [[noreturn]] void lose(int rank, const std::string& what) {
        std::fprintf(stderr, "%s: %s %s; the run ends, and goes on from its last snapshot when it is started again\n", name(rank_).c_str(), name(rank).c_str(), what.c_str());
        std::fflush(stderr);
        MPI_Abort(MPI_COMM_WORLD, lost);
        std::_Exit(lost);
    }

    template <class Done>
    void poll(const Done& is_done, int partner) {
        const auto began = Clock::now();
        while (!is_done()) {
            beat();
            const auto passed = Clock::now() - began;
            if (partner >= 0 && passed > std::chrono::duration<double>(absence_))
                lose(partner, "lives, and has not come to an exchange for " + std::to_string(static_cast<int>(absence_)) + " s");
            // Whoever waits long leaves the core to what computes.
            if (passed > std::chrono::milliseconds(1)) {
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            } else {
                std::this_thread::yield();
            }
        }
    }

    void deliver() {
        // MPI counts in int.
        constexpr std::size_t most = std::size_t{1} << 28;
        std::vector<MPI_Request> requests;
        for (std::size_t at = 0; at < asked_.in.size(); at += most) {
            requests.emplace_back();
            const int count = static_cast<int>(std::min(most, asked_.in.size() - at));
            MPI_Irecv(asked_.in.data() + at, count, MPI_BYTE, asked_.partner, letter_tag, MPI_COMM_WORLD, &requests.back());
        }
        for (std::size_t at = 0; at < asked_.out.size(); at += most) {
            requests.emplace_back();
            const int count = static_cast<int>(std::min(most, asked_.out.size() - at));
            MPI_Isend(asked_.out.data() + at, count, MPI_BYTE, asked_.partner, letter_tag, MPI_COMM_WORLD, &requests.back());
        }
        poll(
            [&] {
                int are_done = 0;
                MPI_Testall(static_cast<int>(requests.size()), requests.data(), &are_done, MPI_STATUSES_IGNORE);
                return are_done != 0;
            },
            asked_.partner);
    }

    /// All ranks end together: one that is still busy is waited for.
    void finish() {
        MPI_Request barrier = MPI_REQUEST_NULL;
        MPI_Ibarrier(MPI_COMM_WORLD, &barrier);
        poll(
            [&] {
                int is_done = 0;
                MPI_Test(&barrier, &is_done, MPI_STATUS_IGNORE);
                return is_done != 0;
            },
            -1);
        // What has been sent is received before MPI ends: the last of it is a farewell.
        if (size_ > 1) {
            if (sent_ != MPI_REQUEST_NULL) MPI_Wait(&sent_, MPI_STATUS_IGNORE);
            MPI_Isend(&farewell, 1, MPI_CHAR, (rank_ + 1) % size_, beat_tag, MPI_COMM_WORLD, &sent_);
            // It may have come while this rank still was in the barrier.
            while (!has_parted_) {
                if (!listen()) std::this_thread::yield();
            }
            MPI_Wait(&sent_, MPI_STATUS_IGNORE);
        }
        MPI_Finalize();
    }

    std::atomic<double> silence_ = 30, absence_ = std::numeric_limits<double>::infinity();
    int exceptions_;
    int rank_ = 0, size_ = 1, level_ = 0;
    std::vector<std::string> names_;
    std::mutex mutex_;
    std::condition_variable changed_;
    Letter asked_;
    bool is_ready_ = false, is_asked_ = false, is_over_ = false;
    std::atomic<int> abort_code_ = 0;
    Clock::time_point heard_{}, told_{}, asked_last_{};
    char beat_ = 0, heard_beat_ = 0;
    bool has_parted_ = false;  // the rank before this one
    MPI_Request sent_ = MPI_REQUEST_NULL, listening_ = MPI_REQUEST_NULL;
    std::thread thread_;
};

}  // namespace tandem::inline TANDEM_ABI
