/* SPDX-License-Identifier: Apache-2.0
 *
 * selective_scan.c - the public functions: check the arguments, find the table of the
 * tensors' device, call. Order and first words of the refusals are those of upstream's
 * selective_scan.cpp; what upstream refuses for its kernels' sake only (unit strides,
 * multiples of 8) is not refused.
 */
#include "selective_scan.h"

#include "../../core/check.h"
#include "../../core/load.h"

enum { CHUNK = 2048, MAX_DSTATE = 256 };

/* What the shapes are made of. */
enum {
    BATCH,
    DIM,
    SEQLEN,
    DSTATE,
    DELTA_DIM,
    N_GROUPS,
    COLUMNS, /* last axis of variable B and C */
    N_CHUNKS,
    PAIRS, /* last axis of x */
    SIZES
};
static const int8_t LIKE_U[] = {BATCH, DIM, SEQLEN, MBR_END};
static const int8_t LIKE_DELTA[] = {BATCH, DELTA_DIM, SEQLEN, MBR_END};
static const int8_t LIKE_A[] = {DIM, DSTATE, MBR_END};
static const int8_t VARIABLE[] = {BATCH, N_GROUPS, DSTATE, COLUMNS, MBR_END};
static const int8_t STATES[] = {BATCH, DIM, N_CHUNKS, PAIRS, MBR_END};
static const int8_t PER_DIM[] = {DIM, MBR_END};
static const int8_t PER_DELTA_DIM[] = {DELTA_DIM, MBR_END};
static const int8_t NOT_EMPTY[] = {BATCH, DIM, MBR_END};

/* The inputs that forward and backward share. */
typedef struct operands {
    const mbr_tensor *u, *delta, *A, *B, *C, *D, *z, *delta_bias;
} operands;
#define OPERANDS(p)                                                                    \
    {&(p)->u, &(p)->delta, &(p)->A, &(p)->B,                                           \
     &(p)->C, &(p)->D,     &(p)->z, &(p)->delta_bias}

/* What they say about every other tensor. */
typedef struct problem {
    uint32_t input, weight; /* dtypes of u and of A */
    uint32_t B_dtype, C_dtype;
    const int8_t *B_axes, *C_axes;
    mbr__size sizes[SIZES];
} problem;

static bool is_variable(const mbr_tensor *B_or_C) {
    return B_or_C->ndim >= 3;
}

static problem pose(const operands *in) {
    const uint32_t input = mbr__dtype(in->u), weight = mbr__dtype(in->A);
    const bool variable_B = is_variable(in->B), variable_C = is_variable(in->C);
    const bool is_complex = weight == MBR_COMPLEX64;
    const int64_t seqlen = mbr__length(in->u, 2), dstate = mbr__length(in->A, 1);
    return (problem){
        .input = input,
        .weight = weight,
        .B_dtype = variable_B ? input : weight,
        .C_dtype = variable_C ? input : weight,
        .B_axes = variable_B ? VARIABLE : LIKE_A,
        .C_axes = variable_C ? VARIABLE : LIKE_A,
        .sizes = {
            [BATCH] = {"batch_size", "u.shape[0]", mbr__length(in->u, 0)},
            [DIM] = {"dim", "u.shape[1]", mbr__length(in->u, 1)},
            [SEQLEN] = {"seqlen", "u.shape[2]", seqlen},
            [DSTATE] = {"dstate", "A.shape[1]", dstate},
            [DELTA_DIM] = {"dim", "delta.shape[1]", mbr__length(in->delta, 1)},
            [N_GROUPS] = {"n_groups",
                          variable_B ? "B.shape[1]" : "that of a constant B",
                          variable_B ? mbr__length(in->B, 1) : 1},
            [COLUMNS] = {"!is_complex ? seqlen : seqlen * 2",
                         is_complex ? "2 * u.shape[2]" : "u.shape[2]",
                         is_complex ? 2 * seqlen : seqlen},
            [N_CHUNKS] = {"n_chunks", "ceil(u.shape[2] / 2048)",
                          (seqlen + CHUNK - 1) / CHUNK},
            [PAIRS] = {"2 * dstate", "2 * A.shape[1]", 2 * dstate},
        }};
}

/* ---- inputs ------------------------------------------------------------------- */

static mbr_status check_dstate(const mbr_tensor *A) {
    MBR_TRY(mbr__check_axis("A", A, 1));
    if (A->shape[1] < 1 || A->shape[1] > MAX_DSTATE)
        MBR_FAIL(MBR_E_ARG,
                 "selective_scan only supports state dimension <= 256: A.shape[1] is "
                 "%lld, must be 1 .. %d",
                 (long long)A->shape[1], MAX_DSTATE);
    return MBR_OK;
}

