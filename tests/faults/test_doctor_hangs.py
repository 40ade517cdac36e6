"""Fault: a daemon, a driver or a network mount that never answers must not hold up the doctor."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import fields

import pytest

from nimctl.core.facts import DockerFacts
from nimctl.core.gpus import GpuInventory
from nimctl.core.recipes import load
from nimctl.doctor import facts as doctor_facts
from nimctl.doctor.facts import Subject, gather
from nimctl.doctor.model import Needs
from nimctl.doctor.runner import run_checks
from nimctl.launch.docker import describe_daemon

# That `gather` returns at all while a look still hangs is the proof: nothing lets the look go before the test ends.
pytestmark = pytest.mark.timeout(60)

WELL = DockerFacts("ok", version="28.5.2")
NO_GPUS = GpuInventory("no-library")


class Stuck:
    """A look that hangs until the test is over."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, *_: object) -> None:
        self.entered.set()
        self.release.wait(60)
        raise RuntimeError("let go")

    @property
    def hangs(self) -> bool:
        return self.entered.is_set() and not self.release.is_set()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    look = Stuck()
    yield look
    look.release.set()


def look(tmp_path, **changes):
    subject = {
        "cache": tmp_path,
        "host": "127.0.0.1",
        "port": 0,
        "environment": {"PATH": "/nonexistent", "HOME": str(tmp_path)},
        "uid": 1000,
    }
    subject |= {name: changes.pop(name) for name in list(changes) if name in {f.name for f in fields(Subject)}}
    arguments = {
        "docker_facts": lambda timeout: WELL,
        "gpu_inventory": lambda: NO_GPUS,
        "limit": 0.5,
        "after_docker": 0.5,
    }
    return gather(Subject(**subject), **{**arguments, **changes})


def test_nvml_hangs(tmp_path, stuck):
    seen = look(tmp_path, gpu_inventory=stuck)
    assert stuck.hangs
    assert seen.gpus == GpuInventory("hangs", detail="NVML hangs: no answer within 0.5 s")
    assert seen.problems == ("gpus: no answer in time",)
    assert seen.docker == WELL
    failed = run_checks(seen, Needs(recipe=load("kimi-k2.5")), only=["gpu"]).failures
    assert [f.id for f in failed] == ["driver-hangs"]
    assert "NVML hangs" in failed[0].evidence[0]


def test_the_docker_daemon_hangs(tmp_path, stuck):
    seen = look(tmp_path, docker_facts=stuck)
    assert stuck.hangs
    assert (seen.docker.state, seen.docker.detail) == ("hangs", "no answer within 0.5 s")
    assert seen.problems == ("docker: no answer in time",)
    assert seen.cache.exists is True
    failed = run_checks(seen, Needs(recipe=load("demo"), gpus="none"), only=["docker"]).failures
    assert [f.id for f in failed] == ["docker-hangs"]


def test_the_filesystem_of_the_cache_hangs(tmp_path, stuck, monkeypatch):
    monkeypatch.setattr(doctor_facts, "look_at_cache", stuck)
    seen = look(tmp_path)
    assert stuck.hangs
    assert (seen.cache.hangs, seen.cache.exists) == (True, None)
    failed = run_checks(seen, Needs(recipe=load("demo"), gpus="none"), only=["storage"]).failures
    assert [f.id for f in failed] == ["cache-unreachable"]


def test_the_image_store_hangs(tmp_path, stuck, monkeypatch):
    monkeypatch.setattr(doctor_facts, "look_at_image_store", stuck)
    seen = look(tmp_path)
    assert stuck.hangs
    assert seen.image_store is None
    assert seen.problems == ("image store: no answer in time",)


def test_everything_hangs_at_once(tmp_path, stuck, monkeypatch):
    names = [name for name in vars(doctor_facts) if name.startswith(("look_at_", "look_into_", "try_to_"))]
    for name in names:
        monkeypatch.setattr(doctor_facts, name, stuck)
    monkeypatch.setattr(doctor_facts, "reach", stuck)
    monkeypatch.setattr(doctor_facts, "look_at_proxies", lambda environment: {})  # reads variables, and is no look
    seen = look(tmp_path, docker_facts=stuck, gpu_inventory=stuck)
    assert stuck.hangs
    assert len(names) > 15
    assert {line.partition(":")[2] for line in seen.problems} == {" no answer in time"}
    assert len(seen.problems) > 15
    report = run_checks(seen, Needs(recipe=load("kimi-k2.5")))
    assert [f.id for f in report.failures] == ["driver-hangs", "docker-hangs", "cache-unreachable"]
    assert "check-crashed" not in {f.id for f in report.findings}


def test_a_real_daemon_socket_that_accepts_and_never_answers(tmp_path, monkeypatch):
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        seen = look(tmp_path, docker_facts=describe_daemon, limit=2.0)
    assert seen.docker.state == "hangs"
    assert seen.docker.endpoint == f"unix://{path}"
    assert seen.cache.exists is True


def program(folder, name, does):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)


def test_a_program_of_the_toolkit_hangs_and_the_next_is_asked(tmp_path):
    program(tmp_path, "nvidia-ctk", "exec /bin/sleep 600")
    program(tmp_path, "nvidia-container-cli", "echo 'cli-version: 1.17.8'")
    seen = look(tmp_path, environment={"PATH": str(tmp_path)}, limit=5.0)
    assert (seen.toolkit.version, seen.toolkit.source) == ("1.17.8", "nvidia-container-cli")
    assert seen.problems == ()


def test_a_toolkit_whose_only_program_hangs_is_not_called_missing(tmp_path):
    program(tmp_path, "nvidia-ctk", "exec /bin/sleep 600")
    seen = look(tmp_path, environment={"PATH": str(tmp_path)}, limit=2.0)
    assert seen.problems == ("toolkit: TimeoutError: no answer from nvidia-ctk",)
    (finding,) = run_checks(seen, Needs(recipe=load("kimi-k2.5")), only=["toolkit"]).findings
    assert finding.verdict == "unknown"
