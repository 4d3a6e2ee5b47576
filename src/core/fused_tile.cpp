#include "fused_tile.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "contraction.hpp"
#include "walk.hpp"

namespace einstride::fused {

namespace {

using std::int64_t;

Table list(const Walk& walk) { return walk.list(walk.count()); }
Table list(int64_t count, int64_t stride) {
    Walk walk;
    walk.push(count, stride);
    return list(walk);
}

Offsets offsets_of(const Table& at) { return slice(at.data(), static_cast<int64_t>(at.size())); }

// A factor of the product, as the inner kernels see it in the tile.
struct Factor {
    bool vector;
    std::size_t tensor;  // or in_scratch
    int64_t from;
    Table stride;  // a loop each; the vector loop's is not used
};

class VariantBuilder {
  public:
    VariantBuilder(const Nest& nest, const Tiling& tiling, const Table& extent, bool buffered, bool streamed)
        : nest_(nest), tiling_(tiling), extent_(extent), buffered_(buffered), streamed_(streamed) {
        lay_out();
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (l != tiling_.v && extent_[l] > 1) (contracted(nest_.loops[l]) ? term_loops_ : row_loops_).push_back(l);
        // A tile that is stored is stored best with the output's own order of rows.
        std::stable_sort(row_loops_.begin(), row_loops_.end(), [&](std::size_t a, std::size_t b) {
            return tiling_.staged && out_stride_[a] > out_stride_[b];
        });
        std::stable_partition(row_loops_.begin(), row_loops_.end(), [&](std::size_t l) { return l != tiling_.beside; });
    }

    int64_t run_bytes() const { return made_.run_bytes; }

    Variant build() {
        if (tiling_.turned)
            turn();
        else
            multiply();
        settle();
        return std::move(made_);
    }

