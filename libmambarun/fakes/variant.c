/* SPDX-License-Identifier: Apache-2.0
 *
 * variant.c - a variant that computes nothing. Good by itself: it remembers its latest
 * call (variant.h). One macro makes it bad:
 *   MBR_FAKE_ANSWER n     the entry answers n
 *   MBR_FAKE_NO_ENTRY     there is no entry
 *   MBR_FAKE_STAMP "..."  it was built with that stamp
 *   MBR_FAKE_SIZE n       its table has n bytes more
 *   MBR_FAKE_LACKS member the table's member is NULL
 *   MBR_FAKE_UNDEFINED    needs a symbol that nobody has
 * As a CUDA variant it has two kernels, which the fake driver takes, and keeps what it
 * was handed to launch them.
 */
#include "variant/variant.h"

#include "mbr_stamp.h"
#include "variant.h"
#include <string.h>

MBR_API mbr_fake mbr_fake_variant;

static void remember(const char *op, const void *params, uint32_t size) {
    mbr_fake *f = &mbr_fake_variant;
    f->calls++;
    f->op = op;
    f->size = size;
    memcpy(f->params, params, size);
}

#define MBR_OP(op)                                                                     \
    mbr_status mbr_impl_##op(const mbr_##op##_params *p) {                             \
        _Static_assert(sizeof *p <= sizeof mbr_fake_variant.params, #op);              \
        remember(#op, p, sizeof *p);                                                   \
        return mbr_fake_variant.status;                                                \
    }
#define MBR_WORKSPACE(op)                                                              \
    size_t mbr_impl_##op##_workspace(const mbr_##op##_params *p) {                     \
        remember(#op "_workspace", p, sizeof *p);                                      \
        return mbr_fake_variant.workspace;                                             \
    }
#include "ops/ops.def"

#ifdef MBR_FAKE_UNDEFINED
extern int mbr_nobody_has_this(void);
MBR_API int mbr_fake_need(void);
int mbr_fake_need(void) {
    return mbr_nobody_has_this();
}
#endif

#ifndef MBR_FAKE_NO_ENTRY

#ifndef MBR_FAKE_ANSWER
#define MBR_FAKE_ANSWER MBR_ENTRY_OK
#endif
#ifndef MBR_FAKE_STAMP
#define MBR_FAKE_STAMP MBR_STAMP
#endif
#ifndef MBR_FAKE_SIZE
#define MBR_FAKE_SIZE 0
#endif

static const mbr_blob blobs[] = {
    {"one", MBR_VARIANT_IMAGE ".one", sizeof MBR_VARIANT_IMAGE ".one"},
    {"two", MBR_VARIANT_IMAGE ".two", sizeof MBR_VARIANT_IMAGE ".two"},
};

int mbr_variant_entry(const char *stamp, uint32_t size, const mbr_launcher *launcher,
                      mbr_table *out) {
    mbr_fake_variant.launcher = launcher;
    if (strcmp(stamp, MBR_FAKE_STAMP) != 0)
        return MBR_ENTRY_STAMP;
    if (size != sizeof *out + MBR_FAKE_SIZE)
        return MBR_ENTRY_SIZE;
    *out = (mbr_table){
        .name = MBR_VARIANT_NAME,
        .build = "fake",
        .blobs = launcher != NULL ? blobs : NULL,
        .blob_count = launcher != NULL ? sizeof blobs / sizeof *blobs : 0,
#define MBR_OP(op) .op = mbr_impl_##op,
#define MBR_WORKSPACE(op) .op##_workspace = mbr_impl_##op##_workspace,
#include "ops/ops.def"
    };
#ifdef MBR_FAKE_LACKS
    out->MBR_FAKE_LACKS = NULL;
#endif
    return MBR_FAKE_ANSWER;
}

#endif
