// 3x3 convolutions of a training step by Winograd's minimal filtering (`transforms.h`), forward and backward, with
// a quarter of the products.
//
// Maps lie channels-last, (images, height, width, chans), and so do weights, (out chans, 3, 3, in chans). A tile
// is SIDE x SIDE outputs, and a row of tiles is what lies side by side in an image. Each tile becomes POINTS
// values for each channel; at each point, what is left of a convolution is a matrix product over tiles.
#pragma once

#include <algorithm>
#include <vector>

#include "half.h"
#include "memory.h"
#include "transforms.h"

using Tiling = Filtering<4, 3>;
constexpr int SIDE = Tiling::SIDE, EDGE = Tiling::POINTS, POINTS = EDGE * EDGE;

struct Map {
    long height, width, chans;

    long row() const { return width * chans; }
    long size() const { return height * row(); }
};

// The rows of tiles of all images, in blocks that fit into a cache. Where the weights fit beside them, parts of the
// blocks are done side by side, each by one thread; else all threads do one block after the other, and share its
// points, so that weights are read once. What is how depends on shapes alone, and so do sums, whatever the threads.
struct Blocks {
    static constexpr long OWN = 1 << 17, SHARED = 1 << 20, WEIGHTS = 1 << 18, LINE = 16;  // floats

    long across, down, rows, chans, per_block;
    bool shared;

    Blocks(long images, const Map& in, const Map& out)
        : across((out.width + SIDE - 1) / SIDE), down((out.height + SIDE - 1) / SIDE), rows(images * down),
          chans(in.chans + out.chans), shared(POINTS * in.chans * out.chans > WEIGHTS) {
        per_block = std::clamp((shared ? SHARED : OWN) / (POINTS * chans * across), 1L, rows);
    }

    long count() const { return (rows + per_block - 1) / per_block; }
    long tiles() const { return per_block * across; }
    long floats() const { return POINTS * (tiles() * chans + 4 * LINE); }

    // Floats from one point to the next: an odd number of cache lines, so that the same tile's points do not compete
    // for the same places of the cache.
    long step(const Map& map) const { return (tiles() * map.chans + LINE - 1) / LINE / 2 * 2 * LINE + LINE; }

    // Calls prepare(row, its first tile, memory), multiply(point, block's tiles, memory, part, is_first) and
    // finish(row, its first tile, memory) for rows and points of each block; multiply comes between the others,
    // and finds the blocks of a part in order.
    template <class Row, class Multiply, class Last>
    void run(long parts, int threads, const Row& prepare, const Multiply& multiply, const Last& finish) const {
        static thread_local Floats common;
        float* memory = room(common, shared ? floats() : 0);
#pragma omp parallel num_threads(threads)
        {
            if (shared) {
                for (long b = 0; b < count(); b++) {
                    long first = b * per_block, last = std::min(rows, first + per_block);
#pragma omp for schedule(static)
                    for (long row = first; row < last; row++) prepare(row, (row - first) * across, memory);
#pragma omp for schedule(static)
                    for (int p = 0; p < POINTS; p++) multiply(p, (last - first) * across, memory, 0, b == 0);
#pragma omp for schedule(static)
                    for (long row = first; row < last; row++) finish(row, (row - first) * across, memory);
                }
            } else {
                static thread_local Floats own;
                float* mine = room(own, floats());
#pragma omp for schedule(static)
                for (long part = 0; part < parts; part++) {
                    long from = count() * part / parts, to = count() * (part + 1) / parts;
                    for (long b = from; b < to; b++) {
                        long first = b * per_block, last = std::min(rows, first + per_block);
                        for (long row = first; row < last; row++) prepare(row, (row - first) * across, mine);
                        for (int p = 0; p < POINTS; p++)
                            multiply(p, (last - first) * across, mine, part, b == from);
                        for (long row = first; row < last; row++) finish(row, (row - first) * across, mine);
                    }
                }
            }
        }
    }
};

