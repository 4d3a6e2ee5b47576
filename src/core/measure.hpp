// What this machine does at most: the rates that the roofline and the cost estimates start from.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace einstride {

// Multiply-adds of this type, counted as 2 flops each, per second, on all threads of the pool:
// independent ones on registers only, at the level in use. A complex multiply-add is four real ones.
double measure_flops(Acc acc);

// Bytes read per second by all threads of the pool from a working set of this size.
double measure_bandwidth(std::int64_t bytes);

}  // namespace einstride
