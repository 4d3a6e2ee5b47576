// A contraction of two tensors as a matrix product over label groups: m (free on the left), n (free on the
// right), k (contracted) and batch.
//
// The loop nest is the one of BLIS (Van Zee and van de Geijn, ACM TOMS 41(3), 2015), with the roles of the two
// sides mirrored because a tile's vectors run along n: a task's rows of the left side are packed once a k block
// and stream through L1 a panel at a time; a block of the right side is packed to stay in L2. The two sides are
// packed straight from the tensors' strides, through one list of byte offsets per label group, and tiles are
// written straight to the output's strides; no permuted copy of a tensor is ever made.
#include <algorithm>
#include <cstring>
#include <memory>

#include "contract_packing.hpp"
#include "level.hpp"
#include "memory.hpp"
#include "program.hpp"
#include "walk.hpp"

namespace einstride {

namespace {

class Contract final : public Kernel, public Packing {
  public:
    Contract(const std::vector<Loop>& loops, const std::vector<DType>& types) : Packing(loops, types) {}

    bool run(char* const* tensors, const Monitor& monitor) const override {
        const Workspace partial(static_cast<std::size_t>(partial_bytes()));
        const Job job = {tensors[0], tensors[1], tensors[2], partial.data()};
        if (shared_) return run_shared(job, monitor);
        if (tasks_ * splits_ == 1) {
            task(job, 0);
            return true;
        }
        if (!parallel_for(tasks_ * splits_, [&](std::int64_t index) { task(job, index); }, monitor)) return false;
        if (splits_ > 1) combine(job);
        return true;
    }

    std::int64_t memory() const override {
        if (shared_) return bytes_of<Room>(*this, m_span_, n_span_, n_span_);
        const std::int64_t rows = std::min(task_m_, m_), columns = std::min(task_n_, n_);
        return partial_bytes() +
               threads_for(tasks_ * splits_) * bytes_of<Room>(*this, rows, columns, std::min(columns, n_block_));
    }

  private:
    struct Job {
        const char* left;
        const char* right;
        char* out;
        char* partial;  // where a split k leaves its partial sums; else nullptr
    };

    // Where tiles of one task are written: rows and columns as byte offsets from `base`.
    struct Target {
        char* base;
        const std::int64_t* rows;
        const std::int64_t* columns;
        bool direct;    // tiles of adjacent columns may be written in place
        bool streamed;  // past the caches
        PackFn load;
        StoreFn store;
    };

    // How a tile walks a left side: its rows, and bytes from one k to the next.
    struct Rows {
        EvenRows rows;
        bool adjacent;
        std::int64_t step;

        Rows(std::int64_t row, std::int64_t size, std::int64_t k_step)
            : rows(row), adjacent(row == size), step(k_step) {}
        const std::int64_t* at() const { return adjacent ? nullptr : rows.at; }
    };

    // The right side of a tile.
    struct Side {
        const char* at;
        std::int64_t step;
    };

    // Rows or columns cut into pieces.
    struct Cuts {
        std::int64_t count, piece;

        std::int64_t pieces() const { return ceil_div(count, piece); }
        Range operator[](std::int64_t index) const { return {index * piece, std::min((index + 1) * piece, count)}; }
    };

    Ahead ahead_of(const Job& job, std::int64_t batch, std::int64_t p) const {
        Ahead ahead;
        ahead.add(job.left + groups_.batch.left.at(batch) + groups_.k.left.at(listed_ * p), lines_[0]);
        ahead.add(job.right + groups_.batch.right.at(batch) + groups_.k.right.at(p), lines_[1]);
        return ahead;
    }

    std::int64_t partial_bytes() const { return splits_ > 1 ? splits_ * batch_ * m_ * n_ * size_ : 0; }

