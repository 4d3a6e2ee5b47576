#include "bind_call.hpp"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_1_25_API_VERSION
#include <numpy/arrayobject.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace einstride {
namespace {

PyArrayObject* as_array(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

class Reference {
  public:
    Reference() = default;
    explicit Reference(PyObject* borrowed) : object_(Py_XNewRef(borrowed)) {}
    static Reference stolen(PyObject* owned) {
        Reference reference;
        reference.object_ = owned;
        return reference;
    }
    Reference(Reference&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Reference& operator=(Reference&& other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    ~Reference() { Py_XDECREF(object_); }
    PyObject* get() const { return object_; }

  private:
    PyObject* object_ = nullptr;
};

// ---- Output arrays ------------------------------------------------------------------------------

// Below this, malloc hands out memory whose pages are mapped already.
constexpr std::int64_t recycle_from = 256 * 1024;

void* recycled_malloc(void*, std::size_t bytes) {
    try {
        return take_block(bytes);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void* recycled_calloc(void* context, std::size_t count, std::size_t bytes) {
    void* block = recycled_malloc(context, count * bytes);
    if (block != nullptr) std::memset(block, 0, count * bytes);
    return block;
}

void recycled_free(void*, void* block, std::size_t) {
    if (block != nullptr) give_block(static_cast<char*>(block));
}

void* recycled_realloc(void* context, void* block, std::size_t bytes) {
    void* larger = recycled_malloc(context, bytes);
    if (larger == nullptr || block == nullptr) return larger;
    std::memcpy(larger, block, std::min(bytes, block_capacity(static_cast<char*>(block))));
    recycled_free(context, block, 0);
    return larger;
}

PyDataMem_Handler recycled = {
    "einstride", 1, {nullptr, recycled_malloc, recycled_calloc, recycled_realloc, recycled_free}};
PyObject* recycled_capsule = nullptr;

// False with a Python error set.
bool to_intp(PyObject* tuple, std::vector<npy_intp>& values) {
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a shape and its strides are tuples of int");
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
        values.push_back(PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, i)));
        if (values.back() == -1 && PyErr_Occurred() != nullptr) return false;
    }
    return true;
}

// The type, shape and strides of an array to make.
struct Layout {
    Reference descr;
    std::vector<npy_intp> shape;
    std::vector<npy_intp> strides;
    std::int64_t bytes = 0;

    int axes() const { return static_cast<int>(shape.size()); }
    PyArray_Descr* new_descr() const { return reinterpret_cast<PyArray_Descr*>(Py_NewRef(descr.get())); }

    // False with a Python error set.
    bool read(PyObject* shape_tuple, PyObject* stride_tuple, PyObject* dtype) {
        if (!to_intp(shape_tuple, shape) || !to_intp(stride_tuple, strides)) return false;
        if (!PyArray_DescrCheck(dtype) || shape.size() != strides.size()) {
            PyErr_SetString(PyExc_ValueError, "a new array needs a dtype, a shape, and one stride an axis");
            return false;
        }
        descr = Reference(dtype);
        bytes = PyDataType_ELSIZE(reinterpret_cast<PyArray_Descr*>(dtype));
        for (const npy_intp extent : shape) bytes *= extent;
        return true;
    }
};

// nullptr with a Python error set.
PyObject* new_array(const Layout& layout) {
    const auto make = [&layout] {
        return PyArray_NewFromDescr(&PyArray_Type, layout.new_descr(), layout.axes(), layout.shape.data(),
                                    layout.strides.data(), nullptr, 0, nullptr);
    };
    if (layout.bytes < recycle_from) return make();
    PyObject* previous = PyDataMem_SetHandler(recycled_capsule);
    if (previous == nullptr) return nullptr;
    PyObject* array = make();
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* trace = nullptr;
    PyErr_Fetch(&type, &value, &trace);
    PyObject* ours = PyDataMem_SetHandler(previous);
    Py_DECREF(previous);
    Py_XDECREF(ours);
    PyErr_Restore(type, value, trace);
    return array;
}

// ---- Running ------------------------------------------------------------------------------------

// Never destroyed, as `table` below.
Reference& progress_function = *new Reference;
constexpr auto progress_interval = std::chrono::milliseconds(100);

// The interpreter during long work: released, and asked now and then whether a signal has come. Whoever wants to know
// how far the work is hears of it then.
class Released {
  public:
    Released() : progress_(progress_function.get()), told_(Clock::now()), state_(PyEval_SaveThread()) {}

    // False with a Python error set, which may be the one that ended the work.
    bool finish(bool done) {
        PyEval_RestoreThread(std::exchange(state_, nullptr));
        if (!heard_) return done;
        if (done) return tell(1);
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        if (!call(Py_None)) PyErr_Clear();
        PyErr_Restore(type, value, trace);
        return false;
    }

    static bool poll(void* self, double done) {
        auto& released = *static_cast<Released*>(self);
        PyEval_RestoreThread(released.state_);
        const bool stop = PyErr_CheckSignals() != 0 || !released.tell_now_and_then(done);
        released.state_ = PyEval_SaveThread();
        return stop;
    }

    ~Released() {
        if (state_ != nullptr) finish(false);
    }
    Released(const Released&) = delete;
    Released& operator=(const Released&) = delete;

  private:
    using Clock = std::chrono::steady_clock;

    bool tell_now_and_then(double done) {
        if (progress_.get() == nullptr) return true;
        const auto now = Clock::now();
        if (now - told_ < progress_interval) return true;
        told_ = now;
        heard_ = true;
        return tell(done);
    }

    bool tell(double done) {
        const Reference number = Reference::stolen(PyFloat_FromDouble(done));
        return number.get() != nullptr && call(number.get());
    }

    bool call(PyObject* argument) {
        return Reference::stolen(PyObject_CallOneArg(progress_.get(), argument)).get() != nullptr;
    }

    const Reference progress_;
    bool heard_ = false;  // it was told something, and so is told the end
    Clock::time_point told_;
    PyThreadState* state_;
};

// False with a Python error set.
bool run_arrays(const Program& program, PyObject* const* operands, Py_ssize_t count, PyObject* out) {
    try {
        Pointers tensors(static_cast<std::size_t>(count) + 1);
        for (Py_ssize_t i = 0; i < count; ++i)
            tensors[static_cast<std::size_t>(i)] = PyArray_BYTES(as_array(operands[i]));
        tensors[static_cast<std::size_t>(count)] = PyArray_BYTES(as_array(out));
        if (!program.long_running) return program.run(tensors.data(), Monitor{});
        Released released;
        return released.finish(program.run(tensors.data(), Monitor{Released::poll, &released}));
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
}

// ---- The calls seen before ----------------------------------------------------------------------

constexpr Py_ssize_t most_words = 256;  // of a key; a call that needs more is not remembered
constexpr Py_ssize_t most_operands = 32;

// A call as far as its answer depends on it. Two keys are one when every value is: the hash only finds the place.
struct Key {
    PyObject* subscripts;
    PyObject* optimize;
    Py_ssize_t count = 0;
    std::uint64_t hash = 0;
    std::array<std::int64_t, most_words> words;

    void put(std::int64_t word) {
        words[static_cast<std::size_t>(count++)] = word;
        hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x9E3779B97F4A7C15U;
        hash ^= hash >> 29;
    }

    // False where an array is not one that the compiled path takes.
    bool put_array(PyObject* object) {
        if (!PyArray_CheckExact(object)) return false;
        auto* array = as_array(object);
        const int axes = PyArray_NDIM(array);
        if (!PyArray_ISNOTSWAPPED(array) || count + 1 + 2 * axes > most_words) return false;
        put(static_cast<std::int64_t>(PyArray_TYPE(array)) << 8 | axes);
        const npy_intp* shape = PyArray_DIMS(array);
        const npy_intp* strides = PyArray_STRIDES(array);
        for (int i = 0; i < axes; ++i) put(shape[i]);
        for (int i = 0; i < axes; ++i) put(strides[i]);
        return true;
    }

    // False where a label is neither a whole number nor `...`: other objects may compare equal to those.
    bool put_labels(PyObject* labels) {
        constexpr std::int64_t ellipsis = INT64_MIN;
        if (!PyList_CheckExact(labels) && !PyTuple_CheckExact(labels)) return false;
        const Py_ssize_t length = PySequence_Fast_GET_SIZE(labels);
        if (count + 1 + length > most_words) return false;
        put(length);
        for (Py_ssize_t i = 0; i < length; ++i) {
            PyObject* label = PySequence_Fast_GET_ITEM(labels, i);
            if (label == Py_Ellipsis) {
                put(ellipsis);
                continue;
            }
            int overflow = 0;
            if (!PyLong_CheckExact(label)) return false;
            const std::int64_t number = PyLong_AsLongLongAndOverflow(label, &overflow);
            if (overflow != 0 || number == ellipsis) return false;
            put(number);
        }
        return true;
    }
};

// Strings by value, other objects (a Plan, True, None) by identity.
bool same(PyObject* a, PyObject* b) {
    if (a == b) return true;
    if (!PyUnicode_CheckExact(a) || !PyUnicode_CheckExact(b)) return false;
    const Py_ssize_t length = PyUnicode_GET_LENGTH(a);
    const auto kind = PyUnicode_KIND(a);
    return length == PyUnicode_GET_LENGTH(b) && kind == PyUnicode_KIND(b) &&
           std::memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), static_cast<std::size_t>(length * kind)) == 0;
}

std::uint64_t hash_of(PyObject* object) {
    if (!PyUnicode_CheckExact(object)) return reinterpret_cast<std::uintptr_t>(object) >> 4;
    return static_cast<std::uint64_t>(PyObject_Hash(object));  // kept in the string; a string's does not fail
}

PyObject* default_optimize = nullptr;  // 'auto'

// The terms of a call: a subscripts string or a Plan; or None, and then a list of labels for each operand and for the
// output, which may be nullptr.
struct Terms {
    PyObject* subscripts;
    PyObject* const* labels = nullptr;
    Py_ssize_t distance = 1;  // from one operand's labels to the next
    PyObject* output = nullptr;
};

// False where the compiled path does not take the call.
bool describe(Key& key, const Terms& terms, PyObject* const* operands, Py_ssize_t count, PyObject* out,
              PyObject* optimize) {
    if (count > most_operands) return false;
    key.subscripts = terms.subscripts;
    key.optimize = optimize;
    key.hash = hash_of(terms.subscripts);
    if (optimize != default_optimize) key.hash += hash_of(optimize);
    key.put(count << 2 | (out != nullptr ? 2 : 0) | (terms.output != nullptr ? 1 : 0));
    for (Py_ssize_t i = 0; i < count; ++i)
        if (!key.put_array(operands[i])) return false;
    if (out != nullptr && !key.put_array(out)) return false;
    if (terms.labels == nullptr) return true;
    for (Py_ssize_t i = 0; i < count; ++i)
        if (!key.put_labels(terms.labels[i * terms.distance])) return false;
    return terms.output == nullptr || key.put_labels(terms.output);
}

// The bytes that an array spans, relative to its first element.
struct Span {
    std::int64_t low = 0;
    std::int64_t high = 0;
};

Span span_of(PyArrayObject* array) {
    Span span{0, PyArray_ITEMSIZE(array)};
    for (int i = 0; i < PyArray_NDIM(array); ++i) {
        if (PyArray_DIM(array, i) == 0) return Span{};
        const std::int64_t reach = (PyArray_DIM(array, i) - 1) * PyArray_STRIDE(array, i);
        (reach < 0 ? span.low : span.high) += reach;
    }
    return span;
}

struct Entry {
    std::uint64_t hash = 0;
    Reference subscripts;
    Reference optimize;
    std::vector<std::int64_t> words;
    Reference owner;
    const Program* program = nullptr;
    Layout layout;
    int view_of = -1;
    bool zeroed = false;
    std::vector<Span> spans;  // of the operands, then of out; empty without out

    bool matches(const Key& key) const {
        return hash == key.hash && static_cast<Py_ssize_t>(words.size()) == key.count &&
               same(subscripts.get(), key.subscripts) && same(optimize.get(), key.optimize) &&
               std::memcmp(words.data(), key.words.data(), words.size() * sizeof(words[0])) == 0;
    }
};

// Sets of a few places each: a new entry takes the place of the oldest of its set.
class Table {
  public:
    const Entry* find(const Key& key) const {
        for (const auto& entry : sets_[key.hash % set_count].ways)
            if (entry && entry->matches(key)) return entry.get();
        return nullptr;
    }

    void insert(const Key& key, std::unique_ptr<Entry> entry) {
        Set& set = sets_[key.hash % set_count];
        std::size_t way = 0;
        while (way < way_count && set.ways[way] && !set.ways[way]->matches(key)) ++way;
        if (way == way_count) way = set.next++ % way_count;
        // The old entry dies last, when the table is whole again: its objects may run Python code.
        std::swap(set.ways[way], entry);
    }

    void clear() {
        for (Set& set : sets_)
            for (auto& way : set.ways) std::unique_ptr<Entry>().swap(way);
    }

  private:
    static constexpr std::size_t set_count = 512;
    static constexpr std::size_t way_count = 4;
    struct Set {
        std::array<std::unique_ptr<Entry>, way_count> ways;
        unsigned next = 0;
    };
    std::array<Set, set_count> sets_;
};

// Never destroyed: at exit the interpreter is gone before static objects are.
Table& table = *new Table;
PyObject* miss_function = nullptr;

bool overlaps_output(const Entry& entry, PyObject* const* operands, PyObject* out) {
    const auto place = [&entry](PyObject* array, std::size_t i) {
        const auto first = reinterpret_cast<std::intptr_t>(PyArray_DATA(as_array(array)));
        return std::pair{first + entry.spans[i].low, first + entry.spans[i].high};
    };
    const std::size_t last = entry.spans.size() - 1;
    const auto [out_low, out_high] = place(out, last);
    for (std::size_t i = 0; i < last; ++i) {
        const auto [low, high] = place(operands[i], i);
        if (low < out_high && out_low < high) return true;
    }
    return false;
}

PyObject* view(const Layout& layout, PyObject* operand) {
    auto* array = as_array(operand);
    PyObject* result = PyArray_NewFromDescr(&PyArray_Type, layout.new_descr(), layout.axes(), layout.shape.data(),
                                            layout.strides.data(), PyArray_DATA(array),
                                            PyArray_FLAGS(array) & NPY_ARRAY_WRITEABLE, nullptr);
    if (result == nullptr) return nullptr;
    if (PyArray_SetBaseObject(as_array(result), Py_NewRef(operand)) < 0) {
        Py_DECREF(result);
        return nullptr;
    }
    return PyArray_Return(as_array(result));
}

// The answer of a call seen before. `out` may be nullptr.
PyObject* answer(const Entry& entry, PyObject* const* operands, Py_ssize_t count, PyObject* out) {
    if (entry.view_of >= 0) return view(entry.layout, operands[entry.view_of]);
    PyObject* result = out != nullptr ? Py_NewRef(out) : new_array(entry.layout);
    if (result == nullptr) return nullptr;
    auto* array = as_array(result);

    // While the interpreter is released another thread may push the entry out of the table.
    const Program& program = *entry.program;
    const Reference owner(entry.owner.get());
    if ((entry.zeroed && PyArray_FillWithScalar(array, Py_False) < 0) ||
        !run_arrays(program, operands, count, result)) {
        Py_DECREF(result);
        return nullptr;
    }
    return out != nullptr ? result : PyArray_Return(array);
}

// The operands among the arguments of a call; lists and Python's numbers are made arrays.
class Operands {
  public:
    Operands() = default;
    ~Operands() {
        while (made_count_ > 0) Py_DECREF(made_[--made_count_]);
    }
    Operands(const Operands&) = delete;
    Operands& operator=(const Operands&) = delete;

    // False where that is for the slow path to do, or to refuse.
    bool take(PyObject* const* first, Py_ssize_t count, Py_ssize_t step) {
        if (count > most_operands) return false;
        for (Py_ssize_t i = 0; i < count; ++i) {
            PyObject* object = first[i * step];
            if (PyList_CheckExact(object) || PyTuple_CheckExact(object) || PyFloat_CheckExact(object) ||
                PyLong_CheckExact(object)) {
                object = PyArray_FROM_O(object);
                if (object == nullptr) {
                    PyErr_Clear();
                    return false;
                }
                made_[made_count_++] = object;
            }
            operands_[i] = object;
        }
        return true;
    }
    PyObject* const* get() const { return operands_; }

  private:
    PyObject* operands_[most_operands];
    PyObject* made_[most_operands];
    int made_count_ = 0;
};

PyObject* einsum(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    PyObject* out = nullptr;
    PyObject* optimize = default_optimize;
    bool plain = count > 0;
    const Py_ssize_t named = names != nullptr ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < named && plain; ++i) {
        PyObject* name = PyTuple_GET_ITEM(names, i);
        PyObject* value = arguments[count + i];
        if (PyUnicode_CompareWithASCIIString(name, "out") == 0) {
            out = value == Py_None ? nullptr : value;
        } else if (PyUnicode_CompareWithASCIIString(name, "optimize") == 0) {
            optimize = value;
        } else {
            plain = false;
        }
    }
    if (plain) {
        const bool interleaved = PyArray_CheckExact(arguments[0]) && count > 1;
        const Py_ssize_t step = interleaved ? 2 : 1;
        const Py_ssize_t operand_count = interleaved ? count / 2 : count - 1;
        PyObject* const* first = interleaved ? arguments : arguments + 1;
        Terms terms{interleaved ? Py_None : arguments[0]};
        if (interleaved) terms = {Py_None, arguments + 1, 2, count % 2 != 0 ? arguments[count - 1] : nullptr};
        Operands operands;
        Key key;
        if (operands.take(first, operand_count, step) &&
            describe(key, terms, operands.get(), operand_count, out, optimize)) {
            const Entry* entry = table.find(key);
            if (entry != nullptr && (out == nullptr || (PyArray_ISWRITEABLE(as_array(out)) &&
                                                        !overlaps_output(*entry, operands.get(), out))))
                return answer(*entry, operands.get(), operand_count, out);
        }
    }
    if (miss_function == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "einstride._core.set_miss() has not been called");
        return nullptr;
    }
    const Reference function(miss_function);
    return PyObject_Vectorcall(function.get(), arguments, static_cast<std::size_t>(count), names);
}

