/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_bwd.c - backward selective scan on the CPU, in two phases. First every task takes
 * a slice of the channels of one group of one batch entry backwards through time: per
 * chunk, a sweep forwards from the state in x leaves the state before every SUB steps;
 * then SUB steps at a time the states are recomputed and the gradients run back. What
 * is summed over channels or batch goes to partial sums in the workspace. The second
 * phase adds these and writes dA, dB, dC and their like.
 *
 * Slices and every order of addition follow from the shapes alone, so that equal
 * arguments give equal bits on any number of threads.
 */
#include "../../variant/pool.h"
#include "../../variant/variant.h"
#include "cpu_scan.h"

enum {
    SUB = 8, /* steps whose states are recomputed at a time, in registers */
    PANEL_BLOCKS =
        4, /* channel blocks whose dB, dC are added up before their lanes are */
    ENOUGH_TASKS = 64 /* no more slices than make so many tasks */
};

typedef struct backward backward;

/* Scratch and state of one channel block of a panel. */
typedef struct column {
    block at;
    vf D, bias, dD, dbias;
    vf *dt, *u; /* [step of the chunk] */
    vf *before; /* [sub][value]: the state before each SUB steps */
    vf *dout, *sum,
        *slope;           /* [step of the tile]; dout gated; du = dt sum, see reverse */
    vf *A, *rate, *K, *h; /* [value] */
    vf *g;                /* [value]: conj(a) dh of the step after */
    vf *dA, *dB, *dC;     /* [value]; dB, dC of constant B, C */
} column;

typedef struct panel {
    const backward *f;
    int64_t b, g;
    int blocks;
    int adds; /* whether the partial dB, dC hold an earlier panel's */
    float *dB, *dC;
    column at[PANEL_BLOCKS];
    vf sums_B[SUB * VW * 2],
        sums_C[SUB * VW * 2]; /* [(state, part)][step], all lanes */
    float B[COEFFICIENTS], C[COEFFICIENTS];
} panel;

/* Some states of a block over at most SUB steps. */
typedef struct reverse {
    const vf *dt, *u, *dout;
    const float *B, *C; /* see struct advance, as K, rate and pitch */
    const vf *A, *rate, *K, *h;
    vf *g, *dA, *dB, *dC;
    vf *sum, *slope; /* add: sum of dh B, and of dh carry A */
    vf *sums_B, *sums_C;
    int64_t pitch;
    int steps;
} reverse;

typedef void reverse_fn(const reverse *r, int count);

struct backward {
    scan s;
    const mbr_selective_scan_bwd_params *p;
    advance_fn *advance;
    reverse_fn *reverse;
    int panel;             /* blocks in a panel */
    int64_t slices, slice; /* per group; panels in each */
    int64_t padded;        /* length in whole vectors */
    int64_t span;          /* steps of a chunk that occur, in whole SUBs */
    int64_t tasks;
    float *dB, *dC; /* [slice][b][group][value][padded]: partial sums; if variable */
    vf *sums;       /* [b][block of all][SUMS]: see sums_at */
    float *rows;    /* [b][row and block][padded]: grouped ddelta, see row_at */
    char *scratch;  /* of worker 0 */
    size_t scratch_bytes;
};

/* ---- kernels -------------------------------------------------------------------- */

/* dh_t = dout_t K_t + a_{t+1} dh_{t+1}; carry_t = a_t h_{t-1} = h_t - dt_t u_t B_t. */
/* The steps of one SUB, all of its registers known to the compiler; steps is SUB, a
 * constant, but for the last few of a sequence. */
#define EACH_STEP(t) V_UNROLL for (int t = 0; t < SUB; t++) if (t < steps)
#define EACH_STEP_BACK(t) V_UNROLL for (int t = SUB - 1; t >= 0; t--) if (t < steps)

