"""Small documents of one repository, read and written.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import DIGEST
from nimctl.registry.blobs import tampered
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.manifests import digest_of
from nimctl.registry.reference import Reference
from nimctl.registry.session import Session, enter
from nimctl.registry.transport import Response

EMPTY = "application/vnd.oci.empty.v1+json"


@dataclass(frozen=True)
class Repository:
    """A repository that has let this login in; its token is never shown."""

    session: Session = field(repr=False)

    @property
    def reference(self) -> Reference:
        """The image by whose name it was opened."""
        return self.session.reference

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> Response:
        """As `Session.ask`."""
        return self.session.ask(path, method=method, headers=headers or {}, data=data)

    def refused(self, answer: Response) -> NimctlError:
        """The error for an answer that is not what was asked for."""
        return denial(self.reference.registry, answer, self.session.login, self.reference)

    def document(self, path: str, accept: str) -> tuple[bytes, dict[str, Any]] | None:
        """A JSON object at `path`: its bytes and what they hold; None where there is none (404).

        What is asked for by digest must have it. Raises `image-tampered`, `image-pull-failed` and what a refusal means.
        """
        answer = self.ask("GET", path, {"Accept": accept})
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self.refused(answer)
        self._require_digest(path, answer.body)
        return answer.body, self.parsed(answer.body)

    def blob(self, digest: str) -> bytes:
        """A small blob, whose bytes have that digest. Raises `image-tampered` and what a refusal means."""
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
        if DIGEST.fullmatch(wanted) and wanted != (found := digest_of(body)):
            raise tampered(str(self.reference), wanted, found)


def open_repository(reference: Reference, login: Login | None, access: Literal["pull", "pull,push"]) -> Repository:
    """The repository of `reference`, opened for `access`.

    Raises `image-pull-failed`, `key-missing`, `key-refused` and what else a refusal means.
    """
    return Repository(enter(reference, login, actions=access))
