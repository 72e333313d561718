/* SPDX-License-Identifier: Apache-2.0
 *
 * select.h - which variant runs on a device: the manifest's rows, and a verdict on
 * each.
 */
#ifndef MBR_SELECT_H
#define MBR_SELECT_H

#include <stdbool.h>

#include "probe.h"

/* One row of manifest.def. */
typedef struct mbr_row {
    const char *name;
    const char *mode;    /* "cpu", "cubin" or "ptx" */
    int32_t device_type; /* MBR_DEVICE_* */
    uint32_t cpu;        /* CPU: MBR_CPU_* it needs */
    int32_t toolkit;     /* CUDA: major version it is built with */
    int32_t arch;        /* CUDA: 80 is sm_80 */
    int32_t least_cc;    /* CUDA: compute capability from */
    int32_t last_cc;     /* CUDA: to */
    bool for_tests;      /* runs only if MAMBARUN_VARIANT names it */
} mbr_row;

enum {
#define MBR_CPU_VARIANT(name, isa) MBR_ROW_##name,
#define MBR_CUDA_VARIANT(name, toolkit, kind, arch, least_cc, last_cc) MBR_ROW_##name,
#define MBR_CUDA_TEST_VARIANT MBR_CUDA_VARIANT
#include "../manifest.def"
    MBR_ROWS
};
extern const mbr_row mbr__rows[MBR_ROWS]; /* in order of preference */

typedef struct mbr_verdict {
    bool accepted;
    char reason[256]; /* why, or why not; one sentence */
} mbr_verdict;

/* Judges every row for the device of f. forced is NULL or the name that
 * MAMBARUN_VARIANT has: of the rows of its kind of device only that one can be
 * accepted, other kinds are not touched. If no row has it, all are refused:
 * MBR_E_NO_VARIANT. */
mbr_status mbr__select(const mbr_facts *f, const char *forced,
                       mbr_verdict out[MBR_ROWS]);

#endif
