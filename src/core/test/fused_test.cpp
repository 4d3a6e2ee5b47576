// The fused loops against a nest of plain ones: random loops, strides and types, at sizes around the vectors and tiles.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "reference.hpp"

using namespace einstride;

namespace {

using std::int64_t;

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
    check_case(make_fused, loops, types);
}

// Outputs that go past the caches: in whole lines, in broken ones, turned, converted, and as one long run of short
// rows.
void large_outputs() {
    const auto copy = [](int64_t rows, int64_t columns, DType type) {
        const int64_t size = size_of(type);
        check_case(make_fused,
                   {{Role::batch, rows, {size * columns, size}}, {Role::batch, columns, {size, size * rows}}},
                   {type, type});
    };
    copy(4224, 1001, DType::f32);
    copy(4101, 1030, DType::f32);
    copy(2080, 1025, DType::f64);
    copy(8448, 1000, DType::i16);
    copy(8453, 2001, DType::u8);
    copy(2048, 520, DType::c128);
    const DType f64 = DType::f64;
    check_case(make_fused, {{Role::batch, 5600, {8, 0, 6400}}, {Role::batch, 800, {0, 8, 8}}}, {f64, f64, f64});
    check_case(make_fused,
               {{Role::batch, 2400, {160, 0, 16000}}, {Role::batch, 100, {0, 160, 160}}, {Role::batch, 20, {8, 8, 8}}},
               {f64, f64, f64});
    check_case(make_fused,
               {{Role::batch, 480001, {8, 72, 72, 72}},
                {Role::batch, 3, {0, 24, 0, 24}},
                {Role::batch, 3, {0, 0, 24, 8}},
                {Role::contracted, 3, {0, 8, 8, 0}}},
               {f64, f64, f64, f64});
    check_case(make_fused, {{Role::batch, 17600000, {2, 2, 2}}}, {DType::f16, DType::f16, DType::f16});
    check_case(make_fused, {{Role::batch, 34400000, {1, 1, 1}}}, {DType::b8, DType::b8, DType::b8});
}

// Matrices by vectors: rows that are summed beside one vector, whichever operand it is, in groups that the next matrix
// interrupts, and what is left of them.
void long_rows_beside_a_vector() {
    for (const DType type : {DType::f64, DType::f32, DType::i64, DType::c64, DType::c128})
        for (const int64_t length : {300, 519, 4103})
            for (const bool vector_first : {false, true}) {
                const int64_t size = size_of(type), rows = 13;
                const auto loop = [&](Role role, int64_t extent, int64_t matrix, int64_t vector, int64_t out) {
                    return vector_first ? Loop{role, extent, {vector, matrix, out}}
                                        : Loop{role, extent, {matrix, vector, out}};
                };
                check_case(
                    make_fused,
                    {loop(Role::batch, 5, size * length * rows, size * length, size * rows),
                     loop(Role::batch, rows, size * length, 0, size), loop(Role::contracted, length, size, size, 0)},
                    {type, type, type});
            }
}

// Multiples of vectors that are too long for the first cache: as many rows as go side by side and some that are left,
// at distances that share cache sets and that do not, by one scalar and by two.
void long_multiples_of_a_vector() {
    for (const DType type : {DType::f64, DType::f32, DType::i64, DType::c64, DType::i8})
        for (const int64_t length : {1025, 2048, 8300})
            for (const int64_t rows : {7, 33}) {
                const int64_t size = size_of(type), row = size * length;
                check_case(make_fused, {{Role::batch, rows, {size, 0, row}}, {Role::batch, length, {0, size, size}}},
                           {type, type, type});
                check_case(make_fused,
                           {{Role::batch, rows, {size, -size, 0, row}}, {Role::batch, length, {0, 0, size, size}}},
                           {type, type, type, type});
                check_case(make_fused,
                           {{Role::batch, 3, {size * rows, row, row * rows}},
                            {Role::batch, rows, {size, 0, row}},
                            {Role::batch, length, {0, size, size}}},
                           {type, type, type});
            }
}

// Short rows along two loops, where both inputs come again: as they lie, and out of order where the inner plane is
// large.
void products_of_short_rows() {
    for (const DType type : {DType::f64, DType::f32, DType::c64})
        for (const int64_t length : {3, 16, 37})
            for (const int64_t inner : {11, 131}) {
                const int64_t size = size_of(type), row = size * length, outer = 21;
                check_case(make_fused,
                           {{Role::batch, outer, {row, 0, row * inner}},
                            {Role::batch, inner, {0, row, row}},
                            {Role::batch, length, {size, size, size}}},
                           {type, type, type});
            }
}

