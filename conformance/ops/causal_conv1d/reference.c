/* SPDX-License-Identifier: Apache-2.0
 *
 * reference.c - the causal convolution as its formulas read, in double, one element
 * after the other. Any dtype in and out. Meant to be read, not to be fast; shares
 * nothing with the kernels it judges but the params structs.
 *
 *   y_t   = bias + sum_w weight_w x_(t - (W-1) + w)      over the taps that count
 *   out_t = y_t, or silu(y_t)
 *
 * Before time 0 stand initial_states, whose column j is time j - (W-1), or zeros. With
 * seq_idx a tap counts only if its id is the id at t; times before 0 have id -1.
 */
#include "../../number.h"

#include "variant/variant.h"

#include <stdlib.h>

/* What forward and backward share: the arguments of the formulas above. */
typedef struct conv {
    const mbr_tensor *x, *weight, *bias, *seq_idx, *initial_states;
    int64_t batch, dim, length, width;
} conv;

#define CONV_OF(p)                                                                     \
    {.x = &(p)->x,                                                                     \
     .weight = &(p)->weight,                                                           \
     .bias = &(p)->bias,                                                               \
     .seq_idx = &(p)->seq_idx,                                                         \
     .initial_states = &(p)->initial_states,                                           \
     .batch = (p)->x.shape[0],                                                         \
     .dim = (p)->x.shape[1],                                                           \
     .length = (p)->x.shape[2],                                                        \
     .width = (p)->weight.shape[1]}

static int64_t sequence_id(const conv *c, int64_t b, int64_t t) {
    if (!number_present(c->seq_idx))
        return 0;
    return t < 0 ? -1 : (int64_t)number_read(c->seq_idx, b, t, 0, 0).re;
}

/* The time that tap w of position t looks at, and whether it counts. */
static int64_t tap_time(const conv *c, int64_t t, int64_t w) {
    return t - (c->width - 1) + w;
}

static int tap_counts(const conv *c, int64_t b, int64_t t, int64_t w) {
    return sequence_id(c, b, tap_time(c, t, w)) == sequence_id(c, b, t);
}

/* x, continued before time 0. */
static number value_at(const conv *c, int64_t b, int64_t d, int64_t time) {
    if (time >= 0)
        return number_read(c->x, b, d, time, 0);
    if (number_present(c->initial_states) && time >= -(c->width - 1))
        return number_read(c->initial_states, b, d, time + c->width - 1, 0);
    return number_of(0, 0);
}

static number convolve(const conv *c, int64_t b, int64_t d, int64_t t) {
    number y = number_of(0, 0);
    if (number_present(c->bias))
        y = number_read(c->bias, d, 0, 0, 0);
    for (int64_t w = 0; w < c->width; w++)
        if (tap_counts(c, b, t, w))
            y = number_add(y, number_mul(number_read(c->weight, d, w, 0, 0),
                                         value_at(c, b, d, tap_time(c, t, w))));
    return y;
}

/* ---- forward ------------------------------------------------------------------- */

static void forward_row(const conv *c, const mbr_causal_conv1d_fwd_params *p, int64_t b,
                        int64_t d) {
    for (int64_t t = 0; t < c->length; t++) {
        number y = convolve(c, b, d, t);
        if (p->silu_activation)
            y = number_silu(y);
        int padding = number_present(c->seq_idx) && sequence_id(c, b, t) < 0;
        number_write(&p->out, p->call.flags, b, d, t, 0, padding ? number_of(0, 0) : y);
    }
    for (int64_t j = 0; number_present(&p->final_states_out) && j < c->width - 1; j++)
        number_write(&p->final_states_out, p->call.flags, b, d, j, 0,
                     value_at(c, b, d, c->length - (c->width - 1) + j));
}

mbr_status mbr_impl_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p) {
    const conv c = CONV_OF(p);
    for (int64_t b = 0; b < c.batch; b++)
        for (int64_t d = 0; d < c.dim; d++)
            forward_row(&c, p, b, d);
    return MBR_OK;
}

/* ---- backward ------------------------------------------------------------------ */

/* dL/dy at t. Padding is not masked here although the forward wrote 0 there: upstream
 * treats -1 as an id like any other on the way back, and so must we. */
static number gradient_of_y(const conv *c, const mbr_causal_conv1d_bwd_params *p,
                            int64_t b, int64_t d, int64_t t) {
    number dout = number_read(&p->dout, b, d, t, 0);
    if (!p->silu_activation)
        return dout;
    return number_mul(dout, number_silu_slope(convolve(c, b, d, t)));
}

/* The gradient of x at a time, which may lie before 0. */
static number gradient_at(const conv *c, const mbr_causal_conv1d_bwd_params *p,
                          const number *dy, int64_t b, int64_t d, int64_t time) {
    number sum = number_of(0, 0);
    for (int64_t w = 0; w < c->width; w++) {
        int64_t t = time + (c->width - 1) - w; /* whose tap w is this time */
        if (t < 0 || t >= c->length || !tap_counts(c, b, t, w))
            continue;
        sum = number_add(sum, number_mul(number_read(c->weight, d, w, 0, 0), dy[t]));
    }
    int64_t j = time - (c->length - (c->width - 1)); /* column of the final states */
    if (number_present(&p->dfinal_states) && j >= 0)
        sum = number_add(sum, number_read(&p->dfinal_states, b, d, j, 0));
    return sum;
}

