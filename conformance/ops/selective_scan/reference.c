/* SPDX-License-Identifier: Apache-2.0
 *
 * reference.c - the selective scan as its formulas read, in double, one element after
 * the other. Any dtype in and out. Meant to be read, not to be fast; shares nothing
 * with the kernels it judges but the params structs.
 *
 *   dt_t  = delta_t + delta_bias               (softplus of it if delta_softplus)
 *   h_tn  = exp(dt_t A_n) h_(t-1)n + B_tn dt_t u_t                       h_(-1) = 0
 *   y_t   = D u_t + sum_n C_tn h_tn            (A complex: + 2 Re sum_n C_tn h_tn)
 *   out   = y,   out_z = y silu(z)
 *
 * A constant B does not enter h but stands beside C: upstream's order, which one sees
 * in x. The gradients follow from the formulas by the chain rule; for complex numbers
 * they are PyTorch's, dL/d(re) + i dL/d(im).
 */
#include "../../number.h"

#include "variant/variant.h"

#include <stdlib.h>

enum { CHUNK = 2048 }; /* positions per entry of x */

/* What forward and backward share: the arguments of the formulas above. */
typedef struct scan {
    const mbr_tensor *u, *delta, *A, *B, *C, *D, *z, *delta_bias;
    int64_t batch, dim, length, states, delta_dim;
    int softplus, complex, variable_B, variable_C;
} scan;

#define SCAN_OF(p)                                                                     \
    {.u = &(p)->u,                                                                     \
     .delta = &(p)->delta,                                                             \
     .A = &(p)->A,                                                                     \
     .B = &(p)->B,                                                                     \
     .C = &(p)->C,                                                                     \
     .D = &(p)->D,                                                                     \
     .z = &(p)->z,                                                                     \
     .delta_bias = &(p)->delta_bias,                                                   \
     .batch = (p)->u.shape[0],                                                         \
     .dim = (p)->u.shape[1],                                                           \
     .length = (p)->u.shape[2],                                                        \
     .states = (p)->A.shape[1],                                                        \
     .delta_dim = (p)->delta.shape[1],                                                 \
     .softplus = (p)->delta_softplus != 0,                                             \
     .complex = (p)->A.dtype_code == MBR_COMPLEX,                                      \
     .variable_B = (p)->B.ndim == 4,                                                   \
     .variable_C = (p)->C.ndim == 4}

static int64_t delta_row(const scan *s, int64_t d) {
    return d / (s->dim / s->delta_dim);
}

static int64_t group(const scan *s, const mbr_tensor *B_or_C, int64_t d) {
    return d / (s->dim / B_or_C->shape[1]);
}

/* delta + delta_bias */
static number raw_step(const scan *s, int64_t b, int64_t d, int64_t t) {
    int64_t row = delta_row(s, d);
    number raw = number_read(s->delta, b, row, t, 0);
    if (number_present(s->delta_bias))
        raw = number_add(raw, number_read(s->delta_bias, row, 0, 0, 0));
    return raw;
}

static number step(const scan *s, int64_t b, int64_t d, int64_t t) {
    number raw = raw_step(s, b, d, t);
    return s->softplus ? number_softplus(raw) : raw;
}

/* B or C for state n at time t. Variable ones of a complex A hold (re, im) pairs. */
static number coefficient(const scan *s, const mbr_tensor *B_or_C, int64_t b, int64_t d,
                          int64_t n, int64_t t) {
    if (B_or_C->ndim == 2)
        return number_read(B_or_C, d, n, 0, 0);
    int64_t g = group(s, B_or_C, d);
    if (!s->complex)
        return number_read(B_or_C, b, g, n, t);
    return number_of(number_read(B_or_C, b, g, n, 2 * t).re,
                     number_read(B_or_C, b, g, n, 2 * t + 1).re);
}

/* What goes into the state: B dt u, without a constant B. */
static number input(const scan *s, int64_t b, int64_t d, int64_t n, int64_t t,
                    number dt) {
    number in = number_mul(dt, number_read(s->u, b, d, t, 0));
    return s->variable_B ? number_mul(coefficient(s, s->B, b, d, n, t), in) : in;
}