V_INLINE void reverse_real(const reverse *args, int count, const int steps,
                           int variable_B, int variable_C) {
    const reverse r = *args; /* a copy cannot be changed by what is stored below */
    vf du[SUB] = {{0}}, sum[SUB] = {{0}}, slope[SUB] = {{0}};
    EACH_STEP(t) {
        du[t] = r.dt[t] * r.u[t];
        sum[t] = r.sum[t];
        slope[t] = r.slope[t];
    }
    for (int i = 0; i < count; i++) {
        const vf rate = r.rate[i], A = r.A[i];
        const vf K = variable_B && variable_C ? rate : r.K[i];
        vf a[SUB] = {{0}}, carry[SUB] = {{0}}, h = r.h[i], g = r.g[i], dA = r.dA[i];
        vf sum_B = {0}, sum_C = {0};
        EACH_STEP(t) {
            a[t] = v_exp2(r.dt[t] * rate);
            carry[t] = a[t] * h;
            h = carry[t] + du[t] * (variable_B ? r.B[t * r.pitch + i] : 1);
        }
        EACH_STEP_BACK(t) {
            const float B = variable_B ? r.B[t * r.pitch + i] : 1;
            const float C = variable_C ? r.C[t * r.pitch + i] : 1;
            vf dh = r.dout[t] * C;
            dh = variable_B && variable_C ? dh + g : dh * K + g;
            const vf dK = r.dout[t] * (carry[t] + du[t] * B);
            if (variable_C && variable_B)
                r.sums_C[i * SUB + t] += dK;
            else if (variable_C)
                r.sums_C[i * SUB + t] += dK * K;
            else
                sum_C += dK;
            if (variable_B)
                r.sums_B[i * SUB + t] += dh * du[t];
            else if (variable_C)
                sum_B += dK * C;
            const vf q = dh * carry[t];
            sum[t] += dh * B;
            slope[t] += q * A;
            dA += q * r.dt[t];
            g = a[t] * dh;
        }
        r.g[i] = g;
        r.dA[i] = dA;
        if (!variable_B)
            r.dB[i] += sum_B;
        if (!variable_C)
            r.dC[i] += sum_C;
    }
    EACH_STEP(t) {
        r.sum[t] = sum[t];
        r.slope[t] = slope[t];
    }
}

/* Gradients of complex numbers are PyTorch's: d/d re + i d/d im. y = 2 Re(sum h K), so
 * dh_t = 2 dout_t conj(K_t) + conj(a_{t+1}) dh_{t+1} and dK_t = 2 dout_t conj(h_t). */
V_INLINE void reverse_complex(const reverse *args, int count, int steps, int variable_B,
                              int variable_C) {
    const reverse r = *args;
    for (int i = 0; i < count; i++) {
        const int re = 2 * i, im = 2 * i + 1;
        vf a_re[SUB], a_im[SUB], c_re[SUB], c_im[SUB]; /* c: carry */
        vf h_re = r.h[re], h_im = r.h[im], g_re = r.g[re], g_im = r.g[im];
        for (int t = 0; t < steps; t++) {
            const float *B = r.B + t * r.pitch + i;
            const vf du = r.dt[t] * r.u[t];
            decay_complex(r.dt[t], r.rate + re, &a_re[t], &a_im[t]);
            c_re[t] = a_re[t] * h_re - a_im[t] * h_im;
            c_im[t] = a_re[t] * h_im + a_im[t] * h_re;
            h_re = c_re[t] + du * (variable_B ? B[0] : 1);
            h_im = c_im[t] + du * (variable_B ? B[VW] : 0);
        }
        for (int t = steps - 1; t >= 0; t--) {
            const float *B = r.B + t * r.pitch + i, *C = r.C + t * r.pitch + i;
            const float B_re = variable_B ? B[0] : 1, B_im = variable_B ? B[VW] : 0;
            const float C_re = variable_C ? C[0] : 1, C_im = variable_C ? C[VW] : 0;
            const vf du = r.dt[t] * r.u[t], dy = r.dout[t] + r.dout[t];
            vf K_re = v_set(C_re), K_im = v_set(C_im);
            if (!variable_B || !variable_C) {
                K_re = r.K[re] * C_re - r.K[im] * C_im;
                K_im = r.K[re] * C_im + r.K[im] * C_re;
            }
            const vf dh_re = g_re + dy * K_re, dh_im = g_im - dy * K_im;
            const vf dK_re = dy * (c_re[t] + du * B_re);
            const vf dK_im = -(dy * (c_im[t] + du * B_im));
            if (variable_C && variable_B) {
                r.sums_C[re * SUB + t] += dK_re;
                r.sums_C[im * SUB + t] += dK_im;
            } else if (variable_C) {
                r.sums_C[re * SUB + t] += dK_re * r.K[re] + dK_im * r.K[im];
                r.sums_C[im * SUB + t] += dK_im * r.K[re] - dK_re * r.K[im];
            } else {
                r.dC[re] += dK_re;
                r.dC[im] += dK_im;
            }
            if (variable_B) {
                r.sums_B[re * SUB + t] += dh_re * du;
                r.sums_B[im * SUB + t] += dh_im * du;
            } else if (variable_C) {
                r.dB[re] += dK_re * C_re + dK_im * C_im;
                r.dB[im] += dK_im * C_re - dK_re * C_im;
            }
            const vf q_re = dh_re * c_re[t] + dh_im * c_im[t];
            const vf q_im = dh_im * c_re[t] - dh_re * c_im[t];
            r.sum[t] += dh_re * B_re + dh_im * B_im;
            r.slope[t] += q_re * r.A[re] + q_im * r.A[im];
            r.dA[re] += q_re * r.dt[t];
            r.dA[im] += q_im * r.dt[t];
            g_re = a_re[t] * dh_re + a_im[t] * dh_im;
            g_im = a_re[t] * dh_im - a_im[t] * dh_re;
        }
        r.g[re] = g_re;
        r.g[im] = g_im;
    }
}

