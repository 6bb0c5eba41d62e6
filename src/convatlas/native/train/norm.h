// Batch normalisation of a training step, what may be added to it (a residual block's shortcut), and the activation
// that follows, as one: maps are read twice and written once, where layer by layer they are read three times or more
// and written twice; backward, too.
//
// Maps lie channels-last, so they are matrices (rows, chans), where a row is a pixel of an image.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "half.h"

// What becomes of a normalised value, and what of the gradient of that. The kind is known to the compiler: it is
// asked for at each value.
template <int64_t KIND>
struct Act {
    Vec low, high;

    Vec forward(Vec v) const {
        if constexpr (KIND == CLIP) return smaller(larger(v, low), high);
        if constexpr (KIND == SILU) return v / (1.0f + exponential(-v));
        return v;
    }

    // Where a bound is reached, no gradient passes, as in torch.
    Vec backward(Vec v, Vec grad) const {
        if constexpr (KIND == CLIP) return (v > low) & (v < high) ? grad : Vec{};
        if constexpr (KIND == SILU) {
            Vec share = 1.0f / (1.0f + exponential(-v));
            return grad * share * (1.0f + v * (1.0f - share));
        }
        return grad;
    }
};

// A matrix (rows, chans) as wide rows: several pixels side by side, so that vectors fit into a row whatever the
// number of channels is. The last few pixels may be over: their values are done one by one.
struct Shape {
    long chans, pixels, wide, whole;  // `pixels` in a wide row of `wide` values; `whole` such rows

    Shape(long rows, long chans) : chans(chans) {
        pixels = LANES;
        while (pixels > 1 && chans * (pixels / 2) % LANES == 0 && chans * (pixels / 2) >= 4 * LANES) pixels /= 2;
        wide = pixels * chans;
        whole = rows / pixels;
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

// Calls body(part, first, last) for the wide rows of each part, and in a second pass from the last part on: what a
// pass has read last is in the cache still.
template <class Body>
static inline void each_part(const Shape& s, bool backwards, int threads, const Body& body) {
    long parts = s.parts(), part = s.part();
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long i = 0; i < parts; i++) {
        long turn = backwards ? parts - 1 - i : i;
        body(turn, turn * part, std::min(s.whole, (turn + 1) * part));
    }
}

// Adds the parts' sums (parts, 2, wide), in order, to those of two quantities for each channel.
static inline void gather(const Shape& s, const std::vector<float>& sums, double* first, double* second) {
    for (long part = 0; part < s.parts(); part++) {
        const float* its = sums.data() + part * 2 * s.wide;
        for (long p = 0; p < s.pixels; p++)
            for (long c = 0; c < s.chans; c++) {
                first[c] += its[p * s.chans + c];
                second[c] += its[s.wide + p * s.chans + c];
            }
    }
}

// The loops over values, on memory that nothing else points to, so that the compiler keeps in registers what it
// can. Four rows at a time: what belongs to a channel is fetched, and sums are put back, once for all of them.

constexpr int TOGETHER = 4;

// Sums of x - origin, and of its square.
template <int ROWS, class T>
static inline void moment_rows(const T* __restrict x, long wide, const float* __restrict origin,
                               float* __restrict sums, float* __restrict squares) {
    for (long c = 0; c < wide; c += LANES) {
        Vec o = load(origin + c), a = Vec{}, b = Vec{};
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            Vec d = load(x + i * wide + c) - o;
            a += d;
            b += d * d;
        }
        store(sums + c, load(sums + c) + a);
        store(squares + c, load(squares + c) + b);
    }
}

template <int ROWS, bool ADDS, class A, class T>
static inline void value_rows(const T* __restrict x, const T* __restrict added, T* __restrict y, long wide,
                              const float* __restrict mean, const float* __restrict scale,
                              const float* __restrict shift, A act) {
    for (long c = 0; c < wide; c += LANES) {
        Vec m = load(mean + c), k = load(scale + c), h = load(shift + c);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            Vec v = (load(x + i * wide + c) - m) * k + h;
            if constexpr (ADDS) v += load(added + i * wide + c);
            store(y + i * wide + c, act.forward(v));
        }
    }
}

