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
// float64: 4.6 ms without, 2.6 ms with). One list after another: both at a time took as long.
class Ahead {
  public:
    Ahead() = default;
    void add(const char* base, const std::vector<std::int64_t>& lines) {
        if (!lines.empty()) lists_[count_++] = {base, lines.data(), static_cast<std::int64_t>(lines.size())};
    }

    // What the next tile fetches, a line a step.
    const Fetch& now() const { return count_ > 0 ? lists_[0] : no_fetch; }

    // After a tile that fetched `depth` lines: the rest of what is due.
    void advance(std::int64_t due, std::int64_t depth) {
        if (count_ == 0) return;
        Fetch& now = lists_[0];
        for (const std::int64_t end = std::min(due, now.count); depth < end; ++depth)
            __builtin_prefetch(now.base + now.line[depth], 0, 2);
        now.line += depth, now.count -= depth;
        if (now.count > 0) return;
        lists_[0] = lists_[1];
        --count_;
    }

  private:
    Fetch lists_[2];
    int count_ = 0;
};

}  // namespace einstride
