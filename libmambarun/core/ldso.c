/* SPDX-License-Identifier: Apache-2.0
 *
 * ldso.c - the dynamic loader's search, repeated without loading: which copy a library
 * would get that needs another one. The order: ld.so(8); what torch does when that
 * fails: _preload_cuda_deps in torch/__init__.py. Not repeated: folders that glibc
 * chooses by processor (glibc-hwcaps), where no CUDA library is put.
 */
#include "find.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Those of torch's that need others, in the order in which they are loaded. */
static const char *const torch_libraries[] = {
    "libtorch_global_deps.so", "libtorch_python.so", "libtorch.so",
    "libtorch_cpu.so",         "libtorch_cuda.so",   "libtorch_cuda_cu.so",
    "libtorch_cuda_cpp.so",    "libc10_cuda.so",     "libcaffe2_nvrtc.so",
    "libtorch_cuda_linalg.so",
};

/* A library that needs others: where it lies, and what its headers say. */
typedef struct asker {
    char folder[MBR_PATH]; /* $ORIGIN */
    mbr_elf elf;
} asker;

static bool open_asker(const mbr_search *s, const char *path, asker *out) {
    mbr__find_set(out->folder, sizeof out->folder, path);
    char *slash = strrchr(out->folder, '/');
    if (slash == NULL || !mbr__find_elf(s, path, &out->elf))
        return false;
    *slash = '\0';
    return true;
}

static bool has(const asker *a, int64_t tag) {
    char text[MBR_PATH];
    size_t at = 0;
    return a != NULL && mbr__elf_next(&a->elf, tag, &at, text, sizeof text);
}

/* folder/name, if the loader would take that. */
static mbr_find *try_folder(mbr_search *s, const mbr_library *library, const char *how,
                            const char *folder, const char *name) {
    char real[MBR_PATH], path[MBR_PATH]; /* $ORIGIN/../.. is nothing to show */
    if (!mbr__tree_follow(s->where.root, folder, real) ||
        !mbr__find_path(path, real, name))
        return NULL;
    if (mbr__find_machine(s, path) != s->machine) /* also if there is none */
        return NULL;
    return mbr__find_add(s, library, how, path);
}

static mbr_find *try_list(mbr_search *s, const mbr_library *library, const char *how,
                          const char *list, const char *name) {
    char folder[MBR_PATH];
    mbr_find *found = NULL;
    while (found == NULL && mbr__find_piece(&list, folder))
        found = try_folder(s, library, how, folder, name);
    return found;
}

/* The folders of DT_RPATH or DT_RUNPATH. */
static mbr_find *try_tag(mbr_search *s, const mbr_library *library, const asker *a,
                         int64_t tag, const char *name) {
    char list[MBR_PATH], piece[MBR_PATH], folder[2 * MBR_PATH];
    size_t at = 0;
    if (a == NULL || !mbr__elf_next(&a->elf, tag, &at, list, sizeof list))
        return NULL;
    mbr_find *found = NULL;
    for (const char *rest = list; found == NULL && mbr__find_piece(&rest, piece);) {
        static const char *const origins[] = {"$ORIGIN", "${ORIGIN}"};
        mbr__find_set(folder, sizeof folder, piece);
        for (size_t i = 0; i < sizeof origins / sizeof *origins; i++)
            if (strncmp(piece, origins[i], strlen(origins[i])) == 0)
                snprintf(folder, sizeof folder, "%s%s", a->folder,
                         piece + strlen(origins[i]));
        if (strlen(folder) < MBR_PATH)
            found = try_folder(s, library, "rpath", folder, name);
    }
    return found;
}

static mbr_find *try_rpaths(mbr_search *s, const mbr_library *library, const asker *a,
                            const char *name) {
    if (has(a, DT_RUNPATH)) /* then all DT_RPATH are ignored, the program's too */
        return NULL;
    mbr_find *found = try_tag(s, library, a, DT_RPATH, name);
    asker program;
    char real[MBR_PATH];
    const char *executable = s->where.executable;
    if (found != NULL || executable == NULL ||
        !mbr__tree_follow(s->where.root, executable, real) ||
        !open_asker(s, real, &program))
        return found;
    if (!has(&program, DT_RUNPATH))
        found = try_tag(s, library, &program, DT_RPATH, name);
    close(program.elf.fd);
    return found;
}

