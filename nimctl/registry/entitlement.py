"""May this key pull this image, and which bytes would it get? Asked of the manifest; no blob is touched.

One probe for the doctor and for whoever wants to know before a pull. It asks for the head of the manifest, and for the
body only where that is an index: Docker Hub counts bodies as pulls (https://docs.docker.com/docker-hub/usage/pulls/).
"""

from dataclasses import dataclass
from typing import Literal

from nimctl.core.bounded import within
from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import DIGEST
from nimctl.registry import manifests
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.manifests import ACCEPT, MANIFESTS, Index
from nimctl.registry.reference import Reference
from nimctl.registry.session import enter
from nimctl.registry.transport import Response

Verdict = Literal[
    "granted",
    "keyless",
    "key-missing",
    "key-refused",
    "organisation-wrong",
    "terms-not-accepted",
    "payment-required",
    "not-found",
    "architecture-missing",
    "rate-limited",
    "clock-wrong",
    "unusable",
    "no-answer",
]
_BY_ERROR: dict[str, Verdict] = {
    "key-missing": "key-missing",
    "key-refused": "key-refused",
    "organisation-wrong": "organisation-wrong",
    "terms-not-accepted": "terms-not-accepted",
    "payment-required": "payment-required",
    "image-not-found": "not-found",
    "platform-missing": "architecture-missing",
    "image-rate-limited": "rate-limited",
    "clock-wrong": "clock-wrong",
    "image-incompatible": "unusable",
}


@dataclass(frozen=True)
class Entitlement:
    """What the registry said about an image.

    `granted`: this login may pull it; `keyless`: anybody may. Then `digest` is what its name stands for, and `platform`
    the one that was asked for, or None where that is not known without a blob (an image without an index). Else `error`
    says what is wrong and the way out; `unusable`: it is no image; `no-answer`: the registry did not say.
    """

    verdict: Verdict
    digest: str | None = None
    platform: str | None = None
    error: NimctlError | None = None


def probe(
    reference: Reference, credentials: Login | None, platform: str, *, seconds: float | None = None
) -> Entitlement:
    """Ask whether `credentials` (None: nobody's) open `reference` for `platform` ("linux/amd64"); never raises.

    `seconds` bounds the whole of it, the look-up of the registry's name included.
    """
    try:
        if seconds is None:
            digest, known = _asked(reference, credentials, platform)
        else:
            late = f"no answer about {reference}"
            digest, known = within(seconds, lambda: _asked(reference, credentials, platform), late)
    except NimctlError as error:
        return Entitlement(_BY_ERROR.get(error.id, "no-answer"), error=error)
    except TimeoutError as error:
        return Entitlement("no-answer", error=_slow(reference, str(error)))
    return Entitlement("granted" if credentials else "keyless", digest, platform if known else None)


def resolve_digest(reference: Reference, credentials: Login | None) -> str:
    """The digest ("sha256:...") that `reference` stands for now, which also proves that it may be pulled.

    `credentials` is the user and the key, None for an anonymous pull. Raises `key-missing`, `key-refused`,
    `organisation-wrong`, `terms-not-accepted`, `payment-required`, `image-not-found`, `image-rate-limited`,
    `clock-wrong`, `image-pull-failed`.
    """
    return _asked(reference, credentials, None)[0]


def _asked(reference: Reference, credentials: Login | None, platform: str | None) -> tuple[str, bool]:
    """The digest, and whether `platform` is known to be in it. Raises as `resolve_digest`, and for what it is."""
    path = f"manifests/{reference.target}"
    session = enter(reference, credentials)
    answer = session.ask(path, ACCEPT, method="HEAD")
    if answer.status == 429 or answer.status >= 500:  # its words are not worth another request
        raise denial(reference.registry, answer, credentials, reference)
    digest = answer.headers.get("docker-content-digest", "")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    readable = platform is not None and kind not in MANIFESTS
    if answer.status != 200 or not DIGEST.fullmatch(digest) or readable:
        answer = session.ask(path, ACCEPT)  # for the words of the refusal, the digest, or the platforms
        if answer.status != 200:
            raise denial(reference.registry, answer, credentials, reference)
        digest = _computed(reference, answer)
    if reference.digest and digest != reference.digest:
        raise _other(reference, f"it was asked for {reference.digest} and answered with {digest}")
    if platform is None or not answer.body:
        return digest, False
    found = manifests.read(answer.body, answer.headers.get("content-type", ""), str(reference))
    if isinstance(found, Index):
        manifests.choose(found, platform, str(reference))
    return digest, isinstance(found, Index) and all(entry.platform for entry in found.entries)


def _computed(reference: Reference, answer: Response) -> str:
    digest = manifests.digest_of(answer.body)
    claimed = answer.headers.get("docker-content-digest", digest)
    if claimed != digest:
        raise _other(reference, f"the manifest has {digest}, and the registry says {claimed}")
    return digest


def _other(reference: Reference, cause: str) -> NimctlError:
    return NimctlError(
        "image-pull-failed",
        f"{reference.registry} answered with another manifest than it should",
        cause=cause,
        fix="Try again; if it stays, a proxy or mirror on the way serves wrong content.",
    )


def _slow(reference: Reference, late: str) -> NimctlError:
    return NimctlError(
        "image-pull-failed",
        f"{reference.registry} is too slow to say whether {reference} may be pulled",
        cause=late,
        fix="Check the network, DNS, HTTPS_PROXY and NO_PROXY; a pull waits longer than this look.",
    )
