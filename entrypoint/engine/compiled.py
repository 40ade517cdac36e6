"""The compile caches: whose they are, how much room they take, and what goes when it is too much.

`engine/<uid>/<key>` in the cache holds everything that the engine's compilers leave: torch.compile, inductor, Triton,
FlashInfer, DeepGEMM, CUDA and Numba. The key is the engine, the build, the GPU, its driver and the processor: compiled
code of any other is useless or worse. Kernels that are warm were worth five times as much as weights that are near:
https://github.com/ai-dynamo/modelexpress/blob/main/docs/BENCHMARKS.md
"""

import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engine.model import Device
from nimctl.core.cache.held import LOCK, Hold, hold, remove

GIB = 2**30
_SIZE = ".bytes"  # what a folder held when it was last counted
# Beside the virtual environment: in the image /opt/nim/etc/engine. Elsewhere there is no such folder.
DESCRIBED = Path(sys.prefix).parent / "etc/engine"
_BLOCK = 512  # of st_blocks: https://man7.org/linux/man-pages/man3/stat.3type.html
_PLAN_LINK = "vllm/startup_plan"  # https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/v1/worker/startup_plan.py
# Each with its value; none has to do with memory. Which rank it is, is in vLLM's own fingerprint.
_OF_THIS_START = ("--uds", "--shutdown-timeout", "--master-addr", "--master-port", "--node-rank")


@dataclass(frozen=True)
class Machine:
    """What compiled code depends on. `gpus` are the names of those in use; `build` and `processor` as below."""

    device: Device
    vllm_version: str | None
    gpus: tuple[str, ...]
    driver: str | None
    processor: str
    build: str

    @property
    def key(self) -> str:
        """The folder of compiled code that fits this machine and no other: readable, and a digest of the rest."""
        names = sorted(set(self.gpus))
        rest = "\0".join((*names, self.processor, self.build)).encode()
        parts = (f"vllm-{self.vllm_version or 'unknown'}", self.device, (names or ["cpu"])[0], self.driver or "none")
        readable = re.sub(r"[^A-Za-z0-9.+_-]+", "_", "-".join(parts))
        return f"{readable}-{hashlib.sha256(rest).hexdigest()[:8]}"


def machine(
    device: Device,
    vllm_version: str | None,
    gpus: Iterable[str | None],
    driver: str | None,
    executable: str | None = None,
) -> Machine:
    """This machine: what is given, and what Python and the kernel tell of it. Another `executable` is another build."""
    names = tuple(gpu or "unknown" for gpu in gpus)
    return Machine(device, vllm_version, names, driver, processor(), "\n".join((build(), executable or "")))


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The architecture and, as the kernel lists them, the first processor's instruction sets.

    Inductor and Numba compile for the processor that they run on, and one cache may be shared by many hosts.
    """
    with suppress(OSError), cpuinfo.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("flags", "Features")):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return platform.machine()


def build(packages: Path | None = None) -> str:
    """Python and every package that is installed with ours, with their versions: what an image's build decides."""
    names: list[str] = []
    with suppress(OSError):
        folder = packages or Path(sysconfig.get_path("purelib"))
        names = [e.name for e in folder.iterdir() if e.suffix == ".dist-info" and not e.name.startswith("nimctl")]
    return "\n".join((platform.python_version(), *sorted(names)))


@dataclass(frozen=True)
class Pruned:
    """What went to make room: the keys and their bytes; `bytes` is what is left."""

    removed: tuple[str, ...]
    freed: int
    bytes: int


def prune(mine: Path, limit: int) -> Pruned:
    """Remove this user's caches, the least recently used first, until all together hold at most `limit` bytes.

    `mine`, the cache about to be used, goes last and only where nobody else holds it: then the start is a cold one.
    Those in use stay. Sizes are what the last start counted, so that a start waits for no walk of a large tree.
    """
    with suppress(OSError):
        entries = [f for f in mine.parent.iterdir() if f.is_dir() and not f.is_symlink()]
        for grave in (f for f in entries if f.name.startswith(".")):  # whoever removed it was ended
            shutil.rmtree(grave, ignore_errors=True)
        folders = [f for f in entries if not f.name.startswith(".")]
        sizes = {folder: size_of(folder) for folder in folders}
        total, removed, freed = sum(sizes.values()), [], 0
        for folder in sorted(folders, key=lambda f: (f == mine, _used(f))):
            if total - freed <= limit:
                break
            if remove(folder):
                removed.append(folder.name)
                freed += sizes[folder]
        mine.mkdir(mode=0o700, exist_ok=True)
        return Pruned(tuple(removed), freed, total - freed)
    return Pruned((), 0, 0)


