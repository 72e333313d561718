/* SPDX-License-Identifier: Apache-2.0
 *
 * reduce.cu - the end of the backward: adds up what its blocks left in the workspace,
 * in order, to dweight and dbias, of any dtype. A block takes one tap, or the bias, of
 * CONV_REDUCE_LANES channels; its warps share the groups.
 */
#include "conv.cuh"

extern "C" __global__ void __launch_bounds__(CONV_REDUCE_THREADS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER conv_backward f) {
    __shared__ float sums[CONV_REDUCE_THREADS];
    constexpr int SHARES = CONV_REDUCE_THREADS / CONV_REDUCE_LANES;
    const mbr_causal_conv1d_bwd_params &p = f.p;
    const int64_t dim = p.x.shape[1], width = p.weight.shape[1];
    const int64_t k = blockIdx.x % (width + 1);
    const int lane = threadIdx.x % CONV_REDUCE_LANES;
    const int64_t d = blockIdx.x / (width + 1) * CONV_REDUCE_LANES + lane;
    const float *from = static_cast<const float *>(p.workspace.data) + k * dim + d;
    float sum = 0.0f;
    if (d < dim) {
#pragma unroll 4
        for (int64_t g = threadIdx.x / CONV_REDUCE_LANES; g < f.plan.groups;
             g += SHARES)
            sum += from[g * (width + 1) * dim];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= CONV_REDUCE_LANES || d >= dim)
        return;
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < SHARES; i++)
        sum += sums[i * CONV_REDUCE_LANES + lane];
    write_sum(f, d, k, sum);
}
