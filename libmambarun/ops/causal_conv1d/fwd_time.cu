/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_time.cu - the causal convolution, forward, where times lie side by side. conv.cuh
 * says what the macros are.
 *
 *     y_t = bias + sum over taps of w_j x_{t-3+j},  out_t = y_t or y_t sigmoid(y_t)
 *
 * A team goes through one segment of one channel, in tiles of lanes COUNT times. Tiles
 * begin where x is aligned, be it before time 0: so each lane moves its run at once,
 * for any L; only the ends of a row are moved value by value. What a lane lacks comes
 * from the lane before it, and from tile to tile through registers: out may lie over x,
 * if the row is one segment.
 */
#include "time.cuh"

struct walk {
    taps own;
    counted width;
    int lane;
    bool silu;
    float before[BEFORE]; /* what the team's first lane lacks of the next tile */
};

INLINE void convolve(walk &k, int lanes, const run<IN, COUNT> &given,
                     float (&y)[COUNT]) {
    float now[COUNT], x[BEFORE + COUNT];
    unpack_run(now, given);
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        x[BEFORE + i] = now[i];
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        /* To the first lane goes what it needs in the next tile. */
        const float moved =
            __shfl_sync(ALL_LANES, now[COUNT - BEFORE + j], k.lane - 1, lanes);
        x[j] = k.lane == 0 ? k.before[j] : moved;
        k.before[j] = moved;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        y[i] = add_taps(k.own.bias, k.own.w[0], k.own.w[1], k.own.w[2], k.own.w[3],
                        x[i], x[i + 1], x[i + 2], x[i + 3], k.width);
    if (k.silu) {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            y[i] = silu(y[i]);
    }
}

constexpr int TILE = 32 * COUNT; /* of a whole warp */

/* A tile that is here; meanwhile the one after the next is loaded in its place. */
INLINE void convolve_plain(walk &k, run<IN, COUNT> &given, const IN *x, IN *out,
                           bool more) {
    const run<IN, COUNT> now = given;
    if (more)
        given = load_vector<IN, COUNT>(x + 2 * TILE);
    float y[COUNT];
    convolve(k, 32, now, y);
    store_vector(out, pack_run<IN>(y));
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_forward f) {
    const mbr_causal_conv1d_fwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const int lanes = 1 << plan.lane_bits, tile = lanes * COUNT;
    walk k;
    k.lane = threadIdx.x & (lanes - 1);
    k.width = taps_of((int)p.weight.shape[1]);
    k.silu = p.silu_activation;
    uint32_t unit =
        blockIdx.x * (CONV_THREADS >> plan.lane_bits) + (threadIdx.x >> plan.lane_bits);
    const bool exists = unit < plan.units;
    unit = min(unit, plan.units - 1);
    const uint32_t row = plan.by_segments.of(unit),
                   segment = unit - row * plan.segments;
    const uint32_t b = plan.by_dim.of(row), d = row - b * (uint32_t)p.x.shape[1];

    const IN *x = row_of<IN>(p.x, b, d);
    IN *out = row_of<IN>(p.out, b, d);
    const int64_t begin = (int64_t)segment * plan.segment * tile - misplaced(x);
    const int64_t left = exists ? p.x.shape[2] - begin : 0; /* times from there on */
    x += begin;
    out += begin;
#pragma unroll
    for (int j = 0; j < BEFORE; j++)
        k.before[j] = k.lane == 0 && begin > 0 ? to_float(x[j - BEFORE]) : 0.0f;
    x += k.lane * COUNT;
    out += k.lane * COUNT;

    /* Of all tiles, the plain ones; of less than a warp none, it has to stay together.
     */
    int tiles = 1, from = begin < 0, to = 0;
    if (lanes == 32) {
        tiles = to = plan.segment;
        if (segment == plan.segments - 1) {
            tiles = (int)((left + tile - 1) >> (5 + COUNT_BITS));
            to = (int)(left >> (5 + COUNT_BITS));
        }
        if (misplaced(out))
            to = 0;
    }
#pragma unroll 1
    for (int i = 0; i < tiles;) {
        const int64_t at = (int64_t)i * tile, t = begin + at + k.lane * COUNT;
        const bool plain = i >= from && i < to;
        const range inside = range_of(t, p.x.shape[2], exists);
        run<IN, COUNT> given = load_times(x + at, inside);
        run<IN, COUNT> second = {};
        if (plain && i + 1 < to)
            second = load_vector<IN, COUNT>(x + at + tile);
        if (i == 0) /* while that is on its way */
            k.own = read_team_taps(p.weight, p.bias, d, k.lane, lanes);
        if (plain) {
            const IN *from_x = x + at;
            IN *to_out = out + at;
#pragma unroll 1
            for (; i < to; i += 2) {
                convolve_plain(k, given, from_x, to_out, i + 2 < to);
                if (i + 1 < to)
                    convolve_plain(k, second, from_x + TILE, to_out + TILE, i + 3 < to);
                from_x += 2 * TILE;
                to_out += 2 * TILE;
            }
            i = to;
        } else {
            float y[COUNT];
            convolve(k, lanes, given, y);
            store_times(out + at, inside, y);
            i++;
        }
    }
}
