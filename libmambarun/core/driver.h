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
    MBR_CU_CAPABILITY_MINOR = 76,
    MBR_CU_SHARED_BYTES_ASKED = 97 /* most shared memory of a block that asks for it */
};

/* For cuLaunchKernel's extra: what follows is where the parameters are, where their
 * size is, nothing. */
#define MBR_CU_PARAMS_AT ((void *)1)
#define MBR_CU_PARAMS_SIZE ((void *)2)
#define MBR_CU_PARAMS_END ((void *)0)

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
typedef int mbr_cuFuncGetAttribute_fn(int *value, int attribute,
                                      mbr_cu_function function);
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
typedef struct mbr_driver {
#define MBR_DRIVER(symbol, need, since, without) mbr_##symbol##_fn *symbol;
#include "driver.def"
} mbr_driver;

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

/* What an answer of the driver means for us; rows of driver_errors.def. */
typedef enum mbr_driver_kind {
    MBR_WENT_WELL,
    MBR_IMAGE,   /* this variant's kernels do not run on this device: try another */
    MBR_CAPTURE, /* not possible while a stream is captured */
    MBR_MACHINE  /* anything else */
} mbr_driver_kind;

/* What status means; refusal, unless it went well, says "cuInit fails with
 * CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected; no GPU is visible:
 * see CUDA_VISIBLE_DEVICES", as far as the driver and driver_errors.def can say it. */
mbr_driver_kind mbr__driver_judge(const char *call, int status, mbr_refusal *refusal);

/* Fills in why and code, unless a reason is there already: the first is the cause. */
__attribute__((format(printf, 3, 4))) void
mbr__refuse(mbr_refusal *refusal, const char *code, const char *fmt, ...);

#endif