/* Is dim a multiple of this size, upstream's divisor? */
static mbr_status check_divides(const problem *s, int axis, const char *divisor) {
    const mbr__size *dim = &s->sizes[DIM], *size = &s->sizes[axis];
    if (dim->value == 0) /* refused below, in upstream's words for an empty grid */
        return MBR_OK;
    if (size->value > 0 && dim->value % size->value == 0)
        return MBR_OK;
    MBR_FAIL(MBR_E_ARG, "dims should be dividable by %s: %s is %lld, %s is %lld",
             divisor, dim->from, (long long)dim->value, size->from,
             (long long)size->value);
}

/* dout is NULL in the forward. */
static mbr_status check_operands(const operands *in, const mbr_tensor *dout,
                                 const problem *s) {
    const mbr__rule first[] = {
        {"u", in->u, MBR_REQUIRED, MBR_REAL, LIKE_U,
         "input_type == at::ScalarType::Float || input_type == at::ScalarType::Half || "
         "input_type == at::ScalarType::BFloat16"},
        {"A", in->A, MBR_REQUIRED, MBR_FP32 | MBR_COMPLEX64, LIKE_A,
         "weight_type == at::ScalarType::Float || "
         "weight_type == at::ScalarType::ComplexFloat"},
        {"delta", in->delta, MBR_REQUIRED, s->input, LIKE_DELTA,
         "delta.scalar_type() == input_type"},
        {"B", in->B, MBR_REQUIRED, s->B_dtype, s->B_axes,
         "B.scalar_type() == (!is_variable_B ? weight_type : input_type)"},
        {"C", in->C, MBR_REQUIRED, s->C_dtype, s->C_axes,
         "C.scalar_type() == (!is_variable_C ? weight_type : input_type)"},
        {"dout", dout, MBR_REQUIRED, s->input | MBR_FP32, LIKE_U,
         "dout.scalar_type() == input_type"},
    };
    const mbr__rule rest[] = {
        {"D", in->D, MBR_OPTIONAL, MBR_FP32, PER_DIM,
         "D.scalar_type() == at::ScalarType::Float"},
        {"delta_bias", in->delta_bias, MBR_OPTIONAL, MBR_FP32, PER_DELTA_DIM,
         "delta_bias.scalar_type() == at::ScalarType::Float"},
        {"z", in->z, MBR_OPTIONAL, s->input, LIKE_U, "z.scalar_type() == input_type"},
    };
    const size_t n = dout ? 6 : 5;
    MBR_TRY(mbr__check_dtypes(first, n));
    MBR_TRY(check_dstate(in->A));
    MBR_TRY(mbr__check_shapes(first, n, s->sizes));
    MBR_TRY(check_divides(s, N_GROUPS, "n_groups"));
    MBR_TRY(check_divides(s, DELTA_DIM, "delta_dim"));
    MBR_TRY(mbr__check_inputs(rest, 3, s->sizes));
    return mbr__check_not_empty(s->sizes, NOT_EMPTY);
}

/* ---- forward ------------------------------------------------------------------ */

static mbr_status check_fwd(const mbr_selective_scan_fwd_params *p) {
    const operands in = OPERANDS(p);
    const problem s = pose(&in);
    const mbr__pair pairs[] = {{MBR_FIELD(p, out_z), MBR_FIELD(p, z), NULL}};
    const mbr__rule outputs[] = {
        {MBR_FIELD(p, out), MBR_REQUIRED, s.input | MBR_FP32, LIKE_U, NULL},
        {MBR_FIELD(p, x), MBR_REQUIRED, s.weight, STATES, NULL},
        {MBR_FIELD(p, out_z), MBR_OPTIONAL, s.input, LIKE_U, NULL},
    };
    MBR_TRY(mbr__check_reserved(p->reserved));
    MBR_TRY(check_operands(&in, NULL, &s));
    MBR_TRY(mbr__check_pairs(pairs, 1));
    MBR_TRY(mbr__check_outputs(outputs, 3, s.sizes));
    return mbr__check_contiguous("x", &p->x);
}

mbr_status mbr_selective_scan_fwd(const mbr_selective_scan_fwd_params *p) {
    mbr_selective_scan_fwd_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    MBR_TRY(check_fwd(p));
    MBR_TRY(mbr__table(&p->call, "selective_scan_fwd", &t));
    return mbr__answer_of(t->name, "selective_scan_fwd", t->selective_scan_fwd(p));
}

/* ---- backward ----------------------------------------------------------------- */

