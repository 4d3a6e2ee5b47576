// Attention in one pass over the keys (Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691): scores are made
// block by block, weighted as if the largest score so far were the largest of all, and what was summed before is
// rescaled when a larger one comes. No matrix of queries by keys exists.
//
// A task takes a block of queries of one batch entry and packs it, once, into panels as wide as a register tile. Blocks
// of keys and values are packed once for all panels. Both products run on the tiles of contractions, with vectors along
// the queries: scores lie as (key, query), which is how the second product wants to read them, and what is one number a
// query (its maximum, its sum) is a lane of a vector. All query labels together are one row of queries, so queries that
// share keys (grouped-query attention) share packed blocks, too.
#include "attend.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "level.hpp"
#include "memory.hpp"
#include "softmax.hpp"
#include "walk.hpp"

namespace einstride {
namespace {

constexpr double log2_e = 1.4426950408889634074;
constexpr double ln_2 = 0.69314718055994530942;

// A strip of scores is as large as L1; a task's queries and sums, a block of keys and values, and the strip share L2.
constexpr std::int64_t max_keys = 256;
constexpr std::int64_t max_queries = 512;
constexpr std::int64_t key_block_bytes = 256 << 10;
constexpr std::int64_t query_block_bytes = 384 << 10;

// Blocks of queries are made smaller for this many tasks, but not below the size that repays packing keys.
constexpr std::int64_t wanted_tasks = 16;
constexpr std::int64_t least_queries = 128;

// A gradient keeps five panels or rows for each query, and two strips for a block of queries by a block of keys.
constexpr std::int64_t gradient_query_bytes = 384 << 10;
constexpr std::int64_t max_gradient_queries = 256;
constexpr std::int64_t max_gradient_keys = 128;

// The parts the queries of all batch entries are cut into, each with sums for all keys of its own.
constexpr std::int64_t wanted_splits = 8;
constexpr std::int64_t max_partial_bytes = 64 << 20;

constexpr int widest = 2 * 64 / 4;  // queries in a panel of the widest vectors

constexpr std::size_t index_of(AttendTensor tensor) { return static_cast<std::size_t>(tensor); }

// Memory taken piece by piece; with no base it only counts.
class Arena {
  public:
    explicit Arena(char* base) : base_(base) {}

    template <class T>
    T* take(std::int64_t count) {
        const std::int64_t at = used_;
        used_ += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
        return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
    }
    std::size_t used() const { return static_cast<std::size_t>(used_); }

  private:
    char* base_;
    std::int64_t used_ = 0;
};

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
    char* base(char* const* tensors, AttendTensor tensor, std::int64_t batch) const {
        return tensors[slot_[index_of(tensor)]] + walk(AttendRole::batch, tensor).at(batch);
    }
    PackFn packing(AttendTensor tensor) const {
        return level_.pack[static_cast<int>(type_[index_of(tensor)])][static_cast<int>(acc)];
    }
    StoreFn storing(AttendTensor tensor) const { return level_.store[static_cast<int>(type_[index_of(tensor)])]; }

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

    // to[r * ld + c] = the element of `tensor`, whose batch entry starts at `from`, at row r and column c of two roles.
    void pack(T* to, std::int64_t ld, AttendTensor tensor, const char* from, const Offsets& rows,
              const Offsets& columns) const {
        packing(tensor)(to, ld, from, rows, columns);
    }

    // The queries of a panel in columns of width_ numbers; the columns that a last panel lacks are zero.
    void pack_panel(T* to, AttendTensor tensor, const char* from, AttendRole role, const Panel& panel,
                    std::int64_t count, std::int64_t* offsets) const {
        if (panel.count < width_) std::memset(to, 0, static_cast<std::size_t>(count * width_ * size));
        const Offsets rows = run_of(role, tensor, 0, count, offsets);
        std::int64_t at[widest];
        pack(to, width_, tensor, from, rows, run_of(AttendRole::query, tensor, panel.first, panel.count, at));
    }

    std::int64_t entry(char* const* tensors, AttendTensor tensor, std::int64_t batch, std::int64_t query) const {
        std::int64_t value;
        std::memcpy(&value, base(tensors, tensor, batch) + walk(AttendRole::query, tensor).at(query), sizeof value);
        return value;
    }

