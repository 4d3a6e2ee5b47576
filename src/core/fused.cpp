// Fused loops: out = sum of the product of n >= 1 inputs in one pass over them, for work that is bound by memory.
//
// One mechanism serves all of it. A vector loop v is picked and every loop cut into tiles (fused_tiling); a tile is
// rows x terms x length numbers: the free loops in it are flattened to rows, the contracted ones to terms, and v runs
// along the length (fused_tile). A tensor that lies along v as the kernels need it is used where it is. Any other is
// packed into scratch first (level().pack converts, gathers, and turns the tile where the tensor is contiguous along
// another loop), and an output that does not lie so is summed in scratch and stored from there. Rows that are products
// of two matrices of vectors are multiplied as such, by grids.
//
// Sums over more than one tile are added up as a binary tree, and work is split by shape alone: results do
// not depend on the number of threads.
#include "fused.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "fused_tile.hpp"
#include "fused_tiling.hpp"
#include "level.hpp"
#include "program.hpp"
#include "walk.hpp"

namespace einstride::fused {

namespace {

using std::int64_t;

constexpr double serial_seconds = 30e-6;  // less work than this is not worth waking a thread
constexpr double task_seconds = 60e-6;
constexpr double long_seconds = 1e-3;  // cells that take so long are split whatever their number
constexpr double cycles_a_second = 3e9;
constexpr int64_t few_tasks = 8;  // fewer than this and long sums are split as well
constexpr int64_t most_parts = 64;
constexpr int64_t partial_bytes = 1 << 20;

// A loop over tiles.
struct Outer {
    int64_t count;
    Table step;      // bytes a tile, a tensor each
    int bit;         // of the variant, set in the last tile; 0 where all tiles are alike
    int64_t length;  // of the vectors in the last tile; 0 for other loops than v
};

constexpr std::size_t most_kept = 8;  // packed tiles of a task

// What a task works with: the tensors' first elements in a cell, in a tile and in the next tile, and its scratch.
struct Places {
    Places(std::size_t tensors, char* scratch)
        : memory(scratch), room(3 * tensors), cell(room.data()), tile(cell + tensors), next(tile + tensors) {}

    char* memory;
    Pointers room;
    char** cell;
    char** tile;
    char** next;
    bool goes_on = false;    // there is a next tile, of which something is fetched,
    bool same_cell = false;  // in the same cell

    // The tile that a move packed last, so that one which comes again is not packed again.
    struct Packed {
        const char* from;
        int variant;
        int64_t length;
        bool operator==(const Packed&) const = default;
    };
    std::array<Packed, most_kept> packed{};
};

class Fused final : public Kernel {
  public:
    Fused(const std::vector<Loop>& loops, const std::vector<DType>& types);
    bool run(char* const* tensors, const Monitor& monitor) const override;
    std::int64_t memory() const override { return partials_bytes() + threads_for(tasks()) * memory_bytes_; }

  private:
    struct Work {
        char* const* tensors;
        char* partials;  // the sums of parts x cells, where cells are split into parts
    };

    int64_t tasks() const { return serial_ ? 1 : ceil_div(cell_count_, task_cells_) * parts_; }
    int64_t partials_bytes() const { return parts_ > 1 ? cell_count_ * parts_ * sum_bytes_ : 0; }

    void cut();
    void split();
    void build();

    int seek(const std::vector<Outer>& outers, int64_t index, const char* const* from, char** to,
             int64_t& length) const;
    int seek_cell(char* const* tensors, int64_t index, Places& places, char** to, int64_t& length) const;
    void run_cells(const Work& work, int64_t first, int64_t last, int64_t part) const;
    void cell(const Work& work, int64_t index, int64_t part, Places& places) const;
    void tile(const char* const* at, int variant, int64_t length, char* out, Places& places) const;
    void look_ahead(const Places& places, std::size_t share, std::size_t shares) const;
    void add_up(int variant, int64_t length, char* to, const char* from) const;
    void store(int variant, int64_t length, char* to, const char* sums) const;
    void stream(int variant, char* to, const char* from) const;
    void combine(const Work& work) const;

