// A batched contraction with the batch adjacent in memory: vectors run along the batch, and every lane is a product of
// its own. Packing each product of the batch by itself would fetch every cache line once for each of the products that
// share it.
#include <algorithm>
#include <cstring>
#include <memory>

#include "contraction.hpp"
#include "level.hpp"
#include "parallel.hpp"
#include "program.hpp"
#include "walk.hpp"

namespace einstride {

namespace {

// A tile's columns of a k block, one vector a k each, stay in a 32 KiB L1 while its rows come from L2, half of which
// the rows of a task take: 64 x 64 x 100 float64, one core, 1.73 ms with blocks of 48 in which both stay in L1, and
// 1.51 ms.
constexpr std::int64_t k_block = 64;
constexpr std::int64_t max_task_rows = 80;
constexpr std::int64_t least_cut_rows = 64;
constexpr std::int64_t left_bytes = 512 << 10;
// Vectors that are packed at a time: neighbours share cache lines, or lie in lines that follow one another.
constexpr std::int64_t most_together = 4;

// The loop that vectors run along: the innermost one of the batch.
const Loop& along(const std::vector<Loop>& loops) {
    return *std::find_if(loops.rbegin(), loops.rend(), [](const Loop& loop) { return loop.role == Role::batch; });
}

// Some lanes, in vectors of one level.
class LanePart {
  public:
    LanePart(const std::vector<Loop>& loops, const std::vector<DType>& types, const Loop& vector, std::int64_t first,
             std::int64_t extent)
        : LanePart(loops, types, vector, first, extent, level_for(extent * size_of(types[2]))) {}

    std::int64_t tasks() const { return groups_.batch.count * vector_tasks_ * m_tasks_; }

  private:
    LanePart(const std::vector<Loop>& loops, const std::vector<DType>& types, const Loop& vector, std::int64_t first,
             std::int64_t extent, const Level& level)
        : tile_(level.lane_tile[static_cast<int>(acc_of(types[2]))]),
          convert_(types, level),
          size_(size_of(types[2])),
          first_(first),
          extent_(extent),
          left_stride_(vector.strides[0]),
          right_stride_(vector.strides[1]) {
        for (const Loop& loop : loops)
            if (&loop != &vector) groups_.push(loop);
        vectors_ = ceil_div(extent_, tile_.lanes);
        depth_ = even_part(groups_.k.count, k_block);
        const std::int64_t m = groups_.m.count, most_rows = max_task_rows / tile_.side * tile_.side;
        task_m_ = std::min(m, round_up(even_part(m, most_rows), tile_.side));
        const std::int64_t per_row = groups_.n.count * groups_.k.count * tile_.lanes;
        const std::int64_t left_vector = task_m_ * depth_ * tile_.lanes * size_;
        together_ = std::clamp<std::int64_t>(left_bytes / left_vector, 1, std::min(vectors_, most_together));
        vectors_per_task_ = std::clamp<std::int64_t>(least_task / (task_m_ * per_row), together_, vectors_);
        // As many again as make the busiest thread's share the smallest (2 threads, 64 x 64 x 64 and a batch of 96
        // float32, 6 vectors: 414 us by 3 tasks of 2, and 2 of 3).
        const auto busiest = [this](std::int64_t vectors) {
            return ceil_div(ceil_div(vectors_, vectors), num_threads()) * vectors;
        };
        for (std::int64_t vectors = vectors_per_task_ + 1, end = 2 * vectors_per_task_; vectors < end; ++vectors)
            if (busiest(vectors) < busiest(vectors_per_task_)) vectors_per_task_ = vectors;
        vector_tasks_ = ceil_div(vectors_, vectors_per_task_);
        // Each cut of the rows packs the right side, which costs some eight rows' time (2 threads, 64 x 64 x 64 and a
        // batch of 16 float64: 199 us, so 109).
        while (groups_.batch.count * vector_tasks_ * ceil_div(groups_.m.count, task_m_) < num_threads() &&
               task_m_ >= least_cut_rows && task_m_ * per_row * vectors_per_task_ >= 2 * least_task)
            task_m_ = round_up(ceil_div(task_m_, 2), tile_.side);
        m_tasks_ = ceil_div(groups_.m.count, task_m_);
        list_lines(size_of(types[1]));
    }

  public:
    std::int64_t memory() const { return threads_for(tasks()) * bytes_of<Room>(*this, task_m_); }

