# SPDX-License-Identifier: Apache-2.0
"""kernels.py - compiles the rows of every instances.def for one architecture, with
NVRTC, into the blobs of one variant. Needs no toolkit, GPU or driver. Names no op.

The build calls it once per CUDA row of manifest.def and gets, in --out:
    kernels.c, kernels.bin   mbr__blobs, the images as data
    kernels.txt              registers, spills, stack and shared memory per kernel
    kernels.json             the same and more, for ci/checks/cubins.py
A kernel is compiled again only if its source, a header it includes, its row, a flag or
the compiler has changed: images are kept in --cache under a hash of all that.

By hand, while writing a kernel (NAME may be a glob such as '*_bf16'):
    python3 libmambarun/variant/kernels.py --row NAME --arch 90 --nvrtc WHEEL --out DIR
prints the table and leaves DIR/NAME.cubin (or .ptx with --kind ptx), to look at with
cuobjdump or nvdisasm. WHEEL is libnvrtc.so.* itself or a folder somewhere above it,
such as site-packages with nvidia-cuda-nvrtc-cu12 in it. --define X=1 adds a macro.

What a source gets: MBR_KERNEL_NAME and its row's macros; -I libmambarun and its own
folder; <stdint.h> and <stddef.h>; C++17; MBR_ARCH (90 for sm_90). It defines one
    extern "C" __global__ void MBR_KERNEL_NAME(const mbr_..._params p)
A row may end with a comment /* spills: WHY */; without one, ci/checks/cubins.py takes
no spills or stack frames.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import sys
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The oldest PTX that has what an architecture's kernels use, and so the oldest driver:
# one refuses PTX newer than itself. ptxas checks every instruction against it.
OLDEST_PTX = {60: "6.0", 70: "6.0", 75: "6.3", 80: "7.0", 90: "7.8"}

# NVRTC brings no headers. Its size_t is built in.
HEADERS = {
    "stddef.h": "#pragma once\n",
    "stdint.h": """#pragma once
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#define INT32_MAX 2147483647
#define INT64_MAX 9223372036854775807LL
#define UINT32_MAX 4294967295u
""",
}

# What the cache keeps of a kernel: all of it, or it counts as nothing.
KEPT = (".seconds", ".log", ".image")

FLAGS = ["--std=c++17", "-default-device", "--ptxas-options=-v"]


class Row(NamedTuple):
    """One line of an instances.def."""

    name: str
    source: str  # relative to libmambarun
    macros: tuple[str, ...]
    spills: str  # why it may spill, or ""


class Job(NamedTuple):
    row: Row
    options: tuple[str, ...]
    kind: str
    arch: int
    entry: pathlib.Path  # where the cache keeps it, without suffix


def rooms() -> list[pathlib.Path]:
    return sorted(ROOT.glob("ops/*/instances.def"))


def rows() -> list[Row]:
    pattern = re.compile(
        r"^MBR_KERNEL\((\w+),\s*([\w.]+),\s*(.*?)\)"
        r"(?:\s*/\*\s*spills:\s*(.*?)\s*\*/)?\s*$",
        re.M,
    )
    found = []
    for room in rooms():
        folder = room.parent.relative_to(ROOT).as_posix()
        text = room.read_text()
        found += [
            Row(name, f"{folder}/{source}", tuple(macros.split()), why)
            for name, source, macros, why in pattern.findall(text)
        ]
        lines = len(re.findall(r"^MBR_KERNEL\(", text, re.M))
        if lines != len(pattern.findall(text)):
            sys.exit(f"{room}: {lines} rows, of which some cannot be read")
    return found


# ---- what a source depends on ------------------------------------------------------


def closure(source: pathlib.Path, seen: dict[pathlib.Path, str]) -> None:
    """Adds source and what it includes in quotes, directly or not, to seen."""
    if source in seen:
        return
    seen[source] = text = source.read_text()
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M):
        for folder in (source.parent, ROOT):
            if (folder / name).is_file():
                closure((folder / name).resolve(), seen)
                break


def fingerprint(
    row: Row, options: tuple[str, ...], kind: str, compiler: str
) -> tuple[str, set[pathlib.Path]]:
    """(hash of all that decides about the image, files it comes from). kind: "cubin",
    or "ptx" with its version."""
    files: dict[pathlib.Path, str] = {}
    closure(ROOT / row.source, files)
    parts = [compiler, kind, row.name, row.source, *options, *HEADERS.values()]
    for path in sorted(files):
        parts += [path.relative_to(ROOT).as_posix(), files[path]]
    joined = "\0".join(parts).encode()
    return hashlib.sha256(joined).hexdigest()[:32], set(files)


# ---- NVRTC --------------------------------------------------------------------------


def find_nvrtc(given: str, major: str = "") -> pathlib.Path | None:
    """libnvrtc.so.* itself, or the one below a folder, of that major if one is said."""
    path = pathlib.Path(given)
    if path.is_file():
        return path.resolve()
    found = [
        library
        for folder in ("", "nvidia/cuda_nvrtc/lib", "nvidia/cu*/lib", "lib*", "*/lib")
        for library in sorted(path.glob(f"{folder}/libnvrtc.so.{major}*".lstrip("/")))
        if re.fullmatch(rf"libnvrtc\.so\.{major or '[0-9]+'}(\.[0-9]+)*", library.name)
    ]
    return found[0].resolve() if found else None


class Nvrtc:
    """The few functions of NVRTC that are needed, through ctypes."""

    def __init__(self, path: pathlib.Path) -> None:
        # Its helper has no path of its own to be found by.
        for builtins in sorted(path.parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"NVRTC {major.value}.{minor.value}"

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            text = self._library.nvrtcGetErrorString(status).decode()
            raise RuntimeError(f"{name}: {text}")

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def compile(
        self, source: str, name: str, options: list[str], kind: str
    ) -> tuple[bytes | None, str]:
        """(the image or None, the log)."""
        program = ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(HEADERS))(
            *(t.encode() for t in HEADERS.values())
        )
        names = (ctypes.c_char_p * len(HEADERS))(*(n.encode() for n in HEADERS))
        flags = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(),
            len(HEADERS), texts, names,
        )  # fmt: skip
        try:
            status = self._library.nvrtcCompileProgram(program, len(options), flags)
            log = self._read(program, "ProgramLog").rstrip(b"\0\n").decode()
            if status != 0:
                return None, log or self._library.nvrtcGetErrorString(status).decode()
            return self._read(program, "CUBIN" if kind == "cubin" else "PTX"), log
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))


_nvrtc: Nvrtc | None = None


def open_nvrtc(path: pathlib.Path) -> None:
    """Once per worker process."""
    global _nvrtc
    _nvrtc = Nvrtc(path)


def lower_version(ptx: bytes, arch: int) -> bytes:
    text, count = re.subn(
        rb"^\.version \d+\.\d+",
        b".version " + OLDEST_PTX[arch].encode(),
        ptx,
        flags=re.M,
    )
    if count != 1:
        raise RuntimeError(f"{count} .version lines in the PTX")
    return text


def compile_one(job: Job) -> str:
    """Compiles into the cache; the error, or ""."""
    row = job.row
    folder = (ROOT / row.source).parent
    options = [*job.options, f"-I{ROOT}", f"-I{folder}"]
    begin = time.process_time()
    assert _nvrtc is not None
    image, log = _nvrtc.compile(
        (ROOT / row.source).read_text(), row.source, options, job.kind
    )
    if image is None:
        return f"{row.name} ({row.source} {' '.join(row.macros)}):\n{log}"
    if job.kind == "ptx":
        image = lower_version(image.rstrip(b"\0"), job.arch) + b"\0"
    seconds = f"{time.process_time() - begin:.2f}".encode()
    for suffix, content in zip(KEPT, (seconds, log.encode(), image)):
        partial = job.entry.with_suffix(f"{suffix}.{os.getpid()}")
        partial.write_bytes(content)
        partial.rename(job.entry.with_suffix(suffix))
    return ""


# ---- what came out ------------------------------------------------------------------


def figures(log: str) -> dict[str, int]:
    """What ptxas says about a kernel; empty for PTX, which it has not seen."""
    patterns = {
        "registers": r"Used (\d+) registers",
        "stack": r"(\d+) bytes stack frame",
        "spill_stores": r"(\d+) bytes spill stores",
        "spill_loads": r"(\d+) bytes spill loads",
        "shared": r"(\d+) bytes smem",
    }
    if "registers" not in log:
        return {}
    found = {key: re.search(pattern, log) for key, pattern in patterns.items()}
    return {key: int(match[1]) if match else 0 for key, match in found.items()}


def warnings(log: str) -> str:
    """The log without what ptxas says in any case."""
    lines = [
        line for line in log.splitlines() if line and not line.startswith("ptxas ")
    ]
    return "\n".join(lines)


def table(report: list[dict]) -> str:
    columns = ["registers", "spill_stores", "spill_loads", "stack", "shared", "bytes"]
    width = max([len(entry["name"]) for entry in report] + [6])
    lines = [f"{'kernel':{width}}" + "".join(f"{c:>14}" for c in columns)]
    for entry in report:
        cells = "".join(f"{entry.get(c, '-'):>14}" for c in columns)
        lines.append(f"{entry['name']:{width}}{cells}")
    total = sum(entry["bytes"] for entry in report)
    lines.append(f"{len(report)} kernels, {total} bytes")
    return "\n".join(lines) + "\n"


def write_if_new(path: pathlib.Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


def write_blobs(
    out: pathlib.Path, built_with: str, report: list[dict], images: list[bytes]
) -> None:
    """kernels.bin, each image on a line of 64 bytes, and the C that names them."""
    data, blobs = bytearray(), []
    for entry, image in zip(report, images):
        data += bytes(-len(data) % 64)
        name = entry["name"]
        values = f'"{name}", images + {len(data)}, {len(image)}'
        blobs.append(f"    [MBR_KERNEL_{name}] = {{{values}}},")
        data += image
    write_if_new(out / "kernels.bin", bytes(data) or b"\0")
    listed = "\n".join([*blobs, "    [MBR_KERNELS] = {0},"])
    write_if_new(
        out / "kernels.c",
        f"""/* Written by kernels.py. */