// The first line is what inspect.signature reads.
constexpr const char* einsum_doc =
    R"(einsum(subscripts, /, *operands, out=None, dtype=None, order='K', casting='safe', optimize='auto', memory=None)
--

The sum of products of the operands' elements that the subscripts describe, as numpy.einsum computes it.

Args:
    subscripts: A term for each operand, a letter for each axis, and after ``->`` the output's, as in ``"ij,jk->ik"``.
        A label that the output lacks is summed over. Without ``->`` the output has the labels that occur once,
        sorted. ``...`` stands for any further axes. Labels may also be lists that follow each operand:
        ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.
    operands: Arrays, or what NumPy makes arrays of. Where they share a label their extents are equal, or 1.
    out: The array to fill and return; it may overlap an operand.
    dtype, order, casting: As in numpy.einsum; but with order 'K' a contraction of C-contiguous operands is in C order.
    optimize: ``"auto"`` takes the order of least predicted time; whatever numpy.einsum accepts keeps its meaning.
    memory: The most bytes that may be taken besides the operands and the result: by intermediates and, with so many
        threads as are set now, by packing buffers.

Returns:
    A new array; `out`; a writeable view of a lone operand of which nothing is summed; or a scalar, when no
    label is left.

Raises:
    EinsumError: a ValueError (and a TypeError or a MemoryError, where that is what it is): the subscripts, an
        operand, an option or `out` is not right, or the plan needs more than `memory`.

