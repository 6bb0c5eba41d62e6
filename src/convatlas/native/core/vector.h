// Vectors of floats as wide as the processor has them, and the functions of networks on them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX__) && !defined(__AVX512F__)
#include <immintrin.h>
#endif

// LANES floats in a vector; TILE_ROWS x TILE_VECTORS of them fill the registers in a matrix product, with
// room for one row of the right-hand matrix and one value of the left-hand one.
#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 12, TILE_VECTORS = 2;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 6, TILE_VECTORS = 2;
#elif defined(__aarch64__)
constexpr int LANES = 4, TILE_ROWS = 8, TILE_VECTORS = 2;
#else
constexpr int LANES = 4, TILE_ROWS = 6, TILE_VECTORS = 2;
#endif
constexpr int TILE_COLUMNS = TILE_VECTORS * LANES;

// How many units of a size it takes.
static inline long ceiling(long count, long unit) { return (count + unit - 1) / unit; }

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef float VecAnywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t VecInt __attribute__((vector_size(LANES * 4)));

static inline Vec load(const float* p) { return *reinterpret_cast<const VecAnywhere*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<VecAnywhere*>(p) = v; }
static inline Vec all(float x) { return x - Vec{}; }

// The first `n` lanes, zeros behind them.
static inline Vec load_some(const float* p, long n) {
    if (n >= LANES) return load(p);
    float part[LANES] = {};
    std::memcpy(part, p, n * sizeof(float));
    return load(part);
}

static inline void store_some(float* p, Vec v, long n) {
    if (n >= LANES) return store(p, v);
    float part[LANES];
    store(part, v);
    std::memcpy(p, part, n * sizeof(float));
}

// With NaN in `a` they give NaN, as torch does; one in `b` is lost, so `b` is a bound.
#if defined(__AVX__) && !defined(__AVX512F__)
// One instruction, where compilers make two of the general form. Of NaN and a number it takes its second operand.
static inline Vec larger(Vec a, Vec b) { return _mm256_max_ps(b, a); }
static inline Vec smaller(Vec a, Vec b) { return _mm256_min_ps(b, a); }
#else
static inline Vec larger(Vec a, Vec b) { return b > a ? b : a; }
static inline Vec smaller(Vec a, Vec b) { return b < a ? b : a; }
#endif

// e^x with a relative error of at most 5e-7: 2^n times a polynomial in the rest, |rest| <= ln(2)/2. Its coefficients
// are those whose largest relative error is least, 6e-8; found by linear programming.
static inline Vec exponential(Vec x) {
    x = smaller(larger(x, all(-87.0f)), all(88.0f));
    constexpr float ROUNDER = 1.5f * (1 << 23);  // A float of this size has no room for a fraction.
    Vec shifted = x * 1.44269504f + ROUNDER, whole = shifted - ROUNDER;
    Vec r = x - whole * 0.693147181f;
    Vec p = all(8.2855820e-3f);
    p = p * r + 4.1918205e-2f;
    p = p * r + 1.6667699e-1f;
    p = p * r + 4.9998890e-1f;
    p = p * r + 9.9999973e-1f;
    p = p * r + 1.0f;
    // n is in the lowest bits of `shifted`; added to the exponent of p, it multiplies by 2^n.
    return reinterpret_cast<Vec>(reinterpret_cast<VecInt>(p) + (reinterpret_cast<VecInt>(shifted) << 23));
}

// An odd polynomial near 0, where the other form would be a small difference of large numbers.
// Source: the coefficients of Cephes' tanhf (Moshier 1992).
static inline Vec tangent(Vec x) {
    Vec square = x * x, p = all(-5.70498872745e-3f);
    p = p * square + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    Vec far = 1.0f - 2.0f / (1.0f + exponential(2.0f * x));
    return square < 0.625f * 0.625f ? p * square * x + x : far;
}

// What is done to each value at a step's end; CLIP takes `low` and `high` (a ReLU: 0 and infinity).
enum Activation : int64_t { NONE = 0, CLIP = 1, SIGMOID = 2, SILU = 3, TANH = 4 };

static inline Vec activate(Vec v, int64_t kind, float low, float high) {
    switch (kind) {
        case CLIP: return smaller(larger(v, all(low)), all(high));
        case SIGMOID: return 1.0f / (1.0f + exponential(-v));
        case SILU: return v / (1.0f + exponential(-v));
        case TANH: return tangent(v);
        default: return v;
    }
}
