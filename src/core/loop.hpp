// A loop of a step: a role, an extent and one byte stride per tensor.
#pragma once

#include <cstdint>
#include <vector>

namespace einstride {

enum class Role : std::uint8_t { batch, free_left, free_right, contracted };

struct Loop {
    Role role;
    std::int64_t extent;
    std::vector<std::int64_t> strides;  // bytes; one per tensor of the step, inputs first, output last
};

// The byte offsets of a run of indices along one side of a block. `stride` is the common distance
// where the run is regular, `irregular` where it is not.
inline constexpr std::int64_t irregular = INT64_MIN;
struct Offsets {
    const std::int64_t* at;
    std::int64_t count;
    std::int64_t stride;
};

}  // namespace einstride
