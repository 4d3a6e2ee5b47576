// Memory of the engine's own: each thread's scratch, and blocks that are recycled instead of freed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace einstride {

// This thread's scratch memory: at least `bytes`, aligned to 64, kept and reused by later calls of the
// same thread; contents are undefined. Throws std::bad_alloc.
char* scratch(std::size_t bytes);

// A block of at least `bytes`, aligned to 64, contents undefined. A recycled one has its pages mapped
// already: a fresh 32 MB output costs more in page faults than many a contraction takes to fill it.
// Throws std::bad_alloc.
char* take_block(std::size_t bytes);
void give_block(char* block) noexcept;
std::size_t block_capacity(const char* block) noexcept;

// A block for as long as this lives, counted as workspace.
class Workspace {
  public:
    explicit Workspace(std::size_t bytes);
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    char* data() const { return data_; }

  private:
    char* data_ = nullptr;
};

// Room for pointers: on the stack where they are few.
class Pointers {
  public:
    explicit Pointers(std::size_t count) {
        if (count > few) heap_.resize(count);
        data_ = count > few ? heap_.data() : stack_.data();
    }
    Pointers(const Pointers&) = delete;
    Pointers& operator=(const Pointers&) = delete;
    char** data() { return data_; }
    char*& operator[](std::size_t i) { return data_[i]; }

  private:
    static constexpr std::size_t few = 32;
    std::array<char*, few> stack_;
    std::vector<char*> heap_;
    char** data_;
};

// Bytes of scratch and workspace held now, and the most held since reset_memory_peak().
std::int64_t memory_held();
std::int64_t memory_peak();
void reset_memory_peak();

// Bytes of blocks that wait to be taken again: at most EINSTRIDE_CACHE_BYTES (256 MiB unless it is set).
std::int64_t memory_cached();

}  // namespace einstride
