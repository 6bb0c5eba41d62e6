// Maps are of float or of bfloat16; what is computed of them is float.
#pragma once

#include "vector.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

// bfloat16: the upper half of a float.
struct Half {
    uint16_t bits;
};

typedef uint16_t VecHalf __attribute__((vector_size(LANES * 2)));
typedef uint16_t VecHalfAnywhere __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t VecBits __attribute__((vector_size(LANES * 4)));

static inline Vec load(const Half* p) {
    VecHalf half = *reinterpret_cast<const VecHalfAnywhere*>(p);
    return reinterpret_cast<Vec>(__builtin_convertvector(half, VecBits) << 16);
}

// Rounds to the nearest, ties to even.
static inline void store(Half* p, Vec v) {
#if defined(__AVX512BF16__) && defined(__AVX512F__)
    __m256bh half = _mm512_cvtneps_pbh(v);
    std::memcpy(p, &half, sizeof half);
#else
    VecBits bits = reinterpret_cast<VecBits>(v);
    VecBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    VecBits nan = VecBits{} + 0x7fc0;
    VecBits kept = v == v ? rounded : nan;
    *reinterpret_cast<VecHalfAnywhere*>(p) = __builtin_convertvector(kept, VecHalf);
#endif
}

// Single values.
static inline float one(const float* p) { return *p; }
static inline float one(const Half* p) {
    uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void put(float* p, Vec v) { *p = v[0]; }
static inline void put(Half* p, Vec v) {
    Half line[LANES];
    store(line, v);
    *p = line[0];
}

static inline Half rounded(float value) {
    Half found;
    put(&found, all(value));
    return found;
}
