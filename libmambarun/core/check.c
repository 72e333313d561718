/* SPDX-License-Identifier: Apache-2.0
 *
 * check.c - holds the tensors of a call against the rows of check.h. Looks at shapes,
 * strides and dtypes only, never at what the tensors contain.
 */
#include "check.h"

#include <stdio.h>

enum { MAX_NDIM = 4, TEXT = 128, WORKSPACE_ALIGNMENT = 64 };

/* No machine has more; below it, sizes times dstate times bytes stay within 64 bits. */
static const int64_t MOST_ELEMENTS = (int64_t)1 << 48;

static const struct {
    uint8_t code, bits;
    uint8_t alignment; /* in bytes */
    uint32_t dtype;    /* 0: known by name only, as nothing here takes it */
    const char *name;
} dtypes[] = {
    {MBR_FLOAT, 32, 4, MBR_FP32, "fp32"},
    {MBR_FLOAT, 16, 2, MBR_FP16, "fp16"},
    {MBR_BFLOAT, 16, 2, MBR_BF16, "bf16"},
    {MBR_COMPLEX, 64, 4, MBR_COMPLEX64, "complex64"},
    {MBR_INT, 32, 4, MBR_INT32, "int32"},
    {MBR_FLOAT, 64, 8, 0, "fp64"},
    {MBR_COMPLEX, 128, 8, 0, "complex128"},
    {MBR_INT, 64, 8, 0, "int64"},
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* Index into dtypes; DTYPES if the tensor's is not among them. */
static size_t find_dtype(const mbr_tensor *t) {
    size_t i = 0;
    while (i < DTYPES &&
           (dtypes[i].code != t->dtype_code || dtypes[i].bits != t->dtype_bits))
        i++;
    return i;
}

uint32_t mbr__dtype(const mbr_tensor *t) {
    const size_t i = find_dtype(t);
    return i < DTYPES ? dtypes[i].dtype : 0;
}

static bool is_empty(const mbr_tensor *t) {
    for (int32_t i = 0; i < t->ndim && i < MAX_NDIM; i++)
        if (t->shape[i] == 0)
            return true;
    return false;
}

bool mbr__present(const mbr_tensor *t) {
    return t->data || is_empty(t);
}

int64_t mbr__length(const mbr_tensor *t, int32_t axis) {
    const bool sound = axis < t->ndim && axis < MAX_NDIM && t->shape[axis] >= 0 &&
                       t->shape[axis] <= MOST_ELEMENTS;
    return sound ? t->shape[axis] : 0;
}

mbr_status mbr__check_reserved(uint32_t reserved) {
    if (reserved != 0)
        MBR_FAIL(MBR_E_ARG, "reserved is %u, must be 0", reserved);
    return MBR_OK;
}

/* ---- is it a tensor? ---------------------------------------------------------- */

/* Axes of length 0 or 1 are never stepped along: their strides mean nothing. */
static int64_t stride_of(const mbr_tensor *t, int32_t axis) {
    if (t->shape[axis] <= 1)
        return 0;
    return t->stride[axis] < 0 ? -t->stride[axis] : t->stride[axis];
}

/* Whether a * b, stored in *product, stays within what a machine can have. */
static bool fits(int64_t a, int64_t b, int64_t *product) {
    return !__builtin_mul_overflow(a, b, product) && *product <= MOST_ELEMENTS &&
           *product >= -MOST_ELEMENTS;
}

static mbr_status check_extent(const char *name, const mbr_tensor *t) {
    int64_t count = 1, reach;
    for (int32_t i = 0; i < t->ndim; i++) {
        const int64_t length = t->shape[i];
        if (length < 0)
            MBR_FAIL(MBR_E_ARG, "%s.shape[%d] is %lld, must not be negative", name, i,
                     (long long)length);
        if (length > 0 && !fits(count, length, &count))
            MBR_FAIL(MBR_E_ARG, "%s.shape[%d] is %lld: more than 2^48 elements", name,
                     i, (long long)length);
        if (length > 1 && !fits(length - 1, t->stride[i], &reach))
            MBR_FAIL(MBR_E_ARG, "%s.stride[%d] is %lld: reaches over 2^48 elements",
                     name, i, (long long)t->stride[i]);
    }
    return MBR_OK;
}

static mbr_status check_form(const mbr__rule *r) {
    const mbr_tensor *t = r->tensor;
    if (t->ndim < 0 || t->ndim > MAX_NDIM)
        MBR_FAIL(MBR_E_ARG, "%s.ndim is %d, must be 0 .. %d", r->name, t->ndim,
                 MAX_NDIM);
    if (t->reserved != 0)
        MBR_FAIL(MBR_E_ARG, "%s.reserved is %u, must be 0", r->name, t->reserved);
    return check_extent(r->name, t);
}

/* ---- dtype -------------------------------------------------------------------- */

/* "fp16", or DLPack's numbers where there is no name. */
static const char *write_dtype(char text[TEXT], const mbr_tensor *t) {
    const size_t i = find_dtype(t);
    if (i < DTYPES)
        return dtypes[i].name;
    snprintf(text, TEXT, "DLPack's code %u with %u bits", t->dtype_code, t->dtype_bits);
    return text;
}

/* "fp32, fp16 or bf16" */
static const char *write_dtypes(char text[TEXT], uint32_t set) {
    int used = 0;
    for (size_t i = 0; i < DTYPES; i++) {
        if (!(dtypes[i].dtype & set))
            continue;
        set &= ~dtypes[i].dtype;
        const char *before = used == 0 ? "" : set ? ", " : " or ";
        used +=
            snprintf(text + used, TEXT - (size_t)used, "%s%s", before, dtypes[i].name);
    }
    return text;
}

static mbr_status fail_dtype(const mbr__rule *r) {
    char is[TEXT], must[TEXT];
    const char *text = write_dtype(is, r->tensor);
    if (r->condition)
        MBR_FAIL(MBR_E_ARG, MBR_EXPECTED("%s") "%s.dtype is %s, must be %s",
                 r->condition, r->name, text, write_dtypes(must, r->dtypes));
    MBR_FAIL(MBR_E_ARG, "%s.dtype is %s, must be %s", r->name, text,
             write_dtypes(must, r->dtypes));
}

static mbr_status check_dtype(const mbr__rule *r) {
    const mbr_tensor *t = r->tensor;
    if (!mbr__present(t))
        MBR_FAIL(MBR_E_ARG, "%s must be present: %s.data is NULL", r->name, r->name);
    MBR_TRY(check_form(r));
    const size_t i = find_dtype(t);
    if (i == DTYPES || !(dtypes[i].dtype & r->dtypes))
        return fail_dtype(r);
    const unsigned past = (unsigned)((uintptr_t)t->data % dtypes[i].alignment);
    if (past != 0)
        MBR_FAIL(MBR_E_ARG, "%s.data modulo %u is %u, must be 0", r->name,
                 dtypes[i].alignment, past);
    return MBR_OK;
}

/* ---- shape -------------------------------------------------------------------- */

static int32_t count_axes(const int8_t *axes) {
    int32_t n = 0;
    while (axes[n] != MBR_END)
        n++;
    return n;
}

/* "batch_size, dim, seqlen" */
static const char *write_shape(char text[TEXT], const int8_t *axes,
                               const mbr__size *sizes) {
    int used = 0;
    for (int32_t i = 0; axes[i] != MBR_END; i++)
        used += snprintf(text + used, TEXT - (size_t)used, "%s%s", i ? ", " : "",
                         sizes[axes[i]].word);
    return text;
}

static mbr_status check_shape(const mbr__rule *r, const mbr__size *sizes) {
    const mbr_tensor *t = r->tensor;
    const int32_t ndim = count_axes(r->axes);
    char shape[TEXT];
    if (t->ndim != ndim)
        MBR_FAIL(MBR_E_ARG, "%s must have shape (%s): %s.ndim is %d, must be %d",
                 r->name, write_shape(shape, r->axes, sizes), r->name, t->ndim, ndim);
    for (int32_t i = 0; i < ndim; i++) {
        const mbr__size *size = &sizes[r->axes[i]];
        if (t->shape[i] != size->value)
            MBR_FAIL(MBR_E_ARG,
                     "%s must have shape (%s): %s.shape[%d] is %lld, %s is %lld",
                     r->name, write_shape(shape, r->axes, sizes), r->name, i,
                     (long long)t->shape[i], size->from, (long long)size->value);
    }
    return MBR_OK;
}

mbr_status mbr__check_axis(const char *name, const mbr_tensor *t, int32_t axis) {
    if (t->ndim > axis)
        return MBR_OK;
    if (t->ndim == 0)
        MBR_FAIL(
            MBR_E_ARG,
            "Dimension specified as %d but tensor has no dimensions: %s.ndim is 0, "
            "must be %d",
            axis, name, axis + 1);
    MBR_FAIL(
        MBR_E_ARG,
        "Dimension out of range (expected to be in range of [%d, %d], but got %d): "
        "%s.ndim is %d, must be %d",
        -t->ndim, t->ndim - 1, axis, name, t->ndim, axis + 1);
}

/* ---- strides ------------------------------------------------------------------ */

mbr_status mbr__check_contiguous(const char *name, const mbr_tensor *t) {
    int64_t step = 1;
    if (is_empty(t))
        return MBR_OK;
    for (int32_t i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && t->stride[i] != step)
            MBR_FAIL(
                MBR_E_ARG,
                MBR_EXPECTED("%s.is_contiguous()") "%s.stride[%d] is %lld, must be "
                                                   "%lld",
                name, name, i, (long long)t->stride[i], (long long)step);
        step *= t->shape[i];
    }
    return MBR_OK;
}

