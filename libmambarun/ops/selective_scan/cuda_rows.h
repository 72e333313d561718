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

/* The same for kernels of one state, which copy whole pieces or else words. */
static inline scan_rows rows_of_pieces(const mbr_tensor *t) {
    scan_rows rows = rows_of(t);
    if (rows.how == IN_PIECES && t->shape[t->ndim - 1] * t->dtype_bits / 8 % 16 != 0)
        rows.how = IN_WORDS;
    return rows;
}

/* Bytes that they need in shared memory for a part of a row: of so many lanes, with
 * runs of so many bytes. */
static inline int64_t part_bytes(int64_t lanes, int64_t run) {
    return lanes * run + 16;
}

/* Whether they may read the rows of an input, in pieces wherever they begin: dense in
 * time, in the order of their indices and so far from each other that only the first
 * and the last one have something else within 16 bytes; and with a stride between
 * channels that an int holds. */
static inline bool is_in_order(const mbr_tensor *t) {
    return t->stride[t->ndim - 1] == 1 && bytes_along(t, 0) >= 16 &&
           bytes_along(t, 1) >= 16 && bytes_along(t, 1) <= INT32_MAX;
}

#endif
