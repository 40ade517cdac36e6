"""NVIDIA's container parts: the toolkit's version, docker's GPU hook, and CDI specifications."""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nimctl.core.command import run
from nimctl.core.errors import NimctlError
from nimctl.core.facts import CdiSpec, ToolkitFacts
from nimctl.core.yamlfile import read_yaml

# Where docker and podman look unless told otherwise: https://github.com/cncf-tags/container-device-interface
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
# A specification of 8 GPUs has some 20 kB; whatever is a thousand times larger is none.
_LARGEST_SPEC = 20_000_000
_MOST_SPECS = 100

# Ways to ask for the version, most exact first, and how each prints it.
_QUESTIONS: Sequence[tuple[str, Sequence[str], str]] = (
    ("nvidia-ctk", ("nvidia-ctk", "--version"), r"version\s+(\S+)"),
    ("nvidia-container-cli", ("nvidia-container-cli", "--version"), r"cli-version:\s*(\S+)"),
    (
        "dpkg",
        ("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "nvidia-container-toolkit"),
        r"^installed (?:\d+:)?(\S+)",
    ),
    ("rpm", ("rpm", "-q", "--qf", "%{VERSION}-%{RELEASE}", "nvidia-container-toolkit"), r"^(\d\S*)$"),
)


def look_at_toolkit(environment: Mapping[str, str], until: float) -> ToolkitFacts:
    """The toolkit's version from whichever program or package database knows it, asked until `until` at the latest.

    Raises TimeoutError when one of them hangs and none of the others knows: then it is not known to be missing.
    """
    hook = shutil.which("nvidia-container-runtime-hook", path=environment.get("PATH"))
    hung = []
    for source, argv, pattern in _QUESTIONS:
        # Half of the time that is left, so that the next can still be asked.
        answer = run(argv, timeout=max(0.0, until - time.monotonic()) / 2, env=environment)
        if answer.timed_out:
            hung.append(argv[0])
        if answer.ok and (found := re.search(pattern, answer.stdout.strip())):
            return ToolkitFacts(found[1], source, hook)
    if hung:
        raise TimeoutError(f"no answer from {', '.join(hung)}")
    return ToolkitFacts(hook=hook)


def look_at_cdi(folders: Sequence[str]) -> tuple[CdiSpec, ...]:
    """Every CDI specification in `folders`, in the order of their names; unreadable ones with their problem."""
    return tuple(_read_spec(path) for path in list(_spec_files(folders))[:_MOST_SPECS])


def _spec_files(folders: Sequence[str]) -> Iterator[Path]:
    for folder in dict.fromkeys(folders):
        try:
            names = sorted(Path(folder).iterdir())
        except OSError:
            continue
        yield from (path for path in names if path.suffix in (".yaml", ".json"))


def _read_spec(path: Path) -> CdiSpec:
    try:
        if path.stat().st_size > _LARGEST_SPEC:
            return CdiSpec(str(path), problem="it is too large for a CDI specification")
        data = read_yaml(path)
    except OSError as error:
        return CdiSpec(str(path), problem=str(error.strerror))
    except NimctlError as error:
        return CdiSpec(str(path), problem=error.cause)
    kind = data.get("kind") if isinstance(data, Mapping) else None
    devices = data.get("devices") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or not isinstance(devices, list):
        return CdiSpec(str(path), problem="it has no kind, or no list of devices")
    return CdiSpec(str(path), kind, tuple(_name(d) for d in devices if _name(d)))


def _name(device: Any) -> str:
    return str(device.get("name", "")) if isinstance(device, Mapping) else ""
