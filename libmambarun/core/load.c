/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c - opens the variant of a device and publishes its table. The only place that
 * opens variants; which of them may run is select's word.
 */
#include "load.h"

#include "dl.h"
#include "module.h"
#include "select.h"
#include "status.h"

#include "mbr_stamp.h"
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES = 1 + MBR_CUDA_DEVICES };

/* What became of one device. Never changed once published, never freed. */
typedef struct choice {
    mbr_status status; /* what every call for the device gets */
    size_t row;        /* that runs it, if MBR_OK */
    mbr_table table;   /* of that row */
    bool passing;      /* the failure may be over at the next call: do not publish */
    mbr_verdict verdicts[MBR_ROWS];
    char why_not[MBR_MESSAGE]; /* the message after its first words, unless MBR_OK */
} choice;

static _Atomic(const choice *) choices[DEVICES];
static pthread_mutex_t choosing = PTHREAD_MUTEX_INITIALIZER;

/* ---- files -------------------------------------------------------------------- */

static struct files {
    const char *library;
    const char *variant[MBR_ROWS];
} files;

static const char *keep(const char *text) {
    const char *copy = strdup(text);
    return copy != NULL ? copy : "";
}

static void find_files(void) {
    char library[PATH_MAX], own[PATH_MAX], first[PATH_MAX], path[PATH_MAX + 64];
    if (!mbr__dl_file_of(&files, library, sizeof library))
        library[0] = '\0';
    files.library = keep(library);
    const char *slash = strrchr(library, '/');
    snprintf(own, sizeof own, "%.*s", slash != NULL ? (int)(slash - library) : 0,
             library);
    const char *asked = getenv("MAMBARUN_PATH");
    if (asked == NULL || realpath(asked, first) == NULL)
        strcpy(first, own);
    for (size_t i = 0; i < MBR_ROWS; i++) {
        snprintf(path, sizeof path, "%s/libmambarun_%s.so", first, mbr__rows[i].name);
        if (!mbr__dl_exists(path))
            snprintf(path, sizeof path, "%s/libmambarun_%s.so", own, mbr__rows[i].name);
        files.variant[i] = keep(path);
    }
}

static const struct files *all_files(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_files);
    return &files;
}

const char *mbr__library_path(void) {
    return all_files()->library;
}

const char *mbr__variant_path(size_t i) {
    return all_files()->variant[i];
}

/* ---- verdicts ----------------------------------------------------------------- */

static void find_facts(int32_t device_type, int32_t device_id, mbr_facts *out) {
    *out = (mbr_facts){.device_type = device_type, .device_id = device_id};
    mbr__probe_cpu(&out->cpu);
    if (device_type != MBR_DEVICE_CUDA)
        return;
    mbr_gpu_facts gpu = {0};
    mbr__probe_gpu(device_id, &gpu, &out->no_cuda);
    out->driver_api = mbr__driver()->api;
    out->compute_capability = gpu.compute_capability;
}

/* Turns v into a refusal; always false. */
__attribute__((format(printf, 2, 3))) static bool refuse(mbr_verdict *v,
                                                         const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(v->reason, sizeof v->reason, fmt, args);
    va_end(args);
    return v->accepted = false;
}

/* The same about the file at path, of which a reason has room for the end only. */
static bool refuse_file(mbr_verdict *v, const char *path, const char *what,
                        const char *name) {
    enum { LONGEST = 150 };
    size_t length = strlen(path), cut = length > LONGEST ? length - LONGEST : 0;
    return refuse(v, "%s%s: %s%s", what, name, cut > 0 ? "..." : "", path + cut);
}

/* What select says, and whether the file is there: of rows for other kinds of device
 * too, as a list of all rows should say which exist. */
static mbr_status judge(const mbr_facts *f, mbr_verdict out[MBR_ROWS]) {
    const char *forced = getenv("MAMBARUN_VARIANT");
    if (forced != NULL && forced[0] == '\0')
        forced = NULL;
    mbr_status s = mbr__select(f, forced, out);
    for (size_t i = 0; i < MBR_ROWS; i++)
        if ((out[i].accepted || mbr__rows[i].device_type != f->device_type) &&
            !mbr__dl_exists(mbr__variant_path(i)))
            refuse_file(&out[i], mbr__variant_path(i), "not installed", "");
    return s;
}