V_INLINE void reverse_steps(const reverse *r, int count, int variable_B,
                            int variable_C) {
    if (r->steps == SUB)
        reverse_real(r, count, SUB, variable_B, variable_C);
    else
        reverse_real(r, count, r->steps, variable_B, variable_C);
}

V_CALL void reverse_BC(const reverse *r, int count) {
    reverse_steps(r, count, 1, 1);
}

V_CALL void reverse_B(const reverse *r, int count) {
    reverse_steps(r, count, 1, 0);
}

V_CALL void reverse_C(const reverse *r, int count) {
    reverse_steps(r, count, 0, 1);
}

V_CALL void reverse_constant(const reverse *r, int count) {
    reverse_steps(r, count, 0, 0);
}

V_CALL void reverse_complex_BC(const reverse *r, int count) {
    reverse_complex(r, count, r->steps, 1, 1);
}

V_CALL void reverse_complex_B(const reverse *r, int count) {
    reverse_complex(r, count, r->steps, 1, 0);
}

V_CALL void reverse_complex_C(const reverse *r, int count) {
    reverse_complex(r, count, r->steps, 0, 1);
}

V_CALL void reverse_complex_constant(const reverse *r, int count) {
    reverse_complex(r, count, r->steps, 0, 0);
}

V_CALL void sweep_B(const advance *a, int count) {
    advance_count(a, count, 1, 0, 0);
}

V_CALL void sweep_constant(const advance *a, int count) {
    advance_count(a, count, 0, 0, 0);
}

V_CALL void sweep_complex_B(const advance *a, int count) {
    advance_complex(a, count, 1, 0, 0);
}

V_CALL void sweep_complex_constant(const advance *a, int count) {
    advance_complex(a, count, 0, 0, 0);
}

/* [complex A][B varies][C varies] */
static reverse_fn *const reverses[2][2][2] = {
    {{reverse_constant, reverse_C}, {reverse_B, reverse_BC}},
    {{reverse_complex_constant, reverse_complex_C},
     {reverse_complex_B, reverse_complex_BC}},
};

/* [complex A][B varies] */
static advance_fn *const sweeps[2][2] = {
    {sweep_constant, sweep_B},
    {sweep_complex_constant, sweep_complex_B},
};

/* ---- the workspace -------------------------------------------------------------- */

/* Takes bytes off a region that begins at base (NULL: only counts), on whole lines. */
static void *take(char *base, size_t *used, int64_t bytes) {
    void *here = base ? base + *used : NULL;
    *used += ((size_t)bytes + 63) / 64 * 64;
    return here;
}

static vf *take_vectors(char *base, size_t *used, int64_t count) {
    return take(base, used, count * (int64_t)sizeof(vf));
}

static void lay_column(const backward *f, char *base, size_t *used, column *c) {
    const int64_t values = f->s.values;
    c->dt = take_vectors(base, used, f->span);
    c->u = take_vectors(base, used, f->span);
    c->before = take_vectors(base, used, f->span / SUB * values);
    vf **const tiles[] = {&c->dout, &c->sum, &c->slope};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++)
        *tiles[i] = take_vectors(base, used, TILE);
    vf **const states[] = {&c->A, &c->rate, &c->K,  &c->h,
                           &c->g, &c->dA,   &c->dB, &c->dC};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        *states[i] = take_vectors(base, used, values);
}

/* A worker's scratch: one panel. */
static size_t lay_panel(const backward *f, char *base, panel *w) {
    size_t used = 0;
    for (int i = 0; i < f->panel; i++)
        lay_column(f, base, &used, &w->at[i]);
    return used;
}

enum { SUM_dD, SUM_dbias, SUM_STATES }; /* then dA, dB, dC: values each */

static int64_t sums_per_block(const scan *s) {
    return SUM_STATES + 3 * s->values;
}

static vf *sums_at(const backward *f, int64_t b, int64_t block_of_all) {
    const int64_t blocks = f->s.groups * f->s.blocks;
    return f->sums + (b * blocks + block_of_all) * sums_per_block(&f->s);
}

