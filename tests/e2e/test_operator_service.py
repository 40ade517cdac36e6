"""A NIMCache and a NIMService as NVIDIA's operator makes containers of them: users, volume, variables, probes, end.

https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/api/apps/v1alpha1/nimservice_types.go
https://github.com/NVIDIA/k8s-nim-operator/blob/f63f74d7ad22eaea7943cc640e545f4ccdbb8077/internal/controller/nimcache_controller.go
"""

import json
import os
import shutil
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from nimctl.core.recipes import load
from tests.lib import lab
from tests.lib.operator_rules import matches, model_of_list, model_of_metadata, parsed

pytestmark = [pytest.mark.lab, pytest.mark.engine]

MANIFEST = "/etc/nim/config/model_manifest.yaml"
CONFINED = ("--security-opt", "no-new-privileges", "--cap-drop", "ALL")
BOTH = {
    "NIM_CACHE_PATH": "/model-store", "OUTLINES_CACHE_DIR": "/tmp/outlines",
    "NIM_JSONL_LOGGING": "1", "NIM_LOG_LEVEL": "INFO", "NIM_SERVER_PORT": "8000", "NIM_HTTP_API_PORT": "8000",
}  # fmt: skip
JOB = {**BOTH, "HF_HOME": "/model-store/huggingface/hub", "NGC_HOME": "/model-store"}
# Images off: what a first picture compiles takes 40 s, is nothing that a user or a volume changes, and is tested where
# the demo runs anyway.
SERVICE = {**BOTH, "NIM_GRPC_API_PORT": "8001", "NIM_MAX_IMAGES_PER_PROMPT": "0"}
GRACE = 30  # seconds, terminationGracePeriodSeconds of a pod that says nothing of it
LIVE_FAILURES = 3  # the operator's failureThreshold; its timeoutSeconds is 1
SECONDS_TO_READY = 300.0
OURS = {path.name for path in (Path(__file__).parents[2] / "entrypoint").rglob("*.py")}


def variables(environ: dict[str, str]) -> list[str]:
    return [word for key, value in environ.items() for word in ("-e", f"{key}={value}")]


