/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_bwd.c - the gradients of causal_conv1d on the CPU.
 *
 * Let X be x with its history in front, X[j] = x[j - W + 1], and g what dout becomes in
 * front of the gate. Then y[t] = bias + sum over k of w[k] X[t + k], and
 *
 *   dX[j]  = sum over k of w[k] g[j - k], plus dfinal_states[j - L] from j = L on
 *   dw[k]  = sum over t of g[t] X[t + k],     dbias = sum over t of g[t]
 *
 * dX is dinitial_states, then dx. So a tile goes over columns j: it makes g for the
 * times j, keeps W - 1 of them from the tile before, and gives the dx of W - 1 earlier.
 *
 * dw and dbias are sums over batch and time. They are taken in an order that depends
 * on shapes and strides only: within a tile, over the tiles of a task, and last over
 * the tasks, each of which leaves its sums in the workspace: fp32 [group][W + 1][D].
 */
#include "../../variant/variant.h"

#include "cpu_tile.h"

enum { MAX_GROUPS = 64 };

typedef struct backward {
    const mbr_causal_conv1d_bwd_params *p;
    cut cut;
    int64_t segments, items,
        groups; /* item: a segment of a batch row; group: a task's */
} backward;

/* Sums of a task: [k][channel], the bias at k = W. */
typedef float sums[MAX_WIDTH + 1][MAX_CHANNELS];

typedef struct scratch {
    _Alignas(64) float x[TILE_FLOATS];
    _Alignas(64) float g[TILE_FLOATS];
    _Alignas(64) float dx[TILE_FLOATS];
    _Alignas(64) sums total;
    taps w[MAX_CHANNELS / VW];
    int32_t ids[MAX_IDS];
} scratch;

/* One batch row, and the task's channels of it. Planes start at the first of these. */
typedef struct stream {
    const backward *f;
    v_plane x, dout, initial, dfinal, dx, dinitial;
    int64_t row, c, channels;
} stream;

/* ---- g, and the sums over it ----------------------------------------------------- */

/* One vector: dout at *g becomes g. Only the lanes in live count, if it is given. */
V_INLINE void differentiate_vector(lanes l, int width, int silu, const vf *w,
                                   const float *x, float *g, const vi *same,
                                   const vi *live, vf *sum) {
    const int64_t tap = tap_of(l);
    vf d = v_load(g, V_F32);
    if (silu) {
        vf y = add_taps(w[width], w, width, x, tap, same);
        vf sigmoid = v_sigmoid(y), one = v_set(1.0f);
        d = d * sigmoid * (one + y * (one - sigmoid));
    }
    if (live)
        d = v_keep(*live, d);
    v_store(g, V_F32, d);
    for (int j = 0; j < width; j++) {
        vf more = d * v_load(x + j * tap, V_F32);
        if (same)
            more = v_keep(same[j], more);
        sum[j] += live ? v_keep(*live, more) : more;
    }
    sum[width] += d;
}

V_INLINE void add_sums(lanes l, int width, const vf *sum, int64_t u, sums total) {
    for (int j = 0; j <= width; j++)
        if (l == TIME_LANES)
            total[j][u] += v_sum(sum[j]);
        else
            v_store(&total[j][u * VW], V_F32,
                    v_load(&total[j][u * VW], V_F32) + sum[j]);
}

/* x is at column 0, g at column W - 1, steps columns of dout are there; those up to
 * vectors become 0. */
