"""The folders in which processes of this host are found again: `<runs>/<name>/run.json`, and a lock for each name."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.errors import NimctlError
from nimctl.core.plain import from_plain, to_plain
from nimctl.launch.procfs import Identity
from nimctl.launch.runtime import RunHandle, name_taken

SCHEMA = "nimctl.process-run/1"


@dataclass(frozen=True)
class Record:
    """What `run.json` holds. It never holds an environment, because that may hold keys."""

    run: RunHandle
    process: Identity
    argv: tuple[str, ...]
    started_at: str
    secrets: str | None = None
    schema: str = SCHEMA


def read(runs: Path, name: str) -> Record | None:
    """The record of a run, None when there is none. Raises `config-invalid` when it cannot be read."""
    try:
        return from_plain(Record, json.loads((runs / name / "run.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise NimctlError(
            "config-invalid",
            f"the record of run {name} cannot be read",
            cause=str(error),
            fix=f"Look into {runs / name}, end the process that its log names, and remove that folder.",
        ) from error


def read_all(runs: Path) -> tuple[Record, ...]:
    """Every record, sorted by name."""
    if not runs.is_dir():
        return ()
    names = sorted(p.name for p in runs.iterdir() if p.is_dir())
    return tuple(record for name in names if (record := read(runs, name)))


def write(runs: Path, record: Record) -> None:
    """Write a record so that a reader sees all of it or nothing."""
    path = runs / record.run.name / "run.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(to_plain(record), indent=2), encoding="utf-8")
    partial.replace(path)


def make_folder(folder: Path) -> None:
    """Make a private folder. Raises `disk-full` or `config-invalid`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise NimctlError(
            "disk-full" if full else "config-invalid",
            f"{folder} cannot be made",
            cause=str(error),
            fix="Free space there." if full else "Set XDG_STATE_HOME to a folder that you may write.",
        ) from error


@contextmanager
def starting(runs: Path, name: str) -> Iterator[None]:
    """Only one start of a name at a time (`name-in-use`); the lock ends with its owner, however that ends."""
    make_folder(runs)
    descriptor = os.open(runs / f".{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise name_taken(name, "another command is starting it at this moment") from error
        yield
    finally:
        os.close(descriptor)
