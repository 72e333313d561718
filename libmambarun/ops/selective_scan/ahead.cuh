/* SPDX-License-Identifier: Apache-2.0
 *
 * ahead.cuh - how the forward kernel reads rows and tiles of B and C a tile ahead of
 * their use, whatever their alignment: into shared memory, in their own type, in pieces
 * of 16 bytes where that is right for every row ("wide", cuda_scan.h), else in words.
 * The words of a 16-bit row may begin one position before it; the row is shifted by it
 * when a lane takes its run. Only other strides are read when they are needed.
 */
#ifndef MBR_AHEAD_CUH
#define MBR_AHEAD_CUH

#include "scan.cuh"

/* A place, of which `further` positions exist in the next tile. */
struct place_ahead : place {
    int further;
};

/* ---- rows --------------------------------------------------------------------------
 */

/* Words in a lane's run. */
template <class T> constexpr int RUN_WORDS = STEPS * sizeof(T) / 4;

/* Every thread's run of one tensor: piece j of thread t at [j][t]. */
template <class T> struct team_runs {
    uint4 piece[PIECES<T>][THREADS];
    uint32_t beyond[THREADS / LANES]; /* the word after a team's last, of an odd row */
};

/* How a tensor's rows are read. */
enum reading { STRIDED, WORDS, WIDE };

INLINE reading how_to_read(int64_t stride, bool wide) {
    return wide ? WIDE : stride == 1 ? WORDS : STRIDED;
}

/* Whether a word holds the position before p and the one at p. */
template <class T> INLINE bool is_odd(const T *p) {
    return sizeof(T) == 2 && (reinterpret_cast<uintptr_t>(p) & 2);
}

/* Of `elements` from some position on, how many bytes belong to the `size` there. */
template <class T> INLINE int bytes_of(int elements, int size) {
    return max(0, min(size, elements * (int)sizeof(T)));
}

/* Begins to copy the team's tile of a row into the runs of its lanes. Neighbouring
 * lanes copy neighbouring pieces, not their own, so that whole sectors are asked for at
 * once. The tile after it is called into the second-level cache: one tile's work does
 * not outlast the memory's latency if there are few states. */
template <class T>
INLINE void fetch_runs(team_runs<T> &to, const T *row, const place_ahead &at,
                       reading how) {
    const T *from = row + at.start;
    if (how != STRIDED && at.first < at.further)
        prefetch(from + TILE + at.first);
    const int team = threadIdx.x - at.lane;
    if (how == WIDE) {
#pragma unroll
        for (int i = 0; i < PIECES<T>; i++) {
            const int p = i * LANES + at.lane, first = p * PER_PIECE<T>;
            copy_async<16>(&to.piece[p % PIECES<T>][team + p / PIECES<T>], from + first,
                           at.whole ? 16 : bytes_of<T>(at.left - first, 16));
        }
    } else if (how == WORDS) {
        const int odd = is_odd(from);
        from -= odd;
#pragma unroll 1
        for (int i = 0; i < RUN_WORDS<T>; i++) {
            const int w = i * LANES + at.lane, first = w * (4 / sizeof(T));
            const int k = w % RUN_WORDS<T>;
            uint4 *piece = &to.piece[k / 4][team + w / RUN_WORDS<T>];
            copy_async<4>(reinterpret_cast<uint32_t *>(piece) + k % 4, from + first,
                          bytes_of<T>(at.left + odd - first, 4));
        }
        if (odd && at.lane == 0)
            copy_async<4>(&to.beyond[team / LANES], from + TILE,
                          bytes_of<T>(at.left + odd - TILE, 4));
    }
}

/* Values from words of which the first half of the first is not theirs. */
template <int words> INLINE void shift_words(uint32_t (&word)[words], uint32_t beyond) {
#pragma unroll
    for (int i = 0; i < words; i++)
        word[i] = __funnelshift_r(word[i], i + 1 < words ? word[i + 1] : beyond, 16);
}

/* A lane's run of a fetched tile; 0 where there is nothing. */
template <class T>
INLINE void take_shifted_run(float (&v)[STEPS], const team_runs<T> &from, bool odd,
                             int lane) {
    run<T, STEPS> r;
#pragma unroll
    for (int j = 0; j < PIECES<T>; j++) {
        const uint4 w = from.piece[j][threadIdx.x];
        r.word[4 * j] = w.x, r.word[4 * j + 1] = w.y;
        r.word[4 * j + 2] = w.z, r.word[4 * j + 3] = w.w;
    }
    if (odd)
        shift_words(r.word, lane == LANES - 1 ? from.beyond[threadIdx.x / LANES]
                                              : from.piece[0][threadIdx.x + 1].x);
    unpack_run(v, r);
}

