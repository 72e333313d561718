/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.c - a libcuda.so.1 that says what the environment tells it to, and logs what
 * it is asked (driver.h):
 *   FAKE_API         its version (12040)
 *   FAKE_DEVICES     how many devices (1)
 *   FAKE_CAPABILITY  their compute capabilities, separated by commas (80)
 *   FAKE_SHARED      bytes of shared memory that a block may ask for (166912)
 *   FAKE_cuInit ...  the status that this function returns (0)
 *   FAKE_MOOD        what cuInit does first: "crash", "exit", "sleep" for a minute, or
 *                    "print" to stdout
 *   FAKE_IMAGE       functions that get a kernel return theirs only for an image that
 *                    contains this text
 * Like a real one it refuses a launch that no GPU takes, or without a context, and
 * everything in a child that was forked after cuInit.
 * A function is left out by compiling with -DcuInit=absent_cuInit. No real driver is
 * ever asked.
 */
#include "core/driver.h"

#include "driver.h"
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MBR_DRIVER(symbol, need, since, without) MBR_API mbr_##symbol##_fn symbol;
#include "core/driver.def"

MBR_API mbr_fake_driver mbr_fake_driver_log;

enum { INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201 };
enum {
    SHARED = 166912,
    STATIC_SHARED = 1024
}; /* bytes: a block's at most, a kernel's */

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...) {
    static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
    char *log = mbr_fake_driver_log.log;
    pthread_mutex_lock(&writing);
    size_t used = strlen(log), size = sizeof mbr_fake_driver_log.log;
    va_list args;
    va_start(args, fmt);
    vsnprintf(log + used, size - used, fmt, args);
    va_end(args);
    used = strlen(log);
    snprintf(log + used, size - used, "\n");
    pthread_mutex_unlock(&writing);
}

static int number(const char *variable, int otherwise) {
    const char *value = getenv(variable);
    return value != NULL ? atoi(value) : otherwise;
}

static pid_t owner; /* who called cuInit */

static int answer(const char *function) {
    char variable[64];
    if (owner != 0 && owner != getpid() && strcmp(function, "cuDriverGetVersion") != 0)
        return NOT_INITIALIZED;
    snprintf(variable, sizeof variable, "FAKE_%s", function);
    return number(variable, 0);
}

static int answer_for(const char *function, const char *image) {
    const char *only = getenv("FAKE_IMAGE");
    return only == NULL || strstr(image, only) != NULL ? answer(function) : 0;
}

/* ---- devices ------------------------------------------------------------------ */

static int capability(int device) {
    const char *list = getenv("FAKE_CAPABILITY");
    for (int i = 0; list != NULL && i < device; i++)
        list = strchr(list, ',') != NULL ? strchr(list, ',') + 1 : NULL;
    return list != NULL ? atoi(list) : 80;
}

static void follow_mood(void) {
    const char *mood = getenv("FAKE_MOOD");
    if (mood == NULL)
        return;
    if (strcmp(mood, "crash") == 0)
        raise(SIGSEGV);
    if (strcmp(mood, "exit") == 0)
        _exit(7);
    if (strcmp(mood, "sleep") == 0)
        sleep(60);
    if (strcmp(mood, "print") == 0) {
        puts("{\"gpus\": \"a driver that prints\"}\nand goes on");
        fflush(stdout);
    }
}

