#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#ifndef _WIN32
#include <pthread.h>
#include <signal.h>
#endif

namespace einstride {
namespace {

using Clock = std::chrono::steady_clock;
using Body = void (*)(void* context, std::int64_t task);

// A thread that has nothing to do looks for work this long before it sleeps: waking a sleeper costs
// some 5 us of the caller's time and tens of microseconds until it runs.
constexpr auto spin_time = std::chrono::microseconds(50);
constexpr auto poll_interval = std::chrono::milliseconds(20);

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Done>
bool spin_until(Done done) {
    const auto end = Clock::now() + spin_time;
    do {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            pause();
        }
    } while (Clock::now() < end);
    return done();
}

// The time of the last poll outlives the call: a run of short calls is interrupted as one long call is.
bool asked_to_stop(const Monitor& monitor, std::int64_t unfinished, std::int64_t tasks) {
    if (monitor.poll == nullptr) return false;
    thread_local Clock::time_point last{};
    const auto now = Clock::now();
    if (now - last < poll_interval) return false;
    last = now;
    const double left = static_cast<double>(unfinished) / static_cast<double>(tasks);
    return monitor.poll(monitor.context, monitor.to - (monitor.to - monitor.from) * left);
}

// What a thread that runs tasks knows about stopping: a flag for all, and the monitor if it is the caller.
struct Duty {
    std::atomic<bool>* stopped;
    const std::atomic<std::int64_t>* unfinished;
    std::int64_t tasks;
    const Monitor* monitor;

    bool over() const {
        if (stopped->load(std::memory_order_relaxed)) return true;
        if (monitor == nullptr || !asked_to_stop(*monitor, unfinished->load(std::memory_order_relaxed), tasks))
            return false;
        stopped->store(true, std::memory_order_relaxed);
        return true;
    }
};
thread_local const Duty* current = nullptr;

// Makes a duty this thread's for as long as this lives; calls nest.
class OnDuty {
  public:
    explicit OnDuty(const Duty& duty) : before_(std::exchange(current, &duty)) {}
    ~OnDuty() { current = before_; }
    OnDuty(const OnDuty&) = delete;
    OnDuty& operator=(const OnDuty&) = delete;

  private:
    const Duty* before_;
};

bool run_alone(std::int64_t tasks, Body body, void* context, const Monitor& monitor) {
    std::atomic<bool> stopped{false};
    std::atomic<std::int64_t> unfinished{tasks};
    const Duty duty{&stopped, &unfinished, tasks, &monitor};
    const OnDuty here(duty);
    for (std::int64_t task = 0; task < tasks && !duty.over(); ++task) {
        body(context, task);
        unfinished.store(tasks - task - 1, std::memory_order_relaxed);
    }
    return !stopped.load(std::memory_order_relaxed);
}

// Threads that serve one caller at a time.
//
// The shares are the whole hand-over: of each, how many tasks nobody has taken. A task is claimed by lowering one, and
// the rest of the job is written while all are 0 and read only after a claim, which keeps the job alive: so a thread
// that wakes late finds either a job it may serve or nothing. What threads wait for is the number of jobs, which is
// raised when all shares are there: whoever waited for a share would find another's before its own.
//
// Each thread takes its own share first, then what is left of the others': where a job comes again, or reads what the
// one before wrote, a thread's caches hold most of its share (the benchmark's 108 workloads, 2 threads: 0.94 of the
// time that one share for all takes, geometric mean; outer products of 1000 x 1000 float64 473 and 240 us).
class Pool {
  public:
    explicit Pool(int threads) : shares_(static_cast<std::size_t>(threads)) {
        workers_.reserve(static_cast<std::size_t>(threads - 1));
#ifndef _WIN32
        // Signals are for the interpreter's threads.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
        try {
            for (std::size_t own = 1; own < shares_.size(); ++own) workers_.emplace_back([this, own] { serve(own); });
        } catch (const std::system_error&) {
            // Where the system grants no more threads, those there are do the work.
        }
#ifndef _WIN32
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
    }

