/* SPDX-License-Identifier: Apache-2.0
 *
 * locate.c - which copies of CUDA's libraries and toolkits lie here, and which of them
 * torch would load. Lists folders and reads headers; opens no library.
 *
 * Two questions are answered one after the other: first every place is listed where
 * such files are known to lie, then the loader's search is repeated for each library
 * that torch's own ones need. The order of that search: ld.so(8); what torch does when
 * it fails: _preload_cuda_deps in torch/__init__.py. Not repeated: folders that glibc
 * chooses by processor (glibc-hwcaps), where no CUDA library is put.
 */
#include "elf.h"
#include "ldcache.h"
#include "load.h"
#include "params.h"
#include "status.h"
#include "tree.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct library {
    const char *what, *stem, *soname, *folder, *distribution;
} libraries[] = {
#define MBR_LIBRARY(what, stem, soname, folder, distribution)                          \
    {#what, stem, soname, folder, distribution},
#include "manifest.def"
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };
static const char toolkit[] = "toolkit";

/* Those of torch's that need others, in the order in which they are loaded. */
static const char *const torch_libraries[] = {
    "libtorch_global_deps.so", "libtorch_python.so", "libtorch.so",
    "libtorch_cpu.so",         "libtorch_cuda.so",   "libtorch_cuda_cu.so",
    "libtorch_cuda_cpp.so",    "libc10_cuda.so",     "libcaffe2_nvrtc.so",
    "libtorch_cuda_linalg.so",
};

/* What the loader tries without being told: /lib64 and so on, as the distributions
 * build it, and multiarch's folders. */
static const char *const system_folders[] = {
    "/lib64",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/usr/lib",
};

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

enum { MOST_NAMES = 64, MOST_FINDS = 1024 };
typedef char names[MOST_NAMES][MBR_NAME];

/* A find, and the file that it really is, by which copies are told apart. */
typedef struct find {
    mbr_found found;
    char real[MBR_PATH];
} find;

typedef struct search {
    mbr_surroundings where;
    uint16_t machine; /* EM_* that a library must have to be loaded */
    mbr_ldcache cache;
    find *finds;
    size_t count, room;
    bool no_memory;
} search;

static void set(char *out, size_t size, const char *text) {
    snprintf(out, size, "%s", text);
}

/* folder/name, in a path of MBR_PATH; false if it is longer. */
static bool put_path(char *out, const char *folder, const char *name) {
    int length = snprintf(out, MBR_PATH, "%s/%s", folder, name);
    return length > 0 && length < MBR_PATH;
}

/* The next piece of a list with colons; false at its end. Empty pieces are left out. */
static bool next_piece(const char **list, char *out) {
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

static bool read_elf(const search *s, const char *path, mbr_elf *out) {
    int fd = mbr__tree_open(s->where.root, path);
    if (fd < 0)
        return false;
    if (mbr__elf_read(fd, out))
        return true;
    close(fd);
    return false;
}

static uint16_t machine_of(const search *s, const char *path) {
    mbr_elf elf;
    if (path == NULL || !read_elf(s, path, &elf))
        return EM_NONE;
    close(elf.fd);
    return elf.machine;
}

/* Of the libraries that torch loads; without torch, of the interpreter, or ours. */
static uint16_t machine_wanted(const search *s) {
    char path[MBR_PATH];
    uint16_t machine = EM_NONE;
    if (s->where.torch != NULL && put_path(path, s->where.torch, "lib/libc10.so"))
        machine = machine_of(s, path);
    if (machine == EM_NONE)
        machine = machine_of(s, s->where.executable);
    if (machine == EM_NONE) {
        const search here = {0};
        machine = machine_of(&here, mbr__library_path());
    }
    return machine;
}

/* libcudart.so.12 and libcudart-80664282.so.10.2, but not libcudart.so, which is for
 * linking, nor libcudart_static.a. */
static bool is_copy(const char *name, const void *user) {
    const struct library *library = user;
    size_t length = strlen(library->stem);
    if (strncmp(name, library->stem, length) != 0)
        return false;
    name += length;
    if (*name == '-')
        name += 1 + strspn(name + 1, "0123456789abcdef");
    return strncmp(name, ".so.", 4) == 0 && isdigit((unsigned char)name[4]);
}

/* ---- versions ----------------------------------------------------------------- */

static void copy_digits(const char *from, char *out, size_t size) {
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
static void ask_wheel(const search *s, const struct library *library, const char *real,
                      char version[32]) {
    char site[MBR_PATH], said[32];
    names found;
    const char *end = strstr(real, "/nvidia/");
    if (end == NULL || library->distribution[0] == '\0')
        return;
    snprintf(site, sizeof site, "%.*s", (int)(end - real), real);
    size_t n = mbr__tree_list(s->where.root, site, is_distribution,
                              library->distribution, found, MOST_NAMES);
    size_t major = strcspn(version, ".");
    for (size_t i = 0; i < n; i++) {
        copy_digits(strchr(found[i], '-') + 1, said, sizeof said);
        if (strncmp(said, version, major) == 0 && said[major] == '.') {
            set(version, 32, said);
            return;
        }
    }
}

static void find_version(const search *s, const struct library *library,
                         const char *real, char version[32]) {
    const char *name = strrchr(real, '/'), *digits = strstr(name, ".so.");
    if (digits != NULL)
        copy_digits(digits + strlen(".so."), version, 32);
    const char *dot = strchr(version, '.');
    if (dot == NULL || strchr(dot + 1, '.') == NULL)
        ask_wheel(s, library, real, version);
}

/* ---- the list ----------------------------------------------------------------- */

static find *new_find(search *s) {
    if (s->count == s->room) {
        size_t room = s->room == 0 ? 32 : 2 * s->room;
        find *larger =
            room > MOST_FINDS ? NULL : realloc(s->finds, room * sizeof *larger);
        s->no_memory = s->no_memory || (larger == NULL && room <= MOST_FINDS);
        if (larger == NULL)
            return NULL;
        s->finds = larger;
        s->room = room;
    }
    find *f = &s->finds[s->count++];
    memset(f, 0, sizeof *f);
    f->found.by = "";
    return f;
}

static find *known(const search *s, const char *what, const char *real) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->finds[i].found.what, what) == 0 &&
            strcmp(s->finds[i].real, real) == 0)
            return &s->finds[i];
    return NULL;
}

