/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_test.c - what the launch code of this room sends to the driver: which kernels,
 * how many blocks, on which stream, with which parameters. On the fake driver.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../fakes/cuda.h"
#include "cuda_conv.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static mbr_fake_driver *fake;

static int use_fakes(void **state) {
    (void)state;
    fake = mbr_fake_cuda_use();
    return fake != NULL ? 0 : -1;
}

typedef struct problem {
    int64_t batch, dim, length, width;
    uint8_t code, bits;
    int channel_last;
} problem;

static const problem usual = {2, 96, 1000, 4, MBR_FLOAT, 32, 0};

/* (batch, dim, length), in the problem's layout. */
static mbr_tensor sequence(const problem *s, int64_t length) {
    const int64_t shape[] = {s->batch, s->dim, length};
    mbr_tensor t = mbr_fake_tensor(s->code, s->bits, 3, shape);
    if (s->channel_last) {
        t.stride[1] = 1;
        t.stride[2] = s->dim;
    }
    return t;
}

static mbr_tensor ids(const problem *s) {
    const int64_t shape[] = {s->batch, s->length};
    return mbr_fake_tensor(MBR_INT, 32, 2, shape);
}

static mbr_tensor weights(const problem *s) {
    const int64_t shape[] = {s->dim, s->width};
    return mbr_fake_tensor(MBR_FLOAT, 32, 2, shape);
}

static mbr_causal_conv1d_fwd_params forward(const problem *s) {
    return (mbr_causal_conv1d_fwd_params){
        .call = mbr_fake_call(sizeof(mbr_causal_conv1d_fwd_params), 0),
        .x = sequence(s, s->length),
        .weight = weights(s),
        .bias = mbr_fake_tensor(MBR_FLOAT, 32, 1, &s->dim),
        .initial_states = sequence(s, s->width - 1),
        .out = sequence(s, s->length),
        .final_states_out = sequence(s, s->width - 1),
        .silu_activation = 1,
    };
}

/* Its workspace lies nowhere, as its tensors do. */
static mbr_causal_conv1d_bwd_params backward(const problem *s) {
    mbr_causal_conv1d_bwd_params p = {
        .call = mbr_fake_call(sizeof p, 0),
        .x = sequence(s, s->length),
        .weight = weights(s),
        .bias = mbr_fake_tensor(MBR_FLOAT, 32, 1, &s->dim),
        .dout = sequence(s, s->length),
        .dx = sequence(s, s->length),
        .dweight = weights(s),
        .dbias = mbr_fake_tensor(MBR_FLOAT, 32, 1, &s->dim),
    };
    p.workspace.size = mbr_causal_conv1d_bwd_workspace(&p);
    p.workspace.data = (void *)(uintptr_t)4096;
    return p;
}

static mbr_causal_conv1d_update_params update(const problem *s) {
    return (mbr_causal_conv1d_update_params){
        .call = mbr_fake_call(sizeof(mbr_causal_conv1d_update_params), 0),
        .x = sequence(s, s->length),
        .conv_state = sequence(s, s->width),
        .weight = weights(s),
        .out = sequence(s, s->length),
    };
}

static void expect(mbr_status status, int launches) {
    if (status != MBR_OK)
        fail_msg("%s", mbr_last_error());
    assert_int_equal(fake->launches, launches);
}

static conv_plan send_forward(const mbr_causal_conv1d_fwd_params *p) {
    conv_forward f;
    fake->launches = 0;
    expect(mbr_causal_conv1d_fwd(p), 1);
    assert_int_equal(fake->launch.size, sizeof f);
    memcpy(&f, fake->launch.params, sizeof f);
    return f.plan;
}

/* Where blocks share a channel, the last launch is the sum over the partial ones, which
 * gets the same. */
