/* SPDX-License-Identifier: Apache-2.0
 *
 * status_test.c - messages, names, version and the trace switch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fakes/child.h"
#include "status.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *ask_for_error(void *out) {
    snprintf(out, 64, "%s", mbr_last_error());
    return NULL;
}

static void message_is_empty_before_the_first_failure(void **state) {
    (void)state;
    pthread_t thread;
    char heard[64] = "unset";
    assert_int_equal(pthread_create(&thread, NULL, ask_for_error, heard), 0);
    pthread_join(thread, NULL);
    assert_string_equal(heard, "");
}

static void failure_leaves_its_sentence_and_status(void **state) {
    (void)state;
    assert_int_equal(mbr__fail(MBR_E_ARG, "u.shape[%d] is %d", 2, -1), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "u.shape[2] is -1");
}

static void previous_message_may_be_an_argument(void **state) {
    (void)state;
    mbr__fail(MBR_E_CUDA, "cause");
    mbr__fail(MBR_E_INTERNAL, "%s after %s", "effect", mbr_last_error());
    assert_string_equal(mbr_last_error(), "effect after cause");
}

static void long_message_is_cut_and_ends(void **state) {
    (void)state;
    mbr__fail(MBR_E_ARG, "%*d", 3 * MBR_MESSAGE, 7);
    assert_int_equal(strlen(mbr_last_error()), MBR_MESSAGE - 1);
}

static void *fail_elsewhere(void *unused) {
    (void)unused;
    mbr__fail(MBR_E_ARG, "theirs");
    return NULL;
}

static void each_thread_has_its_own_message(void **state) {
    (void)state;
    pthread_t thread;
    mbr__fail(MBR_E_ARG, "mine");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(mbr_last_error(), "mine");
}

static mbr_status try_it(mbr_status s, int *reached) {
    MBR_TRY(s);
    *reached = 1;
    return MBR_OK;
}

static void try_passes_on_success_only(void **state) {
    (void)state;
    int reached = 0;
    assert_int_equal(try_it(MBR_E_UNSUPPORTED, &reached), MBR_E_UNSUPPORTED);
    assert_int_equal(reached, 0);
    assert_int_equal(try_it(MBR_OK, &reached), MBR_OK);
    assert_int_equal(reached, 1);
}

static void every_status_has_its_name(void **state) {
    (void)state;
    assert_string_equal(mbr_status_name(MBR_OK), "MBR_OK");
    assert_string_equal(mbr_status_name(MBR_E_ARG), "MBR_E_ARG");
    assert_string_equal(mbr_status_name(MBR_E_UNSUPPORTED), "MBR_E_UNSUPPORTED");
    assert_string_equal(mbr_status_name(MBR_E_NO_VARIANT), "MBR_E_NO_VARIANT");
    assert_string_equal(mbr_status_name(MBR_E_CUDA), "MBR_E_CUDA");
    assert_string_equal(mbr_status_name(MBR_E_INTERNAL), "MBR_E_INTERNAL");
}

static void any_other_number_is_an_unknown_status(void **state) {
    (void)state;
    assert_string_equal(mbr_status_name((mbr_status)(MBR_E_INTERNAL + 1)),
                        "unknown status");
    assert_string_equal(mbr_status_name((mbr_status)-1), "unknown status");
}

static void version_number_says_what_the_string_says(void **state) {
    (void)state;
    char text[32];
    uint32_t v = mbr_version();
    snprintf(text, sizeof text, "%u.%u.%u", v / 10000, v / 100 % 100, v % 100);
    assert_string_equal(text, MBR_VERSION_STRING);
}

/* What two trace calls write to stderr under MAMBARUN_TRACE=trace. */
struct traced {
    const char *trace;
    char heard[256];
};

static void trace_twice(void *found) {
    struct traced *t = found;
    int ends[2];
    if (pipe(ends) != 0 || dup2(ends[1], STDERR_FILENO) < 0)
        _exit(1);
    close(ends[1]);
    if (t->trace != NULL)
        setenv("MAMBARUN_TRACE", t->trace, 1);
    else
        unsetenv("MAMBARUN_TRACE");
    mbr__trace("row %d", 1);
    setenv("MAMBARUN_TRACE", "0", 1); /* read once: too late */
    mbr__trace("row %d", 2);
    close(STDERR_FILENO);
    ssize_t got = read(ends[0], t->heard, sizeof t->heard - 1);
    t->heard[got > 0 ? got : 0] = '\0';
}

static void trace_writes_one_line_each_if_it_is_1(void **state) {
    (void)state;
    struct traced t = {.trace = "1"};
    mbr_in_child(trace_twice, &t, sizeof t);
    assert_string_equal(t.heard, "mambarun: row 1\nmambarun: row 2\n");
}

static void nothing_is_written_if_trace_is_anything_else(void **state) {
    (void)state;
    static const char *const values[] = {NULL, "", "0", "yes", "11"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct traced t = {.trace = values[i], .heard = "unset"};
        mbr_in_child(trace_twice, &t, sizeof t);
        assert_string_equal(t.heard, "");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_is_empty_before_the_first_failure),
        cmocka_unit_test(failure_leaves_its_sentence_and_status),
        cmocka_unit_test(previous_message_may_be_an_argument),
        cmocka_unit_test(long_message_is_cut_and_ends),
        cmocka_unit_test(each_thread_has_its_own_message),
        cmocka_unit_test(try_passes_on_success_only),
        cmocka_unit_test(every_status_has_its_name),
        cmocka_unit_test(any_other_number_is_an_unknown_status),
        cmocka_unit_test(version_number_says_what_the_string_says),
        cmocka_unit_test(trace_writes_one_line_each_if_it_is_1),
        cmocka_unit_test(nothing_is_written_if_trace_is_anything_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
