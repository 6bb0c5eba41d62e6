// Convolutions by the processor's matrix unit, which multiplies numbers of bfloat16 only, with most digits of floats: a
// float is the sum of two such numbers, its upper and its lower part, but for 2^-16 of it at most. Of the four products of
// parts, three are summed; that of the lower parts is as small as what is lost anyway.
//
// Source: Henry, Tang, Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype for Higher-Precision
// Computations".
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "conv.h"
#include "half.h"
#include "matrix_unit.h"

// What `method` is for them.
constexpr int64_t MATRIX = 16;

// A member copies what some outputs need, with zeros around it, in its two parts. Outputs are counted along the lines of
// the copy: the one at `at` needs, for each row of the kernel, kernel_w * chans values in a row. Outputs that begin in
// the last places of a line, where the kernel does not fit, are computed too, and dropped.
class MatrixConv : public PixelConv {
   public:
    explicit MatrixConv(const Step& s) : blocks_(s), bias_(padded_bias(s, blocks_)) {
        bias_.resize(bias_.size() + PAIR, 0.0f);  // Pairs of tiles may reach further.
        long depth = s.kernel_w * blocks_.in_chans;
        taps_h_ = s.kernel_h;
        steps_ = ceiling(depth, DEPTH);
        pairs_ = ceiling(blocks_.out_chans, PAIR);
        bool is_narrow = s.kernel_w == 1;  // Only what outputs need is copied, and channels are whole steps.
        chans_ = is_narrow ? steps_ * DEPTH : blocks_.in_chans;
        stride_ = is_narrow ? 1 : s.stride_w;
        wide_ = is_narrow ? s.out.width : ceiling((s.out.width - 1) * s.stride_w + s.kernel_w, s.stride_w);
        planes_ = std::min(s.stride_h, s.kernel_h);
        weight_.resize(blocks_.count * block_size());
        for (long b = 0; b < blocks_.count; b++) {
            std::vector<float> plain = dense(s, blocks_, b);
            for (long o = 0; o < blocks_.out_chans; o++)
                for (long i = 0; i < taps_h_; i++)
                    for (long k = 0; k < depth; k++) put_weight(b, o, i, k, plain[(o * taps_h_ + i) * depth + k]);
        }
    }

    void run(const Step& s, long images, Place& place) const override {
        if (s.kernel_h == 1 && s.kernel_w == 1) run_pointwise(s, images, place);
        else run_bands(s, images, place);
    }

    void pixels(const Step& s, const Place& place, const float* from, long pitch, long first, long count, float* out,
                long out_pitch) const override {
        static thread_local Floats memory;
        Parts parts = divide(memory, count * chans_);
        for (long i = 0; i < count; i++) split_pixel(from + i * pitch, blocks_.in_chans, parts.at(i * chans_));
        [[maybe_unused]] Tiles tiles;
        Target target{finish_of(s, place, bias_.data(), 0), out, out_pitch, 0, count, count, count};
        if (target.finish.other) target.finish.other += first * target.finish.other_pitch;
        for (long pair = 0; pair < pairs_; pair++) multiply(parts, ONE_ROW, 0, pair, target);
    }

   private:
    static constexpr long PAIR = 2 * TILE;    // columns that are computed side by side
    static constexpr long FLOATS = 96 << 10;  // of what a member copies, at most: a part of its cache
    static constexpr long ROOM = 4 * TILE;    // outputs more that may be computed, and dropped
    static constexpr long ONE_ROW[] = {0};    // where the only row of a kernel begins

    // Upper and lower parts of the same values.
    struct Parts {
        Half *high, *low;

        Parts at(long place) const { return {high + place, low + place}; }
    };

    // Where outputs go: those of `wide` places of each line, of which `width` are kept, up to `count` places in all.
    struct Target {
        Finish finish;
        float* out;
        long pitch, first;  // `first`: the number of the first output among all
        long wide, width, count;
    };

