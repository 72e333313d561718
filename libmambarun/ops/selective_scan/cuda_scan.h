/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_scan.h - what cuda_fwd.c and cuda_bwd.c tell their kernels beyond the params.
 * Read by both compilers.
 */
#ifndef MBR_CUDA_SCAN_H
#define MBR_CUDA_SCAN_H

#include "selective_scan.h"

enum { /* scan_forward.rows, of: */
       ROWS_U,
       ROWS_DELTA,
       ROWS_Z,
       ROWS_B,
       ROWS_C,
       ROWS_OUT,
       ROWS_OUT_Z,
       ROWS_X,
       ROWS
};

enum { /* scan_rows.how: what accesses are right for every row of a tensor */
       IN_ELEMENTS, /* of one element: time is not the innermost axis */
       IN_WORDS,    /* of 4 bytes, wherever a row begins */
       IN_PIECES    /* of 16 bytes */
};

/* The rows of a tensor along time: one for each batch entry and channel, or row of
 * delta, or group and state. Zeros: there are none. */
typedef struct scan_rows {
    char *data;
    int64_t batch, channel; /* strides in bytes */
    int64_t state, time;    /* and in elements; of x, time is from entry to entry */
    int64_t how;
} scan_rows;

enum { /* scan_backward.rows, of: */
       BACK_U,
       BACK_DELTA,
       BACK_Z,
       BACK_DOUT,
       BACK_OUT,
       BACK_FETCHED, /* so many are fetched a tile ahead */
       BACK_B = BACK_FETCHED,
       BACK_C,
       BACK_DZ,
       BACK_OUT_Z,
       BACK_DU,
       BACK_DDELTA, /* or, if delta is grouped, its terms in the workspace */
       BACK_ROWS
};

enum {              /* scan_forward.pass: a block takes */
       WHOLE,       /* all positions */
       STATES_ONLY, /* one chunk, from states of 0, and only writes its entry of x */
       FROM_STATES  /* one chunk, from the states of the entry before */
};

/* A block of threads advances `channels` channels of one group of one batch entry. */
typedef struct scan_forward {
    mbr_selective_scan_fwd_params p; /* first: see instances.def */
    int64_t groups, width;           /* groups of channels, channels in each */
    int64_t repeat;                  /* channels per row of delta */
    int64_t
        blocks; /* in all: batch * groups * blocks_per_group, by chunks if not WHOLE */
    int64_t blocks_per_group;
    int64_t first_block; /* of this launch */
    int64_t chunks;
    scan_rows rows[ROWS];
    uint32_t pass;
    int32_t tiles;       /* of lanes * steps positions, of the whole length */
    int32_t whole_tiles; /* of them */
    int32_t rest;        /* positions in the last, if that is not whole */
    uint32_t
        plain; /* B and C are variable, and no row of theirs begins inside a word */
    uint32_t pieces_BC; /* B and C are variable, and accessed in pieces */
    int64_t channels;   /* of a block of fwd_one.cu */
} scan_forward;

/* A block of threads takes `channels` channels of one group of one batch entry
 * backwards; what they add to dB and dC goes to one of `slices` partial sums. All
 * pointers are parts of the workspace; `value` is a float, of a complex A two. P is 2
 * for a complex A, else 1. */
typedef struct scan_backward {
    mbr_selective_scan_bwd_params p; /* first: see instances.def */
    int64_t groups, width;           /* groups of channels, channels in each */
    int64_t repeat;                  /* channels per row of delta */
    int64_t tiles; /* of lanes * steps positions, of the whole length */
    int64_t blocks, blocks_per_group;
    int64_t chunks;       /* the sweep's blocks take one each */
    int64_t sweep_blocks; /* of a group and chunk */
    int64_t slices;
    int64_t first_block; /* of this launch */
    scan_rows rows[BACK_ROWS];
    uint32_t full;       /* bits 1 << BACK_..: rows of fp32, whatever u is */
    uint32_t fetched[3]; /* such bits, by scan_rows.how: those that bwd.cu fetches so */
    uint32_t atomic;     /* blocks share slices, which the sweep has set to 0 */
    uint32_t plain;      /* all rows are of u's type and accessed in pieces */
    uint32_t lanes, steps; /* of the kernel that wrote the partial sums */
    int64_t channels;      /* of a block of bwd_one.cu or bwd_serial.cu, else 0 */
    float *partial;        /* [slice][b][group][tile][state][2 * lanes * steps * P] */
    float *entry;   /* [b][channel][tile][state] value: the state before a tile */
    float *sums;    /* [b][channel][SUMS_VALUES + SUMS_BY_STATE * states * P] */
    float *grouped; /* [b][channel][padded]: ddelta before its rows are summed */
    int64_t padded; /* the length in whole tiles */
    int64_t sum_blocks[4]; /* of the last kernel, by job: see bwd_sum.cu */
} scan_backward;

enum { /* scan_backward.sums */
       SUMS_D,
       SUMS_BIAS,
       SUMS_VALUES,
       /* Then, by state each: dA, the gradients of constant B and C, and what a tile
        * hands to the left. */
       SUMS_BY_STATE = 4
};

enum {
    SUM_FEW_SLICES = 128
}; /* up to so many, one thread of bwd_sum.cu adds them up */

enum {                                 /* of a block at most, in */
       SCAN_ONE_FORWARD_THREADS = 256, /* fwd_one.cu */
       SCAN_ONE_THREADS = 512          /* bwd_one.cu */
};

#endif