// Sums of the gradient of what is normalised, and of its product with x - mean. Where something is added, that is its
// gradient too, and kept.
template <int ROWS, bool ADDS, class A, class T>
static inline void product_rows(const T* __restrict grad, const T* __restrict x, const T* __restrict added,
                                T* __restrict dadded, long wide, const float* __restrict mean,
                                const float* __restrict scale, const float* __restrict shift,
                                float* __restrict sums, float* __restrict products, A act) {
    for (long c = 0; c < wide; c += LANES) {
        Vec m = load(mean + c), k = load(scale + c), h = load(shift + c), a = Vec{}, b = Vec{};
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            Vec d = load(x + i * wide + c) - m, v = d * k + h;
            if constexpr (ADDS) v += load(added + i * wide + c);
            Vec g = act.backward(v, load(grad + i * wide + c));
            if constexpr (ADDS) store(dadded + i * wide + c, g);
            a += g;
            b += g * d;
        }
        store(sums + c, load(sums + c) + a);
        store(products + c, load(products + c) + b);
    }
}

// For each place of a wide row: dx = (grad - level - (x - mean) slope) scale.
struct Lines {
    const float *mean, *scale, *shift, *level, *slope;
};

template <int ROWS, class A, class T>
static inline void slope_rows(const T* __restrict grad, const T* __restrict x, T* __restrict dx, long wide,
                              Lines line, A act) {
    const float *__restrict mean = line.mean, *__restrict scale = line.scale, *__restrict shift = line.shift,
                            *__restrict level = line.level, *__restrict slope = line.slope;
    for (long c = 0; c < wide; c += LANES) {
        Vec m = load(mean + c), k = load(scale + c), h = load(shift + c), l = load(level + c), p = load(slope + c);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            Vec d = load(x + i * wide + c) - m;
            Vec g = act.backward(d * k + h, load(grad + i * wide + c));
            store(dx + i * wide + c, (g - l - d * p) * k);
        }
    }
}

// Calls rows(count, first row) for rows from `from` to `to`, several together while there are enough; `count` says
// how many as a constant.
template <class Rows>
static inline void by_rows(long from, long to, const Rows& rows) {
    for (; from + TOGETHER <= to; from += TOGETHER) rows(std::integral_constant<int, TOGETHER>{}, from);
    for (; from < to; from++) rows(std::integral_constant<int, 1>{}, from);
}

// What the backward pass needs of the forward one, for each channel. The mean is `mean` + `rest`: beside a large
// mean, a float has no room for the digits that matter.
struct Moments {
    float *mean, *rest, *rstd;
};

// What is normalised is (x - mean) scale + shift; for each place of a wide row, so for each channel at its start.
struct Affine {
    long chans;
    std::vector<float> mean, scale, shift;

    Affine(const Shape& s, Moments moments, const float* weight, const float* bias) : chans(s.chans) {
        std::vector<float> scales(s.chans), shifts(s.chans);
        for (long c = 0; c < s.chans; c++) {
            scales[c] = moments.rstd[c] * (weight ? weight[c] : 1.0f);
            shifts[c] = (bias ? bias[c] : 0.0f) - moments.rest[c] * scales[c];
        }
        mean = s.spread(moments.mean);
        scale = s.spread(scales.data());
        shift = s.spread(shifts.data());
    }

    // A single value before the activation.
    template <class T>
    float value(const T* x, const T* added, long at) const {
        long c = at % chans;
        return (one(x + at) - mean[c]) * scale[c] + shift[c] + (added ? one(added + at) : 0.0f);
    }
};

// Calls run(adds) with whether there is something to add, as a constant.
template <class Run>
static inline void with_added(const void* added, const Run& run) {
    if (added) run(std::true_type{});
    else run(std::false_type{});
}

