/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_row.cu - the gradients of the causal convolution, where times lie side by side
 * and all runs of x, dout and dx begin at aligned places and exist as a whole. conv.cuh
 * says what the macros are, bwd_channel.cu the formulas.
 *
 * A block goes through segments of one channel, one batch row after the other, in tiles
 * of as many runs as it has lanes, from a segment's last tile to its first. A lane
 * loads its next run before it works on the one it has. Of what it lacks it reads the 3
 * inputs again, and gets the 3 g from the lane after it: by shuffles, between warps
 * through shared memory, and at the tile's end from the tile that was before.
 */
#include "time.cuh"

constexpr int WARPS = CONV_ROW_THREADS / 32;

/* Channel d of batch row 0, from the lane's first run on. */
struct rows {
    const IN *x, *dout;
    IN *dx;
};

/* A tile that the block comes to. */
struct stop {
    uint32_t unit, b;
    int t, tiles; /* its time; tiles from the segment's first to this one */
};

/* The last tile of a unit. */
INLINE stop enter(const conv_plan &plan, uint32_t unit) {
    const int tile = blockDim.x * COUNT;
    const uint32_t b = plan.by_segments.of(unit), segment = unit - b * plan.segments;
    const int tiles = (int)(segment == plan.segments - 1 ? plan.rest : plan.segment);
    return {unit, b, ((int)(segment * plan.segment) + tiles - 1) * tile, tiles};
}

INLINE bool exists(const conv_backward &f, const stop &at) {
    return at.t + (int)threadIdx.x * COUNT < (int)f.p.x.shape[2];
}

INLINE void load(given &to, const conv_backward &f, const rows &r, const stop &at) {
    if (!exists(f, at))
        return;
    const IN *x = r.x + (at.b * f.p.x.stride[0] + at.t);
    to.x = load_vector<IN, COUNT>(x);
    to.dout = load_vector<IN, COUNT>(r.dout + (at.b * f.p.dout.stride[0] + at.t));
    to.before = {};
    if (at.t + threadIdx.x > 0)
        to.before = load_vector<IN, TAPS>(x - TAPS);
}

extern "C" __global__ void __launch_bounds__(CONV_ROW_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_backward f) {
    /* g that the warps of a tile begin with, and behind the last one what comes after
     * the tile; of two tiles, by turns. */
    __shared__ float first_g[2][WARPS + 1][BEFORE];
    const conv_plan &plan = f.plan;
    const int64_t length = f.p.x.shape[2];
    const uint32_t group = plan.by_dim.of(blockIdx.x);
    const uint32_t d = blockIdx.x - group * (uint32_t)f.p.x.shape[1];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const bool silu = f.p.silu_activation;
    const counted width = taps_of((int)f.p.weight.shape[1]);
    const int own_run = threadIdx.x * COUNT;
    const rows r = {row_of<IN>(f.p.x, 0, d) + own_run,
                    row_of<IN>(f.p.dout, 0, d) + own_run,
                    row_of<IN>(f.p.dx, 0, d) + own_run};
    sums total = {};
    taps own;
    given next;
    /* What comes before the first unit; the loop loads, then works. */
    stop next_at = {group - plan.groups, 0, 0, 1};
    int turn = -1;
#pragma unroll 1
    for (bool more = true; more;) {
        const stop at = next_at;
        float x[BEFORE + COUNT], g[COUNT + BEFORE];
        unpack(next, x, g);
        if (at.tiles > 1) {
            next_at.t -= blockDim.x * COUNT;
            next_at.tiles--;
        } else {
            more = at.unit + plan.groups < plan.units;
            if (more)
                next_at = enter(plan, at.unit + plan.groups);
        }
        if (more)
            load(next, f, r, next_at);
        if (turn < 0) {
            own = read_team_taps(f.p.weight, f.p.bias, d, lane, 32);
            turn = 0;
        } else {
            if (exists(f, at)) {
                differentiate(own, width, silu, x, {0, COUNT}, g, total);
            } else {
#pragma unroll
                for (int i = 0; i < COUNT; i++)
                    g[i] = 0.0f;
            }
            if (lane == 0)
#pragma unroll
                for (int j = 0; j < BEFORE; j++)
                    first_g[turn][warp][j] = g[j];
            __syncthreads();
#pragma unroll
            for (int j = 0; j < BEFORE; j++) {
                g[COUNT + j] = __shfl_down_sync(ALL_LANES, g[j], 1);
                if (lane == 31)
                    g[COUNT + j] = first_g[turn][warp + 1][j];
            }
            turn ^= 1;
            if (threadIdx.x == 0 && at.tiles > 1)
#pragma unroll
                for (int j = 0; j < BEFORE; j++)
                    first_g[turn][warps][j] = g[j];
            if (exists(f, at)) {
                float dx[COUNT];
                transpose(own, width, g, dx);
                store_vector(r.dx + (at.b * f.p.dx.stride[0] + at.t), pack_run<IN>(dx));
            }
        }
        if (at.tiles == 1 && more && threadIdx.x < BEFORE) {
            const int64_t end = next_at.t + blockDim.x * COUNT; /* of the segment */
            float later = 0.0f;
            if (end < length) {
                const int64_t on = end - own_run + threadIdx.x;
                later =
                    find_g(own, width, silu, r.x + (next_at.b * f.p.x.stride[0] + on),
                           r.dout + (next_at.b * f.p.dout.stride[0] + on));
            }
            first_g[turn][warps][threadIdx.x] = later;
        }
    }
    finish_sums<WARPS>(f, group, d, total);
}
