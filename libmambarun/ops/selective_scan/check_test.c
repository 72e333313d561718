/* SPDX-License-Identifier: Apache-2.0
 *
 * check_test.c - every refusal of selective_scan.c by its words, and good calls
 * arriving unchanged at the variant, which is a fake.
 */
#include "fakes/refusals.h"

typedef mbr_selective_scan_fwd_params fwd_params;
typedef mbr_selective_scan_bwd_params bwd_params;

static mbr_status call_fwd(const void *p) {
    return mbr_selective_scan_fwd(p);
}

static mbr_status call_bwd(const void *p) {
    return mbr_selective_scan_bwd(p);
}

static const entry FWD = {"selective_scan_fwd", sizeof(fwd_params), call_fwd};
static const entry BWD = {"selective_scan_bwd", sizeof(bwd_params), call_bwd};

/* ---- good calls --------------------------------------------------------------- */

enum { B = 2, D = 4, L = 8, N = 3, G = 2, DELTA_DIM = 2, LONG = 4097, NEED = 4096 };

/* Everything present, variable B and C, grouped delta. */
static void make_fwd(fwd_params *p, dtype input, dtype weight, int64_t seqlen) {
    const int64_t columns = weight.code == MBR_COMPLEX ? 2 * seqlen : seqlen;
    *p = (fwd_params){
        .call = {.struct_size = sizeof *p, .device_type = MBR_DEVICE_CPU, .threads = 3},
        .u = DENSE(input, B, D, seqlen),
        .delta = DENSE(input, B, DELTA_DIM, seqlen),
        .A = DENSE(weight, D, N),
        .B = DENSE(input, B, G, N, columns),
        .C = DENSE(input, B, G, N, columns),
        .D = DENSE(FP32, D),
        .z = DENSE(input, B, D, seqlen),
        .delta_bias = DENSE(FP32, DELTA_DIM),
        .out = DENSE(input, B, D, seqlen),
        .x = DENSE(weight, B, D, (seqlen + 2047) / 2048, 2 * N),
        .out_z = DENSE(input, B, D, seqlen),
        .delta_softplus = 1,
    };
}

static void fwd_full(void *p) {
    make_fwd(p, FP32, FP32, L);
}

static void fwd_complex(void *p) {
    make_fwd(p, FP16, COMPLEX64, L);
}

static void fwd_long(void *p) {
    make_fwd(p, FP32, FP32, LONG);
}

static void fwd_of_nothing(void *p) {
    make_fwd(p, FP32, FP32, 0);
}

static void fwd_least(void *params) {
    fwd_params *p = params;
    make_fwd(p, BF16, FP32, 1);
    p->D = p->z = p->delta_bias = p->out_z = ABSENT;
}

static void fwd_float_out(void *params) {
    fwd_params *p = params;
    make_fwd(p, BF16, FP32, L);
    p->out = DENSE(FP32, B, D, L);
}

static void fwd_constant(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP16, COMPLEX64, L);
    p->B = DENSE(COMPLEX64, D, N);
    p->C = DENSE(COMPLEX64, D, N);
}

static void fwd_constant_B(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, FP32, L);
    p->B = DENSE(FP32, D, N);
    p->C = DENSE(FP32, B, 1, N, L);
}

static void set_dstate(fwd_params *p, int64_t dstate) {
    make_fwd(p, FP32, FP32, L);
    p->A = DENSE(FP32, D, dstate);
    p->B = DENSE(FP32, B, G, dstate, L);
    p->C = DENSE(FP32, B, G, dstate, L);
    p->x = DENSE(FP32, B, D, 1, 2 * dstate);
}

static void fwd_least_dstate(void *p) {
    set_dstate(p, 1);
}

static void fwd_most_dstate(void *p) {
    set_dstate(p, 256);
}

/* Channels last, expanded, reversed; out is every other element of something. */
static void fwd_strided(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, FP32, L);
    p->u.stride[1] = 1;
    p->u.stride[2] = D;
    p->B.stride[1] = 0;
    p->C.stride[0] = p->C.stride[1] = p->C.stride[2] = p->C.stride[3] = 0;
    p->A.stride[0] = 1;
    p->A.stride[1] = D;
    p->z.data = (float *)p->z.data + L - 1;
    p->z.stride[2] = -1;
    p->out = DENSE(FP32, B, D, 2 * L);
    p->out.shape[2] = L;
    p->out.stride[2] = 2;
}

static void (*const fwd_cases[])(void *) = {
    fwd_full,    fwd_complex,      fwd_long,       fwd_of_nothing,
    fwd_least,   fwd_float_out,    fwd_constant,   fwd_constant_B,
    fwd_strided, fwd_least_dstate, fwd_most_dstate};
enum { FWD_CASES = sizeof fwd_cases / sizeof fwd_cases[0] };

