/* SPDX-License-Identifier: Apache-2.0
 *
 * ldcache.c - the format that glibc has written since 2.2, alone or behind the one
 * before it: a header of 48 bytes that begins with a magic text and the number of
 * entries, entries of 24 bytes with the offsets of name and path at 4 and 8, and the
 * texts. Source: the file on Debian 10 to 12, against `ldconfig -p`.
 */
#include "ldcache.h"

#include "tree.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OLD_MAGIC "ld.so-1.7.0"
#define MAGIC "glibc-ld.so.cache1.1"
enum { OLD_HEADER = 16, OLD_ENTRY = 12, HEADER = 48, ENTRY = 24, LARGEST = 64 << 20 };

static uint32_t number_at(const char *bytes, size_t at) {
    uint32_t number;
    memcpy(&number, bytes + at, sizeof number);
    return number;
}

/* Drops the older format, if it stands first. */
static void skip_old(mbr_ldcache *cache) {
    if (cache->size < OLD_HEADER || memcmp(cache->bytes, OLD_MAGIC, strlen(OLD_MAGIC)))
        return;
    size_t end = OLD_HEADER + (size_t)number_at(cache->bytes, 12) * OLD_ENTRY;
    end = (end + 7) & ~(size_t)7;
    end = end < cache->size ? end : cache->size;
    cache->size -= end;
    memmove(cache->bytes, cache->bytes + end, cache->size);
}

static mbr_ldcache read_all(int fd) {
    mbr_ldcache cache = {NULL, 0};
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size <= 0 || status.st_size > LARGEST)
        return cache;
    cache.bytes = malloc((size_t)status.st_size);
    if (cache.bytes == NULL)
        return cache;
    ssize_t got = pread(fd, cache.bytes, (size_t)status.st_size, 0);
    cache.size = got > 0 ? (size_t)got : 0;
    return cache;
}

mbr_ldcache mbr__ldcache_read(const char *root) {
    mbr_ldcache cache = {NULL, 0};
    int fd = mbr__tree_open(root, "/etc/ld.so.cache");
    if (fd < 0)
        return cache;
    cache = read_all(fd);
    close(fd);
    skip_old(&cache);
    if (cache.size < HEADER || memcmp(cache.bytes, MAGIC, strlen(MAGIC)) != 0)
        cache.size = 0;
    return cache;
}

static const char *text_at(const mbr_ldcache *cache, uint32_t at) {
    bool ends = at < cache->size && memchr(cache->bytes + at, '\0', cache->size - at);
    return ends ? cache->bytes + at : NULL;
}

bool mbr__ldcache_next(const mbr_ldcache *cache, size_t *at, const char **name,
                       const char **path) {
    size_t room = cache->size < HEADER ? 0 : (cache->size - HEADER) / ENTRY;
    while (room > 0 && *at < room && *at < number_at(cache->bytes, 20)) {
        size_t entry = HEADER + ENTRY * (*at)++;
        *name = text_at(cache, number_at(cache->bytes, entry + 4));
        *path = text_at(cache, number_at(cache->bytes, entry + 8));
        if (*name != NULL && *path != NULL)
            return true;
    }
    return false;
}
