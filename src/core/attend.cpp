// Attention in one pass over the keys (Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691): scores are made
// block by block, weighted as if the largest score so far were the largest of all, and what was summed before is
// rescaled when a larger one comes. No matrix of queries by keys exists.
#include "attend.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "attend_blocks.hpp"
#include "memory.hpp"

namespace einstride {
namespace {

using namespace attending;

constexpr double ln_2 = 0.69314718055994530942;

// A task's queries and sums share L2 with a block of keys and a strip.
constexpr std::int64_t max_queries = 512;
constexpr std::int64_t query_block_bytes = 384 << 10;

// Blocks of queries are made smaller for this many tasks, but not below the size that repays packing keys.
constexpr std::int64_t wanted_tasks = 16;
constexpr std::int64_t least_queries = 128;

template <class T>
class Forward final : public Attention<T> {
    using Base = Attention<T>;
    using Base::size, Base::width_, Base::softmax_, Base::depth_, Base::values_, Base::keys_, Base::queries_,
        Base::batch_, Base::base, Base::has, Base::run_of;
    using typename Base::Block;
    using typename Base::KeyBlock;

  public:
    Forward(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
            const std::vector<DType>& types, double scale)
        : Base(loops, present, types, scale) {
        const std::int64_t entry = std::max<std::int64_t>(1, depth_ + values_) * size;
        key_block_ = std::min(keys_, std::clamp<std::int64_t>(key_block_bytes / entry, 32, max_keys));
        const std::int64_t most = std::clamp<std::int64_t>(query_block_bytes / entry, width_, max_queries);
        std::int64_t parts =
            std::max(ceil_div(queries_, most),
                     std::min(ceil_div(wanted_tasks, std::max<std::int64_t>(batch_, 1)), queries_ / least_queries));
        parts = std::max<std::int64_t>(parts, 1);
        query_block_ = round_up(std::max<std::int64_t>(ceil_div(queries_, parts), 1), width_);
        blocks_ = ceil_div(queries_, query_block_);
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        return parallel_for(batch_ * blocks_, [&](std::int64_t index) { task(tensors, index); }, monitor);
    }

    std::int64_t memory() const override { return threads_for(batch_ * blocks_) * bytes_of<Room>(*this); }

  private:
    struct Room {
        Block block;
        KeyBlock keys;
        T *queries, *sums;  // panels of depth_ and of values_ rows
        T *most, *total;    // width_ for each panel
        T *strip, *spare;
        std::int64_t *depth_offsets, *value_offsets;

        Room(Arena& arena, const Forward& self) {
            const std::int64_t panels = self.panels_in(self.query_block_), padded = panels * self.width_;
            const std::int64_t strip_size = self.key_block_ * self.width_;
            block.panels = arena.take<Panel>(panels);
            block.ranges = arena.take<Range>(padded);
            keys.room = arena.take<T>(self.room_for(self.key_block_));
            keys.offsets = arena.take<std::int64_t>(self.key_block_);
            queries = arena.take<T>(padded * self.depth_);
            sums = arena.take<T>(padded * self.values_);
            most = arena.take<T>(padded);
            total = arena.take<T>(padded);
            strip = arena.take<T>(strip_size);
            spare = arena.take<T>(self.has(AttendTensor::mask) || self.has(AttendTensor::bias) ? strip_size : 0);
            depth_offsets = arena.take<std::int64_t>(self.depth_);
            value_offsets = arena.take<std::int64_t>(self.values_);
        }
    };

