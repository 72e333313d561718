/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd.cuh - how the kernels of the backward scan move rows of (batch, channel, time)
 * tensors and tiles of B and C. A row is worked by a team of LANES lanes, each of which
 * holds STEPS consecutive positions, its run, of a tile of TILE.
 *
 * What can be moved in 16-byte pieces ("wide", cuda_scan.h) is copied into shared
 * memory a tile ahead, in its own type. Everything else is read when it is needed:
 * there is no faster way for odd strides, and for odd addresses only the second-level
 * cache helps.
 */
#ifndef MBR_BWD_CUH
#define MBR_BWD_CUH

#include "variant/device.cuh"

constexpr int THREADS = 128; /* per block, at most */
constexpr int TILE = LANES * STEPS;
constexpr int CHUNK = 2048; /* positions per entry of x; fixed by the contract */
static_assert(CHUNK % TILE == 0 && 32 % LANES == 0, "tiles");

#ifdef COMPLEX
typedef complex value;
#else
typedef float value;
#endif

constexpr int PARTS = sizeof(value) / sizeof(float);

/* Elements in 16 bytes, and such pieces in a lane's run. */
template <class T> constexpr int PER_PIECE = 16 / sizeof(T);
template <class T> constexpr int PIECES = STEPS / PER_PIECE<T>;

/* Copies 16 bytes from global to shared memory, both aligned so. The bytes are there
 * for this thread after copies_wait(), for others after a barrier that follows it.
 * Before sm_80 the thread itself waits for them, here. */
INLINE void copy_piece(void *shared, const void *global) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
#else
    *static_cast<uint4 *>(shared) = *static_cast<const uint4 *>(global);
#endif
}

/* ---- rows --------------------------------------------------------------------------
 */

/* Every thread's run of one tensor: piece j of thread t at [j][t]. */
template <class T> struct runs {
    uint4 piece[PIECES<T>][THREADS];
};

/* A team's tile, to hand positions from lane to lane: global memory is accessed across
 * lanes wherever a lane's own run cannot be moved in pieces. */
template <class T> struct exchange {
    alignas(16) T at[TILE];
};

/* Where a lane stands: its positions are start + first.., of which `left` - first
 * exist. */
struct place {
    int64_t start;
    int first, left, lane;
    bool whole; /* the tile */
};

/* Begins to copy this thread's run of a wide row. */
template <class T> INLINE void fetch_run(runs<T> &to, const T *row, const place &at) {
    const T *from = row + at.start + at.first;
    if (at.whole) {
#pragma unroll
        for (int j = 0; j < PIECES<T>; j++)
            copy_piece(&to.piece[j][threadIdx.x], from + j * PER_PIECE<T>);
        return;
    }
#pragma unroll 1
    for (int j = 0; j < PIECES<T>; j++) {
        uint4 *piece = &to.piece[j][threadIdx.x];
        const int i = j * PER_PIECE<T>;
        if (at.first + i + PER_PIECE<T> <= at.left)
            copy_piece(piece, from + i);
        else
            for (int k = 0; k < PER_PIECE<T>; k++)
                reinterpret_cast<T *>(piece)[k] =
                    at.first + i + k < at.left ? from[i + k] : T{0};
    }
}

template <class T> INLINE void take_run(float (&v)[STEPS], const runs<T> &from) {
    run<T, STEPS> r;
#pragma unroll
    for (int j = 0; j < PIECES<T>; j++) {
        const uint4 w = from.piece[j][threadIdx.x];
        r.word[4 * j] = w.x, r.word[4 * j + 1] = w.y;
        r.word[4 * j + 2] = w.z, r.word[4 * j + 3] = w.w;
    }
    unpack_run(v, r);
}

/* Count 16-bit values from an address that is only aligned to one. It may read the
 * value after them, which must exist, and the one before them, which does: it shares a
 * word with the first, and no allocation begins inside a word. */
template <class T, int count> INLINE run<T, count> load_odd_run(const T *from) {
    const uint32_t odd = reinterpret_cast<uintptr_t>(from) & 2;
    const uint32_t *word = reinterpret_cast<const uint32_t *>(from - odd / 2);
    uint32_t w[count / 2 + 1];
#pragma unroll
    for (int i = 0; i < count / 2; i++)
        w[i] = word[i];
    w[count / 2] = odd ? word[count / 2] : 0;
    run<T, count> r;
#pragma unroll
    for (int i = 0; i < count / 2; i++)
        r.word[i] = __funnelshift_r(w[i], w[i + 1], 8 * odd);
    return r;
}

/* A run of a row that is not wide; 0 where there is nothing. All 32 lanes take part. */
template <class T>
INLINE void load_steps(float (&v)[STEPS], const T *row, int64_t stride, const place &at,
                       exchange<T> &team) {
    if (sizeof(T) == 2 && stride == 1) {
        const T *from = row + at.start + at.first;
        if (at.first + STEPS < at.left) {
            if constexpr (sizeof(T) == 2)
                unpack_run(v, load_odd_run<T, STEPS>(from));
        } else {
#pragma unroll
            for (int i = 0; i < STEPS; i++)
                v[i] = at.first + i < at.left ? to_float(from[i]) : 0.0f;
        }
        return;
    }
    const T *from = row + (at.start + at.lane) * stride;
    __syncwarp();
#pragma unroll 4
    for (int i = at.lane; i < TILE; i += LANES, from += LANES * stride)
        team.at[i] = i < at.left ? *from : T{0};
    __syncwarp();
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = to_float(team.at[at.first + i]);
}

