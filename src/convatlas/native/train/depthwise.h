// Depthwise convolutions of a training step, forward and backward. Maps lie channels-last, weights are
// (chans, kernel, kernel), and rows of outputs are what threads share. Channels are whole vectors.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "depthwise_rows.h"
#include "half.h"

struct Depthwise {
    long images, height, width, chans, kernel, stride, pad;

    long out_height() const { return (height + 2 * pad - kernel) / stride + 1; }
    long out_width() const { return (width + 2 * pad - kernel) / stride + 1; }
    long taps() const { return kernel * kernel; }

    // Calls row(image, y) for all rows of maps so high.
    template <class Row>
    void each_row(long high, int threads, const Row& row) const {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (long i = 0; i < images * high; i++) row(i / high, i % high);
    }

    template <class T>
    Window<T> window(const T* x, long image, long y) const {
        return {y, kernel, stride, pad, height, [&](long row) { return x + (image * height + row) * width * chans; }};
    }

    // Weights as (kernel, kernel, chans), turned by half a circle where they are to carry gradients back.
    std::vector<float> spread(const float* weight, bool turned) const {
        std::vector<float> found(taps() * chans);
        for (long c = 0; c < chans; c++)
            for (long t = 0; t < taps(); t++) found[(turned ? taps() - 1 - t : t) * chans + c] = weight[c * taps() + t];
        return found;
    }
};

// Weights are (kernel, kernel, chans).
template <int SIZE, int STRIDE, class T>
static void depthwise_rows(const Depthwise& d, const T* x, const float* weight, const float* bias, T* y,
                           int threads) {
    constexpr int COUNT = ACROSS<SIZE, STRIDE>;
    std::vector<T> zeros(d.chans);
    d.each_row(d.out_height(), threads, [&](long image, long row) {
        Window<T> window = d.window(x, image, row);
        T* out = y + (image * d.out_height() + row) * d.out_width() * d.chans;
        for (long start = 0; start < d.out_width(); start += BESIDE) {
            long at = std::min(start, d.out_width() - BESIDE);
            const T* pixels[SIZE * COUNT];
            find_pixels(window.rows.data(), window.first, window.last, at * STRIDE - d.pad, COUNT, d.width, d.chans,
                        zeros.data(), pixels);
            for (long c = 0; c < d.chans; c += LANES) {
                Vec sum[BESIDE], origin = bias ? load(bias + c) : Vec{};
#pragma GCC unroll 8
                for (int o = 0; o < BESIDE; o++) sum[o] = origin;
                add_products<SIZE, STRIDE>(sum, pixels, window.first, window.last, weight, d.chans, c,
                                           [](Vec v) { return v; });
#pragma GCC unroll 8
                for (int o = 0; o < BESIDE; o++) store(out + (at + o) * d.chans + c, sum[o]);
            }
        }
    });
}

// The gradient of the input where outputs skip pixels: each pixel gathers what it gave to.
template <class T>
static void depthwise_gather(const Depthwise& d, const T* grad, const float* weight, T* dx, int threads) {
    d.each_row(d.height, threads, [&](long image, long y) {
        for (long x = 0; x < d.width; x++) {
            const T* from[64];
            const float* by[64];
            long count = 0;
            for (long ky = 0; ky < d.kernel; ky++)
                for (long kx = 0; kx < d.kernel; kx++) {
                    long down = y + d.pad - ky, across = x + d.pad - kx;
                    if (down < 0 || across < 0 || down % d.stride || across % d.stride) continue;
                    long row = down / d.stride, column = across / d.stride;
                    if (row >= d.out_height() || column >= d.out_width()) continue;
                    from[count] = grad + ((image * d.out_height() + row) * d.out_width() + column) * d.chans;
                    by[count++] = weight + (ky * d.kernel + kx) * d.chans;
                }
            T* out = dx + ((image * d.height + y) * d.width + x) * d.chans;
            for (long c = 0; c < d.chans; c += LANES) {
                Vec sum{};
                for (long i = 0; i < count; i++) sum += load(from[i] + c) * load(by[i] + c);
                store(out + c, sum);
            }
        }
    });
}

// Adds the products of `count` gradients with the pixels at(ky, x) to sums (SIZE, SIZE, chans), for TALL rows of the
// kernel from `first` on.
template <int SIZE, int STRIDE, int TALL, class T, class At>
static inline void add_gradients(const T* grad, long count, long chans, long c, long first, const At& at,
                                 float* sums) {
    Vec sum[TALL][SIZE] = {};
    for (long x = 0; x < count; x++) {
        Vec g = load(grad + x * chans + c);
#pragma GCC unroll 8
        for (int ky = 0; ky < TALL; ky++)
#pragma GCC unroll 8
            for (int kx = 0; kx < SIZE; kx++) sum[ky][kx] += g * load(at(first + ky, x * STRIDE + kx) + c);
    }
#pragma GCC unroll 8
    for (int ky = 0; ky < TALL; ky++)
#pragma GCC unroll 8
        for (int kx = 0; kx < SIZE; kx++) {
            float* place = sums + ((first + ky) * SIZE + kx) * chans + c;
            store(place, load(place) + sum[ky][kx]);
        }
}