/* A row of grouped delta may touch several blocks and a block several rows. Their
 * meetings, in order of channels, are numbered by the sum of both numbers: it grows
 * from each to the next. */
static int64_t meetings(const scan *s) {
    return s->groups * s->blocks + s->delta->shape[1];
}

static float *row_at(const backward *f, int64_t b, int64_t block_of_all, int64_t row) {
    return f->rows + (b * meetings(&f->s) + block_of_all + row) * f->padded;
}

static int64_t partial_floats(const backward *f) {
    const scan *s = &f->s;
    return f->slices * s->batch * s->groups * s->values * f->padded;
}

static float *partial_at(const backward *f, float *base, int64_t slice, int64_t b,
                         int64_t g) {
    const scan *s = &f->s;
    return base + ((slice * s->batch + b) * s->groups + g) * s->values * f->padded;
}

/* Everything but the workers' scratch, which begins where this ends. */
static size_t lay_shared(backward *f, char *base) {
    const scan *s = &f->s;
    size_t used = 0;
    if (s->variable_B)
        f->dB = take(base, &used, partial_floats(f) * 4);
    if (s->variable_C)
        f->dC = take(base, &used, partial_floats(f) * 4);
    f->sums =
        take_vectors(base, &used, s->batch * s->groups * s->blocks * sums_per_block(s));
    if (s->repeat > 1)
        f->rows = take(base, &used, s->batch * meetings(s) * f->padded * 4);
    f->scratch = take(base, &used, 0);
    return used;
}

/* Slices per group: enough to keep threads busy, but the partial dB and dC stay below
 * 16 MB and a quarter of u. */
static void choose_slices(backward *f) {
    const scan *s = &f->s;
    const int64_t panels = (s->blocks + f->panel - 1) / f->panel;
    const int64_t rows = s->batch * s->groups;
    int64_t wanted = least(panels, (ENOUGH_TASKS + rows - 1) / rows);
    const int64_t each =
        4 * rows * s->values * f->padded * (s->variable_B + s->variable_C);
    if (each > 0)
        wanted = least(wanted, ((16 << 20) + s->batch * s->dim * s->length) / each);
    wanted = wanted < 1 ? 1 : wanted;
    f->slice = (panels + wanted - 1) / wanted;
    f->slices = (panels + f->slice - 1) / f->slice;
    f->tasks = rows * f->slices;
}

static backward backward_of(const mbr_selective_scan_bwd_params *p) {
    backward f = {.p = p};
    f.s = scan_of(&p->u, &p->delta, &p->A, &p->B, &p->C, &p->D, &p->delta_bias,
                  p->delta_softplus);
    const scan *s = &f.s;
    f.advance = sweeps[s->parts - 1][s->variable_B];
    f.reverse = reverses[s->parts - 1][s->variable_B][s->variable_C];
    f.panel = s->values <= 16 ? PANEL_BLOCKS : s->values <= 32 ? PANEL_BLOCKS / 2 : 1;
    f.padded = (s->length + VW - 1) / VW * VW;
    f.span = (least(s->length, CHUNK) + SUB - 1) / SUB * SUB;
    choose_slices(&f);
    panel measure;
    f.scratch_bytes = lay_panel(&f, NULL, &measure);
    return f;
}

size_t mbr_impl_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p) {
    backward f = backward_of(p);
    return lay_shared(&f, NULL) +
           (size_t)mbr__workers(p->call.threads, f.tasks) * f.scratch_bytes;
}

/* ---- phase one: a panel of channel blocks --------------------------------------- */

static void clear(vf *x, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        x[i] = v_set(0);
}

static void start_column(const scan *s, column *c) {
    c->D = load_channels(s->D, c->at, 1);
    c->bias = load_channels(s->delta_bias, c->at, s->repeat);
    c->dD = c->dbias = v_set(0);
    load_states(s, s->A, c->at, c->A);
    load_rates(s, c->at, c->rate);
    load_factors(s, c->at, c->K);
    clear(c->g, s->values);
    clear(c->dA, s->values);
    clear(c->dB, s->values);
    clear(c->dC, s->values);
}

/* The state before a chunk: zero, or what the forward left in x. */
static void start_states(const panel *w, column *c, int64_t chunk) {
    const scan *s = &w->f->s;
    if (chunk == 0) {
        clear(c->h, s->values);
        return;
    }
    vf pairs[4 * STATES];
    v_tile_load(pairs, chunk_at(s, &w->f->p->x, w->b, c->at.d, chunk - 1), c->at.lanes,
                2 * s->values);
    for (int v = 0; v < s->values; v++)
        c->h[v] = pairs[2 * v - v % s->parts + s->parts];
}

