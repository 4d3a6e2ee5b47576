// Fused loops: out = sum of the product of n >= 1 inputs in one pass over them, for work that is bound by memory.
//
// One mechanism serves all of it. The constructor picks a vector loop v and cuts every loop into tiles; a tile is
// rows x terms x length numbers: the free loops in it are flattened to rows, the contracted ones to terms, and v runs
// along the length. A tensor that lies along v as the kernels need it is used where it is. Any other is packed into
// scratch first (level().pack converts, gathers, and turns the tile where the tensor is contiguous along another
// loop), and an output that does not lie so is summed in scratch and stored from there. Which loop is v is decided by
// the predicted cost of the tiles that follow from it.
//
// Sums over more than one tile are added up as a binary tree, and work is split by shape alone: results do
// not depend on the number of threads.
#include "fused.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "level.hpp"
#include "program.hpp"

namespace einstride {

namespace {

using std::int64_t;
using Table = std::vector<int64_t>;

// ---- limits, in the order they are met -----------------------------------------------------------

constexpr int64_t scratch_bytes = 48 << 10;  // of packed tensors and buffered output in a tile: about L1
constexpr int64_t tile_bytes = 512 << 10;    // that a tile touches: inside L2
constexpr int64_t most_rows = 256;           // the size of the offset tables
constexpr int64_t most_terms = 128;
constexpr int64_t most_summed = 1 << 14;  // numbers summed into one by a dot
constexpr int64_t line_bytes = 64;        // a tile that is turned takes whole cache lines ...
constexpr int64_t turned_extent = 64;     // ... and a plain copy more of each page
constexpr int64_t small_extent = 8;       // loops that are part of every tile before v grows
constexpr int64_t packed_length = 512;
constexpr int64_t direct_length = 4096;
constexpr int64_t streamed_bytes = 4 << 20;  // of an output that caches will not keep anyway
constexpr int64_t streamed_tile = 16 << 10;
constexpr int64_t streamed_length = 1024;
constexpr int64_t long_run = 1024;          // bytes after which a run's two broken lines do not count
constexpr int64_t buffered_numbers = 4096;  // of the output in a tile
constexpr int64_t most_split = 2;           // loops, besides v, whose tiles do not cover them
constexpr double serial_seconds = 30e-6;    // less work than this is not worth waking a thread
constexpr double task_seconds = 60e-6;
constexpr double long_seconds = 1e-3;  // cells that take so long are split whatever their number
constexpr double cycles_a_second = 3e9;
constexpr int64_t few_tasks = 8;  // fewer than this and long sums are split as well
constexpr int64_t most_parts = 64;
constexpr int64_t partial_bytes = 1 << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool contracted(const Loop& loop) { return loop.role == Role::contracted; }

// ---- the loops in a normal form -------------------------------------------------------------------

// Turns loops that run backwards, and adds to `shift` where the tensors then start.
void turn_forwards(std::vector<Loop>& loops, Table& shift) {
    for (Loop& loop : loops) {
        const auto first = std::find_if(loop.strides.rbegin(), loop.strides.rend(), [](int64_t s) { return s != 0; });
        if (first == loop.strides.rend() || *first > 0) continue;
        for (std::size_t t = 0; t < shift.size(); ++t) {
            shift[t] += (loop.extent - 1) * loop.strides[t];
            loop.strides[t] = -loop.strides[t];
        }
    }
}

// How far apart neighbours along a loop lie, over all tensors: the order of loops in memory.
int64_t distance(const Loop& loop) {
    int64_t sum = 0;
    for (const int64_t stride : loop.strides) sum += std::abs(stride);
    return sum;
}

bool runs_on(const Loop& outer, const Loop& inner) {
    if (contracted(outer) != contracted(inner)) return false;
    for (std::size_t t = 0; t < inner.strides.size(); ++t)
        if (outer.strides[t] != inner.strides[t] * inner.extent) return false;
    return true;
}

// Sorts the loops as they lie in memory, outermost first, and merges those that every tensor walks as one.
void fold(std::vector<Loop>& loops) {
    std::erase_if(loops, [](const Loop& loop) { return loop.extent == 1; });
    std::stable_sort(loops.begin(), loops.end(),
                     [](const Loop& a, const Loop& b) { return distance(a) > distance(b); });
    for (std::size_t inner = loops.size(); inner-- > 0;)
        for (std::size_t outer = inner; outer-- > 0;)
            if (runs_on(loops[outer], loops[inner])) {
                loops[inner].extent *= loops[outer].extent;
                loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(outer));
                --inner;
                outer = inner;
            }
}

// ---- the choice of tiles ---------------------------------------------------------------------------

struct Problem {
    std::vector<Loop> loops;
    std::vector<DType> types;  // inputs, then the output
    Acc acc;
    bool empty_sum;  // a contracted extent is 0
    bool large;      // the output: streamed past the caches where whole lines of it are written

