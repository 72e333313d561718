/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_channel.cu - the gradients of the causal convolution, where channels lie side by
 * side, or in any other layout. conv.cuh says what the macros are.
 *
 * With y as in fwd_time.cu and g = dout, or dout times the slope of silu at y:
 *
 *     dx_t = sum over taps of w_{3-k} g_{t+k},  plus dfinal_states from L - W + 1 on,
 *     dw_j = sum over t of g_t x_{t-3+j},       dbias = sum over t of g_t,
 *
 * and dx before time 0 is dinitial_states. A lane takes COUNT channels through units
 * (segments of time). At time t it makes g_t and then dx_{t-3}, so it goes 3 steps
 * beyond its segment. The sums of a block's lanes go to the workspace in an order that
 * depends on shapes only.
 */
#include "channel.cuh"

/* Of a lane's channels; the bias is last. */
typedef float sums[TAPS + 1][COUNT];

/* A lane's channels in one batch row. */
struct place_in {
    int64_t b, d;
};

/* Adds what comes from dfinal_states to dx of time t. */
INLINE void add_final(const mbr_causal_conv1d_bwd_params &p, place_in o, int64_t t,
                      float (&dx)[COUNT]) {
    const int64_t j = t - p.x.shape[2] + p.weight.shape[1] - 1;
    if (!p.dfinal_states.data || j < 0)
        return;
    float more[COUNT];
    lane_data::unpack(more, columns_of(p.dfinal_states, o.b, o.d).at(j));
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        dx[n] += more[n];
}

/* dx of a time before 0. */
INLINE void store_initial(const mbr_causal_conv1d_bwd_params &p, place_in o, int64_t t,
                          const float (&dx)[COUNT]) {
    const int64_t j = t + p.weight.shape[1] - 1;
    if (p.dinitial_states.data && j >= 0)
        columns_of(p.dinitial_states, o.b, o.d).put(j, lane_data::pack(dx));
}

/* A lane on its way through one segment: `steps` from time `from` on. */
template <int ahead> struct walk {
    columns x, dout, dx; /* at the first step; dx 3 before it */
    const int32_t *ids;  /* of the row */
    int64_t from;
    int steps, given; /* how many there are to read */
    int lane;
    step next_x[ahead], next_dout[ahead];
    float x_before[BEFORE][COUNT], g_before[BEFORE][COUNT];
    int id[TAPS];
};

/* Step t, with the i-th of what was loaded. inner: it and the 3 before it lie within
 * the segment, and what is to be loaded within the row. */
template <bool with_ids, bool inner, int ahead>
INLINE void advance(const mbr_causal_conv1d_bwd_params &p, place_in o,
                    const block_taps &all, walk<ahead> &k, int t, int i, sums &total) {
    const counted taps = taps_of((int)p.weight.shape[1]);
    counted c = taps, back = taps; /* tap j of g_t, of dx_{t-3} */
    if (with_ids) {
        k.id[0] = k.id[1], k.id[1] = k.id[2], k.id[2] = k.id[3];
        k.id[3] = id_at(k.ids, p.seq_idx.stride[1], p.x.shape[2], k.from + t);
        c = within_sequence(taps, k.id[0], k.id[1], k.id[2], k.id[3]);
        back = within_sequence(taps, k.id[3], k.id[2], k.id[1], k.id[0]);
    }
    const lane_taps w = all.of(k.lane); /* not kept: registers are short */
    float x_t[COUNT], g_t[COUNT], sum[COUNT];
    lane_data::unpack(x_t, k.next_x[i]);
    lane_data::unpack(g_t, k.next_dout[i]);
    if (inner || t + ahead < k.given) {
        k.next_x[i] = k.x.at(t + ahead);
        k.next_dout[i] = k.dout.at(t + ahead);
    }
    if (p.silu_activation) {
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            g_t[n] *= silu_slope(add_taps(w.bias[n], w.w[0][n], w.w[1][n], w.w[2][n],
                                          w.w[3][n], k.x_before[0][n], k.x_before[1][n],
                                          k.x_before[2][n], x_t[n], c));
    }
    if (!inner && t >= k.given) { /* beyond the end: not 0 times something */
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            g_t[n] = 0.0f;
    } else if (inner || t < k.steps) {
#pragma unroll
        for (int n = 0; n < COUNT; n++) {
#pragma unroll
            for (int j = 0; j < BEFORE; j++)
                if (!with_ids || c.tap[j])
                    total[j][n] = fmaf(g_t[n], k.x_before[j][n], total[j][n]);
            total[BEFORE][n] = fmaf(g_t[n], x_t[n], total[BEFORE][n]);
            total[TAPS][n] += g_t[n];
        }
    }
#pragma unroll
    for (int n = 0; n < COUNT; n++) {
        sum[n] = add_taps(0.0f, w.w[0][n], w.w[1][n], w.w[2][n], w.w[3][n], g_t[n],
                          k.g_before[2][n], k.g_before[1][n], k.g_before[0][n], back);
        k.x_before[0][n] = k.x_before[1][n], k.x_before[1][n] = k.x_before[2][n];
        k.x_before[2][n] = x_t[n];
        k.g_before[0][n] = k.g_before[1][n], k.g_before[1][n] = k.g_before[2][n];
        k.g_before[2][n] = g_t[n];
    }
    if (!inner)
        add_final(p, o, k.from + t - BEFORE, sum);
    if (inner || t >= BEFORE)
        k.dx.put(t, lane_data::pack(sum));
    else if (k.from == 0)
        store_initial(p, o, t - BEFORE, sum);
}

