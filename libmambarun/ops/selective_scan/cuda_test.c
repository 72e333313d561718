/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_test.c - what the launch code of this room sends to the driver: which kernel,
 * how many blocks and threads, on which stream, with which parameters. On the fake
 * driver.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../fakes/cuda.h"
#include "cuda_scan.h"
#include <string.h>

enum { WARP = 32, SHARED_OF_ANY_GPU = 48 * 1024 };

static mbr_fake_driver *fake;

static int use_fakes(void **state) {
    (void)state;
    fake = mbr_fake_cuda_use();
    return fake != NULL ? 0 : -1;
}

typedef struct problem {
    int64_t batch, dim, length, states, groups;
    uint8_t code, bits, out_bits;
    int is_complex;
} problem;

static mbr_tensor real(const problem *s, int32_t ndim, const int64_t *shape) {
    return mbr_fake_tensor(s->code, s->bits, ndim, shape);
}

/* A call as upstream makes it: B and C variable, D, z and delta_bias present. */
static mbr_selective_scan_fwd_params forward(const problem *s) {
    const int64_t sequence[] = {s->batch, s->dim, s->length},
                  rates[] = {s->dim, s->states};
    const int64_t inputs[] = {s->batch, s->groups, s->states,
                              s->length * (s->is_complex ? 2 : 1)};
    const int64_t chunks[] = {s->batch, s->dim, (s->length + 2047) / 2048,
                              2 * s->states};
    const uint8_t code = s->is_complex ? MBR_COMPLEX : MBR_FLOAT;
    const uint8_t bits = s->is_complex ? 64 : 32;
    mbr_selective_scan_fwd_params p = {
        .call = mbr_fake_call(sizeof p, 0),
        .u = real(s, 3, sequence),
        .delta = real(s, 3, sequence),
        .A = mbr_fake_tensor(code, bits, 2, rates),
        .B = real(s, 4, inputs),
        .C = real(s, 4, inputs),
        .D = mbr_fake_tensor(MBR_FLOAT, 32, 1, &s->dim),
        .z = real(s, 3, sequence),
        .delta_bias = mbr_fake_tensor(MBR_FLOAT, 32, 1, &s->dim),
        .x = mbr_fake_tensor(code, bits, 4, chunks),
        .out_z = real(s, 3, sequence),
        .delta_softplus = 1,
    };
    p.out = mbr_fake_tensor(s->out_bits == s->bits ? s->code : MBR_FLOAT, s->out_bits,
                            3, sequence);
    if (s->out_bits != s->bits) /* such an out has no gate */
        p.z = p.out_z = (mbr_tensor){0};
    return p;
}

static const problem usual = {.batch = 2,
                              .dim = 96,
                              .length = 1000,
                              .states = 16,
                              .groups = 1,
                              .code = MBR_FLOAT,
                              .bits = 32,
                              .out_bits = 32};

static void send(const mbr_selective_scan_fwd_params *p) {
    fake->launches = 0;
    memset(&fake->launch, 0, sizeof fake->launch);
    if (mbr_selective_scan_fwd(p) != MBR_OK)
        fail_msg("%s", mbr_last_error());
    assert_int_equal(fake->launches, 1);
}

static void a_forward_goes_to_the_calls_stream_and_device(void **state) {
    (void)state;
    for (int32_t device = 0; device < 2; device++) {
        mbr_selective_scan_fwd_params p = forward(&usual);
        p.call = mbr_fake_call(sizeof p, device);
        send(&p);
        assert_ptr_equal(fake->launch.stream, (void *)(uintptr_t)(0x5150 + device));
        assert_int_equal(fake->launch.block[1], 1);
        assert_int_equal(fake->launch.block[2], 1);
        p.call.stream = NULL; /* the legacy stream stays that */
        send(&p);
        assert_null(fake->launch.stream);
    }
}

static void its_parameters_begin_with_the_calls(void **state) {
    (void)state;
    const mbr_selective_scan_fwd_params p = forward(&usual);
    send(&p);
    assert_int_equal(fake->launch.size, sizeof(scan_forward));
    assert_memory_equal(fake->launch.params, &p, sizeof p);
}