>>> import numpy as np
>>> a, b = np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4)
>>> einsum("ij,jk->ik", a, b)
array([[20, 23, 26, 29],
       [56, 68, 80, 92]])
>>> int(einsum("ii->", b[:, 1:]))
18
)";

PyMethodDef einsum_def = {"einsum", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(einsum)),
                          METH_FASTCALL | METH_KEYWORDS, einsum_doc};

// The arrays of a tuple. False with a Python error set.
bool arrays_of(PyObject* tuple, PyObject* out) {
    bool arrays = PyTuple_Check(tuple) && PyTuple_GET_SIZE(tuple) <= INT_MAX && (out == Py_None || PyArray_Check(out));
    for (Py_ssize_t i = 0; arrays && i < PyTuple_GET_SIZE(tuple); ++i)
        arrays = PyArray_Check(PyTuple_GET_ITEM(tuple, i));
    if (!arrays) PyErr_SetString(PyExc_TypeError, "operands is a tuple of arrays, out an array");
    return arrays;
}

}  // namespace

bool init_calls() {
    if (PyArray_ImportNumPyAPI() < 0) return false;
    recycled_capsule = PyCapsule_New(&recycled, "mem_handler", nullptr);
    default_optimize = PyUnicode_InternFromString("auto");
    return recycled_capsule != nullptr && default_optimize != nullptr;
}

