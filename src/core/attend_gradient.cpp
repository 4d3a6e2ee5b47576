// The gradients, by the same blocks: weights are computed again from the scores and their lse.
//
//   dv[j] = sum over i of w[i, j] dout[i],   ds[i, j] = w[i, j] (dout[i] v[j] - dout[i] out[i]),
//   dq[i] = scale * sum over j of ds[i, j] k[j],   dk[j] = scale * sum over i of ds[i, j] q[i]
//
// A task takes a batch entry, or one of the parts its queries are cut into, and sums for all keys are its own: they are
// as long as the keys, and no two threads add to one number.
#include <algorithm>
#include <cstring>
#include <limits>

#include "attend.hpp"
#include "attend_blocks.hpp"
#include "memory.hpp"

namespace einstride {
namespace {

using namespace attending;

// A gradient keeps five panels or rows for each query, and two strips for a block of queries by a block of keys.
constexpr std::int64_t gradient_query_bytes = 384 << 10;
constexpr std::int64_t max_gradient_queries = 256;
constexpr std::int64_t max_gradient_keys = 128;

// The parts the queries of all batch entries are cut into, each with sums for all keys of its own.
constexpr std::int64_t wanted_splits = 8;
constexpr std::int64_t max_partial_bytes = 64 << 20;

template <class T>
class Gradient final : public Attention<T> {
    using Base = Attention<T>;
    using Base::size, Base::width_, Base::softmax_, Base::tile_, Base::depth_, Base::values_, Base::keys_,
        Base::queries_, Base::batch_, Base::base, Base::has, Base::run_of;
    using typename Base::Block;
    using typename Base::KeyBlock;

  public:
    Gradient(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
             const std::vector<DType>& types, double scale)
        : Base(bias_outermost(loops, present), present, types, scale),
          depth_columns_(round_up(depth_, tile_.lanes)),
          value_columns_(round_up(values_, tile_.lanes)) {
        const std::int64_t entry = std::max<std::int64_t>(1, depth_ + values_) * size;
        query_block_ = std::min(round_up(queries_, width_),
                                std::clamp<std::int64_t>(gradient_query_bytes / (3 * entry) / width_ * width_, width_,
                                                         max_gradient_queries));
        query_block_ = std::max(query_block_, width_);
        key_block_ = std::min(keys_, std::clamp<std::int64_t>(key_block_bytes / entry, 32, max_gradient_keys));
        blocks_ = ceil_div(queries_, query_block_);
        groups_ = batch_;
        if (has(AttendTensor::dbias)) {
            // Entries that add to the same gradient of the bias are one task.
            const std::size_t slot = static_cast<std::size_t>(
                std::find(present.begin(), present.end(), AttendTensor::dbias) - present.begin());
            for (const AttendLoop& loop : loops)
                if (loop.role == AttendRole::batch && loop.strides[slot] == 0 && loop.extent > 1)
                    groups_ /= loop.extent;
        }
        const std::int64_t sums = keys_ * (depth_columns_ + value_columns_) * size;
        const std::int64_t most =
            std::max<std::int64_t>(max_partial_bytes / std::max<std::int64_t>(sums * batch_, 1), 1);
        splits_ = has(AttendTensor::dbias) || batch_ == 0
                      ? 1
                      : std::clamp<std::int64_t>(wanted_splits / batch_, 1,
                                                 std::max<std::int64_t>(std::min(blocks_, most), 1));
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        if (splits_ == 1) return parallel_for(groups_, [&](std::int64_t index) { group(tensors, index); }, monitor);
        const Workspace memory(static_cast<std::size_t>(batch_ * splits_ * sums_bytes()));
        T* const partial = reinterpret_cast<T*>(memory.data());
        const double most = monitor.from + 0.95 * (monitor.to - monitor.from);
        const auto split = [&](std::int64_t index) {
            task({tensors, index / splits_}, index % splits_, partial + index * sums_size());
        };
        const auto whole = [&](std::int64_t batch) { combine({tensors, batch}, partial); };
        return parallel_for(batch_ * splits_, split, {monitor.poll, monitor.context, monitor.from, most}) &&
               parallel_for(batch_, whole, {monitor.poll, monitor.context, most, monitor.to});
    }

    std::int64_t memory() const override {
        if (splits_ == 1) return threads_for(groups_) * (sums_bytes() + bytes_of<Room>(*this));
        return batch_ * splits_ * sums_bytes() + threads_for(batch_ * splits_) * bytes_of<Room>(*this);
    }