/* ---- opening ------------------------------------------------------------------ */

static const char *entry_answer(int answer) {
    switch (answer) {
    case MBR_ENTRY_STAMP:
        return "was built together with another libmambarun (stamps differ)";
    case MBR_ENTRY_SIZE:
        return "has a table of another size than this libmambarun";
    case MBR_ENTRY_REFUSED:
        return "refuses to run here";
    default:
        return "gives an answer that this libmambarun does not know";
    }
}

/* Opens row i and shakes hands. On failure the verdict says why. */
static bool open_variant(size_t i, mbr_table *out, mbr_verdict *v) {
    const mbr_row *row = &mbr__rows[i];
    const char *path = mbr__variant_path(i);
    void *library = mbr__dl_open(path);
    if (library == NULL)
        return refuse(v, "cannot be opened: %s", mbr__dl_error());
    mbr_variant_entry_fn *entry;
    void *address = mbr__dl_symbol(library, "mbr_variant_entry");
    if (address == NULL)
        return refuse_file(v, path, "has no ", "mbr_variant_entry");
    memcpy(&entry, &address, sizeof entry);
    const mbr_launcher *launcher =
        row->device_type == MBR_DEVICE_CUDA ? &mbr__launcher : NULL;
    mbr_table table = {0};
    int answer = entry(MBR_STAMP, sizeof table, launcher, &table);
    if (answer != MBR_ENTRY_OK)
        return refuse_file(v, path, entry_answer(answer), "");
    /* A renamed file would bring instructions that nobody asked the processor for. */
    if (table.name == NULL || strcmp(table.name, row->name) != 0)
        return refuse_file(v, path, "calls itself ",
                           table.name != NULL ? table.name : "nothing");
    const char *lacking = mbr__table_lacks(&table);
    if (lacking != NULL)
        return refuse_file(v, path, "lacks ", lacking);
    *out = table;
    return true;
}

/* ---- choosing ----------------------------------------------------------------- */

static void name_device(int32_t device_type, int32_t device_id, char out[24]) {
    if (device_type == MBR_DEVICE_CPU)
        strcpy(out, "cpu");
    else
        snprintf(out, 24, "cuda:%d", device_id);
}

/* What decides about the device's variants, in words. */
static void describe(const mbr_facts *f, char out[96]) {
    if (f->device_type == MBR_DEVICE_CPU)
        snprintf(out, 96, "%s", f->cpu.name[0] != '\0' ? f->cpu.name : "no name");
    else if (f->no_cuda.code != NULL)
        snprintf(out, 96, "not usable");
    else
        snprintf(out, 96, "sm_%d, driver API %d.%d", f->compute_capability,
                 f->driver_api / 1000, f->driver_api % 1000 / 10);
}

/* A line per row of this kind of device. */
static void list_verdicts(const mbr_facts *f, const mbr_verdict *verdicts, char *out) {
    char facts[96];
    describe(f, facts);
    size_t used = (size_t)snprintf(out, MBR_MESSAGE, " (%s)", facts);
    for (size_t i = 0; i < MBR_ROWS; i++)
        if (mbr__rows[i].device_type == f->device_type)
            used += (size_t)snprintf(out + used, MBR_MESSAGE - used, "\n  %-12s  %s",
                                     mbr__rows[i].name, verdicts[i].reason);
    snprintf(out + used, MBR_MESSAGE - used, MBR_EXPLAIN MBR_CODE_VARIANT);
}
_Static_assert(MBR_ROWS * (sizeof(mbr_verdict) + 32) + 512 < MBR_MESSAGE,
               "a message must hold every verdict");

static void trace_verdicts(const mbr_facts *f, const mbr_verdict *verdicts) {
    char device[24], facts[96];
    name_device(f->device_type, f->device_id, device);
    describe(f, facts);
    mbr__trace("choosing for %s (%s)", device, facts);
    for (size_t i = 0; i < MBR_ROWS; i++)
        if (mbr__rows[i].device_type == f->device_type)
            mbr__trace("%s: %s: %s", mbr__rows[i].name,
                       verdicts[i].accepted ? "accepted" : "refused",
                       verdicts[i].reason);
}

