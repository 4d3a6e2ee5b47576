// A contraction of two tensors as a matrix product over label groups: m (free on the left), n (free on the
// right), k (contracted) and batch.
//
// The loop nest is the one of BLIS (Van Zee and van de Geijn, ACM TOMS 41(3), 2015), with the roles of the two
// sides mirrored because a tile's vectors run along n: a task's rows of the left side are packed once a k block
// and stream through L1 a panel at a time; a block of the right side is packed to stay in L2. The two sides are
// packed straight from the tensors' strides, through one list of byte offsets per label group, and tiles are
// written straight to the output's strides; no permuted copy of a tensor is ever made.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "contraction.hpp"
#include "level.hpp"
#include "memory.hpp"
#include "program.hpp"
#include "walk.hpp"

namespace einstride {

namespace {

// Bytes the packed blocks may take: a panel of the left side stays in L1 (32 KiB and more everywhere), a block
// of the right side in L2 (half of 1 MiB).
constexpr std::int64_t left_panel_bytes = 24 << 10;
constexpr std::int64_t right_block_bytes = 512 << 10;
constexpr std::int64_t max_task_rows = 560;
constexpr std::int64_t max_task_columns = 2048;
constexpr std::int64_t max_buffer_columns = 512;

// Runs of n that are turned into panels at a time, and the longest run that is.
constexpr std::int64_t max_turn = 32;
constexpr std::int64_t max_run = 512;

// Work is cut into this many tasks a thread, so that threads of unequal speed finish together, but never below
// least_task.
constexpr std::int64_t tasks_per_thread = 2;
constexpr std::int64_t most_tasks_a_thread = 4;
constexpr std::int64_t max_splits = 16;

// Of a side that all threads pack together and share: bytes for each of the threads that count, the most rows or
// columns, and tasks a thread that its tiles are cut into.
constexpr std::int64_t shared_side_bytes = 896 << 10;
constexpr std::int64_t most_sharers = 8;
constexpr std::int64_t max_span = 8192;
constexpr std::int64_t shared_tasks_per_thread = 4;

// Of a k block of both sides, where the next one is fetched while tiles of this one run: a part of L2.
constexpr std::int64_t max_ahead_bytes = 320 << 10;
constexpr std::int64_t page_bytes = 4096;

// Rows of complex numbers that are packed at a time before they are rewritten as real ones.
constexpr std::int64_t expand_rows = 32;

class Contract final : public Kernel {
  public:
    Contract(const std::vector<Loop>& loops, const std::vector<DType>& types)
        : level_(level()),
          acc_(acc_of(types[2])),
          parts_(is_complex(acc_) ? 2 : 1),
          real_(real_of(acc_)),
          tile_(level_.tile[static_cast<int>(real_)]),
          real_size_(size_of(real_)),
          size_(size_of(acc_)),
          convert_(types),
          native_out_(is_native(types[2], acc_)) {
        for (const Loop& loop : loops) groups_.push(loop);
        batch_ = groups_.batch.count;
        m_ = groups_.m.count;
        n_ = groups_.n.count;
        k_ = groups_.k.count;
        columns_ = 2 * tile_.lanes / parts_;
        rows_ = static_cast<int>(ceil_div(m_, ceil_div(m_, tile_.rows)));

        const bool native_left = is_native(types[0], acc_), native_right = is_native(types[1], acc_);
        choose_direct(native_left, native_right);
        choose_rows(types[0]);
        choose_turn(loops, size_of(types[1]));
        choose_blocks();
        choose_tasks();
        look_ahead(size_of(types[0]), size_of(types[1]));
        streamed_ = k_ <= k_block_ && splits_ == 1 && groups_.m.out.multiple_of(line_bytes) &&
                    level_.fence != nullptr && past_caches(loops, types);
    }

    bool run(char* const* tensors, const Monitor& monitor) const override {
        const auto aligned = [this](const char* at) {
            return reinterpret_cast<std::uintptr_t>(at) % static_cast<std::uintptr_t>(real_size_) == 0;
        };
        const Workspace partial(splits_ > 1 ? static_cast<std::size_t>(splits_ * batch_ * m_ * n_ * size_) : 0);
        const Job job = {tensors[0],
                         tensors[1],
                         tensors[2],
                         partial.data(),
                         direct_left_ && aligned(tensors[0]),
                         direct_right_ && aligned(tensors[1]),
                         direct_out_ && aligned(tensors[2])};
        if (shared_) return run_shared(job, monitor);
        if (tasks_ * splits_ == 1) {
            task(job, 0);
            return true;
        }
        if (!parallel_for(tasks_ * splits_, [&](std::int64_t index) { task(job, index); }, monitor)) return false;
        if (splits_ > 1) combine(job);
        return true;
    }

  private:
    struct Job {
        const char* left;
        const char* right;
        char* out;
        char* partial;  // where a split k leaves its partial sums; else nullptr
        bool direct_left, direct_right, direct_out;
    };

