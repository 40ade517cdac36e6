"""Checkpoints that nimctl makes itself: `builtin://demo`."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nimctl.core import demo
from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File, Manifest, revision_of
from nimctl.core.fetch.protocol import OnProgress, Progress

SCHEME = "builtin://"


@dataclass(frozen=True)
class BuiltinSource:
    """The demo checkpoint: the same bytes on every machine, so its manifest is known before it is made."""

    in_place: None = None
    repo: str = "nimctl/demo"

    def resolve(self) -> Manifest:
        """The manifest that the generator promises; the revision is a hash of it."""
        promised = {path: (entry.size, entry.sha256) for path, entry in demo.MANIFEST.items()} or _generated()
        files = tuple(File(path, size, digest) for path, (size, digest) in sorted(promised.items()))
        return Manifest(f"{SCHEME}demo", revision_of(files), files)

    def materialise(self, manifest: Manifest, folder: Path, on_progress: OnProgress) -> None:
        """Generate the checkpoint into `folder`."""
        on_progress(Progress(0, manifest.total))
        demo.write_checkpoint(folder)


def _generated() -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file, found by generating them: for a generator that promises nothing."""
    with tempfile.TemporaryDirectory(prefix="nimctl-demo-") as name:
        demo.write_checkpoint(Path(name))
        return {
            path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in Path(name).iterdir()
        }


def parse(uri: str) -> BuiltinSource:
    """The source of a `builtin://` URI. Raises `weights-source-unsupported` for a name that does not exist."""
    if uri != f"{SCHEME}demo":
        raise NimctlError(
            "weights-source-unsupported",
            f"there is no builtin checkpoint {uri!r}",
            cause="the only one is builtin://demo",
            fix="Use builtin://demo, or the path of a folder that holds a checkpoint.",
        )
    return BuiltinSource()
