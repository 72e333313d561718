/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.c - opens libcuda.so.1 and fills the table. Nothing else of NVIDIA's is ever
 * opened, and whether to use the driver is decided elsewhere.
 */
#include "driver.h"

#include "dl.h"
#include "status.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Never the unversioned name: that is a toolkit's stub, or not there at all. */
#define SONAME "libcuda.so.1"
/* Where WSL puts it and no loader looks. */
#define WSL_PATH "/usr/lib/wsl/lib/libcuda.so.1"

enum need { REQUIRED, OPTIONAL };

static const struct row {
    const char *symbol;
    enum need need;
    int32_t since;
    const char *without;
    size_t offset;
} rows[MBR_DRIVER_ROWS] = {
#define MBR_DRIVER(symbol, need, since, without)                                       \
    {#symbol, need, since, without, offsetof(mbr_driver, symbol)},
#include "driver.def"
};

void mbr__refuse(mbr_refusal *refusal, const char *code, const char *fmt, ...) {
    if (refusal->code != NULL)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(refusal->why, sizeof refusal->why, fmt, args);
    va_end(args);
    refusal->code = code;
}

static const struct error {
    int status;
    mbr_driver_kind kind;
    const char *code, *sentence;
} errors[] = {
#define MBR_DRIVER_ERROR(status, name, kind, code, sentence)                           \
    {status, MBR_##kind, code, sentence},
#include "driver_errors.def"
};

static const struct error *find_error(int status) {
    static const struct error other = {-1, MBR_MACHINE, MBR_CODE_CUDA, NULL};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].status == status)
            return &errors[i];
    return &other;
}

static mbr_driver_kind judge(const mbr_driver *driver, const char *call, int status,
                             mbr_refusal *refusal) {
    if (status == 0)
        return MBR_WENT_WELL;
    const struct error *error = find_error(status);
    const char *name = NULL, *text = NULL;
    if (driver->cuGetErrorName != NULL)
        driver->cuGetErrorName(status, &name);
    if (driver->cuGetErrorString != NULL)
        driver->cuGetErrorString(status, &text);
    mbr__refuse(refusal, error->code, "%s fails with %s (%d)%s%s%s%s", call,
                name != NULL ? name : "driver error", status, text != NULL ? ": " : "",
                text != NULL ? text : "", error->sentence != NULL ? "; " : "",
                error->sentence != NULL ? error->sentence : "");
    return error->kind;
}

/* A copy that is in the process already comes first, so that two never meet. */
static void *open_library(void) {
    void *library = mbr__dl_loaded(SONAME);
    if (library == NULL)
        library = mbr__dl_open(SONAME);
    if (library == NULL && mbr__dl_exists(WSL_PATH))
        library = mbr__dl_open(WSL_PATH);
    return library;
}

static void find_symbol(void *library, const struct row *row, mbr_driver_facts *out) {
    void *address = mbr__dl_symbol(library, row->symbol);
    memcpy((char *)&out->table + row->offset, &address, sizeof address);
    if (address != NULL) {
        if (out->path[0] == '\0')
            mbr__dl_file_of(address, out->path, sizeof out->path);
        return;
    }
    char *missing = out->missing[row - rows];
    snprintf(missing, sizeof *out->missing, "driver lacks %s (API %d.%d): %s",
             row->symbol, row->since / 1000, row->since % 1000 / 10, row->without);
    mbr__trace("%s", missing);
    if (row->need == REQUIRED)
        mbr__refuse(&out->refusal, MBR_CODE_DRIVER, "%s", missing);
}

static void read_version(mbr_driver_facts *out) {
    if (out->table.cuDriverGetVersion == NULL)
        return;
    int version = 0;
    int status = out->table.cuDriverGetVersion(&version);
    if (judge(&out->table, "cuDriverGetVersion", status, &out->refusal) !=
        MBR_WENT_WELL)
        return;
    if (version > 0)
        out->api = version;
    else
        mbr__refuse(&out->refusal, MBR_CODE_DRIVER,
                    "libcuda.so.1 finds no driver: its version is %d", version);
}

static void probe(mbr_driver_facts *out) {
    void *library = open_library();
    if (library == NULL) {
        mbr__refuse(&out->refusal, MBR_CODE_DRIVER, "no NVIDIA driver: %s",
                    mbr__dl_error());
        return;
    }
    for (size_t i = 0; i < MBR_DRIVER_ROWS; i++)
        find_symbol(library, &rows[i], out);
    if (strstr(out->path, "/stubs/") != NULL)
        mbr__refuse(&out->refusal, MBR_CODE_STUB,
                    "%s is the toolkit's link-time stub, not a driver", out->path);
    read_version(out);
}

/* Written once, by one thread; then only read. */
static mbr_driver_facts facts;

static void probe_once(void) {
    probe(&facts);
    mbr__trace("driver: %s, API %d.%d%s%s", facts.path[0] ? facts.path : "none",
               facts.api / 1000, facts.api % 1000 / 10,
               facts.refusal.why[0] ? ": " : "", facts.refusal.why);
}

const mbr_driver_facts *mbr__driver(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, probe_once);
    return &facts;
}

mbr_driver_kind mbr__driver_judge(const char *call, int status, mbr_refusal *refusal) {
    return judge(&mbr__driver()->table, call, status, refusal);
}