    long step_size() const { return 4 * TILE_HALVES; }  // upper parts of two tiles, then their lower parts
    long pair_size() const { return taps_h_ * steps_ * step_size(); }
    long block_size() const { return pairs_ * pair_size(); }

    // Right-hand tiles have pairs of rows interleaved.
    void put_weight(long block, long column, long row, long k, float value) {
        Half* step = weight_.data() + block * block_size() + column / PAIR * pair_size() +
                     (row * steps_ + k / DEPTH) * step_size();
        long tile = column % PAIR / TILE, lane = k % DEPTH / 2 * DEPTH + 2 * (column % TILE) + k % 2;
        Half high = rounded(value);
        step[tile * TILE_HALVES + lane] = high;
        step[(2 + tile) * TILE_HALVES + lane] = rounded(value - one(&high));
    }

    Parts divide(Floats& memory, long count) const {
        long size = ceiling(count + ROOM * chans_ * stride_ + DEPTH, DEPTH) * DEPTH;
        Half* halves = reinterpret_cast<Half*>(room(memory, size));
        return {halves, halves + size};
    }

    static void split(Vec v, Parts to) {
        store(to.high, v);
        store(to.low, v - load(to.high));
    }

    // `count` floats, and zeros up to a whole vector.
    static void split(const float* from, long count, Parts to) {
        long c = 0;
        for (; c + LANES <= count; c += LANES) split(load(from + c), to.at(c));
        if (c < count) split(load_some(from + c, count - c), to.at(c));
    }

    static void clear(long count, Parts to) {
        std::fill_n(to.high, count, Half{});
        std::fill_n(to.low, count, Half{});
    }

    void split_pixel(const float* from, long count, Parts to) const {
        split(from, count, to);
        clear_rest(count, to);
    }

    // What whole vectors of `count` values leave of a pixel.
    void clear_rest(long count, Parts to) const {
        long done = ceiling(count, LANES) * LANES;
        if (done < chans_) clear(chans_ - done, to.at(done));
    }

    // Whether weights are what counts, beside `count` values of maps: then members share the columns, and none reads
    // weights that another one reads.
    bool is_heavy(long count) const { return pair_size() * pairs_ / 2 > 4 * count; }

    // How many parts to cut the columns into, so that each member gets as much as the others.
    long column_parts(long tasks, long members) const {
        long parts = 1;
        auto is_even = [&] { return tasks * parts >= 6 * members || tasks * parts % members == 0; };
        while (parts < pairs_ && !is_even()) parts++;
        return parts;
    }

    void run_pointwise(const Step& s, long images, Place& place) const {
        long outputs = images * s.out.pixels(), members = place.team.size(), units = ceiling(outputs, PAIR);
        long most = std::max(1L, (s.block ? s.block : FLOATS / chans_) / PAIR);
        long strips = is_heavy(outputs * chans_) ? ceiling(units, most) : shares(units, most, members);
        long tasks = strips * blocks_.count, parts = column_parts(tasks, members);
        place.team.share(tasks * parts, [&](long task, int member) {
            long part = task % parts, block = task / parts % blocks_.count, strip = task / parts / blocks_.count;
            long first = units * strip / strips * PAIR, end = std::min(outputs, units * (strip + 1) / strips * PAIR);
            long count = end - first;
            Parts copy = divide(place.own[member], count * chans_);
            for (long i = 0; i < count; i++) enter(s, place, block, first + i, copy.at(i * chans_));
            Target target = to(s, place, block, first, count, count, count);
            [[maybe_unused]] Tiles tiles;
            for (long pair = pairs_ * part / parts; pair < pairs_ * (part + 1) / parts; pair++)
                multiply(copy, ONE_ROW, block, pair, target);
        });
    }

