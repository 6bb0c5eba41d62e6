// A network as a list of steps on maps in one arena. Python plans it (`native/plan.py`); here it runs.
//
// Source of the layout of convolutions: Dukhan 2019, "The Indirect Convolution Algorithm".

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <memory>

#include "chain.h"
#include "conv.h"
#include "depthwise.h"
#include "matrix.h"
#include "simple.h"
#include "step.h"
#include "winograd.h"

namespace {

struct Layer {
    Step step;
    std::map<int64_t, std::unique_ptr<Conv>> convs;  // by method

    explicit Layer(const Step& s) : step(s) {}

    // Brings weights into the order that a method reads them in; false where the convolution has not got it.
    bool prepare(int64_t method) {
        if (convs[method]) return true;
        if (method == MATRIX) convs[method] = matrix(step);
        else if (method) convs[method] = winograd(step, method);
        else convs[method] = std::make_unique<DirectConv>(step);
        return convs[method] != nullptr;
    }

    // Prepares the step's own method, or the direct one in its place.
    void prepare() {
        if (step.kind == CONV && !prepare(step.method)) prepare(step.method = 0);
    }

    Pointwise pointwise() const { return {&step, static_cast<const PixelConv*>(convs.at(step.method).get())}; }

    void run(long images, Place& place) const {
        switch (step.kind) {
            case CONV: return convs.at(step.method)->run(step, images, place);
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

// One way to compute a convolution.
struct Way {
    int64_t method, block;
    std::vector<double> times = {};  // seconds of each call

    // The lower of the middle ones: a processor that others share has fast and slow phases, which suit ways unequally.
    double time() const {
        if (times.empty()) return std::numeric_limits<double>::infinity();
        std::vector<double> sorted = times;
        auto middle = sorted.begin() + (sorted.size() - 1) / 2;
        std::nth_element(sorted.begin(), middle, sorted.end());
        return *middle;
    }
};

// The ways to compute layers that take the same time as each other.
class Contest {
   public:
    // Ways of the first layer are those of all.
    void join(size_t number, const std::vector<Way>& ways) {
        if (layers_.empty()) ways_ = ways;
        layers_.push_back(number);
    }

    // A second layer shows each way as often in half the passes; more would only take memory.
    bool is_full() const { return layers_.size() == 2; }
    bool has(size_t number) const { return std::count(layers_.begin(), layers_.end(), number) > 0; }
    size_t first() const { return layers_[0]; }
    // Where one way is left, there is nothing to find out.
    long rounds() const { return ways_.size() > 1 ? rounds_ : MOST_ROUNDS; }

    // The way whose turn it is. After each round, those leave that are far behind.
    Way& next() {
        if (turn_ == ways_.size()) {
            turn_ = 0;
            double bound = (rounds_++ ? 1.2 : 1.5) * best().time();
            ways_.erase(std::remove_if(ways_.begin(), ways_.end(), [&](const Way& w) { return w.time() > bound; }),
                        ways_.end());
        }
        return ways_[turn_++];
    }

    const Way& best() const {
        return *std::min_element(ways_.begin(), ways_.end(),
                                 [](const Way& a, const Way& b) { return a.time() < b.time(); });
    }

    static constexpr long MOST_ROUNDS = 5;

   private:
    std::vector<size_t> layers_;
    std::vector<Way> ways_;
    size_t turn_ = 0;
    long rounds_ = 0;
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
            for (size_t i = 0; i < layers_.size();) i = step(i, place);
            for (long i = 0; i < at_once_; i++)
                std::copy_n(place.arena + scores_.at + i * scores_.image(), scores_.chans,
                            y + (part * at_once_ + i) * scores_.chans);
        });
    }

