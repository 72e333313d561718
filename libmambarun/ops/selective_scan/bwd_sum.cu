/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_sum.cu - after the backward scan: adds up what its blocks left in the workspace
 * and writes dB, dC, dA, dD, ddelta_bias and grouped ddelta. IN is their type where it
 * is u's.
 *
 * A block makes 32 results, one per lane (or one, see sum_bias; or, of few terms, one
 * per thread). Its warps share the terms of a sum out among them, and their parts meet
 * in shared memory, so that the order of additions follows from the shapes alone.
 */
#include "cuda_scan.h"
#include "variant/device.cuh"

constexpr int WARPS = 8;

typedef float4 part;

INLINE void add(part &sum, part x) {
    sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
}

/* In warp 0: the sum over warps of what the same lane has. */
INLINE part sum_warps(part own) {
    __shared__ part parts[WARPS][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    parts[warp][lane] = own;
    __syncthreads();
    if (warp == 0)
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            add(own, parts[w][lane]);
    __syncthreads();
    return own;
}

INLINE part nothing() {
    return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

INLINE int warp_index() {
    return threadIdx.x / 32;
}

/* Four numbers of variable dB or dC: how bwd.cu's lanes hold them is undone here. */
INLINE void sum_coefficients(const scan_backward &f, int64_t block) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int parts = p.A.dtype_code == MBR_COMPLEX ? 2 : 1;
    const int of_lane =
        2 * (int)f.steps * parts; /* numbers, before the sum over teams */
    const int kept = of_lane * (int)f.lanes / 32;
    const int64_t quads = of_lane * (int)f.lanes / 4; /* of a state's tile */
    const int64_t states = p.A.shape[1];
    const int64_t slice = p.u.shape[0] * f.groups * f.tiles * states * quads;
    const bool is_few = f.slices <= SUM_FEW_SLICES;
    const int64_t i =
        is_few ? block * blockDim.x + threadIdx.x : block * 32 + threadIdx.x % 32;
    const float4 *from = reinterpret_cast<const float4 *>(f.partial) + i;
    const int step = is_few ? 1 : WARPS;
    part sum = nothing();
    if (i < slice)
#pragma unroll 8
        for (int64_t s = is_few ? 0 : warp_index(); s < f.slices; s += step)
            add(sum, from[s * slice]);
    if (!is_few) {
        sum = sum_warps(sum);
        if (warp_index() != 0)
            return;
    }
    if (i >= slice)
        return;
    const int place = (int)(i % quads), lane = place % 32;
    const int number = lane / (int)f.lanes * kept + place / 32 * 4;
    const bool is_C = number >= of_lane / 2;
    const int64_t state = i / quads % states, tile = i / quads / states % f.tiles;
    const int64_t row = i / quads / states / f.tiles;
    const mbr_tensor &t = is_C ? p.dC : p.dB;
    const int64_t at =
        (tile * f.lanes + lane % f.lanes) * f.steps * parts + number % (of_lane / 2);
    if (t.ndim != 4)
        return;
    IN *to = static_cast<IN *>(t.data) + row / f.groups * t.stride[0] +
             row % f.groups * t.stride[1] + state * t.stride[2];
    const float numbers[4] = {sum.x, sum.y, sum.z, sum.w};
    for (int k = 0; k < 4; k++)
        if (at + k < t.shape[3])
            to[(at + k) * t.stride[3]] = from_float<IN>(numbers[k]);
}

INLINE void store_value(const mbr_tensor &t, int64_t d, int64_t n, complex x) {
    float *to = static_cast<float *>(t.data);
    const int64_t at = d * t.stride[0] + n * t.stride[1];
    if (t.dtype_code == MBR_COMPLEX) {
        to[2 * at] = x.re;
        to[2 * at + 1] = x.im;
    } else {
        to[at] = x.re;
    }
}

INLINE complex load_value(const mbr_tensor &t, int64_t d, int64_t n) {
    const float *from = static_cast<const float *>(t.data);
    const int64_t at = d * t.stride[0] + n * t.stride[1];
    if (t.dtype_code == MBR_COMPLEX)
        return {from[2 * at], from[2 * at + 1]};
    return {from[at], 0.0f};
}

INLINE void store_scalar(const mbr_tensor &t, int64_t i, float x) {
    if (t.data)
        static_cast<float *>(t.data)[i * t.stride[0]] = x;
}

/* What is summed over the batch only: item 0 of a channel is dD and ddelta_bias, item
 * 1 + n state n of dA and of what is constant of B and C. */
INLINE void sum_channel(const scan_backward &f, int64_t block) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int parts = p.A.dtype_code == MBR_COMPLEX ? 2 : 1;
    const int64_t dim = p.u.shape[1], states = p.A.shape[1];
    const int64_t i = block * 32 + threadIdx.x % 32,
                  pitch = SUMS_VALUES + 2 * parts * states;
    const int64_t d = i / (states + 1), n = i % (states + 1) - 1;
    const bool constant = p.B.ndim != 4 || p.C.ndim != 4;
    part sum = nothing();
    if (d < dim && f.tiles > 0)
#pragma unroll 2
        for (int64_t b = warp_index(); b < p.u.shape[0]; b += WARPS) {
            const float *from = f.sums + (b * dim + d) * pitch;
            if (n < 0) {
                add(sum, make_float4(from[SUMS_D], from[SUMS_BIAS], 0.0f, 0.0f));
                continue;
            }
            const float *dA = from + SUMS_VALUES + n * parts, *dK = dA + states * parts;
            add(sum, make_float4(dA[0], dA[parts - 1], constant ? dK[0] : 0.0f,
                                 constant ? dK[parts - 1] : 0.0f));
        }
    sum = sum_warps(sum);
    if (warp_index() != 0 || d >= dim)
        return;
    if (n < 0) {
        store_scalar(p.dD, d, sum.x);
        if (f.repeat == 1)
            store_scalar(p.ddelta_bias, d, sum.y);
        return;
    }
    store_value(p.dA, d, n, {sum.x, sum.y});
    if (parts == 1)
        sum.w = 0.0f;
    const complex dK = {sum.z, sum.w};
    if (p.B.ndim != 4)
        store_value(p.dB, d, n,
                    p.C.ndim == 4 ? dK : dK * conjugate(load_value(p.C, d, n)));
    if (p.C.ndim != 4)
        store_value(p.dC, d, n,
                    p.B.ndim == 4 ? dK : dK * conjugate(load_value(p.B, d, n)));
}

