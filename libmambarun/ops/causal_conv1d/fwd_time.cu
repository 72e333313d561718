/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_time.cu - the causal convolution, forward, where times lie side by side. conv.cuh
 * says what the macros are.
 *
 *     y_t = bias + sum over taps of w_j x_{t-3+j},  out_t = y_t or y_t sigmoid(y_t)
 *
 * A team walks through one segment of one channel in tiles of lanes COUNT times. Tiles
 * begin where x is aligned, be it before time 0: so each lane moves its run at once,
 * for any L. What a lane lacks comes from the lane before it, and from tile to tile
 * through registers: out may lie over x, if the row is one segment.
 */
#include "time.cuh"

constexpr int AHEAD = 6; /* tiles that the second-level cache is asked for */

struct walk {
    series<IN> x;
    IN *out;
    const int32_t *ids;
    int64_t ids_step, begin, tiles; /* which begin at time `begin` */
    float w[TAPS], bias;
    counted taps;
    int lane, lanes;
    bool silu;
};

/* The last inputs, bit for bit. final may be the memory of the history, which the team
 * has read by now. */
INLINE void copy_final(const walk &k, const mbr_tensor &final, int64_t b, int64_t d) {
    const bool mine = k.x.length > 0 && k.lane < k.x.kept;
    IN last = {};
    if (mine)
        last = k.x.at(k.x.length - k.x.kept + k.lane);
    __syncwarp();
    if (mine)
        row_of<IN>(final, b, d)[k.lane * final.stride[2]] = last;
}

template <bool with_ids>
INLINE void convolve(const walk &k, const mbr_tensor &final, int64_t b, int64_t d) {
    const int tile = k.lanes * COUNT;
    run<IN, COUNT> next = load_times(k.x, k.begin + k.lane * COUNT);
    float before[BEFORE];
#pragma unroll
    for (int j = 0; j < BEFORE; j++)
        before[j] = k.lane == 0 ? to_float(k.x.at(k.begin - BEFORE + j)) : 0.0f;
    if (final.data && k.begin <= 0)
        copy_final(k, final, b, d);
#pragma unroll 1
    for (int64_t i = 0; i < k.tiles; i++) {
        const int64_t t = k.begin + i * tile + k.lane * COUNT;
        float own[COUNT], x[BEFORE + COUNT], y[COUNT];
        unpack_run(own, next);
        if (i + 1 < k.tiles)
            next = load_times(k.x, t + tile);
        prefetch_times(k.x.now, k.x.length, t + AHEAD * tile);
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            x[BEFORE + i] = own[i];
#pragma unroll
        for (int j = 0; j < BEFORE; j++) {
            /* To the first lane goes what it needs in the next tile. */
            const float moved =
                __shfl_sync(ALL_LANES, own[COUNT - BEFORE + j],
                            (k.lane + k.lanes - 1) & (k.lanes - 1), k.lanes);
            x[j] = k.lane == 0 ? before[j] : moved;
            before[j] = moved;
        }
        int id[BEFORE + COUNT];
        if (with_ids) {
#pragma unroll
            for (int i = 0; i < BEFORE + COUNT; i++)
                id[i] = id_at(k.ids, k.ids_step, k.x.length, t - BEFORE + i);
        }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            counted c = k.taps;
            if (with_ids)
                c = within_sequence(c, id[i], id[i + 1], id[i + 2], id[i + 3]);
            y[i] = add_taps(k.bias, k.w[0], k.w[1], k.w[2], k.w[3], x[i], x[i + 1],
                            x[i + 2], x[i + 3], c);
        }
        if (k.silu) {
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                y[i] = silu(y[i]);
        }
        if (with_ids) { /* padding gives 0, without bias and gate */
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                y[i] = id[i + BEFORE] < 0 ? 0.0f : y[i];
        }
        store_times(k.out, k.x.length, t, y);
    }
}

/* Tiles begin where x is aligned. */
INLINE int64_t first_time(const IN *row, int64_t tiles, int tile) {
    return tiles * tile - misplaced(row);
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_forward f) {
    const mbr_causal_conv1d_fwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];
    const int64_t units = p.x.shape[0] * plan.segments, teams = dim * plan.groups;
    const int width = (int)p.weight.shape[1];
    walk k;
    k.lanes = 1 << plan.lane_bits;
    k.lane = threadIdx.x & (k.lanes - 1);
    k.taps = taps_of(width);
    k.silu = p.silu_activation;
    k.ids_step = p.seq_idx.stride[1];
    const int tile = k.lanes * COUNT;

    int64_t team = (int64_t)blockIdx.x * (CONV_THREADS >> plan.lane_bits) +
                   (threadIdx.x >> plan.lane_bits);
    const bool exists = team < teams;
    team = min(team, teams - 1);
    const int64_t d = team % dim;
    int64_t index = team / dim;
    unit u = unit_of(index, plan.segments);
    {
        const IN *row = row_of<IN>(p.x, u.b, d);
        const int64_t t = first_time(row, u.segment * plan.segment, tile);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            prefetch_times(row, length, t + i * tile + k.lane * COUNT);
    }
    read_taps(k.w, p.weight, d);
    k.bias = read_bias(p.bias, d);

    /* As many rounds for all teams of a warp. */
    const int64_t rounds = (units + plan.groups - 1) / plan.groups;
    for (int64_t i = 0; i < rounds; i++) {
        k.x = series_of<IN>(p.x, p.initial_states, width - 1, u.b, d,
                            exists && index < units);
        k.out = row_of<IN>(p.out, u.b, d);
        k.ids = ids_of(p.seq_idx, u.b);
        k.begin = first_time(k.x.now, u.segment * plan.segment, tile);
        k.tiles = u.segment < plan.segments - 1 ? plan.segment
                                                : (length - k.begin + tile - 1) / tile;
        k.tiles = most_of_warp(k.tiles, k.lanes);
        const unit now = u;
        index += plan.groups;
        if (i + 1 < rounds) {
            u = unit_of(min(index, units - 1), plan.segments);
            const IN *row = row_of<IN>(p.x, u.b, d);
            prefetch_times(row, length,
                           first_time(row, u.segment * plan.segment, tile) +
                               k.lane * COUNT);
        }
        const mbr_tensor &final = p.final_states_out;
        if (p.seq_idx.data)
            convolve<true>(k, final, now.b, d);
        else
            convolve<false>(k, final, now.b, d);
    }
}
