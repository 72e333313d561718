/* SPDX-License-Identifier: Apache-2.0
 *
 * variant.h - the private ABI between the core and a variant's library: one exported
 * function that fills one table. Both ship together, so the match is exact: the stamp
 * is a hash over this file, ops.def, driver.def and the public headers, computed by
 * the build; nobody bumps a number.
 */
#ifndef MBR_VARIANT_H
#define MBR_VARIANT_H

#include "../mambarun.h"

typedef struct mbr_driver mbr_driver; /* core/driver.h */

typedef struct mbr_table {
    const char *name;  /* the row of manifest.def */
    const char *build; /* compiler and flags, for reports */
    /* Every member may assume that the arguments passed the room's checks. */
#define MBR_OP(op) mbr_status (*op)(const mbr_##op##_params *p);
#define MBR_WORKSPACE(op) size_t (*op##_workspace)(const mbr_##op##_params *p);
#include "../ops/ops.def"
} mbr_table;

/* Name of a member that is NULL, or NULL if none is. Here because the core, which asks,
 * names no op. */
static inline const char *mbr__table_lacks(const mbr_table *t) {
#define MBR_OP(op)                                                                       \
    if (t->op == NULL)                                                                   \
        return #op;
#define MBR_WORKSPACE(op)                                                                \
    if (t->op##_workspace == NULL)                                                       \
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

/* The only symbol a variant exports. stamp and size are the core's; drv is NULL for a
 * CPU variant. Fills *out and returns MBR_ENTRY_OK, or leaves it alone. */
MBR_API int mbr_variant_entry(const char *stamp, uint32_t size, const mbr_driver *drv,
                              mbr_table *out);
typedef int mbr_variant_entry_fn(const char *, uint32_t, const mbr_driver *, mbr_table *);

/* The implementations inside a variant. */
#define MBR_OP(op) mbr_status mbr_impl_##op(const mbr_##op##_params *p);
#define MBR_WORKSPACE(op) size_t mbr_impl_##op##_workspace(const mbr_##op##_params *p);
#include "../ops/ops.def"

#endif
