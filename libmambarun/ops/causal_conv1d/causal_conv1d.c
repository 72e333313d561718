/* SPDX-License-Identifier: Apache-2.0
 *
 * causal_conv1d.c - the public functions: check the arguments, find the table of the
 * tensors' device, call. Order and first words of the refusals are those of upstream's
 * causal_conv1d.cpp; what upstream refuses for its kernels' sake only (layouts, unit
 * strides, multiples of 8, a bias unlike the weight) is not refused.
 */
#include "causal_conv1d.h"

#include "../../core/check.h"
#include "../../core/load.h"

enum { LEAST_WIDTH = 2, MOST_WIDTH = 4 };

/* What the shapes are made of. */
enum {
    BATCH,
    DIM,
    SEQLEN,
    WIDTH,
    BEFORE, /* inputs before time 0 that count */
    ENTRIES,
    STATE_LEN,
    SIZES
};
static const int8_t LIKE_X[] = {BATCH, DIM, SEQLEN, MBR_END};
static const int8_t LIKE_WEIGHT[] = {DIM, WIDTH, MBR_END};
static const int8_t PER_DIM[] = {DIM, MBR_END};
static const int8_t PER_BATCH[] = {BATCH, MBR_END};
static const int8_t PER_TOKEN[] = {BATCH, SEQLEN, MBR_END};
static const int8_t STATES[] = {BATCH, DIM, BEFORE, MBR_END};
static const int8_t STATE_PER_BATCH[] = {BATCH, DIM, STATE_LEN, MBR_END};
static const int8_t STATE_PER_ENTRY[] = {ENTRIES, DIM, STATE_LEN, MBR_END};

static const char X_DTYPE[] =
    "input_type == at::ScalarType::Float || input_type == at::ScalarType::Half || "
    "input_type == at::ScalarType::BFloat16";
static const char WEIGHT_DTYPE[] =
    "weight_type == at::ScalarType::Float || weight_type == at::ScalarType::Half || "
    "weight_type == at::ScalarType::BFloat16";
static const char BIAS_DTYPE[] = "bias.scalar_type() == weight_type";

/* The inputs that forward and backward share. */
typedef struct operands {
    const mbr_tensor *x, *weight, *bias, *seq_idx, *initial_states;
} operands;
#define OPERANDS(p)                                                                    \
    {&(p)->x, &(p)->weight, &(p)->bias, &(p)->seq_idx, &(p)->initial_states}

/* What x, weight and conv_state say about every other tensor. */
typedef struct problem {
    uint32_t input, weight; /* dtypes of x and of weight */
    mbr__size sizes[SIZES];
} problem;

/* state is NULL but in the update. */
static problem pose(const mbr_tensor *x, const mbr_tensor *weight,
                    const mbr_tensor *state) {
    const int64_t width = mbr__length(weight, 1);
    return (problem){.input = mbr__dtype(x),
                     .weight = mbr__dtype(weight),
                     .sizes = {
                         [BATCH] = {"batch_size", "x.shape[0]", mbr__length(x, 0)},
                         [DIM] = {"dim", "x.shape[1]", mbr__length(x, 1)},
                         [SEQLEN] = {"seqlen", "x.shape[2]", mbr__length(x, 2)},
                         [WIDTH] = {"width", "weight.shape[1]", width},
                         [BEFORE] = {"width - 1", "weight.shape[1] - 1", width - 1},
                         [ENTRIES] = {"conv_state_entries", "conv_state.shape[0]",
                                      state ? mbr__length(state, 0) : 0},
                         [STATE_LEN] = {"conv_state_len", "conv_state.shape[2]",
                                        state ? mbr__length(state, 2) : 0},
                     }};
}

static mbr_status check_width(const problem *s) {
    const mbr__size *width = &s->sizes[WIDTH];
    if (width->value >= LEAST_WIDTH && width->value <= MOST_WIDTH)
        return MBR_OK;
    MBR_FAIL(MBR_E_ARG,
             "causal_conv1d only supports width between 2 and 4: %s is %lld, must be "
             "%d .. %d",
             width->from, (long long)width->value, LEAST_WIDTH, MOST_WIDTH);
}

/* ---- inputs ------------------------------------------------------------------- */

