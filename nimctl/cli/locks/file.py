"""The file of a lock: which one is meant, reading it with its digest, and replacing it whole."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nimctl.core import recipes
from nimctl.core.errors import NimctlError
from nimctl.lock.model import FILE_NAME, Lock
from nimctl.lock.reading import LARGEST, invalid
from nimctl.lock.reading import read as lock_in
from nimctl.lock.writing import digest_of


@dataclass(frozen=True)
class Read:
    """A lock that was read: what it says, and the digest of its file."""

    lock: Lock
    digest: str
    path: Path


def file_of(model: str | None) -> tuple[Path, str | None]:
    """The lock file and the model of `run --locked [FILE|MODEL]`. A recipe's name is a model, whatever lies here."""
    if model is None or model in recipes.names():
        return Path(FILE_NAME), model
    path = Path(model)
    return (path, None) if path.suffix in (".lock", ".json") or path.is_file() else (Path(FILE_NAME), model)


def read(path: Path) -> Read:
    """The lock in `path`. Raises `lock-invalid`."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise NimctlError(
            "lock-invalid",
            f"there is no {path}",
            cause=f"{path.absolute().parent} was looked in",
            fix=f"Write one: `nimctl lock MODEL -o {path}`, or name the file where it is.",
        ) from error
    except OSError as error:
        raise invalid(str(path), error.strerror or "it cannot be read") from error
    return Read(lock_in(text, str(path)), digest_of(text), path)


def replace(path: Path, text: bytes) -> None:
    """Put `text` into `path` at one stroke. Raises `usage` where that cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(text)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise NimctlError(
            "usage", f"{path} cannot be written", cause=str(error), fix="Name a file in a folder you may write."
        ) from error
