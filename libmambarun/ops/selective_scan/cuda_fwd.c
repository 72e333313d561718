/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_fwd.c - launches the forward selective scan: picks a row of instances.def and
 * says how many blocks of how many channels. What a kernel does stands in fwd.cu,
 * fwd_serial.cu and, for one state, fwd_one.cu.
 */
#include "../../variant/cuda.h"
#include "cuda_rows.h"

enum {
    THREADS = 128,           /* per block at most */
    THREAD_UNIT = 64,        /* fwd.cuh wants multiples of it */
    SHARED_BYTES = 5 * 1024, /* dynamic; with a kernel's static part at most 48 KB */
    PER_BLOCK = 1100000,     /* measured cost of beginning and ending one */
    CHUNK = 2048,            /* positions per entry of x */
    ELEMENT_LANES = 8,       /* at least, if rows are accessed by the element */
    WARP = 32,
    ONE_STEPS = 8,      /* positions of a lane in fwd_one.cu */
    ONE_BLOCKS = 3,     /* of it per multiprocessor */
    ONE_CHANNELS = 512, /* of a block of it at most */
    ONE_BEGINS = 2,     /* it costs so many tiles more than it has */
    JOIN_THREADS = 128,
    JOIN_BLOCKS = 65535,
    LAYOUTS = 4,
    SERIAL_STATES = 16,
    KINDS = 2 /* of types */
};

/* A kernel, and how it shares out the lanes of a warp, as instances.def has it. */
typedef struct layout {
    uint32_t kernel;
    int states; /* exactly; 0: any, kept in dynamic shared memory */
    int lanes, steps;
    int blocks;              /* per multiprocessor */
    double busy;             /* of them, fewer take as long */
    int per_step, per_state; /* measured costs of a position, and of a state there */
} layout;

