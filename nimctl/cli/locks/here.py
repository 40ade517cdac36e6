"""Writing the lock of what is here, and holding it against the one that was written before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli import launching
from nimctl.cli.config import Config
from nimctl.cli.locks import contradictions
from nimctl.cli.locks import facts as lock_facts
from nimctl.cli.locks import file as lock_file
from nimctl.cli.locks import plan as locked_plan
from nimctl.cli.locks.contradictions import Given
from nimctl.cli.locks.differences import refuse
from nimctl.cli.locks.file import Read
from nimctl.cli.locks.of_plan import lock_of
from nimctl.core.errors import NimctlError
from nimctl.core.secret import holds_secret
from nimctl.lock.comparing import compare
from nimctl.lock.model import Lock, LockedImage
from nimctl.lock.writing import digest_of, write
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.launching import Asked, Prepared


@dataclass(frozen=True)
class Made:
    """A lock that was written: the digest of its file, whether that is another than before, what it leaves open.

    `moved` is the digest that the image's name stands for by now, where that is another image than the locked one.
    """

    digest: str
    changed: bool
    notes: tuple[str, ...]
    moved: str | None


def make(asked: Asked, config: Config, path: Path, out: Output) -> Made:
    """Write the lock of what a run would start here; the file is replaced whole, and only where it changes."""
    locked_plan.require_docker(config)
    before = None
    with suppress(NimctlError):
        before = lock_file.read(path).lock
    prepared = launching.prepare(asked, config, out)
    lock, moved = _here(prepared, asked, before.image if before else None, out)
    if any(map(holds_secret, lock.engine.arguments)):
        raise NimctlError(
            "usage",
            "the engine arguments hold a secret, and a lock is for everybody to read",
            cause="one of them is shaped like a key, or is an address with a password",
            fix="Give it as a variable whose name says so: --env NAME_TOKEN. Of those a lock holds the name alone.",
        )
    if lock.engine.options is None and before is not None and not compare(before, lock):
        lock = replace(lock, engine=replace(lock.engine, options=before.engine.options))
    text = write(lock).encode()
    changed = not path.is_file() or path.read_bytes() != text
    if changed:
        lock_file.replace(path, text)
    return Made(digest_of(text), changed, tuple(_left_open(lock)), moved)


def check(path: Path, given: Given, config: Config, out: Output) -> tuple[Read, str | None]:
    """The lock in `path`, if a lock that is made here and now would say the same, and `Made.moved`.

    Raises `lock-differs`, and `usage` for what contradicts it.
    """
    locked_plan.require_docker(config)
    found = lock_file.read(path)
    folder = contradictions.refuse_contradictions(found.lock, given)
    prepared, asked = locked_plan.plan(found, config, out, folder=folder, given=given.variables, pin=False, ask=True)
    lock, moved = _here(prepared, asked, found.lock.image, out)
    if rows := compare(found.lock, lock):
        refuse(found, rows, out)
    return found, moved


def _here(prepared: Prepared, asked: Asked, before: LockedImage | None, out: Output) -> tuple[Lock, str | None]:
    """The lock of what is here, and `Made.moved`."""
    engine = lock_facts.engine()
    try:
        taken = lock_facts.image_of(prepared, engine, before, out)
        manifest = lock_facts.manifest_of(prepared.target, prepared.config, out=out)
        options = None
        if engine is not None and lock_facts.has_weights(prepared.target, prepared.config):
            found = engine.inspect_image(prepared.choice.reference) if prepared.choice else None
            if found is not None and prepared.plan.kind == "ours":
                identity = found.identity(taken.image.reference)
                options = lock_facts.settled_options(prepared, engine, identity, found.id, out)
    finally:
        if engine is not None:
            engine.close()
    return lock_of(prepared, asked, taken.image, manifest, options), taken.moved


def _left_open(lock: Lock) -> list[str]:
    """What a lock does not settle, in sentences."""
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
