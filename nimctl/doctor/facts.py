"""Looking at the host once: every fact side by side, each bounded, the whole in seconds whatever hangs."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from nimctl import __version__
from nimctl.core.facts import (
    CacheFacts,
    CredentialFacts,
    DiskFacts,
    DockerFacts,
    HostFacts,
    PortFacts,
    SystemFacts,
    ToolFacts,
    ToolkitFacts,
)
from nimctl.core.gpus import GpuInventory, read_inventory
from nimctl.core.secret import redact
from nimctl.doctor.bounded import Probe
from nimctl.doctor.observe.credentials import look_at_credentials
from nimctl.doctor.observe.network import look_at_port, look_at_proxies
from nimctl.doctor.observe.nvidia import CDI_FOLDERS, look_at_cdi, look_at_toolkit
from nimctl.doctor.observe.storage import look_at_cache, look_at_disk, look_into_cache
from nimctl.doctor.observe.system import look_at_system
from nimctl.doctor.observe.tools import look_at_tools
from nimctl.launch.docker import describe_daemon

# Seconds. The first bounds each look; the second what depends on Docker's answer. With the start of the program itself
# the whole stays below 6 s when everything hangs at once.
LIMIT = 4.8
AFTER_DOCKER = 0.5


def gather(
    *,
    cache: Path,
    host: str,
    port: int,
    environment: Mapping[str, str],
    try_port: bool = True,
    docker_facts: Callable[[float], DockerFacts] = describe_daemon,
    gpu_inventory: Callable[[], GpuInventory] = read_inventory,
    limit: float = LIMIT,
    after_docker: float = AFTER_DOCKER,
) -> HostFacts:
    """Everything observed on this host, for a run with this cache folder on this address. Never raises.

    Takes `limit + after_docker` seconds at most: a look that hangs is left behind and named in `problems`.
    Without `try_port` it is not known whether the port is free.
    """
    started = time.monotonic()
    deadline = started + limit
    until = started + 0.9 * limit  # looks that can bound themselves do so first, and keep what they have seen
    problems: list[str] = []

    docker = Probe("docker", partial(docker_facts, 0.9 * limit))
    gpus = Probe("gpus", gpu_inventory)
    folder = Probe("cache", partial(look_at_cache, cache))
    entries = Probe("cache entries", partial(look_into_cache, cache, until))
    toolkit = Probe("toolkit", partial(look_at_toolkit, environment, until))
    cdi = Probe("cdi", partial(look_at_cdi, CDI_FOLDERS))
    system = Probe("system", look_at_system)
    tools = Probe("tools", partial(look_at_tools, environment))
    credentials = Probe("credentials", partial(look_at_credentials, environment))
    bound = Probe("port", partial(look_at_port if try_port else PortFacts, host, port))

    in_time = f"no answer within {limit:g} s"
    daemon = docker.answer(
        deadline,
        late=DockerFacts("hangs", detail=in_time),
        failed=DockerFacts("unreachable", detail="the look at it failed"),
        problems=problems,
    )
    # These two have to know what Docker said, and have most of the time left unless Docker itself hung.
    later = max(deadline, time.monotonic() + after_docker)
    store = Probe("image store", partial(_image_store, daemon))
    own_specs = Probe("docker's cdi", partial(look_at_cdi, _extra_cdi_folders(daemon)))
    no_specs = ()
    specs = (
        *cdi.answer(deadline, late=no_specs, failed=no_specs, problems=problems),
        *own_specs.answer(later, late=no_specs, failed=no_specs, problems=problems),
    )
    return HostFacts(
        nimctl=__version__,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        system=system.answer(deadline, late=SystemFacts(), failed=SystemFacts(), problems=problems),
        gpus=gpus.answer(
            deadline,
            late=GpuInventory("failed", detail=f"NVML hangs: {in_time}"),
            failed=GpuInventory("failed", detail="the look at the GPUs failed"),
            problems=problems,
        ),
        docker=daemon,
        toolkit=toolkit.answer(deadline, late=ToolkitFacts(), failed=ToolkitFacts(), problems=problems),
        cdi=specs,
        image_store=store.answer(later, late=None, failed=None, problems=problems),
        cache=_cache_facts(cache, folder, entries, deadline, problems),
        port=bound.answer(
            deadline,
            late=PortFacts(host, port, detail=in_time),
            failed=PortFacts(host, port, detail="it could not be tried"),
            problems=problems,
        ),
        credentials=credentials.answer(deadline, late=CredentialFacts(), failed=CredentialFacts(), problems=problems),
        proxies=look_at_proxies(environment),
        tools=tools.answer(deadline, late=ToolFacts(), failed=ToolFacts(), problems=problems),
        problems=tuple(redact(line) for line in problems),
    )


def _image_store(docker: DockerFacts) -> DiskFacts | None:
    """The filesystem of Docker's data root, where that is a folder of this host (it is none for Docker Desktop)."""
    if docker.data_root is None:
        return None
    with suppress(OSError):  # a folder that this user may not see
        if Path(docker.data_root).is_dir():
            return look_at_disk(Path(docker.data_root))
    return None


def _extra_cdi_folders(docker: DockerFacts) -> tuple[str, ...]:
    return tuple(folder for folder in docker.cdi_spec_dirs or () if folder not in CDI_FOLDERS)


def _cache_facts(
    path: Path, folder: Probe[CacheFacts], entries: Probe[CacheFacts], deadline: float, problems: list[str]
) -> CacheFacts:
    """The folder, with what was seen in it."""
    seen = folder.answer(
        deadline,
        late=CacheFacts(str(path), exists=None, hangs=True, problem="the filesystem below it does not answer"),
        failed=CacheFacts(str(path), exists=None, problem="the look at it failed"),
        problems=problems,
    )
    nothing = CacheFacts(str(path), exists=None)
    inside = entries.answer(deadline, late=nothing, failed=nothing, problems=problems)
    return replace(
        seen,
        entries_seen=inside.entries_seen if seen.exists else None,
        entries_bytes=inside.entries_bytes if seen.exists else None,
        unwritable_entries=inside.unwritable_entries,
        unreadable_entries=inside.unreadable_entries,
    )
