/* SPDX-License-Identifier: Apache-2.0
 *
 * params.c - the size rule, both ways. Knows mbr_call and no other field.
 */
#include "params.h"

#include "status.h"
#include <string.h>

/* Above this a size is not a newer caller's but an uninitialised one: its tail is not
 * even read. */
enum { LARGEST = 65536 };

static mbr_status check_tail(const void *p, uint32_t given, uint32_t size) {
    if (given > LARGEST)
        MBR_FAIL(MBR_E_ARG, "struct_size is %u: set it to sizeof the struct", given);
    const unsigned char *bytes = p;
    for (uint32_t i = size; i < given; i++)
        if (bytes[i] != 0)
            MBR_FAIL(
                MBR_E_ARG,
                "struct_size is %u and byte %u is not zero: libmambarun "
                "%s knows %u bytes, the caller is newer" MBR_EXPLAIN MBR_CODE_MIXED,
                given, i, MBR_VERSION_STRING, size);
    return MBR_OK;
}

static mbr_status check_call(const mbr_call *c) {
    if (c->device_type != MBR_DEVICE_CPU && c->device_type != MBR_DEVICE_CUDA)
        MBR_FAIL(MBR_E_ARG, "call.device_type is %d: must be %d (CPU) or %d (CUDA)",
                 c->device_type, MBR_DEVICE_CPU, MBR_DEVICE_CUDA);
    if ((c->flags & ~(uint32_t)MBR_DETERMINISTIC) != 0)
        MBR_FAIL(MBR_E_ARG, "call.flags is %#x: must be 0 or MBR_DETERMINISTIC (%#x)",
                 c->flags, (unsigned)MBR_DETERMINISTIC);
    if (c->threads < 0)
        MBR_FAIL(MBR_E_ARG, "call.threads is %d: must be 0 (all) or more", c->threads);
    if (c->reserved != 0)
        MBR_FAIL(MBR_E_ARG, "call.reserved is %d: must be 0", c->reserved);
    return MBR_OK;
}

mbr_status mbr__params(const void **p, uint32_t size, void *full) {
    if (*p == NULL)
        MBR_FAIL(MBR_E_ARG, "params is NULL");
    const mbr_call *c = *p;
    uint32_t given = c->struct_size;
    if (given < sizeof *c)
        MBR_FAIL(MBR_E_ARG,
                 "call.struct_size is %u: set it to sizeof the params struct, "
                 "at least %zu",
                 given, sizeof *c);
    MBR_TRY(check_tail(*p, given, size));
    MBR_TRY(check_call(c));
    if (given < size) {
        memset(full, 0, size);
        memcpy(full, *p, given);
        ((mbr_call *)full)->struct_size = size;
        *p = full;
    }
    return MBR_OK;
}

mbr_status mbr__check_size(const char *name, const void *p, uint32_t first,
                           uint32_t size) {
    if (p == NULL)
        MBR_FAIL(MBR_E_ARG, "%s is NULL", name);
    uint32_t given;
    memcpy(&given, p, sizeof given);
    if (given < first)
        MBR_FAIL(MBR_E_ARG, "%s->struct_size is %u: set it to sizeof *%s, at least %u",
                 name, given, name, first);
    return check_tail(p, given, size);
}

mbr_status mbr__check_answer(const void *out, uint32_t first, uint32_t size) {
    return mbr__check_size("out", out, first, size);
}

void mbr__answer(void *out, uint32_t size, const void *full) {
    uint32_t given;
    memcpy(&given, out, sizeof given);
    memcpy((char *)out + sizeof given, (const char *)full + sizeof given,
           (given < size ? given : size) - sizeof given);
}
