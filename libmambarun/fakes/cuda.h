/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.h - lets a room's test see what its launch code sends: a CUDA variant of the
 * real rooms on the fake driver, and tensors that lie nowhere, for nothing touches
 * them.
 *
 *     mbr_fake_driver *fake = mbr_fake_cuda_use();
 *     p.x = mbr_fake_tensor(MBR_FLOAT, 32, 3, (int64_t[]){2, 64, 100});
 *     assert_int_equal(mbr_OP(&p), MBR_OK);
 *     assert_string_equal(fake->launch.kernel, "OP_f32");
 */
#ifndef MBR_FAKE_CUDA_H
#define MBR_FAKE_CUDA_H

#include <stdlib.h>

#include "../mambarun.h"
#include "driver.h"

/* From here on this process has two GPUs of capability 9.0 with 100 and 101
 * multiprocessors. */
static inline mbr_fake_driver *mbr_fake_cuda_use(void) {
    setenv("FAKE_CAPABILITY", "90,90", 1);
    setenv("FAKE_DEVICES", "2", 1);
    setenv("MAMBARUN_PATH", MBR_TEST_FAKES "/cuda", 1);
    return mbr_fake_driver_use(MBR_TEST_FAKES "/driver");
}

static inline mbr_call mbr_fake_call(size_t struct_size, int32_t device_id) {
    return (mbr_call){.struct_size = (uint32_t)struct_size,
                      .device_type = MBR_DEVICE_CUDA,
                      .device_id = device_id,
                      .stream = (void *)(uintptr_t)(0x5150 + device_id)};
}

/* Dense, at an address of its own that is a multiple of 4096. */
static inline mbr_tensor mbr_fake_tensor(uint8_t code, uint8_t bits, int32_t ndim,
                                         const int64_t *shape) {
    static uintptr_t next = UINT64_C(1) << 44;
    mbr_tensor t = {.ndim = ndim, .dtype_code = code, .dtype_bits = bits};
    int64_t stride = 1;
    for (int32_t i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    t.data = (void *)next;
    next += ((uintptr_t)stride * bits / 8 + 8191) / 4096 * 4096;
    return t;
}

#endif
