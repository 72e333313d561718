/* SPDX-License-Identifier: Apache-2.0
 *
 * mambarun.h - public interface of libmambarun: selective scan and causal conv1d on
 * whatever this machine has. This file holds what all ops share and the questions one
 * can ask; each op's contract stands in its own header, included at the end.
 *
 * Rules for every function here:
 *   - No init and no destroy. The only state is one function table per device, found
 *     at the first call for that device, then only read. Any thread may call.
 *   - Nothing prints (unless MAMBARUN_TRACE=1), aborts, or keeps memory of the caller.
 *   - A status other than MBR_OK leaves a sentence in mbr_last_error().
 *   - Structs start with their own size and only grow at the end; a field's zero means
 *     the behaviour before the field existed. Fill structs with zeros first. A struct
 *     larger than the library knows is refused unless its unknown tail is all zero.
 */
#ifndef MAMBARUN_H
#define MAMBARUN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MBR_API __attribute__((visibility("default")))
#else
#define MBR_API
#endif

/* ---- version and status ------------------------------------------------------- */

#define MBR_VERSION_STRING "0.1.0" /* the one place a version is written */

/* 10000 * major + 100 * minor + patch of the library that is loaded. */
MBR_API uint32_t mbr_version(void);

/* Each tells the caller what to do next. */
typedef enum mbr_status {
    MBR_OK = 0,
    MBR_E_ARG,         /* the caller's mistake; the message names the field */
    MBR_E_UNSUPPORTED, /* right arguments, but no kernel for this combination */
    MBR_E_NO_VARIANT,  /* nothing here can run this op; the message says why, by row */
    MBR_E_CUDA,        /* the driver or the launch failed; the message has its text */
    MBR_E_INTERNAL     /* a fault of this library */
} mbr_status;

/* "MBR_E_ARG" and so on; "unknown status" for anything else. Static storage. */
MBR_API const char *mbr_status_name(mbr_status s);

/* Why this thread's latest failing call failed. Never NULL; empty before the first
 * failure. Valid until this thread's next failing call. */
MBR_API const char *mbr_last_error(void);

/* ---- what every op takes ------------------------------------------------------ */

/* DLPack's numbers. */
enum {
    MBR_DEVICE_CPU = 1,
    MBR_DEVICE_CUDA = 2,
    MBR_INT = 0,
    MBR_FLOAT = 2,
    MBR_BFLOAT = 4,
    MBR_COMPLEX = 5
};

/* A strided view of memory that the caller owns; read or written during the call only.
 * data is aligned to its elements, and no two elements of an output share memory.
 * data NULL means "absent" (and only then: an empty tensor has some non-NULL data or
 * a zero in its shape). Strides are in elements, may be 0 for inputs and negative. */
typedef struct mbr_tensor {
    void *data;
    int64_t shape[4];
    int64_t stride[4];
    int32_t ndim;       /* 0 .. 4 */
    uint8_t dtype_code; /* MBR_INT, MBR_FLOAT, MBR_BFLOAT or MBR_COMPLEX */
    uint8_t dtype_bits; /* 16, 32 or 64; complex64 is MBR_COMPLEX, 64 */
    uint16_t reserved;  /* 0 */
} mbr_tensor;

enum { MBR_DETERMINISTIC = 1u }; /* mbr_call.flags: equal bits for equal arguments */

/* First member of every params struct: how to run, not what. */
typedef struct mbr_call {
    uint32_t struct_size; /* sizeof of the whole params struct this stands in */
    int32_t device_type;  /* MBR_DEVICE_*: where all the tensors are */
    int32_t device_id;
    uint32_t flags;   /* MBR_DETERMINISTIC or 0 */
    void *stream;     /* CUDA: a CUstream of device_id, NULL is the legacy default */
    int32_t threads;  /* CPU: at most so many; 0: every CPU this process may use */
    int32_t reserved; /* 0 */
} mbr_call;

/* Scratch the caller lends for one call. The op's _workspace function says how large;
 * size in bytes, data aligned to 64 bytes, contents irrelevant before and after. */
typedef struct mbr_workspace {
    void *data;
    uint64_t size;
} mbr_workspace;

/* ---- questions ---------------------------------------------------------------- */

/* One variant and what it would do on one device. Strings live as long as the
 * process. */
typedef struct mbr_variant_info {
    uint32_t struct_size; /* in: sizeof this struct */
    int32_t usable;       /* 1: could run there */
    const char *name;     /* cpu_avx2, cuda12_sm80, ... */
    const char *path;     /* the file it is, or would be */
    const char *mode;     /* "cpu", "cubin" or "ptx" */
    char reason[256];     /* why, or why not; one sentence */
    const char *build;    /* compiler or toolkit and flags; NULL unless it is in use */
} mbr_variant_info;

/* How many variants the manifest has: built or not, usable or not. */
MBR_API size_t mbr_variant_count(void);

/* Variant i, in order of preference, judged for that device. For a CUDA device this
 * initialises the driver. MBR_E_ARG: i or the struct's size is off. */
MBR_API mbr_status mbr_variant_at(size_t i, int32_t device_type, int32_t device_id,
                                  mbr_variant_info *out);

/* Name of the variant that runs this device's calls; NULL until the first of them. */
MBR_API const char *mbr_variant_in_use(int32_t device_type, int32_t device_id);

/* Chooses and opens the variant of a device now and loads all of its kernels, so that
 * no later call loads anything (needed before capturing a CUDA graph). device_id < 0
 * means the CPU. MBR_E_NO_VARIANT, MBR_E_CUDA. */
