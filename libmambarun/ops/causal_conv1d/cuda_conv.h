/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_conv.h - what cuda.c tells the kernels beyond the params. Read by both
 * compilers.
 */
#ifndef MBR_CUDA_CONV_H
#define MBR_CUDA_CONV_H

#include "causal_conv1d.h"

enum {
    CONV_THREADS = 128,     /* per block, but of reduce.cu */
    CONV_LANES = 32,        /* of a team at most */
    CONV_REDUCE_LANES = 32, /* channels that a block of reduce.cu adds up */
    CONV_REDUCE_THREADS = 256
};

/* How the work is shared out. A team of lanes is what advances together: along time,
 * over one channel (the _time kernels), or along channels, over one step (_channel). A
 * unit is one segment of time of one batch row. */
typedef struct conv_plan {
    int64_t segments; /* of a batch row; the last one may be longer or shorter */
    int64_t segment;  /* its length: in tiles of a team (_time), in steps (_channel) */
    int64_t spans;    /* _channel: blocks that stand side by side along the channels */
    int64_t groups;   /* teams that share the units of a channel (_time); backward, also
                         blocks that do (_channel), and partial sums */
    uint32_t lane_bits; /* a team has 1 << lane_bits lanes */
    uint32_t reserved;
} conv_plan;

typedef struct conv_forward {
    mbr_causal_conv1d_fwd_params p; /* first: see instances.def */
    conv_plan plan;
} conv_forward;

/* The workspace holds fp32 [groups][width + 1][D], the bias last. */
typedef struct conv_backward {
    mbr_causal_conv1d_bwd_params p;
    conv_plan plan;
} conv_backward;

#endif
