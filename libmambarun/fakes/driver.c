/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.c - a libcuda.so.1 that says what the environment tells it to:
 *   FAKE_API         its version (12040)
 *   FAKE_DEVICES     how many devices (1)
 *   FAKE_CAPABILITY  their compute capabilities, separated by commas (80)
 *   FAKE_cuInit ...  the status that this function returns (0)
 * A function is left out by compiling with -DcuInit=absent_cuInit. No real driver is
 * ever asked.
 */
#include "core/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MBR_DRIVER(symbol, need, since, without) MBR_API mbr_##symbol##_fn symbol;
#include "core/driver.def"

static int number(const char *variable, int otherwise) {
    const char *value = getenv(variable);
    return value != NULL ? atoi(value) : otherwise;
}

static int answer(const char *function) {
    char variable[64];
    snprintf(variable, sizeof variable, "FAKE_%s", function);
    return number(variable, 0);
}

static int capability(int device) {
    const char *list = getenv("FAKE_CAPABILITY");
    for (int i = 0; list != NULL && i < device; i++)
        list = strchr(list, ',') != NULL ? strchr(list, ',') + 1 : NULL;
    return list != NULL ? atoi(list) : 80;
}

int cuInit(unsigned flags) {
    (void)flags;
    return answer("cuInit");
}

int cuDriverGetVersion(int *version) {
    *version = number("FAKE_API", 12040);
    return answer("cuDriverGetVersion");
}

int cuDeviceGetCount(int *count) {
    *count = number("FAKE_DEVICES", 1);
    return answer("cuDeviceGetCount");
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return answer("cuDeviceGet");
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == MBR_CU_CAPABILITY_MAJOR   ? capability(device) / 10
             : attribute == MBR_CU_CAPABILITY_MINOR ? capability(device) % 10
             : attribute == MBR_CU_MULTIPROCESSORS  ? 100 + device
             : attribute == MBR_CU_SHARED_BYTES_ASKED ? 166912
                                                    : -1;
    return answer("cuDeviceGetAttribute");
}

int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, (size_t)size, "Fake GPU %d", device);
    return answer("cuDeviceGetName");
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)(device + 1) << 30;
    return answer("cuDeviceTotalMem_v2");
}

int cuGetErrorName(int status, const char **name) {
    *name = status == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_FAKE";
    return 0;
}

int cuGetErrorString(int status, const char **text) {
    *text = status == 802 ? "system not yet initialized" : "as the environment says";
    return 0;
}

/* Contexts, kernels and launches: one of each, which do nothing. */

static char thing;

int cuDevicePrimaryCtxRetain(mbr_cu_context *context, int device) {
    (void)device;
    *context = (mbr_cu_context)&thing;
    return answer("cuDevicePrimaryCtxRetain");
}

int cuCtxGetCurrent(mbr_cu_context *context) {
    *context = NULL;
    return answer("cuCtxGetCurrent");
}

int cuCtxPushCurrent_v2(mbr_cu_context context) {
    (void)context;
    return answer("cuCtxPushCurrent_v2");
}

int cuCtxPopCurrent_v2(mbr_cu_context *context) {
    *context = (mbr_cu_context)&thing;
    return answer("cuCtxPopCurrent_v2");
}

int cuModuleLoadData(mbr_cu_module *module, const void *image) {
    (void)image;
    *module = (mbr_cu_module)&thing;
    return answer("cuModuleLoadData");
}

int cuModuleGetFunction(mbr_cu_function *function, mbr_cu_module module,
                        const char *name) {
    (void)module;
    (void)name;
    *function = (mbr_cu_function)&thing;
    return answer("cuModuleGetFunction");
}

int cuFuncGetAttribute(int *value, int attribute, mbr_cu_function function) {
    (void)function;
    *value = attribute == 1 ? 1024 : -1;
    return answer("cuFuncGetAttribute");
}

int cuFuncSetAttribute(mbr_cu_function function, int attribute, int value) {
    (void)function;
    (void)attribute;
    (void)value;
    return answer("cuFuncSetAttribute");
}

int cuLaunchKernel(mbr_cu_function function, unsigned grid_x, unsigned grid_y,
                   unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, mbr_cu_stream stream,
                   void **params, void **extra) {
    (void)function;
    (void)grid_x, (void)grid_y, (void)grid_z;
    (void)block_x, (void)block_y, (void)block_z;
    (void)shared_bytes;
    (void)stream;
    (void)params;
    (void)extra;
    return answer("cuLaunchKernel");
}

int cuStreamIsCapturing(mbr_cu_stream stream, int *status) {
    (void)stream;
    *status = 0;
    return answer("cuStreamIsCapturing");
}

int cuLibraryLoadData(mbr_cu_library *library, const void *image, int *jit_options,
                      void **jit_values, unsigned jit_count, int *options,
                      void **values, unsigned count) {
    (void)image;
    (void)jit_options, (void)jit_values, (void)jit_count;
    (void)options, (void)values, (void)count;
    *library = (mbr_cu_library)&thing;
    return answer("cuLibraryLoadData");
}

int cuLibraryGetKernel(mbr_cu_kernel *kernel, mbr_cu_library library,
                       const char *name) {
    (void)library;
    (void)name;
    *kernel = (mbr_cu_kernel)&thing;
    return answer("cuLibraryGetKernel");
}

int cuKernelGetFunction(mbr_cu_function *function, mbr_cu_kernel kernel) {
    (void)kernel;
    *function = (mbr_cu_function)&thing;
    return answer("cuKernelGetFunction");
}
