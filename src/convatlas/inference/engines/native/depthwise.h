// Convolutions of each channel by itself.
#pragma once

#include "step.h"
#include "vector.h"

class DepthwiseConv {
   public:
    void run(const Step& s, long images, Place& place) const {
        place.team.share(images * s.out.height, [&](long task, int) {
            long image = task / s.out.height, y = task % s.out.height;
            if (s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w == 1) row<3, 3, 1>(s, place, image, y);
            else if (s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w == 2) row<3, 3, 2>(s, place, image, y);
            else if (s.kernel_h == 5 && s.kernel_w == 5 && s.stride_w == 1) row<5, 5, 1>(s, place, image, y);
            else if (s.kernel_h == 5 && s.kernel_w == 5 && s.stride_w == 2) row<5, 5, 2>(s, place, image, y);
            else row<0, 0, 0>(s, place, image, y);
        });
    }

   private:
    static constexpr int TOGETHER = 4;  // outputs that share what they read

    // One row of outputs. With sizes that the compiler knows, several outputs inside the map at a time.
    template <int KH, int KW, int STRIDE>
    static void row(const Step& s, Place& place, long image, long y) {
        const float* map = place.arena + s.in.at + image * s.in.image();
        float* out = place.arena + s.out.at + (image * s.out.height + y) * s.out.width * s.out.pitch;
        long top = y * s.stride_h - s.pad_top;
        long first = std::max(0L, -top), last = std::min<long>(s.kernel_h, s.in.height - top);
        for (long c = 0; c < s.in.chans; c += LANES) {
            long n = s.in.chans - c;
            if (n < LANES && s.in.chans >= LANES) {
                c = s.in.chans - LANES;  // The last vector overlaps the one before.
                n = LANES;
            }
            Vec bias = s.bias ? load_some(s.bias + c, n) : Vec{};
            for (long x = 0; x < s.out.width;) {
                long left = x * s.stride_w - s.pad_left;
                if constexpr (KH > 0) {
                    bool inside = left >= 0 && x + TOGETHER <= s.out.width && n == LANES &&
                                  left + (TOGETHER - 1) * STRIDE + KW <= s.in.width;
                    if (inside) {
                        several<KW, STRIDE>(s, map + top * s.in.width * s.in.pitch + left * s.in.pitch + c, first,
                                            last, c, bias, out + x * s.out.pitch + c);
                        x += TOGETHER;
                        continue;
                    }
                }
                Vec sum = bias;
                for (long ky = first; ky < last; ky++)
                    for (long kx = std::max(0L, -left); kx < std::min<long>(s.kernel_w, s.in.width - left); kx++) {
                        const float* from = map + ((top + ky) * s.in.width + left + kx) * s.in.pitch + c;
                        sum += read(s, from, n) * load_some(s.weight + (ky * s.kernel_w + kx) * s.in.chans + c, n);
                    }
                store_some(out + x * s.out.pitch + c, activate(sum, s.activation, s.low, s.high), n);
                x++;
            }
        }
    }

    template <int KW, int STRIDE>
    static inline void several(const Step& s, const float* from, long first, long last, long c, Vec bias,
                               float* out) {
        Vec sum[TOGETHER];
        for (int o = 0; o < TOGETHER; o++) sum[o] = bias;
        for (long ky = first; ky < last; ky++) {
            Vec weight[KW];
#pragma GCC unroll 8
            for (int kx = 0; kx < KW; kx++) weight[kx] = load(s.weight + (ky * KW + kx) * s.in.chans + c);
            const float* line = from + ky * s.in.width * s.in.pitch;
#pragma GCC unroll 16
            for (int x = 0; x < (TOGETHER - 1) * STRIDE + KW; x++) {
                Vec v = read(s, line + x * s.in.pitch, LANES);
#pragma GCC unroll 4
                for (int o = 0; o < TOGETHER; o++)
                    if (x - o * STRIDE >= 0 && x - o * STRIDE < KW) sum[o] += v * weight[x - o * STRIDE];
            }
        }
        for (int o = 0; o < TOGETHER; o++)
            store(out + o * s.out.pitch, activate(sum[o], s.activation, s.low, s.high));
    }

    static inline Vec read(const Step& s, const float* from, long n) {
        Vec v = load_some(from, n);
        return s.relu_first ? larger(v, Vec{}) : v;
    }
};
