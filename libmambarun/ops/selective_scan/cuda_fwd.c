/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_fwd.c - launches the forward selective scan: picks a row of instances.def and
 * says how many blocks of how many channels. What a kernel does stands in fwd.cu.
 */
#include "../../variant/cuda.h"
#include "cuda_scan.h"

#include <stdbool.h>

enum {
    WARP = 32,
    THREADS = 128,               /* per block at most */
    WARPS_WANTED = 16,           /* per multiprocessor, to keep it busy */
    SHARED_BYTES = 20 * 1024,    /* dynamic; with the static part it stays below 48 KB */
    KINDS = 5                    /* of pairs of types */
};

/* How the lanes of a warp are shared out, see fwd.cu; instances.def says the same. */
typedef struct layout {
    int lanes, steps, rows;
} layout;

enum { LAYOUTS = 3 };

static const layout real_layouts[LAYOUTS] = {{8, 8, 1}, {16, 8, 1}, {32, 8, 1}};
static const layout complex_layout = {16, 4, 1};

/* Types of u and out, and the kernels for them: by layout, then complex. */
typedef struct kind {
    uint8_t code, bits, out_bits;
    uint32_t real[LAYOUTS], complex;
} kind;

#define KERNELS(in, out)                                                                 \
    {MBR_KERNEL_selective_scan_fwd_##in##_##out##_lanes8,                                \
     MBR_KERNEL_selective_scan_fwd_##in##_##out##_lanes16,                               \
     MBR_KERNEL_selective_scan_fwd_##in##_##out##_lanes32},                              \
        MBR_KERNEL_selective_scan_fwd_##in##_##out##_complex

static const kind kinds[KINDS] = {
    {MBR_BFLOAT, 16, 16, KERNELS(bf16, bf16)}, {MBR_BFLOAT, 16, 32, KERNELS(bf16, f32)},
    {MBR_FLOAT, 16, 16, KERNELS(f16, f16)},    {MBR_FLOAT, 16, 32, KERNELS(f16, f32)},
    {MBR_FLOAT, 32, 32, KERNELS(f32, f32)},
};

static const kind *find_kind(const mbr_selective_scan_fwd_params *p) {
    for (int i = 0; i < KINDS; i++)
        if (kinds[i].code == p->u.dtype_code && kinds[i].bits == p->u.dtype_bits &&
            kinds[i].out_bits == p->out.dtype_bits)
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

/* Few lanes to a channel cost least, if all tiles are full and there are enough warps;
 * the relative costs per position are measured. */
static int choose_layout(const mbr_selective_scan_fwd_params *p) {
    static const int cost[LAYOUTS] = {100, 108, 118};
    const int64_t rows = p->u.shape[0] * p->u.shape[1], length = p->u.shape[2];
    const int64_t wanted = (int64_t)WARPS_WANTED * mbr__multiprocessors(&p->call);
    int best = 0;
    double least = 0;
    for (int i = 0; i < LAYOUTS; i++) {
        const layout *l = &real_layouts[i];
        const int64_t tile = l->lanes * l->steps;
        const int64_t warps = divide_up(rows * l->lanes, WARP * l->rows);
        double c = (double)cost[i] * (double)(divide_up(length, tile) * tile);
        if (warps < wanted)
            c = c * (double)wanted / (double)warps;
        if (i == 0 || c < least) {
            least = c;
            best = i;
        }
    }
    return best;
}

mbr_status mbr_impl_selective_scan_fwd(const mbr_selective_scan_fwd_params *p) {
    const kind *k = find_kind(p);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    if (p->u.shape[2] == 0)
        return MBR_OK;
    const bool complex = p->A.dtype_code == MBR_COMPLEX;
    const int which = complex ? 0 : choose_layout(p);
    const layout *l = complex ? &complex_layout : &real_layouts[which];
    const bool variable_B = p->B.ndim == 4, variable_C = p->C.ndim == 4;

    scan_forward f = {.p = *p};
    f.groups = variable_B ? p->B.shape[1] : variable_C ? p->C.shape[1] : 1;
    f.width = p->u.shape[1] / f.groups;
    f.repeat = p->u.shape[1] / p->delta.shape[1];
    const struct {
        const mbr_tensor *t;
        uint32_t bit;
    } tensors[] = {{&p->u, WIDE_U},     {&p->delta, WIDE_DELTA}, {&p->B, WIDE_B},
                   {&p->C, WIDE_C},     {&p->z, WIDE_Z},         {&p->out, WIDE_OUT},
                   {&p->out_z, WIDE_OUT_Z}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (is_wide(tensors[i].t))
            f.wide |= tensors[i].bit;

    /* Bytes per channel: a rate and a carry for each state, and a constant factor. */
    const int64_t value = complex ? 8 : 4;
    const int64_t bytes = p->A.shape[1] * value * (variable_B && variable_C ? 2 : 3);
    int64_t threads = divide_up(divide_up(f.width, l->rows) * l->lanes, WARP) * WARP;
    if (threads > THREADS)
        threads = THREADS;
    while (threads > WARP && threads / l->lanes * l->rows * bytes > SHARED_BYTES)
        threads -= WARP;
    const int64_t channels = threads / l->lanes * l->rows;
    f.blocks_per_group = divide_up(f.width, channels);
    f.blocks = p->u.shape[0] * f.groups * f.blocks_per_group;
    const mbr_launch how = {
        .grid = {(uint32_t)(f.blocks < INT32_MAX ? f.blocks : INT32_MAX), 1, 1},
        .block = (uint32_t)threads,
        .shared_bytes = (uint32_t)(channels * bytes)};
    return mbr__launch(&p->call, complex ? k->complex : k->real[which], &how, &f,
                       sizeof f);
}
