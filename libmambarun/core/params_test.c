/* SPDX-License-Identifier: Apache-2.0
 *
 * params_test.c - the size rule: older, equal and newer callers, both ways.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "params.h"
#include <string.h>

/* An op's params as they are now, as they were, and as they will be. */
typedef struct now {
    mbr_call call;
    int64_t first, second;
} now;
typedef struct newer {
    now known;
    int64_t third;
} newer;
enum { OLDER = offsetof(now, second) };

static const mbr_call cpu_call = {.struct_size = sizeof(now),
                                  .device_type = MBR_DEVICE_CPU};

static mbr_status check(const void **p, now *full) {
    return mbr__params(p, sizeof(now), full);
}

static void params_of_our_size_stay_where_they_are(void **state) {
    (void)state;
    now mine = {.call = cpu_call, .first = 1, .second = 2}, full;
    const void *p = &mine;
    assert_int_equal(check(&p, &full), MBR_OK);
    assert_ptr_equal(p, &mine);
}

static void older_params_are_copied_and_their_new_fields_are_zero(void **state) {
    (void)state;
    now mine = {.call = cpu_call, .first = 1, .second = 2}, full;
    memset(&full, 0xff, sizeof full);
    mine.call.struct_size = OLDER;
    const void *p = &mine;
    assert_int_equal(check(&p, &full), MBR_OK);
    assert_ptr_equal(p, &full);
    assert_int_equal(full.first, 1);
    assert_int_equal(full.second, 0);
    assert_int_equal(full.call.struct_size, sizeof(now));
    assert_int_equal(mine.call.struct_size, OLDER);
}

static void newer_params_with_a_zero_tail_are_accepted(void **state) {
    (void)state;
    newer mine = {.known = {.call = cpu_call, .first = 1, .second = 2}};
    mine.known.call.struct_size = sizeof mine;
    now full;
    const void *p = &mine;
    assert_int_equal(check(&p, &full), MBR_OK);
    assert_ptr_equal(p, &mine);
}

static void newer_params_that_use_their_tail_are_refused(void **state) {
    (void)state;
    newer mine = {.known = {.call = cpu_call}, .third = 256}; /* byte 1 of the tail */
    mine.known.call.struct_size = sizeof mine;
    now full;
    const void *p = &mine;
    assert_int_equal(check(&p, &full), MBR_E_ARG);
    assert_string_equal(
        mbr_last_error(),
        "struct_size is 56 and byte 49 is not zero: libmambarun " MBR_VERSION_STRING
        " knows 48 bytes, the caller is newer\n"
        "  run: python -m mambarun --explain MR001");
}

static void refuse_call(mbr_call call, const char *message) {
    now mine = {.call = call}, full;
    const void *p = &mine;
    assert_int_equal(check(&p, &full), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), message);
}

static void no_params_at_all_are_refused(void **state) {
    (void)state;
    now full;
    const void *p = NULL;
    assert_int_equal(check(&p, &full), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "params is NULL");
}

static void size_that_was_never_set_is_refused(void **state) {
    (void)state;
    mbr_call call = cpu_call;
    call.struct_size = 0;
    refuse_call(call, "call.struct_size is 0: set it to sizeof the params struct, at "
                      "least 32");
}

static void size_that_no_struct_has_is_refused_unread(void **state) {
    (void)state;
    mbr_call call = cpu_call;
    call.struct_size = UINT32_MAX;
    refuse_call(call, "struct_size is 4294967295: set it to sizeof the struct");
}

static void unknown_device_type_is_refused(void **state) {
    (void)state;
    mbr_call call = cpu_call;
    call.device_type = 10;
    refuse_call(call, "call.device_type is 10: must be 1 (CPU) or 2 (CUDA)");
}

static void unknown_flag_is_refused(void **state) {
    (void)state;
    mbr_call call = cpu_call;
    call.flags = MBR_DETERMINISTIC | 4;
    refuse_call(call, "call.flags is 0x5: must be 0 or MBR_DETERMINISTIC (0x1)");
}

