// Winograd's minimal filtering: SIDE outputs of a filter of TAPS values with stride 1 take SIDE + TAPS - 1
// products instead of SIDE * TAPS, and a tile of a convolution the product of both for its rows and columns: a
// quarter of the multiplications for tiles of 4x4 and filters of 3x3.
//
// Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", Section 4: the transforms are
// there called B, G and A. They follow from values of polynomials at 0, 1, -1, 2, -2, 1/2, -1/2 and infinity
// (Winograd 1980).
#pragma once

#include "vector.h"

static constexpr double power(double x, int n) { return n == 0 ? 1.0 : x * power(x, n - 1); }

// Values of polynomials with COUNT coefficients: at 0, at PAIRS pairs of points (`at` and its negative), and at
// infinity, where the value is the last coefficient. `input` is B', in place.
template <int COUNT>
struct Points;

template <>
struct Points<4> {
    static constexpr int PAIRS = 1;
    static constexpr double at[] = {1}, scale[] = {1.0 / 2}, at_zero = 1;

    static inline void input(Vec* d, int step) {
        Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
        d[0] = d0 - d2;
        d[step] = d1 + d2;
        d[2 * step] = d2 - d1;
        d[3 * step] = d3 - d1;
    }
};

template <>
struct Points<6> {
    static constexpr int PAIRS = 2;
    static constexpr double at[] = {1, 2}, scale[] = {-1.0 / 6, 1.0 / 24}, at_zero = 1.0 / 4;

    static inline void input(Vec* d, int step) {
        Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
        Vec even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1, far = d4 - d2, near = 2.0f * (d3 - d1);
        d[0] = 4.0f * d0 - 5.0f * d2 + d4;
        d[step] = even + odd;
        d[2 * step] = even - odd;
        d[3 * step] = far + near;
        d[4 * step] = far - near;
        d[5 * step] = 4.0f * d1 - 5.0f * d3 + d5;
    }
};

template <>
struct Points<8> {
    static constexpr int PAIRS = 3;
    static constexpr double at[] = {1, 2, 0.5}, scale[] = {-2.0 / 9, 1.0 / 90, 32.0 / 45}, at_zero = 1;

    static inline void input(Vec* d, int step) {
        Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
        Vec d4 = d[4 * step], d5 = d[5 * step], d6 = d[6 * step], d7 = d[7 * step];
        Vec even = d2 - 4.25f * d4 + d6, odd = d1 - 4.25f * d3 + d5;
        Vec far_even = 0.25f * d2 - 1.25f * d4 + d6, far_odd = 0.5f * d1 - 2.5f * d3 + 2.0f * d5;
        Vec near_even = 4.0f * d2 - 5.0f * d4 + d6, near_odd = 2.0f * d1 - 2.5f * d3 + 0.5f * d5;
        d[0] = d0 - d6 + 5.25f * (d4 - d2);
        d[step] = even + odd;
        d[2 * step] = even - odd;
        d[3 * step] = far_even + far_odd;
        d[4 * step] = far_even - far_odd;
        d[5 * step] = near_even + near_odd;
        d[6 * step] = near_even - near_odd;
        d[7 * step] = d7 - d1 + 5.25f * (d3 - d5);
    }
};

// G: what each value of the filter counts at each point.
template <int COUNT, int TAPS>
struct FilterAtPoints {
    double rows[COUNT][TAPS] = {};

    constexpr FilterAtPoints() {
        using At = Points<COUNT>;
        rows[0][0] = At::at_zero;
        rows[COUNT - 1][TAPS - 1] = 1;
        for (int q = 0; q < At::PAIRS; q++)
            for (int tap = 0; tap < TAPS; tap++) {
                double value = At::scale[q] * power(At::at[q], tap);
                rows[2 * q + 1][tap] = value;
                rows[2 * q + 2][tap] = tap % 2 ? -value : value;
            }
    }

    constexpr const double* operator[](int point) const { return rows[point]; }
};

// Along one side of a tile.
template <int SIDE_, int TAPS_>
struct Filtering {
    static constexpr int SIDE = SIDE_, TAPS = TAPS_, POINTS = SIDE + TAPS - 1;
    static constexpr FilterAtPoints<POINTS, TAPS> G{};
    using At = Points<POINTS>;

    static inline void input(Vec* d, int step) { At::input(d, step); }

    // A': from values at points to outputs.
    static inline void output(const Vec* m, int step, Vec* o, int out_step) {
        Vec sum[At::PAIRS], difference[At::PAIRS];
#pragma GCC unroll 4
        for (int q = 0; q < At::PAIRS; q++) {
            const Vec *plus = m + (2 * q + 1) * step, *minus = m + (2 * q + 2) * step;
            sum[q] = *plus + *minus;
            difference[q] = *plus - *minus;
        }
#pragma GCC unroll 4
        for (int j = 0; j < SIDE; j++) {
            const Vec* part = j % 2 ? difference : sum;
            Vec found = part[0];  // The first pair is 1 and -1.
#pragma GCC unroll 4
            for (int q = 1; q < At::PAIRS; q++) found += static_cast<float>(power(At::at[q], j)) * part[q];
            if (j == 0) found += m[0];
            if (j == SIDE - 1) found += m[(POINTS - 1) * step];
            o[j * out_step] = found;
        }
    }

    // What `output` does to sums, done to gradients the other way: A instead of A'.
    static inline void gradient(const Vec* o, int step, Vec* m, int out_step) {
        Vec first = o[0], last = o[(SIDE - 1) * step], even[At::PAIRS], odd[At::PAIRS];
#pragma GCC unroll 4
        for (int q = 0; q < At::PAIRS; q++) {
            even[q] = o[0];
            odd[q] = static_cast<float>(At::at[q]) * o[step];
#pragma GCC unroll 4
            for (int j = 2; j < SIDE; j++)
                (j % 2 ? odd : even)[q] += static_cast<float>(power(At::at[q], j)) * o[j * step];
        }
        m[0] = first;
#pragma GCC unroll 4
        for (int q = 0; q < At::PAIRS; q++) {
            m[(2 * q + 1) * out_step] = even[q] + odd[q];
            m[(2 * q + 2) * out_step] = even[q] - odd[q];
        }
        m[(POINTS - 1) * out_step] = last;
    }
};

// Along a side on which the filter has one value: nothing to save.
template <>
struct Filtering<1, 1> {
    static constexpr int SIDE = 1, TAPS = 1, POINTS = 1;

    static constexpr double G[1][1] = {{1}};

    static inline void input(Vec*, int) {}
    static inline void output(const Vec* m, int, Vec* o, int) { o[0] = m[0]; }
};
