/* SPDX-License-Identifier: Apache-2.0
 *
 * scan.c - a selective scan from C: which variants there are, a forward pass on the CPU
 * and, where there is one, on the first GPU, and the same recurrence as a plain loop
 * beside them. Needs no CUDA toolkit: memory on the GPU is asked of the driver.
 *
 *     cc scan.c -o scan $(pkg-config --cflags --libs mambarun) -lm -ldl && ./scan
 *
 * Exit status: 0 if all agree, 1 if they do not, 2 if the library or the driver refused
 * a call. A machine without a usable GPU is no error; the program says why it has none.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mambarun.h>

/* One sequence of LENGTH steps in DIM channels, each with a state of DSTATE numbers. */
enum { DIM = 2, LENGTH = 6, DSTATE = 3 };

/* All that a call reads and writes, in one piece that is easily copied to a GPU. */
typedef struct arrays {
    float u[DIM][LENGTH], delta[DIM][LENGTH]; /* input, and the size of each step */
    float A[DIM][DSTATE];                     /* how fast the states decay */
    float B[DSTATE][LENGTH];                  /* into the states */
    float C[DSTATE][LENGTH];                  /* and out of them */
    float out[DIM][LENGTH];
    float x[DIM][2 * DSTATE]; /* what a later backward pass would start from */
} arrays;