static void make_bwd(bwd_params *p, dtype input, dtype weight, int64_t seqlen) {
    fwd_params f;
    make_fwd(&f, input, weight, seqlen);
    const int64_t columns = f.B.shape[3];
    *p = (bwd_params){
        .call = {.struct_size = sizeof *p, .device_type = MBR_DEVICE_CPU, .threads = 3},
        .u = f.u,
        .delta = f.delta,
        .A = f.A,
        .B = f.B,
        .C = f.C,
        .D = f.D,
        .z = f.z,
        .delta_bias = f.delta_bias,
        .dout = DENSE(input, B, D, seqlen),
        .x = f.x,
        .out = f.out,
        .du = DENSE(input, B, D, seqlen),
        .ddelta = DENSE(input, B, DELTA_DIM, seqlen),
        .dA = DENSE(weight, D, N),
        .dB = DENSE(input, B, G, N, columns),
        .dC = DENSE(input, B, G, N, columns),
        .dD = DENSE(FP32, D),
        .ddelta_bias = DENSE(FP32, DELTA_DIM),
        .dz = DENSE(input, B, D, seqlen),
        .out_z = DENSE(input, B, D, seqlen),
        .workspace = {.data = reserve(NEED), .size = NEED},
        .delta_softplus = 1,
    };
}

static void bwd_full(void *p) {
    make_bwd(p, FP32, FP32, L);
}

static void bwd_complex(void *p) {
    make_bwd(p, BF16, COMPLEX64, L);
}

static void bwd_long(void *p) {
    make_bwd(p, FP32, FP32, LONG);
}

static void bwd_of_nothing(void *p) {
    make_bwd(p, FP32, FP32, 0);
}

static void bwd_least(void *params) {
    bwd_params *p = params;
    make_bwd(p, FP16, FP32, 1);
    p->D = p->z = p->delta_bias = p->x = p->out = ABSENT;
    p->dD = p->dz = p->ddelta_bias = p->out_z = ABSENT;
}

static void bwd_constant(void *params) {
    bwd_params *p = params;
    make_bwd(p, FP16, COMPLEX64, L);
    p->B = DENSE(COMPLEX64, D, N);
    p->C = DENSE(COMPLEX64, D, N);
    p->dB = DENSE(COMPLEX64, D, N);
    p->dC = DENSE(COMPLEX64, D, N);
}

static void bwd_float_dout(void *params) {
    bwd_params *p = params;
    make_bwd(p, FP16, FP32, L);
    p->dout = DENSE(FP32, B, D, L);
    p->out = DENSE(FP32, B, D, L);
}

/* Upstream's habit: dz goes where z was, out_z where out was; without z, out counts for
 * nothing. */
static void bwd_in_place(void *params) {
    bwd_params *p = params;
    make_bwd(p, FP32, FP32, L);
    p->dz = p->z;
    p->out_z = p->out;
}

static void bwd_idle_out(void *params) {
    bwd_params *p = params;
    bwd_least(p);
    p->out = DENSE(INT32, 1);
}

static void (*const bwd_cases[])(void *) = {bwd_full,       bwd_complex,  bwd_long,
                                            bwd_of_nothing, bwd_least,    bwd_constant,
                                            bwd_float_dout, bwd_in_place, bwd_idle_out};
enum { BWD_CASES = sizeof bwd_cases / sizeof bwd_cases[0] };

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

/* ---- refusals ----------------------------------------------------------------- */

#define F(field, value) SET(fwd_params, field, value)
#define W(field, value) SET(bwd_params, field, value)
#define INPUT_TYPE                                                                     \
    EXPECTED("input_type == at::ScalarType::Float || input_type == "                   \
             "at::ScalarType::Half || input_type == at::ScalarType::BFloat16")
#define WEIGHT_TYPE                                                                    \
    EXPECTED("weight_type == at::ScalarType::Float || weight_type == "                 \
             "at::ScalarType::ComplexFloat")
#define B_TYPE                                                                         \
    EXPECTED("B.scalar_type() == (!is_variable_B ? weight_type : input_type)")
#define C_TYPE                                                                         \
    EXPECTED("C.scalar_type() == (!is_variable_C ? weight_type : input_type)")
#define COLUMNS "!is_complex ? seqlen : seqlen * 2"

