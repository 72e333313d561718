/* SPDX-License-Identifier: Apache-2.0
 *
 * entry.c - the one exported function of a variant, compiled into each of them.
 * MBR_VARIANT_NAME and, for a CPU variant, MBR_VARIANT_BUILD are strings from the
 * build, which defines MBR_CUDA for a CUDA variant.
 */
#ifdef MBR_CUDA
#include "cuda.h"
#else
#include "variant.h"
#endif

#include "mbr_stamp.h"
#include <string.h>

int mbr_variant_entry(const char *stamp, uint32_t size, const mbr_launcher *launcher,
                      mbr_table *out) {
    if (strcmp(stamp, MBR_STAMP) != 0)
        return MBR_ENTRY_STAMP;
    if (size != sizeof *out)
        return MBR_ENTRY_SIZE;
#ifdef MBR_CUDA
    mbr__use_launcher(launcher);
#else
    (void)launcher;
#endif
    *out = (mbr_table){
        .name = MBR_VARIANT_NAME,
#ifdef MBR_CUDA
        .build = mbr__built_with,
        .blobs = mbr__blobs,
        .blob_count = MBR_KERNELS,
#else
        .build = MBR_VARIANT_BUILD,
#endif
#define MBR_OP(op) .op = mbr_impl_##op,
#define MBR_WORKSPACE(op) .op##_workspace = mbr_impl_##op##_workspace,
#include "../ops/ops.def"
    };
    return MBR_ENTRY_OK;
}