/* Loads the kernels of row i, whose table is out->table, for c's device. If that cannot
 * be, it is a verdict on the row, or the end of the call. */
static mbr_driver_kind load_kernels(const mbr_call *c, size_t i, choice *out) {
    mbr_refusal no = {0};
    mbr_driver_kind kind = mbr__module_load(c->device_id, c->stream, &out->table, &no);
    if (kind == MBR_IMAGE) {
        refuse(&out->verdicts[i], "%s (%s)", no.why, no.code);
    } else if (kind == MBR_CAPTURE) {
        snprintf(
            out->why_not, sizeof out->why_not,
            ": its kernels are not loaded yet, and while a stream is captured they "
            "cannot be: call mambarun.preload(%d) before capturing (%s)" MBR_EXPLAIN
            "%s",
            c->device_id, no.why, no.code);
    } else if (kind == MBR_MACHINE) {
        snprintf(out->why_not, sizeof out->why_not, ": %s" MBR_EXPLAIN "%s", no.why,
                 no.code);
    }
    return kind;
}

/* Opens row i for c's device, or says why it is refused. */
static mbr_driver_kind open_row(const mbr_call *c, size_t i, choice *out) {
    mbr_driver_kind kind = MBR_IMAGE;
    if (open_variant(i, &out->table, &out->verdicts[i]))
        kind = mbr__rows[i].device_type == MBR_DEVICE_CUDA ? load_kernels(c, i, out)
                                                           : MBR_WENT_WELL;
    if (kind == MBR_WENT_WELL)
        mbr__trace("%s (%s): opened %s", mbr__rows[i].name, mbr__rows[i].mode,
                   mbr__variant_path(i));
    else if (kind == MBR_IMAGE)
        mbr__trace("%s: refused: %s", mbr__rows[i].name, out->verdicts[i].reason);
    return kind;
}

/* Opens the first accepted row that keeps its promise. A fault that is not the row's
 * ends the search, for this call only. */
static mbr_status open_first(const mbr_call *c, choice *out) {
    for (size_t i = 0; i < MBR_ROWS; i++) {
        if (!out->verdicts[i].accepted)
            continue;
        mbr_driver_kind kind = open_row(c, i, out);
        if (kind == MBR_WENT_WELL) {
            out->row = i;
            return MBR_OK;
        }
        out->passing = kind != MBR_IMAGE;
        if (out->passing)
            return MBR_E_CUDA;
    }
    return MBR_E_NO_VARIANT;
}

static void choose(const mbr_call *c, choice *out) {
    mbr_facts facts;
    find_facts(c->device_type, c->device_id, &facts);
    out->status = judge(&facts, out->verdicts);
    if (out->status != MBR_OK) {
        snprintf(out->why_not, sizeof out->why_not, ": %s", mbr_last_error());
        return;
    }
    trace_verdicts(&facts, out->verdicts);
    if (facts.no_cuda.code != NULL) {
        out->status = MBR_E_CUDA;
        snprintf(out->why_not, sizeof out->why_not, ": %s" MBR_EXPLAIN "%s",
                 facts.no_cuda.why, facts.no_cuda.code);
        return;
    }
    out->status = open_first(c, out);
    if (out->status == MBR_E_NO_VARIANT)
        list_verdicts(&facts, out->verdicts, out->why_not);
}

/* Where a device's choice stands; NULL if there is no such device. */
static _Atomic(const choice *) *slot_of(int32_t device_type, int32_t device_id) {
    if (device_type == MBR_DEVICE_CPU)
        return &choices[0];
    if (device_type == MBR_DEVICE_CUDA && device_id >= 0 &&
        device_id < MBR_CUDA_DEVICES)
        return &choices[1 + device_id];
    return NULL;
}

static mbr_status find_slot(int32_t device_type, int32_t device_id,
                            _Atomic(const choice *) **out) {
    *out = slot_of(device_type, device_id);
    if (*out == NULL)
        MBR_FAIL(MBR_E_ARG,
                 "device_type %d, device_id %d: must be %d (CPU), or %d (CUDA) "
                 "with device_id 0 to %d",
                 device_type, device_id, MBR_DEVICE_CPU, MBR_DEVICE_CUDA,
                 MBR_CUDA_DEVICES - 1);
    return MBR_OK;
}