static const refusal forward_refusals[] = {
    /* the call itself */
    {fwd_full,
     {F(call.struct_size, 3)},
     "call.struct_size is 3: set it to sizeof the params struct, at least 32"},
    {fwd_full,
     {F(call.device_type, 7)},
     "call.device_type is 7: must be 1 (CPU) or 2 (CUDA)"},
    {fwd_full,
     {F(call.flags, 6)},
     "call.flags is 0x6: must be 0 or MBR_DETERMINISTIC (0x1)"},
    {fwd_full, {F(call.threads, -1)}, "call.threads is -1: must be 0 (all) or more"},
    {fwd_full, {F(call.reserved, 1)}, "call.reserved is 1: must be 0"},
    {fwd_full, {F(reserved, 9)}, "reserved is 9, must be 0"},
    /* not a tensor */
    {fwd_full, {F(u.data, 0)}, "u must be present: u.data is NULL"},
    {fwd_full, {F(delta.data, 0)}, "delta must be present: delta.data is NULL"},
    {fwd_full, {F(A.data, 0)}, "A must be present: A.data is NULL"},
    {fwd_full, {F(B.data, 0)}, "B must be present: B.data is NULL"},
    {fwd_full, {F(C.data, 0)}, "C must be present: C.data is NULL"},
    {fwd_full, {F(out.data, 0)}, "out must be present: out.data is NULL"},
    {fwd_full, {F(x.data, 0)}, "x must be present: x.data is NULL"},
    {fwd_full, {F(u.ndim, 5)}, "u.ndim is 5, must be 0 .. 4"},
    {fwd_full, {F(D.ndim, -1)}, "D.ndim is -1, must be 0 .. 4"},
    {fwd_full, {F(z.reserved, 1)}, "z.reserved is 1, must be 0"},
    {fwd_full, {F(delta.shape[1], -2)}, "delta.shape[1] is -2, must not be negative"},
    {fwd_full,
     {F(u.shape[1], (int64_t)1 << 48)},
     "u.shape[1] is 281474976710656: more than 2^48 elements"},
    {fwd_full,
     {F(u.shape[1], INT64_MAX)},
     "u.shape[1] is 9223372036854775807: more than 2^48 elements"},
    {fwd_full,
     {F(A.stride[0], INT64_MIN)},
     "A.stride[0] is -9223372036854775808: reaches over 2^48 elements"},
    {fwd_full, {F(u.data, 2)}, "u.data modulo 4 is 2, must be 0"},
    /* dtypes */
    {fwd_full,
     {F(u.dtype_bits, 64)},
     INPUT_TYPE "u.dtype is fp64, must be fp32, fp16 or bf16"},
    {fwd_full,
     {F(u.dtype_code, 9)},
     INPUT_TYPE "u.dtype is DLPack's code 9 with 32 bits, must be fp32, fp16 or bf16"},
    {fwd_full,
     {F(A.dtype_bits, 16)},
     WEIGHT_TYPE "A.dtype is fp16, must be fp32 or complex64"},
    {fwd_full,
     {F(A.dtype_code, 5), F(A.dtype_bits, 128)},
     WEIGHT_TYPE "A.dtype is complex128, must be fp32 or complex64"},
    {fwd_full,
     {F(delta.dtype_bits, 16)},
     EXPECTED("delta.scalar_type() == input_type") "delta.dtype is fp16, must be fp32"},
    {fwd_full,
     {F(B.dtype_code, 4), F(B.dtype_bits, 16)},
     B_TYPE "B.dtype is bf16, must be fp32"},
    {fwd_complex,
     {F(B.dtype_code, 5), F(B.dtype_bits, 64)},
     B_TYPE "B.dtype is complex64, must be fp16"},
    {fwd_constant,
     {F(B.dtype_code, 2), F(B.dtype_bits, 32)},
     B_TYPE "B.dtype is fp32, must be complex64"},
    {fwd_full, {F(C.dtype_code, 0)}, C_TYPE "C.dtype is int32, must be fp32"},
    {fwd_constant, {F(C.dtype_code, 0)}, C_TYPE "C.dtype is int64, must be complex64"},
    {fwd_full,
     {F(D.dtype_bits, 16)},
     EXPECTED(
         "D.scalar_type() == at::ScalarType::Float") "D.dtype is fp16, must be fp32"},
    {fwd_full,
     {F(delta_bias.dtype_bits, 64)},
     EXPECTED(
         "delta_bias.scalar_type() == at::ScalarType::Float") "delta_bias.dtype is "
                                                              "fp64, must be fp32"},
    {fwd_full,
     {F(z.dtype_bits, 16)},
     EXPECTED("z.scalar_type() == input_type") "z.dtype is fp16, must be fp32"},
    {fwd_full, {F(out.dtype_bits, 16)}, "out.dtype is fp16, must be fp32"},
    {fwd_complex, {F(out.dtype_code, 4)}, "out.dtype is bf16, must be fp32 or fp16"},
    {fwd_complex, {F(x.dtype_code, 2)}, "x.dtype is fp64, must be complex64"},
    {fwd_complex, {F(out_z.dtype_code, 4)}, "out_z.dtype is bf16, must be fp16"},
    /* dstate */
    {fwd_full,
     {F(A.shape[1], 257)},
     "selective_scan only supports state dimension <= 256: A.shape[1] is 257, must be "
     "1 .. 256"},
    {fwd_full,
     {F(A.shape[1], 0)},
     "selective_scan only supports state dimension <= 256: A.shape[1] is 0, must be "
     "1 .. 256"},
    {fwd_full,
     {F(A.ndim, 1)},
     "Dimension out of range (expected to be in range of [-1, 0], but got 1): A.ndim "
     "is "
     "1, must be 2"},
    {fwd_full,
     {F(A.ndim, 0)},
     "Dimension specified as 1 but tensor has no dimensions: A.ndim is 0, must be 2"},
    /* shapes */
    {fwd_full,
     {F(u.ndim, 2)},
     "u must have shape (batch_size, dim, seqlen): u.ndim is 2, must be 3"},
    {fwd_full,
     {F(u.ndim, 4)},
     "u must have shape (batch_size, dim, seqlen): u.ndim is 4, must be 3"},
    {fwd_full,
     {F(delta.shape[0], 1)},
     "delta must have shape (batch_size, dim, seqlen): delta.shape[0] is 1, u.shape[0] "
     "is 2"},
    {fwd_full,
     {F(delta.shape[2], 7)},
     "delta must have shape (batch_size, dim, seqlen): delta.shape[2] is 7, u.shape[2] "
     "is 8"},
    {fwd_full,
     {F(delta.ndim, 1)},
     "delta must have shape (batch_size, dim, seqlen): delta.ndim is 1, must be 3"},
    {fwd_full,
     {F(A.shape[0], 3)},
     "A must have shape (dim, dstate): A.shape[0] is 3, u.shape[1] is 4"},
    {fwd_full,
     {F(A.ndim, 3)},
     "A must have shape (dim, dstate): A.ndim is 3, must be 2"},
    {fwd_full,
     {F(B.ndim, 3)},
     "B must have shape (batch_size, n_groups, dstate, " COLUMNS "): B.ndim is 3, must "
     "be 4"},
    {fwd_full,
     {F(B.shape[0], 1)},
     "B must have shape (batch_size, n_groups, dstate, " COLUMNS "): B.shape[0] is 1, "
     "u.shape[0] is 2"},
    {fwd_full,
     {F(B.shape[2], 4)},
     "B must have shape (batch_size, n_groups, dstate, " COLUMNS "): B.shape[2] is 4, "
     "A.shape[1] is 3"},
    {fwd_full,
     {F(B.shape[3], 16)},
     "B must have shape (batch_size, n_groups, dstate, " COLUMNS "): B.shape[3] is 16, "
     "u.shape[2] is 8"},
    {fwd_complex,
     {F(B.shape[3], 8)},
     "B must have shape (batch_size, n_groups, dstate, " COLUMNS "): B.shape[3] is 8, "
     "2 * u.shape[2] is 16"},
    {fwd_constant,
     {F(B.shape[0], 2)},
     "B must have shape (dim, dstate): B.shape[0] is 2, u.shape[1] is 4"},
    {fwd_constant,
     {F(B.ndim, 1)},
     "B must have shape (dim, dstate): B.ndim is 1, must be 2"},
    {fwd_full,
     {F(C.ndim, 3)},
     "C must have shape (batch_size, n_groups, dstate, " COLUMNS "): C.ndim is 3, must "
     "be 4"},
    {fwd_full,
     {F(C.shape[1], 4)},
     "C must have shape (batch_size, n_groups, dstate, " COLUMNS "): C.shape[1] is 4, "
     "B.shape[1] is 2"},
    {fwd_constant_B,
     {F(C.shape[1], 2)},
     "C must have shape (batch_size, n_groups, dstate, " COLUMNS "): C.shape[1] is 2, "
     "that of a constant B is 1"},
    {fwd_constant,
     {F(C.shape[1], 2)},
     "C must have shape (dim, dstate): C.shape[1] is 2, A.shape[1] is 3"},
    {fwd_full,
     {F(B.shape[1], 3), F(C.shape[1], 3)},
     "dims should be dividable by n_groups: u.shape[1] is 4, B.shape[1] is 3"},
    {fwd_full,
     {F(B.shape[1], 0), F(C.shape[1], 0)},
     "dims should be dividable by n_groups: u.shape[1] is 4, B.shape[1] is 0"},
    {fwd_full,
     {F(delta.shape[1], 3)},
     "dims should be dividable by delta_dim: u.shape[1] is 4, delta.shape[1] is 3"},
    {fwd_full,
     {F(delta.shape[1], 0)},
     "dims should be dividable by delta_dim: u.shape[1] is 4, delta.shape[1] is 0"},
    {fwd_full,
     {F(D.shape[0], 1)},
     "D must have shape (dim): D.shape[0] is 1, u.shape[1] is 4"},
    {fwd_full, {F(D.ndim, 2)}, "D must have shape (dim): D.ndim is 2, must be 1"},
    {fwd_full,
     {F(delta_bias.shape[0], 4)},
     "delta_bias must have shape (dim): delta_bias.shape[0] is 4, delta.shape[1] is 2"},
    {fwd_full,
     {F(z.shape[1], 2)},
     "z must have shape (batch_size, dim, seqlen): z.shape[1] is 2, u.shape[1] is 4"},
    {fwd_full,
     {F(u.shape[0], 0), F(delta.shape[0], 0), F(B.shape[0], 0)},
     "C must have shape (batch_size, n_groups, dstate, " COLUMNS "): C.shape[0] is 2, "
     "u.shape[0] is 0"},
    {fwd_full,
     {F(out.shape[2], 7)},
     "out must have shape (batch_size, dim, seqlen): out.shape[2] is 7, u.shape[2] is "
     "8"},
    {fwd_full,
     {F(x.shape[2], 2)},
     "x must have shape (batch_size, dim, n_chunks, 2 * dstate): x.shape[2] is 2, "
     "ceil(u.shape[2] / 2048) is 1"},
    {fwd_full,
     {F(x.shape[3], 3)},
     "x must have shape (batch_size, dim, n_chunks, 2 * dstate): x.shape[3] is 3, "
     "2 * A.shape[1] is 6"},
    {fwd_full,
     {F(out_z.ndim, 2)},
     "out_z must have shape (batch_size, dim, seqlen): out_z.ndim is 2, must be 3"},
    /* presence */
    {fwd_full,
     {F(out_z.data, 0)},
     "out_z must be present if and only if z is: out_z is absent, z is present"},
    {fwd_full,
     {F(z.data, 0)},
     "out_z must be present if and only if z is: out_z is present, z is absent"},
    /* memory */
    {fwd_full,
     {F(out.stride[1], 0)},
     "out is written and must not overlap itself: out.stride[1] is 0, the smaller "
     "strides reach 0"},
    {fwd_full,
     {F(out.stride[1], -7)},
     "out is written and must not overlap itself: out.stride[1] is -7, the smaller "
     "strides reach 7"},
    {fwd_full,
     {F(out_z.stride[0], 8)},
     "out_z is written and must not overlap itself: out_z.stride[1] is 8, the smaller "
     "strides reach 15"},
    {fwd_full,
     {F(x.stride[0], 48)},
     EXPECTED("x.is_contiguous()") "x.stride[0] is 48, must be 24"},
    {fwd_full,
     {F(x.stride[0], 48), F(x.stride[1], 12)},
     EXPECTED("x.is_contiguous()") "x.stride[1] is 12, must be 6"},
};

