/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_cpu_test.c - what is concluded from processors, and what is asked. Their
 * leaves are written after the manuals, not dumped from chips: the bits that decide are
 * right, others may differ.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "probe.h"
#include <string.h>

enum { NEVER_ASKED = 0xdead, BOTH = MBR_CPU_AVX2 | MBR_CPU_AVX512 };

/* The registers that matter: leaf 0 EAX, leaf 1 ECX, leaf 7 EBX, XCR0, and the brand
 * string. Kernels differ in XCR0, virtual machines also in the leaves. */
static const struct recorded {
    const char *what;
    uint32_t max_leaf, leaf1_ecx, leaf7_ebx;
    uint64_t xcr0;
    uint32_t usable, unsaved;
    const char *brand, *name;
} cpus[] = {
    {"Skylake server", 0x16, 0x7ffefbff, 0xd39ffffb, 0x2ff, BOTH, 0,
     "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz",
     "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz"},
    {"Skylake server, kernel saves no ZMM (clearcpuid, or an old hypervisor)", 0x16,
     0x7ffefbff, 0xd39ffffb, 0x7, MBR_CPU_AVX2, MBR_CPU_AVX512, "", ""},
    {"Skylake server, opmask saved but not ZMM", 0x16, 0x7ffefbff, 0xd39ffffb, 0x27,
     MBR_CPU_AVX2, MBR_CPU_AVX512, "", ""},
    {"Skylake server, upper ZMM saved but not ZMM16-31", 0x16, 0x7ffefbff, 0xd39ffffb,
     0x67, MBR_CPU_AVX2, MBR_CPU_AVX512, "", ""},
    {"Skylake server, kernel without XSAVE (noxsave): OSXSAVE is 0", 0x16, 0x77fefbff,
     0xd39ffffb, NEVER_ASKED, 0, BOTH, "", ""},
    {"Skylake server, only SSE saved", 0x16, 0x7ffefbff, 0xd39ffffb, 0x3, 0, BOTH, "",
     ""},
    {"Zen 4", 0x10, 0x7ef8320b, 0xf1bf97a9, 0x2e7, BOTH, 0,
     "AMD EPYC 9354 32-Core Processor                ",
     "AMD EPYC 9354 32-Core Processor"},
    {"Zen 2", 0x10, 0x7ed8320b, 0x219c91a9, 0x207, MBR_CPU_AVX2, 0,
     "AMD Ryzen 7 3700X 8-Core Processor             ",
     "AMD Ryzen 7 3700X 8-Core Processor"},
    {"Haswell", 0xd, 0x7ffafbff, 0x000027ab, 0x7, MBR_CPU_AVX2, 0,
     "       Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz",
     "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz"},
    {"Haswell under a hypervisor that hides FMA", 0xd, 0x7ffaebff, 0x000027ab, 0x7, 0,
     0, "", ""},
    {"Haswell under a hypervisor that hides F16C", 0xd, 0x5ffafbff, 0x000027ab, 0x7, 0,
     0, "", ""},
    {"Knights Landing: AVX-512 F without DQ, BW and VL", 0xd, 0x7ff8f3bf, 0x1c0d23ab,
     0xe7, MBR_CPU_AVX2, 0, "", ""},
    {"Ivy Bridge: AVX and F16C, no AVX2", 0xd, 0x7fbae3bf, 0x00000281, 0x7, 0, 0, "",
     ""},
    {"Sandy Bridge: AVX alone", 0xd, 0x1fbae3bf, 0x00000000, 0x7, 0, 0, "", ""},
    {"Nehalem: before AVX", 0xb, 0x0098e3bd, 0x00000000, NEVER_ASKED, 0, 0, "", ""},
    {"Conroe: leaf 7 is beyond its last", 0xa, 0x0000e3bd, NEVER_ASKED, NEVER_ASKED, 0,
     0, "", ""},
    {"no CPUID at all, as on another architecture", 0, NEVER_ASKED, NEVER_ASKED,
     NEVER_ASKED, 0, 0, "", ""},
};

