/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_cpu.c - what the processor can and the system saves. A feature counts only if
 * both say yes: a kernel that does not save ZMM registers corrupts AVX-512 code without
 * any fault. Chooses nothing.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "probe.h"

#include <sched.h>
#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>

static void ask_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}

static uint64_t ask_xcr0(void) {
    /* By instruction: the intrinsic would want this file compiled with -mxsave. */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#else

/* No leaf at all: every feature is judged absent. */
static void ask_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    (void)leaf;
    (void)subleaf;
    memset(r, 0, 4 * sizeof *r);
}

static uint64_t ask_xcr0(void) {
    return 0;
}

#endif

enum { EAX, EBX, ECX, EDX };
#define BIT(n) (UINT32_C(1) << (n))
enum {
    FMA = 12,
    OSXSAVE = 27,
    AVX = 28,
    F16C = 29, /* leaf 1, ECX */
    AVX2 = 5,
    AVX512F = 16,
    AVX512DQ = 17,
    AVX512BW = 30,
    AVX512VL = 31 /* leaf 7, EBX */
};

static const struct feature {
    uint32_t name;      /* MBR_CPU_* */
    uint32_t leaf1_ecx; /* all of these */
    uint32_t leaf7_ebx;
    uint64_t xcr0; /* XMM 2, YMM 4; opmask 32, upper ZMM 64, ZMM16-31 128 */
} features[] = {
    {MBR_CPU_AVX2, BIT(FMA) | BIT(AVX) | BIT(F16C), BIT(AVX2), 0x6},
    {MBR_CPU_AVX512, BIT(FMA) | BIT(AVX) | BIT(F16C),
     BIT(AVX2) | BIT(AVX512F) | BIT(AVX512DQ) | BIT(AVX512BW) | BIT(AVX512VL), 0xe6},
};

/* Leaves 0x80000002 to 0x80000004 hold 48 characters, blank-padded in front. */
static void read_name(const mbr_cpu_leaves *leaves, char out[64]) {
    uint32_t r[4];
    char text[49] = "";
    leaves->cpuid(0x80000000, 0, r);
    if (r[EAX] >= 0x80000004)
        for (uint32_t i = 0; i < 3; i++) {
            leaves->cpuid(0x80000002 + i, 0, r);
            memcpy(text + 16 * i, r, sizeof r);
        }
    const char *start = text + strspn(text, " ");
    size_t length = strlen(start);
    while (length > 0 && start[length - 1] == ' ')
        length--;
    memcpy(out, start, length);
    out[length] = '\0';
}

void mbr__judge_cpu(const mbr_cpu_leaves *leaves, mbr_cpu_facts *out) {
    uint32_t zero[4], one[4] = {0}, seven[4] = {0};
    memset(out, 0, sizeof *out);
    leaves->cpuid(0, 0, zero);
    if (zero[EAX] >= 1)
        leaves->cpuid(1, 0, one);
    if (zero[EAX] >= 7)
        leaves->cpuid(7, 0, seven);
    uint64_t saved = one[ECX] & BIT(OSXSAVE) ? leaves->xcr0() : 0;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        const struct feature *f = &features[i];
        if ((one[ECX] & f->leaf1_ecx) != f->leaf1_ecx ||
            (seven[EBX] & f->leaf7_ebx) != f->leaf7_ebx)
            continue;
        if ((saved & f->xcr0) == f->xcr0)
            out->usable |= f->name;
        else
            out->unsaved |= f->name;
    }
    read_name(leaves, out->name);
}

void mbr__probe_cpu(mbr_cpu_facts *out) {
    static const mbr_cpu_leaves real = {ask_cpuid, ask_xcr0};
    mbr__judge_cpu(&real, out);
}

int32_t mbr__cpu_count(void) {
    /* Sixteen times the usual set: one smaller than the kernel's is refused. */
    cpu_set_t sets[16];
    if (sched_getaffinity(0, sizeof sets, sets) != 0)
        return 1;
    return CPU_COUNT_S(sizeof sets, sets);
}
