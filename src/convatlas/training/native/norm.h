// Batch normalisation of a training step, and the activation that follows it, as one: maps are read twice and
// written once, where layer by layer they are read three times and written twice; backward, too.
//
// Maps lie channels-last, so they are matrices (rows, chans), where a row is a pixel of an image.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

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

static inline float one(const float* p) { return *p; }
static inline float one(const Half* p) {
    uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// What becomes of a normalised value, and what of the gradient of that.
struct Act {
    int64_t kind;
    float low, high;

    Vec forward(Vec v) const { return activate(v, kind, low, high); }

    // Where a bound is reached, no gradient passes, as in torch.
    Vec backward(Vec v, Vec grad) const {
        switch (kind) {
            case CLIP: return (v > all(low)) & (v < all(high)) ? grad : Vec{};
            case SILU: {
                Vec share = 1.0f / (1.0f + exponential(-v));
                return grad * share * (1.0f + v * (1.0f - share));
            }
            default: return grad;
        }
    }
};

// A matrix (rows, chans) as wide rows: several pixels side by side, so that vectors fit into a row whatever the
// number of channels is. The last few pixels may be over: they are a row of their own, padded.
struct Shape {
    long rows, chans, pixels, wide, whole, over;  // `pixels` in a wide row of `wide` values; `whole` such rows

    Shape(long rows, long chans) : rows(rows), chans(chans) {
        pixels = LANES;
        while (pixels > 1 && chans * (pixels / 2) % LANES == 0 && chans * (pixels / 2) >= 4 * LANES) pixels /= 2;
        wide = pixels * chans;
        whole = rows / pixels;
        over = rows % pixels;
    }

    // Wide rows of a part: a number that depends on the shape alone, so that sums do not depend on the threads.
    long part() const { return std::max(1L, 32768 / wide); }
    long parts() const { return (whole + part() - 1) / part(); }

    // A value for each channel, for each place in a wide row.
    std::vector<float> spread(const float* per_chan) const {
        std::vector<float> found(wide);
        for (long p = 0; p < pixels; p++) std::copy_n(per_chan, chans, found.data() + p * chans);
        return found;
    }
};

// Calls body(first, last) for the wide rows of each part, and by the last part in the first turn of a second
// pass: what a pass has read last is in the cache still.
template <class Body>
static inline void each_part(const Shape& s, bool backwards, int threads, const Body& body) {
    long parts = s.parts(), part = s.part();
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < parts; i++) {
        long turn = backwards ? parts - 1 - i : i;
        body(turn, turn * part, std::min(s.whole, (turn + 1) * part));
    }
}

// For each channel, sums of two quantities over all rows; `gather(row, c, first, second)` gives them for a vector
// that begins at place c of a wide row, and `single(pixel, c, first, second)` for one value.
template <class Gather, class Single>
static inline void two_sums(const Shape& s, int threads, const Gather& gather, const Single& single, double* first,
                            double* second) {
    long parts = s.parts();
    std::vector<float> sums(parts * 2 * s.wide, 0.0f);
    each_part(s, false, threads, [&](long part, long from, long to) {
        float* mine = sums.data() + part * 2 * s.wide;
        // Four rows at a time: sums are fetched and put back once for all of them.
        for (long row = from; row < to; row += 4) {
            long together = std::min(4L, to - row);
            for (long c = 0; c < s.wide; c += LANES) {
                Vec a = Vec{}, b = Vec{};
                if (together == 4)
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++) gather(row + i, c, a, b);
                else
                    for (long i = 0; i < together; i++) gather(row + i, c, a, b);
                store(mine + c, load(mine + c) + a);
                store(mine + s.wide + c, load(mine + s.wide + c) + b);
            }
        }
    });
    std::fill_n(first, s.chans, 0.0);
    std::fill_n(second, s.chans, 0.0);
    for (long part = 0; part < parts; part++) {
        const float* its = sums.data() + part * 2 * s.wide;
        for (long p = 0; p < s.pixels; p++)
            for (long c = 0; c < s.chans; c++) {
                first[c] += its[p * s.chans + c];
                second[c] += its[s.wide + p * s.chans + c];
            }
    }
    for (long pixel = s.whole * s.pixels; pixel < s.rows; pixel++)
        for (long c = 0; c < s.chans; c++) single(pixel, c, first[c], second[c]);
}

// Calls wide(at, c) for each vector of the matrix, which begins at value `at`, and at place c of its wide row; and
// over(at, c) for each value of the pixels that are over.
template <class Wide, class Over>
static inline void each_value(const Shape& s, int threads, const Wide& wide, const Over& over) {
    each_part(s, true, threads, [&](long, long from, long to) {
        for (long row = from; row < to; row++)
            for (long c = 0; c < s.wide; c += LANES) wide(row * s.wide + c, c);
    });
    for (long at = s.whole * s.wide; at < s.rows * s.chans; at++) over(at, at % s.chans);
}

// What the backward pass needs of the forward one, for each channel. The mean is `mean` + `rest`: beside a large
// mean, a float has no room for the digits that matter.
struct Moments {
    float *mean, *rest, *rstd;
};

