/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd.cu - forward selective scan. One template; a row of instances.def chooses
 *     IN       f32 or half (f16 or bf16, as u says): type of u, delta, z, out_z,
 *              variable B and C, and of out unless that is fp32
 *     LANES    lanes that share a channel      STEPS   positions in each of them
 *     STATES   states whose B and C are staged at once
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *     COMPLEX  defined if A is complex
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
 *
 * Code is kept small: what is not the inner loop stands in one place, is not unrolled,
 * and asks at run time which type it has.
 */
#include "fwd.cuh"

/* What a channel keeps of one state between tiles. */
struct alignas(2 * sizeof(value)) cell {
    value rate; /* A, ready for decay() */
    value carry;
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

/* From a zero state in each lane to the state that comes in to it: h is the lane's own
 * result, sum that of its dt. Leaves in the cell the state after the tile. */
INLINE value enter(value h, float sum, const cell &own, cell *cells, int lane) {
    value product = decay(sum, own.rate);
    if (lane == 0)
        h = multiply_add(product, own.carry, h);
    scan_lanes<LANES>(product, h);
    const value in = lane_before<LANES>(h, own.carry);
    if (lane == LANES - 1)
        cells->carry = h;
    return in;
}

/* `count` states over a tile, B and C being variable, of type T and not odd. cells are
 * those of the team's channel. */
template <class T>
INLINE void advance(steps &s, cell *cells, int channels, const state_tiles &B,
                    const state_tiles &C, int count, int lane) {
#pragma unroll 1
    for (int n = 0; n < count; n++, cells += channels) {
        const cell own = *cells;
        value a[STEPS], b[STEPS], c[STEPS], h;
        take_values<T>(b, B, n, lane);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            a[i] = decay(s.dt[i], own.rate);
            b[i] = s.du[i] * b[i];
            h = i == 0 ? b[0] : multiply_add(a[i], h, b[i]);
        }
        value in = enter(h, s.sum, own, cells, lane);
        take_values<T>(c, C, n, lane);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            in = multiply_add(a[i], in, b[i]);
            add_term(s.y[i], c[i], in);
        }
    }
}

/* What the general way through a tile has to know. */
struct coefficients {
    bool variable_B, variable_C, is_f16;
    int odd_B, odd_C;             /* whether the first row is odd */
    int alternate_B, alternate_C; /* 1: every other one is, 0: all */
};

/* The same of any B and C. A constant B stays out of h, factors takes it (and a
 * constant C). */
INLINE void advance_any(steps &s, cell *cells, const value *factors, int channels,
                        const state_tiles &B, const state_tiles &C, coefficients k,
                        int count, int lane) {
#pragma unroll 1
    for (int n = 0; n < count; n++, cells += channels, factors += channels) {
        const cell own = *cells;
        value a[STEPS], b[STEPS], c[STEPS], h;
        if (k.variable_B)
            take_any_values(b, B, n, k.odd_B ^ (k.alternate_B & n), k.is_f16, lane);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            a[i] = decay(s.dt[i], own.rate);
            b[i] = k.variable_B ? s.du[i] * b[i] : as_value(s.du[i]);
            h = i == 0 ? b[0] : multiply_add(a[i], h, b[i]);
        }
        value in = enter(h, s.sum, own, cells, lane);
        if (k.variable_C)
            take_any_values(c, C, n, k.odd_C ^ (k.alternate_C & n), k.is_f16, lane);
        if (!k.variable_B || !k.variable_C) {
            const value factor = *factors;
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                c[i] = k.variable_C ? factor * c[i] : factor;
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            in = multiply_add(a[i], in, b[i]);
            add_term(s.y[i], c[i], in);
        }
    }
}

INLINE value read_constant(const mbr_tensor &t, int64_t d, int n) {
    return static_cast<const value *>(t.data)[d * t.stride[0] + n * t.stride[1]];
}

/* A, and the constant one or product of B and C, of channel d, by the team's lanes.
 * before is the entry of x that has the states to begin with, or null: they are 0. */
