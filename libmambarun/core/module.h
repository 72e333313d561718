/* SPDX-License-Identifier: Apache-2.0
 *
 * module.h - a variant's kernels on a device: loads them through the driver, and
 * launches them. Knows no op and prefers no variant.
 */
#ifndef MBR_MODULE_H
#define MBR_MODULE_H

#include "driver.h"

enum { MBR_CUDA_DEVICES = 64 };

/* What a CUDA variant is handed. It may launch on a device once mbr__module_load has
 * loaded that variant there. */
extern const mbr_launcher mbr__launcher;

/* Loads every kernel of a variant onto a device and keeps them for the process. stream
 * is the one that is about to be used: nothing can be loaded while it is captured. If
 * the answer is not MBR_WENT_WELL, refusal says why, and another call for the same
 * variant goes on where this one ended. Not to be called by two threads at once. */
mbr_driver_kind mbr__module_load(int32_t device_id, void *stream,
                                 const mbr_table *variant, mbr_refusal *refusal);

#endif
