// Chooses the instruction-set level once, when the library is first used.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "level.hpp"

namespace einstride {

namespace {

struct Choice {
    const char* name;
    const Level& (*level)();
};

// What this processor runs, the best first.
std::vector<Choice> choices() {
    std::vector<Choice> found;
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_cpu_init();
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512cd");
    if (has_avx512) found.push_back({"avx512", avx512::level});
    if (has_avx2) found.push_back({"avx2", avx2::level});
    found.push_back({"portable", portable::level});
#elif defined(__aarch64__) || defined(_M_ARM64)
    found.push_back({"neon", neon::level});
    found.push_back({"portable", portable::level});
#else
    found.push_back({"portable", portable::level});
#endif
    return found;
}

// A level that the processor cannot run is never forced: a name that is not among its own is as no name.
const Level& choose() {
    const std::vector<Choice> found = choices();
    if (const char* wanted = std::getenv("EINSTRIDE_LEVEL"))
        for (const Choice& choice : found)
            if (std::strcmp(choice.name, wanted) == 0) return choice.level();
    return found.front().level();
}

}  // namespace

const Level& level() {
    static const Level& chosen = choose();
    return chosen;
}

const Level& level_for([[maybe_unused]] std::int64_t bytes) {
#if defined(__x86_64__) || defined(_M_X64)
    // The portable level has no fused multiply-add. A level is asked for only where its processor is: filling its
    // tables already takes its instructions.
    if (level().vector_bytes == 64 && bytes <= 32) return avx2::level();
#endif
    return level();
}

std::vector<const char*> level_names() {
    std::vector<const char*> names;
    for (const Choice& choice : choices()) names.push_back(choice.name);
    return names;
}

}  // namespace einstride