INLINE void start_states(const mbr_selective_scan_fwd_params &p, int64_t d,
                         const value *before, cell *cells, value *factors, int channels,
                         int states, int lane) {
    const bool variable_B = p.B.ndim == 4, variable_C = p.C.ndim == 4;
#pragma unroll 1
    for (int n = lane; n < states; n += LANES)
        cells[n * channels] = {rate_of(read_constant(p.A, d, n)),
                               before ? before[2 * n + 1] : as_value(0.0f)};
    if (variable_B && variable_C)
        return;
#pragma unroll 1
    for (int n = lane; n < states; n += LANES) {
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
#pragma unroll 1
    for (int n = lane; n < states; n += LANES) {
        const cell own = cells[n * channels];
        value product = decay(sum, own.rate);
        if (!is_first)
            product = product * x[2 * n - entry];
        x[2 * n] = product;
        x[2 * n + 1] = own.carry;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_forward f) {
    __shared__ state_tiles B_tiles[2], C_tiles[2];
    __shared__ team_runs runs[3]; /* of u, delta, z */
    __shared__ exchange exchanges[TEAMS];
    __shared__ channels_of_block own;
    extern __shared__ float4 dynamic[];

    const mbr_selective_scan_fwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int channels = blockDim.x / LANES, states = (int)p.A.shape[1];
    const bool is_f16 = p.u.dtype_code == MBR_FLOAT;
    const bool gated = p.z.data != nullptr && f.pass != STATES_ONLY;
    cell *cells = reinterpret_cast<cell *>(dynamic) + team;
    value *factors = reinterpret_cast<value *>(reinterpret_cast<cell *>(dynamic) +
                                               states * channels) +
                     team;
    const int last_stage = (states - 1) / STATES * STATES;
    int buffer = 0;

    const auto row_of = [&](int which) {
        return static_cast<const IN *>(own.row[which][team]);
    };
    const auto entry_of = [&](int chunk) {
        return static_cast<value *>(own.row[ROWS_X][team]) +
               chunk * f.rows[ROWS_X].time;
    };
    const auto is_odd_row = [&](int which) {
        return f.rows[which].how == IN_WORDS && is_odd(row_of(which));
    };
    const auto fetch_stage = [&](int tile, int n) {
        const int count = min(STATES, states - n);
        if (tile < f.whole_tiles && f.pieces_BC) {
            const int64_t at = start_of(tile) * PARTS;
            const int64_t B = f.rows[ROWS_B].state, C = f.rows[ROWS_C].state;
            const bool more = tile + 1 < f.whole_tiles;
            fetch_whole_tiles(B_tiles[buffer], row_of(ROWS_B) + at + n * B, B, count,
                              more);
            fetch_whole_tiles(C_tiles[buffer], row_of(ROWS_C) + at + n * C, C, count,
                              more);
            return;
        }
#pragma unroll 1
        for (int which = ROWS_B; which <= ROWS_C; which++) {
            const scan_rows &r = f.rows[which];
            if (r.data != nullptr)
                fetch_tiles(which == ROWS_B ? B_tiles[buffer] : C_tiles[buffer],
                            row_of(which) + n * r.state +
                                start_of(tile) * PARTS * r.time,
                            r.state, r.time, count,
                            place_of(f, tile, lane), (int)r.how);
        }
    };
    const auto fetch_row = [&](int which, const place &at, unsigned &others) {
        if (f.rows[which].how == IN_ELEMENTS) {
            others |= 1u << which;
            return;
        }
        prefetch_next(row_of(which), at);
        fetch_run(runs[which], row_of(which), at, (int)f.rows[which].how);
    };

    find_channel(own, f, f.first_block + blockIdx.x, channels, team, lane);
    __syncthreads();
    /* One more turn, before the first tile, begins to fetch that. */
    for (int tile = own.first - 1; tile < own.end; tile++) {
        const bool is_tile = tile >= own.first;
        steps s;
        for (int n = is_tile ? 0 : last_stage; n < states; n += STATES) {
            const bool is_last = n + STATES >= states;
            copies_wait();
            __syncthreads(); /* this stage is there, and the last one's buffer free */
            if (is_tile && n == 0) {
                take_run(s.du, runs[ROWS_U], is_odd_row(ROWS_U), is_f16, lane);
                take_run(s.dt, runs[ROWS_DELTA], is_odd_row(ROWS_DELTA), is_f16,
                         lane);
                prepare(s, place_of(f, tile, lane), own.D[team], own.bias[team],
                        p.delta_softplus);
                own.sum[threadIdx.x] += s.sum;
                __syncwarp(); /* a team's lanes copy for each other */
            }
            const state_tiles &B = B_tiles[buffer], &C = C_tiles[buffer];
            buffer ^= 1;
            if (tile + is_last < own.end)
                fetch_stage(tile + is_last, is_last ? 0 : n + STATES);
            if (n == 0 || !is_tile) { /* u and delta of the next tile, z of this one */
                unsigned others = 0;
                if (tile + 1 < own.end) {
                    const place next = place_of(f, tile + 1, lane);
                    fetch_row(ROWS_U, next, others);
                    fetch_row(ROWS_DELTA, next, others);
                }
                if (gated && is_tile)
                    fetch_row(ROWS_Z, place_of(f, tile, lane), others);
#pragma unroll 1
                for (int which = ROWS_U; others >> which; which++)
                    if (others >> which & 1)
                        fetch_elements(
                            runs[which], row_of(which), f.rows[which].time,
                            place_of(f, which == ROWS_Z ? tile : tile + 1, lane));
            }
            if (!is_tile)
                break;
            const int count = min(STATES, states - n);
            cell *from = cells + n * channels;
            if (f.plain && !IS_COMPLEX) {
                if constexpr (!HALF)
                    advance<f32>(s, from, channels, B, C, count, lane);
                else if (is_f16)
                    advance<f16>(s, from, channels, B, C, count, lane);
                else
                    advance<bf16>(s, from, channels, B, C, count, lane);
            } else {
                const coefficients k = {f.rows[ROWS_B].data != nullptr,
                                        f.rows[ROWS_C].data != nullptr, is_f16,
                                        is_odd_row(ROWS_B), is_odd_row(ROWS_C),
                                        alternates(f.rows[ROWS_B]),
                                        alternates(f.rows[ROWS_C])};
                advance_any(s, from, factors + n * channels, channels, B, C, k,
                            count, lane);
            }
        }
        if (!is_tile) {
            if (lane == 0) {
                own.D[team] = read_scalar(p.D, own.d[team], 0.0f);
                own.bias[team] = read_scalar(p.delta_bias, own.of_delta[team], 0.0f);
            }
            const value *before = nullptr;
            if (f.pass == FROM_STATES && own.first > 0)
                before = entry_of(own.first / (CHUNK / TILE) - 1);
            start_states(p, own.d[team], before, cells, factors, channels, states,
                         lane);
            continue;
        }
        __syncwarp();
        const place at = place_of(f, tile, lane);
        if ((tile + 1) % (CHUNK / TILE) == 0 || tile + 1 == f.tiles) {
            const float sum = sum_lanes<LANES>(own.sum[threadIdx.x]);
            const int chunk = tile / (CHUNK / TILE);
            if (own.exists[team] && f.pass != FROM_STATES)
                write_states(entry_of(chunk), cells, channels, states, sum,
                             chunk == 0 || f.pass == STATES_ONLY, f.rows[ROWS_X].time,
                             lane);
            own.sum[threadIdx.x] = 0.0f;
        }
        if (f.pass == STATES_ONLY)
            continue;
        const int left = own.exists[team] ? at.left : 0;
#pragma unroll 1
        for (int which = ROWS_OUT; which <= (gated ? ROWS_OUT_Z : ROWS_OUT); which++) {
            if (which == ROWS_OUT_Z) {
                float gate[STEPS];
                copies_wait();
                __syncwarp();
                take_run(gate, runs[ROWS_Z], is_odd_row(ROWS_Z), is_f16, lane);
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    s.y[i] *= silu(gate[i]);
            }
            store_result(s.y, f, which, own.row[which][team], at, left,
                         exchanges[team]);
        }
    }
}
