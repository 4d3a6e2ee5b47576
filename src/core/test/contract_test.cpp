// The two kernels of contractions against a nest of plain loops: random label groups, strides and types, at sizes
// around the tiles, the panels and the blocks.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "reference.hpp"
#include "walk.hpp"

using namespace einstride;

namespace {

using std::int64_t;

// One or two loops of a role whose extents multiply to about `size`.
void add_group(std::vector<Loop>& loops, Role role, int64_t size) {
    int64_t inner = size;
    if (size >= 4 && chance(40)) {
        const int64_t outer = pick(2, std::min<int64_t>(size / 2, 12));
        loops.push_back({role, outer, {0, 0, 0}});
        inner = size / outer;
    }
    loops.push_back({role, inner, {0, 0, 0}});
}

bool belongs(Role role, std::size_t tensor) {
    constexpr bool has[4][3] = {{true, true, true}, {true, false, true}, {false, true, true}, {true, true, false}};
    return has[static_cast<int>(role)][tensor];
}

// Every tensor stores its loops in an order of its own, with gaps, backwards and off its alignment now and then.
void lay_out(std::vector<Loop>& loops, std::size_t tensor, DType type) {
    std::vector<std::size_t> own;
    for (std::size_t l = 0; l < loops.size(); ++l)
        if (belongs(loops[l].role, tensor)) own.push_back(l);
    if (chance(70)) std::shuffle(own.begin(), own.end(), random_bits);
    int64_t stride = size_of(type);
    for (std::size_t i = own.size(); i-- > 0;) {
        if (chance(8)) stride *= 2;
        if (chance(3)) stride += 1;
        loops[own[i]].strides[tensor] = chance(6) ? -stride : stride;
        stride *= loops[own[i]].extent;
    }
}

std::vector<DType> random_types() {
    const auto out = static_cast<DType>(pick(0, dtype_count - 1));
    const bool mixed = chance(30);
    std::vector<DType> types;
    while (types.size() < 2) {
        const auto type = mixed ? static_cast<DType>(pick(0, dtype_count - 1)) : out;
        const bool narrows = acc_of(out) == Acc::i16 && size_of(type) > size_of(out);
        const bool converts = level().pack[static_cast<int>(type)][static_cast<int>(acc_of(out))] != nullptr;
        if (converts && !narrows && (out != DType::b8 || type == DType::b8)) types.push_back(type);
    }
    types.push_back(out);
    return types;
}

void random_contraction() {
    constexpr int64_t sizes[] = {1, 2, 3, 5, 7, 8, 13, 14, 15, 16, 17, 28, 29, 31, 32, 33, 40, 63, 65, 100};
    const auto size = [&](int last) { return sizes[pick(0, last)]; };
    std::vector<Loop> loops;
    if (chance(40)) add_group(loops, Role::batch, size(6));
    if (chance(90)) add_group(loops, Role::free_left, size(17));
    if (chance(90)) add_group(loops, Role::free_right, size(17));
    if (chance(90)) add_group(loops, Role::contracted, chance(10) ? pick(200, 700) : size(19));
    const std::vector<DType> types = random_types();
    // Halves hold whole numbers up to 256 or 2048, and sums of this many products of numbers up to 2 stay below.
    int64_t volume = 1;
    for (const Loop& loop : loops) volume *= loop.extent;
    if (volume > 400000) return;
    for (std::size_t t = 0; t < 3; ++t) lay_out(loops, t, types[t]);
    check_case(make_contract, loops, types);
}

// The innermost batch loop lies adjacent in the output, whose type holds what is computed.
void random_batch_of_lanes() {
    constexpr DType outs[] = {DType::i16, DType::u16, DType::i32, DType::i64, DType::f32, DType::f64};
    std::vector<DType> types = {DType::b8, DType::b8, outs[pick(0, 5)]};
    for (std::size_t t = 0; t < 2; ++t) {
        types[t] = types[2];
        if (chance(30) && types[2] != DType::u16) types[t] = chance(50) ? DType::i8 : DType::b8;
    }
    std::vector<Loop> loops;
    if (chance(30)) add_group(loops, Role::batch, pick(1, 4));
    if (chance(90)) add_group(loops, Role::free_left, pick(1, 23));
    if (chance(90)) add_group(loops, Role::free_right, pick(1, 12));
    if (chance(90)) add_group(loops, Role::contracted, chance(20) ? pick(40, 110) : pick(1, 12));
    const Loop along = {Role::batch, pick(1, 70), {0, 0, size_of(types[2])}};
    for (std::size_t t = 0; t < 3; ++t) lay_out(loops, t, types[t]);
    for (Loop& loop : loops) loop.strides[2] *= along.extent;
    loops.push_back(along);
    for (std::size_t t = 0; t < 2; ++t) {
        const int64_t step = chance(80) ? size_of(types[t]) : 3 * size_of(types[t]);
        for (Loop& loop : loops) loop.strides[t] *= 3 * along.extent;
        loops.back().strides[t] = step;
    }
    check_case(make_lanes, loops, types);
}

// Sums long enough for several k blocks and for a split k, on numbers of any size: the same bits for any threads.
void any_number_of_threads() {
    struct Shape {
        int64_t batch, m, n, k;
    };
    for (const Shape& shape : {Shape{1, 70, 90, 1000}, Shape{3, 9, 20, 3000}, Shape{1, 8, 8, 100000},
                               Shape{1, 300, 310, 50}, Shape{1, 400, 600, 512}}) {
        const int64_t left = shape.batch * shape.m * shape.k, right = shape.batch * shape.k * shape.n;
        std::vector<double> numbers(static_cast<std::size_t>(left + right));
        std::normal_distribution<double> normal;
        for (double& number : numbers) number = normal(random_bits);
        const std::vector<Loop> loops = {
            {Role::batch, shape.batch, {shape.m * shape.k * 8, shape.k * shape.n * 8, shape.m * shape.n * 8}},
            {Role::free_left, shape.m, {shape.k * 8, 0, shape.n * 8}},
            {Role::free_right, shape.n, {0, 8, 8}},
            {Role::contracted, shape.k, {8, shape.n * 8, 0}},
        };
        std::vector<double> first;
        for (const int threads : {1, 2, 3}) {
            set_num_threads(threads);
            std::vector<double> out(static_cast<std::size_t>(shape.batch * shape.m * shape.n));
            char* const places[] = {reinterpret_cast<char*>(numbers.data()),
                                    reinterpret_cast<char*>(numbers.data() + left),
                                    reinterpret_cast<char*>(out.data())};
            CHECK(make_contract(loops, {DType::f64, DType::f64, DType::f64})->run(places, Monitor{}));
            if (first.empty()) first = out;
            CHECK(std::memcmp(first.data(), out.data(), out.size() * sizeof(double)) == 0);
        }
    }
}

}  // namespace

