"""Up, down and status of the whole lab."""

from collections.abc import Callable, Sequence

from . import base_image, debian, engine, gpus, registry
from .paths import STORES, Paths
from .steps import LabError, locked, say, step

PARTS = ("engine", "base", "registry", "gpus")
# Started only when asked for: a second engine, whose images lie in containerd's store.
CONTAINERD_STORE = "containerd-store"
ALL_PARTS = (*PARTS, CONTAINERD_STORE)


def up(paths: Paths, only: Sequence[str] = PARTS) -> None:
    """Have these parts running and leave them running. Raises LabError with cause and fix."""
    reason = debian.reason_why_not()
    if reason:
        cause, _, fix = reason.partition("; ")
        raise LabError(cause, fix)
    starts: dict[str, Callable[[Paths], None]] = {
        "engine": engine.start_engine,
        "base": base_image.ensure_base_image,
        "registry": registry.start_registry,
        "gpus": lambda _: None,
        CONTAINERD_STORE: lambda paths: _start_with_base(paths.with_store("containerd")),
    }
    with step("up"), locked(paths.lock):
        for store in STORES if CONTAINERD_STORE in only else STORES[:1]:
            paths.with_store(store).make()
        if set(only) != {"gpus"}:
            debian.unpack_packages(paths)
        gpus.prepare(paths)  # first: dockerd looks for the toolkit's hook when it starts
        needs_engine = "engine" in only or "base" in only
        for part in ALL_PARTS:
            if part in only or (part == "engine" and needs_engine):
                starts[part](paths)
        if needs_engine:
            engine.remove_leftovers(paths)


def have_store(paths: Paths) -> None:
    """Have the engine of `paths.store` running, where that is the one that `up` starts only when asked."""
    if paths.store == "containerd" and not engine.answers(paths):
        up(paths.with_store("classic"), [CONTAINERD_STORE])


def _start_with_base(paths: Paths) -> None:
    engine.start_engine(paths)
    base_image.ensure_base_image(paths)
    engine.remove_leftovers(paths)


def down(paths: Paths, *, purge: bool = False) -> None:
    """Stop everything that up started, by its id; with purge delete the state folder as well."""
    with step("down"), locked(paths.lock):
        if not paths.state.exists():
            say("nothing is there")
            return
        stopped = [registry.stop_registry(paths), *(engine.stop_engine(paths.with_store(store)) for store in STORES)]
        say("stopped" if any(stopped) else "nothing was running")
        if purge:
            engine.remove_state(paths)
            say(f"deleted {paths.state}")


def status(paths: Paths) -> dict[str, str | None]:
    """Part -> where it can be reached or found, None when it is not there."""
    running, second = engine.answers(paths), paths.with_store("containerd")
    spec = paths.cdi / "nvidia.json"
    return {
        "state": str(paths.state) if paths.state.exists() else None,
        "engine": f"unix://{paths.docker_socket}" if running else None,
        CONTAINERD_STORE: f"unix://{second.docker_socket}" if engine.answers(second) else None,
        "bridge": paths.bridge if running else None,
        "base": base_image.IMAGE if running and base_image.has_image(paths) else None,
        "registry": registry.info(paths).address if registry.answers(paths) else None,
        "gpus": str(spec) if spec.exists() else None,
    }
