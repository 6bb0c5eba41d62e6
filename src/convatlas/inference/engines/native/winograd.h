// 3x3 convolutions with stride 1 by Winograd's minimal filtering (`transforms.h`).
#pragma once

#include <vector>

#include "conv.h"
#include "transforms.h"

static inline bool fits_winograd(const Step& s) {
    return s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 && s.in.chans >= LANES &&
           s.in.chans / s.groups >= 4 && !s.scale && s.gate_at < 0 && !s.relu_first;
}

template <int SIDE>
class WinogradConv {
   public:
    explicit WinogradConv(const Step& s) : blocks_(s), bias_(padded_bias(s, blocks_)) {
        width_ = panels(blocks_.out_chans) * TILE_COLUMNS;
        long size = width_ * blocks_.in_chans;
        weight_.assign(POINTS * blocks_.count * size, 0.0f);
        for (long b = 0; b < blocks_.count; b++) {
            std::vector<float> plain = dense(s, blocks_, b);
            for (long o = 0; o < blocks_.out_chans; o++)
                for (long i = 0; i < blocks_.in_chans; i++) {
                    float points[POINTS];
                    transform(&plain[o * 9 * blocks_.in_chans + i], blocks_.in_chans, points);
                    // As `pack` orders them.
                    long place = (o / TILE_COLUMNS * blocks_.in_chans + i) * TILE_COLUMNS + o % TILE_COLUMNS;
                    for (int p = 0; p < POINTS; p++) weight_[(p * blocks_.count + b) * size + place] = points[p];
                }
        }
    }

    void run(const Step& s, long images, Place& place) const {
        long across = (s.out.width + SIDE - 1) / SIDE, down = (s.out.height + SIDE - 1) / SIDE;
        long tiles = images * across * down, block = s.block ? std::min<long>(s.block, tiles) : tiles;
        long in_size = POINTS * s.in.chans, out_size = POINTS * blocks_.count * width_;
        auto work = [&](float* memory, long first) {
            return Work{s, place, memory, memory + block * in_size, first, std::min(block, tiles - first),
                        across, down};
        };
        if (s.block) {
            // Each member takes some tiles from their input to their output.
            place.team.share((tiles + block - 1) / block, [&](long task, int member) {
                Work w = work(room(place.own[member], block * (in_size + out_size)), task * block);
                for (long t = 0; t < w.count; t++) input(w, t);
                for (int p = 0; p < POINTS; p++) multiply(w, p, 0, 1);
                for (long t = 0; t < w.count; t++) output(w, t);
            });
            return;
        }
        // All tiles together: each member reads some of the weights, and none is read twice.
        Work w = work(room(place.common, block * (in_size + out_size)), 0);
        int parts = place.team.size() > 1 ? 2 : 1;
        place.team.share(tiles, [&](long t, int) { input(w, t); });
        place.team.share(POINTS * parts, [&](long task, int) { multiply(w, task / parts, task % parts, parts); });
        place.team.share(tiles, [&](long t, int) { output(w, t); });
    }

   private:
    static constexpr int EDGE = SIDE + 2, POINTS = EDGE * EDGE;

    // Some tiles on their way: `in` is (POINTS, count, in chans), `out` (POINTS, count, blocks, width_).
    struct Work {
        const Step& s;
        Place& place;
        float *in, *out;
        long first, count, across, down;
    };

    // G w G'; the nine weights of a pair of channels are `pitch` floats apart.
    static void transform(const float* weight, long pitch, float* points) {
        constexpr auto& G = Transforms<SIDE>::G;
        double half[EDGE][3];
        for (int i = 0; i < EDGE; i++)
            for (int j = 0; j < 3; j++)
                half[i][j] = G[i][0] * weight[j * pitch] + G[i][1] * weight[(3 + j) * pitch] +
                             G[i][2] * weight[(6 + j) * pitch];
        for (int i = 0; i < EDGE; i++)
            for (int j = 0; j < EDGE; j++)
                points[i * EDGE + j] = half[i][0] * G[j][0] + half[i][1] * G[j][1] + half[i][2] * G[j][2];
    }

