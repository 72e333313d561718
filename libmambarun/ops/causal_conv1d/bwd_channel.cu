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

constexpr bool SCOUTS = IDS != 2; /* channels lie side by side */
constexpr int LOOK_AHEAD = 12;    /* steps that are asked for in time */

/* Of a lane's channels; the bias is last. */
typedef float sums[TAPS + 1][COUNT];

/* A lane on its way through one segment. */
struct walk {
    cursor<char> x, dout; /* at what is to be loaded next */
    cursor<const int32_t> ids;
    cursor<char> dx; /* 3 steps before the step */
    dtype type;
    int steps, given; /* of the segment; how many there are to read */
    step next_x[AHEAD], next_dout[AHEAD];
    int next_id[AHEAD];
    float old_x[BEFORE][COUNT], old_g[BEFORE][COUNT]; /* of the 3 steps before */
    int id[BEFORE];
    scout x_scout, dout_scout;
    int asked, round; /* steps that they have asked for; of a round */
    sums total;
};

INLINE void ask(walk &k) {
    k.x_scout.ask(k.asked, k.given);
    k.dout_scout.ask(k.asked, k.given);
    k.asked += k.round;
}

INLINE void load_next(walk &k, int i, bool exists, bool with_ids) {
    k.next_id[i] = -1;
    if (exists) {
        k.next_x[i] = lane_data::load(k.x.at, k.type);
        k.next_dout[i] = lane_data::load(k.dout.at, k.type);
        if (with_ids)
            k.next_id[i] = *k.ids.at;
    }
    k.x.advance();
    k.dout.advance();
    k.ids.advance();
}

/* What comes before the segment, and its first steps. */
INLINE void begin(walk &k, const inputs &x, int64_t from, bool with_ids) {
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        const int back = j - BEFORE;
        lane_data::unpack(k.old_x[j], from > 0 ? x.now.at(from + back) : x.at(back),
                          k.type);
        k.id[j] = with_ids && from > 0 ? k.ids.at[back * k.ids.step] : -1;
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            k.old_g[j][n] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load_next(k, i, i < k.given, with_ids);
}

INLINE float slope(const lane_taps &w, int n, float x0, float x1, float x2, float x3,
                   const counted &c) {
    return silu_slope(add_taps(w.bias[n], w.w[0][n], w.w[1][n], w.w[2][n], w.w[3][n],
                               x0, x1, x2, x3, c));
}

/* The terms of AHEAD steps, added up before they come to the others: so long sums stay
 * exact. */
INLINE void add_sums(sums &total, const float (&x)[BEFORE + AHEAD][COUNT],
                     const float (&g)[BEFORE + AHEAD][COUNT],
                     const int (&id)[BEFORE + AHEAD], const counted &taps,
                     bool with_ids) {
#pragma unroll
    for (int n = 0; n < COUNT; n++) {
        sums own = {};
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            counted c = taps;
            if (with_ids)
                c = within_sequence(taps, id[i], id[i + 1], id[i + 2], id[i + 3]);
#pragma unroll
            for (int j = 0; j < TAPS; j++)
                if (!with_ids || j == BEFORE || c.tap[j])
                    own[j][n] = fmaf(g[BEFORE + i][n], x[i + j][n], own[j][n]);
            own[TAPS][n] += g[BEFORE + i][n];
        }
#pragma unroll
        for (int j = 0; j <= TAPS; j++)
            total[j][n] += own[j][n];
    }
}

