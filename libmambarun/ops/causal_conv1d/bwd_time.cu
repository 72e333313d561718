/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_time.cu - the gradients of the causal convolution, where times lie side by side.
 * conv.cuh says what the macros are, bwd_channel.cu the formulas, fwd_time.cu what
 * tiles and teams are.
 *
 * A team goes through the tiles of a segment from the last to the first: the g that the
 * last lane lacks is that of the tile it has come from, the x that the first one lacks
 * is read with the tile. The sums of a team go to the workspace, one set for all its
 * units.
 */
#include "time.cuh"

constexpr int AHEAD = 4; /* tiles that the second-level cache is asked for */

struct team {
    series<IN> x, dout;
    float w[TAPS], bias;
    counted taps;
    int64_t b, d;
    int lane, lanes;
};

/* What a lane reads of a tile. */
struct tile {
    run<IN, COUNT> x, dout;
    float before[BEFORE]; /* of x; the first lane's alone */
};

typedef float sums[TAPS + 1]; /* the bias last */

INLINE tile load_tile(const team &k, int64_t t) {
    tile l = {load_times(k.x, t), load_times(k.dout, t), {}};
    if (k.lane == 0) {
        if (t >= TAPS && t <= k.x.length) { /* aligned, as t is */
            float own[TAPS];
            unpack_run(own, load_run<IN, TAPS>(k.x.now + t - TAPS));
#pragma unroll
            for (int j = 0; j < BEFORE; j++)
                l.before[j] = own[j + 1];
        } else {
#pragma unroll
            for (int j = 0; j < BEFORE; j++)
                l.before[j] = to_float(k.x.at(t - BEFORE + j));
        }
    }
    return l;
}

/* g of one time, where it is not worth a tile. */
INLINE float gradient_at(const team &k, const mbr_causal_conv1d_bwd_params &p,
                         int64_t t) {
    if (t < 0 || t >= k.x.length)
        return 0.0f;
    counted c = k.taps;
    if (p.seq_idx.data) {
        const int32_t *ids = ids_of(p.seq_idx, k.b);
        int id[TAPS];
#pragma unroll
        for (int j = 0; j < TAPS; j++)
            id[j] = id_at(ids, p.seq_idx.stride[1], k.x.length, t - BEFORE + j);
        c = within_sequence(c, id[0], id[1], id[2], id[3]);
    }
    const float g = to_float(k.dout.at(t));
    if (!p.silu_activation)
        return g;
    return g * silu_slope(add_taps(k.bias, k.w[0], k.w[1], k.w[2], k.w[3],
                                   to_float(k.x.at(t - 3)), to_float(k.x.at(t - 2)),
                                   to_float(k.x.at(t - 1)), to_float(k.x.at(t)), c));
}

/* What only the ends of a row have: adds dfinal_states to dx, and stores dx of times
 * before 0. */
INLINE void finish_ends(const team &k, const mbr_causal_conv1d_bwd_params &p, int64_t t,
                        float (&dx)[COUNT]) {
    const int kept = k.x.kept;
    if (p.dfinal_states.data && t + COUNT > k.x.length - kept) {
        const IN *from = row_of<IN>(p.dfinal_states, k.b, k.d);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const int64_t j = t + i - (k.x.length - kept);
            if (j >= 0 && j < kept)
                dx[i] += to_float(from[j * p.dfinal_states.stride[2]]);
        }
    }
    if (p.dinitial_states.data && t < 0 && k.x.length > 0) {
        IN *to = row_of<IN>(p.dinitial_states, k.b, k.d);
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (t + i < 0 && t + i >= -kept)
                to[(t + i + kept) * p.dinitial_states.stride[2]] =
                    from_float<IN>(dx[i]);
    }
}