/* The way back, for any row. A team whose row does not exist comes with left = 0. */
template <class T>
INLINE void store_steps(const float (&v)[STEPS], T *row, int64_t stride,
                        const place &at, int left, bool wide, exchange<T> &team) {
    if (wide && sizeof(T) == 2 && at.whole) {
        if (left > 0)
            store_run(row + at.start + at.first, pack_run<T>(v));
        return;
    }
    __syncwarp();
    uint4 *piece = reinterpret_cast<uint4 *>(team.at);
    const run<T, STEPS> r = pack_run<T>(v);
#pragma unroll
    for (int j = 0; j < PIECES<T>; j++)
        piece[at.lane * PIECES<T> + j] = make_uint4(
            r.word[4 * j], r.word[4 * j + 1], r.word[4 * j + 2], r.word[4 * j + 3]);
    __syncwarp();
    if (wide && left == TILE) { /* whole sectors of 32 bytes at a time */
#pragma unroll
        for (int j = 0; j < PIECES<T>; j++)
            reinterpret_cast<uint4 *>(row + at.start)[j * LANES + at.lane] =
                piece[j * LANES + at.lane];
        return;
    }
    T *to = row + (at.start + at.lane) * stride;
#pragma unroll 4
    for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
        *to = team.at[i];
}

/* ---- B and C -----------------------------------------------------------------------
 */

/* A state's tile: pieces of a lane lie beside the same pieces of its neighbours, so
 * that a warp reads them without bank conflicts. */
template <class T> constexpr int STATE_PIECES = TILE * PARTS / PER_PIECE<T>;

template <class T> struct coefficients {
    uint4 piece[STATES][STATE_PIECES<T>];
};

/* Where in it the piece is that holds the tile's elements from PER_PIECE i on. */
template <class T> INLINE int piece_at(int i) {
    constexpr int in_run = STEPS * PARTS / PER_PIECE<T>;
    return i % in_run * LANES + i / in_run;
}

/* A lane's values of state n. */
template <class T>
INLINE void take_values(value (&v)[STEPS], const coefficients<T> &tile, int n,
                        int lane) {
    constexpr int in_run = STEPS * PARTS / PER_PIECE<T>;
    run<T, STEPS * PARTS> r;
#pragma unroll
    for (int j = 0; j < in_run; j++) {
        const uint4 w = tile.piece[n][j * LANES + lane];
        r.word[4 * j] = w.x, r.word[4 * j + 1] = w.y;
        r.word[4 * j + 2] = w.z, r.word[4 * j + 3] = w.w;
    }
#ifdef COMPLEX
    float parts[STEPS * 2];
    unpack_run(parts, r);
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = {parts[2 * i], parts[2 * i + 1]};
#else
    unpack_run(v, r);
#endif
}

/* Begins to fetch tiles of `count` states, by all threads of the block, which are a
 * multiple of 64; `from` is where the first state's tile begins, of which `left`
 * positions exist. The others become 0. */
template <class T>
INLINE void fetch_values(coefficients<T> &to, const T *from, int64_t state_stride,
                         int64_t stride, int count, int left, bool wide) {
    constexpr int PER = PER_PIECE<T>, IN_STATE = STATE_PIECES<T>;
    static_assert(64 % IN_STATE == 0, "a thread keeps its piece from state to state");
    if (wide && left == TILE) {
        const int p = threadIdx.x % IN_STATE, states = blockDim.x / IN_STATE;
        const int64_t further = states * state_stride;
        from += threadIdx.x / IN_STATE * state_stride + p * PER;
        for (int n = threadIdx.x / IN_STATE; n < count; n += states, from += further)
            copy_piece(&to.piece[n][piece_at<T>(p)], from);
        return;
    }
    left *= PARTS;
#pragma unroll 1
    for (int i = threadIdx.x; i < count * IN_STATE; i += blockDim.x) {
        const int n = i / IN_STATE, p = i % IN_STATE, first = p * PER;
        uint4 *piece = &to.piece[n][piece_at<T>(p)];
        const T *own = from + n * state_stride + first * stride;
        if (wide && first + PER <= left) {
            copy_piece(piece, own);
            continue;
        }
        if constexpr (sizeof(T) == 2) {
            if (stride == 1 && first + PER < left) {
                const run<T, PER> r = load_odd_run<T, PER>(own);
                *piece = make_uint4(r.word[0], r.word[1], r.word[2], r.word[3]);
                continue;
            }
        }
        T values[PER];
#pragma unroll
        for (int k = 0; k < PER; k++)
            values[k] = first + k < left ? own[k * stride] : T{0};
#pragma unroll
        for (int k = 0; k < PER; k++)
            reinterpret_cast<T *>(piece)[k] = values[k];
    }
}

#endif
