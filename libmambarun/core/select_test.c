/* SPDX-License-Identifier: Apache-2.0
 *
 * select_test.c - the choice, as a table: facts and a forced name in, the row that
 * comes first and one row's reason out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "select.h"
#include <stdio.h>
#include <string.h>

#define CPU(features, unsaved_features)                                                \
    {                                                                                  \
        .device_type = MBR_DEVICE_CPU,                                                 \
        .cpu = {.usable = (features), .unsaved = (unsaved_features)}                   \
    }
#define GPU(cc, api)                                                                   \
    {.device_type = MBR_DEVICE_CUDA, .compute_capability = (cc), .driver_api = (api)}
#define NO_GPU(text)                                                                   \
    {.device_type = MBR_DEVICE_CUDA, .no_cuda = {.why = text, .code = "MR102"}}
enum { ALL = MBR_CPU_AVX2 | MBR_CPU_AVX512 };

static const struct line {
    mbr_facts facts;
    const char *forced;
    const char *first; /* accepted row of highest preference; NULL: none */
    const char *row, *reason;
} lines[] = {
    /* processors */
    {CPU(ALL, 0), NULL, "cpu_avx512", "cpu_avx512",
     "needs AVX-512 F, DQ, BW and VL, which is here"},
    {CPU(MBR_CPU_AVX2, 0), NULL, "cpu_avx2", "cpu_avx512",
     "needs AVX-512 F, DQ, BW and VL, which this processor lacks"},
    {CPU(MBR_CPU_AVX2, MBR_CPU_AVX512), NULL, "cpu_avx2", "cpu_avx512",
     "needs AVX-512 F, DQ, BW and VL, whose registers this system does not save"},
    {CPU(0, 0), NULL, "cpu_scalar", "cpu_avx2",
     "needs AVX2, FMA and F16C, which this processor lacks"},
    {CPU(0, ALL), NULL, "cpu_scalar", "cpu_scalar",
     "needs no more than the baseline, which is here"},
    {CPU(ALL, 0), NULL, "cpu_avx512", "cuda12_sm80", "for CUDA devices"},
    {CPU(ALL, 0), "cpu_avx2", "cpu_avx2", "cpu_avx512",
     "not asked for: MAMBARUN_VARIANT is cpu_avx2"},
    {CPU(0, 0), "cpu_avx2", NULL, "cpu_avx2",
     "needs AVX2, FMA and F16C, which this processor lacks"},
    {CPU(0, 0), "cpu_avx2", NULL, "cpu_scalar",
     "not asked for: MAMBARUN_VARIANT is cpu_avx2"},
    {CPU(ALL, 0), "cuda12_sm80", "cpu_avx512", "cuda12_sm80", "for CUDA devices"},
    /* capability: environments.md's table, driver 580 and later */
    {GPU(60, 13000), NULL, "cuda12_sm60", "cuda12_sm70",
     "needs sm_70, device is sm_60"},
    {GPU(61, 13000), NULL, "cuda12_sm60", "cuda12_sm60",
     "cubin for sm_60, which runs on sm_61"},
    {GPU(70, 13000), NULL, "cuda12_sm70", "cpu_scalar", "for CPU devices"},
    {GPU(72, 13000), NULL, "cuda12_sm70", "cuda12_sm75",
     "needs sm_75, device is sm_72"},
    {GPU(75, 12040), NULL, "cuda12_sm75", "cuda12_sm90",
     "needs sm_90, device is sm_75"},
    {GPU(80, 13000), NULL, "cuda12_sm80", "cuda13_sm110",
     "needs sm_110, device is sm_80"},
    {GPU(86, 12020), NULL, "cuda12_sm80", "cuda11_ptx80",
     "PTX for sm_80, which the driver compiles for sm_86"},
    {GPU(89, 12020), NULL, "cuda12_sm80", "cuda12_sm80",
     "cubin for sm_80, which runs on sm_89"},
    {GPU(90, 13000), NULL, "cuda12_sm90", "cuda12_sm80",
     "needs sm_80, device is sm_90"},
    {GPU(103, 13000), NULL, "cuda12_sm100", "cuda12_sm120",
     "needs sm_120, device is sm_103"},
    {GPU(110, 13000), NULL, "cuda13_sm110", "cuda13_sm110",
     "cubin for sm_110, which runs on sm_110"},
    {GPU(121, 12090), NULL, "cuda12_sm120", "cuda12_sm100",
     "needs sm_100, device is sm_121"},
    {GPU(130, 13050), NULL, "cuda11_ptx80", "cuda11_ptx80",
     "PTX for sm_80, which the driver compiles for sm_130"},
    {GPU(75, 12040), NULL, "cuda12_sm75", "cuda11_ptx80",
     "needs sm_80 or newer, device is sm_75"},
    /* then the driver */
    {GPU(110, 12090), NULL, "cuda11_ptx80", "cuda13_sm110",
     "needs driver API 13.0, driver has 12.9"},
    {GPU(80, 11080), NULL, "cuda11_sm80", "cuda12_sm80",
     "needs driver API 12.0, driver has 11.8"},
    {GPU(90, 11040), NULL, "cuda11_ptx80", "cuda12_sm90",
     "needs driver API 12.0, driver has 11.4"},
    {GPU(80, 11080), NULL, "cuda11_sm80", "cuda12_sm90",
     "needs sm_90, device is sm_80"},
    {GPU(80, 10020), NULL, NULL, "cuda11_sm80",
     "needs driver API 11.0, driver has 10.2"},
    {GPU(52, 12040), NULL, NULL, "cuda12_sm60", "needs sm_60, device is sm_52"},
    /* forced */
    {GPU(80, 12040), "cuda11_ptx80", "cuda11_ptx80", "cuda12_sm80",
     "not asked for: MAMBARUN_VARIANT is cuda11_ptx80"},
    {GPU(80, 12040), "cuda12_sm90", NULL, "cuda12_sm90",
     "needs sm_90, device is sm_80"},
    {GPU(80, 12040), "cpu_scalar", "cuda12_sm80", "cpu_scalar", "for CPU devices"},
    {GPU(90, 13000), NULL, "cuda12_sm90", "cuda13_sm90",
     "for tests: runs only if MAMBARUN_VARIANT names it"},
    {GPU(90, 13000), "cuda13_sm90", "cuda13_sm90", "cuda12_sm90",
     "not asked for: MAMBARUN_VARIANT is cuda13_sm90"},
    {GPU(90, 12080), "cuda13_sm90", NULL, "cuda13_sm90",
     "needs driver API 13.0, driver has 12.8"},
    {GPU(90, 11080), "cuda11_sm90", "cuda11_sm90", "cuda13_sm90",
     "not asked for: MAMBARUN_VARIANT is cuda11_sm90"},
    /* no device at all: every row says so */
    {NO_GPU("no NVIDIA driver: gone"), NULL, NULL, "cuda12_sm80",
     "no NVIDIA driver: gone"},
    {NO_GPU("no NVIDIA driver: gone"), "cuda11_ptx80", NULL, "cuda11_ptx80",
     "no NVIDIA driver: gone"},
};

