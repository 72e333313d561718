/* SPDX-License-Identifier: Apache-2.0
 *
 * status.c - this thread's message, the names of the statuses, the trace. Prints only
 * when MAMBARUN_TRACE=1.
 */
#include "status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[MBR_MESSAGE];

const char *mbr_last_error(void) {
    return message;
}

mbr_status mbr__fail(mbr_status s, const char *fmt, ...) {
    char text[MBR_MESSAGE]; /* not message itself: an argument may point into it */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    strcpy(message, text);
    return s;
}

const char *mbr_status_name(mbr_status s) {
    static const char *const names[] = {
        [MBR_OK] = "MBR_OK",
        [MBR_E_ARG] = "MBR_E_ARG",
        [MBR_E_UNSUPPORTED] = "MBR_E_UNSUPPORTED",
        [MBR_E_NO_VARIANT] = "MBR_E_NO_VARIANT",
        [MBR_E_CUDA] = "MBR_E_CUDA",
        [MBR_E_INTERNAL] = "MBR_E_INTERNAL",
    };
    size_t i = (size_t)s;
    return i < sizeof names / sizeof *names ? names[i] : "unknown status";
}

uint32_t mbr_version(void) {
    unsigned major = 0, minor = 0, patch = 0;
    sscanf(MBR_VERSION_STRING, "%u.%u.%u", &major, &minor, &patch);
    return 10000 * major + 100 * minor + patch;
}

/* MAMBARUN_TRACE as it was at the first question. Two threads that ask at once read
 * the same value, so neither needs to wait. */
static int trace_is_on(void) {
    enum { UNREAD, OFF, ON };
    static atomic_int state = UNREAD;
    int now = atomic_load_explicit(&state, memory_order_relaxed);
    if (now == UNREAD) {
        const char *value = getenv("MAMBARUN_TRACE");
        now = value != NULL && strcmp(value, "1") == 0 ? ON : OFF;
        atomic_store_explicit(&state, now, memory_order_relaxed);
    }
    return now == ON;
}

void mbr__trace(const char *fmt, ...) {
    if (!trace_is_on())
        return;
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    fprintf(stderr, "mambarun: %s\n", line);
}
