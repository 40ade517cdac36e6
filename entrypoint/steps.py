"""The steps of the start after the front is up: each does one stage and returns what the next ones need.

They run beside the supervisor's thread. Whatever fails is a NimctlError; whoever waits asks `run.wanted` as well.
"""

import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread

from entrypoint.engine import adapters, compiled, environment, invocation, loading, nodes, warmstart
from entrypoint.engine.drafts import Draft
from entrypoint.engine.foresight import Foresight, planned
from entrypoint.engine.model import (
    Device,
    Model,
    candidates,
    decide_layout,
    described,
    engine_device,
    gpus_to_use,
    named_model,
    on_gpus,
    over_nodes,
    require_device,
    with_draft,
)
from entrypoint.engine.nodes import ALONE, Role
from entrypoint.front import Front, describing, documents
from entrypoint.group.facts import digest_of_weights, facts
from entrypoint.health import canary, warmup
from entrypoint.health.canary import Canary
from entrypoint.health.judging import Baseline
from entrypoint.observability import timeline
from entrypoint.observability.lines import Line
from entrypoint.processes.child import Child, usage
from entrypoint.processes.supervisor import Moot
from entrypoint.run import Run
from entrypoint.settings import Settings
from entrypoint.state import write_atomically
from entrypoint.unixhttp import UnreachableError, get_tcp
from entrypoint.weights import cachefolder, transfers
from entrypoint.weights.checkpoint import Checkpoint
from entrypoint.weights.supplies import Snapshots, Supplies, about
from nimctl import __version__
from nimctl.core.cache import PRIVATE_MODE, CachePaths
from nimctl.core.engine_options import parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Progress, Stop, from_environment
from nimctl.core.gpus import Gpu, GpuInventory
from nimctl.core.gpus.nvml import read_inventory
from nimctl.core.layout import Layout
from nimctl.core.meminfo import host_memory
from nimctl.core.planning.cluster import Cluster, cluster_of
from nimctl.core.planning.deciding import Request
from nimctl.core.planning.plan import Plan

_FRONT_SECONDS = 10.0
# How long the engine's front takes to hand the warm-up's requests to its core.
_HEAD_START = 1.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Hardware:
    """What the engine runs on: the kind of engine, what NVML says, the GPUs to use, and these as a plan sees them."""

    device: Device
    vllm_version: str | None
    inventory: GpuInventory
    gpus: tuple[Gpu, ...]
    cluster: Cluster


@dataclass(frozen=True)
class Profile:
    """What is served how, and the weights on their way; `plan` is what it was decided by, None on the CPU."""

    model: Model
    layout: Layout
    supplies: Supplies
    plan: Plan | None


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


def probe_cache(run: Run) -> bool:
    """Whether the cache can be written; one that cannot is refused unless weights that may be served lie ready.

    Which of the model's checkpoints it will be, only the GPUs tell: if it is another one, it is refused when it comes.
    """
    uris, access = candidates(run.settings), from_environment(run.environ)
    why_not = cachefolder.probe(uris, run.settings.cache_path, run.settings.cache_probe_timeout, access)
    if why_not is not None:
        run.journal.warning("cache", f"the cache is read-only ({why_not}); the weights are there, so they are served")
    return why_not is None


def find_gpus(run: Run) -> Hardware:
    """Look at the GPUs once and choose those that were asked for."""
    found = hardware_of(run.settings, run.members.role)
    inventory = found.inventory
    seen = ", ".join(f"{g.index} {g.name or 'unknown'}" for g in inventory.gpus) or f"none ({inventory.state})"
    run.journal.info("gpus", f"engine for {found.device}; GPUs visible: {seen}; asked for: {run.settings.gpus}")
    return found


def hardware_of(settings: Settings, role: Role = ALONE) -> Hardware:
    """What is there for what was asked, on this node and the others like it. Raises `gpu-lost`, `gpu-spec-invalid`."""
    version, inventory, memory = installed_vllm(), read_inventory(), host_memory()
    gpus = gpus_to_use(settings, inventory)
    cluster = cluster_of(gpus, memory_total=memory.total, memory_available=memory.available)
    cluster = over_nodes(cluster, role)
    return Hardware(engine_device(settings, version), version, inventory, gpus, cluster)


