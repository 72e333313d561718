/* SPDX-License-Identifier: Apache-2.0
 *
 * module_test.c - loading kernels and launching them: both ways of loading, contexts,
 * captures, threads, devices and every documented error, against the log of the fake
 * driver. One process each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fakes/child.h"
#include "../fakes/driver.h"
#include "../fakes/variant.h"
#include "load.h"
#include "module.h"
#include "select.h"
#include "status.h"
#include <pthread.h>

enum { THREADS = 16 };

/* What one process found. The first members say how to start. */
struct found {
    const char *driver;   /* folder of the fake driver */
    const char *settings; /* NAME=value NAME=value for it */
    const char *fakes;    /* folder of the variants; NULL: good */
    int32_t capturing;
    void *current; /* context of the thread before the call */
    mbr_status status, again;
    char message[4096];
    char in_use[32];
    mbr_verdict verdict; /* on cuda12_sm90 */
    mbr_fake_driver log;
    char load_log[32768]; /* of the first call, which loads */
    void *context_after;
    int32_t multiprocessors;
};

static mbr_fake_driver *fake;

static void start(const struct found *f) {
    char path[512];
    snprintf(path, sizeof path, MBR_TEST_FAKES "/%s",
             f->driver != NULL ? f->driver : "driver");
    setenv("FAKE_CAPABILITY", "90,90", 1);
    setenv("FAKE_DEVICES", "2", 1);
    mbr_set_variables(f->settings);
    fake = mbr_fake_driver_use(path);
    if (fake == NULL)
        _exit(9);
    fake->capturing = f->capturing;
    snprintf(path, sizeof path, MBR_TEST_FAKES "/%s",
             f->fakes != NULL ? f->fakes : "good");
    setenv("MAMBARUN_PATH", path, 1);
}

static void finish(struct found *f) {
    snprintf(f->message, sizeof f->message, "%s", mbr_last_error());
    const char *name = mbr_variant_in_use(MBR_DEVICE_CUDA, 0);
    snprintf(f->in_use, sizeof f->in_use, "%s", name != NULL ? name : "none");
    mbr_variant_info info = {.struct_size = sizeof info};
    mbr_variant_at(MBR_ROW_cuda12_sm90, MBR_DEVICE_CUDA, 0, &info);
    f->verdict.accepted = info.usable;
    memcpy(f->verdict.reason, info.reason, sizeof info.reason);
    f->log = *fake;
}

static mbr_status load(int32_t device_id) {
    const mbr_call call = {.device_type = MBR_DEVICE_CUDA, .device_id = device_id};
    const mbr_table *table;
    return mbr__table(&call, "op", &table);
}

static const mbr_launch how = {{3, 4, 5}, 128, 70000};
static const char params[] = "what the kernel gets";

static mbr_status launch(int32_t device_id) {
    const mbr_call call = {.device_type = MBR_DEVICE_CUDA,
                           .device_id = device_id,
                           .stream = (void *)0x5150};
    return mbr__launcher.launch(&call, 1, &how, params, sizeof params);
}

static struct found *in_child(void (*body)(void *), struct found with) {
    static struct found f;
    f = with;
    mbr_in_child(body, &f, sizeof f);
    return &f;
}

#define CHILD(body, ...) in_child(body, (struct found){__VA_ARGS__})

static size_t count(const char *log, const char *part) {
    size_t n = 0;
    for (; (log = strstr(log, part)) != NULL; log += strlen(part))
        n++;
    return n;
}

static void assert_says(const char *message, const char *part) {
    if (strstr(message, part) == NULL)
        fail_msg("'%s' does not say '%s'", message, part);
}

/* ---- loading ------------------------------------------------------------------ */

static void load_one(void *into) {
    struct found *f = into;
    start(f);
    f->status = load(0);
    finish(f);
}

