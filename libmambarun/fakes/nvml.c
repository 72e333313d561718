/* SPDX-License-Identifier: Apache-2.0
 *
 * nvml.c - a libnvidia-ml.so.1 that says what the environment tells it to:
 *   FAKE_RELEASE      the driver's release (535.104.12)
 *   FAKE_BOARDS       how many boards there are (1)
 *   FAKE_MIG          1: the first one is divided
 *   FAKE_nvmlInit_v2  the status that this function returns (0)
 * Of NVIDIA's management library it has what the check asks. Nothing here links it:
 * tests compile it.
 */
#include <stdio.h>
#include <stdlib.h>

static int number(const char *variable, int otherwise) {
    const char *value = getenv(variable);
    return value != NULL ? atoi(value) : otherwise;
}

int nvmlInit_v2(void);
int nvmlInit_v2(void) {
    return number("FAKE_nvmlInit_v2", 0);
}

int nvmlSystemGetDriverVersion(char *out, unsigned size);
int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    const char *release = getenv("FAKE_RELEASE");
    snprintf(out, size, "%s", release != NULL ? release : "535.104.12");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)number("FAKE_BOARDS", 1);
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **board);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **board) {
    static char boards[64];
    *board = &boards[index % sizeof boards];
    return 0;
}

int nvmlDeviceGetName(void *board, char *out, unsigned size);
int nvmlDeviceGetName(void *board, char *out, unsigned size) {
    (void)board;
    snprintf(out, size, "Fake GPU");
    return 0;
}

int nvmlDeviceGetMigMode(void *board, unsigned *now, unsigned *later);
int nvmlDeviceGetMigMode(void *board, unsigned *now, unsigned *later) {
    (void)board;
    *now = *later = (unsigned)number("FAKE_MIG", 0);
    return 0;
}
