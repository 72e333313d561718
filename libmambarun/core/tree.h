/* SPDX-License-Identifier: Apache-2.0
 *
 * tree.h - a machine's files, seen below the folder that stands for its "/": this
 * machine's own, an image that does not run, a test's. Paths are those that a program
 * there would use, links are followed there too. Reads only.
 */
#ifndef MBR_TREE_H
#define MBR_TREE_H

#include <stdbool.h>
#include <stddef.h>

enum { MBR_PATH = 4096 }; /* with its end, as Linux has it */

/* The path without links, dots or doubled slashes, in real (MBR_PATH). false if nothing
 * is there: a link that leads nowhere or in circles, a folder that is not ours to see,
 * a path that is too long. */
bool mbr__tree_follow(const char *root, const char *path, char *real);

/* A file's descriptor, for reading; -1 if that is no regular file we may read. */
int mbr__tree_open(const char *root, const char *path);

/* Whether that is a folder. */
bool mbr__tree_is_folder(const char *root, const char *path);

/* The names in a folder, in strcmp's order, for which wanted is true: at most most of
 * them, each with its end in MBR_NAME bytes. How many. */
enum { MBR_NAME = 256 };
size_t mbr__tree_list(const char *root, const char *folder,
                      bool (*wanted)(const char *name, const void *user),
                      const void *user, char (*names)[MBR_NAME], size_t most);

/* A file's first size - 1 bytes as a string; false if it cannot be read. */
bool mbr__tree_text(const char *root, const char *path, char *out, size_t size);

#endif
