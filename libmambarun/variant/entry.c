/* SPDX-License-Identifier: Apache-2.0
 *
 * entry.c - the one exported function of a variant, compiled into each of them.
 * MBR_VARIANT_NAME and MBR_VARIANT_BUILD are strings from the build.
 */
#include "variant.h"

#include "mbr_stamp.h"
#include <string.h>

int mbr_variant_entry(const char *stamp, uint32_t size, const mbr_driver *drv,
                      mbr_table *out) {
    (void)drv;
    if (strcmp(stamp, MBR_STAMP) != 0)
        return MBR_ENTRY_STAMP;
    if (size != sizeof *out)
        return MBR_ENTRY_SIZE;
    *out = (mbr_table){
        .name = MBR_VARIANT_NAME,
        .build = MBR_VARIANT_BUILD,
#define MBR_OP(op) .op = mbr_impl_##op,
#define MBR_WORKSPACE(op) .op##_workspace = mbr_impl_##op##_workspace,
#include "../ops/ops.def"
    };
    return MBR_ENTRY_OK;
}
