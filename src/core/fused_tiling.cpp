// The vector loop is the one whose tiles are predicted to cost least; a tile grows a loop at a time, until it meets one
// of the limits below.
#include "fused_tiling.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#include "fused.hpp"
#include "level.hpp"
#include "walk.hpp"

namespace einstride::fused {

namespace {

using std::int64_t;

// Limits of a tile, in the order they are met.
constexpr int64_t scratch_bytes = 48 << 10;  // of packed tensors and buffered output: about L1
constexpr int64_t tile_bytes = 512 << 10;    // that it touches: inside L2
constexpr int64_t most_rows = 256;           // the size of the offset tables
constexpr int64_t most_terms = 512;
constexpr int64_t most_summed = 1 << 14;  // numbers summed into one by a dot
constexpr int64_t turned_extent = 64;     // a plain copy that is turned takes more than a line of each page
constexpr int64_t small_extent = 8;       // loops that are part of every tile before v grows
constexpr int64_t packed_length = 512;
constexpr int64_t direct_length = 4096;
constexpr int64_t summed_bytes = 16 << 10;
constexpr int64_t streamed_length = 1024;
constexpr int64_t buffered_numbers = 4096;  // of the output
constexpr int64_t rows_in_turn = 8;         // that are written one after another, where they lie apart
constexpr int64_t page_bytes = 4096;
constexpr int64_t most_narrow = 9;     // rows of a dense tensor that are turned without squares,
constexpr double narrow_cycles = 0.1;  // and what that takes a byte; of the output twice as much
constexpr int64_t most_split = 2;      // loops, besides v, whose tiles do not cover them

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

// Finds the tiles for one vector loop.
class Tiler {
  public:
    Tiler(const Nest& nest, std::size_t v, bool one_by_one = false) : nest_(nest), one_by_one_(one_by_one) {
        tiling_.v = v;
        tiling_.extent.assign(nest_.loops.size(), 1);
        tiling_.dot = contracted(nest_.loops[v]);
        tiling_.staged = tiling_.dot ? !nest_.native(nest_.output()) : !nest_.along(v, nest_.output());
        bool packs = tiling_.staged;
        bool any_vector = false;
        for (std::size_t i = 0; i < nest_.inputs(); ++i) any_vector = any_vector || nest_.stride(v, i) != 0;
        contracts_ = nest_.empty_sum;
        for (const Loop& loop : nest_.loops) contracts_ = contracts_ || contracted(loop);
        for (std::size_t i = 0; i < nest_.inputs(); ++i) {
            const bool forced = !any_vector && i == 0;
            tiling_.vector.push_back(!one_by_one && (forced || nest_.stride(v, i) != 0));
            tiling_.packed.push_back(!one_by_one &&
                                     (forced || !nest_.native(i) || (nest_.stride(v, i) != 0 && !nest_.along(v, i))));
            packs = packs || tiling_.packed.back();
        }
        tiling_.turned = nest_.inputs() == 1 && !contracts_ && tiling_.packed[0] && !tiling_.staged;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            tiling_.turned = tiling_.turned && nest_.stride(l, nest_.output()) % size_of(nest_.acc) == 0;
        length() = std::min(nest_.loops[v].extent, most_length(packs));
        if (tiling_.turned && nest_.large && !narrow(0))
            length() = std::min(nest_.loops[v].extent, turned_run() / size_of(nest_.acc));
        if (tiling_.dot && !packs && !one_by_one) length() = std::min(nest_.loops[v].extent, most_summed);
        if (!packs && !contracts_ && !nest_.large) choose_beside();
        grow(packs);
        estimate();
    }
    Tiling take() { return std::move(tiling_); }

  private:
    int64_t& length() { return tiling_.extent[tiling_.v]; }
    int64_t length() const { return tiling_.extent[tiling_.v]; }

    int64_t most_length(bool packs) const {
        if (packs) return turned_extent;
        if (nest_.large) return streamed_length;
        // Rows that are added to stay in L1 beside those that stream through it, but from memory long ones come faster
        // (`b,bij->ij` of 100 x 200 x 100 float64, 2 threads: 189 us in rows of 4096, 156 us so; `bij->ij` of 64 MB
        // 1550 and 1800).
        if (contracts_ && !tiling_.dot && nest_.touched < shared_cache)
            return std::min(direct_length, summed_bytes / size_of(nest_.acc));
        return direct_length;
    }

    // Of a large output that is turned. Few rows of the input are walked at once, so that the processor foresees them:
    // as many as make whole lines of the output, if they can.
    int64_t turned_run() const {
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (l != tiling_.v && nest_.stride(l, nest_.output()) % line_bytes != 0) return long_run;
        return 2 * line_bytes;
    }

