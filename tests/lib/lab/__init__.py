"""The lab: everything real that can be real without a GPU. What tests use is here; the rooms are the modules beside it.

    engine      a private Docker Engine with buildx and CDI       base_image  Debian 12, the base of every build
                (and a second, when asked for: store "containerd")
    registry    token authentication and its refusals             gpus        simulated GPUs through NVML and CDI

`scripts/lab` is the same from a shell. The state lies in $NIMCTL_LAB_DIR, else /var/tmp/nimctl-lab.
"""

import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from . import base_image, control, debian, engine, faults, gpus, push, registry
from .faults import Served
from .paths import STORES, Store, paths
from .push import Registry
from .simulated import simulated_host
from .steps import LabError

BASE_IMAGE = base_image.IMAGE

__all__ = [
    "BASE_IMAGE", "STORES", "LabError", "Registry", "Served", "Store", "available", "docker", "docker_config",
    "double_environment", "environment", "fault", "push_image", "push_index", "registry_down", "registry_info",
    "reset_situations", "rotten_blob", "served", "set_situation", "swapped_tag", "up",
]  # fmt: skip


def available() -> str | None:
    """Why the lab cannot run here, as one sentence; None when it can."""
    return debian.reason_why_not()


def up() -> None:
    """Have everything running; seconds when it runs already. Raises LabError with cause and fix."""
    control.up(paths())


def environment(profile: str, store: Store = "classic") -> dict[str, str]:
    """Make this machine the host `profile` (`2xH200`, `none`, ...); returns the whole environment of its processes.

    With the store `containerd` its Docker is the lab's second engine, which this starts (two seconds the first time).
    """
    place = paths(store)
    control.have_store(place)
    return {**_without("LD_LIBRARY_PATH", "NVML_DOUBLE_JSON", "DOCKER_CONTEXT"), **simulated_host(place, profile)}


def double_environment(profile: str, folder: Path) -> dict[str, str]:
    """The environment of a host with these GPUs and nothing else of the lab: neither root nor Docker is needed.

    The double is built below `folder`, once.
    """
    host = folder / f"{profile}.json"
    host.write_text(gpus.host_text(profile))
    own = _without("LD_LIBRARY_PATH")
    return {**own, "LD_LIBRARY_PATH": str(gpus.build(folder)), "NVML_DOUBLE_JSON": str(host)}


def docker(*args: str | Path, timeout: float = 300, store: Store = "classic") -> subprocess.CompletedProcess[str]:
    """Run the lab's docker client; never raises for a failure of docker itself."""
    place = paths(store)
    argv = [str(place.unpacked / "usr/bin/docker"), *map(str, args)]
    env = engine.client_environment(place)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def registry_info() -> Registry:
    """Address and key of the running registry."""
    return registry.info(paths())


def push_image(repository_and_tag: str, files: dict[str, bytes] | None = None) -> str:
    """Push a small image into the registry; returns its digest. See push.py."""
    return push.push_image(registry.info(paths()), repository_and_tag, files)


def push_index(repository_and_tag: str, platforms: dict[str, str]) -> str:
    """Push an index of images that lie in the repository already; returns its digest. See push.py."""
    return push.push_index(registry.info(paths()), repository_and_tag, platforms)


def set_situation(pattern: str, situation: str) -> None:
    """Make repositories answer with a situation of registry.py from now on; undo with reset_situations."""
    registry.set_situation(paths(), pattern, situation)


def reset_situations() -> None:
    registry.reset_situations(paths())


def fault(
    repository: str, *, blob: str = "*", times: int | None = None, after: int = 0, **what: int
) -> AbstractContextManager[None]:
    """While it is open, blobs go wrong: `cut=N`, `stall=N`, `rate=R`, `flip=OFFSET`, `status=CODE`. See faults.py."""
    return faults.fault(paths(), repository, blob=blob, times=times, after=after, **what)


def swapped_tag(repository: str, tag: str, digest: str, *, after: int = 0) -> AbstractContextManager[None]:
    """While it is open, the tag means another manifest, from the (`after` + 1)-th request on."""
    return faults.swapped_tag(paths(), repository, tag, digest, after=after)


def rotten_blob(digest: str, offset: int = 0) -> AbstractContextManager[None]:
    """While it is open, one bit of this blob is another on the registry's disk."""
    return faults.rotten_blob(paths(), digest, offset)


def registry_down() -> AbstractContextManager[None]:
    """While it is open, nobody listens at the registry's address."""
    return faults.registry_down(paths())


def served(repository: str) -> Served:
    """Requests and bytes of this repository so far; subtract an earlier look from a later one."""
    return faults.served(paths(), repository)


def docker_config(folder: Path, *, key: str | None = None) -> Path:
    """Make `folder` a DOCKER_CONFIG of its own (with buildx), logged in to the registry when a key is given."""
    return registry.docker_config(paths(), folder, key=key)


def _without(*names: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in names}
