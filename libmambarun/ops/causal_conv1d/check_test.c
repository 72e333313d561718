/* SPDX-License-Identifier: Apache-2.0
 *
 * check_test.c - every refusal of causal_conv1d.c by its words, and good calls arriving
 * unchanged at the variant, which is a fake.
 */
#include "fakes/refusals.h"

typedef mbr_causal_conv1d_fwd_params fwd_params;
typedef mbr_causal_conv1d_bwd_params bwd_params;
typedef mbr_causal_conv1d_update_params update_params;

static mbr_status call_fwd(const void *p) {
    return mbr_causal_conv1d_fwd(p);
}

static mbr_status call_bwd(const void *p) {
    return mbr_causal_conv1d_bwd(p);
}

static mbr_status call_update(const void *p) {
    return mbr_causal_conv1d_update(p);
}

static const entry FWD = {"causal_conv1d_fwd", sizeof(fwd_params), call_fwd};
static const entry BWD = {"causal_conv1d_bwd", sizeof(bwd_params), call_bwd};
static const entry UPDATE = {"causal_conv1d_update", sizeof(update_params),
                             call_update};

/* ---- good calls --------------------------------------------------------------- */

enum { B = 2, D = 4, L = 8, W = 3, S = 5, E = 6, NEED = 4096 };

static mbr_call call_of(size_t size) {
    return (mbr_call){.struct_size = (uint32_t)size, .device_type = MBR_DEVICE_CPU};
}

/* Everything present. */
static void make_fwd(fwd_params *p, dtype input, dtype weight, int64_t width) {
    *p = (fwd_params){
        .call = call_of(sizeof *p),
        .x = DENSE(input, B, D, L),
        .weight = DENSE(weight, D, width),
        .bias = DENSE(weight, D),
        .seq_idx = DENSE(INT32, B, L),
        .initial_states = DENSE(input, B, D, width - 1),
        .out = DENSE(input, B, D, L),
        .final_states_out = DENSE(input, B, D, width - 1),
        .silu_activation = 1,
    };
}

static void fwd_full(void *p) {
    make_fwd(p, FP32, FP32, W);
}

static void fwd_half(void *p) {
    make_fwd(p, FP16, FP32, 2);
}

static void fwd_least(void *params) {
    fwd_params *p = params;
    make_fwd(p, BF16, FP16, 4);
    p->bias = p->seq_idx = p->initial_states = p->final_states_out = ABSENT;
}

/* Each of another dtype; upstream wants weight and bias alike. */
static void fwd_mixed(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, BF16, 4);
    p->bias = DENSE(FP16, D);
}

/* Layouts upstream has no kernel for: neither stride 1, reversed, expanded time. */
static void fwd_strided(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, FP32, W);
    p->x.stride[1] = 0;
    p->x.stride[2] = 2;
    p->weight.stride[0] = 1;
    p->weight.stride[1] = D;
    p->bias.stride[0] = 0;
    p->seq_idx.stride[0] = 0;
    p->out.stride[1] = 1;
    p->out.stride[2] = D;
    p->final_states_out.data = (float *)p->final_states_out.data + W - 2;
    p->final_states_out.stride[2] = -1;
}

static void (*const fwd_cases[])(void *) = {fwd_full, fwd_half, fwd_least, fwd_mixed,
                                            fwd_strided};
enum { FWD_CASES = sizeof fwd_cases / sizeof fwd_cases[0] };

static void make_bwd(bwd_params *p, dtype input, dtype weight, int64_t width) {
    fwd_params f;
    make_fwd(&f, input, weight, width);
    *p = (bwd_params){
        .call = call_of(sizeof *p),
        .x = f.x,
        .weight = f.weight,
        .bias = f.bias,
        .dout = DENSE(input, B, D, L),
        .seq_idx = f.seq_idx,
        .initial_states = f.initial_states,
        .dfinal_states = DENSE(input, B, D, width - 1),
        .dx = DENSE(input, B, D, L),
        .dweight = DENSE(FP32, D, width),
        .dbias = DENSE(FP32, D),
        .dinitial_states = DENSE(input, B, D, width - 1),
        .workspace = {.data = reserve(NEED), .size = NEED},
        .silu_activation = 1,
    };
}

static void bwd_full(void *p) {
    make_bwd(p, FP32, FP32, W);
}

static void bwd_half(void *p) {
    make_bwd(p, FP16, BF16, 2);
}

static void bwd_least(void *params) {
    bwd_params *p = params;
    make_bwd(p, BF16, FP16, 4);
    p->bias = p->seq_idx = p->initial_states = p->dfinal_states = ABSENT;
    p->dbias = p->dinitial_states = ABSENT;
}