static const refusal backward_refusals[] = {
    {bwd_full, {W(reserved, 1)}, "reserved is 1, must be 0"},
    {bwd_full,
     {W(call.device_type, 0)},
     "call.device_type is 0: must be 1 (CPU) or 2 (CUDA)"},
    /* what it shares with the forward is looked at in the same way: one of each kind */
    {bwd_full,
     {W(u.dtype_bits, 64)},
     INPUT_TYPE "u.dtype is fp64, must be fp32, fp16 or bf16"},
    {bwd_full,
     {W(A.shape[1], 300)},
     "selective_scan only supports state dimension <= 256: A.shape[1] is 300, must be "
     "1 .. 256"},
    {bwd_full,
     {W(delta.shape[1], 3)},
     "dims should be dividable by delta_dim: u.shape[1] is 4, delta.shape[1] is 3"},
    {bwd_full,
     {W(z.shape[2], 9)},
     "z must have shape (batch_size, dim, seqlen): z.shape[2] is 9, u.shape[2] is 8"},
    /* dout */
    {bwd_full, {W(dout.data, 0)}, "dout must be present: dout.data is NULL"},
    {bwd_full,
     {W(dout.dtype_bits, 16)},
     EXPECTED("dout.scalar_type() == input_type") "dout.dtype is fp16, must be fp32"},
    {bwd_complex,
     {W(dout.dtype_code, 2)},
     EXPECTED("dout.scalar_type() == input_type") "dout.dtype is fp16, must be fp32 or "
                                                  "bf16"},
    {bwd_full,
     {W(dout.shape[0], 3)},
     "dout must have shape (batch_size, dim, seqlen): dout.shape[0] is 3, u.shape[0] "
     "is "
     "2"},
    /* the forward's results */
    {bwd_full,
     {W(out.data, 0)},
     EXPECTED("out_.has_value()") "z is present, out is absent"},
    {bwd_full,
     {W(out.dtype_bits, 16)},
     EXPECTED("out.scalar_type() == input_type") "out.dtype is fp16, must be fp32"},
    {bwd_full,
     {W(out.shape[1], 2)},
     "out must have shape (batch_size, dim, seqlen): out.shape[1] is 2, u.shape[1] is "
     "4"},
    {bwd_long,
     {W(x.data, 0)},
     EXPECTED("x_.has_value()") "x is absent, u.shape[2] is 4097 > 2048"},
    {bwd_full,
     {W(x.dtype_code, 5), W(x.dtype_bits, 64)},
     EXPECTED("x.scalar_type() == weight_type") "x.dtype is complex64, must be fp32"},
    {bwd_long,
     {W(x.stride[1], 24)},
     EXPECTED("x.is_contiguous()") "x.stride[1] is 24, must be 18"},
    {bwd_long,
     {W(x.shape[2], 2)},
     "x must have shape (batch_size, dim, n_chunks, 2 * dstate): x.shape[2] is 2, "
     "ceil(u.shape[2] / 2048) is 3"},
    /* presence */
    {bwd_full,
     {W(dD.data, 0)},
     "dD must be present if and only if D is: dD is absent, D is present"},
    {bwd_full,
     {W(D.data, 0)},
     "dD must be present if and only if D is: dD is present, D is absent"},
    {bwd_full,
     {W(ddelta_bias.data, 0)},
     "ddelta_bias must be present if and only if delta_bias is: ddelta_bias is absent, "
     "delta_bias is present"},
    {bwd_full,
     {W(delta_bias.data, 0)},
     "ddelta_bias must be present if and only if delta_bias is: ddelta_bias is "
     "present, "
     "delta_bias is absent"},
    {bwd_full,
     {W(dz.data, 0)},
     "dz must be present if and only if z is: dz is absent, z is present"},
    {bwd_full,
     {W(z.data, 0)},
     "dz must be present if and only if z is: dz is present, z is absent"},
    {bwd_full,
     {W(z.data, 0), W(dz.data, 0)},
     "out_z can be recomputed only with a z: out_z is present, z is absent"},
    /* outputs */
    {bwd_full, {W(du.data, 0)}, "du must be present: du.data is NULL"},
    {bwd_full, {W(ddelta.data, 0)}, "ddelta must be present: ddelta.data is NULL"},
    {bwd_full, {W(dA.data, 0)}, "dA must be present: dA.data is NULL"},
    {bwd_full, {W(dB.data, 0)}, "dB must be present: dB.data is NULL"},
    {bwd_full, {W(dC.data, 0)}, "dC must be present: dC.data is NULL"},
    {bwd_full,
     {W(dz.dtype_bits, 16)},
     EXPECTED("dz.scalar_type() == input_type") "dz.dtype is fp16, must be fp32"},
    {bwd_complex, {W(du.dtype_code, 2)}, "du.dtype is fp16, must be bf16"},
    {bwd_complex,
     {W(ddelta.dtype_code, 2), W(ddelta.dtype_bits, 32)},
     "ddelta.dtype is fp32, must be bf16"},
    {bwd_complex,
     {W(dA.dtype_code, 2), W(dA.dtype_bits, 32)},
     "dA.dtype is fp32, must be complex64"},
    {bwd_complex,
     {W(dB.dtype_code, 2), W(dB.dtype_bits, 32)},
     "dB.dtype is fp32, must be bf16"},
    {bwd_constant,
     {W(dC.dtype_code, 2), W(dC.dtype_bits, 32)},
     "dC.dtype is fp32, must be complex64"},
    {bwd_full, {W(dD.dtype_bits, 64)}, "dD.dtype is fp64, must be fp32"},
    {bwd_full,
     {W(ddelta_bias.dtype_bits, 16)},
     "ddelta_bias.dtype is fp16, must be fp32"},
    {bwd_full, {W(out_z.dtype_bits, 16)}, "out_z.dtype is fp16, must be fp32"},
    {bwd_full,
     {W(dz.shape[2], 4)},
     "dz must have shape (batch_size, dim, seqlen): dz.shape[2] is 4, u.shape[2] is 8"},
    {bwd_full,
     {W(du.shape[1], 2)},
     "du must have shape (batch_size, dim, seqlen): du.shape[1] is 2, u.shape[1] is 4"},
    {bwd_full,
     {W(ddelta.shape[1], 4)},
     "ddelta must have shape (batch_size, dim, seqlen): ddelta.shape[1] is 4, "
     "delta.shape[1] is 2"},
    {bwd_full,
     {W(dA.ndim, 1)},
     "dA must have shape (dim, dstate): dA.ndim is 1, must be 2"},
    {bwd_full,
     {W(dB.shape[1], 1)},
     "dB must have shape (batch_size, n_groups, dstate, " COLUMNS
     "): dB.shape[1] is 1, "
     "B.shape[1] is 2"},
    {bwd_constant,
     {W(dC.shape[1], 1)},
     "dC must have shape (dim, dstate): dC.shape[1] is 1, A.shape[1] is 3"},
    {bwd_full,
     {W(dD.shape[0], 2)},
     "dD must have shape (dim): dD.shape[0] is 2, u.shape[1] is 4"},
    {bwd_full,
     {W(ddelta_bias.shape[0], 4)},
     "ddelta_bias must have shape (dim): ddelta_bias.shape[0] is 4, delta.shape[1] is "
     "2"},
    {bwd_full,
     {W(out_z.shape[0], 1)},
     "out_z must have shape (batch_size, dim, seqlen): out_z.shape[0] is 1, u.shape[0] "
     "is 2"},
    {bwd_full,
     {W(dA.stride[0], 0)},
     "dA is written and must not overlap itself: dA.stride[0] is 0, the smaller "
     "strides "
     "reach 0"},
    {bwd_full,
     {W(dz.stride[0], 1)},
     "dz is written and must not overlap itself: dz.stride[1] is 8, the smaller "
     "strides "
     "reach 8"},
    /* workspace: the fake wants NEED bytes */
    {bwd_full,
     {W(workspace.data, 0)},
     "workspace.data is NULL, must point at 4096 bytes"},
    {bwd_full,
     {W(workspace.size, 4095)},
     "workspace.size is 4095, must be at least 4096"},
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

/* Shapes of a launch without blocks, which upstream leaves to CUDA to refuse. */
static void fwd_no_batch(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, FP32, L);
    p->u.shape[0] = p->delta.shape[0] = p->B.shape[0] = p->C.shape[0] = 0;
    p->z.shape[0] = p->out.shape[0] = p->x.shape[0] = p->out_z.shape[0] = 0;
}

