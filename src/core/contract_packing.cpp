#include "contract_packing.hpp"

#include <algorithm>
#include <cstring>

#include "walk.hpp"

namespace einstride {

namespace {

// Rows of complex numbers that are packed at a time before they are rewritten as real ones.
constexpr std::int64_t expand_rows = 32;

// So many bytes further down a column, what tiles carry is fetched: they come to it after some 32 steps of 16 columns
// of float64, or 128 of 32 of float32, about as long as memory takes.
constexpr std::int64_t carried_ahead = 128;

}  // namespace

Packing::Room::Room(Arena& arena, const Packing& self, std::int64_t rows, std::int64_t columns, std::int64_t block) {
    const std::int64_t blocks = self.carries_ ? 2 : 1;
    left = arena.take<char>(self.direct_left_ ? 0 : round_up(rows, self.rows_) * self.left_row());
    right = arena.take<char>((self.direct_right_ ? 1 : blocks * self.panels_in(block)) * self.right_panel());
    sums = arena.take<char>(self.buffered_ ? self.interleaved_ * rows * columns * self.size_ : 0);
    panels = arena.take<Panel>(self.panels_in(columns));
    heights = arena.take<Offsets>(ceil_div(rows, self.rows_));
    const std::int64_t put = self.interleaved_ > 1 ? self.interleaved_ * rows : 0;
    m_left = arena.take<std::int64_t>(3 * (rows + columns) + put + (self.listed_ + 1) * self.k_block_);
    m_out = m_left + rows;
    m_sums = m_out + rows;
    m_put = m_sums + rows;
    n_right = m_put + put;
    n_out = n_right + columns;
    n_sums = n_out + columns;
    k_left = n_sums + columns;
    k_right = k_left + self.listed_ * self.k_block_;
}

Packing::NextRight Packing::begin_carrying(const Block& next, std::int64_t columns, char* to) const {
    const bool can = next.right != nullptr && next.depth >= carried;
    return {next, to, can ? panels_in(columns) : 0};
}

Carry* Packing::next_carry(const Room& room, NextRight& carrying) const {
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
    carry.group_to = carry.to - twice * right_packed();
    const std::int64_t lead = std::min<std::int64_t>(carried_ahead / (carried * size_), carry.groups);
    const Panel& next = carrying.begun < carrying.panels ? (&panel)[1] : panel;
    carry.ahead = lead * carried * size_;
    carry.near = carry.groups - lead;
    carry.across = source(next) - carry.from - carry.near * carried * size_;
    if (carry.near == 0) carry.ahead = carry.across;
    return &carry;
}

void Packing::pack_left(const Room& room, const Block& block, const Range& rows) const {
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
void Packing::pack_left_turned(const Room& room, const Block& block, const Range& rows) const {
    const Offsets run = slice(along_run_.data(), k_run_);
    for (std::int64_t i = rows.from; i < rows.to; ++i)
        for (std::int64_t p = 0, group; p < block.depth; p += group * k_run_) {
            group = std::min({(block.depth - p) / k_run_, k_turn_ - (block.p0 + p) / k_run_ % k_turn_, max_turn});
            convert_.left(room.left + i * left_row() + p * real_size_, k_run_,
                          block.left + room.m_left[i] + room.k_left[p], slice(along_turn_.data(), group), run);
        }
}

// Of a side that is read where it lies only a last panel is packed, if a tile reads past its end.
void Packing::pack_right(const Room& room, const Block& block, char* to, const Range& columns) const {
    if (turn_ > 1) return pack_turned(room, block, to, columns);
    const Offsets along = slice(room.k_right, block.depth);
    const Panel* const first = room.panels + panels_in(columns.from);
    const std::int64_t panels = panels_in(columns.to - columns.from);
    std::int64_t q = direct_right_ ? panels - 1 : 0;
    if (direct_right_ && reads(first[q].right)) return;
    if (right_adjacent_ && !direct_right_) {
        const std::int64_t whole = (columns.to - columns.from) / columns_;
        convert_.right_panels(to, columns_, right_panel() / size_, columns_, block.right, along,
                              {room.n_right + columns.from, whole * columns_, groups_.n.right.stride()});
        q = whole;
    }
    for (; q < panels; ++q) {
        const Offsets& width = first[q].right;
        char* panel = to + (direct_right_ ? 0 : q * right_panel());
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
void Packing::pack_turned(const Room& room, const Block& block, char* to, const Range& columns) const {
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
                    convert_.right(to + q * right_panel() + (p * columns_ + c) * size_, per_run * right_panel() / size_,
                                   block.right + room.k_right[p], {adjacent_.data(), group, adjacent_[1]}, columns);
            }
    }
}

// Packs one panel; complex numbers go through a small block that is then rewritten as real ones.
// `widen` is how many reals of each number the expanded row holds.
void Packing::pack_panel(PackFn pack, const ExpandFn (&expand)[2], std::int64_t widen, char* to, std::int64_t ld,
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

}  // namespace einstride
