// 3x3 convolutions of a training step, in bfloat16 by the matrix unit (`matrix_unit.h`), forward and backward. Strides
// are 1, and channels are whole tiles.
//
// Maps lie channels-last, (images, height, width, chans), and so do weights, (out chans, 3, 3, in chans). What is
// convolved is copied with zeros around it, so that outputs are counted along lines of the padded input: output `at`
// needs, for each row of the kernel, 3 * chans values in a row, from `at` on. Outputs that begin in the last two places
// of a line are computed too, and dropped.
#pragma once

#include <algorithm>
#include <vector>

#include "conv.h"
#include "matrix_unit.h"
#include "memory.h"

constexpr long KERNEL = 3, TAPS = KERNEL * KERNEL;

using Halves = std::vector<Half, LargePages<Half>>;

static inline Half* room(Halves& memory, size_t count) {
    if (memory.size() < count) memory.resize(count);
    return memory.data();
}

// Images, or rows of large ones, that are done one by one.
struct Bands {
    static constexpr long BYTES = 1 << 18;  // of maps, which leaves room for weights in a cache of 1 MB

    long pitch, rows, per_image, count;

    Bands(long images, const Map& in, const Map& out) : pitch(out.width + KERNEL - 1) {
        long line = pitch * (in.chans + out.chans) * sizeof(Half);
        rows = std::clamp(BYTES / line - KERNEL + 1, 1L, out.height);
        per_image = (out.height + rows - 1) / rows;
        rows = (out.height + per_image - 1) / per_image;
        count = images * per_image;
    }

    long top(long band) const { return band % per_image * rows; }
    long height(long band, const Map& out) const { return std::min(rows, out.height - top(band)); }
};

// Rows from `top` on of an image, (height, pitch, chans), with zeros for what lies outside, and a tile's depth of zeros
// behind.
static inline void copy_padded(const Half* image, const Map& map, long top, long height, long left, long pitch,
                               Half* to) {
    long line = pitch * map.chans, before = left * map.chans, after = line - before - map.row();
    for (long row = top; row < top + height; row++, to += line) {
        if (row < 0 || row >= map.height) {
            std::fill_n(to, line, Half{});
            continue;
        }
        std::fill_n(to, before, Half{});
        std::copy_n(image + row * map.row(), map.row(), to + before);
        std::fill_n(to + line - after, after, Half{});
    }
    std::fill_n(to, DEPTH, Half{});
}

// Weights as right-hand tiles (out / TILE, 3, steps, TILE_HALVES) of what maps `in_chans` to `out_chans`: the
// convolution, or, with its taps turned around and its channels exchanged, that of the gradient.
struct TiledWeights {
    long line, steps;
    Halves tiles;

    TiledWeights(const float* weight, long in_chans, long out_chans, bool is_gradient, int threads)
        : line(KERNEL * in_chans), steps((line + DEPTH - 1) / DEPTH),
          tiles(out_chans / TILE * KERNEL * steps * TILE_HALVES) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (long n = 0; n < out_chans / TILE; n++)
            for (long i = 0; i < KERNEL; i++) {
                Half* to = tiles.data() + (n * KERNEL + i) * steps * TILE_HALVES;
                for (long at = 0; at < line; at++) {
                    Half* lane = to + at / 2 * DEPTH + at % 2;
                    long tap = at / in_chans, c = at % in_chans;
                    long turned = (KERNEL - 1 - i) * KERNEL + KERNEL - 1 - tap;
                    const float* from = is_gradient
                                            ? weight + (c * TAPS + turned) * out_chans + n * TILE
                                            : weight + n * TILE * KERNEL * line + i * line + at;
                    for (long j = 0; j < TILE; j++)
                        lane[2 * j] = rounded(from[is_gradient ? j : j * KERNEL * line]);
                }
            }
    }

    const Half* column(long n) const { return tiles.data() + n * KERNEL * steps * TILE_HALVES; }
};