    void task(const Job& job, std::int64_t index) const {
        const std::int64_t split = index / tasks_;
        index %= tasks_;
        const std::int64_t n0 = index % n_tasks_ * task_n_;
        index /= n_tasks_;
        const std::int64_t m0 = index % m_tasks_ * task_m_;
        const std::int64_t b0 = index / m_tasks_ * batches_, b1 = std::min(b0 + batches_, batch_);
        const std::int64_t rows = std::min(task_m_, m_ - m0), columns = std::min(task_n_, n_ - n0);
        const std::int64_t k0 = split * split_k_, k1 = std::min(k_, k0 + split_k_);

        const Room room = in_scratch<Room>(*this, rows, columns, std::min(columns, n_block_));
        list_offsets(room, m0, rows, n0, columns);
        Target target = output(room);
        const std::int64_t together = std::min(interleaved_, b1 - b0);
        if (job.partial != nullptr || buffered_) {
            // Sums that the output cannot hold yet are kept as the compute type, row by row of each product.
            const std::int64_t row = (job.partial != nullptr ? n_ : together * columns) * size_;
            for (std::int64_t i = 0; i < rows; ++i) room.m_sums[i] = i * row;
            for (std::int64_t j = 0; j < columns; ++j) room.n_sums[j] = j * size_;
            const DType storage = storage_of(acc_);
            target = {room.sums,
                      room.m_sums,
                      room.n_sums,
                      true,
                      false,
                      level_.pack[static_cast<int>(storage)][static_cast<int>(acc_)],
                      level_.store[static_cast<int>(storage)]};
        }

        cut_panels(room, target, rows, columns);
        const auto block_at = [&](std::int64_t b, std::int64_t p) {
            return Block{job.left + groups_.batch.left.at(b),
                         job.right + groups_.batch.right.at(b),
                         m0,
                         n0,
                         p,
                         std::min(k_block_, k1 - p),
                         p > k0};
        };
        // The block that a task multiplies after one; without a right side if there is none.
        const auto after = [&](std::int64_t b, const Block& block) {
            const std::int64_t p = block.p0 + block.depth;
            return p < k1 ? block_at(b, p) : b + 1 < b1 ? block_at(b + 1, k0) : Block{};
        };
        char *packed = room.right, *packed_next = room.right + (carries_ ? panels_in(columns) * right_panel() : 0);
        bool is_packed = false;
        std::int64_t summed = 0;  // products whose sums are in the buffer
        for (std::int64_t b = b0; b < b1; ++b) {
            if (job.partial != nullptr)
                target.base = job.partial + (((split * batch_ + b) * m_ + m0) * n_ + n0) * size_;
            else if (buffered_)
                target.base = room.sums + summed * columns * size_;
            else
                target.base = job.out + groups_.batch.out.at(b);
            for (std::int64_t p0 = k0; p0 < k1; p0 += k_block_) {
                const Block block = block_at(b, p0);
                const std::int64_t depth = block.depth;
                if (rows * columns * depth > least_task && interrupted()) return;
                if (b == b0 || k1 - k0 > k_block_) {
                    groups_.k.left.fill(listed_ * p0, listed_ * depth, room.k_left);
                    groups_.k.right.fill(p0, depth, room.k_right);
                }
                Ahead ahead;
                if (p0 + depth < k1)
                    ahead = ahead_of(job, b, p0 + depth);
                else if (b + 1 < batch_)  // of the next task as well, which mostly is this thread's
                    ahead = ahead_of(job, b + 1, k0);
                if (!direct_left_ && sources_.empty()) pack_left(room, block, {0, rows});
                NextRight carrying;
                if (carries_) carrying = begin_carrying(after(b, block), columns, packed_next);
                for (std::int64_t j0 = 0; j0 < columns; j0 += n_block_) {
                    const Range now = {j0, std::min(j0 + n_block_, columns)};
                    if (!is_packed) pack_right(room, block, packed, now);
                    run_tiles(room, target, block, {0, rows}, now, packed, ahead, carrying);
                }
                while (Carry* const carry = next_carry(room, carrying)) tile_.carry(*carry);
                is_packed = carrying.panels > 0;
                if (is_packed) std::swap(packed, packed_next);
            }
            if (buffered_ && job.partial == nullptr && (++summed == together || b + 1 == b1)) {
                put_sums(job, room, b + 1 - summed, summed, together, rows, columns);
                summed = 0;
            }
        }
        if (streamed_) level_.fence();
    }

