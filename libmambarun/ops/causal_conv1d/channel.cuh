/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.cuh - what the kernels share whose lanes hold COUNT channels each: how a lane
 * reads and writes a step, and where it gets its taps from. With COUNT = 1 any strides
 * are right. Else channels lie side by side, aligned to COUNT of them, in all tensors
 * that have them; dim is a multiple of COUNT.
 */
#ifndef MBR_CHANNEL_CUH
#define MBR_CHANNEL_CUH

#include "conv.cuh"

/* ---- steps -------------------------------------------------------------------------
 */

/* What a lane moves at once: a run, or one value at any place. */
template <class T, int count> struct moved {
    typedef run<T, count> step;
    static INLINE step load(const T *from) {
        return load_run<T, count>(from);
    }
    static INLINE void store(T *to, const step &s) {
        store_run(to, s);
    }
    static INLINE void unpack(float (&to)[count], const step &s) {
        unpack_run(to, s);
    }
    static INLINE step pack(const float (&from)[count]) {
        return pack_run<T>(from);
    }
};

template <class T> struct moved<T, 1> {
    typedef T step;
    static INLINE T load(const T *from) {
        return *from;
    }
    static INLINE void store(T *to, T s) {
        *to = s;
    }
    static INLINE void unpack(float (&to)[1], T s) {
        to[0] = to_float(s);
    }
    static INLINE T pack(const float (&from)[1]) {
        return from_float<T>(from[0]);
    }
};

typedef moved<IN, COUNT> lane_data;
typedef lane_data::step step;

/* A lane's channels of a (B, D, time) tensor. Absent: data is NULL. */
struct columns {
    IN *data;
    int64_t stride;

    INLINE step at(int64_t t) const {
        return lane_data::load(data + t * stride);
    }

    INLINE void put(int64_t t, const step &s) const {
        lane_data::store(data + t * stride, s);
    }
};

INLINE columns columns_of(const mbr_tensor &t, int64_t b, int64_t d) {
    if (!t.data)
        return {nullptr, 0};
    return {row_of<IN>(t, b, d), t.stride[2]};
}

/* x, and before time 0 its history if there is one; everywhere else 0. */
struct inputs {
    columns now, then;
    int64_t length;
    int kept;

    INLINE step at(int64_t t) const {
        if (t >= 0 && t < length)
            return now.at(t);
        if (t < 0 && t >= -kept && then.data)
            return then.at(t + kept);
        return {};
    }
};

/* ---- taps --------------------------------------------------------------------------
 */

/* Those of a lane's channels. */
struct lane_taps {
    float w[TAPS][COUNT], bias[COUNT];
};

/* Those of a block's channels, in shared memory. */
struct alignas(16) block_taps {
    float w[TAPS + 1][CONV_LANES * COUNT]; /* the bias last */

    /* By all threads of the block. */
    INLINE void load(const mbr_tensor &weight, const mbr_tensor &bias, int64_t first,
                     int channels) {
        const int64_t dim = weight.shape[0];
        for (int c = threadIdx.x; c < channels; c += CONV_THREADS) {
            const int64_t d = first + c;
            float own[TAPS] = {};
            if (d < dim)
                read_taps(own, weight, d);
#pragma unroll
            for (int j = 0; j < TAPS; j++)
                w[j][c] = own[j];
            w[TAPS][c] = d < dim ? read_bias(bias, d) : 0.0f;
        }
    }

    INLINE void give(float (&to)[COUNT], int j, int lane) const {
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            to[n] = w[j][lane * COUNT + n];
    }

    INLINE lane_taps of(int lane) const {
        lane_taps own;
#pragma unroll
        for (int j = 0; j < TAPS; j++)
            give(own.w[j], j, lane);
        give(own.bias, TAPS, lane);
        return own;
    }
};

#endif