MBR_API mbr_status mbr_preload(int32_t device_id);

/* mbr_host_facts.cpu: the processor has it AND the system saves its registers. */
enum {
    MBR_CPU_AVX2 = 1u,   /* AVX2, FMA and F16C, YMM saved */
    MBR_CPU_AVX512 = 2u, /* also AVX-512 F, DQ, BW, VL, ZMM saved */
};

/* What can be said about this machine without initialising CUDA. */
typedef struct mbr_host_facts {
    uint32_t struct_size; /* in: sizeof this struct */
    uint32_t cpu;         /* MBR_CPU_* */
    int32_t cpu_count;    /* CPUs this process may run on */
    int32_t driver_api;   /* cuDriverGetVersion: 12020 is 12.2; 0: no usable driver */
    char cpu_name[64];    /* brand string, "" if the processor has none */
    char driver[256];     /* path of libcuda.so.1, or why there is none */
    const char *library;  /* path of this library */
    const char *stamp;    /* what a variant must match to be opened by it */
} mbr_host_facts;
MBR_API mbr_status mbr_probe_host(mbr_host_facts *out);

/* What the driver says about one GPU. Initialises CUDA in this process (cuInit): call
 * it in a child process if this one is going to fork. MBR_E_CUDA with the reason. */
typedef struct mbr_gpu_facts {
    uint32_t struct_size;       /* in: sizeof this struct */
    int32_t device_count;       /* visible devices */
    int32_t compute_capability; /* 80 is 8.0 */
    int32_t multiprocessors;
    uint64_t total_memory; /* bytes */
    char name[128];
} mbr_gpu_facts;
MBR_API mbr_status mbr_probe_gpu(int32_t device_id, mbr_gpu_facts *out);

/* ---- what else lies here ------------------------------------------------------ */

/* Where mbr_locate is to look; whatever is NULL there is none of. The paths are those
 * that a program on that machine uses, with its links; lists are separated by colons.
 */
typedef struct mbr_surroundings {
    uint32_t struct_size;     /* in: sizeof this struct */
    uint32_t reserved;        /* 0 */
    const char *root;         /* the folder that stands for "/"; NULL: this machine */
    const char *torch;        /* torch's own folder, as torch.__path__[0] */
    const char *executable;   /* the Python interpreter */
    const char *prefix;       /* sys.prefix */
    const char *sys_path;     /* sys.path */
    const char *library_path; /* LD_LIBRARY_PATH */
    const char *program_path; /* PATH */
    const char *cuda_home;    /* CUDA_HOME, or else CUDA_PATH */
} mbr_surroundings;

/* One copy of a library, or one toolkit. Strings without a size live as long as the
 * process. */
typedef struct mbr_found {
    uint32_t struct_size; /* in, in the first: sizeof this struct */
    int32_t fits;         /* 1: a whole ELF file for that machine; a toolkit always */
    int32_t used;         /* 1: what torch would load */
    int32_t reserved;
    const char *what; /* "cudart", ... */
    const char *how;  /* where it lies, below */
    const char *by; /* used: the step of the search that leads there, below; else "" */
    char name[256]; /* "libcudart.so.12"; a toolkit's folder's name */
    char version[32]; /* "12.1.105"; as much as is known */
    char path[4096];  /* "": something has to load name, and the search finds none */
} mbr_found;

/* Lists every copy of a library that CUDA programs load, or every toolkit, and says
 * which of them torch would load. Opens no library: it lists folders and reads the
 * headers of files and ld.so.cache, about 5 ms in all.
 *
 * what: "cudart", "cudnn", "nvrtc", "cusparse", "nvjitlink", "libcuda", "nvml",
 * "ptxjitcompiler", "toolkit", or NULL for all of them in this order.
 * out: room for capacity structs, NULL if that is 0. *count: how many there are, be it
 * more than capacity; beyond 1024 no more are looked for.
 *
 * how: "torch" (in torch's folder), "wheel" (below an entry of sys.path), "conda" or
 * "prefix" (below prefix), "LD_LIBRARY_PATH", "ld.so.cache", "system" (a folder that
 * the loader knows), "driver" (where WSL, Jetson and containers have NVIDIA's driver),
 * "toolkit" (in one), "rpath" (only a library's own list names it). A toolkit:
 * "CUDA_HOME", "PATH" (its nvcc), "/usr/local/cuda", "installed".
 *
 * used: for what torch's own libraries need, and what those load, glibc's rules: the
 * first of these that has the name, for this processor. by: "DT_RPATH" of the library
 * that needs it, or else of the interpreter (neither if the library has a DT_RUNPATH);
 * "LD_LIBRARY_PATH"; "DT_RUNPATH"; "ld.so.cache"; "system"; and if all that fails
 * "preload", torch's own search through sys.path. A driver's library is asked for by
 * name. A toolkit is used where torch's cpp_extension would compile with it.
 *
 * MBR_E_ARG: another what, or a size or reserved that is off. MBR_E_INTERNAL: no memory
 * for the list. */
MBR_API mbr_status mbr_locate(const mbr_surroundings *where, const char *what,
                              mbr_found *out, size_t capacity, size_t *count);

#ifdef __cplusplus
}
#endif

/* ---- the ops ------------------------------------------------------------------ */

#include "ops/selective_scan/selective_scan.h"
#include "ops/causal_conv1d/causal_conv1d.h"

#endif
