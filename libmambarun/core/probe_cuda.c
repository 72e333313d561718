/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_cuda.c - asks the driver what one device is. Creates no context and allocates
 * nothing on the device.
 */
#include "driver.h"
#include "params.h"
#include "status.h"

static bool ask(const mbr_driver *d, int32_t device_id, mbr_gpu_facts *out,
                mbr_refusal *refusal) {
#define ASK(function, ...)                                                             \
    if (mbr__driver_judge(#function, d->function(__VA_ARGS__), refusal) !=             \
        MBR_WENT_WELL)                                                                 \
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
