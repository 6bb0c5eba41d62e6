// Convolutions and linear layers as products of matrices, whose left-hand rows are never copied together: a row
// is a list of places in the map, one for each position of the kernel.
#pragma once

#include <vector>

#include "step.h"
#include "tile.h"

// Groups narrower than a tile are taken together, with zeros between them.
struct Blocks {
    long count, in_chans, out_chans;  // of each block

    explicit Blocks(const Step& s) {
        long in = s.in.chans / s.groups, out = s.out.chans / s.groups, merged = 1;
        for (long m = 1; m * out <= TILE_COLUMNS; m++)
            if (s.groups % m == 0) merged = m;
        count = s.groups / merged;
        in_chans = in * merged;
        out_chans = out * merged;
    }
};

// Weights of one block as a dense matrix (out_chans, taps, in_chans).
static inline std::vector<float> dense(const Step& s, const Blocks& blocks, long block) {
    long taps = s.kernel_h * s.kernel_w, in = s.in.chans / s.groups, out = s.out.chans / s.groups;
    std::vector<float> found(blocks.out_chans * taps * blocks.in_chans, 0.0f);
    for (long o = 0; o < blocks.out_chans; o++) {
        long first = o / out * in;
        for (long t = 0; t < taps; t++)
            for (long i = 0; i < in; i++)
                found[(o * taps + t) * blocks.in_chans + first + i] =
                    s.weight[((block * blocks.out_chans + o) * taps + t) * in + i];
    }
    return found;
}

static inline std::vector<float> padded_bias(const Step& s, const Blocks& blocks) {
    long width = panels(blocks.out_chans) * TILE_COLUMNS;
    std::vector<float> found(blocks.count * width, 0.0f);
    for (long b = 0; s.bias && b < blocks.count; b++)
        std::copy_n(s.bias + b * blocks.out_chans, blocks.out_chans, found.data() + b * width);
    return found;
}

static inline Finish finish_of(const Step& s, const Place& place, const float* bias, long first_chan) {
    Finish f;
    f.bias = bias;
    f.other = s.other_at < 0 ? nullptr : place.arena + s.other_at + first_chan;
    f.other_pitch = s.other_pitch;
    f.activation = s.activation;
    f.low = s.low;
    f.high = s.high;
    return f;
}

// What may be done to the input of a kernel of one pixel as it is read.
static inline bool changes_input(const Step& s) { return s.scale || s.gate_at >= 0 || s.relu_first; }

// `n` values of an image's channels, from `chan` on, with the step's scale, shift, gate and clipping applied.
static inline Vec changed(const Step& s, const Place& place, long image, long chan, long n, Vec v) {
    if (s.scale) v = v * load_some(s.scale + chan, n) + load_some(s.shift + chan, n);
    if (s.gate_at >= 0) v *= load_some(place.arena + s.gate_at + image * s.gate_pitch + chan, n);
    return s.relu_first ? larger(v, Vec{}) : v;
}

// One way to compute a convolution, with its weights in the order it reads them in.
class Conv {
   public:
    virtual ~Conv() = default;
    virtual void run(const Step& s, long images, Place& place) const = 0;
};

// One that can do pixels one by one, where its kernel is one pixel.
class PixelConv : public Conv {
   public:
    // `count` pixels, `from` and `out` being where they lie and where they go; `first` is the number of the first one
    // among all, for a second operand.
    virtual void pixels(const Step& s, const Place& place, const float* from, long pitch, long first, long count,
                        float* out, long out_pitch) const = 0;
};

class DirectConv : public PixelConv {
   public:
    explicit DirectConv(const Step& s) : blocks_(s), bias_(padded_bias(s, blocks_)) {
        bool inside = s.pad_top == 0 && s.pad_left == 0 &&
                      (s.out.height - 1) * s.stride_h + s.kernel_h <= s.in.height &&
                      (s.out.width - 1) * s.stride_w + s.kernel_w <= s.in.width;
        // A row of the kernel is one piece where the pixels lie close together.
        bool joined = inside && s.groups == 1 && s.in.pitch == s.in.chans;
        taps_h_ = s.kernel_h;
        taps_w_ = joined ? 1 : s.kernel_w;
        depth_ = blocks_.in_chans * (joined ? s.kernel_w : 1);
        long size = panels(blocks_.out_chans) * TILE_COLUMNS * taps_h_ * taps_w_ * depth_;
        weight_.resize(blocks_.count * size);
        for (long b = 0; b < blocks_.count; b++)
            pack(dense(s, blocks_, b).data(), blocks_.out_chans, taps_h_ * taps_w_ * depth_, &weight_[b * size]);
    }

