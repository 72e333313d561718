# SPDX-License-Identifier: Apache-2.0
"""cubins.py BUILD [ROW...] - finished CUDA libraries hold what their names say.

Opens every CUDA row of manifest.def in BUILD/lib through its entry function, as
libmambarun does, and reads each image itself: one kernel, of the name that
instances.def has, for the architecture that the row has. Registers and spills, and how
long it took to compile them, come from BUILD/kernels, where kernels.py left them.
ROW...: these must be there; else whatever is there is looked at, which must be
something. --except-size: a row that is too large is named but fails nothing. Needs
neither GPU nor toolkit.
"""

from __future__ import annotations

import ctypes
import json
import pathlib
import re
import struct
import sys
import zlib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "shim"), str(ROOT / "libmambarun/variant")]

from kernels import rooms, rows  # noqa: E402
from mambarun._info import HostFacts  # noqa: E402

MOST_BYTES = 3_000_000  # of device code in a row; PTX, a text, counts as it is packed
MOST_KERNELS = 100  # of one op
TOO_LARGE = "bytes of device code, at most"
NO_SPILLS = (80, 90)  # architectures whose kernels must not spill


class Variant(NamedTuple):
    """A CUDA row of manifest.def."""

    name: str
    kind: str
    arch: int


def manifest() -> list[Variant]:
    text = (ROOT / "libmambarun/manifest.def").read_text()
    found = re.findall(
        r"^MBR_CUDA_(?:TEST_)?VARIANT\((\w+),\s*\d+,\s*(\w+),\s*(\d+),", text, re.M
    )
    return [Variant(name, kind, int(arch)) for name, kind, arch in found]


# ---- what a library holds -----------------------------------------------------------


