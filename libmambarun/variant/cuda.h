/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.h - the host side of a CUDA variant, in C: which kernels it holds and how one is
 * launched. Allocates nothing, waits for nothing, knows no op.
 */
#ifndef MBR_CUDA_H
#define MBR_CUDA_H

#include "variant.h"

/* MBR_KERNEL_<name>: a kernel's number among the blobs. mbr_kernels.h, written by the
 * build, includes every room's instances.def with MBR_KERNEL_ROW as its macro. */
enum {
#define MBR_KERNEL_ROW(name, source, macros) MBR_KERNEL_##name,
#include "mbr_kernels.h"
#undef MBR_KERNEL_ROW
    MBR_KERNELS
};

/* By number; written by kernels.py. The last one is empty, for a variant of none. */
extern const mbr_blob mbr__blobs[MBR_KERNELS + 1];

/* Which compiler and for what, for reports. */
extern const char mbr__built_with[];

/* For entry.c. */
void mbr__use_launcher(const mbr_launcher *launcher);

/* Launches a kernel on c's device and stream, with one argument: size bytes at params,
 * which are copied. MBR_E_CUDA with the driver's words. */
mbr_status mbr__launch(const mbr_call *c, uint32_t kernel, const mbr_launch *how,
                       const void *params, size_t size);

/* Of c's device. */
int32_t mbr__multiprocessors(const mbr_call *c);

#endif
