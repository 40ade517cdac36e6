"""Servers as processes, with small programs in the server's place."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch import procfs
from nimctl.launch.model import LaunchPlan
from nimctl.launch.process import ProcessRuntime
from nimctl.launch.progress import death
from nimctl.launch.runtime import RunHandle
from tests.unit.launch.launch_hosts import gpus, host, plan

WAITS = "import signal, sys; print('up', flush=True); signal.sigwait([signal.SIGTERM]); sys.exit(143)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
PARENT = (
    "import signal, subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True); "
    "print('up', child.pid, flush=True); signal.sigwait([signal.SIGTERM]); sys.exit(0)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}


def runtime_of(environment: dict[str, str], program: str) -> ProcessRuntime:
    def command(_plan: LaunchPlan, state: Path) -> tuple[tuple[str, ...], dict[str, str | Secret]]:
        return (sys.executable, "-c", program), {"NIMCTL_STATE_DIR": str(state), "GIVEN": Secret("given-value")}

    return ProcessRuntime(environment, command)


@pytest.fixture
def started(environment: dict[str, str]) -> Iterator[list[tuple[ProcessRuntime, RunHandle]]]:
    """What a test starts goes in here, and is stopped whatever happens."""
    runs: list[tuple[ProcessRuntime, RunHandle]] = []
    yield runs
    for runtime, run in runs:
        runtime.stop(run, timeout=0)


def begin(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str], program: str, name: str = "demo"
) -> tuple[ProcessRuntime, RunHandle]:
    runtime = runtime_of(environment, program)
    run = runtime.start(process_plan(name), {})
    started.append((runtime, run))
    return runtime, run


def process_plan(name: str = "demo", port: int | None = None) -> LaunchPlan:
    return plan("demo", runtime="process", image=None, name=name, port=port or free_port())


def first_line(runtime: ProcessRuntime, run: RunHandle) -> str:
    """Waits for the first line of the log: the program is up."""
    return next(runtime.logs(run, follow=True))


def test_start_find_state_stop(started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]) -> None:
    runtime, run = begin(started, environment, WAITS)
    assert first_line(runtime, run) == "up"
    other = runtime_of(environment, "unused")  # the next command line knows only the folder
    assert other.list_runs() == (run,)
    assert other.find("demo") == run
    assert other.find("other") is None
    assert other.state(run).alive
    assert runtime.stop(run) == 143
    assert runtime.list_runs() == ()
    assert runtime.state(run).status == "gone"
    assert runtime.stop(run) is None


def test_it_lives_in_its_own_session_so_ctrl_c_at_the_terminal_does_not_reach_it(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    _, run = begin(started, environment, WAITS)
    assert os.getsid(int(run.id)) == int(run.id)


def test_a_server_that_ignores_sigterm_is_killed_after_the_timeout(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    runtime, run = begin(started, environment, DEAF)
    first_line(runtime, run)
    assert runtime.stop(run, timeout=0) == 137


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_the_family_survives_a_stop(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str], how: signal.Signals
) -> None:
    """The grandchild has a session of its own; after SIGKILL of the server only its environment gives it away."""
    runtime, run = begin(started, environment, PARENT)
    grandchild = procfs.identify(int(first_line(runtime, run).split()[1]))
    server = procfs.identify(int(run.id))
    assert grandchild is not None and server is not None
    if how == signal.SIGKILL:
        procfs.send(server, how)
        assert procfs.wait_until_dead([server], 10)
        assert procfs.is_alive(grandchild)
    runtime.stop(run, timeout=5)
    assert procfs.wait_until_dead([grandchild], 10)


def test_a_running_name_is_taken_and_a_dead_one_is_replaced(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    runtime, run = begin(started, environment, WAITS)
    first_line(runtime, run)
    with pytest.raises(NimctlError) as caught:
        runtime.start(process_plan(), {})
    assert caught.value.id == "name-in-use"
    server = procfs.identify(int(run.id))
    assert server is not None
    procfs.send(server, signal.SIGKILL)
    assert procfs.wait_until_dead([server], 10)
    assert runtime.state(run).exit_code == 137
    _, again = begin(started, environment, WAITS)
    assert again.notes[0].startswith("replaced:")


def test_two_starts_of_one_name_at_once(environment: dict[str, str]) -> None:
    """The first is held inside its start; the second must not get past the lock."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(_plan: LaunchPlan, state: Path) -> tuple[tuple[str, ...], dict[str, str | Secret]]:
        entered.set()
        assert go_on.wait(20)
        return (sys.executable, "-c", WAITS), {"NIMCTL_STATE_DIR": str(state)}

    runtime = ProcessRuntime(environment, slow)
    runs: list[RunHandle] = []
    first = threading.Thread(target=lambda: runs.append(runtime.start(process_plan(), {})))
    first.start()
    try:
        assert entered.wait(20)
        with pytest.raises(NimctlError) as caught:
            runtime_of(environment, WAITS).start(process_plan(), {})
        assert caught.value.id == "name-in-use"
    finally:
        go_on.set()
        first.join(20)
        runtime.stop(runs[0], timeout=0)