    int inputs() const { return static_cast<int>(types.size()) - 1; }
    int output() const { return inputs(); }
    int64_t stride(std::size_t loop, int tensor) const { return loops[loop].strides[static_cast<std::size_t>(tensor)]; }
    bool along(std::size_t loop, int tensor) const {
        return is_native(types[static_cast<std::size_t>(tensor)], acc) && stride(loop, tensor) == size_of(acc);
    }
};

// The tiles for one vector loop.
struct Tiling {
    std::size_t v = 0;
    Table extent;              // of the tile, a loop each
    std::vector<bool> vector;  // inputs that vary along v
    std::vector<bool> packed;  // inputs
    bool turned = false;       // a plain copy: the pack writes the output itself
    bool dot = false;
    bool staged = false;  // the output needs level().store
    double cycles = 0;    // predicted, all tiles
    double tile_cycles = 0;
};

class Tiler {
  public:
    Tiler(const Problem& problem, std::size_t v) : p(problem) {
        t.v = v;
        t.extent.assign(p.loops.size(), 1);
        t.dot = contracted(p.loops[v]);
        const DType out = p.types.back();
        t.staged = t.dot ? !is_native(out, p.acc) : !p.along(v, p.output());
        bool packs = t.staged;
        bool any_vector = false;
        for (int i = 0; i < p.inputs(); ++i) any_vector = any_vector || p.stride(v, i) != 0;
        bool contracts = p.empty_sum;
        for (const Loop& loop : p.loops) contracts = contracts || contracted(loop);
        for (int i = 0; i < p.inputs(); ++i) {
            const bool forced = !any_vector && i == 0;
            const bool native = is_native(p.types[static_cast<std::size_t>(i)], p.acc);
            t.vector.push_back(forced || p.stride(v, i) != 0);
            t.packed.push_back(forced || !native || (p.stride(v, i) != 0 && !p.along(v, i)));
            packs = packs || t.packed.back();
        }
        t.turned = p.inputs() == 1 && !contracts && t.packed[0] && !t.staged;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            t.turned = t.turned && p.stride(l, p.output()) % size_of(p.acc) == 0;
        length() = std::min(p.loops[v].extent, packs ? turned_extent : p.large ? streamed_length : direct_length);
        if (t.turned && p.large) length() = std::min(p.loops[v].extent, turned_run() / size_of(p.acc));
        if (t.dot && !packs) length() = std::min(p.loops[v].extent, most_summed);
        grow(packs);
        estimate();
    }
    Tiling take() { return std::move(t); }

  private:
    int64_t& length() { return t.extent[t.v]; }

    // Of a large output that is turned. Few rows of the input are walked at once, so that the processor foresees them:
    // as many as make whole lines of the output, if they can.
    int64_t turned_run() const {
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            if (l != t.v && p.stride(l, p.output()) % line_bytes != 0) return long_run;
        return 2 * line_bytes;
    }

    int64_t rows_of(int tensor) const {
        int64_t rows = 1;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            if (l != t.v && p.stride(l, tensor) != 0) rows *= t.extent[l];
        return rows;
    }
    int64_t count(bool terms) const {
        int64_t product = 1;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            if (l != t.v && contracted(p.loops[l]) == terms) product *= t.extent[l];
        return product;
    }
    int splits() const {
        int sum = 0;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            sum += l != t.v && t.extent[l] > 1 && t.extent[l] < p.loops[l].extent;
        return sum;
    }
    int64_t bytes_touched() const {
        int64_t sum = 0;
        for (int i = 0; i <= p.inputs(); ++i)
            sum += rows_of(i) * (p.stride(t.v, i) != 0 ? t.extent[t.v] : 1) *
                   size_of(p.types[static_cast<std::size_t>(i)]);
        return sum;
    }

    bool fits() const {
        const int64_t length = t.extent[t.v];
        const int64_t rows = count(false);
        const int64_t terms = count(true);
        const int64_t numbers = rows * (t.dot ? 1 : length);
        int64_t scratch = t.staged ? numbers * size_of(p.acc) : 0;
        if (p.large && numbers * size_of(p.types.back()) > streamed_tile) return false;
        for (int i = 0; i < p.inputs(); ++i)
            if (t.packed[static_cast<std::size_t>(i)])
                scratch += rows_of(i) * (t.vector[static_cast<std::size_t>(i)] ? length : 1) * size_of(p.acc);
        return scratch <= scratch_bytes && bytes_touched() <= tile_bytes && rows <= most_rows && terms <= most_terms &&
               (t.dot ? terms * length <= most_summed : rows * length <= buffered_numbers) && splits() <= most_split;
    }

    // The most of the loop that fits; cut evenly.
    void grow_loop(std::size_t l, int64_t most) {
        const int64_t before = t.extent[l];
        const int64_t extent = p.loops[l].extent;
        for (int64_t tried = std::min(extent, most); tried > before; tried /= 2) {
            t.extent[l] = tried;
            if (fits()) {
                const int64_t even = ceil_div(extent, ceil_div(extent, tried));
                t.extent[l] = tried < 16 ? even : std::min(tried, ceil_div(even, 16) * 16);
                return;
            }
        }
        t.extent[l] = before;
    }

    void grow(bool packs) {
        const std::size_t none = p.loops.size();
        bool turns = false;
        for (int i = 0; i <= p.inputs(); ++i) {
            const bool moved = i == p.output() ? t.staged && !t.dot : t.packed[static_cast<std::size_t>(i)];
            if (!moved) continue;
            const int64_t size = size_of(p.types[static_cast<std::size_t>(i)]);
            turns = turns || p.stride(t.v, i) != size;
            std::size_t u = none;
            for (std::size_t l = 0; l < p.loops.size(); ++l) {
                const int64_t stride = std::abs(p.stride(l, i));
                if (l == t.v || stride == 0) continue;
                const int64_t best = std::abs(p.stride(u == none ? t.v : u, i));
                if (best == 0 || stride < best) u = l;
            }
            if (u != none) grow_loop(u, t.turned ? turned_extent : line_bytes / size);
        }
        if (!t.turned) grow_others(small_extent);
        if (packs && !(t.turned && p.large)) grow_loop(t.v, turns ? packed_length : direct_length);
        if (!t.turned) grow_others(INT64_MAX);
    }