    // Where tiles of one task are written: rows and columns as byte offsets from `base`.
    struct Target {
        char* base;
        const std::int64_t* rows;
        const std::int64_t* columns;
        bool direct;    // tiles of adjacent columns may be written in place
        bool streamed;  // past the caches
        PackFn load;
        StoreFn store;
    };

    // A side of a tile as the tile reads it; strides count reals.
    struct Side {
        const char* at;
        std::int64_t row, column;
    };

    // A k block of one batch element, from row m0 and column n0 on.
    struct Block {
        const char *left, *right;  // the batch element's
        std::int64_t m0, n0, p0, depth;
        bool add;  // to what earlier blocks left in the output
    };

    // Rows or columns from m0 or n0 on.
    struct Range {
        std::int64_t from, to;
    };

    // Rows or columns cut into pieces.
    struct Cuts {
        std::int64_t count, piece;

        std::int64_t pieces() const { return ceil_div(count, piece); }
        Range operator[](std::int64_t index) const { return {index * piece, std::min((index + 1) * piece, count)}; }
    };

    // A side that already lies as a tile wants to read it need not be packed. Measured on float32 and float64, m to
    // 4000, n to 5000: the left side read where it lies takes 0.8 to 0.98 of the time up to 32 panels of n, and as long
    // beyond; 1.2 to 1.7 times as long where its rows evict each other from L1. The right side takes 0.7 to 0.97 of the
    // time while its rows share pages and m is small, up to 1.7 times as long where each row is a page of its own.
    void choose_direct(bool native_left, bool native_right) {
        const bool left_lies = native_left && groups_.m.left.regular() && groups_.k.left.regular() &&
                               groups_.batch.left.multiple_of(real_size_) && groups_.m.left.multiple_of(real_size_) &&
                               groups_.k.left.multiple_of(real_size_) &&
                               (parts_ == 1 || k_ == 1 || groups_.k.left.stride() == size_);
        const bool right_lies = native_right && parts_ == 1 && groups_.n.right.regular() && groups_.k.right.regular() &&
                                (n_ == 1 || groups_.n.right.stride() == size_) &&
                                groups_.batch.right.multiple_of(real_size_) && groups_.k.right.multiple_of(real_size_);
        // A 32 KiB L1 of 8 ways keeps 8 lines that are 4096 bytes apart; of one panel none is read twice.
        const auto collides = [this](std::int64_t stride, std::int64_t count) {
            return stride != 0 && stride % 2048 == 0 && count > (stride % 4096 == 0 ? 8 : 16) && n_ > columns_;
        };
        direct_left_ = left_lies && n_ <= 32 * columns_ && !collides(groups_.m.left.stride(), rows_) &&
                       !collides(groups_.k.left.stride(), k_);
        const bool dense = std::abs(groups_.k.right.stride()) <= std::min(page_bytes, 2 * n_ * real_size_);
        direct_right_ = right_lies && m_ <= (dense ? 32 : 2) * rows_;
        direct_out_ = native_out_ && groups_.batch.out.multiple_of(real_size_) &&
                      groups_.m.out.multiple_of(real_size_) && groups_.n.out.multiple_of(real_size_);
    }

    // Numbers of the left side that lie along k are packed row by row, as they lie. Complex ones are then a real matrix
    // of twice the depth.
    void choose_rows(DType left) {
        const bool complex = is_complex(acc_of(left));
        keeps_rows_ = !direct_left_ && complex == (parts_ == 2) && k_ >= tile_.lanes && groups_.k.left.regular() &&
                      groups_.k.left.stride() == size_of(left);
        if (!keeps_rows_ || !complex) return;
        const DType part = storage_of(real_of(acc_of(left)));
        convert_.left = level_.pack[static_cast<int>(part)][static_cast<int>(real_)];
        groups_.k.left.push(2, size_of(part));
        listed_ = 2;
    }

    // Whether the right side is packed across runs of its innermost loop: its adjacent elements belong to the loop
    // around that one.
    void choose_turn(const std::vector<Loop>& loops, std::int64_t right_size) {
        const Loop* inner = nullptr;
        const Loop* around = nullptr;
        for (const Loop& loop : loops)
            if (loop.role == Role::free_right) around = inner, inner = &loop;
        if (around == nullptr || parts_ > 1 || around->strides[1] != right_size || inner->strides[1] == right_size ||
            around->extent < tile_.lanes || inner->extent > max_run)
            return;
        run_ = inner->extent;
        turn_ = around->extent;
        adjacent_.resize(static_cast<std::size_t>(max_turn));
        for (std::int64_t i = 0; i < max_turn; ++i) adjacent_[static_cast<std::size_t>(i)] = i * right_size;
    }

