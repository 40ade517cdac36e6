"""What must be alike on every node of a group, found out cheaply."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from entrypoint.engine.nodes import OPTIONS
from nimctl.core.engine_options import Option

_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
# Where this node has its own place for things.
_OWN = (*OPTIONS, "uds", "speculative-config")


def facts(
    *, release: str, engine: str | None, model: str, layout: str, gpus: str, options: Iterable[Option]
) -> dict[str, str]:
    """Image, model, layout and engine arguments, each under the name by which a difference is told."""
    arguments = {f"--{o.name}": " ".join(o.values) or "on" for o in options if o.name not in _OWN}
    return {
        "the release of nimctl": release,
        "the engine": engine or "unknown",
        "the model": model,
        "the GPUs": gpus,
        "the layout": layout,
        **dict(sorted(arguments.items())),
    }


def digest_of_weights(snapshot: Path) -> str:
    """A short name for the files of the weights: their names and sizes, and the configuration; no weight is read."""
    found = hashlib.sha256()
    for path in sorted(snapshot.rglob("*")):
        if path.suffix in _WEIGHTS and path.is_file():
            found.update(f"{path.relative_to(snapshot).as_posix()} {path.stat().st_size}\n".encode())
    config = snapshot / "config.json"
    if config.is_file():
        found.update(config.read_bytes())
    return found.hexdigest()[:16]
