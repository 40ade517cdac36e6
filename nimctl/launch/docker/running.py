"""What runs in Docker already, of which only names are kept: which containers have GPUs, and which hold keys."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nimctl.core.facts import ContainerFacts
from nimctl.core.secret import MASK, is_secret_name, redact

# As runtime.LABEL, which cannot be imported here: it lies above.
OUR_LABEL = "io.nimctl.run"
# Inspecting one takes 2-5 ms. Of more than these only the names are kept.
MOST_INSPECTED = 64
# Values of NVIDIA_VISIBLE_DEVICES for which the nvidia runtime hands over nothing:
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
_NO_DEVICES = ("", "void", "none")
# Public keys by which base images check what they install (python, php, ...); their names look like secrets.
_PUBLIC = ("GPG_KEY", "GPG_KEYS", "PUBLIC_KEY")
# Shorter values are switches ("true", "0") and not keys.
_SHORTEST_KEY = 6


def look_at_running(client: Any, until: float) -> tuple[ContainerFacts, ...]:
    """The running containers by name, looked at one by one until `until` (of `time.monotonic`).

    Raises whatever the client raises when it cannot list them. One that is gone meanwhile is left out.
    """
    found = []
    for index, listed in enumerate(sorted(client.containers(), key=_name)):
        facts = None
        if index < MOST_INSPECTED and time.monotonic() < until:
            try:
                facts = describe(client.inspect_container(listed["Id"]))
            except Exception as error:
                if type(error).__name__ == "NotFound":
                    continue
        found.append(facts or _named(listed))
    return tuple(found)


def describe(inspected: Mapping[str, Any]) -> ContainerFacts:
    """A container from what `docker inspect` says of it. Pure; no value of its environment is kept."""
    config = _table(inspected.get("Config"))
    environment = dict(_variables(config.get("Env")))
    return ContainerFacts(
        id=str(inspected.get("Id", ""))[:12],
        name=str(inspected.get("Name", "")).lstrip("/"),
        image=_text(config.get("Image")),
        gpus=_has_gpus(_table(inspected.get("HostConfig")), environment),
        ours=OUR_LABEL in _table(config.get("Labels")),
        key_variables=tuple(sorted(name for name, value in environment.items() if _is_key(name, value))),
    )


def _has_gpus(host: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether it was given GPUs: by `--gpus` or CDI, by the nvidia runtime, or as plain device nodes."""
    if any(_asks_for_gpus(request) for request in host.get("DeviceRequests") or ()):
        return True
    if host.get("Runtime") == "nvidia" and environment.get("NVIDIA_VISIBLE_DEVICES", "") not in _NO_DEVICES:
        return True
    return any(_is_gpu_node(str(device.get("PathOnHost", ""))) for device in host.get("Devices") or ())


def _asks_for_gpus(request: Mapping[str, Any]) -> bool:
    names = [str(name) for name in request.get("DeviceIDs") or ()]
    if request.get("Driver") == "cdi":
        return any(name.startswith("nvidia.com/") for name in names)
    wanted = [str(word) for group in request.get("Capabilities") or () for word in group or ()]
    return request.get("Driver") == "nvidia" or "gpu" in wanted or "nvidia" in wanted


def _is_gpu_node(path: str) -> bool:
    return path.startswith("/dev/nvidia") or path.startswith("nvidia.com/")


def _is_key(name: str, value: str) -> bool:
    """Whether a variable holds a key, by its name or by the shape of its value; a path of a key file is none."""
    if MASK in redact(value) and MASK not in value:
        return True
    if name.upper().endswith(_PUBLIC) or value.startswith("/") or len(value) < _SHORTEST_KEY:
        return False
    return is_secret_name(name)


def _variables(lines: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for line in lines or ():
        name, _, value = str(line).partition("=")
        yield name, value


def _named(listed: Mapping[str, Any]) -> ContainerFacts:
    """Of a container that was not inspected."""
    ours = OUR_LABEL in _table(listed.get("Labels"))
    return ContainerFacts(str(listed.get("Id", ""))[:12], _name(listed), _text(listed.get("Image")), ours=ours)


def _name(listed: Mapping[str, Any]) -> str:
    return str(next(iter(listed.get("Names") or ()), "")).lstrip("/")


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
