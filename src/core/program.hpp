// A Program: the steps that turn operands into an output, ready to run any number of times.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "loop.hpp"
#include "parallel.hpp"
#include "types.hpp"

namespace einstride {

// One kernel bound to its loops. Prepared once, run many times, from any thread.
class Kernel {
  public:
    virtual ~Kernel() = default;
    // tensors: the inputs' first elements, then the output's. False when the monitor stopped it.
    virtual bool run(char* const* tensors, const Monitor& monitor) const = 0;
    // Bytes that all threads together take meanwhile: packing buffers, partial sums and offsets. Numbers that do not
    // lie at multiples of their size may be packed besides.
    virtual std::int64_t memory() const = 0;
};

// `types` has one entry a tensor, inputs first, output last; every loop has as many strides.
std::unique_ptr<Kernel> make_contract(const std::vector<Loop>& loops, const std::vector<DType>& types);
std::unique_ptr<Kernel> make_fused(const std::vector<Loop>& loops, const std::vector<DType>& types);
std::unique_ptr<Kernel> make_lanes(const std::vector<Loop>& loops, const std::vector<DType>& types);

enum class KernelId : std::uint8_t { contract, fused, lanes };

struct Step {
    std::vector<int> slots;  // the inputs' slots, then the output's
    std::unique_ptr<Kernel> kernel;
    double work;  // how much there is to do, in terms added up
};

// Slots 0..operands-1 are the operands, slot `operands` is the output, later ones are intermediates
// at a byte offset into one workspace.
struct Program {
    Program() = default;
    Program(Program&&) = default;  // and no copies: a kernel has one owner

    int operands = 0;
    std::vector<std::int64_t> offsets;  // of the intermediates
    std::int64_t workspace = 0;         // bytes
    bool long_running = true;           // worth letting other Python threads run meanwhile
    std::vector<Step> steps;

    // Throws std::bad_alloc. False when the monitor stopped it.
    bool run(char* const* tensors, const Monitor& monitor) const;
    // Bytes that running takes: the intermediates' and the most of any step.
    std::int64_t memory() const;
};

}  // namespace einstride