def _used(folder: Path) -> float:
    """When it was last taken into use, or made."""
    for path in (folder / LOCK, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def size_of(folder: Path) -> int:
    """Bytes of a cache on the disk: as noted, or counted where nobody has."""
    with suppress(OSError, ValueError):
        return int((folder / _SIZE).read_text(encoding="ascii"))
    return count(folder)


def count(folder: Path) -> int:
    """Bytes on the disk of all that is below `folder`."""
    total = 0
    for top, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_blocks * _BLOCK  # noqa: PTH118 (one of 10^5)
    return total


_waiting: dict[Path, threading.Timer] = {}  # of this process, whose end is theirs


def note_size(folder: Path, *, delay: float) -> threading.Thread:
    """Count `folder` after `delay` seconds, with the least claim to the processor, and note it for `prune`.

    Whoever was still to count it does not any more. It ends with this process.
    """

    def work() -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of this thread alone, on Linux
            (folder / _SIZE).write_text(str(count(folder)), encoding="ascii")

    if before := _waiting.pop(folder, None):
        before.cancel()
    timer = _waiting[folder] = threading.Timer(delay, work)
    timer.daemon = True
    timer.start()
    return timer


def keep_plan(folder: Path, argv: Sequence[str], held: Hold) -> bool:
    """Give this command its own remembered memory plan; False where it must measure anew.

    vLLM skips measuring its memory when it remembers the result, but what it looks at leaves out
    --gpu-memory-utilization, image limits and more: a start with less memory would take what an earlier one had. So
    each command line has a folder of its own, which the link in vLLM's cache names for as long as we run alone.
    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/cache.py (compute_hash)
    """
    if not held.alone:
        return False
    digest = hashlib.sha256("\0".join(_lasting(argv)).encode()).hexdigest()[:16]
    target, link = folder / "plans" / digest, folder / _PLAN_LINK
    try:
        target.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(exist_ok=True)
        if link.is_dir() and not link.is_symlink():
            link.rename(folder / "plans" / "foreign")
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    except OSError:
        return False
    return True


def _lasting(argv: Sequence[str]) -> list[str]:
    """The words of a command without those that change from start to start."""
    return [word for before, word in zip(("", *argv), argv, strict=False) if {before, word}.isdisjoint(_OF_THIS_START)]


def seed(folder: Path, snapshots: Iterable[Path], described: Path) -> tuple[str, ...]:
    """Put what the image knows of these checkpoints' architectures into vLLM's cache; their names.

    `described` is what images/model_infos.py wrote. vLLM checks it against the model's source, and what is in the cache
    already stays.
    """
    names = dict[str, str]()
    with suppress(OSError, ValueError, AttributeError):
        known = json.loads((described / "architectures.json").read_text(encoding="utf-8"))
        names = {name: known[name] for snapshot in snapshots for name in _architectures(snapshot) if name in known}
    done = []
    for architecture, name in names.items():
        target = folder / "vllm/modelinfos" / Path(name).name
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(described / "modelinfos" / target.name, target)
                done.append(architecture)
    return tuple(done)


def _architectures(snapshot: Path) -> list[str]:
    """The classes that a checkpoint's configuration names."""
    with suppress(OSError, ValueError, AttributeError):
        named = json.loads((snapshot / "config.json").read_text(encoding="utf-8")).get("architectures")
        return [name for name in named or () if isinstance(name, str)]
    return []


@functools.cache
def take(folder: Path) -> Hold:
    """Hold `folder` until this process ends; an engine that is started again goes on with the same hold."""
    return hold(folder)