    static void input(const Work& w, long t) {
        const Step& s = w.s;
        long tile = w.first + t, image = tile / (w.across * w.down), place = tile % (w.across * w.down);
        long y = place / w.across * SIDE - s.pad_top, x = place % w.across * SIDE - s.pad_left;
        const float* map = w.place.arena + s.in.at + image * s.in.image();
        const float* from[POINTS];
        for (int i = 0; i < EDGE; i++)
            for (int j = 0; j < EDGE; j++) {
                bool inside = y + i >= 0 && y + i < s.in.height && x + j >= 0 && x + j < s.in.width;
                from[i * EDGE + j] = inside ? map + ((y + i) * s.in.width + x + j) * s.in.pitch : nullptr;
            }
        long chans = s.in.chans, step = w.count * chans;
        for (long c = 0; c < chans; c += LANES) {
            c = std::min(c, chans - LANES);  // The last vector may overlap the one before.
            Vec d[POINTS];
            for (int p = 0; p < POINTS; p++) d[p] = from[p] ? load(from[p] + c) : Vec{};
#pragma GCC unroll 6
            for (int i = 0; i < EDGE; i++) Transforms<SIDE>::input(d + i * EDGE, 1);
#pragma GCC unroll 6
            for (int j = 0; j < EDGE; j++) Transforms<SIDE>::input(d + j, EDGE);
            for (int p = 0; p < POINTS; p++) store(w.in + p * step + t * chans + c, d[p]);
        }
    }

    // Sums over the input's channels at one point, for a part of the columns.
    void multiply(const Work& w, int point, int part, int parts) const {
        static thread_local std::vector<const float*> rows;
        rows.resize(w.count);
        long columns = panels(blocks_.out_chans), pitch = blocks_.count * width_;
        for (long b = 0; b < blocks_.count; b++) {
            for (long t = 0; t < w.count; t++)
                rows[t] = w.in + (point * w.count + t) * w.s.in.chans + b * blocks_.in_chans;
            const float* weight = &weight_[(point * blocks_.count + b) * width_ * blocks_.in_chans];
            for (long p = columns * part / parts; p < columns * (part + 1) / parts; p++)
                strip(rows.data(), 0, 1, blocks_.in_chans, weight + p * TILE_COLUMNS * blocks_.in_chans,
                      w.out + point * w.count * pitch + b * width_, pitch, 0, w.count, p * TILE_COLUMNS, width_,
                      Finish{});
        }
    }

    void output(const Work& w, long t) const {
        const Step& s = w.s;
        long tile = w.first + t, image = tile / (w.across * w.down), place = tile % (w.across * w.down);
        long y = place / w.across * SIDE, x = place % w.across * SIDE;
        long high = std::min<long>(SIDE, s.out.height - y), wide = std::min<long>(SIDE, s.out.width - x);
        long pitch = blocks_.count * width_, step = w.count * pitch, first = image * s.out.pixels();
        for (long b = 0; b < blocks_.count; b++) {
            long chan = b * blocks_.out_chans;
            Finish f = finish_of(s, w.place, &bias_[b * width_], chan);
            float* map = w.place.arena + s.out.at + chan;
            for (long c = 0; c < blocks_.out_chans; c += LANES) {
                Vec m[POINTS], half[SIDE * EDGE], o[SIDE * SIDE];
                for (int p = 0; p < POINTS; p++) m[p] = load(w.out + p * step + t * pitch + b * width_ + c);
#pragma GCC unroll 6
                for (int j = 0; j < EDGE; j++) Transforms<SIDE>::output(m + j, EDGE, half + j, EDGE);
#pragma GCC unroll 4
                for (int i = 0; i < SIDE; i++) Transforms<SIDE>::output(half + i * EDGE, 1, o + i * SIDE, 1);
                long n = blocks_.out_chans - c;
                for (long i = 0; i < high; i++)
                    for (long j = 0; j < wide; j++) {
                        long row = first + (y + i) * s.out.width + x + j;
                        store_some(map + row * s.out.pitch + c, finish(f, o[i * SIDE + j], row, c, n), n);
                    }
            }
        }
    }

    Blocks blocks_;
    std::vector<float> bias_;
    Floats weight_;
    long width_;
};