static const struct recorded *current;

static void tell_brand(uint32_t leaf, uint32_t r[4]) {
    char text[48] = "";
    memcpy(text, current->brand, strlen(current->brand));
    memcpy(r, text + 16 * (leaf - 0x80000002), 4 * sizeof *r);
}

static void recorded_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    memset(r, 0, 4 * sizeof *r);
    assert_int_equal(subleaf, 0);
    if (leaf == 0x80000000)
        r[0] = current->brand[0] != '\0' ? 0x80000008 : 0x80000001;
    else if (leaf >= 0x80000002 && leaf <= 0x80000004 && current->brand[0] != '\0')
        tell_brand(leaf, r);
    else if (leaf > current->max_leaf)
        fail_msg("%s: asked for leaf %#x", current->what, leaf);
    else if (leaf == 0)
        r[0] = current->max_leaf;
    else if (leaf == 1)
        r[2] = current->leaf1_ecx;
    else if (leaf == 7)
        r[1] = current->leaf7_ebx;
}

static uint64_t recorded_xcr0(void) {
    if (current->xcr0 == NEVER_ASKED)
        fail_msg("%s: XGETBV would be an invalid instruction here", current->what);
    return current->xcr0;
}

static void recorded_cpus_are_judged_by_feature_and_saved_state(void **state) {
    (void)state;
    const mbr_cpu_leaves leaves = {recorded_cpuid, recorded_xcr0};
    for (size_t i = 0; i < sizeof cpus / sizeof *cpus; i++) {
        mbr_cpu_facts got;
        current = &cpus[i];
        mbr__judge_cpu(&leaves, &got);
        if (got.usable != current->usable || got.unsaved != current->unsaved ||
            strcmp(got.name, current->name) != 0)
            fail_msg("%s: usable %u, unsaved %u, name '%s'; not %u, %u, '%s'",
                     current->what, got.usable, got.unsaved, got.name, current->usable,
                     current->unsaved, current->name);
    }
}

static void this_processor_is_judged_like_the_compiler_does(void **state) {
    (void)state;
    mbr_cpu_facts got;
    mbr__probe_cpu(&got);
    uint32_t want = 0;
#if defined(__x86_64__) /* the compiler's own detection also looks at XCR0 */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        want |= MBR_CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        want |= MBR_CPU_AVX512;
#endif
    assert_int_equal(got.usable, want);
}

static void at_least_one_cpu_may_run_this(void **state) {
    (void)state;
    assert_in_range(mbr__cpu_count(), 1, 65536);
}

static void host_facts_name_processor_driver_library_and_stamp(void **state) {
    (void)state;
    mbr_cpu_facts cpu;
    mbr__probe_cpu(&cpu);
    mbr_host_facts got = {.struct_size = sizeof got};
    assert_int_equal(mbr_probe_host(&got), MBR_OK);
    assert_int_equal(got.cpu, cpu.usable);
    assert_string_equal(got.cpu_name, cpu.name);
    assert_int_equal(got.cpu_count, mbr__cpu_count());
    assert_true(got.driver[0] != '\0');
    assert_int_equal(got.library[0], '/');
    assert_int_equal(strlen(got.stamp), 16);
}

static void host_facts_without_a_size_are_refused(void **state) {
    (void)state;
    mbr_host_facts got = {.struct_size = 0};
    assert_int_equal(mbr_probe_host(&got), MBR_E_ARG);
    assert_string_equal(mbr_last_error(),
                        "out->struct_size is 0: set it to sizeof *out, "
                        "at least 352");
    assert_int_equal(mbr_probe_host(NULL), MBR_E_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_cpus_are_judged_by_feature_and_saved_state),
        cmocka_unit_test(this_processor_is_judged_like_the_compiler_does),
        cmocka_unit_test(at_least_one_cpu_may_run_this),
        cmocka_unit_test(host_facts_name_processor_driver_library_and_stamp),
        cmocka_unit_test(host_facts_without_a_size_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
