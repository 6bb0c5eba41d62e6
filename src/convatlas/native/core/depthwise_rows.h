// What depthwise convolutions of inference and of training have in common: some outputs of a row, side by side, which
// share what they read.
#pragma once

#include <algorithm>
#include <vector>

#include "vector.h"

constexpr int BESIDE = 7;  // outputs; widths of ImageNet's maps divide by it

// Pixels of a row that these outputs are made of.
template <int SIZE, int STRIDE>
constexpr int ACROSS = (BESIDE - 1) * STRIDE + SIZE;

// The rows of the input that row `y` of the outputs is made of: `first` to `last` of the kernel's lie in the map, which
// is `height` high; row_at(row) says where.
template <class T>
struct Window {
    long first, last;
    std::vector<const T*> rows;  // for each row of the kernel

    template <class At>
    Window(long y, long kernel, long stride, long pad, long height, const At& row_at) : rows(kernel) {
        long top = y * stride - pad;
        first = std::max(0L, -top);
        last = std::min(kernel, height - top);
        for (long k = first; k < last; k++) rows[k] = row_at(top + k);
    }
};

// Where `count` pixels from `left` on lie, in rows `first` to `last` of those that a kernel covers: (kernel, count).
// Those outside the map are zeros.
template <class T>
static inline void find_pixels(const T* const* rows, long first, long last, long left, long count, long width,
                               long pitch, const T* zeros, const T** pixels) {
    for (long y = first; y < last; y++)
        for (long i = 0; i < count; i++) {
            bool inside = left + i >= 0 && left + i < width;
            pixels[y * count + i] = inside ? rows[y] + (left + i) * pitch : zeros;
        }
}

// Adds the products of a vector of channels from `c` on to the outputs; weights are (SIZE, SIZE, chans).
template <int SIZE, int STRIDE, class T, class Read>
static inline void add_products(Vec (&sum)[BESIDE], const T* const* pixels, long first, long last,
                                const float* weights, long chans, long c, const Read& read) {
    constexpr int COUNT = ACROSS<SIZE, STRIDE>;
    for (long y = first; y < last; y++) {
        Vec weight[SIZE];
#pragma GCC unroll 8
        for (int k = 0; k < SIZE; k++) weight[k] = load(weights + (y * SIZE + k) * chans + c);
#pragma GCC unroll 32
        for (int x = 0; x < COUNT; x++) {
            Vec v = read(load(pixels[y * COUNT + x] + c));
#pragma GCC unroll 8
            for (int o = 0; o < BESIDE; o++)
                if (x - o * STRIDE >= 0 && x - o * STRIDE < SIZE) sum[o] += v * weight[x - o * STRIDE];
        }
    }
}