static mbr_find *try_cache(mbr_search *s, const mbr_library *library,
                           const char *name) {
    const char *key, *path;
    for (size_t at = 0; mbr__ldcache_next(&s->cache, &at, &key, &path);)
        if (strcmp(key, name) == 0 && strlen(path) < MBR_PATH && path[0] == '/' &&
            mbr__find_machine(s, path) == s->machine)
            return mbr__find_add(s, library, "ld.so.cache", path);
    return NULL;
}

static mbr_find *try_system(mbr_search *s, const mbr_library *library,
                            const char *name) {
    mbr_find *found = NULL;
    for (size_t i = 0; found == NULL && i < MBR_SYSTEM_FOLDERS; i++)
        found = try_folder(s, library, "system", mbr__find_system_folders[i], name);
    return found;
}

/* What torch does itself when the loader finds none. */
static mbr_find *try_preload(mbr_search *s, const mbr_library *library,
                             const char *name) {
    char entry[MBR_PATH], below[MBR_NAME + 32], folder[MBR_PATH];
    const char *digits = strstr(name, ".so.");
    size_t major = digits != NULL ? strspn(digits + 4, "0123456789") : 0;
    mbr_find *found = NULL;
    for (const char *list = s->where.sys_path; library->folder[0] != '\0' &&
                                               found == NULL &&
                                               mbr__find_piece(&list, entry);) {
        snprintf(below, sizeof below, "nvidia/%s/lib", library->folder);
        if (mbr__find_path(folder, entry, below))
            found = try_folder(s, library, "wheel", folder, name);
        snprintf(below, sizeof below, "nvidia/cu%.*s/lib", (int)major,
                 digits != NULL ? digits + 4 : "");
        if (found == NULL && mbr__find_path(folder, entry, below))
            found = try_folder(s, library, "wheel", folder, name);
    }
    return found;
}

/* a needs name; NULL for what a program asks for itself. */
static mbr_find *find_needed(mbr_search *s, const mbr_library *library, const asker *a,
                             const char *name) {
    mbr_find *found = mbr__find_use(try_rpaths(s, library, a, name), "DT_RPATH");
    if (found == NULL)
        found = mbr__find_use(
            try_list(s, library, "LD_LIBRARY_PATH", s->where.library_path, name),
            "LD_LIBRARY_PATH");
    if (found == NULL)
        found = mbr__find_use(try_tag(s, library, a, DT_RUNPATH, name), "DT_RUNPATH");
    if (found == NULL)
        found = mbr__find_use(try_cache(s, library, name), "ld.so.cache");
    if (found == NULL)
        found = mbr__find_use(try_system(s, library, name), "system");
    if (found == NULL && a != NULL)
        found = mbr__find_use(try_preload(s, library, name), "preload");
    return found;
}

static void miss(mbr_search *s, const mbr_library *library, const char *name) {
    mbr_find *f = mbr__find_new(s);
    if (f == NULL)
        return;
    f->found.what = library->what;
    f->found.how = "";
    f->found.used = 1;
    mbr__find_set(f->found.name, sizeof f->found.name, name);
}

/* Whether the library at path needs this one; if so, finds it. */
static bool serve(mbr_search *s, const mbr_library *library, const char *path) {
    asker a;
    char name[MBR_NAME];
    bool needs = false;
    if (!open_asker(s, path, &a))
        return false;
    for (size_t at = 0;
         !needs && mbr__elf_next(&a.elf, DT_NEEDED, &at, name, sizeof name);)
        needs = mbr__find_is_copy(name, library);
    if (needs && find_needed(s, library, &a, name) == NULL)
        miss(s, library, name);
    close(a.elf.fd);
    return needs;
}

void mbr__ldso_find_for_torch(mbr_search *s, const mbr_library *library) {
    char path[MBR_PATH], file[MBR_PATH];
    for (size_t i = 0; i < sizeof torch_libraries / sizeof *torch_libraries; i++) {
        snprintf(file, sizeof file, "lib/%s", torch_libraries[i]);
        if (mbr__find_path(path, s->where.torch, file) && serve(s, library, path))
            return;
    }
    for (size_t i = 0, n = s->count; i < n; i++) {
        mbr__find_set(path, sizeof path, s->finds[i].found.path);
        if (s->finds[i].found.used && path[0] != '\0' && serve(s, library, path))
            return;
    }
}

void mbr__ldso_find_by_name(mbr_search *s, const mbr_library *library) {
    find_needed(s, library, NULL, library->soname);
}
