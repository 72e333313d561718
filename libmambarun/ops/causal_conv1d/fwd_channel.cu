/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_channel.cu - the causal convolution, forward, where channels lie side by side, or
 * in any other layout. conv.cuh says what the macros are, fwd_time.cu the formula.
 *
 * A lane takes COUNT channels through one segment of time, with the inputs it still
 * needs in registers. Its loads are AHEAD steps ahead. out may lie over x, if the row
 * is one segment.
 */
#include "channel.cuh"

/* A lane on its way through one segment. */
struct walk {
    cursor<char> x; /* at what is to be loaded next */
    cursor<char> out;
    cursor<const int32_t> ids;
    dtype type;
    int steps;
    step next[AHEAD];
    int next_id[AHEAD];
    float before[BEFORE][COUNT];
    int id_before[BEFORE];
};

/* Step t, which is the i-th that is on its way. */
INLINE void load_next(walk &k, int i, int t, bool with_ids) {
    if (t < k.steps) {
        k.next[i] = lane_data::load(k.x.at, k.type);
        if (with_ids)
            k.next_id[i] = *k.ids.at;
    }
    k.x.advance();
    k.ids.advance();
}

/* What comes before the segment, and its first steps. */
INLINE void begin(walk &k, const inputs &x, int64_t from, bool with_ids) {
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        const int back = j - BEFORE;
        lane_data::unpack(k.before[j], from > 0 ? x.now.at(from + back) : x.at(back),
                          k.type);
        k.id_before[j] = with_ids && from > 0 ? k.ids.at[back * k.ids.step] : -1;
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load_next(k, i, i, with_ids);
}

INLINE void convolve(walk &k, const lane_taps &w, const counted &taps, bool with_silu,
                     bool with_ids) {
#pragma unroll 1
    for (int start = 0; start < k.steps; start += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int t = start + i, id = k.next_id[i];
            float now[COUNT], y[COUNT];
            lane_data::unpack(now, k.next[i], k.type);
            load_next(k, i, t + AHEAD, with_ids);
            counted c = taps;
            if (with_ids)
                c = within_sequence(c, k.id_before[0], k.id_before[1], k.id_before[2],
                                    id);
#pragma unroll
            for (int n = 0; n < COUNT; n++) {
                y[n] =
                    add_taps(w.bias[n], w.w[0][n], w.w[1][n], w.w[2][n], w.w[3][n],
                             k.before[0][n], k.before[1][n], k.before[2][n], now[n], c);
                k.before[0][n] = k.before[1][n], k.before[1][n] = k.before[2][n];
                k.before[2][n] = now[n];
            }
#pragma unroll
            for (int n = 0; n < COUNT; n++) { /* no branch: steps may overlap */
                const float gate = sigmoid(y[n]);
                y[n] *= with_silu ? gate : 1.0f;
            }
            if (with_ids) {
                k.id_before[0] = k.id_before[1], k.id_before[1] = k.id_before[2];
                k.id_before[2] = id;
                if (id < 0) { /* padding gives 0, without bias and gate */
#pragma unroll
                    for (int n = 0; n < COUNT; n++)
                        y[n] = 0.0f;
                }
            }
            if (t < k.steps)
                lane_data::store(k.out.at, lane_data::pack(y, k.type), k.type);
            k.out.advance();
        }
    }
}

/* The last inputs, bit for bit, in rising order: final may be the memory of the
 * history, which the lane has read by now. */
INLINE void copy_final(const inputs &x, const columns &final) {
#pragma unroll 1
    for (int j = 0; j < x.kept; j++)
        final.put(j, x.at(x.length - x.kept + j));
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

    const uint32_t row = plan.by_spans.of(blockIdx.x);
    const int64_t span = (int64_t)(blockIdx.x - row * plan.spans) * COUNT
                         << plan.lane_bits;
    const int64_t d = span + lane * COUNT;
    const uint32_t unit = row * teams + team;
    const bool exists = unit < plan.units && d < dim;
    const uint32_t b = plan.by_segments.of(unit);
    const int64_t from = (int64_t)(unit - b * plan.segments) * plan.segment;
    const inputs x = {columns_of(p.x, b, d), columns_of(p.initial_states, b, d), length,
                      (int)p.weight.shape[1] - 1};
    walk k;
    k.x = from_time(x.now, from);
    k.out = from_time(columns_of(p.out, b, d), from);
    k.ids = from_time(p.seq_idx, b, from);
    k.type = dtype_of(p.x);
    k.steps = exists ? (int)min(length - from, (int64_t)plan.segment) : 0;
    if (exists)
        begin(k, x, from, has_ids(p.seq_idx));
    all.load(p.weight, p.bias, span, plan.lane_bits + COUNT_BITS);
    __syncthreads();
    if (!exists)
        return;
    if (p.final_states_out.data && from == 0)
        copy_final(x, columns_of(p.final_states_out, b, d));
    const lane_taps w = all.of(lane);
    const counted taps = taps_of((int)p.weight.shape[1]);
    convolve(k, w, taps, p.silu_activation, has_ids(p.seq_idx));
}
