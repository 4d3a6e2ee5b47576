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
#include <optional>

#include "contract_blocking.hpp"
#include "level.hpp"
#include "memory.hpp"
#include "program.hpp"
#include "walk.hpp"

namespace einstride {

namespace {

// Rows of complex numbers that are packed at a time before they are rewritten as real ones.
constexpr std::int64_t expand_rows = 32;

// So many bytes further down a column, what tiles carry is fetched: they come to it after some 32 steps of 16 columns
// of float64, or 128 of 32 of float32, about as long as memory takes.
constexpr std::int64_t carried_ahead = 128;

class Contract final : public Kernel, Blocking {
  public:
    Contract(const std::vector<Loop>& loops, const std::vector<DType>& types) : Blocking(loops, types) {}

    bool run(char* const* tensors, const Monitor& monitor) const override {
        const auto aligned = [this](const char* at) {
            return reinterpret_cast<std::uintptr_t>(at) % static_cast<std::uintptr_t>(real_size_) == 0;
        };
        const Workspace partial(static_cast<std::size_t>(partial_bytes()));
        const Job job = {tensors[0],
                         tensors[1],
                         tensors[2],
                         partial.data(),
                         direct_left_ && aligned(tensors[0]),
                         direct_right_ && aligned(tensors[1]),
                         direct_out_ && aligned(tensors[2])};
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
        const Job job = {nullptr, nullptr, nullptr, nullptr, direct_left_, direct_right_, direct_out_};
        if (shared_) return RoomSizes(*this, job, m_span_, n_span_, n_span_).all;
        const std::int64_t rows = std::min(task_m_, m_), columns = std::min(task_n_, n_);
        return partial_bytes() +
               threads_for(tasks_ * splits_) * RoomSizes(*this, job, rows, columns, std::min(columns, n_block_)).all;
    }

  private:
    struct Job {
        const char* left;
        const char* right;
        char* out;
        char* partial;  // where a split k leaves its partial sums; else nullptr
        bool direct_left, direct_right, direct_out;
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

    // A k block of one batch element, from row m0 and column n0 on.
    struct Block {
        const char *left, *right;  // the batch element's
        std::int64_t m0, n0, p0, depth;
        bool add;  // to what earlier blocks left in the output
    };

    // Rows or columns from m0 or n0 on.
    struct Range {
        std::int64_t from, to;
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

    // The columns of a panel of the right side: where they lie in it and where their sums are written.
    struct Panel {
        Offsets right, out;
    };

    // Memory for some rows and columns: what is packed of them and the byte offsets that are walked.
    struct Room {
        char* left;   // panels of rows_ rows, k_block_ deep
        char* right;  // panels of columns_ columns, k_block_ deep
        char* sums;   // the task's outputs as the compute type, if it is buffered
        Panel* panels;
        Offsets* heights;  // of the output's rows, a panel of the left side each
        std::int64_t *m_left, *m_out, *m_sums, *m_put, *n_right, *n_out, *n_sums, *k_left, *k_right;
    };

    // Its bytes; `block` columns of the right side are packed at a time.
    struct RoomSizes {
        std::int64_t left, right, sums, panels, heights, offsets, all;

        RoomSizes(const Contract& self, const Job& job, std::int64_t rows, std::int64_t columns, std::int64_t block)
            : left(lines(job.direct_left ? 0 : round_up(rows, self.rows_) * self.left_row())),
              right(
                  lines((job.direct_right ? 1 : (self.carries_ ? 2 : 1) * self.panels_in(block)) * self.right_panel())),
              sums(lines(self.buffered_ ? self.interleaved_ * rows * columns * self.size_ : 0)),
              panels(lines(self.panels_in(columns) * static_cast<std::int64_t>(sizeof(Panel)))),
              heights(lines(ceil_div(rows, self.rows_) * static_cast<std::int64_t>(sizeof(Offsets)))),
              offsets(lines((3 * rows + self.put_rows(rows) + 3 * columns + (self.listed_ + 1) * self.k_block_) *
                            static_cast<std::int64_t>(sizeof(std::int64_t)))),
              all(left + right + sums + panels + heights + offsets) {}