/* What the axes with smaller strides than this one span, in elements. */
static int64_t reach_below(const mbr_tensor *t, int32_t axis) {
    int64_t reach = 0;
    for (int32_t i = 0; i < t->ndim; i++)
        if (stride_of(t, i) < stride_of(t, axis) ||
            (stride_of(t, i) == stride_of(t, axis) && i < axis))
            reach += (t->shape[i] - 1) * stride_of(t, i);
    return reach;
}

/* Each stride steps over all that the smaller ones reach. Sufficient for elements not
 * to share memory, and true of whatever slicing and transposing make of a dense tensor;
 * combs that interleave without touching are refused too. */
static mbr_status check_overlap(const mbr__rule *r) {
    const mbr_tensor *t = r->tensor;
    if (is_empty(t))
        return MBR_OK;
    for (int32_t i = 0; i < t->ndim; i++)
        if (t->shape[i] > 1 && stride_of(t, i) <= reach_below(t, i))
            MBR_FAIL(
                MBR_E_ARG,
                "%s is written and must not overlap itself: %s.stride[%d] is %lld, "
                "the smaller strides reach %lld",
                r->name, r->name, i, (long long)t->stride[i],
                (long long)reach_below(t, i));
    return MBR_OK;
}

/* ---- rows --------------------------------------------------------------------- */

