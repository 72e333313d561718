/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda.c - launches causal_conv1d: picks the kernels for a dtype and a layout, and cuts
 * the work into blocks. What the kernels do stands in the .cu files.
 */
#include "../../variant/cuda.h"
#include "cuda_conv.h"

#include <stdbool.h>

enum {
    STEPS = 32,           /* of a segment at most, CHANNEL and STRIDED, forward */
    BACKWARD_STEPS = 128, /* likewise, backward, which has more to do before it */
    LEAST_STEPS = 16,     /* fewer cost too much for what comes before them */
    STEPS_AT_ONCE = 8,    /* segments are multiples of that many */
    TILES = 4,            /* of a segment at most, TIME, forward */
    BACKWARD_TILES = 8,   /* likewise, backward */
    ROW_TILES = 8,        /* of a block at least, ROW */
    LEAST_TILES = 4,      /* backward, unless there are too few of them */
    WARPS_WANTED = 30,    /* per multiprocessor, forward, to keep it busy */
    BLOCKS_WANTED = 528,  /* of a backward at a time; its cut knows no device */
    TIME_WARPS = 4224,    /* likewise, ROW and TIME */
    MOST = INT32_MAX      /* of what a kernel counts in 32 bits */
};

/* Which values lie side by side. ROW: TIME, all of it at aligned places and enough of
 * it, backward. IDS: CHANNEL, and there is a seq_idx. STRIDED is right for any tensors,
 * and the one for states and a seq_idx with TIME. */
typedef enum layout { ROW, TIME, CHANNEL, IDS, STRIDED, LAYOUTS } layout;

typedef struct type {
    uint8_t code, bits;
    int count[LAYOUTS]; /* COUNT in instances.def */
    uint32_t fwd[LAYOUTS], bwd[LAYOUTS];
} type;

