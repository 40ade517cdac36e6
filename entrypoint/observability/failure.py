"""The last words of a server or an action: one block for people, one line of JSON for machines."""

import traceback
from collections.abc import Mapping
from typing import Any

from entrypoint.observability.journal import Journal
from nimctl.core.errors import NimctlError


def bug(error: BaseException | None) -> NimctlError:
    """An exception that nobody translated, as an error of the catalogue; its traceback goes to stderr."""
    traceback.print_exception(error)
    return NimctlError(
        "internal",
        f"an unexpected {type(error).__name__}",
        cause=str(error) or "it says nothing more",
        fix="This is a bug in nimctl: please report it with the traceback above.",
    )


def tell(error: NimctlError, journal: Journal, more: Mapping[str, Any] | None = None) -> None:
    """One block for people on stderr, one JSON line for machines as the last line on stdout; `more` is for these."""
    journal.failure(error, more or {})
