/* SPDX-License-Identifier: Apache-2.0
 *
 * locate.c - which copies of CUDA's libraries and toolkits lie here, and which of them
 * torch would load. Lists folders and reads headers; opens no library.
 *
 * Two questions are answered one after the other: first every place is listed where
 * such files are known to lie (here), then the loader's search is repeated for each
 * library that torch's own ones need (ldso.c).
 */
#include "find.h"
#include "params.h"
#include "status.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const mbr_library libraries[] = {
#define MBR_LIBRARY(what, stem, soname, folder, distribution)                          \
    {#what, stem, soname, folder, distribution},
#include "manifest.def"
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };
static const char toolkit[] = MBR_TOOLKIT_WORD;

/* Where NVIDIA's driver is put beside those: WSL, containers, Jetson, distributions. */
static const char *const driver_folders[] = {
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/aarch64-linux-gnu/tegra",
    "/usr/lib/aarch64-linux-gnu/nvidia",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib64/nvidia",
    "/run/opengl-driver/lib",
};

/* ---- every place -------------------------------------------------------------- */

static void list_folder(mbr_search *s, const mbr_library *library, const char *how,
                        const char *folder) {
    char path[MBR_PATH];
    mbr_names found;
    size_t n = mbr__tree_list(s->where.root, folder, mbr__find_is_copy, library, found,
                              MBR_MOST_NAMES);
    for (size_t i = 0; i < n; i++)
        if (mbr__find_path(path, folder, found[i]))
            mbr__find_add(s, library, how, path);
}

static void list_below(mbr_search *s, const mbr_library *library, const char *how,
                       const char *folder, const char *below) {
    char path[MBR_PATH];
    if (folder != NULL && mbr__find_path(path, folder, below))
        list_folder(s, library, how, path);
}

static bool is_cuda_major(const char *name, const void *user) {
    (void)user;
    return strncmp(name, "cu", 2) == 0 && isdigit((unsigned char)name[2]);
}

/* Below an entry of sys.path: nvidia/cudnn/lib, or nvidia/cu13/lib as since CUDA 13. */
static void list_wheels(mbr_search *s, const mbr_library *library, const char *entry) {
    char path[MBR_PATH], below[MBR_NAME + 32];
    mbr_names majors;
    snprintf(below, sizeof below, "nvidia/%s/lib", library->folder);
    list_below(s, library, "wheel", entry, below);
    if (!mbr__find_path(path, entry, "nvidia"))
        return;
    size_t n = mbr__tree_list(s->where.root, path, is_cuda_major, NULL, majors,
                              MBR_MOST_NAMES);
    for (size_t i = 0; i < n; i++) {
        snprintf(below, sizeof below, "nvidia/%s/lib", majors[i]);
        list_below(s, library, "wheel", entry, below);
    }
}

static void list_cache(mbr_search *s, const mbr_library *library) {
    const char *name, *path;
    for (size_t at = 0; mbr__ldcache_next(&s->cache, &at, &name, &path);)
        if (path[0] == '/' && strlen(path) < MBR_PATH &&
            mbr__find_is_copy(name, library))
            mbr__find_add(s, library, "ld.so.cache", path);
}

/* lib64 is a link to one of targets/ in most toolkits, and absent in some. */
static void list_toolkit(mbr_search *s, const mbr_library *library,
                         const char *folder) {
    list_below(s, library, "toolkit", folder, "lib64");
    list_below(s, library, "toolkit", folder, "lib");
    list_below(s, library, "toolkit", folder, "targets/x86_64-linux/lib");
    list_below(s, library, "toolkit", folder, "targets/sbsa-linux/lib");
    list_below(s, library, "toolkit", folder, "compat");
}

static void list_toolkits(mbr_search *s, const mbr_library *library) {
    char folder[MBR_PATH];
    mbr_names found;
    if (s->where.cuda_home != NULL)
        list_toolkit(s, library, s->where.cuda_home);
    size_t n = mbr__tree_list(s->where.root, "/usr/local", mbr__toolkit_is_name, NULL,
                              found, MBR_MOST_NAMES);
    for (size_t i = 0; i < n; i++)
        if (mbr__find_path(folder, "/usr/local", found[i]))
            list_toolkit(s, library, folder);
    list_toolkit(s, library, "/opt/cuda");
}