static void bwd_in_dtype_of_weight(void *params) {
    bwd_params *p = params;
    make_bwd(p, FP32, BF16, 4);
    p->bias = DENSE(FP16, D);
    p->dweight = DENSE(BF16, D, 4);
    p->dbias = DENSE(FP16, D);
    p->accumulate = 1;
}

static void (*const bwd_cases[])(void *) = {bwd_full, bwd_half, bwd_least,
                                            bwd_in_dtype_of_weight};
enum { BWD_CASES = sizeof bwd_cases / sizeof bwd_cases[0] };

static void set_ints(const mbr_tensor *t, int32_t first, int32_t second) {
    int32_t *values = t->data;
    values[0] = first;
    values[1] = second;
}

static void make_update(update_params *p, dtype input, dtype weight, int64_t entries) {
    *p = (update_params){
        .call = call_of(sizeof *p),
        .x = DENSE(input, B, D, L),
        .conv_state = DENSE(input, entries, D, S),
        .weight = DENSE(weight, D, W),
        .bias = DENSE(weight, D),
        .cache_seqlens = DENSE(INT32, B),
        .conv_state_indices = DENSE(INT32, B),
        .out = DENSE(input, B, D, L),
        .silu_activation = 1,
    };
    set_ints(&p->cache_seqlens, 0, 1000);
    set_ints(&p->conv_state_indices, E - 1, 0);
}

static void update_full(void *p) {
    make_update(p, FP32, FP32, E);
}

static void update_half(void *p) {
    make_update(p, FP16, BF16, E);
}

static void update_least(void *params) {
    update_params *p = params;
    make_update(p, BF16, FP32, B);
    p->bias = p->cache_seqlens = p->conv_state_indices = ABSENT;
    p->conv_state = DENSE(BF16, B, D, W - 1);
}

/* A row below 0 is skipped, whatever its cache_seqlens. */
static void update_skipping(void *params) {
    update_params *p = params;
    make_update(p, FP32, FP32, E);
    set_ints(&p->conv_state_indices, -1, INT32_MIN);
    set_ints(&p->cache_seqlens, -5, INT32_MIN);
}

static void update_all_skipped(void *params) {
    update_params *p = params;
    update_skipping(p);
    p->conv_state = DENSE(FP32, 0, D, S);
}

static void update_strided(void *params) {
    update_params *p = params;
    make_update(p, FP32, FP32, E);
    p->conv_state.stride[1] = 1;
    p->conv_state.stride[2] = D;
    p->conv_state_indices.data = (int32_t *)p->conv_state_indices.data + 1;
    p->conv_state_indices.stride[0] = -1;
    p->cache_seqlens.stride[0] = 0;
}

static void (*const update_cases[])(void *) = {update_full,        update_half,
                                               update_least,       update_skipping,
                                               update_all_skipped, update_strided};
enum { UPDATE_CASES = sizeof update_cases / sizeof update_cases[0] };

static void good_forwards_arrive_unchanged(void **state) {
    (void)state;
    for (size_t i = 0; i < FWD_CASES; i++)
        assert_arrives(&FWD, fwd_cases[i]);
}

static void good_backwards_arrive_unchanged(void **state) {
    (void)state;
    for (size_t i = 0; i < BWD_CASES; i++)
        assert_arrives(&BWD, bwd_cases[i]);
}

static void good_updates_arrive_unchanged(void **state) {
    (void)state;
    for (size_t i = 0; i < UPDATE_CASES; i++)
        assert_arrives(&UPDATE, update_cases[i]);
}

/* ---- refusals ----------------------------------------------------------------- */

#define F(field, value) SET(fwd_params, field, value)
#define K(field, value) SET(bwd_params, field, value)
#define U(field, value) SET(update_params, field, value)
#define INPUT_TYPE                                                                     \
    EXPECTED("input_type == at::ScalarType::Float || input_type == "                   \
             "at::ScalarType::Half || input_type == at::ScalarType::BFloat16")
#define WEIGHT_TYPE                                                                    \
    EXPECTED("weight_type == at::ScalarType::Float || weight_type == "                 \
             "at::ScalarType::Half || weight_type == at::ScalarType::BFloat16")
#define STATES_TYPE EXPECTED("initial_states.scalar_type() == input_type")

