# SPDX-License-Identifier: Apache-2.0
"""What a case is. The cases themselves stand in ops/<op>/cases.py."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Callable

import torch

from .providers import Call, Plain, Reference


class Maker:
    """What a case may use to make its arguments: seeded chance, and the reference,
    for arguments that are results of an earlier call."""

    def __init__(self, reference: Reference, case: str, seed: int) -> None:
        self.reference = reference
        mixed = zlib.crc32(case.encode()) + seed
        self.generator = torch.Generator().manual_seed(mixed)
        self.random = random.Random(mixed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, dtype=dtype)

    def uniform(self, *shape: int, low: float = 0, high: float = 1) -> torch.Tensor:
        values = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * values

    def answer(self, call: Call) -> dict[str, torch.Tensor]:
        return self.reference.answer(call)


@dataclass(frozen=True)
class Case:
    """id    what one types to repeat it, unique in its room
    why   what could go wrong here
    make  builds the call; the same seed builds the same call
    refusal  it must be refused with a message that begins like this
    error    the exception that a module raises then; the C functions say MBR_E_ARG
    family   a key of the room's FAMILIES, by which a report groups
    quick    part of --quick
    how      how it is called: a key of calling.HOWS
    signature  "": any. Else this argument list: MODULE.FUNCTION/COUNT, see modules.py
    """

    id: str
    why: str
    make: Callable[[Maker], Call | Plain]
    refusal: str = ""
    error: str = "RuntimeError"
    family: str = ""
    quick: bool = False
    how: str = ""
    signature: str = ""


@dataclass(frozen=True)
class Tolerance:
    """Of one output. share: the part of the reference's error bound that may be used, 0
    if the result is exact; why: the reason for it.
    upstream: dtype -> (rtol, atol) in upstream's own tests."""

    share: float
    why: str
    upstream: dict[torch.dtype, tuple[float, float]]
