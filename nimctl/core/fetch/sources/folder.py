"""A checkpoint in a local folder: used where it lies, but looked over before the engine is started on it."""

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nimctl.core.cache import Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.protocol import OnProgress, Progress
from nimctl.core.fetch.sources.integrity import require_all_shards, require_readable, require_whole, unreadable

SCHEME = "file://"
_PICKLE = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class FolderSource:
    """The checkpoint in `in_place`, an absolute path."""

    in_place: Path

    part: Part = "huggingface"

    @property
    def repo(self) -> str:
        """A name for the cache, should the folder be copied there."""
        return "local/" + (re.sub(r"[^\w.\-]+", "-", self.in_place.name).strip(".") or "folder")

    def resolve(self) -> Manifest:
        """List the files after checking that the engine will be able to load them.

        Hashes are not computed: that would read the whole folder. Raises `weights-missing`, `weights-incomplete`,
        `weights-unreadable`, `weights-source-unsupported` (pickle).
        """
        folder = self.in_place
        names = _names(folder)
        if "config.json" not in names:
            raise _no_checkpoint(folder, names)
        require_readable(folder, names)
        tensors = [name for name in names if name.endswith(".safetensors")]
        if not tensors:
            raise _no_tensors(folder, names)
        require_all_shards(folder, names)
        for name in tensors:
            require_whole(folder / name)
        files = tuple(File(name, (folder / name).stat().st_size) for name in names)
        return Manifest(f"{SCHEME}{folder}", "local", files)

    def materialise(self, manifest: Manifest, folder: Path, on_progress: OnProgress) -> None:
        """Copy the files into `folder`."""
        done = 0
        for file in manifest.files:
            on_progress(Progress(done, manifest.total, file.path))
            shutil.copyfile(self.in_place / file.path, folder / file.path)
            done += file.size


def require_no_links_outside(folder: Path) -> None:
    """Refuse (`weights-unreadable`) a folder whose files are links to elsewhere: a container sees the folder alone.

    That is what a snapshot of the Hugging Face cache is; it can be served by its name, or as a copy.
    """
    inside = folder.resolve()
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
            raise NimctlError(
                "weights-unreadable",
                f"{entry} is a link to {entry.resolve()}, which a container given {folder} cannot see",
                cause="only the folder itself is mounted, as for every model that is named by its folder",
                fix=f"Name the model (`nimctl run hf://ORG/NAME --cache CACHE`), or copy it: `cp -rL {folder} DIR`.",
            )


def parse(uri: str) -> FolderSource:
    """The source of an absolute path or a `file://` URI. Raises `weights-source-unsupported` for anything else."""
    path = uri
    if uri.startswith(SCHEME):
        parts = urlsplit(uri)
        path = unquote(parts.path) if parts.netloc in ("", "localhost") else ""
    if not path.startswith("/") or "\0" in path:
        raise NimctlError(
            "weights-source-unsupported",
            f"{uri!r} is not a folder on this machine",
            cause="a folder is given by its absolute path or as file:///path",
            fix="Pass the absolute path of the folder that holds config.json and the *.safetensors files.",
        )
    return FolderSource(Path(path))


def _names(folder: Path) -> list[str]:
    """The names of the files in `folder`, links to nothing included, sorted."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not _is_folder(entry))
    except PermissionError as error:
        raise unreadable(folder, [folder]) from error
    except NotADirectoryError:
        cause = "it is not a folder"
    except OSError as error:
        cause = "it does not exist" if not os.path.lexists(folder) else str(error.strerror)
    raise NimctlError(
        "weights-missing",
        f"there is no checkpoint folder {folder}",
        cause=cause,
        fix="Check the path; inside a container the folder has to be mounted.",
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a closed folder: looked at, and reported, as the file it is taken for
        return False


def _no_checkpoint(folder: Path, names: list[str]) -> NimctlError:
    snapshots: list[Path] = []
    with contextlib.suppress(OSError):
        snapshots = sorted(folder.glob("snapshots/*/config.json"))
    if snapshots:
        cause = "it is an entry of the Hugging Face cache; the checkpoint lies deeper"
        fix = f"Pass {snapshots[-1].parent} (and mount the whole entry: its files are links into blobs/)."
    else:
        cause = f"it holds {', '.join(names[:5])}" if names else "it is empty"
        fix = "Pass the folder that holds config.json and the *.safetensors files."
    return NimctlError("weights-missing", f"there is no config.json in {folder}", cause=cause, fix=fix)


def _no_tensors(folder: Path, names: list[str]) -> NimctlError:
    pickles = [name for name in names if name.endswith(_PICKLE)]
    if pickles:
        return NimctlError(
            "weights-source-unsupported",
            f"{folder} holds its weights as pickle files",
            cause=f"there is no *.safetensors file, only {', '.join(pickles[:3])}; loading a pickle runs its code",
            fix="Use a safetensors checkpoint of the model, or convert this one where running its code does no harm.",
        )
    return NimctlError(
        "weights-missing",
        f"there are no weights in {folder}",
        cause="config.json is there, but no *.safetensors file",
        fix="Copy the *.safetensors files into the folder, or finish the interrupted download.",
    )
