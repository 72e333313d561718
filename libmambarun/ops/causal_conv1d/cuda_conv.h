/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_conv.h - what cuda.c tells the kernels beyond the params. Read by both
 * compilers.
 */
#ifndef MBR_CUDA_CONV_H
#define MBR_CUDA_CONV_H

#include "causal_conv1d.h"

enum {
    CONV_THREADS = 128,     /* per block, but of bwd_time.cu and reduce.cu */
    CONV_WARPS = 4,         /* per block of bwd_time.cu at most */
    CONV_ROW_THREADS = 256, /* per block of bwd_row.cu at most */
    CONV_LANES = 32,        /* of a team at most */
    CONV_REDUCE_LANES = 32, /* channels that a block of reduce.cu adds up */
    CONV_REDUCE_THREADS = 256
};

/* Divides numbers below 2^31 by one, whose inverse, rounded up, is
 * (2^32 + factor) / 2^(32 + shift). */
typedef struct conv_divider {
    uint32_t factor, shift;
#ifdef __CUDACC__
    __device__ uint32_t of(uint32_t n) const {
        return (__umulhi(n, factor) + n) >> shift;
    }
#endif
} conv_divider;

/* How the work is shared out. A team of lanes is what advances together: along time,
 * over one channel (the _time kernels), or along channels, over one step (_channel,
 * _strided). A unit is one segment of time: of one channel of one batch row (forward,
 * _time), or of one batch row. */
typedef struct conv_plan {
    conv_divider by_segments, by_dim, by_spans;
    uint32_t units;
    uint32_t segments; /* of a row; the last one may be longer or shorter */
    uint32_t segment;  /* its length: in tiles of a team (_time), in steps */
    uint32_t spans;  /* blocks that stand side by side along the channels; not _time */
    uint32_t groups; /* backward: blocks that share the units of a channel, or of a
                        span, and partial sums */
    uint32_t rounds; /* units that a team of bwd_time.cu, or a block of bwd_row.cu,
                        takes one after the other */
    uint32_t warps;  /* of a block of these */
    uint32_t lane_bits; /* a team has 1 << lane_bits lanes; not _row */
    uint32_t rest;      /* bwd_row.cu: tiles of a row's last segment */
} conv_plan;

typedef struct conv_forward {
    mbr_causal_conv1d_fwd_params p; /* first: see instances.def */
    conv_plan plan;
} conv_forward;

/* The workspace holds fp32 [groups][width + 1][D], the bias last. One group needs none.
 */
typedef struct conv_backward {
    mbr_causal_conv1d_bwd_params p;
    conv_plan plan;
} conv_backward;

#endif