/* dout is NULL in the forward. */
static mbr_status check_operands(const operands *in, const mbr_tensor *dout,
                                 const problem *s) {
    const mbr__rule first[] = {
        {"x", in->x, MBR_REQUIRED, MBR_REAL, LIKE_X, X_DTYPE},
        {"weight", in->weight, MBR_REQUIRED, MBR_REAL, LIKE_WEIGHT, WEIGHT_DTYPE},
        {"dout", dout, MBR_REQUIRED, s->input, LIKE_X, NULL},
    };
    const mbr__rule rest[] = {
        {"bias", in->bias, MBR_OPTIONAL, MBR_REAL, PER_DIM, BIAS_DTYPE},
        {"seq_idx", in->seq_idx, MBR_OPTIONAL, MBR_INT32, PER_TOKEN,
         "seq_idx.scalar_type() == torch::kInt32"},
        {"initial_states", in->initial_states, MBR_OPTIONAL, s->input, STATES,
         "initial_states.scalar_type() == input_type"},
    };
    const size_t n = dout ? 3 : 2;
    MBR_TRY(mbr__check_dtypes(first, n));
    MBR_TRY(mbr__check_shapes(first, n, s->sizes));
    MBR_TRY(check_width(s));
    MBR_TRY(mbr__check_inputs(rest, 3, s->sizes));
    return mbr__check_not_empty(s->sizes, LIKE_X);
}

/* ---- forward ------------------------------------------------------------------ */

static mbr_status check_fwd(const mbr_causal_conv1d_fwd_params *p) {
    const operands in = OPERANDS(p);
    const problem s = pose(&p->x, &p->weight, NULL);
    const mbr__rule outputs[] = {
        {MBR_FIELD(p, final_states_out), MBR_OPTIONAL, s.input, STATES,
         "final_states.scalar_type() == input_type"},
        {MBR_FIELD(p, out), MBR_REQUIRED, s.input, LIKE_X, NULL},
    };
    MBR_TRY(mbr__check_reserved(p->reserved));
    MBR_TRY(check_operands(&in, NULL, &s));
    return mbr__check_outputs(outputs, 2, s.sizes);
}

mbr_status mbr_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p) {
    mbr_causal_conv1d_fwd_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    MBR_TRY(check_fwd(p));
    MBR_TRY(mbr__table(&p->call, "causal_conv1d_fwd", &t));
    return mbr__answer_of(t->name, "causal_conv1d_fwd", t->causal_conv1d_fwd(p));
}

/* ---- backward ----------------------------------------------------------------- */

static mbr_status check_bwd_inputs(const mbr_causal_conv1d_bwd_params *p,
                                   const problem *s) {
    const operands in = OPERANDS(p);
    const mbr__rule rest[] = {
        {MBR_FIELD(p, dfinal_states), MBR_OPTIONAL, s->input, STATES,
         "dfinal_states.scalar_type() == input_type"},
    };
    MBR_TRY(check_operands(&in, &p->dout, s));
    return mbr__check_inputs(rest, 1, s->sizes);
}

static mbr_status check_bwd(const mbr_causal_conv1d_bwd_params *p) {
    const problem s = pose(&p->x, &p->weight, NULL);
    const mbr__pair pairs[] = {{MBR_FIELD(p, dbias), MBR_FIELD(p, bias),
                                "bias_.has_value() == dbias_.has_value()"}};
    const mbr__rule outputs[] = {
        {MBR_FIELD(p, dx), MBR_REQUIRED, s.input, LIKE_X,
         "dx.scalar_type() == input_type"},
        {MBR_FIELD(p, dweight), MBR_REQUIRED, MBR_FP32 | s.weight, LIKE_WEIGHT, NULL},
        {MBR_FIELD(p, dbias), MBR_OPTIONAL, MBR_FP32 | mbr__dtype(&p->bias), PER_DIM,
         NULL},
        {MBR_FIELD(p, dinitial_states), MBR_OPTIONAL, s.input, STATES, NULL},
    };
    MBR_TRY(check_bwd_inputs(p, &s));
    MBR_TRY(mbr__check_pairs(pairs, 1));
    return mbr__check_outputs(outputs, 4, s.sizes);
}

mbr_status mbr_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p) {
    mbr_causal_conv1d_bwd_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    MBR_TRY(check_bwd(p));
    MBR_TRY(mbr__table(&p->call, "causal_conv1d_bwd", &t));
    MBR_TRY(mbr__check_workspace(&p->workspace, t->causal_conv1d_bwd_workspace(p)));
    return mbr__answer_of(t->name, "causal_conv1d_bwd", t->causal_conv1d_bwd(p));
}

static mbr_status ask_bwd_workspace(const mbr_causal_conv1d_bwd_params *p,
                                    size_t *size) {
    mbr_causal_conv1d_bwd_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    const problem s = pose(&p->x, &p->weight, NULL);
    MBR_TRY(check_bwd_inputs(p, &s));
    MBR_TRY(mbr__table(&p->call, "causal_conv1d_bwd_workspace", &t));
    *size = t->causal_conv1d_bwd_workspace(p);
    return MBR_OK;
}

size_t mbr_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p) {
    size_t size = 0;
    return ask_bwd_workspace(p, &size) == MBR_OK ? size : 0;
}

/* ---- update ------------------------------------------------------------------- */

