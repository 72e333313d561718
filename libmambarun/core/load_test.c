/* SPDX-License-Identifier: Apache-2.0
 *
 * load_test.c - opening variants: the handshake, every refusal and its text, forced
 * names, where files are looked for. Fake variants, one process each; this process
 * itself never chooses anything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../fakes/child.h"
#include "load.h"
#include "select.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { THREADS = 16 };

/* What one process with one folder of fakes found. First members: how to start. */
struct found {
    const char *fakes;    /* folder that MAMBARUN_PATH names; NULL: it is not set */
    const char *path;     /* or MAMBARUN_PATH itself */
    const char *forced;   /* MAMBARUN_VARIANT */
    const char *driver;   /* folder of a fake driver; NULL: no call for CUDA is made */
    const char *settings; /* NAME=value NAME=value for the driver */
    mbr_call call;
    mbr_status status, again;
    char message[MBR_ROWS * 300], message_again[MBR_ROWS * 300];
    char in_use_before[32], in_use[32];
    mbr_variant_info before[MBR_ROWS], after[MBR_ROWS];
    char library[512], path_of_scalar[512]; /* the child's strings stay in the child */
};

static void list_variants(const mbr_call *c, mbr_variant_info *out) {
    for (size_t i = 0; i < MBR_ROWS; i++) {
        out[i].struct_size = sizeof out[i];
        mbr_variant_at(i, c->device_type, c->device_id, &out[i]);
    }
}

static void note_in_use(const mbr_call *c, char out[32]) {
    const char *name = mbr_variant_in_use(c->device_type, c->device_id);
    snprintf(out, 32, "%s", name != NULL ? name : "none");
}

static void set_or_unset(const char *variable, const char *value) {
    if (value != NULL)
        setenv(variable, value, 1);
    else
        unsetenv(variable);
}

static void start(const struct found *f) {
    char path[512];
    snprintf(path, sizeof path, MBR_TEST_FAKES "/%s", f->fakes != NULL ? f->fakes : "");
    set_or_unset("MAMBARUN_PATH", f->fakes != NULL ? path : f->path);
    set_or_unset("MAMBARUN_VARIANT", f->forced);
    mbr_set_variables(f->settings);
    if (f->driver != NULL) {
        snprintf(path, sizeof path, MBR_TEST_FAKES "/%s/libcuda.so.1", f->driver);
        if (dlopen(path, RTLD_NOW) == NULL)
            _exit(9);
    }
}

static void call_twice(void *into) {
    struct found *f = into;
    const mbr_table *table = NULL, *same = NULL;
    start(f);
    list_variants(&f->call, f->before);
    note_in_use(&f->call, f->in_use_before);
    f->status = mbr__table(&f->call, "op", &table);
    snprintf(f->message, sizeof f->message, "%s", mbr_last_error());
    mbr__params(&(const void *){NULL}, 0, NULL); /* another message in between */
    f->again = mbr__table(&f->call, "op", &same);
    snprintf(f->message_again, sizeof f->message_again, "%s", mbr_last_error());
    note_in_use(&f->call, f->in_use);
    list_variants(&f->call, f->after);
    snprintf(f->library, sizeof f->library, "%s", mbr__library_path());
    snprintf(f->path_of_scalar, sizeof f->path_of_scalar, "%s",
             mbr__variant_path(MBR_ROW_cpu_scalar));
    if (table != same)
        _exit(5);
}

static struct found *call(struct found with) {
    static struct found f;
    f = with;
    mbr_in_child(call_twice, &f, sizeof f);
    assert_int_equal(f.status, f.again);
    if (f.status != MBR_OK)
        assert_string_equal(f.message, f.message_again);
    return &f;
}

#define ON_CPU(...)                                                                    \
    call((struct found){.call = {.device_type = MBR_DEVICE_CPU}, __VA_ARGS__})
#define ON_CUDA(id, ...)                                                               \
    call((struct found){.call = {.device_type = MBR_DEVICE_CUDA, .device_id = id},     \
                        __VA_ARGS__})

