# SPDX-License-Identifier: Apache-2.0
"""elf.py - what an ELF file says about itself, read from its bytes: nothing is loaded,
so no constructor runs, and it works where libmambarun itself is damaged.

    elf = read(path)
    elf.machine, elf.needed, elf.version_needs, elf.undefined, elf.exports("name")

Follows the program headers, as the dynamic loader does; only `cuda_architectures` looks
at sections. Files come from anywhere: every offset and count is checked against the
file, and whatever is wrong with one is a NotElf. Formats: the System V gABI, chapters 4
and 5; DT_GNU_HASH and version needs: the Linux Standard Base, chapter 10.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    190: "cuda",
    243: "riscv64",
    258: "loongarch64",
}

_LOAD, _DYNAMIC = 1, 2  # p_type
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ = 1, 4, 5, 6, 10  # d_tag
_SONAME, _RPATH, _RUNPATH = 14, 15, 29
_GNU_HASH, _VERNEED, _VERNEEDNUM = 0x6FFFFEF5, 0x6FFFFFFE, 0x6FFFFFFF
_GLOBAL = 1  # st_info's binding: a symbol that has to be found

# More than any real module has; they bound the time that a malicious file takes.
_MOST_HEADERS = 4096
_MOST_DYNAMIC = 4096
_MOST_VERSIONS = 4096
_MOST_SYMBOLS = 200_000
_MOST_CHAIN = 10_000
_MOST_FATBINS = 50_000
_MOST_NAMES = 16 << 20  # bytes, all names together


class NotElf(Exception):
    """The file is no ELF file, or not a whole one; the reason is a part of a sentence
    that begins with the file's name."""


def read(path: str) -> Elf:
    """The ELF file at path, symbolic links followed. NotElf for anything else, be it
    absent, unreadable, no regular file, cut off or malformed."""
    try:
        return Elf(_map(path))
    except OSError as error:
        raise NotElf(f"cannot be read: {error.strerror or error}") from None
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise NotElf(f"is damaged: {error}") from None


