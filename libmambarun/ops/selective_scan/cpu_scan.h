/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_scan.h - what forward and backward share on the CPU: the shape of a call, how a
 * block of channels gets its inputs, and the recurrence itself.
 *
 * The lanes of a vector are channels of one group. Time goes in tiles; the states of a
 * channel block stay in registers across a tile. A state of a complex A is two vectors,
 * real and imaginary part: `parts` is 2 then, and arrays over states hold
 * [n * parts + part].
 */
#ifndef MBR_CPU_SCAN_H
#define MBR_CPU_SCAN_H

#include "../../variant/cpu.h"
#include "selective_scan.h"

enum {
    CHUNK = 2048, /* positions per entry of x; fixed by the contract */
    TILE = 256,   /* steps per tile at most; divides CHUNK */
    LEAST_TILE = TILE / 16,
    STATES = 256, /* dstate at most */
};

typedef struct scan {
    const mbr_tensor *u, *delta, *A, *B, *C, *D, *delta_bias;
    int64_t batch, dim, length, chunks;
    int64_t groups, width; /* groups of channels, channels in each */
    int64_t blocks;        /* vectors of channels per group; the last may be partial */
    int64_t repeat;        /* channels per row of delta */
    int states, parts;     /* dstate; 2 for a complex A, else 1 */
    int values;            /* states * parts */
    int variable_B, variable_C;
    int softplus;
    int tile; /* steps per tile: shorter for many states, so that B and C stay in L1,
                 but long, so that the processor sees rows it can run ahead on */
} scan;

/* A block of channels: the first of them, and how many lanes it fills. */
typedef struct block {
    int64_t d;
    int lanes;
} block;

static inline scan scan_of(const mbr_tensor *u, const mbr_tensor *delta,
                           const mbr_tensor *A, const mbr_tensor *B,
                           const mbr_tensor *C, const mbr_tensor *D,
                           const mbr_tensor *delta_bias, uint32_t softplus) {
    scan s = {.u = u, .delta = delta, .A = A, .B = B, .C = C, .D = D};
    s.delta_bias = delta_bias;
    s.batch = u->shape[0];
    s.dim = u->shape[1];
    s.length = u->shape[2];
    s.chunks = (s.length + CHUNK - 1) / CHUNK;
    s.variable_B = B->ndim == 4;
    s.variable_C = C->ndim == 4;
    s.groups = s.variable_B ? B->shape[1] : s.variable_C ? C->shape[1] : 1;
    s.width = s.dim / s.groups;
    s.blocks = (s.width + VW - 1) / VW;
    s.repeat = s.dim / delta->shape[1];
    s.states = (int)A->shape[1];
    s.parts = A->dtype_code == MBR_COMPLEX ? 2 : 1;
    s.values = s.states * s.parts;
    s.softplus = softplus != 0;
    s.tile = TILE;
    while (s.tile > LEAST_TILE && s.tile * s.values > TILE * 8)
        s.tile /= 2;
    return s;
}

static inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline block block_at(const scan *s, int64_t group, int64_t k) {
    return (block){group * s->width + k * VW, (int)least(VW, s->width - k * VW)};
}

/* Channels across, time down, of a (batch, channel, time) tensor. */
static inline v_plane rows_at(const mbr_tensor *t, int64_t b, int64_t d, int64_t time) {
    v_plane p = v_plane_of(t, 1, 2);
    p.data += b * t->stride[0] * v_bytes(p.type);
    return v_move(p, d, time);
}

/* Channels across, states down, of a (dim, dstate) tensor; part 1 is the imaginary. */
static inline v_plane states_at(const mbr_tensor *t, int64_t d, int part) {
    v_plane p = v_plane_of(t, 0, 1);
    if (t->dtype_code == MBR_COMPLEX)
        p = (v_plane){(char *)t->data + 4 * part, 8 * t->stride[0], 8 * t->stride[1],
                      V_F32};
    return v_move(p, d, 0);
}

/* States across, time down, of a (batch, group, dstate, time) tensor; a complex value
 * is two steps. */
static inline v_plane coefficients_at(const mbr_tensor *t, int64_t b, int64_t g,
                                      int64_t n, int64_t step) {
    v_plane p = v_plane_of(t, 2, 3);
    p.data += (b * t->stride[0] + g * t->stride[1]) * v_bytes(p.type);
    return v_move(p, n, step);
}

static inline void load_states(const scan *s, const mbr_tensor *t, block k, vf *out) {
    vf tile[STATES];
    for (int part = 0; part < s->parts; part++) {
        v_tile_load(tile, states_at(t, k.d, part), k.lanes, s->states);
        for (int n = 0; n < s->states; n++)
            out[n * s->parts + part] = tile[n];
    }
}

