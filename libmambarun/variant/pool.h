/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.h - the threads of a CPU variant. Knows nothing of ops.
 */
#ifndef MBR_POOL_H
#define MBR_POOL_H

#include <stdint.h>

/* How many workers a call with this mbr_call.threads gets for so many tasks: at least
 * 1, at most tasks, at most the CPUs this process may run on if threads is 0. Sizes
 * per-worker scratch. */
int32_t mbr__workers(int32_t threads, int64_t tasks);

/* Runs task(arg, i, worker) once for each i in [0, tasks), spread over workers threads
 * of which the caller is one; worker is in [0, workers). Returns when all are done.
 * Which worker gets which i is not fixed: results must not depend on it.
 * The threads are created at the first call that wants more than one and sleep between
 * calls; a forked child makes its own. If another thread is inside, the caller does all
 * the work itself: nothing ever waits for another call. */
void mbr__parallel(int32_t workers, int64_t tasks,
                   void (*task)(void *arg, int64_t i, int32_t worker), void *arg);

#endif
