"""One repository of a registry, opened once: small things are read from it and written to it.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urljoin

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import DIGEST
from nimctl.registry.client import authorization, connect
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.reference import Reference
from nimctl.registry.transport import Response, send

TRIES = 3
_PAUSE = 0.5  # seconds before the second try, twice that before the third

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True)
class Repository:
    """Where requests about one repository go. `headers` open it and hold a token: never shown."""

    reference: Reference
    login: Login | None
    base: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Repository({self.base})"

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> Response:
        """One request below the repository (or to the absolute URL that the registry gave), tried up to TRIES times.

        Answers of 500 and above and lost connections are tried again. Raises `image-pull-failed`.
        """
        url = urljoin(f"{self.base}/", path)
        # a registry names where uploads go; the token belongs to its own host alone
        opened = dict(self.headers) if url.startswith(f"{self.base.partition('/v2/')[0]}/") else {}
        for attempt in range(TRIES):
            last = attempt == TRIES - 1
            try:
                answer = send(method, url, {**opened, **(headers or {})}, data=data)
            except NimctlError as error:
                if last or error.id != "image-pull-failed":
                    raise
            else:
                if last or answer.status < 500:
                    return answer
            time.sleep(_PAUSE * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def refused(self, answer: Response) -> NimctlError:
        """The error for an answer that is not what was asked for."""
        return denial(self.reference.registry, answer, self.login, self.reference)

    def document(self, path: str, accept: str) -> tuple[bytes, dict[str, Any]] | None:
        """A JSON object at `path`: its bytes and what they hold; None where there is none (404).

        What is asked for by digest must have it. Raises `image-pull-failed` and what the registry's refusal means.
        """
        answer = self.ask("GET", path, {"Accept": accept})
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self.refused(answer)
        self._require_digest(path, answer.body)
        return answer.body, self.parsed(answer.body)

    def blob(self, digest: str) -> bytes:
        """A small blob, whose bytes have that digest. Raises `image-pull-failed` and what a refusal means."""
        answer = self.ask("GET", f"blobs/{digest}")
        if answer.status != 200:
            raise self.refused(answer)
        self._require_digest(f"blobs/{digest}", answer.body)
        return answer.body

    def parsed(self, body: bytes) -> dict[str, Any]:
        """The JSON object in `body`. Raises `image-pull-failed`."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise NimctlError(
                "image-pull-failed",
                f"{self.reference.registry} gave no usable answer",
                cause="a JSON object was asked for, and its answer is none",
                fix="Try again; if it stays, a proxy or mirror on the way serves wrong content.",
            )
        return document

    def _require_digest(self, path: str, body: bytes) -> None:
        wanted = path.rpartition("/")[2]
        if DIGEST.fullmatch(wanted) and wanted != digest_of(body):
            raise NimctlError(
                "image-pull-failed",
                f"{self.reference.registry} answered with other bytes than it should",
                cause=f"{path} was asked for, and the answer has {digest_of(body)}",
                fix="Try again; if it stays, a proxy or mirror on the way serves wrong content.",
            )


def open_repository(reference: Reference, login: Login | None, access: Literal["pull", "pull,push"]) -> Repository:
    """The repository of `reference`, opened for `access`.

    Raises `image-pull-failed`, `key-missing`, `key-refused` and what else a refusal means.
    """
    endpoint = connect(reference.registry)
    scope = f"repository:{reference.repository}:{access}"
    headers = authorization(endpoint, login, scope=scope, reference=reference)
    return Repository(reference, login, f"{endpoint.base}/v2/{reference.repository}", headers)


def digest_of(data: bytes) -> str:
    """The digest by which a registry names these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