/* g of a lane's run, and the sums over it. */
template <bool with_ids, bool whole>
INLINE void
differentiate_run(const team &k, bool silu, const float (&x)[BEFORE + COUNT],
                  const float (&dout)[COUNT], const int (&id)[BEFORE + COUNT + BEFORE],
                  range inside, float (&g)[COUNT + BEFORE], sums &total) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        counted c = k.taps;
        if (with_ids)
            c = within_sequence(c, id[i], id[i + 1], id[i + 2], id[i + 3]);
        g[i] = dout[i];
        if (silu)
            g[i] *= silu_slope(add_taps(k.bias, k.w[0], k.w[1], k.w[2], k.w[3], x[i],
                                        x[i + 1], x[i + 2], x[i + 3], c));
        if (!whole && !inside.has(i)) {
            g[i] = 0.0f; /* not 0 times something */
            continue;
        }
#pragma unroll
        for (int j = 0; j < BEFORE; j++)
            if (!with_ids || c.tap[j])
                total[j] = fmaf(g[i], x[i + j], total[j]);
        total[BEFORE] = fmaf(g[i], x[i + BEFORE], total[BEFORE]);
        total[TAPS] += g[i];
    }
}

/* A segment: its first tile begins at time `begin`, its last one at time `last`. */
template <bool with_ids>
INLINE void differentiate(const team &k, const mbr_causal_conv1d_bwd_params &p,
                          int64_t begin, int64_t last, sums &total) {
    const int width = k.lanes * COUNT;
    const int64_t length = k.x.length;
    const int32_t *ids = ids_of(p.seq_idx, k.b);
    IN *to = row_of<IN>(p.dx, k.b, k.d);
    tile next = load_tile(k, last + k.lane * COUNT);
    float after[BEFORE]; /* g of the times after the tile; the last lane's alone */
    const float g_lane = last + width < length && k.lane < BEFORE
                             ? gradient_at(k, p, last + width + k.lane)
                             : 0.0f;
#pragma unroll
    for (int j = 0; j < BEFORE; j++)
        after[j] = __shfl_sync(ALL_LANES, g_lane, j, k.lanes);

#pragma unroll 1
    for (int64_t start = last; start >= begin; start -= width) {
        const int64_t t = start + k.lane * COUNT;
        const range inside = range_of(t, length);
        float x[BEFORE + COUNT], g[COUNT + BEFORE], own[COUNT];
        unpack_run(own, next.x);
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            x[BEFORE + i] = own[i];
        unpack_run(own, next.dout);
#pragma unroll
        for (int j = 0; j < BEFORE; j++) {
            x[j] = __shfl_up_sync(ALL_LANES, x[COUNT + j], 1, k.lanes);
            x[j] = k.lane == 0 ? next.before[j] : x[j];
        }
        if (start > begin)
            next = load_tile(k, t - width);
        prefetch_times(k.x.now, length, t - AHEAD * width);
        prefetch_times(k.dout.now, length, t - AHEAD * width);
        int id[BEFORE + COUNT + BEFORE];
        if (with_ids) {
#pragma unroll
            for (int i = 0; i < BEFORE + COUNT + BEFORE; i++)
                id[i] = id_at(ids, p.seq_idx.stride[1], length, t - BEFORE + i);
        }
        if (inside.from == 0 && inside.to == COUNT)
            differentiate_run<with_ids, true>(k, p.silu_activation, x, own, id, inside,
                                              g, total);
        else
            differentiate_run<with_ids, false>(k, p.silu_activation, x, own, id, inside,
                                               g, total);
#pragma unroll
        for (int j = 0; j < BEFORE; j++) {
            /* To the last lane goes what it needs in the next tile. */
            const float moved =
                __shfl_sync(ALL_LANES, g[j], (k.lane + 1) & (k.lanes - 1), k.lanes);
            g[COUNT + j] = k.lane == k.lanes - 1 ? after[j] : moved;
            after[j] = moved;
        }
        float dx[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            counted c = k.taps;
            if (with_ids)
                c = within_sequence(c, id[i + 6], id[i + 5], id[i + 4], id[i + 3]);
            dx[i] = add_taps(0.0f, k.w[0], k.w[1], k.w[2], k.w[3], g[i + 3], g[i + 2],
                             g[i + 1], g[i], c);
        }
        if (t < 0 || t + COUNT > length - BEFORE)
            finish_ends(k, p, t, dx);
        store_times(to, length, t, dx);
    }
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_backward f) {
    const mbr_causal_conv1d_bwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];
    const int64_t units = p.x.shape[0] * plan.segments;
    const int width = (int)p.weight.shape[1];
    team k;
    k.lanes = 1 << plan.lane_bits;
    k.lane = threadIdx.x & (k.lanes - 1);
    k.taps = taps_of(width);

    const int64_t teams = dim * plan.groups;
    int64_t index = (int64_t)blockIdx.x * (CONV_THREADS >> plan.lane_bits) +
                    (threadIdx.x >> plan.lane_bits);
    const bool exists = index < teams;
    index = min(index, teams - 1);
    const int64_t group = index / dim;
    k.d = index % dim;
    {
        const unit u = unit_of(group, plan.segments);
        const IN *x = row_of<IN>(p.x, u.b, k.d), *dout = row_of<IN>(p.dout, u.b, k.d);
        const int64_t end = u.segment < plan.segments - 1
                                ? (u.segment + 1) * plan.segment * k.lanes * COUNT
                                : length;
#pragma unroll
        for (int i = 1; i <= AHEAD; i++) {
            const int64_t t = end - (i * k.lanes - k.lane) * COUNT;
            prefetch_times(x, length, t);
            prefetch_times(dout, length, t);
        }
    }
    read_taps(k.w, p.weight, k.d);
    k.bias = read_bias(p.bias, k.d);

    sums total = {};
    const int tile_times = k.lanes * COUNT;
    /* As many rounds for all teams of a warp. */
    const int64_t rounds = (units + plan.groups - 1) / plan.groups;
    for (int64_t i = 0; i < rounds; i++) {
        const int64_t index = group + i * plan.groups;
        const bool has_work = exists && index < units;
        const unit u = unit_of(min(index, units - 1), plan.segments);
        const int64_t segment = u.segment;
        k.b = u.b;
        k.x = series_of<IN>(p.x, p.initial_states, width - 1, k.b, k.d, has_work);
        k.dout = series_of<IN>(p.dout, k.b, k.d, has_work);

        if (plan.segments == 1 && index + plan.groups < units) { /* the next row */
            const int64_t t = length - (k.lanes - k.lane) * COUNT;
            prefetch_times(k.x.now + plan.groups * p.x.stride[0], length, t);
            prefetch_times(k.dout.now + plan.groups * p.dout.stride[0], length, t);
        }

        /* Tiles begin where x is aligned, early enough for dinitial_states. */
        const int ahead = misplaced(k.x.now);
        const int64_t origin =
            p.dinitial_states.data && ahead < width - 1 ? -ahead - COUNT : -ahead;
        const int64_t tiles =
            most_of_warp((length - origin + tile_times - 1) / tile_times, k.lanes);
        const int64_t first = segment * plan.segment;
        const int64_t last =
            segment < plan.segments - 1 ? first + plan.segment - 1 : tiles - 1;
        if (p.seq_idx.data)
            differentiate<true>(k, p, origin + first * tile_times,
                                origin + last * tile_times, total);
        else
            differentiate<false>(k, p, origin + first * tile_times,
                                 origin + last * tile_times, total);
    }
#pragma unroll
    for (int j = 0; j <= TAPS; j++)
        for (int i = 1; i < k.lanes; i *= 2)
            total[j] += __shfl_xor_sync(ALL_LANES, total[j], i, k.lanes);
    if (exists && k.lane == 0) {
        float *to =
            static_cast<float *>(p.workspace.data) + group * (width + 1) * dim + k.d;
#pragma unroll
        for (int j = 0; j <= TAPS; j++)
            if (j >= TAPS - width)
                to[(j - (TAPS - width)) * dim] = total[j];
    }
}