/* What the state is multiplied by on its way out: C, with a constant B. */
static number output_weight(const scan *s, int64_t b, int64_t d, int64_t n, int64_t t) {
    number C = coefficient(s, s->C, b, d, n, t);
    return s->variable_B ? C : number_mul(coefficient(s, s->B, b, d, n, t), C);
}

static number decay(const scan *s, int64_t d, int64_t n, number dt) {
    return number_exp(number_mul(dt, number_read(s->A, d, n, 0, 0)));
}

/* One term of y: C h, or 2 Re(C h). */
static number output_term(const scan *s, number weight, number state) {
    number term = number_mul(weight, state);
    return s->complex ? number_twice_real(term) : term;
}

/* ---- forward ------------------------------------------------------------------- */

static void forward_row(const scan *s, const mbr_selective_scan_fwd_params *p,
                        int64_t b, int64_t d, number *product, number *state) {
    uint32_t flags = p->call.flags;
    for (int64_t n = 0; n < s->states; n++) {
        product[n] = number_of(1, 0);
        state[n] = number_of(0, 0);
    }
    for (int64_t t = 0; t < s->length; t++) {
        number dt = step(s, b, d, t), y = number_of(0, 0);
        if (number_present(s->D))
            y = number_mul(number_read(s->D, d, 0, 0, 0),
                           number_read(s->u, b, d, t, 0));
        for (int64_t n = 0; n < s->states; n++) {
            number a = decay(s, d, n, dt), in = input(s, b, d, n, t, dt);
            product[n] = number_mul(a, product[n]);
            state[n] = number_add(number_mul(a, state[n]), in);
            y = number_add(y, output_term(s, output_weight(s, b, d, n, t), state[n]));
        }
        number_write(&p->out, flags, b, d, t, 0, y);
        if (number_present(s->z)) {
            number gate = number_silu(number_read(s->z, b, d, t, 0));
            number_write(&p->out_z, flags, b, d, t, 0, number_mul(y, gate));
        }
        int last_of_chunk = (t + 1) % CHUNK == 0 || t + 1 == s->length;
        for (int64_t n = 0; last_of_chunk && n < s->states; n++) {
            number_write(&p->x, flags, b, d, t / CHUNK, 2 * n, product[n]);
            number_write(&p->x, flags, b, d, t / CHUNK, 2 * n + 1, state[n]);
        }
    }
}

mbr_status mbr_impl_selective_scan_fwd(const mbr_selective_scan_fwd_params *p) {
    const scan s = SCAN_OF(p);
    number *scratch = malloc((size_t)(2 * s.states) * sizeof *scratch);
    if (scratch == NULL)
        return MBR_E_INTERNAL;
    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t d = 0; d < s.dim; d++)
            forward_row(&s, p, b, d, scratch, scratch + s.states);
    free(scratch);
    return MBR_OK;
}

/* ---- backward ------------------------------------------------------------------ */

/* Sums over more than one row (b, d), zero at first and written at the end; and the
 * forward's intermediate values of one row. */
typedef struct sums {
    number *ddelta;      /* (B, Dd, L) */
    number *dA;          /* (D, N) */
    number *dB, *dC;     /* (B, G, N, L) or (D, N) */
    number *dD;          /* (D,) */
    number *ddelta_bias; /* (Dd,) */
    number *dt;          /* (L,) of this row */
    number *state;       /* (L, N) of this row */
    number *dstate;      /* (N,) at this time */
} sums;

static void add_to(number *sum, number term) {
    *sum = number_add(*sum, term);
}

/* Where the gradient of B or C for (b, d, n, t) is summed. */
static number *sum_of(const scan *s, number *sum, const mbr_tensor *B_or_C, int64_t b,
                      int64_t d, int64_t n, int64_t t) {
    if (B_or_C->ndim == 2)
        return &sum[d * s->states + n];
    int64_t row = b * B_or_C->shape[1] + group(s, B_or_C, d);
    return &sum[(row * s->states + n) * s->length + t];
}

static number state_before(const scan *s, const sums *m, int64_t n, int64_t t) {
    return t == 0 ? number_of(0, 0) : m->state[(t - 1) * s->states + n];
}