static const mbr_variant_info *row(const mbr_variant_info *list, const char *name) {
    for (size_t i = 0; i < MBR_ROWS; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    fail_msg("no row %s", name);
    return NULL;
}

static void assert_says(const char *message, const char *part) {
    if (strstr(message, part) == NULL)
        fail_msg("'%s' does not say '%s'", message, part);
}

/* ---- the handshake ------------------------------------------------------------ */

static void good_variant_is_opened_and_named(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "good", .forced = "cpu_scalar");
    assert_int_equal(f->status, MBR_OK);
    assert_string_equal(f->in_use_before, "none");
    assert_string_equal(f->in_use, "cpu_scalar");
    assert_int_equal(row(f->after, "cpu_scalar")->usable, 1);
}

static void best_variant_of_this_processor_is_taken(void **state) {
    (void)state;
    mbr_cpu_facts cpu;
    mbr__probe_cpu(&cpu);
    struct found *f = ON_CPU(.fakes = "good");
    assert_string_equal(f->in_use, cpu.usable & MBR_CPU_AVX512 ? "cpu_avx512"
                                   : cpu.usable & MBR_CPU_AVX2 ? "cpu_avx2"
                                                               : "cpu_scalar");
}

static void every_bad_variant_is_refused_with_its_reason(void **state) {
    (void)state;
#define FILE_IN(fake) MBR_TEST_FAKES "/" fake "/libmambarun_cpu_scalar.so"
    static const struct {
        const char *fake, *reason;
    } cases[] = {
        {"refuses", "refuses to run here: " FILE_IN("refuses")},
        {"unknown_answer", "gives an answer that this libmambarun does not know: " //
         FILE_IN("unknown_answer")},
        {"no_entry", "has no mbr_variant_entry: " FILE_IN("no_entry")},
        {"wrong_stamp",
         "was built together with another libmambarun (stamps differ): " //
         FILE_IN("wrong_stamp")},
        {"wrong_size", "has a table of another size than this libmambarun: " //
         FILE_IN("wrong_size")},
        {"missing_op", "lacks causal_conv1d_bwd: " FILE_IN("missing_op")},
        {"missing_workspace", "lacks selective_scan_bwd_workspace: " //
         FILE_IN("missing_workspace")},
        {"renamed", "calls itself cpu_avx512: " FILE_IN("renamed")},
        {"nameless", "calls itself nothing: " FILE_IN("nameless")},
        {"undefined",
         "cannot be opened: " FILE_IN("undefined") ": undefined symbol: " //
                                                   "mbr_nobody_has_this"},
        {"not_elf", "cannot be opened: " FILE_IN("not_elf") ": "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct found *f = ON_CPU(.fakes = cases[i].fake, .forced = "cpu_scalar");
        assert_int_equal(f->status, MBR_E_NO_VARIANT);
        assert_string_equal(f->in_use, "none");
        /* Nothing is opened in order to be asked. */
        assert_int_equal(row(f->before, "cpu_scalar")->usable, 1);
        assert_int_equal(row(f->after, "cpu_scalar")->usable, 0);
        assert_says(row(f->after, "cpu_scalar")->reason, cases[i].reason);
        assert_says(f->message, cases[i].reason);
    }
}

static void refused_variant_gives_way_to_the_next_row(void **state) {
    (void)state;
    struct found *f = ON_CUDA(0, .fakes = "second", .driver = "driver",
                              .settings = "FAKE_CAPABILITY=90");
    assert_int_equal(f->status, MBR_OK);
    assert_string_equal(f->in_use, "cuda11_ptx80");
    assert_says(row(f->after, "cuda12_sm90")->reason, "stamps differ");
}

/* ---- the message -------------------------------------------------------------- */

static void message_lists_every_row_of_the_devices_kind(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "empty");
    assert_int_equal(f->status, MBR_E_NO_VARIANT);
    mbr_cpu_facts cpu;
    mbr__probe_cpu(&cpu);
    char want[MBR_ROWS * 300];
    int used = snprintf(want, sizeof want, "no variant can run op on cpu (%s)",
                        cpu.name[0] != '\0' ? cpu.name : "no name");
    for (size_t i = 0; i < 3; i++)
        used += snprintf(want + used, sizeof want - (size_t)used, "\n  %-12s  %s",
                         mbr__rows[i].name, f->after[i].reason);
    snprintf(want + used, sizeof want - (size_t)used,
             "\n  run: python -m mambarun --explain MR120");
    assert_string_equal(f->message, want);
    assert_says(f->message, "\n  cpu_scalar    not installed: /");
    assert_says(f->message, "/libmambarun_cpu_scalar.so\n");
}

