/* SPDX-License-Identifier: Apache-2.0
 *
 * load.h - from a call to the table of the variant that runs it.
 */
#ifndef MBR_LOAD_H
#define MBR_LOAD_H

#include "../variant/variant.h"

/* The table for c's device. One atomic load once the device is known; the first time:
 * probe, select, open. op is the entry point's name, for the message. */
mbr_status mbr__table(const mbr_call *c, const char *op, const mbr_table **out);

/* The size rule of every params struct (mambarun.h): *p stays if its struct_size is
 * size, points at the zero-extended copy in full if it is smaller, is refused if it is
 * larger with a nonzero tail. NULL is refused. Also refuses an unknown device_type. */
mbr_status mbr__params(const void **p, uint32_t size, void *full);

#endif
