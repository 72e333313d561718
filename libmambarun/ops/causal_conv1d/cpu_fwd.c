/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_fwd.c - causal_conv1d on the CPU: forward, and the update of a state, which is a
 * forward whose history is the state. Backward: cpu_bwd.c.
 *
 *   y[t] = bias + w[0] x[t - W + 1] + ... + w[W-1] x[t],  out = y or y / (1 + exp(-y))
 *
 * A task is one block of channels of one batch row and one segment of time; it goes
 * over its tiles in the order of time, so that out may lie over x.
 */
#include "../../variant/variant.h"

#include "cpu_tile.h"

/* What a task reads and writes. Planes start at the task's first channel. */
typedef struct stream {
    const cut *cut;
    const mbr_tensor *seq_idx;
    v_plane x, out;
    int64_t row, channels;
    int silu;
} stream;

typedef struct scratch {
    _Alignas(64) float x[TILE_FLOATS];
    _Alignas(64) float y[TILE_FLOATS];
    taps w[MAX_CHANNELS / VW];
    int32_t ids[MAX_IDS];
} scratch;

/* ---- the convolution ------------------------------------------------------------- */

V_INLINE void convolve_as(const cut *k, lanes l, int width, int silu, const taps *all,
                          const float *x, const int32_t *ids, int64_t units,
                          int64_t vectors, float *y) {
    for (int64_t u = 0; u < units; u++, x += k->unit, y += k->unit) {
        vf w[MAX_WIDTH + 1];
        spread_taps(w, all, l, width, u);
        for (int64_t i = 0; i < vectors; i++) {
            vi same[MAX_WIDTH];
            if (ids)
                match_ids(same, l, width, ids, i, width - 1);
            vf sum =
                add_taps(w[width], w, width, x + i * VW, tap_of(l), ids ? same : NULL);
            if (silu)
                sum = v_silu(sum);
            if (ids) /* padding gives 0, without bias and gate */
                sum = v_keep(ids_at(l, ids, i, width - 1) >= 0, sum);
            v_store(y + i * VW, V_F32, sum);
        }
    }
}

/* y <- the outputs of steps columns; x is at column 0, ids as load_ids gave them. */
static void convolve(const stream *s, const taps *w, const float *x, const int32_t *ids,
                     int64_t steps, float *y) {
    const cut *k = s->cut;
    const int64_t units = units_of(k, s->channels), n = vectors_of(k->lanes, steps);
#define CONVOLVE(l, width)                                                             \
    if (ids && s->silu)                                                                \
        convolve_as(k, l, width, 1, w, x, ids, units, n, y);                           \
    else if (ids)                                                                      \
        convolve_as(k, l, width, 0, w, x, ids, units, n, y);                           \
    else if (s->silu)                                                                  \
        convolve_as(k, l, width, 1, w, x, NULL, units, n, y);                          \
    else                                                                               \
        convolve_as(k, l, width, 0, w, x, NULL, units, n, y)
    FOR_THIS_CUT(k, CONVOLVE)
#undef CONVOLVE
}

/* Times from .. to, tile after tile. The history of time from is in m->x already. */
static void convolve_times(const stream *s, scratch *m, int64_t from, int64_t to) {
    const cut *k = s->cut;
    float *x = column_0(k, m->x);
    for (int64_t t = from; t < to; t += k->steps) {
        int64_t steps = smaller(k->steps, to - t);
        load_tile(k, x, k->width - 1, v_move(s->x, 0, t), s->channels, steps);
        const int32_t *ids = load_ids(k, m->ids, s->seq_idx, s->row, t, steps);
        convolve(s, m->w, x, ids, steps, m->y);
        store_tile(k, m->y, 0, v_move(s->out, 0, t), s->channels, steps);
        carry_history(k, x, units_of(k, s->channels), steps);
    }
}

/* ---- copies that keep every bit -------------------------------------------------- */

/* Channels of one column; an absent source is zeros. */
static void copy_column(v_plane to, v_plane from, int64_t channels) {
    const int size = v_bytes(to.type);
    for (int64_t c = 0; c < channels; c++, to.data += to.lane, from.data += from.lane)
        if (!from.data)
            memset(to.data, 0, (size_t)size);
        else if (size == 4)
            memcpy(to.data, from.data, 4);
        else
            memcpy(to.data, from.data, 2);
}

/* final <- the last W - 1 of (initial, x). In rising order, so that final may be the
 * memory of initial. */
static void copy_final_states(const stream *s, v_plane initial, v_plane final) {
    const int64_t kept = s->cut->width - 1, seqlen = s->cut->seqlen;
    for (int64_t j = 0; j < kept; j++) {
        v_plane from = seqlen + j >= kept ? v_move(s->x, 0, seqlen + j - kept)
                                          : v_move(initial, 0, seqlen + j);
        copy_column(v_move(final, 0, j), from, s->channels);
    }
}

/* ---- forward --------------------------------------------------------------------- */

typedef struct forward {
    const mbr_causal_conv1d_fwd_params *p;
    cut cut;
    int64_t segments;
} forward;

/* m->x's history for a segment that begins at time from. */
static void begin_segment(const stream *s, scratch *m, v_plane initial, int64_t from) {
    const int64_t kept = s->cut->width - 1;
    float *x = column_0(s->cut, m->x);
    if (from > 0)
        load_tile(s->cut, x, 0, v_move(s->x, 0, from - kept), s->channels, kept);
    else if (initial.data)
        load_tile(s->cut, x, 0, initial, s->channels, kept);
    else
        clear_history(s->cut, x, units_of(s->cut, s->channels));
}