static conv_plan send_backward(const mbr_causal_conv1d_bwd_params *p) {
    conv_backward f;
    fake->launches = 0;
    assert_int_equal(mbr_causal_conv1d_bwd(p), MBR_OK);
    const mbr_fake_launch *first = &fake->each[0], *last = &fake->launch;
    assert_int_equal(last->size, sizeof f);
    memcpy(&f, last->params, sizeof f);
    assert_memory_equal(first->kernel, "causal_conv1d_bwd_", 18);
    assert_in_range(first->grid[0], 1, INT32_MAX);
    assert_int_equal(first->grid[1] * first->grid[2], 1);
    assert_int_equal(fake->launches, f.plan.groups == 1 ? 1 : 2);
    assert_int_equal(strstr(last->kernel, "_reduce") != NULL, f.plan.groups > 1);
    assert_ptr_equal(first->stream, last->stream);
    assert_int_equal(first->size, last->size);
    assert_memory_equal(first->params, last->params, last->size);
    return f.plan;
}

static void calls_go_to_their_stream_with_their_parameters(void **state) {
    (void)state;
    for (int32_t device = 0; device < 2; device++) {
        void *stream = (void *)(uintptr_t)(0x5150 + device);
        mbr_causal_conv1d_fwd_params f = forward(&usual);
        f.call = mbr_fake_call(sizeof f, device);
        send_forward(&f);
        assert_ptr_equal(fake->launch.stream, stream);
        assert_memory_equal(fake->launch.params, &f, sizeof f);
        mbr_causal_conv1d_bwd_params b = backward(&usual);
        b.call = mbr_fake_call(sizeof b, device);
        send_backward(&b);
        assert_ptr_equal(fake->launch.stream, stream);
        assert_memory_equal(fake->launch.params, &b, sizeof b);
        mbr_causal_conv1d_update_params u = update(&usual);
        u.call = mbr_fake_call(sizeof u, device);
        fake->launches = 0;
        expect(mbr_causal_conv1d_update(&u), 1);
        assert_ptr_equal(fake->launch.stream, stream);
        assert_int_equal(fake->launch.size, sizeof u);
        assert_memory_equal(fake->launch.params, &u, sizeof u);
    }
}

