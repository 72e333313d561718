/* SPDX-License-Identifier: Apache-2.0
 *
 * elf.c - elf.h, after chapters 4 and 5 of the System V gABI. Every offset and size
 * comes from a file that may be anything, so each read may fail and none is trusted.
 */
#include "elf.h"

#include <string.h>
#include <unistd.h>

enum { MOST_SEGMENTS = 64 };

/* All of it, or false. */
static bool read_at(int fd, uint64_t at, void *out, size_t size) {
    if (at > INT64_MAX)
        return false;
    ssize_t got = pread(fd, out, size, (off_t)at);
    return got >= 0 && (size_t)got == size;
}

static bool is_native(const Elf64_Ehdr *h) {
    const uint16_t one = 1;
    unsigned char order = *(const unsigned char *)&one == 1 ? ELFDATA2LSB : ELFDATA2MSB;
    return memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 &&
           h->e_ident[EI_CLASS] == ELFCLASS64 && h->e_ident[EI_DATA] == order &&
           h->e_phentsize == sizeof(Elf64_Phdr) && h->e_phnum <= MOST_SEGMENTS;
}

static const Elf64_Phdr *find_segment(const Elf64_Phdr *p, size_t n, uint32_t type,
                                      uint64_t address) {
    for (size_t i = 0; i < n; i++)
        if (p[i].p_type == type &&
            (type == PT_DYNAMIC ||
             (address >= p[i].p_vaddr && address - p[i].p_vaddr < p[i].p_filesz)))
            return &p[i];
    return NULL;
}

static uint64_t value_of(const mbr_elf *elf, int64_t tag) {
    for (size_t i = 0; i < elf->count; i++)
        if (elf->dynamic[i].d_tag == tag)
            return elf->dynamic[i].d_un.d_val;
    return 0;
}

static bool read_dynamic(mbr_elf *out, const Elf64_Phdr *p, size_t n) {
    const Elf64_Phdr *dynamic = find_segment(p, n, PT_DYNAMIC, 0);
    if (dynamic == NULL) /* static, or no library: it names no other */
        return true;
    uint64_t count = dynamic->p_filesz / sizeof *out->dynamic;
    out->count = count < MBR_ELF_ENTRIES ? (size_t)count : MBR_ELF_ENTRIES;
    if (!read_at(out->fd, dynamic->p_offset, out->dynamic,
                 out->count * sizeof *out->dynamic))
        return false;
    uint64_t address = value_of(out, DT_STRTAB);
    const Elf64_Phdr *names = find_segment(p, n, PT_LOAD, address);
    if (names == NULL)
        return false;
    out->names = names->p_offset + (address - names->p_vaddr);
    out->names_size = value_of(out, DT_STRSZ);
    return true;
}

bool mbr__elf_read(int fd, mbr_elf *out) {
    Elf64_Ehdr header;
    Elf64_Phdr segments[MOST_SEGMENTS];
    memset(out, 0, sizeof *out);
    out->fd = fd;
    if (!read_at(fd, 0, &header, sizeof header) || !is_native(&header) ||
        !read_at(fd, header.e_phoff, segments, header.e_phnum * sizeof *segments))
        return false;
    out->machine = header.e_machine;
    return read_dynamic(out, segments, header.e_phnum);
}

bool mbr__elf_next(const mbr_elf *elf, int64_t tag, size_t *at, char *out,
                   size_t size) {
    while (*at < elf->count && elf->dynamic[*at].d_tag != DT_NULL) {
        const Elf64_Dyn *entry = &elf->dynamic[(*at)++];
        if (entry->d_tag != tag || entry->d_un.d_val >= elf->names_size)
            continue;
        ssize_t got =
            pread(elf->fd, out, size, (off_t)(elf->names + entry->d_un.d_val));
        if (got > 0 && memchr(out, '\0', (size_t)got) != NULL)
            return true;
    }
    return false;
}
