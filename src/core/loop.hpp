// A loop of a step: a role, an extent and one byte stride per tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "types.hpp"

namespace einstride {

enum class Role : std::uint8_t { batch, free_left, free_right, contracted };

struct Loop {
    Role role;
    std::int64_t extent;
    std::vector<std::int64_t> strides;  // bytes; one per tensor of the step, inputs first, output last
};

// Bytes of a tensor that the loops touch.
inline std::int64_t touched_bytes(const std::vector<Loop>& loops, DType type, std::size_t tensor) {
    std::int64_t bytes = size_of(type);
    for (const Loop& loop : loops) bytes *= loop.strides[tensor] == 0 ? 1 : loop.extent;
    return bytes;
}
// And of all.
inline std::int64_t touched_bytes(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    std::int64_t all = 0;
    for (std::size_t tensor = 0; tensor < types.size(); ++tensor) all += touched_bytes(loops, types[tensor], tensor);
    return all;
}

// Of tensors that take more, some come from memory: a last cache that is shared keeps no more.
inline constexpr std::int64_t shared_cache = 24 << 20;

// Whether the output is better written past the caches, for no last cache keeps it and its inputs: what one keeps is
// written there at up to 150 GB/s, past it at 28 (an outer product of 32 MB, 2 threads: 0.75 ms, and 1.15 ms streamed;
// a transpose of 18 MB: 1.4 and 1.06 ms).
inline bool past_caches(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    constexpr std::int64_t least_output = 4 << 20, last_cache = 32 << 20;
    return touched_bytes(loops, types.back(), types.size() - 1) >= least_output &&
           touched_bytes(loops, types) >= last_cache;
}

// The byte offsets of a run of indices along one side of a block. `stride` is the common distance
// where the run is regular, `irregular` where it is not.
inline constexpr std::int64_t irregular = INT64_MIN;
struct Offsets {
    const std::int64_t* at;
    std::int64_t count;
    std::int64_t stride;
};

}  // namespace einstride
