/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_bwd.c - launches the backward selective scan: picks rows of instances.def, lays
 * out the workspace and says how many blocks of how many channels. Up to three kernels:
 * the states before every tile (bwd_sweep.cu), the gradients (bwd.cu), and the sums
 * over blocks and batch (bwd_sum.cu); of 16 states and many channels the first two are
 * those of bwd_serial.cu; of one state there are two, bwd_one.cu and the sums.
 */
#include "../../variant/cuda.h"
#include "cuda_rows.h"

enum {
    WARP = 32,
    CHUNK = 2048,            /* positions per entry of x */
    THREADS = 128,           /* per block at most, as in tiles.cuh */
    SUM_THREADS = 256,       /* as in bwd_sum.cu */
    SUM_ITEMS = 32,          /* results of one of its blocks */
    ENOUGH_WARPS = 1400,     /* fewer leave much of a large GPU idle */
    SERIAL_STATES = 16,      /* of bwd_serial.cu */
    SERIAL_THREADS = 64,     /* of its blocks */
    SERIAL_WARPS = 600,      /* enough of them, as above */
    SHARED_SLICES = 8,       /* of partial sums, if blocks have to share them */
    ONE_STEPS = 8,           /* positions of a lane in bwd_one.cu */
    ONE_BLOCKS = 1056,       /* of bwd_one.cu, which a large GPU is to have */
    ONE_ROUNDS = 24,         /* channels that a team of it goes through, at most */
    SHARED_BYTES = 45 * 1024 /* dynamic; with its static part at most 48 KB */
};

/* How the lanes of a warp are shared out, see bwd.cu; instances.def says the same. The
 * sweep's tile is as long, be its teams shorter. */
typedef struct layout {
    int lanes, steps_16, steps_32, sweep_lanes; /* steps for u of so many bits */
} layout;

enum {
    NARROW,
    WIDE,
    COMPLEX,
    SERIAL,
    LAYOUTS,
    ONE = LAYOUTS /* of bwd_one.cu: its own */
};

static const layout layouts[LAYOUTS] = {
    {8, 8, 8, 4}, {32, 8, 8, 32}, {8, 8, 4, 8}, {4, 8, 8, 4}};

/* The kernels for a type of u: by layout. */
typedef struct kind {
    uint8_t code, bits;
    uint32_t one, sweep[LAYOUTS], reverse[LAYOUTS];
} kind;

#define KERNELS(one_in, in)                                                            \
    MBR_KERNEL_selective_scan_bwd_one_##one_in,                                        \
        {MBR_KERNEL_selective_scan_bwd_sweep_##in##_lanes4,                            \
         MBR_KERNEL_selective_scan_bwd_sweep_##in##_lanes32,                           \
         MBR_KERNEL_selective_scan_bwd_sweep_##in##_complex,                           \
         MBR_KERNEL_selective_scan_bwd_sweep_##in##_serial},                           \
    {                                                                                  \
        MBR_KERNEL_selective_scan_bwd_##in##_lanes8,                                   \
            MBR_KERNEL_selective_scan_bwd_##in##_lanes32,                              \
            MBR_KERNEL_selective_scan_bwd_##in##_complex,                              \
            MBR_KERNEL_selective_scan_bwd_##in##_serial                                \
    }

static const kind kinds[] = {
    {MBR_FLOAT, 16, KERNELS(f16, half)},
    {MBR_BFLOAT, 16, KERNELS(bf16, half)},
    {MBR_FLOAT, 32, KERNELS(f32, f32)},
};

static const kind *find_kind(const mbr_selective_scan_bwd_params *p) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].code == p->u.dtype_code && kinds[i].bits == p->u.dtype_bits)
            return &kinds[i];
    return NULL;
}

/* Threads of a block that has no more channels than there are, or of one team. */
static int64_t threads_of(int64_t channels, int64_t lanes, int which) {
    if (lanes > WARP)
        return lanes;
    const int64_t wanted = divide_up(channels * lanes, 2 * WARP) * 2 * WARP;
    const int64_t most = which == SERIAL ? SERIAL_THREADS : THREADS;
    return wanted < most ? wanted : most;
}

