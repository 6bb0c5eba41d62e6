// Steps that only pass over maps: pooling, means, sums, factors.
#pragma once

#include <limits>

#include "step.h"
#include "vector.h"

// Calls job(image, pixel, first channel, channels in the vector) for each vector of the output.
template <class Job>
static void each_vector(const Step& s, long images, Place& place, const Job& job) {
    long rows = images * s.out.height;
    place.team.share(rows, [&](long row, int) {
        for (long x = 0; x < s.out.width; x++)
            for (long c = 0; c < s.out.chans; c += LANES)
                job(row / s.out.height, row % s.out.height * s.out.width + x, c, s.out.chans - c);
    });
}

static inline float* place_of(Place& place, const Map& map, long image, long pixel, long chan) {
    return place.arena + map.at + image * map.image() + pixel * map.pitch + chan;
}

static inline void put(const Step& s, Place& place, long image, long pixel, long c, long n, Vec v) {
    store_some(place_of(place, s.out, image, pixel, c), activate(v, s.activation, s.low, s.high), n);
}

static void max_pool(const Step& s, long images, Place& place) {
    each_vector(s, images, place, [&](long image, long pixel, long c, long n) {
        long top = pixel / s.out.width * s.stride_h - s.pad_top, left = pixel % s.out.width * s.stride_w - s.pad_left;
        Vec most = all(-std::numeric_limits<float>::infinity());
        for (long y = std::max(0L, top); y < std::min<long>(s.in.height, top + s.kernel_h); y++)
            for (long x = std::max(0L, left); x < std::min<long>(s.in.width, left + s.kernel_w); x++) {
                Vec v = load_some(place_of(place, s.in, image, y * s.in.width + x, c), n);
                most = (v > most) | (v != v) ? v : most;  // NaN stays, whether it comes first or last.
            }
        put(s, place, image, pixel, c, n, most);
    });
}

static void average_pool(const Step& s, long images, Place& place) {
    each_vector(s, images, place, [&](long image, long pixel, long c, long n) {
        long top = pixel / s.out.width * s.stride_h - s.pad_top, left = pixel % s.out.width * s.stride_w - s.pad_left;
        // With its border, a window may still reach beyond the padded map, where nothing counts.
        long high = std::min<long>(top + s.kernel_h, s.border_h - s.pad_top) - top;
        long wide = std::min<long>(left + s.kernel_w, s.border_w - s.pad_left) - left;
        long y0 = std::max(0L, top), y1 = std::min<long>(s.in.height, top + s.kernel_h);
        long x0 = std::max(0L, left), x1 = std::min<long>(s.in.width, left + s.kernel_w);
        Vec sum{};
        for (long y = y0; y < y1; y++)
            for (long x = x0; x < x1; x++) sum += load_some(place_of(place, s.in, image, y * s.in.width + x, c), n);
        long count = s.average_border ? high * wide : (y1 - y0) * (x1 - x0);
        put(s, place, image, pixel, c, n, sum / static_cast<float>(count));
    });
}

// Over all pixels of each image.
static void mean(const Step& s, long images, Place& place) {
    long vectors = ceiling(s.in.chans, LANES);
    place.team.share(images * vectors, [&](long task, int) {
        long image = task / vectors, c = task % vectors * LANES, n = s.in.chans - c;
        Vec sum[4] = {};  // Four sums, so that one addition need not wait for the last.
        for (long p = 0; p < s.in.pixels(); p++) sum[p % 4] += load_some(place_of(place, s.in, image, p, c), n);
        Vec total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        put(s, place, image, 0, c, n, total / static_cast<float>(s.in.pixels()));
    });
}

static void add(const Step& s, long images, Place& place) {
    each_vector(s, images, place, [&](long image, long pixel, long c, long n) {
        const float* other = place.arena + s.other_at + (image * s.out.pixels() + pixel) * s.other_pitch + c;
        put(s, place, image, pixel, c, n, load_some(place_of(place, s.in, image, pixel, c), n) + load_some(other, n));
    });
}

// Each channel times a factor of its image.
static void gate(const Step& s, long images, Place& place) {
    each_vector(s, images, place, [&](long image, long pixel, long c, long n) {
        Vec factor = load_some(place.arena + s.gate_at + image * s.gate_pitch + c, n);
        put(s, place, image, pixel, c, n, load_some(place_of(place, s.in, image, pixel, c), n) * factor);
    });
}

static void affine(const Step& s, long images, Place& place) {
    each_vector(s, images, place, [&](long image, long pixel, long c, long n) {
        Vec v = load_some(place_of(place, s.in, image, pixel, c), n);
        if (s.scale) v = v * load_some(s.scale + c, n) + load_some(s.shift + c, n);
        put(s, place, image, pixel, c, n, v);
    });
}

// Every `stride`-th pixel from one that may lie outside; zeros outside the map and for channels it has not got.
static void copy(const Step& s, long images, Place& place) {
    each_vector(s, images, place, [&](long image, long pixel, long c, long n) {
        long y = pixel / s.out.width * s.stride_h - s.pad_top, x = pixel % s.out.width * s.stride_w - s.pad_left;
        long there = std::min(n, s.in.chans - c);
        bool inside = y >= 0 && y < s.in.height && x >= 0 && x < s.in.width && there > 0;
        Vec v = inside ? load_some(place_of(place, s.in, image, y * s.in.width + x, c), there) : Vec{};
        put(s, place, image, pixel, c, n, v);
    });
}