static void message_for_a_gpu_has_its_facts_and_rows(void **state) {
    (void)state;
    struct found *f = ON_CUDA(0, .fakes = "empty", .driver = "driver",
                              .settings = "FAKE_CAPABILITY=75");
    assert_int_equal(f->status, MBR_E_NO_VARIANT);
    assert_says(f->message,
                "no variant can run op on cuda:0 (sm_75, driver API 12.4)\n");
    assert_says(f->message, "\n  cuda12_sm90   needs sm_90, device is sm_75\n");
    assert_says(f->message, "\n  cuda12_sm75   not installed: /");
    assert_says(f->message,
                "\n  cuda11_ptx80  needs sm_80 or newer, device is sm_75\n");
    assert_says(f->message, "\n  run: python -m mambarun --explain MR120");
    assert_null(strstr(f->message, "cpu_"));
    assert_null(strstr(f->message, "MR102"));
}

static void without_a_driver_the_status_is_cuda(void **state) {
    (void)state;
    struct found *f =
        ON_CUDA(1, .fakes = "good", .driver = "driver_without/cuLaunchKernel");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_string_equal(f->message,
                        "no variant can run op on cuda:1: driver lacks cuLaunchKernel "
                        "(API 4.0): no kernel can be launched\n"
                        "  run: python -m mambarun --explain MR102");
    for (size_t i = 3; i < MBR_ROWS && !mbr__rows[i].for_tests; i++)
        assert_says(f->after[i].reason, "driver lacks cuLaunchKernel (API 4.0)");
}

static void gpu_call_never_runs_on_the_cpu(void **state) {
    (void)state;
    struct found *f =
        ON_CUDA(0, .fakes = "good", .driver = "driver", .settings = "FAKE_cuInit=100");
    assert_int_equal(f->status, MBR_E_CUDA);
    assert_says(f->message, "cuInit fails with CUDA_ERROR_FAKE (100)");
    assert_string_equal(f->in_use, "none");
}

static void every_gpu_is_judged_by_itself(void **state) {
    (void)state;
    for (int id = 0; id < 2; id++) {
        struct found *f = ON_CUDA(id, .fakes = "good", .driver = "driver",
                                  .settings = "FAKE_DEVICES=2 FAKE_CAPABILITY=90,86");
        assert_int_equal(f->status, MBR_OK);
        assert_string_equal(f->in_use, id == 0 ? "cuda12_sm90" : "cuda11_ptx80");
    }
}

static void device_beyond_the_last_is_refused(void **state) {
    (void)state;
    struct found *f = ON_CUDA(64, .fakes = "good");
    assert_int_equal(f->status, MBR_E_ARG);
    assert_string_equal(f->message,
                        "device_type 2, device_id 64: must be 1 (CPU), or 2 "
                        "(CUDA) with device_id 0 to 63");
    assert_string_equal(f->in_use, "none");
}

/* ---- MAMBARUN_VARIANT --------------------------------------------------------- */

static void forced_name_that_no_row_has_is_an_error_for_every_device(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "good", .forced = "cpu_avx");
    assert_int_equal(f->status, MBR_E_NO_VARIANT);
    assert_says(f->message,
                "no variant can run op on cpu: MAMBARUN_VARIANT is cpu_avx, "
                "which is no variant: valid are cpu_avx512, cpu_avx2, ");
    assert_says(f->message, "\n  run: python -m mambarun --explain MR304");
    f = ON_CUDA(0, .fakes = "good", .forced = "cpu_avx", .driver = "driver");
    assert_int_equal(f->status, MBR_E_NO_VARIANT);
    assert_says(f->message,
                "on cuda:0: MAMBARUN_VARIANT is cpu_avx, which is no variant");
}

static void forced_variant_runs_or_fails_with_its_verdict(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "wrong_stamp", .forced = "cpu_avx2");
    assert_int_equal(f->status, MBR_E_NO_VARIANT); /* not installed, or no AVX2 here */
    assert_says(f->message,
                "\n  cpu_scalar    not asked for: MAMBARUN_VARIANT is cpu_avx2");
}

static void forced_cuda_variant_leaves_the_cpu_alone(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "good", .forced = "cuda12_sm80");
    assert_int_equal(f->status, MBR_OK);
    assert_memory_equal(f->in_use, "cpu_", 4);
}