// Sums of ROWS tiles of outputs below each other and COLUMNS side by side, (ROWS, COLUMNS, TILE_FLOATS). Left-hand
// tiles are read from maps of `chans` whose lines are `pitch` long.
template <int ROWS, int COLUMNS>
static inline void tiles_of_outputs(const Half* maps, long chans, long pitch, const TiledWeights& weights,
                                    long column, float* sums) {
    static_assert(ROWS * COLUMNS == 4, "sums take four tiles of eight");
    constexpr int RIGHT = 4, LEFT = 6;
    long step = chans * sizeof(Half), below = TILE * chans;
    const Half *right = weights.column(column), *beside = COLUMNS == 2 ? weights.column(column + 1) : nullptr;
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
    for (long i = 0; i < KERNEL; i++) {
        const Half* left = maps + i * pitch * chans;
        for (long s = 0; s < weights.steps; s++, left += DEPTH, right += TILE_HALVES) {
            tile_load<RIGHT>(right, 64);
            tile_load<LEFT>(left, step);
            tile_product<0, LEFT, RIGHT>();
            tile_load<LEFT + 1>(left + below, step);
            if constexpr (COLUMNS == 2) {
                tile_load<RIGHT + 1>(beside, 64);
                beside += TILE_HALVES;
                tile_product<1, LEFT, RIGHT + 1>();
                tile_product<2, LEFT + 1, RIGHT>();
                tile_product<3, LEFT + 1, RIGHT + 1>();
            } else {
                tile_product<1, LEFT + 1, RIGHT>();
                tile_load<LEFT>(left + 2 * below, step);
                tile_product<2, LEFT, RIGHT>();
                tile_load<LEFT + 1>(left + 3 * below, step);
                tile_product<3, LEFT + 1, RIGHT>();
            }
        }
    }
    tile_store<0>(sums, 64);
    tile_store<1>(sums + TILE_FLOATS, 64);
    tile_store<2>(sums + 2 * TILE_FLOATS, 64);
    tile_store<3>(sums + 3 * TILE_FLOATS, 64);
}

// The outputs of a band, (height, out.width, out.chans), of columns from `column` on, COLUMNS tiles wide.
template <int COLUMNS>
static inline void band_outputs(const Half* maps, long chans, long pitch, const TiledWeights& weights, long column,
                                const float* bias, Half* y, const Map& out, long height) {
    constexpr int ROWS = 4 / COLUMNS;
    alignas(64) float sums[4 * TILE_FLOATS];
    long first = column * TILE, width = COLUMNS * TILE;
    for (long at = 0, h = 0, w = 0; at < height * pitch; at += ROWS * TILE) {
        tiles_of_outputs<ROWS, COLUMNS>(maps + at * chans, chans, pitch, weights, column, sums);
        for (long row = 0; row < ROWS * TILE && h < height; row++) {
            if (w < out.width) {
                const float* from = sums + row / TILE * COLUMNS * TILE_FLOATS + row % TILE * TILE;
                Half* to = y + (h * out.width + w) * out.chans + first;
#pragma GCC unroll 8
                for (long c = 0; c < width; c += LANES) {
                    Vec v = load(from + c / TILE * TILE_FLOATS + c % TILE);
                    store(to + c, bias ? v + load(bias + first + c) : v);
                }
            }
            if (++w == pitch) w = 0, h++;
        }
    }
}

// out = x * weight (+ bias) with `pad` zeros around x. With `is_gradient`, the weight is that of the convolution
// whose output has `in.chans`.
static void tiled_forward(const Half* x, const float* weight, const float* bias, Half* y, long images, Map in, Map out,
                          long pad, bool is_gradient, int threads) {
    TiledWeights weights(weight, in.chans, out.chans, is_gradient, threads);
    Bands bands(images, in, out);
    // Left-hand tiles reach over the last line, by what is dropped.
    long own = ((bands.rows + KERNEL - 1) * bands.pitch + 4 * TILE + KERNEL) * in.chans + DEPTH;
    long together = std::clamp(Bands::BYTES / long(own * sizeof(Half)), 1L, (bands.count + threads - 1) / threads);
    long groups = (bands.count + together - 1) / together;
#pragma omp parallel num_threads(threads)
    {
        static thread_local Halves memory;
        Half* maps = room(memory, together * own);
        [[maybe_unused]] Tiles tiles;
#pragma omp for schedule(static)
        for (long group = 0; group < groups; group++) {
            long from = group * together, to = std::min(bands.count, from + together);
            for (long b = from; b < to; b++)
                copy_padded(x + b / bands.per_image * in.size(), in, bands.top(b) - pad,
                            bands.height(b, out) + KERNEL - 1, pad, bands.pitch, maps + (b - from) * own);
            long columns = out.chans / TILE;
            for (long column = 0; column < columns; column += 2)
                for (long b = from; b < to; b++) {
                    auto compute = column + 1 < columns ? band_outputs<2> : band_outputs<1>;
                    compute(maps + (b - from) * own, in.chans, bands.pitch, weights, column, bias,
                            y + b / bands.per_image * out.size() + bands.top(b) * out.row(), out,
                            bands.height(b, out));
                }
        }
    }
}