static size_t row_named(const char *name) {
    for (size_t i = 0; i < MBR_ROWS; i++)
        if (strcmp(mbr__rows[i].name, name) == 0)
            return i;
    fail_msg("the manifest has no row %s", name);
    return 0;
}

static const char *first_accepted(const mbr_verdict *verdicts) {
    for (size_t i = 0; i < MBR_ROWS; i++)
        if (verdicts[i].accepted)
            return mbr__rows[i].name;
    return "none";
}

static void facts_decide_the_first_row_and_every_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const struct line *l = &lines[i];
        mbr_verdict got[MBR_ROWS];
        assert_int_equal(mbr__select(&l->facts, l->forced, got), MBR_OK);
        const char *want = l->first != NULL ? l->first : "none";
        const char *reason = got[row_named(l->row)].reason;
        if (strcmp(first_accepted(got), want) != 0 || strcmp(reason, l->reason) != 0)
            fail_msg("line %zu: %s is first, not %s; %s: '%s', not '%s'", i,
                     first_accepted(got), want, l->row, reason, l->reason);
    }
}

static void every_verdict_has_a_reason(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        mbr_verdict got[MBR_ROWS];
        memset(got, 0, sizeof got);
        assert_int_equal(mbr__select(&lines[i].facts, lines[i].forced, got), MBR_OK);
        for (size_t row = 0; row < MBR_ROWS; row++)
            assert_true(got[row].reason[0] != '\0');
    }
}

static void unknown_name_is_refused_with_the_valid_ones(void **state) {
    (void)state;
    const mbr_facts cpu = CPU(ALL, 0);
    mbr_verdict got[MBR_ROWS];
    assert_int_equal(mbr__select(&cpu, "cpu_avx", got), MBR_E_NO_VARIANT);
    const char *message = mbr_last_error();
    const char *start = "MAMBARUN_VARIANT is cpu_avx, which is no variant: valid are "
                        "cpu_avx512, cpu_avx2, cpu_scalar, cuda13_sm110, ";
    assert_memory_equal(message, start, strlen(start));
    for (size_t i = 0; i < MBR_ROWS; i++) {
        assert_non_null(strstr(message, mbr__rows[i].name));
        assert_false(got[i].accepted);
        assert_string_equal(got[i].reason,
                            "not asked for: MAMBARUN_VARIANT is cpu_avx, "
                            "which is no variant");
    }
    assert_non_null(strstr(message, "\n  run: python -m mambarun --explain MR304"));
}

static void baseline_row_is_there_for_every_processor(void **state) {
    (void)state;
    assert_int_equal(mbr__rows[row_named("cpu_scalar")].cpu, 0);
}

static void rows_of_the_public_list_are_those_of_the_manifest(void **state) {
    (void)state;
    assert_int_equal(mbr_variant_count(), MBR_ROWS);
    for (size_t i = 0; i < MBR_ROWS; i++) {
        mbr_variant_info info = {.struct_size = sizeof info};
        assert_int_equal(mbr_variant_at(i, MBR_DEVICE_CPU, 0, &info), MBR_OK);
        assert_string_equal(info.name, mbr__rows[i].name);
        assert_string_equal(info.mode, mbr__rows[i].mode);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(facts_decide_the_first_row_and_every_reason),
        cmocka_unit_test(every_verdict_has_a_reason),
        cmocka_unit_test(unknown_name_is_refused_with_the_valid_ones),
        cmocka_unit_test(baseline_row_is_there_for_every_processor),
        cmocka_unit_test(rows_of_the_public_list_are_those_of_the_manifest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
