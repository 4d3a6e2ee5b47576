// Attention: a contraction whose reduced label is weighted, and the weights of it are normalised (a softmax).
//
//   out[b, i, e] = sum over j of w[b, i, j] * v[b, j, e],  w[b, i, :] = softmax of scale * sum over d of q * k + bias
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "program.hpp"
#include "types.hpp"

namespace einstride {

// What a loop of an attention does: batch (all tensors), query (a row of scores), key (what the softmax runs along),
// depth (contracted into a score) and value (an axis of the output).
enum class AttendRole : std::uint8_t { batch, query, key, depth, value };
inline constexpr int attend_roles = 5;

// The tensors in the order programs list them. `mask` is kept where it is true; `first`, `end` and `lengths` are int64
// and limit the keys of a query to first <= j < min(end, lengths); `lse` is the log of the sum of exponentials, of the
// compute type. The last five belong to the gradient, in which `lse` and `out` are inputs.
enum class AttendTensor : std::uint8_t {
    // clang-format off
    q, k, v, bias, mask, first, end, lengths, lse, out, dout, dbias, dq, dk, dv
    // clang-format on
};
inline constexpr int attend_tensors = 15;

struct AttendLoop {
    AttendRole role;
    std::int64_t extent;
    std::vector<std::int64_t> strides;  // bytes; one a tensor that is present
};

// `present` and `types` say which tensors there are, in order, and of which types.
std::unique_ptr<Kernel> make_attend(const std::vector<AttendLoop>& loops, const std::vector<AttendTensor>& present,
                                    const std::vector<DType>& types, double scale);
std::unique_ptr<Kernel> make_attend_gradient(const std::vector<AttendLoop>& loops,
                                             const std::vector<AttendTensor>& present, const std::vector<DType>& types,
                                             double scale);

}  // namespace einstride
