#include "memory.hpp"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace einstride {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t huge_from = std::size_t{4} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
    if (bytes > SIZE_MAX - unit) throw std::bad_alloc();
    return (bytes + unit - 1) / unit * unit;
}

std::align_val_t alignment_of(std::size_t bytes) { return std::align_val_t{bytes >= huge_from ? huge_page : page}; }

char* allocate(std::size_t bytes) {
    void* memory = ::operator new(bytes, alignment_of(bytes));
#ifdef MADV_HUGEPAGE
    if (bytes >= huge_from) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return static_cast<char*>(memory);
}

void deallocate(char* memory, std::size_t bytes) noexcept { ::operator delete(memory, alignment_of(bytes)); }

std::atomic<std::int64_t> held{0};
std::atomic<std::int64_t> peak{0};

void account(std::int64_t bytes) {
    const std::int64_t now = held.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    std::int64_t seen = peak.load(std::memory_order_relaxed);
    while (seen < now && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
}

struct Scratch {
    char* data = nullptr;
    std::size_t bytes = 0;

    ~Scratch() { release(); }

    void release() {
        if (data == nullptr) return;
        deallocate(data, bytes);
        account(-static_cast<std::int64_t>(bytes));
        data = nullptr;
        bytes = 0;
    }
};
thread_local Scratch mine;

// A block starts with its capacity; what is handed out begins one cache line later.
constexpr std::size_t header = 64;
constexpr std::size_t most_blocks = 64;

std::size_t capacity_limit() {
    static const std::size_t limit = [] {
        const char* text = std::getenv("EINSTRIDE_CACHE_BYTES");
        return text != nullptr ? static_cast<std::size_t>(std::strtoull(text, nullptr, 10)) : std::size_t{256} << 20;
    }();
    return limit;
}

struct Cache {
    std::mutex mutex;
    std::vector<char*> blocks;  // the oldest first
    std::size_t bytes = 0;
};

Cache& cache() {
    // Never destroyed: arrays that hold a block may outlive every static object.
    static Cache* const instance = [] {
        auto* made = new Cache;
        made->blocks.reserve(most_blocks);
#ifndef _WIN32
        // A child must not inherit the mutex locked by a thread that it does not have.
        pthread_atfork([] { cache().mutex.lock(); }, [] { cache().mutex.unlock(); }, [] { cache().mutex.unlock(); });
#endif
        return made;
    }();
    return *instance;
}

void free_block(char* block) noexcept { deallocate(block - header, block_capacity(block) + header); }

}  // namespace

char* scratch(std::size_t bytes) {
    if (bytes > mine.bytes) {
        const std::size_t size = round_up(bytes, page);
        mine.release();
        mine.data = allocate(size);
        mine.bytes = size;
        account(static_cast<std::int64_t>(size));
    }
    return mine.data;
}

std::size_t block_capacity(const char* block) noexcept { return *reinterpret_cast<const std::size_t*>(block - header); }

char* take_block(std::size_t bytes) {
    Cache& kept = cache();
    {
        const std::lock_guard lock(kept.mutex);
        for (auto it = kept.blocks.end(); it != kept.blocks.begin();) {
            --it;
            const std::size_t capacity = block_capacity(*it);
            if (capacity < bytes || capacity - bytes > bytes / 4 + page) continue;
            char* block = *it;
            kept.blocks.erase(it);
            kept.bytes -= capacity;
            return block;
        }
    }
    if (bytes > SIZE_MAX - header) throw std::bad_alloc();
    const std::size_t size = round_up(bytes + header, page);
    char* block = allocate(size) + header;
    *reinterpret_cast<std::size_t*>(block - header) = size - header;
    return block;
}

void give_block(char* block) noexcept {
    Cache& kept = cache();
    const std::size_t capacity = block_capacity(block);
    const std::size_t limit = capacity_limit();
    if (capacity > limit) {
        free_block(block);
        return;
    }
    const std::lock_guard lock(kept.mutex);
    while (kept.bytes + capacity > limit || kept.blocks.size() == most_blocks) {
        kept.bytes -= block_capacity(kept.blocks.front());
        free_block(kept.blocks.front());
        kept.blocks.erase(kept.blocks.begin());
    }
    kept.blocks.push_back(block);
    kept.bytes += capacity;
}

Workspace::Workspace(std::size_t bytes) {
    if (bytes == 0) return;
    data_ = take_block(bytes);
    account(static_cast<std::int64_t>(block_capacity(data_)));
}

Workspace::~Workspace() {
    if (data_ == nullptr) return;
    account(-static_cast<std::int64_t>(block_capacity(data_)));
    give_block(data_);
}

std::int64_t memory_held() { return held.load(std::memory_order_relaxed); }
std::int64_t memory_peak() { return peak.load(std::memory_order_relaxed); }
void reset_memory_peak() { peak.store(memory_held(), std::memory_order_relaxed); }

std::int64_t memory_cached() {
    const std::lock_guard lock(cache().mutex);
    return static_cast<std::int64_t>(cache().bytes);
}

}  // namespace einstride
