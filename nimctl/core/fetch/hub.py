"""A checkpoint of the Hugging Face Hub that lies in the cache already: what `hf download` or a NIM left there.

`hf://org/name` or `hf://org/name:revision`. Fetching from the network will be added beside this; looking into the cache
first stays, because an air-gapped host has nothing else.
"""

import re
from pathlib import Path

from nimctl.core.cache import CachePaths
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.address import without_secrets
from nimctl.core.fetch.folder import FolderSource

SCHEME = "hf://"
_NAME = re.compile(r"(?P<repo>[\w.\-]+/[\w.\-]+)(?::(?P<revision>[\w.\-]+))?")


def cached(uri: str, paths: CachePaths) -> FolderSource:
    """The snapshot that `uri` means, used where it lies.

    A revision is a commit or a name in `refs/`; left out it is `main`. Raises `weights-source-unsupported` when the
    cache does not hold it, with the command that brings it there.
    """
    match = _NAME.fullmatch(uri.removeprefix(SCHEME))
    if match is None:
        raise NimctlError(
            "weights-source-unsupported",
            f"{without_secrets(uri)} is not a model of the Hugging Face Hub",
            cause="such an address reads hf://organisation/name or hf://organisation/name:revision",
            fix="Correct the address, or pass a folder.",
        )
    repo, revision = match["repo"], match["revision"] or "main"
    try:
        folder = paths.snapshot_dir(repo, _commit(paths.repo_dir(repo) / "refs" / revision) or revision)
    except ValueError as error:
        raise _absent(repo, revision, paths, str(error)) from error
    if not folder.is_dir():
        raise _absent(repo, revision, paths, f"{folder} does not exist")
    return FolderSource(folder)


def _commit(reference: Path) -> str | None:
    try:
        return reference.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _absent(repo: str, revision: str, paths: CachePaths, cause: str) -> NimctlError:
    wanted = f" --revision {revision}" if revision != "main" else ""
    return NimctlError(
        "weights-source-unsupported",
        f"the weights of {repo} are not in the cache, and this version does not download them itself",
        cause=cause,
        fix=f"`hf download {repo}{wanted} --cache-dir {paths.hub}`, then run it again; or pass their folder.",
    )
