"""One repository of a registry, entered: where it is asked, and the header that opens it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from nimctl.registry.client import authorization, connect
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.reference import Reference
from nimctl.registry.stale import is_stale, stale
from nimctl.registry.transport import Response, send


@dataclass(frozen=True)
class Session:
    """A repository that lets this login in. `headers` hold a token that lives for minutes: enter again later."""

    reference: Reference
    login: Login | None
    base: str
    headers: Mapping[str, str]

    def url(self, path: str) -> str:
        """The address of `manifests/<tag or digest>`, `blobs/<digest>`, `referrers/<digest>`."""
        return f"{self.base}/v2/{self.reference.repository}/{path}"

    def ask(self, path: str, accept: str = "*/*", *, method: str = "GET") -> Response:
        """The answer of any status, redirects followed. Raises `image-pull-failed` when none comes."""
        return send(method, self.url(path), {**self.headers, "Accept": accept})

    def ask_again(self, path: str, accept: str = "*/*", *, method: str = "GET") -> Response:
        """As `ask`, and once more with a fresh token where this one is not taken. Raises `clock-wrong`."""
        answer = self.ask(path, accept, method=method)
        if not is_stale(answer, self.headers):
            return answer
        fresh = enter(self.reference, self.login)
        answer = fresh.ask(path, accept, method=method)
        if is_stale(answer, fresh.headers):
            raise stale(self.reference.registry, answer, fresh.headers, datetime.now(UTC))
        return answer

    def get(self, path: str, accept: str = "*/*") -> Response:
        """The answer of status 200. Raises what a refusal means: `key-*`, `terms-*`, `image-not-found` and others."""
        answer = self.ask_again(path, accept)
        if answer.status != 200:
            raise denial(self.reference.registry, answer, self.login, self.reference)
        return answer


def enter(reference: Reference, login: Login | None, *, actions: str = "pull") -> Session:
    """Ask the registry for a token of `actions` ("pull", "pull,push") on the repository of `reference`.

    Raises as `authorization` does, and `image-pull-failed` when no registry answers.
    """
    endpoint = connect(reference.registry)
    scope = f"repository:{reference.repository}:{actions}"
    headers = authorization(endpoint, login, scope=scope, reference=reference)
    return Session(reference, login, endpoint.base, headers)