static void fwd_no_dim(void *params) {
    fwd_params *p = params;
    make_fwd(p, FP32, FP32, L);
    p->u.shape[1] = p->A.shape[0] = p->D.shape[0] = p->z.shape[1] = 0;
    p->delta.shape[1] = p->delta_bias.shape[0] = 0;
    p->out.shape[1] = p->x.shape[1] = p->out_z.shape[1] = 0;
}

static void empty_batch_or_dim_is_refused_as_cuda_does(void **state) {
    (void)state;
    static const refusal rows[] = {
        {fwd_no_batch,
         {{0}},
         "CUDA error: invalid configuration argument: u.shape[0] is 0, must be at "
         "least 1"},
        {fwd_no_dim,
         {{0}},
         "CUDA error: invalid configuration argument: u.shape[1] is 0, must be at "
         "least 1"},
    };
    assert_rows_refused(&FWD, ROWS(rows));
}

/* ---- workspace ---------------------------------------------------------------- */

static void workspace_question_needs_only_inputs(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, L);
    p.du = p.ddelta = p.dA = p.dB = p.dC = p.dD = p.ddelta_bias = p.dz = ABSENT;
    p.workspace = (mbr_workspace){0};
    assert_int_equal(mbr_selective_scan_bwd_workspace(&p), NEED);
    assert_string_equal(fake->op, "selective_scan_bwd_workspace");
    assert_memory_equal(fake->params, &p, sizeof p);
}