/* One tile forwards: stages dt and u, and leaves the state before every SUB steps. */
static void sweep_tile(panel *w, column *c, int64_t start, int64_t time, int steps,
                       int64_t end) {
    const backward *f = w->f;
    const scan *s = &f->s;
    const int64_t at = time - start;
    vf du[TILE];
    v_tile_load(c->u + at, rows_at(s->u, w->b, c->at.d, time), c->at.lanes, steps);
    load_delta(s, w->b, c->at, time, steps, c->bias, c->dt + at);
    for (int t = 0; t < steps; t++)
        du[t] = c->dt[at + t] * c->u[at + t];
    for (int t = 0; t < steps; t += SUB) {
        memcpy(c->before + (at + t) / SUB * s->values, c->h,
               (size_t)s->values * sizeof(vf));
        if (time + t + SUB >= end)
            break; /* nobody asks for the state after the chunk */
        advance_all(s, f->advance,
                    &(advance){.dt = c->dt + at + t,
                               .du = du + t,
                               .B = w->B + t * s->parts * VW,
                               .C = w->C,
                               .A = c->rate,
                               .K = c->K,
                               .h = c->h,
                               .pitch = s->parts * VW,
                               .steps = SUB});
    }
}

static void sweep_chunk(panel *w, int64_t start, int64_t end) {
    const scan *s = &w->f->s;
    for (int i = 0; i < w->blocks; i++)
        start_states(w, &w->at[i], start / CHUNK);
    for (int64_t time = start; time < end; time += s->tile) {
        const int steps = (int)least(s->tile, end - time);
        if (s->variable_B)
            load_coefficients(s, s->B, w->b, w->g, time, steps, w->B);
        for (int i = 0; i < w->blocks; i++)
            sweep_tile(w, &w->at[i], start, time, steps, end);
    }
}

/* dout of a tile; with a gate dz and out_z too. dz and out_z may be the memory of z,
 * dout or out: everything is read before anything is written. */
static void load_dout(panel *w, column *c, int64_t time, int steps) {
    const mbr_selective_scan_bwd_params *p = w->f->p;
    const int lanes = c->at.lanes;
    v_tile_load(c->dout, rows_at(&p->dout, w->b, c->at.d, time), lanes, steps);
    if (!p->z.data)
        return;
    vf z[TILE], out[TILE];
    v_tile_load(z, rows_at(&p->z, w->b, c->at.d, time), lanes, steps);
    v_tile_load(out, rows_at(&p->out, w->b, c->at.d, time), lanes, steps);
    for (int t = 0; t < steps; t++) {
        const vf gate = v_sigmoid(z[t]), silu = z[t] * gate;
        const vf slope = gate * (v_set(1) + z[t] * (v_set(1) - gate));
        z[t] = c->dout[t] * out[t] * slope;
        out[t] *= silu;
        c->dout[t] *= silu;
    }
    v_tile_store(z, rows_at(&p->dz, w->b, c->at.d, time), lanes, steps);
    if (p->out_z.data)
        v_tile_store(out, rows_at(&p->out_z, w->b, c->at.d, time), lanes, steps);
}

/* One block's part of what is summed over channels; its idle lanes must not count, and
 * only the first block of a panel to be visited can have any. */
static void reverse_block(panel *w, column *c, int n, int count, int64_t at, int t,
                          int steps) {
    const backward *f = w->f;
    const scan *s = &f->s;
    const int first = n * s->parts;
    const int64_t offset = coefficient_offset(s, n) + t * s->parts * VW;
    f->reverse(&(reverse){.dt = c->dt + at + t,
                          .u = c->u + at + t,
                          .dout = c->dout + t,
                          .B = w->B + offset,
                          .C = w->C + offset,
                          .A = c->A + first,
                          .rate = c->rate + first,
                          .K = c->K + first,
                          .h = c->before + (at + t) / SUB * s->values + first,
                          .g = c->g + first,
                          .dA = c->dA + first,
                          .dB = c->dB + first,
                          .dC = c->dC + first,
                          .sum = c->sum + t,
                          .slope = c->slope + t,
                          .sums_B = w->sums_B,
                          .sums_C = w->sums_C,
                          .pitch = s->parts * VW,
                          .steps = steps},
               count);
    if (c->at.lanes == VW)
        return;
    const vi mask = v_first(c->at.lanes);
    for (int i = 0; i < count * s->parts * SUB; i++) {
        w->sums_B[i] = v_keep(mask, w->sums_B[i]);
        w->sums_C[i] = v_keep(mask, w->sums_C[i]);
    }
}

