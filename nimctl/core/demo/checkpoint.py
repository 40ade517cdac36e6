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
MANIFEST: Mapping[str, ManifestEntry] = MappingProxyType({})


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