// ROWS rows and VECTORS vectors of columns of a matrix product; value (i, k) of the left-hand matrix is at
// a[i * row_step + k * depth_step].
template <int ROWS, int VECTORS>
static inline void product_tile(const float* __restrict a, long row_step, long depth_step,
                                const float* __restrict b, long b_pitch, long depth, float* __restrict out,
                                long out_pitch, bool add) {
    Vec sum[ROWS][VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS; j++) sum[i][j] = add ? load(out + i * out_pitch + j * LANES) : Vec{};
    for (long k = 0; k < depth; k++, a += depth_step, b += b_pitch) {
        Vec line[VECTORS];
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS; j++) line[j] = load(b + j * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS; j++) sum[i][j] += a[i * row_step] * line[j];
    }
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS; j++) store(out + i * out_pitch + j * LANES, sum[i][j]);
}

// The same for all rows, cut into tiles of nearly equal height.
template <int VECTORS>
static inline void product_rows(const float* a, long row_step, long depth_step, long rows, const float* b,
                                long b_pitch, long depth, float* out, long out_pitch, bool add) {
    long tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (long t = 0, done = 0; t < tiles; t++) {
        long height = rows * (t + 1) / tiles - done;
        const float* from = a + done * row_step;
        float* to = out + done * out_pitch;
        switch (height) {
#define CASE(N)                                                                                              \
    case N:                                                                                                  \
        product_tile<(N <= TILE_ROWS ? N : 1), VECTORS>(from, row_step, depth_step, b, b_pitch, depth, to,   \
                                                        out_pitch, add);                                     \
        break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#undef CASE
        }
        done += height;
    }
}

// out (rows, columns) = or += a (rows, depth) times b (depth, columns); columns are whole vectors.
static inline void product(const float* a, long row_step, long depth_step, long rows, const float* b, long columns,
                           long depth, float* out, bool add) {
    long c = 0;
    for (; c + TILE_COLUMNS <= columns; c += TILE_COLUMNS)
        product_rows<TILE_VECTORS>(a, row_step, depth_step, rows, b + c, columns, depth, out + c, columns, add);
    for (; c < columns; c += LANES)
        product_rows<1>(a, row_step, depth_step, rows, b + c, columns, depth, out + c, columns, add);
}

struct InputTiles {  // B' d B of tiles that overlap by two pixels
    static constexpr int TAKEN = EDGE;
    static inline void one(const Vec* from, Vec* to) {
#pragma GCC unroll 6
        for (int i = 0; i < EDGE; i++) to[i] = from[i];
        Tiling::input(to, 1);
    }
};

struct GradientTiles {  // A d A' of tiles side by side
    static constexpr int TAKEN = SIDE;
    static inline void one(const Vec* from, Vec* to) { Tiling::gradient(from, 1, to, 1); }
};

// One row of tiles of an image, from row `top` of it (perhaps above it) on; the first tile begins `left` pixels
// before the image. Value (p, t, c) goes to points[p * step + t * chans + c].
template <class Kind, class T>
static inline void transform_row(const T* image, const Map& map, long top, long left, long across, float* points,
                                 long step) {
    constexpr int TAKEN = Kind::TAKEN;
    static thread_local Floats memory;
    long chans = map.chans, line = (across * SIDE + EDGE - SIDE) * chans;
    float* lines = room(memory, (EDGE + 1) * line);
    T* zeros = reinterpret_cast<T*>(lines + EDGE * line);
    if (top < 0 || top + TAKEN > map.height) std::fill_n(zeros, line, T{});
    const T* from[TAKEN];
    for (int i = 0; i < TAKEN; i++) {
        bool inside = top + i >= 0 && top + i < map.height;
        from[i] = inside ? image + (top + i) * map.row() : zeros;
    }
    for (int i = 0; i < EDGE; i++) {
        std::fill_n(lines + i * line, left * chans, 0.0f);
        long end = std::min(line, left * chans + map.row());
        std::fill_n(lines + i * line + end, line - end, 0.0f);
    }
    long used = std::min(map.row(), line - left * chans);
    for (long at = 0; at < used; at += LANES) {
        Vec d[TAKEN], found[EDGE];
#pragma GCC unroll 6
        for (int i = 0; i < TAKEN; i++) d[i] = load(from[i] + at);
        Kind::one(d, found);
#pragma GCC unroll 6
        for (int i = 0; i < EDGE; i++) store(lines + i * line + left * chans + at, found[i]);
    }
    for (long t = 0; t < across; t++)
        for (int i = 0; i < EDGE; i++) {
            const float* at = lines + i * line + t * SIDE * chans;
            float* to = points + i * EDGE * step + t * chans;
            for (long c = 0; c < chans; c += LANES) {
                Vec d[TAKEN], found[EDGE];
#pragma GCC unroll 6
                for (int j = 0; j < TAKEN; j++) d[j] = load(at + j * chans + c);
                Kind::one(d, found);
#pragma GCC unroll 6
                for (int j = 0; j < EDGE; j++) store(to + j * step + c, found[j]);
            }
        }
}

