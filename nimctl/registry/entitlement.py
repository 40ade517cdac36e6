"""May this key pull this image, and which bytes would it get? Asked of the manifest; no layer is touched."""

import hashlib
import re

from nimctl.core.errors import NimctlError
from nimctl.registry.client import authorization, connect
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.reference import Reference
from nimctl.registry.transport import Response, send

# Indexes first: the digest of a multi-platform image is that of its index.
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def resolve_digest(reference: Reference, credentials: Login | None) -> str:
    """The digest ("sha256:...") that `reference` stands for now, which also proves that it may be pulled.

    `credentials` is the user and the key, None for an anonymous pull. Raises `key-missing`, `key-refused`,
    `terms-not-accepted`, `payment-required`, `image-not-found`, `image-pull-failed`.
    """
    endpoint = connect(reference.registry)
    scope = f"repository:{reference.repository}:pull"
    opened = authorization(endpoint, credentials, scope=scope, reference=reference)
    headers = {**opened, "Accept": ACCEPT}
    url = f"{endpoint.base}/v2/{reference.repository}/manifests/{reference.target}"
    answer = send("HEAD", url, headers)
    digest = answer.headers.get("docker-content-digest", "")
    if answer.status != 200 or not _DIGEST.fullmatch(digest):
        answer = send("GET", url, headers)  # for the words of the refusal, or to compute the digest
        if answer.status != 200:
            raise denial(reference.registry, answer, credentials, reference)
        digest = _computed(reference, answer)
    if reference.digest and digest != reference.digest:
        raise _other(reference, f"it was asked for {reference.digest} and answered with {digest}")
    return digest


def _computed(reference: Reference, answer: Response) -> str:
    digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
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
