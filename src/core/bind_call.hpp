// The calls that arrive by the thousand: the compiled path of einsum, in the plain C API.
#pragma once

#include <Python.h>

#include "program.hpp"

namespace einstride {

// Must come first: loads NumPy's C API. False with a Python error set.
bool init_calls();

// Adds `einsum` to the module. False with a Python error set.
bool add_einsum(PyObject* module);

// The function einsum calls, with its own arguments, when it does not know a call yet.
void set_miss(PyObject* function);

// The function that hears, now and then, how far long work is; None for none. Returns a reference to the one before.
PyObject* set_progress(PyObject* function);

// What einsum does when a call comes again. `subscripts` is a string, a Plan, or a tuple of label lists, the output's
// (or None) last; `operands` is a tuple of arrays, `out` an array or None. Their types, shapes and strides and the two
// objects are what a later call is recognised by.
struct Answer {
    PyObject* owner = nullptr;         // the object that keeps `program` alive
    const Program* program = nullptr;  // nullptr: a view
    PyObject* shape = nullptr;         // tuples of int
    PyObject* strides = nullptr;       // bytes
    PyObject* dtype = nullptr;
    int view_of = -1;     // the operand that a view shows
    bool zeroed = false;  // the program does not write every element
};

// False with a Python error set.
bool remember(PyObject* subscripts, PyObject* operands, PyObject* out, PyObject* optimize, const Answer& answer);
void forget();

// A new array. Large ones come from recycled blocks. nullptr with a Python error set.
PyObject* empty(PyObject* shape, PyObject* strides, PyObject* dtype);

// Runs a program on a tuple of arrays. False with a Python error set.
bool run(const Program& program, PyObject* operands, PyObject* out);

}  // namespace einstride
