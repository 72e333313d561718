/* SPDX-License-Identifier: Apache-2.0
 *
 * status.h - how the core and the rooms say what went wrong. Two macros and no more.
 */
#ifndef MBR_STATUS_H
#define MBR_STATUS_H

#include "../mambarun.h"

/* A message is cut here. Long enough for one line per row of the manifest, each with a
 * whole mbr_variant_info.reason. */
enum { MBR_MESSAGE = 8192 };

/* Formats this thread's message and returns s. The arguments may point into the
 * previous message. */
__attribute__((format(printf, 2, 3))) mbr_status mbr__fail(mbr_status s,
                                                           const char *fmt, ...);

#define MBR_FAIL(status, ...) return mbr__fail((status), __VA_ARGS__)
#define MBR_TRY(expr)                                                                  \
    do {                                                                               \
        mbr_status mbr__s = (expr);                                                    \
        if (mbr__s != MBR_OK)                                                          \
            return mbr__s;                                                             \
    } while (0)

/* Last line of a message that has more to say than fits; code is "MRnnn". Every code
 * that C can name is written as MBR_CODE_* here and has a text in the shim's table. */
#define MBR_EXPLAIN "\n  run: python -m mambarun --explain "
#define MBR_CODE_MIXED "MR001"   /* files of two mambarun versions lie together */
#define MBR_CODE_DRIVER "MR102"  /* no libcuda.so.1, or one that lacks what we need */
#define MBR_CODE_STUB "MR105"    /* libcuda.so.1 is the toolkit's link-time stub */
#define MBR_CODE_COMPAT "MR106"  /* driver library and kernel driver do not match */
#define MBR_CODE_FABRIC "MR107"  /* the fabric manager does not run */
#define MBR_CODE_HIDDEN "MR109"  /* the driver shows no such device */
#define MBR_CODE_BUSY "MR111"    /* no memory on the device, or it is taken */
#define MBR_CODE_CUDA "MR112"    /* any other answer of the driver */
#define MBR_CODE_JIT "MR113"     /* the driver's PTX compiler is not there */
#define MBR_CODE_PTX "MR114"     /* the driver does not compile that PTX */
#define MBR_CODE_IMAGE "MR115"   /* a variant's kernels do not load on this device */
#define MBR_CODE_CAPTURE "MR116" /* the first call for a device is in a capture */
#define MBR_CODE_FAULT "MR117"   /* the device or an earlier kernel failed */
#define MBR_CODE_LAUNCH "MR118"  /* the driver refuses a launch */
#define MBR_CODE_FORK "MR119"    /* CUDA in a forked child */
#define MBR_CODE_VARIANT "MR120" /* no variant: the list of verdicts */
#define MBR_CODE_ASKED "MR304"   /* MAMBARUN_VARIANT names no variant */

/* One line on stderr if MAMBARUN_TRACE=1, else nothing. */
__attribute__((format(printf, 1, 2))) void mbr__trace(const char *fmt, ...);

#endif
