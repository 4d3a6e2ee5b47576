// The inner kernels of attention that are no products: what a level provides.
//
// A strip holds a score for each of `keys` keys (rows, `ld` numbers apart) and each query of one or two vectors
// (columns). What is one number a query is an array of as many as the vectors have lanes. Scores are in units of
// log(2): exponentials are powers of two.
#pragma once

#include <cstdint>

namespace einstride {

// strip[j][i] = -inf unless first[i] <= j < end[i].
using ClipFn = void (*)(void* strip, std::int64_t keys, std::int64_t ld, const void* first, const void* end);

// strip[j][i] += factor * bias[j][i].
using AddBiasFn = void (*)(void* strip, std::int64_t keys, std::int64_t ld, const void* bias, std::int64_t bias_ld,
                           double factor);

// strip[j][i] = -inf where keep[j][i] is zero.
using KeepFn = void (*)(void* strip, std::int64_t keys, std::int64_t ld, const void* keep, std::int64_t keep_ld);

// Whether any of keep is nonzero.
using AnyFn = bool (*)(const void* keep, std::int64_t keys, std::int64_t ld);

// One step of an online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867): `most` and `sum` of the keys seen so
// far take the strip's keys in, strip = 2^(strip - most), and what was summed under the old `most` is to be multiplied
// by `factor`.
using SoftenFn = void (*)(void* strip, std::int64_t keys, std::int64_t ld, void* most, void* sum, void* factor);

// x[r][i] *= factor[i].
using RescaleFn = void (*)(void* x, std::int64_t rows, std::int64_t ld, const void* factor);

// strip = 2^(strip - lse).
using WeighFn = void (*)(void* strip, std::int64_t keys, std::int64_t ld, const void* lse);

// slope = weight * (slope - mean): the derivative of a softmax.
using SlopeFn = void (*)(void* slope, std::int64_t keys, std::int64_t ld, const void* weight, const void* mean);

// sum[i] = sum over r of a[r][i] * b[r][i].
using ColumnDotFn = void (*)(const void* a, const void* b, std::int64_t rows, std::int64_t ld, void* sum);

// x[i] *= factor, for i < count.
using MultiplyFn = void (*)(void* x, std::int64_t count, double factor);

// x[i] = 2^x[i] for i < count, as the functions above compute it: at most 1.1 ulp off, or 1.3 where there is no fused
// multiply-add. Results below the least normal number are flushed to 0; NaN of NaN. Arguments are at most 126 in float
// and 1022 in double.
using Exp2Fn = void (*)(void* x, std::int64_t count);

// Tables are indexed by the number of vectors less one.
struct SoftmaxKernels {
    ClipFn clip[2];
    AddBiasFn add_bias[2];
    KeepFn keep[2];
    AnyFn any[2];
    SoftenFn soften[2];
    RescaleFn rescale[2];
    WeighFn weigh[2];
    SlopeFn slope[2];
    ColumnDotFn column_dot[2];
    MultiplyFn multiply;
    Exp2Fn exp2;
};

}  // namespace einstride
