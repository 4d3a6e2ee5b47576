// Element types and the types the engine computes in.
#pragma once

#include <cstdint>

namespace einstride {

// The storage type of a tensor's elements. The order is the one Python's program.DTYPES uses.
enum class DType : std::uint8_t { b8, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64, c64, c128 };
inline constexpr int dtype_count = 15;

// The type products are formed and summed in. Integers narrower than 16 bits and their unsigned
// kin share a lane type: arithmetic modulo 2^16 is right modulo 2^8 too. bool is computed as 0/1 in
// f32: a sum of non-negative terms never returns to zero, so "nonzero" is the logical or.
enum class Acc : std::uint8_t { i16, i32, i64, f32, f64, c64, c128 };
inline constexpr int acc_count = 7;

constexpr Acc acc_of(DType type) {
    switch (type) {
        case DType::i8:
        case DType::u8:
        case DType::i16:
        case DType::u16: return Acc::i16;
        case DType::i32:
        case DType::u32: return Acc::i32;
        case DType::i64:
        case DType::u64: return Acc::i64;
        case DType::b8:
        case DType::f16:
        case DType::bf16:
        case DType::f32: return Acc::f32;
        case DType::f64: return Acc::f64;
        case DType::c64: return Acc::c64;
        case DType::c128: return Acc::c128;
    }
    __builtin_unreachable();
}

constexpr std::int64_t size_of(DType type) {
    constexpr std::int64_t sizes[dtype_count] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8, 8, 16};
    return sizes[static_cast<int>(type)];
}

constexpr std::int64_t size_of(Acc acc) {
    constexpr std::int64_t sizes[acc_count] = {2, 4, 8, 4, 8, 8, 16};
    return sizes[static_cast<int>(acc)];
}

constexpr bool is_complex(Acc acc) { return acc == Acc::c64 || acc == Acc::c128; }

// The real type whose multiply-adds a compute type is made of.
constexpr Acc real_of(Acc acc) { return acc == Acc::c64 ? Acc::f32 : acc == Acc::c128 ? Acc::f64 : acc; }

// Whether a tensor of this type already holds what the engine computes with, bit for bit.
constexpr bool is_native(DType type, Acc acc) {
    return acc_of(type) == acc && size_of(type) == size_of(acc) && type != DType::b8;
}

}  // namespace einstride