    // Times the ways to compute each convolution, within the network, where caches are as they will be, and keeps the
    // fastest; writes method and block of each layer. `by_matrix`: whether the matrix unit may be used.
    void tune(bool by_matrix, int64_t* chosen) {
        std::vector<Contest> contests;
        std::vector<long> own(layers_.size(), -1);  // contest of each layer
        for (size_t i = 0; i < layers_.size(); i++) {
            layers_[i].prepare();
            if (layers_[i].step.kind != CONV && layers_[i].step.kind != DEPTHWISE) continue;
            if (layers_[i].step.kind == CONV && joinable(i)) continue;  // Timed with its depthwise convolution.
            size_t c = 0;
            while (c < contests.size() && !alike(contests[c].first(), i)) c++;
            own[i] = static_cast<long>(c);
            if (c == contests.size()) contests.emplace_back();
            if (!contests[c].is_full()) contests[c].join(i, ways(i, by_matrix));
        }
        std::vector<float> x(images_chans() * inner_height() * inner_width());
        for (size_t i = 0; i < x.size(); i++) x[i] = (i % 1000) * 2e-3f - 1.0f;
        long rounds = 0;
        double least = 0;
        auto begin = now();
        while (rounds < Contest::MOST_ROUNDS && (rounds < 2 || now() - begin < least + PATIENCE)) {
            pass(x.data(), contests, own);
            rounds = Contest::MOST_ROUNDS;
            for (const auto& contest : contests) rounds = std::min(rounds, contest.rounds());
            if (rounds < 2) least = now() - begin;
        }
        for (size_t i = 0; i < own.size(); i++)
            if (own[i] >= 0) use(i, contests[own[i]].best());
        for (const auto& layer : layers_) {
            *chosen++ = layer.step.method;
            *chosen++ = layer.step.block;
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

    // The depthwise convolution of the chain that begins with a layer, or -1.
    long chain_at(size_t i) const {
        if (layers_[i].step.kind == DEPTHWISE) return static_cast<long>(i);
        bool is_first = layers_[i].step.chained && layers_[i + 1].step.kind == DEPTHWISE;
        return is_first ? static_cast<long>(i) + 1 : -1;
    }

    // Which of its neighbours a layer, as a part of a chain, may be computed with.
    int64_t joinable(size_t i) const {
        return (layers_[i].step.chained ? WITH_NEXT : APART) | (i && layers_[i - 1].step.chained ? WITH_LAST : APART);
    }

    // Runs a layer, or the chain that begins with it; returns the number of the layer after it.
    size_t step(size_t i, Place& place) const {
        long middle = chain_at(i);
        const Step* s = middle < 0 ? nullptr : &layers_[middle].step;
        int64_t joined = s ? s->method & joinable(middle) : APART;
        if (s && i < static_cast<size_t>(middle) && !(joined & WITH_LAST)) joined = APART;
        if (joined == APART) {
            layers_[i].run(at_once_, place);
            return i + 1;
        }
        Pointwise before, behind;
        if (joined & WITH_LAST) before = layers_[middle - 1].pointwise();
        if (joined & WITH_NEXT) behind = layers_[middle + 1].pointwise();
        Chain(before, *s, behind).run(at_once_, place);
        return middle + (joined & WITH_NEXT ? 2 : 1);
    }

    // The ways to compute a convolution, its weights brought into their orders. Those of a depthwise one are to be
    // computed with its neighbours; with a block of 1, these are done by the matrix unit.
    std::vector<Way> ways(size_t i, bool by_matrix) {
        std::vector<Way> found;
        if (layers_[i].step.kind == DEPTHWISE) {
            for (int64_t block = 0; block <= (by_matrix && joinable(i)); block++)
                for (int64_t joined : {APART, WITH_NEXT, WITH_LAST, WITH_BOTH})
                    if ((joined & joinable(i)) == joined) found.push_back({joined, block});
            return found;
        }
        std::vector<Way> all = {{0, 0}, {4, 0}, {4, 6}, {4, 12}, {4, 24}, {4, 48}, {4, 96}, {2, 0}, {2, 24}, {2, 96}};
        if (by_matrix) all.insert(all.begin(), {{MATRIX, 0}, {MATRIX, 64}, {MATRIX, 256}});
        for (Way way : all)
            if (layers_[i].prepare(way.method)) found.push_back(way);
        return found;
    }

    // Lets a layer be computed so, and with it the neighbours of a depthwise one.
    void use(size_t i, const Way& way) {
        layers_[i].step.method = way.method;
        layers_[i].step.block = way.block;
        if (layers_[i].step.kind != DEPTHWISE) return;
        int64_t joined = joinable(i);
        if (joined & WITH_LAST) layers_[i - 1].step.method = pointwise_method(layers_[i - 1], way.block);
        if (joined & WITH_NEXT) layers_[i + 1].step.method = pointwise_method(layers_[i + 1], way.block);
    }

    static int64_t pointwise_method(Layer& layer, bool by_matrix) {
        return by_matrix && layer.prepare(MATRIX) ? MATRIX : 0;
    }

    // Whether two layers take the same time.
    bool alike(size_t one, size_t two) const {
        const Step &a = layers_[one].step, &b = layers_[two].step;
        if (a.kind != b.kind || a.in.height != b.in.height || a.in.width != b.in.width || a.in.chans != b.in.chans ||
            a.out.chans != b.out.chans || a.kernel_h != b.kernel_h || a.kernel_w != b.kernel_w ||
            a.stride_h != b.stride_h || a.stride_w != b.stride_w || a.groups != b.groups)
            return false;
        if (a.kind == CONV) return true;
        int64_t joined = joinable(one);
        return joined == joinable(two) &&
               (!(joined & WITH_LAST) || alike(one - 1, two - 1)) && (!(joined & WITH_NEXT) || alike(one + 1, two + 1));
    }

    static double now() {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }

    // Runs the network once, each layer of a contest by the way whose turn it is. Of a chain, what is timed is all of it,
    // whichever of its layers are computed together.
    void pass(const float* x, std::vector<Contest>& contests, const std::vector<long>& own) {
        Place& place = streams_[0]->place;
        for (long i = 0; i < at_once_; i++) enter(place, x, false, i);
        for (size_t i = 0; i < layers_.size();) {
            long middle = chain_at(i);
            size_t timed = middle < 0 ? i : middle, end = timed + 1 + (middle >= 0 && layers_[middle].step.chained);
            Contest* contest = own[timed] < 0 ? nullptr : &contests[own[timed]];
            Way* way = contest && contest->has(timed) ? &contest->next() : nullptr;
            if (way) use(timed, *way);
            double begin = now();
            while (i < end) i = step(i, place);
            if (way) way->times.push_back(now() - begin);
        }
    }

    long at_once_;
    Map images_, scores_;
    Team outer_;
    std::vector<std::unique_ptr<Stream>> streams_;
    std::vector<Layer> layers_;

    static constexpr double PATIENCE = 2;  // seconds for tuning, beyond two rounds
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
long net_has_tiles() { return HAS_TILES && may_use_tiles(); }

void net_tune(void* net, long by_matrix, int64_t* chosen) {
    static_cast<Net*>(net)->tune(by_matrix != 0, chosen);
}

void net_run(void* net, const float* x, long chans_last, long count, float* y) {
    static_cast<Net*>(net)->run(x, chans_last != 0, count, y);
}

void net_free(void* net) { delete static_cast<Net*>(net); }
}
