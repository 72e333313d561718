/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd.cu - forward selective scan. One template; a row of instances.def chooses
 *     IN       f32, f16 or bf16: type of u, delta, z, out_z, variable B and C, and of
 * out unless that is fp32 LANES    lanes that share a channel      STEPS   positions in
 * each of them STATES   states whose B and C are staged at once BLOCKS   blocks per
 * multiprocessor that registers must suffice for COMPLEX  defined if A is complex
 *
 *     h_t = exp(dt_t A) h_{t-1} + B_t dt_t u_t,  y_t = D u_t + sum over n of C_t h_t
 *
 * A team of LANES lanes walks through the time of one channel in tiles of LANES STEPS
 * positions. Outermost in a tile is n: each lane runs its own steps from a zero state,
 * the lanes' results are combined by a scan over shuffles, and each lane runs its steps
 * again from the state it now knows to come in. A product of decays is exp(A sum of
 * dt), so it costs one exp2, no multiplications. B and C of a tile lie in shared memory
 * for all channels of the block, in their own type: shared memory returns 128 bytes a
 * clock whatever is broadcast, and halving what it returns is worth the conversions.
 */
#include "ahead.cuh"
#include "cuda_scan.h"

/* What a channel keeps of one state between tiles. */
struct alignas(2 * sizeof(value)) cell {
    value rate; /* A, ready for decay() */
    value carry;
};

/* Of a lane over a tile. */
struct steps {
    float dt[STEPS], du[STEPS], y[STEPS];
    float sum; /* of dt */
};

INLINE void add_term(float &y, float factor, float h) {
    y = fmaf(factor, h, y);
}

INLINE void add_term(float &y, complex factor, complex h) { /* 2 Re(factor h) */
    y = fmaf(2.0f, fmaf(factor.re, h.re, -(factor.im * h.im)), y);
}

INLINE value as_value(float x) {
#ifdef COMPLEX
    return {x, 0.0f};
#else
    return x;
#endif
}

INLINE bool alternate(int odd, int n) {
    return (odd ^ (odd >> 1 & n)) & 1;
}

/* `count` states over a tile. cells and factors are those of the team's channel; a
 * constant B stays out of h, factors takes it (and a constant C). If any_odd, odd_B and
 * odd_C say whether the first row is odd (ahead.cuh), and in the next bit whether that
 * alternates. */
template <bool variable_B, bool variable_C, bool any_odd>
INLINE void advance(steps &s, cell *cells, const value *factors, int channels,
                    const state_tiles<IN> &B, const state_tiles<IN> &C, int odd_B,
                    int odd_C, int count, int lane) {
#pragma unroll 1
    for (int n = 0; n < count; n++, cells += channels, factors += channels) {
        const cell own = *cells;
        value a[STEPS], b[STEPS], h;
        if (variable_B)
            take_shifted_values(b, B, n, any_odd && alternate(odd_B, n), lane);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            a[i] = decay(s.dt[i], own.rate);
            b[i] = variable_B ? s.du[i] * b[i] : as_value(s.du[i]);
            h = i == 0 ? b[0] : multiply_add(a[i], h, b[i]);
        }
        value product = decay(s.sum, own.rate);
        if (lane == 0)
            h = multiply_add(product, own.carry, h);
        scan_lanes<LANES>(product, h);
        value in = lane_before<LANES>(h, own.carry);
        if (lane == LANES - 1)
            cells->carry = h;
        value c[STEPS], factor;
        if (variable_C)
            take_shifted_values(c, C, n, any_odd && alternate(odd_C, n), lane);
        if (!variable_B || !variable_C)
            factor = *factors;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            in = multiply_add(a[i], in, b[i]);
            if (variable_B && variable_C)
                add_term(s.y[i], c[i], in);
            else if (variable_C)
                add_term(s.y[i], c[i], factor * in);
            else
                add_term(s.y[i], factor, in);
        }
    }
}