    // The other loops, from the innermost in memory on, so that tensors are walked as they lie.
    void grow_others(int64_t longest) {
        for (std::size_t l = p.loops.size(); l-- > 0;)
            if (l != t.v && p.loops[l].extent <= longest) grow_loop(l, p.loops[l].extent);
    }

    // Cycles of one tile and of all, from the number of vectors moved; 32-byte vectors stand for every level's.
    void estimate() {
        const double lanes = 32.0 / static_cast<double>(size_of(p.acc));
        const double length = static_cast<double>(t.extent[t.v]);
        const double whole = static_cast<double>(static_cast<int64_t>(length / lanes));
        const double left = length - whole * lanes;
        const double vectors = whole + (left > 0 ? 1 + (left > 1) : 0);
        const double rows = static_cast<double>(count(false));
        const double terms = static_cast<double>(count(true));
        const auto moving = [&](int tensor) {
            const double numbers = static_cast<double>(rows_of(tensor)) * (p.stride(t.v, tensor) != 0 ? length : 1);
            if (p.stride(t.v, tensor) == size_of(p.types[static_cast<std::size_t>(tensor)])) return 10 + 0.2 * numbers;
            for (std::size_t l = 0; l < p.loops.size(); ++l)
                if (p.stride(l, tensor) == size_of(p.types[static_cast<std::size_t>(tensor)]) && t.extent[l] >= 4)
                    return 10 + 0.5 * numbers;
            return 10 + 2.0 * numbers;
        };
        double cycles = 40;
        for (int i = 0; i < p.inputs(); ++i)
            if (t.packed[static_cast<std::size_t>(i)]) cycles += moving(i);
        if (t.staged) cycles += moving(p.output());
        if (!t.turned) {
            const double loads = static_cast<double>(p.inputs());
            cycles += rows * (8 + terms * (loads + vectors * loads / 2) + (t.dot ? 12 : vectors));
        }
        t.tile_cycles = std::max(cycles, static_cast<double>(bytes_touched()) / 8);
        t.cycles = cycles;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            t.cycles *= static_cast<double>(p.loops[l].extent) / static_cast<double>(t.extent[l]);
    }

    const Problem& p;
    Tiling t;
};

// ---- what a tile does ------------------------------------------------------------------------------

// The offsets of a nest of loops, the first one outermost.
struct Run {
    int64_t extent, stride;
};
Table flatten(const std::vector<Run>& runs) {
    Table at{0};
    for (const Run& run : runs) {
        Table next;
        next.reserve(at.size() * static_cast<std::size_t>(run.extent));
        for (const int64_t base : at)
            for (int64_t i = 0; i < run.extent; ++i) next.push_back(base + i * run.stride);
        at.swap(next);
    }
    return at;
}

Offsets offsets_of(const Table& at) {
    int64_t stride = irregular;
    if (at.size() > 1) {
        stride = at[1] - at[0];
        for (std::size_t i = 2; i < at.size() && stride != irregular; ++i)
            if (at[i] - at[i - 1] != stride) stride = irregular;
    }
    return {at.data(), static_cast<int64_t>(at.size()), stride};
}

// A tensor's tile, from its place in memory into scratch, or straight into the output.
struct Move {
    PackFn pack;
    int tensor;
    int64_t to;  // in scratch; negative: the output
    int64_t ld;
    bool wide;  // along v as well
    Table rows;
    Offsets row_offsets;
    Table columns;
    int64_t column_stride;
};

// One call of an inner kernel.
struct Call {
    FusedFn run;
    FusedBlock block;  // all but the places and the length
    bool wide;
    std::array<int, max_factors> tensor;    // a factor is a tensor where it lies ...
    std::array<int64_t, max_factors> from;  // ... or, for a negative tensor, lies here in scratch
    int64_t to;                             // in scratch; negative: the output or the sums
    int factors;
    std::array<Table, max_factors> row_at;
    std::array<Table, max_factors> term_at;
    Table out_at;
};

// The cache lines of a tensor's tile, as offsets: where a tile is not walked as it lies, processors do not foresee it.
struct Ahead {
    int tensor;
    Table lines;
};

Table lines_of(const Table& outer, const Table& inner) {
    Table lines;
    for (const int64_t row : outer)
        for (const int64_t column : inner)
            if (lines.empty() || std::abs(row + column - lines.back()) >= line_bytes) lines.push_back(row + column);
    return lines;
}

// A tile of one size.
struct Variant {
    std::vector<Ahead> ahead;
    std::vector<Move> moves;
    std::vector<Call> calls;
    Table sum_rows;               // the rows of the sums in scratch
    Table out_rows, out_columns;  // and of the output, where they are stored to
    Table out_numbers;            // the columns of the sums
    Offsets out_row_offsets;
    int64_t out_column_stride;
    Table runs;  // where the pieces of the output tile begin, if it is streamed: one after another in scratch
    int64_t run_bytes;
};

// A factor of the product, as the inner kernels see it in the tile.
struct Factor {
    bool vector;
    int tensor;  // or -1: in scratch
    int64_t from;
    Table stride;  // a loop each; the vector loop's is not used
};

class VariantBuilder {
  public:
    VariantBuilder(const Problem& problem, const Tiling& tiling, Table extents, bool buffered, bool streamed)
        : p(problem), t(tiling), extent(std::move(extents)), buffered_(buffered), streamed_(streamed) {
        lay_out();
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            if (l != t.v && extent[l] > 1) (contracted(p.loops[l]) ? term_loops : row_loops).push_back(l);
        // A tile that is stored is stored best with the output's own order of rows.
        std::stable_sort(row_loops.begin(), row_loops.end(),
                         [&](std::size_t a, std::size_t b) { return t.staged && out_stride[a] > out_stride[b]; });
    }

