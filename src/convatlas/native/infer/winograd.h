// Convolutions with stride 1 by Winograd's minimal filtering (`transforms.h`).
#pragma once

#include <memory>
#include <vector>

#include "conv.h"
#include "transforms.h"

// Tiles of Down::SIDE x Across::SIDE outputs, with filters of Down::TAPS x Across::TAPS.
template <class Down, class Across>
class WinogradConv : public Conv {
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
                    transform(&plain[o * TAPS * blocks_.in_chans + i], blocks_.in_chans, points);
                    // As `pack` orders them.
                    long place = (o / TILE_COLUMNS * blocks_.in_chans + i) * TILE_COLUMNS + o % TILE_COLUMNS;
                    for (int p = 0; p < POINTS; p++) weight_[(p * blocks_.count + b) * size + place] = points[p];
                }
        }
    }

    void run(const Step& s, long images, Place& place) const override {
        long across = ceiling(s.out.width, Across::SIDE);
        long down = ceiling(s.out.height, Down::SIDE);
        long tiles = images * across * down, tasks = s.block ? shares(tiles, s.block, place.team.size()) : 1;
        long most = ceiling(tiles, tasks);  // tiles of a task
        long in_size = POINTS * s.in.chans, out_size = POINTS * blocks_.count * width_;
        auto work = [&](float* memory, long task) {
            long first = tiles * task / tasks, end = tiles * (task + 1) / tasks;
            return Work{s, place, memory, memory + most * in_size, first, end - first, across, down};
        };
        if (s.block) {
            // Each member takes some tiles from their input to their output.
            place.team.share(tasks, [&](long task, int member) {
                Work w = work(room(place.own[member], most * (in_size + out_size)), task);
                for (long t = 0; t < w.count; t++) input(w, t);
                for (int p = 0; p < POINTS; p++) multiply(w, p, 0, 1);
                for (long t = 0; t < w.count; t++) output(w, t);
            });
            return;
        }
        // All tiles together: each member reads some of the weights, and none is read twice.
        Work w = work(room(place.common, most * (in_size + out_size)), 0);
        int parts = place.team.size() > 1 ? 2 : 1;
        place.team.share(tiles, [&](long t, int) { input(w, t); });
        place.team.share(POINTS * parts, [&](long task, int) { multiply(w, task / parts, task % parts, parts); });
        place.team.share(tiles, [&](long t, int) { output(w, t); });
    }

   private:
    static constexpr int TAPS = Down::TAPS * Across::TAPS, POINTS = Down::POINTS * Across::POINTS;

    // Some tiles on their way: `in` is (POINTS, count, in chans), `out` (POINTS, count, blocks, width_).
    struct Work {
        const Step& s;
        Place& place;
        float *in, *out;
        long first, count, across, down;
    };

    // G w G'; the weights of a pair of channels are `pitch` floats apart.
    static void transform(const float* weight, long pitch, float* points) {
        for (int i = 0; i < Down::POINTS; i++)
            for (int j = 0; j < Across::POINTS; j++) {
                double sum = 0;
                for (int y = 0; y < Down::TAPS; y++)
                    for (int x = 0; x < Across::TAPS; x++)
                        sum += Down::G[i][y] * Across::G[j][x] * weight[(y * Across::TAPS + x) * pitch];
                points[i * Across::POINTS + j] = static_cast<float>(sum);
            }
    }

    static void input(const Work& w, long t) {
        const Step& s = w.s;
        long tile = w.first + t, image = tile / (w.across * w.down), place = tile % (w.across * w.down);
        long y = place / w.across * Down::SIDE - s.pad_top, x = place % w.across * Across::SIDE - s.pad_left;
        const float* map = w.place.arena + s.in.at + image * s.in.image();
        const float* from[POINTS];
        for (int i = 0; i < Down::POINTS; i++)
            for (int j = 0; j < Across::POINTS; j++) {
                bool inside = y + i >= 0 && y + i < s.in.height && x + j >= 0 && x + j < s.in.width;
                from[i * Across::POINTS + j] = inside ? map + ((y + i) * s.in.width + x + j) * s.in.pitch : nullptr;
            }
        long chans = s.in.chans, step = w.count * chans;
        for (long c = 0; c < chans; c += LANES) {
            c = std::min(c, chans - LANES);  // The last vector may overlap the one before.
            Vec d[POINTS];
            for (int p = 0; p < POINTS; p++) d[p] = from[p] ? load(from[p] + c) : Vec{};
#pragma GCC unroll 8
            for (int i = 0; i < Down::POINTS; i++) Across::input(d + i * Across::POINTS, 1);
#pragma GCC unroll 8
            for (int j = 0; j < Across::POINTS; j++) Down::input(d + j, Across::POINTS);
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
        long y = place / w.across * Down::SIDE, x = place % w.across * Across::SIDE;
        long high = std::min<long>(Down::SIDE, s.out.height - y);
        long wide = std::min<long>(Across::SIDE, s.out.width - x);
        long pitch = blocks_.count * width_, step = w.count * pitch, first = image * s.out.pixels();
        for (long b = 0; b < blocks_.count; b++) {
            long chan = b * blocks_.out_chans;
            Finish f = finish_of(s, w.place, &bias_[b * width_], chan);
            float* map = w.place.arena + s.out.at + chan;
            for (long c = 0; c < blocks_.out_chans; c += LANES) {
                Vec m[POINTS], half[Down::SIDE * Across::POINTS], o[Down::SIDE * Across::SIDE];
                for (int p = 0; p < POINTS; p++) m[p] = load(w.out + p * step + t * pitch + b * width_ + c);
#pragma GCC unroll 8
                for (int j = 0; j < Across::POINTS; j++)
                    Down::output(m + j, Across::POINTS, half + j, Across::POINTS);
#pragma GCC unroll 4
                for (int i = 0; i < Down::SIDE; i++)
                    Across::output(half + i * Across::POINTS, 1, o + i * Across::SIDE, 1);
                long n = blocks_.out_chans - c;
                for (long i = 0; i < high; i++)
                    for (long j = 0; j < wide; j++) {
                        long row = first + (y + i) * s.out.width + x + j;
                        store_some(map + row * s.out.pitch + c, finish(f, o[i * Across::SIDE + j], row, c, n), n);
                    }
            }
        }
    }

    Blocks blocks_;
    std::vector<float> bias_;
    Floats weight_;
    long width_;
};

// Larger tiles save more products, and lose more digits. Null where there are none of that side for a step.
static inline std::unique_ptr<Conv> winograd(const Step& s, int64_t side) {
    if (s.stride_h != 1 || s.stride_w != 1 || s.in.chans < LANES || s.in.chans / s.groups < 4 ||
        changes_input(s))
        return nullptr;
#define CASE(HIGH, WIDE, SIDE, DOWN, ACROSS)                      \
    if (s.kernel_h == HIGH && s.kernel_w == WIDE && side == SIDE) \
        return std::make_unique<WinogradConv<Filtering<DOWN, HIGH>, Filtering<ACROSS, WIDE>>>(s);
    CASE(3, 3, 4, 4, 4)
    CASE(3, 3, 2, 2, 2)
    CASE(5, 5, 2, 2, 2)
    CASE(1, 7, 2, 1, 2)
    CASE(7, 1, 2, 2, 1)
    CASE(1, 3, 4, 1, 4)
    CASE(3, 1, 4, 4, 1)
#undef CASE
    return nullptr;
}
