/* SPDX-License-Identifier: Apache-2.0
 *
 * scan.c - a selective scan from C: which variants there are, a forward pass on the
 * CPU, and the same recurrence as a plain loop beside it.
 *
 *     cc scan.c -o scan $(pkg-config --cflags --libs mambarun) -lm && ./scan
 *
 * Exit status: 0 if both agree, 1 if they do not, 2 if the library refused the call.
 */
#include <math.h>
#include <stdio.h>

#include <mambarun.h>

/* One sequence of LENGTH steps in DIM channels, each with a state of DSTATE numbers. */
enum { DIM = 2, LENGTH = 6, DSTATE = 3 };

static float u[DIM][LENGTH], delta[DIM][LENGTH]; /* input, and the size of each step */
static float A[DIM][DSTATE];                     /* how fast the states decay */
static float B[DSTATE][LENGTH],
    C[DSTATE][LENGTH]; /* into the states, and out of them */
static float out[DIM][LENGTH];
static float x[DIM][2 * DSTATE]; /* what a later backward pass would start from */

static void fill(void) {
    for (int d = 0; d < DIM; d++)
        for (int n = 0; n < DSTATE; n++)
            A[d][n] = -(float)(n + 1);
    for (int t = 0; t < LENGTH; t++) {
        for (int d = 0; d < DIM; d++) {
            u[d][t] = t == 0 ? 1.0f : 0.25f * (float)d; /* channel 0: one impulse */
            delta[d][t] = 0.5f;
        }
        for (int n = 0; n < DSTATE; n++) {
            B[n][t] = 1.0f;
            C[n][t] = 1.0f / (float)(n + 1);
        }
    }
}

/* Any strides will do; these are those of a C array, in elements. */
static mbr_tensor describe(void *data, int32_t ndim, int64_t a, int64_t b, int64_t c,
                           int64_t d) {
    const mbr_tensor t = {
        .data = data,
        .shape = {a, b, c, d},
        .stride = {b * c * d, c * d, d, 1},
        .ndim = ndim,
        .dtype_code = MBR_FLOAT,
        .dtype_bits = 32,
    };
    return t;
}

static mbr_status scan(void) {
    /* Zeros first: an absent tensor is a zeroed one. D, z and delta_bias are absent. */
    mbr_selective_scan_fwd_params p = {0};
    p.call.struct_size = sizeof p;
    p.call.device_type = MBR_DEVICE_CPU;
    p.u = describe(u, 3, 1, DIM, LENGTH, 1);
    p.delta = describe(delta, 3, 1, DIM, LENGTH, 1);
    p.A = describe(A, 2, DIM, DSTATE, 1, 1);
    p.B = describe(B, 4, 1, 1, DSTATE, LENGTH); /* 4 axes: it varies with time */
    p.C = describe(C, 4, 1, 1, DSTATE, LENGTH);
    p.out = describe(out, 3, 1, DIM, LENGTH, 1);
    p.x = describe(x, 4, 1, DIM, 1, 2 * DSTATE);
    return mbr_selective_scan_fwd(&p);
}

/* The definition: states decay by exp(delta A), take in delta B u, and C reads them. */
static double expected(int d, int t) {
    double y = 0;
    for (int n = 0; n < DSTATE; n++) {
        double h = 0;
        for (int s = 0; s <= t; s++)
            h = exp(delta[d][s] * A[d][n]) * h + delta[d][s] * B[n][s] * u[d][s];
        y += C[n][t] * h;
    }
    return y;
}

static void list_variants(void) {
    for (size_t i = 0; i < mbr_variant_count(); i++) {
        mbr_variant_info info = {0};
        info.struct_size = sizeof info;
        if (mbr_variant_at(i, MBR_DEVICE_CPU, 0, &info) == MBR_OK)
            printf("  %-14s %-3s %s\n", info.name, info.usable ? "yes" : "no",
                   info.reason);
    }
}

/* How many results are off. */
static int print_and_compare(void) {
    int wrong = 0;
    for (int d = 0; d < DIM; d++) {
        printf("  channel %d:", d);
        for (int t = 0; t < LENGTH; t++) {
            printf(" %.6f", out[d][t]);
            wrong += !(fabs(out[d][t] - expected(d, t)) < 1e-6); /* NaN is wrong too */
        }
        printf("\n");
    }
    return wrong;
}

int main(void) {
    printf("mambarun %s: which variant can run on this CPU, and why\n",
           MBR_VERSION_STRING);
    list_variants();

    fill();
    if (scan() != MBR_OK) {
        fprintf(stderr, "selective scan: %s\n", mbr_last_error());
        return 2;
    }
    printf("selective scan by %s\n", mbr_variant_in_use(MBR_DEVICE_CPU, 0));
    const int wrong = print_and_compare();
    printf("%d of %d differ from the plain loop\n", wrong, DIM * LENGTH);
    return wrong ? 1 : 0;
}
