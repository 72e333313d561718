/* SPDX-License-Identifier: Apache-2.0
 *
 * find.h - what mbr_locate's parts share: the search and its finds, and what can be
 * said of one file. locate.c knows the places, ldso.c the loader's search, toolkit.c
 * the toolkits.
 */
#ifndef MBR_FIND_H
#define MBR_FIND_H

#include "elf.h"
#include "ldcache.h"
#include "tree.h"

#include "mambarun.h"

/* A row of manifest.def. */
typedef struct mbr_library {
    const char *what, *stem, *soname, *folder, *distribution;
} mbr_library;
#define MBR_TOOLKIT_WORD "toolkit" /* mbr_found.what of one */

/* A find, and the file that it really is, by which copies are told apart. */
typedef struct mbr_find {
    mbr_found found;
    char real[MBR_PATH];
} mbr_find;

typedef struct mbr_search {
    mbr_surroundings where;
    uint16_t machine; /* EM_* that a library must have to be loaded */
    mbr_ldcache cache;
    mbr_find *finds;
    size_t count, room;
    bool no_memory;
} mbr_search;

/* What a folder is searched for; more names than these are left out. */
enum { MBR_MOST_NAMES = 64 };
typedef char mbr_names[MBR_MOST_NAMES][MBR_NAME];

/* What the loader tries without being told: /lib64 and so on, as the distributions
 * build it, and multiarch's folders. */
enum { MBR_SYSTEM_FOLDERS = 8 };
extern const char *const mbr__find_system_folders[MBR_SYSTEM_FOLDERS];

/* ---- texts -------------------------------------------------------------------- */

/* Copies text, cut to size. */
void mbr__find_set(char *out, size_t size, const char *text);

/* folder/name, in MBR_PATH bytes; false if it is longer. */
bool mbr__find_path(char *out, const char *folder, const char *name);

/* The next piece of a list with colons, in MBR_PATH bytes; false at its end. Empty
 * pieces are left out. */
bool mbr__find_piece(const char **list, char *out);

/* The digits and dots at the beginning of a text. */
void mbr__find_digits(const char *from, char *out, size_t size);

/* ---- files -------------------------------------------------------------------- */

/* A file's ELF headers, whose fd the caller closes; false if it is no ELF file. */
bool mbr__find_elf(const mbr_search *s, const char *path, mbr_elf *out);

/* Its EM_*; EM_NONE if it is no ELF file. */
uint16_t mbr__find_machine(const mbr_search *s, const char *path);

/* That of the libraries torch loads; without torch, of the interpreter, or ours. */
uint16_t mbr__find_machine_wanted(const mbr_search *s);

/* Whether a file's name is one of a copy of the mbr_library at user. */
bool mbr__find_is_copy(const char *name, const void *user);

/* Whether where.prefix is a conda environment. */
bool mbr__find_is_conda(const mbr_search *s);

/* ---- the list ----------------------------------------------------------------- */

/* An empty one at its end; NULL if there is no room. */
mbr_find *mbr__find_new(mbr_search *s);

/* The one of that kind and that file, or NULL. */
mbr_find *mbr__find_known(const mbr_search *s, const char *what, const char *real);

/* The find of this file, which is made if it is new; NULL if there is no such file. */
mbr_find *mbr__find_add(mbr_search *s, const mbr_library *library, const char *how,
                        const char *path);

/* Marks a find, if there is one and nothing uses it yet; returns it. */
mbr_find *mbr__find_use(mbr_find *found, const char *by);

/* ---- the other parts ---------------------------------------------------------- */

/* ldso.c: the copy that a program gets which asks for a name itself. */
void mbr__ldso_find_by_name(mbr_search *s, const mbr_library *library);

/* ldso.c: the copy that torch's libraries get, or what these load. The first library
 * that needs it decides, as later ones get what is loaded. */
void mbr__ldso_find_for_torch(mbr_search *s, const mbr_library *library);

/* toolkit.c: all of them. */
void mbr__toolkit_locate(mbr_search *s);

/* toolkit.c: whether a folder in /usr/local may be one, by its name. */
bool mbr__toolkit_is_name(const char *name, const void *user);

#endif
