"""The lock of a bundle: which one is carried, and what it has to know beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.bundle import model
from nimctl.lock.model import FILE_NAME, Lock
from nimctl.render import Output

if TYPE_CHECKING:
    from nimctl.cli.bundles.asked import Asked


def choose(asked: Asked, out: Output) -> tuple[Lock | None, bytes | None]:
    """The lock to carry: the one named, else ./nimctl.lock where it is of the model that was asked for."""
    from nimctl.lock import reading

    path = asked.lock or Path(FILE_NAME)
    if asked.lock is None and not path.is_file():
        out.text("no nimctl.lock is carried: `nimctl lock` writes one, and `nimctl run --locked` needs it")
        return None, None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise reading.invalid(str(path), f"it cannot be read: {error.strerror}") from error
    lock = reading.read(content, str(path))
    if asked.lock is None and asked.model not in (None, lock.model):
        out.text(f"{path} is of {lock.model}, so it is not carried", style="yellow")
        return None, None
    out.text(f"carrying what {path} locks: {lock.model}")
    return lock, content


def completed(lock: Lock | None, content: bytes | None, image: model.Image, out: Output) -> bytes | None:
    """The lock to carry. One of an image that was never pushed learns the manifest that it has in the bundle.

    Docker's containerd store calls an image by its manifest, which an image of the classic store gets here first; it
    names the configuration that was locked.
    """
    from nimctl.lock import writing

    if lock is None or lock.image.digest or image.platform in lock.image.manifests:
        return content
    manifests = {**lock.image.manifests, image.platform: image.manifest}
    out.text(f"the lock that is carried names the image's manifest too: {image.manifest}")
    return writing.write(replace(lock, image=replace(lock.image, manifests=manifests))).encode()