    void task(char* const* tensors, std::int64_t index) const {
        const std::int64_t m0 = index % m_tasks_ * task_m_;
        index /= m_tasks_;
        const std::int64_t v0 = index % vector_tasks_ * vectors_per_task_;
        const std::int64_t b = index / vector_tasks_;
        const std::int64_t rows = std::min(task_m_, groups_.m.count - m0), columns = groups_.n.count,
                           k = groups_.k.count;

        const std::int64_t vector = tile_.lanes * size_;
        const std::int64_t left_panels = rows * depth_ * vector, right_panel = tile_.side * depth_ * vector;
        const Room room = in_scratch<Room>(*this, rows);
        groups_.m.left.fill(m0, rows, room.m_left);
        groups_.m.out.fill(m0, rows, room.m_out);
        groups_.n.right.fill(0, columns, room.n_right);
        groups_.n.out.fill(0, columns, room.n_out);
        groups_.k.left.fill(0, k, room.k_left);
        groups_.k.right.fill(0, k, room.k_right);
        for (std::int64_t lane = 0; lane < together_ * tile_.lanes; ++lane) {
            room.lane_left[lane] = lane * left_stride_;
            room.lane_right[lane] = lane * right_stride_;
        }

        const std::int64_t v1 = std::min(v0 + vectors_per_task_, vectors_);
        for (std::int64_t v = v0; v < v1; v += together_) {
            const std::int64_t first = v * tile_.lanes, count = std::min(together_, v1 - v);
            const std::int64_t width = std::min(count * tile_.lanes, extent_ - first);
            const char* left = tensors[0] + groups_.batch.left.at(b) + (first_ + first) * left_stride_;
            const char* right = tensors[1] + groups_.batch.right.at(b) + (first_ + first) * right_stride_;
            char* out = tensors[2] + groups_.batch.out.at(b) + (first_ + first) * size_;
            // The lanes that a last, narrow vector lacks stay zero.
            if (width < count * tile_.lanes) {
                std::memset(room.left, 0, static_cast<std::size_t>(together_ * left_panels));
                std::memset(room.right, 0, static_cast<std::size_t>(together_ * right_panel));
            }
            for (std::int64_t p = 0; p < k; p += depth_) {
                if (interrupted()) return;
                const std::int64_t now = std::min(depth_, k - p);
                for (std::int64_t i = 0; i < rows; i += tile_.side)
                    pack_panels(convert_.left_panels, room.left + i * depth_ * vector, left_panels, left,
                                {room.m_left + i, std::min(tile_side(), rows - i), irregular},
                                {room.k_left + p, now, irregular}, {room.lane_left, width, left_stride_}, room.both);
                for (std::int64_t j = 0; j < columns; j += tile_.side) {
                    const std::int64_t across = std::min(tile_side(), columns - j);
                    pack_panels(convert_.right_panels, room.right, right_panel, right,
                                {room.n_right + j, across, irregular}, {room.k_right + p, now, irregular},
                                {room.lane_right, width, right_stride_}, room.both);
                    Ahead ahead;
                    if (j + tile_.side < columns)
                        ahead.add(right + room.n_right[j + tile_.side] + room.k_right[p], lines_);
                    for (std::int64_t u = 0; u < count; ++u) {
                        const std::int64_t wide = std::min<std::int64_t>(tile_.lanes, width - u * tile_.lanes);
                        const char* const b_panel = room.right + u * right_panel;
                        char* const to = out + u * vector;
                        for (std::int64_t i = 0; i < rows; i += tile_.side) {
                            const std::int64_t down = std::min(tile_side(), rows - i);
                            const LaneTileFn run_tile = tile_.run[down][across];
                            const char* a_panel = room.left + u * left_panels + i * depth_ * vector;
                            if (wide == tile_.lanes)
                                run_tile(now, a_panel, b_panel, to, room.m_out + i, room.n_out + j, p > 0, ahead.now());
                            else
                                run_narrow(run_tile, now, a_panel, b_panel, to, room.m_out + i, down, room.n_out + j,
                                           across, wide, p > 0);
                            ahead.advance(lines_a_tile_, now);
                        }
                    }
                }
            }
        }
    }

  private:
    // What a task of so many rows takes.
    struct Room {
        char *left, *right;  // panels of all its rows and of a tile's columns, for each vector that is packed at a time
        std::int64_t *m_left, *m_out, *n_right, *n_out, *k_left, *k_right, *lane_left, *lane_right;
        std::int64_t* both;  // of a panel: offsets along a side and along k, added

        Room(Arena& arena, const LanePart& self, std::int64_t rows) {
            const std::int64_t n = self.groups_.n.count, k = self.groups_.k.count;
            const std::int64_t lanes = self.together_ * self.tile_.lanes, row = self.depth_ * lanes * self.size_;
            left = arena.take<char>(rows * row);
            right = arena.take<char>(self.tile_.side * row);
            m_left = arena.take<std::int64_t>(rows);
            m_out = arena.take<std::int64_t>(rows);
            n_right = arena.take<std::int64_t>(n);
            n_out = arena.take<std::int64_t>(n);
            k_left = arena.take<std::int64_t>(k);
            k_right = arena.take<std::int64_t>(k);
            lane_left = arena.take<std::int64_t>(lanes);
            lane_right = arena.take<std::int64_t>(lanes);
            both = arena.take<std::int64_t>(self.tile_.side * self.depth_);
        }
    };