// Outputs that go past the caches: in whole lines, in rows that do not lie evenly, and with lines left over.
void large_outputs() {
    const auto product = [](int64_t a, int64_t b, int64_t n, DType type) {
        const int64_t size = size_of(type), k = 3;
        check_case(make_contract,
                   {{Role::free_left, a, {size * k, 0, size * n}},
                    {Role::free_left, b, {size * a * k, 0, size * a * n}},
                    {Role::free_right, n, {0, size, size}},
                    {Role::contracted, k, {size, size * n, 0}}},
                   {type, type, type});
    };
    product(17, 61, 4096, DType::f64);
    product(1024, 1, 4100, DType::f64);
    product(9, 130, 8192, DType::f32);
    product(5, 110, 4096, DType::c128);
}

// Sides that several tasks read and that are packed together: one that lies along k in rows that evict each other, one
// across runs, and a batch; in spans that panels do not fill, over several k blocks, and by as many threads as pack
// them more than twice by themselves.
void sides_packed_together() {
    const auto product = [](int64_t batch, int64_t m, int64_t runs, int64_t run, int64_t k, DType type) {
        const int64_t size = size_of(type), row = round_up(k * size, 2048), n = runs * run;
        check_case(make_contract,
                   {{Role::batch, batch, {row * m, row * n, size * m * n}},
                    {Role::free_left, m, {row, 0, size * n}},
                    {Role::free_right, runs, {0, size, size * run}},
                    {Role::free_right, run, {0, size * runs, size}},
                    {Role::contracted, k, {size, size * n, 0}}},
                   {type, type, type});
    };
    set_num_threads(3);
    product(1, 311, 1, 360, 500, DType::f64);
    product(1, 327, 20, 17, 480, DType::f32);
    set_num_threads(5);
    product(2, 220, 1, 320, 150, DType::c128);
}

// A left side whose adjacent numbers lie across runs of k: more of them than are turned at a time, in k blocks that end
// between runs, of rows that are packed a panel at a time, and with a k that is split.
void rows_turned_along_k() {
    const auto product = [](int64_t m, int64_t n, int64_t outer, int64_t turn, int64_t run, DType type, DType left) {
        const int64_t size = size_of(type), k = outer * turn * run, a = size_of(left);
        check_case(make_contract,
                   {{Role::free_left, m, {a * k, 0, size * n}},
                    {Role::free_right, n, {0, size * k, size}},
                    {Role::contracted, outer, {a * turn * run, size * turn * run, 0}},
                    {Role::contracted, turn, {a, size * run, 0}},
                    {Role::contracted, run, {a * turn, size, 0}}},
                   {left, type, type});
    };
    set_num_threads(2);
    product(29, 600, 2, 150, 5, DType::f32, DType::f32);
    product(31, 540, 3, 24, 8, DType::f64, DType::f32);
    product(210, 40, 1, 70, 13, DType::f64, DType::f64);
    product(30, 530, 4, 16, 4, DType::f16, DType::f16);
    product(5, 6, 7, 300, 50, DType::f64, DType::f64);
}

