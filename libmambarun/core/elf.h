/* SPDX-License-Identifier: Apache-2.0
 *
 * elf.h - the few words of an ELF file's dynamic section that decide which other files
 * a loader takes. Reads with bounds; loads nothing.
 */
#ifndef MBR_ELF_H
#define MBR_ELF_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One file that is open. Its dynamic section is cut at MBR_ELF_ENTRIES; torch's largest
 * has about 60. */
enum { MBR_ELF_ENTRIES = 512 };
typedef struct mbr_elf {
    int fd;
    uint16_t machine;           /* EM_* */
    uint64_t names, names_size; /* where DT_STRTAB lies in the file */
    size_t count;
    Elf64_Dyn dynamic[MBR_ELF_ENTRIES];
} mbr_elf;

/* Reads fd's headers; false if it is no whole 64-bit ELF file in this machine's byte
 * order. fd stays the caller's, and open as long as *out is asked. */
bool mbr__elf_read(int fd, mbr_elf *out);

/* The next string of that tag (DT_NEEDED, DT_RPATH, ...), from entry *at on, which is
 * set behind it. false: there is none, or it does not fit. */
bool mbr__elf_next(const mbr_elf *elf, int64_t tag, size_t *at, char *out, size_t size);

#endif