    Variant build() {
        if (t.turned) {
            move(0, -1);
            const Move& m = made.moves.back();
            if (streamed_)
                made.ahead.push_back({0, lines_of(m.columns, m.rows)});
            else
                made.ahead.push_back(
                    {p.output(), lines_of(flatten({{static_cast<int64_t>(m.rows.size()), m.ld * size_of(p.acc)}}),
                                          flatten({{width(true), out_stride[t.v]}}))});
            return std::move(made);
        }
        std::vector<Factor> factors;
        for (int i = 0; i < p.inputs(); ++i) {
            const bool vector = t.vector[static_cast<std::size_t>(i)];
            if (t.packed[static_cast<std::size_t>(i)]) {
                Factor factor{vector, -1, 0, strides_in_scratch([&](std::size_t l) { return p.stride(l, i); }, vector)};
                factor.from = take(vector);
                move(i, factor.from);
                factors.push_back(std::move(factor));
            } else {
                Factor factor{vector, i, 0, {}};
                for (std::size_t l = 0; l < p.loops.size(); ++l) factor.stride.push_back(p.stride(l, i));
                factors.push_back(std::move(factor));
            }
        }
        merge(factors);
        sum(factors);
        return std::move(made);
    }

    int64_t used() const { return used_; }

  private:
    // Where the numbers of the output tile lie: in their places, or one after another on the way there.
    void lay_out() {
        std::vector<std::size_t> order;
        for (std::size_t l = 0; l < p.loops.size(); ++l) {
            out_stride.push_back(p.stride(l, p.output()));
            if (extent[l] > 1 && !contracted(p.loops[l])) order.push_back(l);
        }
        made.run_bytes = size_of(p.types.back());
        if (!streamed_) return;
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return out_stride[a] > out_stride[b]; });
        std::vector<Run> apart;
        int64_t bytes = made.run_bytes;
        for (std::size_t i = order.size(); i-- > 0;) {
            const std::size_t l = order[i];
            if (apart.empty() && out_stride[l] == bytes)
                made.run_bytes *= extent[l];
            else
                apart.insert(apart.begin(), {extent[l], out_stride[l]});
            out_stride[l] = bytes;
            bytes *= extent[l];
        }
        made.runs = flatten(apart);
    }

    int64_t width(bool vector) const { return vector ? t.extent[t.v] : 1; }

    // Loops of the tile that a tensor or a product depends on, outermost first as it lies in memory.
    template <class Stride>
    std::vector<std::size_t> own_loops(const Stride& stride) const {
        std::vector<std::size_t> own;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            if (l != t.v && extent[l] > 1 && stride(l) != 0) own.push_back(l);
        std::stable_sort(own.begin(), own.end(),
                         [&](std::size_t a, std::size_t b) { return std::abs(stride(a)) > std::abs(stride(b)); });
        return own;
    }
    template <class Stride>
    Table strides_in_scratch(const Stride& stride, bool vector) {
        Table strides(p.loops.size(), 0);
        const std::vector<std::size_t> own = own_loops(stride);
        rows_taken = 1;
        for (std::size_t i = own.size(); i-- > 0; rows_taken *= extent[own[i]])
            strides[own[i]] = rows_taken * width(vector) * size_of(p.acc);
        return strides;
    }
    int64_t take(bool vector) {
        const int64_t at = used_;
        used_ += (rows_taken * width(vector) * size_of(p.acc) + 63) / 64 * 64;
        return at;
    }

    void move(int tensor, int64_t to) {
        const auto stride = [&](std::size_t l) { return p.stride(l, tensor); };
        const DType type = p.types[static_cast<std::size_t>(tensor)];
        std::vector<Run> runs;
        for (const std::size_t l : own_loops(stride)) runs.push_back({extent[l], stride(l)});
        Move m{};
        m.pack = level().pack[static_cast<int>(type)][static_cast<int>(p.acc)];
        m.tensor = tensor;
        m.to = to;
        m.wide = t.vector[static_cast<std::size_t>(tensor)];
        m.rows = flatten(runs);
        m.columns = flatten({{width(m.wide), stride(t.v)}});
        m.column_stride = m.wide ? stride(t.v) : size_of(type);
        m.ld = width(m.wide);
        if (to < 0)
            for (const std::size_t l : own_loops(stride)) m.ld = out_stride[l] / size_of(p.acc);
        made.moves.push_back(std::move(m));
    }

    int64_t rows_of(const Factor& a, const Factor& b) const {
        int64_t rows = 1;
        for (std::size_t l = 0; l < p.loops.size(); ++l)
            if (l != t.v && (a.stride[l] != 0 || b.stride[l] != 0)) rows *= extent[l];
        return rows;
    }

    // Multiplies two factors beforehand where the inner kernels take no more, or where it saves work: a product that
    // depends on few of the tile's loops is formed once instead of in every row and term.
    void merge(std::vector<Factor>& factors) {
        int64_t products = 1;
        for (const std::size_t l : row_loops) products *= extent[l];
        for (const std::size_t l : term_loops) products *= extent[l];
        while (factors.size() > 2) {
            std::size_t left = 0, right = 1;
            int64_t fewest = INT64_MAX;
            for (std::size_t a = 0; a < factors.size(); ++a)
                for (std::size_t b = a + 1; b < factors.size(); ++b)
                    if (rows_of(factors[a], factors[b]) < fewest) {
                        fewest = rows_of(factors[a], factors[b]);
                        left = a;
                        right = b;
                    }
            if (factors.size() <= max_factors && fewest * 3 > products) break;
            Factor& a = factors[left];
            Factor& b = factors[right];
            Factor product{a.vector || b.vector, -1, 0, {}};
            const auto stride = [&](std::size_t l) { return std::abs(a.stride[l]) + std::abs(b.stride[l]); };
            product.stride = strides_in_scratch(stride, product.vector);
            product.from = take(product.vector);
            std::vector<Run> runs;
            for (const std::size_t l : own_loops(stride)) runs.push_back({extent[l], product.stride[l]});
            call({a, b}, own_loops(stride), {}, flatten(runs), product.from, product.vector, level().fused->map);
            factors.erase(factors.begin() + static_cast<std::ptrdiff_t>(right));
            factors[left] = std::move(product);
        }
    }

    void sum(const std::vector<Factor>& factors) {
        std::vector<Run> out;
        for (const std::size_t l : row_loops) out.push_back({extent[l], out_stride[l]});
        made.out_rows = flatten(out);
        const int64_t rows = static_cast<int64_t>(made.out_rows.size());
        made.sum_rows = flatten({{rows, width(!t.dot) * size_of(p.acc)}});
        if (!t.dot) {
            made.out_column_stride = out_stride[t.v];
            made.out_columns = flatten({{width(true), made.out_column_stride}});
            made.out_numbers = flatten({{width(true), size_of(p.acc)}});
            if (t.staged && !streamed_) made.ahead.push_back({p.output(), lines_of(made.out_columns, made.out_rows)});
        }
        call(factors, row_loops, term_loops, buffered_ ? made.sum_rows : made.out_rows, -1, true,
             t.dot ? level().fused->dot : level().fused->map);
    }

    void call(std::vector<Factor> factors, const std::vector<std::size_t>& rows, const std::vector<std::size_t>& terms,
              Table out_at, int64_t to, bool wide, const FusedTable (&table)[acc_count]) {
        std::stable_sort(factors.begin(), factors.end(),
                         [](const Factor& a, const Factor& b) { return a.vector && !b.vector; });
        Call c{};
        int vectors = 0;
        c.factors = static_cast<int>(factors.size());
        for (std::size_t i = 0; i < factors.size(); ++i) {
            const Factor& factor = factors[i];
            vectors += factor.vector || !wide;
            c.tensor[i] = factor.tensor;
            c.from[i] = factor.from;
            const auto runs = [&](const std::vector<std::size_t>& loops) {
                std::vector<Run> result;
                for (const std::size_t l : loops) result.push_back({extent[l], factor.stride[l]});
                return result;
            };
            c.row_at[i] = flatten(runs(rows));
            c.term_at[i] = flatten(runs(terms));
        }
        c.run = table[static_cast<int>(p.acc)][vectors][c.factors - vectors];
        c.to = to;
        c.wide = wide;
        c.out_at = std::move(out_at);
        c.block.rows = static_cast<int64_t>(c.out_at.size());
        c.block.terms = p.empty_sum ? 0 : static_cast<int64_t>(c.term_at[0].size());
        made.calls.push_back(std::move(c));
    }

    const Problem& p;
    const Tiling& t;
    Table extent;
    bool buffered_, streamed_;
    Table out_stride;  // a loop each
    std::vector<std::size_t> row_loops, term_loops;
    int64_t used_ = 0;
    int64_t rows_taken = 1;
    Variant made;
};