    // Rows are written as they lie, unless an input comes again along a loop which the writing drives out of L1
    // meanwhile: then some rows along that loop come one after another (`ir,jr->ijr` of 300 x 300 x 32 float64, one
    // core: 1800 us as they lie, 1000 us so).
    void choose_beside() {
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            for (std::size_t i = 0; i < nest_.inputs() && l != tiling_.v; ++i) {
                if (nest_.stride(l, i) != 0) continue;
                int64_t bytes = size_of(nest_.types[i]);
                for (std::size_t inner = l + 1; inner < nest_.loops.size(); ++inner)
                    if (nest_.stride(inner, i) != 0) bytes *= nest_.loops[inner].extent;
                if (bytes > kept_bytes) tiling_.beside = l;
            }
    }

    int64_t rows_of(std::size_t tensor) const {
        int64_t rows = 1;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (l != tiling_.v && nest_.stride(l, tensor) != 0) rows *= tiling_.extent[l];
        return rows;
    }
    int64_t count(bool terms) const {
        int64_t product = 1;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (l != tiling_.v && contracted(nest_.loops[l]) == terms) product *= tiling_.extent[l];
        return product;
    }
    int splits() const {
        int sum = 0;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            sum += l != tiling_.v && tiling_.extent[l] > 1 && tiling_.extent[l] < nest_.loops[l].extent;
        return sum;
    }
    int64_t bytes_touched() const {
        int64_t sum = 0;
        for (std::size_t i = 0; i <= nest_.inputs(); ++i)
            sum += rows_of(i) * (nest_.stride(tiling_.v, i) != 0 ? tiling_.extent[tiling_.v] : 1) *
                   size_of(nest_.types[i]);
        return sum;
    }

    bool fits() const {
        const int64_t length = tiling_.extent[tiling_.v];
        const int64_t rows = count(false);
        const int64_t terms = count(true);
        const int64_t numbers = rows * (tiling_.dot ? 1 : length);
        int64_t scratch = tiling_.staged ? numbers * size_of(nest_.acc) : 0;
        if (nest_.large && numbers * size_of(nest_.types.back()) > streamed_tile) return false;
        for (std::size_t i = 0; i < nest_.inputs(); ++i)
            if (tiling_.packed[i]) scratch += rows_of(i) * (tiling_.vector[i] ? length : 1) * size_of(nest_.acc);
        return scratch <= scratch_bytes && bytes_touched() <= tile_bytes && rows <= most_rows && terms <= most_terms &&
               (tiling_.dot                    ? terms * length <= most_summed
                : contracts_ || tiling_.staged ? rows * length <= buffered_numbers
                                               : true) &&
               splits() <= most_split;
    }

    // The most of the loop that fits; cut evenly.
    void grow_loop(std::size_t l, int64_t most) {
        const int64_t before = tiling_.extent[l];
        const int64_t extent = nest_.loops[l].extent;
        for (int64_t half = std::min(extent, most); half > before; half /= 2) {
            const int64_t tried = half < extent && half >= 16 ? half / 8 * 8 : half;  // rows that are summed together
            tiling_.extent[l] = tried;
            if (fits()) {
                const int64_t even = even_part(extent, tried);
                tiling_.extent[l] = tried < 16 ? even : std::min(tried, round_up(even, 16));
                return;
            }
        }
        tiling_.extent[l] = before;
    }

    void grow(bool packs) {
        const std::size_t none = nest_.loops.size();
        bool turns = false;
        for (std::size_t i = 0; i <= nest_.inputs(); ++i) {
            const bool moved = i == nest_.output() ? tiling_.staged && !tiling_.dot : tiling_.packed[i];
            if (!moved) continue;
            const int64_t size = size_of(nest_.types[i]);
            turns = turns || nest_.stride(tiling_.v, i) != size;
            std::size_t u = none;
            for (std::size_t l = 0; l < nest_.loops.size(); ++l) {
                const int64_t stride = std::abs(nest_.stride(l, i));
                if (l == tiling_.v || stride == 0) continue;
                const int64_t best = std::abs(nest_.stride(u == none ? tiling_.v : u, i));
                if (best == 0 || stride < best) u = l;
            }
            if (u != none) {
                const int64_t most = tiling_.turned ? turned_extent : line_bytes / size;
                const int64_t extent = nest_.loops[u].extent;
                grow_loop(u, extent < 2 * most ? extent : most);  // its halves would share cache lines
            }
        }
        if (tiling_.beside < none) grow_loop(tiling_.beside, rows_in_turn);
        if (!tiling_.turned) grow_others(small_extent);
        if (packs && !(tiling_.turned && nest_.large && !narrow(0)))
            grow_loop(tiling_.v, turns ? packed_length : direct_length);
        if (!tiling_.turned) grow_others(INT64_MAX);
    }

