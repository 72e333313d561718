/* SPDX-License-Identifier: Apache-2.0
 *
 * dl.c - dl.h for systems with dlopen. No policy: which library is opened, and what it
 * means if there is none, is known elsewhere.
 */
#define _GNU_SOURCE /* dladdr */
#include "dl.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *mbr__dl_open(const char *path) {
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

void *mbr__dl_loaded(const char *name) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
}

void *mbr__dl_symbol(void *library, const char *name) {
    return dlsym(library, name);
}

const char *mbr__dl_error(void) {
    const char *error = dlerror();
    return error != NULL ? error : "the dynamic loader gives no reason";
}

bool mbr__dl_file_of(const void *address, char *out, size_t size) {
    Dl_info info;
    if (dladdr(address, &info) == 0 || info.dli_fname == NULL)
        return false;
    const char *slash = strrchr(info.dli_fname, '/');
    const char *name = slash != NULL ? slash + 1 : info.dli_fname;
    char folder[PATH_MAX], absolute[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s",
             slash != NULL ? (int)(name - info.dli_fname) : 1,
             slash != NULL ? info.dli_fname : ".");
    if (realpath(folder, absolute) == NULL)
        return false;
    int length =
        snprintf(out, size, "%s/%s", strcmp(absolute, "/") == 0 ? "" : absolute, name);
    return length > 0 && (size_t)length < size;
}

bool mbr__dl_exists(const char *path) {
    return access(path, F_OK) == 0;
}
