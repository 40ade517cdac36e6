"""Compile caches out of a bundle: code that servers of this user will run, so theirs alone, and said so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nimctl.bundle.model import CACHES, CompileCache
from nimctl.bundle.problems import invalid
from nimctl.bundle.shelf import Shelf
from nimctl.cli.config import Config
from nimctl.core.cache import PRIVATE_MODE, CachePaths, held, storage_error
from nimctl.render import Output

_FILE, _PROGRAM = 0o600, 0o700


def load(shelf: Shelf, cache: CompileCache, config: Config, out: Output) -> None:
    """Bring one compile cache to where servers of this user look for it. One that is there already stays as it is.

    Raises `bundle-*`, `cache-not-writable`, `disk-full`.
    """
    try:
        place = CachePaths(config.cache).engine / str(os.geteuid()) / cache.key
        if place.exists() and any(path.name != held.LOCK for path in place.iterdir()):
            out.text(f"compile cache {cache.key} is here already and stays as it is")
            return
        home = CachePaths(config.cache).engine_private(cache.key)  # its owner and modes are looked at
        fresh = home.with_name(f".{cache.key}.loading")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=PRIVATE_MODE)
        _fill(shelf, cache, fresh)
        home.rmdir() if not any(home.iterdir()) else shutil.rmtree(home)
        fresh.rename(home)
    except ValueError as error:
        raise invalid(str(error), shelf.name) from error
    except OSError as error:
        raise storage_error(error, config.cache) from error
    out.text(f"compile cache {cache.key} loaded for uid {os.geteuid()} alone: servers of this user will run its code")


def _fill(shelf: Shelf, cache: CompileCache, folder: Path) -> None:
    start = f"{CACHES}/{cache.key}"
    for entry in shelf.bundle.below(start):
        place = folder / entry.path.removeprefix(f"{start}/")
        for parent in reversed([p for p in place.parents if folder in p.parents]):
            parent.mkdir(mode=PRIVATE_MODE, exist_ok=True)
        mode = _PROGRAM if entry.path in cache.executables else _FILE
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as out:
            for block in shelf.read(entry):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
