/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_bwd.c - launches the backward selective scan: picks rows of instances.def, lays
 * out the workspace and says how many blocks of how many channels. Up to three kernels:
 * the states before every tile (bwd_sweep.cu), the gradients (bwd.cu), and the sums
 * over blocks and batch (bwd_sum.cu).
 */
#include "../../variant/cuda.h"
#include "cuda_scan.h"

#include <stdbool.h>

enum {
    WARP = 32,
    CHUNK = 2048,       /* positions per entry of x */
    THREADS = 128,      /* per block at most, as in bwd.cuh */
    SUM_THREADS = 256,  /* as in bwd_sum.cu */
    SUM_ITEMS = 32,     /* results of one of its blocks */
    ENOUGH_WARPS = 800, /* fewer leave much of a large GPU idle */
    SHARED_SLICES = 8   /* of partial sums, if blocks have to share them */
};

/* How the lanes of a warp are shared out, see bwd.cu; instances.def says the same. */
typedef struct layout {
    int lanes, steps;
} layout;

enum { NARROW, WIDE, COMPLEX, LAYOUTS };

static const layout layouts[LAYOUTS] = {{8, 8}, {32, 8}, {8, 8}};

/* A type of u, and the kernels for it: by layout. */
typedef struct kind {
    uint8_t code, bits;
    uint32_t sum, sweep[LAYOUTS], reverse[LAYOUTS];
} kind;

#define KERNELS(in)                                                                    \
    MBR_KERNEL_selective_scan_bwd_sum_##in,                                            \
        {MBR_KERNEL_selective_scan_bwd_sweep_##in##_lanes8,                            \
         MBR_KERNEL_selective_scan_bwd_sweep_##in##_lanes32,                           \
         MBR_KERNEL_selective_scan_bwd_sweep_##in##_complex},                          \
    {                                                                                  \
        MBR_KERNEL_selective_scan_bwd_##in##_lanes8,                                   \
            MBR_KERNEL_selective_scan_bwd_##in##_lanes32,                              \
            MBR_KERNEL_selective_scan_bwd_##in##_complex                               \
    }

static const kind kinds[] = {
    {MBR_BFLOAT, 16, KERNELS(bf16)},
    {MBR_FLOAT, 16, KERNELS(f16)},
    {MBR_FLOAT, 32, KERNELS(f32)},
};

static const kind *find_kind(const mbr_selective_scan_bwd_params *p) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].code == p->u.dtype_code && kinds[i].bits == p->u.dtype_bits)
            return &kinds[i];
    return NULL;
}

/* Whether 16-byte accesses along the last axis are right wherever a row begins. */
static bool is_wide(const mbr_tensor *t) {
    const int last = t->ndim - 1;
    if (t->data == NULL || t->stride[last] != 1 || (uintptr_t)t->data % 16 != 0)
        return false;
    for (int i = 0; i < last; i++)
        if (t->shape[i] > 1 && t->stride[i] * (t->dtype_bits / 8) % 16 != 0)
            return false;
    return true;
}

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Threads of a block that has no more channels than there are. */
static int64_t threads_for(const scan_backward *f) {
    const int64_t wanted = divide_up(f->width * f->lanes, 2 * WARP) * 2 * WARP;
    return wanted < THREADS ? wanted : THREADS;
}

/* Takes bytes off a workspace that begins at base (NULL: only counts), on whole lines.
 */
static float *take(char *base, size_t *used, int64_t bytes) {
    float *here = base ? (float *)(base + *used) : NULL;
    *used += ((size_t)bytes + 63) / 64 * 64;
    return here;
}

/* A team of few lanes costs least; many are for few channels. Only the shapes decide,
 * so that the workspace's size needs no device. */
static int choose_layout(const mbr_selective_scan_bwd_params *p) {
    if (p->A.dtype_code == MBR_COMPLEX)
        return COMPLEX;
    const int64_t rows = p->u.shape[0] * p->u.shape[1];
    const int64_t warps = rows * layouts[NARROW].lanes / WARP;
    return warps < ENOUGH_WARPS && p->u.shape[2] > 128 ? WIDE : NARROW;
}

/* How many partial sums of dB and dC: one per block of a group, which is then the only
 * one to write it, unless they become much larger than u. */
static void choose_slices(scan_backward *f, int64_t each) {
    const int64_t elements = f->p.u.shape[0] * f->p.u.shape[1] * f->padded;
    const int64_t most = 8 * elements > 64 << 20 ? 8 * elements : 64 << 20;
    f->slices = f->blocks_per_group;
    f->atomic = !(f->p.call.flags & MBR_DETERMINISTIC) && f->slices > SHARED_SLICES &&
                f->slices * each > most;
    if (f->atomic)
        f->slices = SHARED_SLICES;
}