    // The other loops, from the innermost in memory on, so that tensors are walked as they lie.
    void grow_others(int64_t longest) {
        for (std::size_t l = nest_.loops.size(); l-- > 0;)
            if (l != tiling_.v && nest_.loops[l].extent <= longest) grow_loop(l, nest_.loops[l].extent);
    }

    // Cycles of one tile and of all, from the number of vectors moved; 32-byte vectors stand for every level's.
    void estimate() {
        const double lanes = 32.0 / static_cast<double>(size_of(nest_.acc));
        const double length = static_cast<double>(tiling_.extent[tiling_.v]);
        const double whole = static_cast<double>(static_cast<int64_t>(length / lanes));
        const double left = length - whole * lanes;
        // A short row that is not summed is read and written as a masked register.
        const bool masked = !tiling_.dot && whole == 0 && level().tile[static_cast<int>(real_of(nest_.acc))].masked;
        const double vectors = whole + (left > 0 ? 1 + (left > 1 && !masked) : 0);
        const double rows = static_cast<double>(count(false));
        const double terms = static_cast<double>(count(true));
        const auto moving = [&](std::size_t tensor) {
            const double numbers =
                static_cast<double>(rows_of(tensor)) * (nest_.stride(tiling_.v, tensor) != 0 ? length : 1);
            const double size = static_cast<double>(size_of(nest_.types[tensor]));
            const double step = static_cast<double>(nest_.stride(tiling_.v, tensor)) / size;
            if (step == 1 || step == 2) return 10 + 6 * static_cast<double>(rows_of(tensor)) + 0.2 * step * numbers;
            if (narrow(tensor)) return 10 + (tensor == nest_.output() ? 2 : 1) * narrow_cycles * size * numbers;
            if (const int64_t run = adjacent(tensor); run >= 4) return 10 + turning(tensor, run) * numbers;
            const bool pages = std::abs(nest_.stride(tiling_.v, tensor)) >= page_bytes;  // one a number
            return 10 + (pages ? 2.5 : 2.0) * numbers;
        };
        double cycles = 40, kept = 0;
        for (std::size_t i = 0; i < nest_.inputs(); ++i) {
            if (!tiling_.packed[i]) continue;
            cycles += moving(i);
            if (moving(i) > kept && !sums_in_steps()) kept = moving(i), tiling_.kept = i;
        }
        if (tiling_.staged) cycles += moving(nest_.output());
        if (const double grid = grid_cycles(vectors); grid > 0) {
            cycles += grid;
        } else if (!tiling_.turned) {
            const double loads = static_cast<double>(nest_.inputs());
            const double writing = !tiling_.dot ? vectors : known_length() ? 1 : 8;
            const bool lines = std::abs(nest_.stride(tiling_.v, 0)) >= line_bytes;  // one a number
            const double reading = one_by_one_ ? 8.5 + (lines ? 1.5 : 1.0) * length
                                   : masked    ? loads
                                               : loads + vectors * loads / 2;
            cycles += rows * ((terms > 1 ? 8 : masked ? 1 : 2) + terms * reading + writing);
        }
        tiling_.tile_cycles = std::max(cycles, static_cast<double>(bytes_touched()) / 8);
        tiling_.cycles = (cycles - kept) * tiles() + kept * tiles(tiling_.kept);
    }

    // Where some vectors are multiplied by some others each, and maybe all by one; 0: they are not.
    double grid_cycles(double vectors) const {
        const GridTable& kernels = level().fused->grid[static_cast<int>(nest_.acc)];
        if (tiling_.dot || one_by_one_ || length() < kernels.lanes || count(true) > terms_in_a_row) return 0;
        if (!tiling_.staged && count(true) == 1) return 0;
        int64_t rows = 1, columns = 1, batch = 1;
        std::vector<std::size_t> sides;
        for (std::size_t i = 0; i < nest_.inputs(); ++i) {
            if (!tiling_.vector[i]) return 0;
            if (rows_of(i) > 1) sides.push_back(i);
        }
        if (kernels.side == 0 || sides.size() != 2) return 0;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l) {
            if (l == tiling_.v || contracted(nest_.loops[l])) continue;
            const bool left = nest_.stride(l, sides[0]) != 0, right = nest_.stride(l, sides[1]) != 0;
            (left && right ? batch : left ? rows : columns) *= tiling_.extent[l];
        }
        if (rows * columns == 1) return 0;
        const int64_t down = even_part(rows, kernels.side), across = even_part(columns, kernels.side);
        const double r = static_cast<double>(down), c = static_cast<double>(across);
        const double step = std::max(r * c, r + c) / 2 * static_cast<double>(count(true));
        return static_cast<double>(batch * ceil_div(rows, down) * ceil_div(columns, across)) *
               (20 + vectors * (5 + step + r * c));
    }

