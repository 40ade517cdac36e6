"""Running a function as another user, as the container does: `uid:0` without capabilities, umask 0002."""

import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from nimctl.core.errors import NimctlError

T = TypeVar("T")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: acts as other users, mounts filesystems")


def as_user(action: Callable[[], T], *, uid: int = 12345, gid: int = 0, umask: int = 0o002) -> T:
    """What `action` returns (picklable) in a child process that is `uid:gid`; a NimctlError comes back as one.

    Everything the action needs must be imported already: the other user may not read this Python's folders.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _in_child(action, writer, uid, gid, umask)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert answer, f"the child ended with status {status} and no answer"
    kind, value = pickle.loads(answer)
    if kind == "error":
        raise NimctlError(
            value["id"], value["message"], cause=value["cause"], fix=value["fix"], evidence=value["evidence"]
        )
    assert kind == "value", value
    return value


def _in_child(action: Callable[[], Any], writer: int, uid: int, gid: int, umask: int) -> None:
    answer: tuple[str, Any] = ("bug", "no answer")
    try:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        os.umask(umask)
        answer = ("value", action())
    except NimctlError as error:
        answer = ("error", error.to_json())
    except BaseException:
        answer = ("bug", traceback.format_exc())
    finally:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter, unlike pytest's own, which are for the caller alone."""
    folder = Path(tempfile.mkdtemp(prefix="nimctl-test-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)
