/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd.cu - forward selective scan. One template; a row of instances.def chooses
 *     IN, OUT  f32, f16 or bf16: type of u, delta, z, out_z, variable B and C; of out
 *     LANES    lanes that share a channel      STEPS   positions in each of them
 *     ROWS     channels a lane works on        STATES  states whose B, C are staged at once
 *     BLOCKS   blocks per multiprocessor that registers must suffice for
 *     COMPLEX  defined if A is complex
 *
 *     h_t = exp(dt_t A) h_{t-1} + B_t dt_t u_t,  y_t = D u_t + sum over n of C_t h_t
 *
 * A team of LANES lanes walks through the time of ROWS channels in tiles of LANES STEPS
 * positions. Outermost in a tile is n: each lane runs its own steps from a zero state,
 * the lanes' results are combined by a scan over shuffles, and each lane runs its steps
 * again from the state it now knows to come in. A product of decays is exp(A sum of dt),
 * so it costs one exp2, no multiplications. B and C of a tile lie in shared memory for
 * all channels of the block.
 */
#include "cuda_scan.h"
#include "scan.cuh"

constexpr int THREADS = 128;

/* What a channel keeps of one state between tiles. */
struct alignas(2 * sizeof(value)) cell {
    value rate; /* A, ready for decay() */
    value carry;
};

/* Of the ROWS channels of a lane over a tile. */
struct steps {
    float dt[ROWS][STEPS], du[ROWS][STEPS], y[ROWS][STEPS];
    float sum[ROWS]; /* of dt */
};

INLINE void add_term(float &y, float factor, float h) {
    y = fmaf(factor, h, y);
}

INLINE void add_term(float &y, complex factor, complex h) { /* 2 Re(factor h) */
    y = fmaf(2.0f, fmaf(factor.re, h.re, -(factor.im * h.im)), y);
}

INLINE value times(float a, value b) {
    return a * b;
}

INLINE value as_value(float x) {
#ifdef COMPLEX
    return {x, 0.0f};
#else
    return x;
#endif
}

/* `count` states over a tile. cells and factors are those of the lane's first channel;
 * a constant B stays out of h, factors takes it (and a constant C). */