// y = act((x - mean) / sqrt(var + eps) * weight + bias + added), where `added` may be null; moves the running
// statistics (null for none) by `momentum`.
//
// Variances are of values less those of the first row, so that a large mean takes no digits away.
template <class A, class T>
static void norm_forward(const T* x, const T* added, T* y, long rows, long chans, const float* weight,
                         const float* bias, float eps, A act, Moments moments, float momentum, float* running_mean,
                         float* running_var, int threads) {
    auto [mean, rest, rstd] = moments;
    Shape s(rows, chans);
    std::vector<float> origin(chans);
    for (long c = 0; c < chans; c++) origin[c] = one(x + c);
    std::vector<float> origins = s.spread(origin.data()), sums(s.parts() * 2 * s.wide, 0.0f);
    each_part(s, false, threads, [&](long part, long from, long to) {
        float* mine = sums.data() + part * 2 * s.wide;
        by_rows(from, to, [&, wide = s.wide](auto count, long row) {
            moment_rows<count>(x + row * wide, wide, origins.data(), mine, mine + wide);
        });
    });
    std::vector<double> sum(chans, 0.0), squares(chans, 0.0);
    gather(s, sums, sum.data(), squares.data());
    for (long at = s.whole * s.wide; at < rows * chans; at++) {
        double d = one(x + at) - origin[at % chans];
        sum[at % chans] += d;
        squares[at % chans] += d * d;
    }
    for (long c = 0; c < chans; c++) {
        double centre = sum[c] / rows, var = std::max(0.0, squares[c] / rows - centre * centre);
        if (!std::isfinite(squares[c])) var = squares[c];  // What is lost stays visible.
        mean[c] = static_cast<float>(centre + origin[c]);
        rest[c] = static_cast<float>(centre + origin[c] - mean[c]);
        rstd[c] = static_cast<float>(1.0 / std::sqrt(var + eps));
        if (running_mean) running_mean[c] += momentum * (mean[c] - running_mean[c]);
        if (running_var) {
            float unbiased = static_cast<float>(var * rows / std::max(1L, rows - 1));
            running_var[c] += momentum * (unbiased - running_var[c]);
        }
    }
    Affine a(s, moments, weight, bias);
    with_added(added, [&](auto adds) {
        each_part(s, true, threads, [&](long, long from, long to) {
            by_rows(from, to, [&, wide = s.wide](auto count, long row) {
                value_rows<count, adds>(x + row * wide, added + (adds ? row * wide : 0), y + row * wide, wide,
                                        a.mean.data(), a.scale.data(), a.shift.data(), act);
            });
        });
    });
    for (long at = s.whole * s.wide; at < rows * chans; at++) put(y + at, act.forward(all(a.value(x, added, at))));
}

// The gradients of `norm_forward`: of x from that of y, of what is added (null for none), of weight and of bias (null
// where not asked for).
template <class A, class T>
static void norm_backward(const T* grad, const T* x, const T* added, T* dx, T* dadded, long rows, long chans,
                          const float* weight, const float* bias, A act, Moments moments, float* dweight,
                          float* dbias, int threads) {
    Shape s(rows, chans);
    Affine a(s, moments, weight, bias);
    std::vector<float> sums(s.parts() * 2 * s.wide, 0.0f);
    with_added(added, [&](auto adds) {
        each_part(s, false, threads, [&](long part, long from, long to) {
            float* mine = sums.data() + part * 2 * s.wide;
            by_rows(from, to, [&, wide = s.wide](auto count, long row) {
                long other = adds ? row * wide : 0;
                product_rows<count, adds>(grad + row * wide, x + row * wide, added + other, dadded + other, wide,
                                          a.mean.data(), a.scale.data(), a.shift.data(), mine, mine + wide, act);
            });
        });
    });
    std::vector<double> sum(chans, 0.0), products(chans, 0.0);
    gather(s, sums, sum.data(), products.data());
    auto single = [&](long at) { return act.backward(all(a.value(x, added, at)), all(one(grad + at)))[0]; };
    for (long at = s.whole * s.wide; at < rows * chans; at++) {
        double g = single(at);
        if (added) put(dadded + at, all(g));
        sum[at % chans] += g;
        products[at % chans] += g * (one(x + at) - a.mean[at % chans]);
    }
    std::vector<float> level(chans), slope(chans);
    for (long c = 0; c < chans; c++) {
        float rest = moments.rest[c], rstd = moments.rstd[c];
        products[c] -= sum[c] * rest;
        if (dweight) dweight[c] = static_cast<float>(products[c] * rstd);
        if (dbias) dbias[c] = static_cast<float>(sum[c]);
        slope[c] = static_cast<float>(products[c] / rows * rstd * rstd);
        level[c] = static_cast<float>(sum[c] / rows) - rest * slope[c];
    }
    std::vector<float> levels = s.spread(level.data()), slopes = s.spread(slope.data());
    Lines line{a.mean.data(), a.scale.data(), a.shift.data(), levels.data(), slopes.data()};
    auto slopes_of = [&](const T* above, auto its_act) {
        each_part(s, true, threads, [&](long, long from, long to) {
            by_rows(from, to, [&, wide = s.wide](auto count, long row) {
                slope_rows<count>(above + row * wide, x + row * wide, dx + row * wide, wide, line, its_act);
            });
        });
    };
    if (added) slopes_of(dadded, Act<NONE>{});
    else slopes_of(grad, act);
    for (long at = s.whole * s.wide; at < rows * chans; at++) {
        long c = at % chans;
        put(dx + at, all((single(at) - level[c] - (one(x + at) - a.mean[c]) * slope[c]) * a.scale[c]));
    }
}