static const refusal forward_refusals[] = {
    /* the call itself */
    {fwd_full,
     {F(call.struct_size, 0)},
     "call.struct_size is 0: set it to sizeof the params struct, at least 32"},
    {fwd_full,
     {F(call.flags, 2)},
     "call.flags is 0x2: must be 0 or MBR_DETERMINISTIC (0x1)"},
    {fwd_full, {F(reserved, 2)}, "reserved is 2, must be 0"},
    /* not a tensor */
    {fwd_full, {F(x.data, 0)}, "x must be present: x.data is NULL"},
    {fwd_full, {F(weight.data, 0)}, "weight must be present: weight.data is NULL"},
    {fwd_full, {F(out.data, 0)}, "out must be present: out.data is NULL"},
    {fwd_full, {F(x.ndim, -3)}, "x.ndim is -3, must be 0 .. 4"},
    {fwd_full, {F(seq_idx.reserved, 4)}, "seq_idx.reserved is 4, must be 0"},
    {fwd_full, {F(bias.shape[0], -4)}, "bias.shape[0] is -4, must not be negative"},
    {fwd_full,
     {F(x.shape[2], INT64_MAX)},
     "x.shape[2] is 9223372036854775807: more than 2^48 elements"},
    {fwd_full,
     {F(x.stride[0], INT64_MAX)},
     "x.stride[0] is 9223372036854775807: reaches over 2^48 elements"},
    {fwd_half, {F(x.data, 1)}, "x.data modulo 2 is 1, must be 0"},
    /* dtypes */
    {fwd_full,
     {F(x.dtype_bits, 64)},
     INPUT_TYPE "x.dtype is fp64, must be fp32, fp16 or bf16"},
    {fwd_full,
     {F(x.dtype_code, 5), F(x.dtype_bits, 64)},
     INPUT_TYPE "x.dtype is complex64, must be fp32, fp16 or bf16"},
    {fwd_full,
     {F(weight.dtype_code, 0)},
     WEIGHT_TYPE "weight.dtype is int32, must be fp32, fp16 or bf16"},
    {fwd_full,
     {F(bias.dtype_bits, 64)},
     EXPECTED("bias.scalar_type() == weight_type") "bias.dtype is fp64, must be fp32, "
                                                   "fp16 or bf16"},
    {fwd_full,
     {F(seq_idx.dtype_bits, 64)},
     EXPECTED("seq_idx.scalar_type() == torch::kInt32") "seq_idx.dtype is int64, must "
                                                        "be int32"},
    {fwd_half,
     {F(initial_states.dtype_code, 4)},
     STATES_TYPE "initial_states.dtype is bf16, must be fp16"},
    {fwd_half,
     {F(final_states_out.dtype_bits, 32)},
     EXPECTED("final_states.scalar_type() == input_type") "final_states_out.dtype is "
                                                          "fp32, must be fp16"},
    {fwd_half, {F(out.dtype_bits, 32)}, "out.dtype is fp32, must be fp16"},
    /* shapes */
    {fwd_full,
     {F(x.ndim, 2)},
     "x must have shape (batch_size, dim, seqlen): x.ndim is 2, must be 3"},
    {fwd_full,
     {F(weight.ndim, 3)},
     "weight must have shape (dim, width): weight.ndim is 3, must be 2"},
    {fwd_full,
     {F(weight.shape[0], 5)},
     "weight must have shape (dim, width): weight.shape[0] is 5, x.shape[1] is 4"},
    {fwd_full,
     {F(weight.shape[1], 1)},
     "causal_conv1d only supports width between 2 and 4: weight.shape[1] is 1, must be "
     "2 .. 4"},
    {fwd_full,
     {F(weight.shape[1], 5)},
     "causal_conv1d only supports width between 2 and 4: weight.shape[1] is 5, must be "
     "2 .. 4"},
    {fwd_full,
     {F(bias.shape[0], 1)},
     "bias must have shape (dim): bias.shape[0] is 1, x.shape[1] is 4"},
    {fwd_full,
     {F(seq_idx.shape[1], 7)},
     "seq_idx must have shape (batch_size, seqlen): seq_idx.shape[1] is 7, x.shape[2] "
     "is "
     "8"},
    {fwd_full,
     {F(seq_idx.ndim, 1)},
     "seq_idx must have shape (batch_size, seqlen): seq_idx.ndim is 1, must be 2"},
    {fwd_full,
     {F(initial_states.shape[2], 3)},
     "initial_states must have shape (batch_size, dim, width - 1): "
     "initial_states.shape[2] is 3, weight.shape[1] - 1 is 2"},
    {fwd_full,
     {F(initial_states.shape[0], 1)},
     "initial_states must have shape (batch_size, dim, width - 1): "
     "initial_states.shape[0] is 1, x.shape[0] is 2"},
    {fwd_full,
     {F(final_states_out.shape[1], 3)},
     "final_states_out must have shape (batch_size, dim, width - 1): "
     "final_states_out.shape[1] is 3, x.shape[1] is 4"},
    {fwd_full,
     {F(out.shape[2], 9)},
     "out must have shape (batch_size, dim, seqlen): out.shape[2] is 9, x.shape[2] is "
     "8"},
    /* memory */
    {fwd_full,
     {F(out.stride[2], 0)},
     "out is written and must not overlap itself: out.stride[2] is 0, the smaller "
     "strides reach 0"},
    {fwd_full,
     {F(final_states_out.stride[1], 1)},
     "final_states_out is written and must not overlap itself: "
     "final_states_out.stride[2] "
     "is 1, the smaller strides reach 3"},
};

