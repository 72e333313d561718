/* SPDX-License-Identifier: Apache-2.0
 *
 * scan.cuh - how the scan's kernels move rows of (batch, channel, time) tensors and
 * tiles of B and C. A row is worked by a team of LANES lanes, each of which holds STEPS
 * consecutive positions of a tile of TILE.
 */
#ifndef MBR_SCAN_CUH
#define MBR_SCAN_CUH

#include "variant/device.cuh"

constexpr int TILE = LANES * STEPS;
constexpr int CHUNK = 2048; /* positions per entry of x; fixed by the contract */
static_assert(CHUNK % TILE == 0 && STEPS % 4 == 0 && 32 % LANES == 0, "tiles");

#ifdef COMPLEX
typedef complex value;
#else
typedef float value;
#endif

constexpr int PARTS = sizeof(value) / sizeof(float);

INLINE float make_value(float re, float) {
    return re;
}

/* ---- rows -------------------------------------------------------------------------- */

/* The team's tile of a row, as fp32 in shared memory, to hand positions to other lanes:
 * global memory is read and written across lanes wherever a lane's own run cannot be
 * moved in 16-byte accesses. One per team; all 32 lanes of a warp take part. */
struct exchange {
    float at[TILE];
};

/* v[i] = position start + lane STEPS + i of a row, 0 from position start + left on. */
template <class T>
INLINE void load_steps(float (&v)[STEPS], const T *row, int64_t stride, int64_t start,
                       int left, bool wide, exchange &team, int lane) {
    if (wide) {
        const T *own = row + start + lane * STEPS;
        if ((lane + 1) * STEPS <= left) {
            unpack_run(v, load_run<T, STEPS>(own));
        } else {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                v[i] = lane * STEPS + i < left ? to_float(own[i]) : 0.0f;
        }
        return;
    }
    const T *own = row + (start + lane) * stride;
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = i * LANES + lane < left ? to_float(own[i * LANES * stride]) : 0.0f;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        team.at[i * LANES + lane] = v[i];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = team.at[lane * STEPS + i];
}

/* The way back. A team whose row does not exist comes with left = 0. */
template <class T>
INLINE void store_steps(const float (&v)[STEPS], T *row, int64_t stride, int64_t start,
                        int left, bool wide, exchange &team, int lane) {
    if (wide && !same_type<T, f32>::value) {
        T *own = row + start + lane * STEPS;
        if ((lane + 1) * STEPS <= left) {
            store_run(own, pack_run<T>(v));
        } else {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                if (lane * STEPS + i < left)
                    own[i] = from_float<T>(v[i]);
        }
        return;
    }
    __syncwarp();
    float4 *quads = reinterpret_cast<float4 *>(team.at);
#pragma unroll
    for (int i = 0; i < STEPS; i += 4)
        quads[(lane * STEPS + i) / 4] = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
    __syncwarp();
    if (wide && left == TILE) { /* whole sectors of 32 bytes at a time */
#pragma unroll
        for (int i = 0; i < STEPS / 4; i++)
            reinterpret_cast<float4 *>(row + start)[i * LANES + lane] =
                quads[i * LANES + lane];
        return;
    }
    T *own = row + (start + lane) * stride;
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        if (i * LANES + lane < left)
            own[i * LANES * stride] = from_float<T>(team.at[i * LANES + lane]);
}

/* ---- B and C ----------------------------------------------------------------------- */

/* A state's tile in shared memory: a lane's 16 bytes lie beside its neighbours', so that
 * a warp reads them without bank conflicts. */
constexpr int VALUES = 16 / sizeof(value); /* in 16 bytes */

INLINE constexpr int place(int step) {
    const int lane = step / STEPS, i = step % STEPS;
    return (i / VALUES * LANES + lane) * VALUES + i % VALUES;
}

/* A lane's values of one state. */
INLINE void load_values(value (&v)[STEPS], const value *tile, int lane) {
#pragma unroll
    for (int i = 0; i < STEPS; i += VALUES) {
        const float4 q = reinterpret_cast<const float4 *>(tile)[i / VALUES * LANES + lane];
#ifdef COMPLEX
        v[i] = {q.x, q.y}, v[i + 1] = {q.z, q.w};
#else
        v[i] = q.x, v[i + 1] = q.y, v[i + 2] = q.z, v[i + 3] = q.w;
#endif
    }
}

/* Eight numbers of one state, PARTS for each position from step on, into its tile. */
INLINE void place_numbers(value *tile, int step, const float (&number)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i += 4)
        *reinterpret_cast<float4 *>(tile + place(step + i / PARTS)) =
            make_float4(number[i], number[i + 1], number[i + 2], number[i + 3]);
}

/* Tiles of `count` states, by all threads of the block, which are a multiple of 32.
 * `from` is where the first state's tile begins; steps from `left` on become 0. */
template <class T>
INLINE void stage(value *tiles, const T *from, int64_t state_stride, int64_t stride,
                  int count, int left, bool wide) {
    constexpr int RUN = 8 / PARTS, RUNS = TILE / RUN;
    static_assert(32 % RUNS == 0, "a thread keeps its steps from state to state");
    const int step = threadIdx.x % RUNS * RUN, states = blockDim.x / RUNS;
    int n = threadIdx.x / RUNS;
    from += n * state_stride + step * PARTS * stride;
    wide = wide && step + RUN <= left;
    for (; n < count; n += states, from += states * state_stride) {
        float number[8];
        if (wide) {
            unpack_run(number, load_run<T, 8>(from));
        } else {
#pragma unroll
            for (int k = 0; k < 8; k++)
                number[k] =
                    step + k / PARTS < left ? to_float(from[k * stride]) : 0.0f;
        }
        place_numbers(tiles + n * TILE, step, number);
    }
}

#endif
