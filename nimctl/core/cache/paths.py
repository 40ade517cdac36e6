"""Where things are in the cache folder, and how folders in it are made."""

import contextlib
import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from nimctl.core.cache.problems import storage_error
from nimctl.core.errors import NimctlError

UMASK = 0o002
FOLDER_MODE = 0o2770
FILE_MODE = 0o664
PRIVATE_MODE = 0o700


@dataclass(frozen=True)
class CachePaths:
    """Where things are below the cache folder `root`."""

    root: Path

    @property
    def hub(self) -> Path:
        """Weights, in the layout of the Hugging Face cache: `hf`, transformers and vLLM can read it."""
        return self.root / "huggingface" / "hub"

    @property
    def engine(self) -> Path:
        """The parent of every user's private engine caches."""
        return self.root / "engine"

    def repo_dir(self, repo: str) -> Path:
        """The folder of `repo` ("org/name"): blobs, snapshots, refs. Raises ValueError for a name that escapes."""
        parts = repo.split("/")
        if not all(_is_plain_name(part) for part in parts):
            raise ValueError(f"not a repository name: {repo!r}")
        return self.hub / "--".join(("models", *parts))

    def snapshot_dir(self, repo: str, revision: str) -> Path:
        """The folder of one immutable revision of `repo`. Raises ValueError for a name that escapes."""
        if not _is_plain_name(revision):
            raise ValueError(f"not a revision: {revision!r}")
        return self.repo_dir(repo) / "snapshots" / revision

    def engine_private(self, key: str) -> Path:
        """This user's own folder `engine/<uid>/<key>`, made with mode 0700 when it is missing.

        Compiled code is loaded from it unchecked, so a folder that another user made or can write is refused.
        Raises `cache-not-writable`, `disk-full`, `cache-unreachable`.
        """
        if not _is_plain_name(key):
            raise ValueError(f"not a folder name: {key!r}")
        mine = self.engine / str(os.geteuid())
        try:
            make_shared_folder(self.engine, self.root)
            for folder in (mine, mine / key):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=PRIVATE_MODE)
                _make_private(folder)
        except OSError as error:
            raise storage_error(error, self.root) from error
        return mine / key


def missing_folders(folder: Path, root: Path) -> list[tuple[Path, int | None]]:
    """What has to be made for `folder` in the cache at `root`, outermost first, each with its mode.

    From `root` on inwards that is FOLDER_MODE. Parents outside are not the cache's own, so they get None: the mode
    that the umask gives.
    """
    missing = reversed([p for p in (folder, *folder.parents) if not os.path.isdir(p)])  # noqa: PTH112 (never raises)
    return [(p, FOLDER_MODE if p == root or root in p.parents else None) for p in missing]


def make_shared_folder(folder: Path, root: Path | None = None) -> None:
    """Make `folder` and its missing parents, those in the cache with mode 2770; what exists keeps its mode.

    `root` is the cache folder, `folder` itself where it is left out. Raises OSError as the filesystem does.
    """
    for missing, mode in missing_folders(folder, root or folder):
        with contextlib.suppress(FileExistsError):  # another process was quicker
            missing.mkdir()
            if mode is not None:
                missing.chmod(mode)


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and "/" not in name and "\0" not in name


def _make_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise NimctlError(
            "cache-not-writable",
            f"{folder} is not this user's own folder",
            cause=f"it belongs to uid {found.st_uid}, and compiled code would be loaded from it by uid {os.geteuid()}",
            fix=f"Remove it on the host: sudo rm -rf {shlex.quote(str(folder))}",
        )
    if stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
        folder.chmod(PRIVATE_MODE)
