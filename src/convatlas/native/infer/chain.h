// A depthwise convolution together with the 1x1 convolutions before and behind it, a few rows at a time: what lies
// between them stays in the cache, where maps as a whole would go to memory and back.
#pragma once

#include "conv.h"
#include "depthwise.h"

// Which of its neighbours a depthwise convolution is computed with; a step's `method`.
enum Joined : int64_t { APART = 0, WITH_NEXT = 1, WITH_LAST = 2, WITH_BOTH = 3 };

// A 1x1 convolution of a chain; null where it is computed apart.
struct Pointwise {
    const Step* step = nullptr;
    const PixelConv* conv = nullptr;
};

class Chain {
   public:
    Chain(const Pointwise& before, const Step& depthwise, const Pointwise& behind)
        : before_(before), depthwise_(depthwise), behind_(behind) {}

    void run(long images, Place& place) const {
        const Step& s = depthwise_;
        long members = place.team.size(), rows = together(), bands;
        // Where two bands of an image meet, some rows between the convolutions are made for both.
        if (!before_.step) bands = shares(s.out.height, rows, members);
        else if (images % members == 0) bands = 1;
        else bands = std::min<long>(s.out.height, s.out.height < 8 * members ? members : 2 * members);
        place.team.share(images * bands, [&](long task, int member) {
            long band = task % bands;
            run(place, member, task / bands, s.out.height * band / bands, s.out.height * (band + 1) / bands, rows);
        });
    }

   private:
    static constexpr long PIXELS = 48, FLOATS = 48 << 10;  // at least and at most, of the rows made at a time

    // Rows of outputs made at a time: enough for products of matrices, and few enough for the cache.
    long together() const {
        const Step& s = depthwise_;
        long fitting = FLOATS / (s.out.width * s.out.chans + (before_.step ? s.stride_h * s.in.width * s.in.chans : 0));
        return std::max(1L, std::min({fitting, ceiling(PIXELS, s.out.width), long(s.out.height)}));
    }

    // Rows `from` to `to` of an image's outputs.
    void run(Place& place, int member, long image, long from, long to, long rows) const {
        const Step& s = depthwise_;
        long in_row = s.in.width * s.in.pitch, out_row = s.out.width * s.out.pitch;
        // The rows that were made last lie in a ring: row y at y modulo its length.
        long length = before_.step ? (rows - 1) * s.stride_h + s.kernel_h : 0;
        float* ring = room(place.own[member], length * in_row + (behind_.step ? rows * out_row : 0));
        float* outputs = ring + length * in_row;
        const float* map = place.arena + s.in.at + image * s.in.image();
        long made = std::max(0L, from * s.stride_h - s.pad_top);
        for (long y = from; y < to; y += rows) {
            long count = std::min(rows, to - y);
            if (!behind_.step) outputs = place.arena + s.out.at + (image * s.out.height + y) * out_row;
            long end = std::min<long>(s.in.height, (y + count - 1) * s.stride_h - s.pad_top + s.kernel_h);
            while (before_.step && made < end) {
                long run = std::min(end - made, length - made % length);
                make(place, image, made, run, ring + made % length * in_row);
                made += run;
            }
            auto row_at = [&](long row) { return before_.step ? ring + row % length * in_row : map + row * in_row; };
            for (long i = 0; i < count; i++) DepthwiseConv::row(s, y + i, row_at, outputs + i * out_row);
            if (behind_.step) finish(place, image, y, count, outputs);
        }
    }

    // Rows of the depthwise convolution's input.
    void make(const Place& place, long image, long row, long rows, float* out) const {
        const Step& s = *before_.step;
        long first = (image * s.out.height + row) * s.out.width;
        before_.conv->pixels(s, place, place.arena + s.in.at + first * s.in.pitch, s.in.pitch, first,
                             rows * s.out.width, out, s.out.pitch);
    }

    // What follows on rows of its output.
    void finish(const Place& place, long image, long row, long rows, const float* outputs) const {
        const Step& s = *behind_.step;
        long first = (image * s.out.height + row) * s.out.width;
        behind_.conv->pixels(s, place, outputs, s.in.pitch, first, rows * s.out.width,
                             place.arena + s.out.at + first * s.out.pitch, s.out.pitch);
    }

    Pointwise before_;
    const Step& depthwise_;
    Pointwise behind_;
};
