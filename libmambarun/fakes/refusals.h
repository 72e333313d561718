/* SPDX-License-Identifier: Apache-2.0
 *
 * refusals.h - what the rooms' check_test.c share: tensors to start from, rows that
 * spoil a good call and say which words must come back, and random spoiling.
 */
#ifndef MBR_FAKE_REFUSALS_H
#define MBR_FAKE_REFUSALS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "variant.h"

static mbr_fake *fake; /* set by main */

/* ---- tensors ------------------------------------------------------------------ */

typedef struct dtype {
    uint8_t code, bits;
} dtype;
static const dtype FP32 = {MBR_FLOAT, 32}, FP16 = {MBR_FLOAT, 16},
                   BF16 = {MBR_BFLOAT, 16}, COMPLEX64 = {MBR_COMPLEX, 64},
                   INT32 = {MBR_INT, 32};

enum { MEMORY = 1 << 22, ALIGNMENT = 64, POISON = 0x5a };
static _Alignas(ALIGNMENT) unsigned char memory[MEMORY];
static size_t memory_used;

static inline void forget_tensors(void) {
    memset(memory, POISON, memory_used);
    memory_used = 0;
}

static inline void *reserve(size_t bytes) {
    const size_t start = memory_used;
    assert_true(bytes <= MEMORY - ALIGNMENT - start);
    memory_used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return memory + start;
}

static inline mbr_tensor make_dense(dtype d, int32_t ndim, const int64_t *shape) {
    mbr_tensor t = {.ndim = ndim, .dtype_code = d.code, .dtype_bits = d.bits};
    int64_t count = 1;
    for (int32_t i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = count;
        count *= shape[i];
    }
    t.data = count ? reserve((size_t)count * d.bits / 8) : NULL; /* as torch does */
    return t;
}
#define DENSE(dtype, ...)                                                              \
    make_dense(dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t),              \
               (int64_t[]){__VA_ARGS__})

static const mbr_tensor ABSENT;

/* ---- rows --------------------------------------------------------------------- */

/* Upstream's text for a check without words, written out once more. */
#define EXPECTED(condition)                                                            \
    "Expected " condition                                                              \
    " to be true, but got false.  (Could this error message be improved?  If so, "     \
    "please report an enhancement request to PyTorch.): "

/* Bytes at offset become the low bytes of value. */
typedef struct edit {
    size_t offset, size;
    int64_t value;
} edit;
#define SET(params, field, value)                                                      \
    {offsetof(params, field), sizeof(((params *)0)->field), value}

static inline void apply(void *params, const edit *e) {
    memcpy((unsigned char *)params + e->offset, &e->value, e->size); /* little endian */
}

/* prepare makes good params (and their tensors); edits spoil them. */
typedef struct refusal {
    void (*prepare)(void *params);
    edit edits[3];
    const char *text; /* the whole message */
} refusal;

/* An entry point as the rows see it. */
typedef struct entry {
    const char *op;
    size_t size;
    mbr_status (*call)(const void *params);
} entry;

/* The params of the running test. A byte array, so that any struct fits. */
static _Alignas(max_align_t) unsigned char given[1 << 12], given_before[1 << 12];
static unsigned char memory_before[MEMORY];

static inline void keep_state(void) {
    memcpy(given_before, given, sizeof given);
    memcpy(memory_before, memory, memory_used);
    fake->op = "nothing";
}

/* The variant was not called and nothing was written. */
static inline void assert_refused(const entry *e) {
    assert_string_not_equal(fake->op, e->op);
    assert_memory_equal(given, given_before, sizeof given);
    assert_memory_equal(memory, memory_before, memory_used);
}

static inline void assert_row_refused(const entry *e, const refusal *r) {
    forget_tensors();
    memset(given, 0, sizeof given);
    r->prepare(given);
    for (size_t i = 0; i < sizeof r->edits / sizeof r->edits[0]; i++)
        apply(given, &r->edits[i]);
    keep_state();
    const mbr_status s = e->call(given);
    if (s == MBR_OK)
        fail_msg("%s let this through: %s", e->op, r->text);
    assert_string_equal(mbr_last_error(), r->text);
    assert_string_equal(mbr_status_name(s), "MBR_E_ARG");
    assert_refused(e);
}

static inline void assert_rows_refused(const entry *e, const refusal *rows, size_t n) {
    for (size_t i = 0; i < n; i++)
        assert_row_refused(e, &rows[i]);
}

/* Good params reach the variant as they are. */
static inline void assert_arrives(const entry *e, void (*prepare)(void *)) {
    forget_tensors();
    memset(given, 0, sizeof given);
    prepare(given);
    keep_state();
    const mbr_status s = e->call(given);
    if (s != MBR_OK)
        fail_msg("%s refused good arguments: %s", e->op, mbr_last_error());
    assert_string_equal(fake->op, e->op);
    assert_int_equal(fake->size, e->size);
    assert_memory_equal(fake->params, given, e->size);
    assert_memory_equal(memory, memory_before, memory_used);
}

/* ---- struct_size -------------------------------------------------------------- */

/* The same call from a caller that knows size bytes: on the heap with not one more, so
 * that reading past the end is seen. tail is the last byte of a larger struct. */