class Elf:
    """One file.

    machine         "x86_64", "aarch64", ..., or "machine N"
    bits            32 or 64
    soname          DT_SONAME, or None
    needed          DT_NEEDED in order
    rpath, runpath  the folders of DT_RPATH and DT_RUNPATH, $ORIGIN not replaced
    version_needs   {"libc.so.6": ["GLIBC_2.14", ...], ...}
    undefined       names that some other library has to define, weak ones left out
    cuda_architectures  ("compute_80", "sm_80", ...) of the CUDA code that it carries;
                        None if it carries none, or in a form not known here
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._names_left = _MOST_NAMES
        self._segments = list(self._read_segments(*self._read_header()))
        self._dynamic = self._read_dynamic()
        self._names = self._offset(self._tag(_STRTAB)) if self._dynamic else 0
        self._names_end = self._names + self._tag(_STRSZ)
        self._symbols = self._offset(self._tag(_SYMTAB)) if self._tag(_SYMTAB) else 0
        self.soname = next((self._name(at) for at in self._tags(_SONAME)), None)
        self.needed = tuple(self._name(at) for at in self._tags(_NEEDED))
        self.rpath = self._folders(_RPATH)
        self.runpath = self._folders(_RUNPATH)
        self.version_needs = self._read_version_needs()
        self.undefined = self._read_undefined()

    # ---- headers ------------------------------------------------------------------

    def _read_header(self) -> tuple[int, int, int]:
        """Offset, size and number of the program headers."""
        ident = self._data[:16]
        if ident[:4] != b"\x7fELF":
            raise NotElf("is no ELF file")
        if len(ident) < 16 or ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise NotElf("has an ELF header of no known class")
        self.bits = 32 * ident[4]
        self._word = "IQ"[ident[4] - 1]  # an address or offset
        self._order = "<>"[ident[5] - 1]
        machine, _, _, phoff, shoff, _, _, phsize, phnum, shsize, shnum, _ = (
            self._unpack(f"HHI{self._word * 3}IHHHHHH", 16)[1:]
        )
        self.machine = MACHINES.get(machine, f"machine {machine}")
        self._sections = shoff, shsize, min(shnum, _MOST_HEADERS)
        return phoff, phsize, min(phnum, _MOST_HEADERS)

    def _read_segments(
        self, start: int, size: int, count: int
    ) -> Iterator[tuple[int, int, int, int]]:
        """type, offset, address, bytes in the file"""
        for at in range(start, start + size * count, size or 1):
            if self.bits == 64:
                kind, _, offset, address, _, length = self._unpack("IIQQQQ", at)
            else:
                kind, offset, address, _, length = self._unpack("IIIII", at)
            yield kind, offset, address, length

    def _read_dynamic(self) -> list[tuple[int, int]]:
        where = [s for s in self._segments if s[0] == _DYNAMIC]
        if not where:
            return []
        _, offset, _, length = where[0]
        code = self._order + 2 * self._word
        size = struct.calcsize(code)
        if offset + length > len(self._data):
            raise NotElf("is cut off: its dynamic section lies behind its end")
        end = offset + min(length // size, _MOST_DYNAMIC) * size
        found = []
        for entry in struct.iter_unpack(code, self._data[offset:end]):
            if entry[0] == 0:
                break
            found.append(entry)
        return found

    def _tags(self, tag: int) -> list[int]:
        return [value for tag_, value in self._dynamic if tag_ == tag]

    def _tag(self, tag: int) -> int:
        return next(iter(self._tags(tag)), 0)

    def _folders(self, tag: int) -> tuple[str, ...]:
        return tuple(f for at in self._tags(tag) for f in self._name(at).split(":"))

    # ---- bytes --------------------------------------------------------------------

    def _unpack(self, code: str, at: int) -> tuple[int, ...]:
        code = self._order + code
        if at < 0 or at + struct.calcsize(code) > len(self._data):
            raise NotElf("is cut off: it refers to what lies behind its end")
        return struct.unpack_from(code, self._data, at)

    def _offset(self, address: int) -> int:
        """Where in the file the byte lies that is loaded at address."""
        for kind, offset, start, length in self._segments:
            if kind == _LOAD and start <= address < start + length:
                return offset + address - start
        raise NotElf("is damaged: it refers to memory that it does not fill")

    def _name(self, at: int) -> str:
        return self._string(self._names + at, self._names_end)

    def _string(self, at: int, end: int) -> str:
        stop = self._data.find(b"\0", at, min(end, len(self._data)))
        if stop < 0:
            raise NotElf("is cut off: a name has no end")
        self._names_left -= stop - at
        if self._names_left < 0:
            raise NotElf("is damaged: its names have no end")
        return self._data[at:stop].decode("utf-8", "replace")

    # ---- what it needs ------------------------------------------------------------

    def _read_version_needs(self) -> dict[str, list[str]]:
        needs: dict[str, list[str]] = {}
        if not self._tag(_VERNEED):
            return needs
        at = self._offset(self._tag(_VERNEED))
        budget = _MOST_VERSIONS
        for _ in range(min(self._tag(_VERNEEDNUM), _MOST_VERSIONS)):
            _, count, file, first, next_ = self._unpack("HHIII", at)
            versions = needs.setdefault(self._name(file), [])
            entry = at + first
            for _ in range(min(count, budget)):
                budget -= 1
                _, _, _, name, step = self._unpack("IHHII", entry)
                versions.append(self._name(name))
                entry += step
            at += next_
            if not next_ or not budget:
                break
        return needs

    def _read_undefined(self) -> tuple[str, ...]:
        code = self._order + ("IBBHQQ" if self.bits == 64 else "IIIBBH")
        size = struct.calcsize(code) * self._undefined_end()
        table = self._data[self._symbols : self._symbols + size]
        if len(table) < size:
            raise NotElf("is cut off: its symbols lie behind its end")
        names = []
        for fields in struct.iter_unpack(code, table):
            name, info, section = self._parts(fields)
            if section == 0 and info >> 4 == _GLOBAL and name:
                names.append(self._name(name))
        return tuple(names)

    def _undefined_end(self) -> int:
        """A symbol number behind the last undefined one. DT_GNU_HASH lists the defined
        ones, which stand last (a file that defines nothing, and so is no Python module,
        seems to need nothing); DT_HASH has the number of all."""
        if self._tag(_GNU_HASH):
            _, end = self._unpack("II", self._offset(self._tag(_GNU_HASH)))
        elif self._tag(_HASH):
            _, end = self._unpack("II", self._offset(self._tag(_HASH)))
        else:
            end = 0
        if end > _MOST_SYMBOLS:
            raise NotElf(f"is damaged: it has {end} undefined symbols")
        if end and not self._symbols:
            raise NotElf("is damaged: it has a hash table and no symbols")
        return end

    def _parts(self, symbol: tuple[int, ...]) -> tuple[int, int, int]:
        """name, st_info, section"""
        if self.bits == 64:
            return symbol[0], symbol[1], symbol[3]
        return symbol[0], symbol[3], symbol[5]

    # ---- what it defines ----------------------------------------------------------

    def exports(self, name: str) -> bool:
        """Whether the file defines this dynamic symbol; if its tables are damaged, no
        loader would find it either."""
        try:
            if self._tag(_GNU_HASH):
                return self._in_gnu_hash(name)
            return bool(self._tag(_HASH)) and self._in_hash(name)
        except (NotElf, struct.error, IndexError, ValueError, OverflowError):
            return False

    def _in_gnu_hash(self, name: str) -> bool:
        at = self._offset(self._tag(_GNU_HASH))
        buckets, first, words, _ = self._unpack("IIII", at)
        if not buckets:
            return False
        value = 5381
        for byte in name.encode():
            value = (value * 33 + byte) & 0xFFFFFFFF
        table = at + 16 + words * self.bits // 8
        (i,) = self._unpack("I", table + 4 * (value % buckets))
        chain = table + 4 * buckets
        for _ in range(_MOST_CHAIN):
            if i < first:
                return False
            (hashed,) = self._unpack("I", chain + 4 * (i - first))
            if hashed | 1 == value | 1 and self._defines(i, name):
                return True
            if hashed & 1:
                return False
            i += 1
        return False

    def _in_hash(self, name: str) -> bool:
        at = self._offset(self._tag(_HASH))
        buckets, _ = self._unpack("II", at)
        if not buckets:
            return False
        value = 0
        for byte in name.encode():
            value = (value << 4) + byte
            value = (value ^ (value >> 24 & 0xF0)) & 0x0FFFFFFF
        (i,) = self._unpack("I", at + 8 + 4 * (value % buckets))
        for _ in range(_MOST_CHAIN):
            if not i or self._defines(i, name):
                return bool(i)
            (i,) = self._unpack("I", at + 8 + 4 * (buckets + i))
        return False

    def _defines(self, i: int, name: str) -> bool:
        if self.bits == 64:
            symbol = self._unpack("IBBHQQ", self._symbols + 24 * i)
        else:
            symbol = self._unpack("IIIBBH", self._symbols + 16 * i)
        at, info, section = self._parts(symbol)
        at += self._names
        wanted = name.encode() + b"\0"
        return (
            section != 0
            and info >> 4 != 0
            and self._data[at : at + len(wanted)] == wanted
        )

    # ---- CUDA ---------------------------------------------------------------------

    @property
    def cuda_architectures(self) -> tuple[str, ...] | None:
        """NVIDIA documents no layout of `.nv_fatbin`. As nvcc 9 to 13 write it: images
        one after the other, each a header (magic, version, header's size, size of what
        follows) and entries (kind: 1 PTX, 2 cubin; header's size at 4, size at 8, the
        architecture's number at 28). Anything odd: None."""
        found: set[str] = set()
        try:
            for start, end in self._fatbin_sections():
                found.update(self._fatbin_entries(start, end))
        except (NotElf, struct.error, IndexError, ValueError, OverflowError):
            return None
        return tuple(sorted(found, key=lambda a: (a[:2], int(a.split("_")[1])))) or None

    def _fatbin_sections(self) -> Iterator[tuple[int, int]]:
        start, size, count = self._sections
        if not count or size < 40:
            return
        (names,) = self._unpack("H", 62 if self.bits == 64 else 50)
        strings, strings_size = self._section(start + size * names)[1:]
        for i in range(count):
            name, offset, length = self._section(start + size * i)
            label = self._string(strings + name, strings + strings_size)
            if label in (".nv_fatbin", "__nv_relfatbin"):
                yield offset, min(offset + length, len(self._data))

    def _section(self, at: int) -> tuple[int, int, int]:
        name, _, _, _, offset, length = self._unpack("II" + 4 * self._word, at)
        return name, offset, length

    def _fatbin_entries(self, at: int, end: int) -> Iterator[str]:
        budget = _MOST_FATBINS
        while at + 16 <= end and budget > 0:
            budget -= 1
            magic, _, header, size = self._unpack("IHHQ", at)
            if magic != 0xBA55ED50 or header < 16:
                raise NotElf("has CUDA code of an unknown form")
            entry, stop = at + header, at + header + size
            while entry + 32 <= min(stop, end) and budget > 0:
                budget -= 1
                kind, _, skip, length = self._unpack("HHIQ", entry)
                (architecture,) = self._unpack("I", entry + 28)
                if kind not in (1, 2) or skip < 32 or architecture > 999:
                    raise NotElf("has CUDA code of an unknown form")
                yield f"{'compute' if kind == 1 else 'sm'}_{architecture}"
                entry += skip + length
            at = (stop + 7) & ~7


def _map(path: str) -> mmap.mmap:
    # Not blocking: the path may be a named pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotElf("is no regular file")
        if status.st_size < 64:
            raise NotElf("is no ELF file" if status.st_size else "is empty")
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
