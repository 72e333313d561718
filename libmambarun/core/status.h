/* SPDX-License-Identifier: Apache-2.0
 *
 * status.h - how the core and the rooms say what went wrong. Two macros and no more.
 */
#ifndef MBR_STATUS_H
#define MBR_STATUS_H

#include "../mambarun.h"

/* Formats this thread's message (cut at 1 KiB... see status.c) and returns s. */
__attribute__((format(printf, 2, 3))) mbr_status mbr__fail(mbr_status s, const char *fmt,
                                                           ...);

#define MBR_FAIL(status, ...) return mbr__fail((status), __VA_ARGS__)
#define MBR_TRY(expr)                                                                    \
    do {                                                                                 \
        mbr_status mbr__s = (expr);                                                      \
        if (mbr__s != MBR_OK)                                                            \
            return mbr__s;                                                               \
    } while (0)

/* One line on stderr if MAMBARUN_TRACE=1, else nothing. */
__attribute__((format(printf, 1, 2))) void mbr__trace(const char *fmt, ...);

#endif
