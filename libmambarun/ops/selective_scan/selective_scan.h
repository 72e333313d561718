/* SPDX-License-Identifier: Apache-2.0
 *
 * selective_scan.h - the state-space scan of Mamba, forward and backward.
 * Shape letters: B batch, D dim, L seqlen, N dstate (1..256), G groups, Dd delta_dim,
 * NC = ceil(L / 2048). Formulas: README.md beside this file. Included by mambarun.h.
 *
 * Dtypes: u, delta, z, out_z, du, ddelta, dz and variable B, C, dB, dC share one of
 * fp32, fp16, bf16; out and dout are of that type or fp32. A is fp32 or complex64;
 * x, dA and constant B, C, dB, dC have A's dtype. D, delta_bias, dD, ddelta_bias are
 * fp32. Arithmetic is fp32. Variable B, C of a complex A hold (re, im) pairs along
 * their last axis, in u's dtype.
 *
 * Strides: any, in elements, for every tensor; 0 too for inputs. x alone must be
 * contiguous. Outputs must not overlap inputs, except dz and out_z, each of which may
 * be the very memory of z, dout or out with the same strides.
 */
#ifndef MBR_SELECTIVE_SCAN_H
#define MBR_SELECTIVE_SCAN_H

#include "../../mambarun.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mbr_selective_scan_fwd_params {
    mbr_call call;
    /* in */
    mbr_tensor u;          /* (B, D, L) */
    mbr_tensor delta;      /* (B, Dd, L); channel d uses row d / (D / Dd) */
    mbr_tensor A;          /* (D, N) */
    mbr_tensor B;          /* constant (D, N), variable (B, G, N, L), complex A: 2L */
    mbr_tensor C;          /* as B, independently */
    mbr_tensor D;          /* (D,) or absent */
    mbr_tensor z;          /* (B, D, L) or absent */
    mbr_tensor delta_bias; /* (Dd,) or absent */
    /* out: written whole, never read */
    mbr_tensor out;          /* (B, D, L), without the gate */
    mbr_tensor x;            /* (B, D, NC, 2N): per chunk of 2048 the pairs (product of
                                exp(delta A) from the start, state after the chunk) */
    mbr_tensor out_z;        /* (B, D, L), gated; present iff z is */
    uint32_t delta_softplus; /* nonzero: delta = softplus(delta + delta_bias) */
    uint32_t reserved;       /* 0 */
} mbr_selective_scan_fwd_params;

/* MBR_E_ARG names the field that is off; nothing is written then. L = 0 writes
 * nothing; B = 0 or D = 0 is refused. */
MBR_API mbr_status mbr_selective_scan_fwd(const mbr_selective_scan_fwd_params *p);

typedef struct mbr_selective_scan_bwd_params {
    mbr_call call;
    /* in: the forward's arguments again */
    mbr_tensor u, delta, A, B, C, D, z, delta_bias;
    mbr_tensor dout; /* (B, D, L) */
    mbr_tensor x;    /* the forward's; may be absent if NC is 1 */
    mbr_tensor out;  /* the forward's, as rounded; needed iff z is present */
    /* out: written whole (nothing is accumulated into them), never read */
    mbr_tensor du;          /* (B, D, L) */
    mbr_tensor ddelta;      /* (B, Dd, L) */
    mbr_tensor dA;          /* (D, N) */
    mbr_tensor dB;          /* shape and dtype of B */
    mbr_tensor dC;          /* shape and dtype of C */
    mbr_tensor dD;          /* (D,), present iff D is */
    mbr_tensor ddelta_bias; /* (Dd,), present iff delta_bias is */
    mbr_tensor dz;          /* (B, D, L), present iff z is */
    mbr_tensor out_z;       /* (B, D, L) or absent; present: recompute it (needs z) */
    mbr_workspace workspace;
    uint32_t delta_softplus;
    uint32_t reserved; /* 0 */
} mbr_selective_scan_bwd_params;

/* The sums over batch and over the channels of a group are done in a fixed order: on
 * the CPU equal arguments give equal bits, whatever the number of threads. */
MBR_API mbr_status mbr_selective_scan_bwd(const mbr_selective_scan_bwd_params *p);

/* Bytes that p->workspace must have (p->workspace itself and pointers to outputs are
 * not looked at). 0 if the arguments are refused: the call itself says why. */
MBR_API size_t mbr_selective_scan_bwd_workspace(const mbr_selective_scan_bwd_params *p);

#ifdef __cplusplus
}
#endif

#endif
