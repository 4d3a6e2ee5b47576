// How one tensor walks a group of loops.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "loop.hpp"

namespace einstride {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
// The largest part, where a count is cut evenly into as few parts as have `most` at most.
constexpr std::int64_t even_part(std::int64_t count, std::int64_t most) {
    return ceil_div(count, ceil_div(count, most));
}
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

// A group of loops, outermost first, as one tensor walks it: folded as far as this tensor's strides allow.
class Walk {
  public:
    void push(std::int64_t extent, std::int64_t stride) {
        count_ *= extent;
        if (extent == 1) return;
        if (!axes_.empty() && axes_.back().stride == stride * extent) {
            axes_.back() = {axes_.back().extent * extent, stride};
        } else {
            axes_.push_back({extent, stride});
        }
    }

    std::int64_t count() const { return count_; }
    bool regular() const { return axes_.size() <= 1; }
    bool multiple_of(std::int64_t bytes) const {
        return std::all_of(axes_.begin(), axes_.end(), [=](const Axis& axis) { return axis.stride % bytes == 0; });
    }
    std::int64_t stride() const { return axes_.empty() ? 0 : axes_.back().stride; }
    std::int64_t run() const { return axes_.empty() ? 1 : axes_.back().extent; }  // of numbers so far apart

    // How many places its steps lead to, if no two axes meet.
    std::int64_t distinct() const {
        std::int64_t places = 1;
        for (const Axis& axis : axes_)
            if (axis.stride != 0) places *= axis.extent;
        return places;
    }

    std::int64_t at(std::int64_t index) const {
        if (axes_.empty()) return 0;
        std::int64_t offset = 0;
        for (std::size_t axis = axes_.size() - 1; axis > 0; --axis) {
            offset += index % axes_[axis].extent * axes_[axis].stride;
            index /= axes_[axis].extent;
        }
        return offset + index * axes_.front().stride;
    }

    // The offsets of the indices first, first + 1, ... (count of them).
    void fill(std::int64_t first, std::int64_t count, std::int64_t* out) const {
        if (regular()) {
            for (std::int64_t i = 0; i < count; ++i) out[i] = (first + i) * stride();
            return;
        }
        const Axis& inner = axes_.back();
        for (std::int64_t i = 0; i < count;) {
            const std::int64_t within = (first + i) % inner.extent;
            const std::int64_t run = std::min(count - i, inner.extent - within);
            const std::int64_t base = at(first + i);
            for (std::int64_t r = 0; r < run; ++r) out[i + r] = base + r * inner.stride;
            i += run;
        }
    }

    std::vector<std::int64_t> list(std::int64_t count) const {
        std::vector<std::int64_t> at(static_cast<std::size_t>(count));
        fill(0, count, at.data());
        return at;
    }

  private:
    struct Axis {
        std::int64_t extent, stride;
    };
    std::vector<Axis> axes_;
    std::int64_t count_ = 1;
};

// Offsets that lie in memory already, with their common distance where there is one.
inline Offsets slice(const std::int64_t* at, std::int64_t count) {
    if (count < 2) return {at, count, irregular};
    const std::int64_t stride = at[1] - at[0];
    for (std::int64_t i = 2; i < count; ++i)
        if (at[i] - at[i - 1] != stride) return {at, count, irregular};
    return {at, count, stride};
}

inline constexpr std::int64_t line_bytes = 64;  // of the caches

// The cache lines that a nest of two lists of offsets touches, each by an offset that touches it. Runs that begin
// anywhere in a line may end in one more than aligned ones, so the last offset before a gap is listed too.
inline std::vector<std::int64_t> lines_of(const std::vector<std::int64_t>& outer,
                                          const std::vector<std::int64_t>& inner, bool aligned) {
    std::vector<std::int64_t> lines;
    std::int64_t last = 0;
    const auto end_run = [&] {
        if (!aligned && !lines.empty() && last != lines.back()) lines.push_back(last);
    };
    for (const std::int64_t row : outer)
        for (const std::int64_t column : inner) {
            const std::int64_t at = row + column;
            if (lines.empty() || std::abs(at - lines.back()) >= line_bytes) {
                if (std::abs(at - last) >= line_bytes) end_run();
                lines.push_back(at);
            }
            last = at;
        }
    end_run();
    return lines;
}

}  // namespace einstride
