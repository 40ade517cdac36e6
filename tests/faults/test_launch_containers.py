"""Real containers in the lab: started as planned, confined as promised; a failed start leaves nothing behind."""

import json
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch.docker import DockerRuntime, Engine
from nimctl.launch.docker.once import run_once
from nimctl.launch.docker.pull import PullPlan
from nimctl.launch.model import ExactImage, GpuRequest, LaunchPlan, SecretMount
from nimctl.launch.plan import docker_run_line
from nimctl.launch.progress import Policy, follow
from nimctl.launch.runtime import RunHandle
from nimctl.registry.reference import parse
from nimctl.registry.resolving import resolve_image
from tests.lib import lab
from tests.unit.launch.launch_hosts import plan

pytestmark = pytest.mark.lab

CANARY = "hf_CANARYcanary0123456789"
# Prints what a container may know about itself, then waits for SIGTERM.
WAITS = "trap 'echo bye; exit 143' TERM; echo up; while :; do sleep 0.1; done"


@pytest.fixture
def docker_env(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process talks to the lab's engine; the host's profile stays what it is."""
    environment = lab.engine.client_environment(lab.paths())
    for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH"):
        monkeypatch.setenv(name, environment[name])
    return environment


@pytest.fixture
def runtime(docker_env: dict[str, str]) -> Iterator[DockerRuntime]:
    """The lab's runtime; whatever a test starts in it is stopped."""
    connected = DockerRuntime.connect(20)
    before = {run.id for run in connected.list_runs()}
    yield connected
    for run in connected.list_runs():
        if run.id not in before and run.name.startswith("launch-test"):
            connected.stop(run, timeout=0)
    connected.engine.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., LaunchPlan]:
    """A plan of ours for a shell script in the base image, with the whole confinement."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o2770)

    def make(script: str = WAITS, name: str = "launch-test", **changes: Any) -> LaunchPlan:
        made = plan("demo", name=name, image=lab.BASE_IMAGE, cache=cache, port=free_port(), uid=12345)
        return replace(made, **{"argv": ("sh", "-c", script), **changes})

    return make


def inspect(runtime: DockerRuntime, run: RunHandle) -> Any:
    found = runtime.engine.inspect(run.id)
    assert found is not None
    return found


def refused(runtime: DockerRuntime, made: LaunchPlan, secrets: dict[str, Secret] | None = None) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        runtime.start(made, secrets or {})
    return caught.value


def test_the_confinement_is_real_from_outside_and_from_inside(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan]
) -> None:
    script = (
        "id -u; id -g; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\t'; "
        "touch /etc/x 2>&1 | grep -o 'Read-only file system'; touch /opt/nim/.cache/x && echo cache; "
        "printf '#!/bin/sh\\necho exec' > /tmp/x && chmod +x /tmp/x && /tmp/x; df -k /dev/shm | tail -1 | tr -s ' ' | "
        "cut -d' ' -f2; echo done"
    )
    run = runtime.start(make(script), {})
    assert list(runtime.logs(run, follow=True)) == [
        "12345",
        "0",
        "CapEff:0000000000000000",
        "CapBnd:0000000000000000",
        "NoNewPrivs:1",
        "Read-only file system",
        "cache",
        "exec",
        "1048576",
        "done",
    ]
    found = inspect(runtime, run)
    assert found["Config"]["User"] == "12345:0"
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["Privileged"] is False
    assert [b["HostIp"] for b in found["HostConfig"]["PortBindings"]["8000/tcp"]] == ["127.0.0.1"]
    assert found["Config"]["StopTimeout"] == 45


def test_the_printed_command_makes_the_same_container(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan], docker_env: dict[str, str], tmp_path: Path
) -> None:
    ours = make(env=plan("demo", env=(("GREETING", "it's $HOME"), ("MY_TOKEN", CANARY))).env)
    ours = with_key(ours, tmp_path / "keys")
    run = runtime.start(ours, {"HF_TOKEN": Secret(CANARY)})
    typed = replace(ours, name="launch-test-typed", labels={**ours.labels, "io.nimctl.run": "launch-test-typed"})
    typed = replace(typed, port=replace(typed.port, host=free_port()))
    command = docker_run_line(typed)
    assert CANARY not in command
    done = subprocess.run(
        ["bash", "-c", command], env={**docker_env, "MY_TOKEN": CANARY}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    other = runtime.find("launch-test-typed")
    assert other is not None
    one, two = inspect(runtime, run), inspect(runtime, other)
    for part in ("HostConfig", "Config"):
        for key in ("PortBindings", "Hostname", "Labels", "LogConfig", "ConsoleSize"):
            one[part].pop(key, None), two[part].pop(key, None)
        assert without_empty(one[part]) == without_empty(two[part])


def without_empty(data: dict[str, Any]) -> dict[str, Any]:
    """The API writes what was not said as null, [] or {}, the command as the other; docker treats them alike."""
    same = {"Env": sorted(data.get("Env") or [])} if "Env" in data else {}
    defaults = {"", "default", "no", "private"}
    return {
        k: v
        for k, v in {**data, **same}.items()
        if v and not (isinstance(v, str) and v in defaults) and k not in ("RestartPolicy", "MemorySwappiness")
        and not k.startswith("Attach")
    }  # fmt: skip


def test_stop_drains_reads_the_code_and_removes_everything(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    staged = tmp_path / "keys" / "launch-test"
    secret = SecretMount("HF_TOKEN", str(staged / "HF_TOKEN"), "/run/secrets/HF_TOKEN")
    made = make(f"cat /run/secrets/HF_TOKEN | wc -c; {WAITS}", secrets=(secret,))
    made = replace(made, labels={**made.labels, "io.nimctl.secrets": str(staged)})
    run = runtime.start(made, {"HF_TOKEN": Secret(CANARY)})
    lines = runtime.logs(run, follow=True)
    assert next(lines) == str(len(CANARY)), "uid 12345 with group 0 reads the key"
    assert next(lines) == "up"
    assert CANARY not in json.dumps(inspect(runtime, run))
    assert runtime.state(run).alive
    assert runtime.stop(run) == 143
    assert runtime.state(run).status == "gone"
    assert runtime.find("launch-test") is None
    assert not staged.parent.exists()
    assert runtime.stop(run) is None


def test_a_server_that_ignores_sigterm_is_killed(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    run = runtime.start(make("trap '' TERM; echo up; while :; do sleep 0.1; done"), {})
    assert next(runtime.logs(run, follow=True)) == "up"
    assert runtime.stop(run, timeout=1) == 137


def test_a_running_name_is_taken(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    run = runtime.start(make(), {})
    error = refused(runtime, make())
    assert (error.id, error.exit_code) == ("name-in-use", 9)
    assert runtime.state(run).alive


def test_a_dead_run_makes_way_and_that_is_said(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    first = runtime.start(make("exit 3"), {})
    list(runtime.logs(first, follow=True))
    wait_until_dead(runtime, first)
    second = runtime.start(make(), {})
    assert second.notes == ("replaced: The dead run launch-test (exit code 3) was removed to make way.",)
    assert runtime.state(first).status == "gone"


def with_key(made: LaunchPlan, base: Path) -> LaunchPlan:
    staged = base / made.name
    secret = SecretMount("HF_TOKEN", str(staged / "HF_TOKEN"), "/run/secrets/HF_TOKEN")
    return replace(made, secrets=(secret,), labels={**made.labels, "io.nimctl.secrets": str(staged)})


def test_the_keys_of_dead_and_of_vanished_runs_are_removed(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    keys, key = tmp_path / "keys", {"HF_TOKEN": Secret(CANARY)}
    dead = runtime.start(with_key(make("exit 3"), keys), key)
    vanished = runtime.start(with_key(make(name="launch-test-2"), keys), key)
    runtime.engine.remove(vanished.id)
    wait_until_dead(runtime, dead)
    runtime.start(make(), {})
    assert [p.name for p in keys.iterdir()] == ["launch-test-2"], "the dead run's keys went when it made way"
    runtime.start(with_key(make(name="launch-test-3"), keys), key)
    assert [p.name for p in keys.iterdir()] == ["launch-test-3"]


def test_the_printed_command_without_its_key_file_is_refused(
    make: Callable[..., LaunchPlan], docker_env: dict[str, str], tmp_path: Path
) -> None:
    made = with_key(make(), tmp_path / "keys")
    command = ["bash", "-c", docker_run_line(made)]
    done = subprocess.run(command, env=docker_env, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "does not exist" in done.stderr
    assert not (tmp_path / "keys").exists()


def wait_until_dead(runtime: DockerRuntime, run: RunHandle) -> None:
    """Docker closes the log a moment before it records the end."""
    runtime.engine.api.wait(run.id, timeout=30)


def test_somebody_elses_container_is_never_removed(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    foreign = runtime.engine.create("launch-test", {"Image": lab.BASE_IMAGE, "Cmd": ["true"]})
    try:
        error = refused(runtime, make())
        assert error.id == "name-in-use" and "did not start" in error.cause
        assert runtime.engine.inspect(foreign) is not None
    finally:
        runtime.engine.remove(foreign)


def test_a_port_that_a_process_holds(runtime: DockerRuntime, make: Callable[..., LaunchPlan], tmp_path: Path) -> None:
    staged = tmp_path / "keys" / "launch-test"
    secret = SecretMount("HF_TOKEN", str(staged / "HF_TOKEN"), "/run/secrets/HF_TOKEN")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        made = make(secrets=(secret,))
        made = replace(made, port=replace(made.port, host=holder.getsockname()[1]))
        error = refused(runtime, made, {"HF_TOKEN": Secret(CANARY)})
    assert (error.id, error.exit_code) == ("port-in-use", 9)
    assert str(made.port.host) in error.message
    assert runtime.find("launch-test") is None, "the container that could not start is removed"
    assert not staged.exists(), "and so is its key"


def test_a_port_that_another_run_holds(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    made = make()
    runtime.start(made, {})
    assert refused(runtime, replace(make(name="launch-test-2"), port=made.port)).id == "port-in-use"


def test_an_address_that_is_not_of_this_host(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    made = make()
    error = refused(runtime, replace(made, port=replace(made.port, host_ip="192.0.2.1")))
    assert error.id == "usage"


def test_an_image_that_is_not_here(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    assert refused(runtime, make(image="nimctl-lab/no-such:1")).id == "image-not-found"


def test_a_program_that_is_not_in_the_image(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    error = refused(runtime, make(argv=("/no/such/program",)))
    assert error.id == "image-incompatible"
    assert runtime.find("launch-test") is None


def test_a_key_that_is_needed_and_missing(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    error = refused(runtime, make(secrets=(SecretMount("NGC_API_KEY", None, None, required=True),)))
    assert (error.id, error.exit_code) == ("key-missing", 4)


def test_ctrl_c_between_create_and_start_leaves_nothing(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_engine: Engine, _container: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runtime.start(make(), {})
    assert runtime.find("launch-test") is None


def test_a_container_that_dies_at_start_says_why_at_once(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan]
) -> None:
    script = (
        "i=0; while [ $i -lt 300 ]; do echo INFO noise $i; i=$((i+1)); done; echo 'ValueError: no weights' >&2; exit 3"
    )
    run = runtime.start(make(script), {})
    with pytest.raises(NimctlError) as caught:
        follow(runtime, run, policy=Policy(deadline=60))
    assert caught.value.id == "container-died"
    assert "exit code 3" in caught.value.message
    assert caught.value.evidence == ("ValueError: no weights",)


def test_the_servers_own_error_in_the_log_keeps_its_id(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    record = {"event": "failed", "error": {"id": "weights-unreadable", "message": "m", "cause": "c", "fix": "f"}}
    run = runtime.start(make(f"echo {shlex.quote(json.dumps(record))}; exit 6"), {})
    with pytest.raises(NimctlError) as caught:
        follow(runtime, run, policy=Policy(deadline=60))
    assert (caught.value.id, caught.value.exit_code) == ("weights-unreadable", 6)


def test_a_container_removed_behind_our_back_is_a_death(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan]
) -> None:
    run = runtime.start(make(), {})
    removed = threading.Event()

    def remove(_report: object) -> None:
        if not removed.is_set():
            removed.set()
            runtime.engine.remove(run.id)

    with pytest.raises(NimctlError) as caught:
        follow(runtime, run, on_update=remove, policy=Policy(deadline=60))
    assert caught.value.id == "container-died"
    assert "removed by somebody" in caught.value.message


def test_the_log_masks_keys(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    run = runtime.start(make("echo my key is nvapi-0123456789abcdef; echo last"), {})
    assert list(runtime.logs(run, follow=True)) == ["my key is ***", "last"]
    assert list(runtime.logs(run, tail=1)) == ["last"]


def test_running_once(docker_env: dict[str, str]) -> None:
    engine = Engine.connect(20)
    before = {c["Id"] for c in engine.api.containers(all=True)}
    try:
        body = {"Image": lab.BASE_IMAGE, "Entrypoint": ["sh"], "HostConfig": {"NetworkMode": "none"}}
        code, output = run_once(engine, {**body, "Cmd": ["-c", "echo out; echo err >&2; exit 7"]}, 60)
        assert (code, sorted(output.splitlines())) == (7, ["err", "out"])
        with pytest.raises(NimctlError) as caught:
            run_once(engine, {**body, "Entrypoint": ["sleep"], "Cmd": ["600"]}, 1)
        assert caught.value.id == "probe-failed"
        left = {c["Id"] for c in engine.api.containers(all=True) if c["Command"] in ("sleep 600",)} - before
        assert not left
    finally:
        engine.close()


def test_pulling_exactly_one_image_and_naming_it(docker_env: dict[str, str]) -> None:
    digest = lab.push_image("open/launch:1")
    reference = f"{lab.registry_info().address}/open/launch:1"
    engine = Engine.connect(20)
    try:
        remote = resolve_image(parse(reference), None, engine.platform)
        image = engine.pull(PullPlan(remote.identity))
        assert image.id in remote.identity.digests
        assert remote.identity.digest == digest == image.digest(reference)
        named = engine.inspect_image(reference)
        assert named is not None and named.id == image.id
        nowhere = replace(remote.identity, manifest=f"sha256:{'0' * 64}")
        with pytest.raises(NimctlError) as caught:
            engine.pull(PullPlan(nowhere))
        assert caught.value.id == "image-not-found"
        with pytest.raises(NimctlError) as caught:
            engine.pull(PullPlan(replace(nowhere, reference=f"{lab.registry_info().address}/nim/secret:1")))
        assert caught.value.id in ("key-refused", "image-not-found")
    finally:
        with_image = engine.inspect_image(reference)
        if with_image:
            engine.api.remove_image(reference, force=True)
        engine.close()


def test_gpus_that_cdi_does_not_know(runtime: DockerRuntime, make: Callable[..., LaunchPlan]) -> None:
    error = refused(runtime, make(gpu=GpuRequest("cdi", ("97",), 1)))
    assert (error.id, error.exit_code) == ("gpu-runtime-missing", 3)
    assert runtime.find("launch-test") is None


def test_a_runtime_that_docker_does_not_know(monkeypatch: pytest.MonkeyPatch, make: Callable[..., LaunchPlan]) -> None:
    for name, value in lab.environment("none").items():
        monkeypatch.setenv(name, value)
    runtime = DockerRuntime.connect(20)
    try:
        assert refused(runtime, make(gpu=GpuRequest("runtime", ("all",), 1))).id == "gpu-runtime-missing"
    finally:
        runtime.engine.close()


@pytest.mark.parametrize("mode", ["cdi", "runtime", "runtime-env", "gpus"])
def test_simulated_gpus_arrive_in_the_container(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., LaunchPlan], mode: str
) -> None:
    for name, value in lab.environment("2xH200").items():
        monkeypatch.setenv(name, value)
    runtime = DockerRuntime.connect(20)
    script = "ls /dev/nvidia[0-9]* | tr '\\n' ' '; echo"
    try:
        for devices, seen in ((("all",), "/dev/nvidia0 /dev/nvidia1"), (("1",), "/dev/nvidia1")):
            run = runtime.start(make(script, gpu=GpuRequest(mode, devices, len(devices))), {})  # type: ignore[arg-type]
            assert [line.strip() for line in runtime.logs(run, follow=True)] == [seen]
            runtime.stop(run, timeout=0)
    finally:
        if run := runtime.find("launch-test"):
            runtime.stop(run, timeout=0)
        runtime.engine.close()


def exact(runtime: DockerRuntime, reference: str, config: str | None = None) -> ExactImage:
    """The image that has this name now; `config` is what a registry promised of it, if not what it is."""
    found = runtime.engine.inspect_image(reference)
    assert found is not None
    return ExactImage(found.id, replace(found.identity(reference), **({"config": config} if config else {})))


def test_a_tag_that_moves_between_check_and_start_starts_nothing_else(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan]
) -> None:
    tag, api = "nimctl-lab/launch-moves", runtime.engine.api
    api.tag(lab.BASE_IMAGE, tag, "1", force=True)
    wanted = exact(runtime, f"{tag}:1")
    other = api.create_container_from_config({"Image": lab.BASE_IMAGE, "Cmd": ["true"]}, None)["Id"]
    moved = api.commit(other, tag, "1")["Id"]  # the name stands for another image now
    try:
        assert exact(runtime, f"{tag}:1").id == moved != wanted.id
        run = runtime.start(replace(make(), image=f"{tag}:1", exact=wanted), {})
        assert inspect(runtime, run)["Image"] == wanted.id
        assert [one.image for one in runtime.list_runs() if one.id == run.id] == [f"{tag}:1"]
    finally:
        api.remove_container(other)
        api.remove_image(f"{tag}:1")


def test_an_image_that_is_not_what_was_promised_is_never_started(
    runtime: DockerRuntime, make: Callable[..., LaunchPlan], tmp_path: Path
) -> None:
    promised = exact(runtime, lab.BASE_IMAGE, config="sha256:" + "0" * 64)
    promised = replace(promised, identity=replace(promised.identity, digest=None, manifest=None))
    error = refused(runtime, replace(make("touch /opt/nim/.cache/started"), exact=promised))
    assert error.id == "image-tampered"
    assert runtime.find("launch-test") is None
    assert not (tmp_path / "cache" / "started").exists()
