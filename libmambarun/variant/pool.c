/* SPDX-License-Identifier: Apache-2.0
 *
 * pool.c - persistent threads for a CPU variant. Tasks are handed out by one counter;
 * a thread that wakes up late finds the job closed and goes back to sleep, so a call
 * never waits for a thread that did not help.
 *
 * The threads are never joined: they block all signals but faults, hold no memory but
 * their stacks and end with the process. LeakSanitizer is content with that; valgrind
 * shows one "possibly lost" block per thread, the loader's table of its thread-local
 * storage.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum {
    MOST_WORKERS = 256,
    STACK_BYTES = 2 << 20, /* kernels keep their scratch on the stack */
    SPINS = 1000           /* some 20 us: less than it costs to sleep and wake */
};

typedef void task_fn(void *arg, int64_t i, int32_t worker);

struct pool {
    pthread_mutex_t caller; /* held by the call that has the pool */
    pthread_mutex_t lock;   /* of all that follows, atomics excepted */
    pthread_cond_t work, done;
    int32_t threads; /* how many exist; their numbers are 1 .. threads */
    int32_t workers; /* of the open job; 0 while none is open */
    task_fn *task;
    void *arg;
    int64_t tasks;
    _Atomic int64_t next;   /* task not yet taken */
    _Atomic int32_t inside; /* threads in the open job */
    _Atomic uint32_t job;   /* number of the latest one: what threads wait for */
};

#define EMPTY_POOL                                                                     \
    {.caller = PTHREAD_MUTEX_INITIALIZER,                                              \
     .lock = PTHREAD_MUTEX_INITIALIZER,                                                \
     .work = PTHREAD_COND_INITIALIZER,                                                 \
     .done = PTHREAD_COND_INITIALIZER}

static struct pool pool = EMPTY_POOL;
static pthread_once_t forking = PTHREAD_ONCE_INIT;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_tasks(int32_t worker) {
    for (;;) {
        const int64_t i =
            atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed);
        if (i >= pool.tasks)
            return;
        pool.task(pool.arg, i, worker);
    }
}

static void wait_for_job_after(uint32_t seen) {
    for (int i = 0; i < SPINS && atomic_load(&pool.job) == seen; i++)
        pause_briefly();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.job) == seen)
        pthread_cond_wait(&pool.work, &pool.lock);
}

static void *thread_main(void *number) {
    const int32_t worker = (int32_t)(intptr_t)number;
    uint32_t seen = 0;
    for (;;) {
        wait_for_job_after(seen); /* returns with the lock */
        seen = atomic_load(&pool.job);
        if (worker < pool.workers) {
            atomic_fetch_add(&pool.inside, 1);
            pthread_mutex_unlock(&pool.lock);
            run_tasks(worker);
            pthread_mutex_lock(&pool.lock);
            if (atomic_fetch_sub(&pool.inside, 1) == 1)
                pthread_cond_signal(&pool.done);
        }
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* A child has none of the threads, and perhaps a lock that one of them held. */
static void forget_in_child(void) {
    pool = (struct pool)EMPTY_POOL;
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forget_in_child);
}

/* As many as wanted, or fewer: the caller can do all the work alone. */
static void start_threads(int32_t wanted) {
    if (pool.threads >= wanted)
        return;
    pthread_once(&forking, watch_forks);
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0)
        return;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigset_t all, before;
    sigfillset(&all); /* but for faults, whose handlers must see the thread at fault */
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t id; pool.threads < wanted; pool.threads++)
        if (pthread_create(&id, &attr, thread_main,
                           (void *)(intptr_t)(pool.threads + 1)) != 0)
            break;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
}

static void open_job(int32_t workers, int64_t tasks, task_fn *task, void *arg) {
    pthread_mutex_lock(&pool.lock);
    pool.workers = workers;
    pool.task = task;
    pool.arg = arg;
    pool.tasks = tasks;
    atomic_store(&pool.next, 0);
    atomic_fetch_add(&pool.job, 1);
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

static void close_job(void) {
    pthread_mutex_lock(&pool.lock);
    pool.workers = 0;
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < SPINS && atomic_load(&pool.inside) != 0; i++)
        pause_briefly();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.inside) != 0)
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void mbr__parallel(int32_t workers, int64_t tasks, task_fn *task, void *arg) {
    if (workers < 2 || pthread_mutex_trylock(&pool.caller) != 0) {
        for (int64_t i = 0; i < tasks; i++)
            task(arg, i, 0);
        return;
    }
    start_threads(workers - 1);
    open_job(workers, tasks, task, arg);
    run_tasks(0);
    close_job();
    pthread_mutex_unlock(&pool.caller);
}

/* CPUs this process may run on: containers and taskset narrow it. */
static int32_t cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online < MOST_WORKERS ? (int32_t)online : MOST_WORKERS;
}

int32_t mbr__workers(int32_t threads, int64_t tasks) {
    int64_t n = threads > 0 ? threads : cpus();
    if (n > MOST_WORKERS)
        n = MOST_WORKERS;
    if (n > tasks)
        n = tasks;
    return n < 1 ? 1 : (int32_t)n;
}