/* Adds up lanes and puts the result into the partial sums. */
static void add_partial(const panel *w, vf *sums, float *partial, int rows, int steps) {
    float flat[SUB * VW * 2];
    for (int i = 0; i < rows * SUB; i += VW)
        v_store(flat + i, V_F32, v_sums(sums + i));
    for (int r = 0; r < rows; r++, partial += w->f->padded)
        for (int t = 0; t < steps; t++)
            partial[t] = flat[r * SUB + t] + (w->adds ? partial[t] : 0);
}

/* Up to SUB steps of some states, for all blocks. */
static void reverse_sub(panel *w, int n, int count, int64_t start, int64_t time, int t,
                        int steps) {
    const scan *s = &w->f->s;
    const int rows = count * s->parts;
    const int64_t offset = n * s->parts * w->f->padded + time + t;
    clear(w->sums_B, SUB * VW * s->parts);
    clear(w->sums_C, SUB * VW * s->parts);
    for (int i = w->blocks - 1; i >= 0; i--)
        reverse_block(w, &w->at[i], n, count, time - start, t, steps);
    if (s->variable_B)
        add_partial(w, w->sums_B, w->dB + offset, rows, steps);
    if (s->variable_C)
        add_partial(w, w->sums_C, w->dC + offset, rows, steps);
}

/* ddelta of grouped rows: the part of this block, per row it meets. */
static void store_rows(const panel *w, const column *c, const vf *ddelta, int64_t time,
                       int steps) {
    const scan *s = &w->f->s;
    const int64_t block_of_all = w->g * s->blocks + (c->at.d - w->g * s->width) / VW;
    for (int i = 0, next; i < c->at.lanes; i = next) {
        const int64_t row = (c->at.d + i) / s->repeat;
        next = (int)least(c->at.lanes, (row + 1) * s->repeat - c->at.d);
        const vi mask = v_first(next) & ~v_first(i);
        float *out = row_at(w->f, w->b, block_of_all, row) + time;
        for (int t = 0; t < steps; t += VW) {
            vf part[VW];
            for (int k = 0; k < VW; k++)
                part[k] = t + k < steps ? v_keep(mask, ddelta[t + k]) : v_set(0);
            v_store(out + t, V_F32, v_sums(part));
        }
    }
}

/* du and ddelta of a tile from what its states left. */
static void finish_tile(panel *w, column *c, int64_t at, int64_t time, int steps) {
    const scan *s = &w->f->s;
    vf *du = c->sum, *ddelta = c->slope;
    for (int t = 0; t < steps; t++) {
        const vf dt = c->dt[at + t], u = c->u[at + t];
        ddelta[t] = c->sum[t] * u + c->slope[t];
        du[t] = c->sum[t] * dt + c->D * c->dout[t];
        c->dD += c->dout[t] * u;
        if (s->softplus)
            ddelta[t] *= v_softplus_slope(dt);
        c->dbias += ddelta[t];
    }
    v_tile_store(du, rows_at(&w->f->p->du, w->b, c->at.d, time), c->at.lanes, steps);
    if (s->repeat == 1)
        v_tile_store(ddelta, rows_at(&w->f->p->ddelta, w->b, c->at.d, time),
                     c->at.lanes, steps);
    else
        store_rows(w, c, ddelta, time, steps);
}

static void reverse_tile(panel *w, int64_t start, int64_t time, int steps) {
    const scan *s = &w->f->s;
    if (s->variable_B)
        load_coefficients(s, s->B, w->b, w->g, time, steps, w->B);
    if (s->variable_C)
        load_coefficients(s, s->C, w->b, w->g, time, steps, w->C);
    for (int i = 0; i < w->blocks; i++) {
        load_dout(w, &w->at[i], time, steps);
        clear(w->at[i].sum, steps);
        clear(w->at[i].slope, steps);
    }
    for (int n = 0; n < s->states; n += VW)
        for (int t = (steps - 1) / SUB * SUB; t >= 0; t -= SUB)
            reverse_sub(w, n, (int)least(VW, s->states - n), start, time, t,
                        (int)least(SUB, steps - t));
    for (int i = 0; i < w->blocks; i++)
        finish_tile(w, &w->at[i], time - start, time, steps);
}

static void reverse_chunk(panel *w, int64_t start, int64_t end) {
    const int tile = w->f->s.tile;
    sweep_chunk(w, start, end);
    for (int64_t time = start + (end - start - 1) / tile * tile; time >= start;
         time -= tile)
        reverse_tile(w, start, time, (int)least(tile, end - time));
}