def installed_vllm() -> str | None:
    """The version of vLLM that is installed beside us, such as `0.32.0+cpu`."""
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None


def model_for(settings: Settings, hardware: Hardware, request: Request) -> Model:
    """The model that was asked for, with the checkpoint for these GPUs. Raises `gpu-missing`, and as `on_gpus`."""
    model = named_model(settings)
    require_device(settings, model, hardware.device, hardware.inventory, hardware.cluster)
    return on_gpus(settings, model, hardware.device, hardware.cluster, request)


def choose_profile(run: Run, hardware: Hardware) -> Profile:
    """Decide what is served on which GPUs, and say why."""
    request = invocation.request(run.settings)
    model = model_for(run.settings, hardware, request)
    draft = invocation.draft_of(run.settings, model, hardware.device)
    supplies = open_supplies(run, model, draft)
    look, drafts = supplies.look(lambda progress: run.report.progress("profile", detail=transfers.in_words(progress)))
    model = described(run.settings, model, look)
    if draft is not None:
        model = with_draft(model, draft, drafts.weights_bytes)
        run.journal.info("profile", f"draft model: {draft.source}{'' if supplies.drafted else ', within the weights'}")
    if model.runtime:
        told = " ".join(word for option in model.runtime for word in option.words)
        run.journal.info("profile", f"the weights bring options for the engine: {told}")
    decision = decide_layout(model, hardware.cluster, invocation.request(run.settings, model.runtime))
    layout = decision.layout
    run.journal.info("profile", f"{model.served_names[0]}: {layout.because}")
    served = documents.profile_served(model, layout)
    run.journal.info("profile", f"Selected profile: {served.id} ({served.name})")
    if layout.doubt:
        run.journal.warning("profile", f"it may not start: {layout.doubt}")
    if unused := [g for g in hardware.gpus if g.index in layout.unused]:
        run.journal.warning("profile", "unused: " + ", ".join(f"GPU {g.index} ({g.name})" for g in unused))
    if hardware.gpus and hardware.device == "cpu":
        run.journal.warning("profile", "the engine is built for the CPU: the layout is rehearsed, its ranks run there")
    run.report.describe(model=model.served_names[0], layout=layout.name)
    return Profile(model, layout, supplies, decision.plan)


def join_group(run: Run, hardware: Hardware, profile: Profile) -> None:
    """Meet the other nodes before anything is fetched, so that what does not fit is told first."""
    if run.members.role.alone:
        return
    command = invocation.build_command(
        run.settings, profile.model, hardware.device, profile.layout, snapshot="", state=run.state
    )
    model, used = profile.model, profile.layout.used
    run.members.join(
        facts(
            release=__version__,
            engine=hardware.vllm_version,
            model=model.source if "://" in model.weights else model.served_names[0],
            layout=profile.layout.name,
            gpus=f"{len(used)} x {hardware.gpus[0].name}" if used and hardware.gpus else hardware.device,
            options=parse_options(command.argv[command.argv.index("--uds") :]),
        ),
        patience=run.settings.nodes_timeout,
        on_over=run.supervisor.post,
    )


def open_supplies(run: Run, model: Model, draft: Draft | None) -> Supplies:
    """The weights of `model` and the `draft`, with the keys of this moment; whoever stops us stops their download."""
    stop = Stop()
    run.supervisor.on_close(stop.set)
    cache, access = run.settings.cache_path, from_environment(run.environ)
    drafted = None
    if draft is not None and not draft.is_part_of(model.weights):
        with about(draft):
            drafted = Checkpoint(draft.address, cache, access, stop=stop)
    return Supplies(Checkpoint(model.weights, cache, access, stop=stop), draft, drafted)


def fetch_weights(run: Run, profile: Profile) -> Snapshots:
    """Bring the weights into the cache, or find them there, and describe what will be served."""
    lines = transfers.Lines(lambda words: run.journal.info("weights", words))

    def on_progress(progress: Progress) -> None:
        run.report.progress("weights", **transfers.stage_fields(progress))
        lines.see(progress)

    try:
        snapshots = profile.supplies.bring(on_progress)
    finally:
        profile.supplies.close()
    snapshot, draft = snapshots.weights, profile.supplies.draft
    beside = f", the draft model {draft.source} in {snapshots.draft}" if draft else ""
    run.journal.info("weights", f"{profile.model.source} is in {snapshot}{beside}{lines.summary}")
    licence = documents.license_info(snapshot)
    written = {
        "manifest": documents.manifest(profile.model, snapshot),
        "license": licence,
        "metadata": documents.metadata(
            profile.model, profile.layout, __version__, licence, run.members.role.nodes * len(profile.layout.used)
        ),
    }  # fmt: skip
    for name, document in written.items():
        write_atomically(run.state.public / f"{name}.json", json.dumps(document))
    return snapshots


