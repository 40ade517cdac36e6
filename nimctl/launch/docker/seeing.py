"""What the daemon says of a container, as plain data to be compared: its image, its variables, its confinement. Pure.

https://docs.docker.com/reference/api/engine/version/v1.51/#tag/Container/operation/ContainerInspect
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What a run of nimctl mounts: cache, weights of a folder, trusted CAs, keys.
_USUAL_MOUNTS = re.compile(r"/opt/nim/\.cache|/opt/nim/model|/run/nimctl-ca\.pem|/run/secrets/[A-Z][A-Z0-9_]*")
# Not cgroup: with version 1 of it, every container shares the host's.
_NAMESPACES = {
    "NetworkMode": "network",
    "PidMode": "pid",
    "IpcMode": "ipc",
    "UTSMode": "uts",
    "UsernsMode": "user",
}
# What no run of nimctl asks for; GPUs are device requests, and those are compared by what the server reports.
_NEVER = {
    "Devices": "devices",
    "DeviceCgroupRules": "device_cgroup_rules",
    "VolumesFrom": "volumes_from",
    "GroupAdd": "group_add",
    "Sysctls": "sysctls",
    "ExtraHosts": "extra_hosts",
    "CapAdd": "cap_add",
}


@dataclass(frozen=True)
class ContainerFacts:
    """A container. `variables` are all that it has, and `given` those that its image has not, or otherwise; `argv` its
    arguments, and `image_argv` those that its image has. `tmpfs` maps a path to its options.

    `beyond` is what no run of nimctl has, by its name: rights, namespaces of others, devices, mounts, another program.
    """

    image: str
    argv: tuple[str, ...]
    image_argv: tuple[str, ...]
    labels: Mapping[str, str]
    variables: Mapping[str, str] = field(repr=False)
    given: Mapping[str, str] = field(repr=False)
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    read_only: bool = False
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    shm_bytes: int = 0
    beyond: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def container_facts(found: Mapping[str, Any], image: Mapping[str, Any] | None) -> ContainerFacts:
    """The facts in an inspected container and, where it is still there, its inspected image."""
    config, host = found.get("Config") or {}, found.get("HostConfig") or {}
    of_image = (image or {}).get("Config") or {}
    own, theirs = _variables(config.get("Env") or ()), _variables(of_image.get("Env") or ())
    options = _security_options(host)
    return ContainerFacts(
        image=str(found.get("Image") or ""),
        argv=_words(config.get("Cmd")),
        image_argv=_words(of_image.get("Cmd")),
        labels={str(key): str(value) for key, value in (config.get("Labels") or {}).items()},
        variables=own,
        given={name: value for name, value in own.items() if theirs.get(name) != value},
        cap_drop=tuple(host.get("CapDrop") or ()),
        no_new_privileges=any(option.split(":")[0].split("=")[0] == "no-new-privileges" for option in options),
        read_only=bool(host.get("ReadonlyRootfs")),
        tmpfs={str(path): str(how) for path, how in (host.get("Tmpfs") or {}).items()},
        shm_bytes=int(host.get("ShmSize") or 0),
        beyond={name: words for name, words in _beyond(config, host, of_image if image else None) if words},
    )


def _beyond(
    config: Mapping[str, Any], host: Mapping[str, Any], of_image: Mapping[str, Any] | None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "privileged", ("yes",) if host.get("Privileged") else ()
    yield from ((name, _words(host.get(key))) for key, name in _NEVER.items())
    modes = ((name, str(host.get(key) or "")) for key, name in _NAMESPACES.items())
    yield "namespaces", tuple(f"{name}={mode}" for name, mode in modes if mode.startswith(("host", "container:")))
    taken = (o for o in _security_options(host) if "unconfined" in o or o == "label=disable")
    yield "unconfined", tuple(taken)
    yield "mounts", _mounts(host)
    user = str(config.get("User") or "")
    as_root = user.partition(":")[0] in ("0", "root") and user != (of_image or {}).get("User")
    yield "user", (user,) if as_root else ()
    program = _words(config.get("Entrypoint"))
    yield "entrypoint", program if of_image is not None and program != _words(of_image.get("Entrypoint")) else ()


def _words(value: Any) -> tuple[str, ...]:
    """What the daemon lists, as words; of a device its path on the host."""
    if isinstance(value, Mapping):
        return tuple(f"{key}={item}" for key, item in value.items())
    listed = [value] if isinstance(value, str) else value or ()
    return tuple(str(one.get("PathOnHost", one)) if isinstance(one, Mapping) else str(one) for one in listed)


def _security_options(host: Mapping[str, Any]) -> list[str]:
    """The options as given; `docker run --security-opt systempaths=unconfined` leaves empty lists instead."""
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    bare = [] in (host.get("MaskedPaths"), host.get("ReadonlyPaths"))
    return [*options, "systempaths=unconfined"] if bare else options


def _variables(pairs: Sequence[str]) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in pairs)


def _mounts(host: Mapping[str, Any]) -> tuple[str, ...]:
    targets = [str(bind).split(":")[1] for bind in host.get("Binds") or () if ":" in str(bind)]
    targets += [str(mount.get("Target", "")) for mount in host.get("Mounts") or ()]
    return tuple(sorted(target for target in targets if not _USUAL_MOUNTS.fullmatch(target)))
