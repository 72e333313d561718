/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_cuda.c - asks the driver what one device is. Creates no context and allocates
 * nothing on the device.
 */
#include "driver.h"
#include "params.h"
#include "status.h"

/* What cuInit and the queries answer, where it has its own explanation. */
static const struct known {
    int status;
    const char *code;
} known[] = {
    {34, MBR_CODE_STUB},    /* CUDA_ERROR_STUB_LIBRARY */
    {100, MBR_CODE_HIDDEN}, /* CUDA_ERROR_NO_DEVICE */
    {101, MBR_CODE_HIDDEN}, /* CUDA_ERROR_INVALID_DEVICE */
    {802, MBR_CODE_FABRIC}, /* CUDA_ERROR_SYSTEM_NOT_READY */
    {803, MBR_CODE_COMPAT}, /* CUDA_ERROR_SYSTEM_DRIVER_MISMATCH */
    {804, MBR_CODE_COMPAT}, /* CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE */
};

static const char *code_of(int status) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return known[i].code;
    return MBR_CODE_CUDA;
}

/* Whether call went well; if not, that is the refusal. */
static bool went_well(const mbr_driver *driver, const char *call, int status,
                      mbr_refusal *refusal) {
    if (status == 0)
        return true;
    char text[160];
    mbr__driver_text(driver, status, text, sizeof text);
    mbr__refuse(refusal, code_of(status), "%s fails with %s", call, text);
    return false;
}

static bool ask(const mbr_driver *d, int32_t device_id, mbr_gpu_facts *out,
                mbr_refusal *refusal) {
#define ASK(function, ...)                                                             \
    if (!went_well(d, #function, d->function(__VA_ARGS__), refusal))                   \
    return false
    int device, major, minor;
    size_t bytes;
    ASK(cuInit, 0);
    ASK(cuDeviceGetCount, &out->device_count);
    if (device_id < 0 || device_id >= out->device_count) {
        mbr__refuse(refusal, MBR_CODE_HIDDEN, "the driver shows %d device%s",
                    out->device_count, out->device_count == 1 ? "" : "s");
        return false;
    }
    ASK(cuDeviceGet, &device, device_id);
    ASK(cuDeviceGetName, out->name, sizeof out->name, device);
    ASK(cuDeviceTotalMem_v2, &bytes, device);
    ASK(cuDeviceGetAttribute, &major, MBR_CU_CAPABILITY_MAJOR, device);
    ASK(cuDeviceGetAttribute, &minor, MBR_CU_CAPABILITY_MINOR, device);
    ASK(cuDeviceGetAttribute, &out->multiprocessors, MBR_CU_MULTIPROCESSORS, device);
#undef ASK
    out->compute_capability = 10 * major + minor;
    out->total_memory = bytes;
    return true;
}

void mbr__probe_gpu(int32_t device_id, mbr_gpu_facts *out, mbr_refusal *refusal) {
    const mbr_driver_facts *driver = mbr__driver();
    *refusal = driver->refusal;
    mbr_gpu_facts answer = {0};
    if (refusal->code != NULL || !ask(&driver->table, device_id, &answer, refusal)) {
        mbr__trace("cuda:%d: %s", device_id, refusal->why);
        return;
    }
    answer.name[sizeof answer.name - 1] = '\0';
    *out = answer;
    mbr__trace("cuda:%d: %s, sm_%d, %d multiprocessors", device_id, out->name,
               out->compute_capability, out->multiprocessors);
}

mbr_status mbr_probe_gpu(int32_t device_id, mbr_gpu_facts *out) {
    MBR_TRY(mbr__check_answer(out, MBR_END_OF(mbr_gpu_facts, name), sizeof *out));
    mbr_gpu_facts answer;
    mbr_refusal refusal;
    mbr__probe_gpu(device_id, &answer, &refusal);
    if (refusal.code != NULL)
        MBR_FAIL(MBR_E_CUDA, "cannot use cuda:%d: %s" MBR_EXPLAIN "%s", device_id,
                 refusal.why, refusal.code);
    mbr__answer(out, sizeof answer, &answer);
    return MBR_OK;
}
