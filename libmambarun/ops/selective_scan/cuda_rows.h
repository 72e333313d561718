/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_rows.h - how cuda_fwd.c and cuda_bwd.c describe a tensor's rows to their
 * kernels.
 */
#ifndef MBR_CUDA_ROWS_H
#define MBR_CUDA_ROWS_H

#include "cuda_scan.h"

#include <stdbool.h>

static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* How far it is from one index to the next, in bytes. */
static inline int64_t bytes_along(const mbr_tensor *t, int axis) {
    return t->stride[axis] * (t->dtype_bits / 8);
}

/* Whether rows begin at multiples of so many bytes, all of them. */
static inline bool is_aligned(const mbr_tensor *t, int64_t bytes) {
    bool aligned = (uintptr_t)t->data % (uintptr_t)bytes == 0;
    for (int i = 0; i < t->ndim - 1; i++)
        aligned = aligned && (t->shape[i] == 1 || bytes_along(t, i) % bytes == 0);
    return aligned;
}

/* The rows of a tensor of (batch, channel, time) or (batch, group, state, time). */
static inline scan_rows rows_of(const mbr_tensor *t) {
    const int last = t->ndim - 1;
    if (t->data == NULL)
        return (scan_rows){0};
    return (scan_rows){.data = t->data,
                       .batch = bytes_along(t, 0),
                       .channel = bytes_along(t, 1),
                       .state = t->stride[2],
                       .time = t->stride[last],
                       .how = t->stride[last] != 1 ? IN_ELEMENTS
                              : is_aligned(t, 16)  ? IN_PIECES
                                                   : IN_WORDS};
}

#endif