    // The keys that a query may see, unless a mask forbids it.
    Range visible(char* const* tensors, std::int64_t batch, std::int64_t query) const {
        Range range = {0, keys_};
        if (has(AttendTensor::first))
            range.first = std::max(range.first, entry(tensors, AttendTensor::first, batch, query));
        if (has(AttendTensor::end)) range.end = std::min(range.end, entry(tensors, AttendTensor::end, batch, query));
        if (has(AttendTensor::lengths))
            range.end = std::min(range.end, entry(tensors, AttendTensor::lengths, batch, query));
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

    void cut_panels(Block& block, char* const* tensors, std::int64_t batch, std::int64_t first,
                    std::int64_t count) const {
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
                range = visible(tensors, batch, panel.first + i);
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

    void pack_keys(KeyBlock& block, char* const* tensors, std::int64_t batch, const Offsets& depth,
                   const Offsets& value) const {
        block.keys = pack_rows(block.room, AttendTensor::k, tensors, batch, block, depth, depth_);
        block.values = pack_rows(block.room + block.range.count() * depth_, AttendTensor::v, tensors, batch, block,
                                 value, values_);
    }

    // strip[j][i] = the score of key range.first + j and query i of the panel, in units of log(2): `queries` hold the
    // scale in the same units. False, and no scores, where a mask hides all of them. `spare` is a strip of width_.
    bool scores(T* strip, std::int64_t ld, T* spare, const KeyBlock& block, Range range, const Panel& panel,
                const Range* ranges, const T* queries, char* const* tensors, std::int64_t batch) const {
        const int v = panel.vectors - 1;
        const std::int64_t count = range.count();
        std::int64_t across[widest];
        const auto load = [&](AttendTensor tensor) {
            if (panel.count < width_) std::memset(spare, 0, static_cast<std::size_t>(count * width_ * size));
            pack(spare, width_, tensor, base(tensors, tensor, batch),
                 run_of(AttendRole::key, tensor, range.first, count, block.offsets),
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
        for (std::int64_t r = 0; r < rows; r += tile_.rows) {
            const std::int64_t height = std::min<std::int64_t>(tile_.rows, rows - r);
            tile_.run[vectors - 1][height](depth, a + r * depth, depth, 1, panel, width_, c + r * ld, ld, false);
        }
    }

    // c[r][i] (+)= sum over p of a[p * count + r] * b[p][i], for `count` rows r.
    void multiply_columns(T* c, const T* a, std::int64_t count, std::int64_t height, std::int64_t depth, const T* b,
                          std::int64_t ld, int vectors, bool add) const {
        for (std::int64_t r = 0; r < count; r += height)
            tile_.run[vectors - 1][std::min(height, count - r)](depth, a + r, 1, count, b, ld, c + r * width_, width_,
                                                                add);
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
    const T* pack_rows(T* room, AttendTensor tensor, char* const* tensors, std::int64_t batch, const KeyBlock& block,
                       const Offsets& columns, std::int64_t width) const {
        const char* const from = base(tensors, tensor, batch);
        const Offsets rows = run_of(AttendRole::key, tensor, block.range.first, block.range.count(), block.offsets);
        const bool dense = (width == 1 || columns.stride == size) && (rows.count == 1 || rows.stride == width * size);
        const char* const start = from + rows.at[0];
        if (dense && width > 0 && is_native(type_[index_of(tensor)], acc) &&
            reinterpret_cast<std::uintptr_t>(start + columns.at[0]) % sizeof(T) == 0)
            return reinterpret_cast<const T*>(start + columns.at[0]);
        pack(room, width, tensor, from, rows, columns);
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

template <class T>
class Forward final : public Attention<T> {
    using Base = Attention<T>;
    using Base::size, Base::width_, Base::softmax_, Base::depth_, Base::values_, Base::keys_, Base::queries_,
        Base::batch_, Base::base, Base::has, Base::run_of;
    using typename Base::Block;
    using typename Base::KeyBlock;

  public:
    Forward(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
            const std::vector<DType>& types, double scale)
        : Base(loops, present, types, scale) {
        const std::int64_t entry = std::max<std::int64_t>(1, depth_ + values_) * size;
        key_block_ = std::min(keys_, std::clamp<std::int64_t>(key_block_bytes / entry, 32, max_keys));
        const std::int64_t most = std::clamp<std::int64_t>(query_block_bytes / entry, width_, max_queries);
        std::int64_t parts =
            std::max(ceil_div(queries_, most),
                     std::min(ceil_div(wanted_tasks, std::max<std::int64_t>(batch_, 1)), queries_ / least_queries));
        parts = std::max<std::int64_t>(parts, 1);
        query_block_ = round_up(std::max<std::int64_t>(ceil_div(queries_, parts), 1), width_);
        blocks_ = ceil_div(queries_, query_block_);
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        struct Job {
            const Forward* self;
            char* const* tensors;
        } job = {this, tensors};
        return parallel_for(
            batch_ * blocks_,
            [](void* context, std::int64_t index) {
                const Job& work = *static_cast<Job*>(context);
                work.self->task(work.tensors, index);
            },
            &job, monitor);
    }

  private:
    struct Room {
        Block block;
        KeyBlock keys;
        T *queries, *sums;  // panels of depth_ and of values_ rows
        T *most, *total;    // width_ for each panel
        T *strip, *spare;
        std::int64_t *depth_offsets, *value_offsets;
    };

    Room lay(Arena& arena) const {
        const std::int64_t panels = this->panels_in(query_block_), padded = panels * width_;
        Room room = {};
        room.block.panels = arena.take<Panel>(panels);
        room.block.ranges = arena.take<Range>(padded);
        room.keys.room = arena.take<T>(this->room_for(key_block_));
        room.keys.offsets = arena.take<std::int64_t>(key_block_);
        room.queries = arena.take<T>(padded * depth_);
        room.sums = arena.take<T>(padded * values_);
        room.most = arena.take<T>(padded);
        room.total = arena.take<T>(padded);
        room.strip = arena.take<T>(key_block_ * width_);
        const bool masked = has(AttendTensor::mask) || has(AttendTensor::bias);
        room.spare = arena.take<T>(masked ? key_block_ * width_ : 0);
        room.depth_offsets = arena.take<std::int64_t>(depth_);
        room.value_offsets = arena.take<std::int64_t>(values_);
        return room;
    }

    void task(char* const* tensors, std::int64_t index) const {
        // The last queries come first: where they see the most keys, they would otherwise be waited for.
        const std::int64_t batch = index / blocks_, first = (blocks_ - 1 - index % blocks_) * query_block_;
        Arena count(nullptr);
        lay(count);
        Arena arena(scratch(count.used()));
        Room room = lay(arena);
        Block& block = room.block;
        this->cut_panels(block, tensors, batch, first, std::min(query_block_, queries_ - first));

        const std::int64_t padded = block.count * width_;
        const char* from = base(tensors, AttendTensor::q, batch);
        for (std::int64_t p = 0; p < block.count; ++p)
            this->pack_panel(room.queries + p * width_ * depth_, AttendTensor::q, from, AttendRole::depth,
                             block.panels[p], depth_, room.depth_offsets);
        softmax_.multiply(room.queries, padded * depth_, this->scale_ * log2_e);
        std::fill(room.most, room.most + padded, -std::numeric_limits<T>::infinity());
        std::fill(room.total, room.total + padded, T(0));

        const Offsets depth = run_of(AttendRole::depth, AttendTensor::k, 0, depth_, room.depth_offsets);
        const Offsets value = run_of(AttendRole::value, AttendTensor::v, 0, values_, room.value_offsets);
        for (std::int64_t k0 = block.some.empty() ? keys_ : block.some.first / key_block_ * key_block_;
             k0 < block.some.end; k0 += key_block_) {
            if (interrupted()) return;
            room.keys.range = block.some & Range{k0, k0 + key_block_};
            this->pack_keys(room.keys, tensors, batch, depth, value);
            for (std::int64_t p = 0; p < block.count; ++p) take_in(room, p, tensors, batch);
        }
        for (std::int64_t p = 0; p < block.count; ++p) finish(room, p, tensors, batch);
    }

    // A panel takes in a block of keys.
    void take_in(const Room& room, std::int64_t p, char* const* tensors, std::int64_t batch) const {
        Panel& panel = room.block.panels[p];
        const Range range = panel.some & room.keys.range;
        if (range.empty()) return;
        if (!this->scores(room.strip, width_, room.spare, room.keys, range, panel, room.block.ranges + p * width_,
                          room.queries + p * width_ * depth_, tensors, batch))
            return;
        const int v = panel.vectors - 1;
        alignas(64) T factor[widest];
        T* const sums = room.sums + p * width_ * values_;
        softmax_.soften[v](room.strip, range.count(), width_, room.most + p * width_, room.total + p * width_, factor);
        if (panel.started) softmax_.rescale[v](sums, values_, width_, factor);
        this->multiply_columns(sums, room.keys.values + (range.first - room.keys.range.first) * values_, values_,
                               this->value_rows_, range.count(), room.strip, width_, panel.vectors, panel.started);
        panel.started = true;
    }

    // Divides a panel's sums by the sum of its weights, and stores them. A query that saw no key has zeros.
    void finish(const Room& room, std::int64_t p, char* const* tensors, std::int64_t batch) const {
        const Panel& panel = room.block.panels[p];
        T* const sums = room.sums + p * width_ * values_;
        const T* const total = room.total + p * width_;
        alignas(64) T factor[widest] = {}, lse[widest];
        for (std::int64_t i = 0; i < panel.count; ++i) {
            factor[i] = total[i] == 0 ? T(0) : T(1) / total[i];
            lse[i] = static_cast<T>(
                (static_cast<double>(room.most[p * width_ + i]) + std::log2(static_cast<double>(total[i]))) * ln_2);
        }
        if (panel.started)
            softmax_.rescale[panel.vectors - 1](sums, values_, width_, factor);
        else
            std::memset(sums, 0, static_cast<std::size_t>(values_ * width_ * size));
        std::int64_t across[widest];
        this->storing(AttendTensor::out)(base(tensors, AttendTensor::out, batch),
                                         run_of(AttendRole::value, AttendTensor::out, 0, values_, room.value_offsets),
                                         run_of(AttendRole::query, AttendTensor::out, panel.first, panel.count, across),
                                         sums, width_);
        if (!has(AttendTensor::lse)) return;
        const std::int64_t none = 0;
        this->storing(AttendTensor::lse)(base(tensors, AttendTensor::lse, batch), {&none, 1, irregular},
                                         run_of(AttendRole::query, AttendTensor::lse, panel.first, panel.count, across),
                                         lse, width_);
    }

    std::int64_t key_block_, query_block_, blocks_;
};

// The gradients, by the same blocks: weights are computed again from the scores and their lse.
//
//   dv[j] = sum over i of w[i, j] dout[i],   ds[i, j] = w[i, j] (dout[i] v[j] - dout[i] out[i]),
//   dq[i] = scale * sum over j of ds[i, j] k[j],   dk[j] = scale * sum over i of ds[i, j] q[i]
//
// A task takes a batch entry, or one of the parts its queries are cut into, and sums for all keys are its own: they are
// as long as the keys, and no two threads add to one number.
template <class T>
class Gradient final : public Attention<T> {
    using Base = Attention<T>;
    using Base::size, Base::width_, Base::softmax_, Base::tile_, Base::depth_, Base::values_, Base::keys_,
        Base::queries_, Base::batch_, Base::base, Base::has, Base::run_of;
    using typename Base::Block;
    using typename Base::KeyBlock;

  public:
    Gradient(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
             const std::vector<DType>& types, double scale)
        : Base(bias_outermost(loops, present), present, types, scale),
          depth_columns_(round_up(depth_, tile_.lanes)),
          value_columns_(round_up(values_, tile_.lanes)) {
        const std::int64_t entry = std::max<std::int64_t>(1, depth_ + values_) * size;
        query_block_ = std::min(round_up(queries_, width_),
                                std::clamp<std::int64_t>(gradient_query_bytes / (3 * entry) / width_ * width_, width_,
                                                         max_gradient_queries));
        query_block_ = std::max(query_block_, width_);
        key_block_ = std::min(keys_, std::clamp<std::int64_t>(key_block_bytes / entry, 32, max_gradient_keys));
        blocks_ = ceil_div(queries_, query_block_);
        groups_ = batch_;
        if (has(AttendTensor::dbias)) {
            // Entries that add to the same gradient of the bias are one task.
            const std::size_t slot = static_cast<std::size_t>(
                std::find(present.begin(), present.end(), AttendTensor::dbias) - present.begin());
            for (const AttendLoop& loop : loops)
                if (loop.role == AttendRole::batch && loop.strides[slot] == 0 && loop.extent > 1)
                    groups_ /= loop.extent;
        }
        const std::int64_t sums = keys_ * (depth_columns_ + value_columns_) * size;
        const std::int64_t most =
            std::max<std::int64_t>(max_partial_bytes / std::max<std::int64_t>(sums * batch_, 1), 1);
        splits_ = has(AttendTensor::dbias) || batch_ == 0
                      ? 1
                      : std::clamp<std::int64_t>(wanted_splits / batch_, 1,
                                                 std::max<std::int64_t>(std::min(blocks_, most), 1));
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        Job job = {this, tensors, nullptr};
        if (splits_ == 1) return parallel_for(groups_, run_group, &job, monitor);
        Workspace partial(static_cast<std::size_t>(batch_ * splits_ * sums_size() * size));
        job.partial = reinterpret_cast<T*>(partial.data());
        return parallel_for(batch_ * splits_, run_split, &job, monitor) && parallel_for(batch_, combine, &job, monitor);
    }

  private:
    struct Job {
        const Gradient* self;
        char* const* tensors;
        T* partial;  // of each batch entry and split, the sums for keys and values
    };

    // With a gradient of the bias, batch loops that it lacks are innermost: their entries follow one another.
    static std::vector<AttendLoop> bias_outermost(std::vector<AttendLoop> loops,
                                                  const std::vector<AttendTensor>& present) {
        const auto dbias = std::find(present.begin(), present.end(), AttendTensor::dbias);
        if (dbias == present.end()) return loops;
        const auto slot = static_cast<std::size_t>(dbias - present.begin());
        std::stable_partition(loops.begin(), loops.end(),
                              [slot](const AttendLoop& loop) { return loop.strides[slot] != 0; });
        return loops;
    }

    static void run_group(void* context, std::int64_t index) {
        const Job& job = *static_cast<Job*>(context);
        const Gradient& self = *job.self;
        const std::int64_t entries = self.batch_ / self.groups_;
        Workspace memory(static_cast<std::size_t>(self.sums_size() * size));
        T* const sums = reinterpret_cast<T*>(memory.data());
        for (std::int64_t batch = index * entries; batch < (index + 1) * entries; ++batch) {
            self.task(job.tensors, batch, 0, sums);
            if (interrupted()) return;
            self.store_keys(job.tensors, batch, sums);
        }
    }

    static void run_split(void* context, std::int64_t index) {
        const Job& job = *static_cast<Job*>(context);
        const Gradient& self = *job.self;
        self.task(job.tensors, index / self.splits_, index % self.splits_, job.partial + index * self.sums_size());
    }

    static void combine(void* context, std::int64_t batch) {
        const Job& job = *static_cast<Job*>(context);
        const Gradient& self = *job.self;
        const std::int64_t count = self.sums_size();
        T* const sums = job.partial + batch * self.splits_ * count;
        for (std::int64_t s = 1; s < self.splits_; ++s)
            for (std::int64_t i = 0; i < count; ++i) sums[i] += sums[s * count + i];
        self.store_keys(job.tensors, batch, sums);
    }

    // The sums of a batch entry: keys_ rows for dk, then keys_ rows for dv.
    std::int64_t sums_size() const { return keys_ * (depth_columns_ + value_columns_); }

    struct Room {
        Block block;
        KeyBlock keys;
        T *queries, *douts, *outs, *dq;  // panels: of depth_, values_, values_ (one panel) and depth_ rows
        T *query_rows, *dout_rows;       // of depth_columns_ and value_columns_ numbers
        T *lse, *mean;                   // width_ for each panel
        T *weights, *slopes, *spare;     // strips of all panels side by side; a strip of one
        std::int64_t *query_offsets, *depth_offsets, *value_offsets;
    };

    // Strips of all panels lie side by side; rows a multiple of 4 KiB apart would evict each other.
    std::int64_t strip_row() const { return query_block_ + width_ / 2; }

    Room lay(Arena& arena) const {
        const std::int64_t panels = query_block_ / width_;
        Room room = {};
        room.block.panels = arena.take<Panel>(panels);
        room.block.ranges = arena.take<Range>(query_block_);
        room.keys.room = arena.take<T>(this->room_for(key_block_));
        room.keys.offsets = arena.take<std::int64_t>(key_block_);
        room.queries = arena.take<T>(query_block_ * depth_);
        room.douts = arena.take<T>(query_block_ * values_);
        room.outs = arena.take<T>(width_ * values_);
        room.dq = arena.take<T>(query_block_ * depth_);
        room.query_rows = arena.take<T>(query_block_ * depth_columns_);
        room.dout_rows = arena.take<T>(query_block_ * value_columns_);
        room.lse = arena.take<T>(query_block_);
        room.mean = arena.take<T>(query_block_);
        room.weights = arena.take<T>(key_block_ * strip_row());
        room.slopes = arena.take<T>(key_block_ * strip_row());
        room.spare = arena.take<T>(has(AttendTensor::mask) || has(AttendTensor::bias) ? key_block_ * width_ : 0);
        room.query_offsets = arena.take<std::int64_t>(query_block_);
        room.depth_offsets = arena.take<std::int64_t>(depth_);
        room.value_offsets = arena.take<std::int64_t>(values_);
        return room;
    }

    void task(char* const* tensors, std::int64_t batch, std::int64_t split, T* sums) const {
        Arena count(nullptr);
        lay(count);
        Arena arena(scratch(count.used()));
        const Room room = lay(arena);
        std::fill(sums, sums + sums_size(), T(0));
        // Parts take blocks in turn, so that each has as many that see many keys.
        for (std::int64_t block = split; block < blocks_; block += splits_) {
            if (interrupted()) return;
            Room here = room;
            take_queries(here, tensors, batch, block * query_block_);
            const Offsets depth = run_of(AttendRole::depth, AttendTensor::k, 0, depth_, room.depth_offsets);
            const Offsets value = run_of(AttendRole::value, AttendTensor::v, 0, values_, room.value_offsets);
            const Range some = here.block.some;
            for (std::int64_t k0 = some.empty() ? keys_ : some.first / key_block_ * key_block_; k0 < some.end;
                 k0 += key_block_) {
                if (interrupted()) return;
                here.keys.range = some & Range{k0, k0 + key_block_};
                this->pack_keys(here.keys, tensors, batch, depth, value);
                take_in(here, tensors, batch, sums);
            }
            store_queries(here, tensors, batch);
        }
    }

    // Packs a block of queries, and of the output's gradient, as panels and as rows.
    void take_queries(Room& room, char* const* tensors, std::int64_t batch, std::int64_t first) const {
        const std::int64_t count = std::min(query_block_, queries_ - first);
        Block& block = room.block;
        this->cut_panels(block, tensors, batch, first, count);
        // Products with rows run over whole panels, so no part of a strip may be left as it was.
        for (std::int64_t p = 0; p < block.count; ++p) block.panels[p].vectors = 2;
        const auto rows = [&](T* to, std::int64_t ld, AttendTensor tensor, AttendRole role, std::int64_t columns,
                              std::int64_t* offsets) {
            std::memset(to, 0, static_cast<std::size_t>(block.count * width_ * ld * size));
            this->pack(to, ld, tensor, base(tensors, tensor, batch),
                       run_of(AttendRole::query, tensor, first, count, room.query_offsets),
                       run_of(role, tensor, 0, columns, offsets));
        };
        rows(room.query_rows, depth_columns_, AttendTensor::q, AttendRole::depth, depth_, room.depth_offsets);
        rows(room.dout_rows, value_columns_, AttendTensor::dout, AttendRole::value, values_, room.value_offsets);
        for (std::int64_t p = 0; p < block.count; ++p) {
            const Panel& panel = block.panels[p];
            T* const dout = room.douts + p * width_ * values_;
            this->pack_panel(room.queries + p * width_ * depth_, AttendTensor::q, base(tensors, AttendTensor::q, batch),
                             AttendRole::depth, panel, depth_, room.depth_offsets);
            this->pack_panel(dout, AttendTensor::dout, base(tensors, AttendTensor::dout, batch), AttendRole::value,
                             panel, values_, room.value_offsets);
            this->pack_panel(room.outs, AttendTensor::out, base(tensors, AttendTensor::out, batch), AttendRole::value,
                             panel, values_, room.value_offsets);
            softmax_.column_dot[panel.vectors - 1](dout, room.outs, values_, width_, room.mean + p * width_);
            load_lse(room.lse + p * width_, panel, tensors, batch);
        }
        softmax_.multiply(room.queries, block.count * width_ * depth_, this->scale_ * log2_e);
        std::fill(room.dq, room.dq + block.count * width_ * depth_, T(0));
    }

    // In units of log(2). A query that saw no key has +inf instead of -inf, which makes all its weights zero.
    void load_lse(T* lse, const Panel& panel, char* const* tensors, std::int64_t batch) const {
        std::int64_t across[widest];
        const std::int64_t none = 0;
        std::fill(lse, lse + width_, T(0));
        this->pack(lse, width_, AttendTensor::lse, base(tensors, AttendTensor::lse, batch), {&none, 1, irregular},
                   run_of(AttendRole::query, AttendTensor::lse, panel.first, panel.count, across));
        for (std::int64_t i = 0; i < panel.count; ++i)
            lse[i] = lse[i] == -std::numeric_limits<T>::infinity() ? -lse[i] : static_cast<T>(lse[i] * log2_e);
    }

    // A block of queries takes in a block of keys.
    void take_in(const Room& room, char* const* tensors, std::int64_t batch, T* sums) const {
        const Range& keys = room.keys.range;
        const std::int64_t ld = strip_row();
        std::int64_t first_panel = room.block.count, last_panel = -1;
        for (std::int64_t p = 0; p < room.block.count; ++p) {
            if (!weigh(room, p, tensors, batch)) {
                clear(room, p, keys);
                continue;
            }
            first_panel = std::min(first_panel, p);
            last_panel = p;
        }
        if (last_panel < 0) return;
        const std::int64_t start = first_panel * width_, queries = (last_panel + 1 - first_panel) * width_;
        add_products(sums + keys_ * depth_columns_ + keys.first * value_columns_, value_columns_, room.weights + start,
                     ld, keys.count(), room.dout_rows + start * value_columns_, queries);
        add_products(sums + keys.first * depth_columns_, depth_columns_, room.slopes + start, ld, keys.count(),
                     room.query_rows + start * depth_columns_, queries);
    }

    // The weights of a panel's queries and their slopes, and what they add to its dq. False where it sees no key.
    bool weigh(const Room& room, std::int64_t p, char* const* tensors, std::int64_t batch) const {
        const Panel& panel = room.block.panels[p];
        const Range& keys = room.keys.range;
        const Range range = panel.some & keys;
        if (range.empty()) return false;
        const std::int64_t ld = strip_row(), skipped = range.first - keys.first;
        const int v = panel.vectors - 1;
        T* const weights = room.weights + p * width_ + skipped * ld;
        T* const slopes = room.slopes + p * width_ + skipped * ld;
        if (!this->scores(weights, ld, room.spare, room.keys, range, panel, room.block.ranges + p * width_,
                          room.queries + p * width_ * depth_, tensors, batch))
            return false;
        softmax_.weigh[v](weights, range.count(), ld, room.lse + p * width_);
        this->multiply_rows(slopes, ld, room.keys.values + skipped * values_, range.count(), values_,
                            room.douts + p * width_ * values_, panel.vectors);
        softmax_.slope[v](slopes, range.count(), ld, weights, room.mean + p * width_);
        if (has(AttendTensor::dbias)) add_to_bias(slopes, range, panel, tensors, batch);
        this->multiply_columns(room.dq + p * width_ * depth_, room.keys.keys + skipped * depth_, depth_,
                               this->depth_rows_, range.count(), slopes, ld, panel.vectors, true);
        clear(room, p, {keys.first, range.first});
        clear(room, p, {range.end, keys.end});
        return true;
    }

    // The products with rows of queries run over all panels: what a panel does not see, it weighs with zero.
    void clear(const Room& room, std::int64_t p, const Range& part) const {
        const std::int64_t ld = strip_row();
        for (std::int64_t j = part.first - room.keys.range.first; j < part.end - room.keys.range.first; ++j) {
            std::fill_n(room.weights + j * ld + p * width_, width_, T(0));
            std::fill_n(room.slopes + j * ld + p * width_, width_, T(0));
        }
    }

    // to[j][c] += sum over i of strip[j][i] * rows[i][c].
    void add_products(T* to, std::int64_t columns, const T* strip, std::int64_t ld, std::int64_t keys, const T* rows,
                      std::int64_t queries) const {
        for (std::int64_t c = 0; c < columns; c += width_)
            for (std::int64_t j = 0; j < keys; j += tile_.rows) {
                const int vectors = columns - c > tile_.lanes ? 2 : 1;
                tile_.run[vectors - 1][std::min<std::int64_t>(tile_.rows, keys - j)](
                    queries, strip + j * ld, ld, 1, rows + c, columns, to + j * columns + c, columns, true);
            }
    }

    void add_to_bias(const T* slopes, const Range& range, const Panel& panel, char* const* tensors,
                     std::int64_t batch) const {
        char* const to = base(tensors, AttendTensor::dbias, batch);
        std::int64_t across[widest];
        run_of(AttendRole::query, AttendTensor::dbias, panel.first, panel.count, across);
        const Walk& along = this->walk(AttendRole::key, AttendTensor::dbias);
        for (std::int64_t j = 0; j < range.count(); ++j) {
            char* const row = to + along.at(range.first + j);
            for (std::int64_t i = 0; i < panel.count; ++i)
                *reinterpret_cast<T*>(row + across[i]) += slopes[j * strip_row() + i];
        }
    }

    void store_queries(const Room& room, char* const* tensors, std::int64_t batch) const {
        softmax_.multiply(room.dq, room.block.count * width_ * depth_, this->scale_);
        std::int64_t across[widest];
        for (std::int64_t p = 0; p < room.block.count; ++p) {
            const Panel& panel = room.block.panels[p];
            this->storing(AttendTensor::dq)(
                base(tensors, AttendTensor::dq, batch),
                run_of(AttendRole::depth, AttendTensor::dq, 0, depth_, room.depth_offsets),
                run_of(AttendRole::query, AttendTensor::dq, panel.first, panel.count, across),
                room.dq + p * width_ * depth_, width_);
        }
    }

    void store_keys(char* const* tensors, std::int64_t batch, T* sums) const {
        softmax_.multiply(sums, keys_ * depth_columns_, this->scale_);
        store_rows(tensors, AttendTensor::dk, batch, AttendRole::depth, depth_, sums, depth_columns_);
        store_rows(tensors, AttendTensor::dv, batch, AttendRole::value, values_, sums + keys_ * depth_columns_,
                   value_columns_);
    }

    void store_rows(char* const* tensors, AttendTensor tensor, std::int64_t batch, AttendRole role,
                    std::int64_t columns, const T* rows, std::int64_t ld) const {
        std::vector<std::int64_t> across(static_cast<std::size_t>(columns));
        const Offsets at = run_of(role, tensor, 0, columns, across.data());
        std::int64_t down[max_keys];
        for (std::int64_t j = 0; j < keys_; j += max_keys)
            this->storing(tensor)(base(tensors, tensor, batch),
                                  run_of(AttendRole::key, tensor, j, std::min(max_keys, keys_ - j), down), at,
                                  rows + j * ld, ld);
    }

    const std::int64_t depth_columns_, value_columns_;  // depth_ and values_ in whole vectors
    std::int64_t query_block_, key_block_, blocks_;
    std::int64_t groups_;  // of batch entries, each a task
    std::int64_t splits_;
};

}  // namespace

std::unique_ptr<Kernel> make_attend(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
                                    const std::vector<DType>& types, double scale) {
    const auto out = std::find(present.begin(), present.end(), AttendTensor::out) - present.begin();
    const bool doubles = acc_of(types[static_cast<std::size_t>(out)]) == Acc::f64;
    if (std::find(present.begin(), present.end(), AttendTensor::dq) != present.end()) {
        if (doubles) return std::make_unique<Gradient<double>>(loops, present, types, scale);
        return std::make_unique<Gradient<float>>(loops, present, types, scale);
    }
    if (doubles) return std::make_unique<Forward<double>>(loops, present, types, scale);
    return std::make_unique<Forward<float>>(loops, present, types, scale);
}

}  // namespace einstride
