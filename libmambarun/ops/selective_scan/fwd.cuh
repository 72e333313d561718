/* SPDX-License-Identifier: Apache-2.0
 *
 * fwd.cuh - how the forward kernel moves rows of (batch, channel, time) tensors and
 * tiles of B and C. A row is worked by a team of LANES lanes, each of which holds STEPS
 * consecutive positions, its run, of a tile of TILE.
 *
 * Everything is read a tile ahead into shared memory, in its own type: in pieces of 16
 * bytes or in words where memory allows (cuda_scan.h, IN_PIECES and IN_WORDS), else
 * element by element. The words of a 16-bit row may begin one position before it; the
 * row is shifted by that when a lane takes its run.
 */
#ifndef MBR_FWD_CUH
#define MBR_FWD_CUH

#include "cuda_scan.h"
#include "variant/device.cuh"

constexpr int THREADS = 128; /* per block, at most */
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

/* Where a lane stands: at positions first.. of a tile, of which those below left exist,
 * and of the tile after this one those below further. */
struct place {
    int tile, first, left, further, lane;
};

INLINE place place_of(const scan_forward &f, int tile, int lane) {
    const int left = tile < f.whole_tiles ? TILE : f.rest;
    const int further = tile + 1 < f.whole_tiles ? TILE
                        : tile + 1 < f.tiles     ? f.rest
                                                 : 0;
    return {tile, lane * STEPS, left, further, lane};
}

INLINE int64_t start_of(int tile) {
    return (int64_t)tile * TILE;
}

/* Whether a word holds the position before p and the one at p. */
INLINE bool is_odd(const IN *p) {
    return HALF && (reinterpret_cast<uintptr_t>(p) & 2);
}

/* Begins to copy word w of a row that begins with a word, of which `left` positions
 * exist; the others become 0. The thread waits for a last half of one. */
INLINE void copy_word(uint32_t *to, const IN *row, int w, int left) {
    if (w < left / PER_WORD) {
        copy_async<4>(to, row + w * PER_WORD);
        return;
    }
    *to = 0;
    if (HALF && w * 2 < left)
        *reinterpret_cast<IN *>(to) = row[w * 2];
}

/* Elements that exist in the word after an odd row's tile. Only the first is needed, but
 * a whole word can be copied without waiting. */
INLINE int beyond_odd(const place &at) {
    return at.left < TILE ? 0 : at.further > 0 ? 2 : 1;
}

/* ---- rows -------------------------------------------------------------------------- */

/* Every thread's run of one tensor: piece j of thread t at [j][t]. */
struct team_runs {
    uint4 piece[PIECES][THREADS];
    uint32_t beyond[TEAMS]; /* the word after a team's last, of an odd row */
};

/* Word w of a team's tile. */
INLINE uint32_t *word_of(team_runs &to, int team, int w) {
    uint4 *piece = &to.piece[w % WORDS_OF_RUN / 4][team + w / WORDS_OF_RUN];
    return reinterpret_cast<uint32_t *>(piece) + w % 4;
}

/* Begins to copy the team's tile of a row into the runs of its lanes. Neighbouring
 * lanes copy neighbouring pieces, not their own, so that whole sectors are asked for at
 * once. The tile after it is called into the second-level cache: one tile's work does
 * not outlast the memory's latency if there are few states. */
INLINE void fetch_run(team_runs &to, const IN *row, const place &at, int how) {
    const int team = threadIdx.x - at.lane;
    row += start_of(at.tile);
    if (at.first < at.further)
        prefetch(row + TILE + at.first);
    if (how == IN_PIECES && at.left == TILE) {
        row += at.lane * PER_PIECE;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int p = i * LANES + at.lane;
            copy_async<16>(&to.piece[p % PIECES][team + p / PIECES],
                           row + i * LANES * PER_PIECE);
        }
        return;
    }
    const int odd = is_odd(row), left = at.left + odd;
#pragma unroll 4
    for (int i = 0; i < WORDS_OF_RUN; i++) {
        const int w = i * LANES + at.lane;
        copy_word(word_of(to, team, w), row - odd, w, left);
    }
    if (odd && at.lane == 0)
        copy_word(&to.beyond[team / LANES], row - odd + TILE, 0,
                  beyond_odd(at));
}

/* The same of a row of any stride, element by element. */
INLINE void fetch_elements(team_runs &to, const IN *row, int64_t stride,
                           const place &at) {
    const int team = threadIdx.x - at.lane;
    row += (start_of(at.tile) + at.lane) * stride;
#pragma unroll 4
    for (int i = at.lane; i < TILE; i += LANES, row += LANES * stride) {
        uint4 *piece = &to.piece[i % STEPS / PER_PIECE][team + i / STEPS];
        reinterpret_cast<IN *>(piece)[i % PER_PIECE] = i < at.left ? *row : IN{0};
    }
}

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

/* ---- results ----------------------------------------------------------------------- */

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
        team.piece[lane * (words / 4) + j] = make_uint4(
            word[4 * j], word[4 * j + 1], word[4 * j + 2], word[4 * j + 3]);
    __syncwarp();
}

/* Writes a run of fp32 to a row of any stride. A team whose row does not exist comes
 * with left = 0. */
