/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.h - the CUDA driver, as far as we call it: our own prototypes, one table.
 * Needs no header of the toolkit, so it builds and is tested where there is no CUDA.
 */
#ifndef MBR_DRIVER_H
#define MBR_DRIVER_H

#include <stdbool.h>

#include "../variant/variant.h"
#include "probe.h"

/* The driver's types. A status is an int, 0 is success; a device is an ordinal. */
typedef struct mbr_cu_context *mbr_cu_context;
typedef struct mbr_cu_module *mbr_cu_module;
typedef struct mbr_cu_function *mbr_cu_function;
typedef struct mbr_cu_library *mbr_cu_library;
typedef struct mbr_cu_kernel *mbr_cu_kernel;
typedef struct mbr_cu_stream *mbr_cu_stream;

/* For cuDeviceGetAttribute. */
enum {
    MBR_CU_MULTIPROCESSORS = 16,
    MBR_CU_CAPABILITY_MAJOR = 75,
    MBR_CU_CAPABILITY_MINOR = 76
};

typedef int mbr_cuInit_fn(unsigned flags);
typedef int mbr_cuDriverGetVersion_fn(int *version);
typedef int mbr_cuDeviceGetCount_fn(int *count);
typedef int mbr_cuDeviceGet_fn(int *device, int ordinal);
typedef int mbr_cuDeviceGetAttribute_fn(int *value, int attribute, int device);
typedef int mbr_cuDeviceGetName_fn(char *name, int size, int device);
typedef int mbr_cuDeviceTotalMem_v2_fn(size_t *bytes, int device);
typedef int mbr_cuDevicePrimaryCtxRetain_fn(mbr_cu_context *context, int device);
typedef int mbr_cuCtxGetCurrent_fn(mbr_cu_context *context);
typedef int mbr_cuCtxPushCurrent_v2_fn(mbr_cu_context context);
typedef int mbr_cuCtxPopCurrent_v2_fn(mbr_cu_context *context);
typedef int mbr_cuModuleLoadData_fn(mbr_cu_module *module, const void *image);
typedef int mbr_cuModuleGetFunction_fn(mbr_cu_function *function, mbr_cu_module module,
                                       const char *name);
typedef int mbr_cuFuncSetAttribute_fn(mbr_cu_function function, int attribute,
                                      int value);
typedef int mbr_cuLaunchKernel_fn(mbr_cu_function function, unsigned grid_x,
                                  unsigned grid_y, unsigned grid_z, unsigned block_x,
                                  unsigned block_y, unsigned block_z,
                                  unsigned shared_bytes, mbr_cu_stream stream,
                                  void **params, void **extra);
typedef int mbr_cuGetErrorName_fn(int status, const char **name);
typedef int mbr_cuGetErrorString_fn(int status, const char **text);
typedef int mbr_cuStreamIsCapturing_fn(mbr_cu_stream stream, int *status);
typedef int mbr_cuLibraryLoadData_fn(mbr_cu_library *library, const void *image,
                                     int *jit_options, void **jit_values,
                                     unsigned jit_count, int *options, void **values,
                                     unsigned count);
typedef int mbr_cuLibraryGetKernel_fn(mbr_cu_kernel *kernel, mbr_cu_library library,
                                      const char *name);
typedef int mbr_cuKernelGetFunction_fn(mbr_cu_function *function, mbr_cu_kernel kernel);

/* A missing optional function is NULL. */
struct mbr_driver {
#define MBR_DRIVER(symbol, need, since, without) mbr_##symbol##_fn *symbol;
#include "driver.def"
};

enum {
#define MBR_DRIVER(symbol, need, since, without) MBR_DRIVER_##symbol,
#include "driver.def"
    MBR_DRIVER_ROWS
};

typedef struct mbr_driver_facts {
    mbr_refusal refusal; /* why no CUDA variant can run, or "" */
    int32_t api;         /* 12020 is 12.2; 0: unknown */
    char path[256];      /* of the library; "" if none */
    /* per row of driver.def: "" or the sentence why it is missing */
    char missing[MBR_DRIVER_ROWS][120];
    mbr_driver table;
} mbr_driver_facts;

/* Opens libcuda.so.1 at the first question of the process; the answer then stays. Does
 * not initialise CUDA. */
const mbr_driver_facts *mbr__driver(void);

/* "CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected", as far as the
 * driver can say it. */
void mbr__driver_text(const mbr_driver *driver, int status, char *out, size_t size);

/* Fills in why and code, unless a reason is there already: the first is the cause. */
__attribute__((format(printf, 3, 4))) void
mbr__refuse(mbr_refusal *refusal, const char *code, const char *fmt, ...);

#endif
