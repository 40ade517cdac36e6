"""The signatures of images, kept as bytes so that a start can check them again without a network."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.core.signatures import MAX_MATERIALS, MAX_PAYLOAD, Material, read_materials, write_materials

if TYPE_CHECKING:
    from nimctl.core.image_identity import ImageIdentity

Kept = tuple[tuple[Material, ...], tuple[bytes, ...]]  # signatures; indexes and manifests
_DOCUMENTS = "documents"  # folder of indexes and manifests
_MOST_DOCUMENTS = 32  # an index, and one manifest for each platform of it


def kept(identity: ImageIdentity) -> Kept | None:
    """The signatures kept of an image, under whichever of its digests, with its indexes and manifests.

    None where nothing usable is kept.
    """
    found = [one for digest in identity.digests if (one := _read(_place(digest))) is not None]
    return _joined(found) if found else None


def keep(identity: ImageIdentity, materials: Sequence[Material], documents: Sequence[bytes]) -> None:
    """Keep the signatures for later starts, whole or not at all; where that fails, the registry is asked again.

    Under every digest by which an engine may call the image its own, beside what is kept there of other platforms.
    """
    new = None
    try:
        for digest in identity.digests:
            place = _place(digest)
            before = _read(place)
            joined = _joined([(tuple(materials), tuple(documents)), *([before] if before else [])])
            if joined == before:
                continue
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
            write_materials(new, joined[0])
            (new / _DOCUMENTS).mkdir()
            for number, data in enumerate(joined[1]):
                (new / _DOCUMENTS / f"{number:02}.json").write_bytes(data)
            shutil.rmtree(place, ignore_errors=True)
            new.rename(place)
    except OSError:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _read(place: Path) -> Kept | None:
    try:
        materials = read_materials(place)
        found = sorted((place / _DOCUMENTS).iterdir())
        return materials, tuple(path.read_bytes() for path in found if path.stat().st_size <= MAX_PAYLOAD)
    except (OSError, ValueError):  # nothing is lost: the registry has them
        return None


def _joined(parts: Sequence[Kept]) -> Kept:
    """All of several, each thing once, the first ones first; what is beyond a bound is the oldest."""
    materials: list[Material] = []
    documents: list[bytes] = []
    for some, others in parts:
        materials += [one for one in some if one not in materials]
        documents += [one for one in others if one not in documents]
    return tuple(materials[:MAX_MATERIALS]), tuple(documents[:_MOST_DOCUMENTS])


def state_folder() -> Path:
    """Where nimctl keeps what it learned, for this user."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "nimctl"


def _place(digest: str) -> Path:
    return state_folder() / "signatures" / digest.replace(":", "-")
