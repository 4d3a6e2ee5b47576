// The pool: every task once, from any number of callers, through exceptions, stops, resizing and forks.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <new>
#include <thread>
#include <utility>
#include <vector>

// The thread sanitizer does not follow a fork, and no sanitizer lets an allocation fail.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#endif
#if !defined(_WIN32) && !defined(SANITIZED)
#define FORKS
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "check.hpp"
#include "parallel.hpp"

using namespace einstride;

namespace {

struct Counts {
    std::vector<std::atomic<int>> of;
    explicit Counts(std::int64_t tasks) : of(static_cast<std::size_t>(tasks)) {}
    bool all(int value) const {
        for (const auto& count : of)
            if (count.load() != value) return false;
        return true;
    }
};

void count_task(void* context, std::int64_t task) {
    ++static_cast<Counts*>(context)->of[static_cast<std::size_t>(task)];
}

void every_task_runs_once() {
    for (const std::int64_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
        Counts counts(tasks);
        CHECK(parallel_for(tasks, count_task, &counts, Monitor{}));
        CHECK(counts.all(1));
    }
}

void calls_follow_each_other_closely() {
    Counts counts(5);
    for (int i = 0; i < 20000; ++i) parallel_for(5, count_task, &counts, Monitor{});
    CHECK(counts.all(20000));
}

void calls_follow_each_other_slowly() {
    Counts counts(5);
    for (int i = 0; i < 50; ++i) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));  // the workers go to sleep
        parallel_for(5, count_task, &counts, Monitor{});
    }
    CHECK(counts.all(50));
}

void what_tasks_write_is_seen() {
    std::vector<std::int64_t> values(1000);
    const auto body = [](void* context, std::int64_t task) { static_cast<std::int64_t*>(context)[task] = task * task; };
    parallel_for(1000, body, values.data(), Monitor{});
    std::int64_t sum = 0;
    for (const std::int64_t value : values) sum += value;
    CHECK(sum == 332833500);
}

// Three threads, new ones that have no other job, and nine tasks: the first tasks of all three are where their shares
// begin.
void each_thread_begins_with_its_own_share() {
    set_num_threads(2);
    set_num_threads(3);
    struct First {
        std::atomic<int> threads{0};
        std::atomic<int> tasks{0};  // a bit each
    } first;
    const auto body = [](void* context, std::int64_t task) {
        First& begun = *static_cast<First*>(context);
        thread_local const First* last = nullptr;
        if (std::exchange(last, &begun) == &begun) return;
        begun.tasks |= 1 << task;
        ++begun.threads;
        while (begun.threads < 3) std::this_thread::yield();
    };
    CHECK(parallel_for(9, body, &first, Monitor{}));
    CHECK(first.tasks == 0b001001001);
}

void callers_do_not_wait_for_each_other() {
    Counts counts(100);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&] {
            for (int i = 0; i < 200; ++i) parallel_for(100, count_task, &counts, Monitor{});
        });
    for (auto& caller : callers) caller.join();
    CHECK(counts.all(800));
}

void calls_nest() {
    Counts counts(10);
    const auto body = [](void* context, std::int64_t) { parallel_for(10, count_task, context, Monitor{}); };
    parallel_for(6, body, &counts, Monitor{});
    CHECK(counts.all(6));
}

void an_exception_reaches_the_caller() {
    for (const std::int64_t bad : {0, 3, 999}) {
        std::int64_t wrong = bad;
        const auto body = [](void* context, std::int64_t task) {
            if (task == *static_cast<std::int64_t*>(context)) throw std::bad_alloc();
        };
        bool caught = false;
        try {
            parallel_for(1000, body, &wrong, Monitor{});
        } catch (const std::bad_alloc&) {
            caught = true;
        }
        CHECK(caught);
    }
    every_task_runs_once();
}

void the_monitor_stops_the_work() {
    for (const int threads : {1, 3}) {
        set_num_threads(threads);
        std::atomic<int> asked{0};
        std::atomic<int> ran{0};
        const Monitor monitor{[](void* context, double) { return ++*static_cast<std::atomic<int>*>(context) == 2; },
                              &asked};
        const auto body = [](void* context, std::int64_t) {
            ++*static_cast<std::atomic<int>*>(context);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        };
        CHECK(!parallel_for(100000, body, &ran, monitor));
        CHECK(asked == 2);
        CHECK(ran < 1000);
        every_task_runs_once();
    }
}

