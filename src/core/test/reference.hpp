// Kernels against a nest of plain loops over any strides and types, on small numbers whose sums are exact.
#pragma once

#include <algorithm>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "level.hpp"
#include "memory.hpp"
#include "program.hpp"

namespace einstride {

using std::int64_t;
#if defined(__aarch64__)
using Half = __fp16;  // compilers there have the other name only since GCC 13
#else
using Half = _Float16;
#endif
using Value = std::complex<double>;  // holds every small integer and its products exactly

inline std::mt19937_64 random_bits(20240229);

inline int64_t pick(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_bits() % static_cast<std::uint64_t>(high - low + 1));
}
inline bool chance(int percent) { return pick(1, 100) <= percent; }

template <class T>
void put(char* at, T value) {
    std::memcpy(at, &value, sizeof value);
}
template <class T>
T get(const char* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

inline void write(DType type, char* at, Value value) {
    const double real = value.real();
    const auto whole = static_cast<std::uint64_t>(static_cast<int64_t>(real));
    switch (type) {
        case DType::b8: return put<std::uint8_t>(at, real != 0);
        case DType::i8:
        case DType::u8: return put(at, static_cast<std::uint8_t>(whole));
        case DType::i16:
        case DType::u16: return put(at, static_cast<std::uint16_t>(whole));
        case DType::i32:
        case DType::u32: return put(at, static_cast<std::uint32_t>(whole));
        case DType::i64:
        case DType::u64: return put(at, whole);
        case DType::f16: return put(at, static_cast<Half>(real));
        case DType::bf16: {
            std::uint32_t bits;
            const float single = static_cast<float>(real);
            std::memcpy(&bits, &single, sizeof bits);
            return put(at, static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16));
        }
        case DType::f32: return put(at, static_cast<float>(real));
        case DType::f64: return put(at, real);
        case DType::c64: return put(at, std::complex<float>(value));
        case DType::c128: return put(at, value);
    }
}

inline Value read(DType type, const char* at) {
    switch (type) {
        case DType::b8: return static_cast<double>(get<std::uint8_t>(at) != 0);
        case DType::i8: return get<std::int8_t>(at);
        case DType::i16: return get<std::int16_t>(at);
        case DType::i32: return get<std::int32_t>(at);
        case DType::i64: return static_cast<double>(get<int64_t>(at));
        case DType::u8: return get<std::uint8_t>(at);
        case DType::u16: return get<std::uint16_t>(at);
        case DType::u32: return get<std::uint32_t>(at);
        case DType::u64: return static_cast<double>(get<std::uint64_t>(at));
        case DType::f16: return static_cast<double>(get<Half>(at));
        case DType::bf16: {
            const std::uint32_t bits = static_cast<std::uint32_t>(get<std::uint16_t>(at)) << 16;
            float single;
            std::memcpy(&single, &bits, sizeof single);
            return single;
        }
        case DType::f32: return get<float>(at);
        case DType::f64: return get<double>(at);
        case DType::c64: return get<std::complex<float>>(at);
        case DType::c128: return get<Value>(at);
    }
    return 0;
}

inline bool is_signed(DType type) {
    return type != DType::b8 && type != DType::u8 && type != DType::u16 && type != DType::u32 && type != DType::u64;
}
inline bool is_complex(DType type) { return type == DType::c64 || type == DType::c128; }

// The memory of one tensor: what its loops reach, and some bytes around it that nobody may touch.
struct Tensor {
    std::vector<char> memory;
    int64_t first = 0;
    char* at() { return memory.data() + first; }
};

inline Tensor make_tensor(const std::vector<Loop>& loops, std::size_t which, DType type) {
    int64_t low = 0, high = size_of(type);
    for (const Loop& loop : loops) {
        const int64_t reach = (std::max<int64_t>(loop.extent, 1) - 1) * loop.strides[which];
        (reach < 0 ? low : high) += reach;
    }
    Tensor tensor;
    tensor.first = 32 - low;
    tensor.memory.assign(static_cast<std::size_t>(high - low + 64), 'x');
    return tensor;
}

