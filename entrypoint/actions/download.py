"""The action `download-to-cache`: bring a model's weights into the cache and serve nothing.

A branch is looked up anew, which a start never does: this is how a cache moves on to a newer revision. Options as NIM
has them: https://docs.nvidia.com/nim/large-language-models/2.0.9/reference/cli-reference.html. With `--manifest-file`,
as NVIDIA's operator calls it for a model that its image does not know, the profiles of the model are written there once
its files tell of them:
https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/internal/controller/nimcache_controller.go
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from entrypoint.actions import profiles, table
from entrypoint.actions.bringing import Brought, bring, drafts_of, wanted
from entrypoint.actions.doing import Options, desk
from entrypoint.engine.drafts import Draft
from entrypoint.engine.model import Model
from entrypoint.observability.journal import Journal
from entrypoint.weights.transfers import amount
from nimctl.core.errors import NimctlError


def options() -> Options:
    """The command line."""
    line = Options(
        table.DOWNLOAD,
        "Bring a model's weights into the cache (NIM_CACHE_PATH), verified, and serve nothing.\n"
        "Run it again after an interruption: it goes on where it stopped. Branches are looked up anew.",
        "download-to-cache --model-uri hf://org/name",
    )
    line.several_models()
    line.parser.add_argument(
        "--manifest-file", metavar="PATH", help="write the model's profiles there: a manifest, as model-manifest prints"
    )
    return line


def main(environ: Mapping[str, str], arguments: Sequence[str], output: Journal) -> int:
    """Download as the command line and `environ` say, and tell `output`. The exit code; raises NimctlError."""
    line = options()
    wish = line.read(arguments)
    if wish.help:
        output.line(line.help())
        return 0
    place = desk(environ, wish, output)
    manifest = Path(wish.manifest_file).absolute() if wish.manifest_file else None
    if manifest is not None:
        require_writable(manifest)
    models = wanted(place.chosen, wish.profile, everything=wish.all)
    wares: tuple[Draft | Model, ...] = (*drafts_of(place.chosen, models), *models)
    for what in wares:  # drafts first: what is left of the disk then is for the weights
        found = bring(place, what, refresh=True)
        place.done(in_words(found), document(found))
    if manifest is not None:
        write_manifest(manifest, profiles.manifest_text(place.chosen, place.access))
        place.journal.info("manifest", f"the profiles of the model are in {manifest}")
    return 0


def in_words(found: Brought) -> str:
    """The result for people."""
    revision = f"revision {found.manifest.revision}, {len(found.manifest.files)} files"
    return f"{found.source} is in {found.path}: {revision}, {amount(found.manifest.total)}{found.summary}"


def document(found: Brought) -> dict[str, object]:
    """The result for machines."""
    return {
        "source": found.source,
        "revision": found.manifest.revision,
        "path": str(found.path),
        "bytes": found.manifest.total,
        "files": len(found.manifest.files),
        "seconds": round(found.seconds, 3),
    }


def require_writable(path: Path) -> None:
    """Refuse, before hours of download, a manifest that could not be written at their end. Makes its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_manifest(path: Path, text: str) -> None:
    """Replace the file at once: whoever reads it sees the old or the new manifest, and never half of one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> NimctlError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return NimctlError(
        "disk-full" if full else "cache-not-writable",
        f"the manifest cannot be written to {path}",
        cause=f"{error.strerror}; this process runs as {os.geteuid()}:{os.getegid()}",
        fix="Name a file in a folder that this user may write, such as one in the mounted cache.",
    )
