/* SPDX-License-Identifier: Apache-2.0
 *
 * params.h - the size rule of every struct that crosses the public interface: it
 * starts with its own size and only grows at the end.
 */
#ifndef MBR_PARAMS_H
#define MBR_PARAMS_H

#include "../mambarun.h"

/* Arguments. *p stays if its struct_size is size, points at the zero-extended copy in
 * full if it is smaller, is refused if it is larger with a nonzero tail. NULL is
 * refused, and so is what no op knows in mbr_call: another device_type or flag, threads
 * below 0, a reserved that is not 0. */
mbr_status mbr__params(const void **p, uint32_t size, void *full);

/* The struct that argument `name` points at: refuses NULL, one smaller than the first
 * release had it, and a larger one with a nonzero tail. */
mbr_status mbr__check_size(const char *name, const void *p, uint32_t first,
                           uint32_t size);

/* The same for an answer, before anything is asked. */
mbr_status mbr__check_answer(const void *out, uint32_t first, uint32_t size);

/* Then: copies full (size bytes) to out as far as out's struct_size reaches, and leaves
 * struct_size as it is. */
void mbr__answer(void *out, uint32_t size, const void *full);

/* Where a struct ended whose last field was this one. */
#define MBR_END_OF(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

#endif