static void every_type_has_its_kernels(void **state) {
    (void)state;
    static const struct {
        uint8_t code, bits, out_bits;
        const char *name;
    } types[] = {
        {MBR_FLOAT, 32, 32, "_f32_"},   {MBR_FLOAT, 16, 16, "_half_"},
        {MBR_BFLOAT, 16, 16, "_half_"}, {MBR_FLOAT, 16, 32, "_half_"},
        {MBR_BFLOAT, 16, 32, "_half_"},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int is_complex = 0; is_complex < 2; is_complex++) {
            problem s = usual;
            s.code = types[i].code;
            s.bits = types[i].bits;
            s.out_bits = types[i].out_bits;
            s.is_complex = is_complex;
            const mbr_selective_scan_fwd_params p = forward(&s);
            send(&p);
            assert_memory_equal(fake->launch.kernel, "selective_scan_fwd_", 19);
            if (strstr(fake->launch.kernel, types[i].name) == NULL ||
                (strstr(fake->launch.kernel, "complex") != NULL) != is_complex)
                fail_msg("%s runs type %s, complex %d", fake->launch.kernel,
                         types[i].name, is_complex);
        }
}

/* Blocks in x only, of whole warps, which every GPU can hold, and for all channels. */
static void any_size_fits_a_grid_and_covers_all_channels(void **state) {
    (void)state;
    static const problem sizes[] = {
        {.batch = 1, .dim = 1, .length = 1, .states = 1, .groups = 1},
        {.batch = 1, .dim = 1, .length = 2048, .states = 16, .groups = 1},
        {.batch = 3, .dim = 100, .length = 197, .states = 16, .groups = 4},
        {.batch = 70000, .dim = 4, .length = 16, .states = 16, .groups = 2},
        {.batch = 1, .dim = 200000, .length = 64, .states = 256, .groups = 1},
        {.batch = 2, .dim = 66000, .length = 64, .states = 1, .groups = 66000},
        {.batch = 64, .dim = 8192, .length = 8192, .states = 16, .groups = 1},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int is_complex = 0; is_complex < 2; is_complex++) {
            problem s = sizes[i];
            s.code = MBR_FLOAT;
            s.bits = s.out_bits = 32;
            s.is_complex = is_complex;
            const mbr_selective_scan_fwd_params p = forward(&s);
            send(&p);
            const mbr_fake_launch *l = &fake->launch;
            scan_forward f;
            memcpy(&f, l->params, sizeof f);
            assert_int_equal(l->grid[1], 1);
            assert_int_equal(l->grid[2], 1);
            assert_in_range(l->grid[0], 1, INT32_MAX);
            assert_int_equal(l->block[0] % WARP, 0);
            assert_in_range(l->block[0], WARP, 1024);
            assert_in_range(l->shared_bytes, 0, SHARED_OF_ANY_GPU);
            assert_int_equal(f.groups * f.width, s.dim);
            assert_int_equal(f.blocks, s.batch * f.groups * f.blocks_per_group);
            assert_int_equal(l->grid[0], f.blocks);
            assert_true(f.blocks_per_group <= f.width);
            if (strstr(l->kernel, "_one_") != NULL) /* a row is a tile */
                continue;
            assert_int_equal(f.tiles, f.whole_tiles + (f.rest > 0));
            if (f.whole_tiles > 0)
                assert_int_equal((s.length - f.rest) % f.whole_tiles, 0);
        }
}

/* How each tensor is accessed, as one letter: elements, words, pieces. */
static void assert_accesses(const mbr_selective_scan_fwd_params *p,
                            const char *expected, uint32_t plain) {
    scan_forward f;
    char found[ROWS + 1] = {0};
    send(p);
    memcpy(&f, fake->launch.params, sizeof f);
    for (int i = 0; i < ROWS; i++)
        found[i] = f.rows[i].how == IN_PIECES  ? 'p'
                   : f.rows[i].how == IN_WORDS ? 'w'
                                               : 'e';
    found[ROWS_X] = '\0';
    assert_string_equal(found, expected);
    assert_int_equal(f.plain, plain);
}