V_INLINE void differentiate_as(const cut *k, lanes l, int width, int silu,
                               const taps *all, const float *x, float *g,
                               const int32_t *ids, int64_t units, int64_t steps,
                               int64_t vectors, sums total) {
    const int64_t whole = l == TIME_LANES ? steps / VW : steps;
    const vi live = v_first((int)(steps - whole * VW)); /* of the vector after these */
    for (int64_t u = 0; u < units; u++, x += k->unit, g += k->unit) {
        vf w[MAX_WIDTH + 1], sum[MAX_WIDTH + 1] = {{0}};
        vi same[MAX_WIDTH];
        spread_taps(w, all, l, width, u);
        int64_t i = 0;
        for (; i < whole; i++) {
            if (ids)
                match_ids(same, l, width, ids, i, width - 1);
            differentiate_vector(l, width, silu, w, x + i * VW, g + i * VW,
                                 ids ? same : NULL, NULL, sum);
        }
        if (l == TIME_LANES && steps % VW) {
            if (ids)
                match_ids(same, l, width, ids, i, width - 1);
            differentiate_vector(l, width, silu, w, x + i * VW, g + i * VW,
                                 ids ? same : NULL, &live, sum);
            i++;
        }
        memset(g + i * VW, 0, (size_t)((vectors - i) * VW) * sizeof *g);
        add_sums(l, width, sum, u, total);
    }
}

static void differentiate(const stream *s, const taps *w, const float *x, float *g,
                          const int32_t *ids, int64_t steps, int64_t vectors,
                          sums total) {
    const cut *k = &s->f->cut;
    const int64_t units = units_of(k, s->channels);
    const int silu = s->f->p->silu_activation != 0;
#define DIFFERENTIATE(l, width)                                                        \
    if (ids && silu)                                                                   \
        differentiate_as(k, l, width, 1, w, x, g, ids, units, steps, vectors, total);  \
    else if (ids)                                                                      \
        differentiate_as(k, l, width, 0, w, x, g, ids, units, steps, vectors, total);  \
    else if (silu)                                                                     \
        differentiate_as(k, l, width, 1, w, x, g, NULL, units, steps, vectors, total); \
    else                                                                               \
        differentiate_as(k, l, width, 0, w, x, g, NULL, units, steps, vectors, total)
    FOR_THIS_CUT(k, DIFFERENTIATE)
#undef DIFFERENTIATE
}

/* ---- dx -------------------------------------------------------------------------- */

/* g is at column 0, which is the time W - 1 before the tile's first. */
V_INLINE void transpose_as(const cut *k, lanes l, int width, const taps *all,
                           const float *g, const int32_t *ids, int64_t units,
                           int64_t vectors, float *dx) {
    for (int64_t u = 0; u < units; u++, g += k->unit, dx += k->unit) {
        vf w[MAX_WIDTH + 1], back[MAX_WIDTH];
        spread_taps(w, all, l, width, u);
        for (int j = 0; j < width; j++)
            back[j] = w[width - 1 - j];
        for (int64_t i = 0; i < vectors; i++) {
            vi same[MAX_WIDTH];
            if (ids)
                match_ids(same, l, width, ids, i, 0);
            vf sum = add_taps((vf){0}, back, width, g + i * VW, tap_of(l),
                              ids ? same : NULL);
            v_store(dx + i * VW, V_F32, sum);
        }
    }
}

static void transpose(const stream *s, const taps *w, const float *g,
                      const int32_t *ids, int64_t vectors, float *dx) {
    const cut *k = &s->f->cut;
    const int64_t units = units_of(k, s->channels);
#define TRANSPOSE(l, width)                                                            \
    if (ids)                                                                           \
        transpose_as(k, l, width, w, g, ids, units, vectors, dx);                      \
    else                                                                               \
        transpose_as(k, l, width, w, g, NULL, units, vectors, dx)
    FOR_THIS_CUT(k, TRANSPOSE)
#undef TRANSPOSE
}

/* dfinal_states counts for the columns from L on: W - 1 of them, once per row. */
static void add_final(const stream *s, float *dx, int64_t t, int64_t steps) {
    const cut *k = &s->f->cut;
    const int64_t L = k->seqlen;
    for (int64_t j = larger(L - t, 0); j < steps; j++)
        for (int64_t c = 0; c < s->channels; c++) {
            int64_t i = k->lanes == TIME_LANES ? c * k->unit + j
                                               : c / VW * k->unit + j * VW + c % VW;
            dx[i] += v_load_one(v_move(s->dfinal, c, t + j - L).data, s->dfinal.type);
        }
}

