// Maps of a training step are of float or of bfloat16; what is computed of them is float.
#pragma once

#include "vector.h"

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

static inline void store(Half* p, Vec v) {
    VecBits bits = reinterpret_cast<VecBits>(v);
    VecBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, ties to even
    VecBits nan = VecBits{} + 0x7fc0;
    VecBits kept = v == v ? rounded : nan;
    *reinterpret_cast<VecHalfAnywhere*>(p) = __builtin_convertvector(kept, VecHalf);
}
