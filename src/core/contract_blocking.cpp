#include "contract_blocking.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>

#include "parallel.hpp"
#include "walk.hpp"

namespace einstride {

namespace {

// Bytes the packed blocks may take: a panel of the left side stays in L1 (32 KiB and more everywhere), a block
// of the right side in L2 (half of 1 MiB). Where the output leaves L2 from one k block to the next, fewer of them are
// worth more than L1: 1024 x 1024 x 1024 float64, one core, 44.4 ms with 24 KiB, 42.8 ms with 40.
constexpr std::int64_t left_panel_bytes = 24 << 10;
constexpr std::int64_t long_panel_bytes = 40 << 10;
constexpr std::int64_t right_block_bytes = 512 << 10;
constexpr std::int64_t max_task_rows = 560;
constexpr std::int64_t max_task_columns = 2048;
constexpr std::int64_t max_buffer_columns = 512;

// The longest run of n that is turned into panels, and the vectors' worth of multiply-adds a number that turning may
// waste on columns that a run lacks (1900 products, one core: within 0.06 of the better way in runs of any length;
// `bae,ced->bdac` of 46 x 19 x 403 x 267 x 3 float32, 2 threads, turned in threes 19 ms, 3.1 so); and the shortest and
// the longest run of k that a row is turned by.
constexpr std::int64_t max_run = 512;
constexpr std::int64_t most_wasted = 2;
constexpr std::int64_t least_k_run = 4;
constexpr std::int64_t most_k_run = 64;

// Work is cut into this many tasks a thread, so that threads of unequal speed finish together, but never below
// least_task. A batch is cut into more only where each has not too few products (100 products of 100 x 100 x 100
// float64, 2 threads, in 4 tasks 0.95 of the time that 8 take; 1000 of 32 x 32 x 32 float32 1.01 to 1.05).
constexpr std::int64_t tasks_per_thread = 2;
constexpr std::int64_t most_tasks_a_thread = 4;
constexpr std::int64_t few_products = 32;
constexpr std::int64_t max_splits = 16;

// Sums of the products of a batch whose outputs share cache lines, which a task does together.
constexpr std::int64_t interleaved_bytes = 1 << 20;

// Of a side that all threads pack together and share: bytes for each of the threads that count, the most rows or
// columns, and tasks a thread that its tiles are cut into, of at least so many multiply-adds where they are many:
// threads wait for one another twice a k block (2 threads, 8 tasks a thread and 20: `aebf,dfce->abcd` at 24 float64
// 4.16 and 4.05 ms, 768 x 768 x 768 float32 4.41 and 4.21; tasks smaller than that lose it again).
constexpr std::int64_t shared_side_bytes = 1536 << 10;
constexpr std::int64_t most_sharers = 8;
constexpr std::int64_t max_span = 8192;
constexpr std::int64_t least_shared_tasks = 8;
constexpr std::int64_t most_shared_tasks = 20;
constexpr std::int64_t shared_task = 4 * least_task;
constexpr std::int64_t least_together = 16 * least_task;  // of a k block, for each thread

// Of a k block of both sides, where the next one is fetched while tiles of this one run: a part of L2.
constexpr std::int64_t max_ahead_bytes = 320 << 10;
constexpr std::int64_t page_bytes = 4096;

// Of a right side that is read where it lies, and comes from memory: rows a k block, each in a page of its own. The
// pages of one are foreseen while the next panel is fetched (10 x 3000 x 3000 float32, 2 threads: 1740 us with blocks
// of 600, 1166 with 256, 1165 so; 11 x 686 x 16900 float64 5.9 ms, 6.1, and 4.4).
constexpr std::int64_t most_pages = 128;

// A left side of as much a k block is packed a panel at a time, each when it is multiplied first.
constexpr std::int64_t far_left_bytes = 256 << 10;

// `count` cut into `parts` of equal size, in whole grains: the size of one.
std::int64_t in_parts(std::int64_t count, std::int64_t parts, std::int64_t grain) {
    return std::min(count, round_up(ceil_div(count, parts), grain));
}

// The same, into the fewest parts of at most `most`.
std::int64_t equal_part(std::int64_t count, std::int64_t most, std::int64_t grain) {
    return in_parts(count, ceil_div(count, std::max(most / grain, std::int64_t{1}) * grain), grain);
}

void list_lines(const Walk& a, std::int64_t a_count, const Walk& b, std::int64_t b_count,
                std::vector<std::int64_t>& lines) {
    if (std::abs(b.stride()) > std::abs(a.stride())) return list_lines(b, b_count, a, a_count, lines);
    lines = lines_of(a.list(a_count), b.list(b_count), false);
    // What lies in a page of its own is foreseen by the processor.
    if (!lines.empty() && std::abs(lines.back() - lines.front()) < page_bytes) lines.clear();
}

// The two innermost loops of a role; nullptr for what there is not.
std::pair<const Loop*, const Loop*> innermost(const std::vector<Loop>& loops, Role role) {
    const Loop *around = nullptr, *inner = nullptr;
    for (const Loop& loop : loops)
        if (loop.role == role) around = inner, inner = &loop;
    return {around, inner};
}

// 0, 1, 2, ... times `stride`
std::vector<std::int64_t> multiples(std::int64_t stride, std::int64_t count) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i) * stride;
    return all;
}