    // The input of one output of a kernel of one pixel, with the step's scale, shift, gate and clipping applied.
    void enter(const Step& s, const Place& place, long block, long output, Parts to) const {
        long image = output / s.out.pixels(), pixel = output % s.out.pixels(), chans = blocks_.in_chans;
        long y = pixel / s.out.width * s.stride_h - s.pad_top, x = pixel % s.out.width * s.stride_w - s.pad_left;
        if (y < 0 || y >= s.in.height || x < 0 || x >= s.in.width) return clear(chans_, to);
        const float* from =
            place.arena + s.in.at + image * s.in.image() + (y * s.in.width + x) * s.in.pitch + block * chans;
        if (!changes_input(s)) return split_pixel(from, chans, to);
        for (long c = 0; c < chans; c += LANES)
            split(changed(s, place, image, block * chans + c, chans - c, load_some(from + c, chans - c)), to.at(c));
        clear_rest(chans, to);
    }

    // Rows of outputs that are computed from one copy: `rows` at most, `count` of them in all images. A copy consists of
    // planes, one after the other: of the lines that the same rows of a kernel need.
    struct Bands {
        long per_image, count, rows, line, size;
        std::vector<long> plane, tap;  // where each plane and each row of the kernel begins

        Bands(const Step& s, long images, long per_image, long line, long planes)
            : per_image(per_image), count(images * per_image), rows(ceiling(s.out.height, per_image)), line(line) {
            long at = 0;
            for (long p = 0; p < planes; p++) {
                plane.push_back(at);
                at += lines(s, rows, p) * line;
            }
            for (long i = 0; i < s.kernel_h; i++) tap.push_back(plane[i % planes] + i / planes * line);
            size = ceiling(at + DEPTH, DEPTH) * DEPTH;
        }

        long top(const Step& s, long band) const { return s.out.height * (band % per_image) / per_image; }
        long height(const Step& s, long band) const {
            return s.out.height * (band % per_image + 1) / per_image - top(s, band);
        }

        // Lines of a plane that so many rows of outputs need.
        static long lines(const Step& s, long rows, long plane) {
            return rows + (s.kernel_h - 1 - plane) / s.stride_h;
        }
    };

    void run_bands(const Step& s, long images, Place& place) const {
        long members = place.team.size(), line = wide_ * stride_ * chans_;
        long most = s.block ? ceiling(s.block, wide_) : FLOATS / (line * s.stride_h) - s.kernel_h + 1;
        most = std::clamp(most, 1L, long(s.out.height));
        bool is_even = images % members == 0 || is_heavy(images * s.in.pixels() * chans_);
        long per_image = is_even ? ceiling(s.out.height, most) : shares(s.out.height, most, members);
        Bands bands(s, images, per_image, line, planes_);
        // Several of them together, so that weights are read less often.
        long together = s.block ? 1 : std::clamp(FLOATS / bands.size, 1L, ceiling(bands.count, members));
        long groups = ceiling(bands.count, together), tasks = groups * blocks_.count;
        long parts = column_parts(tasks, members);
        place.team.share(tasks * parts, [&](long task, int member) {
            long part = task % parts, block = task / parts % blocks_.count, group = task / parts / blocks_.count;
            long from = bands.count * group / groups, end = bands.count * (group + 1) / groups;
            Parts copy = divide(place.own[member], (end - from) * bands.size);
            for (long band = from; band < end; band++)
                enter_band(s, place, block, bands, band, copy.at((band - from) * bands.size));
            [[maybe_unused]] Tiles tiles;
            for (long pair = pairs_ * part / parts; pair < pairs_ * (part + 1) / parts; pair++)
                for (long band = from; band < end; band++) {
                    long image = band / bands.per_image, row = bands.top(s, band);
                    Target target = to(s, place, block, image * s.out.pixels() + row * s.out.width, wide_, s.out.width,
                                       bands.height(s, band) * wide_);
                    multiply(copy.at((band - from) * bands.size), bands.tap.data(), block, pair, target);
                }
        });
    }