// y = act((x - mean) / sqrt(var + eps) * weight + bias); moves the running statistics (null for none) by `momentum`.
//
// Variances are of values less those of the first row, so that a large mean takes no digits away.
template <class T>
static void norm_forward(const T* x, T* y, long rows, long chans, const float* weight, const float* bias, float eps,
                         Act act, Moments moments, float momentum, float* running_mean, float* running_var,
                         int threads) {
    auto [mean, rest, rstd] = moments;
    Shape s(rows, chans);
    std::vector<float> origin(chans);
    for (long c = 0; c < chans; c++) origin[c] = one(x + c);
    std::vector<float> origins = s.spread(origin.data());
    std::vector<double> sum(chans), squares(chans);
    two_sums(
        s, threads,
        [&](long row, long c, Vec& a, Vec& b) {
            Vec d = load(x + row * s.wide + c) - load(&origins[c]);
            a += d;
            b += d * d;
        },
        [&](long pixel, long c, double& a, double& b) {
            double d = one(x + pixel * chans + c) - origin[c];
            a += d;
            b += d * d;
        },
        sum.data(), squares.data());
    std::vector<float> scale(chans), shift(chans);
    for (long c = 0; c < chans; c++) {
        double centre = sum[c] / rows, var = std::max(0.0, squares[c] / rows - centre * centre);
        if (!std::isfinite(squares[c])) var = squares[c];  // What is lost stays visible.
        mean[c] = static_cast<float>(centre + origin[c]);
        rest[c] = static_cast<float>(centre + origin[c] - mean[c]);
        rstd[c] = static_cast<float>(1.0 / std::sqrt(var + eps));
        scale[c] = rstd[c] * (weight ? weight[c] : 1.0f);
        shift[c] = (bias ? bias[c] : 0.0f) - rest[c] * scale[c];
        if (running_mean) running_mean[c] += momentum * (mean[c] - running_mean[c]);
        if (running_var) {
            float unbiased = static_cast<float>(var * rows / std::max(1L, rows - 1));
            running_var[c] += momentum * (unbiased - running_var[c]);
        }
    }
    std::vector<float> means = s.spread(mean), scales = s.spread(scale.data()), shifts = s.spread(shift.data());
    auto value = [&](Vec v, long c) {
        return act.forward((v - load(&means[c])) * load(&scales[c]) + load(&shifts[c]));
    };
    each_value(
        s, threads, [&](long at, long c) { store(y + at, value(load(x + at), c)); },
        [&](long at, long c) {
            T line[LANES] = {};
            line[0] = x[at];
            float m = means[c], k = scales[c], h = shifts[c];
            store(line, act.forward((load(line) - m) * k + h));
            y[at] = line[0];
        });
}

// The gradients of `norm_forward`: of x from that of y, of weight and of bias (null where not asked for).
template <class T>
static void norm_backward(const T* grad, const T* x, T* dx, long rows, long chans, const float* weight,
                          const float* bias, Act act, Moments moments, float* dweight, float* dbias, int threads) {
    auto [mean, rest, rstd] = moments;
    Shape s(rows, chans);
    std::vector<float> scale(chans), shift(chans);
    for (long c = 0; c < chans; c++) {
        scale[c] = rstd[c] * (weight ? weight[c] : 1.0f);
        shift[c] = (bias ? bias[c] : 0.0f) - rest[c] * scale[c];
    }
    std::vector<float> means = s.spread(mean), scales = s.spread(scale.data()), shifts = s.spread(shift.data());
    std::vector<double> sum(chans), products(chans);
    two_sums(
        s, threads,
        [&](long row, long c, Vec& a, Vec& b) {
            Vec d = load(x + row * s.wide + c) - load(&means[c]);
            Vec g = act.backward(d * load(&scales[c]) + load(&shifts[c]), load(grad + row * s.wide + c));
            a += g;
            b += g * d;
        },
        [&](long pixel, long c, double& a, double& b) {
            float d = one(x + pixel * chans + c) - mean[c];
            Vec g = act.backward(all(d * scale[c] + shift[c]), all(one(grad + pixel * chans + c)));
            a += g[0];
            b += static_cast<double>(g[0]) * d;
        },
        sum.data(), products.data());
    std::vector<float> level(chans), slope(chans);
    for (long c = 0; c < chans; c++) {
        products[c] -= sum[c] * rest[c];
        if (dweight) dweight[c] = static_cast<float>(products[c] * rstd[c]);
        if (dbias) dbias[c] = static_cast<float>(sum[c]);
        slope[c] = static_cast<float>(products[c] / rows * rstd[c] * rstd[c]);
        level[c] = static_cast<float>(sum[c] / rows) - rest[c] * slope[c];
    }
    std::vector<float> levels = s.spread(level.data()), slopes = s.spread(slope.data());
    each_value(
        s, threads,
        [&](long at, long c) {
            Vec d = load(x + at) - load(&means[c]), k = load(&scales[c]);
            Vec g = act.backward(d * k + load(&shifts[c]), load(grad + at));
            store(dx + at, (g - load(&levels[c]) - d * load(&slopes[c])) * k);
        },
        [&](long at, long c) {
            float d = one(x + at) - mean[c];
            Vec g = act.backward(all(d * scale[c] + shift[c]), all(one(grad + at)));
            T line[LANES];
            store(line, (g - level[c] - d * slope[c]) * scale[c]);
            dx[at] = line[0];
        });
}