// Rows of the fewest panels of at most `most`, of equal size.
int even_panels(std::int64_t rows, int most) { return static_cast<int>(even_part(rows, most)); }

}  // namespace

DType storage_of(Acc acc) {
    constexpr DType storage[acc_count] = {DType::u16, DType::u32, DType::u64, DType::f32,
                                          DType::f64, DType::c64, DType::c128};
    return storage[static_cast<int>(acc)];
}

Blocking::Blocking(const std::vector<Loop>& loops, const std::vector<DType>& types)
    : level_(level()),
      acc_(acc_of(types[2])),
      parts_(is_complex(acc_) ? 2 : 1),
      real_(real_of(acc_)),
      tile_(level_.tile[static_cast<int>(real_)]),
      real_size_(size_of(real_)),
      size_(size_of(acc_)),
      convert_(types, level_),
      native_out_(is_native(types[2], acc_)) {
    for (const Loop& loop : loops) groups_.push(loop);
    batch_ = groups_.batch.count;
    m_ = groups_.m.count;
    n_ = groups_.n.count;
    k_ = groups_.k.count;
    columns_ = 2 * tile_.lanes / parts_;
    rows_ = even_panels(m_, tile_.rows);

    const bool native_left = is_native(types[0], acc_), native_right = is_native(types[1], acc_);
    choose_direct(native_left, native_right, size_of(types[1]));
    choose_rows(loops, types[0]);
    choose_turn(loops, size_of(types[1]));
    choose_blocks();
    choose_tasks();
    choose_carrying(native_right, size_of(types[1]));
    look_ahead(size_of(types[0]), size_of(types[1]));
    streamed_ = k_ <= k_block_ && splits_ == 1 && groups_.m.out.multiple_of(line_bytes) && level_.fence != nullptr &&
                past_caches(loops, types);
}