static void list_everywhere(mbr_search *s, const mbr_library *library) {
    char folder[MBR_PATH];
    list_below(s, library, "torch", s->where.torch, "lib");
    const char *list = s->where.sys_path;
    while (library->folder[0] != '\0' && mbr__find_piece(&list, folder))
        list_wheels(s, library, folder);
    list_below(s, library, mbr__find_is_conda(s) ? "conda" : "prefix", s->where.prefix,
               "lib");
    for (list = s->where.library_path; mbr__find_piece(&list, folder);)
        list_folder(s, library, "LD_LIBRARY_PATH", folder);
    list_cache(s, library);
    for (size_t i = 0; i < MBR_SYSTEM_FOLDERS; i++)
        list_folder(s, library, "system", mbr__find_system_folders[i]);
    for (size_t i = 0; i < sizeof driver_folders / sizeof *driver_folders; i++)
        list_folder(s, library, "driver", driver_folders[i]);
    list_toolkits(s, library);
}

static void locate_library(mbr_search *s, const mbr_library *library) {
    list_everywhere(s, library);
    if (library->soname[0] != '\0')
        mbr__ldso_find_by_name(s, library);
    else if (s->where.torch != NULL)
        mbr__ldso_find_for_torch(s, library);
}

/* ---- the call ----------------------------------------------------------------- */

static mbr_status check_what(const char *what) {
    char listed[256] = "";
    if (what == NULL || strcmp(what, toolkit) == 0)
        return MBR_OK;
    for (size_t i = 0; i < LIBRARIES; i++) {
        if (strcmp(what, libraries[i].what) == 0)
            return MBR_OK;
        snprintf(listed + strlen(listed), sizeof listed - strlen(listed), "%s, ",
                 libraries[i].what);
    }
    MBR_FAIL(MBR_E_ARG, "what is %s: must be one of %s%s, or NULL for all", what,
             listed, toolkit);
}

/* Whether this row is to be looked for: what is asked for, and what might need it. */
static bool concerns(const char *what, size_t row) {
    if (what == NULL)
        return true;
    for (size_t i = row; i < LIBRARIES; i++)
        if (strcmp(what, libraries[i].what) == 0)
            return i == row || libraries[i].soname[0] == '\0';
    return false;
}

static void locate_all(mbr_search *s, const char *what) {
    s->machine = mbr__find_machine_wanted(s);
    s->cache = mbr__ldcache_read(s->where.root);
    for (size_t i = 0; i < LIBRARIES; i++)
        if (concerns(what, i))
            locate_library(s, &libraries[i]);
    if (what == NULL || strcmp(what, toolkit) == 0)
        mbr__toolkit_locate(s);
    free(s->cache.bytes);
}

static size_t answer(const mbr_search *s, const char *what, mbr_found *out,
                     size_t capacity) {
    size_t n = 0, size = capacity > 0 ? out->struct_size : 0;
    for (size_t i = 0; i < s->count; i++) {
        if (what != NULL && strcmp(s->finds[i].found.what, what) != 0)
            continue;
        if (n < capacity) {
            char *place = (char *)out + n * size;
            memcpy(place, &out->struct_size, sizeof out->struct_size);
            mbr__answer(place, sizeof *out, &s->finds[i].found);
        }
        n++;
    }
    return n;
}

mbr_status mbr_locate(const mbr_surroundings *where, const char *what, mbr_found *out,
                      size_t capacity, size_t *count) {
    mbr_search s = {0};
    MBR_TRY(mbr__check_size("where", where, MBR_END_OF(mbr_surroundings, cuda_home),
                            sizeof *where));
    MBR_TRY(check_what(what));
    if (capacity > 0)
        MBR_TRY(mbr__check_answer(out, MBR_END_OF(mbr_found, path), sizeof *out));
    if (count == NULL)
        MBR_FAIL(MBR_E_ARG, "count is NULL");
    if (where->reserved != 0)
        MBR_FAIL(MBR_E_ARG, "where->reserved is %u: must be 0", where->reserved);
    uint32_t given = where->struct_size;
    memcpy(&s.where, where, given < sizeof s.where ? given : sizeof s.where);
    locate_all(&s, what);
    *count = answer(&s, what, out, capacity);
    free(s.finds);
    if (s.no_memory)
        MBR_FAIL(MBR_E_INTERNAL, "no memory for more than %zu finds", s.room);
    return MBR_OK;
}
