"""NGC's keys and tokens: a personal key is sent as it is, an older one is exchanged for a token of some minutes.

Exchange: https://docs.nvidia.com/ngc/gpu-cloud/ngc-catalog-user-guide/index.html#download-models-via-wget-authenticated-access
"""

import threading
from urllib.parse import urlencode

from nimctl.core.fetch import http, retry
from nimctl.core.fetch.retry import Patience
from nimctl.core.fetch.sources import listing, ngc_errors
from nimctl.core.secret import Secret

_PERSONAL = "nvapi-"
_USER = "$oauthtoken"


class Login:
    """The bearer for requests within `group` ("org" or "org/team"). May be used by many threads."""

    def __init__(self, endpoint: str, group: str, key: Secret, client: http.Client) -> None:
        self._endpoint = endpoint
        self._group = group
        self._key = key
        self._client = client
        self._token: Secret | None = key if key.reveal().startswith(_PERSONAL) else None
        self._lock = threading.Lock()

    def bearer(self, patience: Patience) -> Secret:
        """What to send; asks for a token where there is none yet. Raises `key-refused`, `weights-source-failed`."""
        with self._lock:
            if self._token is None:
                self._token = self._exchanged(patience)
            return self._token

    def renewed(self, stale: Secret, patience: Patience) -> Secret | None:
        """Another bearer than `stale`, which was refused; None for a personal key, in whose place there is none."""
        if stale == self._key:
            return None
        with self._lock:
            if self._token is None or self._token == stale:
                self._token = self._exchanged(patience)
            return self._token

    def _exchanged(self, patience: Patience) -> Secret:
        base = self._endpoint if self._endpoint.endswith("/token") else f"{self._endpoint}/token"
        url = f"{base}?{urlencode({'service': 'ngc', 'scope': f'group/ngc:{self._group}'})}"
        headers = {**http.basic(_USER, self._key), "Accept": "application/json"}
        answer = retry.persist(lambda: self._client.get(url, headers=headers), "a token from NGC", patience)
        if clock := listing.clock_problem(answer):
            raise clock
        said = listing.words_of(answer, ("requestStatus", "statusDescription", "error", "detail"), [self._key])
        if answer.status in (400, 401, 403):
            raise ngc_errors.key_refused(answer.url, said)
        if answer.status != 200:
            raise listing.refused(answer.url, said)
        token: str = listing.member(answer.json(), "token", str, answer.url)
        return Secret(token)
