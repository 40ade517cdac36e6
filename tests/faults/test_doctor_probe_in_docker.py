"""Fault: a container does not get what a run would need. A real daemon, simulated GPUs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib import lab
from tests.lib.held_docker import HeldDocker

pytestmark = pytest.mark.lab

OURS = ("doctor", "demo", "--gpus", "all", "--only", "docker", "--json", "--probe")
PROBE = (*OURS, "--image", lab.BASE_IMAGE)


def findings(done, check="probe"):
    return [f for f in done.document["findings"] if f["check"] == check]


def probe_finding(done):
    (finding,) = findings(done)
    return finding


def left_behind() -> list[str]:
    return lab.docker("ps", "-aq", "--filter", "label=io.nimctl.probe").stdout.split()


def saved(nimctl, env, home, change=lambda facts: None):
    """The facts of a simulated host, changed."""
    file = home / "facts.json"
    nimctl("doctor", "demo", "--save-facts", str(file), "--json", env=env)
    facts = json.loads(file.read_text())
    change(facts)
    file.write_text(json.dumps(facts))
    return str(file)


def test_a_container_sees_every_gpu_in_every_way_and_is_gone_afterwards(host, nimctl):
    done = nimctl(*PROBE, env=host("2xH200"))
    finding = probe_finding(done)
    assert finding["verdict"] == "pass", finding
    assert finding["title"] == f"a container of {lab.BASE_IMAGE} sees 2 of 2 GPUs"
    assert [line.partition(": ")[2] for line in finding["evidence"][:3]] == ["works; a run takes it", "works", "works"]
    assert done.code == 0
    assert left_behind() == []


def test_a_container_that_sees_fewer_gpus_than_the_host_had_is_named_with_those_that_are_missing(host, nimctl, home):
    file = saved(nimctl, host("8xH200"), home)
    done = nimctl(*PROBE, "--facts", file, env=host("2xH200"))
    finding = probe_finding(done)
    assert (finding["verdict"], finding["id"], done.code) == ("fail", "probe-failed", 3)
    assert finding["title"].endswith("sees 2 of 8 GPUs")
    assert finding["cause"].count("GPU-") == 6


def test_the_cache_is_written_as_the_user_of_a_run(host, nimctl, home):
    env, cache = host("2xH200"), home / "cache"
    cache.mkdir(mode=0o755)
    os.chown(cache, 0, 4242)
    cache.chmod(0o755)
    done = nimctl(*PROBE, env=env)
    (finding,) = findings(done, "probe-cache")
    assert (finding["verdict"], finding["id"], done.code) == ("fail", "cache-not-writable", 3)
    assert nimctl("cache", "init", str(cache), env=env).code == 0
    (finding,) = findings(nimctl(*PROBE, env=env), "probe-cache")
    assert finding["verdict"] == "pass", finding
    assert list(cache.glob(".nimctl-probe*")) == []


def test_a_specification_that_does_not_know_the_gpus_keeps_the_container_from_starting(host, nimctl, home):
    def only_cdi(facts):
        facts["docker"]["runtimes"] = ["runc"]
        facts["toolkit"]["hook"] = None

    file = saved(nimctl, host("8xH200"), home, only_cdi)
    done = nimctl(*OURS, "--gpus", "device=7", "--image", lab.BASE_IMAGE, "--facts", file, env=host("2xH200"))
    finding = probe_finding(done)
    assert (finding["verdict"], finding["id"], done.code) == ("fail", "gpu-runtime-missing", 3)
    assert "nvidia.com/gpu=7" in finding["cause"]
    assert left_behind() == []


def test_every_way_is_tried_and_the_runs_own_failure_is_the_cause(host, nimctl, home):
    file = saved(nimctl, host("2xH200"), home)
    done = nimctl(*PROBE, "--facts", file, env=host("none"))
    finding = probe_finding(done)
    assert (finding["id"], done.code) == ("gpu-runtime-missing", 3)
    assert "nvidia" in finding["cause"]
    assert sum("fails" in line for line in finding["evidence"]) == 3


def test_the_way_that_is_set_is_tried_first(host, nimctl):
    done = nimctl(*PROBE, env={**host("2xH200"), "NIMCTL_GPU_MODE": "cdi"})
    assert probe_finding(done)["evidence"][0].startswith("CDI")
    wrong = nimctl(*PROBE, env={**host("2xH200"), "NIMCTL_GPU_MODE": "magic"})
    assert probe_finding(wrong)["id"] == "config-invalid"


def test_an_image_that_is_nowhere_is_a_failure_of_its_own(host, nimctl):
    done = nimctl(*OURS, "--image", "127.0.0.1:1/no/such:1", env=host("2xH200"))
    finding = probe_finding(done)
    assert (finding["verdict"], done.code) == ("fail", 3)
    assert finding["id"] in ("image-pull-failed", "image-not-found")


def test_a_daemon_that_hangs_midway_ends_the_probe(host, nimctl, home):
    env = host("2xH200")
    file = saved(nimctl, env, home)
    behind = Path(env["DOCKER_HOST"].removeprefix("unix://"))
    with HeldDocker(home / "docker.sock", behind, b"/start", forever=True) as door:
        done = nimctl(*PROBE, "--facts", file, env={**env, "DOCKER_HOST": f"unix://{door.path}"}, timeout=90)
        assert door.held.is_set()
    left = left_behind()
    for container in left:  # nobody else can remove it
        lab.docker("rm", "-f", container)
    assert len(left) == 1
    finding = probe_finding(done)
    assert (finding["verdict"], finding["id"], done.code) == ("fail", "docker-hangs", 3)
    assert [line for line in finding["evidence"] if "docker rm -f nimctl-probe-" in line]


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_probe_that_is_stopped_leaves_no_container(host, nimctl, home, how, code):
    env = host("2xH200")
    file = saved(nimctl, env, home)
    behind = Path(env["DOCKER_HOST"].removeprefix("unix://"))
    with HeldDocker(home / "docker.sock", behind, b"/wait") as door:
        argv = [sys.executable, "-m", "nimctl", *PROBE, "--facts", file]
        running = subprocess.Popen(
            argv,
            env={**env, "DOCKER_HOST": f"unix://{door.path}"},
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert door.held.wait(60)
            assert len(left_behind()) == 1
            running.send_signal(how)
            assert running.wait(60) == code
        finally:
            running.kill()
            running.wait()
    assert left_behind() == []
