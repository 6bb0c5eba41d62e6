// The product that convolutions and linear layers consist of: rows of pixels times packed weights.
#pragma once

#include <vector>

#include "vector.h"

// What happens to sums before they are stored.
struct Finish {
    const float* bias = nullptr;      // for each column; padded to whole tiles
    const float* other = nullptr;     // added, row by row
    long other_pitch = 0;
    int64_t activation = NONE;
    float low = 0.0f, high = 0.0f;
};

static inline Vec finish(const Finish& f, Vec v, long row, long column, long n) {
    if (f.bias) v += load(f.bias + column);
    if (f.other) v += load_some(f.other + row * f.other_pitch + column, n);
    return activate(v, f.activation, f.low, f.high);
}

// Weights (columns, depth) as panels of TILE_COLUMNS columns: (panel, depth, TILE_COLUMNS), zeros at the end.
static inline long panels(long columns) { return ceiling(columns, TILE_COLUMNS); }

static inline void pack(const float* weight, long columns, long depth, float* packed) {
    for (long p = 0; p < panels(columns); p++)
        for (long k = 0; k < depth; k++)
            for (long c = 0; c < TILE_COLUMNS; c++) {
                long column = p * TILE_COLUMNS + c;
                *packed++ = column < columns ? weight[column * depth + k] : 0.0f;
            }
}

// ROWS rows times one panel. Row i of the left-hand matrix lies in `taps` pieces of `depth` floats each, which
// begin at rows[i], rows[i + tap_step], ...
template <int ROWS>
static inline void tile(const float* const* rows, long tap_step, long taps, long depth, const float* panel,
                        float* out, long out_pitch, long row, long column, long columns, const Finish& f) {
    Vec sum[ROWS][TILE_VECTORS] = {};
    for (long t = 0; t < taps; t++, rows += tap_step) {
        const float* a[ROWS];
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) a[i] = rows[i];
        for (long k = 0; k < depth; k++, panel += TILE_COLUMNS) {
            Vec b[TILE_VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < TILE_VECTORS; j++) b[j] = load(panel + j * LANES);
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
                for (int j = 0; j < TILE_VECTORS; j++) sum[i][j] += a[i][k] * b[j];
        }
    }
    if (columns - column < TILE_COLUMNS) {
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < TILE_VECTORS; j++) {
                long c = column + j * LANES, n = columns - c;
                if (n > 0) store_some(out + (row + i) * out_pitch + c, finish(f, sum[i][j], row + i, c, n), n);
            }
        return;
    }
    // The same for whole tiles, in registers: with few channels, it takes as long as the sums.
    out += row * out_pitch + column;
    if (f.bias)
#pragma GCC unroll 4
        for (int j = 0; j < TILE_VECTORS; j++) {
            Vec bias = load(f.bias + column + j * LANES);
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) sum[i][j] += bias;
        }
    if (f.other) {
        const float* other = f.other + row * f.other_pitch + column;
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < TILE_VECTORS; j++) sum[i][j] += load(other + i * f.other_pitch + j * LANES);
    }
    if (f.activation == CLIP) {
        Vec low = all(f.low), high = all(f.high);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < TILE_VECTORS; j++) sum[i][j] = smaller(larger(sum[i][j], low), high);
    } else if (f.activation != NONE) {
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int j = 0; j < TILE_VECTORS; j++) sum[i][j] = activate(sum[i][j], f.activation, f.low, f.high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < TILE_VECTORS; j++) store(out + i * out_pitch + j * LANES, sum[i][j]);
}

// Rows first to first + count, cut into tiles of nearly equal height, times one panel.
static inline void strip(const float* const* rows, long tap_step, long taps, long depth, const float* panel,
                         float* out, long out_pitch, long first, long count, long column, long columns,
                         const Finish& f) {
    long tiles = ceiling(count, TILE_ROWS);
    for (long t = 0, done = 0; t < tiles; t++) {
        long height = count * (t + 1) / tiles - done;
        switch (height) {
#define CASE(N)                                                                                              \
    case N:                                                                                                  \
        tile<(N <= TILE_ROWS ? N : 1)>(rows + done, tap_step, taps, depth, panel, out, out_pitch,            \
                                       first + done, column, columns, f);                                    \
        break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
        }
        done += height;
    }
}
