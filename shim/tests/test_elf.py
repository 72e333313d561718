# SPDX-License-Identifier: Apache-2.0
"""test_elf.py - what check/elf.py reads out of ELF files: written ones, compiled ones,
and ones that are cut off or changed, of which none may do more than be refused.
"""

import os
import random
import shutil
import struct
import subprocess
import sys
import time

import pytest
from machines.elf_writer import elf
from mambarun.check.elf import NotElf, read

MODULE = dict(
    soname="libnothing.so.1",
    needed=["libtorch.so", "libcudart.so.12", "libc.so.6"],
    runpath="$ORIGIN/../lib:/opt/lib",
    version_needs={
        "libc.so.6": ["GLIBC_2.14", "GLIBC_2.32"],
        "libstdc++.so.6": ["CXXABI_1.3"],
    },
    undefined=["_ZN3c105ErrorC2ENS_14SourceLocationESs", "PyErr_SetString"],
    weak=["__gmon_start__"],
    defined=["PyInit_selective_scan_cuda", "fwd"],
    cuda=["sm_90", "compute_90", "sm_80", "sm_100"],
)
NAMES = [n for kind in ("undefined", "weak", "defined") for n in MODULE[kind]]


@pytest.fixture
def written(tmp_path):
    def write(data):
        file = tmp_path / "module.so"
        file.write_bytes(data)
        return str(file)

    return write


@pytest.mark.parametrize("bits", [64, 32])
def test_everything_is_read(written, bits):
    found = read(written(elf(bits=bits, **MODULE)))
    assert (found.machine, found.bits) == ("x86_64", bits)
    assert found.soname == "libnothing.so.1"
    assert found.needed == ("libtorch.so", "libcudart.so.12", "libc.so.6")
    assert found.rpath == ()
    assert found.runpath == ("$ORIGIN/../lib", "/opt/lib")
    assert found.version_needs == MODULE["version_needs"]
    assert found.undefined == tuple(MODULE["undefined"])
    assert found.cuda_architectures == ("compute_90", "sm_80", "sm_90", "sm_100")
    assert found.exports("PyInit_selective_scan_cuda")
    assert found.exports("fwd")
    assert not found.exports("PyErr_SetString")
    assert not found.exports("fw")


def test_what_is_absent_is_empty(written):
    found = read(written(elf(machine="aarch64", rpath="/a")))
    assert (found.machine, found.soname, found.needed) == ("aarch64", None, ())
    assert (found.rpath, found.runpath) == (("/a",), ())
    assert (found.version_needs, found.undefined) == ({}, ())
    assert found.cuda_architectures is None
    assert not found.exports("anything")


def test_a_library_of_this_system_is_read():
    """Its hash table is DT_GNU_HASH, other than the written ones'."""
    import _ctypes

    path = getattr(_ctypes, "__file__", None)
    if path is None:
        pytest.skip("NotSupported: ctypes is built into this Python")
    found = read(path)
    assert found.bits == (64 if sys.maxsize > 2**32 else 32)
    assert found.exports("PyInit__ctypes")
    assert not found.exports("PyInit__ctype")
    assert "PyErr_SetString" in found.undefined
    assert "libc.so.6" in found.needed
    assert any(v.startswith("GLIBC_") for v in found.version_needs["libc.so.6"])


def test_a_compiled_library_without_sections_is_read(tmp_path):
    cc, strip = shutil.which("cc"), shutil.which("objcopy")
    if cc is None or strip is None:
        pytest.skip("NotSupported: there is no cc or no objcopy here")
    source = tmp_path / "a.c"
    source.write_text("int lent(void); int given(void) { return lent() + 1; }\n")
    library = tmp_path / "a.so"
    subprocess.run([cc, "-shared", "-fPIC", "-o", library, source], check=True)
    data = bytearray(library.read_bytes())
    data[40:48] = bytes(8)  # e_shoff
    data[60:62] = bytes(2)  # e_shnum
    library.write_bytes(data)
    found = read(str(library))
    assert found.undefined == ("lent",)
    assert found.exports("given") and not found.exports("lent")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b"#!/bin/sh\n", "is no ELF file"),
        (b"<!DOCTYPE html>" * 50, "is no ELF file"),
        (b"version https://git-lfs.github.com/spec/v1\n" * 3, "is no ELF file"),
        (b"\x7fELF" + b"\x09" * 80, "has an ELF header of no known class"),
        (elf(**MODULE)[:700], "is cut off"),
    ],
)
def test_other_files_are_refused_with_a_reason(written, content, reason):
    with pytest.raises(NotElf, match=reason):
        read(written(content))


def test_odd_places_are_refused_with_a_reason(tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    for name, reason in [
        ("pipe", "no regular file"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("broken", "cannot be read: No such file"),
        ("", "no regular file"),
    ]:
        with pytest.raises(NotElf, match=reason):
            read(str(tmp_path / name))


def test_an_unreadable_file_is_refused(written):
    path = written(elf())
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        pytest.skip("NotSupported: this user reads everything")
    with pytest.raises(NotElf, match="Permission denied"):
        read(path)


def look_at(path):
    """All that there is to ask; the seconds it takes."""
    begin = time.perf_counter()
    try:
        found = read(path)
        assert isinstance(found.cuda_architectures, (tuple, type(None)))
        found.exports("PyInit_selective_scan_cuda")
    except NotElf as refusal:
        assert str(refusal)
    return time.perf_counter() - begin


@pytest.mark.parametrize("bits", [64, 32])
def test_no_length_is_a_crash(written, bits):
    whole = elf(bits=bits, **MODULE)
    assert max(look_at(written(whole[:n])) for n in range(0, len(whole), 7)) < 1


@pytest.mark.parametrize("seed", range(4))
def test_no_change_is_a_crash_or_a_hang(written, seed):
    chance = random.Random(seed)
    whole = elf(bits=64 if seed % 2 else 32, **MODULE)
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[at] = chance.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
                )
            else:
                data[at : at + 4] = chance.getrandbits(32).to_bytes(4, "little")
        assert look_at(written(bytes(data))) < 1


def test_a_damaged_hash_table_defines_nothing(written):
    """As the loader sees it, which is no reason to stop."""
    whole = bytearray(elf(**MODULE))
    table = whole.index(struct.pack("<II", 1, 1 + len(NAMES)))  # buckets, symbols
    whole[table : table + 4] = b"\xff\xff\xff\x7f"
    assert not read(written(bytes(whole))).exports("PyInit_selective_scan_cuda")


def test_a_huge_sparse_file_is_quick(written):
    """Counts as large as the fields hold, in a file that has room for them."""
    data = bytearray(elf(**MODULE))
    data[56:58] = b"\xff\xff"  # e_phnum
    data[60:62] = b"\xff\xff"  # e_shnum
    path = written(bytes(data))
    with open(path, "r+b") as file:
        file.truncate(1 << 36)
    assert look_at(path) < 1