def private_caches(run: Run, key: str, *, cache_writable: bool) -> Path:
    """This user's own folder for compiled code: in the cache, or for this start alone where that is read-only."""
    if cache_writable:
        return CachePaths(run.settings.cache_path).engine_private(key)
    place = cachefolder.substitute((run.state.root, Path(tempfile.gettempdir()), Path("/var/tmp")))  # noqa: S108 (owner and mode are checked)
    folder = place.folder / key
    folder.mkdir(mode=PRIVATE_MODE, exist_ok=True)
    run.journal.warning("engine", f"the cache is read-only: compiled code goes to {folder} and is lost with it")
    if not place.executable:
        told = "is mounted noexec: code that the engine compiles cannot be loaded; give it exec (--tmpfs /tmp:exec)"
        run.journal.warning("engine", f"{place.folder} {told}")
    return folder


@dataclass(frozen=True)
class Prepared:
    """All that the engine is started with."""

    command: invocation.Command
    env: Mapping[str, str]
    caches: warmstart.Caches
    loading: warmstart.Loading


def prepare_engine(
    run: Run, hardware: Hardware, profile: Profile, snapshots: Snapshots, *, cache_writable: bool
) -> Prepared:
    """Decide how the engine is started, and open its compile caches."""
    command = invocation.build_command(
        run.settings,
        profile.model,
        hardware.device,
        profile.layout,
        snapshot=str(snapshots.weights),
        state=run.state,
        draft=str(snapshots.draft) if snapshots.draft else None,
        adapters=adapters.options_for(run.settings.peft_source),
    )
    command = replace(command, argv=nodes.placed(command.argv, run.members.arguments()))
    loads = warmstart.loading(command.argv, snapshots.weights, profile.layout, run.settings)
    command = replace(command, argv=(*command.argv, *loads.words))
    names = [gpu.name for gpu in hardware.gpus]
    engine, driver = run.settings.engine_executable, hardware.inventory.driver
    here = compiled.machine(hardware.device, hardware.vllm_version, names, driver, engine)
    private = private_caches(run, here.key, cache_writable=cache_writable)
    served = [path for path in (snapshots.weights, snapshots.draft) if path is not None]
    caches = warmstart.open_caches(private, served, run.settings, run.journal)
    (private / "home").mkdir(mode=0o700, exist_ok=True)
    env = environment.build_environment(
        run.environ,
        run.settings,
        profile.model,
        hardware.device,
        profile.layout,
        visible=[g.index for g in hardware.inventory.gpus],
        private=private,
    )
    return Prepared(command, {**caches.variables(command.argv), **env}, caches, loads)


