/* SPDX-License-Identifier: Apache-2.0
 *
 * tiles.cuh - how tiles lie in shared memory, for both directions: the runs of a team's
 * lanes, B and C, results on their way out. How they are fetched and written is each
 * direction's own: fwd.cuh, bwd.cuh.
 */
#ifndef MBR_TILES_CUH
#define MBR_TILES_CUH

#include "cuda_scan.h"
#include "variant/device.cuh"

#ifndef WARPS
#define WARPS 4
#endif
constexpr int THREADS = WARPS * 32; /* per block, at most */
constexpr int TEAMS = THREADS / LANES;
constexpr int TILE = LANES * STEPS;
constexpr int CHUNK = 2048; /* positions per entry of x; fixed by the contract */
static_assert(CHUNK % TILE == 0 && 32 % LANES == 0, "tiles");

#ifdef COMPLEX
typedef complex value;
#else
typedef float value;
#endif

constexpr bool IS_COMPLEX = sizeof(value) != sizeof(float);
constexpr int PARTS = sizeof(value) / sizeof(float);
constexpr bool HALF = sizeof(IN) == 2; /* then f16 or bf16 */

/* Elements in 16 bytes and in a word, and such pieces and words in a lane's run. */
constexpr int PER_PIECE = 16 / sizeof(IN), PER_WORD = 4 / sizeof(IN);
constexpr int PIECES = STEPS / PER_PIECE, WORDS_OF_RUN = STEPS / PER_WORD;

/* Whether a word holds the position before p and the one at p. */
INLINE bool is_odd(const IN *p) {
    return HALF && (reinterpret_cast<uintptr_t>(p) & 2);
}

/* ---- rows ------------------------------------------------------------------- */

/* Every thread's run of one tensor: piece j of thread t at [j][t]. */
struct team_runs {
    uint4 piece[PIECES][THREADS];
    uint32_t beyond[HALF ? TEAMS : 1]; /* the word after a team's last, of an odd row */
};

/* Values from words of which the first half of the first is not theirs. */
template <int words> INLINE void shift_words(uint32_t (&word)[words], uint32_t beyond) {
#pragma unroll
    for (int i = 0; i < words; i++)
        word[i] = __funnelshift_r(word[i], i + 1 < words ? word[i + 1] : beyond, 16);
}

/* A lane's run of a fetched tile; 0 where there is nothing. */
INLINE void take_run(float (&v)[STEPS], const team_runs &from, bool odd, bool is_f16,
                     int lane) {
    run<IN, STEPS> r;
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        const uint4 w = from.piece[j][threadIdx.x];
        r.word[4 * j] = w.x, r.word[4 * j + 1] = w.y;
        r.word[4 * j + 2] = w.z, r.word[4 * j + 3] = w.w;
    }
    if (HALF && odd)
        shift_words(r.word, lane == LANES - 1 ? from.beyond[threadIdx.x / LANES]
                                              : from.piece[0][threadIdx.x + 1].x);
    unpack_run(v, r, is_f16);
}

/* A team's tile of words, to hand positions from lane to lane: global memory is written
 * across lanes wherever a lane's own run cannot be moved in pieces. */
struct exchange {
    uint4 piece[TILE / 4];
};

/* The values of a lane's run as words of shared memory. */
template <int words>
INLINE void lay_out(exchange &team, const uint32_t (&word)[words], int lane) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < words / 4; j++)
        team.piece[lane * (words / 4) + j] =
            make_uint4(word[4 * j], word[4 * j + 1], word[4 * j + 2], word[4 * j + 3]);
    __syncwarp();
}

/* ---- B and C ---------------------------------------------------------------- */

constexpr int STATE_PIECES = TILE * PARTS / PER_PIECE;

/* Tiles of states. Pieces of a lane lie beside the same pieces of its neighbours, so
 * that a warp reads them without bank conflicts. */
struct state_tiles {
    uint4 piece[STATES][STATE_PIECES];
    uint32_t
        beyond[HALF ? STATES : 1]; /* the word after a state's last, of an odd row */
};

/* Where in it the piece is that holds the tile's elements from PER_PIECE i on. */
INLINE int piece_at(int i) {
    constexpr int in_run = STEPS * PARTS / PER_PIECE;
    return i % in_run * LANES + i / in_run;
}

/* A lane's words of state n. */
template <class T>
INLINE run<T, STEPS * PARTS> words_of(const state_tiles &tile, int n, int lane) {
    run<T, STEPS * PARTS> r;
#pragma unroll
    for (int j = 0; j < r.words / 4; j++) {
        const uint4 w = tile.piece[n][j * LANES + lane];
        r.word[4 * j] = w.x, r.word[4 * j + 1] = w.y;
        r.word[4 * j + 2] = w.z, r.word[4 * j + 3] = w.w;
    }
    return r;
}

INLINE void join_parts(float (&v)[STEPS], const float (&parts)[STEPS]) {
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = parts[i];
}

INLINE void join_parts(complex (&v)[STEPS], const float (&parts)[2 * STEPS]) {
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        v[i] = {parts[2 * i], parts[2 * i + 1]};
}

/* The values of words of type T; is_f16 tells what half is. */
template <class T>
INLINE void take_words(value (&v)[STEPS], const run<T, STEPS * PARTS> &r, bool is_f16) {
    float parts[STEPS * PARTS];
    unpack_run(parts, r, is_f16);
    join_parts(v, parts);
}

/* A lane's values of state n, of a row that is not odd and of type T, not half. */
template <class T>
INLINE void take_values(value (&v)[STEPS], const state_tiles &tile, int n, int lane) {
    take_words(v, words_of<T>(tile, n, lane), false);
}

/* Words of state n that begin with the position before. */
INLINE void shift_state(run<IN, STEPS * PARTS> &r, const state_tiles &tile, int n,
                        int lane) {
    shift_words(r.word, lane == LANES - 1 ? tile.beyond[n] : tile.piece[n][lane + 1].x);
}

/* The same of any row. */
INLINE void take_any_values(value (&v)[STEPS], const state_tiles &tile, int n, bool odd,
                            bool is_f16, int lane) {
    run<IN, STEPS * PARTS> r = words_of<IN>(tile, n, lane);
    if (HALF && odd)
        shift_state(r, tile, n, lane);
    take_words(v, r, is_f16);
}

/* 1 if every other state's row begins inside a word, or all or none do: 0. */
INLINE int alternates(const scan_rows &r) {
    return r.how == IN_WORDS ? (int)r.state & 1 : 0;
}

#endif
