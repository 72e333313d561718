/* SPDX-License-Identifier: Apache-2.0
 *
 * toolkit.c - which CUDA toolkits lie here, their versions, and with which one torch's
 * cpp_extension would compile: CUDA_HOME, else the one of nvcc on PATH, else
 * /usr/local/cuda.
 */
#include "find.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char toolkit[] = MBR_TOOLKIT_WORD;

bool mbr__toolkit_is_name(const char *name, const void *user) {
    (void)user;
    return strncmp(name, "cuda", 4) == 0 && (name[4] == '\0' || name[4] == '-');
}

/* Where a toolkit writes its version: file, text before it, text before that number. */
static const struct version_file {
    const char *file, *first, *then;
} version_files[] = {
    {"version.json", "\"cuda\"", "\"version\""},
    {"version.txt", "CUDA Version", ""},
    {"include/cuda.h", "#define CUDA_VERSION", ""},
};

static bool read_version_file(const mbr_search *s, const char *folder,
                              const struct version_file *from, char version[32]) {
    char path[MBR_PATH], text[65536];
    if (!mbr__find_path(path, folder, from->file) ||
        !mbr__tree_text(s->where.root, path, text, sizeof text))
        return false;
    const char *at = strstr(text, from->first);
    at = at != NULL ? strstr(at + strlen(from->first), from->then) : NULL;
    if (at == NULL)
        return false;
    at += strcspn(at + strlen(from->then), "0123456789") + strlen(from->then);
    mbr__find_digits(at, version, 32);
    if (strchr(version, '.') == NULL) { /* 12010 is 12.1 */
        long number = strtol(version, NULL, 10);
        snprintf(version, 32, "%ld.%ld", number / 1000, number % 1000 / 10);
    }
    return true;
}

static bool read_toolkit_versions(const mbr_search *s, const char *folder,
                                  char version[32]) {
    for (size_t i = 0; i < sizeof version_files / sizeof *version_files; i++)
        if (read_version_file(s, folder, &version_files[i], version))
            return true;
    return false;
}

/* folder's, or else that of the toolkit into which its bin/nvcc is a link. */
static void find_toolkit_version(const mbr_search *s, const char *folder,
                                 char version[32]) {
    char path[MBR_PATH], real[MBR_PATH];
    if (read_toolkit_versions(s, folder, version) ||
        !mbr__find_path(path, folder, "bin/nvcc") ||
        !mbr__tree_follow(s->where.root, path, real))
        return;
    static const char nvcc[] = "/bin/nvcc";
    size_t length = strlen(real), tail = strlen(nvcc);
    if (length > tail && strcmp(real + length - tail, nvcc) == 0) {
        real[length - tail] = '\0';
        read_toolkit_versions(s, real, version);
    }
}

static void add_toolkit(mbr_search *s, const char *how, const char *folder) {
    char real[MBR_PATH];
    if (!mbr__tree_is_folder(s->where.root, folder) ||
        !mbr__tree_follow(s->where.root, folder, real) ||
        mbr__find_known(s, toolkit, real) != NULL)
        return;
    mbr_find *f = mbr__find_new(s);
    if (f == NULL)
        return;
    f->found.what = toolkit;
    f->found.how = how;
    f->found.fits = 1;
    mbr__find_set(f->real, sizeof f->real, real);
    mbr__find_set(f->found.path, sizeof f->found.path, folder);
    mbr__find_set(f->found.name, sizeof f->found.name, strrchr(folder, '/') + 1);
    find_toolkit_version(s, real, f->found.version);
}

/* A folder that is one by what it holds: compat packages lie in /usr/local/cuda-* too.
 */
static bool holds_toolkit(const mbr_search *s, const char *folder) {
    static const char *const signs[] = {"bin/nvcc", "version.json", "version.txt",
                                        "include/cuda.h", "include/cuda_runtime.h"};
    char path[MBR_PATH], real[MBR_PATH];
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (mbr__find_path(path, folder, signs[i]) &&
            mbr__tree_follow(s->where.root, path, real))
            return true;
    return false;
}

static void add_if_toolkit(mbr_search *s, const char *how, const char *folder) {
    if (holds_toolkit(s, folder))
        add_toolkit(s, how, folder);
}

static void list_nvcc(mbr_search *s) {
    char folder[MBR_PATH], path[MBR_PATH], real[MBR_PATH];
    for (const char *list = s->where.program_path; mbr__find_piece(&list, folder);) {
        if (!mbr__find_path(path, folder, "nvcc") ||
            !mbr__tree_follow(s->where.root, path, real))
            continue;
        char *slash = strrchr(folder, '/');
        if (slash != NULL && slash != folder) {
            *slash = '\0';
            add_toolkit(s, "PATH", folder);
        }
    }
}

void mbr__toolkit_locate(mbr_search *s) {
    char folder[MBR_PATH];
    mbr_names found;
    size_t first = s->count;
    const char *asked = s->where.cuda_home;
    if (asked != NULL && asked[0] == '/')
        add_toolkit(s, "CUDA_HOME", asked);
    bool nowhere = asked != NULL && asked[0] != '\0' && s->count == first;
    list_nvcc(s);
    add_if_toolkit(s, "/usr/local/cuda", "/usr/local/cuda");
    if (s->count > first && !nowhere) /* the order of cpp_extension ends here */
        mbr__find_use(&s->finds[first], s->finds[first].found.how);
    size_t n = mbr__tree_list(s->where.root, "/usr/local", mbr__toolkit_is_name, NULL,
                              found, MBR_MOST_NAMES);
    for (size_t i = 0; i < n; i++)
        if (mbr__find_path(folder, "/usr/local", found[i]))
            add_if_toolkit(s, "installed", folder);
    add_if_toolkit(s, "installed", "/opt/cuda");
    add_if_toolkit(s, "installed", "/usr/lib/cuda");
    if (s->where.prefix != NULL)
        add_if_toolkit(s, mbr__find_is_conda(s) ? "conda" : "prefix", s->where.prefix);
}
