/* SPDX-License-Identifier: Apache-2.0
 *
 * dl.h - opening libraries and asking where they lie, per operating system. Nothing
 * that is opened here is ever closed. Knows no library by name.
 */
#ifndef MBR_DL_H
#define MBR_DL_H

#include <stdbool.h>
#include <stddef.h>

/* Opens path with every symbol resolved and none made visible to others, or, if name
 * has no slash, what the system's search finds. NULL: mbr__dl_error says why. */
void *mbr__dl_open(const char *path);

/* The library of this name if the process has it already, else NULL. */
void *mbr__dl_loaded(const char *name);

/* NULL if library has no such symbol. */
void *mbr__dl_symbol(void *library, const char *name);

/* Why this thread's latest mbr__dl_open failed; never NULL. */
const char *mbr__dl_error(void);

/* Absolute path of the file whose code or data address is; symbolic links of the file
 * itself are kept, so that "beside it" means where it was found. false: unknown. */
bool mbr__dl_file_of(const void *address, char *out, size_t size);

/* Whether there is a file at path. */
bool mbr__dl_exists(const char *path);

#endif
