"""Tiny checkpoints and a source that writes one, for tests of what surrounds them."""

import codecs
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nimctl.core.cache import Part
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import http
from nimctl.core.fetch.manifest import File, Manifest, revision_of
from nimctl.core.fetch.protocol import OnProgress, Progress, RangeStream

codecs.lookup("ascii")  # imported now: a test that goes on as another user may not read Python's folders


def safetensors(size: int) -> bytes:
    """A valid safetensors file with one tensor of `size` zero bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


def write_folder(folder: Path, *, shards: int = 2, index: bool = True) -> Path:
    """A checkpoint folder as a download leaves it: config, `shards` weight files, their index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    names = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    for name in names:
        (folder / name).write_bytes(safetensors(64))
    if index:
        weight_map = {f"layer.{n}": name for n, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def sha256(content: bytes) -> str:
    """The digest of `content` as a manifest writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


CONTENT = {"config.json": b"{}", "model.safetensors": safetensors(1000), "sub/tokenizer.json": b'{"a": 1}'}


@dataclass
class TinySource:
    """A source of three small files that counts how often it was asked; `meanwhile` runs after the first file."""

    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    repo: str = "test/tiny"
    part: Part = "huggingface"
    in_place: None = None
    calls: int = 0
    meanwhile: Callable[[], None] = lambda: None

    def resolve(self) -> Manifest:
        files = tuple(File(n, len(b), sha256(b)) for n, b in sorted(self.content.items()))
        return Manifest("builtin://tiny", revision_of(files), files)

    def materialise(self, manifest: Manifest, folder: Path, on_progress: OnProgress) -> None:
        self.calls += 1
        for number, (name, content) in enumerate(self.content.items()):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
            on_progress(Progress(0, manifest.total, name))
            if number == 0:
                self.meanwhile()


def read_tree(folder: Path) -> dict[str, bytes]:
    """Path and content of every file below `folder`, through links."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@dataclass
class WebFiles:
    """A remote source of files that lie at any addresses, such as the fault hub's."""

    files: tuple[File, ...]
    urls: Mapping[str, str]
    client: http.Client
    headers: Mapping[str, str] = field(default_factory=dict)
    repo: str = "test/web"
    part: Part = "huggingface"
    in_place: None = None
    refs: tuple[str, ...] = ("main",)
    targets: dict[str, http.Target] = field(default_factory=dict)

    def resolve(self) -> Manifest:
        return Manifest("https://test/web", revision_of(self.files), self.files)

    def open_range(self, file: File, start: int, stop: int) -> RangeStream:
        made = http.Target(self.urls[file.path], size=file.size, headers=self.headers, exact=file.digest is None)
        try:
            return self.client.open_range(self.targets.setdefault(file.path, made), start, stop)
        except http.Denied as denied:
            raise NimctlError("weights-not-found", str(denied), cause="it is denied", fix="None.") from denied