static void backward_row(const conv *c, const mbr_causal_conv1d_bwd_params *p,
                         number *dy, number *dweight, number *dbias, int64_t b,
                         int64_t d) {
    uint32_t flags = p->call.flags;
    for (int64_t t = 0; t < c->length; t++) {
        dy[t] = gradient_of_y(c, p, b, d, t);
        *dbias = number_add(*dbias, dy[t]);
        for (int64_t w = 0; w < c->width; w++)
            if (tap_counts(c, b, t, w))
                dweight[w] =
                    number_add(dweight[w],
                               number_mul(dy[t], value_at(c, b, d, tap_time(c, t, w))));
    }
    for (int64_t t = 0; t < c->length; t++)
        number_write(&p->dx, flags, b, d, t, 0, gradient_at(c, p, dy, b, d, t));
    for (int64_t j = 0; number_present(&p->dinitial_states) && j < c->width - 1; j++)
        number_write(&p->dinitial_states, flags, b, d, j, 0,
                     gradient_at(c, p, dy, b, d, j - (c->width - 1)));
}

static void backward_channel(const conv *c, const mbr_causal_conv1d_bwd_params *p,
                             number *dy, int64_t d) {
    number dweight[4] = {{0}}, dbias = {0};
    for (int64_t w = 0; p->accumulate && w < c->width; w++)
        dweight[w] = number_read(&p->dweight, d, w, 0, 0);
    if (p->accumulate && number_present(&p->dbias))
        dbias = number_read(&p->dbias, d, 0, 0, 0);
    for (int64_t b = 0; b < c->batch; b++)
        backward_row(c, p, dy, dweight, &dbias, b, d);
    for (int64_t w = 0; w < c->width; w++)
        number_write(&p->dweight, p->call.flags, d, w, 0, 0, dweight[w]);
    if (number_present(&p->dbias))
        number_write(&p->dbias, p->call.flags, d, 0, 0, 0, dbias);
}

mbr_status mbr_impl_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    const conv c = CONV_OF(p);
    number *dy = malloc((size_t)c.length * sizeof *dy);
    if (dy == NULL)
        return MBR_E_INTERNAL;
    for (int64_t d = 0; d < c.dim; d++)
        backward_channel(&c, p, dy, d);
    free(dy);
    return MBR_OK;
}

size_t mbr_impl_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    (void)p;
    return 0;
}

/* ---- update -------------------------------------------------------------------- */

/* The column of conv_state that held the input `back` steps before x[0]; back >= 1. */
static int64_t column_before(const mbr_causal_conv1d_update_params *p, int64_t b,
                             int64_t back) {
    int64_t columns = p->conv_state.shape[2];
    if (!number_present(&p->cache_seqlens))
        return columns - back;
    int64_t seen = (int64_t)number_read(&p->cache_seqlens, b, 0, 0, 0).re;
    return ((seen - back) % columns + columns) % columns;
}

/* joined holds the last W - 1 inputs that the state remembers, followed by x. */
static void update_out(const mbr_causal_conv1d_update_params *p, const number *joined,
                       int64_t b, int64_t d) {
    int64_t width = p->weight.shape[1];
    for (int64_t t = 0; t < p->x.shape[2]; t++) {
        number y = number_of(0, 0);
        if (number_present(&p->bias))
            y = number_read(&p->bias, d, 0, 0, 0);
        for (int64_t w = 0; w < width; w++)
            y = number_add(
                y, number_mul(number_read(&p->weight, d, w, 0, 0), joined[t + w]));
        if (p->silu_activation)
            y = number_silu(y);
        number_write(&p->out, p->call.flags, b, d, t, 0, y);
    }
}

/* Ring: x[t] replaces column (cache_seqlens + t) mod S. Line: everything moves left. */
static void update_state(const mbr_causal_conv1d_update_params *p, int64_t b, int64_t d,
                         int64_t row) {
    int64_t length = p->x.shape[2], columns = p->conv_state.shape[2];
    int ring = number_present(&p->cache_seqlens);
    for (int64_t j = 0; !ring && j < columns; j++) {
        int64_t from = j + length; /* left to right: reads what is not yet written */
        number value = from < columns ? number_read(&p->conv_state, row, d, from, 0)
                                      : number_read(&p->x, b, d, from - columns, 0);
        number_write(&p->conv_state, 0, row, d, j, 0, value);
    }
    for (int64_t t = 0; ring && t < length; t++)
        number_write(&p->conv_state, 0, row, d,
                     (column_before(p, b, 1) + 1 + t) % columns, 0,
                     number_read(&p->x, b, d, t, 0));
}

static void update_row(const mbr_causal_conv1d_update_params *p, number *joined,
                       int64_t b, int64_t d) {
    int64_t length = p->x.shape[2], width = p->weight.shape[1], row = b;
    if (number_present(&p->conv_state_indices))
        row = (int64_t)number_read(&p->conv_state_indices, b, 0, 0, 0).re;
    if (row < 0) { /* padding */
        for (int64_t t = 0; t < length; t++)
            number_write(&p->out, p->call.flags, b, d, t, 0, number_of(0, 0));
        return;
    }
    for (int64_t back = width - 1; back >= 1; back--)
        *joined++ = number_read(&p->conv_state, row, d, column_before(p, b, back), 0);
    for (int64_t t = 0; t < length; t++)
        *joined++ = number_read(&p->x, b, d, t, 0);
    update_out(p, joined - (width - 1 + length), b, d);
    update_state(p, b, d, row);
}

mbr_status mbr_impl_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    int64_t length = p->x.shape[2], width = p->weight.shape[1];
    number *joined = malloc((size_t)(width - 1 + length) * sizeof *joined);
    if (joined == NULL)
        return MBR_E_INTERNAL;
    for (int64_t b = 0; b < p->x.shape[0]; b++)
        for (int64_t d = 0; d < p->x.shape[1]; d++)
            update_row(p, joined, b, d);
    free(joined);
    return MBR_OK;
}