def kubelet_mounts(volume: Path, group: int) -> None:
    """What is done to a volume before each start of a pod with this fsGroup.

    https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/volume/volume_linux.go
    """
    for folder, _, files in os.walk(volume):
        for place in (Path(folder), *(Path(folder, name) for name in files)):
            os.chown(place, -1, group, follow_symlinks=False)
            if not place.is_symlink():
                more = 0o2770 if place.is_dir() else 0o660
                place.chmod(stat.S_IMODE(place.stat().st_mode) | more)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh one, of root, as provisioners make it."""
    folder = tmp_path_factory.mktemp("pvc") / "model-store"
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class Pod:
    """A service's container, reached at its own address, and what its liveness probe saw."""

    def __init__(self, name: str, *words: str) -> None:
        self.name = name
        started = lab.docker("run", "-d", "--name", name, "--shm-size", "1g", *CONFINED, *words)
        assert started.returncode == 0, started.stderr
        network = json.loads(lab.docker("inspect", name, "--format", "{{json .NetworkSettings}}").stdout)
        self.url = f"http://{network['Networks']['bridge']['IPAddress']}:8000"

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=1) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def document(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def await_ready(self) -> None:
        """The startup probe, while the liveness probe would leave the container alone."""
        deadline, dead = time.monotonic() + SECONDS_TO_READY, 0
        while (ready := self.status("/v1/health/ready")) != 200:
            assert time.monotonic() < deadline, self.log()
            dead = 0 if self.status("/v1/health/live") == 200 else dead + 1
            assert dead < LIVE_FAILURES, self.log()
            assert ready in (503, 0), ready
            time.sleep(0.3)

    def answers(self) -> None:
        """The model that the operator would write into its status answers a chat."""
        name = model_of_list(self.document("/v1/models"))
        assert name == load("demo").served_names[0]
        assert model_of_metadata(self.document("/v1/metadata")) == name
        chat = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 256}
        assert self.document("/v1/chat/completions", chat)["choices"][0]["message"]["content"]
        assert self.status("/v1/metrics") == 200  # what its ServiceMonitor names

    def log(self) -> str:
        told = lab.docker("logs", self.name)
        return told.stdout + told.stderr

    def lines(self) -> list[dict[str, Any]]:
        """The log, which is one JSON object a line and nothing on stderr."""
        told = lab.docker("logs", self.name)
        assert told.stderr == ""
        return [json.loads(line) for line in told.stdout.splitlines()]

    def frightening(self) -> list[dict[str, Any]]:
        """Errors, and warnings of ours: what the engine's processes warn of on a CPU is their word.

        Once it is told to stop, vLLM's server may find its core gone before itself, and calls that an error; on a busy
        machine it does. Its answers have all been given by then.
        """
        lines = self.lines()
        stopping = next((n for n, line in enumerate(lines) if line["message"].endswith(": stopping")), len(lines))
        lines = [*lines[:stopping], *(line for line in lines[stopping:] if line["stage"] != "engine")]
        lines = [line for line in lines if line["level"] not in ("DEBUG", "INFO")]
        theirs = [one for one in lines if one["level"] == "WARNING" and one["stage"] == "engine"]
        return [one for one in lines if one not in theirs or ("process" not in one and one["file_name"] in OURS)]

    def stop(self) -> int:
        """As kubelet ends a pod, while an answer is on its way, which comes whole. The exit code."""
        body = {"model": "demo", "prompt": "Hello", "max_tokens": 200, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer, ThreadPoolExecutor(1) as kubelet:
            lines = [answer.readline()]
            stopping = kubelet.submit(lab.docker, "stop", "-t", str(GRACE), self.name)
            lines += [line for line in answer if line.strip()]
            stopped = stopping.result()
        assert lines[-1].strip() == b"data: [DONE]"
        assert json.loads(lines[-2].removeprefix(b"data: "))["usage"]["completion_tokens"] == 200
        assert stopped.returncode == 0, stopped.stderr
        return int(lab.docker("inspect", self.name, "--format", "{{.State.ExitCode}}").stdout)


@pytest.fixture
def name() -> Iterator[str]:
    one = f"nimservice-{uuid4().hex[:8]}"
    yield one
    lab.docker("rm", "--force", "--volumes", one)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """A container that ends by itself with 0, and its log: what a client that is attached sees may lack the end."""
    started = lab.docker("run", "-d", *CONFINED, *words)
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        code = lab.docker("wait", container).stdout.strip()
        told = lab.docker("logs", container)
        assert code == "0", told.stderr + told.stdout
        return told
    finally:
        lab.docker("rm", "--force", "--volumes", container)


@pytest.fixture(scope="module")
def manifest(cpu_image: str) -> str:
    """What the operator's pod for it says, which starts nothing of ours."""
    return run("--entrypoint", "cat", cpu_image, MANIFEST).stdout


def test_the_image_tells_what_it_is_without_an_engine(cpu_image: str, manifest: str) -> None:
    profiles = parsed(manifest)
    assert {one["tags"]["model"] for one in profiles} == {"demo"}
    chosen = matches(profiles, precision="bf16", tensor="1", engine="vllm")[0]
    user = ("--user", "1000:2000")
    starts = {
        "list": (*user, cpu_image, "list-model-profiles"),
        "list, other name": ("--user", "100065:0", "--read-only", cpu_image, "nim_list_model_profiles"),
        "list, command": (*user, "--entrypoint", "list-model-profiles", cpu_image),
        "manifest": (*user, cpu_image, "model-manifest"),
        "dry run": (*user, cpu_image, "nim-serve", "--dry-run"),
        "dry run, command": (*user, *variables(SERVICE), "--entrypoint", "nim-serve", cpu_image, "--dry-run"),
    }
    with ThreadPoolExecutor(2) as pool:
        told = dict(zip(starts, pool.map(lambda words: run(*words).stdout, starts.values()), strict=True))
    assert chosen in told["list"]
    assert told["list"] == told["list, other name"] == told["list, command"]
    assert told["manifest"] == manifest
    for form in ("dry run", "dry run, command"):
        document = json.loads(told[form])
        assert document["settings"]["NIM_RECIPE"] == {"value": "demo", "source": "image"}
        assert document["profile"]["id"] in {one["id"] for one in profiles}
        assert document["warnings"] == []


def test_a_cache_is_filled_and_served_by_the_users_that_the_operator_runs(
    cpu_image: str, manifest: str, volume: Path, name: str
) -> None:
    profile = matches(parsed(manifest), engine="vllm")[0]
    user = ("--user", "1000:2000", "--group-add", "2000", "-v", f"{volume}:/model-store")
    kubelet_mounts(volume, 2000)
    job = run(*user, *variables(JOB), "--entrypoint", "download-to-cache", cpu_image, "--profiles", profile)
    assert job.stderr == ""
    assert {line["level"] for line in map(json.loads, job.stdout.splitlines())} == {"INFO"}
    # The service names the profile and no model.
    kubelet_mounts(volume, 2000)
    pod = Pod(name, *user, *variables({**SERVICE, "NIM_MODEL_PROFILE": profile}), cpu_image)
    pod.await_ready()
    pod.answers()
    assert pod.stop() == 143
    assert pod.frightening() == []
    assert any("demo, this image's own, is served" in line["message"] for line in pod.lines())


def test_any_user_of_group_0_serves_from_the_same_volume(cpu_image: str, volume: Path, name: str) -> None:
    """OpenShift: any uid, group 0, a read-only root filesystem, an emptyDir at /tmp; and the program by its name."""
    kubelet_mounts(volume, 0)
    place = ("--user", "100065:0", "-v", f"{volume}:/model-store", "--read-only", "--tmpfs", "/tmp:exec,mode=0777")
    pod = Pod(name, *place, *variables(SERVICE), "--entrypoint", "nim-serve", cpu_image)
    pod.await_ready()
    pod.answers()
    assert pod.stop() == 143
    assert pod.frightening() == []