    ~Pool() {
        {
            const std::lock_guard lock(mutex_);
            quit_.store(true);
        }
        work_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    int threads() const { return static_cast<int>(shares_.size()); }

    bool run(std::int64_t tasks, Body body, void* context, const Monitor& monitor) {
        body_ = body;
        context_ = context;
        failed_.store(false, std::memory_order_relaxed);
        stopped_.store(false, std::memory_order_relaxed);
        unfinished_.store(tasks, std::memory_order_relaxed);
        share_out(tasks);
        jobs_.fetch_add(1);
        keep_apart();
        wake(tasks - 1);

        const Duty duty{&stopped_, &unfinished_, tasks, &monitor};
        drain(0, duty);
        if (!spin_until([this] { return unfinished_.load(std::memory_order_acquire) == 0; })) {
            // Others may be in the middle of long tasks: the caller still asks whether to stop them.
            std::unique_lock lock(mutex_);
            caller_sleeps_.store(true);
            while (!done_.wait_for(lock, poll_interval, [this] { return unfinished_.load() == 0; })) {
                lock.unlock();
                duty.over();
                lock.lock();
            }
            caller_sleeps_.store(false);
        }
        if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(error_, nullptr));
        return !stopped_.load(std::memory_order_relaxed);
    }

  private:
    struct alignas(64) Share {
        std::atomic<std::int64_t> left{0};
        std::int64_t end = 0;
    };

    void share_out(std::int64_t tasks) {
        std::int64_t end = 0, others = threads();
        for (Share& share : shares_) {
            const std::int64_t count = (tasks - end + others - 1) / others;
            share.end = end += count;
            share.left.store(count, std::memory_order_release);
            --others;
        }
    }

    // Keeps the threads off the caller's core. A kernel that finds no core idle, as while the threads of another
    // library spin after a call, wakes a sleeper where its waker runs, and the two take turns there for tens of
    // milliseconds (a dot product of 1e6 float64 with 2 threads beside a spinning OpenBLAS: 345 us, apart 140 us).
    void keep_apart() {
#ifdef __linux__
        const int core = sched_getcpu();
        if (core == caller_core_ || core < 0) return;
        caller_core_ = core;
        cpu_set_t others;
        if (sched_getaffinity(0, sizeof others, &others) != 0) return;  // more cores than a cpu_set_t holds
        CPU_CLR(core, &others);
        if (CPU_COUNT(&others) == 0) return;
        for (std::thread& worker : workers_) pthread_setaffinity_np(worker.native_handle(), sizeof others, &others);
#endif
    }

    void wake(std::int64_t useful) {
        // Sequentially consistent with sleep(): either this sees the sleeper or the sleeper sees the work.
        const int sleepers = sleepers_.load();
        if (sleepers == 0) return;
        {
            const std::lock_guard lock(mutex_);
        }
        if (useful >= sleepers) {
            work_.notify_all();
        } else {
            for (std::int64_t i = 0; i < useful; ++i) work_.notify_one();
        }
    }

    void serve(std::size_t own) {
        // How many tasks a job has is for its caller to ask: it may be written while a thread that finds none looks.
        const Duty duty{&stopped_, &unfinished_, 0, nullptr};
        std::int64_t seen = 0;
        const auto something = [this, &seen] { return jobs_.load() != seen || quit_.load(std::memory_order_relaxed); };
        for (;;) {
            if (!spin_until(something)) {
                std::unique_lock lock(mutex_);
                sleepers_.fetch_add(1);
                work_.wait(lock, something);
                sleepers_.fetch_sub(1);
            }
            if (quit_.load(std::memory_order_relaxed)) return;
            seen = jobs_.load();
            drain(own, duty);
        }
    }

    // Runs tasks until there is none to take.
    void drain(std::size_t own, const Duty& duty) {
        const OnDuty here(duty);
        for (std::size_t w = 0; w < shares_.size(); ++w) drain_share(shares_[(own + w) % shares_.size()], duty);
    }