// A right side that lies along k, in a batch or over several k blocks, as tiles pack it for the block after theirs:
// groups that the depth does not fill, a last block without one, panels and rows that are left over, columns that lie
// backwards or apart.
void right_side_carried() {
    const auto product = [](int64_t batch, int64_t m, int64_t n, int64_t k, DType type, int64_t gap) {
        const int64_t size = size_of(type), column = gap * k * size;
        check_case(make_contract,
                   {{Role::batch, batch, {size * m * k, std::abs(column) * n, size * m * n}},
                    {Role::free_left, m, {size * k, 0, size * n}},
                    {Role::free_right, n, {0, column, size}},
                    {Role::contracted, k, {size, size, 0}}},
                   {type, type, type});
    };
    set_num_threads(1);
    for (const DType type : {DType::f32, DType::f64})
        for (const int64_t k : {7, 8, 9, 23, 64}) {
            product(3, 15, 16, k, type, 1);
            product(2, 43, 33, k, type, 2);
            product(4, 60, 29, k, type, -1);
        }
    product(1, 44, 37, 700, DType::f64, 1);
    product(2, 57, 70, 907, DType::f32, 1);
    product(2, 30, 24, 241, DType::f64, -2);
}

// A right side that is read where it lies and comes from memory: its panels are fetched ahead, by the first rows of
// several, and to a panel that is left over; where rows are pages apart, of k blocks that are shorter if it is larger
// than the caches. A batch of small ones counts as one.
void right_side_ahead() {
    const auto product = [](int64_t batch, int64_t m, int64_t n, int64_t k, DType type) {
        const int64_t size = size_of(type), row = size * n + 64;
        check_case(make_contract,
                   {{Role::batch, batch, {size * m * k, row * k, size * m * n}},
                    {Role::free_left, m, {size * k, 0, size * n}},
                    {Role::free_right, n, {0, size, size}},
                    {Role::contracted, k, {size, row, 0}}},
                   {type, type, type});
    };
    for (const int threads : {1, 3}) {
        set_num_threads(threads);
        product(1, 9, 3001, 140, DType::f32);
        product(2, 27, 1500, 150, DType::f64);
        product(1, 3, 2100, 3100, DType::f32);
        product(1, 5, 1031, 301, DType::i32);
        product(3, 17, 203, 700, DType::f64);
        product(5, 31, 500, 210, DType::f32);
    }
}

// The right side's adjacent numbers belong to the loop around the columns' innermost one, whose runs are turned into
// panels unless they are too short, or lack too many columns for so many rows.
void columns_in_runs() {
    for (const DType type : {DType::f32, DType::f64})
        for (const int64_t run : {3, 6, 9, 15, 18, 40})
            for (const int64_t m : {2, 70}) {
                const int64_t size = size_of(type), around = 19, k = 23, n = around * run;
                check_case(make_contract,
                           {{Role::free_left, m, {size * k, 0, size * n}},
                            {Role::free_right, around, {0, size, size * run}},
                            {Role::free_right, run, {0, size * around * k, size}},
                            {Role::contracted, k, {size, size * around, 0}}},
                           {type, type, type});
            }
}

// Products whose outputs share cache lines, which a task does together: with the rows or the columns next to the batch
// in the output, more of them than a task does at a time, some that are left over, and a batch around them.
void products_interleaved() {
    const auto product = [](int64_t around, int64_t batch, int64_t m, int64_t n, int64_t k, DType type,
                            bool rows_near) {
        const int64_t size = size_of(type), near = size * batch;
        check_case(make_contract,
                   {{Role::batch, around, {size * batch * m * k, 0, near * m * n}},
                    {Role::batch, batch, {size * m * k, size, size}},
                    {Role::free_left, m, {size * k, 0, rows_near ? near : near * n}},
                    {Role::free_right, n, {0, size * batch * k, rows_near ? near * m : near}},
                    {Role::contracted, k, {size, size * batch, 0}}},
                   {type, type, type});
    };
    for (const int threads : {1, 3}) {
        set_num_threads(threads);
        for (const bool rows_near : {false, true}) {
            product(1, 2, 90, 75, 81, DType::f32, rows_near);
            product(250, 3, 9, 17, 31, DType::f32, rows_near);
            product(1, 1001, 9, 17, 8, DType::f64, rows_near);
            product(3, 5, 37, 70, 40, DType::f64, rows_near);
            product(1, 37, 29, 33, 31, DType::f32, rows_near);
            product(2, 16, 150, 130, 9, DType::f32, rows_near);
            product(1, 3, 45, 40, 700, DType::f16, rows_near);
            product(2, 7, 20, 33, 140, DType::c64, rows_near);
            product(1, 3, 41, 60, 150, DType::c128, rows_near);
            product(1, 11, 60, 50, 35, DType::i8, rows_near);
        }
    }
}

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 1500;
    for (int i = 0; i < rounds; ++i) {
        random_contraction();
        random_batch_of_lanes();
    }
    large_outputs();
    any_number_of_threads();
    sides_packed_together();
    rows_turned_along_k();
    right_side_carried();
    right_side_ahead();
    columns_in_runs();
    products_interleaved();
    return failures() != 0;
}
