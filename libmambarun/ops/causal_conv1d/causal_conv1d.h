/* SPDX-License-Identifier: Apache-2.0
 *
 * causal_conv1d.h - the short depthwise convolution in front of the scan: forward,
 * backward, and the step that updates a state when tokens come one by one.
 * Shape letters: B batch, D dim, L seqlen, W width (2..4), S state length (>= W - 1),
 * E rows of states. Formulas: README.md beside this file. Included by mambarun.h.
 *
 * Dtypes: x and weight are each fp32, fp16 or bf16, independently; bias is any of the
 * three too; states, out, dout, dx have x's dtype; seq_idx, cache_seqlens and
 * conv_state_indices are int32. Arithmetic is fp32.
 *
 * Strides: any, in elements, for every tensor; 0 too for inputs. Outputs must not
 * overlap inputs or one another, except that out of the forward and of the update may
 * be the very memory of x, and final_states_out that of initial_states, with equal
 * strides.
 */
#ifndef MBR_CAUSAL_CONV1D_H
#define MBR_CAUSAL_CONV1D_H

#include "../../mambarun.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mbr_causal_conv1d_fwd_params {
    mbr_call call;
    /* in */
    mbr_tensor x;              /* (B, D, L) */
    mbr_tensor weight;         /* (D, W) */
    mbr_tensor bias;           /* (D,) or absent */
    mbr_tensor seq_idx;        /* (B, L) or absent; a tap counts only within one id, and
                                  an id below 0 marks padding: out is 0 there */
    mbr_tensor initial_states; /* (B, D, W - 1) or absent: the inputs before time 0,
                                  0 without them; with seq_idx their id is -1 */
    /* out: written whole, never read */
    mbr_tensor out;              /* (B, D, L) */
    mbr_tensor final_states_out; /* (B, D, W - 1) or absent: the last W - 1 inputs */
    uint32_t silu_activation;    /* nonzero: out = y / (1 + exp(-y)) */
    uint32_t reserved;           /* 0 */
} mbr_causal_conv1d_fwd_params;

/* MBR_E_ARG names the field that is off; nothing is written then. An empty batch, dim
 * or seqlen is refused. */
MBR_API mbr_status mbr_causal_conv1d_fwd(const mbr_causal_conv1d_fwd_params *p);

typedef struct mbr_causal_conv1d_bwd_params {
    mbr_call call;
    /* in */
    mbr_tensor x, weight, bias;
    mbr_tensor dout; /* (B, D, L) */
    mbr_tensor seq_idx, initial_states;
    mbr_tensor dfinal_states; /* (B, D, W - 1) or absent */
    /* out */
    mbr_tensor dx;              /* (B, D, L), written whole */
    mbr_tensor dweight;         /* (D, W), fp32 or weight's dtype */
    mbr_tensor dbias;           /* (D,), fp32 or bias's dtype; present iff bias is */
    mbr_tensor dinitial_states; /* (B, D, W - 1) or absent, written whole */
    mbr_workspace workspace;
    uint32_t silu_activation;
    uint32_t accumulate; /* nonzero: add to dweight and dbias instead of writing them */
} mbr_causal_conv1d_bwd_params;

MBR_API mbr_status mbr_causal_conv1d_bwd(const mbr_causal_conv1d_bwd_params *p);

/* Bytes that p->workspace must have (p->workspace itself and pointers to outputs are
 * not looked at). 0 if the arguments are refused: the call itself says why. */
MBR_API size_t mbr_causal_conv1d_bwd_workspace(const mbr_causal_conv1d_bwd_params *p);

typedef struct mbr_causal_conv1d_update_params {
    mbr_call call;
    mbr_tensor x;             /* in: (B, D, L) */
    mbr_tensor conv_state;    /* in and out: (B, D, S), or (E, D, S) with indices */
    mbr_tensor weight;        /* in: (D, W) */
    mbr_tensor bias;          /* in: (D,) or absent */
    mbr_tensor cache_seqlens; /* in: (B,) or absent; present: conv_state is a ring,
                                 x[t] goes to column (cache_seqlens[b] + t) % S;
                                 at least 0 */
    mbr_tensor conv_state_indices; /* in: (B,) or absent: row of conv_state for b;
                                      below 0: out is 0 and no state is touched; the
                                      others are at most E - 1 and differ */
    mbr_tensor out;                /* out: (B, D, L), written whole */
    uint32_t silu_activation;
    uint32_t reserved; /* 0 */
} mbr_causal_conv1d_update_params;

/* What the two integer tensors hold is checked on the CPU only. */
MBR_API mbr_status mbr_causal_conv1d_update(const mbr_causal_conv1d_update_params *p);

#ifdef __cplusplus
}
#endif

#endif
