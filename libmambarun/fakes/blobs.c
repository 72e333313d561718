/* SPDX-License-Identifier: Apache-2.0
 *
 * blobs.c - every kernel of every room as a word, in place of what kernels.py writes: a
 * CUDA variant for the fake driver, which needs no compiler of NVIDIA's.
 */
#include "variant/cuda.h"

const char mbr__built_with[] = "fake";

const mbr_blob mbr__blobs[MBR_KERNELS + 1] = {
#define MBR_KERNEL_ROW(name, source, macros)                                           \
    [MBR_KERNEL_##name] = {#name, "image of " #name, sizeof "image of " #name},
#include "mbr_kernels.h"
    [MBR_KERNELS] = {0},
};