static void recompute_states(const scan *s, const sums *m, int64_t b, int64_t d) {
    for (int64_t t = 0; t < s->length; t++) {
        m->dt[t] = step(s, b, d, t);
        for (int64_t n = 0; n < s->states; n++) {
            number a = decay(s, d, n, m->dt[t]);
            number in = input(s, b, d, n, t, m->dt[t]);
            m->state[t * s->states + n] =
                number_add(number_mul(a, state_before(s, m, n, t)), in);
        }
    }
}

/* dL/dy at t. With a gate it also writes what depends on the forward's rounded out:
 * dz and, if asked for, out_z. */
static number gradient_of_y(const scan *s, const mbr_selective_scan_bwd_params *p,
                            int64_t b, int64_t d, int64_t t) {
    number dout = number_read(&p->dout, b, d, t, 0);
    if (!number_present(s->z))
        return dout;
    number z = number_read(s->z, b, d, t, 0), out = number_read(&p->out, b, d, t, 0);
    number dz = number_mul(number_mul(dout, out), number_silu_slope(z));
    number_write(&p->dz, p->call.flags, b, d, t, 0, dz);
    if (number_present(&p->out_z))
        number_write(&p->out_z, p->call.flags, b, d, t, 0,
                     number_mul(out, number_silu(z)));
    return number_mul(dout, number_silu(z));
}

/* dL/d(C h) as the factor of conj(h) and of conj(C): twice dy if y has 2 Re(C h). */
static number gradient_of_term(const scan *s, number dy) {
    return s->complex ? number_twice_real(dy) : dy;
}

static void backward_row(const scan *s, const mbr_selective_scan_bwd_params *p,
                         const sums *m, int64_t b, int64_t d) {
    recompute_states(s, m, b, d);
    for (int64_t n = 0; n < s->states; n++)
        m->dstate[n] = number_of(0, 0);
    for (int64_t t = s->length - 1; t >= 0; t--) {
        number u = number_read(s->u, b, d, t, 0), dt = m->dt[t];
        number dy = gradient_of_y(s, p, b, d, t);
        number dproduct = number_of(0, 0); /* of dt u */
        number ddt = number_of(0, 0);
        for (int64_t n = 0; n < s->states; n++) {
            number h = m->state[t * s->states + n];
            number B = coefficient(s, s->B, b, d, n, t);
            number C = coefficient(s, s->C, b, d, n, t);
            number dterm = gradient_of_term(s, dy);

            /* y = ... + weight h */
            number dweight = number_mul(dterm, number_conj(h));
            number weight = output_weight(s, b, d, n, t);
            number *dh = &m->dstate[n];
            add_to(dh, number_mul(dterm, number_conj(weight)));
            number *dB = sum_of(s, m->dB, s->B, b, d, n, t);
            number *dC = sum_of(s, m->dC, s->C, b, d, n, t);
            if (s->variable_B) {
                add_to(dC, dweight);
                add_to(dB, number_mul(*dh, number_mul(dt, u)));
            } else {
                add_to(dC, number_mul(dweight, number_conj(B)));
                add_to(dB, number_mul(dweight, number_conj(C)));
            }

            /* h = a h_before + in */
            number din = s->variable_B ? number_mul(*dh, number_conj(B)) : *dh;
            add_to(&dproduct, number_real(din));
            number a = decay(s, d, n, dt), A = number_read(s->A, d, n, 0, 0);
            number carry = number_mul(a, state_before(s, m, n, t));
            number dexponent = number_mul(*dh, number_conj(carry));
            add_to(&ddt, number_real(number_mul(dexponent, number_conj(A))));
            add_to(&m->dA[d * s->states + n], number_mul(dexponent, dt));
            *dh = number_mul(*dh, number_conj(a));
        }
        number du = number_mul(dproduct, dt);
        add_to(&ddt, number_mul(dproduct, u));
        if (number_present(s->D)) {
            add_to(&du, number_mul(number_read(s->D, d, 0, 0, 0), dy));
            add_to(&m->dD[d], number_mul(dy, u));
        }
        number_write(&p->du, p->call.flags, b, d, t, 0, du);

        if (s->softplus)
            ddt = number_mul(ddt, number_softplus_slope(raw_step(s, b, d, t)));
        int64_t row = delta_row(s, d);
        add_to(&m->ddelta[(b * s->delta_dim + row) * s->length + t], ddt);
        if (number_present(s->delta_bias))
            add_to(&m->ddelta_bias[row], ddt);
    }
}

