#include "measure.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "level.hpp"
#include "parallel.hpp"

namespace einstride {
namespace {

constexpr int repeats = 5;

// The least of several times: what is asked for is what the machine can do.
template <class Work>
double best_seconds(Work work) {
    using Clock = std::chrono::steady_clock;
    double best = 1e30;
    for (int i = 0; i < repeats; ++i) {
        const auto start = Clock::now();
        work();
        best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
    return best;
}

}  // namespace

double measure_flops(Acc acc) {
    struct Job {
        PeakFn run;
        unsigned char numbers[16] = {};
    };
    constexpr std::int64_t rounds = 100'000;
    const auto real = static_cast<int>(real_of(acc));
    Job job{level().peak[real]};
    // Numbers that stay ordinary however often they are used: 0.5 and 1 sum to 2.
    if (real_of(acc) == Acc::f32) {
        const float numbers[] = {0.5F, 1.0F};
        std::memcpy(job.numbers, numbers, sizeof numbers);
    } else if (real_of(acc) == Acc::f64) {
        const double numbers[] = {0.5, 1.0};
        std::memcpy(job.numbers, numbers, sizeof numbers);
    }
    // More tasks than threads: one thread that starts late must not leave the others idle for long.
    const std::int64_t tasks = 8 * num_threads();
    const auto body = [](void* context, std::int64_t) {
        alignas(64) unsigned char result[64];
        const Job& it = *static_cast<Job*>(context);
        it.run(rounds, it.numbers, result);
    };
    const double seconds = best_seconds([&] { parallel_for(tasks, body, &job, Monitor{}); });
    const double real_flops = 2.0 * peak_chains * level().tile[real].lanes * rounds * static_cast<double>(tasks);
    return real_flops / seconds / (is_complex(acc) ? 4 : 1);
}

double measure_bandwidth(std::int64_t bytes) {
    constexpr std::int64_t chunk = 256 * 1024;
    const std::int64_t tasks = std::max<std::int64_t>(1, bytes / chunk);
    const Workspace memory(static_cast<std::size_t>(tasks * chunk));
    std::memset(memory.data(), 1, static_cast<std::size_t>(tasks * chunk));
    const auto body = [](void* context, std::int64_t task) {
        volatile std::uint64_t sink = level().read(static_cast<const char*>(context) + task * chunk, chunk);
        (void)sink;
    };
    const double seconds = best_seconds([&] { parallel_for(tasks, body, memory.data(), Monitor{}); });
    return static_cast<double>(tasks * chunk) / seconds;
}

}  // namespace einstride
