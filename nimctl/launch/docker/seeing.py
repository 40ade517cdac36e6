"""What the daemon says of a container, as plain data to be compared: its image, its variables, its confinement. Pure.

https://docs.docker.com/reference/api/engine/version/v1.51/#tag/Container/operation/ContainerInspect
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a run of nimctl mounts: cache, weights of a folder, trusted CAs, keys.
_USUAL_MOUNTS = ("/opt/nim/.cache", "/opt/nim/model", "/run/nimctl-ca.pem", "/run/secrets/")
_HOST_NAMESPACES = {
    "NetworkMode": "network",
    "PidMode": "pid",
    "IpcMode": "ipc",
    "UTSMode": "uts",
    "UsernsMode": "user",
}


@dataclass(frozen=True)
class ContainerFacts:
    """A container. `given` are its variables beyond those of its image; `tmpfs` maps a path to its options.

    `host_namespaces` are those of the host that it shares; `unconfined` the security options that take confinement
    away; `mounts` the targets of what no run of nimctl mounts.
    """

    image: str
    argv: tuple[str, ...]
    labels: Mapping[str, str]
    given: Mapping[str, str] = field(repr=False)
    cap_drop: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    no_new_privileges: bool = False
    read_only: bool = False
    privileged: bool = False
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    shm_bytes: int = 0
    host_namespaces: tuple[str, ...] = ()
    unconfined: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()


def container_facts(found: Mapping[str, Any], image: Mapping[str, Any] | None) -> ContainerFacts:
    """The facts in an inspected container and, where it is still there, its inspected image."""
    config, host = found.get("Config") or {}, found.get("HostConfig") or {}
    of_image = (image or {}).get("Config") or {}
    theirs = _variables(of_image.get("Env") or ())
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    return ContainerFacts(
        image=str(found.get("Image") or ""),
        argv=_argv(config.get("Cmd"), of_image.get("Cmd")),
        labels={str(key): str(value) for key, value in (config.get("Labels") or {}).items()},
        given={name: value for name, value in _variables(config.get("Env") or ()).items() if theirs.get(name) != value},
        cap_drop=tuple(host.get("CapDrop") or ()),
        cap_add=tuple(host.get("CapAdd") or ()),
        no_new_privileges=any(option.split(":")[0].split("=")[0] == "no-new-privileges" for option in options),
        read_only=bool(host.get("ReadonlyRootfs")),
        privileged=bool(host.get("Privileged")),
        tmpfs={str(path): str(how) for path, how in (host.get("Tmpfs") or {}).items()},
        shm_bytes=int(host.get("ShmSize") or 0),
        host_namespaces=tuple(name for key, name in _HOST_NAMESPACES.items() if host.get(key) == "host"),
        unconfined=tuple(option for option in options if "unconfined" in option or option == "label=disable"),
        mounts=_mounts(host),
    )


def _argv(words: Any, of_image: Any) -> tuple[str, ...]:
    """The arguments that were given: none where they are the image's own."""
    return () if not words or words == of_image else tuple(map(str, words))


def _variables(pairs: Sequence[str]) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in pairs)


def _mounts(host: Mapping[str, Any]) -> tuple[str, ...]:
    targets = [str(bind).split(":")[1] for bind in host.get("Binds") or () if ":" in str(bind)]
    targets += [str(mount.get("Target", "")) for mount in host.get("Mounts") or ()]
    return tuple(sorted(target for target in targets if not target.startswith(_USUAL_MOUNTS)))