/* The find of this file, which is made if it is new; NULL if there is no such file. */
static find *add(search *s, const struct library *library, const char *how,
                 const char *path) {
    char real[MBR_PATH];
    if (!mbr__tree_follow(s->where.root, path, real))
        return NULL;
    find *f = known(s, library->what, real);
    if (f != NULL || (f = new_find(s)) == NULL)
        return f;
    f->found.what = library->what;
    f->found.how = how;
    f->found.fits = machine_of(s, real) == s->machine;
    set(f->real, sizeof f->real, real);
    set(f->found.name, sizeof f->found.name, strrchr(path, '/') + 1);
    set(f->found.path, sizeof f->found.path, path);
    find_version(s, library, real, f->found.version);
    return f;
}

/* ---- every place -------------------------------------------------------------- */

static void list_folder(search *s, const struct library *library, const char *how,
                        const char *folder) {
    char path[MBR_PATH];
    names found;
    size_t n =
        mbr__tree_list(s->where.root, folder, is_copy, library, found, MOST_NAMES);
    for (size_t i = 0; i < n; i++)
        if (put_path(path, folder, found[i]))
            add(s, library, how, path);
}

static void list_below(search *s, const struct library *library, const char *how,
                       const char *folder, const char *below) {
    char path[MBR_PATH];
    if (folder != NULL && put_path(path, folder, below))
        list_folder(s, library, how, path);
}

static bool is_cuda_major(const char *name, const void *user) {
    (void)user;
    return strncmp(name, "cu", 2) == 0 && isdigit((unsigned char)name[2]);
}

