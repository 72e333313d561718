/* SPDX-License-Identifier: Apache-2.0
 *
 * update.cu - the step that updates a state when tokens come one by one: a forward
 * whose history is the state, any strides. conv.cuh says what the macros are.
 *
 * A lane takes one channel of one batch row, and nobody else touches that row of the
 * state. It reads x_t before it writes out_t, so out may lie over x. A row index that
 * is negative, or beyond the states, gives zeros and leaves the states alone.
 */
#include "conv.cuh"

INLINE void clear(IN *out, int64_t stride, int64_t length) {
    for (int64_t t = 0; t < length; t++)
        out[t * stride] = IN{};
}

/* state <- what stays of it when `count` columns come in. */
INLINE void shift(IN *state, int64_t stride, int64_t size, int64_t count) {
#pragma unroll 4
    for (int64_t j = 0; j + count < size; j++)
        state[j * stride] = state[(j + count) * stride];
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER mbr_causal_conv1d_update_params p) {
    const int64_t index = (int64_t)blockIdx.x * CONV_THREADS + threadIdx.x;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];
    if (index >= p.x.shape[0] * dim)
        return;
    const int64_t b = index / dim, d = index % dim;
    const IN *x = row_of<IN>(p.x, b, d);
    IN *out = row_of<IN>(p.out, b, d);
    int64_t entry = b;
    if (p.conv_state_indices.data)
        entry = static_cast<const int32_t *>(
            p.conv_state_indices.data)[b * p.conv_state_indices.stride[0]];
    if (entry < 0 || entry >= p.conv_state.shape[0]) {
        clear(out, p.out.stride[2], length);
        return;
    }
    IN *state = row_of<IN>(p.conv_state, entry, d);
    const int64_t size = p.conv_state.shape[2], stride = p.conv_state.stride[2];
    const int kept = (int)p.weight.shape[1] - 1;
    const counted taps = taps_of(kept + 1);
    const bool ring = p.cache_seqlens.data;

    /* Where x_0 goes; without a ring, if it were one beside the state. */
    int64_t column = size;
    if (ring) {
        column = static_cast<const int32_t *>(
                     p.cache_seqlens.data)[b * p.cache_seqlens.stride[0]] %
                 size;
        column += column < 0 ? size : 0;
    }
    float before[BEFORE], w[TAPS];
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        int64_t from = column - BEFORE + j;
        from += from < 0 ? size : 0;
        before[j] = j < BEFORE - kept ? 0.0f : to_float(state[from * stride]);
    }
    read_taps(w, p.weight, d);
    const float bias = read_bias(p.bias, d);
    if (!ring) {
        shift(state, stride, size, length);
        column = size - length; /* below 0: it does not stay */
    }

    for (int64_t t = 0; t < length; t++) {
        const IN own = x[t * p.x.stride[2]];
        const float x_t = to_float(own);
        const float y = add_taps(bias, w[0], w[1], w[2], w[3], before[0], before[1],
                                 before[2], x_t, taps);
        before[0] = before[1], before[1] = before[2], before[2] = x_t;
        out[t * p.out.stride[2]] = from_float<IN>(p.silu_activation ? silu(y) : y);
        if (column >= 0)
            state[column * stride] = own;
        column++;
        if (ring && column == size)
            column = 0;
    }
}