// 32 places of 16 channels, which are `chans` apart, as a right-hand tile: pairs of places interleaved.
static inline void interleave(const Half* from, long chans, uint32_t* to) {
    for (long pair = 0; pair < TILE; pair++, from += 2 * chans, to += TILE)
#pragma GCC unroll 4
        for (long c = 0; c < TILE; c += LANES) {
            VecHalf even = *reinterpret_cast<const VecHalfAnywhere*>(from + c);
            VecHalf odd = *reinterpret_cast<const VecHalfAnywhere*>(from + chans + c);
            VecBits both = __builtin_convertvector(even, VecBits) | __builtin_convertvector(odd, VecBits) << 16;
            std::memcpy(to + c, &both, sizeof both);
        }
}

// The same as a left-hand tile: channels are rows, which lie `step` pairs of places apart.
static inline void transpose(const Half* from, long chans, uint32_t* to, long step) {
    alignas(64) uint32_t pairs[TILE][TILE];
    interleave(from, chans, pairs[0]);
#if defined(__AVX512F__)
    // Rows i and i + 8, interleaved, become rows 2 i and 2 i + 1; four times that exchanges rows and columns.
    VecBits rows[TILE], next[TILE];
    std::memcpy(rows, pairs, sizeof rows);
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
#pragma GCC unroll 8
        for (int i = 0; i < TILE / 2; i++) {
            VecBits a = rows[i], b = rows[i + TILE / 2];
            next[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] =
                __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
#pragma GCC unroll 16
        for (int i = 0; i < TILE; i++) rows[i] = next[i];
    }
    for (int i = 0; i < TILE; i++) std::memcpy(to + i * step, &rows[i], sizeof rows[i]);
#else
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) to[i * step + j] = pairs[j][i];
#endif
}

// Adds to the tiles of sums of three neighbouring taps: rows are channels of x, columns those of the gradient.
static inline void tiles_of_taps(const Half* left, long step, const Half* right, long steps, float* sums) {
    constexpr int RIGHT = 3, LEFT = 4;
    tile_load<0>(sums, 64);
    tile_load<1>(sums + TILE_FLOATS, 64);
    tile_load<2>(sums + 2 * TILE_FLOATS, 64);
    for (long s = 0; s < steps; s++, left += DEPTH, right += TILE_HALVES) {
        tile_load<RIGHT>(right, 64);
        tile_load<LEFT>(left, step);
        tile_product<0, LEFT, RIGHT>();
        tile_load<LEFT + 1>(left + 1, step);
        tile_product<1, LEFT + 1, RIGHT>();
        tile_load<LEFT + 2>(left + 2, step);
        tile_product<2, LEFT + 2, RIGHT>();
    }
    tile_store<0>(sums, 64);
    tile_store<1>(sums + TILE_FLOATS, 64);
    tile_store<2>(sums + 2 * TILE_FLOATS, 64);
}

// The gradient of the weight from that of the output. Parts of the bands, each with sums of its own, and columns of
// the gradient's channels are done side by side: how many depends on shapes alone, and so do sums.
struct TiledGradient {
    static constexpr long MOST_PARTS = 16, SUMS = 1 << 22, COLUMNS = 4;