  private:
    // With a gradient of the bias, batch loops that it lacks are innermost: their entries follow one another.
    static std::vector<AttendLoop> bias_outermost(std::vector<AttendLoop> loops,
                                                  const std::vector<AttendTensor>& present) {
        const auto dbias = std::find(present.begin(), present.end(), AttendTensor::dbias);
        if (dbias == present.end()) return loops;
        const auto slot = static_cast<std::size_t>(dbias - present.begin());
        std::stable_partition(loops.begin(), loops.end(),
                              [slot](const AttendLoop& loop) { return loop.strides[slot] != 0; });
        return loops;
    }

    void group(char* const* tensors, std::int64_t index) const {
        const std::int64_t entries = batch_ / groups_;
        const Workspace memory(static_cast<std::size_t>(sums_bytes()));
        T* const sums = reinterpret_cast<T*>(memory.data());
        for (std::int64_t batch = index * entries; batch < (index + 1) * entries; ++batch) {
            const Entry entry = {tensors, batch};
            task(entry, 0, sums);
            if (interrupted()) return;
            store_keys(entry, sums);
        }
    }

    // Adds the sums of an entry's splits, which lie one after another, and stores them.
    void combine(const Entry& entry, T* partial) const {
        const std::int64_t count = sums_size();
        T* const sums = partial + entry.batch * splits_ * count;
        for (std::int64_t s = 1; s < splits_; ++s)
            for (std::int64_t i = 0; i < count; ++i) sums[i] += sums[s * count + i];
        store_keys(entry, sums);
    }

    // The sums of a batch entry: keys_ rows for dk, then keys_ rows for dv.
    std::int64_t sums_size() const { return keys_ * (depth_columns_ + value_columns_); }

    // Strips of all panels lie side by side; rows a multiple of 4 KiB apart would evict each other.
    std::int64_t strip_row() const { return query_block_ + width_ / 2; }

    struct Room {
        Block block;
        KeyBlock keys;
        T *queries, *douts, *outs, *dq;  // panels: of depth_, values_, values_ (one panel) and depth_ rows
        T *query_rows, *dout_rows;       // of depth_columns_ and value_columns_ numbers
        T *lse, *mean;                   // width_ for each panel
        T *weights, *slopes, *spare;     // strips of all panels side by side; a strip of one
        std::int64_t *query_offsets, *depth_offsets, *value_offsets;

        Room(Arena& arena, const Gradient& self) {
            const std::int64_t queries_in = self.query_block_, keys_in = self.key_block_;
            const bool biased = self.has(AttendTensor::mask) || self.has(AttendTensor::bias);
            block.panels = arena.take<Panel>(queries_in / self.width_);
            block.ranges = arena.take<Range>(queries_in);
            keys.room = arena.take<T>(self.room_for(keys_in));
            keys.offsets = arena.take<std::int64_t>(keys_in);
            queries = arena.take<T>(queries_in * self.depth_);
            douts = arena.take<T>(queries_in * self.values_);
            outs = arena.take<T>(self.width_ * self.values_);
            dq = arena.take<T>(queries_in * self.depth_);
            query_rows = arena.take<T>(queries_in * self.depth_columns_);
            dout_rows = arena.take<T>(queries_in * self.value_columns_);
            lse = arena.take<T>(queries_in);
            mean = arena.take<T>(queries_in);
            weights = arena.take<T>(keys_in * self.strip_row());
            slopes = arena.take<T>(keys_in * self.strip_row());
            spare = arena.take<T>(biased ? keys_in * self.width_ : 0);
            query_offsets = arena.take<std::int64_t>(queries_in);
            depth_offsets = arena.take<std::int64_t>(self.depth_);
            value_offsets = arena.take<std::int64_t>(self.values_);
        }
    };

    std::int64_t sums_bytes() const { return sums_size() * size; }

    void task(const Entry& entry, std::int64_t split, T* sums) const {
        const Room room = in_scratch<Room>(*this);
        std::fill(sums, sums + sums_size(), T(0));
        // Parts take blocks in turn, so that each has as many that see many keys.
        for (std::int64_t block = split; block < blocks_; block += splits_) {
            if (interrupted()) return;
            Room here = room;
            take_queries(here, entry, block * query_block_);
            const Offsets depth = run_of(AttendRole::depth, AttendTensor::k, 0, depth_, room.depth_offsets);
            const Offsets value = run_of(AttendRole::value, AttendTensor::v, 0, values_, room.value_offsets);
            const Range some = here.block.some;
            for (std::int64_t k0 = some.empty() ? keys_ : some.first / key_block_ * key_block_; k0 < some.end;
                 k0 += key_block_) {
                if (interrupted()) return;
                here.keys.range = some & Range{k0, k0 + key_block_};
                this->pack_keys(here.keys, entry, depth, value);
                take_in(here, entry, sums);
            }
            store_queries(here, entry);
        }
    }