/* ddelta of 32 positions of a row of grouped delta. */
INLINE void sum_row(const scan_backward &f, int64_t block) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int64_t blocks = f.padded / 32, row = block / blocks; /* of all batches */
    const int64_t at = block % blocks * 32 + threadIdx.x % 32, rows = p.delta.shape[1];
    const float *from = f.rows + row * f.repeat * f.padded + at;
    part sum = nothing();
    if (at < p.u.shape[2])
#pragma unroll 4
        for (int64_t k = warp_index(); k < f.repeat; k += WARPS)
            sum.x += from[k * f.padded];
    sum = sum_warps(sum);
    if (warp_index() == 0 && at < p.u.shape[2])
        static_cast<IN *>(
            p.ddelta.data)[row / rows * p.ddelta.stride[0] +
                           row % rows * p.ddelta.stride[1] + at * p.ddelta.stride[2]] =
            from_float<IN>(sum.x);
}

/* ddelta_bias of a row of grouped delta. */
INLINE void sum_bias(const scan_backward &f, int64_t row) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int parts = p.A.dtype_code == MBR_COMPLEX ? 2 : 1;
    const int64_t dim = p.u.shape[1], pitch = SUMS_VALUES + 2 * parts * p.A.shape[1];
    part sum = nothing();
    for (int64_t i = threadIdx.x; f.tiles > 0 && i < p.u.shape[0] * f.repeat;
         i += blockDim.x) {
        const int64_t channel = i / f.repeat * dim + row * f.repeat + i % f.repeat;
        sum.x += f.sums[channel * pitch + SUMS_BIAS];
    }
    sum = sum_warps(sum);
    if (warp_index() != 0)
        return;
    sum.x = sum_lanes<32>(sum.x);
    if (threadIdx.x == 0)
        store_scalar(p.ddelta_bias, row, sum.x);
}

extern "C" __global__ void __launch_bounds__(WARPS * 32)
    MBR_KERNEL_NAME(KERNEL_PARAMETER scan_backward f) {
    const int64_t *jobs = f.sum_blocks;
    const int64_t all = jobs[0] + jobs[1] + jobs[2] + jobs[3];
    for (int64_t block = blockIdx.x; block < all; block += gridDim.x) {
        int64_t i = block;
        if (i < jobs[0]) {
            sum_coefficients(f, i);
            continue;
        }
        i -= jobs[0];
        if (i < jobs[1]) {
            sum_channel(f, i);
            continue;
        }
        i -= jobs[1];
        if (i < jobs[2])
            sum_row(f, i);
        else
            sum_bias(f, i - jobs[2]);
    }
}
