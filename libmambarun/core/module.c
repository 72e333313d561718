/* SPDX-License-Identifier: Apache-2.0
 *
 * module.c - kernels on devices. A device's primary context, which torch uses too, is
 * retained at the first touch and never released; it is made current only around our
 * own calls, and only where another one (or none, as in autograd's threads) is current.
 * Launching allocates nothing and waits for nothing.
 */
#include "module.h"

#include "status.h"
#include <stdlib.h>

enum { /* for cuFuncGetAttribute and cuFuncSetAttribute */
       FUNCTION_SHARED_BYTES = 1,
       FUNCTION_MOST_DYNAMIC_SHARED_BYTES = 8,
       SHARED_BYTES_UNASKED = 48 * 1024, /* more must be asked for */
};

/* What is known about a device. Written by mbr__module_load, before load.c publishes
 * the device's table; then only read. */
typedef struct device {
    mbr_cu_context context;
    int multiprocessors;
    int shared_limit; /* bytes, per block */
    /* Of the variant that was loaded: blob i is in library i and has function i. There
     * are no libraries if the driver is too old to have them. */
    const mbr_blob *blobs;
    size_t count;
    mbr_cu_library *libraries;
    mbr_cu_function *functions;
} device;

static device devices[MBR_CUDA_DEVICES];

static const mbr_driver *driver(void) {
    return &mbr__driver()->table;
}