/* The rates of a block: log2(e) A, so that exp2 does; an imaginary part as it is. */
static inline void load_rates(const scan *s, block k, vf *out) {
    load_states(s, s->A, k, out);
    for (int v = 0; v < s->values; v += s->parts)
        out[v] *= v_set(V_LOG2E);
}

/* The constant factor of what h contributes to y: B, C or, if both are, their product.
 */
static inline void load_factors(const scan *s, block k, vf *out) {
    if (s->variable_B && s->variable_C)
        return;
    load_states(s, s->variable_B ? s->C : s->B, k, out);
    if (s->variable_B || s->variable_C)
        return;
    vf C[2 * STATES];
    load_states(s, s->C, k, C);
    for (int v = 0; v < s->values; v += s->parts) {
        const vf re = out[v];
        if (s->parts == 1) {
            out[v] = re * C[v];
            continue;
        }
        const vf im = out[v + 1];
        out[v] = re * C[v] - im * C[v + 1];
        out[v + 1] = re * C[v + 1] + im * C[v];
    }
}

/* Channels across, the numbers of one entry of x down. */
static inline v_plane chunk_at(const scan *s, const mbr_tensor *x, int64_t b, int64_t d,
                               int64_t chunk) {
    const int64_t entry = 2 * s->values * 4, row = s->chunks * entry;
    char *data = (char *)x->data + (b * s->dim + d) * row + chunk * entry;
    return (v_plane){data, row, 4, V_F32};
}

/* One value per channel, from an fp32 vector with an entry for each `repeat` channels;
 * zeros if it is absent. */
static inline vf load_channels(const mbr_tensor *t, block k, int64_t repeat) {
    vf x = {0};
    if (t->data)
        for (int i = 0; i < VW && i < k.lanes; i++)
            x[i] = ((const float *)t->data)[(k.d + i) / repeat * t->stride[0]];
    return x;
}

/* Where the coefficients of state n begin in a tile that load_coefficients filled;
 * step t, part p of it stand (t * parts + p) * VW floats further. */
static inline int64_t coefficient_offset(const scan *s, int n) {
    return (int64_t)(n / VW) * s->tile * s->parts * VW + n % VW;
}

/* Floats of such a tile: whole vectors of states. */
static inline int64_t coefficient_floats(const scan *s) {
    return coefficient_offset(s, (s->states + VW - 1) / VW * VW);
}

enum { COEFFICIENTS = LEAST_TILE * STATES * 2 }; /* the most that can be */

static inline void load_coefficients(const scan *s, const mbr_tensor *t, int64_t b,
                                     int64_t g, int64_t time, int steps, float *tile) {
    for (int n = 0; n < s->states; n += VW)
        v_tile_load((vf *)(tile + coefficient_offset(s, n)),
                    coefficients_at(t, b, g, n, time * s->parts),
                    (int)least(VW, s->states - n), (int64_t)steps * s->parts);
}

/* Delta of a block as it stands in memory; with grouped rows, lanes of one row repeat
 * it. */
static inline void load_delta_rows(const scan *s, int64_t b, block k, int64_t time,
                                   int steps, vf *dt) {
    if (s->repeat == 1) {
        v_tile_load(dt, rows_at(s->delta, b, k.d, time), k.lanes, steps);
        return;
    }
    for (int i = 0, next; i < k.lanes; i = next) {
        const int64_t row = (k.d + i) / s->repeat;
        next = (int)least(k.lanes, (row + 1) * s->repeat - k.d);
        v_plane same = rows_at(s->delta, b, row, time);
        vf one[TILE];
        v_tile_load(one, same, 1, steps);
        for (int t = 0; t < steps; t++) {
            const vi here = v_first(next) & ~v_first(i);
            dt[t] = (vf)v_select(here, (vu)v_set(one[t][0]), (vu)dt[t]);
        }
    }
}

static inline void load_delta(const scan *s, int64_t b, block k, int64_t time,
                              int steps, vf bias, vf *dt) {
    load_delta_rows(s, b, k, time, steps, dt);
    if (s->softplus)
        for (int t = 0; t < steps; t++)
            dt[t] = v_softplus(dt[t] + bias);
    else
        for (int t = 0; t < steps; t++)
            dt[t] += bias;
}

/* ---- the recurrence ------------------------------------------------------------- */

/* h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t and y_t += sum over states of h_t K_t, for
 * some states of a block over some steps. A constant B stays out of h: K takes it. */
