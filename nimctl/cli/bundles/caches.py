"""Compile caches in a bundle: code that servers of this user will run, so theirs alone, and said so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nimctl.bundle.items import Item, of_file
from nimctl.bundle.model import CACHES, CompileCache
from nimctl.bundle.problems import invalid
from nimctl.bundle.shelf import Shelf
from nimctl.cli.config import Config
from nimctl.core.cache import PRIVATE_MODE, CachePaths, held, storage_error
from nimctl.render import Output

_FILE, _PROGRAM = 0o600, 0o700


def gather(config: Config, out: Output) -> tuple[tuple[CompileCache, ...], tuple[Item, ...]]:
    """This user's compile caches, those that a server writes now left out."""
    mine = CachePaths(config.cache).engine / str(os.geteuid())
    found: list[CompileCache] = []
    items: list[Item] = []
    for folder in sorted(mine.iterdir()) if mine.is_dir() else ():
        if folder.name.startswith(".") or not folder.is_dir() or folder.is_symlink():
            continue
        if held.is_held(folder):
            out.text(f"compile cache {folder.name} is in use by a running server and is not carried", style="yellow")
            continue
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        files = [path for path in files if path.name != held.LOCK]
        executables = []
        for path in files:
            name = f"{CACHES}/{folder.name}/{path.relative_to(folder).as_posix()}"
            items.append(of_file(name, path, None, "bundle-damaged", linked=False))
            if path.stat().st_mode & 0o100:
                executables.append(name)
        if files:
            found.append(CompileCache(folder.name, tuple(executables)))
            out.text(f"compile cache {folder.name}: {len(files)} files of code that the far host will run")
    if not found:
        out.text(f"there are no compile caches in {mine}", style="yellow")
    return tuple(found), tuple(items)


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