static void accesses_are_as_wide_as_addresses_and_strides_allow(void **state) {
    (void)state;
    problem s = usual;
    s.bits = s.out_bits = 16;
    mbr_selective_scan_fwd_params p = forward(&s);
    assert_accesses(&p, "ppppppp", 1); /* u delta z B C out out_z */
    p.u.data = (char *)p.u.data + 4;   /* 4 bytes past a multiple of 16 */
    p.delta.stride[1] = 1001;          /* rows begin anywhere */
    p.z.stride[2] = 2;                 /* not side by side */
    p.out.stride[0] += 4;              /* batch entries are 8 bytes off */
    assert_accesses(&p, "wweppwp", 1);
    p.C.stride[2] = 1002; /* states begin with a word */
    assert_accesses(&p, "wwepwwp", 1);
    p.C.stride[2] = 1001; /* every other one inside a word */
    assert_accesses(&p, "wwepwwp", 0);
}

static void rows_are_found_by_strides_in_bytes(void **state) {
    (void)state;
    mbr_selective_scan_fwd_params p = forward(&usual);
    scan_forward f;
    p.delta.stride[0] = 7, p.delta.stride[1] = 5, p.delta.stride[2] = 3;
    send(&p);
    memcpy(&f, fake->launch.params, sizeof f);
    assert_ptr_equal(f.rows[ROWS_DELTA].data, p.delta.data);
    assert_int_equal(f.rows[ROWS_DELTA].batch, 28);
    assert_int_equal(f.rows[ROWS_DELTA].channel, 20);
    assert_int_equal(f.rows[ROWS_DELTA].time, 3);
    assert_int_equal(f.rows[ROWS_B].state, p.B.stride[2]);
    assert_ptr_equal(f.rows[ROWS_X].data, p.x.data);
    assert_int_equal(f.rows[ROWS_X].batch, 4 * p.x.stride[0]);
    assert_int_equal(f.rows[ROWS_X].channel, 4 * p.x.stride[1]);
    assert_int_equal(f.rows[ROWS_X].time, p.x.stride[2]);
    assert_int_equal(f.repeat, 1);
    p.delta.shape[1] = p.delta_bias.shape[0] = 24;
    send(&p);
    memcpy(&f, fake->launch.params, sizeof f);
    assert_int_equal(f.repeat, 4);
}

/* A long sequence of few channels: its chunks run side by side, twice, and between that
 * their states are joined. One of many channels does not gain by that. */
static void chunks_of_few_channels_run_side_by_side(void **state) {
    (void)state;
    for (int is_complex = 0; is_complex < 2; is_complex++) {
        problem s = usual;
        s.dim = 40;
        s.length = 100000;
        s.is_complex = is_complex;
        mbr_selective_scan_fwd_params p = forward(&s);
        scan_forward f;
        fake->launches = 0;
        assert_int_equal(mbr_selective_scan_fwd(&p), MBR_OK);
        assert_int_equal(fake->launches, 3);
        memcpy(&f, fake->launch.params, sizeof f);
        assert_int_equal(f.pass, FROM_STATES);
        assert_int_equal(f.chunks, 49);
        assert_int_equal(f.blocks, 2 * f.blocks_per_group * 49);
        assert_int_equal(fake->launch.grid[0], f.blocks);
        s.dim = 8192;
        p = forward(&s);
        send(&p);
        memcpy(&f, fake->launch.params, sizeof f);
        assert_int_equal(f.pass, WHOLE);
        assert_int_equal(f.blocks, 2 * f.blocks_per_group);
    }
}

/* Sixteen states of many channels have a kernel of their own, which is not for anything
 * else. */
static void many_channels_are_scanned_position_by_position(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        problem s = usual;
        s.batch = 8;
        s.dim = 1536;
        s.bits = s.out_bits = i == 0 ? 16 : 32;
        mbr_selective_scan_fwd_params p = forward(&s);
        scan_forward f;
        send(&p);
        assert_non_null(strstr(fake->launch.kernel, "serial"));
        assert_int_equal(fake->launch.shared_bytes, 0);
        assert_int_equal(fake->launch.block[0], 128);
        memcpy(&f, fake->launch.params, sizeof f);
        assert_int_equal(f.pass, WHOLE);
        p.u.stride[2] = 2; /* rows of elements */
        send(&p);
        assert_null(strstr(fake->launch.kernel, "serial"));
        p = forward(&s);
        p.C.ndim = 2; /* constant */
        p.C.shape[0] = s.dim;
        p.C.shape[1] = s.states;
        p.C.dtype_code = MBR_FLOAT;
        p.C.dtype_bits = 32;
        send(&p);
        assert_null(strstr(fake->launch.kernel, "serial"));
        static const problem others[] = {
            {.batch = 8, .dim = 1536, .states = 8},
            {.batch = 8, .dim = 1536, .states = 17},
            {.batch = 8, .dim = 1536, .states = 16, .is_complex = 1},
            {.batch = 1, .dim = 256, .states = 16},
        };
        for (size_t k = 0; k < sizeof others / sizeof *others; k++) {
            s.batch = others[k].batch;
            s.dim = others[k].dim;
            s.states = others[k].states;
            s.is_complex = others[k].is_complex;
            p = forward(&s);
            send(&p);
            assert_null(strstr(fake->launch.kernel, "serial"));
        }
    }
}