static void forced_cpu_variant_leaves_gpus_alone(void **state) {
    (void)state;
    struct found *f = ON_CUDA(0, .fakes = "good", .forced = "cpu_scalar",
                              .driver = "driver", .settings = "FAKE_CAPABILITY=90");
    assert_string_equal(f->in_use, "cuda12_sm90");
}

static void empty_name_forces_nothing(void **state) {
    (void)state;
    assert_int_equal(ON_CPU(.fakes = "good", .forced = "")->status, MBR_OK);
}

/* ---- files -------------------------------------------------------------------- */

static void file_in_mambarun_path_comes_first(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "good");
    assert_string_equal(f->path_of_scalar,
                        MBR_TEST_FAKES "/good/libmambarun_cpu_scalar.so");
}

static void without_it_files_lie_beside_the_library(void **state) {
    (void)state;
    static const char *const fakes[] = {NULL, "empty", "no_such_folder"};
    for (size_t i = 0; i < sizeof fakes / sizeof *fakes; i++) {
        struct found *f = ON_CPU(.fakes = fakes[i]);
        char want[sizeof f->library + 32];
        snprintf(want, sizeof want, "%.*s/libmambarun_cpu_scalar.so",
                 (int)(strrchr(f->library, '/') - f->library), f->library);
        assert_string_equal(f->path_of_scalar, want);
    }
}

/* Through the shared library itself, as users have it. It stays open: so do its
 * variants. */