    // The same for all tasks at once: a span of rows and columns after another, a k block of it is packed by all
    // threads, and then multiplied.
    bool run_shared(const Job& job, const Monitor& monitor) const {
        const Workspace workspace(static_cast<std::size_t>(bytes_of<Room>(*this, m_span_, n_span_, n_span_)));
        Arena arena(workspace.data());
        const Room room(arena, *this, m_span_, n_span_, n_span_);
        const std::int64_t m_spans = ceil_div(m_, m_span_), n_spans = ceil_div(n_, n_span_);
        const std::int64_t k_blocks = ceil_div(k_, k_block_);
        const double phases = 2.0 * static_cast<double>(batch_ * m_spans * n_spans * k_blocks);
        double phase = 0;
        const auto next_phase = [&] {
            const double each = (monitor.to - monitor.from) / phases, from = monitor.from + phase++ * each;
            return Monitor{monitor.poll, monitor.context, from, from + each};
        };
        for (std::int64_t span = 0; span < batch_ * m_spans * n_spans; ++span) {
            const std::int64_t b = span / (m_spans * n_spans);
            const std::int64_t n0 = span / m_spans % n_spans * n_span_, m0 = span % m_spans * m_span_;
            const std::int64_t rows = std::min(m_span_, m_ - m0), columns = std::min(n_span_, n_ - n0);
            const Cuts row_cuts = {rows, task_m_}, column_cuts = {columns, task_n_};
            const Cuts left_packs = {direct_left_ ? 0 : rows, pack_m_}, right_packs = {columns, pack_n_};
            list_offsets(room, m0, rows, n0, columns);
            Target target = output(room);
            target.base = job.out + groups_.batch.out.at(b);
            cut_panels(room, target, rows, columns);
            for (std::int64_t p0 = 0; p0 < k_; p0 += k_block_) {
                const std::int64_t depth = std::min(k_block_, k_ - p0);
                groups_.k.left.fill(listed_ * p0, listed_ * depth, room.k_left);
                groups_.k.right.fill(p0, depth, room.k_right);
                const Block block = {job.left + groups_.batch.left.at(b),
                                     job.right + groups_.batch.right.at(b),
                                     m0,
                                     n0,
                                     p0,
                                     depth,
                                     p0 > 0};
                const auto packed = [&](const Range& some) {
                    return room.right + (direct_right_ ? 0 : panels_in(some.from) * right_panel());
                };
                const auto pack = [&](std::int64_t index) {
                    if (index < left_packs.pieces()) return pack_left(room, block, left_packs[index]);
                    const Range now = right_packs[index - left_packs.pieces()];
                    pack_right(room, block, packed(now), now);
                };
                const auto multiply = [&](std::int64_t index) {
                    Ahead ahead;
                    NextRight carrying;
                    const Range now = column_cuts[index / row_cuts.pieces()];
                    run_tiles(room, target, block, row_cuts[index % row_cuts.pieces()], now, packed(now), ahead,
                              carrying);
                    if (streamed_) level_.fence();
                };
                if (!parallel_for(left_packs.pieces() + right_packs.pieces(), pack, next_phase()) ||
                    !parallel_for(row_cuts.pieces() * column_cuts.pieces(), multiply, next_phase()))
                    return false;
            }
        }
        return true;
    }

    void list_offsets(const Room& room, std::int64_t m0, std::int64_t rows, std::int64_t n0,
                      std::int64_t columns) const {
        groups_.m.left.fill(m0, rows, room.m_left);
        groups_.m.out.fill(m0, rows, room.m_out);
        groups_.n.right.fill(n0, columns, room.n_right);
        groups_.n.out.fill(n0, columns, room.n_out);
    }

