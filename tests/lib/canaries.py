"""Marked secrets, and the search for them in everything that may hold one: text, files, streams, compressed or not.

A secret shows itself in more shapes than its own: in base64 at any offset (a basic-auth header is `user:secret` in it),
quoted as a part of an address, escaped in JSON, in hexadecimal. All of them are looked for.
"""

import base64
import gzip
import json
import os
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, order=True)
class Hit:
    """A canary (by its name) in one of its forms, and where it was."""

    where: str
    canary: str
    form: str


def forms(value: str) -> dict[str, bytes]:
    """Every shape in which `value` is looked for, by the shape's name."""
    raw = value.encode()
    found = {"raw": raw, "hex": raw.hex().encode(), "url": quote(value, safe="").encode()}
    found |= {"form": quote_plus(value).encode(), "json": json.dumps(value)[1:-1].encode()}
    for shift in range(3):  # what stands before it moves its bits by 0, 2 or 4 places
        encoded = base64.b64encode(b"\0" * shift + raw)
        own = encoded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]  # characters that no neighbour has a share in
        found[f"base64+{shift}"] = own
        found[f"base64url+{shift}"] = own.replace(b"+", b"-").replace(b"/", b"_")
    unique: dict[bytes, str] = {}
    for name, form in found.items():
        unique.setdefault(form, name)
    return {name: form for form, name in unique.items()}


class Hunt:
    """The search for some canaries, name -> value. Values are long enough never to be met by chance."""

    def __init__(self, canaries: Mapping[str, str]) -> None:
        if short := [name for name, value in canaries.items() if len(value) < 12]:
            raise ValueError(f"too short to be unique: {short}")
        self._needles = {form: (name, kind) for name, value in canaries.items() for kind, form in forms(value).items()}

    def in_bytes(self, data: bytes, where: str) -> set[Hit]:
        """The canaries in `data`; compressed data is looked at unpacked too."""
        plain = data + _unpacked(data) if data.startswith(_GZIP) else data
        return {Hit(where, *found) for needle, found in self._needles.items() if needle in plain}

    def in_text(self, text: str, where: str) -> set[Hit]:
        """The canaries in `text`."""
        return self.in_bytes(text.encode("utf-8", "surrogateescape"), where)

    def in_files(self, files: Iterable[Path | str]) -> set[Hit]:
        """The canaries in files of any size, whatever is in them; a file that has gone holds none."""
        names = [os.fspath(file) for file in files]
        hits: set[Hit] = set()
        with self._needle_file() as needles:
            for start in range(0, len(names), 500):
                some = names[start : start + 500]
                argv = ["grep", "-aoHZF", "-f", needles, "--", *some]
                done = subprocess.run(argv, capture_output=True, check=False, timeout=600, env=_C)
                for line in done.stdout.splitlines():
                    where, _, needle = line.partition(b"\0")
                    hits.add(Hit(os.fsdecode(where), *self._needles[needle]))
        for name in names:
            if packed := _gzipped(name):
                hits |= {Hit(name, hit.canary, hit.form) for hit in self.in_stream(["gzip", "-dcq", packed], name)}
        return hits

    def in_tree(self, *roots: Path | str, since: float = 0.0, skip: Sequence[Path | str] = ()) -> set[Hit]:
        """The canaries in the files below `roots` that were made or changed at `since` (epoch seconds) or later."""
        return self.in_files(files_since(*roots, since=since, skip=skip))

    def in_stream(self, argv: Sequence[str], where: str, env: Mapping[str, str] | None = None) -> set[Hit]:
        """The canaries in what a program writes to its standard output, however much that is."""
        with self._needle_file() as needles:
            writer = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
            reader = subprocess.run(
                ["grep", "-aoF", "-f", needles],
                stdin=writer.stdout, capture_output=True, check=False, timeout=900, env=_C,
            )  # fmt: skip
            assert writer.stdout is not None
            writer.stdout.close()
            writer.wait(timeout=60)
        return {Hit(where, *self._needles[needle]) for needle in set(reader.stdout.splitlines())}

    @contextmanager
    def _needle_file(self) -> Iterator[str]:
        with tempfile.NamedTemporaryFile(prefix="needles-", dir=_memory()) as file:
            file.write(b"\n".join(self._needles) + b"\n")
            file.flush()
            yield file.name


def files_since(*roots: Path | str, since: float, skip: Sequence[Path | str] = ()) -> list[str]:
    """Files below `roots` whose content or state changed at `since` or later; other file systems are not entered."""
    tops = [os.fspath(root) for root in roots if Path(root).exists()]
    if not tops:
        return []
    prune = [word for path in skip for word in ("-path", os.fspath(path), "-prune", "-o")]
    argv = ["find", *tops, "-xdev", *prune, "-type", "f", "-newerct", f"@{since:.6f}", "-print0"]
    listed = subprocess.run(argv, capture_output=True, check=False, timeout=600).stdout
    return sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})


_C = {**os.environ, "LC_ALL": "C"}


def _memory() -> str | None:
    """The search's own list of canaries must not be what a later search finds on a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return b""


def _gzipped(name: str) -> str | None:
    try:
        with Path(name).open("rb") as file:
            return name if file.read(2) == _GZIP else None
    except OSError:
        return None