static void shared_library_finds_its_own_folder(void **state) {
    (void)state;
    void *library = dlopen(MBR_TEST_LIB "/libmambarun.so", RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    mbr_status (*probe_host)(mbr_host_facts *);
    mbr_status (*variant_at)(size_t, int32_t, int32_t, mbr_variant_info *);
    void *address = dlsym(library, "mbr_probe_host");
    memcpy(&probe_host, &address, sizeof address);
    address = dlsym(library, "mbr_variant_at");
    memcpy(&variant_at, &address, sizeof address);
    mbr_host_facts host = {.struct_size = sizeof host};
    assert_int_equal(probe_host(&host), MBR_OK);
    assert_string_equal(host.library, MBR_TEST_LIB "/libmambarun.so");
    mbr_variant_info info = {.struct_size = sizeof info};
    assert_int_equal(variant_at(MBR_ROW_cpu_scalar, MBR_DEVICE_CPU, 0, &info), MBR_OK);
    assert_string_equal(info.path, MBR_TEST_LIB "/libmambarun_cpu_scalar.so");
}

/* Not from the fakes' folder: its path may be short. */
static void end_of_a_long_path_is_in_the_reason(void **state) {
    (void)state;
    char folder[256] = "/tmp/load_test_XXXXXX", file[320], want[320];
    assert_non_null(mkdtemp(folder));
    size_t used = strlen(folder);
    snprintf(folder + used, sizeof folder - used, "/%0150d", 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    snprintf(file, sizeof file, "%s/libmambarun_cpu_scalar.so", folder);
    assert_int_equal(
        symlink(MBR_TEST_FAKES "/no_entry/libmambarun_cpu_scalar.so", file), 0);
    struct found *f = ON_CPU(.path = folder, .forced = "cpu_scalar");
    snprintf(want, sizeof want, "has no mbr_variant_entry: ...%s",
             file + strlen(file) - 150);
    assert_string_equal(row(f->after, "cpu_scalar")->reason, want);
    unlink(file);
    rmdir(folder);
    folder[used] = '\0';
    rmdir(folder);
}

/* ---- questions ---------------------------------------------------------------- */

static void variant_beyond_the_last_is_refused(void **state) {
    (void)state;
    mbr_variant_info info = {.struct_size = sizeof info};
    assert_int_equal(mbr_variant_at(MBR_ROWS, MBR_DEVICE_CPU, 0, &info), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "i is 18: there are 18 variants");
}

static void the_variant_in_use_says_how_it_was_built(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "good");
    assert_null(row(f->before, "cpu_scalar")->build);
    for (size_t i = 0; i < MBR_ROWS; i++)
        assert_int_equal(f->after[i].build != NULL,
                         strcmp(f->after[i].name, f->in_use) == 0);
}

static void rows_for_other_devices_say_that_they_are_not_installed(void **state) {
    (void)state;
    struct found *f = ON_CPU(.fakes = "good");
    assert_false(row(f->after, "cuda12_sm60")->usable);
    assert_says(row(f->after, "cuda12_sm60")->reason, "not installed: ");
    f = ON_CUDA(0, .fakes = "empty", .driver = "driver");
    for (size_t i = 0; mbr__rows[i].device_type == MBR_DEVICE_CPU; i++)
        assert_says(f->after[i].reason, "not installed: ");
}

static void variant_info_without_size_or_device_is_refused(void **state) {
    (void)state;
    mbr_variant_info info = {.struct_size = 8};
    assert_int_equal(mbr_variant_at(0, MBR_DEVICE_CPU, 0, &info), MBR_E_ARG);
    assert_string_equal(mbr_last_error(),
                        "out->struct_size is 8: set it to sizeof *out, "
                        "at least 288");
    assert_int_equal(mbr_variant_at(0, MBR_DEVICE_CPU, 0, NULL), MBR_E_ARG);
    info.struct_size = sizeof info;
    assert_int_equal(mbr_variant_at(0, 9, 0, &info), MBR_E_ARG);
    assert_says(mbr_last_error(), "device_type 9, device_id 0: must be 1 (CPU), or 2");
    assert_null(mbr_variant_in_use(9, 0));
    assert_null(mbr_variant_in_use(MBR_DEVICE_CUDA, -1));
}

static void preload_chooses_before_the_first_call(void *into) {
    struct found *f = into;
    start(f);
    f->status = mbr_preload(f->call.device_id);
    snprintf(f->message, sizeof f->message, "%s", mbr_last_error());
    note_in_use(&f->call, f->in_use);
}

static void preload_of_the_cpu_or_of_a_gpu_chooses_now(void **state) {
    (void)state;
    struct found f = {
        .fakes = "good", .forced = "cpu_scalar", .call = {1, 1, -1, 0, 0, 0, 0}};
    mbr_in_child(preload_chooses_before_the_first_call, &f, sizeof f);
    assert_int_equal(f.status, MBR_OK);
    assert_string_equal(f.in_use, "cpu_scalar");
    struct found gpu = {
        .fakes = "empty", .driver = "driver", .call = {1, 2, 0, 0, 0, 0, 0}};
    mbr_in_child(preload_chooses_before_the_first_call, &gpu, sizeof gpu);
    assert_int_equal(gpu.status, MBR_E_NO_VARIANT);
    assert_says(gpu.message,
                "no variant can run anything on cuda:0 (sm_80, driver API");
}

/* ---- the trace ---------------------------------------------------------------- */

static void call_under_trace(void *into) {
    struct found *f = into;
    const mbr_table *table;
    int ends[2];
    if (pipe(ends) != 0 || dup2(ends[1], STDERR_FILENO) < 0)
        _exit(1);
    close(ends[1]);
    setenv("MAMBARUN_TRACE", "1", 1);
    start(f);
    f->status = mbr__table(&f->call, "op", &table);
    mbr__table(&f->call, "op", &table); /* known by now: no line */
    close(STDERR_FILENO);
    ssize_t got = read(ends[0], f->message, sizeof f->message - 1);
    f->message[got > 0 ? got : 0] = '\0';
}

static void trace_has_a_line_per_probe_verdict_and_load(void **state) {
    (void)state;
    struct found f = {.fakes = "second",
                      .driver = "driver_old",
                      .settings = "FAKE_CAPABILITY=90 FAKE_API=12000",
                      .call = {.device_type = MBR_DEVICE_CUDA}};
    mbr_in_child(call_under_trace, &f, sizeof f);
    assert_int_equal(f.status, MBR_OK);
    static const char *const lines[] = {
        "mambarun: driver lacks cuLibraryLoadData (API 12.0): ",
        "mambarun: driver: " MBR_TEST_FAKES "/driver_old/libcuda.so.1, API 12.0\n",
        "mambarun: cuda:0: Fake GPU 0, sm_90, 100 multiprocessors\n",
        "mambarun: choosing for cuda:0 (sm_90, driver API 12.0)\n",
        "mambarun: cuda13_sm110: refused: needs sm_110, device is sm_90\n",
        "mambarun: cuda12_sm90: accepted: cubin for sm_90, which runs on sm_90\n",
        "mambarun: cuda12_sm90: refused: was built together with another libmambarun",
        "mambarun: cuda11_ptx80 (ptx): opened " MBR_TEST_FAKES
        "/second/libmambarun_cuda11_ptx80.so\n",
    };
    const char *rest = f.message;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        assert_says(rest, lines[i]);
        rest = strstr(rest, lines[i]) + 1;
    }
    assert_null(strstr(rest, "mambarun: ")); /* the last line was the last */
}

