// Tiles of the processor's matrix unit (Intel's AMX): eight registers of 16 rows of 64 bytes. A product takes a tile of
// 16 x 32 values of bfloat16 and one of 32 x 16, in which pairs of rows are interleaved, and adds to 16 x 16 floats.
// Where there is no such unit, the same is done one by one, which is slow and for tests.
//
// Source: Intel's Architecture Instruction Set Extensions Programming Reference, Chapter 3.
#pragma once

#include <cstdint>

#include "half.h"

#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define HAS_MATRIX_UNIT
#endif

constexpr long TILE = 16, DEPTH = 32;  // rows and columns of sums; products that are added to each at once
constexpr long TILE_FLOATS = TILE * TILE, TILE_HALVES = TILE * DEPTH;

#if defined(HAS_MATRIX_UNIT)

constexpr bool HAS_TILES = true;

// Whether this process may use the unit: Linux wants to be asked, as it keeps 8 KB more for each thread then.
static inline bool may_use_tiles() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    static const bool may = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    return may;
}

struct alignas(64) TileShapes {
    uint8_t palette = 0, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles of full size for a thread, as long as it lives. Then the shapes are as they were: other libraries may count on it.
class Tiles {
   public:
    Tiles() {
        asm volatile("sttilecfg %0" : "=m"(before_));
        TileShapes full;
        full.palette = 1;
        for (int i = 0; i < 8; i++) full.row_bytes[i] = 64, full.rows[i] = TILE;
        asm volatile("ldtilecfg %0" : : "m"(full));
    }
    ~Tiles() {
        if (before_.palette) asm volatile("ldtilecfg %0" : : "m"(before_));
        else asm volatile("tilerelease");
    }
    Tiles(const Tiles&) = delete;

   private:
    TileShapes before_;
};

template <int TO>
static inline void tile_zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(TO));
}

// Rows are `step` bytes apart.
template <int TO>
static inline void tile_load(const void* from, long step) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(step), "i"(TO) : "memory");
}

template <int FROM>
static inline void tile_store(void* to, long step) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(step), "i"(FROM) : "memory");
}

template <int SUM, int LEFT, int RIGHT>
static inline void tile_product() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(LEFT), "i"(RIGHT));
}

#else

constexpr bool HAS_TILES = false;

static inline bool may_use_tiles() { return true; }

static thread_local unsigned char tile_memory[8][TILE][64];

struct Tiles {};

template <int TO>
static inline void tile_zero() {
    std::memset(tile_memory[TO], 0, sizeof tile_memory[TO]);
}

template <int TO>
static inline void tile_load(const void* from, long step) {
    for (int i = 0; i < TILE; i++) std::memcpy(tile_memory[TO][i], static_cast<const char*>(from) + i * step, 64);
}

template <int FROM>
static inline void tile_store(void* to, long step) {
    for (int i = 0; i < TILE; i++) std::memcpy(static_cast<char*>(to) + i * step, tile_memory[FROM][i], 64);
}

template <int SUM, int LEFT, int RIGHT>
static inline void tile_product() {
    float sums[TILE][TILE], left[TILE][DEPTH], right[TILE][DEPTH];
    std::memcpy(sums, tile_memory[SUM], sizeof sums);
    for (int i = 0; i < TILE; i++)
        for (int k = 0; k < DEPTH; k++) {
            left[i][k] = one(reinterpret_cast<const Half*>(tile_memory[LEFT][i]) + k);
            right[i][k] = one(reinterpret_cast<const Half*>(tile_memory[RIGHT][i]) + k);
        }
    for (int i = 0; i < TILE; i++)
        for (int k = 0; k < DEPTH; k++)
            for (int j = 0; j < TILE; j++) sums[i][j] += left[i][k] * right[k / 2][2 * j + k % 2];
    std::memcpy(tile_memory[SUM], sums, sizeof sums);
}

#endif
