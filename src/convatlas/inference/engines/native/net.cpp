// A network as a list of steps on maps in one arena. Python plans it (`native/plan.py`); here it runs.
//
// Source of the layout of convolutions: Dukhan 2019, "The Indirect Convolution Algorithm".

#include <chrono>
#include <memory>

#include "conv.h"
#include "depthwise.h"
#include "simple.h"
#include "step.h"
#include "winograd.h"

namespace {

struct Layer {
    Step step;
    std::unique_ptr<DirectConv> direct;
    std::unique_ptr<WinogradConv<2>> winograd2;
    std::unique_ptr<WinogradConv<4>> winograd4;

    explicit Layer(const Step& s) : step(s) {}

    // Brings weights into the order that the step's method reads them in.
    void prepare() {
        if (step.kind != CONV) return;
        if (step.method == 0 && !direct) direct = std::make_unique<DirectConv>(step);
        if (step.method == 2 && !winograd2) winograd2 = std::make_unique<WinogradConv<2>>(step);
        if (step.method == 4 && !winograd4) winograd4 = std::make_unique<WinogradConv<4>>(step);
    }

    void forget() {
        direct.reset();
        winograd2.reset();
        winograd4.reset();
    }

    void run(long images, Place& place) const {
        switch (step.kind) {
            case CONV:
                if (step.method == 2) return winograd2->run(step, images, place);
                if (step.method == 4) return winograd4->run(step, images, place);
                return direct->run(step, images, place);
            case DEPTHWISE: return DepthwiseConv().run(step, images, place);
            case MAX_POOL: return max_pool(step, images, place);
            case AVERAGE_POOL: return average_pool(step, images, place);
            case MEAN: return mean(step, images, place);
            case ADD: return add(step, images, place);
            case GATE: return gate(step, images, place);
            case AFFINE: return affine(step, images, place);
            case COPY: return copy(step, images, place);
        }
    }
};

// One stream: its arena, and the team that works on it.
struct Stream {
    Team team;
    Floats memory;
    Place place;

    Stream(int members, long floats)
        : team(members), memory(floats), place(team, memory.data()) {}
};

class Net {
   public:
    // `streams` work side by side on `at_once` images each; one stream has all threads as its team.
    Net(long threads, long streams, long at_once, long floats, Map images, Map scores)
        : at_once_(at_once), images_(images), scores_(scores), outer_(static_cast<int>(streams)) {
        for (long i = 0; i < streams; i++)
            streams_.push_back(std::make_unique<Stream>(static_cast<int>(streams > 1 ? 1 : threads), floats));
    }

    void add(const Step& step) { layers_.emplace_back(step); }

    void prepare() {
        for (auto& layer : layers_) layer.prepare();
    }

    // Images (count, chans, height, width), or with the channels last, to scores (count, classes). `count` is
    // a multiple of `at_once`.
    void run(const float* x, bool chans_last, long count, float* y) {
        outer_.share(count / at_once_, [&](long part, int stream) {
            Place& place = streams_[stream]->place;
            long size = images_chans() * inner_height() * inner_width();
            for (long i = 0; i < at_once_; i++)
                enter(place, x + (part * at_once_ + i) * size, chans_last, i);
            for (auto& layer : layers_) layer.run(at_once_, place);
            for (long i = 0; i < at_once_; i++)
                std::copy_n(place.arena + scores_.at + i * scores_.image(), scores_.chans,
                            y + (part * at_once_ + i) * scores_.chans);
        });
    }

    // Times each method that a layer has, and keeps the fastest; writes method and block of each layer.
    void tune(int64_t* chosen) {
        Place& place = streams_[0]->place;
        has_cold_weights_ = weights() > CACHED;
        if (has_cold_weights_) other_weights_.assign(4 * CACHED, 0.0f);
        for (size_t i = 0; i < streams_[0]->memory.size(); i++) streams_[0]->memory[i] = (i % 1000) * 1e-3f;
        for (size_t i = 0; i < layers_.size(); i++) {
            Step& step = layers_[i].step;
            size_t twin = 0;
            while (twin < i && !alike(layers_[twin].step, step)) twin++;
            if (twin < i) {
                step.method = layers_[twin].step.method;
                step.block = layers_[twin].step.block;
            } else if (fits_winograd(step)) {
                tune(layers_[i], place);
            }
            *chosen++ = step.method;
            *chosen++ = step.block;
        }
    }