static void every_dtype_and_layout_has_its_kernel(void **state) {
    (void)state;
    static const struct {
        uint8_t code, bits;
        const char *name;
    } types[] = {
        {MBR_FLOAT, 32, "f32"}, {MBR_FLOAT, 16, "f16"}, {MBR_BFLOAT, 16, "bf16"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char name[64];
        problem s = usual;
        s.code = types[i].code;
        s.bits = types[i].bits;
        mbr_causal_conv1d_fwd_params p = forward(&s);
        p.initial_states.data = p.final_states_out.data = NULL;
        send_forward(&p);
        snprintf(name, sizeof name, "causal_conv1d_fwd_%s_time", types[i].name);
        assert_string_equal(fake->launch.kernel, name);
        problem many = s;
        many.length = 20000; /* few are not worth a block */
        mbr_causal_conv1d_bwd_params back = backward(&many);
        send_backward(&back);
        snprintf(name, sizeof name, "causal_conv1d_bwd_%s_row", types[i].name);
        assert_string_equal(fake->each[0].kernel, name);
        back.dx.stride[0]++; /* not aligned */
        send_backward(&back);
        snprintf(name, sizeof name, "causal_conv1d_bwd_%s_time", types[i].name);
        assert_string_equal(fake->each[0].kernel, name);
        p.initial_states = sequence(&s, s.width - 1); /* states lie across */
        send_forward(&p);
        assert_string_equal(fake->launch.kernel, "causal_conv1d_fwd_strided");
        s.channel_last = 1;
        p = forward(&s);
        send_forward(&p);
        snprintf(name, sizeof name, "causal_conv1d_fwd_%s_channel", types[i].name);
        assert_string_equal(fake->launch.kernel, name);
        p.seq_idx = ids(&s);
        send_forward(&p);
        snprintf(name, sizeof name, "causal_conv1d_fwd_%s_channel_ids", types[i].name);
        assert_string_equal(fake->launch.kernel, name);
        p.final_states_out.data = (char *)p.final_states_out.data + s.bits / 8;
        send_forward(&p); /* not aligned */
        assert_string_equal(fake->launch.kernel, "causal_conv1d_fwd_strided");
        s.dim = 97; /* the last channels are not as many as others */
        p = forward(&s);
        send_forward(&p);
        assert_string_equal(fake->launch.kernel, "causal_conv1d_fwd_strided");
        p.x.stride[2] = 200; /* neither side by side */
        p.x.stride[1] = 2;
        send_forward(&p);
        assert_string_equal(fake->launch.kernel, "causal_conv1d_fwd_strided");
        const mbr_causal_conv1d_update_params u = update(&s);
        fake->launches = 0;
        expect(mbr_causal_conv1d_update(&u), 1);
        assert_string_equal(fake->launch.kernel, "causal_conv1d_update");
    }
}

/* n / d of every unsigned pair that a plan divides. */
static void dividers_divide(void **state) {
    (void)state;
    mbr_causal_conv1d_fwd_params p;
    for (int64_t dim = 1; dim < INT32_MAX / 4; dim = dim * 3 / 2 + 1) {
        problem s = {1, dim, 64, 4, MBR_BFLOAT, 16, 0};
        p = forward(&s);
        p.initial_states.data = p.final_states_out.data = NULL;
        const conv_divider by = send_forward(&p).by_dim;
        for (int64_t n = 0; n < INT32_MAX; n = n * 5 / 4 + 1)
            for (int64_t m = n / dim * dim - 1; m <= n / dim * dim + 1; m++)
                if (m >= 0)
                    assert_int_equal((uint32_t)(((uint64_t)m * by.factor >> 32) + m) >>
                                         by.shift,
                                     m / dim);
    }
}

static const problem sizes[] = {
    {1, 1, 1, 2, MBR_FLOAT, 32, 0},         {1, 1, 1 << 20, 4, MBR_FLOAT, 32, 0},
    {1, 1, 1 << 20, 4, MBR_FLOAT, 32, 1},   {3, 100, 197, 3, MBR_FLOAT, 32, 0},
    {3, 100, 197, 3, MBR_FLOAT, 32, 1},     {70000, 4, 16, 4, MBR_BFLOAT, 16, 0},
    {70000, 4, 16, 4, MBR_BFLOAT, 16, 1},   {1, 200000, 64, 4, MBR_FLOAT, 16, 0},
    {1, 200000, 64, 4, MBR_FLOAT, 16, 1},   {64, 8192, 8192, 4, MBR_BFLOAT, 16, 0},
    {64, 8192, 8192, 4, MBR_BFLOAT, 16, 1}, {2, 5120, 2047, 4, MBR_BFLOAT, 16, 0},
};

/* Blocks in x only, and teams enough for all rows, segments and channels. */
static void any_size_is_covered(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const problem *s = &sizes[i];
        mbr_causal_conv1d_fwd_params p = forward(s);
        if (!s->channel_last)
            p.initial_states.data = p.final_states_out.data = NULL;
        const conv_plan plan = send_forward(&p);
        const mbr_fake_launch *l = &fake->launch;
        const int64_t lanes = INT64_C(1) << plan.lane_bits;
        const int64_t teams = l->grid[0] * (CONV_THREADS / lanes);
        assert_int_equal(l->block[0], CONV_THREADS);
        assert_int_equal(l->grid[1], 1);
        assert_int_equal(l->grid[2], 1);
        assert_in_range(l->grid[0], 1, INT32_MAX);
        assert_in_range(lanes, 4, CONV_LANES);
        if (strstr(l->kernel, "_time")) {
            const int64_t tile = lanes * (s->bits == 32 ? 4 : 8);
            assert_int_equal(plan.units, s->batch * s->dim * plan.segments);
            assert_true(teams >= plan.units);
            /* Less than a warp has its row in one tile, wherever that begins. */
            assert_true(lanes == CONV_LANES || tile >= s->length + tile / lanes - 1);
            assert_true(lanes == CONV_LANES || plan.segments == 1);
            /* All but the last segment lie within the row. */
            assert_true((int64_t)(plan.segments - 1) * plan.segment * tile < s->length);
        } else {
            const int64_t count = strstr(l->kernel, "_strided") ? 1 : 2;
            assert_int_equal(plan.units, s->batch * plan.segments);
            assert_true((int64_t)plan.segments * plan.segment >= s->length);
            assert_true((int64_t)(plan.segments - 1) * plan.segment < s->length);
            assert_true(plan.spans * lanes * count >= s->dim);
            assert_true(teams / plan.spans >= plan.units);
        }
    }
}

