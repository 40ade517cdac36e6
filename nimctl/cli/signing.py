"""Signing an image in its registry, for `nimctl sign` and `nimctl build --push --sign-key`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli import signer

if TYPE_CHECKING:
    from nimctl.core.signatures import Material
    from nimctl.render import Output
    from nimctl.trust.keys import PrivateKey


def make_pair(folder: Path, out: Output, *, from_stdin: bool) -> None:
    """Make a pair of keys in `folder`. Raises `trust-invalid`; nothing that exists is written over."""
    from nimctl.trust.keys import generate, read_public

    passphrase = signer.new_passphrase(from_stdin=from_stdin)
    key, public = generate(folder, passphrase)
    fingerprint = read_public(public).fingerprint
    out.document(
        {
            "ok": True,
            "key": str(key),
            "public": str(public),
            "fingerprint": fingerprint,
            "encrypted": passphrase is not None,
        }
    )
    sealed = "encrypted" if passphrase else "not encrypted; only you may read it"
    out.text(f"{key}: the private key, {sealed}")
    out.text(f"{public}: the public key, for those who verify ({fingerprint[:12]})")
    out.text(f"try:   nimctl sign IMAGE --key {key}")


def sign_and_push(image: str, key_file: Path, out: Output, *, from_stdin: bool) -> None:
    """Sign what `image` stands for now, push both signatures, and say so.

    Raises `trust-invalid`, and as `push_signatures` does.
    """
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.entitlement import resolve_digest
    from nimctl.registry.reference import parse

    key = signer.private_key(key_file, from_stdin=from_stdin)
    reference = parse(image)
    login, _ = stored_or_key(reference.registry, config_folder(), os.environ)
    with out.working(f"asking {reference.registry} for {reference}"):
        digest = resolve_digest(reference, login)
    materials, pushed = push_signatures(image, digest, key)
    fingerprint = key.public.fingerprint
    document = {"ok": True, "image": image, "digest": digest, "fingerprint": fingerprint, "signatures": pushed}
    out.document(document)
    out.text(f"signed {reference.registry}/{reference.repository}@{digest} with key {fingerprint[:12]}")
    out.text(f"{len(materials)} signatures pushed: one as cosign 2 reads it, one as cosign 3 does")
    out.result(digest)


def push_signatures(image: str, digest: str, key: PrivateKey) -> tuple[tuple[Material, ...], list[str]]:
    """Sign `digest` in the repository of `image` and push both forms; the signatures, and the digests they lie under.

    Raises `key-refused` for a login that may not push, `key-missing`, `image-not-found`, `image-pull-failed`.
    """
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.pushing import push_signature
    from nimctl.registry.reference import parse
    from nimctl.trust.signing import sign_image

    reference = parse(image)
    login, _ = stored_or_key(reference.registry, config_folder(), os.environ)
    materials = sign_image(key, f"{reference.registry}/{reference.repository}", digest)
    return materials, [push_signature(reference, login, material) for material in materials]