template <bool with_ids>
INLINE void differentiate(const mbr_causal_conv1d_bwd_params &p, place_in o,
                          const block_taps &all, int lane, int64_t from, int steps,
                          sums &total) {
    /* Steps that are loaded before they are used. */
    constexpr int ahead = (with_ids ? 4 : 8) / sizeof(IN);
    const int64_t length = p.x.shape[2];
    const inputs x = {columns_of(p.x, o.b, o.d), columns_of(p.initial_states, o.b, o.d),
                      length, (int)p.weight.shape[1] - 1};
    walk<ahead> k = {x.now, columns_of(p.dout, o.b, o.d), columns_of(p.dx, o.b, o.d)};
    k.ids = ids_of(p.seq_idx, o.b);
    k.from = from;
    k.steps = steps;
    k.given = (int)min(length - from, (int64_t)steps + BEFORE);
    k.lane = lane;
    k.x.data += from * k.x.stride;
    k.dout.data += from * k.dout.stride;
    k.dx.data += (from - BEFORE) * k.dx.stride;
#pragma unroll
    for (int i = 0; i < ahead; i++)
        if (i < k.given) {
            k.next_x[i] = k.x.at(i);
            k.next_dout[i] = k.dout.at(i);
        }
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        lane_data::unpack(k.x_before[j], x.at(from - BEFORE + j));
        if (with_ids)
            k.id[j + 1] = id_at(k.ids, p.seq_idx.stride[1], length, from - BEFORE + j);
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            k.g_before[j][n] = 0.0f;
    }

    const int inner_end = min(steps, k.given - TAPS) - 2 * ahead;
#pragma unroll 1
    for (int start = 0; start < steps + BEFORE; start += ahead) {
        if (start >= BEFORE && start <= inner_end) {
#pragma unroll
            for (int i = 0; i < ahead; i++)
                advance<with_ids, true>(p, o, all, k, start + i, i, total);
        } else {
#pragma unroll
            for (int i = 0; i < ahead; i++)
                if (start + i < steps + BEFORE)
                    advance<with_ids, false>(p, o, all, k, start + i, i, total);
        }
    }
}

/* The block's lanes of the same channels, added up in order, to the workspace. */
INLINE void store_sums(const conv_backward &f, float *shared, const sums &total,
                       int64_t span, int64_t group, int lane, int team, int teams) {
    const int width = (int)f.p.weight.shape[1], lanes = CONV_THREADS / teams;
    const int channels = lanes * COUNT, absent = TAPS - width;
    const int64_t dim = f.p.x.shape[1];
    for (int j = absent; j <= TAPS; j++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i <= TAPS; i++) {
            if (i != j)
                continue;
#pragma unroll
            for (int n = 0; n < COUNT; n++)
                shared[team * channels + lane * COUNT + n] = total[i][n];
        }
        __syncthreads();
        for (int c = threadIdx.x; c < channels && span + c < dim; c += CONV_THREADS) {
            float sum = 0.0f;
            for (int i = 0; i < teams; i++)
                sum += shared[i * channels + c];
            static_cast<float *>(
                f.p.workspace
                    .data)[(group * (width + 1) + j - absent) * dim + span + c] = sum;
        }
    }
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_backward f) {
    __shared__ block_taps all;
    __shared__ float shared[CONV_THREADS * COUNT];
    const mbr_causal_conv1d_bwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const int lane = threadIdx.x & ((1 << plan.lane_bits) - 1);
    const int team = threadIdx.x >> plan.lane_bits;
    const int teams = CONV_THREADS >> plan.lane_bits;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];
    const int64_t units = p.x.shape[0] * plan.segments;

    const int64_t block = blockIdx.x;
    const int64_t span = (block % plan.spans << plan.lane_bits) * COUNT;
    const int64_t group = block / plan.spans;
    const int64_t d = span + lane * COUNT;
    all.load(p.weight, p.bias, span, COUNT << plan.lane_bits);
    __syncthreads();
    sums total = {};
    for (int64_t unit = group * teams + team; unit < units && d < dim;
         unit += plan.groups * teams) {
        const int64_t b = unit / plan.segments;
        const int64_t from = unit % plan.segments * plan.segment;
        const int steps = (int)min(length - from, plan.segment);
        if (p.seq_idx.data)
            differentiate<true>(p, {b, d}, all, lane, from, steps, total);
        else
            differentiate<false>(p, {b, d}, all, lane, from, steps, total);
    }
    store_sums(f, shared, total, span, group, lane, team, teams);
}
