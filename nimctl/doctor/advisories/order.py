"""The order of released versions, as drivers, Go modules, Python packages and Debian write them."""

import re
from functools import cache
from itertools import zip_longest

# 580.95.05, v1.17, 1.4.0-rc.3, 1.0.0-rc93, 0.11.0rc2, 2.2.0-beta.0, 0.8.5.post1, 1.17.0~rc.2; then a package's own
# revision (-1) and the build of a wheel (+cu129), neither of which changes what the release holds.
_RELEASE = re.compile(
    r"v?(?P<numbers>\d+(?:\.\d+)*)"
    r"(?:[-~.]?(?P<stage>alpha|beta|a|b|rc)[-.]?(?P<turn>\d*))?"
    r"(?:[-.]?post(?P<post>\d+))?"
    r"(?:-(?P<revision>\d{1,3}))?"
    r"(?:\+(?:cu\d+|cpu|rocm[\d.]*))?",
    re.IGNORECASE,
)
_STAGES = {"a": -3, "alpha": -3, "b": -2, "beta": -2, "rc": -1}
_LONGEST = 100  # characters; int() of a hostile length would be slow

Key = tuple[tuple[int, ...], int, int, int]


@cache
def key(version: str) -> Key | None:
    """A sort key; None for what is no release: development and distribution builds, and what has no number."""
    found = _RELEASE.fullmatch(version.strip()) if len(version) <= _LONGEST else None
    if found is None:
        return None
    numbers = [int(part) for part in found["numbers"].split(".")]
    while numbers and numbers[-1] == 0:  # 1.17 and 1.17.0 are one release
        numbers.pop()
    if not numbers and version != "0":  # "0.0.0" stands for "unknown"; "0" for the beginning of all versions
        return None
    stage = _STAGES[found["stage"].lower()] if found["stage"] else 0
    return tuple(numbers), stage, int(found["turn"] or 0), int(found["post"] or 0)


def is_before(one: Key, other: Key) -> bool:
    """Whether `one` was released before `other` by their numbers."""
    pairs = list(zip_longest(one[0], other[0], fillvalue=0))
    return ([a for a, _ in pairs], one[1:]) < ([b for _, b in pairs], other[1:])


def branch(version: str, parts: int) -> tuple[int, ...] | None:
    """The first `parts` numbers of a version, in which fixes are made; None where it cannot be read."""
    numbers = key(version)
    return None if numbers is None else (*numbers[0], *(0,) * parts)[:parts]