static const refusal backward_refusals[] = {
    {bwd_full, {K(call.threads, -2)}, "call.threads is -2: must be 0 (all) or more"},
    /* what it shares with the forward is looked at in the same way: one of each kind */
    {bwd_full,
     {K(x.dtype_bits, 64)},
     INPUT_TYPE "x.dtype is fp64, must be fp32, fp16 or bf16"},
    {bwd_full,
     {K(weight.shape[1], 5)},
     "causal_conv1d only supports width between 2 and 4: weight.shape[1] is 5, must be "
     "2 .. 4"},
    {bwd_half,
     {K(initial_states.dtype_code, 4)},
     STATES_TYPE "initial_states.dtype is bf16, must be fp16"},
    /* dout, dfinal_states */
    {bwd_full, {K(dout.data, 0)}, "dout must be present: dout.data is NULL"},
    {bwd_half, {K(dout.dtype_bits, 32)}, "dout.dtype is fp32, must be fp16"},
    {bwd_full,
     {K(dout.shape[2], 7)},
     "dout must have shape (batch_size, dim, seqlen): dout.shape[2] is 7, x.shape[2] "
     "is "
     "8"},
    {bwd_half,
     {K(dfinal_states.dtype_bits, 32)},
     EXPECTED(
         "dfinal_states.scalar_type() == input_type") "dfinal_states.dtype is fp32, "
                                                      "must be fp16"},
    {bwd_full,
     {K(dfinal_states.shape[2], 3)},
     "dfinal_states must have shape (batch_size, dim, width - 1): "
     "dfinal_states.shape[2] is 3, weight.shape[1] - 1 is 2"},
    /* presence */
    {bwd_full,
     {K(dbias.data, 0)},
     EXPECTED("bias_.has_value() == dbias_.has_value()") "dbias is absent, bias is "
                                                         "present"},
    {bwd_full,
     {K(bias.data, 0)},
     EXPECTED("bias_.has_value() == dbias_.has_value()") "dbias is present, bias is "
                                                         "absent"},
    {bwd_full, {K(dx.data, 0)}, "dx must be present: dx.data is NULL"},
    {bwd_full, {K(dweight.data, 0)}, "dweight must be present: dweight.data is NULL"},
    /* outputs */
    {bwd_half,
     {K(dx.dtype_bits, 32)},
     EXPECTED("dx.scalar_type() == input_type") "dx.dtype is fp32, must be fp16"},
    {bwd_half,
     {K(dweight.dtype_bits, 16)},
     "dweight.dtype is fp16, must be fp32 or bf16"},
    {bwd_half, {K(dbias.dtype_bits, 16)}, "dbias.dtype is fp16, must be fp32 or bf16"},
    {bwd_half,
     {K(dinitial_states.dtype_bits, 32)},
     "dinitial_states.dtype is fp32, must be fp16"},
    {bwd_full,
     {K(dx.shape[1], 2)},
     "dx must have shape (batch_size, dim, seqlen): dx.shape[1] is 2, x.shape[1] is 4"},
    {bwd_full,
     {K(dweight.shape[1], 2)},
     "dweight must have shape (dim, width): dweight.shape[1] is 2, weight.shape[1] is "
     "3"},
    {bwd_full,
     {K(dbias.ndim, 2)},
     "dbias must have shape (dim): dbias.ndim is 2, must be 1"},
    {bwd_full,
     {K(dinitial_states.shape[2], 1)},
     "dinitial_states must have shape (batch_size, dim, width - 1): "
     "dinitial_states.shape[2] is 1, weight.shape[1] - 1 is 2"},
    {bwd_full,
     {K(dweight.stride[0], 0)},
     "dweight is written and must not overlap itself: dweight.stride[0] is 0, the "
     "smaller strides reach 0"},
    {bwd_full,
     {K(dbias.stride[0], 0)},
     "dbias is written and must not overlap itself: dbias.stride[0] is 0, the smaller "
     "strides reach 0"},
    /* workspace: the fake wants NEED bytes */
    {bwd_full,
     {K(workspace.data, 0)},
     "workspace.data is NULL, must point at 4096 bytes"},
    {bwd_full, {K(workspace.data, 8)}, "workspace.data modulo 64 is 8, must be 0"},
    {bwd_full,
     {K(workspace.size, 4095)},
     "workspace.size is 4095, must be at least 4096"},
};