#define KERNELS(way, row, t)                                                           \
    {MBR_KERNEL_causal_conv1d_##way##_##t##_##row,                                     \
     MBR_KERNEL_causal_conv1d_##way##_##t##_time,                                      \
     MBR_KERNEL_causal_conv1d_##way##_##t##_channel,                                   \
     MBR_KERNEL_causal_conv1d_##way##_##t##_channel_ids,                               \
     MBR_KERNEL_causal_conv1d_##way##_strided}
#define BOTH_WAYS(t) KERNELS(fwd, time, t), KERNELS(bwd, row, t)

static const type types[] = {
    {MBR_FLOAT, 32, {4, 4, 2, 2, 1}, BOTH_WAYS(f32)},
    {MBR_FLOAT, 16, {8, 8, 2, 2, 1}, BOTH_WAYS(f16)},
    {MBR_BFLOAT, 16, {8, 8, 2, 2, 1}, BOTH_WAYS(bf16)},
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

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static conv_divider divide_by(uint32_t n) {
    conv_divider d = {0};
    while (UINT64_C(1) << d.shift < n)
        d.shift++;
    d.factor = (uint32_t)((((UINT64_C(1) << d.shift) - n) << 32) / n + 1);
    return d;
}

/* ---- layout -------------------------------------------------------------------- */

/* Whether `count` channels of any step can be moved at once. */
static bool channels_adjoin(const mbr_tensor *t, int count) {
    const int64_t size = t->dtype_bits / 8, bytes = count * size;
    if (t->data == NULL)
        return true;
    return t->stride[1] == 1 && (uintptr_t)t->data % (uintptr_t)bytes == 0 &&
           t->stride[0] * size % bytes == 0 && t->stride[2] * size % bytes == 0;
}

/* Whether runs of `count` times are whole, and each begins at an aligned place. */
static bool runs_aligned(const mbr_tensor *t, int count) {
    const uintptr_t bytes = (uintptr_t)count * t->dtype_bits / 8;
    return (uintptr_t)t->data % bytes == 0 && t->stride[0] % count == 0 &&
           t->stride[1] % count == 0 && t->shape[2] % count == 0;
}

/* Whether the _time kernels can count the segments of this x: few have so many. */
static bool fits_times(const mbr_tensor *x) {
    const int64_t rows = x->shape[0] * x->shape[1];
    return rows <= MOST && x->shape[2] / CONV_LANES < MOST / rows;
}

/* Of a row, for a block of as many lanes as it can have. */
static int64_t row_tiles(const type *k, const mbr_tensor *x) {
    return divide_up(x->shape[2], k->count[ROW] * CONV_ROW_THREADS);
}

/* Whether the _row kernels are for this x: they count times in 32 bits, and what comes
 * before and after a block's tiles is worth it. */
static bool fits_rows(const type *k, const mbr_tensor *x) {
    return x->shape[2] > k->count[ROW] * CONV_LANES && x->shape[2] <= MOST / 2 &&
           x->shape[0] * row_tiles(k, x) >= ROW_TILES && fits_times(x);
}

/* Long ones are x and what is like it; short ones are states. */
static layout layout_of(const type *k, const mbr_tensor *seq_idx,
                        const mbr_tensor *const *longs, int n_longs,
                        const mbr_tensor *const *shorts, int n_shorts) {
    const mbr_tensor *x = longs[0];
    bool channel = x->shape[1] % k->count[CHANNEL] == 0;
    bool time = x->shape[2] > 1 && seq_idx->data == NULL && fits_times(x);
    bool row = fits_rows(k, x);
    for (int i = 0; i < n_longs; i++) {
        time = time && longs[i]->stride[2] == 1;
        row = row && runs_aligned(longs[i], k->count[ROW]);
        channel = channel && channels_adjoin(longs[i], k->count[CHANNEL]);
    }
    for (int i = 0; i < n_shorts; i++) {
        time = time && shorts[i]->data == NULL;
        channel = channel && channels_adjoin(shorts[i], k->count[CHANNEL]);
    }
    if (channel)
        return seq_idx->data ? IDS : CHANNEL;
    if (time)
        return row ? ROW : TIME;
    return STRIDED;
}

/* ---- cutting ------------------------------------------------------------------- */

/* Of a team that needs so many. */
static uint32_t bits_for(int64_t lanes, uint32_t least) {
    uint32_t bits = least;
    while (bits < 5 && INT64_C(1) << bits < lanes)
        bits++;
    return bits;
}

/* Teams along time: segments of `tiles` tiles, or of as few as `least` for so many
 * warps, or of fewer for a quarter of them. A row that fits into one team is one
 * segment. */
static conv_plan cut_times(const type *k, const mbr_tensor *x, int64_t tiles,
                           int64_t least, int64_t warps) {
    const int64_t rows = x->shape[0] * x->shape[1], length = x->shape[2];
    const int64_t count = k->count[TIME];
    conv_plan plan = {.segments = 1, .segment = 1};
    /* Tiles may begin before time 0. A team reads the taps, so it has 8 lanes or more.
     */
    plan.lane_bits = bits_for(divide_up(length + count - 1, count), 3);
    if (plan.lane_bits == 5) {
        const int64_t all = divide_up(length, count * CONV_LANES);
        while (tiles > least && rows * divide_up(all, tiles) < warps)
            tiles /= 2;
        while (tiles > 1 && rows * divide_up(all, tiles) < warps / 4)
            tiles /= 2;
        plan.segment = (uint32_t)tiles;
        plan.segments = (uint32_t)divide_up(all, tiles);
    }
    plan.by_segments = divide_by(plan.segments);
    plan.by_dim = divide_by((uint32_t)x->shape[1]);
    return plan;
}

/* Teams along channels: as many blocks as wanted, if segments need not be too short. */
static conv_plan cut_channels(const type *k, layout l, const mbr_tensor *x,
                              int64_t steps, int64_t blocks) {
    const int64_t batch = x->shape[0], length = x->shape[2];
    const int64_t lanes = divide_up(x->shape[1], k->count[l]);
    conv_plan plan = {.segment = (uint32_t)steps, .lane_bits = bits_for(lanes, 2)};
    plan.spans = (uint32_t)divide_up(lanes, 1 << plan.lane_bits);
    const int64_t teams = CONV_THREADS >> plan.lane_bits;
    while (plan.segment > LEAST_STEPS &&
           plan.spans * divide_up(batch * divide_up(length, plan.segment), teams) <
               blocks)
        plan.segment /= 2;
    return plan;
}

/* When it is known how long the segments of a plan along channels may be: as many, of
 * about the same length. */
static bool complete(conv_plan *plan, const mbr_tensor *x) {
    const int64_t length = x->shape[2];
    int64_t segments = divide_up(length, plan->segment);
    if (segments > 1)
        plan->segment =
            (uint32_t)(divide_up(divide_up(length, segments), STEPS_AT_ONCE) *
                       STEPS_AT_ONCE);
    segments = divide_up(length, plan->segment);
    if (segments > MOST / x->shape[0])
        return false;
    plan->segments = (uint32_t)segments;
    plan->units = (uint32_t)(x->shape[0] * segments);
    plan->by_segments = divide_by(plan->segments);
    plan->by_spans = divide_by(plan->spans);
    return true;
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
    const layout l = layout_of(k, &p->seq_idx, longs, 2, shorts, 2);
    const int64_t warps = (int64_t)WARPS_WANTED * mbr__multiprocessors(&p->call);
    /* A segment needs the end of the one before: not if out has been written there. */
    const bool whole = p->out.data == p->x.data;

    conv_forward f = {.p = *p};
    int64_t blocks;
    if (l == TIME || l == ROW) {
        f.plan = cut_times(k, &p->x, whole ? MOST : TILES, 1, whole ? 0 : warps);
        f.plan.units = (uint32_t)(p->x.shape[0] * p->x.shape[1] * f.plan.segments);
        blocks = divide_up(f.plan.units, CONV_THREADS >> f.plan.lane_bits);
    } else {
        f.plan = cut_channels(k, l, &p->x, STEPS, warps / 2);
        if (whole)
            f.plan.segment = (uint32_t)smaller(p->x.shape[2], INT32_MAX / 2);
        if (!complete(&f.plan, &p->x) || (whole && f.plan.segments > 1))
            return MBR_E_UNSUPPORTED;
        blocks =
            f.plan.spans * divide_up(f.plan.units, CONV_THREADS >> f.plan.lane_bits);
    }
    return launch(&p->call, k->fwd[l], blocks, CONV_THREADS, &f, sizeof f);
}

/* ---- backward ------------------------------------------------------------------ */

/* Each of so many groups takes the same number of units, or one less. */
static int64_t share(int64_t units, int64_t most) {
    return divide_up(units, divide_up(units, larger(1, most)));
}

/* Units of the plan go to groups of so many teams, enough of them. */
static void group(conv_plan *plan, int64_t dim, int64_t teams) {
    plan->groups = (uint32_t)share(divide_up(plan->units, teams),
                                   divide_up(TIME_WARPS, dim * plan->warps));
    plan->rounds = (uint32_t)divide_up(plan->units, plan->groups * teams);
}

/* A block takes the rows of a channel one after the other; few rows are cut into
 * segments. */
static void cut_rows(const type *k, const mbr_tensor *x, conv_plan *plan) {
    const int64_t batch = x->shape[0], dim = x->shape[1];
    const int64_t runs = divide_up(x->shape[2], k->count[ROW]);
    const int64_t lanes = divide_up(runs, row_tiles(k, x));
    *plan = (conv_plan){.warps = (uint32_t)divide_up(lanes, CONV_LANES)};
    const int64_t all = divide_up(runs, plan->warps * CONV_LANES);
    int64_t tiles = all;
    while (tiles > 1 && batch * dim * divide_up(all, tiles) * plan->warps < TIME_WARPS)
        tiles = divide_up(tiles, 2);
    plan->segment = (uint32_t)tiles;
    plan->segments = (uint32_t)divide_up(all, tiles);
    plan->rest = (uint32_t)(all - (plan->segments - 1) * tiles);
    plan->by_segments = divide_by(plan->segments);
    plan->by_dim = divide_by((uint32_t)dim);
    plan->units = (uint32_t)(batch * plan->segments);
    group(plan, dim, 1);
}

/* Depends on x alone: the workspace is asked for before the outputs are there. */
static bool cut_backward(const type *k, layout l, const mbr_tensor *x,
                         conv_plan *plan) {
    if (l == ROW) {
        if (!fits_rows(k, x))
            return false;
        cut_rows(k, x, plan);
        return true;
    }
    if (l == TIME) {
        if (!fits_times(x))
            return false;
        *plan = cut_times(k, x, BACKWARD_TILES, LEAST_TILES, TIME_WARPS);
        plan->units = (uint32_t)(x->shape[0] * plan->segments);
        const int64_t units_per_warp = CONV_LANES >> plan->lane_bits;
        plan->warps =
            (uint32_t)smaller(divide_up(plan->units, units_per_warp), CONV_WARPS);
        group(plan, x->shape[1], plan->warps * units_per_warp);
        return true;
    }
    *plan = cut_channels(k, l, x, BACKWARD_STEPS, BLOCKS_WANTED / 2);
    if (!complete(plan, x))
        return false;
    plan->groups =
        (uint32_t)share(divide_up(plan->units, CONV_THREADS >> plan->lane_bits),
                        BLOCKS_WANTED / plan->spans);
    return true;
}

size_t mbr_impl_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    const type *k = type_of(&p->x);
    int64_t groups = 0;
    conv_plan plan;
    for (int l = 0; k != NULL && l < LAYOUTS; l++)
        if (cut_backward(k, (layout)l, &p->x, &plan))
            groups = larger(groups, plan.groups);
    return (size_t)(groups * (p->weight.shape[1] + 1) * p->x.shape[1]) * sizeof(float);
}

mbr_status mbr_impl_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    const type *k = type_of(&p->x);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    const mbr_tensor *const longs[] = {&p->x, &p->dout, &p->dx};
    const mbr_tensor *const shorts[] = {&p->initial_states, &p->dfinal_states,
                                        &p->dinitial_states};
    const layout l = layout_of(k, &p->seq_idx, longs, 3, shorts, 3);
    const int64_t dim = p->x.shape[1];
    conv_backward f = {.p = *p};
    if (!cut_backward(k, l, &p->x, &f.plan))
        return MBR_E_UNSUPPORTED;
    const bool time = l == ROW || l == TIME;
    const mbr_status status = launch(
        &p->call, k->bwd[l], (time ? dim : (int64_t)f.plan.spans) * f.plan.groups,
        time ? f.plan.warps * CONV_LANES : CONV_THREADS, &f, sizeof f);
    if (status != MBR_OK || f.plan.groups == 1)
        return status;
    return launch(&p->call, MBR_KERNEL_causal_conv1d_bwd_reduce,
                  divide_up(dim, CONV_REDUCE_LANES) * (p->weight.shape[1] + 1),
                  CONV_REDUCE_THREADS, &f, sizeof f);
}

/* ---- update -------------------------------------------------------------------- */

mbr_status mbr_impl_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    return launch(&p->call, MBR_KERNEL_causal_conv1d_update,
                  divide_up(p->x.shape[0] * p->x.shape[1], CONV_THREADS), CONV_THREADS,
                  p, sizeof *p);
}