/* Below one entry of sys.path: nvidia/cudnn/lib, or nvidia/cu13/lib as since CUDA 13.
 */
static void list_wheels(search *s, const struct library *library, const char *entry) {
    char path[MBR_PATH], below[MBR_NAME + 32];
    names majors;
    snprintf(below, sizeof below, "nvidia/%s/lib", library->folder);
    list_below(s, library, "wheel", entry, below);
    if (!put_path(path, entry, "nvidia"))
        return;
    size_t n =
        mbr__tree_list(s->where.root, path, is_cuda_major, NULL, majors, MOST_NAMES);
    for (size_t i = 0; i < n; i++) {
        snprintf(below, sizeof below, "nvidia/%s/lib", majors[i]);
        list_below(s, library, "wheel", entry, below);
    }
}

static void list_cache(search *s, const struct library *library) {
    const char *name, *path;
    for (size_t at = 0; mbr__ldcache_next(&s->cache, &at, &name, &path);)
        if (path[0] == '/' && strlen(path) < MBR_PATH && is_copy(name, library))
            add(s, library, "ld.so.cache", path);
}

static bool is_toolkit_name(const char *name, const void *user) {
    (void)user;
    return strncmp(name, "cuda", 4) == 0 && (name[4] == '\0' || name[4] == '-');
}

/* lib64 is a link to one of targets/ in most toolkits, and absent in some. */
static void list_toolkit(search *s, const struct library *library, const char *folder) {
    list_below(s, library, "toolkit", folder, "lib64");
    list_below(s, library, "toolkit", folder, "lib");
    list_below(s, library, "toolkit", folder, "targets/x86_64-linux/lib");
    list_below(s, library, "toolkit", folder, "targets/sbsa-linux/lib");
    list_below(s, library, "toolkit", folder, "compat");
}

static void list_toolkits_libraries(search *s, const struct library *library) {
    char folder[MBR_PATH];
    names found;
    if (s->where.cuda_home != NULL)
        list_toolkit(s, library, s->where.cuda_home);
    size_t n = mbr__tree_list(s->where.root, "/usr/local", is_toolkit_name, NULL, found,
                              MOST_NAMES);
    for (size_t i = 0; i < n; i++)
        if (put_path(folder, "/usr/local", found[i]))
            list_toolkit(s, library, folder);
    list_toolkit(s, library, "/opt/cuda");
}

static bool is_conda(const search *s) {
    char path[MBR_PATH];
    return s->where.prefix != NULL && put_path(path, s->where.prefix, "conda-meta") &&
           mbr__tree_is_folder(s->where.root, path);
}

static void list_everywhere(search *s, const struct library *library) {
    char folder[MBR_PATH];
    list_below(s, library, "torch", s->where.torch, "lib");
    const char *list = s->where.sys_path;
    while (library->folder[0] != '\0' && next_piece(&list, folder))
        list_wheels(s, library, folder);
    list_below(s, library, is_conda(s) ? "conda" : "prefix", s->where.prefix, "lib");
    for (list = s->where.library_path; next_piece(&list, folder);)
        list_folder(s, library, "LD_LIBRARY_PATH", folder);
    list_cache(s, library);
    for (size_t i = 0; i < sizeof system_folders / sizeof *system_folders; i++)
        list_folder(s, library, "system", system_folders[i]);
    for (size_t i = 0; i < sizeof driver_folders / sizeof *driver_folders; i++)
        list_folder(s, library, "driver", driver_folders[i]);
    list_toolkits_libraries(s, library);
}

/* ---- the loader's search ------------------------------------------------------ */

/* A library that needs others: where it lies, and what its headers say. */
typedef struct asker {
    char folder[MBR_PATH]; /* $ORIGIN */
    mbr_elf elf;
} asker;

