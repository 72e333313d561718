/* SPDX-License-Identifier: Apache-2.0
 *
 * check.h - what a room demands of its tensors, as rows, and the functions that hold a
 * call against them. Knows tensors, not ops. Each function refuses with MBR_E_ARG: the
 * words that upstream has for the refusal first, then field, value and rule.
 */
#ifndef MBR_CHECK_H
#define MBR_CHECK_H

#include "../mambarun.h"
#include "status.h"

#include <stdbool.h>

/* Upstream's text for a check it gave no words of its own: PyTorch's. */
#define MBR_EXPECTED(condition)                                                        \
    "Expected " condition " to be true, but got false.  (Could this error message be " \
    "improved?  If so, please report an enhancement request to PyTorch.): "

enum { /* dtypes, as bits of a set */
       MBR_FP32 = 1u,
       MBR_FP16 = 2u,
       MBR_BF16 = 4u,
       MBR_COMPLEX64 = 8u,
       MBR_INT32 = 16u,
       MBR_REAL = MBR_FP32 | MBR_FP16 | MBR_BF16
};

/* A size that tensors share. */
typedef struct mbr__size {
    const char *word; /* upstream's name for it, as in its messages: "seqlen" */
    const char *from; /* where this call has it from: "u.shape[2]" */
    int64_t value;
} mbr__size;

enum mbr__need { MBR_REQUIRED, MBR_OPTIONAL };
enum { MBR_END = -1 }; /* ends a list of axes */

/* One tensor and what it must be. */
typedef struct mbr__rule {
    const char *name; /* of the field */
    const mbr_tensor *tensor;
    enum mbr__need need;
    uint32_t dtypes;       /* the set it may be of */
    const int8_t *axes;    /* its shape: indices into the room's sizes, then MBR_END */
    const char *condition; /* upstream's source text for the dtype check, or NULL */
} mbr__rule;

/* Two tensors that are both there or both absent. */
typedef struct mbr__pair {
    const char *name;
    const mbr_tensor *tensor;
    const char *partner_name;
    const mbr_tensor *partner;
    const char *condition; /* upstream's source text, or NULL */
} mbr__pair;

/* A field of a params struct as members of a rule or a pair. */
#define MBR_FIELD(p, field) #field, &(p)->field

/* The dtype as a bit; 0 if it is none of the above. */
uint32_t mbr__dtype(const mbr_tensor *t);

/* The axis' length; 0 where there is no such axis or its length is none that a tensor
 * can have, which mbr__check_dtypes and mbr__check_shapes refuse. */
int64_t mbr__length(const mbr_tensor *t, int32_t axis);

/* False if data is NULL although the shape is not empty. */
bool mbr__present(const mbr_tensor *t);

/* The field reserved at the end of the params. */
mbr_status mbr__check_reserved(uint32_t reserved);

/* Is it there, is it a tensor at all, may it have this dtype? Row by row. */
mbr_status mbr__check_dtypes(const mbr__rule *rules, size_t n);

/* Has it the shape that the sizes say? Row by row, after mbr__check_dtypes. */
mbr_status mbr__check_shapes(const mbr__rule *rules, size_t n, const mbr__size *sizes);

/* Has it this axis at all? Upstream reads its length before it checks the shape, and
 * PyTorch's text for that is an IndexError's. */
mbr_status mbr__check_axis(const char *name, const mbr_tensor *t, int32_t axis);

/* Both, one row after the other. */
mbr_status mbr__check_inputs(const mbr__rule *rules, size_t n, const mbr__size *sizes);

/* As inputs; besides, no two elements of one tensor may share memory. */
mbr_status mbr__check_outputs(const mbr__rule *rules, size_t n, const mbr__size *sizes);

/* Present together, absent together. */
mbr_status mbr__check_pairs(const mbr__pair *pairs, size_t n);

/* Row-major without gaps. Strides of axes of length 1 do not count. */
mbr_status mbr__check_contiguous(const char *name, const mbr_tensor *t);

/* An empty launch: what CUDA says upstream when one of these sizes is 0. */
mbr_status mbr__check_not_empty(const mbr__size *sizes, const int8_t *axes);

/* need bytes, aligned to 64. */
mbr_status mbr__check_workspace(const mbr_workspace *w, size_t need);

/* What the variant answered. It has no access to the message, except by launching a
 * kernel; here it gets one. */
mbr_status mbr__answer_of(const char *variant, const char *op, mbr_status s);

#endif
