/* SPDX-License-Identifier: Apache-2.0
 *
 * locate_test.c - how mbr_locate is asked, and that no file, however damaged, harms who
 * asks. Which copy torch takes on which machine is tested from Python, where machines
 * are easier to make (shim/tests/test_locate.py).
 */
#define _GNU_SOURCE /* mkdtemp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "elf.h"
#include "ldcache.h"
#include "tree.h"
#include "mambarun.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64]; /* stands for "/"; removed at the end */

static const char *at(const char *path) {
    static char out[MBR_PATH];
    snprintf(out, sizeof out, "%s%s", root, path);
    return out;
}

static void put(const char *path, const void *data, size_t size) {
    int fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

/* A library that needs one other and has a DT_RPATH. */
typedef struct file {
    Elf64_Ehdr header;
    Elf64_Phdr segments[2];
    Elf64_Dyn dynamic[5];
    char names[64];
} file;

static file make_file(void) {
    file f = {0};
    memcpy(f.header.e_ident, ELFMAG, SELFMAG);
    const uint16_t one = 1;
    f.header.e_ident[EI_CLASS] = ELFCLASS64;
    f.header.e_ident[EI_DATA] =
        *(const unsigned char *)&one == 1 ? ELFDATA2LSB : ELFDATA2MSB;
    f.header.e_machine = EM_X86_64;
    f.header.e_phoff = offsetof(file, segments);
    f.header.e_phentsize = sizeof *f.segments;
    f.header.e_phnum = 2;
    f.segments[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_filesz = sizeof f};
    f.segments[1] = (Elf64_Phdr){.p_type = PT_DYNAMIC,
                                 .p_offset = offsetof(file, dynamic),
                                 .p_filesz = sizeof f.dynamic};
    memcpy(f.names, "\0libcudart.so.12\0$ORIGIN/cuda",
           sizeof "\0libcudart.so.12\0$ORIGIN/cuda");
    const Elf64_Dyn entries[] = {{DT_NEEDED, {1}},
                                 {DT_RPATH, {17}},
                                 {DT_STRTAB, {offsetof(file, names)}},
                                 {DT_STRSZ, {sizeof f.names}},
                                 {DT_NULL, {0}}};
    memcpy(f.dynamic, entries, sizeof entries);
    return f;
}

/* torch in /torch with a libcudart.so.12 in /torch/lib/cuda. */
static int make_root(void **state) {
    (void)state;
    static const char *const folders[] = {"/torch", "/torch/lib", "/torch/lib/cuda",
                                          "/etc"};
    strcpy(root, "/tmp/mbr_locate_XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        mkdir(at(folders[i]), 0700);
    file f = make_file();
    put("/torch/lib/libtorch_global_deps.so", &f, sizeof f);
    put("/torch/lib/libc10.so", &f, sizeof f);
    put("/torch/lib/cuda/libcudart.so.12", &f, sizeof f);
    return 0;
}

static int remove_root(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static mbr_surroundings here(void) {
    return (mbr_surroundings){
        .struct_size = sizeof(mbr_surroundings), .root = root, .torch = "/torch"};
}

static void torchs_copy_is_found(void **state) {
    (void)state;
    mbr_surroundings where = here();
    mbr_found found[4] = {{.struct_size = sizeof *found}};
    size_t count = 99;
    assert_int_equal(mbr_locate(&where, "cudart", found, 4, &count), MBR_OK);
    assert_int_equal(count, 1);
    assert_string_equal(found[0].path, "/torch/lib/cuda/libcudart.so.12");
    assert_string_equal(found[0].name, "libcudart.so.12");
    assert_string_equal(found[0].version, "12");
    assert_string_equal(found[0].what, "cudart");
    assert_string_equal(found[0].how, "rpath");
    assert_string_equal(found[0].by, "DT_RPATH");
    assert_true(found[0].fits && found[0].used);
    assert_int_equal(found[0].struct_size, sizeof *found);
}

static void the_count_is_told_without_room(void **state) {
    (void)state;
    mbr_surroundings where = here();
    size_t count = 99;
    assert_int_equal(mbr_locate(&where, "cudart", NULL, 0, &count), MBR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(mbr_locate(&where, "cudnn", NULL, 0, &count), MBR_OK);
    assert_int_equal(count, 0);
}

static void an_array_of_a_newer_callers_larger_structs_is_filled(void **state) {
    (void)state;
    struct newer {
        mbr_found known;
        char unknown[24];
    } found[3] = {{.known = {.struct_size = sizeof *found}}};
    mbr_surroundings where = here();
    put("/torch/lib/libcudart.so.11.0", "", 0);
    size_t count;
    assert_int_equal(mbr_locate(&where, "cudart", &found[0].known, 3, &count), MBR_OK);
    unlink(at("/torch/lib/libcudart.so.11.0"));
    assert_int_equal(count, 2);
    assert_string_equal(found[0].known.name, "libcudart.so.11.0");
    assert_false(found[0].known.fits);
    assert_string_equal(found[1].known.name, "libcudart.so.12");
    assert_int_equal(found[1].known.struct_size, sizeof *found);
}

static void refused(const mbr_surroundings *where, const char *what, mbr_found *out,
                    size_t *count, const char *text) {
    assert_int_equal(mbr_locate(where, what, out, 1, count), MBR_E_ARG);
    if (strstr(mbr_last_error(), text) == NULL)
        fail_msg("'%s' is not in '%s'", text, mbr_last_error());
}

static void mistakes_are_named(void **state) {
    (void)state;
    mbr_surroundings where = here();
    mbr_found found = {.struct_size = sizeof found};
    size_t count;
    refused(NULL, NULL, &found, &count, "where is NULL");
    refused(&where, NULL, NULL, &count, "out is NULL");
    refused(&where, NULL, &found, NULL, "count is NULL");
    refused(&where, "cuda", &found, &count, "what is cuda: must be one of cudart,");
    found.struct_size = 8;
    refused(&where, NULL, &found, &count, "out->struct_size is 8");
    found.struct_size = sizeof found;
    where.reserved = 1;
    refused(&where, NULL, &found, &count, "where->reserved is 1: must be 0");
    where.struct_size = 4;
    refused(&where, NULL, &found, &count, "where->struct_size is 4");
}

static void nothing_is_known_of_nowhere(void **state) {
    (void)state;
    mbr_surroundings where = {.struct_size = sizeof where,
                              .root = "/nowhere/at/all",
                              .torch = "torch",
                              .executable = "python",
                              .prefix = "",
                              .sys_path = "::relative:/nowhere",
                              .library_path = ":",
                              .program_path = "bin:/",
                              .cuda_home = "cuda"};
    size_t count = 99;
    assert_int_equal(mbr_locate(&where, NULL, NULL, 0, &count), MBR_OK);
    assert_int_equal(count, 0);
}

static void links_are_followed_below_the_root(void **state) {
    (void)state;
    static const struct {
        const char *target, *asked, *real;
    } rows[] = {
        {"/torch/lib", "/link/libc10.so", "/torch/lib/libc10.so"},
        {"torch/../torch/./lib//", "/link", "/torch/lib"},
        {"../../../..", "/link/etc", "/etc"},
        {"link", "/link", NULL},
        {"link/torch", "/link/lib", NULL},
        {"/nowhere", "/link", NULL},
        {"torch", "link", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char real[MBR_PATH];
        assert_int_equal(symlink(rows[i].target, at("/link")), 0);
        bool found = mbr__tree_follow(root, rows[i].asked, real);
        unlink(at("/link"));
        assert_int_equal(found, rows[i].real != NULL);
        if (found)
            assert_string_equal(real, rows[i].real);
    }
}

static void paths_of_any_length_are_refused_or_followed(void **state) {
    (void)state;
    char path[3 * MBR_PATH], real[MBR_PATH];
    for (size_t length = 1; length < sizeof path; length += 101) {
        memset(path, 'x', length);
        path[0] = '/';
        path[length] = '\0';
        assert_int_equal(mbr__tree_follow(root, path, real), length == 1);
        for (size_t i = 0; i < length; i += 2)
            path[i] = '/', path[i + 1] = i + 1 < length ? '.' : '\0';
        assert_int_equal(mbr__tree_follow(root, path, real), length < MBR_PATH);
    }
}

/* Reads all there is to read; whether it is an ELF file does not matter. */
static void read_through(const void *data, size_t size) {
    char text[256];
    mbr_elf elf;
    put("/any", data, size);
    int fd = mbr__tree_open(root, "/any");
    assert_true(fd >= 0);
    size_t place = 0;
    if (mbr__elf_read(fd, &elf))
        while (mbr__elf_next(&elf, DT_NEEDED, &place, text, sizeof text))
            assert_true(strlen(text) < sizeof text);
    close(fd);
}

static void no_elf_file_is_too_short_or_too_odd(void **state) {
    (void)state;
    const file whole = make_file();
    for (size_t size = 0; size <= sizeof whole; size++)
        read_through(&whole, size);
    srand(7);
    for (int round = 0; round < 2000; round++) {
        file f = whole;
        for (int change = rand() % 6; change >= 0; change--)
            ((unsigned char *)&f)[(size_t)rand() % sizeof f] = (unsigned char)rand();
        read_through(&f, sizeof f);
    }
}

static void no_cache_is_too_short_or_too_odd(void **state) {
    (void)state;
    unsigned char whole[128] = "glibc-ld.so.cache1.1";
    whole[20] = 2;
    whole[52] = whole[76] = 96;
    whole[56] = whole[80] = 112;
    memcpy(whole + 96, "libcudart.so.12\0/lib/a", 23);
    srand(11);
    for (int round = 0; round < 2000; round++) {
        unsigned char bytes[sizeof whole];
        memcpy(bytes, whole, sizeof bytes);
        if (round % 3 == 1)
            memcpy(bytes, "ld.so-1.7.0", 12);
        for (int change = rand() % 6; change > 0; change--)
            bytes[(size_t)rand() % sizeof bytes] = (unsigned char)rand();
        put("/etc/ld.so.cache", bytes, (size_t)rand() % (sizeof bytes + 1));
        mbr_ldcache cache = mbr__ldcache_read(root);
        const char *name, *path;
        for (size_t i = 0; mbr__ldcache_next(&cache, &i, &name, &path);)
            assert_true(strlen(name) < sizeof bytes && strlen(path) < sizeof bytes);
        free(cache.bytes);
    }
    put("/etc/ld.so.cache", whole, sizeof whole);
    mbr_ldcache cache = mbr__ldcache_read(root);
    const char *name, *path;
    size_t i = 0;
    assert_true(mbr__ldcache_next(&cache, &i, &name, &path));
    assert_string_equal(name, "libcudart.so.12");
    assert_string_equal(path, "/lib/a");
    assert_true(mbr__ldcache_next(&cache, &i, &name, &path));
    assert_false(mbr__ldcache_next(&cache, &i, &name, &path));
    free(cache.bytes);
    unlink(at("/etc/ld.so.cache"));
}

static void a_pipe_stops_nobody(void **state) {
    (void)state;
    assert_int_equal(mkfifo(at("/torch/lib/libcudart.so.12"), 0600), 0);
    mbr_surroundings where = here();
    mbr_found found[2] = {{.struct_size = sizeof *found}};
    size_t count;
    assert_int_equal(mbr_locate(&where, "cudart", found, 2, &count), MBR_OK);
    unlink(at("/torch/lib/libcudart.so.12"));
    assert_int_equal(count, 2);
    assert_false(found[0].fits || found[0].used);
    assert_true(found[1].used);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(torchs_copy_is_found),
        cmocka_unit_test(the_count_is_told_without_room),
        cmocka_unit_test(an_array_of_a_newer_callers_larger_structs_is_filled),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(nothing_is_known_of_nowhere),
        cmocka_unit_test(links_are_followed_below_the_root),
        cmocka_unit_test(paths_of_any_length_are_refused_or_followed),
        cmocka_unit_test(no_elf_file_is_too_short_or_too_odd),
        cmocka_unit_test(no_cache_is_too_short_or_too_odd),
        cmocka_unit_test(a_pipe_stops_nobody),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