static mbr_status fail(const choice *made, const char *op, const mbr_call *c) {
    char device[24];
    name_device(c->device_type, c->device_id, device);
    MBR_FAIL(made->status, "no variant can run %s on %s%s", op, device, made->why_not);
}

/* Chooses and publishes, under the lock; a failure that may pass is not kept. */
static mbr_status choose_now(const mbr_call *c, const char *op,
                             _Atomic(const choice *) *slot, const choice **out) {
    choice *made = calloc(1, sizeof *made);
    if (made == NULL)
        MBR_FAIL(MBR_E_INTERNAL, "no memory to choose a variant");
    choose(c, made);
    if (made->passing) {
        mbr_status s = fail(made, op, c);
        free(made);
        return s;
    }
    atomic_store_explicit(slot, made, memory_order_release);
    *out = made;
    return MBR_OK;
}

static mbr_status choose_once(const mbr_call *c, const char *op,
                              _Atomic(const choice *) *slot, const choice **out) {
    mbr_status s = MBR_OK;
    pthread_mutex_lock(&choosing);
    *out = atomic_load_explicit(slot, memory_order_relaxed);
    if (*out == NULL)
        s = choose_now(c, op, slot, out);
    pthread_mutex_unlock(&choosing);
    return s;
}

mbr_status mbr__table(const mbr_call *c, const char *op, const mbr_table **out) {
    _Atomic(const choice *) *slot;
    MBR_TRY(find_slot(c->device_type, c->device_id, &slot));
    const choice *known = atomic_load_explicit(slot, memory_order_acquire);
    if (known == NULL)
        MBR_TRY(choose_once(c, op, slot, &known));
    if (known->status != MBR_OK)
        return fail(known, op, c);
    *out = &known->table;
    return MBR_OK;
}

/* ---- questions ---------------------------------------------------------------- */

size_t mbr_variant_count(void) {
    return MBR_ROWS;
}

mbr_status mbr_variant_at(size_t i, int32_t device_type, int32_t device_id,
                          mbr_variant_info *out) {
    _Atomic(const choice *) *slot;
    MBR_TRY(mbr__check_answer(out, MBR_END_OF(mbr_variant_info, reason), sizeof *out));
    MBR_TRY(find_slot(device_type, device_id, &slot));
    if (i >= MBR_ROWS)
        MBR_FAIL(MBR_E_ARG, "i is %zu: there are %d variants", i, MBR_ROWS);
    mbr_verdict fresh[MBR_ROWS];
    const mbr_verdict *verdicts = fresh;
    const choice *known = atomic_load_explicit(slot, memory_order_acquire);
    if (known != NULL) {
        verdicts = known->verdicts;
    } else {
        mbr_facts facts;
        find_facts(device_type, device_id, &facts);
        judge(&facts, fresh);
    }
    mbr_variant_info answer = {
        .usable = verdicts[i].accepted,
        .name = mbr__rows[i].name,
        .path = mbr__variant_path(i),
        .mode = mbr__rows[i].mode,
    };
    if (known != NULL && known->status == MBR_OK && known->row == i)
        answer.build = known->table.build;
    memcpy(answer.reason, verdicts[i].reason, sizeof answer.reason);
    mbr__answer(out, sizeof answer, &answer);
    return MBR_OK;
}

const char *mbr_variant_in_use(int32_t device_type, int32_t device_id) {
    _Atomic(const choice *) *slot = slot_of(device_type, device_id);
    const choice *known =
        slot != NULL ? atomic_load_explicit(slot, memory_order_acquire) : NULL;
    return known != NULL && known->status == MBR_OK ? known->table.name : NULL;
}

mbr_status mbr_preload(int32_t device_id) {
    const mbr_call call = {
        .device_type = device_id < 0 ? MBR_DEVICE_CPU : MBR_DEVICE_CUDA,
        .device_id = device_id < 0 ? 0 : device_id,
    };
    const mbr_table *table;
    return mbr__table(&call, "anything", &table);
}