/* Columns t .. t + steps: what belongs before time 0, then dx. */
static void store_gradient(const stream *s, const float *dx, int64_t t, int64_t steps) {
    const cut *k = &s->f->cut;
    const int64_t kept = k->width - 1;
    const int64_t lead = smaller(larger(kept - t, 0), steps);
    if (lead > 0 && s->dinitial.data)
        store_tile(k, dx, 0, v_move(s->dinitial, 0, t), s->channels, lead);
    if (lead < steps)
        store_tile(k, dx, lead, v_move(s->dx, 0, t + lead - kept), s->channels,
                   steps - lead);
}

/* ---- one task -------------------------------------------------------------------- */

/* m->x gets the W - 1 columns before time t. */
static void begin_history(const stream *s, scratch *m, int64_t t) {
    const cut *k = &s->f->cut;
    const int64_t kept = k->width - 1;
    float *x = column_0(k, m->x);
    if (t > 0)
        load_tile(k, x, 0, v_move(s->x, 0, t - kept), s->channels, kept);
    else if (s->initial.data)
        load_tile(k, x, 0, s->initial, s->channels, kept);
    else
        clear_history(k, x, units_of(k, s->channels));
}

/* g of times t .. t + steps, in m->g from column W - 1 on; the ids of these columns. */
static const int32_t *differentiate_times(const stream *s, scratch *m, int64_t t,
                                          int64_t steps, sums total) {
    const cut *k = &s->f->cut;
    const int64_t kept = k->width - 1, given = smaller(steps, larger(k->seqlen - t, 0));
    float *x = column_0(k, m->x), *g = column_0(k, m->g) + kept * tap_of(k->lanes);
    if (given) {
        load_tile(k, x, kept, v_move(s->x, 0, t), s->channels, given);
        load_tile(k, g, 0, v_move(s->dout, 0, t), s->channels, given);
    }
    const int32_t *ids = load_ids(k, m->ids, &s->f->p->seq_idx, s->row, t, steps);
    differentiate(s, m->w, x, g, ids, given, vectors_of(k->lanes, steps), total);
    return ids;
}

/* g of the W - 1 times before t, whose sums another task has counted. */
static void begin_gradient(const stream *s, scratch *m, int64_t t) {
    const cut *k = &s->f->cut;
    const int64_t kept = k->width - 1, units = units_of(k, s->channels);
    float *g = column_0(k, m->g);
    if (t == 0) {
        clear_history(k, g, units);
        return;
    }
    _Alignas(64) sums ignored = {{0}};
    begin_history(s, m, t - kept);
    differentiate_times(s, m, t - kept, kept, ignored);
    carry_history(k, g, units, kept);
}

static void differentiate_segment(const stream *s, scratch *m, int64_t from,
                                  int64_t to) {
    const cut *k = &s->f->cut;
    const int64_t units = units_of(k, s->channels);
    float *x = column_0(k, m->x), *g = column_0(k, m->g);
    begin_gradient(s, m, from);
    begin_history(s, m, from);
    for (int64_t t = from; t < to; t += k->steps) {
        int64_t steps = smaller(k->steps, to - t);
        const int32_t *ids = differentiate_times(s, m, t, steps, m->total);
        transpose(s, m->w, g, ids, vectors_of(k->lanes, steps), m->dx);
        if (s->dfinal.data)
            add_final(s, m->dx, t, steps);
        store_gradient(s, m->dx, t, steps);
        carry_history(k, x, units, steps);
        carry_history(k, g, units, steps);
    }
}

static void store_sums(const backward *f, const stream *s, int64_t group, sums total) {
    const cut *k = &f->cut;
    float *to = (float *)f->p->workspace.data + group * (k->width + 1) * k->dim + s->c;
    for (int j = 0; j <= k->width; j++)
        memcpy(to + j * k->dim, total[j], (size_t)s->channels * sizeof(float));
}