    const Half *x, *grad;
    Map in, out;
    long pad;
    Bands bands;
    long parts, columns, groups;
    std::vector<float, LargePages<float>> sums;  // (part, column, row, tap, TILE_FLOATS)

    TiledGradient(const Half* x, const Half* grad, long images, Map in, Map out, long pad)
        : x(x), grad(grad), in(in), out(out), pad(pad), bands(images, in, out), columns(out.chans / TILE),
          groups((columns + COLUMNS - 1) / COLUMNS) {
        parts = std::min({MOST_PARTS, SUMS / (TAPS * in.chans * out.chans) + 1, bands.count});
        sums.resize(parts * TAPS * in.chans * out.chans);
    }

    float* tile(long part, long column, long row) {
        return sums.data() + ((part * columns + column) * (in.chans / TILE) + row) * TAPS * TILE_FLOATS;
    }

    void add(long part, long first, long last) {
        static thread_local Halves memory;
        long rows = in.chans / TILE, lines = bands.rows + KERNEL - 1;
        long steps = (bands.rows * bands.pitch + DEPTH - 1) / DEPTH;
        // Left-hand tiles begin at each tap, and reach over the last output by up to a tile.
        long places = (steps * DEPTH + (KERNEL - 1) * (bands.pitch + 1) + DEPTH) / DEPTH * DEPTH;
        long most = std::max(in.chans, out.chans), padded = (std::max(places, lines * bands.pitch) + DEPTH) * most;
        Half* copy = room(memory, padded + places * in.chans + steps * DEPTH * (last - first) * TILE);
        Half *left = copy + padded, *right = left + places * in.chans;
        for (long b = bands.count * part / parts; b < bands.count * (part + 1) / parts; b++) {
            long image = b / bands.per_image, top = bands.top(b), height = bands.height(b, out);
            long used = (height + KERNEL - 1) * bands.pitch;
            copy_padded(x + image * in.size(), in, top - pad, height + KERNEL - 1, pad, bands.pitch, copy);
            std::fill(copy + used * in.chans, copy + places * in.chans, Half{});
            for (long row = 0; row < rows; row++)
                for (long at = 0; at < places; at += DEPTH)
                    transpose(copy + at * in.chans + row * TILE, in.chans,
                              reinterpret_cast<uint32_t*>(left + row * TILE * places + at), places / 2);
            copy_padded(grad + image * out.size(), out, top, height, 0, bands.pitch, copy);
            std::fill(copy + height * bands.pitch * out.chans, copy + steps * DEPTH * out.chans, Half{});
            for (long column = first; column < last; column++)
                for (long s = 0; s < steps; s++)
                    interleave(copy + s * DEPTH * out.chans + column * TILE, out.chans,
                               reinterpret_cast<uint32_t*>(right + ((column - first) * steps + s) * TILE_HALVES));
            for (long column = first; column < last; column++)
                for (long row = 0; row < rows; row++)
                    for (long i = 0; i < KERNEL; i++)
                        tiles_of_taps(left + row * TILE * places + i * bands.pitch, places * sizeof(Half),
                                      right + (column - first) * steps * TILE_HALVES, steps,
                                      tile(part, column, row) + i * KERNEL * TILE_FLOATS);
        }
    }

    void run(float* dweight, int threads) {
#pragma omp parallel num_threads(threads)
        {
            [[maybe_unused]] Tiles tiles;
#pragma omp for schedule(static)
            for (long unit = 0; unit < parts * groups; unit++) {
                long first = unit % groups * COLUMNS;
                add(unit / groups, first, std::min(columns, first + COLUMNS));
            }
#pragma omp for schedule(static)
            for (long k = 0; k < out.chans; k++)
                for (long tap = 0; tap < TAPS; tap++)
                    for (long c = 0; c < in.chans; c++) {
                        float sum = 0.0f;
                        for (long part = 0; part < parts; part++)
                            sum += tile(part, k / TILE, c / TILE)[tap * TILE_FLOATS + c % TILE * TILE + k % TILE];
                        dweight[(k * TAPS + tap) * in.chans + c] = sum;
                    }
        }
    }
};