class Blob(ctypes.Structure):
    """mbr_blob."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("image", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
    ]


def table_type() -> type[ctypes.Structure]:
    """mbr_table, as far as it is looked at."""
    text = (ROOT / "libmambarun/ops/ops.def").read_text()
    functions = len(re.findall(r"^MBR_(?:OP|WORKSPACE)\(", text, re.M))

    class Table(ctypes.Structure):
        _fields_ = [
            ("name", ctypes.c_char_p),
            ("build", ctypes.c_char_p),
            ("blobs", ctypes.POINTER(Blob)),
            ("count", ctypes.c_size_t),
            ("functions", ctypes.c_void_p * functions),
        ]

    return Table


def stamp_of(core: pathlib.Path) -> bytes:
    facts = HostFacts(struct_size=ctypes.sizeof(HostFacts))
    if ctypes.CDLL(str(core)).mbr_probe_host(ctypes.byref(facts)) != 0:
        raise RuntimeError(f"{core}: mbr_probe_host fails")
    return bytes(facts.stamp)


def open_table(library: pathlib.Path, stamp: bytes) -> ctypes.Structure:
    table = table_type()()
    launcher = (ctypes.c_void_p * 2)()  # never called
    answer = ctypes.CDLL(str(library)).mbr_variant_entry(
        ctypes.c_char_p(stamp), ctypes.c_uint32(ctypes.sizeof(table)),
        launcher, ctypes.byref(table),
    )  # fmt: skip
    if answer != 0:
        raise RuntimeError(f"{library.name}: mbr_variant_entry answers {answer}")
    return table


def read_cubin(image: bytes) -> tuple[int, list[str]]:
    """(architecture, kernels) of a cubin: a 64-bit ELF file for machine EM_CUDA."""
    machine, _, _, _, sections, flags = struct.unpack_from("<HIQQQI", image, 18)
    size, count, names_at = struct.unpack_from("<HHH", image, 58)
    if machine != 190:
        raise ValueError(f"an ELF file for machine {machine}")
    # CUDA 13 moved the number to the second byte, with the eighth version of the ABI.
    arch = flags >> 8 & 0xFF if image[8] >= 8 else flags & 0xFF
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, sections + i * size)
               for i in range(count)]  # fmt: skip
    names = headers[names_at][4]
    kernels = []
    for header in headers:
        at = names + header[0]
        name = image[at : image.index(b"\0", at)].decode()
        if name.startswith(".text."):
            kernels.append(name[len(".text.") :])
    return arch, kernels


def read_ptx(image: bytes) -> tuple[int, list[str]]:
    """The same of PTX, which must end with NUL."""
    if not image.endswith(b"\0"):
        raise ValueError("PTX without NUL at its end")
    text = image.rstrip(b"\0").decode()
    arch = re.search(r"^\.target sm_(\d+)\s*$", text, re.M)
    return int(arch[1]) if arch else 0, re.findall(
        r"^\.visible \.entry (\w+)\(", text, re.M
    )


def check_image(blob: Blob, variant: Variant) -> str:
    """What is wrong with it, or ""."""
    image = ctypes.string_at(blob.image, blob.size)
    kind = "cubin" if image.startswith(b"\x7fELF") else "ptx"
    if kind != variant.kind:
        return f"is {kind}, not {variant.kind}"
    try:
        arch, kernels = (read_cubin if kind == "cubin" else read_ptx)(image)
    except (ValueError, struct.error) as cause:
        return f"cannot be read: {cause}"
    if arch != variant.arch:
        return f"is for sm_{arch}, not sm_{variant.arch}"
    if kernels != [blob.name.decode()]:
        return f"holds the kernels {kernels}"
    return ""


def weigh(blob: Blob, variant: Variant) -> int:
    if variant.kind == "cubin":
        return blob.size
    return len(zlib.compress(ctypes.string_at(blob.image, blob.size)))


# ---- what is asked of it ------------------------------------------------------------


def check_report(variant: Variant, report: list[dict]) -> list[str]:
    if variant.kind != "cubin" or variant.arch not in NO_SPILLS:
        return []
    wrong = []
    for kernel in report:
        if "registers" not in kernel:
            wrong.append(f"{kernel['name']}: ptxas has said nothing about it")
            continue
        figures = {k: kernel[k] for k in ("stack", "spill_stores", "spill_loads")}
        if any(figures.values()) and not kernel.get("spills"):
            said = ", ".join(f"{k} {v}" for k, v in figures.items())
            wrong.append(f"{kernel['name']}: {said}, and its row does not say why")
    return wrong


def check(variant: Variant, build: pathlib.Path, stamp: bytes) -> list[str]:
    table = open_table(build / f"lib/libmambarun_{variant.name}.so", stamp)
    blobs = [table.blobs[i] for i in range(table.count)]
    wrong = []
    if table.name.decode() != variant.name:
        wrong.append(f"calls itself {table.name.decode()}")
    expected, found = [r.name for r in rows()], [b.name.decode() for b in blobs]
    if found != expected:
        odd = sorted(set(found) ^ set(expected)) or "their order"
        wrong.append(f"has other kernels than instances.def: {odd}")
    for blob in blobs:
        fault = check_image(blob, variant)
        if fault:
            wrong.append(f"{blob.name.decode()}: {fault}")
    total = sum(weigh(blob, variant) for blob in blobs)
    if total > MOST_BYTES:
        wrong.append(f"{total} {TOO_LARGE} {MOST_BYTES}")
    report = json.loads((build / f"kernels/{variant.name}/kernels.json").read_text())
    if [entry["name"] for entry in report] != found:
        wrong.append("kernels.json is of another build")
    wrong += check_report(variant, report)
    most = max((entry.get("registers", 0) for entry in report), default=0)
    spilling = sum(
        1 for entry in report if entry.get("stack") or entry.get("spill_loads")
    )
    seconds = sum(entry["seconds"] for entry in report)
    print(f"{variant.name:14}{len(blobs):8}{total:12}{most or '-':>14}"
          f"{spilling if most else '-':>10}{seconds:>12.0f}")  # fmt: skip
    return [f"{variant.name}: {fault}" for fault in wrong]


def check_rows() -> list[str]:
    wrong = [] if rows() else ["no instances.def has a row"]
    for room in rooms():
        count = len(re.findall(r"^MBR_KERNEL\(", room.read_text(), re.M))
        if count >= MOST_KERNELS:
            wrong.append(f"{room}: {count} rows, fewer than {MOST_KERNELS} are allowed")
    return wrong


def main(folder: str, *named: str, except_size: bool = False) -> int:
    build = pathlib.Path(folder)
    known = manifest()
    wrong = [
        f"{name}: no row of manifest.def" for name in {*named} - {v.name for v in known}
    ]
    there = [v for v in known if (build / f"lib/libmambarun_{v.name}.so").is_file()]
    wrong += [
        f"{name}: not built" for name in named if name not in [v.name for v in there]
    ]
    if not there:
        wrong.append(f"{build}/lib: no CUDA library")
    wrong += check_rows()
    stamp = stamp_of(build / "lib/libmambarun.so")
    print(f"{'row':14}{'kernels':>8}{'bytes':>12}{'registers <=':>14}{'spilling':>10}"
          f"{'CPU seconds':>12}")  # fmt: skip
    for variant in there:
        wrong += check(variant, build, stamp)
    for variant in there:
        if variant.kind == "cubin" and variant.arch in NO_SPILLS:
            table = build / f"kernels/{variant.name}/kernels.txt"
            print(f"\n{variant.name}\n{table.read_text()}", end="")
    for line in wrong:
        print(line)
    if except_size:
        wrong = [line for line in wrong if TOO_LARGE not in line]
    if not wrong:
        print(f"OK: {len(there)} CUDA libraries hold what their names say")
    return 1 if wrong else 0


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--except-size"]
    sys.exit(main(*arguments, except_size=len(arguments) < len(sys.argv) - 1))
