"""NVIDIA's container parts: the toolkit's version and configuration, docker's GPU hook, and CDI specifications."""

import json
import re
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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

# How many missing host paths are named.
_MOST_MISSING = 8
# The libraries of the driver carry its version, and these two are always there: libcuda.so.580.95.05
_DRIVER_LIBRARY = re.compile(r"/lib(?:cuda|nvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)$")
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/index.html
_CONFIG = "etc/nvidia-container-runtime/config.toml"
_LARGEST_CONFIG = 1_000_000

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


def look_at_toolkit(environment: Mapping[str, str], until: float, root: Path = Path("/")) -> ToolkitFacts:
    """The toolkit's version from whichever program or package database knows it, asked until `until` at the latest.

    Its configuration is read below `root`. Raises TimeoutError when one of the programs hangs and none of the others
    knows: then it is not known to be missing.
    """
    path = environment.get("PATH")
    found = replace(
        _configuration(root / _CONFIG),
        hook=shutil.which("nvidia-container-runtime-hook", path=path),
        ctk=shutil.which("nvidia-ctk", path=path),
    )
    hung = []
    for source, argv, pattern in _QUESTIONS:
        # Half of the time that is left, so that the next can still be asked.
        answer = run(argv, timeout=max(0.0, until - time.monotonic()) / 2, env=environment)
        if answer.timed_out:
            hung.append(argv[0])
        if answer.ok and (version := re.search(pattern, answer.stdout.strip())):
            return replace(found, version=version[1], source=source)
    if hung:
        raise TimeoutError(f"no answer from {', '.join(hung)}")
    return found


def _configuration(path: Path) -> ToolkitFacts:
    """What config.toml says, or why it cannot be read; nothing where there is none."""
    try:
        with path.open("rb") as file:
            data = tomllib.loads(file.read(_LARGEST_CONFIG).decode())
    except (FileNotFoundError, NotADirectoryError):
        return ToolkitFacts()
    except PermissionError:
        return ToolkitFacts(config=str(path), config_problem="this user may not read it")
    except (OSError, ValueError) as error:
        return ToolkitFacts(config=str(path), config_problem=" ".join(str(error).split()))
    mode = _section(data, "nvidia-container-runtime").get("mode")
    no_cgroups = _section(data, "nvidia-container-cli").get("no-cgroups")
    return ToolkitFacts(
        config=str(path),
        mode=mode if isinstance(mode, str) else None,
        no_cgroups=no_cgroups if isinstance(no_cgroups, bool) else None,
        features=tuple(sorted(name for name, on in _section(data, "features").items() if on is True)),
    )


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name)
    return section if isinstance(section, Mapping) else {}


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
        data = json.loads(path.read_bytes()) if path.suffix == ".json" else read_yaml(path)
    except OSError as error:
        return CdiSpec(str(path), problem=str(error.strerror))
    except (ValueError, RecursionError) as error:
        return CdiSpec(str(path), problem=" ".join(str(error).split()))
    except NimctlError as error:
        return CdiSpec(str(path), problem=error.cause)
    kind = data.get("kind") if isinstance(data, Mapping) else None
    devices = data.get("devices") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or not isinstance(devices, list):
        return CdiSpec(str(path), problem="it has no kind, or no list of devices")
    paths = tuple(dict.fromkeys(_host_paths(data)))
    versions = (match[1] for name in paths if (match := _DRIVER_LIBRARY.search(name)))
    return CdiSpec(
        str(path),
        kind,
        tuple(_name(d) for d in devices if _name(d)),
        driver=next(versions, None),
        missing=tuple(name for name in paths if _is_missing(name))[:_MOST_MISSING],
    )


def _host_paths(data: Mapping[str, Any]) -> Iterator[str]:
    """What must be on the host for a container to start: libraries, device nodes and the programs of hooks.

    https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
    """
    for part in (data, *(d for d in data["devices"] if isinstance(d, Mapping))):
        edits = _section(part, "containerEdits")
        for kind, keys in (("mounts", ("hostPath",)), ("deviceNodes", ("hostPath", "path")), ("hooks", ("path",))):
            for entry in edits.get(kind) or ():
                value = next((entry[k] for k in keys if entry.get(k)), None) if isinstance(entry, Mapping) else None
                if isinstance(value, str) and value.startswith("/"):
                    yield value


def _is_missing(path: str) -> bool:
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False  # a folder that this user may not look into
    return False


def _name(device: Any) -> str:
    return str(device.get("name", "")) if isinstance(device, Mapping) else ""
