/* SPDX-License-Identifier: Apache-2.0
 *
 * child.h - runs part of a test in a process of its own, because a process chooses a
 * variant and opens a driver only once. Included by *_test.c after cmocka.h.
 */
#ifndef MBR_FAKE_CHILD_H
#define MBR_FAKE_CHILD_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* body writes what it finds to its argument, size bytes that start as *found, and never
 * asserts; the parent gets them back in *found. Fails the test if the child dies. */
static inline void mbr_in_child(void (*body)(void *found), void *found, size_t size) {
    void *shared =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    memcpy(shared, found, size);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* cmocka would catch a crash and go on with the parent's tests. */
        static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
        for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
            signal(fatal[i], SIG_DFL);
        body(shared);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    memcpy(found, shared, size);
    munmap(shared, size);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with wait status %#x", (unsigned)status);
}

/* "NAME=value NAME=value" into the environment; NULL is none. */
static inline void mbr_set_variables(const char *settings) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", settings != NULL ? settings : "");
    for (char *one = strtok(copy, " "); one != NULL; one = strtok(NULL, " ")) {
        char *value = strchr(one, '=');
        *value = '\0';
        setenv(one, value + 1, 1);
    }
}

#endif
