"""Comparing version numbers that drivers, engines and distributions write in their own ways."""

import re

_NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")
# What distributions append to an upstream version whose fixes they carry back: 1.1.5+ds1-1+deb12u1, 1.18.1-0ubuntu1.
_REBUILT = re.compile(r"\+|~|ubuntu|deb|\.el\d|\.fc\d|\.amzn|dfsg", re.IGNORECASE)


def numbers(text: str | None) -> tuple[int, ...] | None:
    """The leading dotted numbers of a version, as in "580.95.05" or "24.0.9-1"; None when there are none.

    A development build such as "0.0.0-dev" says nothing about its age, and gives None as well.
    """
    found = _NUMBERS.match(text.strip()) if text else None
    if found is None or len(found[1]) > 100:  # int() of a hostile length would be slow
        return None
    parts = tuple(int(part) for part in found[1].split("."))
    return parts if any(parts) else None


def at_least(text: str | None, minimum: str) -> bool | None:
    """Whether a version is `minimum` or later; None when it cannot be told."""
    have, want = numbers(text), numbers(minimum)
    if have is None or want is None:
        return None
    length = max(len(have), len(want))
    return have + (0,) * (length - len(have)) >= want + (0,) * (length - len(want))


def is_rebuilt(text: str) -> bool:
    """Whether a distribution built this version, so that its number does not tell which fixes are in it."""
    return _REBUILT.search(text) is not None
