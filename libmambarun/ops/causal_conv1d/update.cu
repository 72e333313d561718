/* SPDX-License-Identifier: Apache-2.0
 *
 * update.cu - the step that updates a state when tokens come one by one: a forward
 * whose history is the state, any strides and dtypes.
 *
 * A lane takes one channel of one batch row, and nobody else touches that row of the
 * state. It reads x_t before it writes out_t, so out may lie over x. A row index that
 * is negative, or beyond the states, gives zeros and leaves the states alone.
 */
#include "conv.cuh"

/* One channel of a tensor over time; strides in bytes. */
struct line {
    char *data;
    int64_t stride;
    dtype type;

    INLINE uint32_t at(int64_t t) const {
        return load_bits(data + t * stride, type);
    }

    INLINE void put(int64_t t, uint32_t bits) const {
        store_bits(data + t * stride, bits, type);
    }
};

INLINE line line_of(const mbr_tensor &t, int64_t b, int64_t d) {
    const dtype type = dtype_of(t);
    return {at(t, b * t.stride[0] + d * t.stride[1]), t.stride[2] * type.size(), type};
}

extern "C" __global__ void __launch_bounds__(CONV_THREADS)
    MBR_KERNEL_NAME(KERNEL_PARAMETER mbr_causal_conv1d_update_params p) {
    const int64_t index = (int64_t)blockIdx.x * CONV_THREADS + threadIdx.x;
    const int64_t dim = p.x.shape[1], length = p.x.shape[2];
    if (index >= p.x.shape[0] * dim)
        return;
    const int64_t b = index / dim, d = index % dim;
    const line x = line_of(p.x, b, d), out = line_of(p.out, b, d);
    int64_t entry = b;
    if (p.conv_state_indices.data)
        entry = static_cast<const int32_t *>(
            p.conv_state_indices.data)[b * p.conv_state_indices.stride[0]];
    if (entry < 0 || entry >= p.conv_state.shape[0]) {
#pragma unroll 1
        for (int64_t t = 0; t < length; t++)
            out.put(t, 0);
        return;
    }
    const line state = line_of(p.conv_state, entry, d);
    const int64_t size = p.conv_state.shape[2];
    const int kept = (int)p.weight.shape[1] - 1;
    const counted taps = taps_of(kept + 1);
    const bool ring = p.cache_seqlens.data;

    /* Where x_0 goes; without a ring, if it were one beside the state. */
    int64_t column = size;
    if (ring) {
        column = static_cast<const int32_t *>(
            p.cache_seqlens.data)[b * p.cache_seqlens.stride[0]];
        column %= size;
        column += column < 0 ? size : 0;
    }
    float before[BEFORE], w[TAPS];
#pragma unroll
    for (int j = 0; j < BEFORE; j++) {
        int64_t from = column - BEFORE + j;
        from += from < 0 ? size : 0;
        before[j] = j < BEFORE - kept ? 0.0f : to_float(state.at(from), state.type);
    }
#pragma unroll
    for (int j = 0; j < TAPS; j++)
        w[j] = read_tap(p.weight, p.bias, d, j);
    const float bias = read_tap(p.weight, p.bias, d, TAPS);
    if (!ring) {
#pragma unroll 4
        for (int64_t j = 0; j + length < size; j++) /* what stays of it */
            state.put(j, state.at(j + length));
        column = size - length; /* below 0: it does not stay */
    }
#pragma unroll 1
    for (int64_t t = 0; t < length; t++) {
        const uint32_t own = x.at(t);
        const float x_t = to_float(own, x.type);
        const float y = add_taps(bias, w[0], w[1], w[2], w[3], before[0], before[1],
                                 before[2], x_t, taps);
        before[0] = before[1], before[1] = before[2], before[2] = x_t;
        out.put(t, to_bits(p.silu_activation ? silu(y) : y, out.type));
        if (column >= 0)
            state.put(column, own);
        column++;
        if (ring && column == size)
            column = 0;
    }
}
