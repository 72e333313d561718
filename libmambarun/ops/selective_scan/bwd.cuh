/* SPDX-License-Identifier: Apache-2.0
 *
 * bwd.cuh - how the backward's kernels move rows of (batch, channel, time) tensors and
 * tiles of B and C. A row is worked by a team of LANES lanes, each of which holds STEPS
 * consecutive positions, its run, of a tile of TILE.
 *
 * Everything is read a tile ahead into shared memory, in its own type: in pieces of 16
 * bytes or in words where memory allows (cuda_scan.h), else element by element. The
 * words of a 16-bit row may begin one position before it; the row is shifted by that
 * when a lane takes its run.
 */
#ifndef MBR_BWD_CUH
#define MBR_BWD_CUH

#include "tiles.cuh"

/* For what does both 16-bit types in one; only of half is it a question at run time. */
INLINE bool is_f16(const mbr_selective_scan_bwd_params &p) {
    return same_type<IN, f16>::value ||
           (same_type<IN, half>::value && p.u.dtype_code == MBR_FLOAT);
}

/* Where a lane stands: its positions are start + first.., of which left - first exist,
 * and of the tile after this one `further`. */
struct place {
    int64_t start;
    int first, left, further, lane;
};

/* `further` is 0 or 1: of the next tile, which lies to the right, one position at most
 * is of interest, the other half of a word. */
INLINE place place_of(int tile, int64_t length, int lane) {
    const int64_t start = (int64_t)tile * TILE, left = length - start;
    return {start, lane * STEPS, (int)min((int64_t)TILE, left), left > TILE, lane};
}

/* Of `elements` from some position on, how many bytes belong to the `size` there. */
INLINE int bytes_of(int elements, int size) {
    return max(0, min(size, elements * (int)sizeof(IN)));
}

/* x, for a rare branch: else the compiler does what stands there beforehand, and
 * replaces the branch by selections that always cost. */
INLINE int rarely(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

/* ---- rows ------------------------------------------------------------------- */

/* Word w of a team's runs. */
INLINE uint32_t *word_of(team_runs &to, int team, int w) {
    uint4 *piece = &to.piece[w % WORDS_OF_RUN / 4][team + w / WORDS_OF_RUN];
    return reinterpret_cast<uint32_t *>(piece) + w % 4;
}

/* Begins to copy the team's tile of a row into the runs of its lanes. Neighbouring
 * lanes copy neighbouring pieces, not their own, so that whole sectors are asked for at
 * once. */
INLINE void fetch_run(team_runs &to, const IN *row, int64_t stride, const place &at,
                      int how) {
    const int team = threadIdx.x - at.lane;
    if (how == IN_ELEMENTS) {
        const IN *from = row + (at.start + at.lane) * stride;
#pragma unroll 4
        for (int i = at.lane; i < TILE; i += LANES, from += LANES * stride) {
            uint4 *piece = &to.piece[i % STEPS / PER_PIECE][team + i / STEPS];
            reinterpret_cast<IN *>(piece)[i % PER_PIECE] = i < at.left ? *from : IN{0};
        }
        return;
    }
    const IN *from = row + at.start;
    const int odd = is_odd(from), left = at.left + odd;
#pragma unroll 1
    for (int w = at.lane; w < TILE / PER_WORD; w += LANES)
        copy_async<4>(word_of(to, team, w), from - odd + w * PER_WORD,
                      bytes_of(left - w * PER_WORD, 4));
    if (odd && at.lane == 0)
        copy_async<4>(&to.beyond[team / LANES], from - odd + TILE,
                      at.further > 0 ? 4 : bytes_of(left - TILE, 4));
}

/* The same of a whole tile that does not come by elements. */
INLINE void fetch_whole(team_runs &to, const IN *row, bool in_pieces, const place &at) {
    const int team = threadIdx.x - at.lane;
    if (in_pieces) {
        const IN *piece = row + (at.start + at.lane * PER_PIECE);
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int p = i * LANES + at.lane;
            copy_async(&to.piece[p % PIECES][team + p / PIECES],
                       piece + i * LANES * PER_PIECE);
        }
        return;
    }
    const IN *from = row + at.start;
    const int odd = is_odd(from);
#pragma unroll
    for (int i = 0; i < WORDS_OF_RUN; i++) {
        const int w = i * LANES + at.lane;
        copy_async<4>(word_of(to, team, w), from - odd + w * PER_WORD);
    }
    if (odd && at.lane == 0)
        copy_async<4>(&to.beyond[team / LANES], from - odd + TILE,
                      at.further > 0 ? 4 : 2);
}

/* ---- results ---------------------------------------------------------------- */

/* Writes a run of fp32 to a row of any stride. A team whose row does not exist comes
 * with left = 0. */
