"""Watching a start with a clock of its own: ready, dead, stuck, and a daemon that falls silent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.core.stages import Stage, StartupReport
from nimctl.launch.model import LaunchPlan
from nimctl.launch.progress import Answer, Policy, death, follow
from nimctl.launch.runtime import ContainerState, RunHandle

RUN = RunHandle("demo", "docker", "abc", "ours", "demo", "127.0.0.1", 8000)
NIM = RunHandle("nim", "docker", "abc", "nim", "kimi-k2.5-nim", "127.0.0.1", 8000)
RUNNING = ContainerState("running")
OWN = {"id": "engine-out-of-memory", "message": "m", "cause": "c", "fix": "f", "exit_code": 8, "evidence": ["e"]}


@dataclass
class Scripted:
    """A runtime whose run lives through `states`, one a look; the last stays."""

    states: list[ContainerState | NimctlError]
    lines: list[str] = field(default_factory=list)
    record: Mapping[str, Any] | None = None

    def state(self, run: RunHandle) -> ContainerState:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, NimctlError):
            raise state
        return state

    def logs(self, run: RunHandle, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        return iter(self.lines[-tail:] if tail else self.lines)

    def startup_record(self, run: RunHandle) -> Mapping[str, Any] | None:
        return self.record

    def start(self, plan: LaunchPlan, secrets: Mapping[str, Secret]) -> RunHandle:
        raise AssertionError("a watched run is never started")

    def stop(self, run: RunHandle, *, timeout: int | None = None) -> int | None:
        raise AssertionError("a watched run is never stopped by the watcher")

    def list_runs(self) -> tuple[RunHandle, ...]:
        return (RUN,)

    def find(self, name: str) -> RunHandle | None:
        return RUN


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1e5, "nobody ever gives up"


def report(stage: str = "engine", state: str = "starting", **more: Any) -> StartupReport:
    running = Stage(stage, "failed" if state == "failed" else "running", bytes=more.pop("bytes", None))
    return StartupReport(state, (running,), "0.1.0", **more)  # type: ignore[arg-type]


def watch(runtime: Scripted, answers: list[Answer], run: RunHandle = RUN, **policy: Any) -> dict[str, Any]:
    """Follow with these answers, one a look; the last stays. What was seen, noted, and how it ended."""
    clock, seen, notes = Clock(), [], []
    result: dict[str, Any] = {"seen": seen, "notes": notes, "error": None, "clock": clock}
    try:
        result["report"] = follow(
            runtime,
            run,
            on_update=seen.append,
            on_note=notes.append,
            policy=Policy(**policy),
            clock=clock,
            sleep=clock.sleep,
            health=lambda _run, _timeout: answers.pop(0) if len(answers) > 1 else answers[0],
        )
    except NimctlError as error:
        result["error"] = error
    return result


def test_it_returns_when_the_server_says_ready() -> None:
    ready = Answer(True, report(state="ready"))
    result = watch(Scripted([RUNNING]), [Answer(), Answer(False, report("weights")), ready])
    assert result["report"].state == "ready"
    assert [r.state for r in result["seen"]] == ["starting", "starting", "ready"]
    assert result["clock"].now == pytest.approx(0.5)


def test_a_dead_container_ends_it_at_once_with_the_lines_that_matter() -> None:
    lines = ["INFO all is well"] * 300 + ["ValueError: the GPU is on fire", "INFO bye"]
    dead = ContainerState("exited", exit_code=1, oom_killed=False)
    result = watch(Scripted([RUNNING, dead], lines), [Answer(False, report("weights"))])
    error = result["error"]
    assert error.id == "container-died"
    assert "exit code 1" in error.message and "weights" in error.message
    assert error.evidence == ("ValueError: the GPU is on fire",)
    assert result["clock"].now == pytest.approx(0.25)


def test_a_server_that_was_ready_and_is_dead_is_dead() -> None:
    result = watch(Scripted([ContainerState("exited", exit_code=0)]), [Answer(True, report(state="ready"))])
    assert result["error"].id == "container-died"


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (ContainerState("exited", exit_code=137, oom_killed=True), "out of memory"),
        (ContainerState("exited", exit_code=137, oom_killed=False), "SIGKILL"),
        (ContainerState("exited", exit_code=143), "SIGTERM"),
        (ContainerState("exited", exit_code=0), "as if its work was done"),
        (ContainerState("exited", exit_code=127), "not found"),
        (ContainerState("exited", exit_code=128, error="failed to create shim"), "failed to create shim"),
        (ContainerState("exited"), "by itself"),
        (ContainerState("gone"), "by itself"),
    ],
)
def test_the_cause_of_a_death_without_words(state: ContainerState, word: str) -> None:
    error = death(Scripted([state]), RUN, state, None)
    assert error.id == "container-died"
    assert word in error.cause


def test_the_servers_own_error_keeps_its_id_wherever_it_was_left() -> None:
    dead = ContainerState("exited", exit_code=8)
    line = '{"event": "failed", "error": {"id": "engine-died", "message": "m", "cause": "c", "fix": "f"}}'
    for runtime, answer in (
        (Scripted([RUNNING]), Answer(False, report(state="failed", error=OWN))),
        (Scripted([dead], record={"error": OWN}), Answer()),
    ):
        assert watch(runtime, [answer])["error"].to_json() == OWN
    assert watch(Scripted([dead], ["noise", line]), [Answer()])["error"].id == "engine-died"


def test_what_the_lines_name_beyond_doubt_is_the_cause_in_every_image():
    lines = ["INFO loading", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."]
    error = death(Scripted([], lines), RUN, ContainerState("exited", exit_code=1), None)
    assert error.id == "engine-out-of-memory"
    assert "GPU memory" in error.cause
    refused = ["vllm serve: error: unrecognized arguments: --no-such-option"]
    assert death(Scripted([], refused), RUN, ContainerState("exited", exit_code=2), None).id == "engine-config"


def test_an_error_id_from_the_future_still_tells_its_story() -> None:
    strange = Answer(False, report(state="failed", error={**OWN, "id": "quantum-decay"}))
    error = watch(Scripted([RUNNING]), [strange])["error"]
    assert (error.id, error.cause) == ("container-died", "c")


def test_silence_is_warned_of_and_at_last_given_up() -> None:
    result = watch(Scripted([RUNNING], ["loading"]), [Answer(False, report())], warn_after=60, stall_after=300)
    assert result["error"].id == "engine-stalled"
    assert [note.split(" in stage")[0] for note in result["notes"]] == [
        "nothing has changed for 60 s",
        "nothing has changed for 120 s",
        "nothing has changed for 240 s",
    ]
    assert result["clock"].now == pytest.approx(300, abs=1)


def test_bytes_that_move_are_progress_however_long_it_takes() -> None:
    slow = [Answer(False, report("weights", bytes=n)) for n in range(4000)] + [Answer(True, report(state="ready"))]
    result = watch(Scripted([RUNNING]), slow, warn_after=1, stall_after=2)
    assert result["error"] is None and result["notes"] == []
    assert result["clock"].now > 900


def test_a_log_that_moves_is_progress() -> None:
    runtime = Scripted([RUNNING])
    answers = [Answer(False, report())] * 400 + [Answer(True, report(state="ready"))]
    lines = iter(f"shard {n}" for n in range(1000))
    runtime.logs = lambda run, tail=None, follow=False: iter([next(lines)])  # type: ignore[method-assign]
    assert watch(runtime, answers, warn_after=5, stall_after=10)["error"] is None


def test_nvidias_image_tells_no_stages_so_its_log_is_shown() -> None:
    result = watch(Scripted([RUNNING], ["Loading shard 1 of 64", ""]), [Answer(), Answer(True)], NIM)
    assert result["seen"][0].stages[0].detail == "Loading shard 1 of 64"
    assert result["report"].state == "ready"


def test_a_deadline_is_kept_when_there_is_one() -> None:
    result = watch(Scripted([RUNNING]), [Answer(False, report("weights"))], deadline=10)
    assert result["error"].id == "not-ready"
    assert "weights" in result["error"].cause


def test_a_daemon_that_is_silent_for_a_moment_is_forgiven() -> None:
    silent = NimctlError("docker-hangs", "m", cause="c", fix="f")
    result = watch(Scripted([RUNNING, silent, silent, RUNNING]), [Answer()] * 3 + [Answer(True, report(state="ready"))])
    assert result["error"] is None


def test_a_daemon_that_stays_silent_is_not() -> None:
    silent = NimctlError("docker-hangs", "m", cause="c", fix="f")
    result = watch(Scripted([silent]), [Answer()], daemon_grace=5)
    assert result["error"].id == "docker-hangs"
    assert result["clock"].now == pytest.approx(5, abs=0.5)


def test_ctrl_c_passes_through() -> None:
    def interrupted(_run: RunHandle, _timeout: float) -> Answer:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(Scripted([RUNNING]), RUN, health=interrupted, clock=Clock())