#include "variant/cuda.h"

__asm__(".pushsection .rodata,\\"a\\"\\n"
        ".balign 64\\n"
        "mbr__images:\\n"
        ".incbin \\"{out.resolve() / "kernels.bin"}\\"\\n"
        ".popsection\\n");
extern const unsigned char images[] __asm__("mbr__images")
    __attribute__((visibility("hidden")));

const char mbr__built_with[] = "{built_with}";

const mbr_blob mbr__blobs[MBR_KERNELS + 1] = {{
{listed}
}};
""".encode(),
    )


def write_depfile(path: pathlib.Path, target: pathlib.Path, files: set) -> None:
    escaped = (str(f).replace(" ", "\\ ") for f in sorted(files))
    path.write_text(f"{target}: {' '.join(escaped)}\n")


# ---- the command --------------------------------------------------------------------


def plan(
    wanted: list[Row], asked: argparse.Namespace, compiler: str
) -> tuple[list[Job], set[pathlib.Path]]:
    """(what to have in the cache, every file it comes from)."""
    jobs, files = [], {*rooms(), pathlib.Path(__file__).resolve()}
    real, kind = "sm", asked.kind
    if kind == "ptx":
        real, kind = "compute", f"ptx {OLDEST_PTX[asked.arch]}"
    for row in wanted:
        if not (ROOT / row.source).is_file():
            sys.exit(f"{row.name}: there is no {row.source}")
        options = (
            *FLAGS,
            f"--gpu-architecture={real}_{asked.arch}",
            f"-DMBR_ARCH={asked.arch}",
            f"-DMBR_KERNEL_NAME={row.name}",
            *(f"-D{macro}" for macro in (*row.macros, *asked.define)),
        )
        key, sources = fingerprint(row, options, kind, compiler)
        jobs.append(Job(row, options, asked.kind, asked.arch, asked.cache / key))
        files |= sources
    return jobs, files


def is_kept(entry: pathlib.Path) -> bool:
    """Someone may have copied or deleted a part of it."""
    return all(entry.with_suffix(suffix).is_file() for suffix in KEPT)


def compile_all(jobs: list[Job], nvrtc: pathlib.Path, workers: int) -> None:
    missing = [job for job in jobs if not is_kept(job.entry)]
    errors = []
    if missing:
        workers = min(workers, len(missing))
        with concurrent.futures.ProcessPoolExecutor(
            workers, initializer=open_nvrtc, initargs=(nvrtc,)
        ) as pool:
            for job, error in zip(missing, pool.map(compile_one, missing)):
                if error:
                    errors.append(error)
                elif said := warnings(job.entry.with_suffix(".log").read_text()):
                    print(f"{job.row.name}: {said}", file=sys.stderr)
    if errors:
        sys.exit("\n\n".join(errors[:3] + [f"{len(errors)} kernels do not compile"]))


def describe(job: Job) -> tuple[dict, bytes]:
    image = job.entry.with_suffix(".image").read_bytes()
    log = job.entry.with_suffix(".log").read_text()
    entry = {
        "name": job.row.name,
        "source": job.row.source,
        "macros": " ".join(job.row.macros),
        "bytes": len(image),
        "seconds": float(job.entry.with_suffix(".seconds").read_text()),
        **figures(log),
    }
    if job.row.spills:
        entry["spills"] = job.row.spills
    return entry, image


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", type=int, help="90 for sm_90")
    parser.add_argument("--kind", choices=["cubin", "ptx"], default="cubin")
    parser.add_argument("--nvrtc", help="the library, or a folder above it")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--cache", type=pathlib.Path, help="OUT/cache")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--row", help="a name or glob: compile by hand")
    parser.add_argument("--define", action="append", default=[], metavar="MACRO=VALUE")
    parser.add_argument("--report", action="store_true", help="print the table")
    parser.add_argument("--find", metavar="MAJOR", help="print where that NVRTC lies")
    return parser.parse_args()


def find_and_print(major: str, given: str | None) -> int:
    for folder in [given] if given else sys.path:
        found = find_nvrtc(folder or ".", major)
        if found:
            print(found)
            return 0
    return 1


def main() -> int:
    asked = read_arguments()
    if asked.find:
        return find_and_print(asked.find, asked.nvrtc)
    if not (asked.arch and asked.nvrtc and asked.out):
        sys.exit("--arch, --nvrtc and --out are needed")
    if asked.kind == "ptx" and asked.arch not in OLDEST_PTX:
        sys.exit(f"OLDEST_PTX does not say which PTX version sm_{asked.arch} needs")
    nvrtc = find_nvrtc(asked.nvrtc)
    if nvrtc is None:
        sys.exit(f"no libnvrtc.so.* in {asked.nvrtc}")
    asked.cache = asked.cache or asked.out / "cache"
    asked.cache.mkdir(parents=True, exist_ok=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    wanted = [r for r in rows() if fnmatch.fnmatch(r.name, asked.row or "*")]
    if asked.row and not wanted:
        sys.exit(f"no row of any instances.def is called {asked.row}")
    version = Nvrtc(nvrtc).version()
    jobs, files = plan(wanted, asked, f"{version}, {nvrtc.stat().st_size} bytes")
    compile_all(jobs, nvrtc, asked.jobs)
    described = [describe(job) for job in jobs]
    report, images = [d[0] for d in described], [d[1] for d in described]
    if asked.row or asked.report:
        print(table(report), end="")
    if asked.row:
        for entry, image in described:
            text = image.rstrip(b"\0") if asked.kind == "ptx" else image
            (asked.out / f"{entry['name']}.{asked.kind}").write_bytes(text)
        return 0
    (asked.out / "kernels.txt").write_text(table(report))
    (asked.out / "kernels.json").write_text(json.dumps(report, indent=1) + "\n")
    write_blobs(asked.out, f"{version}, {asked.kind} {asked.arch}", report, images)
    write_depfile(asked.out / "kernels.d", asked.out / "kernels.c", files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