// Tables are pointed to only once they are where they stay.
void settle(Variant& variant) {
    variant.out_row_offsets = offsets_of(variant.out_rows);
    for (Move& m : variant.moves) m.row_offsets = offsets_of(m.rows);
    for (Call& c : variant.calls) {
        for (std::size_t i = 0; i < max_factors; ++i) {
            c.block.row_at[i] = c.row_at[i].data();
            c.block.term_at[i] = c.term_at[i].data();
        }
        c.block.out_at = c.out_at.data();
    }
}

// ---- the kernel ------------------------------------------------------------------------------------

// A loop over tiles.
struct Outer {
    int64_t count;
    Table step;      // bytes a tile, a tensor each
    int bit;         // of the variant, set in the last tile; 0 where all tiles are alike
    int64_t length;  // of the vectors in the last tile; 0 for other loops than v
};

constexpr std::size_t few = 8;

// What a task works with: the tensors' first elements in a cell and in a tile, and its scratch.
class Places {
  public:
    Places(std::size_t tensors, char* scratch) : memory(scratch) {
        if (tensors > few) {
            more_.resize(3 * tensors);
            cell = more_.data();
            tile = cell + tensors;
            next = tile + tensors;
        }
    }
    char* memory;
    char** cell = few_.data();
    char** tile = few_.data() + few;
    char** next = few_.data() + 2 * few;

    // The tile that a move packed last, so that one which comes again is not packed again.
    struct Packed {
        const char* from;
        int variant;
        int64_t length;
        bool operator==(const Packed&) const = default;
    };
    std::array<Packed, few> packed{};

  private:
    std::array<char*, 3 * few> few_;
    std::vector<char*> more_;
};

