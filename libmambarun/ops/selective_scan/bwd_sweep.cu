/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_sweep.cu - before the backward scan: the state before every tile. A row of
 * instances.def chooses
 *     IN       f32, f16 or bf16: type of u, delta and variable B
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
#include "cuda_scan.h"
#include "bwd.cuh"

INLINE value as_value(float x) {
#ifdef COMPLEX
    return {x, 0.0f};
#else
    return x;
#endif
}

/* `count` states over a tile, from those at `in` to those at `out`. */
template <bool variable_B>
INLINE void advance(const float (&dt)[STEPS], const float (&du)[STEPS], float sum,
                    const value *A, int64_t A_stride, const coefficients<IN> &B,
                    const value *in, value *out, int count, bool exists, int lane) {
#pragma unroll 2
    for (int n = 0; n < count; n++) {
        const value rate = rate_of(A[n * A_stride]), carry = in[n];
        value Bn[STEPS], h;
        if (variable_B)
            take_values(Bn, B, n, lane);
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const value b = variable_B ? du[i] * Bn[i] : as_value(du[i]);
            if (i > 0)
                h = multiply_add(decay(dt[i], rate), h, b);
            else
                h = lane == 0 ? multiply_add(decay(dt[0], rate), carry, b) : b;
        }
        value product = decay(sum, rate);
        scan_lanes<LANES>(product, h);
        if (lane == LANES - 1 && exists)
            out[n] = h;
    }
}

template <class T> INLINE const T *row_of(const mbr_tensor &t, int64_t b, int64_t d) {
    return static_cast<const T *>(t.data) + b * t.stride[0] + d * t.stride[1];
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    __shared__ coefficients<IN> B_tiles[2];
    __shared__ runs<IN> u_runs, delta_runs;
    __shared__ exchange<IN> exchanges[THREADS / LANES];
    const mbr_selective_scan_bwd_params &p = f.p;
    const int lane = threadIdx.x % LANES, team = threadIdx.x / LANES;
    const int channels = blockDim.x / LANES, states = (int)p.A.shape[1];
    const bool variable_B = p.B.ndim == 4;
    const bool wide_u = f.wide & WIDE_U, wide_delta = f.wide & WIDE_DELTA;
    exchange<IN> &own = exchanges[team];
    int buffer = 0;

    if (f.atomic) {
        const int64_t quads = f.slices * p.u.shape[0] * f.groups * f.tiles * states *
                              (2 * TILE * PARTS / 4);
        for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < quads;
             i += (int64_t)gridDim.x * blockDim.x)
            reinterpret_cast<float4 *>(f.partial)[i] =
                make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    for (int64_t block = blockIdx.x; block < f.blocks * f.chunks; block += gridDim.x) {
        const int64_t chunk = block % f.chunks, of_chunk = block / f.chunks;
        const int64_t of_group = of_chunk / f.blocks_per_group;
        const int64_t b = of_group / f.groups, g = of_group % f.groups;
        const int64_t in_group = of_chunk % f.blocks_per_group * channels + team;
        /* A team without a channel works on the group's last one and stores nothing. */
        const bool exists = in_group < f.width;
        const int64_t d = g * f.width + (exists ? in_group : f.width - 1);
        const int64_t row = b * p.u.shape[1] + d;
        const IN *u = row_of<IN>(p.u, b, d),
                 *delta = row_of<IN>(p.delta, b, d / f.repeat);
        const float bias =
            p.delta_bias.data
                ? static_cast<const float *>(
                      p.delta_bias.data)[d / f.repeat * p.delta_bias.stride[0]]
                : 0.0f;
        const value *A = static_cast<const value *>(p.A.data) + d * p.A.stride[0];
        const int64_t from = chunk * (CHUNK / TILE);
        const int64_t to =
            min(f.tiles, from + CHUNK / TILE) - 1; /* the last to go into */
        value *entry =
            reinterpret_cast<value *>(f.entry) + (row * f.tiles + from) * states;
        const value *x = static_cast<const value *>(p.x.data) +
                         (row * f.chunks + chunk - 1) * 2 * states;
        for (int n = lane; n < states && exists; n += LANES)
            entry[n] = chunk > 0 ? x[2 * n + 1] : as_value(0.0f);
        __syncwarp();

        const auto at_tile = [&](int64_t tile) { /* all of it exists */
                                                 return place{tile * TILE, lane * STEPS,
                                                              TILE, lane, true};
        };
        const auto fetch_stage = [&](int64_t tile, int n) {
            if (variable_B)
                fetch_values(B_tiles[buffer],
                             row_of<IN>(p.B, b, g) + n * p.B.stride[2] +
                                 tile * TILE * PARTS * p.B.stride[3],
                             p.B.stride[2], p.B.stride[3], min(STATES, states - n),
                             TILE, f.wide & WIDE_B);
        };
        const auto fetch_rows = [&](int64_t tile) {
            if (wide_u)
                fetch_run(u_runs, u, at_tile(tile));
            if (wide_delta)
                fetch_run(delta_runs, delta, at_tile(tile));
        };
        if (from < to) {
            fetch_stage(from, 0);
            fetch_rows(from);
        }
        for (int64_t tile = from; tile < to; tile++, entry += states) {
            const place at = at_tile(tile);
            float dt[STEPS], du[STEPS], sum = 0.0f;
            copies_wait();
            if (wide_u)
                take_run(du, u_runs);
            else
                load_steps(du, u, p.u.stride[2], at, own);
            if (wide_delta)
                take_run(dt, delta_runs);
            else
                load_steps(dt, delta, p.delta.stride[2], at, own);
            if (p.delta_softplus) {
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    dt[i] = softplus(dt[i] + bias);
            } else {
#pragma unroll
                for (int i = 0; i < STEPS; i++)
                    dt[i] += bias;
            }
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                sum += dt[i];
                du[i] *= dt[i];
            }
            for (int n = 0; n < states; n += STATES) {
                const int count = min(STATES, states - n);
                if (n > 0)
                    copies_wait();
                __syncthreads(); /* this stage is there, and the buffer of the last free
                                  */
                const coefficients<IN> &B = B_tiles[buffer];
                buffer ^= 1;
                if (n + STATES < states)
                    fetch_stage(tile, n + STATES);
                else if (tile + 1 < to)
                    fetch_stage(tile + 1, 0);
                if (n == 0 && tile + 1 < to)
                    fetch_rows(tile + 1);
                const value *own_A = A + n * p.A.stride[1];
                if (variable_B)
                    advance<true>(dt, du, sum, own_A, p.A.stride[1], B, entry + n,
                                  entry + states + n, count, exists, lane);
                else
                    advance<false>(dt, du, sum, own_A, p.A.stride[1], B, entry + n,
                                   entry + states + n, count, exists, lane);
            }
            __syncwarp();
        }
        __syncthreads();
    }
}