    void choose_blocks() {
        std::int64_t deepest = std::max<std::int64_t>(left_panel_bytes / (rows_ * parts_ * real_size_), 64);
        const std::int64_t padded = turn_ > 1 ? round_up(run_, columns_) : columns_;
        // A block that is turned holds a register's worth of runs, or cache lines are still fetched more than once.
        const std::int64_t least = turn_ > 1 ? tile_.lanes : 1;
        deepest = std::min(deepest, std::max<std::int64_t>(right_block_bytes / (least * padded * size_), 32));
        k_block_ = k_ == 0 ? 1 : ceil_div(k_, ceil_div(k_, deepest));
        const auto columns_in = [&](std::int64_t bytes) {
            const std::int64_t fit = bytes / (k_block_ * parts_ * size_) / padded / least * least;
            return std::max(fit, least) * (turn_ > 1 ? run_ : columns_);
        };
        n_block_ = columns_in(right_block_bytes);
        const std::int64_t side_bytes = shared_side_bytes * std::clamp<std::int64_t>(num_threads(), 2, most_sharers);
        m_span_ = equal_part(m_, std::min(side_bytes / left_row(), max_span), rows_);
        n_span_ = equal_part(n_, std::min(columns_in(side_bytes), max_span), grain());
    }

    // Of `count` cut into the fewest parts of at most `most`: one of equal size, in whole grains.
    static std::int64_t equal_part(std::int64_t count, std::int64_t most, std::int64_t grain) {
        return std::min(
            count, round_up(ceil_div(count, ceil_div(count, std::max(most / grain, std::int64_t{1}) * grain)), grain));
    }

    // Columns that are not parted.
    std::int64_t grain() const { return turn_ > 1 ? run_ * tile_.lanes : columns_; }

    void choose_tasks() {
        const std::int64_t work = m_ * n_ * k_ * parts_ * parts_;
        buffered_ = !native_out_ && k_ > k_block_;
        // Few outputs and a long k: k itself is cut, by shape alone, so that sums do not depend on the threads.
        const std::int64_t outputs = batch_ * m_ * n_;
        splits_ = 1;
        while (splits_ < max_splits && outputs * splits_ * size_ <= (1 << 19) && k_ >= 4 * splits_ * k_block_ &&
               batch_ * work / splits_ >= 2 * least_task)
            splits_ *= 2;
        split_k_ = ceil_div(k_, splits_);

        const std::int64_t wanted =
            splits_ > 1 || batch_ * work < 2 * least_task ? 1 : tasks_per_thread * num_threads();
        const std::int64_t most_columns = buffered_ ? max_buffer_columns : max_task_columns;
        // Parts of equal size, in whole panels.
        std::int64_t m_parts = ceil_div(m_, max_task_rows), n_parts = ceil_div(n_, round_up(most_columns, grain()));
        const auto cut = [&] {
            task_m_ = std::min(m_, round_up(ceil_div(m_, m_parts), rows_));
            task_n_ = std::min(n_, round_up(ceil_div(n_, n_parts), grain()));
        };
        cut();
        batches_ = wanted == 1 ? batch_
                               : std::clamp<std::int64_t>(
                                     std::max(least_task / work, batch_ / (most_tasks_a_thread * num_threads())), 1,
                                     std::max<std::int64_t>(batch_ / wanted, 1));
        while (batches_ == 1 && batch_ * m_parts * n_parts < wanted &&
               task_m_ * task_n_ * k_ * parts_ * parts_ >= 2 * least_task) {
            const bool rows_divide = task_m_ > 2 * rows_, columns_divide = task_n_ > grain();
            if (!rows_divide && !columns_divide) break;
            (rows_divide && (task_m_ >= task_n_ || !columns_divide) ? m_parts : n_parts) *= 2;
            cut();
        }
        n_block_ = std::min(n_block_, round_up(task_n_, turn_ > 1 ? run_ : columns_));
        m_tasks_ = ceil_div(m_, task_m_);
        n_tasks_ = ceil_div(n_, task_n_);
        tasks_ = ceil_div(batch_, batches_) * m_tasks_ * n_tasks_;
        choose_shared();
    }

    // Tasks that pack for themselves pack the left side once for each cut of n, and the right side once for each cut of
    // m. Where that is much, and a k block is work enough to bring the threads together twice, they pack it together
    // (2 threads, 1024 x 1024 x 1024 float32: 10.9 ms each for itself, 10.4 ms together; `aebf,dfce->abcd` at 24: 4.8
    // and 4.3 ms).
    void choose_shared() {
        const std::int64_t left = direct_left_ ? 0 : m_, right = direct_right_ ? 0 : n_;
        const std::int64_t together = m_span_ * n_span_ * k_block_ * parts_ * parts_;
        shared_ = splits_ == 1 && !buffered_ && 4 * (left * n_tasks_ + right * m_tasks_) > 5 * (left + right) &&
                  together >= 8 * least_task * num_threads();
        if (!shared_) return;
        const std::int64_t cuts = shared_tasks_per_thread * num_threads();
        pack_m_ = equal_part(m_span_, ceil_div(m_span_, cuts), rows_);
        pack_n_ = equal_part(n_span_, ceil_div(n_span_, cuts), grain());
        task_n_ = equal_part(n_span_, n_block_, grain());
        task_m_ = equal_part(m_span_, ceil_div(m_span_, ceil_div(cuts, ceil_div(n_span_, task_n_))), rows_);
    }