/* A forward of one state without a gate, as VMamba calls it. */
static mbr_selective_scan_fwd_params forward_of_one_state(problem s) {
    s.states = 1;
    mbr_selective_scan_fwd_params p = forward(&s);
    p.z = p.out_z = (mbr_tensor){0};
    return p;
}

static const problem vision = {.batch = 2,
                               .dim = 12,
                               .length = 3136,
                               .groups = 4,
                               .code = MBR_FLOAT,
                               .bits = 16,
                               .out_bits = 32};

/* One state: a kernel of its own, in which the lanes of a unit have a channel. */
static void one_state_has_a_forward_kernel_of_its_own(void **state) {
    (void)state;
    static const struct {
        int64_t dim, length;
        uint8_t code, bits;
        const char *kernel;
        uint32_t threads, how;
    } rows[] = {
        {12, 3136, MBR_FLOAT, 16, "half_lanes32", 96, IN_PIECES}, /* 3 of a group */
        {384, 3136, MBR_BFLOAT, 16, "half_lanes32", 256, IN_PIECES},
        {384, 129, MBR_FLOAT, 16, "half_lanes32", 256, IN_WORDS},
        {384, 128, MBR_FLOAT, 16, "half_lanes32", 256, IN_PIECES},
        {384, 65, MBR_FLOAT, 16, "half_lanes32", 256, IN_WORDS},
        {12, 49, MBR_FLOAT, 16, "half_lanes8", 32, IN_WORDS},
        {384, 64, MBR_FLOAT, 32, "f32_lanes8", 256, IN_PIECES},
        {384, 66, MBR_FLOAT, 32, "f32_lanes32", 256, IN_WORDS},
        {384, 100000, MBR_FLOAT, 32, "f32_lanes32", 256, IN_PIECES},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        problem s = vision;
        scan_forward f;
        s.dim = rows[i].dim, s.length = rows[i].length;
        s.batch = 64, s.code = rows[i].code, s.bits = rows[i].bits;
        const mbr_selective_scan_fwd_params p = forward_of_one_state(s);
        send(&p);
        memcpy(&f, fake->launch.params, sizeof f);
        assert_memory_equal(fake->launch.kernel, "selective_scan_fwd_one_", 23);
        assert_string_equal(fake->launch.kernel + 23, rows[i].kernel);
        assert_int_equal(fake->launch.block[0], rows[i].threads);
        assert_int_equal(fake->launch.grid[0], 64 * 4 * f.blocks_per_group);
        assert_int_equal((f.width + f.channels - 1) / f.channels, f.blocks_per_group);
        assert_in_range(fake->launch.shared_bytes, 1, SHARED_OF_ANY_GPU);
        assert_int_equal(f.rows[ROWS_OUT].how, rows[i].how);
    }
}

/* What that kernel cannot do goes the general way. */
static void other_forwards_of_one_state_go_the_general_way(void **state) {
    (void)state;
    enum { GATE, STATES, STEP, EXPANDED, GROUPED, CONSTANT, IS_COMPLEX, OTHERS };
    for (int other = 0; other < OTHERS; other++) {
        problem s = vision;
        s.is_complex = other == IS_COMPLEX;
        mbr_selective_scan_fwd_params p = forward_of_one_state(s);
        if (other == GATE)
            p.z = p.out_z = p.u;
        if (other == GATE)
            p.out = p.u;
        if (other == STATES)
            s.states = 2, p = forward(&s);
        if (other == STEP)
            p.delta.stride[2] = 2;
        if (other == EXPANDED)
            p.u.stride[0] = 0;
        if (other == GROUPED)
            p.delta.shape[1] = p.delta_bias.shape[0] = 6;
        if (other == CONSTANT)
            p.C = p.A;
        send(&p);
        if (strstr(fake->launch.kernel, "_one_") != NULL)
            fail_msg("case %d runs %s", other, fake->launch.kernel);
    }
}