    // Packs a block of queries, and of the output's gradient, as panels and as rows.
    void take_queries(Room& room, const Entry& entry, std::int64_t first) const {
        const std::int64_t count = std::min(query_block_, queries_ - first);
        Block& block = room.block;
        this->cut_panels(block, entry, first, count);
        // Products with rows run over whole panels, so no part of a strip may be left as it was.
        for (std::int64_t p = 0; p < block.count; ++p) block.panels[p].vectors = 2;
        const auto rows = [&](T* to, std::int64_t ld, AttendTensor tensor, AttendRole role, std::int64_t columns,
                              std::int64_t* offsets) {
            std::memset(to, 0, static_cast<std::size_t>(block.count * width_ * ld * size));
            this->pack(to, ld, tensor, entry, run_of(AttendRole::query, tensor, first, count, room.query_offsets),
                       run_of(role, tensor, 0, columns, offsets));
        };
        rows(room.query_rows, depth_columns_, AttendTensor::q, AttendRole::depth, depth_, room.depth_offsets);
        rows(room.dout_rows, value_columns_, AttendTensor::dout, AttendRole::value, values_, room.value_offsets);
        for (std::int64_t p = 0; p < block.count; ++p) {
            const Panel& panel = block.panels[p];
            T* const dout = room.douts + p * width_ * values_;
            this->pack_panel(room.queries + p * width_ * depth_, AttendTensor::q, entry, AttendRole::depth, panel,
                             depth_, room.depth_offsets);
            this->pack_panel(dout, AttendTensor::dout, entry, AttendRole::value, panel, values_, room.value_offsets);
            this->pack_panel(room.outs, AttendTensor::out, entry, AttendRole::value, panel, values_,
                             room.value_offsets);
            softmax_.column_dot[panel.vectors - 1](dout, room.outs, values_, width_, room.mean + p * width_);
            load_lse(room.lse + p * width_, panel, entry);
        }
        softmax_.multiply(room.queries, block.count * width_ * depth_, this->scale_ * log2_e);
        std::fill(room.dq, room.dq + block.count * width_ * depth_, T(0));
    }

    // In units of log(2). A query that saw no key has +inf instead of -inf, which makes all its weights zero.
    void load_lse(T* lse, const Panel& panel, const Entry& entry) const {
        std::int64_t across[widest];
        const std::int64_t none = 0;
        std::fill(lse, lse + width_, T(0));
        this->pack(lse, width_, AttendTensor::lse, entry, {&none, 1, irregular},
                   run_of(AttendRole::query, AttendTensor::lse, panel.first, panel.count, across));
        for (std::int64_t i = 0; i < panel.count; ++i)
            lse[i] = lse[i] == -std::numeric_limits<T>::infinity() ? -lse[i] : static_cast<T>(lse[i] * log2_e);
    }

    // A block of queries takes in a block of keys.
    void take_in(const Room& room, const Entry& entry, T* sums) const {
        const Range& keys = room.keys.range;
        const std::int64_t ld = strip_row();
        std::int64_t first_panel = room.block.count, last_panel = -1;
        for (std::int64_t p = 0; p < room.block.count; ++p) {
            if (!weigh(room, p, entry)) {
                clear(room, p, keys);
                continue;
            }
            first_panel = std::min(first_panel, p);
            last_panel = p;
        }
        if (last_panel < 0) return;
        const std::int64_t start = first_panel * width_, queries = (last_panel + 1 - first_panel) * width_;
        add_products(sums + keys_ * depth_columns_ + keys.first * value_columns_, value_columns_, room.weights + start,
                     ld, keys.count(), room.dout_rows + start * value_columns_, queries);
        add_products(sums + keys.first * depth_columns_, depth_columns_, room.slopes + start, ld, keys.count(),
                     room.query_rows + start * depth_columns_, queries);
    }

    // The weights of a panel's queries and their slopes, and what they add to its dq. False where it sees no key.
    bool weigh(const Room& room, std::int64_t p, const Entry& entry) const {
        const Panel& panel = room.block.panels[p];
        const Range& keys = room.keys.range;
        const Range range = panel.some & keys;
        if (range.empty()) return false;
        const std::int64_t ld = strip_row(), skipped = range.first - keys.first;
        const int v = panel.vectors - 1;
        T* const weights = room.weights + p * width_ + skipped * ld;
        T* const slopes = room.slopes + p * width_ + skipped * ld;
        if (!this->scores(weights, ld, room.spare, room.keys, range, panel, room.block.ranges + p * width_,
                          room.queries + p * width_ * depth_, entry))
            return false;
        softmax_.weigh[v](weights, range.count(), ld, room.lse + p * width_);
        this->multiply_rows(slopes, ld, room.keys.values + skipped * values_, range.count(), values_,
                            room.douts + p * width_ * values_, panel.vectors);
        softmax_.slope[v](slopes, range.count(), ld, weights, room.mean + p * width_);
        if (has(AttendTensor::dbias)) add_to_bias(slopes, range, panel, entry);
        this->multiply_columns(room.dq + p * width_ * depth_, room.keys.keys + skipped * depth_, depth_,
                               this->depth_rows_, range.count(), slopes, ld, panel.vectors, true);
        clear(room, p, {keys.first, range.first});
        clear(room, p, {range.end, keys.end});
        return true;
    }

