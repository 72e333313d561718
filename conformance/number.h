/* SPDX-License-Identifier: Apache-2.0
 *
 * number.h - what the references compute with: a double (or complex) value that carries
 * along how far single-precision arithmetic may land from it. Also how one element of
 * an mbr_tensor of any dtype becomes a number and back. Knows nothing of ops.
 *
 * The bound is a running error analysis to first order (Higham, "Accuracy and Stability
 * of Numerical Algorithms", 2nd ed., section 3.3), with |value| replaced by the size
 * that the value would have if no two terms ever cancelled. A sum of n terms takes n -
 * 1 additions in every order, and the result of each is at most the sum of all sizes:
 * so it is charged n - 1 times that. What the partial sums of one order are off by
 * would hold for that order alone: 0.02 + 0.02 + 0.3 + 1.7 ends with the large term,
 * which then is rounded once, where the reverse rounds it three times. A recurrence is
 * charged step by step; a scan in another order adds more often, but what it adds there
 * is smaller, and an addition is off by no more than the smaller of its terms.
 *
 * Inputs are exact. The bound's unit is 2^-24, half the distance from 1 to the next
 * float. A product contributes 2^-125 as well: it may be flushed to zero if it, or half
 * of it, is denormal. Where fp32 may overflow the bound is infinite.
 */
#ifndef CONFORMANCE_NUMBER_H
#define CONFORMANCE_NUMBER_H

#include "mambarun.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* mbr_call.flags of a reference: outputs receive the bound instead of the value. */
#define CONFORMANCE_BOUND (UINT32_C(1) << 31)

typedef struct number {
    double re, im;
    double size;  /* |value| with every term of every sum made positive */
    double terms; /* how far fp32 may be off, in 2^-24, without the additions */
    double adds;  /* that made it of its terms; each may be off by size */
} number;

/* How far fp32 may be off, in 2^-24. */
static inline double number_off(number a) {
    return a.adds > 0 ? a.terms + a.adds * a.size : a.terms;
}

#define NUMBER_TINY 0x1p-101 /* 2^-125 in the unit of the bound */

static inline number number_of(double re, double im) {
    return (number){re, im, im == 0 ? fabs(re) : hypot(re, im), 0, 0};
}

static inline int number_is_real(number a) {
    return a.im == 0;
}

/* Rules for what is not a plain finite float. spoilt: an operand's bound was infinite,
 * and stays so. A value that is NaN or infinite because an input was has to come out
 * exactly like that. */
static inline number number_settle(number a, int spoilt) {
    int finite = isfinite(a.re) && isfinite(a.im);
    if (spoilt || (finite && !(a.size <= FLT_MAX)))
        a.terms = INFINITY;
    else if (!finite)
        a.terms = a.adds = 0;
    return a;
}

/* Nothing at all: a sum begins with it. */
static inline int number_is_zero(number a) {
    return a.size == 0 && a.terms == 0;
}

static inline number number_add(number a, number b) {
    int exact = number_is_zero(a) || number_is_zero(b);
    number sum = {a.re + b.re, a.im + b.im, a.size + b.size, a.terms + b.terms,
                  a.adds + b.adds + !exact};
    return number_settle(sum, isinf(number_off(a)) || isinf(number_off(b)));
}

static inline number number_mul(number a, number b) {
    double a_off = number_off(a), b_off = number_off(b);
    int spoilt = isinf(a_off) || isinf(b_off);
    number product = {a.re * b.re, 0, a.size * b.size, 0, 0};
    product.terms = a.size * b_off + b.size * a_off + product.size + NUMBER_TINY;
    if (number_is_real(a) && number_is_real(b)) /* no 0 * inf in absent parts */
        return number_settle(product, spoilt);
    product.re = a.re * b.re - a.im * b.im;
    product.im = a.re * b.im + a.im * b.re;
    product.terms += 2 * product.size;
    return number_settle(product, spoilt);
}

static inline number number_conj(number a) {
    a.im = -a.im;
    return a;
}

/* 2 Re(a) */
static inline number number_twice_real(number a) {
    return (number){2 * a.re, 0, 2 * a.size, 2 * a.terms, a.adds};
}

static inline number number_real(number a) {
    a.im = 0;
    return a;
}

/* exp through exp2(x log2(e)) loses |x| units in the argument; so may any exp here. */
static inline number number_exp(number x) {
    double e = exp(x.re);
    number result = {e, 0, e, 0, 0};
    if (!number_is_real(x)) {
        result.re = e * cos(x.im);
        result.im = e * sin(x.im);
    }
    double x_off = number_off(x);
    double lost = x_off + 2 * fabs(x.re) + 2 * fabs(x.im) + 3;
    result.terms = e == 0 ? NUMBER_TINY : e * lost + NUMBER_TINY;
    return number_settle(result, isinf(x_off));
}

/* 1 / (1 + exp(-x)). Its exp may overflow on the way: the quotient is 0 then. */
static inline number number_sigmoid(number x) {
    double s = 1 / (1 + exp(-x.re));
    double slope = x.re < 0 ? s * (1 - s) : s * (1 / (1 + exp(x.re)));
    double x_off = number_off(x);
    number result = {s, 0, s, 3 * s + NUMBER_TINY, 0};
    if (slope > 0)
        result.terms += slope * (x_off + 2 * fabs(x.re));
    return number_settle(result, isinf(x_off));
}

/* log(1 + exp(x)), and x itself above 20, where a float cannot tell the two apart. */
static inline number number_softplus(number x) {
    if (!(x.re <= 20))
        return x;
    double y = log1p(exp(x.re));
    double slope = 1 / (1 + exp(-x.re));
    double x_off = number_off(x);
    number result = {y, 0, y, 3 * y + NUMBER_TINY, 0};
    if (slope > 0)
        result.terms += slope * (x_off + 2 * fabs(x.re));
    return number_settle(result, isinf(x_off));
}

