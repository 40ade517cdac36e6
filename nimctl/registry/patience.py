"""Trying again: a registry that stumbles for a second is no reason to give up."""

import time
from collections.abc import Mapping

from nimctl.core.errors import NimctlError
from nimctl.registry.transport import Response, send

TRIES = 3
_PAUSE = 0.5  # seconds before the second try, twice that before the third


def send_patiently(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    data: bytes | None = None,
    lost: bool = True,
) -> Response:
    """As `send`; answers of 500 and above and, where `lost`, lost connections are tried again, up to TRIES times."""
    for attempt in range(TRIES):
        last = attempt == TRIES - 1
        try:
            answer = send(method, url, headers, data=data)
        except NimctlError as error:
            if last or not lost or error.id != "image-pull-failed":
                raise
        else:
            if last or answer.status < 500:
                return answer
        time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("the last try returns or raises")
