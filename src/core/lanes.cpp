// A batched contraction with the batch adjacent in memory: vectors run along the batch, and every lane is a product of
// its own. Packing each product of the batch by itself would fetch every cache line once for each of the products that
// share it.
#include <algorithm>
#include <cstring>
#include <memory>

#include "level.hpp"
#include "parallel.hpp"
#include "program.hpp"
#include "walk.hpp"

namespace einstride {

namespace {

// A tile's rows and columns of a k block, one vector a k each, stay in a 32 KiB L1; the rows of a task in half of L2.
constexpr std::int64_t k_block = 48;
constexpr std::int64_t max_task_rows = 80;
constexpr std::int64_t least_task = 1 << 19;  // multiply-adds that repay handing a task out

class Lanes final : public Kernel {
  public:
    Lanes(const std::vector<Loop>& loops, const std::vector<DType>& types)
        : tile_(level().lane_tile[static_cast<int>(acc_of(types[2]))]),
          pack_left_(level().pack[static_cast<int>(types[0])][static_cast<int>(acc_of(types[2]))]),
          pack_right_(level().pack[static_cast<int>(types[1])][static_cast<int>(acc_of(types[2]))]),
          load_out_(level().pack[static_cast<int>(types[2])][static_cast<int>(acc_of(types[2]))]),
          store_out_(level().store[static_cast<int>(types[2])]),
          size_(size_of(types[2])) {
        // The innermost batch loop is the one the vectors run along.
        std::size_t along = 0;
        for (std::size_t index = 0; index < loops.size(); ++index)
            if (loops[index].role == Role::batch) along = index;
        const Loop& vector = loops[along];
        extent_ = vector.extent;
        left_stride_ = vector.strides[0];
        right_stride_ = vector.strides[1];
        for (std::size_t index = 0; index < loops.size(); ++index) {
            const Loop& loop = loops[index];
            const std::int64_t left = loop.strides[0], right = loop.strides[1], out = loop.strides[2];
            switch (loop.role) {
                case Role::batch:
                    if (index == along) break;
                    batch_left_.push(loop.extent, left);
                    batch_right_.push(loop.extent, right);
                    batch_out_.push(loop.extent, out);
                    break;
                case Role::free_left:
                    m_left_.push(loop.extent, left);
                    m_out_.push(loop.extent, out);
                    break;
                case Role::free_right:
                    n_right_.push(loop.extent, right);
                    n_out_.push(loop.extent, out);
                    break;
                case Role::contracted:
                    k_left_.push(loop.extent, left);
                    k_right_.push(loop.extent, right);
                    break;
            }
        }
        vectors_ = ceil_div(extent_, tile_.lanes);
        task_m_ = std::min(m_left_.count(), max_task_rows / tile_.side * tile_.side);
        m_tasks_ = ceil_div(m_left_.count(), task_m_);
        const std::int64_t per_vector = task_m_ * n_right_.count() * k_left_.count() * tile_.lanes;
        vectors_per_task_ = std::clamp<std::int64_t>(least_task / per_vector, 1, vectors_);
        vector_tasks_ = ceil_div(vectors_, vectors_per_task_);
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        Job job = {this, tensors};
        return parallel_for(
            batch_out_.count() * vector_tasks_ * m_tasks_,
            [](void* context, std::int64_t index) {
                const Job& work = *static_cast<Job*>(context);
                work.self->task(work.tensors, index);
            },
            &job, monitor);
    }

  private:
    struct Job {
        const Lanes* self;
        char* const* tensors;
    };