template <bool variable_B, bool variable_C>
INLINE void advance(steps &s, cell *cells, const value *factors, int channels,
                    const value *B, const value *C, int count, int lane) {
#pragma unroll 1
    for (int n = 0; n < count; n++) {
        value Bn[STEPS], Cn[STEPS];
        if (variable_B)
            load_values(Bn, B + n * TILE, lane);
        if (variable_C)
            load_values(Cn, C + n * TILE, lane);
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            const cell own = cells[n * channels + k];
            value a[STEPS], b[STEPS], h;
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                a[i] = decay(s.dt[k][i], own.rate);
                b[i] = variable_B ? times(s.du[k][i], Bn[i]) : as_value(s.du[k][i]);
                h = i == 0 ? b[0] : multiply_add(a[i], h, b[i]);
            }
            value product = decay(s.sum[k], own.rate);
            if (lane == 0)
                h = multiply_add(product, own.carry, h);
            scan_lanes<LANES>(product, h);
            value in = lane_before<LANES>(h, own.carry);
            if (lane == LANES - 1)
                cells[n * channels + k].carry = h;
            value factor;
            if (!variable_B || !variable_C)
                factor = factors[n * channels + k];
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                in = multiply_add(a[i], in, b[i]);
                if (variable_B && variable_C)
                    add_term(s.y[k][i], Cn[i], in);
                else if (variable_C)
                    add_term(s.y[k][i], Cn[i], factor * in);
                else
                    add_term(s.y[k][i], factor, in);
            }
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

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_forward f) {
    __shared__ alignas(16) value B_tiles[2][STATES * TILE];
    __shared__ alignas(16) value C_tiles[2][STATES * TILE];
    __shared__ alignas(16) exchange exchanges[THREADS / LANES];
    extern __shared__ float4 dynamic[];
    const mbr_selective_scan_fwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int channels = blockDim.x / LANES * ROWS, states = (int)p.A.shape[1];
    const int64_t length = p.u.shape[2];
    const bool variable_B = p.B.ndim == 4, variable_C = p.C.ndim == 4;
    const bool gated = p.z.data != nullptr;
    cell *cells = reinterpret_cast<cell *>(dynamic) + team * ROWS;
    value *factors =
        reinterpret_cast<value *>(reinterpret_cast<cell *>(dynamic) + states * channels) +
        team * ROWS;
    exchange &own_exchange = exchanges[team];
    int buffer = 0;

    for (int64_t block = blockIdx.x; block < f.blocks; block += gridDim.x) {
        const int64_t of_group = block / f.blocks_per_group;
        const int64_t b = of_group / f.groups, g = of_group % f.groups;
        const int64_t first =
            (block % f.blocks_per_group) * channels + team * ROWS; /* in the group */
        const int rows = (int)max((int64_t)0, min((int64_t)ROWS, f.width - first));
        /* A lane without a channel computes on the group's last one and stores nothing. */
        const int64_t d = g * f.width + min(first, f.width - 1);

        const IN *u = row_of<IN>(p.u, b, d), *z = row_of<IN>(p.z, b, d);
        OUT *out = row_of<OUT>(p.out, b, d);
        IN *out_z = row_of<IN>(p.out_z, b, d);
        const IN *delta[ROWS];
        float D[ROWS], bias[ROWS], chunk_sum[ROWS];
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            const int64_t dk = k < rows ? d + k : d, row = dk / f.repeat;
            delta[k] = row_of<IN>(p.delta, b, row);
            D[k] = read_scalar(p.D, dk, 0.0f);
            bias[k] = read_scalar(p.delta_bias, row, 0.0f);
            chunk_sum[k] = 0.0f;
            for (int n = lane; n < states; n += LANES) {
                cells[n * channels + k] = {rate_of(read_constant(p.A, dk, n)),
                                           as_value(0.0f)};
                if (!variable_B && !variable_C)
                    factors[n * channels + k] =
                        read_constant(p.B, dk, n) * read_constant(p.C, dk, n);
                else if (!variable_B || !variable_C)
                    factors[n * channels + k] =
                        read_constant(variable_B ? p.C : p.B, dk, n);
            }
        }
        __syncwarp();

        for (int64_t start = 0; start < length; start += TILE) {
            const int left = (int)min((int64_t)TILE, length - start);
            steps s;
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                const IN *u_row = u + (k < rows ? k * p.u.stride[1] : 0);
                load_steps(s.du[k], u_row, p.u.stride[2], start, left, f.wide & WIDE_U,
                           own_exchange, lane);
                load_steps(s.dt[k], delta[k], p.delta.stride[2], start, left,
                           f.wide & WIDE_DELTA, own_exchange, lane);
                const int64_t next = start + TILE + lane * STEPS;
                if (next < length) {
                    prefetch(u_row + next * p.u.stride[2]);
                    prefetch(delta[k] + next * p.delta.stride[2]);
                }
            }
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                if (p.delta_softplus) {
#pragma unroll
                    for (int i = 0; i < STEPS; i++)
                        s.dt[k][i] = softplus(s.dt[k][i] + bias[k]);
                } else {
#pragma unroll
                    for (int i = 0; i < STEPS; i++)
                        s.dt[k][i] += bias[k];
                }
                if (left < TILE) {
#pragma unroll
                    for (int i = 0; i < STEPS; i++)
                        s.dt[k][i] = lane * STEPS + i < left ? s.dt[k][i] : 0.0f;
                }
                s.sum[k] = 0.0f;
#pragma unroll
                for (int i = 0; i < STEPS; i++) {
                    s.sum[k] += s.dt[k][i];
                    s.y[k][i] = D[k] * s.du[k][i];
                    s.du[k][i] *= s.dt[k][i];
                }
                chunk_sum[k] += sum_lanes<LANES>(s.sum[k]);
            }

            for (int n = 0; n < states; n += STATES) {
                const int count = min(STATES, states - n);
                value *B = B_tiles[buffer], *C = C_tiles[buffer];
                if (variable_B)
                    stage(B,
                          row_of<IN>(p.B, b, g) + n * p.B.stride[2] +
                              start * PARTS * p.B.stride[3],
                          p.B.stride[2], p.B.stride[3], count, left, f.wide & WIDE_B);
                if (variable_C)
                    stage(C,
                          row_of<IN>(p.C, b, g) + n * p.C.stride[2] +
                              start * PARTS * p.C.stride[3],
                          p.C.stride[2], p.C.stride[3], count, left, f.wide & WIDE_C);
                __syncthreads();
                cell *from = cells + n * channels;
                const value *factor = factors + n * channels;
                if (variable_B && variable_C)
                    advance<true, true>(s, from, factor, channels, B, C, count, lane);
                else if (variable_B)
                    advance<true, false>(s, from, factor, channels, B, C, count, lane);
                else if (variable_C)
                    advance<false, true>(s, from, factor, channels, B, C, count, lane);
                else
                    advance<false, false>(s, from, factor, channels, B, C, count, lane);
                buffer ^= 1;
            }
            __syncwarp();

            if ((start + TILE) % CHUNK == 0 || start + TILE >= length) {
                const int64_t chunk = start / CHUNK;
#pragma unroll
                for (int k = 0; k < ROWS; k++) {
                    value *x = static_cast<value *>(p.x.data) +
                               (b * p.x.stride[0] + (d + k) * p.x.stride[1] +
                                chunk * p.x.stride[2]);
                    for (int n = lane; k < rows && n < states; n += LANES) {
                        const cell c = cells[n * channels + k];
                        value product = decay(chunk_sum[k], c.rate);
                        if (chunk > 0) /* this lane wrote the one before */
                            product = product * x[2 * n - p.x.stride[2]];
                        x[2 * n] = product;
                        x[2 * n + 1] = c.carry;
                    }
                    chunk_sum[k] = 0.0f;
                }
            }

#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                const int wanted = k < rows ? left : 0;
                store_steps(s.y[k], out + k * p.out.stride[1], p.out.stride[2], start,
                            wanted, f.wide & WIDE_OUT, own_exchange, lane);
                if (!gated)
                    continue;
                float gate[STEPS];
                const IN *z_row = z + (k < rows ? k * p.z.stride[1] : 0);
                load_steps(gate, z_row, p.z.stride[2], start, left, f.wide & WIDE_Z,
                           own_exchange, lane);
                const int64_t next = start + TILE + lane * STEPS;
                if (next < length)
                    prefetch(z_row + next * p.z.stride[2]);
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    gate[i] = s.y[k][i] * silu(gate[i]);
                store_steps(gate, out_z + k * p.out_z.stride[1], p.out_z.stride[2], start,
                            wanted, f.wide & WIDE_OUT_Z, own_exchange, lane);
            }
        }
    }
}
