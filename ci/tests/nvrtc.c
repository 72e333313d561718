/* SPDX-License-Identifier: Apache-2.0
 *
 * nvrtc.c - an NVRTC 12.9 that compiles nothing: a cubin is an ELF file with one empty
 * kernel of the name and for the architecture that the options ask for, and a sum of
 * the source behind it; PTX the like, without. It appends each kernel's name and
 * options to the file FAKE_NVRTC_LOG, and obeys lines in the source:
 *   // arch 80       the cubin is for sm_80, whatever was asked
 *   // kernel NAME   the cubin has this kernel, whatever was asked
 *   // spills N      as ptxas says it
 *   // says TEXT     in the log
 *   // fails TEXT    does not compile, with TEXT in the log
 */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

typedef struct program {
    char *source, log[512], image[1024];
    size_t size;
} program;

API int nvrtcVersion(int *major, int *minor);
API const char *nvrtcGetErrorString(int status);
API int nvrtcCreateProgram(program **out, const char *source, const char *name,
                           int count, const char *const *headers,
                           const char *const *names);
API int nvrtcDestroyProgram(program **p);
API int nvrtcCompileProgram(program *p, int count, const char *const *options);
API int nvrtcGetProgramLogSize(program *p, size_t *size);
API int nvrtcGetProgramLog(program *p, char *out);
API int nvrtcGetCUBINSize(program *p, size_t *size);
API int nvrtcGetCUBIN(program *p, char *out);
API int nvrtcGetPTXSize(program *p, size_t *size);
API int nvrtcGetPTX(program *p, char *out);

int nvrtcVersion(int *major, int *minor) {
    *major = 12, *minor = 9;
    return 0;
}

const char *nvrtcGetErrorString(int status) {
    return status == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_FAKE";
}

int nvrtcCreateProgram(program **out, const char *source, const char *name, int count,
                       const char *const *headers, const char *const *names) {
    (void)name, (void)count, (void)headers, (void)names;
    *out = calloc(1, sizeof **out);
    (*out)->source = strdup(source);
    return 0;
}

int nvrtcDestroyProgram(program **p) {
    free((*p)->source);
    free(*p);
    return 0;
}

/* The rest of the option or line that begins so, or NULL. */
static const char *after(const char *text, const char *begin) {
    return text != NULL ? text + strlen(begin) : NULL;
}

static const char *option(int count, const char *const *options, const char *begin) {
    for (int i = 0; i < count; i++)
        if (strncmp(options[i], begin, strlen(begin)) == 0)
            return after(options[i], begin);
    return NULL;
}

static void copy_line(char *out, size_t size, const char *line) {
    snprintf(out, size, "%.*s", (int)strcspn(line, "\n"), line);
}

static void make_cubin(program *p, int arch, const char *kernel) {
    enum { NAMES = 2 };
    uint32_t sum = 0;
    Elf64_Ehdr *head = (Elf64_Ehdr *)p->image;
    Elf64_Shdr *sections = (Elf64_Shdr *)(head + 1);
    char *names = (char *)(sections + NAMES + 1);
    memcpy(head->e_ident, ELFMAG, SELFMAG);
    head->e_ident[EI_CLASS] = ELFCLASS64;
    head->e_ident[EI_ABIVERSION] = 7;
    head->e_machine = 190;
    head->e_flags = (uint32_t)arch;
    head->e_shoff = sizeof *head;
    head->e_shentsize = sizeof *sections;
    head->e_shnum = NAMES + 1;
    head->e_shstrndx = NAMES;
    sections[1].sh_name = 1;
    sections[NAMES].sh_offset = (Elf64_Off)(names - p->image);
    p->size = (size_t)(names - p->image) + 2;
    p->size += (size_t)sprintf(names + 1, ".text.%s", kernel);
    for (const char *c = p->source; *c != 0; c++)
        sum = sum * 31 + (unsigned char)*c;
    memcpy(p->image + p->size, &sum, sizeof sum);
    p->size += sizeof sum;
}

static void make_ptx(program *p, int arch, const char *kernel) {
    p->size = 1 + (size_t)snprintf(p->image, sizeof p->image,
                                   ".version 8.8\n.target sm_%d\n"
                                   ".visible .entry %s(\n)\n{ ret; }\n",
                                   arch, kernel);
}

int nvrtcCompileProgram(program *p, int count, const char *const *options) {
    char kernel[128], spills[16] = "0";
    const char *real = option(count, options, "--gpu-architecture=sm_");
    const char *virtual = option(count, options, "--gpu-architecture=compute_");
    const char *line = after(strstr(p->source, "// arch "), "// arch ");
    const int arch = atoi(line != NULL ? line : real != NULL ? real : virtual);
    const char *asked = option(count, options, "-DMBR_KERNEL_NAME=");
    FILE *log = fopen(getenv("FAKE_NVRTC_LOG"), "a");
    fprintf(log, "%s", asked);
    for (int i = 0; i < count; i++)
        fprintf(log, " %s", options[i]);
    fprintf(log, "\n");
    fclose(log);
    if ((line = after(strstr(p->source, "// fails "), "// fails ")) != NULL) {
        copy_line(p->log, sizeof p->log, line);
        return 6;
    }
    line = after(strstr(p->source, "// kernel "), "// kernel ");
    copy_line(kernel, sizeof kernel, line != NULL ? line : asked);
    (real != NULL ? make_cubin : make_ptx)(p, arch, kernel);
    if ((line = after(strstr(p->source, "// spills "), "// spills ")) != NULL)
        copy_line(spills, sizeof spills, line);
    if (real != NULL)
        sprintf(p->log,
                "ptxas info    : 0 bytes gmem\n"
                "ptxas info    : 0 bytes stack frame, %s bytes spill stores, %s bytes "
                "spill loads\n"
                "ptxas info    : Used 40 registers, 64 bytes smem\n",
                spills, spills);
    if ((line = after(strstr(p->source, "// says "), "// says ")) != NULL)
        copy_line(p->log + strlen(p->log), 128, line);
    return 0;
}

int nvrtcGetProgramLogSize(program *p, size_t *size) {
    *size = strlen(p->log) + 1;
    return 0;
}

int nvrtcGetProgramLog(program *p, char *out) {
    strcpy(out, p->log);
    return 0;
}

static int get_size(program *p, size_t *size) {
    *size = p->size;
    return 0;
}

static int get_image(program *p, char *out) {
    memcpy(out, p->image, p->size);
    return 0;
}

int nvrtcGetCUBINSize(program *p, size_t *size) {
    return get_size(p, size);
}

int nvrtcGetCUBIN(program *p, char *out) {
    return get_image(p, out);
}

int nvrtcGetPTXSize(program *p, size_t *size) {
    return get_size(p, size);
}

int nvrtcGetPTX(program *p, char *out) {
    return get_image(p, out);
}