static void every_kernel_is_loaded_at_the_first_touch(void **state) {
    (void)state;
    struct found *f = CHILD(load_one, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_string_equal(f->log.log, "cuInit 0\n"
                                    "cuDevicePrimaryCtxRetain 0\n"
                                    "cuCtxGetCurrent\n"
                                    "cuCtxPushCurrent_v2 of 0\n"
                                    "cuStreamIsCapturing\n"
                                    "cuLibraryLoadData cuda12_sm90.one\n"
                                    "cuLibraryGetKernel one\n"
                                    "cuKernelGetFunction one\n"
                                    "cuFuncSetAttribute one 8 165888\n"
                                    "cuLibraryLoadData cuda12_sm90.two\n"
                                    "cuLibraryGetKernel two\n"
                                    "cuKernelGetFunction two\n"
                                    "cuFuncSetAttribute two 8 165888\n"
                                    "cuCtxPopCurrent_v2 of 0\n");
}

static void a_driver_without_libraries_loads_modules(void **state) {
    (void)state;
    static const char *const drivers[] = {
        "driver_old", "driver_without/cuLibraryLoadData",
        "driver_without/cuLibraryGetKernel", "driver_without/cuKernelGetFunction"};
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        struct found *f = CHILD(load_one, .driver = drivers[i]);
        assert_int_equal(f->status, MBR_OK);
        assert_says(f->log.log, "cuModuleLoadData cuda12_sm90.one\n"
                                "cuModuleGetFunction one\n"
                                "cuFuncSetAttribute one 8 165888\n"
                                "cuModuleLoadData cuda12_sm90.two\n"
                                "cuModuleGetFunction two\n"
                                "cuFuncSetAttribute two 8 165888\n");
        assert_null(strstr(f->log.log, "cuLibraryLoadData"));
    }
}

static void a_gpu_with_48_kilobytes_is_not_asked_for_more(void **state) {
    (void)state;
    struct found *f = CHILD(load_one, .settings = "FAKE_SHARED=49152");
    assert_int_equal(f->status, MBR_OK);
    assert_null(strstr(f->log.log, "cuFuncSetAttribute"));
}

static void preload_then_launch(void *into) {
    struct found *f = into;
    start(f);
    f->status = mbr_preload(0);
    snprintf(f->load_log, sizeof f->load_log, "%s", fake->log);
    fake->log[0] = '\0';
    f->again = launch(0);
    f->log = *fake;
}