// A' m A of one row of tiles, into the rows from `top` on of an image.
template <class T>
static inline void restore_row(const float* points, long step, long across, T* image, const Map& map, long top,
                               const float* bias) {
    long chans = map.chans, high = std::min<long>(SIDE, map.height - top);
    for (long t = 0; t < across; t++) {
        long wide = std::min<long>(SIDE, map.width - t * SIDE);
        T* to = image + top * map.row() + t * SIDE * chans;
        for (long c = 0; c < chans; c += LANES) {
            Vec half[EDGE * SIDE], o[SIDE * SIDE], b = bias ? load(bias + c) : Vec{};
#pragma GCC unroll 6
            for (int i = 0; i < EDGE; i++) {
                Vec m[EDGE];
#pragma GCC unroll 6
                for (int j = 0; j < EDGE; j++) m[j] = load(points + (i * EDGE + j) * step + t * chans + c);
                Tiling::output(m, 1, half + i * SIDE, 1);
            }
#pragma GCC unroll 4
            for (int j = 0; j < SIDE; j++) Tiling::output(half + j, SIDE, o + j, SIDE);
            if (high == SIDE && wide == SIDE) {
#pragma GCC unroll 4
                for (int i = 0; i < SIDE; i++)
#pragma GCC unroll 4
                    for (int j = 0; j < SIDE; j++) store(to + i * map.row() + j * chans + c, o[i * SIDE + j] + b);
            } else {
                for (long i = 0; i < high; i++)
                    for (long j = 0; j < wide; j++) store(to + i * map.row() + j * chans + c, o[i * SIDE + j] + b);
            }
        }
    }
}

// G w G' of the nine vectors of weights that are `pitch` floats apart, with the taps in order or turned around.
static inline void transform_weight(const float* weight, long pitch, bool turned, Vec* points) {
    constexpr auto& G = Tiling::G;
    Vec half[EDGE][3];
    for (int j = 0; j < 3; j++) {
        Vec tap[3];
        for (int i = 0; i < 3; i++) tap[i] = load(weight + (turned ? 8 - 3 * i - j : 3 * i + j) * pitch);
        for (int i = 0; i < EDGE; i++)
            half[i][j] = float(G[i][0]) * tap[0] + float(G[i][1]) * tap[1] + float(G[i][2]) * tap[2];
    }
    for (int i = 0; i < EDGE; i++)
        for (int j = 0; j < EDGE; j++)
            points[i * EDGE + j] =
                half[i][0] * float(G[j][0]) + half[i][1] * float(G[j][1]) + half[i][2] * float(G[j][2]);
}

// G' u G, which is what becomes of gradients at the points.
static inline void restore_weight(const Vec* points, float* weight, long pitch) {
    constexpr auto& G = Tiling::G;
    Vec half[3][EDGE];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < EDGE; j++) {
            half[i][j] = Vec{};
            for (int k = 0; k < EDGE; k++) half[i][j] += float(G[k][i]) * points[k * EDGE + j];
        }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            Vec sum = Vec{};
            for (int k = 0; k < EDGE; k++) sum += half[i][k] * float(G[k][j]);
            store(weight + (3 * i + j) * pitch, sum);
        }
}

