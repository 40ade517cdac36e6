"""What is promised of a running container, seen from outside: confinement, secrets, layout, death, Ctrl-C."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nimctl.core.demo.checkpoint import write_checkpoint
from tests.conftest import Nimctl
from tests.e2e.conftest import CANARY, free_port
from tests.e2e.server import Server, curl
from tests.lib import lab as the_lab
from tests.lib.fault_hub import FaultHub

pytestmark = [pytest.mark.lab, pytest.mark.engine]
Host = Callable[[str], dict[str, str]]


def inspect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(the_lab.docker("inspect", name).stdout)[0]
    return found


def until(what: Callable[[], Any], seconds: float) -> Any:
    """The first true answer of `what`; fails when there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := what():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"nothing came of it in {seconds:g} s")


@pytest.fixture
def run_name(cpu_image: str) -> Iterator[str]:
    """A name for one run; whatever has it is removed at the end."""
    name = f"e2e-{free_port()}"
    yield name
    the_lab.docker("rm", "--force", name)


def test_the_container_is_confined(server: Server) -> None:
    seen = inspect(server.name)
    host = seen["HostConfig"]
    user, group = seen["Config"]["User"].split(":")
    assert int(user) > 0 and group == "0"
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["ReadonlyRootfs"] is True
    assert {b["HostIp"] for ports in host["PortBindings"].values() for b in ports} == {"127.0.0.1"}
    status = the_lab.docker("exec", server.name, "cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"


def test_a_key_of_the_caller_appears_nowhere(server: Server, nimctl: Nimctl) -> None:
    """The canary is in the environment of every nimctl here, and in no sink that anybody can read."""
    image = inspect(server.name)["Image"]
    log = the_lab.docker("logs", server.name)
    everywhere = {
        "inspect": the_lab.docker("inspect", server.name).stdout,
        "image history": the_lab.docker("history", "--no-trunc", image).stdout,
        "image inspect": the_lab.docker("image", "inspect", image).stdout,
        "docker logs": log.stdout + log.stderr,
        "ps": subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout,
        "container ps": the_lab.docker("top", server.name, "axww", "-o", "args").stdout,
        "container environ": the_lab.docker("exec", server.name, "sh", "-c", "cat /proc/[0-9]*/environ").stdout,
        "startup": curl(f"{server.url}/v1/health/startup").body,
    }
    calls: dict[str, tuple[str, ...]] = {
        "nimctl logs": ("logs", server.name),
        "nimctl ps": ("ps", "--json"),
        "nimctl status": ("status", server.name, "--json", "--debug"),
        "doctor": ("doctor", "kimi-k2.5-turbo", "--json", "--debug"),
        "dry-run": ("run", "kimi-k2.5-turbo", "--dry-run", "--debug"),
        "dry-run json": ("run", "kimi-k2.5-turbo", "--dry-run", "--json", "--debug"),
        "refused login": ("login", the_lab.registry_info().address, "--debug"),
        "failed run": ("run", "kimi-k2.5", "--gpus", "all", "--debug"),
        "refused env": ("run", "demo", "--env", f"HF_TOKEN={CANARY}", "--dry-run", "--debug"),
        "refused argument": ("run", "demo", "--dry-run", "--debug", "--", "--api-key", CANARY),
    }
    for name, arguments in calls.items():
        done = nimctl(*arguments, env=server.environment)
        everywhere[name] = done.stdout + done.stderr
    state = Path(server.environment["XDG_STATE_HOME"])
    for path in state.rglob("*") if state.exists() else ():
        if path.is_file():
            everywhere[str(path)] = path.read_text(errors="replace")
    assert all(everywhere[name] for name in ("inspect", "ps", "docker logs", "dry-run", "container environ"))
    leaks = [name for name, text in everywhere.items() if CANARY in text]
    assert not leaks


def test_the_three_lines_without_a_model_run_two_ranks_and_a_killed_engine_ends_the_container_with_its_cause(
    host: Host, nimctl: Nimctl, run_name: str
) -> None:
    """doctor, pull, run --gpus all, as a CI job types them; the model is the one of the configuration."""
    env = host("2xH200")
    Path(env["HOME"], "nimctl.yaml").write_text(f"model: demo\nport: {free_port()}\n")
    checked = nimctl("doctor", env=env)
    assert checked.code == 0 and "model demo (from nimctl.yaml)" in checked.stdout
    pulled = nimctl("pull", "--json", env=env)
    assert pulled.code == 0 and pulled.document["model"] == "demo"
    without = ("--env", "NIM_ENGINE_RESTARTS=0")  # so that the end is seen; with them the engine alone comes back
    started = nimctl("run", "--gpus", "all", "--name", run_name, *without, "--json", env=env, timeout=500)
    assert started.code == 0, started.stderr[-3000:]
    log = the_lab.docker("logs", run_name)
    text = log.stdout + log.stderr
    assert "world_size=2 rank=0" in text and "world_size=2 rank=1" in text
    assert "TP2: " in text
    assert re.search(r"INFO \S+ \S+ plan \S+ cache tokens: ", text) and "the plan was wrong" not in text

    kill_the_engine = (
        "import os\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    if b'VLLM::EngineCor' in open(f'/proc/{pid}/comm', 'rb').read(): os.kill(int(pid), 9)\n"
    )
    assert the_lab.docker("exec", run_name, "python", "-c", kill_the_engine).returncode == 0
    until(lambda: inspect(run_name)["State"]["Status"] == "exited", 60)
    assert inspect(run_name)["State"]["ExitCode"] == 8
    after = nimctl("status", run_name, "--wait", "--json", env=env)
    assert (after.code, after.error_id) == (8, "engine-died")
    assert "EngineCore" in after.document["error"]["message"]
    stopped = nimctl("stop", run_name, "--json", env=env)
    assert stopped.document["exit_code"] == 8


def test_the_three_lines_for_the_default_model_stop_at_the_room_for_its_weights(host: Host, nimctl: Nimctl) -> None:
    """Everything is ready on 8xH200 but the disk: 595 GB are refused before an image or a byte of them is fetched."""
    with FaultHub() as hub:  # answers where the real Hub would be asked whether it can be reached
        env = {**host("8xH200"), "HF_ENDPOINT": hub.url}
        checked = nimctl("doctor", "--json", env=env)
        failed = {f["id"] for f in checked.document["findings"] if f["verdict"] == "fail"}
        assert checked.document["model"] == "kimi-k2.5" and failed <= {"disk-full"}  # a test machine has no 600 GB
        done = nimctl("run", "--gpus", "all", "--json", env=env)
    assert (done.code, done.error_id) == (9, "disk-full")
    assert "554.3 GiB" in done.document["error"]["cause"] + done.document["error"]["message"]


def test_eight_gpus_mean_tp_8(host: Host, nimctl: Nimctl) -> None:
    plan = nimctl("run", "demo", "--gpus", "all", "--dry-run", "--json", env=host("8xH200")).document["plan"]
    assert plan["layout"]["tensor_parallel_size"] == 8
    assert plan["layout"]["used"] == list(range(8)) and plan["layout"]["unused"] == []


def test_three_gpus_use_two_and_name_the_third(host: Host, nimctl: Nimctl) -> None:
    done = nimctl("run", "demo", "--gpus", "0,3,5", "--dry-run", "--json", env=host("8xH200"))
    layout = done.document["plan"]["layout"]
    assert (layout["tensor_parallel_size"], layout["used"], layout["unused"]) == (2, [0, 3], [5])
    assert any("GPU 5" in note for note in done.document["plan"]["notes"])


def test_nvidias_image_gets_the_page_s_command_and_the_reasons(host: Host, nimctl: Nimctl) -> None:
    done = nimctl("run", "kimi-k2.5-turbo", "--dry-run", env=host("8xH200"))
    assert done.code == 0
    for part in (
        "docker run",
        "--gpus all",
        "-e NGC_API_KEY",
        ":/opt/nim/.cache",
        "8000:8000",
        "nvcr.io/nim/moonshotai/kimi-k2.5-turbo:1.0.0",
    ):
        assert part in done.stdout, part
    assert "127.0.0.1:8000:8000" in done.stdout and "loopback" in done.stdout  # what is added, and why


def test_an_engine_that_refuses_its_arguments_says_so_at_once(host: Host, nimctl: Nimctl, run_name: str) -> None:
    arguments = ("run", "demo", "--name", run_name, "--port", str(free_port()), "--json", "--", "--no-such-option", "1")
    done = nimctl(*arguments, env=host("none"), timeout=200)
    assert (done.code, done.error_id) == (8, "engine-config")
    assert "no-such-option" in json.dumps(done.document["error"])
    assert inspect(run_name)["State"]["ExitCode"] == 8  # the dead container stays for `nimctl logs`
    assert "no-such-option" in nimctl("logs", run_name, env=host("none")).stdout


def test_a_weight_file_that_the_container_s_user_cannot_read(
    host: Host, nimctl: Nimctl, run_name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_checkpoint(folder)
    for part in (*tmp_path.parents, tmp_path, folder):
        if part.owner() == "root" and str(part).startswith("/tmp/"):
            part.chmod(0o755)
    (folder / "model.safetensors").chmod(0o600)
    arguments = ("run", str(folder), "--name", run_name, "--gpus", "none", "--port", str(free_port()), "--json")
    done = nimctl(*arguments, env=host("none"), timeout=120)
    assert (done.code, done.error_id) == (6, "weights-unreadable")
    assert "model.safetensors" in json.dumps(done.document["error"]) and "chmod" in done.document["error"]["fix"]


@pytest.mark.parametrize(
    ("stage", "number", "code", "error_id"),
    [
        ("weights", signal.SIGINT, 130, "interrupted"),
        ("engine", signal.SIGINT, 130, "interrupted"),
        ("engine", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_ctrl_c_stops_the_container_and_leaves_a_cache_that_works(
    host: Host, run_name: str, stage: str, number: signal.Signals, code: int, error_id: str
) -> None:
    env = host("none")
    port = free_port()
    command = [sys.executable, "-m", "nimctl", "run", "demo", "--name", run_name, "--port", str(port)]
    seen: list[str] = []
    # A shell's background jobs ignore SIGINT, and so would a program started by tests that run in one.
    with subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no lock is taken in it)
    ) as process:
        reader = threading.Thread(target=lambda: seen.extend(process.stdout or ()), daemon=True)
        reader.start()
        until(lambda: any(line.split()[:2] == ["running", stage] for line in seen), 60)
        process.send_signal(number)
        assert process.wait(60) == code, "".join(seen)
        reader.join(10)
    assert f"error[{error_id}]" in "".join(seen)
    assert the_lab.docker("inspect", run_name).returncode != 0  # stopped and removed
    cache = Path(env["NIMCTL_CACHE"])
    assert cache.is_dir() and not [p for p in cache.rglob("*") if "probe" in p.name]
    if stage == "engine":
        fetched = list(cache.rglob("*.safetensors"))
        assert fetched and all(p.resolve().stat().st_size == 103003888 for p in fetched)


def test_login_and_pull_by_digest_from_a_registry_that_asks_for_a_key(host: Host, nimctl: Nimctl, home: Path) -> None:
    registry = the_lab.registry_info()
    env = {**host("none"), "DOCKER_CONFIG": str(the_lab.docker_config(home / "docker"))}
    reference = f"{registry.address}/nim/moonshotai/kimi-k2.5:1.7.0-variant"
    the_lab.docker("image", "rm", "--force", reference)
    without = nimctl("pull", reference, "--json", env=env)
    assert (without.code, without.error_id) == (4, "key-missing")
    wrong = nimctl("login", registry.address, "--password-stdin", "--json", env=env, stdin="nvapi-wrong-key-000000\n")
    assert (wrong.code, wrong.error_id) == (4, "key-refused")
    right = nimctl("login", registry.address, "--password-stdin", "--json", env=env, stdin=f"{registry.key}\n")
    assert right.code == 0 and registry.key not in right.stdout + right.stderr
    pulled = nimctl("pull", reference, "--json", env=env)
    assert pulled.code == 0, pulled.stderr
    assert pulled.document["digest"].startswith("sha256:")
    digests = json.loads(the_lab.docker("image", "inspect", reference).stdout)[0]["RepoDigests"]
    assert any(d.endswith(pulled.document["digest"]) for d in digests)
    absent = nimctl("pull", f"{registry.address}/nim/moonshotai/kimi-k2.5:9.9", "--json", env=env)
    assert (absent.code, absent.error_id) == (5, "image-not-found")


def test_detach_and_wait_as_a_ci_job_does(host: Host, nimctl: Nimctl, run_name: str) -> None:
    """Start, look, wait, ask, drain: no terminal, no question, exit codes only; ready is never said too early."""
    env = host("none")
    port = str(free_port())
    started = nimctl("run", "demo", "--name", run_name, "--port", port, "--detach", "--json", env=env)
    assert started.code == 0 and started.document["state"] == "started"
    early = nimctl("status", run_name, "--json", env=env)
    assert (early.code, early.error_id) == (8, "not-ready")
    truth: list[tuple[int, int]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            ready = curl_code(f"http://127.0.0.1:{port}/v1/health/ready")
            if ready == 200:
                truth.append((ready, completion(port)))
                return

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    waited = nimctl("status", run_name, "--wait", "--json", env=env, timeout=500)
    watcher.join(60)
    done.set()
    assert waited.code == 0, waited.stderr
    assert truth == [(200, 200)]  # the first ready=200 was followed by a completion that worked
    assert completion(port) == 200
    stopped = nimctl("stop", run_name, "--json", env=env, timeout=120)
    assert stopped.document["exit_code"] == 143
    assert the_lab.docker("inspect", run_name).returncode != 0


def curl_code(url: str) -> int:
    """The status of a GET, 0 where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def completion(port: str) -> int:
    """The status of a short chat completion."""
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}).encode()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
