"""Writes the demo checkpoint, and knows what it must come out as, byte for byte."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nimctl.core.demo.config import generation_config, model_config, preprocessor_config
from nimctl.core.demo.tokenizer import tokenizer_config, tokenizer_json
from nimctl.core.demo.weights import Tensor, tensors

# Readable for every user of a shared cache, whatever the umask: other writers of this format leave files of mode 0600.
_FILE_MODE = 0o664


@dataclass(frozen=True)
class ManifestEntry:
    """What a file of the checkpoint must be: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


# Same bytes on every machine; a change of the model changes these lines and nothing else may.
MANIFEST: Mapping[str, ManifestEntry] = MappingProxyType(
    {
        "model.safetensors": ManifestEntry(
            103003888, "eb585e6bc45b216e585aa6316bff9f4a88a3a83e20b1766041009975777e2c52"
        ),
        "tokenizer.json": ManifestEntry(26481, "901dffb0a0b85f47e433bcf659b2d0e47796d3c391e8c49c704834bc4430c83e"),
        "tokenizer_config.json": ManifestEntry(
            6422, "f54eb879ce8e5853aefdc0dae05b8686c366bb2d96d093df2668cef6d018c98f"
        ),
        "generation_config.json": ManifestEntry(47, "edba4fdf47ef9256b0b3adbaf0f83b361a50942990a62322ec09ed888079ad9a"),
        "preprocessor_config.json": ManifestEntry(
            451, "0c08a998531eb74bf4ef6e7e08b1e366408a67bfe4108b3aea27ffbb310fdef3"
        ),
        "config.json": ManifestEntry(2091, "f0db55fa1d842a789891790c3327599ed21be8d734c62c02b94dc0b01d3e20e6"),
    }
)


def _json_bytes(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def _safetensors(listed: Sequence[Tensor]) -> Iterator[bytes | bytearray]:
    """The file format: header length, JSON header padded to 8 bytes, contents (https://huggingface.co/docs/safetensors)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in listed:
        end = offset + tensor.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little")
    yield encoded
    for tensor in listed:
        yield tensor.content()


def _write(path: Path, chunks: Iterable[bytes | bytearray]) -> None:
    with path.open("xb") as file:
        path.chmod(_FILE_MODE)
        for chunk in chunks:
            file.write(chunk)


def write_checkpoint(folder: Path) -> None:
    """Write the demo checkpoint (about 100 MB, about a second) into the existing, empty `folder`.

    `config.json`, without which no server takes a folder for a checkpoint, is written last; files have mode 0664.
    The caller makes the folder appear under its final name only afterwards. Raises FileExistsError where a file of the
    checkpoint exists already, and OSError as the filesystem does.
    """
    _write(folder / "model.safetensors", _safetensors(tensors()))
    documents = {
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(),
        "generation_config.json": generation_config(),
        "preprocessor_config.json": preprocessor_config(),
        "config.json": model_config(),
    }
    for name, document in documents.items():
        _write(folder / name, [_json_bytes(document)])
