"""Which weights there are: a tensor's size in bytes, and the inventory of a checkpoint. Pure.

A model of experts has some 200,000 tensors that differ only in the number of their layer and of their expert, so an
inventory keeps them as families, and a plan asks a hundred families instead of 200,000 tensors.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

# Bits of an element. https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs (Dtype)
DTYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}

# Numbers that the families leave open. A tower of vision counts its layers as blocks.
_LAYER = re.compile(r"\.(layers|blocks)\.(\d{1,6})\.")
_EXPERT = re.compile(r"\.experts\.(\d{1,6})\.")


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Size in bytes. Raises ValueError for a dtype that is not known, and where the last byte would be used in part."""
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise ValueError(f"{dtype!r} is no data type of the safetensors format")
    whole, rest = divmod(bits * prod(shape), 8)
    if rest:
        raise ValueError(f"{list(shape)} elements of {dtype} do not fill whole bytes")
    return whole


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint, its type named as in the safetensors format."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes. Raises ValueError as `bytes_of` does."""
        return bytes_of(self.dtype, self.shape)


@dataclass(frozen=True)
class Family:
    """Tensors of one type and shape whose names differ only in `{layer}` and `{expert}`; without numbers it is one."""

    pattern: str
    dtype: str
    shape: tuple[int, ...]
    layers: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()

    @cached_property
    def each(self) -> int:
        """Size of one of its tensors in bytes. Raises ValueError as `bytes_of` does."""
        return bytes_of(self.dtype, self.shape)

    @property
    def count(self) -> int:
        """How many tensors there are."""
        return max(1, len(self.layers)) * max(1, len(self.experts))

    @property
    def nbytes(self) -> int:
        """Size of all in bytes."""
        return self.each * self.count

    def tensors(self) -> Iterator[Tensor]:
        """Each by its own name."""
        for layer in self.layers or (None,):
            name = self.pattern if layer is None else self.pattern.replace("{layer}", str(layer))
            if not self.experts:
                yield Tensor(name, self.dtype, self.shape)
            for expert in self.experts:
                yield Tensor(name.replace("{expert}", str(expert)), self.dtype, self.shape)


@dataclass(frozen=True)
class Inventory:
    """All tensors of a checkpoint; `basis` says whether its files named them or its configuration implied them."""

    families: tuple[Family, ...]
    basis: Literal["headers", "config"]

    @classmethod
    def of(cls, tensors: Iterable[Tensor], basis: Literal["headers", "config"]) -> "Inventory":
        """The inventory of `tensors`, in any order. Raises ValueError if a name comes twice or a size is impossible."""
        found: dict[tuple[str, str, tuple[int, ...]], dict[int | None, list[int]]] = {}
        names: set[str] = set()
        for tensor in tensors:
            if tensor.name in names:
                raise ValueError(f"the tensor {tensor.name!r} is there twice")
            names.add(tensor.name)
            pattern, layer, expert = _unnumbered(tensor.name)
            experts = found.setdefault((pattern, tensor.dtype, tensor.shape), {}).setdefault(layer, [])
            if expert is not None:
                experts.append(expert)
        families = tuple(family for key, layers in found.items() for family in _families(*key, layers))
        for family in families:
            bytes_of(family.dtype, family.shape)
        return cls(families, basis)

    @cached_property
    def nbytes(self) -> int:
        """Size of all tensors in bytes: what the files hold beside their headers."""
        return sum(family.nbytes for family in self.families)

    def tensors(self) -> Iterator[Tensor]:
        """Each tensor by its own name, family after family."""
        for family in self.families:
            yield from family.tensors()


def _unnumbered(name: str) -> tuple[str, int | None, int | None]:
    """The name with its layer and its expert left open, and their numbers."""
    layer = expert = None
    # A number written in another way than its own (`007`) would not come out again, so it stays part of the name.
    if (found := _LAYER.search(name)) and str(int(found[2])) == found[2]:
        layer = int(found[2])
        name = f"{name[: found.start(2)]}{{layer}}{name[found.end(2) :]}"
    if (found := _EXPERT.search(name)) and str(int(found[1])) == found[1]:
        expert = int(found[1])
        name = f"{name[: found.start(1)]}{{expert}}{name[found.end(1) :]}"
    return name, layer, expert


def _families(
    pattern: str, dtype: str, shape: tuple[int, ...], layers: dict[int | None, list[int]]
) -> Iterator[Family]:
    """Layers that hold the same experts make one family."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for layer, experts in layers.items():
        numbers = alike.setdefault(tuple(sorted(experts)), [])
        if layer is not None:
            numbers.append(layer)
    for experts_held, numbers in alike.items():
        yield Family(pattern, dtype, shape, tuple(sorted(numbers)), experts_held)