void a_long_task_hears_of_it() {
    for (const int threads : {1, 3}) {
        set_num_threads(threads);
        std::atomic<int> asked{0};
        const Monitor monitor{[](void* context, double) { return ++*static_cast<std::atomic<int>*>(context) == 2; },
                              &asked};
        const auto endless = [](void*, std::int64_t) {
            while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        };
        CHECK(!parallel_for(threads, endless, nullptr, monitor));
        CHECK(!interrupted());
    }
}

void the_monitor_hears_how_far_the_work_is() {
    for (const int threads : {1, 3}) {
        set_num_threads(threads);
        std::vector<double> heard;
        const auto hear = [](void* context, double done) {
            static_cast<std::vector<double>*>(context)->push_back(done);
            return false;
        };
        const auto body = [](void*, std::int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
        CHECK(parallel_for(200, body, nullptr, Monitor{hear, &heard, 0.25, 0.75}));
        CHECK(heard.size() >= 3);
        CHECK(std::is_sorted(heard.begin(), heard.end()));
        CHECK(heard.front() >= 0.25 && heard.front() < 0.5);
        CHECK(heard.back() > 0.5 && heard.back() <= 0.75);
    }
}

void the_pool_changes_size() {
    for (const int threads : {1, 4, 2, 3, 1, 2}) {
        set_num_threads(threads);
        CHECK(num_threads() == threads);
        every_task_runs_once();
    }
}

void scratch_is_kept_and_counted() {
    reset_memory_peak();
    const std::int64_t before = memory_held();
    std::thread([before] {
        char* first = scratch(1000);
        CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
        CHECK(scratch(500) == first);
        std::memset(scratch(3 << 20), 1, 3 << 20);
        CHECK(memory_held() >= before + (3 << 20));
    }).join();
    CHECK(memory_held() == before);
    CHECK(memory_peak() >= before + (3 << 20));
}

void blocks_are_recycled() {
    char* first = take_block(1 << 20);
    CHECK(reinterpret_cast<std::uintptr_t>(first) % 64 == 0);
    CHECK(block_capacity(first) >= std::size_t{1} << 20);
    char* second = take_block(1 << 20);
    CHECK(second != first);
    give_block(first);
    CHECK(memory_cached() >= 1 << 20);
    CHECK(take_block(1 << 20) == first);
    give_block(first);
    give_block(second);
    for (int i = 0; i < 100; ++i) give_block(take_block((std::size_t{1} << 20) * static_cast<std::size_t>(1 + i)));
    CHECK(memory_cached() <= std::int64_t{256} << 20);
}

void an_impossible_size_throws() {
    std::vector<std::size_t> sizes{SIZE_MAX};
#ifndef SANITIZED
    sizes.push_back(SIZE_MAX / 2);
#endif
    for (const std::size_t bytes : sizes) {
        bool caught = false;
        try {
            take_block(bytes);
        } catch (const std::bad_alloc&) {
            caught = true;
        }
        CHECK(caught);
    }
}

#ifdef FORKS
void a_forked_child_has_its_own_pool() {
    set_num_threads(3);
    every_task_runs_once();
    const pid_t child = fork();
    if (child == 0) {
        every_task_runs_once();
        give_block(take_block(1 << 20));
        _exit(failures() != 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    every_task_runs_once();
}
#endif

}  // namespace

int main() {
    set_num_threads(3);
    every_task_runs_once();
    calls_follow_each_other_closely();
    calls_follow_each_other_slowly();
    what_tasks_write_is_seen();
    each_thread_begins_with_its_own_share();
    callers_do_not_wait_for_each_other();
    calls_nest();
    an_exception_reaches_the_caller();
    the_monitor_stops_the_work();
    a_long_task_hears_of_it();
    the_monitor_hears_how_far_the_work_is();
    the_pool_changes_size();
    scratch_is_kept_and_counted();
    blocks_are_recycled();
    an_impossible_size_throws();
#ifdef FORKS
    a_forked_child_has_its_own_pool();
#endif
    set_num_threads(1);  // joins the pool's threads
    return failures() != 0;
}
