# SPDX-License-Identifier: Apache-2.0
"""elf_writer.py - writes small shared objects that say what a test wants them to say.
They are for reading: their code is absent, so loading one fails.
"""

import struct

MACHINES = {"x86_64": 62, "aarch64": 183, "i386": 3, "s390x": 22}
_LOAD, _DYNAMIC = 1, 2


class _Strings:
    def __init__(self):
        self.data = b"\0"

    def add(self, text):
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


def elf(
    *,
    machine="x86_64",
    bits=64,
    soname=None,
    needed=(),
    rpath=None,
    runpath=None,
    version_needs=None,
    undefined=(),
    weak=(),
    defined=(),
    cuda=(),
):
    """The bytes of a shared object.

    version_needs: {library: [version, ...]}. undefined, weak, defined: symbol names.
    cuda: what its fat binary has, such as "sm_80" or "compute_90".
    """
    word = "Q" if bits == 64 else "I"
    names = _Strings()
    dynamic = [(1, names.add(library)) for library in needed]
    for tag, text in ((14, soname), (15, rpath), (29, runpath)):
        if text is not None:
            dynamic.append((tag, names.add(text)))
    symbols = [(0, 0, 0)]
    symbols += [(names.add(name), 0x12, 0) for name in undefined]
    symbols += [(names.add(name), 0x22, 0) for name in weak]
    symbols += [(names.add(name), 0x12, 1) for name in defined]
    by_number = [""] + [*undefined, *weak, *defined]
    needs = _version_needs(version_needs or {}, names)
    header_size, program_size = (64, 56) if bits == 64 else (52, 32)
    out = bytearray(header_size + 2 * program_size)

    def place(piece):
        out.extend(bytes(-len(out) % 8))
        at = len(out)
        out.extend(piece)
        return at

    if needs:
        dynamic += [(0x6FFFFFFE, place(needs)), (0x6FFFFFFF, len(version_needs))]
    dynamic += [
        (4, place(_hash(by_number))),
        (6, place(b"".join(_symbol(bits, *symbol) for symbol in symbols))),
        (5, place(names.data)),
        (10, len(names.data)),
        (0, 0),
    ]
    pairs = b"".join(struct.pack("<" + 2 * word, *entry) for entry in dynamic)
    dynamic_at = place(pairs)
    sections, names_section = _sections(place, cuda, word)
    table_at = place(b"".join(sections))
    out[:header_size] = struct.pack(
        f"<4sBBB9xHHI{3 * word}IHHHHHH",
        *(b"\x7fELF", bits // 32, 1, 1, 3, MACHINES[machine], 1, 0),
        *(header_size, table_at if sections else 0, 0, header_size, program_size, 2),
        *(64 if bits == 64 else 40, len(sections), names_section),
    )
    for i, (kind, at, size) in enumerate(
        [(_LOAD, 0, len(out)), (_DYNAMIC, dynamic_at, len(pairs))]
    ):
        begin = header_size + i * program_size
        if bits == 64:
            piece = struct.pack("<IIQQQQQQ", kind, 5, at, at, at, size, size, 8)
        else:
            piece = struct.pack("<IIIIIIII", kind, at, at, at, size, size, 5, 8)
        out[begin : begin + program_size] = piece
    return bytes(out)


def _symbol(bits, name, info, section):
    if bits == 64:
        return struct.pack("<IBBHQQ", name, info, 0, section, 0, 0)
    return struct.pack("<IIIBBH", name, 0, 0, info, 0, section)


def _hash(names):
    """DT_HASH of one bucket: symbol i leads to i - 1."""
    chain = [0, *range(len(names) - 1)]
    last = len(names) - 1
    return struct.pack(f"<{3 + len(chain)}I", 1, len(chain), last, *chain)


def _version_needs(needs, names):
    out = b""
    for i, (library, versions) in enumerate(needs.items()):
        size = 16 + 16 * len(versions)
        step = size if i + 1 < len(needs) else 0
        out += struct.pack("<HHIII", 1, len(versions), names.add(library), 16, step)
        for j, version in enumerate(versions):
            step = 16 if j + 1 < len(versions) else 0
            out += struct.pack("<IHHII", 0, 0, 2 + j, names.add(version), step)
    return out


def _sections(place, cuda, word):
    """The section headers, and which of them has the names."""
    if not cuda:
        return [], 0
    labels = b"\0.shstrtab\0.nv_fatbin\0"
    fatbin = _fatbin(cuda)
    rows = [
        (0, 0, 0, 0),
        (1, 3, place(labels), len(labels)),
        (11, 1, place(fatbin), len(fatbin)),
    ]
    return [
        struct.pack(f"<II{4 * word}II{2 * word}", n, kind, 0, at, at, size, 0, 0, 8, 0)
        for n, kind, at, size in rows
    ], 1


def _fatbin(architectures):
    entries = b""
    for architecture in architectures:
        kind, number = architecture.split("_")
        entries += struct.pack(
            "<HHIQIIHHII28x",
            *(1 if kind == "compute" else 2, 0x101, 64, 8, 0, 0, 0, 0, int(number), 0),
        )
        entries += bytes(8)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
