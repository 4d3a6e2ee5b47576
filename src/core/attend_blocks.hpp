// What attention and its gradients share: panels of queries, blocks of keys, and the scores between them.
//
// A task takes a block of queries of one batch entry and packs it, once, into panels as wide as a register tile. Blocks
// of keys and values are packed once for all panels. Products run on the tiles of contractions, with vectors along the
// queries: scores lie as (key, query), which is how a second product wants to read them, and what is one number a query
// (its maximum, its sum) is a lane of a vector. All query labels together are one row of queries, so queries that share
// keys (grouped-query attention) share packed blocks, too.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "attend.hpp"
#include "level.hpp"
#include "softmax.hpp"
#include "walk.hpp"

namespace einstride::attending {

constexpr double log2_e = 1.4426950408889634074;

// Most keys in a block, whose scores against a panel of queries are a strip as large as L1; and the most bytes of a
// block of keys and values.
constexpr std::int64_t max_keys = 256;
constexpr std::int64_t key_block_bytes = 256 << 10;

constexpr int widest = 2 * 64 / 4;  // queries in a panel of the widest vectors

constexpr std::size_t index_of(AttendTensor tensor) { return static_cast<std::size_t>(tensor); }

inline bool sums_in_double(const std::vector<AttendTensor>& present, const std::vector<DType>& types) {
    const auto out = std::find(present.begin(), present.end(), AttendTensor::out) - present.begin();
    return acc_of(types[static_cast<std::size_t>(out)]) == Acc::f64;
}

// The keys first <= j < end.
struct Range {
    std::int64_t first, end;

    bool empty() const { return first >= end; }
    std::int64_t count() const { return end - first; }
    Range operator&(const Range& other) const { return {std::max(first, other.first), std::min(end, other.end)}; }
};

// As many queries as a tile is wide.
struct Panel {
    std::int64_t first, count;
    int vectors;
    Range some, all;  // the keys that some of its queries see, and those that all of them see
    bool started;     // whether it has seen any
};

// An entry of the batch: what a task works on.
struct Entry {
    char* const* tensors;
    std::int64_t batch;
};

// What forward and gradient share: where everything lies, and scores.
template <class T>
class Attention : public Kernel {
  protected:
    Attention(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
              const std::vector<DType>& types, double scale)
        : level_(level()),
          tile_(level_.tile[static_cast<int>(acc)]),
          softmax_(*level_.softmax[static_cast<int>(acc)]),
          width_(2 * tile_.lanes),
          scale_(scale) {
        std::fill(slot_, slot_ + attend_tensors, -1);
        for (std::size_t slot = 0; slot < present.size(); ++slot) {
            slot_[index_of(present[slot])] = static_cast<int>(slot);
            type_[index_of(present[slot])] = types[slot];
        }
        for (const AttendLoop& loop : loops)
            for (std::size_t tensor = 0; tensor < attend_tensors; ++tensor) {
                const int slot = slot_[tensor];
                walk_[static_cast<std::size_t>(loop.role)][tensor].push(
                    loop.extent, slot < 0 ? 0 : loop.strides[static_cast<std::size_t>(slot)]);
            }
        batch_ = walk(AttendRole::batch, AttendTensor::q).count();
        queries_ = walk(AttendRole::query, AttendTensor::q).count();
        keys_ = walk(AttendRole::key, AttendTensor::q).count();
        depth_ = walk(AttendRole::depth, AttendTensor::q).count();
        values_ = walk(AttendRole::value, AttendTensor::q).count();
        depth_rows_ = even_rows(depth_);
        value_rows_ = even_rows(values_);
    }

    static constexpr Acc acc = sizeof(T) == 4 ? Acc::f32 : Acc::f64;
    static constexpr std::int64_t size = sizeof(T);

    bool has(AttendTensor tensor) const { return slot_[index_of(tensor)] >= 0; }
    const Walk& walk(AttendRole role, AttendTensor tensor) const {
        return walk_[static_cast<std::size_t>(role)][index_of(tensor)];
    }
    char* base(AttendTensor tensor, const Entry& entry) const {
        return entry.tensors[slot_[index_of(tensor)]] + walk(AttendRole::batch, tensor).at(entry.batch);
    }

    // The height of tiles that cut `count` rows into equal parts.
    std::int64_t even_rows(std::int64_t count) const {
        return count == 0 ? 1 : ceil_div(count, ceil_div(count, tile_.rows));
    }

    // A run of indices along one role of one tensor, in the order they lie.
    Offsets run_of(AttendRole role, AttendTensor tensor, std::int64_t first, std::int64_t count,
                   std::int64_t* at) const {
        walk(role, tensor).fill(first, count, at);
        return slice(at, count);
    }

