// Convolutions of each channel by itself.
#pragma once

#include "depthwise_rows.h"
#include "step.h"

class DepthwiseConv {
   public:
    void run(const Step& s, long images, Place& place) const {
        place.team.share(images * s.out.height, [&](long task, int) {
            long image = task / s.out.height, y = task % s.out.height;
            const float* map = place.arena + s.in.at + image * s.in.image();
            auto row_at = [&](long at) { return map + at * s.in.width * s.in.pitch; };
            row(s, y, row_at, place.arena + s.out.at + task * s.out.width * s.out.pitch);
        });
    }

    // Row `y` of the outputs; row_at(row) says where a row of the input lies.
    template <class At>
    static void row(const Step& s, long y, const At& row_at, float* out) {
        Window<float> window(y, s.kernel_h, s.stride_h, s.pad_top, s.in.height, row_at);
        if (s.relu_first) row<true>(s, window, out);
        else row<false>(s, window, out);
    }

   private:
    template <bool RELU>
    static void row(const Step& s, const Window<float>& window, float* out) {
        bool wide = s.out.width >= BESIDE && s.in.chans >= LANES;
        if (wide && s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w == 1) row<3, 1, RELU>(s, window, out);
        else if (wide && s.kernel_h == 3 && s.kernel_w == 3 && s.stride_w == 2) row<3, 2, RELU>(s, window, out);
        else if (wide && s.kernel_h == 5 && s.kernel_w == 5 && s.stride_w == 1) row<5, 1, RELU>(s, window, out);
        else if (wide && s.kernel_h == 5 && s.kernel_w == 5 && s.stride_w == 2) row<5, 2, RELU>(s, window, out);
        else
            for (long x = 0; x < s.out.width; x++) one<RELU>(s, window, x, out + x * s.out.pitch);
    }

    // A few outputs side by side at a time, all of their channels before the next ones': what is read for them stays
    // in the first-level cache. The last ones may overlap those before.
    template <int SIZE, int STRIDE, bool RELU>
    static void row(const Step& s, const Window<float>& window, float* out) {
        static thread_local std::vector<float> zeros;
        if (static_cast<long>(zeros.size()) < s.in.chans) zeros.assign(s.in.chans, 0.0f);
        const float* pixels[SIZE * ACROSS<SIZE, STRIDE>];
        for (long start = 0; start < s.out.width; start += BESIDE) {
            long x = std::min<long>(start, s.out.width - BESIDE);
            find_pixels(window.rows.data(), window.first, window.last, x * STRIDE - s.pad_left, ACROSS<SIZE, STRIDE>,
                        s.in.width, s.in.pitch, zeros.data(), pixels);
            several<SIZE, STRIDE, RELU>(s, pixels, window.first, window.last, out + x * s.out.pitch);
        }
    }

    // One output.
    template <bool RELU>
    static void one(const Step& s, const Window<float>& window, long x, float* out) {
        long left = x * s.stride_w - s.pad_left;
        long from = std::max(0L, -left), to = std::min<long>(s.kernel_w, s.in.width - left);
        for (long c = 0; c < s.in.chans; c += LANES) {
            long n = s.in.chans - c;
            Vec sum = s.bias ? load_some(s.bias + c, n) : Vec{};
            for (long ky = window.first; ky < window.last; ky++)
                for (long kx = from; kx < to; kx++) {
                    const float* pixel = window.rows[ky] + (left + kx) * s.in.pitch + c;
                    sum += read<RELU>(load_some(pixel, n)) *
                           load_some(s.weight + (ky * s.kernel_w + kx) * s.in.chans + c, n);
                }
            store_some(out + c, activate(sum, s.activation, s.low, s.high), n);
        }
    }

    template <int SIZE, int STRIDE, bool RELU>
    static void several(const Step& s, const float* const* pixels, long first, long last, float* out) {
        long chans = s.in.chans;
        for (long start = 0; start < chans; start += LANES) {
            long c = std::min(start, chans - LANES);  // The last vector may overlap the one before.
            Vec bias = s.bias ? load(s.bias + c) : Vec{}, sum[BESIDE];
#pragma GCC unroll 8
            for (int o = 0; o < BESIDE; o++) sum[o] = bias;
            add_products<SIZE, STRIDE>(sum, pixels, first, last, s.weight, chans, c, read<RELU>);
            put(s, sum, out + c);
        }
    }

    static inline void put(const Step& s, Vec (&sum)[BESIDE], float* out) {
        if (s.activation == CLIP) {
            Vec low = all(s.low), high = all(s.high);
#pragma GCC unroll 8
            for (int o = 0; o < BESIDE; o++) sum[o] = smaller(larger(sum[o], low), high);
        }
#pragma GCC unroll 8
        for (int o = 0; o < BESIDE; o++) store(out + o * s.out.pitch, sum[o]);
        if (s.activation == CLIP || s.activation == NONE) return;
        for (int o = 0; o < BESIDE; o++)
            store(out + o * s.out.pitch, activate(load(out + o * s.out.pitch), s.activation, s.low, s.high));
    }

    template <bool RELU>
    static inline Vec read(Vec v) {
        return RELU ? larger(v, Vec{}) : v;
    }
};