/* AHEAD steps of the segment from t on: g of each, and dx of that 3 before it. */
INLINE void differentiate_inner(walk &k, const lane_taps &w, const counted &taps,
                                bool with_silu, bool with_ids, int t) {
    float x[BEFORE + AHEAD][COUNT], g[BEFORE + AHEAD][COUNT];
    int id[BEFORE + AHEAD];
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        id[j] = k.id[j];
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            x[j][n] = k.old_x[j][n], g[j][n] = k.old_g[j][n];
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        lane_data::unpack(x[BEFORE + i], k.next_x[i], k.type);
        lane_data::unpack(g[BEFORE + i], k.next_dout[i], k.type);
        id[BEFORE + i] = k.next_id[i];
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load_next(k, i, t + AHEAD + i < k.given, with_ids);
    if (with_silu) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            counted c = taps;
            if (with_ids)
                c = within_sequence(taps, id[i], id[i + 1], id[i + 2], id[i + 3]);
#pragma unroll
            for (int n = 0; n < COUNT; n++)
                g[BEFORE + i][n] *=
                    slope(w, n, x[i][n], x[i + 1][n], x[i + 2][n], x[i + 3][n], c);
        }
    }
    add_sums(k.total, x, g, id, taps, with_ids);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        counted back = taps; /* tap j of dx_{t-3} */
        if (with_ids)
            back = within_sequence(taps, id[i + 3], id[i + 2], id[i + 1], id[i]);
        float dx[COUNT];
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            dx[n] = add_taps(0.0f, w.w[0][n], w.w[1][n], w.w[2][n], w.w[3][n],
                             g[i + 3][n], g[i + 2][n], g[i + 1][n], g[i][n], back);
        if (t + i >= BEFORE)
            lane_data::store(k.dx.at, lane_data::pack(dx, k.type), k.type);
        k.dx.advance();
    }
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        k.id[j] = id[AHEAD + j];
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            k.old_x[j][n] = x[AHEAD + j][n], k.old_g[j][n] = g[AHEAD + j][n];
    }
}

/* Any step: its g, and dx of the one 3 before. */
INLINE void differentiate(walk &k, const lane_taps &w, const counted &taps,
                          bool with_silu, bool with_ids, int t, const step &x_t,
                          const step &dout_t, int id_t, float (&dx)[COUNT]) {
    float x[COUNT], g[COUNT];
    lane_data::unpack(x, x_t, k.type);
    lane_data::unpack(g, dout_t, k.type);
    counted c = taps, back = taps;
    if (with_ids) {
        c = within_sequence(taps, k.id[0], k.id[1], k.id[2], id_t);
        back = within_sequence(taps, id_t, k.id[2], k.id[1], k.id[0]);
        k.id[0] = k.id[1], k.id[1] = k.id[2], k.id[2] = id_t;
    }
#pragma unroll
    for (int n = 0; n < COUNT; n++) {
        if (with_silu)
            g[n] *= slope(w, n, k.old_x[0][n], k.old_x[1][n], k.old_x[2][n], x[n], c);
        if (t >= k.given) { /* beyond the end: not 0 times something */
            g[n] = 0.0f;
        } else if (t < k.steps) {
#pragma unroll
            for (int j = 0; j < BEFORE; j++)
                if (!with_ids || c.tap[j])
                    k.total[j][n] = fmaf(g[n], k.old_x[j][n], k.total[j][n]);
            k.total[BEFORE][n] = fmaf(g[n], x[n], k.total[BEFORE][n]);
            k.total[TAPS][n] += g[n];
        }
        dx[n] = add_taps(0.0f, w.w[0][n], w.w[1][n], w.w[2][n], w.w[3][n], g[n],
                         k.old_g[2][n], k.old_g[1][n], k.old_g[0][n], back);
        k.old_x[0][n] = k.old_x[1][n], k.old_x[1][n] = k.old_x[2][n];
        k.old_x[2][n] = x[n];
        k.old_g[0][n] = k.old_g[1][n], k.old_g[1][n] = k.old_g[2][n];
        k.old_g[2][n] = g[n];
    }
}

/* dx of time t of a row: with dfinal_states; before time 0 it is dinitial_states. */
INLINE void finish(const mbr_causal_conv1d_bwd_params &p, int64_t b, int64_t d,
                   int64_t t, float (&dx)[COUNT], char *to) {
    const dtype type = dtype_of(p.x);
    const int64_t kept = p.weight.shape[1] - 1, j = t - p.x.shape[2] + kept;
    if (p.dfinal_states.data && j >= 0) {
        float more[COUNT];
        lane_data::unpack(more, columns_of(p.dfinal_states, b, d).at(j), type);
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            dx[n] += more[n];
    }
    if (t >= 0)
        lane_data::store(to, lane_data::pack(dx, type), type);
    else if (p.dinitial_states.data && t + kept >= 0)
        columns_of(p.dinitial_states, b, d).put(t + kept, lane_data::pack(dx, type));
}