    // Lists the cache lines of what is read next while tiles run: of a k block of either side, if a task that has all
    // of m and n works through several; else of a panel of a left side that is read where it lies.
    void look_ahead(std::int64_t left_size, std::int64_t right_size) {
        const bool several_k = k_ > k_block_;
        const std::int64_t depth = std::min(k_, k_block_);
        std::int64_t tiles = panels_in(std::min(n_, n_block_));
        if ((batches_ > 1 || several_k) && splits_ == 1 && m_tasks_ * n_tasks_ == 1 &&
            (!several_k || (groups_.k.left.regular() && groups_.k.right.regular())) &&
            (m_ * left_size + n_ * right_size) * depth <= max_ahead_bytes) {
            if (several_k || groups_.batch.left.stride() != 0)
                list_lines(groups_.m.left, m_, groups_.k.left, listed_ * depth, lines_[0]);
            if (several_k || groups_.batch.right.stride() != 0)
                list_lines(groups_.n.right, n_, groups_.k.right, depth, lines_[1]);
            tiles = ceil_div(m_, rows_) * panels_in(n_);
        } else if (direct_left_ && m_ > rows_) {
            list_lines(groups_.m.left, rows_, groups_.k.left, depth, lines_[0]);
            panel_ahead_ = !lines_[0].empty();
        }
        for (std::size_t side = 0; side < 2; ++side) {
            lines_a_tile_[side] = ceil_div(static_cast<std::int64_t>(lines_[side].size()), tiles);
            // A tile fetches a line a step, whether or not as many are left.
            if (!lines_[side].empty()) lines_[side].resize(lines_[side].size() + padding(), lines_[side].back());
        }
    }

    static void list_lines(const Walk& a, std::int64_t a_count, const Walk& b, std::int64_t b_count,
                           std::vector<std::int64_t>& lines) {
        if (std::abs(b.stride()) > std::abs(a.stride())) return list_lines(b, b_count, a, a_count, lines);
        lines = lines_of(a.list(a_count), b.list(b_count));
        // What lies in a page of its own is foreseen by the processor.
        if (!lines.empty() && std::abs(lines.back() - lines.front()) < page_bytes) lines.clear();
    }

    // What is read next, fetched while tiles run, for processors do not foresee it (chunked attention scores, 512
    // products of 64 x 64 x 64 float32: 5.6 ms without, 4.1 ms with; `ijk,kr->ijr` with r = 32 and 120 x 120 x 120
    // float64: 4.6 ms without, 2.6 ms with).
    struct Ahead {
        Fetch now[2] = {no_fetch[0], no_fetch[1]};
        const std::int64_t* end[2] = {};

        void begin(std::size_t side, const char* first, const std::vector<std::int64_t>& lines, std::size_t padding) {
            if (lines.empty()) return;
            now[side] = {first, lines.data(), 1};
            end[side] = lines.data() + lines.size() - padding;
        }

        // After a tile that fetched `depth` lines of each side: the rest of what is due.
        void advance(const std::int64_t (&due)[2], std::int64_t depth) {
            for (int side = 0; side < 2; ++side) {
                if (now[side].step == 0) continue;
                const std::int64_t* line = now[side].line + depth;
                const std::int64_t* const stop = std::min(now[side].line + due[side], end[side]);
                for (; line < stop; ++line) __builtin_prefetch(now[side].base + *line, 0, 2);
                now[side].line = line;
                if (line >= end[side]) now[side] = no_fetch[0];
            }
        }
    };

    std::size_t padding() const { return static_cast<std::size_t>(k_block_ * parts_); }

    Ahead ahead_of(const Job& job, std::int64_t batch, std::int64_t p) const {
        Ahead ahead{};
        ahead.begin(0, job.left + groups_.batch.left.at(batch) + groups_.k.left.at(listed_ * p), lines_[0], padding());
        ahead.begin(1, job.right + groups_.batch.right.at(batch) + groups_.k.right.at(p), lines_[1], padding());
        return ahead;
    }

    // The columns of a panel of the right side: where they lie in it and where their sums are written.
    struct Panel {
        Offsets right, out;
    };

    // Memory for some rows and columns: what is packed of them and the byte offsets that are walked.
    struct Room {
        char* left;   // panels of rows_ rows, k_block_ deep
        char* right;  // panels of columns_ columns, k_block_ deep
        char* sums;   // the task's outputs as the compute type, if it is buffered
        Panel* panels;
        Offsets* heights;  // of the output's rows, a panel of the left side each
        std::int64_t *m_left, *m_out, *m_sums, *n_right, *n_out, *n_sums, *k_left, *k_right;
    };

