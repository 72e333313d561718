/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.c - how a room's launch code reaches the core. Knows neither driver nor op.
 */
#include "cuda.h"

/* The core's, the same for every device. Written at the first handshake, before any
 * thread has a table of this variant. */
static const mbr_launcher *core;

void mbr__use_launcher(const mbr_launcher *launcher) {
    if (core == NULL)
        core = launcher;
}

mbr_status mbr__launch(const mbr_call *c, uint32_t kernel, const mbr_launch *how,
                       const void *params, size_t size) {
    return core->launch(c, kernel, how, params, size);
}

int32_t mbr__multiprocessors(const mbr_call *c) {
    return core->multiprocessors(c);
}
