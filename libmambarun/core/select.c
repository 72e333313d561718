/* SPDX-License-Identifier: Apache-2.0
 *
 * select.c - which variant runs here. Pure: facts in, verdicts out. Opens no file and
 * reads no environment.
 */
#include "select.h"

#include "status.h"
#include <stdio.h>
#include <string.h>

const mbr_row mbr__rows[MBR_ROWS] = {
#define MBR_CPU_VARIANT(variant, isa)                                                  \
    {.name = #variant,                                                                 \
     .mode = "cpu",                                                                    \
     .device_type = MBR_DEVICE_CPU,                                                    \
     .cpu = MBR_CPU_##isa},
#define MBR_CUDA_ROW(variant, major, kind, sm, least, last, tests)                     \
    {.name = #variant,                                                                 \
     .mode = #kind,                                                                    \
     .device_type = MBR_DEVICE_CUDA,                                                   \
     .toolkit = major,                                                                 \
     .arch = sm,                                                                       \
     .least_cc = least,                                                                \
     .last_cc = last,                                                                  \
     .for_tests = tests},
#define MBR_CUDA_VARIANT(...) MBR_CUDA_ROW(__VA_ARGS__, false)
#define MBR_CUDA_TEST_VARIANT(...) MBR_CUDA_ROW(__VA_ARGS__, true)
#include "../manifest.def"
};

static const struct toolkit {
    int32_t major, least_driver;
} toolkits[] = {
#define MBR_TOOLKIT(major, built_with, least_driver, wheel) {major, least_driver},
#include "../manifest.def"
};

static const struct isa {
    uint32_t cpu;
    const char *what;
} isas[] = {
    {MBR_CPU_AVX2, "AVX2, FMA and F16C"},
    {MBR_CPU_AVX512, "AVX-512 F, DQ, BW and VL"},
};

static const char *isa_text(uint32_t cpu) {
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        if (isas[i].cpu == cpu)
            return isas[i].what;
    return "no more than the baseline";
}

static int32_t least_driver(int32_t major) {
    for (size_t i = 0; i < sizeof toolkits / sizeof *toolkits; i++)
        if (toolkits[i].major == major)
            return toolkits[i].least_driver;
    return INT32_MAX; /* a toolkit without a row has no driver */
}

#define SAY(...) snprintf(out->reason, sizeof out->reason, __VA_ARGS__)

static bool judge_cpu(const mbr_row *row, const mbr_facts *f, mbr_verdict *out) {
    const char *what = isa_text(row->cpu);
    bool here = (f->cpu.usable & row->cpu) == row->cpu;
    if (here)
        SAY("needs %s, which is here", what);
    else if ((f->cpu.unsaved & row->cpu) != 0)
        SAY("needs %s, whose registers this system does not save", what);
    else
        SAY("needs %s, which this processor lacks", what);
    return here;
}

static bool judge_cuda(const mbr_row *row, const mbr_facts *f, mbr_verdict *out) {
    int32_t cc = f->compute_capability, driver = f->driver_api;
    int32_t least = least_driver(row->toolkit);
    bool ptx = strcmp(row->mode, "ptx") == 0;
    if (f->no_cuda.why[0] != '\0') {
        SAY("%s", f->no_cuda.why);
        return false;
    }
    /* Capability before driver: a variant for another chip is no matter of drivers. */
    if (cc < row->least_cc || cc > row->last_cc) {
        SAY("needs sm_%d%s, device is sm_%d", row->arch, ptx ? " or newer" : "", cc);
        return false;
    }
    if (driver < least) {
        SAY("needs driver API %d.%d, driver has %d.%d", least / 1000, least % 1000 / 10,
            driver / 1000, driver % 1000 / 10);
        return false;
    }
    SAY(ptx ? "PTX for sm_%d, which the driver compiles for sm_%d"
            : "cubin for sm_%d, which runs on sm_%d",
        row->arch, cc);
    return true;
}

static bool judge(const mbr_row *row, const mbr_facts *f, const mbr_row *forced,
                  mbr_verdict *out) {
    if (row->device_type != f->device_type) {
        SAY("for %s devices", row->device_type == MBR_DEVICE_CPU ? "CPU" : "CUDA");
        return false;
    }
    if (forced != NULL && forced->device_type == f->device_type && forced != row) {
        SAY("not asked for: MAMBARUN_VARIANT is %s", forced->name);
        return false;
    }
    if (row->for_tests && forced != row) {
        SAY("for tests: runs only if MAMBARUN_VARIANT names it");
        return false;
    }
    return (row->device_type == MBR_DEVICE_CPU ? judge_cpu : judge_cuda)(row, f, out);
}

static const mbr_row *find_row(const char *name) {
    for (size_t i = 0; i < MBR_ROWS; i++)
        if (strcmp(mbr__rows[i].name, name) == 0)
            return &mbr__rows[i];
    return NULL;
}

static mbr_status refuse_name(const char *name, mbr_verdict verdicts[MBR_ROWS]) {
    char valid[MBR_ROWS * 24] = "";
    for (size_t i = 0; i < MBR_ROWS; i++) {
        verdicts[i].accepted = false;
        snprintf(verdicts[i].reason, sizeof verdicts[i].reason,
                 "not asked for: MAMBARUN_VARIANT is %.80s, which is no variant", name);
        size_t used = strlen(valid);
        snprintf(valid + used, sizeof valid - used, "%s%s", i > 0 ? ", " : "",
                 mbr__rows[i].name);
    }
    MBR_FAIL(MBR_E_NO_VARIANT,
             "MAMBARUN_VARIANT is %.80s, which is no variant: valid are %s" MBR_EXPLAIN
                 MBR_CODE_ASKED,
             name, valid);
}

mbr_status mbr__select(const mbr_facts *f, const char *forced,
                       mbr_verdict out[MBR_ROWS]) {
    const mbr_row *only = forced != NULL ? find_row(forced) : NULL;
    if (forced != NULL && only == NULL)
        return refuse_name(forced, out);
    for (size_t i = 0; i < MBR_ROWS; i++)
        out[i].accepted = judge(&mbr__rows[i], f, only, &out[i]);
    return MBR_OK;
}
