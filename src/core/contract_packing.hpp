// How the two sides of a contraction get into panels, straight from the tensors' strides.
#pragma once

#include <cstdint>
#include <vector>

#include "contract_blocking.hpp"
#include "memory.hpp"

namespace einstride {

class Packing : protected Blocking {
  protected:
    using Blocking::Blocking;

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
        std::int64_t *m_left, *m_out, *m_sums, *n_right, *n_out, *n_sums, *k_left, *k_right;
        std::int64_t* m_put;  // rows of all products that are interleaved

        // `block` columns of the right side are packed at a time.
        Room(Arena& arena, const Packing& self, std::int64_t rows, std::int64_t columns, std::int64_t block);
    };

    // The right side of the next block, whose panels are packed one after another while tiles of this one run.
    struct NextRight {
        Block block;
        char* to;
        std::int64_t panels = 0, begun = 0;
        Carry panel = {};
    };

    // Without panels where there is no next block, or one that is not deep enough.
    NextRight begin_carrying(const Block& next, std::int64_t columns, char* to) const;

    // What the next tile carries; nullptr where nothing is left.
    Carry* next_carry(const Room& room, NextRight& carrying) const;

    void pack_left(const Room& room, const Block& block, const Range& rows) const;
    void pack_right(const Room& room, const Block& block, char* to, const Range& columns) const;

    // Whether a tile reads these columns alone, and no padding that ends their last vector.
    bool reads(const Offsets& columns) const { return tile_.masked || columns.count * parts_ % tile_.lanes == 0; }

    // Bytes from one k to the next in a panel of the right side.
    std::int64_t right_packed() const { return columns_ * parts_ * real_size_; }

  private:
    void pack_left_turned(const Room& room, const Block& block, const Range& rows) const;
    void pack_turned(const Room& room, const Block& block, char* to, const Range& columns) const;
    void pack_panel(PackFn pack, const ExpandFn (&expand)[2], std::int64_t widen, char* to, std::int64_t ld,
                    const char* from, const Offsets& depth, const Offsets& width) const;
};

}  // namespace einstride
