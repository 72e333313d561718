/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd_sum.cu - after the backward scan: adds up what its blocks left in the workspace
 * and writes dB, dC, dA, dD, ddelta_bias and grouped ddelta. WARPS: of a block.
 *
 * A block makes 32 results, one per lane (or one, see sum_bias; or, of few terms, one
 * per thread). Its warps share the terms of a sum out among them, and their parts meet
 * in shared memory, so that the order of additions follows from the shapes alone.
 */
#include "cuda_scan.h"
#include "variant/device.cuh"

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

/* In the tensor's type, which is u's. */
INLINE void store_any(const mbr_tensor &t, int64_t at, float x) {
    if (t.dtype_bits == 32)
        static_cast<float *>(t.data)[at] = x;
    else
        static_cast<uint16_t *>(t.data)[at] = t.dtype_code == MBR_FLOAT
                                                  ? from_float<f16>(x).bits
                                                  : from_float<bf16>(x).bits;
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
    const bool is_plain = f.channels > 0; /* positions of dB, then of dC */
    const bool is_C = is_plain ? place >= quads / 2 : number >= of_lane / 2;
    const int64_t state = i / quads % states, tile = i / quads / states % f.tiles;
    const int64_t row = i / quads / states / f.tiles;
    const mbr_tensor &t = is_C ? p.dC : p.dB;
    const int64_t at =
        tile * f.lanes * f.steps * parts +
        (is_plain ? place % (quads / 2) * 4
                  : lane % f.lanes * f.steps * parts + number % (of_lane / 2));
    if (t.ndim != 4)
        return;
    const int64_t to = row / f.groups * t.stride[0] + row % f.groups * t.stride[1] +
                       state * t.stride[2];
    const float numbers[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (at + k < t.shape[3])
            store_any(t, to + (at + k) * t.stride[3], numbers[k]);
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

INLINE void store_scalar(const mbr_tensor &t, int64_t i, float x) {
    if (t.data)
        static_cast<float *>(t.data)[i * t.stride[0]] = x;
}

/* What is summed over the batch only: item 0 of a channel is dD and ddelta_bias, then
 * come the states of dA and, if B or C is constant, of dB and of dC. */
INLINE void sum_channel(const scan_backward &f, int64_t block) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int parts = p.A.dtype_code == MBR_COMPLEX ? 2 : 1;
    const int64_t dim = p.u.shape[1], states = p.A.shape[1];
    const int64_t items = 1 + states * (p.B.ndim == 4 && p.C.ndim == 4 ? 1 : 3);
    const int64_t pitch = SUMS_VALUES + SUMS_BY_STATE * parts * states;
    const int64_t i = block * 32 + threadIdx.x % 32, d = i / items;
    const int64_t n = i - d * items - 1;
    const int64_t first = n < 0 ? SUMS_D : SUMS_VALUES + n * parts,
                  second = n < 0 ? SUMS_BIAS : first + parts - 1;
    part sum = nothing();
    if (d < dim && f.tiles > 0)
#pragma unroll 2
        for (int64_t b = warp_index(); b < p.u.shape[0]; b += WARPS) {
            const float *from = f.sums + (b * dim + d) * pitch;
            add(sum, make_float4(from[first], from[second], 0.0f, 0.0f));
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
    const int64_t which = n / states;
    const mbr_tensor &t = which == 0 ? p.dA : which == 1 ? p.dB : p.dC;
    if (t.ndim == 2)
        store_value(t, d, n - which * states, {sum.x, sum.y});
}

/* ddelta of 32 positions of a row of grouped delta. */
INLINE void sum_row(const scan_backward &f, int64_t block) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int64_t blocks = f.padded / 32, row = block / blocks; /* of all batches */
    const int64_t at = block % blocks * 32 + threadIdx.x % 32, rows = p.delta.shape[1];
    const float *from = f.grouped + row * f.repeat * f.padded + at;
    part sum = nothing();
    if (at < p.u.shape[2])
#pragma unroll 4
        for (int64_t k = warp_index(); k < f.repeat; k += WARPS)
            sum.x += from[k * f.padded];
    sum = sum_warps(sum);
    if (warp_index() == 0 && at < p.u.shape[2])
        store_any(p.ddelta,
                  row / rows * p.ddelta.stride[0] + row % rows * p.ddelta.stride[1] +
                      at * p.ddelta.stride[2],
                  sum.x);
}

/* ddelta_bias of a row of grouped delta. */
INLINE void sum_bias(const scan_backward &f, int64_t row) {
    const mbr_selective_scan_bwd_params &p = f.p;
    const int parts = p.A.dtype_code == MBR_COMPLEX ? 2 : 1;
    const int64_t dim = p.u.shape[1],
                  pitch = SUMS_VALUES + SUMS_BY_STATE * parts * p.A.shape[1];
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
    int64_t i = f.first_block + blockIdx.x;
    if (i < jobs[0]) {
        sum_coefficients(f, i);
        return;
    }
    i -= jobs[0];
    if (i < jobs[1]) {
        sum_channel(f, i);
        return;
    }
    i -= jobs[1];
    if (i < jobs[2])
        sum_row(f, i);
    else
        sum_bias(f, i - jobs[2]);
}