// A side that already lies as a tile wants to read it need not be packed. Measured on float32 and float64, m to
// 4000, n to 5000: the left side read where it lies takes 0.8 to 0.98 of the time up to 32 panels of n, and as long
// beyond; 1.2 to 1.7 times as long where its rows evict each other from L1. The right side takes 0.7 to 0.97 of the
// time while its rows share pages and m is small, up to 1.7 times as long where each row is a page of its own.
void Blocking::choose_direct(bool native_left, bool native_right, std::int64_t right_size) {
    const bool left_lies = native_left && groups_.m.left.regular() && groups_.k.left.regular() &&
                           (parts_ == 1 || k_ == 1 || groups_.k.left.stride() == size_);
    const bool right_lies = native_right && parts_ == 1 && groups_.n.right.regular() && groups_.k.right.regular() &&
                            (n_ == 1 || groups_.n.right.stride() == size_);
    // A 32 KiB L1 of 8 ways keeps 8 lines that are 4096 bytes apart; of one panel none is read twice.
    const auto collides = [this](std::int64_t stride, std::int64_t count) {
        return stride != 0 && stride % 2048 == 0 && count > (stride % 4096 == 0 ? 8 : 16) && n_ > columns_;
    };
    direct_left_ = left_lies && n_ <= 32 * columns_ && !collides(groups_.m.left.stride(), rows_) &&
                   !collides(groups_.k.left.stride(), k_);
    const bool dense = std::abs(groups_.k.right.stride()) <= std::min(page_bytes, 2 * n_ * real_size_);
    direct_right_ = right_lies && m_ <= (dense ? 32 : 2) * rows_;
    right_apart_ = direct_right_ && !dense;
    right_adjacent_ = parts_ == 1 && groups_.n.right.regular() && groups_.n.right.stride() == right_size;
}

// Numbers of the left side that lie along k are packed row by row, as they lie. Complex ones are then a real matrix
// of twice the depth. Those that lie along the loop around the innermost one of k are turned row by row.
void Blocking::choose_rows(const std::vector<Loop>& loops, DType left) {
    const bool complex = is_complex(acc_of(left));
    const std::int64_t size = size_of(left), step = groups_.k.left.stride() / size;
    const auto [around, inner] = innermost(loops, Role::contracted);
    if (around != nullptr && !direct_left_ && parts_ == 1 && around->strides[0] == size && inner->strides[0] != size &&
        around->extent >= tile_.lanes && inner->extent >= least_k_run && inner->extent <= most_k_run) {
        keeps_rows_ = true;
        k_run_ = inner->extent;
        along_run_ = multiples(inner->strides[0], inner->extent);
        k_turn_ = around->extent;
        along_turn_ = multiples(size, max_turn);
        return;
    }
    keeps_rows_ = !direct_left_ && complex == (parts_ == 2) && k_ >= tile_.lanes && groups_.k.left.regular() &&
                  groups_.k.left.multiple_of(size) && (step == 1 || (step == 2 && !complex));
    if (!keeps_rows_ || !complex) return;
    const DType part = storage_of(real_of(acc_of(left)));
    convert_.left = level_.pack[static_cast<int>(part)][static_cast<int>(real_)];
    groups_.k.left.push(2, size_of(part));
    listed_ = 2;
}

// Whether the right side is packed across runs of its innermost loop: its adjacent elements belong to the loop
// around that one. A run is a panel of its own then, whose last vector may lack columns: where runs are short or rows
// are many, multiplying what is lacking takes longer than turning saves.
void Blocking::choose_turn(const std::vector<Loop>& loops, std::int64_t right_size) {
    const auto [around, inner] = innermost(loops, Role::free_right);
    if (around == nullptr || parts_ > 1 || around->strides[1] != right_size || inner->strides[1] == right_size ||
        around->extent < tile_.lanes || inner->extent > max_run || 2 * inner->extent < tile_.lanes)
        return;
    const std::int64_t lacking = round_up(inner->extent, tile_.lanes) - inner->extent;
    if (m_ * lacking > most_wasted * inner->extent * tile_.lanes) return;
    run_ = inner->extent;
    turn_ = around->extent;
    adjacent_ = multiples(right_size, max_turn);
}