        static std::int64_t lines(std::int64_t bytes) { return round_up(bytes, line_bytes); }
    };

    // Of all products that are interleaved.
    std::int64_t put_rows(std::int64_t rows) const { return interleaved_ > 1 ? interleaved_ * rows : 0; }

    // In one piece from `take_bytes`.
    template <class Take>
    Room room_for(const Job& job, std::int64_t rows, std::int64_t columns, std::int64_t block, Take take_bytes) const {
        const RoomSizes sizes(*this, job, rows, columns, block);
        char* at = take_bytes(static_cast<std::size_t>(sizes.all));
        const auto take = [&at](std::int64_t bytes) {
            char* taken = at;
            at += bytes;
            return taken;
        };
        Room room = {};
        room.left = take(sizes.left);
        room.right = take(sizes.right);
        room.sums = take(sizes.sums);
        room.panels = reinterpret_cast<Panel*>(take(sizes.panels));
        room.heights = reinterpret_cast<Offsets*>(take(sizes.heights));
        room.m_left = reinterpret_cast<std::int64_t*>(take(sizes.offsets));
        room.m_out = room.m_left + rows;
        room.m_sums = room.m_out + rows;
        room.m_put = room.m_sums + rows;
        room.n_right = room.m_put + put_rows(rows);
        room.n_out = room.n_right + columns;
        room.n_sums = room.n_out + columns;
        room.k_left = room.n_sums + columns;
        room.k_right = room.k_left + listed_ * k_block_;
        return room;
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

        const Room room = room_for(job, rows, columns, std::min(columns, n_block_), scratch);
        list_offsets(room, m0, rows, n0, columns);
        Target target = output(job, room);
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
                if (!job.direct_left && sources_.empty()) pack_left(room, block, {0, rows});
                NextRight carrying;
                if (carries_) carrying = begin_carrying(after(b, block), columns, packed_next);
                for (std::int64_t j0 = 0; j0 < columns; j0 += n_block_) {
                    const Range now = {j0, std::min(j0 + n_block_, columns)};
                    if (!is_packed) pack_right(job, room, block, packed, now);
                    run_tiles(job, room, target, block, {0, rows}, now, packed, ahead, carrying);
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
        std::optional<Workspace> memory;
        const Room room = room_for(job, m_span_, n_span_, n_span_,
                                   [&memory](std::size_t bytes) { return memory.emplace(bytes).data(); });
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
            const Cuts left_packs = {job.direct_left ? 0 : rows, pack_m_}, right_packs = {columns, pack_n_};
            list_offsets(room, m0, rows, n0, columns);
            Target target = output(job, room);
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
                    return room.right + (job.direct_right ? 0 : panels_in(some.from) * right_panel());
                };
                const auto pack = [&](std::int64_t index) {
                    if (index < left_packs.pieces()) return pack_left(room, block, left_packs[index]);
                    const Range now = right_packs[index - left_packs.pieces()];
                    pack_right(job, room, block, packed(now), now);
                };
                const auto multiply = [&](std::int64_t index) {
                    Ahead ahead;
                    NextRight carrying;
                    const Range now = column_cuts[index / row_cuts.pieces()];
                    run_tiles(job, room, target, block, row_cuts[index % row_cuts.pieces()], now, packed(now), ahead,
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

    Target output(const Job& job, const Room& room) const {
        return {nullptr, room.m_out, room.n_out, job.direct_out, streamed_, convert_.out, convert_.store};
    }

    // The right side of the next block, whose panels are packed one after another while tiles of this one run.
    struct NextRight {
        Block block;
        char* to;
        std::int64_t panels = 0, begun = 0;
        Carry panel = {};
    };

    // Without panels where there is no next block, or one that is not deep enough.
    NextRight begin_carrying(const Block& next, std::int64_t columns, char* to) const {
        const bool can = next.right != nullptr && next.depth >= carried;
        return {next, to, can ? panels_in(columns) : 0};
    }

    // What the next tile carries; nullptr where nothing is left.
    Carry* next_carry(const Room& room, NextRight& carrying) const {
        Carry& carry = carrying.panel;
        if (carry.due > 0) return &carry;
        if (carrying.begun == carrying.panels) return nullptr;
        const Block& block = carrying.block;
        const Panel& panel = room.panels[carrying.begun];
        const auto source = [&](const Panel& of) { return block.right + of.right.at[0] + block.p0 * size_; };
        carry.columns = carry.due = panel.right.count;
        carry.column = groups_.n.right.stride();
        carry.groups = ceil_div(block.depth, std::int64_t{carried});
        carry.from = source(panel);
        carry.to = carrying.to + carrying.begun++ * right_panel();
        // The second group begins where the last will end with the column.
        const std::int64_t twice = carry.groups * carried - block.depth;
        carry.group_from = carry.from - twice * size_;
        carry.group_to = carry.to - twice * right_packed_;
        const std::int64_t lead = std::min<std::int64_t>(carried_ahead / (carried * size_), carry.groups);
        const Panel& next = carrying.begun < carrying.panels ? (&panel)[1] : panel;
        carry.ahead = lead * carried * size_;
        carry.near = carry.groups - lead;
        carry.across = source(next) - carry.from - carry.near * carried * size_;
        if (carry.near == 0) carry.ahead = carry.across;
        return &carry;
    }

    // Tiles of some rows and columns of a block, whose panels of the right side lie at `packed`.
    void run_tiles(const Job& job, const Room& room, const Target& target, const Block& block, const Range& rows,
                   const Range& columns, const char* packed, Ahead& ahead, NextRight& carrying) const {
        const Panel* const first = room.panels + panels_in(columns.from);
        const std::int64_t panels = panels_in(columns.to - columns.from);
        const std::int64_t depth = block.depth;
        const std::int64_t apart = job.direct_left ? groups_.m.left.stride() : left_row();
        const Rows& walk = job.direct_left ? left_lies_ : left_packed_;
        const char* a =
            job.direct_left ? block.left + block.m0 * apart + block.p0 * groups_.k.left.stride() : room.left;
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
                Side b = {packed + q * right_panel(), right_packed_};
                if (job.direct_right)
                    b = reads(panel.right) ? Side{block.right + panel.right.at[0] + block.p0 * right_lies_, right_lies_}
                                           : Side{packed, right_packed_};
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

    void pack_left(const Room& room, const Block& block, const Range& rows) const {
        if (k_run_ > 1) return pack_left_turned(room, block, rows);
        const Offsets along = slice(room.k_left, listed_ * block.depth);
        if (keeps_rows_)
            return convert_.left(room.left + rows.from * left_row(), left_row() / real_size_, block.left,
                                 slice(room.m_left + rows.from, rows.to - rows.from), along);
        for (std::int64_t i = rows.from; i < rows.to; i += rows_)
            pack_panel(convert_.left, level_.expand_left, 1, room.left + i * left_row(), rows_, block.left, along,
                       slice(room.m_left + i, std::min<std::int64_t>(rows_, rows.to - i)));
    }

    // The left side's adjacent numbers lie across runs of k: of each row, one number of each run is turned with its
    // neighbours (`aebf,dfce->abcd` at 24 float64, 2 threads, 0.98 of the time of gathering them one by one;
    // `aebf,fdec->abcd` float32 0.94).
    void pack_left_turned(const Room& room, const Block& block, const Range& rows) const {
        const Offsets run = slice(along_run_.data(), k_run_);
        for (std::int64_t i = rows.from; i < rows.to; ++i)
            for (std::int64_t p = 0, group; p < block.depth; p += group * k_run_) {
                group = std::min({(block.depth - p) / k_run_, k_turn_ - (block.p0 + p) / k_run_ % k_turn_, max_turn});
                convert_.left(room.left + i * left_row() + p * real_size_, k_run_,
                              block.left + room.m_left[i] + room.k_left[p], slice(along_turn_.data(), group), run);
            }
    }

    // Whether a tile reads these columns alone, and no padding that ends their last vector.
    bool reads(const Offsets& columns) const { return tile_.masked || columns.count * parts_ % tile_.lanes == 0; }

    // Of a side that is read where it lies only a last panel is packed, if a tile reads past its end.
    void pack_right(const Job& job, const Room& room, const Block& block, char* to, const Range& columns) const {
        if (turn_ > 1) return pack_turned(room, block, to, columns);
        const Offsets along = slice(room.k_right, block.depth);
        const Panel* const first = room.panels + panels_in(columns.from);
        const std::int64_t panels = panels_in(columns.to - columns.from);
        std::int64_t q = job.direct_right ? panels - 1 : 0;
        if (job.direct_right && reads(first[q].right)) return;
        if (right_adjacent_ && !job.direct_right) {
            const std::int64_t whole = (columns.to - columns.from) / columns_;
            convert_.right_panels(to, columns_, right_panel() / size_, columns_, block.right, along,
                                  {room.n_right + columns.from, whole * columns_, groups_.n.right.stride()});
            q = whole;
        }
        for (; q < panels; ++q) {
            const Offsets& width = first[q].right;
            char* panel = to + (job.direct_right ? 0 : q * right_panel());
            // Of old numbers of another type, as which they may be denormal, some processors take a hundred times as
            // long.
            if (!reads(width)) std::memset(panel, 0, static_cast<std::size_t>(right_panel()));
            pack_panel(convert_.right, level_.expand_right, 2, panel, columns_, block.right, along, width);
        }
    }

    // The right side's adjacent elements lie across runs: at one k, the same columns of several runs are a block to be
    // turned, whose rows go to a panel each. Packed panel by panel, each cache line would be fetched for every element.
    // No more than a register's columns are walked at once: they may all lie in the same sets of every cache
    // (`dbea,ec->abcd` of 40 x 40 x 40 x 40 x 40 float64, one core: 7.0 ms a panel at a time, 6.4 ms).
    void pack_turned(const Room& room, const Block& block, char* to, const Range& columns) const {
        const Panel* const first = room.panels + panels_in(columns.from);
        const std::int64_t per_run = panels_of(run_), first_run = (block.n0 + columns.from) / run_;
        const std::int64_t runs = (columns.to - columns.from) / run_;
        if (run_ % tile_.lanes != 0 && !tile_.masked)
            std::memset(to, 0, static_cast<std::size_t>(runs * per_run * right_panel()));
        for (std::int64_t r = 0, group; r < runs; r += group) {
            group = std::min({runs - r, turn_ - (first_run + r) % turn_, max_turn});
            for (std::int64_t q = r * per_run; q < (r + 1) * per_run; ++q)
                for (std::int64_t c = 0; c < first[q].right.count; c += tile_.lanes) {
                    const Offsets columns = {first[q].right.at + c,
                                             std::min<std::int64_t>(tile_.lanes, first[q].right.count - c),
                                             first[q].right.stride};
                    for (std::int64_t p = 0; p < block.depth; ++p)
                        convert_.right(to + q * right_panel() + (p * columns_ + c) * size_,
                                       per_run * right_panel() / size_, block.right + room.k_right[p],
                                       {adjacent_.data(), group, adjacent_[1]}, columns);
                }
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

    // Packs one panel; complex numbers go through a small block that is then rewritten as real ones.
    // `widen` is how many reals of each number the expanded row holds.
    void pack_panel(PackFn pack, const ExpandFn (&expand)[2], std::int64_t widen, char* to, std::int64_t ld,
                    const char* from, const Offsets& depth, const Offsets& width) const {
        if (parts_ == 1) {
            pack(to, ld, from, depth, width);
            return;
        }
        alignas(64) char block[expand_rows * 32 * 16];
        if (width.count < ld)
            std::memset(block, 0, static_cast<std::size_t>(std::min(expand_rows, depth.count) * ld * size_));
        for (std::int64_t p = 0; p < depth.count; p += expand_rows) {
            const std::int64_t rows = std::min(expand_rows, depth.count - p);
            pack(block, ld, from, {depth.at + p, rows, depth.stride}, width);
            expand[acc_ == Acc::c128](to + p * 2 * ld * widen * real_size_, block, rows, ld);
        }
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
    const std::int64_t right_packed_ = columns_ * parts_ * real_size_;
};

}  // namespace

std::unique_ptr<Kernel> make_contract(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<Contract>(loops, types);
}

}  // namespace einstride