/* Everything but the widths; base as in take. Returns the bytes of workspace. */
static size_t plan(scan_backward *f, const layout *l, char *base) {
    const mbr_selective_scan_bwd_params *p = &f->p;
    const int64_t batch = p->u.shape[0], dim = p->u.shape[1], length = p->u.shape[2];
    const int64_t states = p->A.shape[1], tile = l->lanes * l->steps;
    const int64_t value = p->A.dtype_code == MBR_COMPLEX ? 8 : 4;
    const bool variable_B = p->B.ndim == 4, variable_C = p->C.ndim == 4;

    f->groups = variable_B ? p->B.shape[1] : variable_C ? p->C.shape[1] : 1;
    f->width = dim / f->groups;
    f->repeat = dim / p->delta.shape[1];
    f->lanes = (uint32_t)l->lanes;
    f->steps = (uint32_t)l->steps;
    f->tiles = divide_up(length, tile);
    f->padded = f->tiles * tile;
    f->blocks_per_group = divide_up(f->width, threads_for(f) / l->lanes);
    f->blocks = batch * f->groups * f->blocks_per_group;
    f->chunks = divide_up(length, CHUNK);

    size_t used = 0;
    f->sum_blocks[1] = divide_up(dim * (states + 1), SUM_ITEMS);
    if (variable_B || variable_C) {
        const int64_t each = batch * f->groups * states * f->padded * 2 * value;
        choose_slices(f, each);
        f->partial = take(base, &used, f->slices * each);
        f->sum_blocks[0] =
            divide_up(each / 16, f->slices <= SUM_FEW_SLICES ? SUM_THREADS : SUM_ITEMS);
    } else {
        f->slices = 1;
    }
    if (f->tiles > 1)
        f->entry = take(base, &used, batch * dim * f->tiles * states * value);
    f->adjoint = take(base, &used, batch * dim * states * value);
    f->sums = take(base, &used, batch * dim * (4 * SUMS_VALUES + 2 * states * value));
    if (f->repeat > 1) {
        f->rows = take(base, &used, batch * dim * f->padded * 4);
        f->sum_blocks[2] = batch * p->delta.shape[1] * (f->padded / SUM_ITEMS);
        f->sum_blocks[3] = p->delta_bias.data ? p->delta.shape[1] : 0;
    }
    return used;
}

size_t mbr_impl_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p) {
    scan_backward f = {.p = *p};
    if (p->u.shape[2] == 0)
        return 0;
    return plan(&f, &layouts[choose_layout(p)], NULL);
}

static uint32_t wide_tensors(const mbr_selective_scan_bwd_params *p) {
    const struct {
        const mbr_tensor *t;
        uint32_t bit;
    } tensors[] = {
        {&p->u, WIDE_U},           {&p->delta, WIDE_DELTA}, {&p->B, WIDE_B},
        {&p->C, WIDE_C},           {&p->z, WIDE_Z},         {&p->out, WIDE_OUT},
        {&p->out_z, WIDE_OUT_Z},   {&p->dout, WIDE_DOUT},   {&p->du, WIDE_DU},
        {&p->ddelta, WIDE_DDELTA}, {&p->dz, WIDE_DZ}};
    uint32_t wide = 0;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (is_wide(tensors[i].t))
            wide |= tensors[i].bit;
    return wide;
}

static mbr_status launch(const scan_backward *f, uint32_t kernel, int64_t blocks,
                         int64_t threads) {
    const mbr_launch how = {
        .grid = {(uint32_t)(blocks < INT32_MAX ? blocks : INT32_MAX), 1, 1},
        .block = (uint32_t)threads};
    return mbr__launch(&f->p.call, kernel, &how, f, sizeof *f);
}

/* With no positions all sums are of nothing, which the last kernel writes too. */
mbr_status mbr_impl_selective_scan_bwd(const mbr_selective_scan_bwd_params *p) {
    const kind *k = find_kind(p);
    const int which = choose_layout(p);
    const layout *l = &layouts[which];
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    scan_backward f = {.p = *p, .wide = wide_tensors(p)};
    plan(&f, l, p->workspace.data);
    mbr_status s = MBR_OK;
    if (f.tiles > 1 || f.atomic)
        s = launch(&f, k->sweep[which], f.blocks * f.chunks, threads_for(&f));
    if (s == MBR_OK && f.tiles > 0)
        s = launch(&f, k->reverse[which], f.blocks, threads_for(&f));
    if (s == MBR_OK)
        s = launch(&f, k->sum,
                   f.sum_blocks[0] + f.sum_blocks[1] + f.sum_blocks[2] +
                       f.sum_blocks[3],
                   SUM_THREADS);
    return s;
}
