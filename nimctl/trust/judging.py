"""The judgement: do these signatures prove the bytes that will start? Pure: keys and checks come in as arguments.

A signature counts for a digest from which the bytes follow: the manifest of the platform, or the index, where the
bytes of the index are at hand and list that manifest. Whose signature it is, is settled before a word of what it says
is believed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nimctl.core.image_identity import ImageIdentity
from nimctl.core.signatures import MAX_MATERIALS, Material
from nimctl.trust.claims import (
    Claim,
    Envelope,
    MalformedError,
    read_base64,
    read_bundle,
    read_json,
    read_simple,
    read_statement,
)
from nimctl.trust.policy import plain_name

Verdict = Literal[
    "good",
    "other-digest",
    "other-repository",
    "wrong-identity",
    "expired-certificate",
    "wrong-key",
    "malformed",
    "unsupported",
    "none",
    "no-rule",
    "built-here",
    "unknown",
    "off",
]

# The more a signature got right, the more it explains: the best one gives the verdict of all.
_RANK: tuple[Verdict, ...] = (
    "good",
    "other-digest",
    "other-repository",
    "wrong-identity",
    "expired-certificate",
    "wrong-key",
    "unsupported",
    "malformed",
    "none",
)
_PLATFORMS = (
    "unknown/unknown",  # attestations
    *(f"linux/{name}" for name in ("386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x")),
    "windows/amd64",
)
_CERTIFICATE = "dev.sigstore.cosign/certificate"


class Key(Protocol):
    """A trusted public key."""

    def signed(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is this key's signature of `data`."""


