#define EINSTRIDE_LEVEL avx512
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include "softmax.hpp"
#include "types.hpp"
namespace einstride::EINSTRIDE_LEVEL {
namespace {
#include "vector.inc"
#include "softmax.inc"
}
const SoftmaxKernels& softmax(Acc acc) { static const SoftmaxKernels f = make_softmax<float>(), d = make_softmax<double>(); return acc == Acc::f32 ? f : d; }
}
