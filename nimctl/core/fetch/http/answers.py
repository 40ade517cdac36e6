"""What servers answer, and what is read by ranges."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nimctl.core.errors import NimctlError


@dataclass(frozen=True)
class Answer:
    """A small document: `headers` by lower-case name; `url` is the one that answered, without its query."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> Any:
        """The body as JSON. Raises `weights-source-failed`."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise NimctlError(
                "weights-source-failed",
                f"{self.url} did not answer with JSON",
                cause=f"status {self.status}, content type {self.headers.get('content-type', 'not given')}",
                fix="Check the endpoint; a login page of a proxy or portal may answer in its place.",
            ) from error


class Denied(Exception):  # noqa: N818 (an answer, which the source turns into an error)
    """The server's final no to a range: what the status means is for the source to say."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.url} answered {answer.status}")
        self.answer = answer


class Target:
    """Where one file is read from: the address that its source gave, and the signed one that it redirected to.

    `exact` is for a file whose digest nobody knows: an answer with another ETag is then taken for another file, so that
    no file is put together from two.
    """

    def __init__(self, url: str, *, size: int, headers: Mapping[str, str] | None = None, exact: bool = False) -> None:
        self.url = url
        self.size = size
        self.exact = exact
        self.headers = dict(headers or {})  # secret values allowed: sent to the origin of `url` alone, never shown
        self.location: str | None = None
        self.etag: str | None = None
        self.lock = threading.Lock()