INLINE void store_floats(const float (&v)[STEPS], float *row, int64_t stride,
                         const place &at, int left, int how, exchange &team) {
    lay_out(team, pack_run<f32>(v).word, at.lane);
    const float *from = reinterpret_cast<const float *>(team.piece);
    if (how == IN_PIECES) { /* whole sectors of 32 bytes at a time */
#pragma unroll
        for (int j = 0; j < STEPS / 4; j++) {
            const int i = (j * LANES + at.lane) * 4;
            if (i + 4 <= left)
                *reinterpret_cast<uint4 *>(row + at.start + i) = team.piece[i / 4];
        }
        const int rest = left / 4 * 4 + at.lane;
        if (rest < left)
            row[at.start + rest] = from[rest];
        return;
    }
    float *to = row + (at.start + at.lane) * stride;
#pragma unroll 2
    for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
        *to = from[i];
}

/* The same of 16-bit values. Words are written whole but for a row's ends; an odd row's
 * first position is written apart. */
INLINE void store_halves(const float (&v)[STEPS], uint16_t *row, int64_t stride,
                         const place &at, int left, int how, bool in_f16,
                         exchange &team) {
    const run<half, STEPS> r = pack_run(v, in_f16);
    if (how == IN_PIECES && at.left == TILE) {
        if (left > 0)
            store_run(reinterpret_cast<half *>(row) + at.start + at.first, r);
        return;
    }
    lay_out(team, r.word, at.lane);
    const uint16_t *from = reinterpret_cast<const uint16_t *>(team.piece);
    if (how == IN_ELEMENTS) {
        uint16_t *to = row + (at.start + at.lane) * stride;
#pragma unroll 2
        for (int i = at.lane; i < left; i += LANES, to += LANES * stride)
            *to = from[i];
        return;
    }
    uint16_t *to = row + at.start;
    const int odd = (reinterpret_cast<uintptr_t>(to) & 2) / 2;
    const uint32_t *word = reinterpret_cast<const uint32_t *>(team.piece);
#pragma unroll
    for (int i = 0; i < STEPS / 2; i++) {
        const int w = i * LANES + at.lane, first = 2 * w + odd;
        const uint32_t both = __funnelshift_r(word[w], word[w + odd], 16 * odd);
        if (first + 2 <= left)
            *reinterpret_cast<uint32_t *>(to + first) = both;
        else if (first < left)
            to[first] = (uint16_t)both;
    }
    if (odd && at.lane == 0 && left > 0)
        *to = *from;
}

/* ---- B and C ---------------------------------------------------------------- */

/* Begins to fetch tiles of `count` states, by all threads of the block; `from` is where
 * the first state's tile begins. Positions that do not exist become 0. */
INLINE void fetch_tiles(state_tiles &to, const IN *from, int64_t state_stride,
                        int64_t stride, int count, const place &at, int how) {
    constexpr int WORDS_OF_STATE = 4 * STATE_PIECES, LENGTH = TILE * PARTS;
    const int left = at.left * PARTS;
    if (how == IN_PIECES) {
#pragma unroll 1
        for (int i = threadIdx.x; i < count * STATE_PIECES; i += blockDim.x) {
            const int n = i / STATE_PIECES, p = i % STATE_PIECES;
            copy_async<16>(&to.piece[n][piece_at(p)],
                           from + n * state_stride + p * PER_PIECE,
                           bytes_of(left - p * PER_PIECE, 16));
        }
    } else if (how == IN_WORDS) {
#pragma unroll 1
        for (int i = threadIdx.x; i < count * WORDS_OF_STATE; i += blockDim.x) {
            const int n = i / WORDS_OF_STATE, w = i % WORDS_OF_STATE;
            const IN *row = from + n * state_stride;
            const int odd = is_odd(row);
            uint4 *piece = &to.piece[n][piece_at(w / 4)];
            copy_async<4>(reinterpret_cast<uint32_t *>(piece) + w % 4,
                          row - odd + w * PER_WORD,
                          bytes_of(left + odd - w * PER_WORD, 4));
        }
        if (HALF && threadIdx.x < count) {
            const IN *last = from + threadIdx.x * state_stride + LENGTH - 1;
            if (!is_odd(last))
                copy_async<4>(&to.beyond[threadIdx.x], last,
                              at.further > 0 ? 4 : bytes_of(left - LENGTH + 1, 4));
        }
    } else {
#pragma unroll 1
        for (int i = threadIdx.x; i < count * LENGTH; i += blockDim.x) {
            const int n = i / LENGTH, k = i % LENGTH;
            uint4 *piece = &to.piece[n][piece_at(k / PER_PIECE)];
            reinterpret_cast<IN *>(piece)[k % PER_PIECE] =
                k < left ? from[n * state_stride + k * stride] : IN{0};
        }
    }
}

#endif