def start_engine(
    run: Run,
    hardware: Hardware,
    profile: Profile,
    snapshots: Snapshots,
    *,
    cache_writable: bool,
    on_spawn: Callable[[Child], None],
) -> str:
    """Start the engine and return the name under which it serves, once it does. Raises Moot where it ends before."""
    prepared = prepare_engine(run, hardware, profile, snapshots, cache_writable=cache_writable)
    command, env, private = prepared.command, prepared.env, prepared.caches.folder
    theirs, ours = run.environ.get("CUDA_VISIBLE_DEVICES"), env.get("CUDA_VISIBLE_DEVICES")
    if theirs is not None and theirs != ours:
        told = f"CUDA_VISIBLE_DEVICES={theirs} is replaced by {ours}: NIM_GPUS is what chooses GPUs here"
        run.journal.warning("engine", told)
    await_nodes(run, snapshots)
    env = environment.with_own_package({**env, **run.members.environment(env)}, Path(__file__).parent.parent)
    run.journal.info("engine", f"starting: {' '.join(command.argv)}")

    foresight = Foresight(
        planned(
            profile.model,
            profile.layout,
            profile.plan,
            invocation.request(run.settings, profile.model.runtime),
            device=hardware.device,
            environment=env,
        )
    )

    write, engine_steps = run.journal.reader("engine"), timeline.EngineSteps()

    def on_line(line: Line) -> None:
        write(line)
        foresight.see(line.text)
        if begun := engine_steps.see(line.text):
            run.report.step("engine", begun)
        if step := loading.step_of(line.text):
            run.report.progress("engine", detail=step)
            if step == loading.LOADED:
                ahead.close("the weights are loaded")

    ahead = prepared.loading.begin(run.journal, lambda words: run.report.progress("engine", detail=words))
    run.supervisor.on_close(lambda: ahead.close("the container stops"))
    run.report.step("engine", timeline.STEPS[0])
    child = run.supervisor.spawn("engine", command.argv, env=env, cwd=private / "home", on_line=on_line)
    on_spawn(child)
    name, leads = command.served_names[0], run.members.role.leads
    loading.await_engine(
        child,
        lambda: loading.serves(run.state.engine_socket, name) if leads else run.members.engine_is_up(),
        stall_seconds=run.settings.stall_seconds,
        still_wanted=lambda: not run.supervisor.closed,
        idle=run.members.idle,
    )
    ahead.close("the engine serves" if child.exit is None else "the engine ended")
    if child.exit is not None or run.supervisor.closed:
        raise Moot
    prepared.caches.count()
    if leads:
        run.report.describe(figures=foresight.tell(run.journal))
    return name


def await_nodes(run: Run, snapshots: Snapshots) -> None:
    """Return when the weights of every node lie ready: an engine that waits for another says nothing and may time out.

    Raises `node-unreachable`, and Moot where nobody wants it any more.
    """
    if run.members.role.alone:
        return
    run.members.await_start(digest_of_weights(snapshots.weights), wanted=lambda: not run.supervisor.closed)
    run.report.progress("engine", detail=None)
    if run.supervisor.closed:
        raise Moot


def follow_warm_up(run: Run) -> None:
    """Return when the leader is ready. Raises Moot where our rank ends before."""
    engine = run.supervisor.find("engine")
    run.report.progress("warmup", detail="the leader warms up")
    while not run.members.is_ready():
        if engine is None or engine.exit is not None or run.supervisor.wait_closed(_POLL_SECONDS):
            raise Moot


def describe_api(run: Run, front: Front, warm: Event) -> Thread:
    """Have the engine describe its API, in the thread that is returned, beside the warm-up.

    That stops the process which takes requests for about a second, so the warm-up's requests go first: while its core
    compiles for them, that process has nothing to do. `warm` says that they are answered.
    """

    def describe() -> None:
        warm.wait(_HEAD_START)
        if (problem := describing.publish(front, run.state)) is not None:
            run.journal.warning("front", problem)

    thread = Thread(target=describe, name="describe-api", daemon=True)
    thread.start()
    return thread


def warm_up(run: Run, front: Front, profile: Profile, served_name: str) -> Baseline:
    """Have requests of every kind answered through the public port; what a healthy engine answers to the canary."""

    def on_step(words: str) -> None:
        run.journal.info("warmup", words)
        run.report.progress("warmup", detail=words)

    images = profile.model.sees_images and run.settings.max_images > 0
    on_answer = partial(run.report.took, "warmup")
    return warmup.warm_up(front, served_name, images=images, on_step=on_step, on_answer=on_answer)


def watch(
    run: Run,
    front: Front,
    device: Device,
    baseline: Baseline,
    *,
    on_sick: Callable[[NimctlError], None],
    on_flight: Callable[[bool], None],
) -> Canary:
    """Look after the engine while it serves; `on_sick` is called from another thread, at most once."""
    engine = run.supervisor.find("engine")
    working = (lambda: usage(engine.pid).cpu) if engine is not None and device == "cpu" else None
    watching = Canary(
        canary.through(front, baseline),
        canary.counters_at(run.state.engine_socket),
        baseline,
        interval=run.settings.canary_interval,
        timeout=run.settings.canary_timeout,
        on_sick=on_sick,
        on_doubt=lambda words: run.journal.warning("canary", words),
        on_flight=on_flight,
        work=working,
    )
    watching.start()
    return watching