    void drain_share(Share& share, const Duty& duty) {
        for (;;) {
            std::int64_t left = share.left.load(std::memory_order_relaxed);
            do {
                if (left == 0) return;
            } while (!share.left.compare_exchange_weak(left, left - 1, std::memory_order_acquire,
                                                       std::memory_order_relaxed));
            try {
                if (!duty.over()) body_(context_, share.end - left);
            } catch (...) {
                if (!failed_.exchange(true)) error_ = std::current_exception();
                stopped_.store(true, std::memory_order_relaxed);
            }
            if (stopped_.load(std::memory_order_relaxed)) abandon();
            finish(1);
        }
    }

    void abandon() {
        for (Share& share : shares_)
            if (const std::int64_t left = share.left.exchange(0); left > 0) finish(left);
    }

    void finish(std::int64_t tasks) {
        if (unfinished_.fetch_sub(tasks) != tasks || !caller_sleeps_.load()) return;
        {
            const std::lock_guard lock(mutex_);
        }
        done_.notify_one();
    }

    std::vector<Share> shares_;  // the caller's is the first
    std::vector<std::thread> workers_;
    int caller_core_ = -1;
    std::mutex mutex_;
    std::condition_variable work_;
    std::condition_variable done_;
    std::atomic<int> sleepers_{0};
    std::atomic<bool> quit_{false};
    std::atomic<bool> caller_sleeps_{false};

    Body body_ = nullptr;
    void* context_ = nullptr;
    std::atomic<bool> failed_{false};
    std::atomic<bool> stopped_{false};
    std::exception_ptr error_;
    alignas(64) std::atomic<std::int64_t> jobs_{0};
    alignas(64) std::atomic<std::int64_t> unfinished_{0};
};

int usable_cores() {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int default_threads() {
    // A list, as "4,2", gives the numbers of nested levels: the first is ours.
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
        if (const long count = std::strtol(text, nullptr, 10); count >= 1)
            return static_cast<int>(std::min(count, 1024L));
    }
    return usable_cores();
}

std::atomic<int>& wanted() {
    static std::atomic<int> count{default_threads()};
    return count;
}

// Whoever sets `busy` owns `pool` until it clears it.
std::atomic<bool> busy{false};
Pool* pool = nullptr;

class Ownership {
  public:
    Ownership() : owned_(!busy.exchange(true, std::memory_order_acquire)) {}
    ~Ownership() {
        if (owned_) busy.store(false, std::memory_order_release);
    }
    Ownership(const Ownership&) = delete;
    Ownership& operator=(const Ownership&) = delete;
    explicit operator bool() const { return owned_; }

  private:
    const bool owned_;
};

void fit_pool(int threads) {
    if (pool != nullptr && pool->threads() == threads) return;
    delete pool;
    pool = nullptr;
    if (threads == 1) return;
#ifndef _WIN32
    // A forked child has none of the threads, and locks in an unknown state: it starts afresh.
    static const int registered = pthread_atfork(nullptr, nullptr, [] {
        pool = nullptr;
        busy.store(false);
    });
    (void)registered;
#endif
    pool = new Pool(threads);
}

}  // namespace

bool parallel_for(std::int64_t tasks, Body body, void* context, const Monitor& monitor) {
    const int threads = num_threads();
    if (tasks <= 1 || threads == 1) return run_alone(tasks, body, context, monitor);
    const Ownership owned;
    if (!owned) return run_alone(tasks, body, context, monitor);
    fit_pool(threads);
    return pool->run(tasks, body, context, monitor);
}

bool interrupted() { return current != nullptr && current->over(); }

int num_threads() { return wanted().load(std::memory_order_relaxed); }

void set_num_threads(int count) {
    wanted().store(std::max(1, count), std::memory_order_relaxed);
    // Threads that are no longer wanted go now; while another caller uses them, they go at its next call.
    if (const Ownership owned; owned && pool != nullptr) fit_pool(num_threads());
}

}  // namespace einstride
