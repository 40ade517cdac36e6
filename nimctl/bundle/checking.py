"""Proving a bundle: every byte read once and hashed, then that the parts belong together."""

from collections.abc import Callable
from dataclasses import dataclass

from nimctl.bundle import image, weights
from nimctl.bundle.model import SUMS
from nimctl.bundle.problems import damaged, incomplete, stopped
from nimctl.bundle.shelf import Shelf
from nimctl.core.fetch import Progress, Stop, verify
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.transfer.meter import Meter

# Makes of a reference the name by which Docker is to know the image; None: by its digest alone. Raises ValueError.
FullName = Callable[[str], str | None]


@dataclass(frozen=True)
class Verified:
    """What was read: `files` of so many `bytes`; `extra` files lie there and belong to nothing."""

    files: int
    bytes: int
    extra: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As part of a JSON document."""
        return {"files": self.files, "bytes": self.bytes, "extra": list(self.extra)}


def verify_all(shelf: Shelf, full_name: FullName, *, on_progress: Callable[[Progress], None], stop: Stop) -> Verified:
    """Read every file of the bundle once, several at a time, and follow the digests from one to the next.

    Raises `bundle-damaged` with the name of every file that is damaged or missing, `bundle-incomplete` where all that
    is wrong is that files are missing, `bundle-invalid` where they do not belong together, and `interrupted`.
    """
    survey = shelf.survey()
    files = [File(piece.path, piece.size, f"sha256:{piece.sha256}") for piece in shelf.bundle.pieces]
    there = [file for file in files if file.path not in survey.missing]
    meter = Meter(files, on_progress)
    verdicts = verify.judge([(shelf.place(f.path), f) for f in there], on_bytes=meter.verifying, stop=stop)
    if stop.is_set:
        raise stopped("the check")
    meter.finished()
    bad = [f"{v.file.path}: {_WORDS[v.condition].format(found=v.found)}" for v in verdicts if v.bad]
    missing = [f"{path}: it is missing" for path in survey.missing]
    beside = shelf.wrong_sums()
    if problems := [*beside, *bad, *missing]:
        if not bad and beside in ([], [f"{SUMS}: it is missing"]):
            raise incomplete(shelf.name, f"{len(problems)} of its files are missing", problems)
        raise damaged(shelf.name, problems)
    require_chain(shelf, full_name)
    return Verified(len(files) + 2, sum(file.size for file in files), survey.extra)


_WORDS = {
    "missing": "it is missing",
    "unreadable": "it cannot be read ({found})",
    "wrong-size": "it has {found} bytes, which is another size",
    "wrong-digest": "its SHA-256 is {found}, which is another one",
}


def require_sound(shelf: Shelf, full_name: FullName) -> None:
    """Before anything is loaded: every name and size, the sums, and that the parts belong together. Reads little.

    Raises `bundle-damaged`, `bundle-incomplete`, `bundle-invalid`.
    """
    survey = shelf.survey()
    missing = [f"{path}: it is missing" for path in survey.missing]
    if problems := [*shelf.wrong_sums(), *survey.wrong]:
        raise damaged(shelf.name, [*problems, *missing])
    if missing:
        raise incomplete(shelf.name, f"{len(missing)} of its files are missing", missing)
    require_chain(shelf, full_name)


def require_chain(shelf: Shelf, full_name: FullName) -> None:
    """Follow the digests: image to layers, manifest of the weights to files. Raises `bundle-invalid`."""
    if shelf.bundle.image:
        image.require_chain(shelf, shelf.bundle.image, full_name)
    if shelf.bundle.weights:
        weights.require_chain(shelf, shelf.bundle.weights)