class Fused final : public Kernel {
  public:
    Fused(std::vector<Loop> loops, std::vector<DType> types);
    bool run(char* const* tensors, const Monitor& monitor) const override;

  private:
    struct Work {
        const Fused* kernel;
        char* const* tensors;
        char* partials;  // the sums of parts x cells, where cells are split into parts
    };

    void choose();
    void plan_outer();
    void split();
    void build();

    int seek(const std::vector<Outer>& outers, int64_t index, const char* const* from, char** to,
             int64_t& length) const;
    int seek_cell(char* const* tensors, int64_t index, Places& places, int64_t& length) const;
    void cell(const Work& work, int64_t index, int64_t part, Places& places) const;
    void tile(const char* const* at, int variant, int64_t length, char* out, Places& places) const;
    void look_ahead(const char* const* at) const;
    void add_up(int variant, int64_t length, char* to, const char* from) const;
    void store(int variant, int64_t length, char* to, const char* sums) const;
    void stream(int variant, char* to, const char* from) const;
    bool whole_lines() const;
    void combine(const Work& work) const;
    static void task(void* work, int64_t index);

    Problem problem_;
    Tiling tiling_;
    Table shift_;
    std::vector<int> source_;  // of each tensor of the problem among those that run() is given
    bool nothing_ = false;     // no output element

    std::vector<Variant> variants_;
    std::vector<Outer> cells_;  // over tiles of the output
    std::vector<Outer> steps_;  // over tiles of the sum
    int64_t cell_count_ = 1;
    int64_t step_count_ = 1;
    bool buffered_ = false;  // sums are formed in scratch
    bool streamed_ = false;  // the tile of the output is formed in scratch
    int64_t sum_bytes_ = 0;  // of a tile
    int64_t depth_ = 0;      // of the tree of sums
    int64_t stream_at_ = 0;  // in scratch, behind what is packed and summed
    int64_t memory_bytes_ = 0;

    bool serial_ = true;
    int64_t task_cells_ = 1;
    int64_t parts_ = 1;
};

Fused::Fused(std::vector<Loop> loops, std::vector<DType> types) {
    const int count = static_cast<int>(types.size());
    for (int i = 0; i < count; ++i) source_.push_back(i);
    problem_.types = std::move(types);
    problem_.acc = acc_of(problem_.types.back());
    problem_.empty_sum = false;
    for (const Loop& loop : loops) {
        nothing_ = nothing_ || (loop.extent == 0 && !contracted(loop));
        problem_.empty_sum = problem_.empty_sum || (loop.extent == 0 && contracted(loop));
    }
    if (nothing_) return;
    if (problem_.empty_sum) {  // no input is read: the output stands for them
        std::erase_if(loops, contracted);
        for (Loop& loop : loops) loop.strides.assign(2, loop.strides.back());
        problem_.types.assign(2, problem_.types.back());
        source_.assign(2, count - 1);
    } else if (count == 2 && problem_.types[0] == problem_.types[1] &&
               std::none_of(loops.begin(), loops.end(), contracted)) {
        // A plain copy moves bits, of whatever type.
        constexpr DType plain[] = {DType::u8, DType::u16, DType::u32, DType::u64, DType::c128};
        problem_.types.assign(2, plain[std::bit_width(static_cast<std::uint64_t>(size_of(problem_.types[0]))) - 1]);
        problem_.acc = acc_of(problem_.types[0]);
    }
    shift_.assign(problem_.types.size(), 0);
    turn_forwards(loops, shift_);
    fold(loops);
    if (loops.empty()) {
        Loop one{Role::batch, 1, {}};
        for (const DType type : problem_.types) one.strides.push_back(size_of(type));
        loops.push_back(std::move(one));
    }
    int64_t bytes = size_of(problem_.types.back());
    for (const Loop& loop : loops) bytes *= contracted(loop) ? 1 : loop.extent;
    problem_.large = bytes >= streamed_bytes && level().stream != nullptr;
    problem_.loops = std::move(loops);
    choose();
    streamed_ = problem_.large && whole_lines();
    plan_outer();
    split();
    build();
}

void Fused::choose() {
    for (std::size_t v = problem_.loops.size(); v-- > 0;) {
        Tiling tiling = Tiler(problem_, v).take();
        if (tiling_.extent.empty() || tiling.cycles < tiling_.cycles) tiling_ = std::move(tiling);
    }
}

void Fused::plan_outer() {
    int bit = 1;
    for (std::size_t l = 0; l < problem_.loops.size(); ++l) {
        const Loop& loop = problem_.loops[l];
        const int64_t extent = tiling_.extent[l];
        const int64_t last = loop.extent - (ceil_div(loop.extent, extent) - 1) * extent;
        if (extent == loop.extent) continue;
        Outer outer{ceil_div(loop.extent, extent), {}, 0, l == tiling_.v ? last : 0};
        for (const int64_t stride : loop.strides) outer.step.push_back(stride * extent);
        if ((l != tiling_.v || streamed_) && last != extent) {
            outer.bit = bit;
            bit *= 2;
        }
        (contracted(loop) ? step_count_ : cell_count_) *= outer.count;
        (contracted(loop) ? steps_ : cells_).push_back(std::move(outer));
    }
    variants_.resize(static_cast<std::size_t>(bit));
    buffered_ = tiling_.staged || step_count_ > 1;
}