/* The forward's results; upstream looks at out only if there is a z. */
static mbr_status check_results(const mbr_selective_scan_bwd_params *p,
                                const problem *s) {
    const bool gated = mbr__present(&p->z);
    const mbr__rule results[] = {
        {MBR_FIELD(p, x), MBR_OPTIONAL, s->weight, STATES,
         "x.scalar_type() == weight_type"},
        {MBR_FIELD(p, out), MBR_REQUIRED, s->input | MBR_FP32, LIKE_U,
         "out.scalar_type() == input_type"},
    };
    if (gated && !mbr__present(&p->out))
        MBR_FAIL(MBR_E_ARG,
                 MBR_EXPECTED("out_.has_value()") "z is present, out is absent");
    if (s->sizes[N_CHUNKS].value > 1 && !mbr__present(&p->x))
        MBR_FAIL(MBR_E_ARG,
                 MBR_EXPECTED("x_.has_value()") "x is absent, u.shape[2] is %lld > %d",
                 (long long)s->sizes[SEQLEN].value, CHUNK);
    MBR_TRY(mbr__check_inputs(results, gated ? 2 : 1, s->sizes));
    return mbr__present(&p->x) ? mbr__check_contiguous("x", &p->x) : MBR_OK;
}

static mbr_status check_bwd_inputs(const mbr_selective_scan_bwd_params *p,
                                   const operands *in, const problem *s) {
    MBR_TRY(mbr__check_reserved(p->reserved));
    MBR_TRY(check_operands(in, &p->dout, s));
    return check_results(p, s);
}

static mbr_status check_bwd(const mbr_selective_scan_bwd_params *p) {
    const operands in = OPERANDS(p);
    const problem s = pose(&in);
    const mbr__pair pairs[] = {
        {MBR_FIELD(p, dD), MBR_FIELD(p, D), NULL},
        {MBR_FIELD(p, ddelta_bias), MBR_FIELD(p, delta_bias), NULL},
        {MBR_FIELD(p, dz), MBR_FIELD(p, z), NULL},
    };
    const mbr__rule outputs[] = {
        {MBR_FIELD(p, dz), MBR_OPTIONAL, s.input, LIKE_U,
         "dz.scalar_type() == input_type"},
        {MBR_FIELD(p, du), MBR_REQUIRED, s.input, LIKE_U, NULL},
        {MBR_FIELD(p, ddelta), MBR_REQUIRED, s.input, LIKE_DELTA, NULL},
        {MBR_FIELD(p, dA), MBR_REQUIRED, s.weight, LIKE_A, NULL},
        {MBR_FIELD(p, dB), MBR_REQUIRED, s.B_dtype, s.B_axes, NULL},
        {MBR_FIELD(p, dC), MBR_REQUIRED, s.C_dtype, s.C_axes, NULL},
        {MBR_FIELD(p, dD), MBR_OPTIONAL, MBR_FP32, PER_DIM, NULL},
        {MBR_FIELD(p, ddelta_bias), MBR_OPTIONAL, MBR_FP32, PER_DELTA_DIM, NULL},
        {MBR_FIELD(p, out_z), MBR_OPTIONAL, s.input, LIKE_U, NULL},
    };
    MBR_TRY(check_bwd_inputs(p, &in, &s));
    MBR_TRY(mbr__check_pairs(pairs, 3));
    if (mbr__present(&p->out_z) && !mbr__present(&p->z))
        MBR_FAIL(MBR_E_ARG,
                 "out_z can be recomputed only with a z: out_z is present, z "
                 "is absent");
    return mbr__check_outputs(outputs, 9, s.sizes);
}

mbr_status mbr_selective_scan_bwd(const mbr_selective_scan_bwd_params *p) {
    mbr_selective_scan_bwd_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    MBR_TRY(check_bwd(p));
    MBR_TRY(mbr__table(&p->call, "selective_scan_bwd", &t));
    MBR_TRY(mbr__check_workspace(&p->workspace, t->selective_scan_bwd_workspace(p)));
    return mbr__answer_of(t->name, "selective_scan_bwd", t->selective_scan_bwd(p));
}

static mbr_status ask_bwd_workspace(const mbr_selective_scan_bwd_params *p,
                                    size_t *size) {
    mbr_selective_scan_bwd_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    const operands in = OPERANDS(p);
    const problem s = pose(&in);
    MBR_TRY(check_bwd_inputs(p, &in, &s));
    MBR_TRY(mbr__table(&p->call, "selective_scan_bwd_workspace", &t));
    *size = t->selective_scan_bwd_workspace(p);
    return MBR_OK;
}

size_t mbr_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p) {
    size_t size = 0;
    return ask_bwd_workspace(p, &size) == MBR_OK ? size : 0;
}