    void task(char* const* tensors, std::int64_t index) const {
        // The last queries come first: where they see the most keys, they would otherwise be waited for.
        const Entry entry = {tensors, index / blocks_};
        const std::int64_t first = (blocks_ - 1 - index % blocks_) * query_block_;
        Room room = in_scratch<Room>(*this);
        Block& block = room.block;
        this->cut_panels(block, entry, first, std::min(query_block_, queries_ - first));

        const std::int64_t padded = block.count * width_;
        for (std::int64_t p = 0; p < block.count; ++p)
            this->pack_panel(room.queries + p * width_ * depth_, AttendTensor::q, entry, AttendRole::depth,
                             block.panels[p], depth_, room.depth_offsets);
        softmax_.multiply(room.queries, padded * depth_, this->scale_ * log2_e);
        std::fill(room.most, room.most + padded, -std::numeric_limits<T>::infinity());
        std::fill(room.total, room.total + padded, T(0));

        const Offsets depth = run_of(AttendRole::depth, AttendTensor::k, 0, depth_, room.depth_offsets);
        const Offsets value = run_of(AttendRole::value, AttendTensor::v, 0, values_, room.value_offsets);
        for (std::int64_t k0 = block.some.empty() ? keys_ : block.some.first / key_block_ * key_block_;
             k0 < block.some.end; k0 += key_block_) {
            if (interrupted()) return;
            room.keys.range = block.some & Range{k0, k0 + key_block_};
            this->pack_keys(room.keys, entry, depth, value);
            for (std::int64_t p = 0; p < block.count; ++p) take_in(room, p, entry);
        }
        for (std::int64_t p = 0; p < block.count; ++p) finish(room, p, entry);
    }

    // A panel takes in a block of keys.
    void take_in(const Room& room, std::int64_t p, const Entry& entry) const {
        Panel& panel = room.block.panels[p];
        const Range range = panel.some & room.keys.range;
        if (range.empty()) return;
        if (!this->scores(room.strip, width_, room.spare, room.keys, range, panel, room.block.ranges + p * width_,
                          room.queries + p * width_ * depth_, entry))
            return;
        const int v = panel.vectors - 1;
        alignas(64) T factor[widest];
        T* const sums = room.sums + p * width_ * values_;
        softmax_.soften[v](room.strip, range.count(), width_, room.most + p * width_, room.total + p * width_, factor);
        if (panel.started) softmax_.rescale[v](sums, values_, width_, factor);
        this->multiply_columns(sums, room.keys.values + (range.first - room.keys.range.first) * values_, values_,
                               this->value_rows_, range.count(), room.strip, width_, panel.vectors, panel.started);
        panel.started = true;
    }

    // Divides a panel's sums by the sum of its weights, and stores them. A query that saw no key has zeros.
    void finish(const Room& room, std::int64_t p, const Entry& entry) const {
        const Panel& panel = room.block.panels[p];
        T* const sums = room.sums + p * width_ * values_;
        const T* const total = room.total + p * width_;
        alignas(64) T factor[widest] = {}, lse[widest];
        for (std::int64_t i = 0; i < panel.count; ++i) {
            factor[i] = total[i] == 0 ? T(0) : T(1) / total[i];
            lse[i] = static_cast<T>(
                (static_cast<double>(room.most[p * width_ + i]) + std::log2(static_cast<double>(total[i]))) * ln_2);
        }
        if (panel.started)
            softmax_.rescale[panel.vectors - 1](sums, values_, width_, factor);
        else
            std::memset(sums, 0, static_cast<std::size_t>(values_ * width_ * size));
        std::int64_t across[widest];
        this->store(AttendTensor::out, entry,
                    run_of(AttendRole::value, AttendTensor::out, 0, values_, room.value_offsets),
                    run_of(AttendRole::query, AttendTensor::out, panel.first, panel.count, across), sums, width_);
        if (!has(AttendTensor::lse)) return;
        const std::int64_t none = 0;
        this->store(AttendTensor::lse, entry, {&none, 1, irregular},
                    run_of(AttendRole::query, AttendTensor::lse, panel.first, panel.count, across), lse, width_);
    }

    std::int64_t key_block_, query_block_, blocks_;
};

}  // namespace

std::unique_ptr<Kernel> make_attend(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
                                    const std::vector<DType>& types, double scale) {
    if (sums_in_double(present, types)) return std::make_unique<Forward<double>>(loops, present, types, scale);
    return std::make_unique<Forward<float>>(loops, present, types, scale);
}

}  // namespace einstride
