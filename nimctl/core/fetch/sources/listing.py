"""What remote sources answer, read with distrust: their file lists as `File`s, their refusals as plain words.

Pure but for the clock, against which a server's `Date` is held.
"""

import email.utils
import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import digests
from nimctl.core.fetch.http import Answer
from nimctl.core.fetch.http import errors as http_errors
from nimctl.core.fetch.manifest import File
from nimctl.core.secret import Secret, redact

_MOST_FILES = 100_000
_SKEW = 12 * 3600  # seconds; no answer is underway that long, and no time zone mistaken for UTC makes less of a stir
# AWS's own words: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_SKEWED = re.compile(rb"RequestTimeTooSkewed|not yet valid", re.IGNORECASE)
_UNSHOWN = re.compile(r"[^\x20-\x7e]+")
_LONGEST_WORDS = 200


def wrong_shape(shown: str, why: str) -> NimctlError:
    """The error for a document of `shown` that is not what its API describes."""
    return NimctlError(
        "weights-source-failed",
        f"{shown} sent a document that makes no sense",
        cause=why,
        fix="Check the endpoint: a mirror or proxy on the way may not speak this API.",
    )


def member(document: Any, name: str, kind: type | tuple[type, ...], shown: str) -> Any:
    """`document[name]`, which must be of `kind`. Raises `weights-source-failed`."""
    if not isinstance(document, dict):
        raise wrong_shape(shown, f"a JSON object is expected, not {type(document).__name__}")
    value = document.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise wrong_shape(shown, f"{name!r} is {'missing' if value is None else type(value).__name__}")
    return value


def remote_file(path: str, size: int, digest: str | None, shown: str) -> File:
    """One file as the source lists it. Raises `weights-unsafe-name`, and `weights-source-failed` for wrong values."""
    try:
        if digest is not None:
            digests.parse(digest)
        if size < 0:
            raise ValueError(f"not a size: {size}")
    except ValueError as error:
        raise wrong_shape(shown, f"{error} (of {path!r:.100})") from error
    try:
        return File(path, size, digest)
    except ValueError as error:
        raise NimctlError(
            "weights-unsafe-name",
            f"{shown} names a file that would not stay in its folder",
            cause=f"the name is {path!r:.200}",
            fix="Fetch nothing from this source, and report it to those who run it.",
        ) from error


def merged(files: Iterable[File], shown: str) -> list[File]:
    """`files` without repetitions. Raises `weights-source-failed` where two cannot both be."""
    there: dict[str, File] = {}
    for file in files:
        if there.setdefault(file.path, file) != file:
            raise wrong_shape(shown, f"it lists {file.path!r:.200} twice, with different content")
        if len(there) > _MOST_FILES:
            raise wrong_shape(shown, f"it lists more than {_MOST_FILES} files")
    for path in there:
        parts = path.split("/")
        if any("/".join(parts[:depth]) in there for depth in range(1, len(parts))):
            raise wrong_shape(shown, f"it lists {path!r:.200} below another file")
    return list(there.values())


def selected(query: str) -> tuple[str, ...]:
    """The files that `?file=a&file=b` of an address names. Raises ValueError with what is wrong."""
    # In a name "+" is a plus sign, as NIM writes it, and not a space as in a form.
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, max_num_fields=1000)
    if wrong := next((name for name, value in pairs if name != "file" or not value), None):
        raise ValueError(f"{wrong!r:.100} is not `file=NAME`")
    return tuple(dict.fromkeys(value for _, value in pairs))


def asking_for(only: Sequence[str]) -> str:
    """The end of an address that asks for the files of `only`, as `selected` reads it; nothing where there are none."""
    return "?" + "&".join(f"file={quote(path)}" for path in only) if only else ""


def same_origin(one: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.netloc.rpartition("@")[2]) == (second.scheme, second.netloc.rpartition("@")[2])


def clock_problem(answer: Answer) -> NimctlError | None:
    """The error where a refusal (401, 403) comes of this machine's clock; None where it does not."""
    if answer.status not in (401, 403):
        return None
    if said := _SKEWED.search(answer.body):
        return http_errors.clock_error(answer.url, f"it answered {said[0].decode()}")
    try:
        there = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return None
    if abs(there - time.time()) > _SKEW:
        return http_errors.clock_error(answer.url, f"its own clock says {answer.headers['date']}")
    return None


def words_of(answer: Answer, names: Sequence[str], secrets: Iterable[Secret] = ()) -> str:
    """What the server said in the JSON members `names`, else its status: one short line, without the secrets."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    found: Any = next((document[n] for n in names if document.get(n)), None) if isinstance(document, dict) else None
    if isinstance(found, dict):
        found = next((found[n] for n in names if isinstance(found.get(n), str)), None)
    said = redact(_UNSHOWN.sub(" ", found), secrets).strip()[:_LONGEST_WORDS] if isinstance(found, str) else ""
    return f"the answer was {answer.status}" + (f": {said}" if said else "")


def refused(shown: str, cause: str) -> NimctlError:
    """The error for a status that says no without saying why."""
    return NimctlError(
        "weights-source-failed",
        f"{shown} does not hand out the weights",
        cause=cause,
        fix="Check the endpoint, and whether a proxy, mirror or firewall answers in its place.",
    )