static int64_t threads_for(const scan_backward *f, int which) {
    return threads_of(f->width, f->lanes, which);
}

/* Takes bytes off a workspace that begins at base (NULL: only counts), on whole lines.
 */
static float *take(char *base, size_t *used, int64_t bytes) {
    float *here = base ? (float *)(base + *used) : NULL;
    *used += ((size_t)bytes + 63) / 64 * 64;
    return here;
}

/* The shortest team of bwd_one.cu that has a whole row. */
static int64_t one_lanes(const mbr_selective_scan_bwd_params *p) {
    const int64_t lanes = divide_up(p->u.shape[2], ONE_STEPS);
    return lanes <= 8 ? 8 : lanes <= 16 ? 16 : divide_up(lanes, WARP) * WARP;
}

/* Dynamic shared memory of its blocks: for each unit parts of u, delta, and du or
 * ddelta, and one of dout in fp32. */
static int64_t one_bytes(const mbr_selective_scan_bwd_params *p, int64_t threads) {
    const int64_t lanes = one_lanes(p), unit = lanes < WARP ? lanes : WARP;
    return threads / unit *
           (3 * part_bytes(unit, ONE_STEPS * p->u.dtype_bits / 8) +
            part_bytes(unit, ONE_STEPS * 4));
}

/* Whether a kernel may take the first stride for an int. */
static bool fits(const mbr_tensor *t) {
    return t->data == NULL || (t->stride[0] <= INT32_MAX && t->stride[0] >= INT32_MIN);
}

/* Whether bwd_one.cu can do it: one state, nothing that it knows not of, and rows in
 * the order of their indices, so that only the last one is the last in memory. */
static bool is_one(const mbr_selective_scan_bwd_params *p) {
    const mbr_tensor *rows[] = {&p->u, &p->delta, &p->B, &p->C, &p->dout};
    if (p->A.shape[1] != 1 || p->A.dtype_code == MBR_COMPLEX || p->B.ndim != 4 ||
        p->C.ndim != 4 || p->z.data != NULL || p->delta.shape[1] != p->u.shape[1] ||
        one_lanes(p) > SCAN_ONE_THREADS || one_bytes(p, one_lanes(p)) > SHARED_BYTES ||
        p->u.shape[1] > INT32_MAX / p->u.shape[0])
        return false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!is_in_order(rows[i]))
            return false;
    return fits(&p->A) && fits(&p->D) && fits(&p->delta_bias);
}

/* Whether bwd_serial.cu can do it. */
static bool is_serial(const mbr_selective_scan_bwd_params *p) {
    return p->A.shape[1] == SERIAL_STATES && p->A.dtype_code != MBR_COMPLEX &&
           p->B.ndim == 4 && p->C.ndim == 4 && p->delta.shape[1] == p->u.shape[1];
}

/* A team of few lanes costs least, step by step even less; many are for few channels.
 * Only the shapes decide,
 * so that the workspace's size needs no device. */
static int choose_layout(const mbr_selective_scan_bwd_params *p) {
    if (is_one(p))
        return ONE;
    if (p->A.dtype_code == MBR_COMPLEX)
        return COMPLEX;
    const int which = is_serial(p) ? SERIAL : NARROW;
    const int64_t rows = p->u.shape[0] * p->u.shape[1];
    const int64_t warps = rows * layouts[which].lanes / WARP;
    const int64_t enough = which == SERIAL ? SERIAL_WARPS : ENOUGH_WARPS;
    return warps < enough && p->u.shape[2] > 128 ? WIDE : which;
}

/* How bwd_one.cu shares the work out: the shortest team that has a whole row, and
 * blocks of several channels a team, the partial sums being one per block. */