    // In one piece from `take_bytes`; `block` columns of the right side are packed at a time.
    template <class Take>
    Room room_for(const Job& job, std::int64_t rows, std::int64_t columns, std::int64_t block, Take take_bytes) const {
        const std::int64_t bytes[] = {
            job.direct_left ? 0 : round_up(rows, rows_) * left_row(),
            (job.direct_right ? 1 : panels_in(block)) * right_panel(),
            buffered_ ? rows * columns * size_ : 0,
            panels_in(columns) * static_cast<std::int64_t>(sizeof(Panel)),
            ceil_div(rows, rows_) * static_cast<std::int64_t>(sizeof(Offsets)),
            (3 * rows + 3 * columns + (listed_ + 1) * k_block_) * static_cast<std::int64_t>(sizeof(std::int64_t)),
        };
        std::int64_t total = 0;
        for (const std::int64_t part : bytes) total += round_up(part, 64);
        char* at = take_bytes(static_cast<std::size_t>(total));
        const auto take = [&at](std::int64_t part) {
            char* taken = at;
            at += round_up(part, 64);
            return taken;
        };
        Room room = {};
        room.left = take(bytes[0]);
        room.right = take(bytes[1]);
        room.sums = take(bytes[2]);
        room.panels = reinterpret_cast<Panel*>(take(bytes[3]));
        room.heights = reinterpret_cast<Offsets*>(take(bytes[4]));
        room.m_left = reinterpret_cast<std::int64_t*>(take(bytes[5]));
        room.m_out = room.m_left + rows;
        room.m_sums = room.m_out + rows;
        room.n_right = room.m_sums + rows;
        room.n_out = room.n_right + columns;
        room.n_sums = room.n_out + columns;
        room.k_left = room.n_sums + columns;
        room.k_right = room.k_left + listed_ * k_block_;
        return room;
    }

    // Bytes of one row of the left side in its panel, and of a whole panel of the right side.
    std::int64_t left_row() const {
        const std::int64_t bytes = k_block_ * parts_ * real_size_;
        // Rows an odd number of lines apart do not evict each other from L1.
        return keeps_rows_ ? (ceil_div(bytes, line_bytes) | 1) * line_bytes : bytes;
    }
    std::int64_t right_panel() const { return columns_ * parts_ * k_block_ * size_; }

    // Panels never straddle two runs of a side that is turned, whose blocks hold whole runs.
    std::int64_t panels_in(std::int64_t columns) const {
        return turn_ > 1 ? columns / run_ * ceil_div(run_, columns_) : ceil_div(columns, columns_);
    }

    void task(const Job& job, std::int64_t index) const {
        const std::int64_t split = index / tasks_;
        index %= tasks_;
        const std::int64_t n0 = index % n_tasks_ * task_n_;
        index /= n_tasks_;
        const std::int64_t m0 = index % m_tasks_ * task_m_;
        const std::int64_t b0 = index / m_tasks_ * batches_;
        const std::int64_t rows = std::min(task_m_, m_ - m0), columns = std::min(task_n_, n_ - n0);
        const std::int64_t k0 = split * split_k_, k1 = std::min(k_, k0 + split_k_);

        const Room room = room_for(job, rows, columns, std::min(columns, n_block_), scratch);
        list_offsets(room, m0, rows, n0, columns);
        Target target = output(job, room);
        if (job.partial != nullptr || buffered_) {
            // Sums that the output cannot hold yet are kept as the compute type, row by row.
            const std::int64_t row = (job.partial != nullptr ? n_ : columns) * size_;
            for (std::int64_t i = 0; i < rows; ++i) room.m_sums[i] = i * row;
            for (std::int64_t j = 0; j < columns; ++j) room.n_sums[j] = j * size_;
            const DType storage = storage_of(acc_);
            target = {room.sums,
                      room.m_sums,
                      room.n_sums,
                      true,
                      false,
                      level_.pack[static_cast<int>(storage)][static_cast<int>(acc_)],
                      level_.store[static_cast<int>(storage)]};
        }

        cut_panels(room, target, rows, columns);
        const std::int64_t b1 = std::min(b0 + batches_, batch_);
        for (std::int64_t b = b0; b < b1; ++b) {
            const char* left = job.left + groups_.batch.left.at(b);
            const char* right = job.right + groups_.batch.right.at(b);
            char* out = job.out + groups_.batch.out.at(b);
            if (job.partial != nullptr)
                target.base = job.partial + (((split * batch_ + b) * m_ + m0) * n_ + n0) * size_;
            else if (!buffered_)
                target.base = out;
            for (std::int64_t p0 = k0; p0 < k1; p0 += k_block_) {
                const std::int64_t depth = std::min(k_block_, k1 - p0);
                if (rows * columns * depth > least_task && interrupted()) return;
                if (b == b0 || k1 - k0 > k_block_) {
                    groups_.k.left.fill(listed_ * p0, listed_ * depth, room.k_left);
                    groups_.k.right.fill(p0, depth, room.k_right);
                }
                Ahead ahead{};
                if (p0 + depth < k1)
                    ahead = ahead_of(job, b, p0 + depth);
                else if (b + 1 < b1)
                    ahead = ahead_of(job, b + 1, k0);
                const Block block = {left, right, m0, n0, p0, depth, p0 > k0};
                if (!job.direct_left) pack_left(room, block, {0, rows});
                for (std::int64_t j0 = 0; j0 < columns; j0 += n_block_) {
                    const Range now = {j0, std::min(j0 + n_block_, columns)};
                    pack_right(job, room, block, room.right, now);
                    run_tiles(job, room, target, block, {0, rows}, now, room.right, ahead);
                }
            }
            if (buffered_ && job.partial == nullptr)
                convert_.store(out, slice(room.m_out, rows), slice(room.n_out, columns), room.sums, columns);
        }
        if (streamed_) level_.fence();
    }

