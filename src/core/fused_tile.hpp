// What is done for a tile of one size: tensors are packed, factors multiplied and summed, all by way of offset tables.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "fused.hpp"
#include "fused_tiling.hpp"
#include "level.hpp"

namespace einstride::fused {

// A tensor's tile, from its place in memory into scratch, or straight into the output.
struct Move {
    PackFn pack;
    std::size_t tensor;
    std::int64_t to;  // in scratch; negative: the output
    std::int64_t ld;
    bool wide;  // along v as well
    Table rows;
    Offsets row_offsets;
    Table columns;
    std::int64_t column_stride;
};

inline constexpr std::size_t in_scratch = SIZE_MAX;

// Rows that are the sums of products of two matrices, whose numbers are vectors: each of these is read once for some
// rows or columns, instead of once for every term (products of 3 x 3 matrices of float64, one core: 33 cycles each, so
// 24; of terms and rows as they lie in the caches, `kin,kjn->ijn` of 8, 4, 4 and 1000 float64: 22 us, so 14).
class Grid {
  public:
    Grid() = default;
    // The loops' strides are those of two factors and the output. `order`: the places of these factors, and of one that
    // is the same in all rows and terms, among those of the call.
    Grid(const std::vector<Loop>& loops, const std::vector<std::size_t>& order, const GridTable& kernels);

    bool takes(std::int64_t length) const { return kernels_ != nullptr && length >= kernels_->lanes; }
    void run(const char* const* in, char* out, std::int64_t length) const;

  private:
    const GridTable* kernels_ = nullptr;
    std::vector<std::size_t> order_;
    std::int64_t terms_ = 0, rows_ = 0, columns_ = 0;  // of a kernel
    GridSide left_ = {}, right_ = {};
    Table batch_left_, batch_right_, batch_out_, m_out_, n_out_;
};

// One call of an inner kernel.
struct Call {
    FusedFn run;
    Grid grid;         // runs instead where it takes rows of the length
    FusedBlock block;  // all but the places and the length
    bool wide;
    std::array<std::size_t, max_factors> tensor;  // a factor is a tensor where it lies, or in_scratch ...
    std::array<std::int64_t, max_factors> from;   // ... and lies here in it
    std::int64_t to;                              // in scratch; negative: the output or the sums
    std::size_t factors;
    std::array<Table, max_factors> row_at;
    std::array<Table, max_factors> term_at;
    Table out_at;
};

// The cache lines of a tensor's tile, as offsets: where a tile is not walked as it lies, processors do not foresee it.
struct Ahead {
    std::size_t tensor;
    Table lines;
};

// A tile of one size. It points into tables of its own, which stay where they are when it is moved.
struct Variant {
    Variant() = default;
    Variant(Variant&&) = default;
    Variant& operator=(Variant&&) = default;

    std::vector<Ahead> ahead;
    std::vector<Move> moves;
    std::vector<Call> calls;
    Table sum_rows;               // the rows of the sums in scratch
    Table out_rows, out_columns;  // and of the output, where they are stored to
    Table out_numbers;            // the columns of the sums
    Offsets out_row_offsets = {};
    std::int64_t out_column_stride = 0;
    Table runs;  // where the pieces of the output tile begin, if it is streamed: one after another in scratch
    std::int64_t run_bytes = 0;
    std::int64_t scratch_bytes = 0;  // of what is packed and multiplied beforehand
};

// `extent` is the tile's, a loop each. A buffered tile's sums are formed in scratch, and so are the numbers of the
// output if it is streamed.
Variant make_variant(const Nest& nest, const Tiling& tiling, const Table& extent, bool buffered, bool streamed);

// Whether the tiles of the output are made of whole cache lines, or of such long runs that it comes to the same.
bool whole_lines(const Nest& nest, const Tiling& tiling);

}  // namespace einstride::fused
