// Ranks that are threads of one process: what they exchange passes through memory that one lock guards.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <tandem/core/ranks.hpp>

class ThreadRanks {
public:
    explicit ThreadRanks(std::size_t size) {
        for (std::size_t rank = 0; rank < size; ++rank) ranks_.emplace_back(new Rank(*this, rank));
    }

    /// body(ranks) on as many threads; what one throws ends the waiting of the others, and is thrown from here.
    template <class Body>
    void run(const Body& body) {
        std::exception_ptr first;
        std::vector<std::thread> threads;
        for (const auto& rank : ranks_) {
            threads.emplace_back([&] {
                try {
                    body(*rank);
                } catch (...) {
                    const std::scoped_lock lock(mutex_);
                    if (!first) first = std::current_exception();
                    ended_ = true;
                    changed_.notify_all();
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        if (first) std::rethrow_exception(first);
    }

    std::size_t sent_bytes() const { return sent_; }

private:
    class Rank : public tandem::Ranks {
    public:
        Rank(ThreadRanks& all, std::size_t rank) : all_(all), rank_(rank) {}

        std::size_t rank() const override { return rank_; }
        std::size_t size() const override { return all_.ranks_.size(); }
        void exchange(std::size_t partner, std::span<const std::byte> out, std::span<std::byte> in) override {
            std::unique_lock lock(all_.mutex_);
            const auto empty = [&] { return all_.ended_ || !all_.letters_.contains({rank_, partner}); };
            all_.changed_.wait(lock, empty);
            all_.letters_[{rank_, partner}].assign(out.begin(), out.end());
            all_.sent_ += out.size();
            all_.changed_.notify_all();
            all_.changed_.wait(lock, [&] { return all_.ended_ || all_.letters_.contains({partner, rank_}); });
            if (all_.ended_) throw std::runtime_error("another rank has ended");
            const std::vector<std::byte>& letter = all_.letters_[{partner, rank_}];
            if (letter.size() != in.size()) throw std::runtime_error("a letter of another size");
            std::ranges::copy(letter, in.begin());
            all_.letters_.erase({partner, rank_});
            all_.changed_.notify_all();
        }

    private:
        ThreadRanks& all_;
        std::size_t rank_;
    };

    std::vector<std::unique_ptr<Rank>> ranks_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::pair<std::size_t, std::size_t>, std::vector<std::byte>> letters_;
    std::size_t sent_ = 0;
    bool ended_ = false;
};