static void fill(arrays *a) {
    memset(a, 0, sizeof *a);
    for (int d = 0; d < DIM; d++)
        for (int n = 0; n < DSTATE; n++)
            a->A[d][n] = -(float)(n + 1);
    for (int t = 0; t < LENGTH; t++) {
        for (int d = 0; d < DIM; d++) {
            a->u[d][t] = t == 0 ? 1.0f : 0.25f * (float)d; /* channel 0: one impulse */
            a->delta[d][t] = 0.5f;
            a->out[d][t] = NAN; /* whatever stays so was not written */
        }
        for (int n = 0; n < DSTATE; n++) {
            a->B[n][t] = 1.0f;
            a->C[n][t] = 1.0f / (float)(n + 1);
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

/* The arrays lie on that kind of device; nothing here reads them. */
static mbr_status scan(int32_t device_type, arrays *a) {
    /* Zeros first: an absent tensor is a zeroed one. D, z and delta_bias are absent. */
    mbr_selective_scan_fwd_params p = {0};
    p.call.struct_size = sizeof p;
    p.call.device_type = device_type; /* device 0, the legacy stream */
    p.u = describe(a->u, 3, 1, DIM, LENGTH, 1);
    p.delta = describe(a->delta, 3, 1, DIM, LENGTH, 1);
    p.A = describe(a->A, 2, DIM, DSTATE, 1, 1);
    p.B = describe(a->B, 4, 1, 1, DSTATE, LENGTH); /* 4 axes: it varies with time */
    p.C = describe(a->C, 4, 1, 1, DSTATE, LENGTH);
    p.out = describe(a->out, 3, 1, DIM, LENGTH, 1);
    p.x = describe(a->x, 4, 1, DIM, 1, 2 * DSTATE);
    return mbr_selective_scan_fwd(&p);
}

/* The definition: states decay by exp(delta A), take in delta B u, and C reads them. */
static double expected(const arrays *a, int d, int t) {
    double y = 0;
    for (int n = 0; n < DSTATE; n++) {
        double h = 0;
        for (int s = 0; s <= t; s++)
            h = exp(a->delta[d][s] * a->A[d][n]) * h +
                a->delta[d][s] * a->B[n][s] * a->u[d][s];
        y += a->C[n][t] * h;
    }
    return y;
}

static void list_variants(int32_t device_type) {
    for (size_t i = 0; i < mbr_variant_count(); i++) {
        mbr_variant_info info = {0};
        info.struct_size = sizeof info;
        if (mbr_variant_at(i, device_type, 0, &info) == MBR_OK &&
            (strcmp(info.mode, "cpu") == 0) == (device_type == MBR_DEVICE_CPU))
            printf("  %-14s %-3s %s\n", info.name, info.usable ? "yes" : "no",
                   info.reason);
    }
}

/* How many results are off. */
static int print_and_compare(int32_t device_type, const arrays *a) {
    int wrong = 0;
    printf("selective scan by %s\n", mbr_variant_in_use(device_type, 0));
    for (int d = 0; d < DIM; d++) {
        printf("  channel %d:", d);
        for (int t = 0; t < LENGTH; t++) {
            printf(" %.6f", a->out[d][t]);
            wrong += !(fabs(a->out[d][t] - expected(a, d, t)) < 1e-6); /* also NaN */
        }
        printf("\n");
    }
    printf("%d of %d differ from the plain loop\n", wrong, DIM * LENGTH);
    return wrong;
}

static void refused(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(2);
}

/* ---- memory on a GPU, by the driver alone -------------------------------------- */

typedef int (*device_fn)(int *, int);
typedef int (*retain_fn)(void **, int);
typedef int (*enter_fn)(void *);
typedef int (*allocate_fn)(uint64_t *, size_t);
typedef int (*send_fn)(uint64_t, const void *, size_t);
typedef int (*fetch_fn)(void *, uint64_t, size_t);
typedef int (*free_fn)(uint64_t);

/* A function of the driver, which the library has opened before. */
static void driver_function(const char *name, void *function) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    void *found = driver != NULL ? dlsym(driver, name) : NULL;
    if (found == NULL)
        refused(name, dlerror());
    memcpy(function, &found, sizeof found);
}

static void check(const char *what, int status) {
    char text[32];
    snprintf(text, sizeof text, "driver error %d", status);
    if (status != 0)
        refused(what, text);
}

/* The same scan on arrays that lie on GPU 0, in its primary context, as with torch. */
static void scan_on_gpu(arrays *a) {
    device_fn get_device;
    retain_fn retain;
    enter_fn enter;
    allocate_fn allocate;
    send_fn send;
    fetch_fn fetch;
    free_fn release;
    driver_function("cuDeviceGet", &get_device);
    driver_function("cuDevicePrimaryCtxRetain", &retain);
    driver_function("cuCtxSetCurrent", &enter);
    driver_function("cuMemAlloc_v2", &allocate);
    driver_function("cuMemcpyHtoD_v2", &send);
    driver_function("cuMemcpyDtoH_v2", &fetch);
    driver_function("cuMemFree_v2", &release);

    int device;
    void *context;
    uint64_t there;
    check("cuDeviceGet", get_device(&device, 0));
    check("cuDevicePrimaryCtxRetain", retain(&context, device));
    check("cuCtxSetCurrent", enter(context));
    check("cuMemAlloc", allocate(&there, sizeof *a));
    check("cuMemcpyHtoD", send(there, a, sizeof *a));
    if (scan(MBR_DEVICE_CUDA, (arrays *)(uintptr_t)there) != MBR_OK)
        refused("selective scan", mbr_last_error());
    check("cuMemcpyDtoH", fetch(a, there, sizeof *a)); /* waits for the scan */
    check("cuMemFree", release(there));
}

/* Whether there is one to try; says what it is, or why not. */
static int has_gpu(void) {
    mbr_gpu_facts gpu = {0};
    gpu.struct_size = sizeof gpu;
    if (mbr_probe_gpu(0, &gpu) != MBR_OK) {
        printf("no GPU call: %s\n", mbr_last_error());
        return 0;
    }
    printf("%s, capability %d.%d: which variant can run on it, and why\n", gpu.name,
           gpu.compute_capability / 10, gpu.compute_capability % 10);
    return 1;
}

int main(void) {
    arrays a;
    printf("mambarun %s: which variant can run on this CPU, and why\n",
           MBR_VERSION_STRING);
    list_variants(MBR_DEVICE_CPU);
    fill(&a);
    if (scan(MBR_DEVICE_CPU, &a) != MBR_OK)
        refused("selective scan", mbr_last_error());
    int wrong = print_and_compare(MBR_DEVICE_CPU, &a);

    if (has_gpu()) {
        list_variants(MBR_DEVICE_CUDA);
        fill(&a);
        scan_on_gpu(&a);
        wrong += print_and_compare(MBR_DEVICE_CUDA, &a);
    }
    return wrong ? 1 : 0;
}
