/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.c - launches causal_conv1d: picks the kernels for a dtype and a layout, and cuts
 * the work into blocks. What the kernels do stands in the .cu files.
 */
#include "../../variant/cuda.h"
#include "cuda_conv.h"

#include <stdbool.h>

/* Which values lie side by side; STRIDED is right for any tensors. */
typedef enum layout { TIME, CHANNEL, STRIDED, LAYOUTS } layout;

enum {
    TILES = 8,               /* of a segment at most, TIME */
    STEPS = 64,              /* of a segment at most, CHANNEL and STRIDED */
    LEAST_STEPS = 16,        /* fewer cost too much for what comes before them */
    WARPS_WANTED = 96,       /* per multiprocessor, to keep it busy */
    BLOCKS_WANTED = 1024,    /* of a backward, whose cut knows no device */
    BACKWARD_WARPS = 1 << 14 /* likewise */
};

typedef struct type {
    uint8_t code, bits;
    int count[LAYOUTS]; /* COUNT in instances.def */
    uint32_t fwd[LAYOUTS], bwd[LAYOUTS], update;
} type;

#define KERNELS(t)                                                                     \
    {MBR_KERNEL_causal_conv1d_fwd_##t##_time,                                          \
     MBR_KERNEL_causal_conv1d_fwd_##t##_channel,                                       \
     MBR_KERNEL_causal_conv1d_fwd_##t##_strided},                                      \
        {MBR_KERNEL_causal_conv1d_bwd_##t##_time,                                      \
         MBR_KERNEL_causal_conv1d_bwd_##t##_channel,                                   \
         MBR_KERNEL_causal_conv1d_bwd_##t##_strided},                                  \
        MBR_KERNEL_causal_conv1d_update_##t

static const type types[] = {
    {MBR_FLOAT, 32, {4, 4, 1}, KERNELS(f32)},
    {MBR_FLOAT, 16, {8, 4, 1}, KERNELS(f16)},
    {MBR_BFLOAT, 16, {8, 4, 1}, KERNELS(bf16)},
};

static const type *type_of(const mbr_tensor *x) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].code == x->dtype_code && types[i].bits == x->dtype_bits)
            return &types[i];
    return NULL;
}

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* ---- layout -------------------------------------------------------------------- */

static bool times_adjoin(const mbr_tensor *t) {
    return t->stride[2] == 1;
}

/* Whether `count` channels of any step can be moved at once. */
static bool channels_adjoin(const mbr_tensor *t, int count) {
    const int64_t size = t->dtype_bits / 8, bytes = count * size;
    if (t->data == NULL)
        return true;
    return t->stride[1] == 1 && (uintptr_t)t->data % (uintptr_t)bytes == 0 &&
           t->stride[0] * size % bytes == 0 && t->stride[2] * size % bytes == 0;
}

/* Long ones are x and what is like it; short ones are states. */
static layout layout_of(const type *k, const mbr_tensor *const *longs, int n_longs,
                        const mbr_tensor *const *shorts, int n_shorts) {
    const mbr_tensor *x = longs[0];
    bool time = true, channel = x->shape[1] % k->count[CHANNEL] == 0;
    for (int i = 0; i < n_longs; i++) {
        time = time && times_adjoin(longs[i]);
        channel = channel && channels_adjoin(longs[i], k->count[CHANNEL]);
    }
    for (int i = 0; i < n_shorts; i++)
        channel = channel && channels_adjoin(shorts[i], k->count[CHANNEL]);
    return channel ? CHANNEL : time && x->shape[2] > 1 ? TIME : STRIDED;
}

/* ---- cutting ------------------------------------------------------------------- */

static uint32_t bits_for(int64_t lanes) {
    uint32_t bits = 2; /* a team has at least 4: one for each tap */
    while (bits < 5 && 1 << bits < lanes)
        bits++;
    return bits;
}

/* Each of so many groups takes the same number of units, or one less. */
static int64_t share(int64_t units, int64_t most) {
    return divide_up(units, divide_up(units, larger(1, most)));
}

/* Teams along time: rows of x, in segments short enough for a quarter of `warps`. Units
 * beyond so many warps are taken one after the other: the next is on its way then. */
static conv_plan cut_times(const type *k, const mbr_tensor *x, int64_t warps,
                           bool in_place) {
    const int64_t batch = x->shape[0], dim = x->shape[1], length = x->shape[2];
    conv_plan plan = {.segments = 1, .segment = TILES};
    plan.lane_bits = bits_for(divide_up(length, k->count[TIME]));
    const int64_t tile = (int64_t)k->count[TIME] << plan.lane_bits;
    while (plan.segment > 2 &&
           batch * dim * (length / (tile * plan.segment)) < warps / 4)
        plan.segment /= 2;
    if (!in_place)
        plan.segments = larger(1, length / (tile * plan.segment));
    const int64_t teams = warps << (5 - plan.lane_bits);
    plan.groups = share(batch * plan.segments, divide_up(teams, dim));
    return plan;
}