/* A lane's run of a row with any stride, without having been fetched. All 32 lanes of
 * the warp take part. */
template <class T>
INLINE void load_run_strided(float (&v)[STEPS], const T *row, int64_t stride,
                             const place &at, exchange<T> &team) {
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

/* ---- B and C -----------------------------------------------------------------------
 */

/* Tiles of states, each as in coefficients (scan.cuh). */
template <class T> struct state_tiles {
    uint4 piece[STATES][STATE_PIECES<T>];
    uint32_t beyond[STATES]; /* the word after a state's last, of an odd row */
};

/* A lane's values of state n. */
template <class T>
INLINE void take_shifted_values(value (&v)[STEPS], const state_tiles<T> &tile, int n,
                                bool odd, int lane) {
    constexpr int in_run = STEPS * PARTS / PER_PIECE<T>;
    run<T, STEPS * PARTS> r;
#pragma unroll
    for (int j = 0; j < in_run; j++) {
        const uint4 w = tile.piece[n][j * LANES + lane];
        r.word[4 * j] = w.x, r.word[4 * j + 1] = w.y;
        r.word[4 * j + 2] = w.z, r.word[4 * j + 3] = w.w;
    }
    if (sizeof(T) == 2 && odd)
        shift_words(r.word,
                    lane == LANES - 1 ? tile.beyond[n] : tile.piece[n][lane + 1].x);
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
 * multiple of 64; `from` is where the first state's tile begins. Positions that do not
 * exist become 0. */
template <class T>
INLINE void fetch_tiles(state_tiles<T> &to, const T *from, int64_t state_stride,
                        int64_t stride, int count, const place_ahead &at, reading how) {
    constexpr int PER = PER_PIECE<T>, IN_STATE = STATE_PIECES<T>,
                  IN_WORDS = 4 * IN_STATE;
    static_assert(64 % IN_STATE == 0, "a thread keeps its piece from state to state");
    const int left = at.left * PARTS, further = at.further * PARTS;
    if (how == WIDE) {
        const int p = threadIdx.x % IN_STATE, states = blockDim.x / IN_STATE;
        const int bytes = bytes_of<T>(left - p * PER, 16);
        const int64_t per_pass = states * state_stride;
        from += threadIdx.x / IN_STATE * state_stride + p * PER;
        for (int n = threadIdx.x / IN_STATE; n < count; n += states, from += per_pass) {
            copy_async<16>(&to.piece[n][piece_at<T>(p)], from, bytes);
            if (p * PER < further)
                prefetch(from + TILE * PARTS);
        }
    } else if (how == WORDS) {
#pragma unroll 1
        for (int i = threadIdx.x; i < count * IN_WORDS; i += blockDim.x) {
            const int n = i / IN_WORDS, w = i % IN_WORDS, first = w * (4 / sizeof(T));
            const T *row = from + n * state_stride;
            const int odd = is_odd(row);
            uint4 *piece = &to.piece[n][piece_at<T>(w / 4)];
            copy_async<4>(reinterpret_cast<uint32_t *>(piece) + w % 4,
                          row - odd + first, bytes_of<T>(left + odd - first, 4));
        }
        if (sizeof(T) == 2 && threadIdx.x < count) {
            const T *row = from + threadIdx.x * state_stride;
            if (is_odd(row))
                copy_async<4>(&to.beyond[threadIdx.x], row - 1 + TILE * PARTS,
                              bytes_of<T>(left + 1 - TILE * PARTS, 4));
        }
    } else {
#pragma unroll 1
        for (int i = threadIdx.x; i < count * IN_STATE; i += blockDim.x) {
            const int n = i / IN_STATE, p = i % IN_STATE, first = p * PER;
            const T *own = from + n * state_stride + first * stride;
            T values[PER];
#pragma unroll
            for (int k = 0; k < PER; k++)
                values[k] = first + k < left ? own[k * stride] : T{0};
#pragma unroll
            for (int k = 0; k < PER; k++)
                reinterpret_cast<T *>(&to.piece[n][piece_at<T>(p)])[k] = values[k];
        }
    }
}

#endif