/* Returns the kind of a driver call's answer unless it went well. */
#define TRY(refusal, function, ...)                                                    \
    do {                                                                               \
        mbr_driver_kind kind =                                                         \
            mbr__driver_judge(#function, driver()->function(__VA_ARGS__), refusal);    \
        if (kind != MBR_WENT_WELL)                                                     \
            return kind;                                                               \
    } while (0)

/* ---- contexts ----------------------------------------------------------------- */

static mbr_driver_kind retain(int32_t id, device *d, mbr_refusal *refusal) {
    int ordinal;
    mbr_cu_context context;
    if (d->context != NULL)
        return MBR_WENT_WELL;
    TRY(refusal, cuDeviceGet, &ordinal, id);
    TRY(refusal, cuDeviceGetAttribute, &d->multiprocessors, MBR_CU_MULTIPROCESSORS,
        ordinal);
    TRY(refusal, cuDeviceGetAttribute, &d->shared_limit, MBR_CU_SHARED_BYTES_ASKED,
        ordinal);
    TRY(refusal, cuDevicePrimaryCtxRetain, &context, ordinal);
    d->context = context;
    return MBR_WENT_WELL;
}

/* Makes d's context current in this thread; *pushed: it was not, so leave it again. */
static int enter(const device *d, bool *pushed) {
    mbr_cu_context current = NULL;
    int status = driver()->cuCtxGetCurrent(&current);
    *pushed = false;
    if (status != 0 || current == d->context)
        return status;
    status = driver()->cuCtxPushCurrent_v2(d->context);
    *pushed = status == 0;
    return status;
}

static void leave(bool pushed) {
    mbr_cu_context popped;
    if (pushed)
        driver()->cuCtxPopCurrent_v2(&popped);
}

/* ---- loading ------------------------------------------------------------------ */

/* Loading while a stream is captured fails and spoils the capture. */
static mbr_driver_kind refuse_capture(void *stream, mbr_refusal *refusal) {
    int capturing = 0;
    if (driver()->cuStreamIsCapturing == NULL)
        return MBR_WENT_WELL;
    TRY(refusal, cuStreamIsCapturing, stream, &capturing);
    if (capturing == 0)
        return MBR_WENT_WELL;
    mbr__refuse(refusal, MBR_CODE_CAPTURE, "the stream is captured");
    return MBR_CAPTURE;
}

static bool has_libraries(void) {
    const mbr_driver *d = driver();
    return d->cuLibraryLoadData != NULL && d->cuLibraryGetKernel != NULL &&
           d->cuKernelGetFunction != NULL;
}

/* One load serves all contexts: the libraries of a device that has these blobs, or
 * NULL. */
static mbr_cu_library *find_libraries(const mbr_blob *blobs) {
    for (size_t i = 0; i < MBR_CUDA_DEVICES; i++)
        if (devices[i].blobs == blobs)
            return devices[i].libraries;
    return NULL;
}

/* A wrong cubin loads without an error; only a function proves that it is right. */
static mbr_driver_kind find_in_library(const mbr_blob *blob, mbr_cu_library *library,
                                       mbr_cu_function *out, mbr_refusal *refusal) {
    mbr_cu_kernel kernel;
    if (*library == NULL) { /* which a call that fails may not leave so */
        mbr_cu_library loaded;
        TRY(refusal, cuLibraryLoadData, &loaded, blob->image, NULL, NULL, 0, NULL, NULL,
            0);
        *library = loaded;
    }
    TRY(refusal, cuLibraryGetKernel, &kernel, *library, blob->name);
    TRY(refusal, cuKernelGetFunction, out, kernel);
    return MBR_WENT_WELL;
}

static mbr_driver_kind find_in_module(const mbr_blob *blob, mbr_cu_function *out,
                                      mbr_refusal *refusal) {
    mbr_cu_module module;
    TRY(refusal, cuModuleLoadData, &module, blob->image);
    TRY(refusal, cuModuleGetFunction, out, module, blob->name);
    return MBR_WENT_WELL;
}

/* Whatever of the limit the kernel does not use itself may be asked for at a launch. */
static mbr_driver_kind allow_shared(const device *d, mbr_cu_function function,
                                    mbr_refusal *refusal) {
    int fixed;
    if (d->shared_limit <= SHARED_BYTES_UNASKED)
        return MBR_WENT_WELL;
    TRY(refusal, cuFuncGetAttribute, &fixed, FUNCTION_SHARED_BYTES, function);
    TRY(refusal, cuFuncSetAttribute, function, FUNCTION_MOST_DYNAMIC_SHARED_BYTES,
        d->shared_limit - fixed);
    return MBR_WENT_WELL;
}

static mbr_driver_kind load_blob(device *d, size_t i, mbr_refusal *refusal) {
    const mbr_blob *blob = &d->blobs[i];
    mbr_cu_function found = NULL;
    mbr_driver_kind kind =
        d->libraries != NULL ? find_in_library(blob, &d->libraries[i], &found, refusal)
                             : find_in_module(blob, &found, refusal);
    if (kind == MBR_WENT_WELL)
        kind = allow_shared(d, found, refusal);
    if (kind == MBR_WENT_WELL)
        d->functions[i] = found;
    else
        mbr__trace("%s: %s", blob->name, refusal->why);
    return kind;
}

/* Those that an earlier try has loaded are there: a full device must not be filled
 * further by trying again. */
static mbr_driver_kind load_blobs(device *d, mbr_refusal *refusal) {
    mbr_driver_kind kind = MBR_WENT_WELL;
    for (size_t i = 0; kind == MBR_WENT_WELL && i < d->count; i++)
        if (d->functions[i] == NULL)
            kind = load_blob(d, i, refusal);
    return kind;
}

/* The driver keeps what it has loaded, as the process keeps a refused variant. */
static void forget_variant(device *d) {
    mbr_cu_library *libraries = d->libraries;
    const mbr_blob *blobs = d->blobs;
    free(d->functions);
    d->blobs = NULL;
    d->functions = NULL;
    d->libraries = NULL;
    if (blobs != NULL && find_libraries(blobs) == NULL)
        free(libraries);
}

/* Room for a variant's kernels, in place of those of one that was refused. */
static bool begin_variant(device *d, const mbr_table *variant) {
    forget_variant(d);
    const size_t count = variant->blob_count;
    mbr_cu_library *libraries = NULL;
    if (has_libraries()) {
        libraries = find_libraries(variant->blobs);
        if (libraries == NULL)
            libraries = calloc(count + 1, sizeof *libraries);
    }
    d->blobs = variant->blobs;
    d->count = count;
    d->libraries = libraries;
    d->functions = calloc(count + 1, sizeof *d->functions);
    if (d->functions != NULL && (libraries != NULL || !has_libraries()))
        return true;
    forget_variant(d);
    return false;
}

static mbr_driver_kind load_variant(device *d, const mbr_table *variant,
                                    mbr_refusal *refusal) {
    if (d->blobs == variant->blobs || begin_variant(d, variant))
        return load_blobs(d, refusal);
    mbr__refuse(refusal, MBR_CODE_BUSY, "no memory for %zu kernels",
                variant->blob_count);
    return MBR_MACHINE;
}

mbr_driver_kind mbr__module_load(int32_t device_id, void *stream,
                                 const mbr_table *variant, mbr_refusal *refusal) {
    device *d = &devices[device_id];
    bool pushed;
    mbr_driver_kind kind = retain(device_id, d, refusal);
    if (kind != MBR_WENT_WELL)
        return kind;
    kind = mbr__driver_judge("cuCtxPushCurrent", enter(d, &pushed), refusal);
    if (kind == MBR_WENT_WELL)
        kind = refuse_capture(stream, refusal);
    if (kind == MBR_WENT_WELL)
        kind = load_variant(d, variant, refusal);
    leave(pushed);
    return kind;
}

/* ---- launching ---------------------------------------------------------------- */

static mbr_status fail_launch(const mbr_call *c, const char *kernel,
                              const mbr_launch *how, const char *call, int status) {
    mbr_refusal refusal = {0};
    mbr__driver_judge(call, status, &refusal);
    MBR_FAIL(MBR_E_CUDA,
             "%s on cuda:%d, %u x %u x %u blocks of %u threads with %u bytes of shared "
             "memory: %s" MBR_EXPLAIN "%s",
             kernel, c->device_id, how->grid[0], how->grid[1], how->grid[2], how->block,
             how->shared_bytes, refusal.why, refusal.code);
}

static mbr_status launch(const mbr_call *c, uint32_t kernel, const mbr_launch *how,
                         const void *params, size_t size) {
    const device *d = &devices[c->device_id];
    if (kernel >= d->count)
        MBR_FAIL(MBR_E_INTERNAL, "kernel %u of %zu is launched", kernel, d->count);
    const char *name = d->blobs[kernel].name;
    void *extra[] = {MBR_CU_PARAMS_AT, (void *)params, MBR_CU_PARAMS_SIZE, &size,
                     MBR_CU_PARAMS_END};
    bool pushed;
    int status = enter(d, &pushed);
    if (status != 0)
        return fail_launch(c, name, how, "cuCtxPushCurrent", status);
    status = driver()->cuLaunchKernel(d->functions[kernel], how->grid[0], how->grid[1],
                                      how->grid[2], how->block, 1, 1, how->shared_bytes,
                                      c->stream, NULL, extra);
    leave(pushed);
    if (status != 0)
        return fail_launch(c, name, how, "cuLaunchKernel", status);
    return MBR_OK;
}

static int32_t multiprocessors(const mbr_call *c) {
    return devices[c->device_id].multiprocessors;
}

const mbr_launcher mbr__launcher = {launch, multiprocessors};