  private:
    // Where the numbers of the output tile lie: in their places, or one after another on the way there.
    void lay_out() {
        std::vector<std::size_t> order;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l) {
            out_stride_.push_back(nest_.stride(l, nest_.output()));
            if (extent_[l] > 1 && !contracted(nest_.loops[l])) order.push_back(l);
        }
        const int64_t size = size_of(nest_.types.back());
        made_.run_bytes = size;
        if (!streamed_) return;
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return out_stride_[a] > out_stride_[b]; });
        std::size_t apart = order.size();
        while (apart > 0 && out_stride_[order[apart - 1]] == made_.run_bytes)
            made_.run_bytes *= extent_[order[--apart]];
        Walk runs;
        for (std::size_t i = 0; i < apart; ++i) runs.push(extent_[order[i]], out_stride_[order[i]]);
        made_.runs = list(runs);
        int64_t bytes = size;
        for (std::size_t i = order.size(); i-- > 0; bytes *= extent_[order[i]]) out_stride_[order[i]] = bytes;
    }

    int64_t width(bool vector) const { return vector ? tiling_.extent[tiling_.v] : 1; }

    static auto strides_of(const Factor& factor) {
        return [&factor](std::size_t l) { return factor.stride[l]; };
    }

    // Loops of the tile that a tensor or a product depends on, outermost first as it lies in memory.
    template <class Stride>
    std::vector<std::size_t> own_loops(const Stride& stride) const {
        std::vector<std::size_t> own;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (l != tiling_.v && extent_[l] > 1 && stride(l) != 0) own.push_back(l);
        std::stable_sort(own.begin(), own.end(),
                         [&](std::size_t a, std::size_t b) { return std::abs(stride(a)) > std::abs(stride(b)); });
        return own;
    }
    template <class Stride>
    Table list_loops(const std::vector<std::size_t>& loops, const Stride& stride) const {
        Walk walk;
        for (const std::size_t l : loops) walk.push(extent_[l], stride(l));
        return list(walk);
    }

    // The strides of what lies dense along some loops, outermost first, and takes `bytes` without them and then with
    // them.
    Table dense(const std::vector<std::size_t>& loops, int64_t& bytes) const {
        Table stride(nest_.loops.size(), 0);
        for (std::size_t i = loops.size(); i-- > 0; bytes *= extent_[loops[i]]) stride[loops[i]] = bytes;
        return stride;
    }

    // A factor that lies dense in scratch, over the loops it depends on.
    template <class Stride>
    Factor reserve(const Stride& stride, bool vector) {
        int64_t bytes = width(vector) * size_of(nest_.acc);
        Factor factor{vector, in_scratch, made_.scratch_bytes, dense(own_loops(stride), bytes)};
        made_.scratch_bytes += round_up(bytes, 64);
        return factor;
    }

    void move(std::size_t tensor, int64_t to) {
        const auto stride = [&](std::size_t l) { return nest_.stride(l, tensor); };
        const std::vector<std::size_t> own = own_loops(stride);
        const DType type = nest_.types[tensor];
        Move m{};
        m.pack = level().pack[static_cast<int>(type)][static_cast<int>(nest_.acc)];
        m.tensor = tensor;
        m.to = to;
        m.wide = tiling_.vector[tensor];
        m.rows = list_loops(own, stride);
        m.columns = list(width(m.wide), stride(tiling_.v));
        m.column_stride = m.wide ? stride(tiling_.v) : size_of(type);
        const bool turned = m.wide && !own.empty() && stride(own.back()) == size_of(type);
        if (to >= 0 && turned) fetch_ahead(tensor, m.columns, m.rows);
        m.ld = to < 0 && !own.empty() ? out_stride_[own.back()] / size_of(nest_.acc) : width(m.wide);
        made_.moves.push_back(std::move(m));
    }

    // Of tensors that a cache holds it takes up to 1.15 times as long (`i,i,ijk,ilk->ijl` of 30000 x 3 x 3 float64, one
    // core: 39 cycles an i, and 42 to 46; of 150000 74, and 53 so).
    void fetch_ahead(std::size_t tensor, const Table& outer, const Table& inner) {
        if (nest_.touched >= shared_cache) made_.ahead.push_back({tensor, lines_of(outer, inner, true)});
    }

    void turn() {
        move(0, -1);
        const Move& m = made_.moves.back();
        if (streamed_)
            fetch_ahead(0, m.columns, m.rows);
        else
            fetch_ahead(nest_.output(), list(static_cast<int64_t>(m.rows.size()), m.ld * size_of(nest_.acc)),
                        list(width(true), out_stride_[tiling_.v]));
    }

    void multiply() {
        std::vector<Factor> factors;
        for (std::size_t i = 0; i < nest_.inputs(); ++i) {
            const auto stride = [&](std::size_t l) { return nest_.stride(l, i); };
            if (tiling_.packed[i]) {
                factors.push_back(reserve(stride, tiling_.vector[i]));
                move(i, factors.back().from);
            } else {
                factors.push_back({tiling_.vector[i], i, 0, {}});
                for (std::size_t l = 0; l < nest_.loops.size(); ++l) factors.back().stride.push_back(stride(l));
            }
        }
        merge(factors);
        sum(factors);
    }

    int64_t rows_of(const Factor& a, const Factor& b) const {
        int64_t rows = 1;
        for (std::size_t l = 0; l < nest_.loops.size(); ++l)
            if (l != tiling_.v && (a.stride[l] != 0 || b.stride[l] != 0)) rows *= extent_[l];
        return rows;
    }

    // Multiplies two factors beforehand where the inner kernels take no more, or where it saves work: a product that
    // depends on few of the tile's loops is formed once instead of in every row and term.
    void merge(std::vector<Factor>& factors) {
        int64_t products = 1;
        for (const std::size_t l : row_loops_) products *= extent_[l];
        for (const std::size_t l : term_loops_) products *= extent_[l];
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
            // A grid reads a factor once for several rows, and multiplies by one that is the same in all by the way.
            if (factors.size() <= max_factors) {
                if (fewest * (grids_ ? 2 : 3) > products) break;
                if (grids_ && is_scale(factors[left]) != is_scale(factors[right])) break;
            }
            const Factor& a = factors[left];
            const Factor& b = factors[right];
            const auto stride = [&](std::size_t l) { return std::abs(a.stride[l]) + std::abs(b.stride[l]); };
            const std::vector<std::size_t> rows = own_loops(stride);
            Factor product = reserve(stride, a.vector || b.vector);
            call({a, b}, rows, {}, product.stride, product.from, product.vector, level().fused->map);
            factors.erase(factors.begin() + static_cast<std::ptrdiff_t>(right));
            factors[left] = std::move(product);
        }
    }

    void sum(const std::vector<Factor>& factors) {
        made_.out_rows = list_loops(row_loops_, [&](std::size_t l) { return out_stride_[l]; });
        int64_t bytes = width(!tiling_.dot) * size_of(nest_.acc);
        const Table sums = dense(row_loops_, bytes);
        made_.sum_rows = list_loops(row_loops_, [&](std::size_t l) { return sums[l]; });
        if (!tiling_.dot) {
            made_.out_column_stride = out_stride_[tiling_.v];
            made_.out_columns = list(width(true), made_.out_column_stride);
            made_.out_numbers = list(width(true), size_of(nest_.acc));
            if (tiling_.staged && !streamed_) fetch_ahead(nest_.output(), made_.out_columns, made_.out_rows);
        }
        call(factors, row_loops_, term_loops_, buffered_ ? sums : out_stride_, -1, true,
             tiling_.dot ? level().fused->dot : level().fused->map);
    }

    void call(std::vector<Factor> factors, const std::vector<std::size_t>& rows, const std::vector<std::size_t>& terms,
              const Table& out_stride, int64_t to, bool wide, const FusedTable (&table)[acc_count]) {
        std::stable_sort(factors.begin(), factors.end(),
                         [](const Factor& a, const Factor& b) { return a.vector && !b.vector; });
        Call c{};
        std::size_t vectors = 0;
        c.factors = factors.size();
        for (std::size_t i = 0; i < factors.size(); ++i) {
            const Factor& factor = factors[i];
            const auto stride = strides_of(factor);
            vectors += factor.vector || !wide;
            c.tensor[i] = factor.tensor;
            c.from[i] = factor.from;
            c.row_at[i] = list_loops(rows, stride);
            c.term_at[i] = list_loops(terms, stride);
        }
        c.run = table[static_cast<int>(nest_.acc)][vectors][c.factors - vectors];
        // Products that are written as they lie are written best row by row (`ir,jr->ijr` of 300 x 300 x 32 float64, 2
        // threads: 250 us, and 290 by grids).
        if (grids_ && vectors == c.factors && (to >= 0 || tiling_.staged || !terms.empty()))
            c.grid = make_grid(factors, rows, terms, out_stride);
        c.block.step = nest_.stride(tiling_.v, 0);
        c.to = to;
        c.wide = wide;
        c.block.touched = c.tensor[0] != in_scratch ? nest_.touched : 0;
        c.out_at = list_loops(rows, [&](std::size_t l) { return out_stride[l]; });
        c.block.rows = static_cast<int64_t>(c.out_at.size());
        c.block.terms = nest_.empty_sum ? 0 : static_cast<int64_t>(c.term_at[0].size());
        std::vector<const Table*> strides;
        for (const Factor& factor : factors) strides.push_back(&factor.stride);
        c.block.term_run = even_run(terms, strides);
        strides.push_back(&out_stride);
        c.block.row_run = even_run(rows, strides);
        made_.calls.push_back(std::move(c));
    }

    // Whether a factor is a vector that is the same in all rows and terms.
    bool is_scale(const Factor& factor) const { return factor.vector && own_loops(strides_of(factor)).empty(); }

    // Of two factors, or of two and one that is the same in all rows and terms; of others there is none.
    Grid make_grid(const std::vector<Factor>& factors, const std::vector<std::size_t>& rows,
                   const std::vector<std::size_t>& terms, const Table& out_stride) const {
        std::vector<std::size_t> order;
        for (std::size_t i = 0; i < factors.size(); ++i) order.push_back(i);
        const auto same =
            std::stable_partition(order.begin(), order.end(), [&](std::size_t i) { return !is_scale(factors[i]); });
        if (same != order.begin() + 2) return {};
        std::vector<Loop> loops;
        const auto push = [&](std::size_t l, bool term) {
            const int64_t left = factors[order[0]].stride[l], right = factors[order[1]].stride[l];
            const Role role = term         ? Role::contracted
                              : right == 0 ? Role::free_left
                              : left == 0  ? Role::free_right
                                           : Role::batch;
            loops.push_back({role, extent_[l], {left, right, term ? 0 : out_stride[l]}});
        };
        for (const std::size_t l : rows) push(l, false);
        for (const std::size_t l : terms) push(l, true);
        return Grid(loops, order, grid_);
    }

    // How many steps of some loops, from the innermost on, are evenly apart by all of these strides.
    int64_t even_run(const std::vector<std::size_t>& loops, const std::vector<const Table*>& strides) const {
        int64_t run = 1;
        for (std::size_t i = loops.size(); i-- > 0; run *= extent_[loops[i]])
            for (const Table* stride : strides)
                if ((*stride)[loops[i]] != (*stride)[loops.back()] * run) return run;
        return run;
    }

    // Tables are pointed to only once they are complete.
    void settle() {
        made_.out_row_offsets = offsets_of(made_.out_rows);
        for (Move& m : made_.moves) m.row_offsets = offsets_of(m.rows);
        for (Call& c : made_.calls) {
            for (std::size_t i = 0; i < max_factors; ++i) {
                c.block.row_at[i] = c.row_at[i].data();
                c.block.term_at[i] = c.term_at[i].data();
            }
            c.block.out_at = c.out_at.data();
        }
    }

    const Nest& nest_;
    const Tiling& tiling_;
    const Table& extent_;
    bool buffered_, streamed_;
    const GridTable& grid_ = level().fused->grid[static_cast<int>(nest_.acc)];
    const bool grids_ = grid_.side > 0 && !tiling_.dot;
    Table out_stride_;  // a loop each
    std::vector<std::size_t> row_loops_, term_loops_;
    Variant made_;
};

}  // namespace