static void update_index_too_large(void *params) {
    update_params *p = params;
    make_update(p, FP32, FP32, E);
    set_ints(&p->conv_state_indices, 0, E);
}

static void update_seqlen_below_zero(void *params) {
    update_params *p = params;
    make_update(p, FP32, FP32, E);
    set_ints(&p->cache_seqlens, 0, -1);
}

static void update_short_state(void *params) {
    update_params *p = params;
    make_update(p, FP32, FP32, E);
    p->conv_state = DENSE(FP32, E, D, W - 2);
}

static const refusal update_refusals[] = {
    {update_full, {U(reserved, 1)}, "reserved is 1, must be 0"},
    {update_full,
     {U(call.device_type, -1)},
     "call.device_type is -1: must be 1 (CPU) or 2 (CUDA)"},
    /* not a tensor */
    {update_full, {U(x.data, 0)}, "x must be present: x.data is NULL"},
    {update_full, {U(weight.data, 0)}, "weight must be present: weight.data is NULL"},
    {update_full,
     {U(conv_state.data, 0)},
     "conv_state must be present: conv_state.data is NULL"},
    {update_full, {U(out.data, 0)}, "out must be present: out.data is NULL"},
    {update_full, {U(out.ndim, 9)}, "out.ndim is 9, must be 0 .. 4"},
    /* dtypes */
    {update_full,
     {U(x.dtype_bits, 64)},
     INPUT_TYPE "x.dtype is fp64, must be fp32, fp16 or bf16"},
    {update_full,
     {U(weight.dtype_bits, 64)},
     WEIGHT_TYPE "weight.dtype is fp64, must be fp32, fp16 or bf16"},
    {update_half,
     {U(conv_state.dtype_code, 4)},
     EXPECTED(
         "conv_state.scalar_type() == input_type") "conv_state.dtype is bf16, must "
                                                   "be fp16"},
    {update_full,
     {U(bias.dtype_code, 0)},
     EXPECTED("bias.scalar_type() == weight_type") "bias.dtype is int32, must be fp32, "
                                                   "fp16 or bf16"},
    {update_full,
     {U(conv_state_indices.dtype_bits, 64)},
     EXPECTED("conv_state_indices.scalar_type() == torch::kInt32") "conv_state_indices."
                                                                   "dtype is int64, "
                                                                   "must be int32"},
    {update_full,
     {U(cache_seqlens.dtype_bits, 64)},
     EXPECTED("cache_seqlens.scalar_type() == torch::kInt32") "cache_seqlens.dtype is "
                                                              "int64, must be int32"},
    {update_half, {U(out.dtype_bits, 32)}, "out.dtype is fp32, must be fp16"},
    /* shapes */
    {update_full,
     {U(conv_state.ndim, 2)},
     "Dimension out of range (expected to be in range of [-2, 1], but got 2): "
     "conv_state.ndim is 2, must be 3"},
    {update_full,
     {U(conv_state.ndim, 0)},
     "Dimension specified as 2 but tensor has no dimensions: conv_state.ndim is 0, "
     "must "
     "be 3"},
    {update_short_state,
     {{0}},
     EXPECTED(
         "conv_state_len >= width - 1") "conv_state.shape[2] is 1, weight.shape[1] "
                                        "- 1 is 2"},
    {update_full,
     {U(x.ndim, 2)},
     "x must have shape (batch_size, dim, seqlen): x.ndim is 2, must be 3"},
    {update_full,
     {U(weight.shape[0], 3)},
     "weight must have shape (dim, width): weight.shape[0] is 3, x.shape[1] is 4"},
    {update_full,
     {U(conv_state.shape[1], 3)},
     "conv_state must have shape (conv_state_entries, dim, conv_state_len): "
     "conv_state.shape[1] is 3, x.shape[1] is 4"},
    {update_least,
     {U(conv_state.shape[0], 3)},
     "conv_state must have shape (batch_size, dim, conv_state_len): "
     "conv_state.shape[0] "
     "is 3, x.shape[0] is 2"},
    {update_full,
     {U(weight.shape[1], 5)},
     "causal_conv1d only supports width between 2 and 4: weight.shape[1] is 5, must be "
     "2 .. 4"},
    {update_full,
     {U(bias.shape[0], 3)},
     "bias must have shape (dim): bias.shape[0] is 3, x.shape[1] is 4"},
    {update_full,
     {U(conv_state_indices.shape[0], 1)},
     "conv_state_indices must have shape (batch_size): conv_state_indices.shape[0] is "
     "1, "
     "x.shape[0] is 2"},
    {update_full,
     {U(cache_seqlens.ndim, 2)},
     "cache_seqlens must have shape (batch_size): cache_seqlens.ndim is 2, must be 1"},
    {update_full,
     {U(out.shape[1], 3)},
     "out must have shape (batch_size, dim, seqlen): out.shape[1] is 3, x.shape[1] is "
     "4"},
    /* memory */
    {update_full,
     {U(conv_state.stride[0], 0)},
     "conv_state is written and must not overlap itself: conv_state.stride[0] is 0, "
     "the "
     "smaller strides reach 0"},
    {update_full,
     {U(out.stride[1], 4)},
     "out is written and must not overlap itself: out.stride[1] is 4, the smaller "
     "strides reach 7"},
    /* rows that would lie outside */
    {update_index_too_large,
     {{0}},
     "conv_state_indices[1] is 6, must be below conv_state.shape[0], which is 6"},
    {update_seqlen_below_zero, {{0}}, "cache_seqlens[1] is -1, must not be negative"},
};