    // The same for all tasks at once: a span of rows and columns after another, a k block of it is packed by all
    // threads, and then multiplied.
    bool run_shared(const Job& job, const Monitor& monitor) const {
        std::optional<Workspace> memory;
        const Room room = room_for(job, m_span_, n_span_, n_span_,
                                   [&memory](std::size_t bytes) { return memory.emplace(bytes).data(); });
        const std::int64_t m_spans = ceil_div(m_, m_span_), n_spans = ceil_div(n_, n_span_);
        const std::int64_t k_blocks = ceil_div(k_, k_block_);
        const double phases = 2.0 * static_cast<double>(batch_ * m_spans * n_spans * k_blocks);
        double phase = 0;
        const auto next_phase = [&] {
            const double each = (monitor.to - monitor.from) / phases, from = monitor.from + phase++ * each;
            return Monitor{monitor.poll, monitor.context, from, from + each};
        };
        for (std::int64_t span = 0; span < batch_ * m_spans * n_spans; ++span) {
            const std::int64_t b = span / (m_spans * n_spans);
            const std::int64_t n0 = span / m_spans % n_spans * n_span_, m0 = span % m_spans * m_span_;
            const std::int64_t rows = std::min(m_span_, m_ - m0), columns = std::min(n_span_, n_ - n0);
            const Cuts row_cuts = {rows, task_m_}, column_cuts = {columns, task_n_};
            const Cuts left_packs = {job.direct_left ? 0 : rows, pack_m_}, right_packs = {columns, pack_n_};
            list_offsets(room, m0, rows, n0, columns);
            Target target = output(job, room);
            target.base = job.out + groups_.batch.out.at(b);
            cut_panels(room, target, rows, columns);
            for (std::int64_t p0 = 0; p0 < k_; p0 += k_block_) {
                const std::int64_t depth = std::min(k_block_, k_ - p0);
                groups_.k.left.fill(listed_ * p0, listed_ * depth, room.k_left);
                groups_.k.right.fill(p0, depth, room.k_right);
                const Block block = {job.left + groups_.batch.left.at(b),
                                     job.right + groups_.batch.right.at(b),
                                     m0,
                                     n0,
                                     p0,
                                     depth,
                                     p0 > 0};
                const auto packed = [&](const Range& some) {
                    return room.right + (job.direct_right ? 0 : panels_in(some.from) * right_panel());
                };
                const auto pack = [&](std::int64_t index) {
                    if (index < left_packs.pieces()) return pack_left(room, block, left_packs[index]);
                    const Range now = right_packs[index - left_packs.pieces()];
                    pack_right(job, room, block, packed(now), now);
                };
                const auto multiply = [&](std::int64_t index) {
                    Ahead ahead{};
                    const Range now = column_cuts[index / row_cuts.pieces()];
                    run_tiles(job, room, target, block, row_cuts[index % row_cuts.pieces()], now, packed(now), ahead);
                    if (streamed_) level_.fence();
                };
                if (!parallel_for(left_packs.pieces() + right_packs.pieces(), pack, next_phase()) ||
                    !parallel_for(row_cuts.pieces() * column_cuts.pieces(), multiply, next_phase()))
                    return false;
            }
        }
        return true;
    }

    void list_offsets(const Room& room, std::int64_t m0, std::int64_t rows, std::int64_t n0,
                      std::int64_t columns) const {
        groups_.m.left.fill(m0, rows, room.m_left);
        groups_.m.out.fill(m0, rows, room.m_out);
        groups_.n.right.fill(n0, columns, room.n_right);
        groups_.n.out.fill(n0, columns, room.n_out);
    }

    Target output(const Job& job, const Room& room) const {
        return {nullptr, room.m_out, room.n_out, job.direct_out, streamed_, convert_.out, convert_.store};
    }

    // Tiles of some rows and columns of a block, whose panels of the right side lie at `packed`.
    void run_tiles(const Job& job, const Room& room, const Target& target, const Block& block, const Range& rows,
                   const Range& columns, const char* packed, Ahead& ahead) const {
        const Panel* const first = room.panels + panels_in(columns.from);
        const std::int64_t panels = panels_in(columns.to - columns.from);
        const std::int64_t depth = block.depth;
        for (std::int64_t i = rows.from; i < rows.to; i += rows_) {
            const Side a =
                job.direct_left
                    ? Side{block.left + (block.m0 + i) * groups_.m.left.stride() + block.p0 * groups_.k.left.stride(),
                           groups_.m.left.stride() / real_size_, parts_ == 1 ? groups_.k.left.stride() / real_size_ : 1}
                : keeps_rows_ ? Side{room.left + i * left_row(), left_row() / real_size_, 1}
                              : Side{room.left + i * left_row(), 1, rows_};
            if (panel_ahead_) ahead.begin(0, a.at + rows_ * groups_.m.left.stride(), lines_[0], padding());
            for (std::int64_t q = 0; q < panels; ++q) {
                const Panel& panel = first[q];
                Side b = {packed + q * right_panel(), columns_ * parts_, 1};
                if (job.direct_right)
                    b = panel.out.count == columns_
                            ? Side{block.right + panel.right.at[0] + block.p0 * groups_.k.right.stride(),
                                   groups_.k.right.stride() / real_size_, 1}
                            : Side{packed, columns_ * parts_, 1};
                write_tile(target, room.heights[i / rows_], panel.out, depth * parts_, a, b, block.add, ahead.now);
                ahead.advance(lines_a_tile_, depth * parts_);
            }
        }
    }