    // to[r * ld + c] = the element of `tensor` at row r and column c, which run along two roles.
    void pack(T* to, std::int64_t ld, AttendTensor tensor, const Entry& entry, const Offsets& rows,
              const Offsets& columns) const {
        level_.pack[static_cast<int>(type_[index_of(tensor)])][static_cast<int>(acc)](to, ld, base(tensor, entry), rows,
                                                                                      columns);
    }
    void store(AttendTensor tensor, const Entry& entry, const Offsets& rows, const Offsets& columns, const T* from,
               std::int64_t ld) const {
        level_.store[static_cast<int>(type_[index_of(tensor)])](base(tensor, entry), rows, columns, from, ld);
    }

    // The queries of a panel in columns of width_ numbers; the columns that a last panel lacks are zero.
    void pack_panel(T* to, AttendTensor tensor, const Entry& entry, AttendRole role, const Panel& panel,
                    std::int64_t count, std::int64_t* offsets) const {
        if (panel.count < width_) std::memset(to, 0, static_cast<std::size_t>(count * width_ * size));
        const Offsets rows = run_of(role, tensor, 0, count, offsets);
        std::int64_t at[widest];
        pack(to, width_, tensor, entry, rows, run_of(AttendRole::query, tensor, panel.first, panel.count, at));
    }

    std::int64_t limit(AttendTensor tensor, const Entry& entry, std::int64_t query) const {
        std::int64_t value;
        std::memcpy(&value, base(tensor, entry) + walk(AttendRole::query, tensor).at(query), sizeof value);
        return value;
    }

    // The keys that a query may see, unless a mask forbids it.
    Range visible(const Entry& entry, std::int64_t query) const {
        Range range = {0, keys_};
        if (has(AttendTensor::first)) range.first = std::max(range.first, limit(AttendTensor::first, entry, query));
        if (has(AttendTensor::end)) range.end = std::min(range.end, limit(AttendTensor::end, entry, query));
        if (has(AttendTensor::lengths)) range.end = std::min(range.end, limit(AttendTensor::lengths, entry, query));
        return range.empty() ? Range{0, 0} : range;
    }

    // A block of queries: its panels, what each query sees, and the keys that some of them see.
    struct Block {
        Panel* panels;
        std::int64_t count;
        Range* ranges;  // width_ for each panel
        Range some;
    };

    std::int64_t panels_in(std::int64_t queries) const { return ceil_div(queries, width_); }

    void cut_panels(Block& block, const Entry& entry, std::int64_t first, std::int64_t count) const {
        block.count = panels_in(count);
        block.some = {keys_, 0};
        for (std::int64_t p = 0; p < block.count; ++p) {
            Panel& panel = block.panels[p];
            panel = {first + p * width_, std::min(width_, count - p * width_), 1, {keys_, 0}, {0, keys_}, false};
            panel.vectors = panel.count > tile_.lanes ? 2 : 1;
            for (std::int64_t i = 0; i < width_; ++i) {
                Range& range = block.ranges[p * width_ + i];
                range = {0, 0};
                if (i >= panel.count) continue;
                range = visible(entry, panel.first + i);
                panel.all = panel.all & range;
                if (range.empty()) continue;
                panel.some = {std::min(panel.some.first, range.first), std::max(panel.some.end, range.end)};
            }
            if (panel.some.empty()) continue;
            block.some = {std::min(block.some.first, panel.some.first), std::max(block.some.end, panel.some.end)};
        }
    }

    // A block of keys: `keys` are rows of depth_ numbers, `values` of values_, packed in `room` or where they lie.
    struct KeyBlock {
        Range range;
        const T* keys;
        const T* values;
        T* room;                // for both
        std::int64_t* offsets;  // as many as the block may hold
    };

    std::int64_t room_for(std::int64_t keys) const { return keys * (depth_ + values_); }

    void pack_keys(KeyBlock& block, const Entry& entry, const Offsets& depth, const Offsets& value) const {
        block.keys = pack_rows(block.room, AttendTensor::k, entry, block, depth, depth_);
        block.values =
            pack_rows(block.room + block.range.count() * depth_, AttendTensor::v, entry, block, value, values_);
    }

