"""The steps of the start after the front is up: each does one stage and returns what the next ones need.

They run beside the supervisor's thread. Whatever fails is a NimctlError; whoever waits asks `run.wanted` as well.
"""

import importlib.metadata
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint import documents, engine, loading, warmup
from entrypoint.front import Front
from entrypoint.journal import Journal
from entrypoint.model import Device, Model, decide_layout, engine_device, gpus_to_use, resolve_model
from entrypoint.process import Child
from entrypoint.report import Report
from entrypoint.settings import Settings
from entrypoint.state import State, write_atomically
from entrypoint.supervise import Supervisor
from entrypoint.unixhttp import UnreachableError, get_tcp
from nimctl import __version__
from nimctl.core.cache import CachePaths, probe_writable
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, fetch
from nimctl.core.gpus import Gpu, GpuInventory, read_inventory
from nimctl.core.layout import Layout

_FRONT_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """What every step may use."""

    settings: Settings
    environ: Mapping[str, str]
    state: State
    report: Report
    journal: Journal
    supervisor: Supervisor


@dataclass(frozen=True)
class Hardware:
    """What the engine runs on: the kind of engine, what NVML says, and the GPUs to use."""

    device: Device
    vllm_version: str | None
    inventory: GpuInventory
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Profile:
    """What is served how."""

    model: Model
    layout: Layout


def await_front(front: Front, child: Child) -> None:
    """Return when the front answers on the public port. Raises `front-died`."""
    deadline = time.monotonic() + _FRONT_SECONDS
    while time.monotonic() < deadline and child.exit is None:
        try:
            if get_tcp(front.client_host, front.port, "/v1/health/live", timeout=1.0).status == 200:
                return
        except UnreachableError:
            time.sleep(0.005)
    child.finish_output(0.5)
    raise NimctlError(
        "front-died",
        "nginx does not answer on the public port",
        cause=next((line for line in reversed(child.lines) if line), "it wrote nothing"),
        fix="Read its lines above; NIM_SERVER_HOST must be an address of this machine.",
        evidence=tuple(child.lines)[-5:],
    )


def probe_cache(run: Run) -> None:
    """Refuse a cache folder that is read-only, full or dead before anything is built upon it."""
    probe_writable(run.settings.cache_path, run.settings.cache_probe_timeout)


def find_gpus(run: Run) -> Hardware:
    """Look at the GPUs once and choose those that were asked for."""
    version = installed_vllm()
    device = engine_device(run.settings, version)
    inventory = read_inventory()
    gpus = gpus_to_use(run.settings, inventory)
    seen = ", ".join(f"{g.index} {g.name or 'unknown'}" for g in inventory.gpus) or f"none ({inventory.state})"
    run.journal.info("gpus", f"engine for {device}; GPUs visible: {seen}; asked for: {run.settings.gpus}")
    return Hardware(device, version, inventory, gpus)


def installed_vllm() -> str | None:
    """The version of vLLM that is installed beside us, such as `0.32.0+cpu`."""
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_profile(run: Run, hardware: Hardware) -> Profile:
    """Decide what is served on which GPUs, and say why."""
    model = resolve_model(run.settings)
    layout = decide_layout(
        run.settings,
        model,
        hardware.device,
        asked=engine.asked_sizes(run.settings),
        inventory=hardware.inventory,
        gpus=hardware.gpus,
    )
    run.journal.info("profile", f"{model.served_names[0]}: {layout.because}")
    if unused := [g for g in hardware.gpus if g.index in layout.unused]:
        run.journal.warning("profile", "unused: " + ", ".join(f"GPU {g.index} ({g.name})" for g in unused))
    if hardware.gpus and hardware.device == "cpu":
        run.journal.warning("profile", "the engine is built for the CPU: the layout is rehearsed, its ranks run there")
    run.report.describe(model=model.served_names[0], layout=layout.name)
    return Profile(model, layout)


def fetch_weights(run: Run, profile: Profile) -> Path:
    """Bring the weights into the cache, or find them there, and describe what will be served."""

    def on_progress(progress: Progress) -> None:
        run.report.progress("weights", done=progress.bytes, total=progress.total, detail=progress.file)

    snapshot = fetch(profile.model.weights, run.settings.cache_path, on_progress=on_progress)
    run.journal.info("weights", f"{profile.model.weights} is in {snapshot}")
    licence = documents.license_info(snapshot)
    written = {
        "manifest": documents.manifest(profile.model, snapshot),
        "license": licence,
        "metadata": documents.metadata(
            profile.model, profile.layout, __version__, licence, len(profile.layout.used)
        ),
    }  # fmt: skip
    for name, document in written.items():
        write_atomically(run.state.public / f"{name}.json", json.dumps(document))
    return snapshot


def start_engine(run: Run, hardware: Hardware, profile: Profile, snapshot: Path) -> str:
    """Start the engine and return the name under which it serves, once it does."""
    command = engine.build_command(
        run.settings, profile.model, hardware.device, profile.layout, snapshot=str(snapshot), state=run.state
    )
    gpu_name = hardware.gpus[0].name if hardware.gpus else None
    key = engine.cache_key(hardware.device, hardware.vllm_version, gpu_name, hardware.inventory.driver)
    private = CachePaths(run.settings.cache_path).engine_private(key)
    (private / "home").mkdir(mode=0o700, exist_ok=True)
    env = engine.build_environment(
        run.environ,
        run.settings,
        profile.model,
        hardware.device,
        profile.layout,
        visible=[g.index for g in hardware.inventory.gpus],
        private=private,
    )
    theirs, ours = run.environ.get("CUDA_VISIBLE_DEVICES"), env.get("CUDA_VISIBLE_DEVICES")
    if theirs is not None and theirs != ours:
        told = f"CUDA_VISIBLE_DEVICES={theirs} is replaced by {ours}: NIM_GPUS is what chooses GPUs here"
        run.journal.warning("engine", told)
    env = engine.with_own_package(env, Path(__file__).parent.parent)
    run.journal.info("engine", f"starting: {' '.join(command.argv)}")

    def on_line(line: str) -> None:
        run.journal.line(line)
        if step := loading.step_of(line):
            run.report.progress("engine", detail=step)

    child = run.supervisor.spawn("engine", command.argv, env=env, cwd=private / "home", on_line=on_line)
    loading.await_engine(
        child,
        run.state.engine_socket,
        command.served_names[0],
        stall_seconds=run.settings.stall_seconds,
        still_wanted=lambda: not run.supervisor.closed,
    )
    return command.served_names[0]


def warm_up(run: Run, front: Front, profile: Profile, served_name: str) -> None:
    """Have a text and an image request answered through the public port."""

    def on_step(words: str) -> None:
        run.journal.info("warmup", words)
        run.report.progress("warmup", detail=words)

    images = profile.model.sees_images and run.settings.max_images > 0
    warmup.warm_up(front, served_name, images=images, on_step=on_step)