/* Gradients of both factors of a constant K = B C from that of K, which is in dC. */
static void split_factors(const scan *s, column *c) {
    vf B[2 * STATES], C[2 * STATES];
    load_states(s, s->B, c->at, B);
    load_states(s, s->C, c->at, C);
    for (int v = 0; v < s->values; v += s->parts) {
        const vf re = c->dC[v];
        if (s->parts == 1) {
            c->dB[v] = re * C[v];
            c->dC[v] = re * B[v];
            continue;
        }
        const vf im = c->dC[v + 1];
        c->dB[v] = re * C[v] + im * C[v + 1];
        c->dB[v + 1] = im * C[v] - re * C[v + 1];
        c->dC[v] = re * B[v] + im * B[v + 1];
        c->dC[v + 1] = im * B[v] - re * B[v + 1];
    }
}

static void store_sums(const panel *w, column *c) {
    const scan *s = &w->f->s;
    const size_t bytes = (size_t)s->values * sizeof(vf);
    vf *sums = sums_at(w->f, w->b, w->g * s->blocks + (c->at.d - w->g * s->width) / VW);
    if (!s->variable_B && !s->variable_C)
        split_factors(s, c);
    sums[SUM_dD] = c->dD;
    sums[SUM_dbias] = c->dbias;
    memcpy(sums + SUM_STATES, c->dA, bytes);
    memcpy(sums + SUM_STATES + s->values, c->dB, bytes);
    memcpy(sums + SUM_STATES + 2 * s->values, c->dC, bytes);
}

static void run_panel(panel *w, int64_t first) {
    const scan *s = &w->f->s;
    w->blocks = (int)least(w->f->panel, s->blocks - first);
    for (int i = 0; i < w->blocks; i++) {
        w->at[i].at = block_at(s, w->g, first + i);
        start_column(s, &w->at[i]);
    }
    for (int64_t chunk = s->chunks - 1; chunk >= 0; chunk--)
        reverse_chunk(w, chunk * CHUNK, least((chunk + 1) * CHUNK, s->length));
    for (int i = 0; i < w->blocks; i++)
        store_sums(w, &w->at[i]);
}

static void backward_task(void *arg, int64_t task, int32_t worker) {
    const backward *f = arg;
    const int64_t slice = task % f->slices, row = task / f->slices;
    const int64_t panels = (f->s.blocks + f->panel - 1) / f->panel;
    const uint32_t mode = v_flush_begin();
    panel w;
    w.f = f;
    w.b = row / f->s.groups;
    w.g = row % f->s.groups;
    w.dB = f->s.variable_B ? partial_at(f, f->dB, slice, w.b, w.g) : NULL;
    w.dC = f->s.variable_C ? partial_at(f, f->dC, slice, w.b, w.g) : NULL;
    lay_panel(f, f->scratch + (size_t)worker * f->scratch_bytes, &w);
    const int64_t first = slice * f->slice;
    for (int64_t i = first; i < least(first + f->slice, panels); i++) {
        w.adds = i > first;
        run_panel(&w, i * f->panel);
    }
    v_flush_end(mode);
}

/* ---- phase two: the sums -------------------------------------------------------- */

/* Variable dB or dC of one batch entry and group over one tile: lanes are time. */
static void write_coefficients(const backward *f, float *partial, const mbr_tensor *t,
                               int64_t b, int64_t g, int64_t time) {
    const scan *s = &f->s;
    v_plane to = coefficients_at(t, b, g, 0, time * s->parts);
    const int64_t step = to.step;
    to.step = to.lane;
    to.lane = step * s->parts;
    for (int part = 0; part < s->parts; part++, to.data += step) {
        vf tile[STATES];
        for (int n = 0; n < s->states; n++) {
            const int64_t at = (n * s->parts + part) * f->padded + time;
            tile[n] = v_set(0);
            for (int64_t i = 0; i < f->slices; i++)
                tile[n] += v_load(partial_at(f, partial, i, b, g) + at, V_F32);
        }
        v_tile_store(tile, to, (int)least(VW, s->length - time), s->states);
    }
}

static int64_t tiles(const scan *s) {
    return (s->length + TILE - 1) / TILE;
}

static void coefficient_task(void *arg, int64_t task, int32_t worker) {
    const backward *f = arg;
    const scan *s = &f->s;
    const int64_t tile = task % tiles(s), row = task / tiles(s);
    const int64_t b = row / s->groups, g = row % s->groups;
    (void)worker;
    for (int64_t time = tile * TILE; time < least((tile + 1) * TILE, s->length);
         time += VW) {
        if (s->variable_B)
            write_coefficients(f, f->dB, &f->p->dB, b, g, time);
        if (s->variable_C)
            write_coefficients(f, f->dC, &f->p->dC, b, g, time);
    }
}