static void workspace_of_refused_arguments_is_nothing(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, L);
    p.A.shape[1] = 257;
    assert_int_equal(mbr_selective_scan_bwd_workspace(&p), 0);
    assert_int_equal(mbr_selective_scan_bwd_workspace(NULL), 0);
}

static void misaligned_workspace_is_refused(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, L);
    p.workspace.data = (char *)p.workspace.data + 8;
    assert_int_equal(mbr_selective_scan_bwd(&p), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "workspace.data modulo 64 is 8, must be 0");
}

static void no_workspace_is_fine_where_none_is_needed(void **state) {
    (void)state;
    forget_tensors();
    bwd_params p;
    make_bwd(&p, FP32, FP32, L);
    p.workspace = (mbr_workspace){0};
    fake->workspace = 0;
    assert_int_equal(mbr_selective_scan_bwd(&p), MBR_OK);
    fake->workspace = NEED;
}

/* ---- struct_size -------------------------------------------------------------- */

static void older_caller_gets_zeros_for_what_it_lacks(void **state) {
    (void)state;
    forget_tensors();
    fwd_params p;
    fwd_least(&p);
    const size_t older = offsetof(fwd_params, out_z);
    assert_int_equal(call_sized(&FWD, &p, older, 0), MBR_OK);
    p.delta_softplus = 0;
    assert_int_equal(fake->size, sizeof p);
    assert_memory_equal(fake->params, &p, sizeof p);
}