    void enter_band(const Step& s, const Place& place, long block, const Bands& bands, long band, Parts to) const {
        const float* map =
            place.arena + s.in.at + band / bands.per_image * s.in.image() + block * blocks_.in_chans;
        for (long p = 0; p < planes_; p++) {
            Parts plane = to.at(bands.plane[p]);
            long lines = Bands::lines(s, bands.height(s, band), p);
            for (long i = 0; i < lines; i++)
                enter_line(s, map, (bands.top(s, band) + i) * s.stride_h + p - s.pad_top, plane.at(i * bands.line));
            clear(DEPTH, plane.at(lines * bands.line));  // The last product of a line reads further.
        }
    }

    // A line of the copy: a row of the input, or what outputs need of it.
    void enter_line(const Step& s, const float* map, long y, Parts to) const {
        long count = wide_ * stride_;
        if (y < 0 || y >= s.in.height) return clear(count * chans_, to);
        const float* row = map + y * s.in.width * s.in.pitch;
        long across = s.kernel_w == 1 ? s.stride_w : 1;
        for (long i = 0; i < count; i++) {
            long x = i * across - s.pad_left;
            if (x < 0 || x >= s.in.width) clear(chans_, to.at(i * chans_));
            else split_pixel(row + x * s.in.pitch, blocks_.in_chans, to.at(i * chans_));
        }
    }

    Target to(const Step& s, const Place& place, long block, long first, long wide, long width, long count) const {
        long chan = block * blocks_.out_chans, columns = panels(blocks_.out_chans) * TILE_COLUMNS;
        return {finish_of(s, place, &bias_[block * columns], chan), place.arena + s.out.at + chan, s.out.pitch, first,
                wide, width, count};
    }

    // A pair of columns of all outputs of a copy; `tap` is where each row of the kernel begins.
    void multiply(Parts copy, const long* tap, long block, long pair, const Target& target) const {
        const Half* weight = weight_.data() + block * block_size() + pair * pair_size();
        bool is_pair = blocks_.out_chans - pair * PAIR > TILE;
        for (long at = 0; at < target.count; at += PAIR) {
            bool is_short = target.count - at <= TILE;
            if (is_pair && is_short) tiles<1, 2>(copy, tap, at, weight, pair * PAIR, target);
            else if (is_pair) tiles<2, 2>(copy, tap, at, weight, pair * PAIR, target);
            else if (is_short) tiles<1, 1>(copy, tap, at, weight, pair * PAIR, target);
            else tiles<2, 1>(copy, tap, at, weight, pair * PAIR, target);
        }
    }

    // ROWS tiles of outputs below each other and COLUMNS side by side.
    template <int ROWS, int COLUMNS>
    void tiles(Parts copy, const long* tap, long at, const Half* weight, long column, const Target& target) const {
        alignas(64) float sums[ROWS * COLUMNS * TILE_FLOATS];
        tile_zero<0>();
        if constexpr (COLUMNS == 2) tile_zero<1>();
        if constexpr (ROWS == 2) tile_zero<2>();
        if constexpr (ROWS * COLUMNS == 4) tile_zero<3>();
        long output = stride_ * chans_, pitch = output * sizeof(Half), below = TILE * output;
        for (long i = 0; i < taps_h_; i++) {
            Parts left = copy.at(tap[i] + at * output);
            for (long s = 0; s < steps_; s++, left = left.at(DEPTH), weight += step_size())
                products<ROWS, COLUMNS>(left, below, pitch, weight);
        }
        tile_store<0>(sums, 64);
        if constexpr (COLUMNS == 2) tile_store<1>(sums + TILE_FLOATS, 64);
        if constexpr (ROWS == 2) tile_store<2>(sums + COLUMNS * TILE_FLOATS, 64);
        if constexpr (ROWS * COLUMNS == 4) tile_store<3>(sums + 3 * TILE_FLOATS, 64);
        put<COLUMNS>(sums, at, std::min(target.count - at, ROWS * TILE), column, target);
    }

