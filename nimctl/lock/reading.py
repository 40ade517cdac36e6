"""A lock from its text: read in full, and believed only as far as it holds together. Pure.

A lock has no hash over itself, because people review and merge it. So everything in it is checked that can be: its
shape, digests and paths by their form, sums and names against each other.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import DIGEST
from nimctl.core.plain import from_plain
from nimctl.core.planning.profile import parse_name
from nimctl.core.printable import printable
from nimctl.core.secret import holds_secret, is_secret_name
from nimctl.lock.model import SCHEMA, Lock

# Bytes. A checkpoint of a thousand files takes 200 kB.
LARGEST = 16 * 2**20
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEX = re.compile(r"[0-9a-f]{64}")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-:/\[\]@]{0,511}")


def read(text: bytes, where: str) -> Lock:
    """The lock in `text`. Raises `lock-invalid` with the first thing that is wrong."""
    if len(text) > LARGEST:
        raise invalid(where, f"it has {len(text)} bytes, and no lock has more than {LARGEST}")
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise invalid(where, f"it is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise invalid(where, "it is nested deeper than any lock") from error
    except ValueError as error:
        raise invalid(where, f"it is no JSON: {error}") from error
    if isinstance(document, dict) and document.get("schema") != SCHEMA:
        raise invalid(where, f"its schema is {document.get('schema')!r}, and this version of nimctl reads {SCHEMA!r}")
    try:
        _require_plain(document)
        lock = from_plain(Lock, document)
    except (ValueError, RecursionError) as error:
        raise invalid(where, str(error)) from error
    for problem in _problems(lock):
        raise invalid(where, problem)
    return lock


def invalid(where: str, cause: str) -> NimctlError:
    """A `lock-invalid` error."""
    return NimctlError(
        "lock-invalid",
        f"{where} is no lock file that can be used",
        cause=printable(cause)[:500],
        fix="Take it from version control again, or write it anew: `nimctl lock MODEL`.",
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _require_plain(value: Any) -> None:
    """Refuse (ValueError) texts that a terminal would obey or no file can hold, and numbers without a value."""
    if isinstance(value, str) and printable(value) != value:
        raise ValueError(f"it holds characters that are no text: {printable(value)[:80]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds a number that is too large")
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plain(key)
            _require_plain(item)
    elif isinstance(value, list):
        for item in value:
            _require_plain(item)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _problems(lock: Lock) -> Iterator[str]:
    """What the shape alone allows and cannot be true."""
    yield from _of_image(lock)
    yield from _of_weights(lock)
    yield from _of_layout(lock)
    yield from _unless(_HEX.fullmatch(lock.recipe.sha256), "recipe.sha256 is no SHA-256")
    yield from _unless(lock.gpus.count >= 0, "gpus.count is below 0")
    yield from _unless((lock.gpus.count == 0) == (lock.gpus.model is None), "gpus: count and model do not fit")
    yield from _unless(lock.container.shm_bytes >= 0, "container.shm_bytes is below 0")
    for name, value in lock.variables.items():
        yield from _unless(_VARIABLE.fullmatch(name), f"variables: {name!r} is no name of a variable")
        is_key = is_secret_name(name) or (value is not None and holds_secret(value))
        yield from _unless(value is None or not is_key, f"variables.{name} holds a secret; a lock holds its name alone")
    yield from _unless(
        not any(map(holds_secret, lock.engine.arguments)), "engine.arguments hold a secret; a lock holds none"
    )


def _of_image(lock: Lock) -> Iterator[str]:
    image = lock.image
    yield from _unless(_REFERENCE.fullmatch(image.reference), "image.reference is no reference to an image")
    yield from _unless(_PLATFORM.fullmatch(image.platform), "image.platform is not of the form linux/amd64")
    named = {"image.digest": image.digest, "image.config": image.config}
    named |= {f"image.manifests.{platform}": digest for platform, digest in image.manifests.items()}
    for where, digest in named.items():
        yield from _unless(digest is None or DIGEST.fullmatch(digest), f"{where} is no digest (sha256:...)")
    yield from _unless(image.identity.digests, "image: none of digest, manifests and config says which it is")
    promised = image.reference.partition("@")[2]
    told = (image.digest, *image.manifests.values())
    yield from _unless(not promised or promised in told, "image: reference and digest name different images")


def _of_weights(lock: Lock) -> Iterator[str]:
    weights = lock.weights
    if weights is None:
        return
    paths = [file.path for file in weights.files]
    yield from _unless(paths, "weights.files is empty")
    yield from _unless(len(set(paths)) == len(paths), "weights.files: a path is there twice")
    yield from _unless(paths == sorted(paths), "weights.files are not sorted by path")
    total = sum(file.size for file in weights.files)
    yield from _unless(total == weights.bytes, f"weights.bytes is {weights.bytes}, and its files have {total}")
    yield from _unless(not holds_secret(weights.source), "weights.source holds a secret")


def _of_layout(lock: Lock) -> Iterator[str]:
    layout = lock.layout
    if layout is None:
        return
    yield from _unless(_HEX.fullmatch(layout.id), "layout.id is not the id of a profile")
    named = parse_name(layout.profile)
    if named is None:
        yield f"layout.profile {layout.profile!r} is not the name of a profile"
        return
    sizes = (layout.tensor, layout.pipeline, layout.data, layout.decode_context, layout.expert)
    told = named[1]
    same = (told.tensor, told.pipeline, told.data, told.decode_context, told.expert)
    # whole experts on one rank are the same as none placed, and the name does not tell
    plain = layout.tensor * layout.data == 1
    yield from _unless(
        sizes[:4] == same[:4] and (plain or sizes[4] == same[4]),
        f"layout: its sizes are not those of {layout.profile}",
    )
    ranks = layout.tensor * layout.pipeline * layout.data
    yield from _unless(
        lock.gpus.count in (0, *range(ranks, 10**6)), f"layout: {ranks} ranks for {lock.gpus.count} GPUs"
    )


def _unless(holds: object, problem: str) -> Iterator[str]:
    if not holds:
        yield problem