    // The cache lines of a panel of the right side, which are fetched while tiles of the one before it run (2 threads,
    // 64 x 64 x 64 and a batch of 100 float64: 733 and 710 us; the left side's as well changed nothing).
    void list_lines(std::int64_t right_size) {
        const Walk &n = groups_.n.right, &k = groups_.k.right;
        if (right_stride_ != right_size || !n.regular() || !k.regular()) return;
        std::vector<std::int64_t> row;
        const std::int64_t bytes = together_ * tile_.lanes * right_size;
        for (std::int64_t j = 0; j < std::min(tile_side(), n.count()); ++j) {
            for (std::int64_t line = 0; line < bytes; line += line_bytes) row.push_back(j * n.stride() + line);
            row.push_back(j * n.stride() + bytes - 1);
        }
        // The last byte too, for rows do not begin where lines do.
        for (const std::int64_t at : k.list(depth_))
            for (const std::int64_t line : row) lines_.push_back(at + line);
        const std::int64_t tiles = ceil_div(task_m_, tile_side()) * together_;
        lines_a_tile_ = ceil_div(static_cast<std::int64_t>(lines_.size()), tiles);
    }

    std::int64_t tile_side() const { return tile_.side; }

    // For each of some vectors along the lanes a panel, `apart` bytes after the one before: panel[p][i] = the vector at
    // from + side[i] + depth[p]. `both` is room for all of these sums.
    void pack_panels(PackPanelsFn pack, char* panel, std::int64_t apart, const char* from, const Offsets& side,
                     const Offsets& depth, const Offsets& along, std::int64_t* both) const {
        for (std::int64_t p = 0; p < depth.count; ++p)
            for (std::int64_t i = 0; i < side.count; ++i) both[p * side.count + i] = depth.at[p] + side.at[i];
        pack(panel, tile_.lanes, apart / size_, tile_.lanes, from, slice(both, depth.count * side.count), along);
    }

    // A tile of which only the first `width` lanes exist, by way of a whole one on the stack.
    void run_narrow(LaneTileFn run_tile, std::int64_t k, const char* a, const char* b, char* out,
                    const std::int64_t* m_out, std::int64_t rows, const std::int64_t* n_out, std::int64_t columns,
                    std::int64_t width, bool add) const {
        alignas(64) char tile[max_lane_tile * max_lane_tile * 64] = {};
        std::int64_t row_at[max_lane_tile], column_at[max_lane_tile], lane_at[64];
        for (std::int64_t i = 0; i < rows; ++i) row_at[i] = i * max_lane_tile * 64;
        for (std::int64_t j = 0; j < columns; ++j) column_at[j] = j * 64;
        for (std::int64_t lane = 0; lane < width; ++lane) lane_at[lane] = lane * size_;
        const Offsets adjacent = {lane_at, width, size_};
        const auto each = [&](auto&& visit) {
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) {
                    const std::int64_t at = m_out[i] + n_out[j];
                    visit(tile + row_at[i] + column_at[j], Offsets{&at, 1, irregular});
                }
        };
        if (add) each([&](char* vector, const Offsets& at) { convert_.out(vector, width, out, at, adjacent); });
        run_tile(k, a, b, tile, row_at, column_at, add, no_fetch);
        each([&](char* vector, const Offsets& at) { convert_.store(out, at, adjacent, vector, width); });
    }

    const LaneTile& tile_;
    Conversions convert_;
    std::int64_t size_;   // bytes of a number: the output holds what is computed
    LabelGroups groups_;  // of all loops but the one that vectors run along
    std::vector<std::int64_t> lines_;
    std::int64_t lines_a_tile_ = 0;
    std::int64_t depth_;  // of a k block
    std::int64_t first_, extent_, left_stride_, right_stride_, vectors_, together_, vectors_per_task_, task_m_,
        m_tasks_, vector_tasks_;
};

class Lanes final : public Kernel {
  public:
    Lanes(const std::vector<Loop>& loops, const std::vector<DType>& types) {
        const Loop& vector = along(loops);
        const std::int64_t size = size_of(types[2]), rest = vector.extent % (level().vector_bytes / size);
        // What is left of the last vector is a part of its own where a narrower level's hold it.
        const bool parted = rest != vector.extent && rest != 0 && &level_for(rest * size) != &level();
        const std::int64_t whole = parted ? vector.extent - rest : vector.extent;
        parts_.push_back({loops, types, vector, 0, whole});
        if (parted) parts_.push_back({loops, types, vector, whole, rest});
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        std::int64_t tasks = 0;
        for (const LanePart& part : parts_) tasks += part.tasks();
        return parallel_for(
            tasks,
            [&](std::int64_t index) {
                const std::int64_t first = parts_.front().tasks();
                index < first ? parts_.front().task(tensors, index) : parts_.back().task(tensors, index - first);
            },
            monitor);
    }

    // Parts share a thread's scratch memory.
    std::int64_t memory() const override {
        std::int64_t bytes = 0;
        for (const LanePart& part : parts_) bytes = std::max(bytes, part.memory());
        return bytes;
    }

  private:
    std::vector<LanePart> parts_;
};

}  // namespace

std::unique_ptr<Kernel> make_lanes(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<Lanes>(loops, types);
}

}  // namespace einstride