static void nothing_is_launched_for_an_empty_sequence(void **state) {
    (void)state;
    problem s = usual;
    s.length = 0;
    const mbr_selective_scan_fwd_params p = forward(&s);
    fake->launches = 0;
    assert_int_equal(mbr_selective_scan_fwd(&p), MBR_OK);
    assert_int_equal(fake->launches, 0);
}

/* ---- backward: several launches ------------------------------------------------- */

enum { GRADIENT_KERNELS = 3 }; /* at most: states, gradients, sums */

/* As large as it has to be; it lies nowhere, too. */
static void give_workspace(mbr_selective_scan_bwd_params *p) {
    const int64_t bytes = (int64_t)mbr_selective_scan_bwd_workspace(p);
    p->workspace.size = (uint64_t)bytes;
    p->workspace.data = mbr_fake_tensor(MBR_INT, 8, 1, &bytes).data;
}

/* The gradients of a forward, B and C variable. */
static mbr_selective_scan_bwd_params backward(const problem *s) {
    const mbr_selective_scan_fwd_params f = forward(s);
    mbr_selective_scan_bwd_params p = {
        .call = mbr_fake_call(sizeof p, 0),
        .u = f.u,
        .delta = f.delta,
        .A = f.A,
        .B = f.B,
        .C = f.C,
        .D = f.D,
        .z = f.z,
        .delta_bias = f.delta_bias,
        .dout = f.out,
        .x = f.x,
        .out = f.out,
        .delta_softplus = 1,
    };
    p.dout.data = (char *)p.dout.data + (INT64_C(1) << 43); /* beside out */
    const mbr_tensor *like[] = {&p.u, &p.delta, &p.A,          &p.B,
                                &p.C, &p.D,     &p.delta_bias, &p.z};
    mbr_tensor *gradient[] = {&p.du, &p.ddelta, &p.dA,          &p.dB,
                              &p.dC, &p.dD,     &p.ddelta_bias, &p.dz};
    for (size_t i = 0; i < sizeof like / sizeof *like; i++)
        if (like[i]->data != NULL)
            *gradient[i] = mbr_fake_tensor(like[i]->dtype_code, like[i]->dtype_bits,
                                           like[i]->ndim, like[i]->shape);
    give_workspace(&p);
    return p;
}

static void send_backward(const mbr_selective_scan_bwd_params *p) {
    fake->launches = 0;
    memset(fake->each, 0, sizeof fake->each);
    if (mbr_selective_scan_bwd(p) != MBR_OK)
        fail_msg("%s", mbr_last_error());
    assert_in_range(fake->launches, 1, GRADIENT_KERNELS);
}

static void all_kernels_of_a_backward_get_the_same_call(void **state) {
    (void)state;
    for (int32_t device = 0; device < 2; device++)
        for (int legacy = 0; legacy < 2; legacy++) {
            mbr_selective_scan_bwd_params p = backward(&usual);
            p.call = mbr_fake_call(sizeof p, device);
            if (legacy)
                p.call.stream = NULL;
            send_backward(&p);
            for (int32_t i = 0; i < fake->launches; i++) {
                const mbr_fake_launch *l = &fake->each[i];
                assert_memory_equal(l->kernel, "selective_scan_bwd_", 19);
                assert_ptr_equal(l->stream, p.call.stream);
                assert_ptr_equal(l->context, fake->each[0].context);
                assert_int_equal(l->size, sizeof(scan_backward));
                assert_memory_equal(l->params, &p, sizeof p);
                assert_memory_equal(l->params, fake->each[0].params, l->size);
            }
        }
}

/* What a kernel gets beyond the caller's params: the addresses among it lie within the
 * workspace. No other number is as large as the address of a fake tensor. */
