/* SPDX-License-Identifier: Apache-2.0
 *
 * find.c - what a file is that mbr_locate meets, and the list of those. Knows no place
 * and no search.
 */
#include "find.h"

#include "load.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_FINDS = 1024 };

const char *const mbr__find_system_folders[MBR_SYSTEM_FOLDERS] = {
    "/lib64",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/usr/lib",
};

void mbr__find_set(char *out, size_t size, const char *text) {
    snprintf(out, size, "%s", text);
}

bool mbr__find_path(char *out, const char *folder, const char *name) {
    int length = snprintf(out, MBR_PATH, "%s/%s", folder, name);
    return length > 0 && length < MBR_PATH;
}

bool mbr__find_piece(const char **list, char *out) {
    while (*list != NULL && **list != '\0') {
        size_t length = strcspn(*list, ":");
        const char *piece = *list;
        *list += length + ((*list)[length] == ':');
        if (length > 0 && length < MBR_PATH) {
            memcpy(out, piece, length);
            out[length] = '\0';
            return true;
        }
    }
    return false;
}

/* ---- what a file is ----------------------------------------------------------- */

bool mbr__find_elf(const mbr_search *s, const char *path, mbr_elf *out) {
    int fd = mbr__tree_open(s->where.root, path);
    if (fd < 0)
        return false;
    if (mbr__elf_read(fd, out))
        return true;
    close(fd);
    return false;
}

uint16_t mbr__find_machine(const mbr_search *s, const char *path) {
    mbr_elf elf;
    if (path == NULL || !mbr__find_elf(s, path, &elf))
        return EM_NONE;
    close(elf.fd);
    return elf.machine;
}

uint16_t mbr__find_machine_wanted(const mbr_search *s) {
    char path[MBR_PATH];
    uint16_t machine = EM_NONE;
    if (s->where.torch != NULL && mbr__find_path(path, s->where.torch, "lib/libc10.so"))
        machine = mbr__find_machine(s, path);
    if (machine == EM_NONE)
        machine = mbr__find_machine(s, s->where.executable);
    if (machine == EM_NONE) {
        const mbr_search here = {0};
        machine = mbr__find_machine(&here, mbr__library_path());
    }
    return machine;
}

/* libcudart.so.12 and libcudart-80664282.so.10.2, but not libcudart.so, which is for
 * linking, nor libcudart_static.a. */
bool mbr__find_is_copy(const char *name, const void *user) {
    const mbr_library *library = user;
    size_t length = strlen(library->stem);
    if (strncmp(name, library->stem, length) != 0)
        return false;
    name += length;
    if (*name == '-')
        name += 1 + strspn(name + 1, "0123456789abcdef");
    return strncmp(name, ".so.", 4) == 0 && isdigit((unsigned char)name[4]);
}

/* ---- versions ----------------------------------------------------------------- */

void mbr__find_digits(const char *from, char *out, size_t size) {
    size_t length = strspn(from, "0123456789.");
    while (length > 0 && from[length - 1] == '.')
        length--;
    snprintf(out, size, "%.*s", (int)length, from);
}

static bool is_distribution(const char *name, const void *user) {
    const char *end = strstr(name, ".dist-info");
    size_t length = strlen(user);
    return end != NULL && end[strlen(".dist-info")] == '\0' &&
           strncmp(name, user, length) == 0 &&
           (name[length] == '-' || strncmp(name + length, "_cu", 3) == 0);
}

/* "12.1.105" of SITE/nvidia_cuda_runtime_cu12-12.1.105.dist-info, if that is of the
 * major version that the file's name has. */
static void ask_wheel(const mbr_search *s, const mbr_library *library, const char *real,
                      char version[32]) {
    char site[MBR_PATH], said[32];
    mbr_names found;
    const char *end = NULL; /* the last one: the user may be called nvidia, too */
    for (const char *at = real; (at = strstr(at, "/nvidia/")) != NULL; at++)
        end = at;
    if (end == NULL || library->distribution[0] == '\0')
        return;
    snprintf(site, sizeof site, "%.*s", (int)(end - real), real);
    size_t n = mbr__tree_list(s->where.root, site, is_distribution,
                              library->distribution, found, MBR_MOST_NAMES);
    size_t major = strcspn(version, ".");
    for (size_t i = 0; i < n; i++) {
        mbr__find_digits(strchr(found[i], '-') + 1, said, sizeof said);
        if (strncmp(said, version, major) == 0 && said[major] == '.') {
            mbr__find_set(version, 32, said);
            return;
        }
    }
}

static void find_version(const mbr_search *s, const mbr_library *library,
                         const char *real, char version[32]) {
    const char *name = strrchr(real, '/'), *digits = strstr(name, ".so.");
    if (digits != NULL)
        mbr__find_digits(digits + strlen(".so."), version, 32);
    const char *dot = strchr(version, '.');
    if (dot == NULL || strchr(dot + 1, '.') == NULL)
        ask_wheel(s, library, real, version);
}

/* ---- the list ----------------------------------------------------------------- */

mbr_find *mbr__find_new(mbr_search *s) {
    if (s->count == s->room) {
        size_t room = s->room == 0 ? 32 : 2 * s->room;
        mbr_find *larger =
            room > MOST_FINDS ? NULL : realloc(s->finds, room * sizeof *larger);
        s->no_memory = s->no_memory || (larger == NULL && room <= MOST_FINDS);
        if (larger == NULL)
            return NULL;
        s->finds = larger;
        s->room = room;
    }
    mbr_find *f = &s->finds[s->count++];
    memset(f, 0, sizeof *f);
    f->found.by = "";
    return f;
}

mbr_find *mbr__find_known(const mbr_search *s, const char *what, const char *real) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->finds[i].found.what, what) == 0 &&
            strcmp(s->finds[i].real, real) == 0)
            return &s->finds[i];
    return NULL;
}

mbr_find *mbr__find_add(mbr_search *s, const mbr_library *library, const char *how,
                        const char *path) {
    char real[MBR_PATH];
    if (!mbr__tree_follow(s->where.root, path, real))
        return NULL;
    mbr_find *f = mbr__find_known(s, library->what, real);
    if (f != NULL || (f = mbr__find_new(s)) == NULL)
        return f;
    f->found.what = library->what;
    f->found.how = how;
    f->found.fits = mbr__find_machine(s, real) == s->machine;
    mbr__find_set(f->real, sizeof f->real, real);
    mbr__find_set(f->found.name, sizeof f->found.name, strrchr(path, '/') + 1);
    mbr__find_set(f->found.path, sizeof f->found.path, path);
    find_version(s, library, real, f->found.version);
    return f;
}

mbr_find *mbr__find_use(mbr_find *found, const char *by) {
    if (found != NULL && !found->found.used) {
        found->found.used = 1;
        found->found.by = by;
    }
    return found;
}

bool mbr__find_is_conda(const mbr_search *s) {
    char path[MBR_PATH];
    return s->where.prefix != NULL &&
           mbr__find_path(path, s->where.prefix, "conda-meta") &&
           mbr__tree_is_folder(s->where.root, path);
}