    // The products with rows of queries run over all panels: what a panel does not see, it weighs with zero.
    void clear(const Room& room, std::int64_t p, const Range& part) const {
        const std::int64_t ld = strip_row();
        for (std::int64_t j = part.first - room.keys.range.first; j < part.end - room.keys.range.first; ++j) {
            std::fill_n(room.weights + j * ld + p * width_, width_, T(0));
            std::fill_n(room.slopes + j * ld + p * width_, width_, T(0));
        }
    }

    // to[j][c] += sum over i of strip[j][i] * rows[i][c].
    void add_products(T* to, std::int64_t columns, const T* strip, std::int64_t ld, std::int64_t keys, const T* rows,
                      std::int64_t queries) const {
        const EvenRows strip_rows(ld * size), to_rows(columns * size);
        for (std::int64_t c = 0; c < columns; c += width_)
            for (std::int64_t j = 0; j < keys; j += tile_.rows) {
                const int vectors = columns - c > tile_.lanes ? 2 : 1;
                tile_.run[vectors - 1][std::min<std::int64_t>(tile_.rows, keys - j)](
                    queries, strip + j * ld, strip_rows.at, size, rows + c, columns * size, to + j * columns + c,
                    to_rows.at, vectors * tile_.lanes, Put::add, no_fetch);
            }
    }

    void add_to_bias(const T* slopes, const Range& range, const Panel& panel, const Entry& entry) const {
        char* const to = base(AttendTensor::dbias, entry);
        std::int64_t across[widest];
        run_of(AttendRole::query, AttendTensor::dbias, panel.first, panel.count, across);
        const Walk& along = this->walk(AttendRole::key, AttendTensor::dbias);
        for (std::int64_t j = 0; j < range.count(); ++j) {
            char* const row = to + along.at(range.first + j);
            for (std::int64_t i = 0; i < panel.count; ++i)
                *reinterpret_cast<T*>(row + across[i]) += slopes[j * strip_row() + i];
        }
    }

    void store_queries(const Room& room, const Entry& entry) const {
        softmax_.multiply(room.dq, room.block.count * width_ * depth_, this->scale_);
        std::int64_t across[widest];
        for (std::int64_t p = 0; p < room.block.count; ++p) {
            const Panel& panel = room.block.panels[p];
            this->store(AttendTensor::dq, entry,
                        run_of(AttendRole::depth, AttendTensor::dq, 0, depth_, room.depth_offsets),
                        run_of(AttendRole::query, AttendTensor::dq, panel.first, panel.count, across),
                        room.dq + p * width_ * depth_, width_);
        }
    }

    void store_keys(const Entry& entry, T* sums) const {
        softmax_.multiply(sums, keys_ * depth_columns_, this->scale_);
        store_rows(entry, AttendTensor::dk, AttendRole::depth, depth_, sums, depth_columns_);
        store_rows(entry, AttendTensor::dv, AttendRole::value, values_, sums + keys_ * depth_columns_, value_columns_);
    }

    void store_rows(const Entry& entry, AttendTensor tensor, AttendRole role, std::int64_t columns, const T* rows,
                    std::int64_t ld) const {
        std::vector<std::int64_t> across(static_cast<std::size_t>(columns));
        const Offsets at = run_of(role, tensor, 0, columns, across.data());
        std::int64_t down[max_keys];
        for (std::int64_t j = 0; j < keys_; j += max_keys)
            this->store(tensor, entry, run_of(AttendRole::key, tensor, j, std::min(max_keys, keys_ - j), down), at,
                        rows + j * ld, ld);
    }

    const std::int64_t depth_columns_, value_columns_;  // depth_ and values_ in whole vectors
    std::int64_t query_block_, key_block_, blocks_;
    std::int64_t groups_;  // of batch entries, each a task
    std::int64_t splits_;
};

}  // namespace

std::unique_ptr<Kernel> make_attend_gradient(const std::vector<AttendLoop>& loops,
                                             const std::vector<AttendTensor>& present, const std::vector<DType>& types,
                                             double scale) {
    if (sums_in_double(present, types)) return std::make_unique<Gradient<double>>(loops, present, types, scale);
    return std::make_unique<Gradient<float>>(loops, present, types, scale);
}

}  // namespace einstride
