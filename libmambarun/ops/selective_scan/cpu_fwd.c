/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_fwd.c - forward selective scan on the CPU. A task is a slice of the channels of
 * one group of one batch entry; it walks through time tile by tile, builds the tile's B
 * and C once and advances all its channel blocks over it. All scratch is on the stack.
 */
#include "../../variant/pool.h"
#include "../../variant/variant.h"
#include "cpu_scan.h"

enum {
    VECTORS = 512,    /* of A (and of h, ...) that a task keeps: values of all blocks */
    SLICE_BLOCKS = 8, /* blocks per task at most: enough to make B and C cheap */
    PAIR_STATES = 16  /* states per write to x */
};

typedef struct forward {
    scan s;
    const mbr_selective_scan_fwd_params *p;
    advance_fn *kernel;
    int64_t slices; /* per group */
    int slice;      /* blocks per slice */
} forward;

/* What a task carries through time. */
typedef struct slice {
    const forward *f;
    int64_t b, g;
    int blocks;
    block at[SLICE_BLOCKS];
    vf D[SLICE_BLOCKS], bias[SLICE_BLOCKS];
    vf sum[SLICE_BLOCKS];  /* of delta, since the last entry of x */
    vf lost[SLICE_BLOCKS]; /* by rounding it: 16-bit steps beside one bias have the same
                              last digits, so that each addition rounds the same way */
    vf A[VECTORS];         /* with log2(e) */
    vf K[VECTORS];         /* see struct advance */
    vf h[VECTORS];
    vf product[VECTORS]; /* of all decays up to the last entry of x */
    float B[COEFFICIENTS], C[COEFFICIENTS];
} slice;

V_CALL void advance_BC(const advance *a, int count) {
    advance_count(a, count, 1, 1, 1);
}

V_CALL void advance_B(const advance *a, int count) {
    advance_count(a, count, 1, 0, 1);
}

V_CALL void advance_C(const advance *a, int count) {
    advance_count(a, count, 0, 1, 1);
}

V_CALL void advance_constant(const advance *a, int count) {
    advance_count(a, count, 0, 0, 1);
}

V_CALL void advance_complex_BC(const advance *a, int count) {
    advance_complex(a, count, 1, 1, 1);
}

V_CALL void advance_complex_B(const advance *a, int count) {
    advance_complex(a, count, 1, 0, 1);
}

V_CALL void advance_complex_C(const advance *a, int count) {
    advance_complex(a, count, 0, 1, 1);
}

V_CALL void advance_complex_constant(const advance *a, int count) {
    advance_complex(a, count, 0, 0, 1);
}

/* [complex A][B varies][C varies] */
static advance_fn *const kernels[2][2][2] = {
    {{advance_constant, advance_C}, {advance_B, advance_BC}},
    {{advance_complex_constant, advance_complex_C},
     {advance_complex_B, advance_complex_BC}},
};

static void start_block(slice *w, int i) {
    const scan *s = &w->f->s;
    const int first = i * s->values;
    w->D[i] = load_channels(s->D, w->at[i], 1);
    w->bias[i] = load_channels(s->delta_bias, w->at[i], s->repeat);
    w->sum[i] = w->lost[i] = v_set(0);
    load_rates(s, w->at[i], w->A + first);
    load_factors(s, w->at[i], w->K + first);
    for (int v = 0; v < s->values; v++) {
        w->h[first + v] = v_set(0);
        w->product[first + v] = v_set(v % s->parts == 0);
    }
}

/* Multiplies the decays since the last entry of x into the products: the exponent of a
 * product is a sum, so one exp2 per chunk does. */
static void extend_products(const scan *s, vf sum, const vf *A, vf *product) {
    for (int v = 0; v < s->values; v += s->parts) {
        if (s->parts == 1) {
            product[v] *= v_exp2(sum * A[v]);
            continue;
        }
        vf re, im, old = product[v];
        decay_complex(sum, A + v, &re, &im);
        product[v] = old * re - product[v + 1] * im;
        product[v + 1] = old * im + product[v + 1] * re;
    }
}

/* Entry `chunk` of x: pairs (product, state). */
static void write_states(slice *w, int i, int64_t chunk) {
    const scan *s = &w->f->s;
    const vf *h = w->h + i * s->values, *product = w->product + i * s->values;
    v_plane x = chunk_at(s, &w->f->p->x, w->b, w->at[i].d, chunk);
    const vf lost = v_keep(w->lost[i] == w->lost[i], w->lost[i]); /* inf - inf: none */
    extend_products(s, w->sum[i] + lost, w->A + i * s->values,
                    w->product + i * s->values);
    w->sum[i] = v_set(0);
    w->lost[i] = v_set(0);
    for (int n = 0; n < s->states; n += PAIR_STATES) {
        const int count = (int)least(PAIR_STATES, s->states - n) * s->parts;
        vf pairs[PAIR_STATES * 4];
        for (int v = 0; v < count; v++) {
            const int at = 2 * v - v % s->parts, from = n * s->parts + v;
            pairs[at] = product[from];
            pairs[at + s->parts] = h[from];
        }
        v_tile_store(pairs, v_move(x, 0, 2 * n * s->parts), w->at[i].lanes, 2 * count);
    }
}

