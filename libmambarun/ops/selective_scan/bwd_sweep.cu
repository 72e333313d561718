/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_sweep.cu - before the backward scan: the state before every tile. A row of
 * instances.def chooses
 *     IN       type of u, delta and variable B; half: f16 or bf16, as u says
 *     LANES    lanes that share a channel      STEPS   positions in each of them
 *     STATES   states whose B is staged at once
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *     COMPLEX  defined if A is complex
 * LANES STEPS is that of the kernel of bwd.cu which reads the states.
 *
 * A team takes one chunk of a channel, whose first state is zero or stands in x, so
 * that all chunks go at once. A constant B stays out of the state, as in x. If
 * f.atomic, the partial sums are set to 0 on the side.
 */
#include "turns.cuh"

INLINE value as_value(float x) {
#ifdef COMPLEX
    return {x, 0.0f};
#else
    return x;
#endif
}

/* `count` states over a tile, from those at `entry` to those `states` further, B being
 * variable or not. odd, bits: row 0 of B begins inside a word; unlike it, row 1 does.
 */
template <bool variable>
INLINE void advance(const float (&dt)[STEPS], const float (&du)[STEPS], float sum,
                    const value *A, int64_t A_stride, const state_tiles &B, int odd,
                    bool in_f16, value *entry, int states, int count, bool exists,
                    int lane) {
#pragma unroll 1
    for (int n = 0; n < count; n++, A += A_stride, entry++) {
        const value rate = rate_of(*A), carry = *entry;
        value Bn[STEPS], h;
        if (variable) {
            run<IN, STEPS * PARTS> words = words_of<IN>(B, n, lane);
            if (HALF && odd) {
                if ((odd ^ (odd >> 1 & rarely(n))) & 1)
                    shift_state(words, B, n, lane);
            }
            take_words(Bn, words, in_f16);
        }
        const auto in = [&](int i) {
            return variable ? du[i] * Bn[i] : as_value(du[i]);
        };
        const auto step = [&](value before, int i) {
            return multiply_add(decay(dt[i], rate), before, in(i));
        };
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            if (i > 0)
                h = step(h, i);
            else if (lane == 0)
                h = step(carry, 0);
            else
                h = in(0);
        }
        value product = decay(sum, rate);
        if (must_take_turns(product)) {
            h = carry;
#pragma unroll 1
            for (int k = 0; k < LANES; k++) {
                const value before = lane_before<LANES>(h, carry);
                if (lane != k)
                    continue;
                h = before;
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    h = step(h, i);
            }
        } else {
            scan_lanes<LANES>(product, h);
        }
        if (lane == LANES - 1 && exists)
            entry[states] = h;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    __shared__ state_tiles B_tiles[2];
    __shared__ team_runs runs[2]; /* of u, delta */
    __shared__ const char *row_of[BACK_ROWS][THREADS / LANES];
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int states = (int)p.A.shape[1], last_stage = (states - 1) / STATES * STATES;

    const int64_t block = f.first_block + blockIdx.x;
    const int64_t of_chunk = block / f.chunks, chunk = block - of_chunk * f.chunks;
    const int64_t of_group = of_chunk / f.sweep_blocks;
    const int64_t b = of_group / f.groups, g = of_group - b * f.groups;
    const int64_t in_group =
        (of_chunk - of_group * f.sweep_blocks) * (blockDim.x / LANES) + team;
    /* A team without a channel works on the group's last one and stores nothing. */
    const bool exists = in_group < f.width;
    const int64_t d = g * f.width + (exists ? in_group : f.width - 1);
    const int64_t row = b * p.u.shape[1] + d, row_of_delta = d / f.repeat;
#pragma unroll 1
    for (int i = lane; i < BACK_ROWS; i += LANES) {
        const int64_t n = i == BACK_B ? g : i == BACK_DELTA ? row_of_delta : d;
        row_of[i][team] = f.rows[i].data + b * f.rows[i].batch + n * f.rows[i].channel;
    }
    __syncwarp();
    const auto pointer = [&](int which) {
        return reinterpret_cast<const IN *>(row_of[which][team]);
    };
    const auto is_odd_row = [&](int which) {
        return f.rows[which].how == IN_WORDS && is_odd(pointer(which));
    };
    const float bias =
        p.delta_bias.data
            ? static_cast<const float *>(
                  p.delta_bias.data)[row_of_delta * p.delta_bias.stride[0]]
            : 0.0f;
    const value *A = static_cast<const value *>(p.A.data) + d * p.A.stride[0];
    const int from = (int)(chunk * (CHUNK / TILE));
    const int to = (int)min(f.tiles, (int64_t)from + CHUNK / TILE) - 1; /* no further */
    value *entry = reinterpret_cast<value *>(f.entry) + (row * f.tiles + from) * states;
    const int odd = is_odd_row(BACK_B) | alternates(f.rows[BACK_B]) << 1;

    if (f.atomic) {
        const int64_t quads = f.slices * p.u.shape[0] * f.groups * f.tiles * states *
                              (2 * TILE * PARTS / 4);
#pragma unroll 1
        for (int64_t i = block * blockDim.x + threadIdx.x; i < quads;
             i += p.u.shape[0] * f.groups * f.sweep_blocks * f.chunks * blockDim.x)
            reinterpret_cast<float4 *>(f.partial)[i] =
                make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    if (from >= to && f.tiles == 1)
        return;
    {
        const value *x = static_cast<const value *>(p.x.data) +
                         (row * f.chunks + chunk - 1) * 2 * states;
#pragma unroll 1
        for (int n = lane; n < states && exists; n += LANES)
            entry[n] = chunk > 0 ? x[2 * n + 1] : as_value(0.0f);
        __syncwarp();
    }

    int buffer = 0;
    int tile = from - 1;  /* a pass before the first tile begins to fetch it */
    asm("" : "+r"(tile)); /* else that pass gets code of its own */
#pragma unroll 1
    for (; tile < to; tile++) {
        const bool is_tile = tile >= from;
        float dt[STEPS], du[STEPS], sum = 0.0f;
#pragma unroll 1
        for (int n = is_tile ? 0 : last_stage; n < states; n += STATES) {
            const int next = n == last_stage ? tile + 1 : tile;
            copies_wait();
            __syncthreads(); /* this stage is there, and the buffer of the last free */
            if (is_tile && n == 0) {
                take_run(du, runs[BACK_U], is_odd_row(BACK_U), is_f16(p), lane);
                take_run(dt, runs[BACK_DELTA], is_odd_row(BACK_DELTA), is_f16(p), lane);
                __syncwarp(); /* a team's lanes copy for each other */
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    dt[i] += bias;
                if (p.delta_softplus) {
#pragma unroll
                    for (int i = 0; i < STEPS; i++)
                        dt[i] = softplus(dt[i]);
                }
#pragma unroll
                for (int i = 0; i < STEPS; i++) {
                    sum += dt[i];
                    du[i] *= dt[i];
                }
            }
            const state_tiles &B = B_tiles[buffer];
            buffer ^= 1;
            const place at = {(int64_t)next * TILE, lane * STEPS, TILE, 1, lane};
            if (next < to && f.rows[BACK_B].data != nullptr) {
                const scan_rows &r = f.rows[BACK_B];
                const int begin = next == tile ? n + STATES : 0;
                fetch_tiles(
                    B_tiles[buffer],
                    pointer(BACK_B) + begin * r.state + at.start * PARTS * r.time,
                    r.state, r.time, min(STATES, states - begin), at, (int)r.how);
            }
            if ((n == 0 || !is_tile) && tile + 1 < to) {
                place ahead = at;
                ahead.start = (int64_t)(tile + 1) * TILE;
#pragma unroll 1
                for (int which = BACK_U; which <= BACK_DELTA; which++)
                    if (f.rows[which].how == IN_ELEMENTS)
                        fetch_run(runs[which], pointer(which), f.rows[which].time,
                                  ahead, IN_ELEMENTS);
                    else
                        fetch_whole(runs[which], pointer(which),
                                    f.rows[which].how == IN_PIECES, ahead);
            }
            if (!is_tile)
                break;
            const int count = min(STATES, states - n);
            const value *own_A = A + n * p.A.stride[1];
            if (f.rows[BACK_B].data != nullptr)
                advance<true>(dt, du, sum, own_A, p.A.stride[1], B, odd, is_f16(p),
                              entry + n, states, count, exists, lane);
            else
                advance<false>(dt, du, sum, own_A, p.A.stride[1], B, odd, is_f16(p),
                               entry + n, states, count, exists, lane);
        }
        if (is_tile)
            entry += states;
        __syncwarp();
    }
}
