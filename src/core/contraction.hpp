// What the two kernels of contractions share: their loops by role, and the conversions between the tensors' types and
// the type that is computed in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "level.hpp"
#include "loop.hpp"
#include "types.hpp"
#include "walk.hpp"

namespace einstride {

// The fewest multiply-adds that repay handing a task out: some 20 microseconds.
inline constexpr std::int64_t least_task = 1 << 19;

// The loops of one role, as each tensor walks them.
struct LabelGroup {
    Walk left, right, out;
    std::int64_t count = 1;

    void push(const Loop& loop) {
        left.push(loop.extent, loop.strides[0]);
        right.push(loop.extent, loop.strides[1]);
        out.push(loop.extent, loop.strides[2]);
        count *= loop.extent;
    }
};

struct LabelGroups {
    LabelGroup batch;
    LabelGroup m;  // free on the left
    LabelGroup n;  // free on the right
    LabelGroup k;  // contracted

    void push(const Loop& loop) {
        switch (loop.role) {
            case Role::batch: return batch.push(loop);
            case Role::free_left: return m.push(loop);
            case Role::free_right: return n.push(loop);
            case Role::contracted: return k.push(loop);
        }
    }
};

struct Conversions {
    PackFn left, right, out;
    PackPanelsFn left_panels, right_panels;
    StoreFn store;  // into the output

    // types: of the two sides and the output
    Conversions(const std::vector<DType>& types, const Level& level) : store(level.store[static_cast<int>(types[2])]) {
        const auto computed = static_cast<std::size_t>(acc_of(types[2]));
        const auto from = [computed](const auto& table, DType type) { return table[static_cast<int>(type)][computed]; };
        left = from(level.pack, types[0]);
        right = from(level.pack, types[1]);
        out = from(level.pack, types[2]);
        left_panels = from(level.pack_panels, types[0]);
        right_panels = from(level.pack_panels, types[1]);
    }
};

// What is read next, fetched while tiles run, for processors do not foresee it (chunked attention scores, 512
// products of 64 x 64 x 64 float32: 5.6 ms without, 4.1 ms with; `ijk,kr->ijr` with r = 32 and 120 x 120 x 120
// float64: 4.6 ms without, 2.6 ms with).
struct Ahead {
    Fetch now[2] = {no_fetch[0], no_fetch[1]};
    const std::int64_t* end[2] = {};

    void begin(std::size_t side, const char* first, const std::vector<std::int64_t>& lines, std::size_t padding) {
        now[side] = {first, lines.data(), 1};
        end[side] = lines.data() + lines.size() - padding;
    }

    // After a tile that fetched `depth` lines of each side: the rest of what is due.
    void advance(const std::int64_t (&due)[2], std::int64_t depth) {
        for (int side = 0; side < 2; ++side) {
            if (now[side].step == 0) continue;
            const std::int64_t* line = now[side].line + depth;
            const std::int64_t* const stop = std::min(now[side].line + due[side], end[side]);
            for (; line < stop; ++line) __builtin_prefetch(now[side].base + *line, 0, 2);
            now[side].line = line;
            if (line >= end[side]) now[side] = no_fetch[0];
        }
    }
};

}  // namespace einstride