/* One block over one tile. */
static void advance_block(slice *w, int i, int64_t time, int steps) {
    const forward *f = w->f;
    const scan *s = &f->s;
    const block k = w->at[i];
    vf dt[TILE], du[TILE], y[TILE];
    v_tile_load(y, rows_at(s->u, w->b, k.d, time), k.lanes, steps);
    load_delta(s, w->b, k, time, steps, w->bias[i], dt);
    vf sum = w->sum[i], lost = w->lost[i];
    for (int t = 0; t < steps; t++) {
        const vf next = sum + dt[t];
        lost += dt[t] - (next - sum);
        sum = next;
        du[t] = dt[t] * y[t];
        y[t] *= w->D[i];
    }
    w->sum[i] = sum;
    w->lost[i] = lost;
    const int first = i * s->values;
    advance_all(s, f->kernel,
                &(advance){.dt = dt,
                           .du = du,
                           .y = y,
                           .B = w->B,
                           .C = w->C,
                           .A = w->A + first,
                           .K = w->K + first,
                           .h = w->h + first,
                           .pitch = s->parts * VW,
                           .steps = steps});
    if (f->p->z.data) /* out_z may be z's own memory: read before writing */
        v_tile_load(du, rows_at(&f->p->z, w->b, k.d, time), k.lanes, steps);
    v_tile_store(y, rows_at(&f->p->out, w->b, k.d, time), k.lanes, steps);
    if (!f->p->z.data)
        return;
    for (int t = 0; t < steps; t++)
        y[t] *= v_silu(du[t]);
    v_tile_store(y, rows_at(&f->p->out_z, w->b, k.d, time), k.lanes, steps);
}

static void run_slice(slice *w) {
    const scan *s = &w->f->s;
    for (int i = 0; i < w->blocks; i++)
        start_block(w, i);
    for (int64_t time = 0; time < s->length; time += s->tile) {
        const int steps = (int)least(s->tile, s->length - time);
        const int64_t end = time + steps;
        if (s->variable_B)
            load_coefficients(s, s->B, w->b, w->g, time, steps, w->B);
        if (s->variable_C)
            load_coefficients(s, s->C, w->b, w->g, time, steps, w->C);
        for (int i = 0; i < w->blocks; i++) {
            advance_block(w, i, time, steps);
            if (end % CHUNK == 0 || end == s->length)
                write_states(w, i, time / CHUNK);
        }
    }
}

static void forward_task(void *arg, int64_t task, int32_t worker) {
    const forward *f = arg;
    const uint32_t mode = v_flush_begin();
    slice w;
    (void)worker;
    w.f = f;
    w.b = task / f->slices / f->s.groups;
    w.g = task / f->slices % f->s.groups;
    const int64_t first = task % f->slices * f->slice;
    w.blocks = (int)least(f->slice, f->s.blocks - first);
    for (int i = 0; i < w.blocks; i++)
        w.at[i] = block_at(&f->s, w.g, first + i);
    run_slice(&w);
    v_flush_end(mode);
}

/* Blocks per slice: as many as fit, but slices for every worker. */
static int slice_blocks(const scan *s, int32_t threads) {
    const int64_t rows = s->batch * s->groups;
    const int64_t wanted = 4 * mbr__workers(threads, INT32_MAX);
    int64_t most = least(SLICE_BLOCKS, VECTORS / s->values);
    while (most > 1 && rows * ((s->blocks + most - 1) / most) < wanted)
        most--;
    return (int)most;
}

mbr_status mbr_impl_selective_scan_fwd(const mbr_selective_scan_fwd_params *p) {
    forward f = {.p = p};
    f.s = scan_of(&p->u, &p->delta, &p->A, &p->B, &p->C, &p->D, &p->delta_bias,
                  p->delta_softplus);
    f.kernel = kernels[f.s.parts - 1][f.s.variable_B][f.s.variable_C];
    f.slice = slice_blocks(&f.s, p->call.threads);
    f.slices = (f.s.blocks + f.slice - 1) / f.slice;
    const int64_t tasks = f.s.batch * f.s.groups * f.slices;
    mbr__parallel(mbr__workers(p->call.threads, tasks), tasks, forward_task, &f);
    return MBR_OK;
}