static void preload_loads_and_a_later_call_loads_nothing(void **state) {
    (void)state;
    struct found *f = CHILD(preload_then_launch, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(f->again, MBR_OK);
    assert_int_equal(count(f->load_log, "cuLibraryGetKernel"), 2);
    assert_string_equal(f->log.log, "cuCtxGetCurrent\n"
                                    "cuCtxPushCurrent_v2 of 0\n"
                                    "cuLaunchKernel two\n"
                                    "cuCtxPopCurrent_v2 of 0\n");
}

static void use_two_devices(void *into) {
    struct found *f = into;
    start(f);
    f->status = load(0);
    f->again = load(1);
    load(0), load(1);
    if (launch(1) != MBR_OK)
        _exit(5);
    const mbr_call second = {.device_type = MBR_DEVICE_CUDA, .device_id = 1};
    f->multiprocessors = mbr__launcher.multiprocessors(&second);
    finish(f);
    f->context_after = (char *)fake->launch.context - 1; /* of device 0 */
    launch(0);
    if (fake->launch.context != f->context_after)
        _exit(6);
}

static void two_devices_share_libraries_but_not_contexts(void **state) {
    (void)state;
    struct found *f = CHILD(use_two_devices, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(f->again, MBR_OK);
    assert_int_equal(count(f->log.log, "cuLibraryLoadData"), 2);
    assert_int_equal(count(f->log.log, "cuLibraryGetKernel"), 4);
    assert_int_equal(count(f->log.log, "cuDevicePrimaryCtxRetain 0\n"), 1);
    assert_int_equal(count(f->log.log, "cuDevicePrimaryCtxRetain 1\n"), 1);
    assert_int_equal(f->multiprocessors, 101);
}

static void two_devices_of_an_old_driver_load_modules_each(void **state) {
    (void)state;
    struct found *f = CHILD(use_two_devices, .driver = "driver_old");
    assert_int_equal(count(f->log.log, "cuModuleLoadData"), 4);
    assert_int_equal(count(f->log.log, "cuDevicePrimaryCtxRetain"), 2);
}

static void use_a_device_that_takes_another_row(void *into) {
    struct found *f = into;
    start(f);
    setenv("FAKE_DEVICES", "3", 1);
    setenv("FAKE_CAPABILITY", "90,90,90", 1);
    setenv("FAKE_IMAGE", "sm90", 1);
    f->status = load(0);
    setenv("FAKE_cuLibraryGetKernel", "209", 1);
    f->again = load(1);
    unsetenv("FAKE_cuLibraryGetKernel");
    if (load(2) != MBR_OK)
        _exit(5);
    f->log = *fake;
    for (int32_t i = 0; i < 3; i++)
        strncat(f->load_log, mbr_variant_in_use(MBR_DEVICE_CUDA, i), 32);
}

static void a_device_that_refuses_a_row_leaves_its_libraries_to_others(void **state) {
    (void)state;
    struct found *f = CHILD(use_a_device_that_takes_another_row, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(f->again, MBR_OK);
    assert_string_equal(f->load_log, "cuda12_sm90cuda11_ptx80cuda12_sm90");
    assert_int_equal(count(f->log.log, "cuLibraryLoadData cuda12_sm90.one\n"), 1);
    assert_int_equal(count(f->log.log, "cuLibraryLoadData cuda11_ptx80.one\n"), 1);
    assert_int_equal(count(f->log.log, "cuLibraryGetKernel two\n"), 3);
}

/* ---- launching ---------------------------------------------------------------- */

static void launch_in_context(void *into) {
    struct found *f = into;
    start(f);
    f->status = load(0);
    mbr_cu_context none;
    const mbr_driver *driver = &mbr__driver()->table;
    if (f->current != NULL)
        driver->cuCtxPushCurrent_v2(f->current);
    fake->log[0] = '\0';
    f->again = launch(0);
    f->log = *fake;
    driver->cuCtxGetCurrent(&none);
    f->context_after = none;
}

static void a_launch_has_its_sizes_stream_and_parameters(void **state) {
    (void)state;
    struct found *f = CHILD(launch_in_context, .driver = "driver");
    const mbr_fake_launch *l = &f->log.launch;
    assert_int_equal(f->again, MBR_OK);
    assert_int_equal(f->log.launches, 1);
    assert_string_equal(l->kernel, "two");
    assert_memory_equal(l->grid, ((uint32_t[]){3, 4, 5}), sizeof l->grid);
    assert_memory_equal(l->block, ((uint32_t[]){128, 1, 1}), sizeof l->block);
    assert_int_equal(l->shared_bytes, 70000);
    assert_ptr_equal(l->stream, (void *)0x5150);
    assert_int_equal(l->size, sizeof params);
    assert_memory_equal(l->params, params, sizeof params);
}

static void a_thread_without_a_context_gets_one_for_the_launch(void **state) {
    (void)state;
    struct found *f = CHILD(launch_in_context, .driver = "driver");
    assert_string_equal(f->log.log, "cuCtxGetCurrent\n"
                                    "cuCtxPushCurrent_v2 of 0\n"
                                    "cuLaunchKernel two\n"
                                    "cuCtxPopCurrent_v2 of 0\n");
    assert_null(f->context_after);
}

static void another_context_is_current_again_after_the_launch(void **state) {
    (void)state;
    static char another;
    struct found *f = CHILD(launch_in_context, .driver = "driver", .current = &another);
    assert_string_equal(f->log.log, "cuCtxGetCurrent\n"
                                    "cuCtxPushCurrent_v2 of 0\n"
                                    "cuLaunchKernel two\n"
                                    "cuCtxPopCurrent_v2 of 0\n");
    assert_ptr_equal(f->context_after, &another);
}

static void launch_in_the_primary_context(void *into) {
    struct found *f = into;
    mbr_cu_context primary;
    start(f);
    mbr__driver()->table.cuDevicePrimaryCtxRetain(&primary, 0);
    f->current = primary;
    launch_in_context(f);
}

static void the_devices_own_context_is_not_pushed_again(void **state) {
    (void)state;
    struct found *f = CHILD(launch_in_the_primary_context, .driver = "driver");
    assert_string_equal(f->log.log, "cuCtxGetCurrent\n"
                                    "cuLaunchKernel two\n");
    assert_ptr_equal(f->context_after, f->current);
}

static void launch_number_three(void *into) {
    struct found *f = into;
    start(f);
    load(0);
    const mbr_call call = {.device_type = MBR_DEVICE_CUDA};
    f->status = mbr__launcher.launch(&call, 2, &how, params, sizeof params);
    finish(f);
}

static void a_kernel_that_the_variant_lacks_is_not_launched(void **state) {
    (void)state;
    struct found *f = CHILD(launch_number_three, .driver = "driver");
    assert_int_equal(f->status, MBR_E_INTERNAL);
    assert_string_equal(f->message, "kernel 2 of 2 is launched");
    assert_int_equal(f->log.launches, 0);
}

static void launch_and_fail(void *into) {
    struct found *f = into;
    start(f);
    load(0);
    f->status = launch(0);
    mbr_cu_context current;
    mbr__driver()->table.cuCtxGetCurrent(&current);
    f->context_after = current;
    finish(f);
}

static void a_refused_launch_has_its_sizes_in_the_message(void **state) {
    (void)state;
    struct found *f = CHILD(launch_and_fail, .settings = "FAKE_cuLaunchKernel=701");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_string_equal(
        f->message,
        "two on cuda:0, 3 x 4 x 5 blocks of 128 threads with 70000 bytes of shared "
        "memory: cuLaunchKernel fails with CUDA_ERROR_FAKE (701): as the environment "
        "says; the kernel needs more than a multiprocessor has\n"
        "  run: python -m mambarun --explain MR118");
    assert_null(f->context_after);
}

static void launch_in_a_child_of_mine(void *into) {
    struct found *f = into;
    f->again = load(1);
    f->status = launch(0);
    finish(f);
}

static void load_fork_and_launch(void *into) {
    start(into);
    load(0);
    mbr_in_child(launch_in_a_child_of_mine, into, sizeof(struct found));
}

static void in_a_forked_child_a_launch_says_so(void **state) {
    (void)state;
    struct found *f = CHILD(load_fork_and_launch, .driver = "driver");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_says(f->message, "cuCtxPushCurrent fails with CUDA_ERROR_FAKE (3)");
    assert_says(f->message, "CUDA does not outlive a fork");
    assert_int_equal(f->log.launches, 0);
    assert_int_equal(f->again, MBR_E_CUDA);
}

static void fork_then_load(void *into) {
    struct found *f = into;
    start(f);
    mbr_host_facts host = {.struct_size = sizeof host};
    mbr_probe_host(&host); /* opens the driver, and leaves it uninitialised */
    mbr_in_child(load_one, into, sizeof *f);
}

static void a_child_of_one_that_has_not_used_the_driver_may(void **state) {
    (void)state;
    struct found *f = CHILD(fork_then_load, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_string_equal(f->in_use, "cuda12_sm90");
}

/* The driver's own refusal; and that of the fake, on which every room's test relies. */
static void launch_what_no_gpu_takes(void *into) {
    static const mbr_launch sizes[] = {
        {{0, 1, 1}, 128, 0},     {{1, 0, 1}, 128, 0}, {{1, 65536, 1}, 128, 0},
        {{1, 1, 65536}, 128, 0}, {{1, 1, 1}, 0, 0},   {{1, 1, 1}, 1025, 0},
        {{1, 1, 1}, 1, 165889},
    };
    struct found *f = into;
    start(f);
    load(0);
    const mbr_call call = {.device_type = MBR_DEVICE_CUDA};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (mbr__launcher.launch(&call, 1, &sizes[i], params, sizeof params) !=
            MBR_E_CUDA)
            _exit(5);
    f->status = mbr__launcher.launch(&call, 1, &sizes[6], params, sizeof params);
    finish(f);
}

static void sizes_that_no_gpu_takes_are_refused(void **state) {
    (void)state;
    struct found *f = CHILD(launch_what_no_gpu_takes, .driver = "driver");
    assert_says(f->message, "two on cuda:0, 1 x 1 x 1 blocks of 1 threads with 165889 "
                            "bytes of shared memory: cuLaunchKernel fails with");
    assert_says(f->message, "the launch has a size that this device does not take");
    assert_int_equal(f->log.launches, 0);
}

static void a_context_that_cannot_be_entered_loads_nothing(void **state) {
    (void)state;
    static const char *const settings[] = {"FAKE_cuCtxGetCurrent=3",
                                           "FAKE_cuCtxPushCurrent_v2=3"};
    for (size_t i = 0; i < 2; i++) {
        struct found *f = CHILD(load_one, .settings = settings[i]);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_says(f->message, "CUDA does not outlive a fork: start this process by "
                                "spawn\n  run: python -m mambarun --explain MR119");
        assert_null(strstr(f->log.log, "cuLibraryLoadData"));
    }
}

/* ---- captures ----------------------------------------------------------------- */

static void load_under_capture_and_after(void *into) {
    struct found *f = into;
    start(f);
    f->status = load(0);
    snprintf(f->message, sizeof f->message, "%s", mbr_last_error());
    snprintf(f->load_log, sizeof f->load_log, "%s", fake->log);
    fake->capturing = 0;
    setenv("FAKE_cuStreamIsCapturing", "0", 1);
    setenv("FAKE_cuLibraryLoadData", "0", 1);
    setenv("FAKE_cuModuleLoadData", "0", 1);
    f->again = load(0);
    const char *name = mbr_variant_in_use(MBR_DEVICE_CUDA, 0);
    snprintf(f->in_use, sizeof f->in_use, "%s", name != NULL ? name : "none");
    f->log = *fake;
}

static void a_first_touch_under_capture_loads_nothing_and_says_what_to_do(void **s) {
    (void)s;
    static const struct {
        int32_t capturing;
        const char *settings, *why;
    } cases[] = {
        {1, "", "(the stream is captured)"},
        {2, "", "(the stream is captured)"}, /* and the capture has failed already */
        {0, "FAKE_cuStreamIsCapturing=906", "cuStreamIsCapturing fails with"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct found *f =
            CHILD(load_under_capture_and_after, .capturing = cases[i].capturing,
                  .settings = cases[i].settings);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_says(f->message,
                    "no variant can run op on cuda:0: its kernels are not loaded yet, "
                    "and while a stream is captured they cannot be: call "
                    "mambarun.preload(0) before capturing ");
        assert_says(f->message, cases[i].why);
        assert_says(f->message, "\n  run: python -m mambarun --explain MR116");
        assert_null(strstr(f->load_log, "cuLibraryLoadData"));
        assert_int_equal(f->again, MBR_OK); /* the refusal is not remembered */
        assert_string_equal(f->in_use, "cuda12_sm90");
    }
}

static void a_load_that_a_capture_forbids_is_told_the_same(void **state) {
    (void)state;
    static const struct {
        const char *driver, *settings;
    } cases[] = {
        {"driver", "FAKE_cuLibraryLoadData=900"},
        {"driver_without/cuStreamIsCapturing", "FAKE_cuLibraryLoadData=900"},
        {"driver_old", "FAKE_cuModuleLoadData=900"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct found *f = CHILD(load_under_capture_and_after, .driver = cases[i].driver,
                                .settings = cases[i].settings);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_says(f->message, "call mambarun.preload(0) before capturing (cu");
        assert_says(f->message, "(900)");
        assert_int_equal(f->again, MBR_OK);
    }
}

static void capture_a_launch(void *into) {
    struct found *f = into;
    start(f);
    load(0);
    fake->capturing = 1;
    fake->log[0] = '\0';
    f->status = load(0);
    f->again = launch(0);
    f->log = *fake;
}

static void after_loading_a_launch_does_not_ask_about_captures(void **state) {
    (void)state;
    struct found *f = CHILD(capture_a_launch, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(f->again, MBR_OK);
    assert_null(strstr(f->log.log, "cuStreamIsCapturing"));
    assert_int_equal(f->log.launches, 1);
}

/* ---- errors ------------------------------------------------------------------- */

enum kind { IMAGE, CAPTURE, MACHINE };

static const struct error {
    int status;
    const char *name;
    enum kind kind;
    const char *code, *sentence;
} errors[] = {
#define MBR_DRIVER_ERROR(status, name, kind, code, sentence)                           \
    {status, #name, kind, code, sentence},
#include "driver_errors.def"
};
enum { ERRORS = sizeof errors / sizeof *errors };

/* Which functions a first call goes through, on a driver that has or lacks libraries.
 */
static const struct stage {
    const char *driver, *function;
} stages[] = {
    {"driver", "cuDevicePrimaryCtxRetain"}, {"driver", "cuCtxPushCurrent_v2"},
    {"driver", "cuLibraryLoadData"},        {"driver", "cuLibraryGetKernel"},
    {"driver", "cuKernelGetFunction"},      {"driver", "cuFuncGetAttribute"},
    {"driver", "cuFuncSetAttribute"},       {"driver_old", "cuModuleLoadData"},
    {"driver_old", "cuModuleGetFunction"},
};

static void an_image_error_is_a_verdict_and_any_other_ends_the_call(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        for (size_t e = 0; e < ERRORS; e++) {
            char settings[64], want[400];
            snprintf(settings, sizeof settings, "FAKE_%s=%d", stages[i].function,
                     errors[e].status);
            struct found *f =
                CHILD(load_one, .driver = stages[i].driver, .settings = settings);
            snprintf(want, sizeof want, " fails with CUDA_ERROR_%s (%d): %s; %s",
                     errors[e].status == 802 ? "SYSTEM_NOT_READY" : "FAKE",
                     errors[e].status,
                     errors[e].status == 802 ? "system not yet initialized"
                                             : "as the environment says",
                     errors[e].sentence);
            assert_says(f->message, want);
            assert_int_equal(f->status,
                             errors[e].kind == IMAGE ? MBR_E_NO_VARIANT : MBR_E_CUDA);
            assert_says(f->message, errors[e].code);
            assert_string_equal(f->in_use, "none");
        }
}

static void every_answer_to_a_launch_has_its_sentence_and_code(void **state) {
    (void)state;
    for (size_t e = 0; e < ERRORS; e++) {
        char settings[64], want[400];
        snprintf(settings, sizeof settings, "FAKE_cuLaunchKernel=%d", errors[e].status);
        struct found *f = CHILD(launch_and_fail, .settings = settings);
        snprintf(want, sizeof want, "; %s\n  run: python -m mambarun --explain %s",
                 errors[e].sentence, errors[e].code);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_says(f->message, want);
    }
}

static void no_two_answers_have_the_same_sentence(void **state) {
    (void)state;
    for (size_t i = 0; i < ERRORS; i++)
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(errors[i].status, errors[j].status);
            assert_string_not_equal(errors[i].sentence, errors[j].sentence);
        }
}

static void an_unknown_answer_keeps_the_drivers_words(void **state) {
    (void)state;
    struct found *f = CHILD(launch_and_fail, .settings = "FAKE_cuLaunchKernel=12345");
    assert_says(f->message, "cuLaunchKernel fails with CUDA_ERROR_FAKE (12345): as the "
                            "environment says\n  run: python -m mambarun --explain "
                            "MR112");
}

static void if_a_variants_kernels_do_not_load_the_next_row_is_taken(void **state) {
    (void)state;
    static const char *const functions[] = {"cuLibraryLoadData", "cuLibraryGetKernel"};
    for (size_t i = 0; i < 2; i++) {
        char settings[96];
        snprintf(settings, sizeof settings, "FAKE_%s=209 FAKE_IMAGE=sm90",
                 functions[i]);
        struct found *f = CHILD(load_one, .settings = settings);
        assert_int_equal(f->status, MBR_OK);
        assert_string_equal(f->in_use, "cuda11_ptx80");
        assert_false(f->verdict.accepted);
        assert_says(f->verdict.reason, functions[i]);
        assert_says(f->verdict.reason, "fails with CUDA_ERROR_FAKE (209)");
        assert_says(f->verdict.reason,
                    "the variant's kernels are for another GPU (MR115)");
        assert_says(f->log.log, "cuLibraryGetKernel two\n");
    }
}

static void a_kernel_that_is_missing_makes_the_whole_row_unfit(void **state) {
    (void)state;
    struct found *f = CHILD(
        load_one, .settings = "FAKE_cuLibraryGetKernel=500 FAKE_IMAGE=cuda12_sm90.two");
    assert_string_equal(f->in_use, "cuda11_ptx80");
    assert_says(f->verdict.reason, "lacks the kernel (MR115)");
}

static void fail_then_recover(void *into) {
    struct found *f = into;
    start(f);
    f->status = load(0);
    snprintf(f->message, sizeof f->message, "%s", mbr_last_error());
    unsetenv("FAKE_cuDevicePrimaryCtxRetain");
    unsetenv("FAKE_cuLibraryLoadData");
    unsetenv("FAKE_cuModuleLoadData");
    f->again = load(0);
    snprintf(f->load_log, sizeof f->load_log, "%s", fake->log);
    const char *name = mbr_variant_in_use(MBR_DEVICE_CUDA, 0);
    snprintf(f->in_use, sizeof f->in_use, "%s", name != NULL ? name : "none");
}

static void a_full_device_is_asked_again_by_the_next_call(void **state) {
    (void)state;
    static const char *const settings[] = {"FAKE_cuDevicePrimaryCtxRetain=2",
                                           "FAKE_cuLibraryLoadData=2"};
    for (size_t i = 0; i < 2; i++) {
        struct found *f = CHILD(fail_then_recover, .settings = settings[i]);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_says(f->message, "has no memory left");
        assert_says(f->message, "MR111");
        assert_int_equal(f->again, MBR_OK);
        assert_string_equal(f->in_use, "cuda12_sm90");
    }
}

static void what_a_full_device_has_loaded_is_not_loaded_again(void **state) {
    (void)state;
    static const struct {
        const char *driver, *function;
    } cases[] = {{"driver", "cuLibraryLoadData"}, {"driver_old", "cuModuleLoadData"}};
    for (size_t i = 0; i < 2; i++) {
        char settings[96], one[64], two[64];
        snprintf(settings, sizeof settings, "FAKE_%s=2 FAKE_IMAGE=cuda12_sm90.two",
                 cases[i].function);
        snprintf(one, sizeof one, "%s cuda12_sm90.one\n", cases[i].function);
        snprintf(two, sizeof two, "%s cuda12_sm90.two\n", cases[i].function);
        struct found *f =
            CHILD(fail_then_recover, .driver = cases[i].driver, .settings = settings);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_int_equal(f->again, MBR_OK);
        assert_int_equal(count(f->load_log, one), 1);
        assert_int_equal(count(f->load_log, two), 2);
    }
}

/* ---- threads ------------------------------------------------------------------ */

static pthread_barrier_t together;

static void *load_and_launch(void *status) {
    pthread_barrier_wait(&together);
    *(mbr_status *)status = load(0);
    if (*(mbr_status *)status == MBR_OK)
        *(mbr_status *)status = launch(0);
    return NULL;
}

static void race(void *into) {
    struct found *f = into;
    pthread_t threads[THREADS];
    mbr_status statuses[THREADS];
    start(f);
    pthread_barrier_init(&together, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, load_and_launch, &statuses[i]) != 0)
            _exit(3);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (statuses[i] != MBR_OK)
            f->status = statuses[i];
    }
    finish(f);
}

static void threads_that_come_together_load_once(void **state) {
    (void)state;
    for (int repeat = 0; repeat < 20; repeat++) {
        struct found *f = CHILD(race, .driver = "driver");
        assert_int_equal(f->status, MBR_OK);
        assert_int_equal(count(f->log.log, "cuLibraryLoadData"), 2);
        assert_int_equal(count(f->log.log, "cuDevicePrimaryCtxRetain"), 1);
        assert_int_equal(f->log.launches, THREADS);
        assert_int_equal(count(f->log.log, "cuCtxPushCurrent_v2"), THREADS + 1);
        assert_int_equal(count(f->log.log, "cuCtxPopCurrent_v2"), THREADS + 1);
    }
}

/* ---- the variant's side -------------------------------------------------------- */

static void look_at_the_launcher(void *into) {
    struct found *f = into;
    start(f);
    f->status = load(0);
    void *library =
        dlopen(mbr__variant_path(MBR_ROW_cuda12_sm90), RTLD_NOW | RTLD_LOCAL);
    mbr_fake *variant =
        library != NULL ? (mbr_fake *)dlsym(library, "mbr_fake_variant") : NULL;
    f->again = variant != NULL && variant->launcher == &mbr__launcher ? MBR_OK
                                                                      : MBR_E_INTERNAL;
}

static void a_cuda_variant_is_handed_the_launcher(void **state) {
    (void)state;
    struct found *f = CHILD(look_at_the_launcher, .driver = "driver");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(f->again, MBR_OK);
}

static void a_variant_of_the_real_rooms_loads_all_its_kernels(void **state) {
    (void)state;
    struct found *f = CHILD(load_one, .fakes = "cuda");
    assert_string_equal(f->message, "");
    assert_int_equal(f->status, MBR_OK);
    assert_string_equal(f->in_use, "cuda12_sm90");
    assert_int_equal(count(f->log.log, "cuLibraryLoadData image of "),
                     count(f->log.log, "cuKernelGetFunction "));
}

int main(void) {
    unsetenv("MAMBARUN_PATH");
    unsetenv("MAMBARUN_VARIANT");
    unsetenv("MAMBARUN_TRACE");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_is_loaded_at_the_first_touch),
        cmocka_unit_test(a_driver_without_libraries_loads_modules),
        cmocka_unit_test(a_gpu_with_48_kilobytes_is_not_asked_for_more),
        cmocka_unit_test(preload_loads_and_a_later_call_loads_nothing),
        cmocka_unit_test(two_devices_share_libraries_but_not_contexts),
        cmocka_unit_test(two_devices_of_an_old_driver_load_modules_each),
        cmocka_unit_test(a_device_that_refuses_a_row_leaves_its_libraries_to_others),
        cmocka_unit_test(a_launch_has_its_sizes_stream_and_parameters),
        cmocka_unit_test(a_thread_without_a_context_gets_one_for_the_launch),
        cmocka_unit_test(another_context_is_current_again_after_the_launch),
        cmocka_unit_test(the_devices_own_context_is_not_pushed_again),
        cmocka_unit_test(a_kernel_that_the_variant_lacks_is_not_launched),
        cmocka_unit_test(a_refused_launch_has_its_sizes_in_the_message),
        cmocka_unit_test(in_a_forked_child_a_launch_says_so),
        cmocka_unit_test(a_child_of_one_that_has_not_used_the_driver_may),
        cmocka_unit_test(sizes_that_no_gpu_takes_are_refused),
        cmocka_unit_test(a_context_that_cannot_be_entered_loads_nothing),
        cmocka_unit_test(a_first_touch_under_capture_loads_nothing_and_says_what_to_do),
        cmocka_unit_test(a_load_that_a_capture_forbids_is_told_the_same),
        cmocka_unit_test(after_loading_a_launch_does_not_ask_about_captures),
        cmocka_unit_test(an_image_error_is_a_verdict_and_any_other_ends_the_call),
        cmocka_unit_test(every_answer_to_a_launch_has_its_sentence_and_code),
        cmocka_unit_test(no_two_answers_have_the_same_sentence),
        cmocka_unit_test(an_unknown_answer_keeps_the_drivers_words),
        cmocka_unit_test(if_a_variants_kernels_do_not_load_the_next_row_is_taken),
        cmocka_unit_test(a_kernel_that_is_missing_makes_the_whole_row_unfit),
        cmocka_unit_test(a_full_device_is_asked_again_by_the_next_call),
        cmocka_unit_test(what_a_full_device_has_loaded_is_not_loaded_again),
        cmocka_unit_test(threads_that_come_together_load_once),
        cmocka_unit_test(a_cuda_variant_is_handed_the_launcher),
        cmocka_unit_test(a_variant_of_the_real_rooms_loads_all_its_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
