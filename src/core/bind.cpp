// The extension module: everything but the repeated call, which is bind_call.cpp's.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "attend.hpp"
#include "bind_call.hpp"
#include "level.hpp"
#include "measure.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "program.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace einstride {
namespace {

using LoopData = std::tuple<int, std::int64_t, std::vector<std::int64_t>>;
using StepData = std::tuple<int, std::vector<int>, std::vector<int>, std::vector<LoopData>>;

void require(bool condition, const char* message) {
    if (!condition) throw nb::value_error(message);
}

Step make_step(const StepData& data, std::size_t slots) {
    const auto& [kernel, step_slots, codes, loop_data] = data;
    require(step_slots.size() >= 2 && step_slots.size() == codes.size(),
            "a step has an input, an output, and one type a slot");
    for (const int slot : step_slots)
        require(slot >= 0 && static_cast<std::size_t>(slot) < slots, "a step names a slot that does not exist");

    std::vector<DType> types;
    for (const int code : codes) {
        require(code >= 0 && code < dtype_count, "unknown dtype code");
        types.push_back(static_cast<DType>(code));
    }
    std::vector<Loop> loops;
    double work = 1;
    for (const auto& [role, extent, strides] : loop_data) {
        require(role >= 0 && role <= static_cast<int>(Role::contracted), "unknown role");
        require(extent >= 0, "a loop's extent is negative");
        require(strides.size() == types.size(), "a loop has one stride a slot");
        loops.push_back({static_cast<Role>(role), extent, strides});
        work *= static_cast<double>(extent);
    }
    require(kernel >= 0 && kernel <= static_cast<int>(KernelId::lanes), "unknown kernel");
    const auto id = static_cast<KernelId>(kernel);
    if (id == KernelId::fused) return {step_slots, make_fused(loops, types), work};
    require(types.size() == 3, "a contraction has two inputs");
    for (const Loop& loop : loops) require(loop.extent > 0, "a contraction has no empty loop");
    if (id == KernelId::contract) return {step_slots, make_contract(loops, types), work};
    const auto is_batch = [](const Loop& loop) { return loop.role == Role::batch; };
    require(std::any_of(loops.begin(), loops.end(), is_batch), "lanes need a batch");
    return {step_slots, make_lanes(loops, types), work};
}

void make_program(Program* place, int operands, const std::vector<StepData>& steps,
                  const std::vector<std::int64_t>& offsets, std::int64_t workspace, bool long_running) {
    require(operands >= 0, "a program has no operands");
    for (const std::int64_t offset : offsets)
        require(offset >= 0 && offset <= workspace, "an intermediate lies outside the workspace");
    Program program;
    program.operands = operands;
    program.offsets = offsets;
    program.workspace = workspace;
    program.long_running = long_running;
    const std::size_t slots = static_cast<std::size_t>(operands) + 1 + offsets.size();
    for (const StepData& step : steps) program.steps.push_back(make_step(step, slots));
    new (place) Program(std::move(program));
}

// A program of one step whose slots are the tensors that are present, in order.
Program attend_program(const std::vector<LoopData>& loop_data, const std::vector<int>& tensors,
                       const std::vector<int>& codes, double scale) {
    require(tensors.size() >= 4 && tensors.size() == codes.size(), "an attention has one type a tensor");
    std::vector<AttendTensor> present;
    std::vector<DType> types;
    Step step = {{}, nullptr, 1};
    for (std::size_t slot = 0; slot < tensors.size(); ++slot) {
        require(tensors[slot] >= 0 && tensors[slot] < attend_tensors, "unknown tensor");
        require(slot == 0 || tensors[slot] > tensors[slot - 1], "tensors are listed in order");
        require(codes[slot] >= 0 && codes[slot] < dtype_count, "unknown dtype code");
        present.push_back(static_cast<AttendTensor>(tensors[slot]));
        types.push_back(static_cast<DType>(codes[slot]));
        step.slots.push_back(static_cast<int>(slot));
    }
    std::vector<AttendLoop> loops;
    for (const auto& [role, extent, strides] : loop_data) {
        require(role >= 0 && role < attend_roles, "unknown role");
        require(extent >= 0, "a loop's extent is negative");
        require(strides.size() == types.size(), "a loop has one stride a tensor");
        loops.push_back({static_cast<AttendRole>(role), extent, strides});
    }
    // The tensors that the kernels take for granted.
    const auto has = [&present](AttendTensor tensor) {
        return std::find(present.begin(), present.end(), tensor) != present.end();
    };
    for (const AttendTensor tensor : {AttendTensor::q, AttendTensor::k, AttendTensor::v, AttendTensor::out})
        require(has(tensor), "an attention has queries, keys, values and an output");
    const bool gradient = has(AttendTensor::dq);
    for (const AttendTensor tensor : {AttendTensor::lse, AttendTensor::dout, AttendTensor::dk, AttendTensor::dv})
        require(!gradient || has(tensor), "a gradient has an lse, dout, dk and dv");
    step.kernel = (gradient ? make_attend_gradient : make_attend)(loops, present, types, scale);
    Program program;
    program.operands = static_cast<int>(tensors.size()) - 1;
    program.steps.push_back(std::move(step));
    return program;
}

void checked(bool done) {
    if (!done) throw nb::python_error();
}

}  // namespace
}  // namespace einstride