    void cut_panels(const Room& room, const Target& target, std::int64_t rows, std::int64_t columns) const {
        for (std::int64_t i = 0; i < rows; i += rows_)
            room.heights[i / rows_] = slice(target.rows + i, std::min<std::int64_t>(rows_, rows - i));
        const std::int64_t run = turn_ > 1 ? run_ : columns;
        Panel* panel = room.panels;
        for (std::int64_t start = 0; start < columns; start += run)
            for (std::int64_t j = start; j < start + run; j += columns_) {
                const std::int64_t width = std::min(columns_, start + run - j);
                *panel++ = {slice(room.n_right + j, width), slice(target.columns + j, width)};
            }
    }

    void pack_left(const Room& room, const Block& block, const Range& rows) const {
        const Offsets along = slice(room.k_left, listed_ * block.depth);
        for (std::int64_t i = rows.from; i < rows.to; i += rows_) {
            char* panel = room.left + i * left_row();
            const Offsets height = slice(room.m_left + i, std::min<std::int64_t>(rows_, rows.to - i));
            if (keeps_rows_)
                convert_.left(panel, left_row() / real_size_, block.left, height, along);
            else
                pack_panel(convert_.left, level_.expand_left, 1, panel, rows_, block.left, along, height);
        }
    }

    // Of a side that is read where it lies only a last, narrow panel is packed.
    void pack_right(const Job& job, const Room& room, const Block& block, char* to, const Range& columns) const {
        if (turn_ > 1) return pack_turned(room, block, to, columns);
        const Offsets along = slice(room.k_right, block.depth);
        const Panel* const first = room.panels + panels_in(columns.from);
        for (std::int64_t q = 0; q < panels_in(columns.to - columns.from); ++q) {
            const Offsets& width = first[q].right;
            if (job.direct_right && width.count == columns_) continue;
            char* panel = to + (job.direct_right ? 0 : q * right_panel());
            if (width.count < columns_) std::memset(panel, 0, static_cast<std::size_t>(right_panel()));
            pack_panel(convert_.right, level_.expand_right, 2, panel, columns_, block.right, along, width);
        }
    }

    // The right side's adjacent elements lie across runs: at one k, the same columns of several runs are a block to be
    // turned, whose rows go to a panel each. Packed panel by panel, each cache line would be fetched for every element.
    void pack_turned(const Room& room, const Block& block, char* to, const Range& columns) const {
        const Panel* const first = room.panels + panels_in(columns.from);
        const std::int64_t per_run = ceil_div(run_, columns_), first_run = (block.n0 + columns.from) / run_;
        const std::int64_t runs = (columns.to - columns.from) / run_;
        if (run_ % columns_ != 0) std::memset(to, 0, static_cast<std::size_t>(runs * per_run * right_panel()));
        for (std::int64_t r = 0, group; r < runs; r += group) {
            group = std::min({runs - r, turn_ - (first_run + r) % turn_, max_turn});
            for (std::int64_t q = r * per_run; q < (r + 1) * per_run; ++q)
                for (std::int64_t p = 0; p < block.depth; ++p)
                    convert_.right(to + q * right_panel() + p * columns_ * size_, per_run * right_panel() / size_,
                                   block.right + room.k_right[p], {adjacent_.data(), group, adjacent_[1]},
                                   first[q].right);
        }
    }

    // One tile, in place where the output allows it, else through a tile of the compute type on the stack.
    void write_tile(const Target& target, const Offsets& rows, const Offsets& columns, std::int64_t depth,
                    const Side& a, const Side& b, bool add, const Fetch* ahead) const {
        const std::int64_t reals = columns.count * parts_;
        const int vectors = reals > tile_.lanes ? 2 : 1;
        const TileFn run = tile_.run[vectors - 1][rows.count];
        if (target.direct && reals == vectors * tile_.lanes && (columns.stride == size_ || columns.count == 1)) {
            char* const to = target.base + columns.at[0];
            const bool streams = target.streamed && reals * real_size_ % line_bytes == 0 &&
                                 reinterpret_cast<std::uintptr_t>(to) % line_bytes == 0;
            run(depth, a.at, a.row, a.column, b.at, b.row, to, rows.at,
                streams ? Put::stream
                : add   ? Put::add
                        : Put::store,
                ahead);
            return;
        }
        alignas(64) char tile[max_tile_rows * 2 * 64];
        const std::int64_t ld = vectors * tile_.lanes / parts_;
        if (add) {
            std::memset(tile, 0, sizeof tile);
            target.load(tile, ld, target.base, rows, columns);
        }
        const EvenRows even(ld * size_);
        run(depth, a.at, a.row, a.column, b.at, b.row, tile, even.at, add ? Put::add : Put::store, ahead);
        target.store(target.base, rows, columns, tile, ld);
    }

