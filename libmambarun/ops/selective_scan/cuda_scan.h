/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_scan.h - what cuda_fwd.c tells fwd.cu beyond the params. Read by both compilers.
 */
#ifndef MBR_CUDA_SCAN_H
#define MBR_CUDA_SCAN_H

#include "selective_scan.h"

enum { /* scan_forward.wide: 16-byte accesses are right for every row of this tensor */
    WIDE_U = 1,
    WIDE_DELTA = 2,
    WIDE_B = 4,
    WIDE_C = 8,
    WIDE_Z = 16,
    WIDE_OUT = 32,
    WIDE_OUT_Z = 64
};

/* A block of threads advances `channels` channels of one group of one batch entry. */
typedef struct scan_forward {
    mbr_selective_scan_fwd_params p; /* first: see instances.def */
    int64_t groups, width;           /* groups of channels, channels in each */
    int64_t repeat;                  /* channels per row of delta */
    int64_t blocks;                  /* in all: batch * groups * blocks_per_group */
    int64_t blocks_per_group;
    uint32_t wide;
    uint32_t reserved;
} scan_forward;

#endif
