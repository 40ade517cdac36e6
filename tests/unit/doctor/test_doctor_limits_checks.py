"""Shared memory and limits: what passes, what is warned of, what cannot be told."""

import pytest

from nimctl.core.facts import DaemonConfig, DockerFacts
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, GIB, KIMI, host, judge, verdicts
from tests.unit.doctor.system_hosts import H200_UBUNTU

PROCESS = Needs(recipe=KIMI, runtime="process")
DOCKER = Needs(recipe=KIMI)


def limited(**limits):
    return host(H200_UBUNTU, limits=limits)


def docker_defaults(**limits):
    return host(H200_UBUNTU, docker=DockerFacts("ok", config=DaemonConfig("x", True, default_ulimits=limits)))


@pytest.mark.parametrize(
    ("total", "free", "expected", "fix"),
    [
        (1_000, 999, ("pass", "shm"), ""),
        (32, 32, ("pass", "shm"), ""),
        (16, 16, ("warn", "shm-small"), "remount,size=32G"),
        (1_000, 20, ("warn", "shm-small"), "ls -l /dev/shm"),
        (1_000, None, ("pass", "shm"), ""),
        (None, None, ("unknown", "shm"), ""),
    ],
)
def test_shared_memory_of_the_host_for_the_process_runtime(total, free, expected, fix):
    system = {"shm_total": total and total * GIB, "shm_free": free and free * GIB}
    (finding,) = judge("shm", host(system=system), PROCESS)
    assert (finding.verdict, finding.id) == expected
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("available", "expected"),
    [(1_900, ("pass", "shm")), (32, ("pass", "shm")), (31, ("warn", "shm-small")), (None, ("unknown", "shm"))],
)
def test_shared_memory_of_a_container_comes_out_of_host_memory(available, expected):
    # The host's own /dev/shm does not matter to it.
    facts = host(system={"memory_available": available and available * GIB, "shm_total": 1, "shm_free": 0})
    assert verdicts(judge("shm", facts, DOCKER)) == [expected]


def test_memory_that_does_not_hold_the_shared_memory_is_warned_of_once():
    facts = host(system={"memory_available": 31 * GIB})
    assert verdicts([*judge("shm", facts, DOCKER), *judge("memory", facts, DOCKER)]) == [
        ("warn", "shm-small"),
        ("pass", "memory"),
    ]


def test_without_gpus_no_rank_shares_memory():
    assert verdicts(judge("shm", H200_UBUNTU, Needs(DEMO, gpus="none"))) == [("skip", "shm")]


@pytest.mark.parametrize(
    ("limit", "infiniband", "expected"),
    [
        (-1, ("mlx5_0",), ("pass", "memlock")),
        (8 * 2**20, ("mlx5_0",), ("pass", "memlock")),
        (64 * 1024, ("mlx5_0",), ("warn", "memlock-low")),
        (64 * 1024, (), ("pass", "memlock")),
        (64 * 1024, None, ("pass", "memlock")),
        (None, ("mlx5_0",), ("unknown", "memlock")),
    ],
)
def test_locked_memory_matters_to_rdma(limit, infiniband, expected):
    facts = host(H200_UBUNTU, limits={"memlock": limit}, nvidia_kernel={"infiniband": infiniband})
    assert verdicts(judge("memlock", facts, PROCESS)) == [expected]


def test_locked_memory_of_containers_is_what_docker_is_told():
    assert verdicts(judge("memlock", H200_UBUNTU, DOCKER)) == [("skip", "memlock")]
    assert verdicts(judge("memlock", docker_defaults(memlock=(65536, 65536)), DOCKER)) == [("warn", "memlock-low")]
    assert verdicts(judge("memlock", docker_defaults(memlock=(-1, -1)), DOCKER)) == [("pass", "memlock")]


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "title"),
    [
        (1024, 1_048_576, ("pass", "open-files"), "open files 1024, which vLLM raises to 65535"),
        (1024, -1, ("pass", "open-files"), "open files 1024, which vLLM raises to 65535"),
        (-1, -1, ("pass", "open-files"), "open files unlimited"),
        (1_048_576, 1_048_576, ("pass", "open-files"), "open files 1048576"),
        (20_000, 20_000, ("pass", "open-files"), "open files 20000"),
        (1024, 4096, ("warn", "open-files-few"), "open files 1024"),
        (1024, None, ("warn", "open-files-few"), "open files 1024"),
        (None, None, ("unknown", "open-files"), "open files"),
    ],
)
def test_open_files_are_as_many_as_vllm_can_have(soft, hard, expected, title):
    (finding,) = judge("open-files", limited(open_files=soft, open_files_hard=hard), PROCESS)
    assert ((finding.verdict, finding.id), finding.title) == (expected, title)


def test_open_files_of_containers_are_what_docker_is_told():
    assert verdicts(judge("open-files", H200_UBUNTU, DOCKER)) == [("skip", "open-files")]
    (finding,) = judge("open-files", docker_defaults(nofile=(1024, 2048)), DOCKER)
    assert (finding.id, "default-ulimits" in finding.fix) == ("open-files-few", True)
    assert verdicts(judge("open-files", docker_defaults(nofile=(1024, 524288)), DOCKER)) == [("pass", "open-files")]
    assert verdicts(judge("open-files", docker_defaults(nofile=()), DOCKER)) == [("skip", "open-files")]


NOTHING = {"pid_max": None, "threads_max": None, "cgroup_pids": None, "processes": None}


@pytest.mark.parametrize(
    ("changes", "uid", "runtime", "expected", "word"),
    [
        ({}, 1000, "process", ("pass", "pids"), ""),
        ({"cgroup_pids": -1, "processes": -1}, 1000, "process", ("pass", "pids"), ""),
        ({"cgroup_pids": 512}, 1000, "process", ("warn", "pids-few"), "TasksMax"),
        ({"cgroup_pids": 512}, 1000, "docker", ("pass", "pids"), ""),
        ({"processes": 1024}, 1000, "process", ("warn", "pids-few"), "nproc"),
        ({"processes": 1024}, 0, "process", ("pass", "pids"), ""),
        ({"pid_max": 1024}, 1000, "docker", ("warn", "pids-few"), "kernel.pid_max"),
        ({"threads_max": 1024}, 1000, "docker", ("warn", "pids-few"), "kernel.threads-max"),
        (NOTHING, 1000, "process", ("unknown", "pids"), ""),
        ({**NOTHING, "cgroup_pids": -1}, 1000, "process", ("pass", "pids"), ""),
    ],
)
def test_processes_and_threads(changes, uid, runtime, expected, word):
    facts = host(H200_UBUNTU, limits=changes, system={"uid": uid})
    (finding,) = judge("pids", facts, Needs(KIMI, runtime=runtime))
    assert (finding.verdict, finding.id) == expected
    assert word in finding.fix