#define ROWS(rows) (rows), sizeof(rows) / sizeof((rows)[0])

static void forward_refuses_by_name(void **state) {
    (void)state;
    assert_rows_refused(&FWD, ROWS(forward_refusals));
}

static void backward_refuses_by_name(void **state) {
    (void)state;
    assert_rows_refused(&BWD, ROWS(backward_refusals));
}

static void update_refuses_by_name(void **state) {
    (void)state;
    assert_rows_refused(&UPDATE, ROWS(update_refusals));
}

/* Shapes of a launch without blocks, which upstream leaves to CUDA to refuse. */
static void update_no_batch(void *params) {
    update_params *p = params;
    make_update(p, FP32, FP32, E);
    p->x.shape[0] = p->out.shape[0] = 0;
    p->conv_state_indices.shape[0] = p->cache_seqlens.shape[0] = 0;
}

static void fwd_no_dim(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, FP32, W);
    p->x.shape[1] = p->weight.shape[0] = p->bias.shape[0] = p->out.shape[1] = 0;
    p->initial_states.shape[1] = p->final_states_out.shape[1] = 0;
}

static void bwd_no_seqlen(void *params) {
    bwd_params *p = params;
    make_bwd(p, FP32, FP32, W);
    p->x.shape[2] = p->dout.shape[2] = p->seq_idx.shape[1] = p->dx.shape[2] = 0;
}

static void empty_sizes_are_refused_as_cuda_does(void **state) {
    (void)state;
#define INVALID "CUDA error: invalid configuration argument: "
    static const refusal batch = {update_no_batch,
                                  {{0}},
                                  INVALID "x.shape[0] is 0, must "
                                          "be at least 1"},
                         dim = {fwd_no_dim,
                                {{0}},
                                INVALID "x.shape[1] is 0, must be at "
                                        "least 1"},
                         seqlen = {bwd_no_seqlen,
                                   {{0}},
                                   INVALID "x.shape[2] is 0, must "
                                           "be at least 1"};
    assert_row_refused(&UPDATE, &batch);
    assert_row_refused(&FWD, &dim);
    assert_row_refused(&BWD, &seqlen);
}

/* Their values lie on the device there; 64 is no address one can read. */
static void rows_on_a_gpu_are_not_read(void **state) {
    (void)state;
    forget_tensors();
    update_params p;
    update_full(&p);
    p.call.device_type = MBR_DEVICE_CUDA;
    p.conv_state_indices.data = p.cache_seqlens.data = (void *)64;
    const mbr_status s = mbr_causal_conv1d_update(&p);
    assert_true(s == MBR_E_NO_VARIANT || s == MBR_E_CUDA);
}

/* ---- workspace ---------------------------------------------------------------- */

static void workspace_question_needs_only_inputs(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, W);
    p.dx = p.dweight = p.dbias = p.dinitial_states = ABSENT;
    p.workspace = (mbr_workspace){0};
    assert_int_equal(mbr_causal_conv1d_bwd_workspace(&p), NEED);
    assert_string_equal(fake->op, "causal_conv1d_bwd_workspace");
    assert_memory_equal(fake->params, &p, sizeof p);
}