bool add_einsum(PyObject* module) {
    const Reference name = Reference::stolen(PyUnicode_InternFromString("einstride"));
    const Reference function = Reference::stolen(PyCFunction_NewEx(&einsum_def, nullptr, name.get()));
    return function.get() != nullptr && PyModule_AddObjectRef(module, "einsum", function.get()) == 0;
}

void set_miss(PyObject* function) { Py_XSETREF(miss_function, Py_NewRef(function)); }

PyObject* set_progress(PyObject* function) {
    Reference given(function == Py_None ? nullptr : function);
    std::swap(progress_function, given);
    return Py_NewRef(given.get() == nullptr ? Py_None : given.get());
}

bool remember(PyObject* subscripts, PyObject* operands, PyObject* out, PyObject* optimize, const Answer& answer) {
    if (!arrays_of(operands, out)) return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(operands);
    PyObject* const* arrays = PySequence_Fast_ITEMS(operands);
    PyObject* given = out == Py_None ? nullptr : out;
    const bool is_view = answer.program == nullptr;
    if (is_view ? answer.view_of < 0 || answer.view_of >= count || given != nullptr
                : answer.view_of != -1 || answer.program->operands != count) {
        PyErr_SetString(PyExc_ValueError, "an answer is a program of as many operands, or a view of one of them");
        return false;
    }
    Terms terms{subscripts};
    if (PyTuple_CheckExact(subscripts) && PyTuple_GET_SIZE(subscripts) == count + 1) {
        PyObject* const* labels = PySequence_Fast_ITEMS(subscripts);
        terms = {Py_None, labels, 1, labels[count] == Py_None ? nullptr : labels[count]};
    }
    Key key;
    if (!describe(key, terms, arrays, count, given, optimize)) return true;

    auto entry = std::make_unique<Entry>();
    if (!entry->layout.read(answer.shape, answer.strides, answer.dtype)) return false;
    entry->hash = key.hash;
    entry->subscripts = Reference(terms.subscripts);
    entry->optimize = Reference(optimize);
    entry->words.assign(key.words.begin(), key.words.begin() + key.count);
    entry->owner = Reference(answer.owner);
    entry->program = answer.program;
    entry->view_of = answer.view_of;
    entry->zeroed = answer.zeroed;
    if (given != nullptr) {
        for (Py_ssize_t i = 0; i < count; ++i) entry->spans.push_back(span_of(as_array(arrays[i])));
        entry->spans.push_back(span_of(as_array(given)));
    }
    table.insert(key, std::move(entry));
    return true;
}

void forget() { table.clear(); }

PyObject* empty(PyObject* shape, PyObject* strides, PyObject* dtype) {
    Layout layout;
    if (!layout.read(shape, strides, dtype)) return nullptr;
    return new_array(layout);
}

bool run(const Program& program, PyObject* operands, PyObject* out) {
    if (!arrays_of(operands, out)) return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(operands);
    if (out == Py_None || count != program.operands) {
        PyErr_Format(PyExc_ValueError, "the program takes %d operands and out", program.operands);
        return false;
    }
    return run_arrays(program, PySequence_Fast_ITEMS(operands), count, out);
}

}  // namespace einstride