INLINE void store_floats(const float (&v)[STEPS], float *row, int64_t stride,
                         const place &at, int left, int how, exchange &team) {
    lay_out(team, pack_run<f32>(v).word, at.lane);
    const float *from = reinterpret_cast<const float *>(team.piece);
    if (how == IN_PIECES) { /* whole sectors of 32 bytes at a time */
        row += start_of(at.tile);
#pragma unroll
        for (int j = 0; j < STEPS / 4; j++) {
            const int i = (j * LANES + at.lane) * 4;
            if (i + 4 <= left)
                *reinterpret_cast<uint4 *>(row + i) = team.piece[j * LANES + at.lane];
        }
        const int rest = left / 4 * 4 + at.lane;
        if (rest < left)
            row[rest] = from[rest];
        return;
    }
    float *to = row + (start_of(at.tile) + at.lane) * stride;
#pragma unroll 2
    for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
        *to = from[i];
}

/* The same of 16-bit values. Words are written whole but for a row's ends; those of an
 * odd row begin with the position before. */
INLINE void store_halves(const float (&v)[STEPS], uint16_t *row, int64_t stride,
                         const place &at, int left, int how, bool is_f16,
                         exchange &team) {
    const run<half, STEPS> r = pack_run(v, is_f16);
    if (how == IN_PIECES && at.left == TILE) {
        if (left > 0)
            store_run(reinterpret_cast<half *>(row) + start_of(at.tile) + at.first, r);
        return;
    }
    lay_out(team, r.word, at.lane);
    const uint16_t *from = reinterpret_cast<const uint16_t *>(team.piece);
    if (how == IN_ELEMENTS) {
        uint16_t *to = row + (start_of(at.tile) + at.lane) * stride;
#pragma unroll 2
        for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
            *to = from[i];
        return;
    }
    uint16_t *to = row + start_of(at.tile);
    const int odd = (reinterpret_cast<uintptr_t>(to) & 2) / 2;
#pragma unroll 2
    for (int i = 2 * at.lane - odd; i < left; i += 2 * LANES) {
        if (i >= 0 && i + 1 < left)
            *reinterpret_cast<uint32_t *>(to + i) =
                from[i] | (uint32_t)from[i + 1] << 16;
        else
            to[max(i, 0)] = from[max(i, 0)];
    }
}

/* ---- B and C ----------------------------------------------------------------------- */

constexpr int STATE_PIECES = TILE * PARTS / PER_PIECE;

/* Tiles of states. Pieces of a lane lie beside the same pieces of its neighbours, so
 * that a warp reads them without bank conflicts. */
struct state_tiles {
    uint4 piece[STATES][STATE_PIECES];
    uint32_t beyond[STATES]; /* the word after a state's last, of an odd row */
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

/* A lane's values of state n, of a row that is not odd and of type T. */
template <class T>
INLINE void take_values(value (&v)[STEPS], const state_tiles &tile, int n, int lane) {
    float parts[STEPS * PARTS];
    unpack_run(parts, words_of<T>(tile, n, lane));
    join_parts(v, parts);
}

/* The same of any row. */
INLINE void take_any_values(value (&v)[STEPS], const state_tiles &tile, int n, bool odd,
                            bool is_f16, int lane) {
    run<IN, STEPS * PARTS> r = words_of<IN>(tile, n, lane);
    if (HALF && odd)
        shift_words(r.word,
                    lane == LANES - 1 ? tile.beyond[n] : tile.piece[n][lane + 1].x);
    float parts[STEPS * PARTS];
    unpack_run(parts, r, is_f16);
    join_parts(v, parts);
}

/* Begins to fetch tiles of `count` states, all of which exist, in pieces, by all threads
 * of the block, which are a multiple of 64; `from` is where the first state's tile
 * begins. */
INLINE void fetch_whole_tiles(state_tiles &to, const IN *from, int64_t state_stride,
                              int count, bool prefetches) {
    static_assert(64 % STATE_PIECES == 0,
                  "a thread keeps its piece from state to state");
    const int p = threadIdx.x % STATE_PIECES, states = blockDim.x / STATE_PIECES;
    from += threadIdx.x / STATE_PIECES * state_stride + p * PER_PIECE;
#pragma unroll 1
    for (int n = threadIdx.x / STATE_PIECES; n < count;
         n += states, from += states * state_stride) {
        copy_async<16>(&to.piece[n][piece_at(p)], from);
        if (prefetches)
            prefetch(from + TILE * PARTS);
    }
}

/* The same of any rows. Positions that do not exist become 0. */
INLINE void fetch_tiles(state_tiles &to, const IN *from, int64_t state_stride,
                        int64_t stride, int count, const place &at, int how) {
    constexpr int WORDS_OF_STATE = 4 * STATE_PIECES;
    const int left = at.left * PARTS;
    const int across = min((int)blockDim.x, WORDS_OF_STATE);
    const int begin = threadIdx.x / across, states = blockDim.x / across;
#pragma unroll 1
    for (int w = threadIdx.x % across; w < WORDS_OF_STATE; w += across) {
        const IN *row = from + begin * state_stride;
#pragma unroll 1
        for (int n = begin; n < count; n += states, row += states * state_stride) {
            uint32_t *word =
                reinterpret_cast<uint32_t *>(&to.piece[n][piece_at(w / 4)]) + w % 4;
            if (how != IN_ELEMENTS) {
                const int odd = is_odd(row);
                copy_word(word, row - odd, w, left + odd);
                if (HALF && odd && w == 0)
                    copy_word(&to.beyond[n], row - odd + TILE * PARTS, 0,
                              beyond_odd(at));
                continue;
            }
#pragma unroll
            for (int k = 0; k < PER_WORD; k++) {
                const int i = w * PER_WORD + k;
                reinterpret_cast<IN *>(word)[k] = i < left ? row[i * stride] : IN{0};
            }
        }
    }
}

#endif
