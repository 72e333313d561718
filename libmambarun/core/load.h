/* SPDX-License-Identifier: Apache-2.0
 *
 * load.h - from a call to the table of the variant that runs it.
 */
#ifndef MBR_LOAD_H
#define MBR_LOAD_H

#include "../variant/variant.h"
#include "params.h"

/* The table for c's device. One atomic load once the device is known; the first time:
 * probe, select, open. op is the entry point's name, for the message. */
mbr_status mbr__table(const mbr_call *c, const char *op, const mbr_table **out);

/* Path of this library, and where variant i is or would be. Looked up once; they live
 * as long as the process. */
const char *mbr__library_path(void);
const char *mbr__variant_path(size_t i);

#endif
