"""Signing an image in its registry, for `nimctl sign` and `nimctl build --push --sign-key`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.cli.proofs.key_file import new_passphrase, private_key

if TYPE_CHECKING:
    from nimctl.core.signatures import Material
    from nimctl.render import Output
    from nimctl.trust.keys import PrivateKey


def make_pair(folder: Path, out: Output, *, from_stdin: bool) -> None:
    """Make a pair of keys in `folder`. Raises `trust-invalid`; nothing that exists is written over."""
    from nimctl.trust.keys import generate, read_public

    passphrase = new_passphrase(from_stdin=from_stdin)
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

    key = private_key(key_file, from_stdin=from_stdin)
    reference = parse(image)
    login, _ = stored_or_key(reference.registry, config_folder(), os.environ)
    with out.working(f"asking {reference.registry} for {reference}"):
        digest = resolve_digest(reference, login)
    pushed = push_signatures(image, digest, key)
    fingerprint = key.public.fingerprint
    document = {"ok": True, "image": image, "digest": digest, "fingerprint": fingerprint, "signatures": pushed}
    out.document(document)
    out.text(f"signed {reference.registry}/{reference.repository}@{digest} with key {fingerprint[:12]}")
    told = "beside it already" if not pushed else "pushed"
    out.text(f"{told}: one signature as cosign 2 reads it, one as cosign 3 does")
    out.result(digest)


def push_signatures(image: str, digest: str, key: PrivateKey) -> list[str]:
    """Sign `digest` in the repository of `image` and push both forms; the digests that they lie under.

    A form that lies there already is not pushed again: each build of a CI would add one, and readers look at so many.
    Raises `key-refused` for a login that may not push, `key-missing`, `image-not-found`, `image-pull-failed`.
    """
    from nimctl.cli.proofs.images import image_name
    from nimctl.registry.artifacts import signatures_of
    from nimctl.registry.credentials import config_folder, stored_or_key
    from nimctl.registry.pushing import push_signature
    from nimctl.registry.reference import parse
    from nimctl.trust.judging import Expected, judge
    from nimctl.trust.signing import sign_image

    reference, name = parse(image), image_name(image)
    login, _ = stored_or_key(reference.registry, config_folder(), os.environ)
    there = signatures_of(reference, [digest], login)

    def lies_there(new: Material) -> bool:
        alike = [each for each in there if each.kind == new.kind]
        return judge(alike, Expected((digest,), name), [key.public], ()).verdict == "good"

    missing = [material for material in sign_image(key, name, digest) if not lies_there(material)]
    return [push_signature(reference, login, material) for material in missing]
