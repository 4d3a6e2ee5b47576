// The inner kernels of the fused loops: what a level provides, and the one form a block of work is handed to them in.
#pragma once

#include <cstdint>

#include "types.hpp"

namespace einstride {

inline constexpr int max_factors = 3;

// Of what comes again and again so much stays in the first cache while more streams through it.
inline constexpr std::int64_t kept_bytes = 8 << 10;

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

// Indexed by the number of vectors and of scalars among the factors; vectors come first. A dot of no vector is the sum
// of numbers that lie `step` bytes apart.
using FusedTable = FusedFn[max_factors + 1][max_factors];

struct FusedKernels {
    FusedTable map[acc_count];  // a row of the output is a vector
    FusedTable dot[acc_count];  // a row of the output is one number: the vectors are summed too
};

}  // namespace einstride