    // One step: upper times upper, lower times upper, upper times lower parts, ordered so that few tiles are read twice.
    template <int ROWS, int COLUMNS>
    static void products(Parts left, long below, long pitch, const Half* weight) {
        constexpr int RIGHT = 4, LEFT = 6;
        tile_load<RIGHT>(weight, 64);
        tile_load<LEFT>(left.high, pitch);
        tile_product<0, LEFT, RIGHT>();
        if constexpr (COLUMNS == 2) {
            tile_load<RIGHT + 1>(weight + TILE_HALVES, 64);
            tile_product<1, LEFT, RIGHT + 1>();
        }
        if constexpr (ROWS == 2) {
            tile_load<LEFT + 1>(left.high + below, pitch);
            tile_product<2, LEFT + 1, RIGHT>();
            if constexpr (COLUMNS == 2) tile_product<3, LEFT + 1, RIGHT + 1>();
        }
        tile_load<LEFT>(left.low, pitch);
        tile_product<0, LEFT, RIGHT>();
        if constexpr (COLUMNS == 2) tile_product<1, LEFT, RIGHT + 1>();
        if constexpr (ROWS == 2) {
            tile_load<LEFT>(left.low + below, pitch);
            tile_product<2, LEFT, RIGHT>();
            if constexpr (COLUMNS == 2) tile_product<3, LEFT, RIGHT + 1>();
        }
        tile_load<RIGHT>(weight + 2 * TILE_HALVES, 64);
        if constexpr (COLUMNS == 2) tile_load<RIGHT + 1>(weight + 3 * TILE_HALVES, 64);
        if constexpr (ROWS == 2) {
            tile_product<2, LEFT + 1, RIGHT>();
            if constexpr (COLUMNS == 2) tile_product<3, LEFT + 1, RIGHT + 1>();
        }
        tile_load<LEFT>(left.high, pitch);
        tile_product<0, LEFT, RIGHT>();
        if constexpr (COLUMNS == 2) tile_product<1, LEFT, RIGHT + 1>();
    }

    // Finishes sums of `count` places, (row of tiles, COLUMNS, TILE, TILE), and stores those that are outputs.
    template <int COLUMNS>
    void put(const float* sums, long at, long count, long column, const Target& target) const {
        const Finish& f = target.finish;
        long h = at / target.wide, w = at % target.wide, left = blocks_.out_chans - column;
        bool is_whole = left >= COLUMNS * TILE && (f.activation == NONE || f.activation == CLIP);
        constexpr int VECTORS = COLUMNS * TILE / LANES;
        Vec bias[VECTORS], low = all(-INFINITY), high = all(INFINITY);
        for (int j = 0; j < VECTORS; j++) bias[j] = load(f.bias + column + j * LANES);
        if (f.activation == CLIP) low = all(f.low), high = all(f.high);
        for (long i = 0; i < count; i++) {
            if (w < target.width) {
                long pixel = target.first + h * target.width + w;
                float* out = target.out + pixel * target.pitch + column;
                const float* other = f.other ? f.other + pixel * f.other_pitch + column : nullptr;
                const float* from = sums + i / TILE * COLUMNS * TILE_FLOATS + i % TILE * TILE;
#pragma GCC unroll 8
                for (int j = 0; j < VECTORS; j++) {
                    long c = j * LANES;
                    Vec v = load(from + c / TILE * TILE_FLOATS + c % TILE);
                    if (is_whole) {
                        v += bias[j];
                        if (other) v += load(other + c);
                        store(out + c, smaller(larger(v, low), high));
                    } else if (c < left) {
                        store_some(out + c, finish(f, v, pixel, column + c, left - c), left - c);
                    }
                }
            }
            if (++w == target.wide) w = 0, h++;
        }
    }

    Blocks blocks_;
    std::vector<float> bias_;
    std::vector<Half, LargePages<Half>> weight_;
    long taps_h_, steps_, pairs_, chans_, stride_, wide_, planes_;
};

// Null where a step has too few channels for it, or the process may not use the unit.
static inline std::unique_ptr<Conv> matrix(const Step& s) {
    if (!may_use_tiles() || s.in.chans / s.groups * s.kernel_w * s.kernel_h < TILE) return nullptr;
    return std::make_unique<MatrixConv>(s);
}
