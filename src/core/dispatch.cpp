// Chooses the instruction-set level once, when the library is first used.
#include <cstdlib>
#include <cstring>

#include "level.hpp"

namespace einstride {

namespace {

struct Choice {
    const char* name;
    const Level& (*level)();
    bool runs;
};

const Level& choose() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512cd");
    const Choice choices[] = {
        {"avx512", avx512::level, has_avx512}, {"avx2", avx2::level, has_avx2}, {"portable", portable::level, true}};
#elif defined(__aarch64__) || defined(_M_ARM64)
    const Choice choices[] = {{"neon", neon::level, true}};
#else
    const Choice choices[] = {{"portable", portable::level, true}};
#endif
    const char* wanted = std::getenv("EINSTRIDE_LEVEL");
    // A level that the processor cannot run is never forced: the search goes on to the next lower one.
    bool reached = wanted == nullptr || *wanted == '\0';
    const Choice* best = nullptr;
    for (const Choice& choice : choices) {
        reached = reached || std::strcmp(choice.name, wanted) == 0;
        if (choice.runs && (best == nullptr)) best = &choice;
        if (choice.runs && reached) return choice.level();
    }
    return best->level();
}

}  // namespace

const Level& level() {
    static const Level& chosen = choose();
    return chosen;
}

}  // namespace einstride
