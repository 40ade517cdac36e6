"""The driver's kernel module on disk: whether there is one for the running kernel, and its version."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nimctl.doctor.observe.files import names, read

_LARGEST_INDEX = 8_000_000  # bytes; a distribution's kernel with 6,000 modules has some 700 kB
_LARGEST_MODULE = 200_000_000
_FILE = re.compile(r"^(?P<path>\S*/nvidia\.ko(?:\.(?:gz|xz|zst))?):", re.MULTILINE)
# Head and section of a 64-bit little-endian ELF file: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
# Of the head: where the table of sections is, the size of its entries, how many, and which one holds their names.
_HEAD = struct.Struct("<40xQ10xHHH")
_ELF = b"\x7fELF\x02\x01"
# Of a section: its name, as an offset into those names; where it lies, and its length.
_SECTION = struct.Struct("<I20xQQ24x")
_MOST_TEXT = 1_000_000  # bytes of names, or of .modinfo


@dataclass(frozen=True)
class ModuleFile:
    """The file below /lib/modules/<kernel>, its version, and whether both could be told (`known`)."""

    path: str | None = None
    version: str | None = None
    known: bool = False


def find_module(root: Path, kernel: str) -> ModuleFile:
    """The module that `modprobe nvidia` would load: the one in the index of the kernel's modules."""
    folder = root / "lib/modules" / kernel
    if not kernel or "/" in kernel:
        return ModuleFile()
    index = read(folder / "modules.dep", _LARGEST_INDEX)
    if index is None:
        return ModuleFile()
    found = _FILE.search("\n" + index)
    if found is None:
        return ModuleFile(known=True)
    path = found["path"]
    # DKMS builds into updates/dkms or extra; what lies below kernel/ the distribution built.
    version = None if path.startswith("kernel/") else _by_dkms(root, kernel)
    version = version or _by_content(folder / path)
    return ModuleFile(path, version, known=version is not None)


def _by_dkms(root: Path, kernel: str) -> str | None:
    """The version that DKMS built for this kernel, where it built one only."""
    home = root / "var/lib/dkms/nvidia"
    built = [name for name in names(home) or () if name[:1].isdigit() and (home / name / kernel).is_dir()]
    return built[0] if len(built) == 1 else None


def _by_content(path: Path) -> str | None:
    """The version in the file itself; None where it is compressed, since it would have to be read to the end."""
    if path.suffix != ".ko":
        return None
    try:
        with path.open("rb") as file:
            return _modinfo_version(file)
    except (OSError, ValueError, OverflowError, struct.error):
        return None


def _modinfo_version(file: IO[bytes]) -> str | None:
    """The line `version=` in the section .modinfo, found without reading the rest of a file of up to 100 MB."""
    head = file.read(_HEAD.size)
    if not head.startswith(_ELF):
        return None
    table, size, count, names_at = _HEAD.unpack(head)
    file.seek(table)
    entries = file.read(size * count)
    sections = [_SECTION.unpack_from(entries, number * size) for number in range(count)]
    strings = _text(file, *sections[names_at][1:]) if names_at < count else b""
    for name, at, length in sections:
        if strings[name:].startswith(b".modinfo\0"):
            found = re.search(rb"(?:^|\0)version=([\w.-]+)\0", _text(file, at, length))
            return found[1].decode() if found else None
    return None


def _text(file: IO[bytes], at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(min(length, _MOST_TEXT))
