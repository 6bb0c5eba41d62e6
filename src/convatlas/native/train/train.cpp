// What Python calls (`training/kernels.py`).
#include "conv.h"
#include "depthwise.h"
#include "norm.h"

// Of a matrix (3, chans).
static Moments moments_of(float* matrix, int64_t chans) { return {matrix, matrix + chans, matrix + 2 * chans}; }

// Calls run(act) with the activation of a number, as `vector.h` has them.
template <class Run>
static void with_act(int64_t kind, float low, float high, const Run& run) {
    if (kind == CLIP) run(Act<CLIP>{all(low), all(high)});
    else if (kind == SILU) run(Act<SILU>{});
    else run(Act<NONE>{});
}

// Calls run(maps...) with maps of the type that they have.
template <class Run, class... Maps>
static void with_type(int64_t is_half, const Run& run, Maps*... maps) {
    if (is_half) run(static_cast<std::conditional_t<std::is_const_v<Maps>, const Half, Half>*>(maps)...);
    else run(static_cast<std::conditional_t<std::is_const_v<Maps>, const float, float>*>(maps)...);
}

extern "C" {

int64_t train_lanes() { return LANES; }

void train_norm_forward(const void* x, const void* added, void* y, int64_t is_half, int64_t rows, int64_t chans,
                        const float* weight, const float* bias, float eps, int64_t kind, float low, float high,
                        float* moments, float momentum, float* running_mean, float* running_var, int64_t threads) {
    auto run = [&](auto* from, auto* other, auto* to) {
        with_act(kind, low, high, [&](auto act) {
            norm_forward(from, other, to, rows, chans, weight, bias, eps, act, moments_of(moments, chans), momentum,
                         running_mean, running_var, threads);
        });
    };
    with_type(is_half, run, x, added, y);
}

void train_norm_backward(const void* grad, const void* x, const void* added, void* dx, void* dadded, int64_t is_half,
                         int64_t rows, int64_t chans, const float* weight, const float* bias, int64_t kind,
                         float low, float high, float* moments, float* dweight, float* dbias, int64_t threads) {
    auto run = [&](auto* above, auto* from, auto* other, auto* to, auto* to_other) {
        with_act(kind, low, high, [&](auto act) {
            norm_backward(above, from, other, to, to_other, rows, chans, weight, bias, act,
                          moments_of(moments, chans), dweight, dbias, threads);
        });
    };
    with_type(is_half, run, grad, x, added, dx, dadded);
}

void train_conv_forward(const void* x, const float* weight, const float* bias, void* y, int64_t is_half,
                        int64_t images, int64_t height, int64_t width, int64_t in_chans, int64_t out_chans,
                        int64_t pad, int64_t threads) {
    Map in{height, width, in_chans}, out{height + 2 * pad - 2, width + 2 * pad - 2, out_chans};
    auto run = [&](auto* from, auto* to) {
        conv_forward(from, weight, bias, to, images, in, out, pad, false, threads);
    };
    with_type(is_half, run, x, y);
}

// Gradients of x and of the weight (null where not asked for) from that of the output.
void train_conv_backward(const void* grad, const void* x, const float* weight, void* dx, float* dweight,
                         int64_t is_half, int64_t images, int64_t height, int64_t width, int64_t in_chans,
                         int64_t out_chans, int64_t pad, int64_t threads) {
    Map in{height, width, in_chans}, out{height + 2 * pad - 2, width + 2 * pad - 2, out_chans};
    auto run = [&](auto* above, auto* from, auto* to) {
        const float* none = nullptr;
        if (to) conv_forward(above, weight, none, to, images, out, in, 2 - pad, true, threads);
        if (dweight) conv_weight_gradient(from, above, dweight, images, in, out, pad, threads);
    };
    with_type(is_half, run, grad, x, dx);
}

void train_depthwise_forward(const void* x, const float* weight, const float* bias, void* y, int64_t is_half,
                             int64_t images, int64_t height, int64_t width, int64_t chans, int64_t kernel,
                             int64_t stride, int64_t pad, int64_t threads) {
    Depthwise d{images, height, width, chans, kernel, stride, pad};
    std::vector<float> spread = d.spread(weight, false);
    auto run = [&](auto* from, auto* to) { depthwise_forward(d, from, spread.data(), bias, to, threads); };
    with_type(is_half, run, x, y);
}

// Gradients of x and of the weight (null where not asked for) from that of the output.
void train_depthwise_backward(const void* grad, const void* x, const float* weight, void* dx, float* dweight,
                              int64_t is_half, int64_t images, int64_t height, int64_t width, int64_t chans,
                              int64_t kernel, int64_t stride, int64_t pad, int64_t threads) {
    Depthwise d{images, height, width, chans, kernel, stride, pad};
    auto run = [&](auto* above, auto* from, auto* to) {
        depthwise_backward(d, above, from, weight, to, dweight, threads);
    };
    with_type(is_half, run, grad, x, dx);
}
}