static mbr_status check_state_len(const problem *s) {
    const mbr__size *len = &s->sizes[STATE_LEN], *before = &s->sizes[BEFORE];
    if (len->value >= before->value)
        return MBR_OK;
    MBR_FAIL(MBR_E_ARG,
             MBR_EXPECTED("conv_state_len >= width - 1") "%s is %lld, %s is %lld",
             len->from, (long long)len->value, before->from, (long long)before->value);
}

static mbr_status check_update_inputs(const mbr_causal_conv1d_update_params *p,
                                      const problem *s) {
    const bool indexed = mbr__present(&p->conv_state_indices);
    const mbr__rule first[] = {
        {MBR_FIELD(p, x), MBR_REQUIRED, MBR_REAL, LIKE_X, X_DTYPE},
        {MBR_FIELD(p, weight), MBR_REQUIRED, MBR_REAL, LIKE_WEIGHT, WEIGHT_DTYPE},
        {MBR_FIELD(p, conv_state), MBR_REQUIRED, s->input,
         indexed ? STATE_PER_ENTRY : STATE_PER_BATCH,
         "conv_state.scalar_type() == input_type"},
    };
    const mbr__rule rest[] = {
        {MBR_FIELD(p, bias), MBR_OPTIONAL, MBR_REAL, PER_DIM, BIAS_DTYPE},
        {MBR_FIELD(p, conv_state_indices), MBR_OPTIONAL, MBR_INT32, PER_BATCH,
         "conv_state_indices.scalar_type() == torch::kInt32"},
        {MBR_FIELD(p, cache_seqlens), MBR_OPTIONAL, MBR_INT32, PER_BATCH,
         "cache_seqlens.scalar_type() == torch::kInt32"},
    };
    MBR_TRY(mbr__check_dtypes(first, 3));
    MBR_TRY(mbr__check_axis("conv_state", &p->conv_state, 2));
    MBR_TRY(check_state_len(s));
    MBR_TRY(mbr__check_shapes(first, 3, s->sizes));
    MBR_TRY(check_width(s));
    MBR_TRY(mbr__check_inputs(rest, 3, s->sizes));
    return mbr__check_not_empty(s->sizes, LIKE_X);
}

static mbr_status check_update_outputs(const mbr_causal_conv1d_update_params *p,
                                       const problem *s) {
    const mbr__rule outputs[] = {
        {MBR_FIELD(p, conv_state), MBR_REQUIRED, s->input, STATE_PER_ENTRY, NULL},
        {MBR_FIELD(p, out), MBR_REQUIRED, s->input, LIKE_X, NULL},
    };
    return mbr__check_outputs(outputs, 2, s->sizes);
}

static int32_t value_at(const mbr_tensor *t, int64_t i) {
    return ((const int32_t *)t->data)[i * t->stride[0]];
}

/* The rows that the two integer tensors lead to, where their values can be read. A row
 * index below 0 means "skip": that row's cache_seqlens does not matter. */
static mbr_status check_rows(const mbr_causal_conv1d_update_params *p) {
    const mbr_tensor *indices = &p->conv_state_indices, *seqlens = &p->cache_seqlens;
    const int64_t entries = p->conv_state.shape[0];
    if (p->call.device_type != MBR_DEVICE_CPU)
        return MBR_OK;
    for (int64_t b = 0; b < p->x.shape[0]; b++) {
        const int32_t row = mbr__present(indices) ? value_at(indices, b) : 0;
        if (row >= entries)
            MBR_FAIL(
                MBR_E_ARG,
                "conv_state_indices[%lld] is %d, must be below conv_state.shape[0], "
                "which is %lld",
                (long long)b, row, (long long)entries);
        if (row >= 0 && mbr__present(seqlens) && value_at(seqlens, b) < 0)
            MBR_FAIL(MBR_E_ARG, "cache_seqlens[%lld] is %d, must not be negative",
                     (long long)b, value_at(seqlens, b));
    }
    return MBR_OK;
}

static mbr_status check_update(const mbr_causal_conv1d_update_params *p) {
    const problem s = pose(&p->x, &p->weight, &p->conv_state);
    MBR_TRY(mbr__check_reserved(p->reserved));
    MBR_TRY(check_update_inputs(p, &s));
    MBR_TRY(check_update_outputs(p, &s));
    return check_rows(p);
}

mbr_status mbr_causal_conv1d_update(const mbr_causal_conv1d_update_params *p) {
    mbr_causal_conv1d_update_params full;
    const void *given = p;
    const mbr_table *t;
    MBR_TRY(mbr__params(&given, sizeof full, &full));
    p = given;
    MBR_TRY(check_update(p));
    MBR_TRY(mbr__table(&p->call, "causal_conv1d_update", &t));
    return mbr__answer_of(t->name, "causal_conv1d_update", t->causal_conv1d_update(p));
}
