/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_time.cu - the gradients of the causal convolution, where times lie side by side.
 * conv.cuh says what the macros are, bwd_channel.cu the formulas, fwd_time.cu what
 * tiles and teams are.
 *
 * The teams of a block share a channel, or its part: its group. A team goes through the
 * tiles of a segment from the last to the first: the g that the last lane lacks is that
 * of the tile it has come from, the x that the first one lacks is read with the tile.
 * The sums of a block go to dweight and dbias if it has the whole channel, else to the
 * workspace.
 */
#include "time.cuh"

struct walk {
    taps own;
    counted width;
    int lane;
    bool silu;
    float after[BEFORE]; /* g that the team's last lane lacks of the next tile */
    sums total;
};

/* dx of a run. */
INLINE void advance(walk &k, int lanes, const given &l, range inside,
                    float (&dx)[COUNT]) {
    float x[BEFORE + COUNT], g[COUNT + BEFORE];
    unpack(l, x, g);
    differentiate(k.own, k.width, k.silu, x, inside, g, k.total);
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        /* To the last lane goes what it needs in the next tile. */
        const float moved = __shfl_sync(ALL_LANES, g[j], k.lane + 1, lanes);
        g[COUNT + j] = k.lane == lanes - 1 ? k.after[j] : moved;
        k.after[j] = moved;
    }
    transpose(k.own, k.width, g, dx);
}

/* The times before a run at time t; 0 before time 0, and if there is no run. */
INLINE run<IN, TAPS> load_before(const IN *own, int64_t t, range inside) {
    run<IN, TAPS> r = {};
    if (inside.to <= 0)
        return r;
    if (t >= TAPS)
        r = load_vector<IN, TAPS>(own - TAPS);
    else if (t > 0)
#pragma unroll
        for (int i = 1; i < TAPS; i++)
            if (t + i >= TAPS)
                place(r, i, own[i - TAPS]);
    return r;
}

INLINE given load_plain(const IN *x, const IN *dout, bool has_before) {
    given l = {load_vector<IN, COUNT>(x), load_vector<IN, COUNT>(dout), {}};
    if (has_before)
        l.before = load_vector<IN, TAPS>(x - TAPS);
    return l;
}

/* Tiles of a warp that are aligned and lie within the row, of which the first one to go
 * through, the last in memory, is here and the next one always on its way. to_first:
 * the last of them is the row's first. */
INLINE void differentiate_plain(walk &k, given &next, const IN *x, const IN *dout,
                                IN *dx, int tiles, bool to_first) {
    constexpr int TILE = 32 * COUNT;
    const int without = to_first && k.lane == 0; /* tiles that have nothing before */
#pragma unroll 1
    for (; tiles > 0; tiles--) {
        const given now = next;
        if (tiles > 1) {
            x -= TILE;
            dout -= TILE;
            next = load_plain(x, dout, tiles - 1 > without);
        }
        if (tiles > 3) { /* beyond the next one, in the second-level cache */
            prefetch(x - 2 * TILE);
            prefetch(dout - 2 * TILE);
        }
        float to[COUNT];
        advance(k, 32, now, {0, COUNT}, to);
        store_vector(dx, pack_run<IN>(to));
        dx -= TILE;
    }
}

/* g of the times after a segment, where x and dout point to; `left` of them exist. */
INLINE void find_after(walk &k, int lanes, const IN *x, const IN *dout, int64_t left) {
    float g = 0.0f;
    if (k.lane < BEFORE && k.lane < left)
        g = find_g(k.own, k.width, k.silu, x + k.lane, dout + k.lane);
#pragma unroll
    for (int j = 0; j < BEFORE; j++)
        k.after[j] = __shfl_sync(ALL_LANES, g, j, lanes);
}

extern "C" __global__ void __launch_bounds__(CONV_WARPS * 32, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_backward f) {
    const mbr_causal_conv1d_bwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const uint32_t group = plan.by_dim.of(blockIdx.x);
    const uint32_t d = blockIdx.x - group * (uint32_t)p.x.shape[1];
    const int lanes = 1 << plan.lane_bits, tile = lanes * COUNT;
    walk k;
    k.lane = threadIdx.x & (lanes - 1);
    k.width = taps_of((int)p.weight.shape[1]);
    k.silu = p.silu_activation;
#pragma unroll
    for (int j = 0; j <= TAPS; j++)
        k.total[j] = 0.0f;

    const uint32_t teams = blockDim.x >> plan.lane_bits;
    const uint32_t first = group * teams + (threadIdx.x >> plan.lane_bits);
    const int64_t on = (int64_t)plan.groups * teams; /* units, from round to round */
#pragma unroll 1
    for (uint32_t round = 0; round < plan.rounds; round++) {
        const uint32_t index = first + round * (uint32_t)on;
        const uint32_t unit = min(index, plan.units - 1);
        const uint32_t b = plan.by_segments.of(unit),
                       segment = unit - b * plan.segments;
        const bool exists = index < plan.units;
        const IN *x = row_of<IN>(p.x, b, d), *dout = row_of<IN>(p.dout, b, d);
        IN *dx = row_of<IN>(p.dx, b, d);
        const int64_t begin = (int64_t)segment * plan.segment * tile - misplaced(x);
        const int64_t left = exists ? p.x.shape[2] - begin : 0; /* from there on */
        const bool last = segment == plan.segments - 1;

        /* Of all tiles, the plain ones; of less than a warp none, it has to stay
         * together. */
        int tiles = 1, from = begin < 0, to = 0;
        if (lanes == 32) {
            tiles = to = plan.segment;
            if (last) {
                tiles = (int)((left + tile - 1) >> (5 + COUNT_BITS));
                to = (int)(left >> (5 + COUNT_BITS));
            }
            if (misplaced(dout + begin) || misplaced(dx + begin))
                to = 0;
        }
        const int64_t end = begin + (int64_t)tiles * tile;
        int64_t t = end - tile + k.lane * COUNT;
#pragma unroll 1
        for (int i = tiles; i > 0;) {
            const bool plain = i > from && i <= to;
            range inside = {0, COUNT};
            given next;
            if (plain) {
                next = load_plain(x + t, dout + t, t > 0);
            } else {
                inside = range_of(t, p.x.shape[2], exists);
                next = {load_times(x + t, inside), load_times(dout + t, inside),
                        load_before(x + t, t, inside)};
            }
            if (i == tiles) { /* while that is on its way */
                if (plan.segments == 1 && index + on < plan.units && inside.to > 0) {
                    prefetch(x + on * p.x.stride[0] + t);
                    prefetch(dout + on * p.dout.stride[0] + t);
                }
                if (round == 0)
                    k.own = read_team_taps(p.weight, p.bias, d, k.lane, lanes);
                find_after(k, lanes, x + end, dout + end,
                           last ? 0 : p.x.shape[2] - end);
            }
            if (plain) {
                differentiate_plain(k, next, x + t, dout + t, dx + t, i - from,
                                    begin == 0 && from == 0);
                t -= (int64_t)(i - from) * tile;
                i = from;
            } else {
                float own[COUNT];
                advance(k, lanes, next, inside, own);
                store_times(dx + t, inside, own);
                t -= tile;
                i--;
            }
        }
    }

    finish_sums<CONV_WARPS>(f, group, d, k.total);
}
