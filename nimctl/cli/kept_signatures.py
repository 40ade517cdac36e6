"""The signatures of images, kept as bytes so that a start can check them again without a network."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.core.signatures import MAX_PAYLOAD, Material, read_materials, write_materials

if TYPE_CHECKING:
    from nimctl.core.image_identity import ImageIdentity

_DOCUMENTS = "documents"  # folder of indexes and manifests


def kept(identity: ImageIdentity) -> tuple[tuple[Material, ...], tuple[bytes, ...]] | None:
    """The signatures kept of an image, and its index and manifest; None where nothing usable is kept."""
    for digest in identity.digests:
        place = _place(digest)
        try:
            materials = read_materials(place)
            found = sorted((place / _DOCUMENTS).iterdir())
            return materials, tuple(path.read_bytes() for path in found if path.stat().st_size <= MAX_PAYLOAD)
        except (OSError, ValueError):  # nothing is lost: the registry has them
            continue
    return None


def keep(identity: ImageIdentity, materials: Sequence[Material], documents: Sequence[bytes]) -> None:
    """Keep the signatures for later starts, whole or not at all; where that fails, the registry is asked again.

    Under every digest by which an engine may call the image its own.
    """
    new = None
    try:
        for digest in identity.digests:
            place = _place(digest)
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
            write_materials(new, materials)
            (new / _DOCUMENTS).mkdir()
            for number, data in enumerate(documents):
                (new / _DOCUMENTS / f"{number}.json").write_bytes(data)
            shutil.rmtree(place, ignore_errors=True)
            new.rename(place)
    except OSError:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def state_folder() -> Path:
    """Where nimctl keeps what it learned, for this user."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "nimctl"


def _place(digest: str) -> Path:
    return state_folder() / "signatures" / digest.replace(":", "-")
