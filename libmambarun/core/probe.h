/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.h - plain facts about the processor and one device. Who reads them chooses;
 * who collects them does not.
 */
#ifndef MBR_PROBE_H
#define MBR_PROBE_H

#include "../mambarun.h"

/* What a CPU row needs, by the name of its instruction set in manifest.def. */
enum { MBR_CPU_SCALAR = 0 };

/* Why something cannot be used, and the MR code that explains it. why is "" and code
 * NULL if it can. */
typedef struct mbr_refusal {
    char why[240];
    const char *code;
} mbr_refusal;

typedef struct mbr_cpu_facts {
    uint32_t usable;  /* MBR_CPU_*: in the processor, registers saved by the system */
    uint32_t unsaved; /* MBR_CPU_*: in the processor, registers not saved */
    char name[64];    /* brand string or "" */
} mbr_cpu_facts;

/* What selection may look at. */
typedef struct mbr_facts {
    int32_t device_type; /* MBR_DEVICE_* */
    int32_t device_id;
    mbr_cpu_facts cpu;
    /* CUDA devices only */
    mbr_refusal no_cuda; /* why this device cannot be used whatever the variant */
    int32_t driver_api;  /* 12020 is 12.2 */
    int32_t compute_capability; /* 80 is 8.0 */
} mbr_facts;

/* What the processor and the system answer. Tests bring recorded answers. */
typedef struct mbr_cpu_leaves {
    /* CPUID: eax, ebx, ecx, edx */
    void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);
    /* Which registers the system saves; called only if CPUID says that one may ask */
    uint64_t (*xcr0)(void);
} mbr_cpu_leaves;

void mbr__judge_cpu(const mbr_cpu_leaves *leaves, mbr_cpu_facts *out);

/* The processor this runs on. */
void mbr__probe_cpu(mbr_cpu_facts *out);

/* CPUs this process may run on, at least 1. */
int32_t mbr__cpu_count(void);

/* Asks the driver about a device; the first question of a process initialises CUDA.
 * refusal->why says why *out was left alone, or is "". */
void mbr__probe_gpu(int32_t device_id, mbr_gpu_facts *out, mbr_refusal *refusal);

#endif
