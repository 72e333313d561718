/* SPDX-License-Identifier: Apache-2.0
 *
 * variant.h - the private ABI between the core and a variant's library: one exported
 * function that fills one table. Both ship together, so the match is exact: the stamp
 * is a hash over this file, ops.def and the public headers, computed by the build;
 * nobody bumps a number.
 */
#ifndef MBR_VARIANT_H
#define MBR_VARIANT_H

#include "../mambarun.h"

/* One kernel of a CUDA variant, compiled: a cubin, or PTX that ends with NUL. */
typedef struct mbr_blob {
    const char *name; /* of the kernel in the image, which holds only that one */
    const void *image;
    size_t size; /* of the image, in bytes */
} mbr_blob;

typedef struct mbr_launch {
    uint32_t grid[3];
    uint32_t block;        /* threads, along x */
    uint32_t shared_bytes; /* dynamic shared memory */
} mbr_launch;

/* What the core does for a CUDA variant, which so needs no driver of its own: contexts,
 * kernel handles and messages stay in one place. Allocates nothing, waits for nothing.
 */
typedef struct mbr_launcher {
    /* Launches blob number kernel on c's device and stream, with one argument: size
     * bytes at params, which are copied. MBR_E_CUDA with the driver's words. */
    mbr_status (*launch)(const mbr_call *c, uint32_t kernel, const mbr_launch *how,
                         const void *params, size_t size);
    /* Of c's device. */
    int32_t (*multiprocessors)(const mbr_call *c);
} mbr_launcher;

typedef struct mbr_table {
    const char *name;  /* the row of manifest.def */
    const char *build; /* compiler and flags, for reports */
    /* CUDA: every kernel, by number; a CPU variant has none */
    const mbr_blob *blobs;
    size_t blob_count;
    /* Every member may assume that the arguments passed the room's checks. */
#define MBR_OP(op) mbr_status (*op)(const mbr_##op##_params *p);
#define MBR_WORKSPACE(op) size_t (*op##_workspace)(const mbr_##op##_params *p);
#include "../ops/ops.def"
} mbr_table;

/* Name of a member that is NULL, or NULL if none is. Here because the core, which asks,
 * names no op. */
static inline const char *mbr__table_lacks(const mbr_table *t) {
#define MBR_OP(op)                                                                     \
    if (t->op == NULL)                                                                 \
        return #op;
#define MBR_WORKSPACE(op)                                                              \
    if (t->op##_workspace == NULL)                                                     \
        return #op "_workspace";
#include "../ops/ops.def"
    return NULL;
}

/* What mbr_variant_entry answers. */
enum {
    MBR_ENTRY_OK = 0,
    MBR_ENTRY_STAMP = 1,  /* built together with another libmambarun */
    MBR_ENTRY_SIZE = 2,   /* the table has another size */
    MBR_ENTRY_REFUSED = 3 /* the variant itself says no */
};

/* The only symbol a variant exports. stamp and size are the core's; launcher is NULL
 * for a CPU variant. Fills *out and returns MBR_ENTRY_OK, or leaves it alone. */
MBR_API int mbr_variant_entry(const char *stamp, uint32_t size,
                              const mbr_launcher *launcher, mbr_table *out);
typedef int mbr_variant_entry_fn(const char *, uint32_t, const mbr_launcher *,
                                 mbr_table *);

/* The implementations inside a variant. */
#define MBR_OP(op) mbr_status mbr_impl_##op(const mbr_##op##_params *p);
#define MBR_WORKSPACE(op) size_t mbr_impl_##op##_workspace(const mbr_##op##_params *p);
#include "../ops/ops.def"

#endif
