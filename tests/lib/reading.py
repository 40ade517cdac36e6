"""What tests of sources do with one: read a range, find a file, take an error and look for secrets in it."""

import contextlib
import json
from collections.abc import Callable

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import RangeStream


def read_stream(stream: RangeStream, chunk: int = 7000) -> bytes:
    """All that comes out of `stream`, which is closed then."""
    buffer, found = memoryview(bytearray(chunk)), bytearray()
    with contextlib.closing(stream):
        while count := stream.readinto(buffer):
            found += buffer[:count]
    return bytes(found)


def file_of(manifest: Manifest, path: str) -> File:
    """The file of `manifest` at `path`."""
    return next(file for file in manifest.files if file.path == path)


def error_of(action: Callable[[], object], *secrets: str) -> NimctlError:
    """The error that `action` raises, which shows none of `secrets`."""
    with pytest.raises(NimctlError) as caught:
        action()
    told = texts(caught.value)
    assert [secret for secret in secrets if secret in told] == []
    return caught.value


def texts(error: BaseException) -> str:
    """All that any output could show of an error and of what caused it."""
    shown: list[str] = []
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:  # errors may lead to each other in a circle
        seen.add(id(here))
        shown += [str(here), repr(here), repr(here.args)]
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)
    return "\n".join(shown) + (json.dumps(error.to_json()) if isinstance(error, NimctlError) else "")