    // The sums of products from `first` on, row by row of each of `together` products, to the output: all at once, in
    // the order of their lines, unless some are lacking.
    void put_sums(const Job& job, const Room& room, std::int64_t first, std::int64_t products, std::int64_t together,
                  std::int64_t rows, std::int64_t columns) const {
        const Offsets out_columns = slice(room.n_out, columns);
        std::int64_t at[max_interleaved];
        groups_.batch.out.fill(first, products, at);
        if (products < together || together == 1) {
            for (std::int64_t p = 0; p < products; ++p)
                convert_.store(job.out + at[p], slice(room.m_out, rows), out_columns, room.sums + p * columns * size_,
                               together * columns);
            return;
        }
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t p = 0; p < products; ++p) room.m_put[i * products + p] = room.m_out[i] + at[p];
        convert_.store(job.out, slice(room.m_put, rows * products), out_columns, room.sums, columns);
    }

    Target output(const Room& room) const {
        return {nullptr, room.m_out, room.n_out, native_out_, streamed_, convert_.out, convert_.store};
    }

    // Tiles of some rows and columns of a block, whose panels of the right side lie at `packed`.
    void run_tiles(const Room& room, const Target& target, const Block& block, const Range& rows, const Range& columns,
                   const char* packed, Ahead& ahead, NextRight& carrying) const {
        const Panel* const first = room.panels + panels_in(columns.from);
        const std::int64_t panels = panels_in(columns.to - columns.from);
        const std::int64_t depth = block.depth;
        const std::int64_t apart = direct_left_ ? groups_.m.left.stride() : left_row();
        const Rows& walk = direct_left_ ? left_lies_ : left_packed_;
        const char* a = direct_left_ ? block.left + block.m0 * apart + block.p0 * groups_.k.left.stride() : room.left;
        a += rows.from * apart;
        const Offsets* height = room.heights + rows.from / rows_;
        for (std::int64_t i = rows.from; i < rows.to; i += rows_, a += rows_ * apart, ++height) {
            const bool packs = !sources_.empty() && columns.from == 0;
            if (packs) pack_left(room, block, {i, std::min(i + rows_, rows.to)});
            if (panel_ahead_) {
                ahead = {};
                if (!packs)
                    ahead.add(a + rows_ * apart, lines_[0]);
                else if (i + rows_ < rows.to)
                    ahead.add(block.left + room.m_left[i + rows_] + room.k_left[0], sources_);
            }
            for (std::int64_t q = 0; q < panels; ++q) {
                const Panel& panel = first[q];
                Side b = {packed + q * right_panel(), right_packed()};
                if (direct_right_)
                    b = reads(panel.right) ? Side{block.right + panel.right.at[0] + block.p0 * right_lies_, right_lies_}
                                           : Side{packed, right_packed()};
                // All tiles of the first rows fetch the panel after theirs: other rows find it in cache.
                const bool first_rows = right_ahead_ && i == rows.from && q + 1 < panels;
                if (first_rows) {
                    ahead = {};
                    ahead.add(b.at + (&panel)[1].right.at[0] - panel.right.at[0], lines_[1]);
                }
                write_tile(target, *height, panel.out, depth * parts_, a, walk, b, block.add, ahead.now(),
                           carries_ ? next_carry(room, carrying) : nullptr);
                ahead.advance(first_rows ? static_cast<std::int64_t>(lines_[1].size()) : lines_a_tile_,
                              tile_.fetches ? depth * parts_ : 0);
            }
        }
    }

    void cut_panels(const Room& room, const Target& target, std::int64_t rows, std::int64_t columns) const {
        for (std::int64_t i = 0; i < rows; i += rows_)
            room.heights[i / rows_] = slice(target.rows + i, std::min<std::int64_t>(rows_, rows - i));
        const std::int64_t run = turn_ > 1 ? run_ : columns;
        Panel* panel = room.panels;
        for (std::int64_t start = 0; start < columns; start += run)
            for (std::int64_t j = start; j < start + run; j += columns_) {
                const std::int64_t width = std::min(columns_, start + run - j);
                *panel++ = {slice(room.n_right + j, width), slice(target.columns + j, width)};
            }
    }

