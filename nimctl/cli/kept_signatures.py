"""The signatures of images, kept as bytes so that a start can check them again without a network."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.core.signatures import Material, read_materials, write_materials

if TYPE_CHECKING:
    from nimctl.core.image_identity import ImageIdentity

_INDEX = "index.json"


def kept(identity: ImageIdentity) -> tuple[tuple[Material, ...], bytes | None] | None:
    """The signatures kept of an image, and the bytes of its index; None where nothing usable is kept."""
    folder = _place(identity)
    if folder is None:
        return None
    try:
        materials = read_materials(folder)
        index = (folder / _INDEX).read_bytes() if (folder / _INDEX).exists() else None
    except (OSError, ValueError):  # nothing is lost: the registry has them
        return None
    return materials, index


def keep(identity: ImageIdentity, materials: Sequence[Material], index: bytes | None) -> None:
    """Keep the signatures for later starts, whole or not at all; where that fails, the registry is asked again."""
    place = _place(identity)
    if place is None:
        return
    new = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
        write_materials(new, materials)
        if index is not None:
            (new / _INDEX).write_bytes(index)
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    except OSError:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _place(identity: ImageIdentity) -> Path | None:
    if identity.digest is None:
        return None
    return state_folder() / "signatures" / identity.digest.replace(":", "-")


def state_folder() -> Path:
    """Where nimctl keeps what it learned, for this user."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "nimctl"
