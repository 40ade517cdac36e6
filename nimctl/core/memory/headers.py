"""Reads the header of a safetensors file, whose first bytes say what the rest holds. Pure.

Eight bytes (little-endian) give the length of a JSON object, which names each tensor's type, shape and place in the
bytes after it. https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping
from typing import Any

from nimctl.core.memory.tensors import Tensor, bytes_of

LENGTH_BYTES = 8
# https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs (MAX_HEADER_SIZE)
MAX_HEADER_BYTES = 100_000_000
_MAX_SIZE = 2**63  # no file is longer


def header_length(data: bytes) -> int:
    """How many bytes the JSON takes that follows the first eight, from those eight. Raises ValueError."""
    if len(data) < LENGTH_BYTES:
        raise ValueError(f"a safetensors file begins with 8 bytes of length; there are {len(data)}")
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"the header claims {length:,} bytes; the format allows {MAX_HEADER_BYTES:,}")
    if length < len("{}"):
        raise ValueError(f"the header claims {length} bytes, too few for any")
    return length


def parse_header(data: bytes, *, file_size: int | None = None) -> tuple[Tensor, ...]:
    """The tensors that the first bytes of a file name, in the order of their places.

    `data` must hold the whole header and may go on; `file_size` is the size in bytes of the file, where it is known.
    Raises ValueError, in words, for what is no header, and for one that contradicts itself or the size of its file.
    """
    length = header_length(data)
    if len(data) < LENGTH_BYTES + length:
        raise ValueError(f"the header claims {length:,} bytes and {len(data) - LENGTH_BYTES:,} follow")
    placed = sorted(
        (_tensor(name, entry) for name, entry in _document(data[LENGTH_BYTES : LENGTH_BYTES + length]).items()),
        key=lambda place: (place[0], place[1]),
    )
    end = 0
    for begin, stop, tensor in placed:
        if begin != end:
            fault = "overlaps the one before it" if begin < end else "leaves a gap before it"
            raise ValueError(f"the tensor {tensor.name!r} {fault}: it begins at byte {begin:,}, not {end:,}")
        end = stop
    if file_size is not None and LENGTH_BYTES + length + end != file_size:
        raise ValueError(f"the header describes {LENGTH_BYTES + length + end:,} bytes; the file has {file_size:,}")
    return tuple(tensor for _, _, tensor in placed)


def _document(encoded: bytes) -> dict[str, Any]:
    """The entries by name, without what the writer noted of itself."""
    if not encoded.startswith(b"{"):
        raise ValueError("the header is no JSON object")
    try:
        document = json.loads(encoded.decode(), object_pairs_hook=_once)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"the header is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError("the header is nested too deeply to be one") from None
    assert isinstance(document, dict)  # it begins with a brace
    document.pop("__metadata__", None)
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the header names {name!r} twice")
            seen.add(name)
    return made


def _tensor(name: str, entry: object) -> tuple[int, int, Tensor]:
    """First byte, byte after the last, and the tensor."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"the entry of the tensor {name!r} is no JSON object")
    dtype, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None:
        raise ValueError(f"the tensor {name!r} has no type and shape of whole numbers from 0")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"the tensor {name!r} has no two offsets of whole numbers from 0, in order")
    size = _size(name, dtype, shape)
    placed = offsets[1] - offsets[0]
    if placed != size:
        raise ValueError(f"the tensor {name!r} takes {size:,} bytes by its type and shape, {placed:,} by its offsets")
    return offsets[0], offsets[1], Tensor(name, dtype, shape)


def _sizes(found: object) -> tuple[int, ...] | None:
    """Whole numbers from 0 that a file can have; None for anything else, `true` and a list beyond reason included."""
    if not isinstance(found, list) or len(found) > 64:
        return None
    return tuple(found) if all(type(size) is int and 0 <= size < _MAX_SIZE for size in found) else None


def _size(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    try:
        return bytes_of(dtype, shape)
    except ValueError as error:
        raise ValueError(f"the tensor {name!r}: {error}") from None