static void plan_one(scan_backward *f) {
    const int64_t rows = f->p.u.shape[0] * f->p.u.shape[1];
    f->steps = ONE_STEPS;
    f->lanes = (uint32_t)one_lanes(&f->p);
    const int64_t teams = threads_for(f, ONE) / f->lanes;
    int64_t rounds = rows / (teams * ONE_BLOCKS);
    rounds = rounds < 1 ? 1 : rounds > ONE_ROUNDS ? ONE_ROUNDS : rounds;
    f->channels = divide_up(f->width, divide_up(f->width, teams * rounds));
    f->channels = divide_up(f->channels, teams) * teams;
    f->blocks_per_group = divide_up(f->width, f->channels);
}

/* How many partial sums of dB and dC: one per block of a group, which is then the only
 * one to write it, unless they become much larger than u. */
static void share_slices(scan_backward *f, int64_t each) {
    const int64_t elements = f->p.u.shape[0] * f->p.u.shape[1] * f->padded;
    const int64_t most = 2 * elements > 32 << 20 ? 2 * elements : 32 << 20;
    f->atomic = !(f->p.call.flags & MBR_DETERMINISTIC) && f->slices > SHARED_SLICES &&
                f->slices * each > most;
    if (f->atomic)
        f->slices = SHARED_SLICES;
}

/* Everything but the widths; base as in take. Returns the bytes of workspace. */
static size_t plan(scan_backward *f, int which, char *base) {
    const mbr_selective_scan_bwd_params *p = &f->p;
    const int64_t batch = p->u.shape[0], dim = p->u.shape[1], length = p->u.shape[2];
    const int64_t states = p->A.shape[1];
    const int64_t value = p->A.dtype_code == MBR_COMPLEX ? 8 : 4;
    const bool variable_B = p->B.ndim == 4, variable_C = p->C.ndim == 4;

    f->groups = variable_B ? p->B.shape[1] : variable_C ? p->C.shape[1] : 1;
    f->width = dim / f->groups;
    f->repeat = dim / p->delta.shape[1];
    if (which == ONE) {
        plan_one(f);
    } else {
        f->lanes = (uint32_t)layouts[which].lanes;
        f->steps = (uint32_t)(p->u.dtype_bits == 16 ? layouts[which].steps_16
                                                    : layouts[which].steps_32);
        f->blocks_per_group = divide_up(f->width, threads_for(f, which) / f->lanes);
        const int64_t lanes = layouts[which].sweep_lanes;
        f->sweep_blocks =
            divide_up(f->width, threads_of(f->width, lanes, which) / lanes);
        f->channels = which == SERIAL ? threads_for(f, which) / f->lanes : 0;
    }
    const int64_t tile = (int64_t)f->lanes * f->steps;
    f->tiles = divide_up(length, tile);
    f->padded = f->tiles * tile;
    f->blocks = batch * f->groups * f->blocks_per_group;
    f->chunks = divide_up(length, CHUNK);

    size_t used = 0;
    f->sum_blocks[1] =
        divide_up(dim * (1 + states * (variable_B && variable_C ? 1 : 3)), SUM_ITEMS);
    if (variable_B || variable_C) {
        const int64_t each = batch * f->groups * states * f->padded * 2 * value;
        f->slices = f->blocks_per_group;
        if (which != ONE)
            share_slices(f, each);
        f->partial = take(base, &used, f->slices * each);
        f->sum_blocks[0] =
            divide_up(each / 16, f->slices <= SUM_FEW_SLICES ? SUM_THREADS : SUM_ITEMS);
    } else {
        f->slices = 1;
    }
    if (f->tiles > 1)
        f->entry = take(base, &used, batch * dim * f->tiles * states * value);
    f->sums = take(base, &used,
                   batch * dim * (4 * SUMS_VALUES + SUMS_BY_STATE * states * value));
    if (f->repeat > 1) {
        f->grouped = take(base, &used, batch * dim * f->padded * 4);
        f->sum_blocks[2] = batch * p->delta.shape[1] * (f->padded / SUM_ITEMS);
        f->sum_blocks[3] = p->delta_bias.data ? p->delta.shape[1] : 0;
    }
    return used;
}

size_t mbr_impl_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p) {
    scan_backward f = {.p = *p};
    if (p->u.shape[2] == 0)
        return 0;
    return plan(&f, choose_layout(p), NULL);
}

