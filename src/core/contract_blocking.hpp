// How a contraction is cut: what is packed and what is read where it lies, blocks that stay in caches, and tasks.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "contraction.hpp"
#include "level.hpp"
#include "loop.hpp"
#include "types.hpp"

namespace einstride {

// Runs that are turned at a time.
inline constexpr std::int64_t max_turn = 64;

// The most products of a batch that a task does together because their outputs share cache lines.
inline constexpr std::int64_t max_interleaved = 16;

// The storage type that holds what is computed as it is.
DType storage_of(Acc acc);

// What depends on the loops and the number of threads alone, chosen once.
class Blocking {
  protected:
    Blocking(const std::vector<Loop>& loops, const std::vector<DType>& types);

    // Bytes of one row of the left side in its panel, and of a whole panel of the right side.
    std::int64_t left_row() const {
        const std::int64_t bytes = k_block_ * parts_ * real_size_;
        // Rows an odd number of lines apart do not evict each other from L1.
        return keeps_rows_ ? (ceil_div(bytes, line_bytes) | 1) * line_bytes : bytes;
    }
    std::int64_t right_panel() const { return columns_ * parts_ * k_block_ * size_; }

    // Panels never straddle two runs of a side that is turned, whose blocks hold whole runs.
    std::int64_t panels_in(std::int64_t columns) const {
        return turn_ > 1 ? columns / run_ * panels_of(run_) : panels_of(columns);
    }
    // By a shift, for a product of a few tiles would wait for the division: the width of a panel is a power of two.
    std::int64_t panels_of(std::int64_t columns) const {
        return (columns + columns_ - 1) >> std::countr_zero(static_cast<std::uint64_t>(columns_));
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
    bool direct_left_, direct_right_;
    bool right_apart_;                    // that is read where it lies: its rows are pages apart
    bool right_ahead_ = false;            // that is read where it lies, from memory: panels are fetched ahead
    bool right_adjacent_;                 // real numbers along n: panels are packed some at a time
    std::vector<std::int64_t> lines_[2];  // that are fetched ahead, of the left side and of the right
    std::vector<std::int64_t> sources_;   // of a panel of the left side, if each is packed when it is multiplied first
    std::int64_t lines_a_tile_ = 0;
    bool panel_ahead_ = false;  // the lines are a panel's of the left side
    bool keeps_rows_ = false;   // a panel of the left side does, else it holds its rows' numbers side by side
    // Steps of the innermost loop of k and of the one around it, if the left side's adjacent numbers belong to the
    // latter and each row is turned as it is packed; else 1. And the left side's offsets along the two.
    std::int64_t k_run_ = 1, k_turn_ = 1;
    std::vector<std::int64_t> along_run_, along_turn_;
    int listed_ = 1;                   // reals of a number of the left side that are packed one after another
    std::int64_t run_ = 0, turn_ = 1;  // columns in a run and runs that hold adjacent elements; 1 where nothing turns
    std::int64_t together_ = 1;        // runs, or panels where nothing turns, that are not parted
    std::vector<std::int64_t> adjacent_;  // 0, 1, 2, ... elements of the right side
    std::int64_t k_block_, n_block_;
    std::int64_t task_m_, task_n_, batches_, m_tasks_, n_tasks_, tasks_;
    bool carries_;                  // tiles pack the right side of a task's next block
    bool shared_;                   // all threads pack together
    std::int64_t m_span_, n_span_;  // rows and columns that are packed at a time then
    std::int64_t pack_m_, pack_n_;  // and that one task packs
    bool streamed_;                 // the output goes past the caches
    std::int64_t interleaved_ = 1;  // products of a task whose outputs share cache lines
    bool buffered_;                 // sums are kept apart until they are whole, or those of interleaved products are
    std::int64_t splits_, split_k_;

  private:
    void choose_direct(bool native_left, bool native_right, std::int64_t right_size);
    void choose_rows(const std::vector<Loop>& loops, DType left);
    void choose_turn(const std::vector<Loop>& loops, std::int64_t right_size);
    void choose_blocks();
    std::int64_t busiest(std::int64_t rows, std::int64_t columns) const;
    void choose_tasks();
    void choose_splits();
    void choose_interleaved();
    void choose_batches(std::int64_t wanted_tasks);
    void cut_product(std::int64_t wanted_tasks);
    void choose_shared();
    void choose_carrying(bool native_right, std::int64_t right_size);
    void look_ahead(std::int64_t left_size, std::int64_t right_size);
    std::int64_t grain() const;
    // Of one product, in real multiply-adds.
    std::int64_t work() const { return m_ * n_ * k_ * parts_ * parts_; }
};

}  // namespace einstride