// Calls body(offsets of the tensors) for every point of the loops, the first loop outermost.
template <class Body>
void every_point(const std::vector<Loop>& loops, std::size_t depth, std::vector<int64_t>& at, const Body& body) {
    if (depth == loops.size()) return body(at);
    const Loop& loop = loops[depth];
    for (int64_t i = 0; i < loop.extent; ++i) {
        every_point(loops, depth + 1, at, body);
        for (std::size_t t = 0; t < at.size(); ++t) at[t] += loop.strides[t];
    }
    for (std::size_t t = 0; t < at.size(); ++t) at[t] -= loop.extent * loop.strides[t];
}

inline std::string describe(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    std::string text = "types";
    for (const DType type : types) text += " " + std::to_string(static_cast<int>(type));
    for (const Loop& loop : loops) {
        text += loop.role == Role::contracted ? "; sum " : "; ";
        text += std::to_string(loop.extent) + " x";
        for (const int64_t stride : loop.strides) text += " " + std::to_string(stride);
    }
    return text;
}

inline Value small_value(DType type) {
    if (type == DType::b8) return static_cast<double>(pick(0, 1));
    const auto part = [&] { return static_cast<double>(pick(is_signed(type) ? -2 : 0, 2)); };
    return is_complex(type) ? Value(part(), part()) : Value(part());
}

using Make = std::unique_ptr<Kernel> (*)(const std::vector<Loop>& loops, const std::vector<DType>& types);

inline void check_case(Make make, const std::vector<Loop>& loops, const std::vector<DType>& types) {
    const std::size_t count = types.size();
    std::vector<Tensor> tensors;
    for (std::size_t t = 0; t < count; ++t) tensors.push_back(make_tensor(loops, t, types[t]));
    std::vector<int64_t> at(count, 0);
    every_point(loops, 0, at, [&](const std::vector<int64_t>& offsets) {
        for (std::size_t t = 0; t + 1 < count; ++t)
            write(types[t], tensors[t].at() + offsets[t], small_value(types[t]));
    });

    // The sums, in 16 bytes for each place of the output.
    std::vector<Loop> outer, inner;
    for (const Loop& loop : loops) (loop.role == Role::contracted ? inner : outer).push_back(loop);
    Tensor expected = tensors.back();
    std::vector<char*> places;
    for (Tensor& tensor : tensors) places.push_back(tensor.at());
    const std::unique_ptr<Kernel> kernel = make(loops, types);
    // A thread's scratch is whole pages, and a recycled block up to a quarter larger than what is asked for.
    const int64_t held = memory_held(), most = kernel->memory() + kernel->memory() / 4 + (num_threads() + 2) * 4096;
    reset_memory_peak();
    CHECK(kernel->run(places.data(), Monitor{}));
    CHECK(memory_peak() - held <= most);

    bool equal = true;
    every_point(outer, 0, at, [&](const std::vector<int64_t>& base) {
        Value sum = 0;
        std::vector<int64_t> point = base;
        every_point(inner, 0, point, [&](const std::vector<int64_t>& offsets) {
            Value product = 1;
            for (std::size_t t = 0; t + 1 < count; ++t) product *= read(types[t], tensors[t].at() + offsets[t]);
            sum += product;
        });
        char* want = expected.at() + base.back();
        const char* got = tensors.back().at() + base.back();
        write(types.back(), want, sum);
        equal = equal && read(types.back(), want) == read(types.back(), got);
        std::memcpy(want, got, static_cast<std::size_t>(size_of(types.back())));
    });
    const bool untouched = expected.memory == tensors.back().memory;
    CHECK(equal);
    CHECK(untouched);
    if (!equal || !untouched) std::fprintf(stderr, "    %s\n", describe(loops, types).c_str());
}

}  // namespace einstride
