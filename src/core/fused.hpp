// The inner kernels of the fused loops: what a level provides, and the one form a block of work is handed to them in.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace einstride {

inline constexpr int max_factors = 3;

// Of what comes again and again so much stays in the first cache while more streams through it.
inline constexpr std::int64_t kept_bytes = 8 << 10;

// So many terms are summed one after another before their sum joins the total: it keeps a long float sum as
// accurate as a pairwise one.
inline constexpr std::int64_t terms_in_a_row = 32;

// Rows of at most so many registers are summed by loops that are made for their number.
constexpr int known_registers(int vector_bytes) { return vector_bytes == 64 ? 16 : 8; }

// rows x terms x length products. Row r of the output is the sum over the terms t of the product of the factors;
// factor i of (r, t) starts at in[i] + row_at[i][r] + term_at[i][t] and is either `length` adjacent numbers of
// the compute type (a vector) or a single one (a scalar). Term 0 lies where the row starts. Distances are bytes. No
// term at all gives zeros. Rows and terms come in runs that lie evenly apart, in every factor and the output: so many
// of them, and so many again.
struct FusedBlock {
    std::int64_t rows, row_run;
    std::int64_t terms, term_run;
    std::int64_t length;
    std::int64_t step;  // from each number of the length to the next, where it is a scalar's that is not one for all
    const char* in[max_factors];
    const std::int64_t* row_at[max_factors];
    const std::int64_t* term_at[max_factors];
    char* out;
    const std::int64_t* out_at;
    std::int64_t touched;  // bytes of all tensors, which say from which cache they come; 0 of what is packed
};

using FusedFn = void (*)(const FusedBlock&);

// One side of a product of two matrices of vectors: vector i of term t lies at at + i*beside + t*step.
struct GridSide {
    const char* at;
    std::int64_t beside, step;
};

// The `length` numbers, a register at least, at out + m_out[i] + n_out[j] = the sum over the terms t of left (i, t)
// times right (j, t), all times one vector if there is one, for some rows i and columns j.
struct GridBlock {
    std::int64_t length, terms;
    GridSide left, right;
    const char* scale;  // nullptr: none
    char* out;
    const std::int64_t *m_out, *n_out;
};

using GridFn = void (*)(const GridBlock&);

inline constexpr int max_grid = 4;

struct GridTable {
    int side;  // the most rows and columns; 0 where there are no such kernels
    int lanes;
    GridFn run[max_grid + 1][max_grid + 1];
};

// Indexed by the number of vectors and of scalars among the factors; vectors come first. A dot of no vector is the sum
// of numbers that lie `step` bytes apart.
using FusedTable = FusedFn[max_factors + 1][max_factors];

struct FusedKernels {
    GridTable grid[acc_count];
    FusedTable map[acc_count];  // a row of the output is a vector
    FusedTable dot[acc_count];  // a row of the output is one number: the vectors are summed too
};

}  // namespace einstride