static void much_older_caller_is_told_what_is_missing(void **state) {
    (void)state;
    forget_tensors();
    fwd_params p;
    fwd_least(&p);
    assert_int_equal(call_sized(&FWD, &p, offsetof(fwd_params, x), 0), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "x must be present: x.data is NULL");
}

static void newer_caller_is_served_if_its_tail_is_zero(void **state) {
    (void)state;
    forget_tensors();
    fwd_params p;
    fwd_full(&p);
    fake->op = "nothing";
    assert_int_equal(call_sized(&FWD, &p, sizeof p + 24, 0), MBR_OK);
    assert_string_equal(fake->op, "selective_scan_fwd");
}

static void newer_caller_with_a_wish_is_refused(void **state) {
    (void)state;
    forget_tensors();
    fwd_params p;
    fwd_full(&p);
    fake->op = "nothing";
    assert_int_equal(call_sized(&FWD, &p, sizeof p + 24, 1), MBR_E_ARG);
    assert_non_null(strstr(mbr_last_error(), "the caller is newer"));
    assert_string_equal(fake->op, "nothing");
}

static void null_is_refused(void **state) {
    (void)state;
    assert_int_equal(mbr_selective_scan_fwd(NULL), MBR_E_ARG);
    assert_int_equal(mbr_selective_scan_bwd(NULL), MBR_E_ARG);
    assert_string_equal(mbr_last_error(), "params is NULL");
}

static void status_of_the_variant_comes_back_with_a_sentence(void **state) {
    (void)state;
    forget_tensors();
    fwd_params p;
    fwd_full(&p);
    fake->status = MBR_E_UNSUPPORTED;
    assert_int_equal(mbr_selective_scan_fwd(&p), MBR_E_UNSUPPORTED);
    assert_string_equal(mbr_last_error(),
                        "selective_scan_fwd: cpu_scalar answers MBR_E_UNSUPPORTED");
    fake->status = MBR_OK;
}

/* ---- random spoiling ---------------------------------------------------------- */

static bool there(const mbr_tensor *t) {
    return t->data || (t->ndim == 3 && t->shape[2] == 0);
}

static void assert_B_is_sound(const mbr_tensor *t, const fwd_params *p,
                              int64_t groups) {
    const int64_t columns = is(&p->A, COMPLEX64) ? 2 * p->u.shape[2] : p->u.shape[2];
    if (t->ndim < 3)
        assert_true(like(t, &p->A));
    else
        assert_true(same_dtype(t, &p->u) &&
                    has_shape(t, 4, p->u.shape[0], groups, p->A.shape[1], columns));
}