// The gradient of the weights, (chans, kernel, kernel). Images are cut into parts with sums of their own: into a number
// that depends on the shape alone, so that sums do not depend on the threads.
template <int SIZE, int STRIDE, class T>
static void depthwise_weight_gradient(const Depthwise& d, const T* grad, const T* x, float* dweight, int threads) {
    constexpr int TALL = SIZE == 3 ? 3 : 1;  // rows of the kernel whose sums fit into the registers
    constexpr long BLOCK = 2 * BESIDE, COUNT = (BLOCK - 1) * STRIDE + SIZE;
    long size = SIZE * SIZE * d.chans, parts = std::min(d.images, 64L);
    std::vector<float> sums(parts * size, 0.0f);
    std::vector<T> zeros(d.chans);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (long part = 0; part < parts; part++)
        for (long row = d.images * part / parts * d.out_height();
             row < d.images * (part + 1) / parts * d.out_height(); row++) {
            long image = row / d.out_height(), y = row % d.out_height();
            Window<T> window = d.window(x, image, y);
            for (long start = 0; start < d.out_width(); start += BLOCK) {
                long count = std::min(BLOCK, d.out_width() - start), left = start * STRIDE - d.pad;
                const T* above = grad + (row * d.out_width() + start) * d.chans;
                auto add = [&](const auto& at) {
                    for (long c = 0; c < d.chans; c += LANES) {
                        float* mine = sums.data() + part * size;
                        long ky = window.first;
                        for (; ky + TALL <= window.last; ky += TALL)
                            add_gradients<SIZE, STRIDE, TALL>(above, count, d.chans, c, ky, at, mine);
                        for (; ky < window.last; ky++)
                            add_gradients<SIZE, STRIDE, 1>(above, count, d.chans, c, ky, at, mine);
                    }
                };
                if (left >= 0 && left + (count - 1) * STRIDE + SIZE <= d.width) {
                    add([&](long ky, long i) { return window.rows[ky] + (left + i) * d.chans; });
                } else {
                    const T* pixels[SIZE * COUNT];
                    find_pixels(window.rows.data(), window.first, window.last, left, COUNT, d.width, d.chans,
                                zeros.data(), pixels);
                    add([&](long ky, long i) { return pixels[ky * COUNT + i]; });
                }
            }
        }
    for (long c = 0; c < d.chans; c++)
        for (long t = 0; t < d.taps(); t++) {
            double sum = 0;
            for (long part = 0; part < parts; part++) sum += sums[part * size + t * d.chans + c];
            dweight[c * d.taps() + t] = static_cast<float>(sum);
        }
}

// Calls run(kernel, stride) with both as constants, of those that there are.
template <class Run>
static void with_window(const Depthwise& d, const Run& run) {
    std::integral_constant<int, 1> one;
    std::integral_constant<int, 2> two;
    std::integral_constant<int, 3> three;
    std::integral_constant<int, 5> five;
    if (d.kernel == 3 && d.stride == 1) run(three, one);
    else if (d.kernel == 3) run(three, two);
    else if (d.stride == 1) run(five, one);
    else run(five, two);
}

// Weights are (kernel, kernel, chans).
template <class T>
static void depthwise_forward(const Depthwise& d, const T* x, const float* weight, const float* bias, T* y,
                              int threads) {
    with_window(d, [&](auto kernel, auto stride) { depthwise_rows<kernel, stride>(d, x, weight, bias, y, threads); });
}

// Gradients of x and of the weight (null where not asked for) from that of the output.
template <class T>
static void depthwise_backward(const Depthwise& d, const T* grad, const T* x, const float* weight, T* dx,
                               float* dweight, int threads) {
    bool is_turned = d.stride == 1 && d.width >= BESIDE;
    std::vector<float> spread = d.spread(weight, is_turned);
    if (dx && is_turned) {
        Depthwise back{d.images, d.out_height(), d.out_width(), d.chans, d.kernel, 1, d.kernel - 1 - d.pad};
        const float* none = nullptr;
        depthwise_forward(back, grad, spread.data(), none, dx, threads);
    } else if (dx) {
        depthwise_gather(d, grad, spread.data(), dx, threads);
    }
    if (dweight)
        with_window(d, [&](auto kernel, auto stride) {
            depthwise_weight_gradient<kernel, stride>(d, grad, x, dweight, threads);
        });
}