    void run(const Step& s, long images, Place& place) const override {
        long rows = images * s.out.pixels(), tiles = ceiling(rows, TILE_ROWS);
        long columns = panels(blocks_.out_chans), parts = 1;
        long strips = ceiling(tiles, STRIP), tasks = strips * blocks_.count, members = place.team.size();
        // Where strips are few, the columns are shared out too, so that each member gets as much as the others.
        auto is_even = [&] { return tasks * parts >= 8 * members || tasks * parts % members == 0; };
        while (members > 1 && parts < columns && (tasks * parts < 3 * members || !is_even())) parts++;
        place.team.share(tasks * parts, [&](long task, int member) {
            long part = task % parts, block = task / parts % blocks_.count, strip = task / parts / blocks_.count;
            long first = rows * (tiles * strip / strips) / tiles, end = rows * (tiles * (strip + 1) / strips) / tiles;
            share(s, place, member, block, first, end - first, columns * part / parts,
                  columns * (part + 1) / parts);
        });
    }

    void pixels(const Step& s, const Place& place, const float* from, long pitch, long first, long count, float* out,
                long out_pitch) const override {
        static thread_local std::vector<const float*> rows;
        rows.resize(count);
        for (long i = 0; i < count; i++) rows[i] = from + i * pitch;
        Finish f = finish_of(s, place, bias_.data(), 0);
        if (f.other) f.other += first * f.other_pitch;
        for (long panel = 0; panel < panels(blocks_.out_chans); panel++)
            strip(rows.data(), count, 1, depth_, &weight_[panel * TILE_COLUMNS * depth_], out, out_pitch, 0, count,
                  panel * TILE_COLUMNS, blocks_.out_chans, f);
    }

   private:
    static constexpr long STRIP = 16;  // tiles at most; their input stays in the cache for all columns

    void share(const Step& s, Place& place, int member, long block, long first, long count, long from,
               long to) const {
        static thread_local std::vector<const float*> rows;
        long taps = taps_h_ * taps_w_, size = panels(blocks_.out_chans) * TILE_COLUMNS;
        rows.resize(taps * count);
        if (changes_input(s)) change(s, place, member, first, count, rows.data());
        else find(s, place, block, first, count, rows.data());
        const float* weight = &weight_[block * size * taps * depth_];
        long chan = block * blocks_.out_chans;
        Finish f = finish_of(s, place, &bias_[block * size], chan);
        for (long panel = from; panel < to; panel++)
            strip(rows.data(), count, taps, depth_, weight + panel * TILE_COLUMNS * taps * depth_,
                  place.arena + s.out.at + chan, s.out.pitch, first, count, panel * TILE_COLUMNS,
                  blocks_.out_chans, f);
    }

    // Where each row's pieces begin, zeros for those outside the map: (taps, count).
    void find(const Step& s, const Place& place, long block, long first, long count, const float** rows) const {
        const float* map = place.arena + s.in.at + block * blocks_.in_chans;
        for (long i = 0; i < count; i++) {
            long pixel = (first + i) % s.out.pixels(), image = (first + i) / s.out.pixels();
            long y = pixel / s.out.width * s.stride_h - s.pad_top, x = pixel % s.out.width * s.stride_w - s.pad_left;
            const float* base = map + image * s.in.image();
            for (long ky = 0, t = 0; ky < taps_h_; ky++)
                for (long kx = 0; kx < taps_w_; kx++, t++) {
                    bool inside = y + ky >= 0 && y + ky < s.in.height && x + kx >= 0 && x + kx < s.in.width;
                    rows[t * count + i] =
                        inside ? base + ((y + ky) * s.in.width + x + kx) * s.in.pitch : zeros(depth_);
                }
        }
    }

    // For a kernel of one pixel: rows with the step's scale, shift, gate and clipping applied, in memory of
    // the member's own.
    void change(const Step& s, Place& place, int member, long first, long count, const float** rows) const {
        long chans = s.in.chans, pitch = ceiling(chans, LANES) * LANES;
        float* made = room(place.own[member], count * pitch);
        for (long i = 0; i < count; i++) {
            const float* from = place.arena + s.in.at + (first + i) * s.in.pitch;
            long image = (first + i) / s.out.pixels();
            rows[i] = made + i * pitch;
            for (long c = 0; c < chans; c += LANES)
                store(made + i * pitch + c, changed(s, place, image, c, chans - c, load_some(from + c, chans - c)));
        }
    }

    static const float* zeros(long count) {
        static thread_local std::vector<float> found;
        if (static_cast<long>(found.size()) < count) found.assign(count, 0.0f);
        return found.data();
    }

    Blocks blocks_;
    std::vector<float> bias_;
    Floats weight_;
    long taps_h_, taps_w_, depth_;
};
