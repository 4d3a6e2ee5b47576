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

// Memory that is taken piece by piece, each aligned to 64; without a base it only counts.
class Arena {
  public:
    explicit Arena(char* base) : base_(base) {}

    template <class T>
    T* take(std::int64_t count) {
        T* const piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += (count * static_cast<std::int64_t>(sizeof(T)) + 63) / 64 * 64;
        return piece;
    }
    std::int64_t used() const { return used_; }

  private:
    char* base_;
    std::int64_t used_ = 0;
};

// A Room is made as Room(arena, args...), by pieces it takes of the arena. Their bytes, and one in this thread's
// scratch.
template <class Room, class... Args>
std::int64_t bytes_of(const Args&... args) {
    Arena counts(nullptr);
    Room(counts, args...);
    return counts.used();
}
template <class Room, class... Args>
Room in_scratch(const Args&... args) {
    Arena arena(scratch(static_cast<std::size_t>(bytes_of<Room>(args...))));
    return Room(arena, args...);
}

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