    // strip[j][i] = the score of key range.first + j and query i of the panel, in units of log(2): `queries` hold the
    // scale in the same units. False, and no scores, where a mask hides all of them. `spare` is a strip of width_.
    bool scores(T* strip, std::int64_t ld, T* spare, const KeyBlock& block, Range range, const Panel& panel,
                const Range* ranges, const T* queries, const Entry& entry) const {
        const int v = panel.vectors - 1;
        const std::int64_t count = range.count();
        std::int64_t across[widest];
        const auto load = [&](AttendTensor tensor) {
            if (panel.count < width_) std::memset(spare, 0, static_cast<std::size_t>(count * width_ * size));
            pack(spare, width_, tensor, entry, run_of(AttendRole::key, tensor, range.first, count, block.offsets),
                 run_of(AttendRole::query, tensor, panel.first, panel.count, across));
        };
        const bool keeps = has(AttendTensor::mask) && type_[index_of(AttendTensor::mask)] == DType::b8;
        if (keeps) {
            load(AttendTensor::mask);
            if (!softmax_.any[v](spare, count, width_)) return false;
        }
        multiply_rows(strip, ld, block.keys + (range.first - block.range.first) * depth_, count, depth_, queries,
                      panel.vectors);
        if (keeps) softmax_.keep[v](strip, count, ld, spare, width_);
        if (has(AttendTensor::mask) && !keeps) {
            load(AttendTensor::mask);
            softmax_.add_bias[v](strip, count, ld, spare, width_, log2_e);
        }
        if (has(AttendTensor::bias)) {
            load(AttendTensor::bias);
            softmax_.add_bias[v](strip, count, ld, spare, width_, log2_e);
        }
        clip(strip, ld, range, {range.first, std::min(range.end, panel.all.first)}, ranges, v);
        clip(strip, ld, range, {std::max(range.first, panel.all.end), range.end}, ranges, v);
        return true;
    }

    // c[r][i] = sum over p of a[r * depth + p] * panel[p][i], for `rows` rows r.
    void multiply_rows(T* c, std::int64_t ld, const T* a, std::int64_t rows, std::int64_t depth, const T* panel,
                       int vectors) const {
        const EvenRows a_rows(depth * size), c_rows(ld * size);
        for (std::int64_t r = 0; r < rows; r += tile_.rows) {
            const std::int64_t height = std::min<std::int64_t>(tile_.rows, rows - r);
            tile_.run[vectors - 1][height](depth, a + r * depth, a_rows.at, size, panel, width_ * size, c + r * ld,
                                           c_rows.at, vectors * tile_.lanes, Put::store, no_fetch);
        }
    }

    // c[r][i] (+)= sum over p of a[p * count + r] * b[p][i], for `count` rows r.
    void multiply_columns(T* c, const T* a, std::int64_t count, std::int64_t height, std::int64_t depth, const T* b,
                          std::int64_t ld, int vectors, bool add) const {
        const EvenRows c_rows(width_ * size);
        for (std::int64_t r = 0; r < count; r += height)
            tile_.run[vectors - 1][std::min(height, count - r)](depth, a + r, nullptr, count * size, b, ld * size,
                                                                c + r * width_, c_rows.at, vectors * tile_.lanes,
                                                                add ? Put::add : Put::store, no_fetch);
    }

    const Level& level_;
    const Tile& tile_;
    const SoftmaxKernels& softmax_;
    const std::int64_t width_;  // of a panel
    const double scale_;
    int slot_[attend_tensors];
    DType type_[attend_tensors] = {};
    Walk walk_[attend_roles][attend_tensors];
    std::int64_t batch_, queries_, keys_, depth_, values_;
    std::int64_t depth_rows_, value_rows_;  // heights of tiles whose rows are the depth, and the values

  private:
    // Rows that lie one after another, of the type of sums, are read as they are.
    const T* pack_rows(T* room, AttendTensor tensor, const Entry& entry, const KeyBlock& block, const Offsets& columns,
                       std::int64_t width) const {
        const Offsets rows = run_of(AttendRole::key, tensor, block.range.first, block.range.count(), block.offsets);
        const bool dense = (width == 1 || columns.stride == size) && (rows.count == 1 || rows.stride == width * size);
        const char* const start = base(tensor, entry) + rows.at[0];
        if (dense && width > 0 && is_native(type_[index_of(tensor)], acc) &&
            reinterpret_cast<std::uintptr_t>(start + columns.at[0]) % sizeof(T) == 0)
            return reinterpret_cast<const T*>(start + columns.at[0]);
        pack(room, width, tensor, entry, rows, columns);
        return room;
    }

    // Hides, of the keys in `part` of a strip that starts at range.first, those outside of each query's range.
    void clip(T* strip, std::int64_t ld, const Range& range, const Range& part, const Range* ranges, int v) const {
        if (part.empty()) return;
        alignas(64) T first[widest], end[widest];
        for (std::int64_t i = 0; i < width_; ++i) {
            // Relative to the part, and no farther than it: exact in any type.
            first[i] = static_cast<T>(std::clamp<std::int64_t>(ranges[i].first - part.first, 0, part.count()));
            end[i] = static_cast<T>(std::clamp<std::int64_t>(ranges[i].end - part.first, 0, part.count()));
        }
        softmax_.clip[v](strip + (part.first - range.first) * ld, part.count(), ld, first, end);
    }
};

}  // namespace einstride::attending