INLINE void go(walk &k, const mbr_causal_conv1d_bwd_params &p, const lane_taps &w,
               int64_t b, int64_t d, int64_t from) {
    const counted taps = taps_of((int)p.weight.shape[1]);
    const bool with_ids = has_ids(p.seq_idx);
    /* What only the ends of a row have is left to single steps. */
    const int inner = p.dinitial_states.data && from == 0 ? BEFORE : 0;
#pragma unroll 1
    for (int t = 0; t < k.steps + BEFORE;) {
        if (SCOUTS && t + LOOK_AHEAD >= k.asked)
            ask(k);
        if (t >= inner && t + AHEAD <= k.steps) {
            differentiate_inner(k, w, taps, p.silu_activation, with_ids, t);
            t += AHEAD;
        } else {
            const step x = k.next_x[0], dout = k.next_dout[0];
            const int id = k.next_id[0];
#pragma unroll
            for (int i = 1; i < AHEAD; i++) {
                k.next_x[i - 1] = k.next_x[i], k.next_dout[i - 1] = k.next_dout[i];
                k.next_id[i - 1] = k.next_id[i];
            }
            load_next(k, AHEAD - 1, t + AHEAD < k.given, with_ids);
            float dx[COUNT];
            differentiate(k, w, taps, p.silu_activation, with_ids, t, x, dout, id, dx);
            if (t >= BEFORE || from == 0)
                finish(p, b, d, from + t - BEFORE, dx, k.dx.at);
            k.dx.advance();
            t++;
        }
    }
}

/* The block's lanes of the same channels, added up in order. */
INLINE void add_teams(const conv_backward &f, float *shared, const sums &total,
                      int64_t span, int64_t group) {
    const int bits = f.plan.lane_bits + COUNT_BITS, channels = 1 << bits;
    const int width = (int)f.p.weight.shape[1], absent = TAPS - width;
#pragma unroll
    for (int j = 0; j <= TAPS; j++)
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            shared[(j * CONV_THREADS + threadIdx.x) * COUNT + n] = total[j][n];
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < (width + 1) << bits; i += CONV_THREADS) {
        const int k = i >> bits, c = i & (channels - 1);
        const float *from = shared + (k + absent) * CONV_THREADS * COUNT + c;
        float sum = 0.0f;
#pragma unroll 1
        for (int at = 0; at < CONV_THREADS * COUNT; at += channels)
            sum += from[at];
        if (span + c < f.p.x.shape[1])
            finish_sum(f, group, span + c, k, sum);
    }
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_backward f) {
    __shared__ block_taps all;
    __shared__ float shared[(TAPS + 1) * CONV_THREADS * COUNT];
    const mbr_causal_conv1d_bwd_params &p = f.p;
    const conv_plan &plan = f.plan;
    const int lane = threadIdx.x & ((1 << plan.lane_bits) - 1);
    const int team = threadIdx.x >> plan.lane_bits;
    const int teams = CONV_THREADS >> plan.lane_bits;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];

    const uint32_t group = plan.by_spans.of(blockIdx.x);
    const int64_t span = (int64_t)(blockIdx.x - group * plan.spans) * COUNT
                         << plan.lane_bits;
    const int64_t d = span + lane * COUNT;
    all.load(p.weight, p.bias, span, plan.lane_bits + COUNT_BITS);
    __syncthreads();
    const lane_taps w = all.of(lane);
    walk k;
    k.type = dtype_of(p.x);
#pragma unroll
    for (int j = 0; j <= TAPS; j++)
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            k.total[j][n] = 0.0f;
#pragma unroll 1
    for (uint32_t unit = group * teams + team; unit < plan.units && d < dim;
         unit += plan.groups * teams) {
        const uint32_t b = plan.by_segments.of(unit);
        const int64_t from = (int64_t)(unit - b * plan.segments) * plan.segment;
        const inputs x = {columns_of(p.x, b, d), columns_of(p.initial_states, b, d),
                          length, (int)p.weight.shape[1] - 1};
        k.steps = (int)min(length - from, (int64_t)plan.segment);
        k.given = (int)min(length - from, (int64_t)plan.segment + BEFORE);
        k.x = from_time(x.now, from);
        k.dout = from_time(columns_of(p.dout, b, d), from);
        k.dx = from_time(columns_of(p.dx, b, d), from - BEFORE);
        k.ids = from_time(p.seq_idx, b, from);
        if (SCOUTS) {
            k.x_scout = scout_of(k.x, plan.lane_bits, lane, dim - d, k.type);
            k.dout_scout = scout_of(k.dout, plan.lane_bits, lane, dim - d, k.type);
            k.asked = 0;
            k.round = steps_of_round(plan.lane_bits, k.type);
            ask(k);
            ask(k);
        }
        begin(k, x, from, has_ids(p.seq_idx));
        go(k, p, w, b, d, from);
    }
    add_teams(f, shared, k.total, span, group);
}