static void negative_threads_are_refused(void **state) {
    (void)state;
    mbr_call call = cpu_call;
    call.threads = -2;
    refuse_call(call, "call.threads is -2: must be 0 (all) or more");
}

static void reserved_field_in_use_is_refused(void **state) {
    (void)state;
    mbr_call call = cpu_call;
    call.reserved = 1;
    refuse_call(call, "call.reserved is 1: must be 0");
}

static void cuda_and_the_deterministic_flag_are_known(void **state) {
    (void)state;
    now mine = {.call = cpu_call}, full;
    mine.call.device_type = MBR_DEVICE_CUDA;
    mine.call.flags = MBR_DETERMINISTIC;
    mine.call.threads = 3;
    const void *p = &mine;
    assert_int_equal(check(&p, &full), MBR_OK);
}

/* ---- answers ------------------------------------------------------------------ */

typedef struct facts {
    uint32_t struct_size;
    uint32_t first;
    uint64_t second;
} facts;
enum { FIRST_RELEASE = MBR_END_OF(facts, first) };

static void answer_fills_what_the_caller_knows_and_no_more(void **state) {
    (void)state;
    const facts full = {.struct_size = 99, .first = 1, .second = 2};
    facts mine = {.struct_size = FIRST_RELEASE, .second = 77};
    assert_int_equal(mbr__check_answer(&mine, FIRST_RELEASE, sizeof mine), MBR_OK);
    mbr__answer(&mine, sizeof full, &full);
    assert_int_equal(mine.struct_size, FIRST_RELEASE);
    assert_int_equal(mine.first, 1);
    assert_int_equal(mine.second, 77);
}

static void answer_leaves_a_newer_callers_tail_alone(void **state) {
    (void)state;
    struct {
        facts known;
        uint64_t third;
    } mine = {.known = {.struct_size = sizeof mine}};
    const facts full = {.first = 1, .second = 2};
    assert_int_equal(mbr__check_answer(&mine, FIRST_RELEASE, sizeof full), MBR_OK);
    mbr__answer(&mine, sizeof full, &full);
    assert_int_equal(mine.known.second, 2);
    assert_int_equal(mine.third, 0);
    assert_int_equal(mine.known.struct_size, sizeof mine);
}

static void answer_without_a_place_or_size_is_refused(void **state) {
    (void)state;
    facts mine = {.struct_size = FIRST_RELEASE - 1};
    assert_int_equal(mbr__check_answer(NULL, FIRST_RELEASE, sizeof mine), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "out is NULL");
    assert_int_equal(mbr__check_answer(&mine, FIRST_RELEASE, sizeof mine), MBR_E_ARG);
    assert_string_equal(mbr_last_error(),
                        "out->struct_size is 7: set it to sizeof *out, "
                        "at least 8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(params_of_our_size_stay_where_they_are),
        cmocka_unit_test(older_params_are_copied_and_their_new_fields_are_zero),
        cmocka_unit_test(newer_params_with_a_zero_tail_are_accepted),
        cmocka_unit_test(newer_params_that_use_their_tail_are_refused),
        cmocka_unit_test(no_params_at_all_are_refused),
        cmocka_unit_test(size_that_was_never_set_is_refused),
        cmocka_unit_test(size_that_no_struct_has_is_refused_unread),
        cmocka_unit_test(unknown_device_type_is_refused),
        cmocka_unit_test(unknown_flag_is_refused),
        cmocka_unit_test(negative_threads_are_refused),
        cmocka_unit_test(reserved_field_in_use_is_refused),
        cmocka_unit_test(cuda_and_the_deterministic_flag_are_known),
        cmocka_unit_test(answer_fills_what_the_caller_knows_and_no_more),
        cmocka_unit_test(answer_leaves_a_newer_callers_tail_alone),
        cmocka_unit_test(answer_without_a_place_or_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