    // One tile, in place where the output allows it, else through a tile of the compute type on the stack (1000
    // products of 30 x 4 by 4 x 15 float32, one core: 147 us, and 355 us by way of the stack).
    void write_tile(const Target& target, const Offsets& rows, const Offsets& columns, std::int64_t depth,
                    const char* a, const Rows& walk, const Side& b, bool add, const Fetch& ahead, Carry* carry) const {
        const std::int64_t reals = columns.count * parts_;
        const int vectors = reals > tile_.lanes ? 2 : 1;
        const auto run = [&](char* to, const std::int64_t* at, Put put) {
            if (carry != nullptr && reals == 2 * tile_.lanes)
                tile_.run_carrying[rows.count](depth, a, walk.at(), walk.step, b.at, b.step, to, at, put, ahead,
                                               *carry);
            else
                tile_.run[vectors - 1][rows.count](depth, a, walk.at(), walk.step, b.at, b.step, to, at, reals, put,
                                                   ahead);
        };
        if (target.direct && (columns.stride == size_ || columns.count == 1)) {
            char* const to = target.base + columns.at[0];
            const bool streams = target.streamed && reals * real_size_ % line_bytes == 0 &&
                                 reinterpret_cast<std::uintptr_t>(to) % line_bytes == 0;
            run(to, rows.at, streams ? Put::stream : add ? Put::add : Put::store);
            return;
        }
        alignas(64) char tile[max_tile_rows * 2 * 64];
        const std::int64_t ld = vectors * tile_.lanes / parts_;
        if (add) target.load(tile, ld, target.base, rows, columns);
        const EvenRows even(ld * size_);
        run(tile, even.at, add ? Put::add : Put::store);
        target.store(target.base, rows, columns, tile, ld);
    }

    // Adds the partial sums of a split k in order and stores them.
    void combine(const Job& job) const {
        const std::int64_t outputs = batch_ * m_ * n_;
        add_partial_sums(real_, job.partial, outputs * parts_, splits_);
        const std::vector<std::int64_t> rows = groups_.m.out.list(m_), columns = groups_.n.out.list(n_);
        const Offsets row_slice = slice(rows.data(), m_), column_slice = slice(columns.data(), n_);
        for (std::int64_t b = 0; b < batch_; ++b)
            convert_.store(job.out + groups_.batch.out.at(b), row_slice, column_slice,
                           job.partial + b * m_ * n_ * size_, n_);
    }

    template <class T>
    static void add_partials(T* sums, std::int64_t count, std::int64_t parts) {
        for (std::int64_t s = 1; s < parts; ++s)
            for (std::int64_t i = 0; i < count; ++i) sums[i] = static_cast<T>(sums[i] + sums[s * count + i]);
    }
    static void add_partial_sums(Acc real, char* sums, std::int64_t count, std::int64_t parts) {
        switch (real) {
            case Acc::i16: return add_partials(reinterpret_cast<std::uint16_t*>(sums), count, parts);
            case Acc::i32: return add_partials(reinterpret_cast<std::uint32_t*>(sums), count, parts);
            case Acc::i64: return add_partials(reinterpret_cast<std::uint64_t*>(sums), count, parts);
            case Acc::f32: return add_partials(reinterpret_cast<float*>(sums), count, parts);
            default: return add_partials(reinterpret_cast<double*>(sums), count, parts);
        }
    }

    const Rows left_lies_ = {groups_.m.left.stride(), real_size_, parts_ == 1 ? groups_.k.left.stride() : real_size_};
    const Rows left_packed_ =
        keeps_rows_ ? Rows{left_row(), real_size_, real_size_} : Rows{real_size_, real_size_, rows_ * real_size_};
    const std::int64_t right_lies_ = groups_.k.right.stride();
};

}  // namespace

std::unique_ptr<Kernel> make_contract(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<Contract>(loops, types);
}

}  // namespace einstride