INLINE value read_constant(const mbr_tensor &t, int64_t d, int n) {
    return static_cast<const value *>(t.data)[d * t.stride[0] + n * t.stride[1]];
}

INLINE float read_scalar(const mbr_tensor &t, int64_t i, float absent) {
    return t.data ? static_cast<const float *>(t.data)[i * t.stride[0]] : absent;
}

template <class T> INLINE T *row_of(const mbr_tensor &t, int64_t b, int64_t d) {
    return static_cast<T *>(t.data) + b * t.stride[0] + d * t.stride[1];
}

/* A, and the constant one or product of B and C, of channel d, by the team's lanes. */
INLINE void start_states(const mbr_selective_scan_fwd_params &p, int64_t d, cell *cells,
                         value *factors, int channels, int states, int lane) {
    const bool variable_B = p.B.ndim == 4, variable_C = p.C.ndim == 4;
    for (int n = lane; n < states; n += LANES) {
        cells[n * channels] = {rate_of(read_constant(p.A, d, n)), as_value(0.0f)};
        if (variable_B && variable_C)
            continue;
        value factor = read_constant(variable_B ? p.C : p.B, d, n);
        if (!variable_B && !variable_C)
            factor = factor * read_constant(p.C, d, n);
        factors[n * channels] = factor;
    }
}

/* An entry of x: pairs (product of all decays so far, state), by the team's lanes. sum
 * is of dt since the entry before, which the same lanes wrote. */
INLINE void write_states(value *x, const cell *cells, int channels, int states,
                         float sum, bool is_first, int64_t entry, int lane) {
    for (int n = lane; n < states; n += LANES) {
        const cell own = cells[n * channels];
        value product = decay(sum, own.rate);
        if (!is_first)
            product = product * x[2 * n - entry];
        x[2 * n] = product;
        x[2 * n + 1] = own.carry;
    }
}

INLINE void prepare(steps &s, const place &at, float D, float bias, bool plus) {
    if (plus) {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] = softplus(s.dt[i] + bias);
    } else {
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] += bias;
    }
    if (!at.whole) { /* steps that do not exist leave the state alone */
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            s.dt[i] = at.first + i < at.left ? s.dt[i] : 0.0f;
    }
    s.sum = 0.0f;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        s.sum += s.dt[i];
        s.y[i] = D * s.du[i];
        s.du[i] *= s.dt[i];
    }
}