static void assert_within_workspace(const mbr_selective_scan_bwd_params *p,
                                    const mbr_fake_launch *l) {
    const uint64_t begin = (uintptr_t)p->workspace.data,
                   end = begin + p->workspace.size;
    int addresses = 0;
    const size_t rows = offsetof(scan_backward, rows); /* of the caller's tensors */
    for (size_t at = sizeof *p; at + 8 <= l->size; at += 8) {
        uint64_t word;
        if (at >= rows && at < rows + sizeof((scan_backward *)NULL)->rows)
            continue;
        memcpy(&word, l->params + at, 8);
        if (word < UINT64_C(1) << 44)
            continue;
        assert_in_range(word, begin, end - 1);
        addresses++;
    }
    assert_true(addresses > 0);
}

/* As large as cuda_scan.h says, none over another. */
static void assert_parts_are_apart(const problem *s, const mbr_fake_launch *l) {
    scan_backward f;
    memcpy(&f, l->params, sizeof f);
    const int64_t P = s->is_complex ? 2 : 1, rows = s->batch * s->dim;
    const int64_t tile = (int64_t)f.lanes * f.steps;
    const struct part {
        const float *begin;
        int64_t floats;
    } parts[] = {
        {f.partial,
         f.slices * s->batch * f.groups * f.tiles * s->states * 2 * tile * P},
        {f.entry, rows * f.tiles * s->states * P},
        {f.sums, rows * (SUMS_VALUES + SUMS_BY_STATE * s->states * P)},
        {f.grouped, rows * f.padded},
        {(float *)((char *)f.p.workspace.data + f.p.workspace.size), 0},
    };
    enum { PARTS = sizeof parts / sizeof *parts };
    for (int i = 0; i + 1 < PARTS; i++)
        for (int j = 0; j < PARTS; j++)
            if (parts[i].begin != NULL && parts[j].begin > parts[i].begin)
                assert_true(parts[j].begin - parts[i].begin >= parts[i].floats);
}

/* Blocks for all channels of all groups of all batch entries; a sweep has them for each
 * chunk, in shares of its own; the last launch has one for each job of the sums. */
static void assert_covers(const problem *s, const mbr_fake_launch *l) {
    scan_backward f;
    memcpy(&f, l->params, sizeof f);
    if (strstr(l->kernel, "_sum") != NULL) {
        assert_int_equal(l->grid[0], f.sum_blocks[0] + f.sum_blocks[1] +
                                         f.sum_blocks[2] + f.sum_blocks[3]);
        return;
    }
    assert_int_equal(f.groups * f.width, s->dim);
    assert_true(f.tiles * f.lanes * f.steps >= s->length);
    if (strstr(l->kernel, "_sweep") != NULL) {
        assert_int_equal(l->grid[0] % (s->batch * f.groups * f.chunks), 0);
        return;
    }
    const int64_t teams = l->block[0] / f.lanes;
    const int64_t channels = f.channels != 0 ? f.channels : teams;
    assert_int_equal(channels % teams, 0);
    assert_in_range(f.blocks_per_group * channels, f.width, f.width + channels - 1);
    assert_int_equal(f.blocks, s->batch * f.groups * f.blocks_per_group);
    assert_int_equal(l->grid[0], f.blocks);
}

static void a_backward_of_any_size_fits_grid_and_workspace(void **state) {
    (void)state;
    static const problem sizes[] = {
        {.batch = 1, .dim = 1, .length = 1, .states = 1, .groups = 1},
        {.batch = 1, .dim = 1, .length = 1 << 20, .states = 16, .groups = 1},
        {.batch = 3, .dim = 100, .length = 197, .states = 16, .groups = 4},
        {.batch = 70000, .dim = 4, .length = 16, .states = 16, .groups = 2},
        {.batch = 1, .dim = 200000, .length = 64, .states = 256, .groups = 1},
        {.batch = 2, .dim = 66000, .length = 64, .states = 1, .groups = 66000},
        {.batch = 64, .dim = 8192, .length = 8192, .states = 16, .groups = 1},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int variety = 0; variety < 4; variety++) {
            problem s = sizes[i];
            s.code = MBR_FLOAT;
            s.bits = s.out_bits = 32;
            s.is_complex = variety & 1;
            mbr_selective_scan_bwd_params p = backward(&s);
            p.call.flags = variety & 2 ? MBR_DETERMINISTIC : 0;
            give_workspace(&p);
            send_backward(&p);
            for (int32_t n = 0; n < fake->launches; n++) {
                const mbr_fake_launch *l = &fake->each[n];
                assert_int_equal(l->grid[1], 1);
                assert_int_equal(l->grid[2], 1);
                assert_in_range(l->grid[0], 1, INT32_MAX);
                assert_int_equal(l->block[0] % WARP, 0);
                assert_in_range(l->block[0], WARP, 1024);
                assert_in_range(l->shared_bytes, 0, SHARED_OF_ANY_GPU);
                assert_within_workspace(&p, l);
                assert_covers(&s, l);
                assert_parts_are_apart(&s, l);
            }
        }
}

