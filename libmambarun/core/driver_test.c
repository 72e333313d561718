/* SPDX-License-Identifier: Apache-2.0
 *
 * driver_test.c - finding the driver, its missing symbols, and what it says about a
 * device: fake drivers, one process each. Every dlopen of the process goes through the
 * one below, which notes it.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fakes/child.h"
#include "driver.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* What one process with one fake driver found. The first members say how to start. */
struct found {
    const char *folder;   /* of the fake; NULL: none anywhere */
    int loaded_before;    /* the fake is in the process before anyone asks */
    const char *settings; /* NAME=value NAME=value for the fake */
    int device;
    mbr_driver_facts facts;
    mbr_status status; /* of mbr_probe_gpu */
    mbr_gpu_facts gpu;
    mbr_host_facts host;
    char message[512];
    char opened[1024]; /* "name:flags " per dlopen */
};

static char opened[1024];
static const char *self; /* how this program was started */

void *dlopen(const char *path, int flags) {
    void *(*real)(const char *, int);
    void *address = dlsym(RTLD_NEXT, "dlopen");
    memcpy(&real, &address, sizeof real);
    size_t used = strlen(opened);
    snprintf(opened + used, sizeof opened - used, "%s:%s%s%s%s ", path,
             flags & RTLD_NOW ? "now" : "lazy", flags & RTLD_GLOBAL ? "+global" : "",
             flags & RTLD_NOLOAD ? "+noload" : "",
             flags & RTLD_NODELETE ? "+nodelete" : "");
    return real(path, flags);
}

static void ask_everything(void *into) {
    struct found *f = into;
    mbr_set_variables(f->settings);
    char path[512];
    snprintf(path, sizeof path, MBR_TEST_FAKES "/%s/libcuda.so.1",
             f->folder != NULL ? f->folder : "");
    if (f->loaded_before && dlopen(path, RTLD_NOW) == NULL)
        _exit(9);
    opened[0] = '\0';
    f->facts = *mbr__driver();
    f->host.struct_size = sizeof f->host;
    mbr_probe_host(&f->host);
    f->gpu.struct_size = sizeof f->gpu;
    f->status = mbr_probe_gpu(f->device, &f->gpu);
    snprintf(f->message, sizeof f->message, "%s", mbr_last_error());
    memcpy(f->opened, opened, sizeof opened);
}

static struct found *ask(struct found start) {
    static struct found f;
    f = start;
    mbr_in_child(ask_everything, &f, sizeof f);
    return &f;
}

#define ASK(...) ask((struct found){.loaded_before = 1, __VA_ARGS__})

