// Convolutions of each channel by itself.
#pragma once

#include "step.h"
#include "vector.h"

class DepthwiseConv {
   public:
    void run(const Step& s, long images, Place& place) const {
        place.team.share(images * s.out.height, [&](long task, int) {
            if (s.relu_first) line<true>(s, place, task / s.out.height, task % s.out.height);
            else line<false>(s, place, task / s.out.height, task % s.out.height);
        });
    }

   private:
    static constexpr int TOGETHER = 4;  // outputs that share what they read

    template <bool RELU>
    static void line(const Step& s, Place& place, long image, long y) {
        if (s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w == 1) row<3, 1, RELU>(s, place, image, y);
        else if (s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w == 2) row<3, 2, RELU>(s, place, image, y);
        else if (s.kernel_h == 5 && s.kernel_w == 5 && s.stride_w == 1) row<5, 1, RELU>(s, place, image, y);
        else if (s.kernel_h == 5 && s.kernel_w == 5 && s.stride_w == 2) row<5, 2, RELU>(s, place, image, y);
        else row<0, 0, RELU>(s, place, image, y);
    }

    // One row of outputs, a few side by side at a time, all of their channels before the next ones': what is read
    // for them stays in the first-level cache. SIZE is 0 for kernels that the compiler does not know.
    template <int SIZE, int STRIDE, bool RELU>
    static void row(const Step& s, Place& place, long image, long y) {
        const float* map = place.arena + s.in.at + image * s.in.image();
        float* out = place.arena + s.out.at + (image * s.out.height + y) * s.out.width * s.out.pitch;
        long top = y * s.stride_h - s.pad_top;
        long first = std::max(0L, -top), last = std::min<long>(s.kernel_h, s.in.height - top);
        for (long x = 0; x < s.out.width;) {
            long left = x * s.stride_w - s.pad_left;
            if constexpr (SIZE > 0) {
                bool inside = left >= 0 && x + TOGETHER <= s.out.width && s.in.chans >= LANES &&
                              left + (TOGETHER - 1) * STRIDE + SIZE <= s.in.width;
                if (inside) {
                    several<SIZE, STRIDE, RELU>(s, map + (top * s.in.width + left) * s.in.pitch, first, last,
                                                out + x * s.out.pitch);
                    x += TOGETHER;
                    continue;
                }
            }
            one<RELU>(s, map, top, left, first, last, out + x * s.out.pitch);
            x++;
        }
    }

    // One output, at the map's edge perhaps.
    template <bool RELU>
    static void one(const Step& s, const float* map, long top, long left, long first, long last, float* out) {
        long from = std::max(0L, -left), to = std::min<long>(s.kernel_w, s.in.width - left);
        for (long c = 0; c < s.in.chans; c += LANES) {
            long n = s.in.chans - c;
            Vec sum = s.bias ? load_some(s.bias + c, n) : Vec{};
            for (long ky = first; ky < last; ky++)
                for (long kx = from; kx < to; kx++) {
                    const float* pixel = map + ((top + ky) * s.in.width + left + kx) * s.in.pitch + c;
                    sum += read<RELU>(load_some(pixel, n)) *
                           load_some(s.weight + (ky * s.kernel_w + kx) * s.in.chans + c, n);
                }
            store_some(out + c, activate(sum, s.activation, s.low, s.high), n);
        }
    }

    // TOGETHER outputs whose kernels lie inside the map from left to right.
    template <int SIZE, int STRIDE, bool RELU>
    static void several(const Step& s, const float* map, long first, long last, float* out) {
        long pitch = s.in.pitch, chans = s.in.chans, line = s.in.width * pitch;
        for (long start = 0; start < chans; start += LANES) {
            long c = std::min(start, chans - LANES);  // The last vector may overlap the one before.
            Vec bias = s.bias ? load(s.bias + c) : Vec{}, sum[TOGETHER];
#pragma GCC unroll 4
            for (int o = 0; o < TOGETHER; o++) sum[o] = bias;
            for (long ky = first; ky < last; ky++) {
                Vec weight[SIZE];
#pragma GCC unroll 8
                for (int kx = 0; kx < SIZE; kx++) weight[kx] = load(s.weight + (ky * SIZE + kx) * chans + c);
                const float* from = map + ky * line + c;
#pragma GCC unroll 16
                for (int x = 0; x < (TOGETHER - 1) * STRIDE + SIZE; x++) {
                    Vec v = read<RELU>(load(from + x * pitch));
#pragma GCC unroll 4
                    for (int o = 0; o < TOGETHER; o++)
                        if (x - o * STRIDE >= 0 && x - o * STRIDE < SIZE) sum[o] += v * weight[x - o * STRIDE];
                }
            }
#pragma GCC unroll 4
            for (int o = 0; o < TOGETHER; o++)
                store(out + o * s.out.pitch + c, activate(sum[o], s.activation, s.low, s.high));
        }
    }

    template <bool RELU>
    static inline Vec read(Vec v) {
        return RELU ? larger(v, Vec{}) : v;
    }
};