    bool known_length() const {
        const int bytes = level().vector_bytes;
        return nest_.inputs() <= 2 && tiling_.extent[tiling_.v] * size_of(nest_.acc) <= known_registers(bytes) * bytes;
    }

    // How many numbers of a tensor's tile are adjacent in memory, for each step of v.
    int64_t adjacent(std::size_t tensor) const {
        int64_t run = 1;
        for (std::size_t l = nest_.loops.size(); l-- > 0;)
            if (l != tiling_.v && nest_.stride(l, tensor) == run * size_of(nest_.types[tensor]))
                run *= tiling_.extent[l];
        return run;
    }

    // Whether a tensor lies dense in memory, few numbers for each step of v.
    bool narrow(std::size_t tensor) const {
        const int64_t size = size_of(nest_.types[tensor]);
        int64_t width = 1, numbers = 1;
        for (std::size_t l = nest_.loops.size(); l-- > 0;) {
            if (l == tiling_.v || nest_.stride(l, tensor) == 0) continue;
            numbers *= nest_.loops[l].extent;
            if (nest_.stride(l, tensor) == width * size) width *= nest_.loops[l].extent;
        }
        return width > 1 && width <= most_narrow && width == numbers && nest_.stride(tiling_.v, tensor) == width * size;
    }

    // Cycles a number where runs of so many adjacent ones are turned.
    double turning(std::size_t tensor, int64_t run) const {
        return run < 8 ? 1.1 : (run < 16 ? 0.7 : 0.4) + 0.07 * static_cast<double>(size_of(nest_.types[tensor]));
    }

    bool sums_in_steps() const {
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (contracted(nest_.loops[l]) && tiling_.extent[l] < nest_.loops[l].extent) return true;
        return false;
    }

    // All of them, or those that differ in the numbers of one tensor.
    double tiles(std::size_t tensor = SIZE_MAX) const {
        double product = 1;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (tensor == SIZE_MAX || nest_.stride(l, tensor) != 0)
                product *= static_cast<double>(nest_.loops[l].extent) / static_cast<double>(tiling_.extent[l]);
        return product;
    }

    const Nest& nest_;
    bool one_by_one_;  // the numbers of a dot are read where they lie apart, and not packed first
    bool contracts_;   // sums anything
    Tiling tiling_;
};

}  // namespace

Nest normal_form(std::vector<Loop> loops, std::vector<DType> types) {
    Nest nest{};
    nest.acc = acc_of(types.back());
    for (std::size_t i = 0; i < types.size(); ++i) nest.source.push_back(i);
    for (const Loop& loop : loops)
        if (loop.extent == 0) (contracted(loop) ? nest.empty_sum : nest.nothing) = true;
    if (nest.nothing) return nest;
    if (nest.empty_sum) {  // no input is read: the output stands for them
        std::erase_if(loops, contracted);
        for (Loop& loop : loops) loop.strides.assign(2, loop.strides.back());
        types.assign(2, types.back());
        nest.source.assign(2, nest.source.back());
    } else if (types.size() == 2 && types[0] == types[1] && std::none_of(loops.begin(), loops.end(), contracted)) {
        // A plain copy moves bits, of whatever type.
        constexpr DType plain[] = {DType::u8, DType::u16, DType::u32, DType::u64, DType::c128};
        types.assign(2, plain[std::bit_width(static_cast<std::uint64_t>(size_of(types[0]))) - 1]);
        nest.acc = acc_of(types[0]);
    }
    nest.shift.assign(types.size(), 0);
    turn_forwards(loops, nest.shift);
    fold(loops);
    if (loops.empty()) {
        Loop one{Role::batch, 1, {}};
        for (const DType type : types) one.strides.push_back(size_of(type));
        loops.push_back(std::move(one));
    }
    nest.touched = touched_bytes(loops, types);
    nest.large = past_caches(loops, types) && level().stream != nullptr;
    nest.loops = std::move(loops);
    nest.types = std::move(types);
    return nest;
}

Tiling choose_tiling(const Nest& nest) {
    Tiling best;
    for (std::size_t v = nest.loops.size(); v-- > 0;) {
        const auto consider = [&](Tiling tiling) {
            if (best.extent.empty() || tiling.cycles < best.cycles) best = std::move(tiling);
        };
        consider(Tiler(nest, v).take());
        if (nest.inputs() == 1 && contracted(nest.loops[v]) && nest.native(0) && !nest.along(v, 0))
            consider(Tiler(nest, v, true).take());
    }
    return best;
}

}  // namespace einstride::fused
