"""Writing the lock of what is here, and holding it against the one that was written before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli import contradicting, launching, lock_facts, locked_plan, lockfile
from nimctl.cli.config import Config
from nimctl.cli.contradicting import Given
from nimctl.cli.differing import refuse
from nimctl.cli.lock_of_plan import lock_of
from nimctl.cli.lockfile import Read
from nimctl.core.errors import NimctlError
from nimctl.lock.comparing import compare
from nimctl.lock.model import Lock, LockedImage
from nimctl.lock.writing import digest_of, write
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Asked, Prepared


@dataclass(frozen=True)
class Made:
    """A lock that was written: the digest of its file, whether that is another than before, what it leaves open."""

    digest: str
    changed: bool
    notes: tuple[str, ...]


def make(asked: Asked, config: Config, path: Path, out: Output) -> Made:
    """Write the lock of what a run would start here; the file is replaced whole, and only where it changes."""
    locked_plan.require_docker(config)
    before = None
    with suppress(NimctlError):
        before = lockfile.read(path).lock
    prepared = launching.prepare(asked, config, out)
    lock, notes = _here(prepared, asked, before.image if before else None, out)
    if lock.engine.options is None and before is not None and not compare(before, lock):
        lock = replace(lock, engine=replace(lock.engine, options=before.engine.options))
    text = write(lock).encode()
    changed = not path.is_file() or path.read_bytes() != text
    if changed:
        lockfile.replace(path, text)
    return Made(digest_of(text), changed, notes)


def check(path: Path, given: Given, config: Config, out: Output) -> Read:
    """The lock in `path`, if a lock that is made here and now would say the same. Raises `lock-differs`, and `usage`
    for what contradicts it.
    """
    locked_plan.require_docker(config)
    found = lockfile.read(path)
    folder = contradicting.refuse_contradictions(found.lock, given)
    prepared, asked = locked_plan.plan(found, config, out, folder=folder, given=given.variables, pin=False, ask=True)
    lock, _ = _here(prepared, asked, found.lock.image, out)
    if rows := compare(found.lock, lock):
        refuse(found, rows, out)
    return found


def _here(prepared: Prepared, asked: Asked, before: LockedImage | None, out: Output) -> tuple[Lock, tuple[str, ...]]:
    """The lock of what is here and what it leaves open, in sentences."""
    engine = lock_facts.engine()
    try:
        image = lock_facts.image_of(prepared, engine, before, out)
        with out.working("listing the files of the weights"):
            manifest = lock_facts.manifest_of(prepared.target, prepared.config)
        options = None
        if engine is not None and lock_facts.has_weights(prepared.target, prepared.config):
            found = engine.inspect_image(prepared.choice.reference) if prepared.choice else None
            if found is not None and prepared.plan.kind == "ours":
                identity = found.identity(image.reference)
                options = lock_facts.settled_options(prepared, engine, identity, found.id, out)
    finally:
        if engine is not None:
            engine.close()
    lock = lock_of(prepared, asked, image, manifest, options)
    return lock, tuple(_left_open(lock))


def _left_open(lock: Lock) -> list[str]:
    notes = []
    if lock.weights is None:
        notes.append("weights-by-image: NVIDIA's image chooses its weights and its layout; only the image is locked.")
    elif lock.weights.unhashed:
        count = len(lock.weights.unhashed)
        notes.append(
            f"weights-unhashed: {lock.weights.source} has no hashes for {count} of {len(lock.weights.files)} files; "
            "their names and sizes alone are locked."
        )
    if lock.image.digest is None:
        notes.append("image-not-pushed: The image is in no registry, so another host must build or load the same one.")
    if lock.weights is not None and lock.engine.options is None:
        notes.append(
            "options-open: The settled engine options are not recorded, because image or weights are not here; "
            "what decides them is locked."
        )
    return notes