def test_a_taken_port_is_refused_before_anything_starts(environment: dict[str, str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        runtime = runtime_of(environment, WAITS)
        with pytest.raises(NimctlError) as caught:
            runtime.start(process_plan(port=holder.getsockname()[1]), {})
    assert (caught.value.id, caught.value.exit_code) == ("port-in-use", 9)
    assert runtime.list_runs() == ()


def test_a_recycled_pid_is_not_mistaken_for_the_run(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    runtime, run = begin(started, environment, WAITS)
    first_line(runtime, run)
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        path = runtime.folder / "demo" / "run.json"
        server = procfs.identify(int(run.id))
        record = json.loads(path.read_text())
        record["process"]["pid"] = stranger.pid  # as after a wrap of the pid counter: same pid, other start time
        record["run"]["id"] = str(stranger.pid)
        path.write_text(json.dumps(record))
        reread = runtime.find("demo")
        assert reread is not None
        assert runtime.state(reread).status == "exited"
        runtime.stop(reread, timeout=0)
        assert stranger.poll() is None
        assert server is not None and procfs.wait_until_dead([server], 10), "our own was found by its state folder"
    finally:
        stranger.kill()
        stranger.wait()


def test_the_child_gets_no_key_of_the_caller_and_no_stray_setting(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    caller = {
        **environment,
        "NGC_API_KEY": "nvapi-canary",
        "NIM_GPUS": "7",
        "KEPT": "yes",
        "TOKENIZERS_PARALLELISM": "x",
    }
    program = "import os; print(sorted(os.environ))"
    runtime, run = begin(started, caller, program)
    seen = first_line(runtime, run)
    assert "NGC_API_KEY" not in seen and "NIM_GPUS" not in seen
    assert "'KEPT'" in seen and "'GIVEN'" in seen and "TOKENIZERS_PARALLELISM" in seen
    everything = (runtime.folder / "demo" / "run.json").read_text() + repr(runtime)
    assert "nvapi-canary" not in everything and "given-value" not in everything


def test_key_files_come_and_go_with_the_run(environment: dict[str, str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = plan(
        "kimi-k2.5",
        host(*gpus(8)),
        runtime="process",
        image=None,
        secrets_present=("HF_TOKEN",),
        secrets_dir=keys,
        port=free_port(),
    )
    runtime = runtime_of(environment, WAITS)
    run = runtime.start(made, {"HF_TOKEN": Secret("hf_canary0123")})
    try:
        assert (keys / "kimi-k2.5" / "HF_TOKEN").read_text() == "hf_canary0123"
    finally:
        runtime.stop(run, timeout=5)
    assert not keys.exists()


def test_a_program_that_cannot_start_leaves_nothing(environment: dict[str, str]) -> None:
    runtime = ProcessRuntime(environment, lambda _plan, _state: (("/no/such/python",), {}))
    with pytest.raises(NimctlError) as caught:
        runtime.start(process_plan(), {})
    assert caught.value.id == "engine-missing"
    assert not (runtime.folder / "demo").exists()


def test_the_log_by_lines_the_tail_and_to_the_end(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    program = "import sys; print('one'); print('two nvapi-0123456789'); sys.stdout.write('three'); sys.exit(4)"
    runtime, run = begin(started, environment, program)
    assert list(runtime.logs(run, follow=True)) == ["one", "two ***", "three"]
    assert list(runtime.logs(run, tail=2)) == ["two ***", "three"]
    assert list(runtime.logs(run, tail=0)) == []


def test_a_death_tells_the_servers_own_error_from_its_record(
    started: list[tuple[ProcessRuntime, RunHandle]], environment: dict[str, str]
) -> None:
    error = {"id": "engine-died", "message": "m", "cause": "c", "fix": "f", "exit_code": 8, "evidence": []}
    program = (
        "import json, os, pathlib; folder = pathlib.Path(os.environ['NIMCTL_STATE_DIR']) / 'public'; "
        f"folder.mkdir(parents=True); (folder / 'startup.json').write_text(json.dumps({{'error': {error!r}}}))"
    )
    runtime, run = begin(started, environment, program)
    list(runtime.logs(run, follow=True))
    other = runtime_of(environment, "unused")  # not the parent: it knows no exit code but the recorded one
    assert other.state(run).exit_code == 8
    assert death(other, run, other.state(run), None).to_json() == error


def test_a_broken_record_is_named(environment: dict[str, str]) -> None:
    runtime = runtime_of(environment, WAITS)
    (runtime.folder / "demo").mkdir(parents=True)
    (runtime.folder / "demo" / "run.json").write_text("{")
    with pytest.raises(NimctlError) as caught:
        runtime.list_runs()
    assert caught.value.id == "config-invalid"
    assert str(runtime.folder / "demo") in caught.value.fix