static void the_size_of_a_workspace_is_no_question_to_the_driver(void **state) {
    (void)state;
    fake->log[0] = '\0';
    assert_true(backward(&usual).workspace.size > 0);
    assert_string_equal(fake->log, "");
}

static void every_type_has_its_gradient_kernels(void **state) {
    (void)state;
    static const struct {
        uint8_t code, bits;
        const char *name;
    } types[] = {
        {MBR_FLOAT, 32, "_f32"}, {MBR_FLOAT, 16, "_half"}, {MBR_BFLOAT, 16, "_half"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int is_complex = 0; is_complex < 2; is_complex++) {
            problem s = usual;
            s.code = types[i].code;
            s.bits = s.out_bits = types[i].bits;
            s.is_complex = is_complex;
            const mbr_selective_scan_bwd_params p = backward(&s);
            send_backward(&p);
            int of_complex = 0;
            for (int32_t n = 0; n + 1 < fake->launches; n++) {
                if (strstr(fake->each[n].kernel, types[i].name) == NULL)
                    fail_msg("%s runs type %s", fake->each[n].kernel, types[i].name);
                of_complex += strstr(fake->each[n].kernel, "complex") != NULL;
            }
            assert_int_equal(of_complex > 0, is_complex);
            assert_string_equal(fake->each[fake->launches - 1].kernel,
                                "selective_scan_bwd_sum");
        }
}

/* The kernel that leaves the states before tiles has shorter teams, and so more
 * channels in a block; of few channels both have long ones. */
static void
gradients_come_from_a_sweep_of_all_chunks_and_a_kernel_of_all_blocks(void **state) {
    (void)state;
    problem s = {.code = MBR_BFLOAT, .bits = 16, .out_bits = 16, .batch = 2};
    s.dim = 3000, s.length = 5000, s.states = 8, s.groups = 2;
    mbr_selective_scan_bwd_params p = backward(&s);
    send_backward(&p);
    assert_int_equal(fake->launches, 3);
    assert_string_equal(fake->each[0].kernel, "selective_scan_bwd_sweep_half_lanes4");
    assert_int_equal(fake->each[0].grid[0], 3 * 2 * 2 * 47); /* chunks; 32 channels */
    assert_string_equal(fake->each[1].kernel, "selective_scan_bwd_half_lanes8");
    assert_int_equal(fake->each[1].grid[0], 2 * 2 * 94); /* 16 channels */

    s.dim = 300;
    p = backward(&s);
    send_backward(&p);
    assert_string_equal(fake->each[0].kernel, "selective_scan_bwd_sweep_half_lanes32");
    assert_string_equal(fake->each[1].kernel, "selective_scan_bwd_half_lanes32");
    for (int n = 0; n < 2; n++) /* 4 channels */
        assert_int_equal(fake->each[n].grid[0], (n == 0 ? 3 : 1) * 2 * 2 * 38);
}

/* 16 states of many channels, in blocks of 16 channels; what that kernel cannot do, or
 * not fast, goes the general way. */
static void many_channels_go_step_by_step(void **state) {
    (void)state;
    problem s = {.code = MBR_BFLOAT, .bits = 16, .out_bits = 16, .batch = 2};
    s.dim = 3000, s.length = 5000, s.states = 16, s.groups = 2;
    mbr_selective_scan_bwd_params p = backward(&s);
    send_backward(&p);
    assert_int_equal(fake->launches, 3);
    assert_string_equal(fake->each[0].kernel, "selective_scan_bwd_sweep_half_serial");
    assert_int_equal(fake->each[0].grid[0], 3 * 2 * 2 * 94);
    assert_string_equal(fake->each[1].kernel, "selective_scan_bwd_half_serial");
    assert_int_equal(fake->each[1].grid[0], 2 * 2 * 94);
    for (int n = 0; n < 2; n++)
        assert_int_equal(fake->each[n].block[0], 2 * WARP);

    problem others[] = {s, s, s, s};
    others[0].states = 17;
    others[1].is_complex = 1;
    others[2].dim = 2000;
    for (int i = 0; i < 4; i++) {
        p = backward(&others[i]);
        if (i == 3) { /* rows of delta for several channels */
            p.delta.shape[1] = p.ddelta.shape[1] = s.dim / 2;
            p.delta_bias.shape[0] = p.ddelta_bias.shape[0] = s.dim / 2;
            give_workspace(&p);
        }
        send_backward(&p);
        for (int32_t n = 0; n < fake->launches; n++)
            assert_null(strstr(fake->each[n].kernel, "_serial"));
    }
}

/* One state, no gate and rows of one team: a kernel of its own. What it cannot do, or
 * not fast, goes the general way. */
static void one_state_has_a_kernel_of_its_own(void **state) {
    (void)state;
    problem s = {.code = MBR_FLOAT, .bits = 16, .out_bits = 32, .batch = 2, .dim = 12};
    s.length = 3136, s.states = 1, s.groups = 4;
    mbr_selective_scan_bwd_params p = backward(&s);
    send_backward(&p);
    assert_int_equal(fake->launches, 2);
    assert_string_equal(fake->each[0].kernel, "selective_scan_bwd_one_f16");
    assert_int_equal(fake->each[0].block[0], 13 * WARP); /* 8 positions a lane */
    assert_int_equal(fake->each[0].grid[0], 2 * 4 * 3);

    s.length = 49;
    p = backward(&s);
    send_backward(&p);
    assert_string_equal(fake->each[0].kernel, "selective_scan_bwd_one_f16");
    assert_int_equal(fake->each[0].block[0], 2 * WARP); /* teams of 8 lanes for 3 */

    const problem others[] = {{.length = 4097, .states = 1},
                              {.length = 49, .states = 2}};
    for (size_t i = 0; i < 2; i++) {
        s.length = others[i].length, s.states = others[i].states;
        p = backward(&s);
        send_backward(&p);
        for (int32_t n = 0; n < fake->launches; n++)
            assert_null(strstr(fake->each[n].kernel, "_one_"));
    }
    s.length = 49, s.states = 1;
    p = backward(&s);
    p.delta.stride[2] = 2;
    send_backward(&p);
    assert_null(strstr(fake->each[0].kernel, "_one_"));
}

/* Sums over no positions are zeros, which somebody has to write. */
static void an_empty_sequence_still_has_gradients_of_the_weights(void **state) {
    (void)state;
    problem s = usual;
    s.length = 0;
    const mbr_selective_scan_bwd_params p = backward(&s);
    assert_int_equal(p.workspace.size, 0);
    send_backward(&p);
    assert_int_equal(fake->launches, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forward_goes_to_the_calls_stream_and_device),
        cmocka_unit_test(its_parameters_begin_with_the_calls),
        cmocka_unit_test(every_type_has_its_kernels),
        cmocka_unit_test(any_size_fits_a_grid_and_covers_all_channels),
        cmocka_unit_test(accesses_are_as_wide_as_addresses_and_strides_allow),
        cmocka_unit_test(rows_are_found_by_strides_in_bytes),
        cmocka_unit_test(chunks_of_few_channels_run_side_by_side),
        cmocka_unit_test(many_channels_are_scanned_position_by_position),
        cmocka_unit_test(one_state_has_a_forward_kernel_of_its_own),
        cmocka_unit_test(other_forwards_of_one_state_go_the_general_way),
        cmocka_unit_test(nothing_is_launched_for_an_empty_sequence),
        cmocka_unit_test(all_kernels_of_a_backward_get_the_same_call),
        cmocka_unit_test(a_backward_of_any_size_fits_grid_and_workspace),
        cmocka_unit_test(every_type_has_its_gradient_kernels),
        cmocka_unit_test(
            gradients_come_from_a_sweep_of_all_chunks_and_a_kernel_of_all_blocks),
        cmocka_unit_test(many_channels_go_step_by_step),
        cmocka_unit_test(one_state_has_a_kernel_of_its_own),
        cmocka_unit_test(the_size_of_a_workspace_is_no_question_to_the_driver),
        cmocka_unit_test(an_empty_sequence_still_has_gradients_of_the_weights),
    };
    return cmocka_run_group_tests(tests, use_fakes, NULL);
}
