// What one instruction-set level provides: the same functions, compiled for it.
#pragma once

#include <cstdint>
#include <vector>

#include "loop.hpp"
#include "types.hpp"

namespace einstride {

// What becomes of a sum: it is stored, added to what is there, or streamed past the caches, which needs an aligned
// place and a fence before other threads see it.
enum class Put { store, add, stream };

// Cache lines that are fetched while something else runs, one a step: base + line[0], base + line[1], ...
struct Fetch {
    const char* base;
    const std::int64_t* line;
    std::int64_t count;
};

// Stands where nothing is left to fetch, as often as there are steps.
inline constexpr std::int64_t no_lines[64] = {};
inline const Fetch no_fetch = {reinterpret_cast<const char*>(no_lines), no_lines, 64};

// The j-th element at c + c_rows[i] (+)= sum over p of a[i][p] * b[p][j], for j < columns and for every row i: a[i][p]
// lies at a + a_rows[i] + p*a_col, or beside a[i - 1][p] where a_rows is nullptr, and b[p][j] beside b[p][j - 1] from
// b + p*b_row on, in whole vectors of columns unless the tile is masked. All steps count bytes. `ahead` is fetched
// meanwhile, if the tile fetches.
using TileFn = void (*)(std::int64_t k, const void* a, const std::int64_t* a_rows, std::int64_t a_col, const void* b,
                        std::int64_t b_row, void* c, const std::int64_t* c_rows, std::int64_t columns, Put put,
                        const Fetch& ahead);

// How many adjacent numbers a tile carries in a step of k, where tiles do.
inline constexpr int carried = 8;

// A panel of the right side that tiles pack for later ones while they run: in every step some adjacent numbers of one
// of its columns, each into a row of its own. A group is as much of every column, and groups follow one another down
// the columns.
struct Carry {
    std::int64_t columns, column;  // how many, and bytes between them
    std::int64_t ahead;            // bytes to what is fetched, further down the column;
    std::int64_t near, across;     // and for all groups but the first `near`, to what is carried next
    // What is next, and the group's first number.
    const char *from, *group_from;
    char *to, *group_to;
    std::int64_t due, groups;  // what is left of the group, and groups
};

// The same by whole tiles of two vectors, which carry on with a panel meanwhile.
using CarryingTileFn = void (*)(std::int64_t k, const void* a, const std::int64_t* a_rows, std::int64_t a_col,
                                const void* b, std::int64_t b_row, void* c, const std::int64_t* c_rows, Put put,
                                const Fetch& ahead, Carry& carry);

inline constexpr int max_tile_rows = 14;

// The rows of a tile that lie evenly.
struct EvenRows {
    std::int64_t at[max_tile_rows];

    explicit EvenRows(std::int64_t bytes) {
        for (int i = 0; i < max_tile_rows; ++i) at[i] = i * bytes;
    }
};

struct Tile {
    int rows;                                        // the tallest tile that fits the registers
    int lanes;                                       // elements of the compute type in a vector
    bool fetches;                                    // lines ahead, one a step of k; else none
    bool masked;                                     // of b only `columns` are read
    TileFn run[2][max_tile_rows + 1];                // run[v - 1][r] computes r rows of v vectors
    CarryingTileFn run_carrying[max_tile_rows + 1];  // nullptr where tiles do not carry
    void (*carry)(Carry& carry);                     // packs what is left
};

// A tile of a batched contraction in vectors along the batch: for its rows i and columns j the vector at
// out + m_out[i] + n_out[j] (+)= sum over p of a[p][i] * b[p][j], with a and b packed vector by vector.
using LaneTileFn = void (*)(std::int64_t k, const void* a, const void* b, char* out, const std::int64_t* m_out,
                            const std::int64_t* n_out, bool add, const Fetch& ahead);

inline constexpr int max_lane_tile = 5;

struct LaneTile {
    int side;   // the most rows and columns
    int lanes;  // batch elements in a vector
    LaneTileFn run[max_lane_tile + 1][max_lane_tile + 1];
};

// dst[r*ld + c] = the element at src + rows.at[r] + cols.at[c], converted to the compute type.
using PackFn = void (*)(void* dst, std::int64_t ld, const char* src, const Offsets& rows, const Offsets& cols);

// The same into panels of `width` columns that lie `panel` apart: dst[c / width * panel + r*ld + c % width].
using PackPanelsFn = void (*)(void* dst, std::int64_t ld, std::int64_t panel, std::int64_t width, const char* src,
                              const Offsets& rows, const Offsets& cols);

// The element at dst + rows.at[r] + cols.at[c] = src[r*ld + c], rounded once to the storage type.
using StoreFn = void (*)(char* dst, const Offsets& rows, const Offsets& cols, const void* src, std::int64_t ld);

// Copies pieces of `bytes` bytes that lie one after another to dst + at[0], dst + at[1], ..., past the caches: lines
// that are written whole are then never read. Other threads see them after a fence.
using StreamFn = void (*)(char* dst, const std::int64_t* at, std::int64_t count, const char* src, std::int64_t bytes);

// Rewrites `rows` packed rows of `ld` complex numbers as twice as many rows of real ones.
using ExpandFn = void (*)(void* dst, const void* src, std::int64_t rows, std::int64_t ld);

// measure.cpp's loops: `peak_chains` multiply-adds of a vector a round, and a sum over `bytes` bytes.
using PeakFn = void (*)(std::int64_t rounds, const void* numbers, void* result);
using ReadFn = std::uint64_t (*)(const char* data, std::int64_t bytes);

// Two units with a latency of 4 or 5 cycles need 10 multiply-adds in flight.
inline constexpr int peak_chains = 12;

struct FusedKernels;    // fused.hpp
struct SoftmaxKernels;  // softmax.hpp

struct Level {
    const char* name;
    int vector_bytes;
    Tile tile[acc_count];  // i16, i32, i64, f32, f64; complex uses the real ones
    LaneTile lane_tile[acc_count];
    PackFn pack[dtype_count][acc_count];  // nullptr where the conversion is not a safe one
    PackPanelsFn pack_panels[dtype_count][acc_count];
    StoreFn store[dtype_count];  // from acc_of(type)
    StreamFn stream;             // nullptr where the processor has no such stores
    void (*fence)();
    ExpandFn expand_left[2];  // c64, c128
    ExpandFn expand_right[2];
    const FusedKernels* fused;
    const SoftmaxKernels* softmax[acc_count];  // f32, f64
    PeakFn peak[acc_count];                    // as tile
    ReadFn read;
};

namespace portable {
const Level& level();
}
namespace avx2 {
const Level& level();
}
namespace avx512 {
const Level& level();
}
namespace neon {
const Level& level();
}

// The best level this processor runs, or the one EINSTRIDE_LEVEL names when it is lower.
const Level& level();

// The level, or a lower one of this processor's whose vectors suit so few adjacent bytes: half-empty ones would do half
// the work, and most of it by way of the stack.
const Level& level_for(std::int64_t bytes);

// The names of the levels this processor runs, the best first.
std::vector<const char*> level_names();

}  // namespace einstride