static void write_sums(const scan *s, const mbr_selective_scan_bwd_params *p,
                       const sums *m) {
    uint32_t flags = p->call.flags;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t row = 0; row < s->delta_dim; row++)
            for (int64_t t = 0; t < s->length; t++)
                number_write(&p->ddelta, flags, b, row, t, 0,
                             m->ddelta[(b * s->delta_dim + row) * s->length + t]);
    for (int64_t d = 0; d < s->dim; d++)
        for (int64_t n = 0; n < s->states; n++)
            number_write(&p->dA, flags, d, n, 0, 0, m->dA[d * s->states + n]);
    for (int64_t d = 0; number_present(s->D) && d < s->dim; d++)
        number_write(&p->dD, flags, d, 0, 0, 0, m->dD[d]);
    for (int64_t row = 0; number_present(s->delta_bias) && row < s->delta_dim; row++)
        number_write(&p->ddelta_bias, flags, row, 0, 0, 0, m->ddelta_bias[row]);
}

/* Variable gradients of a complex A are stored as (re, im) pairs, like B and C. */
static void write_coefficient_sum(const scan *s, const number *sum,
                                  const mbr_tensor *B_or_C, const mbr_tensor *gradient,
                                  uint32_t flags) {
    if (B_or_C->ndim == 2) {
        for (int64_t d = 0; d < s->dim; d++)
            for (int64_t n = 0; n < s->states; n++)
                number_write(gradient, flags, d, n, 0, 0, sum[d * s->states + n]);
        return;
    }
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t g = 0; g < B_or_C->shape[1]; g++)
            for (int64_t n = 0; n < s->states; n++)
                for (int64_t t = 0; t < s->length; t++) {
                    number v = *sum++;
                    if (!s->complex) {
                        number_write(gradient, flags, b, g, n, t, v);
                        continue;
                    }
                    number re = v, im = v;
                    re.im = 0, im.re = v.im, im.im = 0;
                    number_write(gradient, flags, b, g, n, 2 * t, re);
                    number_write(gradient, flags, b, g, n, 2 * t + 1, im);
                }
}

static int64_t coefficient_count(const scan *s, const mbr_tensor *B_or_C) {
    int64_t rows = B_or_C->ndim == 2 ? s->dim : s->batch * B_or_C->shape[1] * s->length;
    return rows * s->states;
}

mbr_status mbr_impl_selective_scan_bwd(const mbr_selective_scan_bwd_params *p) {
    const scan s = SCAN_OF(p);
    sums m;
    struct {
        number **array;
        int64_t count;
    } parts[] = {
        {&m.ddelta, s.batch * s.delta_dim * s.length},
        {&m.dA, s.dim * s.states},
        {&m.dB, coefficient_count(&s, s.B)},
        {&m.dC, coefficient_count(&s, s.C)},
        {&m.dD, s.dim},
        {&m.ddelta_bias, s.delta_dim},
        {&m.dt, s.length},
        {&m.state, s.length * s.states},
        {&m.dstate, s.states},
    };
    size_t part_count = sizeof parts / sizeof *parts, total = 0;
    for (size_t i = 0; i < part_count; i++)
        total += (size_t)parts[i].count;
    number *scratch = calloc(total, sizeof *scratch); /* all bits zero: the number 0 */
    if (scratch == NULL)
        return MBR_E_INTERNAL;
    number *next = scratch;
    for (size_t i = 0; i < part_count; i++) {
        *parts[i].array = next;
        next += parts[i].count;
    }

    for (int64_t b = 0; b < s.batch; b++)
        for (int64_t d = 0; d < s.dim; d++)
            backward_row(&s, p, &m, b, d);
    write_sums(&s, p, &m);
    write_coefficient_sum(&s, m.dB, s.B, &p->dB, p->call.flags);
    write_coefficient_sum(&s, m.dC, s.C, &p->dC, p->call.flags);
    free(scratch);
    return MBR_OK;
}

size_t mbr_impl_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p) {
    (void)p;
    return 0;
}