static void workspace_of_refused_arguments_is_nothing(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, W);
    p.weight.shape[1] = 5;
    assert_int_equal(mbr_causal_conv1d_bwd_workspace(&p), 0);
    assert_int_equal(mbr_causal_conv1d_bwd_workspace(NULL), 0);
}

static void no_workspace_is_fine_where_none_is_needed(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, W);
    p.workspace = (mbr_workspace){0};
    fake->workspace = 0;
    assert_int_equal(mbr_causal_conv1d_bwd(&p), MBR_OK);
    fake->workspace = NEED;
}

/* ---- struct_size -------------------------------------------------------------- */

static void older_caller_gets_zeros_for_what_it_lacks(void **state) {
    (void)state;
    forget_tensors();
    update_params p;
    update_full(&p);
    assert_int_equal(
        call_sized(&UPDATE, &p, offsetof(update_params, silu_activation), 0), MBR_OK);
    p.silu_activation = 0;
    assert_int_equal(fake->size, sizeof p);
    assert_memory_equal(fake->params, &p, sizeof p);
}

static void much_older_caller_is_told_what_is_missing(void **state) {
    (void)state;
    forget_tensors();
    fwd_params p;
    fwd_full(&p);
    assert_int_equal(call_sized(&FWD, &p, offsetof(fwd_params, out), 0), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "out must be present: out.data is NULL");
}

static void newer_caller_is_served_if_its_tail_is_zero(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    bwd_full(&p);
    fake->op = "nothing";
    assert_int_equal(call_sized(&BWD, &p, sizeof p + 24, 0), MBR_OK);
    assert_string_equal(fake->op, BWD.op);
}

static void newer_caller_with_a_wish_is_refused(void **state) {
    (void)state;
    forget_tensors();
    update_params p;
    update_full(&p);
    fake->op = "nothing";
    assert_int_equal(call_sized(&UPDATE, &p, sizeof p + 24, 1), MBR_E_ARG);
    assert_non_null(strstr(mbr_last_error(), "the caller is newer"));
    assert_string_equal(fake->op, "nothing");
}

static void null_is_refused(void **state) {
    (void)state;
    assert_int_equal(mbr_causal_conv1d_fwd(NULL), MBR_E_ARG);
    assert_int_equal(mbr_causal_conv1d_bwd(NULL), MBR_E_ARG);
    assert_int_equal(mbr_causal_conv1d_update(NULL), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "params is NULL");
}

static void status_of_the_variant_comes_back_with_a_sentence(void **state) {
    (void)state;
    forget_tensors();
    update_params p;
    update_full(&p);
    fake->status = MBR_E_UNSUPPORTED;
    assert_int_equal(mbr_causal_conv1d_update(&p), MBR_E_UNSUPPORTED);
    assert_string_equal(mbr_last_error(),
                        "causal_conv1d_update: cpu_scalar answers MBR_E_UNSUPPORTED");
    fake->status = MBR_OK;
}

/* ---- random spoiling ---------------------------------------------------------- */

static bool is_real(const mbr_tensor *t) {
    return is(t, FP32) || is(t, FP16) || is(t, BF16);
}

static void assert_x_and_weight_are_sound(const mbr_tensor *x, const mbr_tensor *weight,
                                          const mbr_tensor *bias) {
    assert_true(is_real(x) && x->ndim == 3);
    assert_true(x->shape[0] > 0 && x->shape[1] > 0 && x->shape[2] > 0);
    assert_true(is_real(weight) && weight->ndim == 2 &&
                weight->shape[0] == x->shape[1]);
    assert_in_range(weight->shape[1], 2, 4);
    assert_true(!bias->data ||
                (is_real(bias) && has_shape(bias, 1, x->shape[1], 0, 0, 0)));
}

static bool are_states(const mbr_tensor *t, const mbr_tensor *x,
                       const mbr_tensor *weight) {
    return !t->data || (same_dtype(t, x) && has_shape(t, 3, x->shape[0], x->shape[1],
                                                      weight->shape[1] - 1, 0));
}

static bool are_ints(const mbr_tensor *t, int32_t ndim, const mbr_tensor *x) {
    return !t->data ||
           (is(t, INT32) && has_shape(t, ndim, x->shape[0], x->shape[2], 0, 0));
}

static void fwd_is_sound(const void *params) {
    const fwd_params *p = params;
    assert_x_and_weight_are_sound(&p->x, &p->weight, &p->bias);
    assert_true(are_ints(&p->seq_idx, 2, &p->x));
    assert_true(are_states(&p->initial_states, &p->x, &p->weight));
    assert_true(are_states(&p->final_states_out, &p->x, &p->weight));
    assert_true(p->out.data && like(&p->out, &p->x));
}