    // Packs one panel; complex numbers go through a small block that is then rewritten as real ones.
    // `widen` is how many reals of each number the expanded row holds.
    void pack_panel(PackFn pack, const ExpandFn (&expand)[2], std::int64_t widen, char* to, std::int64_t ld,
                    const char* from, const Offsets& depth, const Offsets& width) const {
        if (parts_ == 1) {
            pack(to, ld, from, depth, width);
            return;
        }
        alignas(64) char block[expand_rows * 32 * 16];
        if (width.count < ld) std::memset(block, 0, sizeof block);
        for (std::int64_t p = 0; p < depth.count; p += expand_rows) {
            const std::int64_t rows = std::min(expand_rows, depth.count - p);
            pack(block, ld, from, {depth.at + p, rows, depth.stride}, width);
            expand[acc_ == Acc::c128](to + p * 2 * ld * widen * real_size_, block, rows, ld);
        }
    }

    // Adds the partial sums of a split k in order and stores them.
    void combine(const Job& job) const {
        const std::int64_t outputs = batch_ * m_ * n_;
        add_partial_sums(real_, job.partial, outputs * parts_, splits_);
        const std::vector<std::int64_t> rows = groups_.m.out.list(m_), columns = groups_.n.out.list(n_);
        const Offsets row_slice = slice(rows.data(), m_), column_slice = slice(columns.data(), n_);
        for (std::int64_t b = 0; b < batch_; ++b)
            convert_.store(job.out + groups_.batch.out.at(b), row_slice, column_slice,
                           job.partial + b * m_ * n_ * size_, n_);
    }

    template <class T>
    static void add_partials(T* sums, std::int64_t count, std::int64_t parts) {
        for (std::int64_t s = 1; s < parts; ++s)
            for (std::int64_t i = 0; i < count; ++i) sums[i] = static_cast<T>(sums[i] + sums[s * count + i]);
    }
    static void add_partial_sums(Acc real, char* sums, std::int64_t count, std::int64_t parts) {
        switch (real) {
            case Acc::i16: return add_partials(reinterpret_cast<std::uint16_t*>(sums), count, parts);
            case Acc::i32: return add_partials(reinterpret_cast<std::uint32_t*>(sums), count, parts);
            case Acc::i64: return add_partials(reinterpret_cast<std::uint64_t*>(sums), count, parts);
            case Acc::f32: return add_partials(reinterpret_cast<float*>(sums), count, parts);
            default: return add_partials(reinterpret_cast<double*>(sums), count, parts);
        }
    }

    static DType storage_of(Acc acc) {
        constexpr DType storage[acc_count] = {DType::u16, DType::u32, DType::u64, DType::f32,
                                              DType::f64, DType::c64, DType::c128};
        return storage[static_cast<int>(acc)];
    }

    const Level& level_;
    Acc acc_;
    int parts_;  // reals in a number
    Acc real_;
    const Tile& tile_;
    std::int64_t real_size_, size_;  // bytes of a real, of a number
    Conversions convert_;
    bool native_out_;

    LabelGroups groups_;
    std::int64_t batch_, m_, n_, k_;  // their counts
    int rows_;                        // of a panel of the left side
    std::int64_t columns_;            // numbers in a row of a panel of the right side
    bool direct_left_, direct_right_, direct_out_;
    std::vector<std::int64_t> lines_[2];  // that are fetched ahead, of the left side and of the right
    std::int64_t lines_a_tile_[2] = {0, 0};
    bool panel_ahead_ = false;         // the lines are a panel's of the left side
    bool keeps_rows_ = false;          // a panel of the left side does, else it holds its rows' numbers side by side
    int listed_ = 1;                   // reals of a number of the left side that are packed one after another
    std::int64_t run_ = 0, turn_ = 1;  // columns in a run and runs that hold adjacent elements; 1 where nothing turns
    std::vector<std::int64_t> adjacent_;  // 0, 1, 2, ... elements of the right side
    std::int64_t k_block_, n_block_;
    std::int64_t task_m_, task_n_, batches_, m_tasks_, n_tasks_, tasks_;
    bool shared_;                   // all threads pack together
    std::int64_t m_span_, n_span_;  // rows and columns that are packed at a time then
    std::int64_t pack_m_, pack_n_;  // and that one task packs
    bool streamed_;                 // the output goes past the caches
    bool buffered_;                 // the output's type cannot hold partial sums, and there are some
    std::int64_t splits_, split_k_;
};

}  // namespace

std::unique_ptr<Kernel> make_contract(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    return std::make_unique<Contract>(loops, types);
}

}  // namespace einstride