/* The only way to put a fake on the loader's own search path: start anew with it. */
static struct found *ask_with_search_path(const char *folder) {
    static struct found f;
    char variable[512], file[] = "/tmp/driver_test_XXXXXX";
    int out = mkstemp(file);
    assert_true(out >= 0);
    snprintf(variable, sizeof variable, MBR_TEST_FAKES "/%s", folder);
    pid_t child = fork();
    if (child == 0) {
        dup2(out, STDOUT_FILENO);
        setenv("LD_LIBRARY_PATH", variable, 1);
        execlp(self, self, "ask", (char *)NULL);
        _exit(8);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(pread(out, &f, sizeof f, 0), (ssize_t)sizeof f);
    close(out);
    unlink(file);
    return &f;
}

static int answer_and_exit(void) {
    static struct found f;
    ask_everything(&f);
    return write(STDOUT_FILENO, &f, sizeof f) == (ssize_t)sizeof f ? 0 : 7;
}

/* ---- finding it --------------------------------------------------------------- */

static void a_driver_in_the_process_is_used_and_no_other_opened(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver");
    assert_string_equal(f->facts.refusal.why, "");
    assert_string_equal(f->facts.path, MBR_TEST_FAKES "/driver/libcuda.so.1");
    assert_int_equal(f->facts.api, 12040);
    assert_string_equal(f->opened, "libcuda.so.1:now+noload ");
}

static void otherwise_it_is_opened_once_by_soname(void **state) {
    (void)state;
    struct found *f = ask_with_search_path("driver");
    assert_string_equal(f->facts.path, MBR_TEST_FAKES "/driver/libcuda.so.1");
    assert_int_equal(f->status, MBR_OK);
    assert_string_equal(f->opened, "libcuda.so.1:now+noload libcuda.so.1:now ");
}

static void a_file_that_is_no_library_is_no_driver(void **state) {
    (void)state;
    struct found *f = ask_with_search_path("driver_not_elf");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_non_null(strstr(f->message, "no NVIDIA driver: "));
    assert_int_equal(f->host.driver_api, 0);
}

static void the_toolkits_stub_is_refused_by_its_path(void **state) {
    (void)state;
    struct found *f = ask_with_search_path("driver_stub/stubs");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_string_equal(
        f->message,
        "cannot use cuda:0: " MBR_TEST_FAKES
        "/driver_stub/stubs/libcuda.so.1 is the toolkit's link-time stub, not "
        "a driver\n  run: python -m mambarun --explain MR105");
}

static void host_facts_have_the_drivers_version_and_path(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver", .settings = "FAKE_API=11040");
    assert_int_equal(f->host.driver_api, 11040);
    assert_string_equal(f->host.driver, MBR_TEST_FAKES "/driver/libcuda.so.1");
}

static void host_facts_do_not_initialise_cuda(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver", .settings = "FAKE_cuInit=999");
    assert_int_equal(f->host.driver_api, 12040); /* asked; cuInit would have failed */
    assert_int_equal(f->status, MBR_E_CUDA);
}

/* ---- its symbols -------------------------------------------------------------- */

static int missing_symbols(const struct found *f) {
    int count = 0;
    for (size_t i = 0; i < MBR_DRIVER_ROWS; i++)
        count += f->facts.missing[i][0] != '\0';
    return count;
}

static void a_full_driver_lacks_nothing(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver");
    assert_int_equal(missing_symbols(f), 0);
    assert_non_null(f->facts.table.cuLibraryLoadData);
}

static void an_old_driver_leaves_reasons_and_works(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver_old", .settings = "FAKE_API=11080");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(missing_symbols(f), 4);
    assert_null(f->facts.table.cuLibraryLoadData);
    assert_string_equal(f->facts.missing[MBR_DRIVER_cuLibraryLoadData],
                        "driver lacks cuLibraryLoadData (API 12.0): kernels are loaded "
                        "once per context");
}

enum need { REQUIRED, OPTIONAL };

static const struct row {
    const char *symbol;
    enum need need;
    int since;
    const char *without;
} rows[MBR_DRIVER_ROWS] = {
#define MBR_DRIVER(symbol, need, since, without) {#symbol, need, since, without},
#include "driver.def"
};

static void each_missing_symbol_is_named_and_matters_if_it_is_required(void **state) {
    (void)state;
    for (size_t i = 0; i < MBR_DRIVER_ROWS; i++) {
        char folder[64], missing[128], message[256];
        snprintf(folder, sizeof folder, "driver_without/%s", rows[i].symbol);
        snprintf(missing, sizeof missing, "driver lacks %s (API %d.%d): %s",
                 rows[i].symbol, rows[i].since / 1000, rows[i].since % 1000 / 10,
                 rows[i].without);
        snprintf(message, sizeof message,
                 "cannot use cuda:0: %s\n  run: python -m mambarun --explain MR102",
                 missing);
        struct found *f = ASK(.folder = folder);
        assert_int_equal(missing_symbols(f), 1);
        assert_string_equal(f->facts.missing[i], missing);
        assert_int_equal(f->status, rows[i].need == REQUIRED ? MBR_E_CUDA : MBR_OK);
        if (rows[i].need == REQUIRED)
            assert_string_equal(f->message, message);
    }
}

static void a_driver_without_a_version_is_refused_uncalled(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver_without/cuDriverGetVersion");
    assert_int_equal(f->facts.api, 0);
    assert_int_equal(f->host.driver_api, 0);
    assert_string_equal(f->host.driver, "driver lacks cuDriverGetVersion (API 2.2): no "
                                        "variant can be chosen");
}

static void without_error_texts_the_number_is_reported(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver_no_texts", .settings = "FAKE_cuInit=802");
    assert_non_null(strstr(f->message,
                           "cuInit fails with driver error (802); NVIDIA's fabric "
                           "manager does not run\n"));
}

/* ---- a device ----------------------------------------------------------------- */

static void each_device_is_described(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver", .device = 1,
                          .settings = "FAKE_DEVICES=2 FAKE_CAPABILITY=75,86");
    assert_int_equal(f->status, MBR_OK);
    assert_int_equal(f->gpu.device_count, 2);
    assert_int_equal(f->gpu.compute_capability, 86);
    assert_int_equal(f->gpu.multiprocessors, 101);
    assert_int_equal(f->gpu.total_memory, INT64_C(2) << 30);
    assert_string_equal(f->gpu.name, "Fake GPU 1");
}