// Weights at the points, (POINTS, in, out), of what maps `in_chans` to `out_chans`: the convolution, or, with its
// taps turned around and its channels exchanged, that of the gradient.
static inline Floats weights_at_points(const float* weight, long in_chans, long out_chans, bool is_gradient,
                                       int threads) {
    long pairs = in_chans * out_chans;
    Floats found(POINTS * pairs);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < in_chans; i += LANES)
        for (long o = 0; o < out_chans; o += LANES) {
            // For LANES channels, one after the other, points of LANES others.
            Vec points[LANES][POINTS];
            for (int n = 0; n < LANES; n++) {
                if (is_gradient) transform_weight(weight + (i + n) * 9 * out_chans + o, out_chans, true, points[n]);
                else transform_weight(weight + (o + n) * 9 * in_chans + i, in_chans, false, points[n]);
            }
            for (int p = 0; p < POINTS; p++)
                for (int n = 0; n < LANES; n++) {
                    Vec line = points[n][p];
                    if (!is_gradient)
                        for (int lane = 0; lane < LANES; lane++) line[lane] = points[lane][p][n];
                    store(found.data() + p * pairs + (i + n) * out_chans + o, line);
                }
        }
    return found;
}

// out = x * weight (+ bias) with `pad` zeros around x. With `is_gradient`, the weight is that of the convolution
// whose output has `in.chans`.
template <class T>
static void conv_forward(const T* x, const float* weight, const float* bias, T* y, long images, Map in,
                         Map out, long pad, bool is_gradient, int threads) {
    Floats points = weights_at_points(weight, in.chans, out.chans, is_gradient, threads);
    Blocks blocks(images, in, out);
    long in_step = blocks.step(in), out_step = blocks.step(out);
    blocks.run(
        blocks.count(), threads,
        [&](long row, long tile, float* memory) {
            transform_row<InputTiles>(x + row / blocks.down * in.size(), in, row % blocks.down * SIDE - pad, pad,
                                      blocks.across, memory + tile * in.chans, in_step);
        },
        [&](int point, long tiles, float* memory, long, bool) {
            product(memory + point * in_step, in.chans, 1, tiles, points.data() + point * in.chans * out.chans,
                    out.chans, in.chans, memory + POINTS * in_step + point * out_step, false);
        },
        [&](long row, long tile, float* memory) {
            restore_row(memory + POINTS * in_step + tile * out.chans, out_step, blocks.across,
                        y + row / blocks.down * out.size(), out, row % blocks.down * SIDE, bias);
        });
}

// The gradient of the weight from that of the output.
template <class T>
static void conv_weight_gradient(const T* x, const T* grad, float* dweight, long images, Map in, Map out,
                                 long pad, int threads) {
    constexpr long SUMS = 1 << 20;
    Blocks blocks(images, in, out);
    long pairs = in.chans * out.chans, in_step = blocks.step(in), out_step = blocks.step(out);
    long parts = blocks.shared ? 1 : std::min({16L, SUMS / (POINTS * pairs) + 1, blocks.count()});
    Floats sums(parts * POINTS * pairs);
    blocks.run(
        parts, threads,
        [&](long row, long tile, float* memory) {
            long image = row / blocks.down, top = row % blocks.down * SIDE;
            transform_row<InputTiles>(x + image * in.size(), in, top - pad, pad, blocks.across,
                                      memory + tile * in.chans, in_step);
            transform_row<GradientTiles>(grad + image * out.size(), out, top, 0, blocks.across,
                                         memory + POINTS * in_step + tile * out.chans, out_step);
        },
        [&](int point, long tiles, float* memory, long part, bool is_first) {
            product(memory + POINTS * in_step + point * out_step, 1, out.chans, out.chans, memory + point * in_step,
                    in.chans, tiles, sums.data() + (part * POINTS + point) * pairs, !is_first);
        },
        [](long, long, float*) {});
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long k = 0; k < out.chans; k++)
        for (long c = 0; c < in.chans; c += LANES) {
            Vec points[POINTS] = {};
            for (long part = 0; part < parts; part++)
                for (int p = 0; p < POINTS; p++)
                    points[p] += load(sums.data() + (part * POINTS + p) * pairs + k * in.chans + c);
            restore_weight(points, dweight + k * 9 * in.chans + c, in.chans);
        }
}