void Blocking::choose_blocks() {
    const std::int64_t panel_bytes = m_ * n_ * size_ > right_block_bytes ? long_panel_bytes : left_panel_bytes;
    std::int64_t deepest = std::max<std::int64_t>(panel_bytes / (rows_ * parts_ * real_size_), 64);
    const std::int64_t padded = turn_ > 1 ? round_up(run_, columns_) : columns_;
    // A block that is turned holds a register's worth of runs, or cache lines are still fetched more than once; and all
    // of those that are adjacent in memory where they fit, which are then read from end to end (`dbea,ec->abcd` of 40 x
    // 40 x 40 x 40 x 40 float64, one core: 5.9 ms with 32 of the 40 at a time, 5.6 ms).
    together_ = turn_ > 1 ? tile_.lanes : 1;
    deepest = std::min(deepest, std::max<std::int64_t>(right_block_bytes / (together_ * padded * size_), 32));
    if (right_apart_ && n_ * k_ * size_ > shared_cache) deepest = std::min(deepest, most_pages);
    k_block_ = k_ == 0 ? 1 : round_up(even_part(k_, deepest), k_run_);
    if (turn_ <= max_turn && turn_ % together_ == 0 && turn_ * run_ <= max_task_columns &&
        4 * turn_ * padded * k_block_ * size_ <= 5 * right_block_bytes)
        together_ = turn_;
    const auto columns_in = [&](std::int64_t bytes) {
        const std::int64_t fit = bytes / (k_block_ * parts_ * size_) / padded / together_;
        return std::max<std::int64_t>(fit, 1) * grain();
    };
    n_block_ = columns_in(right_block_bytes);
    const std::int64_t side_bytes = shared_side_bytes * std::clamp<std::int64_t>(num_threads(), 2, most_sharers);
    m_span_ = equal_part(m_, std::min(side_bytes / left_row(), max_span), rows_);
    n_span_ = equal_part(n_, std::min(columns_in(side_bytes), max_span), grain());
}

// Columns that are not parted.
std::int64_t Blocking::grain() const { return together_ * (turn_ > 1 ? run_ : columns_); }

// What the busiest thread has to do if tasks have so many rows and columns, in multiply-adds of a vector: a number
// takes about one to pack. (`bsd,dhk->bhsk` of 1024 x 512 x 512 float32, whose left side is not packed, 2 threads
// without a common cache: 2.71 ms if the longer side is cut, 2.40 so; CCSD's `abcd,cdij->abij` 7.36 and 7.02.)
std::int64_t Blocking::busiest(std::int64_t rows, std::int64_t columns) const {
    std::vector<std::int64_t> busy(static_cast<std::size_t>(num_threads()));
    for (std::int64_t i = 0; i < m_; i += rows)
        for (std::int64_t j = 0; j < n_; j += columns) {
            const std::int64_t m = std::min(rows, m_ - i), n = std::min(columns, n_ - j);
            *std::ranges::min_element(busy) += m * n / tile_.lanes + (direct_left_ ? 0 : m) + (direct_right_ ? 0 : n);
        }
    return *std::ranges::max_element(busy);
}

// A line of the output that holds numbers of several products would be fetched and written back for each of them, by
// one thread or another, and so would lines of sides that do. A task does all of them, in blocks of the output that
// stay in cache, and turns their sums into place.
void Blocking::choose_interleaved() {
    const std::int64_t apart = std::abs(groups_.batch.out.stride());
    if (splits_ > 1 || apart >= line_bytes) return;
    const std::int64_t fit = interleaved_bytes / (2 * tile_.rows * grain() * size_);
    interleaved_ = std::max<std::int64_t>(std::min(even_part(groups_.batch.out.run(), max_interleaved), fit), 1);
}

// Few outputs and a long k: k itself is cut, by shape alone, so that sums do not depend on the threads.
void Blocking::choose_splits() {
    const std::int64_t outputs = batch_ * m_ * n_;
    splits_ = 1;
    while (splits_ < max_splits && outputs * splits_ * size_ <= (1 << 19) && k_ >= 4 * splits_ * k_block_ &&
           batch_ * work() / splits_ >= 2 * least_task)
        splits_ *= 2;
    split_k_ = round_up(ceil_div(k_, splits_), k_run_);
    if (k_ > 0) splits_ = ceil_div(k_, split_k_);  // rounding may have left fewer
}