/* Everything that the kernels move by rows, after plan(). */
static void describe(scan_backward *f, int which) {
    const mbr_selective_scan_bwd_params *p = &f->p;
    const bool variable_B = p->B.ndim == 4, variable_C = p->C.ndim == 4;
    const mbr_tensor *tensors[BACK_ROWS] = {
        [BACK_U] = &p->u,          [BACK_DELTA] = &p->delta,
        [BACK_Z] = &p->z,          [BACK_DOUT] = &p->dout,
        [BACK_OUT] = &p->out,      [BACK_B] = variable_B ? &p->B : NULL,
        [BACK_DZ] = &p->dz,        [BACK_C] = variable_C ? &p->C : NULL,
        [BACK_OUT_Z] = &p->out_z,  [BACK_DU] = &p->du,
        [BACK_DDELTA] = &p->ddelta};
    for (int i = 0; i < BACK_ROWS; i++) {
        const mbr_tensor *t = tensors[i];
        if (t == NULL || (i == BACK_OUT && p->z.data == NULL))
            continue;
        f->rows[i] = which == ONE ? rows_of_pieces(t) : rows_of(t);
        f->full |= (uint32_t)(t->dtype_bits == 32) << i;
    }
    f->plain = true;
    for (int i = 0; i < BACK_ROWS; i++)
        f->plain &=
            f->rows[i].data == NULL || (f->rows[i].how == IN_PIECES &&
                                        (f->full >> i & 1) == (p->u.dtype_bits == 32));
    for (int i = 0; i < BACK_FETCHED; i++)
        if (f->rows[i].data != NULL && (p->u.dtype_bits == 32 || !(f->full >> i & 1)))
            f->fetched[f->rows[i].how] |= 1u << i;
    if (f->repeat == 1)
        return;
    f->full |= 1u << BACK_DDELTA;
    f->rows[BACK_DDELTA] = (scan_rows){.data = (char *)f->grouped,
                                       .batch = p->u.shape[1] * f->padded * 4,
                                       .channel = f->padded * 4,
                                       .time = 1,
                                       .how = IN_PIECES};
}

static mbr_status launch(scan_backward *f, uint32_t kernel, int64_t blocks,
                         int64_t threads, int64_t shared_bytes) {
    mbr_status s = MBR_OK;
    for (f->first_block = 0; s == MBR_OK && f->first_block < blocks;
         f->first_block += INT32_MAX) {
        const int64_t left = blocks - f->first_block;
        const mbr_launch how = {
            .grid = {(uint32_t)(left < INT32_MAX ? left : INT32_MAX), 1, 1},
            .block = (uint32_t)threads,
            .shared_bytes = (uint32_t)shared_bytes};
        s = mbr__launch(&f->p.call, kernel, &how, f, sizeof *f);
    }
    return s;
}

/* With no positions all sums are of nothing, which the last kernel writes too. */
mbr_status mbr_impl_selective_scan_bwd(const mbr_selective_scan_bwd_params *p) {
    const kind *k = find_kind(p);
    const int which = choose_layout(p);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    scan_backward f = {.p = *p};
    plan(&f, which, p->workspace.data);
    describe(&f, which);
    mbr_status s = MBR_OK;
    if (which == ONE && f.tiles > 0)
        s = launch(&f, k->one, f.blocks, threads_for(&f, which),
                   one_bytes(p, threads_for(&f, which)));
    if (which != ONE && (f.tiles > 1 || f.atomic))
        s = launch(&f, k->sweep[which],
                   p->u.shape[0] * f.groups * f.sweep_blocks * f.chunks,
                   threads_of(f.width, layouts[which].sweep_lanes, which), 0);
    if (which != ONE && s == MBR_OK && f.tiles > 0)
        s = launch(&f, k->reverse[which], f.blocks, threads_for(&f, which), 0);
    if (s == MBR_OK)
        s = launch(&f, MBR_KERNEL_selective_scan_bwd_sum,
                   f.sum_blocks[0] + f.sum_blocks[1] + f.sum_blocks[2] +
                       f.sum_blocks[3],
                   SUM_THREADS, 0);
    return s;
}
