"""The last words of a server or an action: one block for people, one line of JSON for machines."""

import traceback
from collections.abc import Mapping
from typing import Any

from entrypoint.observability.journal import Journal
from nimctl.core.errors import NimctlError

_FRAME_LINES = 20


def bug(error: BaseException | None) -> NimctlError:
    """An exception that nobody translated, as an error of the catalogue, with the end of its traceback."""
    frames = "".join(traceback.format_exception(error)).splitlines() if error is not None else []
    return NimctlError(
        "internal",
        f"an unexpected {type(error).__name__}",
        cause=str(error) or "it says nothing more",
        fix="This is a bug in nimctl: please report it with these lines.",
        evidence=tuple(frames[-_FRAME_LINES:]),
    )


def tell(error: NimctlError, journal: Journal, more: Mapping[str, Any] | None = None) -> None:
    """One block for people on stderr, one JSON line for machines as the last line on stdout; `more` is for these."""
    journal.failure(error, more or {})