// How many products of the batch a task does.
void Blocking::choose_batches(std::int64_t wanted_tasks) {
    batches_ = batch_;
    if (wanted_tasks == 1) return;
    const std::int64_t repaying = std::max(least_task / work(), std::int64_t{1});
    const std::int64_t a_thread =
        std::clamp(batch_ / (few_products * num_threads()), tasks_per_thread, most_tasks_a_thread);
    if (interleaved_ > 1)
        batches_ = round_up(std::min(repaying, batch_), interleaved_);
    else
        batches_ =
            std::min(std::max(repaying, ceil_div(batch_, a_thread * num_threads())), ceil_div(batch_, wanted_tasks));
}

// Of all ways to halve rows and columns until there are enough tasks, the one that is done soonest.
void Blocking::cut_product(std::int64_t wanted_tasks) {
    const std::int64_t most_columns = buffered_ ? max_buffer_columns : max_task_columns;
    const std::int64_t m_fewest = ceil_div(m_, max_task_rows);
    const std::int64_t n_fewest = ceil_div(n_, round_up(most_columns, grain()));
    const auto fits = [&](std::int64_t m_cuts, std::int64_t n_cuts) {
        return interleaved_ == 1 ||
               interleaved_ * ceil_div(m_, m_cuts) * in_parts(n_, n_cuts, grain()) * size_ <= interleaved_bytes;
    };
    const auto enough = [&](std::int64_t m_cuts, std::int64_t n_cuts) {
        const std::int64_t parts = m_cuts * n_cuts;
        return fits(m_cuts, n_cuts) && (batches_ > interleaved_ || ceil_div(batch_, batches_) * parts >= wanted_tasks ||
                                        2 * parts * least_task > batches_ * work());
    };
    std::int64_t m_parts = m_fewest, n_parts = n_fewest;
    if (!enough(m_fewest, n_fewest)) {
        std::int64_t least = std::numeric_limits<std::int64_t>::max();
        for (std::int64_t m_cuts = m_fewest;; m_cuts *= 2) {
            std::int64_t n_cuts = n_fewest;
            while (!enough(m_cuts, n_cuts) && in_parts(n_, n_cuts, grain()) > grain()) n_cuts *= 2;
            const std::int64_t time = busiest(ceil_div(m_, m_cuts), in_parts(n_, n_cuts, grain()));
            if (time < least && fits(m_cuts, n_cuts)) least = time, m_parts = m_cuts, n_parts = n_cuts;
            if (enough(m_cuts, n_fewest) || ceil_div(m_, m_cuts) <= 2 * tile_.rows) break;
        }
    }
    task_m_ = ceil_div(m_, m_parts);
    task_n_ = in_parts(n_, n_parts, grain());
}

void Blocking::choose_tasks() {
    choose_splits();
    const std::int64_t wanted = splits_ > 1 || batch_ * work() < 2 * least_task ? 1 : tasks_per_thread * num_threads();
    if (wanted > 1) choose_interleaved();
    buffered_ = interleaved_ > 1 || (!native_out_ && k_ > k_block_);
    choose_batches(wanted);
    cut_product(wanted);
    rows_ = even_panels(task_m_, tile_.rows);
    n_block_ = std::min(n_block_, round_up(task_n_, turn_ > 1 ? run_ : columns_));
    m_tasks_ = ceil_div(m_, task_m_);
    n_tasks_ = ceil_div(n_, task_n_);
    tasks_ = ceil_div(batch_, batches_) * m_tasks_ * n_tasks_;
    choose_shared();
}