static void a_device_that_is_not_shown_is_refused(void **state) {
    (void)state;
    static const char end[] = "\n  run: python -m mambarun --explain MR109";
    char want[128];
    snprintf(want, sizeof want, "cannot use cuda:2: the driver shows 2 devices%s", end);
    struct found *f =
        ASK(.folder = "driver", .device = 2, .settings = "FAKE_DEVICES=2");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_string_equal(f->message, want);
    snprintf(want, sizeof want, "cannot use cuda:-1: the driver shows 1 device%s", end);
    f = ASK(.folder = "driver", .device = -1);
    assert_string_equal(f->message, want);
}

static void every_answer_of_cuinit_has_its_code(void **state) {
    (void)state;
    static const struct {
        const char *settings, *text, *code;
    } cases[] = {
        {"FAKE_cuInit=3", "CUDA_ERROR_FAKE (3): as the environment says", "MR119"},
        {"FAKE_cuInit=34", "(34)", "MR105"},
        {"FAKE_cuInit=100", "(100)", "MR109"},
        {"FAKE_cuInit=101", "(101)", "MR109"},
        {"FAKE_cuInit=802",
         "CUDA_ERROR_SYSTEM_NOT_READY (802): system not yet initialized", "MR107"},
        {"FAKE_cuInit=803", "(803)", "MR106"},
        {"FAKE_cuInit=804", "(804)", "MR106"},
        {"FAKE_cuInit=999", "(999)", "MR112"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct found *f = ASK(.folder = "driver", .settings = cases[i].settings);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_non_null(strstr(f->message, "cannot use cuda:0: cuInit fails with "));
        assert_non_null(strstr(f->message, cases[i].text));
        assert_non_null(strstr(f->message, cases[i].code));
    }
}

static void any_failing_question_is_named(void **state) {
    (void)state;
    static const char *const functions[] = {"cuDeviceGetCount", "cuDeviceGet",
                                            "cuDeviceGetName", "cuDeviceTotalMem_v2",
                                            "cuDeviceGetAttribute"};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        char settings[64], want[128];
        snprintf(settings, sizeof settings, "FAKE_%s=999", functions[i]);
        snprintf(want, sizeof want, "%s fails with CUDA_ERROR_FAKE (999)",
                 functions[i]);
        struct found *f = ASK(.folder = "driver", .settings = settings);
        assert_int_equal(f->status, MBR_E_CUDA);
        assert_non_null(strstr(f->message, want));
        assert_int_equal(f->gpu.compute_capability, 0);
    }
}

static void a_driver_that_cannot_tell_its_version_is_refused(void **state) {
    (void)state;
    struct found *f = ASK(.folder = "driver", .settings = "FAKE_API=0");
    assert_non_null(strstr(f->message, "finds no driver: its version is 0"));
    f = ASK(.folder = "driver", .settings = "FAKE_cuDriverGetVersion=999");
    assert_non_null(
        strstr(f->message, "cuDriverGetVersion fails with CUDA_ERROR_FAKE"));
}

static void gpu_facts_without_a_size_are_refused_unasked(void **state) {
    (void)state;
    mbr_gpu_facts gpu = {.struct_size = 4};
    assert_int_equal(mbr_probe_gpu(0, &gpu), MBR_E_ARG);
    assert_string_equal(mbr_last_error(),
                        "out->struct_size is 4: set it to sizeof *out, "
                        "at least 152");
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc == 2 && strcmp(argv[1], "ask") == 0)
        return answer_and_exit();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_driver_in_the_process_is_used_and_no_other_opened),
        cmocka_unit_test(otherwise_it_is_opened_once_by_soname),
        cmocka_unit_test(a_file_that_is_no_library_is_no_driver),
        cmocka_unit_test(the_toolkits_stub_is_refused_by_its_path),
        cmocka_unit_test(host_facts_have_the_drivers_version_and_path),
        cmocka_unit_test(host_facts_do_not_initialise_cuda),
        cmocka_unit_test(a_full_driver_lacks_nothing),
        cmocka_unit_test(an_old_driver_leaves_reasons_and_works),
        cmocka_unit_test(each_missing_symbol_is_named_and_matters_if_it_is_required),
        cmocka_unit_test(a_driver_without_a_version_is_refused_uncalled),
        cmocka_unit_test(without_error_texts_the_number_is_reported),
        cmocka_unit_test(each_device_is_described),
        cmocka_unit_test(a_device_that_is_not_shown_is_refused),
        cmocka_unit_test(every_answer_of_cuinit_has_its_code),
        cmocka_unit_test(any_failing_question_is_named),
        cmocka_unit_test(a_driver_that_cannot_tell_its_version_is_refused),
        cmocka_unit_test(gpu_facts_without_a_size_are_refused_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
