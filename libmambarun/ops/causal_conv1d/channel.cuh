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

struct real {}; /* IN, for one value a lane at any place, of any dtype */

/* What a lane moves at once. */
template <class T, int count> struct moved {
    typedef run<T, count> step;
    static INLINE int size(dtype) {
        return sizeof(T);
    }
    static INLINE step load(const char *from, dtype) {
        return load_vector<T, count>(reinterpret_cast<const T *>(from));
    }
    static INLINE void store(char *to, const step &s, dtype) {
        store_vector(reinterpret_cast<T *>(to), s);
    }
    static INLINE void unpack(float (&to)[count], const step &s, dtype) {
        unpack_run(to, s);
    }
    static INLINE step pack(const float (&from)[count], dtype) {
        return pack_run<T>(from);
    }
};

template <> struct moved<real, 1> {
    typedef uint32_t step;
    static INLINE int size(dtype type) {
        return type.size();
    }
    static INLINE step load(const char *from, dtype type) {
        return load_bits(from, type);
    }
    static INLINE void store(char *to, step s, dtype type) {
        store_bits(to, s, type);
    }
    static INLINE void unpack(float (&to)[1], step s, dtype type) {
        to[0] = to_float(s, type);
    }
    static INLINE step pack(const float (&from)[1], dtype type) {
        return to_bits(from[0], type);
    }
};

typedef moved<IN, COUNT> lane_data;
typedef lane_data::step step;

/* A lane's channels of a (B, D, time) tensor, and its stride in bytes. Absent: data is
 * NULL. */
struct columns {
    char *data;
    int64_t stride;
    dtype type;

    INLINE step at(int64_t t) const {
        return lane_data::load(data + t * stride, type);
    }

    INLINE void put(int64_t t, const step &s) const {
        lane_data::store(data + t * stride, s, type);
    }
};

INLINE columns columns_of(const mbr_tensor &t, int64_t b, int64_t d) {
    const dtype type = dtype_of(t);
    const int size = lane_data::size(type);
    return {t.data ? static_cast<char *>(t.data) +
                         (b * t.stride[0] + d * t.stride[1]) * size
                   : nullptr,
            t.stride[2] * size, type};
}

/* On its way through a row, step by step. */
template <class T> struct cursor {
    T *at;
    int64_t step;

    INLINE void advance() {
        at += step;
    }
};

INLINE cursor<char> from_time(const columns &c, int64_t t) {
    return {c.data + t * c.stride, c.stride};
}

INLINE cursor<const int32_t> from_time(const mbr_tensor &seq_idx, int64_t b,
                                       int64_t t) {
    const int32_t *row =
        static_cast<const int32_t *>(seq_idx.data) + b * seq_idx.stride[0];
    return {row + t * seq_idx.stride[1], seq_idx.stride[1]};
}

/* Asks the second-level cache for the steps of a team's columns long before they are
 * loaded. A request is for 32 bytes, a lane makes one: so all lanes cover some steps.
 */
struct scout {
    static constexpr int SECTOR = 32;
    const char *at; /* the lane's sector */
    int64_t stride; /* of a round of requests */
    int ahead;      /* the lane's step less the first of the round */

    INLINE void ask(int t, int given) {
        if (t + ahead < given)
            prefetch(at);
        at += stride;
    }
};

/* Steps that a round covers. */
INLINE int steps_of_round(uint32_t lane_bits, dtype type) {
    const int bytes = COUNT * lane_data::size(type) << lane_bits;
    return (1 << lane_bits) / max(bytes / scout::SECTOR, 1);
}

/* From the cursor's step on. left: channels from the lane's first to the tensor's end.
 */
INLINE scout scout_of(const cursor<char> &c, uint32_t lane_bits, int lane, int64_t left,
                      dtype type) {
    const int steps = steps_of_round(lane_bits, type);
    const int sectors = (1 << lane_bits) / steps, size = lane_data::size(type);
    const int ahead = lane / sectors;
    const int offset = lane % sectors * scout::SECTOR - lane * COUNT * size;
    return {c.at + offset + ahead * c.step, steps * c.step,
            offset < left * size ? ahead : INT32_MAX / 2};
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

/* IDS: 0 there is no seq_idx, 1 there is, 2 see there. */
INLINE bool has_ids(const mbr_tensor &seq_idx) {
    return IDS == 2 ? seq_idx.data != nullptr : IDS;
}

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
                     int bits) {
        const int64_t dim = weight.shape[0];
#pragma unroll 1
        for (int i = threadIdx.x; i < (TAPS + 1) << bits; i += CONV_THREADS) {
            const int j = i >> bits, c = i & ((1 << bits) - 1);
            w[j][c] = first + c < dim ? read_tap(weight, bias, first + c, j) : 0.0f;
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
