"""The lab's engine, as its users meet it: GPUs in containers, the network, and nothing of another engine touched."""

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib import lab
from tests.lib.lab.paths import paths
from tests.lib.nvml import profiles

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def _leave_no_gpus() -> Iterator[None]:
    yield
    lab.environment("none")


def uuids(profile: str) -> list[str]:
    return [gpu["uuid"] for gpu in profiles.profile(profile)["gpus"]]


def run_in_container(*options: str, command: tuple[str, ...] = ("nvidia-smi", "-L")) -> str:
    done = lab.docker("run", "--rm", *options, lab.BASE_IMAGE, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_in_container(*options: str) -> list[str]:
    """UUIDs of the GPUs that NVML shows in a container started with these options."""
    lines = run_in_container(*options).splitlines()
    return [line.partition("UUID: ")[2].rstrip(")") for line in lines]


def test_it_is_new_enough_and_has_buildx() -> None:
    version = lab.docker("version", "--format", "{{.Server.Version}}").stdout
    assert int(version.split(".")[0]) >= 26
    assert "buildx" in lab.docker("buildx", "version").stdout


def test_a_container_sees_all_gpus_by_cdi() -> None:
    lab.environment("2xH200")
    assert seen_in_container("--device", "nvidia.com/gpu=all") == uuids("2xH200")


@pytest.mark.parametrize("name", ["1", "uuid"])
def test_a_container_sees_only_the_gpu_it_was_given(name: str) -> None:
    lab.environment("2xH200")
    wanted = uuids("2xH200")[1]
    device = wanted if name == "uuid" else name
    hardened = ("--read-only", "--user", "12345:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    assert seen_in_container("--device", f"nvidia.com/gpu={device}", *hardened) == [wanted]


def test_a_container_without_a_device_has_no_nvml() -> None:
    lab.environment("2xH200")
    done = lab.docker("run", "--rm", lab.BASE_IMAGE, "nvidia-smi", "-L")
    assert done.returncode == 127


@pytest.mark.parametrize(
    "options",
    [
        ("--gpus", "all"),
        ("--runtime=nvidia", "--gpus", "all"),
        ("--runtime=nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=all"),
        ("--gpus", "all", "--read-only", "--user", "12345:0", "--cap-drop", "ALL"),
    ],
)
def test_the_toolkits_ways_work_as_well(options: tuple[str, ...]) -> None:
    lab.environment("2xB200")
    assert seen_in_container(*options) == uuids("2xB200")


def test_the_toolkits_way_gives_a_subset() -> None:
    lab.environment("8xH100")
    assert seen_in_container("--gpus", '"device=6,2"') == [uuids("8xH100")[2], uuids("8xH100")[6]]


def test_switching_the_host_switches_the_next_container() -> None:
    for profile in ("1xH100", "8xH200", "2xB200"):
        lab.environment(profile)
        assert seen_in_container("--device", "nvidia.com/gpu=all") == uuids(profile)


def test_a_broken_driver_is_broken_in_containers_too() -> None:
    lab.environment("mismatch")
    done = lab.docker("run", "--rm", "--device", "nvidia.com/gpu=all", lab.BASE_IMAGE, "nvidia-smi")
    assert (done.returncode, done.stdout) == (18, "Failed to initialize NVML: Driver/library version mismatch\n")


def test_a_host_without_gpus_has_neither_cdi_nor_runtime_nor_toolkit() -> None:
    with_gpus, without = lab.environment("1xH200"), lab.environment("none")
    by_cdi = lab.docker("run", "--rm", "--device", "nvidia.com/gpu=all", lab.BASE_IMAGE, "true")
    assert "unresolvable CDI devices" in by_cdi.stderr
    assert "nvidia" not in json.loads(lab.docker("info", "--format", "{{json .Runtimes}}").stdout)
    assert "NVML_DOUBLE_JSON" not in without
    in_path = [set(env["PATH"].split(":")) for env in (with_gpus, without)]
    toolkit = [any((Path(folder) / "nvidia-ctk").exists() for folder in folders) for folders in in_path]
    assert toolkit == [True, False]


def test_published_ports_answer_on_loopback() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # perl is essential in Debian: a server without installing anything
    script = (
        "use IO::Socket; my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, Reuse => 1) or die;"
        "while (my $c = $s->accept) { while (<$c>) { last if /^\\r?$/ } "
        'print $c "HTTP/1.0 200 OK\\r\\n\\r\\nhello"; close $c }'
    )
    started = lab.docker(
        "run", "-d", "--rm", "--init", "-p", f"127.0.0.1:{port}:80", lab.BASE_IMAGE, "perl", "-e", script
    )
    assert started.returncode == 0, started.stderr
    try:
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    assert answer.read() == b"hello"
                    break
            except OSError:
                assert lab.docker("inspect", started.stdout.strip()).returncode == 0, "the container ended"
        else:
            pytest.fail("the port never answered")
    finally:
        lab.docker("stop", "-t", "1", started.stdout.strip())


def test_containers_resolve_and_reach_the_machines_mirror() -> None:
    """Builds depend on it: apt with nothing but the base image's own sources."""
    run_in_container(command=("apt-get", "-q", "update", "--error-on=any", "-o", "Acquire::Languages=none"))


def test_the_machines_own_engine_is_not_the_labs() -> None:
    environment = lab.environment("none")
    for key in ("DOCKER_HOST", "DOCKER_CONFIG"):
        assert "nimctl-lab" in environment[key] or os.environ.get("NIMCTL_LAB_DIR", "?") in environment[key]
    info = json.loads(lab.docker("info", "--format", "{{json .}}").stdout)
    assert info["DockerRootDir"] != "/var/lib/docker"
    assert info["CDISpecDirs"] == [str(Path(info["DockerRootDir"]).parent / "gpus/cdi")]
    network = json.loads(lab.docker("network", "inspect", "bridge").stdout)[0]
    assert network["Options"]["com.docker.network.bridge.name"] == paths().bridge
