"""The content of a repository by its digest: streamed from any offset, or read whole where it is small."""

import hashlib
from collections.abc import Iterator

from nimctl.core.errors import NimctlError
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.manifests import digest_of
from nimctl.registry.reference import Reference
from nimctl.registry.session import Session, enter
from nimctl.registry.transport import Incoming, receive

BLOCK = 1 << 20  # bytes


def open_blob(
    reference: Reference, digest: str, login: Login | None, *, offset: int = 0, session: Session | None = None
) -> Iterator[bytes]:
    """The bytes of `digest` from `offset` on, in blocks, as they come; the caller tries again with a later offset.

    From the start they are hashed, and other bytes than promised are `image-tampered`, raised after the last block;
    a caller that goes on from an offset hashes by itself. `session` spares the token request. Raises
    `image-pull-failed` when the registry fails or the bytes end early, and what a refusal means.
    """
    session = session or enter(reference, login)
    headers = {**session.headers, "Range": f"bytes={offset}-"} if offset else dict(session.headers)
    with receive(session.url(f"blobs/{digest}"), headers) as incoming:
        skip = _start(incoming, offset, session, digest)
        hashed = hashlib.sha256()
        for block in incoming.blocks(BLOCK):
            kept = block[skip:]
            skip -= len(block) - len(kept)
            hashed.update(kept)
            if kept:
                yield kept
    if offset == 0 and f"sha256:{hashed.hexdigest()}" != digest:
        raise tampered(str(reference), digest, f"sha256:{hashed.hexdigest()}")


def read_blob(session: Session, digest: str, *, limit: int) -> bytes:
    """The whole of a small blob, at most `limit` bytes (and those of the transport). Raises as `open_blob`."""
    answer = session.get(f"blobs/{digest}")
    if len(answer.body) > limit:
        raise _failed(session.reference, f"{digest} has {len(answer.body)} bytes, and {limit} are expected at most")
    if (found := digest_of(answer.body)) != digest:
        raise tampered(str(session.reference), digest, found)
    return answer.body


def tampered(name: str, promised: str, found: str) -> NimctlError:
    """The error for bytes that are not those of their digest."""
    return NimctlError(
        "image-tampered",
        f"a part of {name} is not what it should be",
        cause=f"its bytes should have {promised}, and those that arrived have {found}",
        fix="Nothing of it is used. If it stays so: a proxy or mirror on the way changes content, or the registry's "
        "disk is damaged.",
    )


def _start(incoming: Incoming, offset: int, session: Session, digest: str) -> int:
    """How many bytes to leave out at the start: those of a registry that ignores ranges and sends all again."""
    if incoming.response.status == 200:
        return offset
    if incoming.response.status != 206 or not offset:
        raise denial(session.reference.registry, incoming.response, session.login, session.reference)
    told = incoming.response.headers.get("content-range", "")
    if not told.startswith(f"bytes {offset}-"):
        raise _failed(session.reference, f"asked for {digest} from byte {offset} on, it answered {told or 'no range'}")
    return 0


def _failed(reference: Reference, cause: str) -> NimctlError:
    return NimctlError(
        "image-pull-failed",
        f"{reference.registry} gave no usable answer about {reference}",
        cause=cause,
        fix="Try again; if it stays, a proxy or mirror on the way answers wrongly.",
    )