/* d softplus(x) / dx */
static inline number number_softplus_slope(number x) {
    return x.re <= 20 ? number_sigmoid(x) : number_of(1, 0);
}

/* silu(x) = x sigmoid(x), and its derivative sigmoid(x) (1 + x (1 - sigmoid(x))). */
static inline number number_silu(number x) {
    return number_mul(x, number_sigmoid(x));
}

static inline number number_silu_slope(number x) {
    number s = number_sigmoid(x);
    number minus_s = {-s.re, 0, s.size, s.terms, s.adds};
    number rest = number_add(number_of(1, 0), minus_s);
    return number_mul(s, number_add(number_of(1, 0), number_mul(x, rest)));
}

/* ---- elements of tensors ------------------------------------------------------- */

static inline int number_present(const mbr_tensor *t) {
    return t->data != NULL;
}

static inline int64_t number_offset(const mbr_tensor *t, int64_t i, int64_t j,
                                    int64_t k, int64_t l) {
    const int64_t index[4] = {i, j, k, l};
    int64_t offset = 0;
    for (int32_t axis = 0; axis < t->ndim; axis++)
        offset += index[axis] * t->stride[axis];
    return offset;
}

static inline double number_from_half(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 0    ? ldexp(fraction, -24)
                  : exponent == 31 ? (fraction ? NAN : INFINITY)
                                   : ldexp(fraction + 1024, exponent - 25);
    return bits >> 15 ? -size : size;
}

static inline double number_from_bfloat(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* The bits of the 16-bit float nearest to value, ties to even: significand_bits with
 * the hidden one, exponents up to and including greatest. */
static inline uint16_t number_to_16(double value, int significand_bits, int greatest) {
    int stored = significand_bits - 1, bias = greatest;
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    uint16_t infinity = (uint16_t)((2 * greatest + 1) << stored);
    if (isnan(value))
        return (uint16_t)(sign | infinity | 1u << (stored - 1));
    if (isinf(value))
        return (uint16_t)(sign | infinity);
    int exponent = 1 - bias;
    if (value != 0 && ilogb(value) > exponent)
        exponent = ilogb(value);
    double units = nearbyint(ldexp(fabs(value), stored - exponent));
    if (exponent > greatest || (exponent == greatest && units >= ldexp(1, stored + 1)))
        return (uint16_t)(sign | infinity);
    /* A hidden bit in units carries into the exponent field by itself. */
    return (uint16_t)(sign |
                      (((uint32_t)(exponent - 1 + bias) << stored) + (uint32_t)units));
}

/* part 0 is the real part, 1 the imaginary part, of which only complex dtypes have
 * any. */
static inline double number_read_part(const mbr_tensor *t, int64_t offset, int part) {
    switch (t->dtype_code << 8 | t->dtype_bits) {
    case MBR_FLOAT << 8 | 16:
        return number_from_half(((const uint16_t *)t->data)[offset]);
    case MBR_BFLOAT << 8 | 16:
        return number_from_bfloat(((const uint16_t *)t->data)[offset]);
    case MBR_FLOAT << 8 | 32:
        return ((const float *)t->data)[offset];
    case MBR_FLOAT << 8 | 64:
        return ((const double *)t->data)[offset];
    case MBR_INT << 8 | 32:
        return ((const int32_t *)t->data)[offset];
    case MBR_COMPLEX << 8 | 64:
        return ((const float *)t->data)[2 * offset + part];
    case MBR_COMPLEX << 8 | 128:
        return ((const double *)t->data)[2 * offset + part];
    }
    return NAN;
}

static inline void number_write_part(const mbr_tensor *t, int64_t offset, int part,
                                     double value) {
    switch (t->dtype_code << 8 | t->dtype_bits) {
    case MBR_FLOAT << 8 | 16:
        ((uint16_t *)t->data)[offset] = number_to_16(value, 11, 15);
        break;
    case MBR_BFLOAT << 8 | 16:
        ((uint16_t *)t->data)[offset] = number_to_16(value, 8, 127);
        break;
    case MBR_FLOAT << 8 | 32:
        ((float *)t->data)[offset] = (float)value;
        break;
    case MBR_FLOAT << 8 | 64:
        ((double *)t->data)[offset] = value;
        break;
    case MBR_COMPLEX << 8 | 64:
        ((float *)t->data)[2 * offset + part] = (float)value;
        break;
    case MBR_COMPLEX << 8 | 128:
        ((double *)t->data)[2 * offset + part] = value;
        break;
    }
}

static inline number number_read(const mbr_tensor *t, int64_t i, int64_t j, int64_t k,
                                 int64_t l) {
    int64_t offset = number_offset(t, i, j, k, l);
    if (t->dtype_code != MBR_COMPLEX)
        return number_of(number_read_part(t, offset, 0), 0);
    return number_of(number_read_part(t, offset, 0), number_read_part(t, offset, 1));
}

static inline void number_write(const mbr_tensor *t, uint32_t flags, int64_t i,
                                int64_t j, int64_t k, int64_t l, number value) {
    int64_t offset = number_offset(t, i, j, k, l);
    int bound = (flags & CONFORMANCE_BOUND) != 0;
    number_write_part(t, offset, 0, bound ? number_off(value) : value.re);
    if (t->dtype_code == MBR_COMPLEX)
        number_write_part(t, offset, 1, bound ? number_off(value) : value.im);
}

#endif
