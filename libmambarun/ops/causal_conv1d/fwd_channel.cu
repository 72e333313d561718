/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_channel.cu - the causal convolution, forward, where channels lie side by side, or
 * in any other layout. conv.cuh says what the macros are, fwd_time.cu the formula.
 *
 * A lane takes COUNT channels through one segment of time, with the inputs it still
 * needs in registers. Its loads are a few steps ahead. out may lie over x, if the row
 * is one segment.
 */
#include "channel.cuh"

/* The last inputs, bit for bit, in rising order: final may be the memory of the
 * history, which the lane has read by now. */
INLINE void copy_final(const inputs &x, const columns &final) {
    for (int j = 0; j < x.kept; j++)
        final.put(j, x.at(x.length - x.kept + j));
}

/* One segment: `steps` of x and out, of which the first is at time from. */
template <bool with_ids>
INLINE void convolve(const conv_forward &f, const inputs &x, const columns &out,
                     const columns &final, const lane_taps &w, const int32_t *ids,
                     int64_t from, int steps) {
    constexpr int AHEAD =
        with_ids ? 2 : 4; /* steps that are loaded before they are used */
    const counted taps = taps_of(x.kept + 1);
    float before[BEFORE][COUNT];
    int id_before[BEFORE];
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        lane_data::unpack(before[j], x.at(from - BEFORE + j));
        if (with_ids)
            id_before[j] =
                id_at(ids, f.p.seq_idx.stride[1], x.length, from - BEFORE + j);
    }
    const columns own = {x.now.data + from * x.now.stride, x.now.stride};
    const columns to = {out.data + from * out.stride, out.stride};
    const int32_t *own_ids = ids + from * f.p.seq_idx.stride[1];
    step next[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        if (i < steps)
            next[i] = own.at(i);
    if (final.data && from == 0)
        copy_final(x, final);

#pragma unroll 1
    for (int start = 0; start < steps; start += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int t = start + i;
            if (t >= steps)
                break;
            counted c = taps;
            int id = 0;
            if (with_ids) {
                id = own_ids[t * f.p.seq_idx.stride[1]];
                c = within_sequence(c, id_before[0], id_before[1], id_before[2], id);
                id_before[0] = id_before[1], id_before[1] = id_before[2];
                id_before[2] = id;
            }
            float x_t[COUNT], y[COUNT];
            lane_data::unpack(x_t, next[i]);
            if (t + AHEAD < steps)
                next[i] = own.at(t + AHEAD);
#pragma unroll
            for (int n = 0; n < COUNT; n++) {
                y[n] = add_taps(w.bias[n], w.w[0][n], w.w[1][n], w.w[2][n], w.w[3][n],
                                before[0][n], before[1][n], before[2][n], x_t[n], c);
                before[0][n] = before[1][n], before[1][n] = before[2][n];
                before[2][n] = x_t[n];
            }
            if (f.p.silu_activation) {
#pragma unroll
                for (int n = 0; n < COUNT; n++)
                    y[n] = silu(y[n]);
            }
            if (with_ids && id < 0) { /* padding gives 0, without bias and gate */
#pragma unroll
                for (int n = 0; n < COUNT; n++)
                    y[n] = 0.0f;
            }
            to.put(t, lane_data::pack(y));
        }
    }
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_forward f) {
    __shared__ block_taps all;
    const mbr_causal_conv1d_fwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const int lane = threadIdx.x & ((1 << plan.lane_bits) - 1);
    const int team = threadIdx.x >> plan.lane_bits;
    const int teams = CONV_THREADS >> plan.lane_bits;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];
    const int64_t units = p.x.shape[0] * plan.segments;
    const int kept = (int)p.weight.shape[1] - 1;

    const int64_t block = blockIdx.x;
    const int64_t span = (block % plan.spans << plan.lane_bits) * COUNT;
    const int64_t unit = block / plan.spans * teams + team;
    const int64_t d = span + lane * COUNT;
    all.load(p.weight, p.bias, span, COUNT << plan.lane_bits);
    __syncthreads();
    if (unit >= units || d >= dim)
        return;
    const int64_t b = unit / plan.segments;
    const int64_t from = unit % plan.segments * plan.segment;
    const int steps = (int)min(length - from, plan.segment);
    const lane_taps w = all.of(lane);
    const inputs x = {columns_of(p.x, b, d), columns_of(p.initial_states, b, d), length,
                      kept};
    const columns out = columns_of(p.out, b, d),
                  final = columns_of(p.final_states_out, b, d);
    const int32_t *ids = ids_of(p.seq_idx, b);
    if (p.seq_idx.data)
        convolve<true>(f, x, out, final, w, ids, from, steps);
    else
        convolve<false>(f, x, out, final, w, ids, from, steps);
}
