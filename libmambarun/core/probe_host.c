/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_host.c - what can be said about this machine without initialising CUDA.
 * Collects what others found.
 */
#include "driver.h"
#include "load.h"
#include "params.h"
#include "status.h"

#include "mbr_stamp.h"
#include <stdio.h>
#include <string.h>

mbr_status mbr_probe_host(mbr_host_facts *out) {
    MBR_TRY(mbr__check_answer(out, MBR_END_OF(mbr_host_facts, stamp), sizeof *out));
    mbr_cpu_facts cpu;
    mbr__probe_cpu(&cpu);
    const mbr_driver_facts *driver = mbr__driver();
    bool refused = driver->refusal.code != NULL;
    mbr_host_facts answer = {
        .cpu = cpu.usable,
        .cpu_count = mbr__cpu_count(),
        .driver_api = refused ? 0 : driver->api,
        .library = mbr__library_path(),
        .stamp = MBR_STAMP,
    };
    memcpy(answer.cpu_name, cpu.name, sizeof answer.cpu_name);
    snprintf(answer.driver, sizeof answer.driver, "%s",
             refused ? driver->refusal.why : driver->path);
    mbr__answer(out, sizeof answer, &answer);
    return MBR_OK;
}