int cuInit(unsigned flags) {
    note("cuInit %u", flags);
    follow_mood();
    int status = answer("cuInit");
    if (owner == 0)
        owner = getpid();
    return status;
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
    switch (attribute) {
    case MBR_CU_CAPABILITY_MAJOR:
        *value = capability(device) / 10;
        break;
    case MBR_CU_CAPABILITY_MINOR:
        *value = capability(device) % 10;
        break;
    case MBR_CU_MULTIPROCESSORS:
        *value = 100 + device;
        break;
    case MBR_CU_SHARED_BYTES_ASKED:
        *value = number("FAKE_SHARED", SHARED);
        break;
    default:
        *value = -1;
    }
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

/* ---- contexts: a device's is an element of this, a test's own anything else ---- */

static char primary[64];

/* Every thread has its own stack of them. */
static _Thread_local mbr_cu_context stack[8];
static _Thread_local size_t depth;

static const char *name_of(mbr_cu_context context, char out[24]) {
    const char *at = (const char *)context;
    if (at >= primary && at < primary + sizeof primary)
        snprintf(out, 24, "of %d", (int)(at - primary));
    else
        snprintf(out, 24, "another");
    return out;
}

int cuDevicePrimaryCtxRetain(mbr_cu_context *context, int device) {
    note("cuDevicePrimaryCtxRetain %d", device);
    *context = (mbr_cu_context)&primary[device];
    return answer("cuDevicePrimaryCtxRetain");
}

int cuCtxGetCurrent(mbr_cu_context *context) {
    note("cuCtxGetCurrent");
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return answer("cuCtxGetCurrent");
}

int cuCtxPushCurrent_v2(mbr_cu_context context) {
    char name[24];
    note("cuCtxPushCurrent_v2 %s", name_of(context, name));
    int status = answer("cuCtxPushCurrent_v2");
    if (status == 0)
        stack[depth++] = context;
    return status;
}

int cuCtxPopCurrent_v2(mbr_cu_context *context) {
    if (depth == 0)
        return INVALID_CONTEXT;
    char name[24];
    *context = stack[--depth];
    note("cuCtxPopCurrent_v2 %s", name_of(*context, name));
    return answer("cuCtxPopCurrent_v2");
}

/* ---- kernels: a module or library is its image, a kernel or function its name -- */

static int get_kernel(const char *function, const char *image, const char *name,
                      const void **out) {
    note("%s %s", function, name);
    int status = answer_for(function, image);
    *out = status == 0 ? name : NULL;
    return status;
}

int cuModuleLoadData(mbr_cu_module *module, const void *image) {
    note("cuModuleLoadData %s", (const char *)image);
    *module = (mbr_cu_module)image;
    return answer_for("cuModuleLoadData", image);
}

int cuModuleGetFunction(mbr_cu_function *function, mbr_cu_module module,
                        const char *name) {
    return get_kernel("cuModuleGetFunction", (const char *)module, name,
                      (const void **)function);
}

int cuLibraryLoadData(mbr_cu_library *library, const void *image, int *jit_options,
                      void **jit_values, unsigned jit_count, int *options,
                      void **values, unsigned count) {
    note("cuLibraryLoadData %s", (const char *)image);
    *library = (mbr_cu_library)image;
    if ((jit_count > 0 && (jit_options == NULL || jit_values == NULL)) ||
        (count > 0 && (options == NULL || values == NULL)))
        return INVALID_VALUE;
    return answer_for("cuLibraryLoadData", image);
}

int cuLibraryGetKernel(mbr_cu_kernel *kernel, mbr_cu_library library,
                       const char *name) {
    return get_kernel("cuLibraryGetKernel", (const char *)library, name,
                      (const void **)kernel);
}

int cuKernelGetFunction(mbr_cu_function *function, mbr_cu_kernel kernel) {
    note("cuKernelGetFunction %s", (const char *)kernel);
    *function = (mbr_cu_function)kernel;
    return answer("cuKernelGetFunction");
}

int cuFuncGetAttribute(int *value, int attribute, mbr_cu_function function) {
    (void)function;
    *value = attribute == 1 ? STATIC_SHARED : -1;
    return answer("cuFuncGetAttribute");
}

int cuFuncSetAttribute(mbr_cu_function function, int attribute, int value) {
    note("cuFuncSetAttribute %s %d %d", (const char *)function, attribute, value);
    return answer("cuFuncSetAttribute");
}

/* ---- launches ----------------------------------------------------------------- */

static bool within(uint64_t value, uint64_t least, uint64_t most) {
    return least <= value && value <= most;
}

/* What every GPU takes, as far as a launch shows it. */
static bool is_valid(const mbr_fake_launch *l) {
    const uint64_t threads = (uint64_t)l->block[0] * l->block[1] * l->block[2];
    const uint64_t shared = (uint64_t)number("FAKE_SHARED", SHARED) - STATIC_SHARED;
    return within(threads, 1, 1024) && within(l->grid[0], 1, INT32_MAX) &&
           within(l->grid[1], 1, 65535) && within(l->grid[2], 1, 65535) &&
           within(l->shared_bytes, 0, shared) && within(l->size, 1, sizeof l->params);
}

int cuStreamIsCapturing(mbr_cu_stream stream, int *status) {
    (void)stream;
    note("cuStreamIsCapturing");
    *status = mbr_fake_driver_log.capturing;
    return answer("cuStreamIsCapturing");
}

static void keep_params(mbr_fake_launch *out, void **extra) {
    const void *at = NULL;
    for (; extra != NULL && *extra != MBR_CU_PARAMS_END; extra += 2)
        if (*extra == MBR_CU_PARAMS_AT)
            at = extra[1];
        else if (*extra == MBR_CU_PARAMS_SIZE)
            out->size = *(const size_t *)extra[1];
    if (at != NULL && out->size <= sizeof out->params)
        memcpy(out->params, at, out->size);
}

int cuLaunchKernel(mbr_cu_function function, unsigned grid_x, unsigned grid_y,
                   unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, mbr_cu_stream stream,
                   void **params, void **extra) {
    static pthread_mutex_t launching = PTHREAD_MUTEX_INITIALIZER;
    (void)params;
    note("cuLaunchKernel %s", (const char *)function);
    mbr_fake_launch l = {.context = depth > 0 ? (void *)stack[depth - 1] : NULL,
                         .stream = stream,
                         .grid = {grid_x, grid_y, grid_z},
                         .block = {block_x, block_y, block_z},
                         .shared_bytes = shared_bytes};
    snprintf(l.kernel, sizeof l.kernel, "%s", (const char *)function);
    keep_params(&l, extra);
    if (l.context == NULL)
        return INVALID_CONTEXT;
    if (!is_valid(&l))
        return INVALID_VALUE;
    pthread_mutex_lock(&launching);
    mbr_fake_driver_log.launch = l;
    if (mbr_fake_driver_log.launches < MBR_FAKE_LAUNCHES)
        mbr_fake_driver_log.each[mbr_fake_driver_log.launches] = l;
    mbr_fake_driver_log.launches++;
    pthread_mutex_unlock(&launching);
    return answer("cuLaunchKernel");
}