static void an_update_has_a_lane_for_each_channel(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const problem *s = &sizes[i];
        const mbr_causal_conv1d_update_params p = update(s);
        fake->launches = 0;
        expect(mbr_causal_conv1d_update(&p), 1);
        const mbr_fake_launch *l = &fake->launch;
        const int64_t lanes = (int64_t)l->grid[0] * CONV_THREADS;
        assert_int_equal(l->block[0], CONV_THREADS);
        assert_int_equal(l->grid[1] * l->grid[2], 1);
        assert_int_equal(l->shared_bytes, 0);
        assert_in_range(lanes, s->batch * s->dim, s->batch * s->dim + CONV_THREADS - 1);
    }
}

/* Every unit of a channel or span has its team, and no block is without one. */
static void a_backward_has_a_team_for_each_unit(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const problem *s = &sizes[i];
        const mbr_causal_conv1d_bwd_params p = backward(s);
        const conv_plan plan = send_backward(&p);
        assert_int_equal(plan.units, s->batch * plan.segments);
        if (plan.rounds == 0) /* _channel, _strided: they loop over their units */
            continue;
        const bool row = strstr(fake->each[0].kernel, "_row") != NULL;
        const int64_t per_block = row ? 1 : plan.warps * (CONV_LANES >> plan.lane_bits);
        const int64_t teams = plan.groups * per_block;
        assert_true(teams * plan.rounds >= plan.units);
        assert_true(teams * (plan.rounds - 1) < plan.units);
        assert_in_range(plan.warps, 1, row ? CONV_ROW_THREADS / 32 : CONV_WARPS);
        if (row) { /* the tiles cover the row, and all are needed */
            const int64_t tile = plan.warps * CONV_LANES * (s->bits == 32 ? 4 : 8);
            const int64_t tiles = (plan.segments - 1) * plan.segment + plan.rest;
            assert_in_range(plan.rest, 1, plan.segment);
            assert_true(tiles * tile >= s->length && (tiles - 1) * tile < s->length);
        }
        if (plan.groups == 1) {
            assert_int_equal(fake->launch.grid[0], s->dim);
            assert_int_equal(fake->launch.block[0], plan.warps * CONV_LANES);
        }
    }
}

/* Its size is asked for before the outputs, and so the layout, are known. */
static void the_workspace_holds_all_partial_sums_in_any_layout(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const problem *s = &sizes[i];
        mbr_causal_conv1d_bwd_params p = backward(s);
        for (int strided = 0; strided < 2; strided++) {
            const conv_plan plan = send_backward(&p);
            assert_in_range(plan.groups, 1, p.workspace.size);
            assert_true((uint64_t)(plan.groups * (s->width + 1) * s->dim) * 4 <=
                        p.workspace.size);
            if (plan.groups > 1)
                assert_int_equal(fake->launch.grid[0],
                                 (s->dim + CONV_REDUCE_LANES - 1) / CONV_REDUCE_LANES *
                                     (s->width + 1));
            p.dx.stride[0] = 3 * s->dim * s->length;
            p.dx.stride[1] = 3 * s->length;
            p.dx.stride[2] = 3;
        }
    }
}

/* Segments would read what others have written. */
static void in_place_a_row_is_one_segment(void **state) {
    (void)state;
    for (int channel_last = 0; channel_last < 2; channel_last++) {
        problem s = usual;
        s.length = 100000;
        s.channel_last = channel_last;
        mbr_causal_conv1d_fwd_params p = forward(&s);
        if (!channel_last)
            p.initial_states.data = p.final_states_out.data = NULL;
        assert_true(send_forward(&p).segments > 1);
        p.out = p.x;
        const conv_plan plan = send_forward(&p);
        assert_int_equal(plan.segments, 1);
        if (channel_last)
            assert_int_equal(plan.segment, s.length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_go_to_their_stream_with_their_parameters),
        cmocka_unit_test(every_dtype_and_layout_has_its_kernel),
        cmocka_unit_test(dividers_divide),
        cmocka_unit_test(any_size_is_covered),
        cmocka_unit_test(an_update_has_a_lane_for_each_channel),
        cmocka_unit_test(a_backward_has_a_team_for_each_unit),
        cmocka_unit_test(the_workspace_holds_all_partial_sums_in_any_layout),
        cmocka_unit_test(in_place_a_row_is_one_segment),
    };
    return cmocka_run_group_tests(tests, use_fakes, NULL);
}