static bool is_sum_for(const mbr_tensor *t, const mbr_tensor *model) {
    mbr_tensor alike = *t;
    alike.dtype_code = model->dtype_code;
    alike.dtype_bits = model->dtype_bits;
    return like(&alike, model) && (is(t, FP32) || same_dtype(t, model));
}

static void bwd_is_sound(const void *params) {
    const bwd_params *p = params;
    assert_x_and_weight_are_sound(&p->x, &p->weight, &p->bias);
    assert_true(are_ints(&p->seq_idx, 2, &p->x));
    assert_true(are_states(&p->initial_states, &p->x, &p->weight));
    assert_true(are_states(&p->dfinal_states, &p->x, &p->weight));
    assert_true(are_states(&p->dinitial_states, &p->x, &p->weight));
    assert_true(p->dout.data && like(&p->dout, &p->x));
    assert_true(p->dx.data && like(&p->dx, &p->x));
    assert_true(p->dweight.data && is_sum_for(&p->dweight, &p->weight));
    assert_true(!p->bias.data ? !p->dbias.data
                              : p->dbias.data && is_sum_for(&p->dbias, &p->bias));
    assert_true(p->workspace.data && p->workspace.size >= NEED);
}

static void update_is_sound(const void *params) {
    const update_params *p = params;
    assert_x_and_weight_are_sound(&p->x, &p->weight, &p->bias);
    assert_true(are_ints(&p->cache_seqlens, 1, &p->x));
    assert_true(are_ints(&p->conv_state_indices, 1, &p->x));
    assert_true(same_dtype(&p->conv_state, &p->x) && p->conv_state.ndim == 3);
    assert_true(p->conv_state.shape[1] == p->x.shape[1]);
    assert_true(p->conv_state.shape[2] >= p->weight.shape[1] - 1);
    assert_true(p->conv_state_indices.data || p->conv_state.shape[0] == p->x.shape[0]);
    assert_true(p->out.data && like(&p->out, &p->x));
}

/* The room reads these two, so what they point at must be there. */
static void tame_update(void *params) {
    update_params *p = params;
    mbr_tensor *const read[] = {&p->cache_seqlens, &p->conv_state_indices};
    for (size_t i = 0; i < 2; i++) {
        if (read[i]->data)
            read[i]->data = memory + MEMORY / 2;
        read[i]->stride[0] %= 8;
    }
}

static void spoilt_forwards_are_caught(void **state) {
    (void)state;
    assert_spoilt_is_caught(&FWD, 7, fwd_cases, FWD_CASES, NULL, fwd_is_sound);
}

static void spoilt_backwards_are_caught(void **state) {
    (void)state;
    assert_spoilt_is_caught(&BWD, 11, bwd_cases, BWD_CASES, NULL, bwd_is_sound);
}

static void spoilt_updates_are_caught(void **state) {
    (void)state;
    memset(memory, 0, MEMORY);
    assert_spoilt_is_caught(&UPDATE, 7, update_cases, UPDATE_CASES, tame_update,
                            update_is_sound);
}

int main(void) {
    fake = mbr_fake_use(MBR_TEST_FAKES "/good");
    if (!fake)
        return 1;
    fake->workspace = NEED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_forwards_arrive_unchanged),
        cmocka_unit_test(good_backwards_arrive_unchanged),
        cmocka_unit_test(good_updates_arrive_unchanged),
        cmocka_unit_test(forward_refuses_by_name),
        cmocka_unit_test(backward_refuses_by_name),
        cmocka_unit_test(update_refuses_by_name),
        cmocka_unit_test(empty_sizes_are_refused_as_cuda_does),
        cmocka_unit_test(rows_on_a_gpu_are_not_read),
        cmocka_unit_test(workspace_question_needs_only_inputs),
        cmocka_unit_test(workspace_of_refused_arguments_is_nothing),
        cmocka_unit_test(no_workspace_is_fine_where_none_is_needed),
        cmocka_unit_test(older_caller_gets_zeros_for_what_it_lacks),
        cmocka_unit_test(much_older_caller_is_told_what_is_missing),
        cmocka_unit_test(newer_caller_is_served_if_its_tail_is_zero),
        cmocka_unit_test(newer_caller_with_a_wish_is_refused),
        cmocka_unit_test(null_is_refused),
        cmocka_unit_test(status_of_the_variant_comes_back_with_a_sentence),
        cmocka_unit_test(spoilt_forwards_are_caught),
        cmocka_unit_test(spoilt_backwards_are_caught),
        cmocka_unit_test(spoilt_updates_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