static inline mbr_status call_sized(const entry *e, const void *params, size_t size,
                                    unsigned char tail) {
    unsigned char *copy = calloc(1, size);
    assert_non_null(copy);
    memcpy(copy, params, e->size < size ? e->size : size);
    if (size > e->size)
        copy[size - 1] = tail;
    ((mbr_call *)(void *)copy)->struct_size = (uint32_t)size;
    const mbr_status s = e->call(copy);
    free(copy);
    return s;
}

/* ---- what a sound() says ------------------------------------------------------ */

static inline bool is(const mbr_tensor *t, dtype d) {
    return t->dtype_code == d.code && t->dtype_bits == d.bits;
}

static inline bool same_dtype(const mbr_tensor *a, const mbr_tensor *b) {
    return a->dtype_code == b->dtype_code && a->dtype_bits == b->dtype_bits;
}

static inline bool has_shape(const mbr_tensor *t, int32_t ndim, int64_t a, int64_t b,
                             int64_t c, int64_t d) {
    const int64_t shape[] = {a, b, c, d};
    return t->ndim == ndim &&
           memcmp(t->shape, shape, sizeof *shape * (size_t)ndim) == 0;
}

static inline bool like(const mbr_tensor *t, const mbr_tensor *model) {
    return same_dtype(t, model) &&
           has_shape(t, model->ndim, model->shape[0], model->shape[1], model->shape[2],
                     model->shape[3]);
}

/* ---- random spoiling ---------------------------------------------------------- */

static uint64_t random_state;

/* Numerical Recipes' 64-bit congruential generator, high bits. */
static inline uint32_t draw(uint32_t below) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

static inline int64_t draw_number(void) {
    static const int64_t telling[] = {
        0,
        1,
        2,
        3,
        4,
        5,
        8,
        16,
        32,
        64,
        128,
        256,
        257,
        2048,
        2049,
        -1,
        -2,
        -8,
        24,
        12,
        40,
        (int64_t)1 << 31,
        (int64_t)1 << 32,
        (int64_t)1 << 48,
        (int64_t)1 << 62,
        INT64_MAX,
        INT64_MIN,
        -((int64_t)1 << 32),
    };
    return telling[draw(sizeof telling / sizeof telling[0])];
}

static inline void spoil_tensor(mbr_tensor *t) {
    static const dtype dtypes[] = {
        {MBR_FLOAT, 32}, {MBR_FLOAT, 16}, {MBR_BFLOAT, 16}, {MBR_COMPLEX, 64},
        {MBR_INT, 32},   {MBR_FLOAT, 64}, {7, 24}};
    switch (draw(6)) {
    case 0:
        t->shape[draw(4)] = draw_number();
        break;
    case 1:
        t->stride[draw(4)] = draw_number();
        break;
    case 2:
        t->ndim = draw(8) ? (int32_t)draw(6) : (int32_t)draw_number();
        break;
    case 3: {
        const dtype d = dtypes[draw(sizeof dtypes / sizeof dtypes[0])];
        t->dtype_code = d.code;
        t->dtype_bits = d.bits;
        break;
    }
    case 4:
        t->data = draw(2) ? NULL : memory + draw(MEMORY / 2);
        break;
    default:
        t->reserved = (uint16_t)(draw(16) == 0);
    }
}

/* One to three changes to params whose tensors stand in one row after mbr_call. Now and
 * then the same change to two tensors, or more of them would never pass. */
static inline void spoil(size_t n_tensors, size_t size) {
    mbr_tensor *tensors = (mbr_tensor *)(given + sizeof(mbr_call));
    for (uint32_t i = 0, n = 1 + draw(3); i < n; i++) {
        mbr_tensor *t = &tensors[draw((uint32_t)n_tensors)];
        if (draw(4) == 0)
            *t = tensors[draw((uint32_t)n_tensors)];
        else if (draw(12) == 0)
            given[sizeof(uint32_t) + draw((uint32_t)(size - sizeof(uint32_t)))] ^=
                (unsigned char)(1u << draw(8));
        else
            spoil_tensor(t);
    }
}

/* What spoiling leads to: refused with a reason, or called with what sound() holds for
 * sound. sound() states the contract anew and shares nothing with the library. */
static inline void assert_spoilt_is_caught(const entry *e, size_t n_tensors,
                                           void (*const *prepare)(void *), size_t n,
                                           void (*tame)(void *),
                                           void (*sound)(const void *)) {
    enum { ROUNDS = 100000 };
    size_t passed = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        random_state = round;
        memory_used = 0;
        memset(given, 0, e->size);
        prepare[draw((uint32_t)n)](given);
        spoil(n_tensors, e->size);
        if (tame)
            tame(given);
        fake->op = "nothing";
        const mbr_status s = e->call(given);
        if (s == MBR_OK) {
            passed++;
            assert_string_equal(fake->op, e->op);
            assert_memory_equal(fake->params, given, e->size);
            sound(given);
            continue;
        }
        assert_true(s == MBR_E_ARG || s == MBR_E_NO_VARIANT);
        assert_string_not_equal(fake->op, e->op);
        assert_true(mbr_last_error()[0] != '\0');
    }
    print_message("%s: %zu of %d spoilt calls were good ones\n", e->op, passed, ROUNDS);
    assert_in_range(passed, ROUNDS / 100, ROUNDS / 2);
}

#endif
