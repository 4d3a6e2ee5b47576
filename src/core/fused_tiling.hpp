// A fused step before it runs: its loops in a normal form, and how they are cut into tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "loop.hpp"
#include "types.hpp"

namespace einstride::fused {

using Table = std::vector<std::int64_t>;

inline constexpr std::int64_t long_run = 1024;           // bytes after which a run's two broken lines do not count
inline constexpr std::int64_t streamed_tile = 16 << 10;  // bytes of the output in a tile, where it is streamed

inline bool contracted(const Loop& loop) { return loop.role == Role::contracted; }

// Loops that run forwards in the order of memory, outermost first, with those that every tensor walks as one merged;
// there is one at least.
struct Nest {
    std::vector<Loop> loops;
    std::vector<DType> types;         // inputs, then the output
    std::vector<std::size_t> source;  // of each tensor among those of the step
    Table shift;                      // bytes from a source's first element to the tensor's
    Acc acc;
    bool nothing;          // the output has no element, and the rest of this says nothing
    bool empty_sum;        // a contracted extent is 0
    std::int64_t touched;  // bytes of all tensors
    bool large;            // the output: streamed past the caches where whole lines of it are written

    std::size_t inputs() const { return types.size() - 1; }
    std::size_t output() const { return inputs(); }
    std::int64_t stride(std::size_t loop, std::size_t tensor) const { return loops[loop].strides[tensor]; }
    bool native(std::size_t tensor) const { return is_native(types[tensor], acc); }
    // Whether a tensor's numbers are adjacent along the loop, as the kernels compute with them.
    bool along(std::size_t loop, std::size_t tensor) const {
        return native(tensor) && stride(loop, tensor) == size_of(acc);
    }
};

Nest normal_form(std::vector<Loop> loops, std::vector<DType> types);

// The tiles for one vector loop.
struct Tiling {
    std::size_t v = 0;              // the vector loop
    std::size_t beside = SIZE_MAX;  // the loop whose rows come one after another, if any
    std::size_t kept = SIZE_MAX;    // the packed input whose tile, if it comes again, does so at once
    Table extent;                   // of the tile, a loop each
    std::vector<bool> vector;       // inputs that vary along v and are read by registers
    std::vector<bool> packed;       // inputs
    bool turned = false;            // a plain copy: the pack writes the output itself
    bool dot = false;               // v is contracted
    bool staged = false;            // the output needs level().store
    double cycles = 0;              // predicted, all tiles
    double tile_cycles = 0;
};

// The tiling that is predicted to be the fastest.
Tiling choose_tiling(const Nest& nest);

}  // namespace einstride::fused
