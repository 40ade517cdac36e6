"""One repository of a registry, entered: where it is asked, and the header that opens it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from nimctl.registry.client import authorization, connect
from nimctl.registry.denial import denial
from nimctl.registry.login import Login
from nimctl.registry.patience import send_patiently
from nimctl.registry.reference import Reference
from nimctl.registry.stale import is_stale, stale
from nimctl.registry.transport import Response, address


@dataclass(frozen=True)
class Session:
    """A repository that lets this login in. `headers` hold a token that lives for minutes: enter again later."""

    reference: Reference
    login: Login | None
    base: str
    headers: Mapping[str, str]
    actions: str = "pull"

    def url(self, path: str) -> str:
        """The address of `manifests/<tag or digest>`, `blobs/<digest>`, `referrers/<digest>`."""
        return f"{self.base}/v2/{self.reference.repository}/{path}"

    def ask(
        self,
        path: str,
        accept: str = "*/*",
        *,
        method: str = "GET",
        headers: Mapping[str, str] = MappingProxyType({}),
        data: bytes | None = None,
    ) -> Response:
        """The answer of any status to a request below the repository, or to an absolute URL that the registry gave.

        Tried again where the registry stumbles, and with a fresh token where this one is not taken any more. Raises
        `image-pull-failed` when no answer comes, `clock-wrong`.
        """
        url = address(self.url(""), path)
        # a registry names where uploads go; the token belongs to its own host alone
        own = url.startswith(f"{self.base}/")
        opened = self.headers if own else {}
        more = {"Accept": accept, **headers}
        answer = send_patiently(method, url, {**opened, **more}, data=data)
        if not is_stale(answer, opened):
            return answer
        opened = enter(self.reference, self.login, actions=self.actions).headers
        answer = send_patiently(method, url, {**opened, **more}, data=data)
        if is_stale(answer, opened):
            raise stale(self.reference.registry, answer, opened, datetime.now(UTC))
        return answer

    def get(self, path: str, accept: str = "*/*") -> Response:
        """The answer of status 200. Raises what a refusal means: `key-*`, `terms-*`, `image-not-found` and others."""
        answer = self.ask(path, accept)
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
    return Session(reference, login, endpoint.base, headers, actions)