#define LAYOUT(name, lanes, steps, blocks, ...)                                        \
    {MBR_KERNEL_selective_scan_fwd_##name, 0, lanes, steps, blocks, 3, __VA_ARGS__}
#define SERIAL(name, ...)                                                              \
    {MBR_KERNEL_selective_scan_fwd_##name, SERIAL_STATES, __VA_ARGS__, 0}

/* The layouts for types of so many bits: of fwd.cu, for a real and a complex A, and of
 * fwd_serial.cu; and the kernels of one state, in units of 8 lanes, for short rows, and
 * of 32. */
typedef struct kind {
    uint8_t bits;
    layout real[LAYOUTS], complex, serial;
    uint32_t one[2];
} kind;

#define ONE(in)                                                                        \
    {MBR_KERNEL_selective_scan_fwd_one_##in##_lanes8,                                  \
     MBR_KERNEL_selective_scan_fwd_one_##in##_lanes32}

static const kind kinds[KINDS] = {
    {16,
     {LAYOUT(half_lanes4, 4, 16, 4, 570, 35), LAYOUT(half_lanes8, 8, 8, 6, 430, 55),
      LAYOUT(half_lanes16, 16, 8, 5, 470, 59), LAYOUT(half_lanes32, 32, 8, 4, 520, 80)},
     LAYOUT(half_complex, 32, 8, 3, 520, 200),
     SERIAL(half_serial, 4, 8, 4, 2.4, 920),
     ONE(half)},
    {32,
     {LAYOUT(f32_lanes8_short, 8, 8, 6, 310, 57), LAYOUT(f32_lanes8, 8, 16, 4, 370, 42),
      LAYOUT(f32_lanes16, 16, 8, 5, 330, 57), LAYOUT(f32_lanes32, 32, 8, 4, 330, 77)},
     LAYOUT(f32_complex, 32, 4, 3, 330, 250),
     SERIAL(f32_serial, 8, 4, 4, 3, 775),
     ONE(f32)}};

/* Two passes and what joins them take as much longer than one. */
static const double WORTH_TWO_PASSES = 2.5;

static const kind *find_kind(const mbr_tensor *u) {
    for (int i = 0; i < KINDS; i++)
        if (kinds[i].bits == u->dtype_bits)
            return &kinds[i];
    return NULL;
}

/* Bytes of dynamic shared memory per channel: a rate and a carry for each state, and a
 * factor if B or C is constant. */
static int64_t channel_bytes(const mbr_selective_scan_fwd_params *p) {
    const int64_t value = p->A.dtype_code == MBR_COMPLEX ? 8 : 4;
    return p->A.shape[1] * value * (p->B.ndim == 4 && p->C.ndim == 4 ? 2 : 3);
}

/* A block's threads: as many as the group's channels and the shared memory allow. */
static int64_t choose_threads(const scan_forward *f, const layout *l) {
    if (l->states > 0)
        return THREADS;
    int64_t threads = divide_up(f->width * l->lanes, THREAD_UNIT) * THREAD_UNIT;
    if (threads > THREADS)
        threads = THREADS;
    while (threads > THREAD_UNIT &&
           threads / l->lanes * channel_bytes(&f->p) > SHARED_BYTES)
        threads -= THREAD_UNIT;
    return threads;
}

/* How long all of it would take, in units of no meaning: waves of blocks, of which the
 * last is seldom full. Each block takes one of `chunks` chunks. */
static double estimate(const scan_forward *f, const layout *l, int64_t chunks) {
    const int64_t channels = choose_threads(f, l) / l->lanes,
                  tile = l->lanes * l->steps;
    const int64_t blocks =
        f->p.u.shape[0] * f->groups * divide_up(f->width, channels) * chunks;
    const int64_t each = divide_up(blocks, mbr__multiprocessors(&f->p.call));
    const int64_t last = each % l->blocks, before = each - last;
    const double time = (double)before + (last == 0        ? 0
                                          : last < l->busy ? l->busy
                                                           : (double)last);
    const int64_t positions =
        chunks > 1 ? CHUNK : divide_up(f->p.u.shape[2], tile) * tile;
    const int64_t cost = l->per_step + l->per_state * f->p.A.shape[1];
    return time * ((double)(channels * cost) * (double)positions + PER_BLOCK);
}

/* Whether rows are read or written by the element, which takes many lanes to a channel:
 * it is they that have several accesses in flight. */
static bool has_elements(const scan_forward *f) {
    static const int rows[] = {ROWS_U, ROWS_DELTA, ROWS_Z, ROWS_OUT, ROWS_OUT_Z};
    bool has = false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        has = has ||
              (f->rows[rows[i]].data != NULL && f->rows[rows[i]].how == IN_ELEMENTS);
    return has;
}

/* Whether fwd_serial.cu can do it, and moves rows fast. */
static bool suits_serial(const scan_forward *f, int64_t chunks) {
    return chunks == 1 && f->p.B.ndim == 4 && f->p.C.ndim == 4 &&
           f->p.A.shape[1] == SERIAL_STATES && !has_elements(f);
}

/* Few lanes to a channel cost least if there are channels enough and tiles are full;
 * many lanes need less shared memory. */
static const layout *choose_layout(const scan_forward *f, const kind *k,
                                   int64_t chunks) {
    if (f->p.A.dtype_code == MBR_COMPLEX)
        return &k->complex;
    const layout *best = &k->real[LAYOUTS - 1];
    for (int i = LAYOUTS - 2; i >= 0; i--) {
        const layout *l = &k->real[i];
        if (choose_threads(f, l) / l->lanes * channel_bytes(&f->p) > SHARED_BYTES)
            break;
        if (l->lanes < ELEMENT_LANES && has_elements(f))
            continue;
        if (estimate(f, l, chunks) < estimate(f, best, chunks))
            best = l;
    }
    if (suits_serial(f, chunks) &&
        estimate(f, &k->serial, chunks) < estimate(f, best, chunks))
        best = &k->serial;
    return best;
}

/* Where channels are too few to keep the GPU busy, chunks run side by side, in two
 * passes over everything. */
static bool is_worth_two_passes(const scan_forward *f, const kind *k, int64_t chunks) {
    return chunks > 1 &&
           WORTH_TWO_PASSES * estimate(f, choose_layout(f, k, chunks), chunks) <
               estimate(f, choose_layout(f, k, 1), 1);
}

static void describe(scan_forward *f) {
    const mbr_selective_scan_fwd_params *p = &f->p;
    const bool variable_B = p->B.ndim == 4, variable_C = p->C.ndim == 4;
    f->rows[ROWS_U] = rows_of(&p->u);
    f->rows[ROWS_DELTA] = rows_of(&p->delta);
    f->rows[ROWS_Z] = rows_of(&p->z);
    if (variable_B)
        f->rows[ROWS_B] = rows_of(&p->B);
    if (variable_C)
        f->rows[ROWS_C] = rows_of(&p->C);
    f->rows[ROWS_OUT] = rows_of(&p->out);
    f->rows[ROWS_OUT_Z] = rows_of(&p->out_z);
    f->rows[ROWS_X] = rows_of(&p->x);
    f->rows[ROWS_X].time = p->x.stride[2];
    f->plain = variable_B && variable_C && is_aligned(&p->B, 4) && is_aligned(&p->C, 4);
    f->pieces_BC = f->rows[ROWS_B].how == IN_PIECES && f->rows[ROWS_C].how == IN_PIECES;
    f->groups = p->B.ndim == 4 ? p->B.shape[1] : p->C.ndim == 4 ? p->C.shape[1] : 1;
    f->width = p->u.shape[1] / f->groups;
    f->repeat = p->u.shape[1] / p->delta.shape[1];
}

static mbr_status launch_blocks(scan_forward *f, uint32_t kernel, int64_t threads,
                                int64_t shared_bytes) {
    mbr_status status = MBR_OK;
    for (f->first_block = 0; status == MBR_OK && f->first_block < f->blocks;
         f->first_block += INT32_MAX) {
        const int64_t left = f->blocks - f->first_block;
        const mbr_launch how = {
            .grid = {(uint32_t)(left < INT32_MAX ? left : INT32_MAX), 1, 1},
            .block = (uint32_t)threads,
            .shared_bytes = (uint32_t)shared_bytes};
        status = mbr__launch(&f->p.call, kernel, &how, f, sizeof *f);
    }
    return status;
}

static mbr_status launch_pass(scan_forward *f, const layout *l, uint32_t pass,
                              int64_t chunks) {
    const mbr_selective_scan_fwd_params *p = &f->p;
    const int64_t threads = choose_threads(f, l), channels = threads / l->lanes;
    f->pass = pass;
    f->chunks = chunks;
    f->tiles = (int32_t)divide_up(p->u.shape[2], l->lanes * l->steps);
    f->whole_tiles = (int32_t)(p->u.shape[2] / (l->lanes * l->steps));
    f->rest = (int32_t)(p->u.shape[2] % (l->lanes * l->steps));
    f->blocks_per_group = divide_up(f->width, channels);
    f->blocks = p->u.shape[0] * f->groups * f->blocks_per_group * f->chunks;
    return launch_blocks(f, l->kernel, threads,
                         l->states > 0 ? 0 : channels * channel_bytes(p));
}

/* Whether fwd_one.cu can do it: one state, and nothing that it knows not of. */
static bool is_one(const mbr_selective_scan_fwd_params *p) {
    return p->A.shape[1] == 1 && p->A.dtype_code != MBR_COMPLEX && p->B.ndim == 4 &&
           p->C.ndim == 4 && p->z.data == NULL && p->delta.shape[1] == p->u.shape[1] &&
           p->u.shape[1] <= INT32_MAX / p->u.shape[0] && p->u.shape[2] <= INT32_MAX &&
           is_in_order(&p->u) && is_in_order(&p->delta) && is_in_order(&p->B) &&
           is_in_order(&p->C);
}

/* Channels of a block that takes `units` at once, in as many rounds as cost least: many
 * share the beginning, and few leave no multiprocessor without work. */
static int64_t choose_channels(const scan_forward *f, int64_t units, int64_t tiles,
                               int64_t resident) {
    const int64_t groups = f->p.u.shape[0] * f->groups;
    int64_t best = 1, least = INT64_MAX;
    for (int64_t rounds = 1; rounds * units <= ONE_CHANNELS; rounds++) {
        const int64_t blocks = groups * divide_up(f->width, units * rounds);
        const int64_t cost =
            divide_up(blocks, resident) * (rounds * tiles + ONE_BEGINS);
        if (cost < least)
            best = rounds, least = cost;
    }
    return best * units;
}

/* Shared memory of a block of fwd_one.cu: 16 bytes for each channel, B and C of a
 * chunk, and for each unit u, delta and results in fp32. */
static int64_t one_bytes(const scan_forward *f, int64_t lanes, int64_t units) {
    const int64_t run = ONE_STEPS * f->p.u.dtype_bits / 8;
    const int64_t length = f->p.u.shape[2] < CHUNK ? f->p.u.shape[2] : CHUNK;
    return 16 * f->channels +
           2 * divide_up(length, lanes * ONE_STEPS) * part_bytes(lanes, run) +
           units * (2 * part_bytes(lanes, run) + part_bytes(lanes, ONE_STEPS * 4));
}

static mbr_status launch_one(scan_forward *f, const kind *k) {
    const mbr_selective_scan_fwd_params *p = &f->p;
    const bool is_long = p->u.shape[2] > 8 * ONE_STEPS;
    const int64_t lanes = is_long ? 32 : 8;
    int64_t threads = divide_up(f->width * lanes, WARP) * WARP;
    if (threads > SCAN_ONE_FORWARD_THREADS)
        threads = SCAN_ONE_FORWARD_THREADS;
    const int64_t units = threads / lanes;
    f->rows[ROWS_OUT] = rows_of_pieces(&p->out);
    f->channels = choose_channels(f, units, divide_up(p->u.shape[2], lanes * ONE_STEPS),
                                  mbr__multiprocessors(&p->call) * ONE_BLOCKS *
                                      SCAN_ONE_FORWARD_THREADS / threads);
    f->blocks_per_group = divide_up(f->width, f->channels);
    f->blocks = p->u.shape[0] * f->groups * f->blocks_per_group;
    return launch_blocks(f, k->one[is_long], threads, one_bytes(f, lanes, units));
}

static mbr_status launch_join(const scan_forward *f) {
    const mbr_tensor *x = &f->p.x;
    const int64_t blocks =
        divide_up(x->shape[0] * x->shape[1] * (x->shape[3] / 2), JOIN_THREADS);
    const mbr_launch how = {
        .grid = {(uint32_t)(blocks < JOIN_BLOCKS ? blocks : JOIN_BLOCKS), 1, 1},
        .block = JOIN_THREADS};
    return mbr__launch(&f->p.call, MBR_KERNEL_selective_scan_fwd_join, &how, f,
                       sizeof *f);
}

mbr_status mbr_impl_selective_scan_fwd(const mbr_selective_scan_fwd_params *p) {
    const kind *k = find_kind(&p->u);
    if (k == NULL)
        return MBR_E_UNSUPPORTED;
    if (p->u.shape[2] == 0)
        return MBR_OK;
    scan_forward f = {.p = *p};
    describe(&f);
    const int64_t chunks = divide_up(p->u.shape[2], CHUNK);
    if (!is_worth_two_passes(&f, k, chunks))
        return is_one(p) ? launch_one(&f, k)
                         : launch_pass(&f, choose_layout(&f, k, 1), WHOLE, 1);
    const layout *l = choose_layout(&f, k, chunks);
    mbr_status status = launch_pass(&f, l, STATES_ONLY, chunks);
    if (status == MBR_OK)
        status = launch_join(&f);
    return status == MBR_OK ? launch_pass(&f, l, FROM_STATES, chunks) : status;
}