Grid::Grid(const std::vector<Loop>& loops, const std::vector<std::size_t>& order, const GridTable& kernels)
    : order_(order) {
    LabelGroups groups;
    for (const Loop& loop : loops) groups.push(loop);
    const LabelGroup &m = groups.m, &n = groups.n, &k = groups.k;
    if (m.count * n.count == 1 || k.count > terms_in_a_row) return;
    if (!m.left.regular() || !n.right.regular() || !k.left.regular() || !k.right.regular()) return;
    kernels_ = &kernels;
    terms_ = k.count;
    rows_ = even_part(m.count, kernels.side);
    columns_ = even_part(n.count, kernels.side);
    left_ = {nullptr, m.left.stride(), k.left.stride()};
    right_ = {nullptr, n.right.stride(), k.right.stride()};
    batch_left_ = list(groups.batch.left);
    batch_right_ = list(groups.batch.right);
    batch_out_ = list(groups.batch.out);
    m_out_ = list(m.out);
    n_out_ = list(n.out);
}

void Grid::run(const char* const* in, char* out, int64_t length) const {
    const char *const left = in[order_[0]], *const right = in[order_[1]];
    const auto m = static_cast<int64_t>(m_out_.size()), n = static_cast<int64_t>(n_out_.size());
    GridBlock block = {length, terms_, left_, right_, nullptr, nullptr, nullptr, nullptr};
    if (order_.size() > 2) block.scale = in[order_[2]];
    for (std::size_t b = 0; b < batch_out_.size(); ++b)
        for (int64_t i = 0; i < m; i += rows_)
            for (int64_t j = 0; j < n; j += columns_) {
                block.left.at = left + batch_left_[b] + i * left_.beside;
                block.right.at = right + batch_right_[b] + j * right_.beside;
                block.out = out + batch_out_[b];
                block.m_out = m_out_.data() + i;
                block.n_out = n_out_.data() + j;
                kernels_->run[std::min(rows_, m - i)][std::min(columns_, n - j)](block);
            }
}

Variant make_variant(const Nest& nest, const Tiling& tiling, const Table& extent, bool buffered, bool streamed) {
    return VariantBuilder(nest, tiling, extent, buffered, streamed).build();
}

bool whole_lines(const Nest& nest, const Tiling& tiling) {
    const int64_t run_bytes = VariantBuilder(nest, tiling, tiling.extent, false, true).run_bytes();
    if (run_bytes >= long_run) return true;
    bool lines = run_bytes % line_bytes == 0;
    for (std::size_t l = 0; l < nest.loops.size(); ++l) {
        const int64_t stride = nest.stride(l, nest.output());
        lines = lines && (stride < run_bytes ? stride * tiling.extent[l] % line_bytes == 0 : stride % line_bytes == 0);
    }
    return lines;
}

}  // namespace einstride::fused