static bool skip(const mbr__rule *r) {
    return r->need == MBR_OPTIONAL && !mbr__present(r->tensor);
}

mbr_status mbr__check_dtypes(const mbr__rule *rules, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!skip(&rules[i]))
            MBR_TRY(check_dtype(&rules[i]));
    return MBR_OK;
}

mbr_status mbr__check_shapes(const mbr__rule *rules, size_t n, const mbr__size *sizes) {
    for (size_t i = 0; i < n; i++)
        if (!skip(&rules[i]))
            MBR_TRY(check_shape(&rules[i], sizes));
    return MBR_OK;
}

mbr_status mbr__check_inputs(const mbr__rule *rules, size_t n, const mbr__size *sizes) {
    for (size_t i = 0; i < n; i++) {
        MBR_TRY(mbr__check_dtypes(&rules[i], 1));
        MBR_TRY(mbr__check_shapes(&rules[i], 1, sizes));
    }
    return MBR_OK;
}

mbr_status mbr__check_outputs(const mbr__rule *rules, size_t n,
                              const mbr__size *sizes) {
    MBR_TRY(mbr__check_inputs(rules, n, sizes));
    for (size_t i = 0; i < n; i++)
        if (!skip(&rules[i]))
            MBR_TRY(check_overlap(&rules[i]));
    return MBR_OK;
}

static const char *say_presence(const mbr_tensor *t) {
    return mbr__present(t) ? "present" : "absent";
}

static mbr_status check_pair(const mbr__pair *p) {
    if (mbr__present(p->tensor) == mbr__present(p->partner))
        return MBR_OK;
    const char *is = say_presence(p->tensor), *must = say_presence(p->partner);
    if (p->condition)
        MBR_FAIL(MBR_E_ARG, MBR_EXPECTED("%s") "%s is %s, %s is %s", p->condition,
                 p->name, is, p->partner_name, must);
    MBR_FAIL(MBR_E_ARG, "%s must be present if and only if %s is: %s is %s, %s is %s",
             p->name, p->partner_name, p->name, is, p->partner_name, must);
}

mbr_status mbr__check_pairs(const mbr__pair *pairs, size_t n) {
    for (size_t i = 0; i < n; i++)
        MBR_TRY(check_pair(&pairs[i]));
    return MBR_OK;
}

mbr_status mbr__check_not_empty(const mbr__size *sizes, const int8_t *axes) {
    for (int32_t i = 0; axes[i] != MBR_END; i++)
        if (sizes[axes[i]].value == 0)
            MBR_FAIL(MBR_E_ARG,
                     "CUDA error: invalid configuration argument: %s is 0, must be at "
                     "least 1",
                     sizes[axes[i]].from);
    return MBR_OK;
}

mbr_status mbr__check_workspace(const mbr_workspace *w, size_t need) {
    if (need == 0)
        return MBR_OK;
    if (!w->data)
        MBR_FAIL(MBR_E_ARG, "workspace.data is NULL, must point at %zu bytes", need);
    if (w->size < need)
        MBR_FAIL(MBR_E_ARG, "workspace.size is %llu, must be at least %zu",
                 (unsigned long long)w->size, need);
    const unsigned past = (unsigned)((uintptr_t)w->data % WORKSPACE_ALIGNMENT);
    if (past != 0)
        MBR_FAIL(MBR_E_ARG, "workspace.data modulo %d is %u, must be 0",
                 WORKSPACE_ALIGNMENT, past);
    return MBR_OK;
}

mbr_status mbr__answer_of(const char *variant, const char *op, mbr_status s) {
    if (s == MBR_OK)
        return MBR_OK;
    if (s == MBR_E_CUDA) /* by way of the launcher, which left the driver's words */
        MBR_FAIL(s, "%s: %s", op, mbr_last_error());
    MBR_FAIL(s, "%s: %s answers %s", op, variant, mbr_status_name(s));
}