static bool open_asker(const search *s, const char *path, asker *out) {
    set(out->folder, sizeof out->folder, path);
    char *slash = strrchr(out->folder, '/');
    if (slash == NULL || !read_elf(s, path, &out->elf))
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
static find *try_folder(search *s, const struct library *library, const char *how,
                        const char *folder, const char *name) {
    char real[MBR_PATH], path[MBR_PATH]; /* $ORIGIN/../.. is nothing to show */
    if (!mbr__tree_follow(s->where.root, folder, real) || !put_path(path, real, name))
        return NULL;
    if (machine_of(s, path) != s->machine) /* also if there is none */
        return NULL;
    return add(s, library, how, path);
}

static find *try_list(search *s, const struct library *library, const char *how,
                      const char *list, const char *name) {
    char folder[MBR_PATH];
    find *found = NULL;
    while (found == NULL && next_piece(&list, folder))
        found = try_folder(s, library, how, folder, name);
    return found;
}

/* The folders of DT_RPATH or DT_RUNPATH. */
static find *try_tag(search *s, const struct library *library, const asker *a,
                     int64_t tag, const char *name) {
    char list[MBR_PATH], piece[MBR_PATH], folder[2 * MBR_PATH];
    size_t at = 0;
    if (a == NULL || !mbr__elf_next(&a->elf, tag, &at, list, sizeof list))
        return NULL;
    find *found = NULL;
    for (const char *rest = list; found == NULL && next_piece(&rest, piece);) {
        static const char *const origins[] = {"$ORIGIN", "${ORIGIN}"};
        set(folder, sizeof folder, piece);
        for (size_t i = 0; i < sizeof origins / sizeof *origins; i++)
            if (strncmp(piece, origins[i], strlen(origins[i])) == 0)
                snprintf(folder, sizeof folder, "%s%s", a->folder,
                         piece + strlen(origins[i]));
        if (strlen(folder) < MBR_PATH)
            found = try_folder(s, library, "rpath", folder, name);
    }
    return found;
}

static find *try_rpaths(search *s, const struct library *library, const asker *a,
                        const char *name) {
    if (has(a, DT_RUNPATH)) /* then all DT_RPATH are ignored, the program's too */
        return NULL;
    find *found = try_tag(s, library, a, DT_RPATH, name);
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

static find *try_cache(search *s, const struct library *library, const char *name) {
    const char *key, *path;
    for (size_t at = 0; mbr__ldcache_next(&s->cache, &at, &key, &path);)
        if (strcmp(key, name) == 0 && strlen(path) < MBR_PATH && path[0] == '/' &&
            machine_of(s, path) == s->machine)
            return add(s, library, "ld.so.cache", path);
    return NULL;
}

static find *try_system(search *s, const struct library *library, const char *name) {
    find *found = NULL;
    for (size_t i = 0; found == NULL && i < sizeof system_folders / sizeof(char *); i++)
        found = try_folder(s, library, "system", system_folders[i], name);
    return found;
}

/* What torch does itself when the loader finds none. */
static find *try_preload(search *s, const struct library *library, const char *name) {
    char entry[MBR_PATH], below[MBR_NAME + 32], folder[MBR_PATH];
    const char *digits = strstr(name, ".so.");
    size_t major = digits != NULL ? strspn(digits + 4, "0123456789") : 0;
    find *found = NULL;
    for (const char *list = s->where.sys_path;
         library->folder[0] != '\0' && found == NULL && next_piece(&list, entry);) {
        snprintf(below, sizeof below, "nvidia/%s/lib", library->folder);
        if (put_path(folder, entry, below))
            found = try_folder(s, library, "wheel", folder, name);
        snprintf(below, sizeof below, "nvidia/cu%.*s/lib", (int)major,
                 digits != NULL ? digits + 4 : "");
        if (found == NULL && put_path(folder, entry, below))
            found = try_folder(s, library, "wheel", folder, name);
    }
    return found;
}

static find *use(find *found, const char *by) {
    if (found != NULL && !found->found.used) {
        found->found.used = 1;
        found->found.by = by;
    }
    return found;
}

/* a needs name; NULL for what a program asks for itself. */
static find *find_needed(search *s, const struct library *library, const asker *a,
                         const char *name) {
    find *found = use(try_rpaths(s, library, a, name), "DT_RPATH");
    if (found == NULL)
        found =
            use(try_list(s, library, "LD_LIBRARY_PATH", s->where.library_path, name),
                "LD_LIBRARY_PATH");
    if (found == NULL)
        found = use(try_tag(s, library, a, DT_RUNPATH, name), "DT_RUNPATH");
    if (found == NULL)
        found = use(try_cache(s, library, name), "ld.so.cache");
    if (found == NULL)
        found = use(try_system(s, library, name), "system");
    if (found == NULL && a != NULL)
        found = use(try_preload(s, library, name), "preload");
    return found;
}

static void miss(search *s, const struct library *library, const char *name) {
    find *f = new_find(s);
    if (f == NULL)
        return;
    f->found.what = library->what;
    f->found.how = "";
    f->found.used = 1;
    set(f->found.name, sizeof f->found.name, name);
}

/* Whether the library at path needs this one; if so, finds it. */
static bool serve(search *s, const struct library *library, const char *path) {
    asker a;
    char name[MBR_NAME];
    bool needs = false;
    if (!open_asker(s, path, &a))
        return false;
    for (size_t at = 0;
         !needs && mbr__elf_next(&a.elf, DT_NEEDED, &at, name, sizeof name);)
        needs = is_copy(name, library);
    if (needs && find_needed(s, library, &a, name) == NULL)
        miss(s, library, name);
    close(a.elf.fd);
    return needs;
}

/* The first library that needs it decides, as later ones get what is loaded. */
static void serve_torch(search *s, const struct library *library) {
    char path[MBR_PATH], file[MBR_PATH];
    for (size_t i = 0; i < sizeof torch_libraries / sizeof *torch_libraries; i++) {
        snprintf(file, sizeof file, "lib/%s", torch_libraries[i]);
        if (put_path(path, s->where.torch, file) && serve(s, library, path))
            return;
    }
    for (size_t i = 0, n = s->count; i < n; i++) {
        set(path, sizeof path, s->finds[i].found.path);
        if (s->finds[i].found.used && path[0] != '\0' && serve(s, library, path))
            return;
    }
}

static void locate_library(search *s, const struct library *library) {
    list_everywhere(s, library);
    if (library->soname[0] != '\0')
        find_needed(s, library, NULL, library->soname);
    else if (s->where.torch != NULL)
        serve_torch(s, library);
}

/* ---- toolkits ----------------------------------------------------------------- */

/* Where a toolkit writes its version: file, text before it, text before that number. */
static const struct version_file {
    const char *file, *first, *then;
} version_files[] = {
    {"version.json", "\"cuda\"", "\"version\""},
    {"version.txt", "CUDA Version", ""},
    {"include/cuda.h", "#define CUDA_VERSION", ""},
};

static bool read_version_file(const search *s, const char *folder,
                              const struct version_file *from, char version[32]) {
    char path[MBR_PATH], text[65536];
    if (!put_path(path, folder, from->file) ||
        !mbr__tree_text(s->where.root, path, text, sizeof text))
        return false;
    const char *at = strstr(text, from->first);
    at = at != NULL ? strstr(at + strlen(from->first), from->then) : NULL;
    if (at == NULL)
        return false;
    at += strcspn(at + strlen(from->then), "0123456789") + strlen(from->then);
    copy_digits(at, version, 32);
    if (strchr(version, '.') == NULL) { /* 12010 is 12.1 */
        long number = strtol(version, NULL, 10);
        snprintf(version, 32, "%ld.%ld", number / 1000, number % 1000 / 10);
    }
    return true;
}

static bool read_toolkit_versions(const search *s, const char *folder,
                                  char version[32]) {
    for (size_t i = 0; i < sizeof version_files / sizeof *version_files; i++)
        if (read_version_file(s, folder, &version_files[i], version))
            return true;
    return false;
}

/* folder's, or else that of the toolkit into which its bin/nvcc is a link. */
static void find_toolkit_version(const search *s, const char *folder,
                                 char version[32]) {
    char path[MBR_PATH], real[MBR_PATH];
    if (read_toolkit_versions(s, folder, version) ||
        !put_path(path, folder, "bin/nvcc") ||
        !mbr__tree_follow(s->where.root, path, real))
        return;
    char *end = strstr(real, "/bin/nvcc");
    if (end != NULL) {
        *end = '\0';
        read_toolkit_versions(s, real, version);
    }
}

static void add_toolkit(search *s, const char *how, const char *folder) {
    char real[MBR_PATH];
    if (!mbr__tree_is_folder(s->where.root, folder) ||
        !mbr__tree_follow(s->where.root, folder, real) ||
        known(s, toolkit, real) != NULL)
        return;
    find *f = new_find(s);
    if (f == NULL)
        return;
    f->found.what = toolkit;
    f->found.how = how;
    f->found.fits = 1;
    set(f->real, sizeof f->real, real);
    set(f->found.path, sizeof f->found.path, folder);
    set(f->found.name, sizeof f->found.name, strrchr(folder, '/') + 1);
    find_toolkit_version(s, real, f->found.version);
}

/* A folder that is one by what it holds: compat packages lie in /usr/local/cuda-* too.
 */
static bool holds_toolkit(const search *s, const char *folder) {
    static const char *const signs[] = {"bin/nvcc", "version.json", "version.txt",
                                        "include/cuda.h", "include/cuda_runtime.h"};
    char path[MBR_PATH], real[MBR_PATH];
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (put_path(path, folder, signs[i]) &&
            mbr__tree_follow(s->where.root, path, real))
            return true;
    return false;
}

static void add_if_toolkit(search *s, const char *how, const char *folder) {
    if (holds_toolkit(s, folder))
        add_toolkit(s, how, folder);
}

static void list_nvcc(search *s) {
    char folder[MBR_PATH], path[MBR_PATH], real[MBR_PATH];
    for (const char *list = s->where.program_path; next_piece(&list, folder);) {
        if (!put_path(path, folder, "nvcc") ||
            !mbr__tree_follow(s->where.root, path, real))
            continue;
        char *slash = strrchr(folder, '/');
        if (slash != NULL && slash != folder) {
            *slash = '\0';
            add_toolkit(s, "PATH", folder);
        }
    }
}

static void locate_toolkits(search *s) {
    char folder[MBR_PATH];
    names found;
    size_t first = s->count;
    const char *asked = s->where.cuda_home;
    if (asked != NULL && asked[0] == '/')
        add_toolkit(s, "CUDA_HOME", asked);
    bool nowhere = asked != NULL && asked[0] != '\0' && s->count == first;
    list_nvcc(s);
    add_if_toolkit(s, "/usr/local/cuda", "/usr/local/cuda");
    if (s->count > first && !nowhere) /* the order of cpp_extension ends here */
        use(&s->finds[first], s->finds[first].found.how);
    size_t n = mbr__tree_list(s->where.root, "/usr/local", is_toolkit_name, NULL, found,
                              MOST_NAMES);
    for (size_t i = 0; i < n; i++)
        if (put_path(folder, "/usr/local", found[i]))
            add_if_toolkit(s, "installed", folder);
    add_if_toolkit(s, "installed", "/opt/cuda");
    add_if_toolkit(s, "installed", "/usr/lib/cuda");
    if (s->where.prefix != NULL)
        add_if_toolkit(s, is_conda(s) ? "conda" : "prefix", s->where.prefix);
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

static void locate_all(search *s, const char *what) {
    s->machine = machine_wanted(s);
    s->cache = mbr__ldcache_read(s->where.root);
    for (size_t i = 0; i < LIBRARIES; i++)
        if (concerns(what, i))
            locate_library(s, &libraries[i]);
    if (what == NULL || strcmp(what, toolkit) == 0)
        locate_toolkits(s);
    free(s->cache.bytes);
}

static size_t answer(const search *s, const char *what, mbr_found *out,
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
    search s = {0};
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
