/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd_join.cu - between the two passes of a forward scan whose chunks run side by side:
 * makes entries of x that begin with states of 0 into those of the whole sequence.
 *
 *     product_c = own product_c product_{c-1}    h_c = own h_c + own product_c h_{c-1}
 *
 * A thread takes one state of one channel through all chunks.
 */
#include "cuda_scan.h"
#include "variant/device.cuh"

constexpr int AHEAD = 4; /* entries that are read before they are needed */

template <class value> INLINE void join(value *x, int64_t entry, int64_t chunks) {
    value product = x[0], h = x[1];
    for (int64_t c = 1; c < chunks; c += AHEAD) {
        value own[AHEAD][2];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (c + i < chunks) {
                own[i][0] = x[(c + i) * entry];
                own[i][1] = x[(c + i) * entry + 1];
            }
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (c + i < chunks) {
                h = multiply_add(own[i][0], h, own[i][1]);
                product = product * own[i][0];
                x[(c + i) * entry] = product;
                x[(c + i) * entry + 1] = h;
            }
    }
}

extern "C" __global__ void MBR_KERNEL_NAME(KERNEL_PARAMETER scan_forward f) {
    const mbr_tensor &x = f.p.x; /* contiguous */
    const int64_t states = x.shape[3] / 2, rows = x.shape[0] * x.shape[1];
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * states;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / states, entry = 2 * states;
        const int64_t at = row * x.shape[2] * entry + 2 * (i - row * states);
        if (x.dtype_code == MBR_COMPLEX)
            join(static_cast<complex *>(x.data) + at, entry, x.shape[2]);
        else
            join(static_cast<float *>(x.data) + at, entry, x.shape[2]);
    }
}
