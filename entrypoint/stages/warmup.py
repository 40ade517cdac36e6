"""The stage `warmup`: requests of every kind are answered, or the leader's are."""

from functools import partial

from entrypoint.front import Front
from entrypoint.health import warmup
from entrypoint.health.judging import Baseline
from entrypoint.processes.supervisor import Moot
from entrypoint.run import Run
from entrypoint.stages.profile import Profile

_POLL_SECONDS = 0.2


def follow_warm_up(run: Run) -> None:
    """Return when the leader is ready. Raises Moot where our rank ends before."""
    engine = run.supervisor.find("engine")
    run.report.progress("warmup", detail="the leader warms up")
    while not run.members.is_ready():
        if engine is None or engine.exit is not None or run.supervisor.wait_closed(_POLL_SECONDS):
            raise Moot


def warm_up(run: Run, front: Front, profile: Profile, served_name: str) -> Baseline:
    """Have requests of every kind answered through the public port; what a healthy engine answers to the canary."""

    def on_step(words: str) -> None:
        run.journal.info("warmup", words)
        run.report.progress("warmup", detail=words)

    images = profile.model.sees_images and run.settings.max_images > 0
    on_answer = partial(run.report.took, "warmup")
    return warmup.warm_up(front, served_name, images=images, on_step=on_step, on_answer=on_answer)