    Nest nest_;
    Tiling tiling_;

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

Fused::Fused(const std::vector<Loop>& loops, const std::vector<DType>& types) : nest_(normal_form(loops, types)) {
    if (nest_.nothing) return;
    tiling_ = choose_tiling(nest_);
    streamed_ = nest_.large && whole_lines(nest_, tiling_);
    cut();
    split();
    build();
}

void Fused::cut() {
    int bit = 1;
    for (std::size_t l = 0; l < nest_.loops.size(); ++l) {
        const Loop& loop = nest_.loops[l];
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
    if (tiling_.kept != SIZE_MAX)
        std::stable_partition(cells_.begin(), cells_.end(),
                              [this](const Outer& outer) { return outer.step[tiling_.kept] != 0; });
    variants_.resize(static_cast<std::size_t>(bit));
    buffered_ = tiling_.staged || step_count_ > 1;
}

void Fused::split() {
    int64_t numbers = tiling_.dot ? 1 : tiling_.extent[tiling_.v];
    for (std::size_t l = 0; l < nest_.loops.size(); ++l)
        if (l != tiling_.v && !contracted(nest_.loops[l])) numbers *= tiling_.extent[l];
    if (buffered_) sum_bytes_ = round_up(numbers * size_of(nest_.acc), 64);

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
            const int64_t last = nest_.loops[l].extent % extents[l];
            if ((l == tiling_.v && !streamed_) || last == 0) continue;
            if (static_cast<int>(which) & bit) extents[l] = last;
            bit *= 2;
        }
        variants_[which] = make_variant(nest_, tiling_, extents, buffered_, streamed_);
        used = std::max(used, variants_[which].scratch_bytes);
    }
    stream_at_ = used + depth_ * sum_bytes_;
    memory_bytes_ = stream_at_ + (streamed_ ? streamed_tile : 0);
}

// Goes to tile `index` of a nest of loops over tiles; returns the bits of the variant.
int Fused::seek(const std::vector<Outer>& outers, int64_t index, const char* const* from, char** to,
                int64_t& length) const {
    const std::size_t tensors = nest_.source.size();
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

int Fused::seek_cell(char* const* tensors, int64_t index, Places& places, char** to, int64_t& length) const {
    for (std::size_t i = 0; i < nest_.source.size(); ++i) places.tile[i] = tensors[nest_.source[i]] + nest_.shift[i];
    return seek(cells_, index, places.tile, to, length);
}

// A share of what is listed of the next tile. Inlined, or compilers drop its calls: of what has no result and writes
// nothing they see no use.
inline __attribute__((always_inline)) void Fused::look_ahead(const Places& places, std::size_t share,
                                                             std::size_t shares) const {
    for (const Ahead& ahead : variants_[0].ahead) {
        if (places.same_cell && ahead.tensor == nest_.output()) continue;
        const std::size_t lines = ahead.lines.size();
        for (std::size_t line = lines * share / shares; line < lines * (share + 1) / shares; ++line)
            __builtin_prefetch(places.next[ahead.tensor] + ahead.lines[line], 0, 2);
    }
}

// While a tile is packed and multiplied, what is listed of the next one is fetched, a share at a time: at once the
// lines would wait for one another and the tile for them.
void Fused::tile(const char* const* at, int which, int64_t length, char* out, Places& places) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    char* const packed = places.memory + depth_ * sum_bytes_;
    const std::size_t shares = variant.moves.size() + variant.calls.size();
    for (std::size_t i = 0; i < variant.moves.size(); ++i) {
        const Move& move = variant.moves[i];
        if (places.goes_on) look_ahead(places, i, shares);
        const Places::Packed now{at[move.tensor], which, length};
        if (i < most_kept && move.to >= 0) {
            if (places.packed[i] == now) continue;
            places.packed[i] = now;
        }
        const Offsets columns = {move.columns.data(), move.wide ? length : 1, move.column_stride};
        move.pack(move.to < 0 ? out : packed + move.to, move.ld, at[move.tensor], move.row_offsets, columns);
    }
    for (std::size_t c = 0; c < variant.calls.size(); ++c) {
        const Call& call = variant.calls[c];
        if (places.goes_on) look_ahead(places, variant.moves.size() + c, shares);
        FusedBlock block = call.block;
        for (std::size_t i = 0; i < call.factors; ++i)
            block.in[i] = call.tensor[i] == in_scratch ? packed + call.from[i] : at[call.tensor[i]];
        block.length = call.wide ? length : 1;
        block.out = call.to < 0 ? out : packed + call.to;
        if (call.grid.takes(block.length))
            call.grid.run(block.in, block.out, length);
        else
            call.run(block);
    }
}

void Fused::add_up(int which, int64_t length, char* to, const char* from) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    const int64_t terms[] = {0, from - to};
    FusedBlock block{};
    const int64_t rows = static_cast<int64_t>(variant.sum_rows.size());
    block.rows = block.row_run = tiling_.dot ? 1 : rows;  // rows of one number are one of many
    block.terms = block.term_run = 2;
    block.length = tiling_.dot ? rows : length;
    block.in[0] = to;
    block.row_at[0] = block.out_at = variant.sum_rows.data();
    block.term_at[0] = terms;
    block.out = to;
    level().fused->map[static_cast<int>(nest_.acc)][1][0](block);
}

void Fused::store(int which, int64_t length, char* to, const char* sums) const {
    const Variant& variant = variants_[static_cast<std::size_t>(which)];
    const DType type = nest_.types.back();
    const int64_t size = size_of(type);
    const int64_t rows = static_cast<int64_t>(variant.sum_rows.size());
    const StoreFn put = level().store[static_cast<int>(type)];
    constexpr int64_t here = 0;
    if (tiling_.dot) return put(to, {&here, 1, size}, variant.out_row_offsets, sums, rows);
    const int64_t column_stride = variant.out_column_stride;
    if (is_native(type, nest_.acc) && variant.out_row_offsets.stride == size && column_stride % size == 0)
        return level().pack[static_cast<int>(type)][static_cast<int>(nest_.acc)](
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
    const int which = seek_cell(work.tensors, index, places, places.cell, length);
    char* const place = places.cell[nest_.output()];
    char* const out = streamed_ ? places.memory + stream_at_ : place;
    const bool ahead = !variants_[0].ahead.empty();
    const auto next_cell = [&] {
        int64_t any_length;
        places.goes_on = ahead && index + 1 < cell_count_;
        places.same_cell = false;
        if (places.goes_on) seek_cell(work.tensors, index + 1, places, places.next, any_length);
    };
    const auto next_step = [&](int64_t step) {
        int64_t any_length;
        places.goes_on = places.same_cell = ahead;
        if (ahead) seek(steps_, step, places.cell, places.next, any_length);
    };
    if (!buffered_) {
        next_cell();
        tile(places.cell, which, length, out, places);
        if (streamed_) stream(which, place, out);
        return;
    }

    const int64_t first = step_count_ * part / parts_;
    const int64_t steps = step_count_ * (part + 1) / parts_ - first;
    const auto sums = [&](int64_t depth) { return places.memory + depth * sum_bytes_; };
    int64_t top = -1;
    for (int64_t step = 0; step < steps; ++step) {
        step + 1 < steps ? next_step(first + step + 1) : next_cell();
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
    Places places(nest_.source.size(), nullptr);
    for (int64_t index = 0; index < cell_count_; ++index) {
        int64_t length = tiling_.extent[tiling_.v];
        const int which = seek_cell(work.tensors, index, places, places.cell, length);
        char* const sums = work.partials + index * parts_ * sum_bytes_;
        for (int64_t apart = 1; apart < parts_; apart *= 2)
            for (int64_t part = 0; part + apart < parts_; part += 2 * apart)
                add_up(which, length, sums + part * sum_bytes_, sums + (part + apart) * sum_bytes_);
        store(which, length, places.cell[nest_.output()], sums);
    }
}

// One part of the cells [first, last).
void Fused::run_cells(const Work& work, int64_t first, int64_t last, int64_t part) const {
    const auto bytes = static_cast<std::size_t>(memory_bytes_);
    Places places(nest_.source.size(), bytes != 0 ? scratch(bytes) : nullptr);
    for (int64_t index = first; index < last; ++index) cell(work, index, part, places);
    if (streamed_) level().fence();
}

bool Fused::run(char* const* tensors, const Monitor& monitor) const {
    if (nest_.nothing) return true;
    if (serial_) {
        run_cells({tensors, nullptr}, 0, cell_count_, 0);
        return true;
    }
    const Workspace partials(static_cast<std::size_t>(partials_bytes()));
    const Work work{tensors, partials.data()};
    const auto task = [&](int64_t index) {
        const int64_t first = index / parts_ * task_cells_;
        run_cells(work, first, std::min(first + task_cells_, cell_count_), index % parts_);
    };
    if (!parallel_for(tasks(), task, monitor)) return false;
    if (parts_ > 1) combine(work);
    return true;
}

}  // namespace

}  // namespace einstride::fused

namespace einstride {

std::unique_ptr<Kernel> make_fused(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<fused::Fused>(loops, types);
}

}  // namespace einstride