/* ---- threads ------------------------------------------------------------------ */

struct race {
    struct found how;
    pthread_barrier_t together;
    const mbr_table *tables[THREADS];
    mbr_status statuses[THREADS];
};

static struct race *race;

static void *run_one(void *number) {
    size_t i = (size_t)(uintptr_t)number;
    pthread_barrier_wait(&race->together);
    race->statuses[i] = mbr__table(&race->how.call, "op", &race->tables[i]);
    return NULL;
}

static void run_all(void *into) {
    race = into;
    start(&race->how);
    pthread_t threads[THREADS];
    pthread_barrier_init(&race->together, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run_one, (void *)(uintptr_t)i) != 0)
            _exit(3);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void threads_that_ask_at_once_get_one_answer(void **state) {
    (void)state;
    static const struct {
        const char *fakes;
        mbr_status want;
    } cases[] = {{"good", MBR_OK}, {"wrong_stamp", MBR_E_NO_VARIANT}};
    for (size_t c = 0; c < 2; c++)
        for (int repeat = 0; repeat < 20; repeat++) {
            static struct race r;
            r = (struct race){.how = {.fakes = cases[c].fakes,
                                      .forced = "cpu_scalar",
                                      .call = {.device_type = MBR_DEVICE_CPU}}};
            mbr_in_child(run_all, &r, sizeof r);
            for (size_t i = 0; i < THREADS; i++) {
                assert_int_equal(r.statuses[i], cases[c].want);
                assert_ptr_equal(r.tables[i], r.tables[0]);
            }
            assert_int_equal(r.tables[0] != NULL, cases[c].want == MBR_OK);
        }
}

int main(void) {
    unsetenv("MAMBARUN_PATH");
    unsetenv("MAMBARUN_VARIANT");
    unsetenv("MAMBARUN_TRACE");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_variant_is_opened_and_named),
        cmocka_unit_test(best_variant_of_this_processor_is_taken),
        cmocka_unit_test(every_bad_variant_is_refused_with_its_reason),
        cmocka_unit_test(refused_variant_gives_way_to_the_next_row),
        cmocka_unit_test(message_lists_every_row_of_the_devices_kind),
        cmocka_unit_test(message_for_a_gpu_has_its_facts_and_rows),
        cmocka_unit_test(without_a_driver_the_status_is_cuda),
        cmocka_unit_test(gpu_call_never_runs_on_the_cpu),
        cmocka_unit_test(every_gpu_is_judged_by_itself),
        cmocka_unit_test(device_beyond_the_last_is_refused),
        cmocka_unit_test(forced_name_that_no_row_has_is_an_error_for_every_device),
        cmocka_unit_test(forced_variant_runs_or_fails_with_its_verdict),
        cmocka_unit_test(forced_cuda_variant_leaves_the_cpu_alone),
        cmocka_unit_test(forced_cpu_variant_leaves_gpus_alone),
        cmocka_unit_test(empty_name_forces_nothing),
        cmocka_unit_test(file_in_mambarun_path_comes_first),
        cmocka_unit_test(without_it_files_lie_beside_the_library),
        cmocka_unit_test(shared_library_finds_its_own_folder),
        cmocka_unit_test(end_of_a_long_path_is_in_the_reason),
        cmocka_unit_test(variant_beyond_the_last_is_refused),
        cmocka_unit_test(the_variant_in_use_says_how_it_was_built),
        cmocka_unit_test(rows_for_other_devices_say_that_they_are_not_installed),
        cmocka_unit_test(variant_info_without_size_or_device_is_refused),
        cmocka_unit_test(preload_of_the_cpu_or_of_a_gpu_chooses_now),
        cmocka_unit_test(trace_has_a_line_per_probe_verdict_and_load),
        cmocka_unit_test(threads_that_ask_at_once_get_one_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
