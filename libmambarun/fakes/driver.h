/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.h - what the fake driver remembers, and how a test gets at it.
 *
 *     mbr_fake_driver *fake = mbr_fake_driver_use(MBR_TEST_FAKES "/driver");
 *     ... a call for a CUDA device ...
 *     assert_string_equal(fake->log, "cuCtxGetCurrent\ncuLaunchKernel NAME\n");
 *     assert_memory_equal(fake->launch.params, &p, sizeof p);
 *
 * Call it before anything asks for the driver: a process opens one only once.
 */
#ifndef MBR_FAKE_DRIVER_H
#define MBR_FAKE_DRIVER_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

typedef struct mbr_fake_launch {
    char kernel[128];
    void *context; /* current at the launch */
    void *stream;
    uint32_t grid[3], block[3], shared_bytes;
    size_t size; /* of the parameters */
    unsigned char params[4096];
} mbr_fake_launch;

enum { MBR_FAKE_LAUNCHES = 4 };

typedef struct mbr_fake_driver {
    char log[32768]; /* a line per call: function, then what it was asked for */
    int32_t launches;
    mbr_fake_launch launch;                  /* the latest */
    mbr_fake_launch each[MBR_FAKE_LAUNCHES]; /* the first since launches was 0 */
    int32_t capturing; /* set by the test: what cuStreamIsCapturing says */
} mbr_fake_driver;

/* Loads the driver in folder; NULL if it is not there. */
static inline mbr_fake_driver *mbr_fake_driver_use(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/libcuda.so.1", folder);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return library != NULL ? (mbr_fake_driver *)dlsym(library, "mbr_fake_driver_log")
                           : NULL;
}

#endif