static void write_states(const scan *s, const mbr_tensor *t, block k, const vf *sums) {
    vf tile[STATES];
    for (int part = 0; part < s->parts; part++) {
        for (int n = 0; n < s->states; n++)
            tile[n] = sums[n * s->parts + part];
        v_tile_store(tile, states_at(t, k.d, part), k.lanes, s->states);
    }
}

static void write_channels(const mbr_tensor *t, block k, const vf *sum) {
    const int64_t stride = 4 * t->stride[0];
    if (t->data)
        v_tile_store(sum, (v_plane){(char *)t->data + k.d * stride, stride, 0, V_F32},
                     k.lanes, 1);
}

/* What is summed over batch only, for one channel block. */
static void channel_task(void *arg, int64_t task, int32_t worker) {
    const backward *f = arg;
    const scan *s = &f->s;
    const block k = block_at(s, task / s->blocks, task % s->blocks);
    const int count = (int)sums_per_block(s);
    vf *sums = sums_at(f, 0, task), *states = sums + SUM_STATES;
    (void)worker;
    for (int64_t b = 1; b < s->batch; b++)
        for (int i = 0; i < count; i++)
            sums[i] += sums_at(f, b, task)[i];
    write_states(s, &f->p->dA, k, states);
    if (!s->variable_B)
        write_states(s, &f->p->dB, k, states + s->values);
    if (!s->variable_C)
        write_states(s, &f->p->dC, k, states + 2 * s->values);
    write_channels(&f->p->dD, k, sums + SUM_dD);
    if (s->repeat == 1)
        write_channels(&f->p->ddelta_bias, k, sums + SUM_dbias);
}

static int64_t block_of_channel(const scan *s, int64_t d) {
    return d / s->width * s->blocks + d % s->width / VW;
}

/* ddelta of one row of a grouped delta: the sum over the blocks it meets. */
static void row_task(void *arg, int64_t task, int32_t worker) {
    const backward *f = arg;
    const scan *s = &f->s;
    const int64_t rows = s->delta->shape[1], b = task / rows, row = task % rows;
    const int64_t first = block_of_channel(s, row * s->repeat);
    const int64_t last = block_of_channel(s, (row + 1) * s->repeat - 1);
    v_plane to = rows_at(&f->p->ddelta, b, row, 0);
    to.lane = to.step; /* lanes are time */
    to.step = 0;
    (void)worker;
    for (int64_t time = 0; time < s->length; time += VW) {
        vf sum = v_set(0);
        for (int64_t k = first; k <= last; k++)
            sum += v_load(row_at(f, b, k, row) + time, V_F32);
        v_tile_store(&sum, v_move(to, time, 0), (int)least(VW, s->length - time), 1);
    }
}

/* ddelta_bias of grouped rows, from the batch sums of the channels. */
static void write_row_biases(const backward *f) {
    const scan *s = &f->s;
    const mbr_tensor *t = &f->p->ddelta_bias;
    for (int64_t row = 0; t->data && row < s->delta->shape[1]; row++) {
        float sum = 0;
        for (int64_t d = row * s->repeat; d < (row + 1) * s->repeat; d++)
            sum += sums_at(f, 0, block_of_channel(s, d))[SUM_dbias][d % s->width % VW];
        ((float *)t->data)[row * t->stride[0]] = sum;
    }
}

static void run(const backward *f, int32_t workers, int64_t tasks,
                void (*task)(void *, int64_t, int32_t)) {
    mbr__parallel((int32_t)least(workers, tasks), tasks, task, (void *)f);
}

mbr_status mbr_impl_selective_scan_bwd(const mbr_selective_scan_bwd_params *p) {
    backward f = backward_of(p);
    const scan *s = &f.s;
    const size_t shared = lay_shared(&f, p->workspace.data);
    /* Not more workers than were measured: the CPUs may have changed since. */
    const int64_t room = (int64_t)((p->workspace.size - shared) / f.scratch_bytes);
    const int32_t workers =
        (int32_t)least(mbr__workers(p->call.threads, f.tasks), room);
    run(&f, workers, f.tasks, backward_task);
    run(&f, workers, s->batch * s->groups * tiles(s), coefficient_task);
    run(&f, workers, s->groups * s->blocks, channel_task);
    if (s->repeat == 1)
        return MBR_OK;
    run(&f, workers, s->batch * s->delta->shape[1], row_task);
    write_row_biases(&f);
    return MBR_OK;
}
