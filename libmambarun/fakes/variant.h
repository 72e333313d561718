/* SPDX-License-Identifier: Apache-2.0
 *
 * variant.h - what the good fake remembers, and how a test gets at it.
 *
 *     mbr_fake *fake = mbr_fake_use(MBR_TEST_FAKES "/good");
 *     assert_int_equal(mbr_OP(&p), MBR_OK);
 *     assert_string_equal(fake->op, "OP");
 *     assert_memory_equal(fake->params, &p, sizeof p);
 *
 * Call it first of all in the process: the variant of a device is chosen once.
 */
#ifndef MBR_FAKE_VARIANT_H
#define MBR_FAKE_VARIANT_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>

#include "../variant/variant.h"

typedef struct mbr_fake {
    int32_t calls;  /* how many so far; workspace questions count */
    const char *op; /* of the latest: its row of ops.def, plus "_workspace" */
    uint32_t size;  /* sizeof its params struct */
    unsigned char params[2048];   /* a copy of them */
    const mbr_launcher *launcher; /* CUDA: what the core handed over */
    /* set by the test: what the fake answers */
    mbr_status status;
    size_t workspace;
} mbr_fake;

/* Makes every later CPU call of this process run the fake in folder; NULL if it is not
 * there. */
static inline mbr_fake *mbr_fake_use(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/libmambarun_cpu_scalar.so", folder);
    setenv("MAMBARUN_PATH", folder, 1);
    setenv("MAMBARUN_VARIANT", "cpu_scalar", 1);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? (mbr_fake *)dlsym(library, "mbr_fake_variant") : NULL;
}

#endif