void Fused::split() {
    int64_t numbers = tiling_.dot ? 1 : tiling_.extent[tiling_.v];
    for (std::size_t l = 0; l < problem_.loops.size(); ++l)
        if (l != tiling_.v && !contracted(problem_.loops[l])) numbers *= tiling_.extent[l];
    if (buffered_) sum_bytes_ = ceil_div(numbers * size_of(problem_.acc), 64) * 64;

    const double cell_seconds = tiling_.tile_cycles * static_cast<double>(step_count_) / cycles_a_second;
    const double seconds = cell_seconds * static_cast<double>(cell_count_);
    serial_ = seconds < serial_seconds || cell_count_ * step_count_ == 1;
    if (!serial_ && (cell_count_ < few_tasks || cell_seconds > long_seconds)) {
        const int64_t wanted = static_cast<int64_t>(seconds / task_seconds / static_cast<double>(cell_count_)) + 1;
        const int64_t room = partial_bytes / (cell_count_ * std::max<int64_t>(sum_bytes_, 1));
        parts_ = std::max<int64_t>(1, std::min({wanted, room, most_parts, step_count_}));
    }
    if (parts_ == 1)
        task_cells_ = std::clamp<int64_t>(static_cast<int64_t>(task_seconds / cell_seconds), 1,
                                          ceil_div(cell_count_, serial_ ? 1 : few_tasks));
    if (buffered_) depth_ = std::bit_width(static_cast<std::uint64_t>(ceil_div(step_count_, parts_))) + 1;
}

void Fused::build() {
    int64_t used = 0;
    for (std::size_t which = 0; which < variants_.size(); ++which) {
        Table extents = tiling_.extent;
        int bit = 1;
        for (std::size_t l = 0; l < extents.size(); ++l) {
            const int64_t last = problem_.loops[l].extent % extents[l];
            if ((l == tiling_.v && !streamed_) || last == 0) continue;
            if (static_cast<int>(which) & bit) extents[l] = last;
            bit *= 2;
        }
        VariantBuilder builder(problem_, tiling_, std::move(extents), buffered_, streamed_);
        variants_[which] = builder.build();
        settle(variants_[which]);
        used = std::max(used, builder.used());
    }
    stream_at_ = used + depth_ * sum_bytes_;
    memory_bytes_ = stream_at_ + (streamed_ ? streamed_tile : 0);
}

// Whether the tiles of the output are made of whole cache lines, or of such long runs that it comes to the same.
bool Fused::whole_lines() const {
    const Variant whole = VariantBuilder(problem_, tiling_, tiling_.extent, false, true).build();
    if (whole.run_bytes >= long_run) return true;
    bool lines = whole.run_bytes % line_bytes == 0;
    for (std::size_t l = 0; l < problem_.loops.size(); ++l) {
        const int64_t stride = problem_.stride(l, problem_.output());
        lines = lines &&
                (stride < whole.run_bytes ? stride * tiling_.extent[l] % line_bytes == 0 : stride % line_bytes == 0);
    }
    return lines;
}

// ---- running -----------------------------------------------------------------------------------------

// Goes to tile `index` of a nest of loops over tiles; returns the bits of the variant.
int Fused::seek(const std::vector<Outer>& outers, int64_t index, const char* const* from, char** to,
                int64_t& length) const {
    const std::size_t tensors = source_.size();
    for (std::size_t i = 0; i < tensors; ++i) to[i] = const_cast<char*>(from[i]);
    int variant = 0;
    for (std::size_t o = outers.size(); o-- > 0;) {
        const Outer& outer = outers[o];
        const int64_t at = index % outer.count;
        index /= outer.count;
        for (std::size_t i = 0; i < tensors; ++i) to[i] += at * outer.step[i];
        if (at == outer.count - 1) {
            variant |= outer.bit;
            if (outer.length != 0) length = outer.length;
        }
    }
    return variant;
}

int Fused::seek_cell(char* const* tensors, int64_t index, Places& places, int64_t& length) const {
    for (std::size_t i = 0; i < source_.size(); ++i) places.tile[i] = tensors[source_[i]] + shift_[i];
    return seek(cells_, index, places.tile, places.cell, length);
}

void Fused::tile(const char* const* at, int which, int64_t length, char* out, Places& places) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    char* const packed = places.memory + depth_ * sum_bytes_;
    for (std::size_t i = 0; i < variant.moves.size(); ++i) {
        const Move& move = variant.moves[i];
        const Places::Packed now{at[move.tensor], which, length};
        if (i < few && move.to >= 0) {
            if (places.packed[i] == now) continue;
            places.packed[i] = now;
        }
        const Offsets columns = {move.columns.data(), move.wide ? length : 1, move.column_stride};
        move.pack(move.to < 0 ? out : packed + move.to, move.ld, at[move.tensor], move.row_offsets, columns);
    }
    for (const Call& call : variant.calls) {
        FusedBlock block = call.block;
        for (int i = 0; i < call.factors; ++i)
            block.in[i] = call.tensor[i] < 0 ? packed + call.from[i] : at[call.tensor[i]];
        block.length = call.wide ? length : 1;
        block.out = call.to < 0 ? out : packed + call.to;
        call.run(block);
    }
}

void Fused::look_ahead(const char* const* at) const {
    for (const Ahead& ahead : variants_[0].ahead)
        for (const int64_t line : ahead.lines) __builtin_prefetch(at[ahead.tensor] + line, 0, 2);
}

void Fused::add_up(int which, int64_t length, char* to, const char* from) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    constexpr int64_t here = 0;
    FusedBlock block{};
    block.rows = static_cast<int64_t>(variant.sum_rows.size());
    block.terms = 1;
    block.length = tiling_.dot ? 1 : length;
    block.in[0] = from;
    block.row_at[0] = block.out_at = variant.sum_rows.data();
    block.term_at[0] = &here;
    block.out = to;
    block.add = true;
    level().fused->map[static_cast<int>(problem_.acc)][1][0](block);
}

