"""The words between the probe and its container: what is run there, and how its output is read. Pure."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nimctl.core.errors import NimctlError
from nimctl.core.injection import Mode
from nimctl.doctor import inside

_SMI_LINE = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[0-9A-Za-z-]+)\)", re.MULTILINE)
_CACHE_LINE = re.compile(r"^nimctl-cache (ok|.+)$", re.MULTILINE)
# For images without Python: what the toolkit brings says the GPUs, and the shell tries the folder.
_SHELL = """if command -v python3 >/dev/null 2>&1; then exec python3 -I -c "$0" "$1"; fi
if [ -d "$1" ]; then f="$1/.nimctl-probe-$$"; s=make
if echo probe >"$f" && s=rename && mv "$f" "$f.renamed" && s=remove && rm "$f.renamed"; then echo "nimctl-cache ok"
else echo "nimctl-cache $s: refused"; rm -f "$f" "$f.renamed"; fi; fi
exec nvidia-smi -L"""


def commands(cache: str) -> tuple[tuple[str, ...], ...]:
    """What to run in the container, best first; the later ones are for images without a shell."""
    script = Path(inside.__file__).read_text(encoding="utf-8")
    return (
        ("sh", "-c", _SHELL, script, cache),
        ("python3", "-I", "-c", script, cache),
        ("nvidia-smi", "-L"),
    )


@dataclass(frozen=True)
class Said:
    """What a container said: its exit code and its output, or the error in the place of both."""

    mode: Mode
    code: int = 0
    output: str = ""
    error: NimctlError | None = None


@dataclass(frozen=True)
class Seen:
    """What a container saw. `cuda` is (code, devices), None where it was not tried; `cache` is why it cannot be
    written, empty when it can, None where that was not tried.
    """

    uuids: frozenset[str] = frozenset()
    why_none: str = "the container did not say what it sees"
    cuda: tuple[int, int] | None = None
    cache: str | None = None


def read(said: Said) -> Seen:
    """What the container saw, from its output: lines of JSON behind a mark, else those of nvidia-smi and the shell."""
    found: dict[str, Any] = {}
    for line in said.output.splitlines():
        if line.startswith(inside.MARK):
            try:
                part = json.loads(line.removeprefix(inside.MARK))
            except ValueError:
                continue  # cut off
            found |= part if isinstance(part, dict) else {}
    nvml, cuda, cache = found.get("nvml"), found.get("cuda"), found.get("cache")
    if not found:
        uuids = frozenset(_SMI_LINE.findall(said.output))
        tried = _CACHE_LINE.search(said.output)
        return Seen(
            uuids,
            "nvidia-smi lists no GPU" if said.output.strip() else Seen.why_none,
            cache=None if tried is None else "" if tried[1] == "ok" else tried[1],
        )
    listed = nvml.get("uuids") if isinstance(nvml, dict) else None
    why = nvml.get("error") if isinstance(nvml, dict) else None
    codes = (cuda.get("code"), cuda.get("count")) if isinstance(cuda, dict) else (None, None)
    return Seen(
        frozenset(map(str, listed if isinstance(listed, list) else ())),
        str(why or ("NVML lists no GPU" if isinstance(nvml, dict) else Seen.why_none)),
        (codes[0], codes[1]) if isinstance(codes[0], int) and isinstance(codes[1], int) else None,
        cache if isinstance(cache, str) else None,
    )