typedef struct advance {
    const vf *dt, *du;  /* [step]; du = dt u */
    const float *B, *C; /* of these states, see coefficient_offset; if variable */
    const vf *A;        /* log2(e) A; of a complex A the imaginary part as it is */
    const vf *K;        /* constant factor of K: B, C or B C; unused if both vary */
    vf *h;              /* in and out */
    vf *y;              /* in and out; unused if K is not wanted */
    int64_t pitch;      /* floats between steps of B and C */
    int steps;
} advance;

V_INLINE void advance_real(const advance *args, int count, int variable_B,
                           int variable_C, int want_y) {
    const advance a = *args; /* a copy cannot be changed by what is stored below */
    vf h[VW];
    V_UNROLL for (int i = 0; i < count; i++) h[i] = a.h[i];
    for (int t = 0; t < a.steps; t++) {
        const vf dt = a.dt[t], du = a.du[t];
        const float *B = a.B + t * a.pitch, *C = a.C + t * a.pitch;
        vf y = want_y ? a.y[t] : (vf){0};
        V_UNROLL for (int i = 0; i < count; i++) {
            const vf decay = v_exp2(dt * a.A[i]);
            if (variable_B)
                h[i] = decay * h[i] + du * B[i];
            else
                h[i] = decay * h[i] + du;
            if (!want_y)
                continue;
            if (!variable_C)
                y += h[i] * a.K[i];
            else if (variable_B)
                y += h[i] * C[i];
            else
                y += h[i] * a.K[i] * C[i];
        }
        if (want_y)
            a.y[t] = y;
    }
    V_UNROLL for (int i = 0; i < count; i++) a.h[i] = h[i];
}

/* e^(dt A). */
V_INLINE void decay_complex(vf dt, const vf *A, vf *re, vf *im) {
    vf size = v_exp2(dt * A[0]), sine, cosine;
    v_sincos(dt * A[1], &sine, &cosine);
    *re = size * cosine;
    *im = size * sine;
}

/* y = 2 Re(sum h K) for a complex A; u, dt and y are real. */
V_INLINE void advance_complex(const advance *args, int count, int variable_B,
                              int variable_C, int want_y) {
    const advance a = *args;
    for (int i = 0; i < count; i++) {
        vf re = a.h[2 * i], im = a.h[2 * i + 1];
        for (int t = 0; t < a.steps; t++) {
            const float *B = a.B + t * a.pitch + i, *C = a.C + t * a.pitch + i;
            vf a_re, a_im, k_re, k_im;
            decay_complex(a.dt[t], a.A + 2 * i, &a_re, &a_im);
            const vf old = re;
            re = a_re * re - a_im * im;
            im = a_re * im + a_im * old;
            if (variable_B) {
                re += a.du[t] * B[0];
                im += a.du[t] * B[VW];
            } else {
                re += a.du[t];
            }
            if (!want_y)
                continue;
            if (!variable_C || !variable_B) {
                k_re = a.K[2 * i];
                k_im = a.K[2 * i + 1];
            }
            if (variable_C && variable_B) {
                k_re = v_set(C[0]);
                k_im = v_set(C[VW]);
            } else if (variable_C) {
                vf r = k_re * C[0] - k_im * C[VW];
                k_im = k_re * C[VW] + k_im * C[0];
                k_re = r;
            }
            vf y = re * k_re - im * k_im;
            a.y[t] += y + y;
        }
        a.h[2 * i] = re;
        a.h[2 * i + 1] = im;
    }
}

/* The same for count states, a power of two not above VW, or with a complex A any. */
V_INLINE void advance_count(const advance *a, int count, int variable_B, int variable_C,
                            int want_y) {
    switch (count) {
#if VW >= 16
    case 16:
        advance_real(a, 16, variable_B, variable_C, want_y);
        break;
#endif
#if VW >= 8
    case 8:
        advance_real(a, 8, variable_B, variable_C, want_y);
        break;
#endif
    case 4:
        advance_real(a, 4, variable_B, variable_C, want_y);
        break;
    case 2:
        advance_real(a, 2, variable_B, variable_C, want_y);
        break;
    default:
        advance_real(a, 1, variable_B, variable_C, want_y);
    }
}

typedef void advance_fn(const advance *a, int count);

/* All states of a block, in groups that fit the kernels; a is for state 0. */
static inline void advance_all(const scan *s, advance_fn *kernel, const advance *a) {
    for (int n = 0, count; n < s->states; n += count) {
        for (count = VW; count > s->states - n;)
            count /= 2;
        advance part = *a;
        part.B += coefficient_offset(s, n);
        part.C += coefficient_offset(s, n);
        part.A += n * s->parts;
        part.K += n * s->parts;
        part.h += n * s->parts;
        kernel(&part, count);
    }
}

#endif
