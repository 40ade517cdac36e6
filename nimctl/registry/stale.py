"""Tokens that a registry no longer takes, or not yet: whose clock is wrong.

A token's times are those of the service that gave it, and the registry compares them with its own clock. Docker Hub
refused fresh tokens for a second of difference: https://github.com/docker/hub-feedback/issues/647.
"""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from nimctl.core.errors import NimctlError
from nimctl.registry.denial import challenge_error
from nimctl.registry.transport import Response


def is_stale(answer: Response, headers: Mapping[str, str]) -> bool:
    """Whether the registry refused the token itself, and not what it was shown for; a fresh one may do."""
    return answer.status == 401 and challenge_error(answer) == "invalid_token" and "Authorization" in headers


def stale(registry: str, answer: Response, headers: Mapping[str, str], now: datetime) -> NimctlError:
    """The error for a fresh token that is refused as well: `clock-wrong` where its times say so."""
    there = _date(answer)
    begins, ends = _times(headers.get("Authorization", "").rpartition(" ")[2])
    shown = [f"{registry}'s clock: {_text(there)}", f"this machine's clock: {_text(now)}"]
    if there and ((begins and begins > there) or (ends and ends <= there)):
        word = f"is valid from {_text(begins)} on" if begins and begins > there else f"has expired at {_text(ends)}"
        return NimctlError(
            "clock-wrong",
            f"the clocks of {registry} and of its token service differ",
            cause=f"a token that was made this second {word}, and {registry}'s clock shows {_text(there)}",
            fix=f"Tell who runs {registry} to set both clocks (NTP), or try again in a while.",
            evidence=shown,
        )
    return NimctlError(
        "image-pull-failed",
        f"{registry} refuses the token that its own token service gave",
        cause="it calls a token invalid that was made this second, and so a second one",
        fix="Try again in a while; if it stays, tell who runs the registry.",
        evidence=shown,
    )


def _date(answer: Response) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _times(token: str) -> tuple[datetime | None, datetime | None]:
    """From when until when a JWT is valid (RFC 7519); its signature is for the registry to check."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return _time(claims.get("nbf")), _time(claims.get("exp"))
    except (IndexError, ValueError, AttributeError):
        return None, None


def _time(claim: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(claim, UTC) if isinstance(claim, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None


def _text(when: datetime | None) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC") if when else "not told"
