"""Whose a bundle is, whether its image is one to trust, and whether its lock is of what lies beside it. No network."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from nimctl.bundle import image as image_layout
from nimctl.bundle import model
from nimctl.bundle.problems import invalid
from nimctl.bundle.shelf import Shelf
from nimctl.bundle.weights import FOLDER
from nimctl.cli.config import Config
from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.signatures import Material, parse_materials
from nimctl.render import Output

_LARGEST_INDEX = 8 * 2**20


def require_signed(shelf: Shelf, key: Path | None, out: Output) -> str | None:
    """Whose signature of the document it is; None where nobody asked. Raises `signature-*`, `trust-invalid`."""
    there = (shelf.root / model.SIGNATURE).is_file()
    if key is None:
        if there:
            out.text("the bundle is signed; --key KEY.pub says whose signature it has to be", style="dim")
        return None
    from nimctl.trust.keys import read_public

    public = read_public(key)
    if not there:
        raise NimctlError(
            "signature-missing",
            f"the bundle {shelf.name} is not signed",
            cause=f"it holds no {model.SIGNATURE}, and a signature of {key} is asked for",
            fix="Have it made with `nimctl bundle create --sign-key`, or leave --key out.",
        )
    try:
        signature = base64.b64decode(shelf.beside(model.SIGNATURE).strip(), validate=True)
    except binascii.Error:
        signature = b""
    if not public.signed(signature, shelf.document):
        raise NimctlError(
            "signature-invalid",
            f"the bundle {shelf.name} is not signed by {key}",
            cause=f"{model.SIGNATURE} is no signature of this {model.NAME} by that key",
            fix="Use the public key of whoever made it; if it is that one, the bundle was changed: do not load it.",
        )
    out.text(f"signed by {public}")
    return str(public)


def prove_image(shelf: Shelf, config: Config, out: Output, *, signed: str | None, keep: bool) -> str | None:
    """The verdict about the image's own signatures; with `keep`, they are kept for starts to come.

    Raises `signature-*` where they are required and not good, `bundle-*`.
    """
    image = shelf.bundle.image
    if image is None:
        return None
    from nimctl.cli.proofs import images as proving
    from nimctl.cli.proofs import kept as kept_signatures

    found = identity(image)
    digests = dict.fromkeys(filter(None, (image.digest, image.manifest)))
    documents = [shelf.small(image_layout.blob_path(digest), _LARGEST_INDEX) for digest in digests]
    carried = _signatures_in(shelf)
    proof = proving.prove_image(
        found,
        None,
        config,
        out,
        documents=documents,
        built=image.digest is None and signed is not None,
        carried=carried,
    )
    if keep and _is_worth_keeping(found, carried, str(proof.verdict)):
        # a start looks for them here before it asks a registry; that there are none is known as well
        kept_signatures.keep(found, carried, documents)
    return str(proof.verdict)


def identity(image: model.Image) -> ImageIdentity:
    """What exactly the image is."""
    return ImageIdentity(image.reference, image.digest, image.manifest, image.config, image.platform)


def _signatures_in(shelf: Shelf) -> tuple[Material, ...]:
    """The image's signatures, out of files that are what was packed, wherever they lie. Raises `bundle-*`."""
    if not shelf.bundle.signatures:
        return ()
    try:
        return parse_materials(lambda name, most: shelf.small(f"{model.TRUST}/{name}", most))
    except ValueError as error:
        raise invalid(f"the signatures in it cannot be used: {error}", shelf.name) from error


def _is_worth_keeping(image: ImageIdentity, materials: tuple[Material, ...], verdict: str) -> bool:
    """Good ones are; others only where nothing is lost by them, and no rule has called them bad."""
    from nimctl.cli.proofs.kept import kept

    if verdict == "good":
        return True
    known = kept(image)
    return (known is None or not known[0]) and (not materials or verdict in ("no-rule", "off", "built-here"))


def require_own_lock(shelf: Shelf) -> None:
    """Raises `bundle-invalid` where the lock is of another image or other weights than those beside it."""
    bundle = shelf.bundle
    if bundle.lock is None:
        return
    from nimctl.lock import reading

    lock = reading.read(shelf.small(bundle.lock), bundle.lock)
    if image := bundle.image:
        locked = lock.image.identity
        there = identity(image)
        pairs = ((locked.manifest, there.manifest), (locked.config, there.config))
        if (locked.reference, locked.digest, locked.platform) != (there.reference, there.digest, there.platform) or any(
            mine and mine != other for mine, other in pairs
        ):
            raise invalid(f"its lock is of another image ({locked.reference}) than the one in it", shelf.name)
    if (weights := bundle.weights) and (wanted := lock.weights):
        revision = weights.revision if weights.source != FOLDER else wanted.revision  # a folder has none of its own
        if (wanted.revision, wanted.bytes) != (revision, weights.size):
            raise invalid(f"its lock is of other weights ({wanted.source}) than those in it", shelf.name)