/* Teams along channels: as many blocks as wanted, if segments need not be too short. */
static conv_plan cut_channels(const type *k, layout l, const mbr_tensor *x,
                              int64_t blocks) {
    const int64_t batch = x->shape[0], length = x->shape[2];
    const int64_t lanes = divide_up(x->shape[1], k->count[l]);
    conv_plan plan = {.segment = STEPS, .lane_bits = bits_for(lanes)};
    plan.spans = divide_up(lanes, 1 << plan.lane_bits);
    const int64_t teams = CONV_THREADS >> plan.lane_bits;
    while (plan.segment > LEAST_STEPS &&
           plan.spans * divide_up(batch * divide_up(length, plan.segment), teams) <
               blocks)
        plan.segment /= 2;
    plan.segments = divide_up(length, plan.segment);
    return plan;
}

static mbr_status launch(const mbr_call *c, uint32_t kernel, int64_t blocks,
                         uint32_t threads, const void *params, size_t size) {
    const mbr_launch how = {.grid = {(uint32_t)blocks, 1, 1}, .block = threads};
    if (blocks > INT32_MAX)
        return MBR_E_UNSUPPORTED;
    return mbr__launch(c, kernel, &how, params, size);
}

/* ---- forward ------------------------------------------------------------------- */

mbr_status mbr_impl_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p) {
    const type *k = type_of(&p->x);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    const mbr_tensor *const longs[] = {&p->x, &p->out};
    const mbr_tensor *const shorts[] = {&p->initial_states, &p->final_states_out};
    const layout l = layout_of(k, longs, 2, shorts, 2);
    const int64_t warps = (int64_t)WARPS_WANTED * mbr__multiprocessors(&p->call);
    const int64_t batch = p->x.shape[0], dim = p->x.shape[1];
    /* A segment needs the end of the one before: not if out has been written there. */
    const bool whole = p->out.data == p->x.data;

    conv_forward f = {.p = *p};
    int64_t blocks;
    if (l == TIME) {
        f.plan = cut_times(k, &p->x, warps, whole);
        blocks = divide_up(dim * f.plan.groups, CONV_THREADS >> f.plan.lane_bits);
    } else {
        f.plan = cut_channels(k, l, &p->x, warps / 8);
        if (whole) {
            f.plan.segments = 1;
            f.plan.segment = p->x.shape[2];
            if (f.plan.segment > INT32_MAX / 2)
                return MBR_E_UNSUPPORTED;
        }
        blocks = f.plan.spans *
                 divide_up(batch * f.plan.segments, CONV_THREADS >> f.plan.lane_bits);
    }
    return launch(&p->call, k->fwd[l], blocks, CONV_THREADS, &f, sizeof f);
}

/* ---- backward ------------------------------------------------------------------ */

/* Depends on x alone: the workspace is asked for before the outputs are there. */
static conv_plan cut_backward(const type *k, layout l, const mbr_tensor *x) {
    const int64_t batch = x->shape[0];
    conv_plan plan;
    if (l == TIME) {
        plan = cut_times(k, x, BACKWARD_WARPS, false);
    } else {
        plan = cut_channels(k, l, x, BLOCKS_WANTED);
        plan.groups =
            share(divide_up(batch * plan.segments, CONV_THREADS >> plan.lane_bits),
                  divide_up(4 * BLOCKS_WANTED, plan.spans));
    }
    return plan;
}

size_t mbr_impl_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    const type *k = type_of(&p->x);
    int64_t groups = 0;
    for (int l = 0; k != NULL && l < LAYOUTS; l++)
        groups = larger(groups, cut_backward(k, (layout)l, &p->x).groups);
    return (size_t)(groups * (p->weight.shape[1] + 1) * p->x.shape[1]) * sizeof(float);
}

mbr_status mbr_impl_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    const type *k = type_of(&p->x);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    const mbr_tensor *const longs[] = {&p->x, &p->dout, &p->dx};
    const mbr_tensor *const shorts[] = {&p->initial_states, &p->dfinal_states,
                                        &p->dinitial_states};
    const layout l = layout_of(k, longs, 3, shorts, 3);
    const int64_t dim = p->x.shape[1];
    const conv_backward f = {.p = *p, .plan = cut_backward(k, l, &p->x)};
    const int64_t blocks =
        l == TIME ? divide_up(dim * f.plan.groups, CONV_THREADS >> f.plan.lane_bits)
                  : f.plan.spans * f.plan.groups;
    const mbr_status status =
        launch(&p->call, k->bwd[l], blocks, CONV_THREADS, &f, sizeof f);
    if (status != MBR_OK)
        return status;
    return launch(&p->call, MBR_KERNEL_causal_conv1d_bwd_reduce,
                  divide_up(dim, CONV_REDUCE_LANES) * (p->weight.shape[1] + 1),
                  CONV_REDUCE_THREADS, &f, sizeof f);
}

/* ---- update -------------------------------------------------------------------- */

mbr_status mbr_impl_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    const type *k = type_of(&p->x);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    return launch(&p->call, k->update,
                  divide_up(p->x.shape[0] * p->x.shape[1], CONV_THREADS), CONV_THREADS,
                  p, sizeof *p);
}
