// Threads that share the work of one step after the other, and wait for the next one without sleeping.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

static inline void rest_a_little() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Into how many nearly equal shares to cut `count` things, at most `most` in each: as many for one member of a team
// as for the other, where there are enough.
static inline long shares(long count, long most, long members) {
    long least = (count + most - 1) / most;
    return std::min(count, (least + members - 1) / members * members);
}

class Team {
   public:
    explicit Team(int size) : size_(size) {
        for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { work(i); });
    }

    ~Team() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
            round_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return size_; }

    // Calls job(task, member) for each task below `tasks`, in any order; returns when all are done.
    template <class Job>
    void share(long tasks, const Job& job) {
        if (size_ == 1 || tasks <= 1) {
            for (long task = 0; task < tasks; task++) job(task, 0);
            return;
        }
        std::function<void(int)> part = [&](int member) {
            for (long task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks;) job(task, member);
        };
        part_ = &part;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(size_ - 1, std::memory_order_relaxed);
        bool sleepers;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            round_.fetch_add(1, std::memory_order_release);
            sleepers = asleep_ > 0;
        }
        if (sleepers) wake_.notify_all();
        part(0);
        for (long turns = 0; busy_.load(std::memory_order_acquire) > 0; turns++) {
            // Where another program has the core of a member, it gets ours too.
            if (turns < PATIENCE) rest_a_little();
            else std::this_thread::yield();
        }
    }

   private:
    static constexpr long PATIENCE = 2000;  // Turns, about 50 microseconds.

    void work(int member) {
        long seen = 0;
        while (true) {
            for (long turns = 0; round_.load(std::memory_order_acquire) == seen && turns < PATIENCE; turns++)
                rest_a_little();
            if (round_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                asleep_++;
                wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
                asleep_--;
            }
            seen++;
            if (closing_) return;
            (*part_)(member);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    const int size_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<long> round_{0}, next_{0};
    std::atomic<int> busy_{0};
    int asleep_ = 0;
    bool closing_ = false;
    std::function<void(int)>* part_ = nullptr;
};
