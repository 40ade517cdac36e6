"""What the command line of `nimctl bundle create` said."""

import re
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.errors import NimctlError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_LEAST_SPLIT = 2**20


@dataclass(frozen=True)
class Asked:
    """What the command line said beside the settings."""

    folder: Path
    model: str | None
    image: str | None = None
    lock: Path | None = None
    split: int | None = None
    weights: bool = True
    caches: bool = False
    sign_key: Path | None = None
    platform: str | None = None


def size_of(text: str | None) -> int | None:
    """`4GiB`, `700MB`, `1000000` in bytes. Raises `usage`."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    count = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if count < _LEAST_SPLIT:
        raise NimctlError(
            "usage",
            f"files cannot be cut into parts of {text!r}",
            cause="it is no size of 1 MiB and more",
            fix="Write --split 4GiB for FAT32, or the size of the medium: --split 700MB.",
        )
    return count