/* The channel of a team. In shared memory, since it is looked at only once per tile. */
struct channel {
    const IN *u, *delta, *z, *B, *C;
    void *out; /* of IN or f32 */
    IN *out_z;
    value *x;
    float D, bias;
    bool odd_u, odd_delta, odd_z; /* ahead.cuh */
    bool exists; /* else it is the group's last one again, and nothing is stored */
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_forward f) {
    __shared__ state_tiles<IN> B_tiles[2], C_tiles[2];
    __shared__ team_runs<IN> u_runs, delta_runs, z_runs;
    __shared__ union {
        exchange<IN> in;
        exchange<f32> out;
    } exchanges[THREADS / LANES];
    __shared__ channel all[THREADS / LANES];
    extern __shared__ float4 dynamic[];

    const mbr_selective_scan_fwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int channels = blockDim.x / LANES, states = (int)p.A.shape[1];
    const int64_t length = p.u.shape[2];
    const bool variable_B = p.B.ndim == 4, variable_C = p.C.ndim == 4;
    const bool gated = p.z.data != nullptr;
    const reading read_u = how_to_read(p.u.stride[2], f.wide & WIDE_U);
    const reading read_delta = how_to_read(p.delta.stride[2], f.wide & WIDE_DELTA);
    const reading read_z = how_to_read(p.z.stride[2], f.wide & WIDE_Z);
    const reading read_B = how_to_read(p.B.stride[3], f.wide & WIDE_B);
    const reading read_C = how_to_read(p.C.stride[3], f.wide & WIDE_C);
    constexpr bool can_be_odd = sizeof(IN) == 2;
    const bool none_odd = read_B != WORDS && read_C != WORDS; /* for all blocks */
    cell *cells = reinterpret_cast<cell *>(dynamic) + team;
    value *factors = reinterpret_cast<value *>(reinterpret_cast<cell *>(dynamic) +
                                               states * channels) +
                     team;
    channel &own = all[team];
    exchange<IN> &in_exchange = exchanges[team].in;
    exchange<f32> &out_exchange = exchanges[team].out;
    const bool out_is_f32 = p.out.dtype_bits == 32;
    int buffer = 0;

    const auto place_of = [&](int64_t start) {
        const int left = (int)min((int64_t)TILE, length - start);
        const int further = (int)min((int64_t)TILE, length - start - left);
        return place_ahead{{start, lane * STEPS, left, lane, left == TILE}, further};
    };
    const auto fetch_stage = [&](int64_t start, int n) {
        const int count = min(STATES, states - n);
        const place_ahead at = place_of(start);
        if (variable_B)
            fetch_tiles(B_tiles[buffer],
                        own.B + n * p.B.stride[2] + start * PARTS * p.B.stride[3],
                        p.B.stride[2], p.B.stride[3], count, at, read_B);
        if (variable_C)
            fetch_tiles(C_tiles[buffer],
                        own.C + n * p.C.stride[2] + start * PARTS * p.C.stride[3],
                        p.C.stride[2], p.C.stride[3], count, at, read_C);
    };

    for (int64_t block = blockIdx.x; block < f.blocks; block += gridDim.x) {
        int odd_B = 0, odd_C = 0;
        {
            const int64_t of_group = block / f.blocks_per_group;
            const int64_t b = of_group / f.groups, g = of_group % f.groups;
            const int64_t c = block % f.blocks_per_group * channels + team;
            const int64_t d = g * f.width + min(c, f.width - 1), row = d / f.repeat;
            channel it;
            it.u = row_of<IN>(p.u, b, d);
            it.delta = row_of<IN>(p.delta, b, row);
            it.z = row_of<IN>(p.z, b, d);
            it.out = out_is_f32 ? (void *)row_of<f32>(p.out, b, d)
                                : (void *)row_of<IN>(p.out, b, d);
            it.out_z = row_of<IN>(p.out_z, b, d);
            it.x =
                static_cast<value *>(p.x.data) + b * p.x.stride[0] + d * p.x.stride[1];
            it.B = variable_B ? row_of<IN>(p.B, b, g) : nullptr;
            it.C = variable_C ? row_of<IN>(p.C, b, g) : nullptr;
            it.D = read_scalar(p.D, d, 0.0f);
            it.bias = read_scalar(p.delta_bias, row, 0.0f);
            it.odd_u = read_u == WORDS && is_odd(it.u);
            it.odd_delta = read_delta == WORDS && is_odd(it.delta);
            it.odd_z = read_z == WORDS && is_odd(it.z);
            it.exists = c < f.width;
            if (variable_B && read_B == WORDS)
                odd_B = is_odd(it.B) + 2 * (p.B.stride[2] & 1);
            if (variable_C && read_C == WORDS)
                odd_C = is_odd(it.C) + 2 * (p.C.stride[2] & 1);
            __syncwarp();
            if (lane == 0)
                own = it;
            start_states(p, d, cells, factors, channels, states, lane);
            __syncwarp();
        }
        const place_ahead at_start = place_of(0);
        fetch_stage(0, 0);
        fetch_runs(u_runs, own.u, at_start, read_u);
        fetch_runs(delta_runs, own.delta, at_start, read_delta);
        if (gated)
            fetch_runs(z_runs, own.z, at_start, read_z);

        float chunk_sum = 0.0f;
        for (int64_t start = 0; start < length; start += TILE) {
            const bool is_last = start + TILE >= length;
            steps s;
            copies_wait();
            __syncwarp(); /* a team's lanes copied for each other */
            {
                const place_ahead at = place_of(start);
                if (read_u != STRIDED)
                    take_shifted_run(s.du, u_runs, own.odd_u, lane);
                else
                    load_run_strided(s.du, own.u, p.u.stride[2], at, in_exchange);
                if (read_delta != STRIDED)
                    take_shifted_run(s.dt, delta_runs, own.odd_delta, lane);
                else
                    load_run_strided(s.dt, own.delta, p.delta.stride[2], at,
                                     in_exchange);
                prepare(s, at, own.D, own.bias, p.delta_softplus);
            }
            chunk_sum += s.sum;

            for (int n = 0; n < states; n += STATES) {
                if (n > 0)
                    copies_wait();
                __syncthreads(); /* this stage is there, and the buffer of the last free
                                  */
                const state_tiles<IN> &B = B_tiles[buffer], &C = C_tiles[buffer];
                buffer ^= 1;
                const bool more = n + STATES < states;
                if (more || !is_last)
                    fetch_stage(more ? start : start + TILE, more ? n + STATES : 0);
                if (n == 0 && !is_last) {
                    fetch_runs(u_runs, own.u, place_of(start + TILE), read_u);
                    fetch_runs(delta_runs, own.delta, place_of(start + TILE),
                               read_delta);
                }
                const int count = min(STATES, states - n);
                cell *from = cells + n * channels;
                const value *factor = factors + n * channels;
                if (variable_B && variable_C && (!can_be_odd || none_odd))
                    advance<true, true, false>(s, from, factor, channels, B, C, odd_B,
                                               odd_C, count, lane);
                else if (variable_B && variable_C)
                    advance<true, true, can_be_odd>(s, from, factor, channels, B, C,
                                                    odd_B, odd_C, count, lane);
                else if (variable_B)
                    advance<true, false, can_be_odd>(s, from, factor, channels, B, C,
                                                     odd_B, odd_C, count, lane);
                else if (variable_C)
                    advance<false, true, can_be_odd>(s, from, factor, channels, B, C,
                                                     odd_B, odd_C, count, lane);
                else
                    advance<false, false, can_be_odd>(s, from, factor, channels, B, C,
                                                      odd_B, odd_C, count, lane);
            }
            __syncwarp();

            if ((start + TILE) % CHUNK == 0 || is_last) {
                const float sum = sum_lanes<LANES>(chunk_sum);
                if (own.exists)
                    write_states(own.x + start / CHUNK * p.x.stride[2], cells, channels,
                                 states, sum, start < CHUNK, p.x.stride[2], lane);
                chunk_sum = 0.0f;
            }

            const place_ahead at = place_of(start);
            const int left = own.exists ? at.left : 0;
            if (out_is_f32)
                store_steps(s.y, static_cast<f32 *>(own.out), p.out.stride[2], at, left,
                            f.wide & WIDE_OUT, out_exchange);
            else if constexpr (!same_type<IN, f32>::value)
                store_steps(s.y, static_cast<IN *>(own.out), p.out.stride[2], at, left,
                            f.wide & WIDE_OUT, in_exchange);
            if (gated) {
                float gate[STEPS];
                if (read_z != STRIDED)
                    take_shifted_run(gate, z_runs, own.odd_z, lane);
                else
                    load_run_strided(gate, own.z, p.z.stride[2], at, in_exchange);
                __syncwarp(); /* all have taken theirs */
                if (!is_last)
                    fetch_runs(z_runs, own.z, place_of(start + TILE), read_z);
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    gate[i] = s.y[i] * silu(gate[i]);
                store_steps(gate, own.out_z, p.out_z.stride[2], at, left,
                            f.wide & WIDE_OUT_Z, in_exchange);
            }
        }
        __syncthreads(); /* before another block's channels replace these */
    }
}
