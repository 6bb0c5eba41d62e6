// One step of a network: what Python's `native.steps.Step` writes, field by field.
#pragma once

#include <cstdint>

#include "memory.h"
#include "team.h"
#include "vector.h"

enum Kind : int64_t { CONV = 0, DEPTHWISE = 1, MAX_POOL = 2, AVERAGE_POOL = 3, MEAN = 4, ADD = 5, GATE = 6,
                      AFFINE = 7, COPY = 8 };

// A feature map in the arena: pixels one after the other, each with its channels side by side ("NHWC").
// `pitch` floats lie between two pixels, which are more than `chans` where the map is part of a larger one.
struct Map {
    int64_t at, height, width, chans, pitch;

    long image() const { return height * width * pitch; }
    long pixels() const { return height * width; }
};

struct Step {
    int64_t kind;
    Map in, out;
    int64_t other_at, other_pitch;  // A second operand of the output's size; at -1 for none.
    int64_t gate_at, gate_pitch;    // A factor for each image and channel of the input; at -1 for none.
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int64_t groups;
    int64_t activation;
    int64_t relu_first;      // Whether the input is clipped at 0 as it is read.
    int64_t average_border;  // Whether padding counts in an average: 1 all of it, 0 none.
    int64_t border_h, border_w;  // Height and width of the input with its padding, for averages.
    int64_t chained;         // Whether the next step, and no other, reads what this one writes.
    int64_t method, block;   // How a convolution is computed: 0 directly, 2 or 4 by Winograd's filtering with tiles of
    // that side, `block` tiles at a time; 0 for all. A depthwise one: `Joined`.
    float low, high;
    const float* weight;     // (out chans, kernel_h, kernel_w, in chans / groups), or (kernel, chans), or (chans)
    const float* bias;       // (out chans)
    const float* scale;      // (in chans), applied to the input as it is read, with `shift`; null for none.
    const float* shift;
};

// Where a step computes: a team, the arena with the maps, and memory for whatever it needs on the way.
struct Place {
    Team& team;
    float* arena;
    std::vector<Floats> own;  // for each member
    Floats common;

    Place(Team& team, float* arena) : team(team), arena(arena), own(team.size()) {}
};
