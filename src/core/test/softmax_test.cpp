// The kernels of a softmax against long double, at lengths around the vectors.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "level.hpp"
#include "softmax.hpp"

using namespace einstride;

namespace {

using std::int64_t;

std::mt19937_64 random_bits(20240301);

double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_bits); }

template <class T>
constexpr Acc acc = sizeof(T) == 4 ? Acc::f32 : Acc::f64;

template <class T>
const SoftmaxKernels& kernels() {
    return *level().softmax[static_cast<int>(acc<T>)];
}
template <class T>
int64_t lanes() {
    return level().tile[static_cast<int>(acc<T>)].lanes;
}

template <class T>
void powers_of_two() {
    const double least = std::numeric_limits<T>::min_exponent - 1;
    std::vector<T> x(10007);
    for (const double low : {-1e-3, -2.0, least}) {
        for (T& value : x) value = static_cast<T>(uniform(low, 1));
        x[0] = 0;
        std::vector<T> power = x;
        kernels<T>().exp2(power.data(), static_cast<int64_t>(power.size()));
        CHECK(power[0] == 1);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const long double want = std::exp2(static_cast<long double>(x[i]));
            const T near = static_cast<T>(want);
            const long double ulp = std::nextafter(near, std::numeric_limits<T>::max()) - near;
            CHECK(std::fabs(power[i] - want) <= 1.3L * ulp);
        }
    }
    const T infinity = std::numeric_limits<T>::infinity();
    for (const int64_t count : {int64_t{3}, 2 * lanes<T>() + 3}) {
        std::vector<T> edge(static_cast<std::size_t>(count), std::numeric_limits<T>::quiet_NaN());
        edge[0] = -infinity;
        edge[1] = static_cast<T>(least - 2);
        kernels<T>().exp2(edge.data(), count);
        CHECK(edge[0] == 0 && edge[1] == 0 && std::isnan(edge[2]));
    }
}

// A softmax taken in by parts against one taken at once; some queries see no key, or none in the first part.
template <class T>
void online() {
    const T infinity = std::numeric_limits<T>::infinity();
    for (const int vectors : {1, 2})
        for (const int64_t keys : {1, 2, 3, 4, 5, 31}) {
            const int64_t width = vectors * lanes<T>(), ld = width + 3, first = keys / 3;
            std::vector<T> strip(static_cast<std::size_t>(keys * ld)), most(64, -infinity), sum(64), factor(64);
            for (T& score : strip) score = static_cast<T>(uniform(-20, 20));
            for (int64_t j = 0; j < keys; ++j) {
                strip[static_cast<std::size_t>(j * ld)] = -infinity;
                if (j < first) strip[static_cast<std::size_t>(j * ld + 1)] = -infinity;
            }
            const std::vector<T> scores = strip;
            std::vector<T> scaled(64, T(1));
            for (const auto& [from, to] : {std::pair{int64_t{0}, first}, std::pair{first, keys}}) {
                kernels<T>().soften[vectors - 1](strip.data() + from * ld, to - from, ld, most.data(), sum.data(),
                                                 factor.data());
                for (int64_t j = 0; j < from; ++j)
                    kernels<T>().rescale[vectors - 1](strip.data() + j * ld, 1, ld, factor.data());
            }
            for (int64_t i = 0; i < width; ++i) {
                long double high = -std::numeric_limits<long double>::infinity(), total = 0;
                const auto at = [&](int64_t j) { return static_cast<std::size_t>(j * ld + i); };
                for (int64_t j = 0; j < keys; ++j) high = std::fmax(high, static_cast<long double>(scores[at(j)]));
                CHECK(most[static_cast<std::size_t>(i)] == static_cast<T>(high));
                for (int64_t j = 0; j < keys; ++j) {
                    const long double want = std::isinf(high) ? 0 : std::exp2(scores[at(j)] - high);
                    // Twice rounded differences of up to 40, two powers, and a product.
                    CHECK(std::fabs(strip[at(j)] - want) <= 100 * std::numeric_limits<T>::epsilon() * want);
                    total += want;
                }
                CHECK(std::fabs(sum[static_cast<std::size_t>(i)] - total) <=
                      (100 + keys) * std::numeric_limits<T>::epsilon() * total);
            }
        }
}

template <class T>
void hidden() {
    const T infinity = std::numeric_limits<T>::infinity();
    const int64_t width = 2 * lanes<T>(), keys = 9;
    std::vector<T> strip(static_cast<std::size_t>(keys * width), T(5)), first(64), end(64), keep(strip.size());
    for (int64_t i = 0; i < width; ++i) {
        first[static_cast<std::size_t>(i)] = static_cast<T>(i % 4);
        end[static_cast<std::size_t>(i)] = static_cast<T>(i % 11);
    }
    CHECK(!kernels<T>().any[1](keep.data(), keys, width));
    keep.back() = 1;
    CHECK(kernels<T>().any[1](keep.data(), keys, width));
    for (std::size_t i = 0; i < keep.size(); ++i) keep[i] = static_cast<T>(i % 3);
    kernels<T>().clip[1](strip.data(), keys, width, first.data(), end.data());
    kernels<T>().keep[1](strip.data(), keys, width, keep.data(), width);
    for (int64_t j = 0; j < keys; ++j)
        for (int64_t i = 0; i < width; ++i) {
            const bool seen = i % 4 <= j && j < i % 11 && (j * width + i) % 3 != 0;
            CHECK(strip[static_cast<std::size_t>(j * width + i)] == (seen ? T(5) : -infinity));
        }
}

}  // namespace

int main() {
    powers_of_two<float>();
    powers_of_two<double>();
    online<float>();
    online<double>();
    hidden<float>();
    hidden<double>();
    return failures() != 0;
}