    void task(char* const* tensors, std::int64_t index) const {
        const std::int64_t m0 = index % m_tasks_ * task_m_;
        index /= m_tasks_;
        const std::int64_t v0 = index % vector_tasks_ * vectors_per_task_;
        const std::int64_t b = index / vector_tasks_;
        const std::int64_t rows = std::min(task_m_, m_left_.count() - m0), columns = n_right_.count(),
                           k = k_left_.count();

        const std::int64_t vector = tile_.lanes * size_;
        const std::int64_t depth = std::min(k, k_block);
        const std::int64_t panels = (rows + tile_.side) * depth * vector;
        char* memory = scratch(static_cast<std::size_t>(panels + (2 * (rows + columns + k) + 2 * tile_.lanes) * 8));
        char* right_panel = memory + rows * depth * vector;
        std::int64_t* offsets = reinterpret_cast<std::int64_t*>(memory + panels);
        const auto place = [&offsets](const Walk& walk, std::int64_t first, std::int64_t count) {
            std::int64_t* at = offsets;
            walk.fill(first, count, at);
            offsets += count;
            return at;
        };
        const std::int64_t* m_left = place(m_left_, m0, rows);
        const std::int64_t* m_out = place(m_out_, m0, rows);
        const std::int64_t* n_right = place(n_right_, 0, columns);
        const std::int64_t* n_out = place(n_out_, 0, columns);
        const std::int64_t* k_left = place(k_left_, 0, k);
        const std::int64_t* k_right = place(k_right_, 0, k);
        std::int64_t* lane_left = offsets;
        std::int64_t* lane_right = offsets + tile_.lanes;
        for (std::int64_t lane = 0; lane < tile_.lanes; ++lane) {
            lane_left[lane] = lane * left_stride_;
            lane_right[lane] = lane * right_stride_;
        }

        for (std::int64_t v = v0; v < std::min(v0 + vectors_per_task_, vectors_); ++v) {
            if (interrupted()) return;
            const std::int64_t first = v * tile_.lanes, width = std::min<std::int64_t>(tile_.lanes, extent_ - first);
            const char* left = tensors[0] + batch_left_.at(b) + first * left_stride_;
            const char* right = tensors[1] + batch_right_.at(b) + first * right_stride_;
            char* out = tensors[2] + batch_out_.at(b) + first * size_;
            // The lanes that a last, narrow vector lacks stay zero.
            if (width < tile_.lanes) std::memset(memory, 0, static_cast<std::size_t>(panels));
            for (std::int64_t p = 0; p < k; p += k_block) {
                const std::int64_t now = std::min(k_block, k - p);
                for (std::int64_t i = 0; i < rows; i += tile_.side)
                    pack_panel(pack_left_, memory + i * depth * vector, left, m_left + i,
                               std::min(tile_side(), rows - i), slice(k_left + p, now),
                               {lane_left, width, left_stride_});
                for (std::int64_t j = 0; j < columns; j += tile_.side) {
                    const std::int64_t across = std::min(tile_side(), columns - j);
                    pack_panel(pack_right_, right_panel, right, n_right + j, across, slice(k_right + p, now),
                               {lane_right, width, right_stride_});
                    for (std::int64_t i = 0; i < rows; i += tile_.side) {
                        const std::int64_t down = std::min(tile_side(), rows - i);
                        const LaneTileFn run_tile = tile_.run[down][across];
                        const char* a = memory + i * depth * vector;
                        if (width == tile_.lanes)
                            run_tile(now, a, right_panel, out, m_out + i, n_out + j, p > 0);
                        else
                            run_narrow(run_tile, now, a, right_panel, out, m_out + i, down, n_out + j, across, width,
                                       p > 0);
                    }
                }
            }
        }
    }

    std::int64_t tile_side() const { return tile_.side; }

    // panel[p][i] = the vector at from + side[i] + depth[p].
    void pack_panel(PackFn pack, char* panel, const char* from, const std::int64_t* side, std::int64_t count,
                    const Offsets& depth, const Offsets& along) const {
        for (std::int64_t i = 0; i < count; ++i)
            pack(panel + i * tile_.lanes * size_, count * tile_.lanes, from + side[i], depth, along);
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
        if (add) each([&](char* vector, const Offsets& at) { load_out_(vector, width, out, at, adjacent); });
        run_tile(k, a, b, tile, row_at, column_at, add);
        each([&](char* vector, const Offsets& at) { store_out_(out, at, adjacent, vector, width); });
    }

    const LaneTile& tile_;
    PackFn pack_left_, pack_right_, load_out_;
    StoreFn store_out_;
    std::int64_t size_;  // bytes of a number: the output holds what is computed
    Walk batch_left_, batch_right_, batch_out_, m_left_, m_out_, n_right_, n_out_, k_left_, k_right_;
    std::int64_t extent_, left_stride_, right_stride_, vectors_, vectors_per_task_, task_m_, m_tasks_, vector_tasks_;
};

}  // namespace

std::unique_ptr<Kernel> make_lanes(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<Lanes>(loops, types);
}

}  // namespace einstride