void Fused::store(int which, int64_t length, char* to, const char* sums) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    const DType type = problem_.types.back();
    const int64_t size = size_of(type);
    const int64_t rows = static_cast<int64_t>(variant.sum_rows.size());
    const StoreFn put = level().store[static_cast<int>(type)];
    constexpr int64_t here = 0;
    if (tiling_.dot) return put(to, {&here, 1, size}, variant.out_row_offsets, sums, rows);
    const int64_t column_stride = variant.out_column_stride;
    if (is_native(type, problem_.acc) && variant.out_row_offsets.stride == size && column_stride % size == 0)
        return level().pack[static_cast<int>(type)][static_cast<int>(problem_.acc)](
            to, column_stride / size, sums, {variant.out_numbers.data(), length, size},
            {variant.sum_rows.data(), rows, tiling_.extent[tiling_.v] * size});
    put(to, variant.out_row_offsets, {variant.out_columns.data(), length, column_stride}, sums,
        tiling_.extent[tiling_.v]);
}

void Fused::stream(int which, char* to, const char* from) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    level().stream(to, variant.runs.data(), static_cast<int64_t>(variant.runs.size()), from, variant.run_bytes);
}

// The sum of one part of a cell's tiles, by a binary tree whose nodes on the way to the root lie in scratch.
void Fused::cell(const Work& work, int64_t index, int64_t part, Places& places) const {
    int64_t length = tiling_.extent[tiling_.v];
    const int which = seek_cell(work.tensors, index, places, length);
    char* const place = places.cell[problem_.output()];
    char* const out = streamed_ ? places.memory + stream_at_ : place;
    const bool ahead = !variants_[0].ahead.empty();
    if (ahead && index + 1 < cell_count_) {
        int64_t any_length;
        seek(cells_, index + 1, places.tile, places.next, any_length);
        look_ahead(places.next);
    }
    if (!buffered_) {
        tile(places.cell, which, length, out, places);
        if (streamed_) stream(which, place, out);
        return;
    }

    const int64_t first = step_count_ * part / parts_;
    const int64_t steps = step_count_ * (part + 1) / parts_ - first;
    const auto sums = [&](int64_t depth) { return places.memory + depth * sum_bytes_; };
    int64_t top = -1;
    for (int64_t step = 0; step < steps; ++step) {
        int64_t step_length = length;
        const int step_which = which | seek(steps_, first + step, places.cell, places.tile, step_length);
        tile(places.tile, step_which, step_length, sums(++top), places);
        for (int64_t tiles = step + 1; tiles % 2 == 0; tiles /= 2, --top)
            add_up(which, length, sums(top - 1), sums(top));
    }
    for (; top > 0; --top) add_up(which, length, sums(top - 1), sums(top));
    if (work.partials != nullptr)
        std::memcpy(work.partials + (index * parts_ + part) * sum_bytes_, sums(0),
                    static_cast<std::size_t>(sum_bytes_));
    else {
        store(which, length, out, sums(0));
        if (streamed_) stream(which, place, out);
    }
}

void Fused::combine(const Work& work) const {
    Places places(source_.size(), nullptr);
    for (int64_t index = 0; index < cell_count_; ++index) {
        int64_t length = tiling_.extent[tiling_.v];
        const int which = seek_cell(work.tensors, index, places, length);
        char* const sums = work.partials + index * parts_ * sum_bytes_;
        for (int64_t apart = 1; apart < parts_; apart *= 2)
            for (int64_t part = 0; part + apart < parts_; part += 2 * apart)
                add_up(which, length, sums + part * sum_bytes_, sums + (part + apart) * sum_bytes_);
        store(which, length, places.cell[problem_.output()], sums);
    }
}

void Fused::task(void* context, int64_t index) {
    const Work& work = *static_cast<const Work*>(context);
    const Fused& fused = *work.kernel;
    const std::size_t bytes = static_cast<std::size_t>(fused.memory_bytes_);
    Places places(fused.source_.size(), bytes != 0 ? scratch(bytes) : nullptr);
    const int64_t first = index / fused.parts_ * fused.task_cells_;
    const int64_t last = std::min(first + fused.task_cells_, fused.cell_count_);
    for (int64_t at = first; at < last; ++at) fused.cell(work, at, index % fused.parts_, places);
    if (fused.streamed_) level().fence();
}

bool Fused::run(char* const* tensors, const Monitor& monitor) const {
    if (nothing_) return true;
    Work work{this, tensors, nullptr};
    if (serial_) {
        const std::size_t bytes = static_cast<std::size_t>(memory_bytes_);
        Places places(source_.size(), bytes != 0 ? scratch(bytes) : nullptr);
        for (int64_t index = 0; index < cell_count_; ++index) cell(work, index, 0, places);
        if (streamed_) level().fence();
        return true;
    }
    const int64_t tasks = ceil_div(cell_count_, task_cells_) * parts_;
    if (parts_ == 1) return parallel_for(tasks, task, &work, monitor);
    Workspace partials(static_cast<std::size_t>(tasks * sum_bytes_));
    work.partials = partials.data();
    if (!parallel_for(tasks, task, &work, monitor)) return false;
    combine(work);
    return true;
}

}  // namespace

std::unique_ptr<Kernel> make_fused(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<Fused>(loops, types);
}

}  // namespace einstride
