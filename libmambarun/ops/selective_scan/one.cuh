/* SPDX-License-Identifier: Apache-2.0
 *
 * one.cuh - how the kernels of one state move rows: by units, the lanes of a warp that
 * work on one row, which hold STEPS positions next to each other each. A unit's part of
 * a row goes through shared memory, where neighbouring lanes copy what lies side by
 * side; rows may begin anywhere.
 */
#ifndef MBR_ONE_CUH
#define MBR_ONE_CUH

#include "cuda_scan.h"
#include "variant/device.cuh"

/* A lane's run of STEPS positions, in 16-byte pieces and in words. */
template <class T> constexpr int PIECES = STEPS * sizeof(T) / 16;
template <class T> constexpr int WORDS = STEPS * sizeof(T) / 4;

/* Where a unit stands. */
struct place {
    int span, lane; /* its lanes, and which of them this is */
    int left;       /* of its positions, so many exist */
};

/* Where piece p of a part lies in shared memory, and word w. Where a run is of two
 * pieces, every other four pairs are swapped: so a warp reads its runs without bank
 * conflicts, and what is copied at once stays side by side. */
template <class T> INLINE int piece_at(int p) {
    static_assert(PIECES<T> <= 2, "pairs");
    return PIECES<T> == 1 ? p : p ^ (p >> 3 & 1);
}

template <class T> INLINE int word_at(int w) {
    return PIECES<T> == 1 ? w : w ^ (w >> 3 & 4);
}

/* Pieces that a part takes there, with one behind its last. */
template <class T> INLINE constexpr int part_pieces(int span) {
    return span * PIECES<T> + 1;
}

/* How many bytes before a part its first piece begins. */
INLINE int early_of(const char *part) {
    return (int)(reinterpret_cast<uintptr_t>(part) & 15);
}

/* Begins to copy a unit's part of a row, in pieces that may begin before it and end
 * behind it: that is memory of the same tensor but for its first and last row, is_edge,
 * which are copied in words. A thread waits for a half of one at either end. */
template <class T>
INLINE void fetch(uint4 *to, const char *part, bool is_edge, const place &at) {
    const int early = early_of(part), end = early + at.left * (int)sizeof(T);
    part -= early;
    if (is_edge) {
        uint32_t *word = reinterpret_cast<uint32_t *>(to);
#pragma unroll 1
        for (int w = early / 4 + at.lane; 4 * w < end; w += at.span) {
            const bool is_low = 4 * w >= early, is_high = 4 * w + 4 <= end;
            if (is_low && is_high)
                copy_async<4>(word + word_at<T>(w), part + 4 * w);
            else
                reinterpret_cast<uint16_t *>(word + word_at<T>(w))[!is_low] =
                    reinterpret_cast<const uint16_t *>(part + 4 * w)[!is_low];
        }
        return;
    }
    part += 16 * at.lane;
#pragma unroll
    for (int i = 0; i <= PIECES<T>; i++) /* of the last, the first lane's only */
        if (16 * (i * at.span + at.lane) < end)
            copy_async(to + piece_at<T>(i * at.span + at.lane),
                       part + 16 * i * at.span);
}

/* A lane's run of what was copied. */
template <class T>
INLINE run<T, STEPS> take_run(const uint4 *from, int early, const place &at) {
    uint32_t word[WORDS<T> + 4];
#pragma unroll
    for (int i = 0; i <= PIECES<T>; i++) {
        if (i == PIECES<T> && early == 0)
            break;
        const uint4 w = from[piece_at<T>(at.lane * PIECES<T> + i)];
        word[4 * i] = w.x, word[4 * i + 1] = w.y;
        word[4 * i + 2] = w.z, word[4 * i + 3] = w.w;
    }
    if (early != 0) {
        const bool by_two = early & 8, by_one = early & 4;
        const int odd = early & 2 ? 16 : 0;
#pragma unroll
        for (int i = 0; i < WORDS<T> + 2; i++)
            word[i] = by_two ? word[i + 2] : word[i];
#pragma unroll
        for (int i = 0; i < WORDS<T> + 1; i++)
            word[i] = by_one ? word[i + 1] : word[i];
#pragma unroll
        for (int i = 0; i < WORDS<T>; i++)
            word[i] = sizeof(T) == 2 ? __funnelshift_r(word[i], word[i + 1], odd)
                                     : word[i];
    }
    run<T, STEPS> r;
#pragma unroll
    for (int i = 0; i < WORDS<T>; i++)
        r.word[i] = word[i];
    return r;
}

/* Its values. */
template <class T>
INLINE void take(float (&v)[STEPS], const uint4 *from, int early, const place &at) {
    unpack_run(v, take_run<T>(from, early, at));
}

/* A lane's run to shared memory. */
template <class T>
INLINE void put_run(uint4 *to, const run<T, STEPS> &r, const place &at) {
#pragma unroll
    for (int i = 0; i < PIECES<T>; i++)
        to[piece_at<T>(at.lane * PIECES<T> + i)] = make_uint4(
            r.word[4 * i], r.word[4 * i + 1], r.word[4 * i + 2], r.word[4 * i + 3]);
}

/* Writes a unit's part of a row, which begins at `part`, by way of `staged`, a run for
 * each lane and one more; or, where a run is a piece, each lane its own. */
template <class T>
INLINE void store(const run<T, STEPS> &r, char *part, const scan_rows &rows,
                  bool exists, uint4 *staged, const place &at) {
    const int left = exists ? at.left : 0;
    const bool wide = (int)rows.how == IN_PIECES;
    T *to = reinterpret_cast<T *>(part);
    if (PIECES<T> == 1 && wide) {
        if (at.lane * STEPS < left)
            store_run(to + at.lane * STEPS, r);
        return;
    }
    __syncwarp();
    put_run(staged, r, at);
    __syncwarp();
    if (wide) {
        constexpr int per_piece = 16 / sizeof(T);
        uint4 *pieces = reinterpret_cast<uint4 *>(to) + at.lane;
#pragma unroll
        for (int i = 0; i < PIECES<T>; i++)
            if (i * at.span * per_piece < left - at.lane * per_piece)
                pieces[i * at.span] = staged[piece_at<T>(i * at.span + at.lane)];
        return;
    }
    constexpr int per_word = 4 / sizeof(T);
    const uint32_t *word = reinterpret_cast<const uint32_t *>(staged);
    if ((int)rows.how == IN_ELEMENTS) {
#pragma unroll 1
        for (int i = at.lane; i < left; i += at.span)
            to[i * rows.time] = reinterpret_cast<const T *>(
                word + word_at<T>(i / per_word))[i % per_word];
        return;
    }
    const int odd = sizeof(T) == 2 ? (int)(reinterpret_cast<uintptr_t>(to) & 2) / 2 : 0;
    T *own = to + at.lane * per_word + odd;
    const int behind = left - at.lane * per_word - odd;
    constexpr int at_once = sizeof(T) == 2 ? 1 : 4;
#pragma unroll at_once
    for (int i = 0; i < WORDS<T>; i++) {
        const int w = i * at.span + at.lane, first = i * at.span * per_word;
        const uint32_t low = word[word_at<T>(w)];
        const uint32_t both =
            sizeof(T) == 2 ? __funnelshift_r(low, word[w + odd], 16 * odd) : low;
        if (first + per_word <= behind)
            *reinterpret_cast<uint32_t *>(own + first) = both;
        else if (first < behind)
            *reinterpret_cast<uint16_t *>(own + first) = (uint16_t)both;
    }
    if (odd && at.lane == 0 && left > 0)
        *to = *reinterpret_cast<const T *>(staged);
}

#endif