class RefusedError(Exception):
    """A keyless signature that is not to be believed: the verdict, and why in words."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        super().__init__(why)
        self.verdict: Verdict = verdict


# Takes a bundle's JSON and returns the payload that it proves, and whose it is; raises RefusedError.
Keyless = Callable[[bytes], tuple[bytes, str]]


@dataclass(frozen=True)
class Judgement:
    """The verdict about an image. `digest` is the one that was signed, `by` who signed it: both only when good.

    `why` explains any other verdict, `seen` is how many signatures there were.
    """

    verdict: Verdict
    why: str
    digest: str | None = None
    by: str | None = None
    seen: int = 0


@dataclass(frozen=True)
class Expected:
    """What a signature has to be about: the digests that prove the bytes, and the repository that it may name.

    `repository` None: the rule accepts any.
    """

    digests: tuple[str, ...]
    repository: str | None


def proving_digests(identity: ImageIdentity, documents: Sequence[bytes]) -> tuple[str, ...]:
    """The digests whose signature proves the bytes of `identity`.

    That is its manifest; where that is not known (an image that the engine has already), the digest under which the
    engine keeps it. `documents` are the bytes of indexes and manifests: a manifest with the configuration of
    `identity` proves it as well, so does the one manifest for the platform of the index under which an engine keeps it,
    and so does an index that lists a digest that does. `identity` is what an engine, a registry or such bytes say,
    never what a lock claims.
    """
    proving = [digest for digest in (identity.manifest or identity.digest,) if digest]
    read = [(f"sha256:{hashlib.sha256(data).hexdigest()}", _document(data)) for data in documents]
    if identity.config is not None and identity.manifest is None:
        proving += [digest for digest, document in read if _named(document.get("config")) == identity.config]
    if identity.config is None and identity.manifest is None:
        taken = [_only(document, identity.platform) for digest, document in read if digest == identity.digest]
        proving += filter(None, taken)
    for digest, document in read:
        if any(_named(entry) in proving for entry in _entries(document)):
            proving.append(digest)
    return tuple(dict.fromkeys(proving))


def _entries(document: dict[str, Any]) -> list[Any]:
    listed = document.get("manifests")
    return listed if isinstance(listed, list) else []


def _only(index: dict[str, Any], platform: str) -> str | None:
    """The digest that an engine can only have taken from an index; None where there is a choice.

    An entry counts as another platform's where it says so in the usual words alone: engines know more names for one
    (`x86_64`) and weigh variants, https://github.com/containerd/platforms/blob/main/database.go
    """
    found = set()
    for entry in _entries(index):
        named = entry.get("platform") if isinstance(entry, dict) else None
        where = named if isinstance(named, dict) else {}
        said = f"{where.get('os')}/{where.get('architecture')}"
        if said not in _PLATFORMS or said == "/".join(platform.split("/")[:2]):
            found.add(_named(entry))
    return found.pop() if len(found) == 1 else None


def judge(
    materials: Sequence[Material], expected: Expected, keys: Sequence[Key], keyless: Sequence[Keyless]
) -> Judgement:
    """The verdict about all signatures together: good if one of them is. At most MAX_MATERIALS are looked at."""
    found: list[Judgement] = []
    for material in materials[:MAX_MATERIALS]:
        try:
            one = _judge_one(material, expected, keys, keyless)
        except MalformedError as error:
            one = Judgement("malformed", f"a signature cannot be read: {error}")
        except RefusedError as error:
            one = Judgement(error.verdict, str(error))
        if one is not None:
            found.append(one)
        if one is not None and one.verdict == "good":
            break
    if not found:
        return Judgement("none", "there is no signature beside the image")
    best = min(found, key=lambda judgement: _RANK.index(judgement.verdict))
    return Judgement(best.verdict, best.why, best.digest, best.by, len(materials))


def _judge_one(
    material: Material, expected: Expected, keys: Sequence[Key], keyless: Sequence[Keyless]
) -> Judgement | None:
    """The verdict about one signature; None for an attestation, which is none."""
    claim: Claim | None
    if material.kind == "simple-signing":
        by = _signer(keys, read_base64(material.signature, "its signature"), material.payload)
        if by is None:
            return _unsigned(material, keyless)
        claim = read_simple(material.payload)
    else:
        envelope = read_bundle(material.payload)
        payload, by = _opened(material.payload, envelope, keys, keyless)
        if by is None:
            about = read_statement(payload)  # not believed: only whether it means to be a signature at all
            return Judgement("wrong-key", "no key that is trusted for it made the signature") if about else None
        claim = read_statement(payload)
    return None if claim is None else _about(claim, by, expected)


def _signer(keys: Sequence[Key], signature: bytes, data: bytes) -> str | None:
    return next((str(key) for key in keys if key.signed(signature, data)), None)


def _unsigned(material: Material, keyless: Sequence[Keyless]) -> Judgement:
    if _CERTIFICATE in material.annotations and keyless:
        return Judgement(
            "unsupported",
            "it is signed keyless in cosign's older form, which lacks the proof that the log includes it",
        )
    return Judgement("wrong-key", "no key that is trusted for it made the signature")


def _opened(
    bundle: bytes, envelope: Envelope, keys: Sequence[Key], keyless: Sequence[Keyless]
) -> tuple[bytes, str | None]:
    if not envelope.keyless:
        return envelope.payload, _signer(keys, envelope.signature, envelope.signed)
    refusals: list[RefusedError] = []
    for check in keyless:
        try:
            return check(bundle)
        except RefusedError as error:
            refusals.append(error)
    if refusals:
        raise min(refusals, key=lambda error: _RANK.index(error.verdict))
    return envelope.payload, None


def _about(claim: Claim, by: str, expected: Expected) -> Judgement:
    matching = [(digest, named) for digest, named in claim.images if digest in expected.digests]
    if not matching:
        return Judgement("other-digest", f"{by} signed {claim.images[0][0]}, which is another image")
    for digest, named in matching:
        if named is None or expected.repository in (None, plain_name(named)):
            return Judgement("good", f"signed by {by}", digest, by)
    named = matching[0][1] or "no repository"
    return Judgement("other-repository", f"{by} signed it as {named}, not as {expected.repository}")


def _document(data: bytes) -> dict[str, Any]:
    """An index or manifest; empty where it is none, as then nothing follows from it."""
    try:
        return read_json(data)
    except MalformedError:
        return {}


def _named(entry: Any) -> str | None:
    """The digest that an entry of an index, or a manifest's configuration, names."""
    digest = entry.get("digest") if isinstance(entry, dict) else None
    return digest if isinstance(digest, str) else None
