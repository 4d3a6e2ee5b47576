// One pool of threads for the whole process.
#pragma once

#include <cstdint>

#include "memory.hpp"

namespace einstride {

// Told now and then, by the calling thread only, how much of long work is done: between 0 and 1, and never less than
// before. True means stop.
struct Monitor {
    bool (*poll)(void* context, double done) = nullptr;
    void* context = nullptr;
    // The part of the whole that this piece of work is.
    double from = 0;
    double to = 1;
};

// Calls body(context, task) for every task in [0, tasks), on the pool's threads and the caller's.
// Each thread begins with its own share of them, in order, and helps the others then, so which thread runs a task is
// not fixed: a body's result may depend on its task only, never on the thread. Returns false when the monitor stopped
// the work.
// With one task, one thread, or a pool that is busy with another caller's work, everything runs in the caller.
// An exception thrown by a body (std::bad_alloc) stops the work and is rethrown in the caller.
bool parallel_for(std::int64_t tasks, void (*body)(void* context, std::int64_t task), void* context,
                  const Monitor& monitor);

// The same for body(task).
template <class Body>
bool parallel_for(std::int64_t tasks, Body body, const Monitor& monitor) {
    const auto call = [](void* context, std::int64_t task) { (*static_cast<Body*>(context))(task); };
    return parallel_for(tasks, call, &body, monitor);
}

// Asked inside a body: true once the work is to stop. A body that takes longer than some milliseconds asks
// between its parts, and returns when told so; what it has left undone does not matter any more.
bool interrupted();

int num_threads();
// How many of them share so many tasks.
inline std::int64_t threads_for(std::int64_t tasks) {
    const std::int64_t threads = num_threads();
    return tasks < threads ? tasks : threads;
}
void set_num_threads(int count);  // count >= 1

}  // namespace einstride
