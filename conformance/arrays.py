# SPDX-License-Identifier: Apache-2.0
"""Strided arrays between guards, in every layout a caller may hand in, also those that
torch cannot express (negative strides). Knows no ops."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Sequence

import torch

GUARD = 64  # elements before and after; keeps the first element 64-byte aligned
POISON = 0xFF  # in every byte: NaN in each float dtype, -1 in int32

#: dtype -> (DLPack code, bits, dtype in which the reference answers)
DTYPES = {
    torch.float16: (2, 16, torch.float64),
    torch.bfloat16: (4, 16, torch.float64),
    torch.float32: (2, 32, torch.float64),
    torch.float64: (2, 64, torch.float64),
    torch.complex64: (5, 64, torch.complex128),
    torch.complex128: (5, 128, torch.complex128),
    torch.int32: (0, 32, torch.float64),
}


@dataclass(frozen=True)
class Layout:
    """How an array lies in memory.

    order   axes from the slowest to the fastest; empty: as they come
    gap     axis -> unused places after its extent (a slice of something larger)
    step    axis -> distance of neighbours in places; negative runs backwards
    expand  axes with stride 0: one value shared by the whole axis
    shift   elements by which the first one is moved off its 64-byte boundary
    """

    order: tuple[int, ...] = ()
    gap: dict[int, int] = field(default_factory=dict)
    step: dict[int, int] = field(default_factory=dict)
    expand: tuple[int, ...] = ()
    shift: int = 0

    def strides(self, shape: Sequence[int]) -> tuple[int, ...]:
        strides, running = [0] * len(shape), 1
        for axis in reversed(self.order or range(len(shape))):
            if axis in self.expand:
                continue
            step = self.step.get(axis, 1)
            strides[axis] = running * step
            running *= max(shape[axis], 1) * abs(step) + self.gap.get(axis, 0)
        return tuple(strides)


CONTIGUOUS = Layout()


class Array:
    """A strided array inside its own poisoned buffer."""

    def __init__(
        self, shape: Sequence[int], dtype: torch.dtype, layout: Layout = CONTIGUOUS
    ) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.strides = layout.strides(shape)
        self.layout = layout
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides) if n > 1]
        if 0 in self.shape:
            reach = []
        before = -sum(r for r in reach if r < 0)
        after = sum(r for r in reach if r > 0)
        self.first = GUARD + layout.shift + before
        elements = self.first + after + 1 + GUARD
        size = torch.empty((), dtype=dtype).element_size()
        self.buffer = torch.full((elements * size,), POISON, dtype=torch.uint8)
        self.index = self.places()

    def places(self) -> torch.Tensor:
        """Position in the buffer of every element."""
        places = torch.full(self.shape, self.first, dtype=torch.int64)
        for axis, (extent, stride) in enumerate(zip(self.shape, self.strides)):
            along = [1] * len(self.shape)
            along[axis] = extent
            places += (torch.arange(extent) * stride).reshape(along)
        return places

    def flat(self) -> torch.Tensor:
        return self.buffer.view(self.dtype)

    def fill(self, values: torch.Tensor) -> Array:
        """Along an expanded axis the values must be equal."""
        wanted = values.expand(self.shape).to(self.dtype)
        self.flat()[self.index.reshape(-1)] = wanted.reshape(-1)
        return self

    def values(self) -> torch.Tensor:
        return self.flat()[self.index]

    def wide(self) -> torch.Tensor:
        """The values in the precision of the reference."""
        return self.values().to(DTYPES[self.dtype][2])

    def data_ptr(self) -> int:
        return self.buffer.data_ptr() + self.first * self.flat().element_size()

    def for_reference(self) -> Array:
        """A contiguous array of double precision with the same values."""
        return Array(self.shape, DTYPES[self.dtype][2]).fill(self.wide())

    def in_memory_of(self, other: Array | None) -> Array:
        """This array, moved into the memory of an equal one."""
        if other is not None:
            assert (other.shape, other.dtype) == (self.shape, self.dtype)
            self.buffer, self.first = other.buffer, other.first
            self.strides, self.layout = other.strides, other.layout
            self.index = other.index
        return self

    def in_copy(self, buffer: torch.Tensor) -> Array:
        """This array as it lies in a copy of its buffer, perhaps on another device."""
        other = copy.copy(self)
        other.buffer = buffer
        return other

    def changed_outside(self, before: torch.Tensor) -> int:
        """How many elements of the buffer, other than the array's own, differ from
        what they were: written where nothing may be written."""
        size = self.flat().element_size()
        differs = (self.buffer != before).reshape(-1, size).any(dim=1)
        differs[self.index.reshape(-1)] = False
        return int(differs.sum())
