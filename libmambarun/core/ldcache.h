/* SPDX-License-Identifier: Apache-2.0
 *
 * ldcache.h - what ld.so.cache says: which file a library's name stands for.
 */
#ifndef MBR_LDCACHE_H
#define MBR_LDCACHE_H

#include <stdbool.h>
#include <stddef.h>

/* The cache's bytes; {NULL, 0} where there is none. Release it with free(bytes). */
typedef struct mbr_ldcache {
    char *bytes;
    size_t size;
} mbr_ldcache;

mbr_ldcache mbr__ldcache_read(const char *root);

/* The next entry from number *at on, which is set behind it. name and path point into
 * the cache. false: there is none. */
bool mbr__ldcache_next(const mbr_ldcache *cache, size_t *at, const char **name,
                       const char **path);

#endif
