/* SPDX-License-Identifier: Apache-2.0
 *
 * tree.c - tree.h. Links are followed by hand, because the system's realpath follows an
 * absolute one out of the root.
 */
#define _GNU_SOURCE /* O_CLOEXEC, lstat */
#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINKS = 40 }; /* as the kernel's */

static bool join(char *out, const char *first, const char *second) {
    int length = snprintf(out, MBR_PATH, "%s%s", first, second);
    return length >= 0 && length < MBR_PATH;
}

static bool outside(const char *root, const char *real, char *out) {
    return join(out, root != NULL && strcmp(root, "/") != 0 ? root : "", real);
}

/* Takes the first part off left; false when nothing is left. */
static bool take_part(char *left, char part[MBR_NAME]) {
    size_t begin = strspn(left, "/"), length = strcspn(left + begin, "/");
    if (length == 0 || length >= MBR_NAME)
        return false;
    memcpy(part, left + begin, length);
    part[length] = '\0';
    memmove(left, left + begin + length, strlen(left + begin + length) + 1);
    return true;
}

static void drop_part(char *path) {
    char *slash = strrchr(path, '/');
    if (slash != NULL)
        *slash = '\0';
}

/* If real is a link, puts its target before left and takes its name off real. */
static bool follow_link(const char *there, char *real, char *left) {
    char target[MBR_PATH], rest[MBR_PATH];
    ssize_t length = readlink(there, target, sizeof target - 1);
    if (length <= 0)
        return false;
    target[length] = '\0';
    strcpy(rest, left);
    drop_part(real);
    if (target[0] == '/')
        real[0] = '\0';
    return join(left, target, rest);
}

bool mbr__tree_follow(const char *root, const char *path, char *real) {
    char left[MBR_PATH], part[MBR_NAME], there[MBR_PATH];
    struct stat status;
    real[0] = '\0';
    if (path[0] != '/' || !join(left, path, ""))
        return false;
    for (int links = 0; take_part(left, part);) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            drop_part(real);
            continue;
        }
        size_t end = strlen(real);
        if (end + 1 + strlen(part) >= MBR_PATH)
            return false;
        real[end] = '/';
        strcpy(real + end + 1, part);
        if (!outside(root, real, there) || lstat(there, &status) != 0)
            return false;
        if (S_ISLNK(status.st_mode) &&
            (++links > MOST_LINKS || !follow_link(there, real, left)))
            return false;
    }
    if (real[0] == '\0')
        strcpy(real, "/");
    return left[strspn(left, "/")] == '\0'; /* else a part was too long */
}

static bool find(const char *root, const char *path, char *there, struct stat *status) {
    char real[MBR_PATH];
    return mbr__tree_follow(root, path, real) && outside(root, real, there) &&
           stat(there, status) == 0;
}

int mbr__tree_open(const char *root, const char *path) {
    char there[MBR_PATH];
    struct stat status;
    if (!find(root, path, there, &status) || !S_ISREG(status.st_mode))
        return -1;
    return open(there, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

bool mbr__tree_is_folder(const char *root, const char *path) {
    char there[MBR_PATH];
    struct stat status;
    return find(root, path, there, &status) && S_ISDIR(status.st_mode);
}

/* Puts name where it belongs; the last one falls out when there is no room. */
static size_t insert(const char *name, char (*names)[MBR_NAME], size_t n, size_t most) {
    size_t i = n;
    while (i > 0 && strcmp(name, names[i - 1]) < 0)
        i--;
    if (i == most)
        return n;
    n = n < most ? n + 1 : n;
    memmove(names[i + 1], names[i], (n - i - 1) * sizeof *names);
    snprintf(names[i], sizeof *names, "%s", name);
    return n;
}

size_t mbr__tree_list(const char *root, const char *folder,
                      bool (*wanted)(const char *name, const void *user),
                      const void *user, char (*names)[MBR_NAME], size_t most) {
    char there[MBR_PATH];
    struct stat status;
    DIR *open_folder = find(root, folder, there, &status) && S_ISDIR(status.st_mode)
                           ? opendir(there)
                           : NULL;
    if (open_folder == NULL)
        return 0;
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(open_folder)) != NULL;)
        if (wanted(entry->d_name, user))
            n = insert(entry->d_name, names, n, most);
    closedir(open_folder);
    return n;
}

bool mbr__tree_text(const char *root, const char *path, char *out, size_t size) {
    int fd = mbr__tree_open(root, path);
    if (fd < 0)
        return false;
    ssize_t got = pread(fd, out, size - 1, 0);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got >= 0;
}