    long border_top = 0, border_left = 0, border_bottom = 0, border_right = 0;

   private:
    long images_chans() const { return images_.chans; }
    long inner_height() const { return images_.height - border_top - border_bottom; }
    long inner_width() const { return images_.width - border_left - border_right; }

    // Copies an image into its map, with the border of zeros that the first convolution wants.
    void enter(Place& place, const float* x, bool chans_last, long image) {
        long chans = images_.chans, height = inner_height(), width = inner_width();
        float* map = place.arena + images_.at + image * images_.image();
        place.team.share(images_.height, [&](long row, int) {
            float* out = map + row * images_.width * images_.pitch;
            long y = row - border_top;
            if (y < 0 || y >= height) {
                std::fill_n(out, images_.width * images_.pitch, 0.0f);
                return;
            }
            std::fill_n(out, border_left * images_.pitch, 0.0f);
            std::fill_n(out + (border_left + width) * images_.pitch, border_right * images_.pitch, 0.0f);
            out += border_left * images_.pitch;
            if (chans_last) {
                std::copy_n(x + y * width * chans, width * chans, out);
                return;
            }
            for (long c = 0; c < chans; c++)
                for (long i = 0; i < width; i++) out[i * images_.pitch + c] = x[(c * height + y) * width + i];
        });
    }

    // Whether two steps take the same time.
    static bool alike(const Step& a, const Step& b) {
        return a.kind == b.kind && a.in.height == b.in.height && a.in.width == b.in.width &&
               a.in.chans == b.in.chans && a.out.chans == b.out.chans && a.kernel_h == b.kernel_h &&
               a.kernel_w == b.kernel_w && a.stride_h == b.stride_h && a.stride_w == b.stride_w &&
               a.groups == b.groups;
    }

    void tune(Layer& layer, Place& place) {
        struct Way { int64_t method, block; };
        Way best = {0, 0};
        double least = std::numeric_limits<double>::infinity();
        for (Way way : {Way{0, 0}, Way{4, 0}, Way{4, 6}, Way{4, 12}, Way{4, 24}, Way{4, 48}, Way{4, 96}, Way{2, 0},
                        Way{2, 24}, Way{2, 96}}) {
            layer.step.method = way.method;
            layer.step.block = way.block;
            layer.prepare();
            layer.run(at_once_, place);
            for (int i = 0; i < 3; i++) {
                double time = seconds(layer, place);
                if (time < least) least = time, best = way;
                if (time > 1.5 * least) break;
            }
        }
        layer.forget();
        layer.step.method = best.method;
        layer.step.block = best.block;
    }

    // Of all layers, in floats.
    long weights() const {
        long sum = 0;
        for (const auto& layer : layers_) {
            const Step& s = layer.step;
            if (s.kind == CONV) sum += s.kernel_h * s.kernel_w * s.in.chans / s.groups * s.out.chans;
        }
        return sum;
    }

    double seconds(const Layer& layer, Place& place) {
        // A layer's weights are not in the cache when its turn comes, unless all layers' are.
        if (has_cold_weights_)
            for (float& value : other_weights_) value += 1.0f;
        auto begin = std::chrono::steady_clock::now();
        layer.run(at_once_, place);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }

    long at_once_;
    Map images_, scores_;
    Team outer_;
    std::vector<std::unique_ptr<Stream>> streams_;
    std::vector<Layer> layers_;

    static constexpr long CACHED = 4 << 20;  // floats that the last cache may keep from one image to the next
    bool has_cold_weights_ = false;
    Floats other_weights_;
};

}  // namespace

extern "C" {

long net_step_size() { return sizeof(Step); }

void* net_new(long threads, long streams, long at_once, long floats, Map images, Map scores, long top, long left,
              long bottom, long right) {
    Net* net = new Net(threads, streams, at_once, floats, images, scores);
    net->border_top = top;
    net->border_left = left;
    net->border_bottom = bottom;
    net->border_right = right;
    return net;
}

void net_add(void* net, const Step* step) { static_cast<Net*>(net)->add(*step); }
void net_prepare(void* net) { static_cast<Net*>(net)->prepare(); }
void net_tune(void* net, int64_t* chosen) { static_cast<Net*>(net)->tune(chosen); }

void net_run(void* net, const float* x, long chans_last, long count, float* y) {
    static_cast<Net*>(net)->run(x, chans_last != 0, count, y);
}

void net_free(void* net) { delete static_cast<Net*>(net); }
}
