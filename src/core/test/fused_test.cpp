// The fused loops against a nest of plain ones: random loops, strides and types, at sizes around the vectors and tiles.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "level.hpp"
#include "program.hpp"

using namespace einstride;

namespace {

using std::int64_t;
using Value = std::complex<double>;  // holds every small integer and its products exactly

std::mt19937_64 random_bits(20240229);

int64_t pick(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_bits() % static_cast<std::uint64_t>(high - low + 1));
}
bool chance(int percent) { return pick(1, 100) <= percent; }

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

void write(DType type, char* at, Value value) {
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
        case DType::f16: return put(at, static_cast<_Float16>(real));
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

Value read(DType type, const char* at) {
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
        case DType::f16: return static_cast<double>(get<_Float16>(at));
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

bool is_signed(DType type) {
    return type != DType::b8 && type != DType::u8 && type != DType::u16 && type != DType::u32 && type != DType::u64;
}
bool is_complex(DType type) { return type == DType::c64 || type == DType::c128; }

// The memory of one tensor: what its loops reach, and some bytes around it that nobody may touch.
struct Tensor {
    std::vector<char> memory;
    int64_t first = 0;
    char* at() { return memory.data() + first; }
};

Tensor make_tensor(const std::vector<Loop>& loops, std::size_t which, DType type) {
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

std::string describe(const std::vector<Loop>& loops, const std::vector<DType>& types) {
    std::string text = "types";
    for (const DType type : types) text += " " + std::to_string(static_cast<int>(type));
    for (const Loop& loop : loops) {
        text += loop.role == Role::contracted ? "; sum " : "; ";
        text += std::to_string(loop.extent) + " x";
        for (const int64_t stride : loop.strides) text += " " + std::to_string(stride);
    }
    return text;
}

Value small_value(DType type) {
    if (type == DType::b8) return static_cast<double>(pick(0, 1));
    const auto part = [&] { return static_cast<double>(pick(is_signed(type) ? -2 : 0, 2)); };
    return is_complex(type) ? Value(part(), part()) : Value(part());
}

void check_case(const std::vector<Loop>& loops, const std::vector<DType>& types) {
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
    const std::unique_ptr<Kernel> kernel = make_fused(loops, types);
    CHECK(kernel->run(places.data(), Monitor{}));

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

// Strides of one tensor: its loops in some order, with gaps and backwards now and then.
void lay_out(std::vector<Loop>& loops, std::size_t which, DType type, bool output) {
    std::vector<std::size_t> own;
    for (std::size_t l = 0; l < loops.size(); ++l) {
        loops[l].strides[which] = 0;
        if (output ? loops[l].role != Role::contracted : chance(70)) own.push_back(l);
    }
    if (chance(50)) std::shuffle(own.begin(), own.end(), random_bits);
    int64_t stride = size_of(type);
    for (std::size_t i = own.size(); i-- > 0;) {
        if (chance(10)) stride *= 2;
        if (chance(5)) stride += 1;
        loops[own[i]].strides[which] = chance(10) ? -stride : stride;
        stride *= std::max<int64_t>(loops[own[i]].extent, 1);
    }
}

void random_case(int64_t volume) {
    constexpr int64_t sizes[] = {1,  2,  3,  4,   5,   7,   8,   9,   15,  16,   17,   31,  33,
                                 63, 64, 65, 100, 127, 129, 255, 257, 513, 1025, 2049, 4100};
    std::vector<Loop> loops;
    int64_t left = volume;
    for (int64_t l = pick(0, 5); l > 0; --l) {
        const int64_t extent = chance(2) ? 0 : sizes[pick(0, chance(50) ? 9 : 24)];
        if (extent > left) continue;
        left /= std::max<int64_t>(extent, 1);
        loops.push_back({chance(40) ? Role::contracted : Role::batch, extent, {}});
    }
    const auto out = static_cast<DType>(pick(0, dtype_count - 1));
    const int inputs = static_cast<int>(chance(10) ? pick(4, 10) : pick(1, 3));
    const bool mixed = chance(30);
    std::vector<DType> types;
    while (static_cast<int>(types.size()) < inputs) {
        const auto type = mixed ? static_cast<DType>(pick(0, dtype_count - 1)) : out;
        const bool narrows = acc_of(out) == Acc::i16 && size_of(type) > size_of(out);
        const bool converts = level().pack[static_cast<int>(type)][static_cast<int>(acc_of(out))] != nullptr;
        if (converts && !narrows && (out != DType::b8 || type == DType::b8)) types.push_back(type);
    }
    types.push_back(out);
    // Sums that a narrow float cannot hold are another test's.
    if (acc_of(out) == Acc::f32 && inputs > 3) types.erase(types.begin(), types.end() - 3);
    for (Loop& loop : loops) loop.strides.assign(types.size(), 0);
    for (std::size_t t = 0; t < types.size(); ++t) lay_out(loops, t, types[t], t + 1 == types.size());
    check_case(loops, types);
}

// Normal numbers through one kernel with any number of threads: the same bits.
void any_number_of_threads() {
    constexpr int64_t rows = 3000, columns = 130;
    std::vector<float> in(rows * columns);
    std::normal_distribution<float> normal;
    for (float& x : in) x = normal(random_bits);
    const std::vector<Loop> sums[] = {
        {{Role::contracted, rows, {columns * 4, 0}}, {Role::batch, columns, {4, 4}}},
        {{Role::batch, rows, {columns * 4, 4}}, {Role::contracted, columns, {4, 0}}},
        {{Role::contracted, rows, {columns * 4, 0}}, {Role::contracted, columns, {4, 0}}},
    };
    for (const auto& loops : sums) {
        const std::unique_ptr<Kernel> kernel = make_fused(loops, {DType::f32, DType::f32});
        std::vector<float> first;
        for (const int threads : {1, 2, 3}) {
            set_num_threads(threads);
            std::vector<float> out(rows, 0.0f);
            char* const places[] = {reinterpret_cast<char*>(in.data()), reinterpret_cast<char*>(out.data())};
            CHECK(kernel->run(places, Monitor{}));
            if (first.empty()) first = out;
            CHECK(std::memcmp(first.data(), out.data(), out.size() * sizeof(float)) == 0);
        }
    }
}

// A sum of n positive numbers by a tree of blocks: the error of a pairwise sum is below (log2 n + block) roundings of
// the sum; rounding errors are of both signs, and stay well below 8 of them.
void long_sums_are_accurate() {
    constexpr int64_t rows = 1 << 20, columns = 3;
    std::vector<float> in(rows * columns);
    std::uniform_real_distribution<float> uniform;
    for (float& x : in) x = uniform(random_bits);
    const std::vector<Loop> loops = {{Role::contracted, rows, {columns * 4, 0}}, {Role::batch, columns, {4, 4}}};
    std::vector<float> out(columns);
    char* const places[] = {reinterpret_cast<char*>(in.data()), reinterpret_cast<char*>(out.data())};
    CHECK(make_fused(loops, {DType::f32, DType::f32})->run(places, Monitor{}));
    for (int64_t j = 0; j < columns; ++j) {
        double exact = 0;
        for (int64_t i = 0; i < rows; ++i) exact += static_cast<double>(in[static_cast<std::size_t>(i * columns + j)]);
        CHECK(std::abs(static_cast<double>(out[static_cast<std::size_t>(j)]) - exact) < 8 * 0x1p-24 * exact);
    }
}

void signed_zeros_and_nan_pass_through() {
    double in[2] = {-0.0, NAN}, out[2] = {1, 1};
    char* const places[] = {reinterpret_cast<char*>(in), reinterpret_cast<char*>(in), reinterpret_cast<char*>(out)};
    double one[2] = {1, 1};
    char* const with_one[] = {places[0], reinterpret_cast<char*>(one), places[2]};
    CHECK(make_fused({{Role::batch, 2, {8, 8, 8}}}, {DType::f64, DType::f64, DType::f64})->run(with_one, Monitor{}));
    CHECK(out[0] == 0 && std::signbit(out[0]) && std::isnan(out[1]));
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 3000;
    signed_zeros_and_nan_pass_through();
    for (int i = 0; i < rounds; ++i) random_case(chance(3) ? 400000 : 3000);
    any_number_of_threads();
    long_sums_are_accurate();
    return failures() != 0;
}
