"""Room for an image before a byte of it is fetched: what its manifest says against the disk that Docker keeps it on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nimctl.core.errors import NimctlError
from nimctl.doctor.observe.storage import look_at_image_store
from nimctl.render.words import size

if TYPE_CHECKING:
    from nimctl.core.facts import DiskFacts
    from nimctl.launch.docker import Engine
    from nimctl.launch.docker.pull import PullPlan
    from nimctl.render import Output

# How much larger an image of vLLM is unpacked than as it is transferred: 28.6 GB of 12.6 GB, see
# https://github.com/vllm-project/vllm/issues/27154 and https://github.com/vllm-project/vllm/pull/22377
UNPACKED = 2.3
_ANSWERS_WITHIN = 2.0  # seconds
_PACKS_ITSELF = ("btrfs", "zfs")  # filesystems that may compress, so that nothing is proved by sizes


def require_room(plan: PullPlan, engine: Engine, out: Output) -> None:
    """Refuse an image that cannot fit, and say of one that may not.

    No layer becomes smaller when it is unpacked, so what is transferred is the least that is needed; containerd's store
    keeps both forms. Raises `disk-full`. Says nothing where Docker's disk cannot be seen from here.
    """
    facts = engine.facts
    store = look_at_image_store(facts) if is_daemon_here(facts.endpoint) else None
    if store is None or store.free is None:
        return
    kept = 1 if facts.containerd_store else 0
    missing = sum(layer for _, layer in plan.layers)
    if store.free >= missing * (UNPACKED + kept):
        return
    missing = _missing(plan, engine)  # looked up only where it matters
    if store.free < missing * (1 + kept) and store.filesystem not in _PACKS_ITSELF:
        raise _full(plan, store, missing, missing * (1 + kept))
    if store.free < missing * (UNPACKED + kept):
        likely = size(missing * (UNPACKED + kept))
        out.text(
            f"[disk-tight] {size(store.free)} free on {store.path}; {plan.identity.reference} may need {likely} there "
            f"({size(missing)} to fetch, unpacked about {UNPACKED:g} times that)",
            style="yellow",
        )


def is_daemon_here(endpoint: str | None) -> bool:
    """Whether the daemon's paths are those of this process: not where its socket was mounted into a container.

    The kernel gives no process id of a peer that is outside of the own container: unix(7), pid_namespaces(7).
    """
    scheme, _, path = (endpoint or "").partition("://")
    if scheme != "unix" or not hasattr(socket, "SO_PEERCRED"):
        return False
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ANSWERS_WITHIN)
        try:
            line.connect(path)
        except OSError:
            return False
        pid, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        return pid > 0 and Path(f"/proc/{pid}/root").samefile("/")
    except OSError:  # only root may look there
        return True


def _missing(plan: PullPlan, engine: Engine) -> int:
    """Bytes of the layers that no image here has at the same place."""
    held = max((shared(plan.diff_ids, layers) for layers in engine.layers_here()), default=0)
    return sum(layer for _, layer in plan.layers[held:])


def shared(wanted: Sequence[str], there: Sequence[str]) -> int:
    """How many of the lowest layers two images share."""
    for count, (one, other) in enumerate(zip(wanted, there, strict=False)):
        if one != other:
            return count
    return min(len(wanted), len(there))


def _full(plan: PullPlan, store: DiskFacts, missing: int, needed: int) -> NimctlError:
    return NimctlError(
        "disk-full",
        f"{plan.identity.reference} does not fit on Docker's disk",
        cause=f"{size(missing)} are to be fetched and take at least {size(needed)}, and {store.path} has "
        f"{size(store.free or 0)} free; nothing was fetched",
        fix="Free space (`docker system df`, then `docker image prune`), or move Docker's data-root.",
    )
