/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"
int32_t mbr__workers(int32_t threads, int64_t tasks) {
    (void)threads;
    (void)tasks;
    return 1;
}
void mbr__parallel(int32_t workers, int64_t tasks,
                   void (*task)(void *arg, int64_t i, int32_t worker), void *arg) {
    (void)workers;
    for (int64_t i = 0; i < tasks; i++)
        task(arg, i, 0);
}