// Tasks that pack for themselves pack the left side once for each cut of n, and the right side once for each cut of
// m. Where that is much, and a k block is work enough to bring the threads together twice, they pack it together.
// Twice, as two threads do, is not much: together they take 0.94 to 1.0 of the time if they have a last cache in
// common, and 1.1 to 1.5 if not (1024 x 1024 x 1024 float64, each for itself and together: 20.6 and 20.4 ms, and 21.9
// and 26.0).
void Blocking::choose_shared() {
    const std::int64_t left = direct_left_ ? 0 : m_, right = direct_right_ ? 0 : n_;
    const std::int64_t together = m_span_ * n_span_ * k_block_ * parts_ * parts_;
    shared_ = splits_ == 1 && !buffered_ && left * n_tasks_ + right * m_tasks_ > 2 * (left + right) &&
              together >= least_together * num_threads();
    if (!shared_) return;
    const std::int64_t packs = least_shared_tasks * num_threads();
    const std::int64_t cuts = std::clamp(together / shared_task, packs, most_shared_tasks * num_threads());
    pack_m_ = equal_part(m_span_, ceil_div(m_span_, packs), rows_);
    pack_n_ = equal_part(n_span_, ceil_div(n_span_, packs), grain());
    task_n_ = equal_part(n_span_, n_block_, grain());
    // Two panels of the left side at least, for the first of a task is not fetched ahead.
    const std::int64_t rows = ceil_div(m_span_, ceil_div(cuts, ceil_div(n_span_, task_n_)));
    task_m_ = equal_part(m_span_, std::max<std::int64_t>(rows, 2 * rows_), rows_);
}

// Tiles pack the right side of a task's next block if its numbers lie along k and are moved as they are, the whole
// tiles of a block have steps enough, and both blocks fit.
void Blocking::choose_carrying(bool native_right, std::int64_t right_size) {
    const bool several = (batches_ > 1 && groups_.batch.right.stride() != 0) || split_k_ > k_block_;
    const bool lies = native_right && parts_ == 1 && !direct_right_ && turn_ == 1 && groups_.k.right.regular() &&
                      groups_.k.right.stride() == right_size && groups_.n.right.regular();
    carries_ = tile_.carry != nullptr && several && lies && !shared_ && task_n_ <= n_block_ &&
               ceil_div(task_m_, rows_) * carried * (task_n_ / columns_) >= task_n_ &&
               2 * panels_in(task_n_) * right_panel() <= right_block_bytes;
}

// Lists the cache lines of what is read next while tiles run: of a k block of either side, if a task that has all
// of m and n works through several; else of a panel of a right side whose rows lie apart, and of one of the left side.
void Blocking::look_ahead(std::int64_t left_size, std::int64_t right_size) {
    const bool several_k = k_ > k_block_;
    const std::int64_t depth = std::min(k_, k_block_);
    std::int64_t tiles = panels_in(std::min(n_, n_block_));
    if ((batches_ > 1 || several_k) && splits_ == 1 && m_tasks_ * n_tasks_ == 1 &&
        (!several_k || (groups_.k.left.regular() && groups_.k.right.regular())) &&
        (m_ * left_size + n_ * right_size) * depth <= max_ahead_bytes) {
        if (several_k || groups_.batch.left.stride() != 0)
            list_lines(groups_.m.left, m_, groups_.k.left, listed_ * depth, lines_[0]);
        if (!carries_ && (several_k || groups_.batch.right.stride() != 0))
            list_lines(groups_.n.right, n_, groups_.k.right, depth, lines_[1]);
        tiles = ceil_div(m_, rows_) * panels_in(n_);
    } else {
        right_ahead_ = direct_right_ && groups_.batch.right.distinct() * n_ * k_ * size_ > 2 * right_block_bytes;
        if (m_ > rows_) {
            if (direct_left_)
                list_lines(groups_.m.left, rows_, groups_.k.left, depth, lines_[0]);
            else
                for (std::int64_t line = 0; line < rows_ * left_row(); line += line_bytes) lines_[0].push_back(line);
            panel_ahead_ = !lines_[0].empty();
            if (!direct_left_ && !shared_ && task_m_ * left_row() >= far_left_bytes)
                list_lines(groups_.m.left, rows_, groups_.k.left, listed_ * depth, sources_);
        }
    }
    const std::size_t lines = std::max(lines_[0].size() + lines_[1].size(), sources_.size());
    if (right_ahead_) list_lines(groups_.n.right, columns_, groups_.k.right, depth, lines_[1]);
    lines_a_tile_ = ceil_div(static_cast<std::int64_t>(lines), tiles);
}

}  // namespace einstride
