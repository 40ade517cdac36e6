"""Everything of a start behind the front, stage by stage. Loaded while nginx starts: `live` needs nothing of it."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from entrypoint.engine.model import Device
from entrypoint.front import Front
from entrypoint.health import canary
from entrypoint.health.canary import Canary
from entrypoint.health.judging import Baseline
from entrypoint.processes.child import Child, usage
from entrypoint.run import Run
from entrypoint.stages import cache, engine, hardware, profile, warmup, weights
from entrypoint.stages.front import describe_api
from nimctl.core.errors import NimctlError

# How long the engine's description of its API may hold up `ready`; about 1 s is usual, most of it beside the warm-up.
_SECONDS_TO_DESCRIBE = 10.0


@dataclass(frozen=True)
class Serving:
    """An engine that has answered requests of every kind: its name in the API, its device, its first reading."""

    name: str
    device: Device
    baseline: Baseline


def bring_up(
    run: Run, front: Front, on_spawn: Callable[[Child], None], on_up: Callable[[Child | None], None]
) -> Serving | None:
    """From the cache to the warm-up. None on a node that follows another: it is ready when its leader is.

    `on_spawn` gets the engine as soon as it runs, `on_up` once it serves. Runs again for each restart of the engine:
    GPUs and cache may have changed. Raises NimctlError, and Moot where the engine ends meanwhile or nobody wants it any
    more.
    """
    stage = run.report.stage
    with stage("cache"):
        writable = cache.probe_cache(run)
    with stage("gpus"):
        found = hardware.find_gpus(run)
    with stage("profile"):
        chosen = profile.choose_profile(run, found)
        profile.join_group(run, found, chosen)
    with stage("weights"):
        snapshots = weights.fetch_weights(run, chosen)
    with stage("engine"):
        name = engine.start_engine(run, found, chosen, snapshots, cache_writable=writable, on_spawn=on_spawn)
    on_up(run.supervisor.find("engine"))
    with stage("warmup"):
        if not run.members.role.leads:
            warmup.follow_warm_up(run)
            return None
        warm = Event()
        describing = describe_api(run, front, warm)
        baseline = warmup.warm_up(run, front, chosen, name)
        warm.set()
        describing.join(_SECONDS_TO_DESCRIBE)
    return Serving(name, found.device, baseline)


def canary_of(
    run: Run,
    front: Front,
    serving: Serving,
    *,
    on_sick: Callable[[NimctlError], None],
    on_flight: Callable[[bool], None],
) -> Canary:
    """Who asks the engine from time to time whether it is well; `on_sick` is called from its thread, at most once."""
    engine = run.supervisor.find("engine")
    return Canary(
        canary.through(front, serving.baseline),
        canary.counters_at(run.state.engine_socket),
        serving.baseline,
        interval=run.settings.canary_interval,
        timeout=run.settings.canary_timeout,
        on_sick=on_sick,
        on_doubt=lambda words: run.journal.warning("canary", words),
        on_flight=on_flight,
        work=(lambda: usage(engine.pid).cpu) if engine is not None and serving.device == "cpu" else None,
    )