// Some rows by all of others, and all by one: their sums are folded together, whatever is left of a row's last
// register.
void dots_of_rows_beside() {
    for (const DType type : {DType::f64, DType::f32, DType::c64, DType::c128, DType::i16, DType::i32})
        for (const int64_t length : {1, 5, 8, 16, 19, 37, 64, 70, 100, 131, 300, 1100})
            for (const int64_t left : {1, 3, 13}) {
                const int64_t size = size_of(type), row = size * length, right = 13, terms = length < 100 ? 2 : 1;
                check_case(make_fused,
                           {{Role::batch, left, {row * terms, 0, size * right}},
                            {Role::batch, right, {0, row * terms, size}},
                            {Role::contracted, terms, {row, row, 0}},
                            {Role::contracted, length, {size, size, 0}}},
                           {type, type, type});
            }
}

// Rows of every length from a part of a register to beyond eight: each a sum of several terms, and multiplied by a
// scalar.
void short_rows_of_every_length() {
    for (const DType type : {DType::f64, DType::f32, DType::c64, DType::i16})
        for (int64_t length = 1; length * size_of(type) <= 640; ++length) {
            const int64_t size = size_of(type), row = size * length;
            check_case(make_fused,
                       {{Role::batch, 3, {40 * row, 40 * row, row}},
                        {Role::contracted, 40, {row, row, 0}},
                        {Role::batch, length, {size, size, size}}},
                       {type, type, type});
            check_case(make_fused, {{Role::batch, 19, {row, size, row}}, {Role::batch, length, {size, 0, size}}},
                       {type, type, type});
        }
}

// Terms that lie evenly apart in runs of one to many, with a gap after each, under rows that are summed in registers
// and rows so long that some terms are summed at a time, which need not end with a run.
void terms_in_runs() {
    for (const DType type : {DType::f64, DType::f32, DType::c128, DType::i16})
        for (const int64_t length : {3, 40, 90, 150, 300, 1030})
            for (const int64_t run : {1, 2, 3, 5, 23, 70}) {
                const int64_t size = size_of(type), row = size * length, runs = 7;
                check_case(make_fused,
                           {{Role::contracted, runs, {row * (run + 1), size * run, 0}},
                            {Role::contracted, run, {row, size, 0}},
                            {Role::batch, length, {size, 0, size}}},
                           {type, type, type});
                check_case(make_fused,
                           {{Role::contracted, runs, {row * (run + 2), row * run, 0}},
                            {Role::contracted, run, {row, row, 0}},
                            {Role::batch, length, {size, size, size}}},
                           {type, type, type});
            }
}

// Rows of every length from a part of a register to beyond sixteen, in runs of one to many with a gap after each: their
// sums and products, of one operand or two, of which either may be the same in all of a run, in one term and in two.
void rows_in_runs() {
    for (const DType type : {DType::f64, DType::f32, DType::c64, DType::c128, DType::i16})
        for (const int64_t length : {1, 4, 7, 8, 9, 16, 23, 32, 33, 50, 64, 65, 100, 113, 127, 128, 129, 256, 257, 300})
            for (const int64_t run : {1, 3, 8, 21})
                for (const int64_t terms : {1, 2}) {
                    const int64_t size = size_of(type), row = size * length + 16, runs = 3;
                    const int64_t all = row * (run + 2), part = all * runs;
                    const auto check = [&](bool first, bool second, bool sum) {
                        const int64_t to = sum ? size : row;
                        check_case(make_fused,
                                   {{Role::contracted, terms, {part, part, 0}},
                                    {Role::batch, runs, {first ? all : row, second ? all : row, to * (run + 1)}},
                                    {Role::batch, run, {first ? row : 0, second ? row : 0, to}},
                                    {sum ? Role::contracted : Role::batch, length, {size, size, sum ? 0 : size}}},
                                   {type, type, type});
                    };
                    for (const bool sum : {true, false}) {
                        check(true, true, sum);
                        check(true, false, sum);
                        check(false, true, sum);
                    }
                    check_case(make_fused,
                               {{Role::contracted, terms, {part, 0}},
                                {Role::batch, runs, {all, size * (run + 1)}},
                                {Role::batch, run, {row, size}},
                                {Role::contracted, length, {size, 0}}},
                               {type, type});
                }
}

// Sums of numbers that lie apart, in one tile and in more, with what is left of each group: in rows and terms that lie
// in runs with a gap after each.
void sums_of_numbers_apart() {
    for (const DType type : {DType::f64, DType::f32, DType::c64, DType::c128, DType::i16, DType::i64})
        for (const int64_t length : {5, 30, 33, 128, 131, 300, 5003})
            for (const int64_t step : {3, 17})
                for (const int64_t terms : {1, 3}) {
                    const int64_t size = size_of(type), row = size * step * length, part = 12 * row;
                    check_case(make_fused,
                               {{Role::contracted, terms, {part, 0}},
                                {Role::batch, 2, {5 * row, 7 * size}},
                                {Role::batch, 3, {row + size, 2 * size}},
                                {Role::contracted, length, {size * step, 0}}},
                               {type, type});
                }
}

