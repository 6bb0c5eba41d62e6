// Winograd's minimal filtering: a tile of SIDE x SIDE outputs of a 3x3 convolution with stride 1 takes (SIDE + 2)^2
// products for each pair of channels instead of 9 SIDE^2, a quarter of them for SIDE = 4.
//
// Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", Section 4: the transforms
// of F(2x2, 3x3) and F(4x4, 3x3), there called B, G and A.
#pragma once

#include "vector.h"

template <int SIDE>
struct Transforms;

template <>
struct Transforms<2> {
    static constexpr double G[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

    static inline void input(Vec* d, int step) {
        Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
        d[0] = d0 - d2;
        d[step] = d1 + d2;
        d[2 * step] = d2 - d1;
        d[3 * step] = d1 - d3;
    }

    static inline void output(const Vec* m, int step, Vec* o, int out_step) {
        o[0] = m[0] + m[step] + m[2 * step];
        o[out_step] = m[step] - m[2 * step] - m[3 * step];
    }
};

template <>
struct Transforms<4> {
    static constexpr double G[6][3] = {{1.0 / 4, 0, 0},
                                       {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                       {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                       {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                       {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                       {0, 0, 1}};

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

    static inline void output(const Vec* m, int step, Vec* o, int out_step) {
        Vec sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
        Vec far_sum = m[3 * step] + m[4 * step], far_difference = m[3 * step] - m[4 * step];
        o[0] = m[0] + sum + far_sum;
        o[out_step] = difference + 2.0f * far_difference;
        o[2 * out_step] = sum + 4.0f * far_sum;
        o[3 * out_step] = difference + 8.0f * far_difference + m[5 * step];
    }

    // What `output` does to sums, done to gradients the other way: A instead of A'.
    static inline void gradient(const Vec* o, int step, Vec* m, int out_step) {
        Vec even = o[0] + o[2 * step], odd = o[step] + o[3 * step];
        Vec far_even = o[0] + 4.0f * o[2 * step], far_odd = 2.0f * o[step] + 8.0f * o[3 * step];
        Vec first = o[0], last = o[3 * step];
        m[0] = first;
        m[out_step] = even + odd;
        m[2 * out_step] = even - odd;
        m[3 * out_step] = far_even + far_odd;
        m[4 * out_step] = far_even - far_odd;
        m[5 * out_step] = last;
    }
};