NB_MODULE(_core, m) {
    using namespace einstride;
    m.doc() = "The compiled engine: programs, the repeated call, threads and memory.";
    if (!init_calls() || !add_einsum(m.ptr())) throw nb::python_error();
    // Programs live in caches until the process ends.
    nb::set_leak_warnings(false);

    nb::class_<Program>(m, "Program", "Steps that turn operands into an output, ready to run from any thread.")
        .def("__init__", &make_program, "operands"_a, "steps"_a, "offsets"_a, "workspace"_a, "long_running"_a = true,
             nb::sig("def __init__(self, operands: int, "
                     "steps: collections.abc.Sequence[tuple[int, collections.abc.Sequence[int], "
                     "collections.abc.Sequence[int], "
                     "collections.abc.Sequence[tuple[int, int, collections.abc.Sequence[int]]]]], "
                     "offsets: collections.abc.Sequence[int], workspace: int, long_running: bool = True) -> None"),
             "A step is (kernel, slots, dtype codes, loops), a loop (role, extent, byte strides). Slots 0 .. operands "
             "- 1\n"
             "are the operands, the next is the output, later ones are intermediates at offsets into the workspace.")
        .def(
            "run",
            [](const Program& program, nb::handle operands, nb::handle out) {
                checked(run(program, operands.ptr(), out.ptr()));
            },
            "operands"_a, "out"_a,
            nb::sig("def run(self, operands: tuple[numpy.typing.NDArray[typing.Any], ...], out: "
                    "numpy.typing.NDArray[typing.Any]) -> None"),
            "Fill `out`. The arrays must have the shapes, strides and dtypes the program was lowered for.\n"
            "Raises MemoryError and KeyboardInterrupt.")
        .def("memory", &Program::memory,
             "Bytes that running takes with so many threads as are set now: intermediates, packing buffers, partial\n"
             "sums and offsets.")
        .def_ro("long_running", &Program::long_running)
        .def_ro("workspace", &Program::workspace);

    m.def("attend_program", &attend_program, "loops"_a, "tensors"_a, "types"_a, "scale"_a,
          nb::sig("def attend_program(loops: collections.abc.Sequence[tuple[int, int, collections.abc.Sequence[int]]], "
                  "tensors: collections.abc.Sequence[int], types: collections.abc.Sequence[int], scale: float) -> "
                  "Program"),
          "A program of one attention. A loop is (role, extent, byte strides), a stride for each of the tensors that\n"
          "are present; all but the last of them are the program's operands, the last is its output.");

    m.def(
        "set_miss", [](nb::callable function) { set_miss(function.ptr()); }, "function"_a,
        nb::sig("def set_miss(function: collections.abc.Callable[..., object]) -> None"),
        "Name the function einsum calls, with its own arguments, where it has no answer yet.");
    m.def(
        "remember",
        [](nb::object subscripts, nb::object operands, nb::object out, nb::object optimize, nb::object program,
           nb::object shape, nb::object strides, nb::object dtype, std::optional<int> view_of, bool zeroed) {
            Answer answer;
            if (!program.is_none()) {
                answer.owner = program.ptr();
                answer.program = nb::cast<const Program*>(program);
            }
            answer.shape = shape.ptr();
            answer.strides = strides.ptr();
            answer.dtype = dtype.ptr();
            answer.view_of = view_of.value_or(-1);
            answer.zeroed = zeroed;
            checked(remember(subscripts.ptr(), operands.ptr(), out.ptr(), optimize.ptr(), answer));
        },
        "subscripts"_a, "operands"_a, "out"_a.none(), "optimize"_a.none(), "program"_a.none(), "shape"_a, "strides"_a,
        "dtype"_a, "view_of"_a.none(), "zeroed"_a,
        nb::sig("def remember(subscripts: object, operands: tuple[numpy.typing.NDArray[typing.Any], ...], out: "
                "numpy.typing.NDArray[typing.Any] | None, "
                "optimize: object, program: Program | None, shape: tuple[int, ...], strides: tuple[int, ...], "
                "dtype: numpy.dtype[typing.Any], view_of: int | None, zeroed: bool) -> None"),
        "Answer such a call from now on without Python: by running `program` on a new array of this shape, strides "
        "and\n"
        "dtype (cleared first if `zeroed`), or on `out`; or, without a program, by a view of operand `view_of`.");
    m.def("forget", &forget, "Forget every remembered call.");
    m.def(
        "empty",
        [](nb::object shape, nb::object strides, nb::object dtype) {
            PyObject* array = empty(shape.ptr(), strides.ptr(), dtype.ptr());
            checked(array != nullptr);
            return nb::steal(array);
        },
        "shape"_a, "strides"_a, "dtype"_a,
        nb::sig("def empty(shape: tuple[int, ...], strides: tuple[int, ...], dtype: numpy.dtype[typing.Any]) -> "
                "numpy.typing.NDArray[typing.Any]"),
        "A new array, its contents undefined; a large one lies in recycled memory. The strides are dense, in any "
        "order.");

    m.def("num_threads", &num_threads,
          "The number of threads that long work runs on: OMP_NUM_THREADS, or the cores this process may use.\n\n"
          ">>> num_threads() >= 1\nTrue");
    m.def(
        "set_num_threads",
        [](int count) {
            require(count >= 1, "count must be at least 1");
            const nb::gil_scoped_release released;
            set_num_threads(count);
        },
        "count"_a,
        "Set the number of threads for the whole process. Results do not depend on it, bit for bit.\n\n"
        "Raises ValueError where `count` is less than 1.\n\n"
        ">>> set_num_threads(2)\n>>> num_threads()\n2");

    m.def(
        "set_progress", [](nb::object function) { return nb::steal(set_progress(function.ptr())); },
        "function"_a.none(),
        nb::sig("def set_progress(function: collections.abc.Callable[[float | None], object] | None) -> "
                "collections.abc.Callable[[float | None], object] | None"),
        "Name the function that hears, about ten times a second, what fraction of an einsum that takes long is done:\n"
        "0 to 1, never less than before, 1 at the end, or None where the work ended early. It is called by the thread\n"
        "that called einsum; an exception it raises stops the work. None names no function. Returns the one before.");

    m.def(
        "level_name", [] { return level().name; },
        "The instruction-set level in use; EINSTRIDE_LEVEL names a lower one.");
    m.def(
        "levels",
        [] {
            const std::vector<const char*> names = level_names();
            return std::vector<std::string>(names.begin(), names.end());
        },
        "The levels this processor runs, the best first.");
    m.def("memory_held", &memory_held, "Bytes of packing buffers and workspace held now.");
    m.def("memory_peak", &memory_peak, "The most held since reset_memory_peak().");
    m.def("reset_memory_peak", &reset_memory_peak, "Start memory_peak() from what is held now.");
    m.def("memory_cached", &memory_cached, "Bytes of freed outputs kept for later ones.");
    m.def(
        "measure_flops",
        [](int acc) {
            require(acc >= 0 && acc < acc_count, "unknown compute type");
            const nb::gil_scoped_release released;
            return measure_flops(static_cast<Acc>(acc));
        },
        "acc"_a,
        "The flops per second all threads reach on registers: 0 int16, 1 int32, 2 int64, 3 float32, 4 float64,\n"
        "5 complex64, 6 complex128 (a complex multiply-add is 2 flops here, as everywhere).");
    m.def(
        "measure_bandwidth",
        [](std::int64_t bytes) {
            require(bytes > 0, "bytes must be positive");
            const nb::gil_scoped_release released;
            return measure_bandwidth(bytes);
        },
        "bytes"_a = std::int64_t{256} << 20, "The bytes per second all threads read from a working set of this size.");
}
