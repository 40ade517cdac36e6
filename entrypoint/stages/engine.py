"""The stage `engine`: from the decision how to start it to the moment when it serves."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from entrypoint.engine import adapters, compiled, environment, invocation, loading, nodes, warmstart
from entrypoint.engine.foresight import Foresight, planned
from entrypoint.group.facts import digest_of_weights
from entrypoint.observability import timeline
from entrypoint.observability.lines import Line
from entrypoint.processes.child import Child
from entrypoint.processes.supervisor import Moot
from entrypoint.run import Run
from entrypoint.stages.cache import private_caches
from entrypoint.stages.hardware import Hardware
from entrypoint.stages.profile import Profile
from entrypoint.weights.supplies import Snapshots
from nimctl.core.logshape import ENGINE_STARTS


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
    env = environment.with_own_package({**env, **run.members.environment(env)}, Path(__file__).parents[2])
    run.journal.info("engine", f"{ENGINE_STARTS}{shlex.join(command.argv)}")

    foresight = _foresight(run, hardware, profile, env)
    ahead = prepared.loading.begin(run.journal, lambda words: run.report.progress("engine", detail=words))
    run.supervisor.on_close(lambda: ahead.close("the container stops"))
    run.report.step("engine", timeline.STEPS[0])
    name, leads = command.served_names[0], run.members.role.leads
    try:
        on_line = _listening(run, foresight, on_loaded=lambda: ahead.close("the weights are loaded"))
        child = run.supervisor.spawn("engine", command.argv, env=env, cwd=private / "home", on_line=on_line)
        on_spawn(child)
        loading.await_engine(
            child,
            lambda: loading.serves(run.state.engine_socket, name) if leads else run.members.engine_is_up(),
            stall_seconds=run.settings.stall_seconds,
            still_wanted=lambda: not run.supervisor.closed,
            tidy=run.journal.tidy,
            idle=run.members.idle,
        )
        ahead.close("the engine serves" if child.exit is None else "the engine ended")
    finally:
        ahead.close("the engine is given up")  # of two reasons the first stays
    if child.exit is not None or run.supervisor.closed:
        raise Moot
    prepared.caches.count()
    if leads:
        run.report.describe(figures=foresight.tell(run.journal))
    return name


def _foresight(run: Run, hardware: Hardware, profile: Profile, env: dict[str, str]) -> Foresight:
    asked = invocation.request(run.settings, profile.model.runtime)
    return Foresight(
        planned(profile.model, profile.layout, profile.plan, asked, device=hardware.device, environment=env)
    )


def _listening(run: Run, foresight: Foresight, on_loaded: Callable[[], None]) -> Callable[[Line], None]:
    """What becomes of a line of the engine: it is logged, held against the plan, and tells how far the start is."""
    write, steps = run.journal.reader("engine"), timeline.EngineSteps()

    def on_line(line: Line) -> None:
        write(line)
        foresight.see(line.text)
        if begun := steps.see(line.text):
            run.report.step("engine", begun)
        if step := loading.step_of(line.text):
            run.report.progress("engine", detail=step)
            if step == loading.LOADED:
                on_loaded()

    return on_line


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