static void forward_task(void *arg, int64_t task, int32_t worker) {
    (void)worker;
    const forward *f = arg;
    const mbr_causal_conv1d_fwd_params *p = f->p;
    const cut *k = &f->cut;
    const int64_t segment = task % f->segments;
    const int64_t c = task / f->segments % blocks_of(k) * k->channels;
    const int64_t b = task / f->segments / blocks_of(k);
    const stream s = {.cut = k,
                      .seq_idx = &p->seq_idx,
                      .x = v_move(row_of(&p->x, b), c, 0),
                      .out = v_move(row_of(&p->out, b), c, 0),
                      .row = b,
                      .channels = smaller(k->channels, k->dim - c),
                      .silu = p->silu_activation != 0};
    const v_plane initial = v_move(row_of(&p->initial_states, b), c, 0);
    const v_plane final = v_move(row_of(&p->final_states_out, b), c, 0);
    const int64_t last = f->segments - 1;

    scratch m;
    load_taps(k, m.w, &p->weight, &p->bias, c, s.channels);
    begin_segment(&s, &m, initial, segment * SEGMENT);
    if (final.data && segment == 0) /* before out lies over x */
        copy_final_states(&s, initial, final);
    convolve_times(&s, &m, segment * SEGMENT,
                   segment == last ? k->seqlen : (segment + 1) * SEGMENT);
}

mbr_status mbr_impl_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p) {
    const int64_t batch = p->x.shape[0], dim = p->x.shape[1], seqlen = p->x.shape[2];
    forward f = {.p = p, .cut = cut_planes(&p->x, (int)p->weight.shape[1], seqlen)};
    /* A segment needs the end of the one before: not if out has been written there. */
    f.segments = p->out.data == p->x.data ? 1 : quotient_up(seqlen, SEGMENT);
    const int64_t tasks = batch * blocks_of(&f.cut) * f.segments;
    mbr__parallel(workers_for(&p->call, tasks, batch * dim * seqlen), tasks,
                  forward_task, &f);
    return MBR_OK;
}

/* ---- update ---------------------------------------------------------------------- */

typedef struct update {
    const mbr_causal_conv1d_update_params *p;
    cut cut;
} update;

V_INLINE int32_t int_at(const mbr_tensor *t, int64_t i) {
    return ((const int32_t *)t->data)[i * t->stride[0]];
}

/* m->x's history: the W - 1 columns before column end, perhaps around the ring. */
static void begin_update(const stream *s, scratch *m, v_plane state, int64_t length,
                         int64_t end) {
    const int64_t kept = s->cut->width - 1, wrapped = larger(kept - end, 0);
    float *x = column_0(s->cut, m->x);
    if (wrapped)
        load_tile(s->cut, x, 0, v_move(state, 0, length - wrapped), s->channels,
                  wrapped);
    if (wrapped < kept)
        load_tile(s->cut, x, wrapped, v_move(state, 0, end - kept + wrapped),
                  s->channels, kept - wrapped);
}

/* state <- the last columns of (state, x). */
static void shift_state(const stream *s, v_plane state, int64_t length) {
    const int64_t seqlen = s->cut->seqlen;
    for (int64_t j = 0; j < length; j++) {
        v_plane from = j + seqlen < length ? v_move(state, 0, j + seqlen)
                                           : v_move(s->x, 0, j + seqlen - length);
        copy_column(v_move(state, 0, j), from, s->channels);
    }
}

/* x[t] -> column (start + t) % length; where it goes around, the last one stays. */
static void write_ring(const stream *s, v_plane state, int64_t length, int64_t start) {
    const int64_t seqlen = s->cut->seqlen;
    for (int64_t t = larger(seqlen - length, 0); t < seqlen; t++)
        copy_column(v_move(state, 0, (start + t) % length), v_move(s->x, 0, t),
                    s->channels);
}

static void write_zeros(const stream *s) {
    for (int64_t t = 0; t < s->cut->seqlen; t++)
        copy_column(v_move(s->out, 0, t), (v_plane){0}, s->channels);
}

static void update_task(void *arg, int64_t task, int32_t worker) {
    (void)worker;
    const update *f = arg;
    const mbr_causal_conv1d_update_params *p = f->p;
    const cut *k = &f->cut;
    const int64_t c = task % blocks_of(k) * k->channels, b = task / blocks_of(k);
    const stream s = {.cut = k,
                      .seq_idx = &(mbr_tensor){0},
                      .x = v_move(row_of(&p->x, b), c, 0),
                      .out = v_move(row_of(&p->out, b), c, 0),
                      .row = b,
                      .channels = smaller(k->channels, k->dim - c),
                      .silu = p->silu_activation != 0};
    const int64_t row =
        p->conv_state_indices.data ? int_at(&p->conv_state_indices, b) : b;
    if (row < 0) {
        write_zeros(&s);
        return;
    }
    const v_plane state = v_move(row_of(&p->conv_state, row), c, 0);
    const int64_t length = p->conv_state.shape[2];

    scratch m;
    load_taps(k, m.w, &p->weight, &p->bias, c, s.channels);
    if (p->cache_seqlens.data) {
        const int64_t start = int_at(&p->cache_seqlens, b) % length;
        begin_update(&s, &m, state, length, start);
        write_ring(&s, state, length, start);
    } else {
        begin_update(&s, &m, state, length, length);
        shift_state(&s, state, length);
    }
    convolve_times(&s, &m, 0, k->seqlen); /* last: out may lie over x */
}

mbr_status mbr_impl_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    const int64_t batch = p->x.shape[0], dim = p->x.shape[1], seqlen = p->x.shape[2];
    update f = {.p = p, .cut = cut_planes(&p->x, (int)p->weight.shape[1], seqlen)};
    const int64_t tasks = batch * blocks_of(&f.cut);
    mbr__parallel(workers_for(&p->call, tasks, batch * dim * seqlen), tasks,
                  update_task, &f);
    return MBR_OK;
}