static void backward_task(void *arg, int64_t task, int32_t worker) {
    (void)worker;
    const backward *f = arg;
    const mbr_causal_conv1d_bwd_params *p = f->p;
    const cut *k = &f->cut;
    const int64_t group = task / blocks_of(k), c = task % blocks_of(k) * k->channels;
    stream s = {.f = f, .c = c, .channels = smaller(k->channels, k->dim - c)};

    scratch m;
    memset(m.total, 0, sizeof m.total);
    load_taps(k, m.w, &p->weight, &p->bias, c, s.channels);
    const int64_t end = (group + 1) * f->items / f->groups;
    for (int64_t item = group * f->items / f->groups; item < end; item++) {
        const int64_t b = item / f->segments, from = item % f->segments * SEGMENT;
        const int64_t columns = k->seqlen + k->width - 1;
        s.row = b;
        s.x = v_move(row_of(&p->x, b), c, 0);
        s.dout = v_move(row_of(&p->dout, b), c, 0);
        s.initial = v_move(row_of(&p->initial_states, b), c, 0);
        s.dfinal = v_move(row_of(&p->dfinal_states, b), c, 0);
        s.dx = v_move(row_of(&p->dx, b), c, 0);
        s.dinitial = v_move(row_of(&p->dinitial_states, b), c, 0);
        differentiate_segment(&s, &m, from,
                              (item + 1) % f->segments ? from + SEGMENT : columns);
    }
    store_sums(f, &s, group, m.total);
}

/* ---- the sums over the tasks ----------------------------------------------------- */

/* Channels c .. c + n of one row of sums, over the groups in order, to p. */
static void reduce_vector(const backward *f, int row, int64_t c, int n, v_plane p) {
    const float *from = (const float *)f->p->workspace.data + row * f->cut.dim + c;
    vf sum = {0};
    for (int64_t g = 0; g < f->groups; g++, from += (f->cut.width + 1) * f->cut.dim)
        sum += v_load_some(from, V_F32, n);
    if (f->p->accumulate) {
        vf before;
        v_tile_load(&before, p, n, 1);
        sum += before;
    }
    v_tile_store(&sum, p, n, 1);
}

static void reduce_task(void *arg, int64_t task, int32_t worker) {
    (void)worker;
    const backward *f = arg;
    const int64_t c = task * VW;
    const int n = (int)smaller(VW, f->cut.dim - c);
    const mbr_tensor *dbias = &f->p->dbias;
    for (int k = 0; k < f->cut.width; k++)
        reduce_vector(f, k, c, n, v_move(v_plane_of(&f->p->dweight, 0, 1), c, k));
    if (dbias->data)
        reduce_vector(f, f->cut.width, c, n, v_move(v_plane_of(dbias, 0, 0), c, 0));
}

/* ---- entry ----------------------------------------------------------------------- */

static backward plan_backward(const mbr_causal_conv1d_bwd_params *p) {
    const int width = (int)p->weight.shape[1];
    const int64_t seqlen = p->x.shape[2];
    backward f = {.p = p, .cut = cut_planes(&p->x, width, seqlen + width - 1)};
    f.segments = quotient_up(seqlen, SEGMENT);
    f.items = p->x.shape[0] * f.segments;
    f.groups = smaller(f.items, MAX_GROUPS);
    return f;
}

size_t mbr_impl_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    const backward f = plan_backward(p);
    return (size_t)(f.groups * (f.cut.width + 1) * f.cut.dim) * sizeof(float);
}

mbr_status mbr_impl_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    backward f = plan_backward(p);
    const int64_t elements = f.items * f.cut.dim * smaller(f.cut.seqlen, SEGMENT);
    const int64_t tasks = f.groups * blocks_of(&f.cut);
    mbr__parallel(workers_for(&p->call, tasks, elements), tasks, backward_task, &f);
    const int64_t rows = quotient_up(f.cut.dim, VW);
    mbr__parallel(workers_for(&p->call, rows, f.groups * f.cut.dim), rows, reduce_task,
                  &f);
    return MBR_OK;
}