static void fwd_inputs_are_sound(const fwd_params *p) {
    const mbr_tensor *u = &p->u;
    const int64_t groups = p->B.ndim < 3 ? 1 : p->B.shape[1];
    assert_true(is(u, FP32) || is(u, FP16) || is(u, BF16));
    assert_true(u->ndim == 3 && u->shape[0] > 0 && u->shape[1] > 0 && u->shape[2] >= 0);
    assert_true(is(&p->A, FP32) || is(&p->A, COMPLEX64));
    assert_true(p->A.ndim == 2 && p->A.shape[0] == u->shape[1]);
    assert_in_range(p->A.shape[1], 1, 256);
    assert_true(same_dtype(&p->delta, u) && p->delta.shape[1] > 0);
    assert_true(
        has_shape(&p->delta, 3, u->shape[0], p->delta.shape[1], u->shape[2], 0));
    assert_true(u->shape[1] % p->delta.shape[1] == 0);
    assert_true(groups > 0 && u->shape[1] % groups == 0);
    assert_B_is_sound(&p->B, p, groups);
    assert_B_is_sound(&p->C, p, groups);
    assert_true(!p->D.data ||
                (is(&p->D, FP32) && has_shape(&p->D, 1, u->shape[1], 0, 0, 0)));
    assert_true(!p->delta_bias.data ||
                (is(&p->delta_bias, FP32) &&
                 has_shape(&p->delta_bias, 1, p->delta.shape[1], 0, 0, 0)));
    assert_true(!p->z.data || like(&p->z, u));
}

static void fwd_is_sound(const void *params) {
    const fwd_params *p = params;
    fwd_inputs_are_sound(p);
    mbr_tensor out = p->out;
    out.dtype_code = p->u.dtype_code;
    out.dtype_bits = is(&p->out, FP32) ? p->u.dtype_bits : p->out.dtype_bits;
    assert_true(there(&p->out) && like(&out, &p->u));
    assert_true(same_dtype(&p->x, &p->A));
    assert_true(has_shape(&p->x, 4, p->u.shape[0], p->u.shape[1],
                          (p->u.shape[2] + 2047) / 2048, 2 * p->A.shape[1]));
    assert_true(there(&p->out_z) == there(&p->z));
    assert_true(!there(&p->z) || like(&p->out_z, &p->u));
}

static void bwd_is_sound(const void *params) {
    const bwd_params *p = params;
    const fwd_params f = {.u = p->u,
                          .delta = p->delta,
                          .A = p->A,
                          .B = p->B,
                          .C = p->C,
                          .D = p->D,
                          .z = p->z,
                          .delta_bias = p->delta_bias};
    fwd_inputs_are_sound(&f);
    assert_true(p->x.data || p->u.shape[2] <= 2048);
    assert_true(there(&p->out) || !there(&p->z));
    assert_true(like(&p->du, &p->u) && like(&p->ddelta, &p->delta));
    assert_true(like(&p->dA, &p->A) && like(&p->dB, &p->B) && like(&p->dC, &p->C));
    assert_true(!p->D.data ? !p->dD.data : like(&p->dD, &p->D));
    assert_true(!p->delta_bias.data ? !p->ddelta_bias.data
                                    : like(&p->ddelta_bias, &p->delta_bias));
    assert_true(!there(&p->z) ? !there(&p->dz) : like(&p->dz, &p->z));
    assert_true(!there(&p->out_z) || (there(&p->z) && like(&p->out_z, &p->z)));
    assert_true(p->workspace.data && p->workspace.size >= NEED);
}

static void spoilt_forwards_are_caught(void **state) {
    (void)state;
    assert_spoilt_is_caught(&FWD, 11, fwd_cases, FWD_CASES, NULL, fwd_is_sound);
}

static void spoilt_backwards_are_caught(void **state) {
    (void)state;
    assert_spoilt_is_caught(&BWD, 20, bwd_cases, BWD_CASES, NULL, bwd_is_sound);
}

int main(void) {
    fake = mbr_fake_use(MBR_TEST_FAKES "/good");
    if (!fake)
        return 1;
    fake->workspace = NEED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_forwards_arrive_unchanged),
        cmocka_unit_test(good_backwards_arrive_unchanged),
        cmocka_unit_test(forward_refuses_by_name),
        cmocka_unit_test(backward_refuses_by_name),
        cmocka_unit_test(empty_batch_or_dim_is_refused_as_cuda_does),
        cmocka_unit_test(workspace_question_needs_only_inputs),
        cmocka_unit_test(workspace_of_refused_arguments_is_nothing),
        cmocka_unit_test(misaligned_workspace_is_refused),
        cmocka_unit_test(no_workspace_is_fine_where_none_is_needed),
        cmocka_unit_test(older_caller_gets_zeros_for_what_it_lacks),
        cmocka_unit_test(much_older_caller_is_told_what_is_missing),
        cmocka_unit_test(newer_caller_is_served_if_its_tail_is_zero),
        cmocka_unit_test(newer_caller_with_a_wish_is_refused),
        cmocka_unit_test(null_is_refused),
        cmocka_unit_test(status_of_the_variant_comes_back_with_a_sentence),
        cmocka_unit_test(spoilt_forwards_are_caught),
        cmocka_unit_test(spoilt_backwards_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