// A few numbers of each step of the vector loop, dense in memory: dealt out to rows, collected from them and both, of
// every width and of lengths around a register's; as many as come from memory, a tile ahead, are summed.
void narrow_matrices() {
    const auto weighted = [](int64_t width, int64_t length, DType weight, DType type) {
        const int64_t size = size_of(type), row = size * width;
        check_case(make_fused,
                   {{Role::batch, length, {size_of(weight), row, row}}, {Role::batch, width, {0, size, size}}},
                   {weight, type, type});
        check_case(make_fused,
                   {{Role::batch, length, {size_of(weight), row, size}}, {Role::contracted, width, {0, size, 0}}},
                   {weight, type, type});
    };
    for (int64_t width = 2; width <= 13; ++width)
        for (const int64_t length : {1, 4, 7, 8, 9, 15, 16, 17, 31, 64, 333}) {
            for (const DType type : {DType::f64, DType::f32, DType::i64, DType::i32, DType::c64, DType::c128,
                                     DType::f16, DType::bf16, DType::u8}) {
                const int64_t size = size_of(type), row = size * width, column = size * length;
                check_case(make_fused, {{Role::batch, length, {row, size}}, {Role::batch, width, {size, column}}},
                           {type, type});
                check_case(make_fused, {{Role::batch, width, {column, size}}, {Role::batch, length, {size, row}}},
                           {type, type});
                weighted(width, length, type, type);
                check_case(make_fused,
                           {{Role::contracted, length, {row, row, 0}},
                            {Role::batch, width, {size, 0, row}},
                            {Role::batch, width, {0, size, size}}},
                           {type, type, type});
            }
            weighted(width, length, DType::f32, DType::f64);
            weighted(width, length, DType::u8, DType::f32);
            const int64_t row = width;
            check_case(make_fused, {{Role::batch, length, {4, row, 4 * row}}, {Role::batch, width, {0, 1, 4}}},
                       {DType::f32, DType::u8, DType::f32});
        }
    check_case(make_fused,
               {{Role::contracted, 600007, {24, 24, 0}}, {Role::batch, 3, {8, 0, 24}}, {Role::batch, 3, {0, 8, 8}}},
               {DType::f64, DType::f64, DType::f64});
    check_case(make_fused, {{Role::batch, 1700003, {20, 20, 4}}, {Role::contracted, 5, {4, 4, 0}}},
               {DType::f32, DType::f32, DType::f32});
}

// Products of two matrices for each of some steps, which lie outermost, innermost or between, maybe times a number a
// step, and maybe some such products side by side: of every size around the grids' and of more terms than they sum.
void products_of_matrices() {
    constexpr int64_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 9};
    enum Label { step, beside, m, n, k };
    for (int round = 0; round < 4000; ++round) {
        int64_t extent[5] = {pick(1, chance(20) ? 300 : 70), chance(80) ? 1 : pick(2, 3)};
        for (const Label label : {m, n, k}) extent[label] = sizes[pick(0, 7)];
        if (chance(10)) extent[k] = pick(30, 40);
        constexpr DType types[] = {DType::f64, DType::f32, DType::i64, DType::i32,
                                   DType::i16, DType::c64, DType::f16, DType::bf16};
        const DType type = types[pick(0, 7)];
        const int weights = static_cast<int>(chance(60) ? 0 : pick(1, 2));
        std::vector<Loop> loops;
        for (const Label label : {step, beside, m, n, k})
            loops.push_back({label == k ? Role::contracted : Role::batch, extent[label], {}});
        const auto dense = [&](std::vector<Label> labels) {
            std::shuffle(labels.begin(), labels.end(), random_bits);
            int64_t stride[5] = {}, bytes = size_of(type);
            for (const Label label : labels) stride[label] = bytes, bytes *= extent[label];
            for (const Label label : {step, beside, m, n, k}) loops[label].strides.push_back(stride[label]);
        };
        dense({step, beside, m, k});
        dense({step, beside, k, n});
        for (int w = 0; w < weights; ++w) dense({step});
        dense({step, beside, m, n});
        std::shuffle(loops.begin(), loops.end(), random_bits);
        check_case(make_fused, loops, std::vector<DType>(static_cast<std::size_t>(3 + weights), type));
    }
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
    const auto check = [&](int64_t j) {
        double exact = 0;
        for (int64_t i = 0; i < rows; ++i) exact += static_cast<double>(in[static_cast<std::size_t>(i * columns + j)]);
        CHECK(std::abs(static_cast<double>(out[static_cast<std::size_t>(j)]) - exact) < 8 * 0x1p-24 * exact);
    };
    CHECK(make_fused(loops, {DType::f32, DType::f32})->run(places, Monitor{}));
    for (int64_t j = 0; j < columns; ++j) check(j);
    out.assign(columns, 0.0f);
    CHECK(make_fused({loops[0]}, {DType::f32, DType::f32})->run(places, Monitor{}));
    check(0);
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
    large_outputs();
    long_rows_beside_a_vector();
    long_multiples_of_a_vector();
    products_of_short_rows();
    dots_of_rows_beside();
    short_rows_of_every_length();
    terms_in_runs();
    rows_in_runs();
    sums_of_numbers_apart();
    narrow_matrices();
    products_of_matrices();
    any_number_of_threads();
    long_sums_are_accurate();
    return failures() != 0;
}
