"""Operating system, processor, memory, port, key and the tools of the process runtime."""

import pytest

from nimctl.core.facts import ImageFacts
from nimctl.doctor.checks import confinement, limits
from nimctl.doctor.checks import host as host_checks
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import (
    DEMO,
    GIB,
    HEALTHY,
    KIMI,
    NIM,
    gpus,
    host,
    inventory,
    judge,
    verdicts,
    without_gpus,
)
from tests.unit.doctor.system_hosts import HOSTS

PROCESS = Needs(recipe=DEMO, runtime="process", gpus="none")


@pytest.mark.parametrize(
    ("os_id", "version", "validated"),
    [("ubuntu", "22.04", True), ("ubuntu", "24.04", True), ("ubuntu", "20.04", False), ("debian", "12", False)],
)
def test_other_systems_are_told_what_is_validated_and_never_refused(os_id, version, validated):
    (finding,) = judge("os", host(system={"os_id": os_id, "os_version": version, "os_name": f"{os_id} {version}"}))
    assert finding.verdict == "pass"
    assert ("validated" not in " ".join(finding.evidence)) is validated


def test_a_system_without_a_name():
    facts = host(system={"os_id": None, "os_version": None, "os_name": None})
    assert verdicts(judge("os", facts)) == [("unknown", "os")]


@pytest.mark.parametrize(
    ("system", "docker", "expected"),
    [
        ("x86_64", None, ("pass", "arch")),
        ("aarch64", None, ("pass", "arch")),
        ("AMD64", None, ("pass", "arch")),
        ("ppc64le", None, ("fail", "image-incompatible")),
        # What counts is where containers run.
        ("x86_64", "riscv64", ("fail", "image-incompatible")),
        (None, None, ("unknown", "arch")),
    ],
)
def test_architecture(system, docker, expected):
    facts = host(system={"arch": system}, docker={"architecture": docker})
    assert verdicts(judge("arch", facts)) == [expected]


@pytest.mark.parametrize(
    ("total", "available", "needs", "expected"),
    [
        (2_000, 1_900, Needs(KIMI), ("pass", "memory")),
        (2_000, 35, Needs(KIMI), ("warn", "memory-low")),
        (2_000, None, Needs(KIMI), ("pass", "memory")),
        (None, None, Needs(KIMI), ("unknown", "memory")),
        (64, 60, Needs(KIMI, gpus="none"), ("fail", "no-layout")),
        (2_000, 500, Needs(KIMI, gpus="none"), ("warn", "memory-low")),
        (24, 20, PROCESS, ("pass", "memory")),
        (24, 2, PROCESS, ("warn", "memory-low")),
    ],
)
def test_host_memory(total, available, needs, expected):
    def size(n):
        return None if n is None else n * GIB

    facts = host(system={"memory_total": size(total), "memory_available": size(available)})
    assert verdicts(judge("memory", facts, needs)) == [expected]


@pytest.mark.parametrize(
    ("total", "facts", "needs", "expected"),
    [
        (64, HEALTHY, Needs(KIMI), ("warn", "memory-below-weights")),
        (554, HEALTHY, Needs(KIMI), ("warn", "memory-below-weights")),
        (555, HEALTHY, Needs(KIMI), ("pass", "memory")),
        (64, HEALTHY, Needs(NIM), ("warn", "memory-below-weights")),
        (64, HEALTHY, Needs(DEMO), ("pass", "memory")),
        (64, HEALTHY, Needs(), ("pass", "memory")),
        # The GPUs do not hold the weights, which is what `gpu-fit` says.
        (64, HEALTHY, Needs(KIMI, gpus="1"), ("pass", "memory")),
        (64, host(gpus=without_gpus()), Needs(KIMI), ("pass", "memory")),
        (64, host(gpus=inventory(*gpus(8, unified_memory=True))), Needs(KIMI), ("pass", "memory")),
    ],
)
def test_weights_that_the_page_cache_cannot_hold_are_a_note(total, facts, needs, expected):
    size = {"memory_total": total * GIB, "memory_available": (total - 4) * GIB}
    (finding,) = judge("memory", host(facts, system=size), needs)
    assert (finding.verdict, finding.id, finding.severity) == (*expected, "info")


def test_memory_that_a_control_group_withholds_counts_for_the_process_runtime():
    facts = host(system={"memory_total": 64 * GIB, "memory_available": 60 * GIB, "memory_limit": 3 * GIB})
    (finding,) = judge("memory", facts, PROCESS)
    assert (finding.verdict, finding.id) == ("warn", "memory-low")
    assert finding.title == "host memory 64.0 GiB, 60.0 GiB available, 3.0 GiB of it allowed here"
    assert verdicts(judge("memory", facts, Needs(DEMO, gpus="none"))) == [("pass", "memory")]
    assert verdicts(judge("memory", host(facts, system={"memory_available": None}), PROCESS)) == [
        ("warn", "memory-low")
    ]


@pytest.mark.parametrize(
    ("image", "runtime", "expected"),
    [
        (ImageFacts("demo:1", present=True, architecture="amd64"), "docker", ("pass", "arch")),
        (ImageFacts("demo:1", present=True, architecture="arm64"), "docker", ("fail", "image-incompatible")),
        (ImageFacts("demo:1", present=True, architecture="arm64"), "process", ("pass", "arch")),
        (ImageFacts("demo:1", present=True), "docker", ("pass", "arch")),
        (ImageFacts("demo:1", present=False, architecture="arm64"), "docker", ("pass", "arch")),
    ],
)
def test_an_image_that_is_here_is_for_this_processor(image, runtime, expected):
    needs = Needs(DEMO, runtime=runtime)
    assert verdicts(judge("arch", host(image=image), needs)) == [expected]


@pytest.mark.parametrize(("wsl", "verdict"), [(True, "pass"), (False, "skip"), (None, "unknown")])
def test_windows_subsystem_is_told_with_what_it_means(wsl, verdict):
    (finding,) = judge("wsl", host(system={"wsl": wsl}))
    assert finding.verdict == verdict
    assert any("pinned" in line for line in finding.evidence) is (wsl is True)


@pytest.mark.parametrize(
    ("inside", "needs", "expected"),
    [
        ("none", Needs(KIMI), ("pass", "inside-container")),
        ("docker", Needs(KIMI), ("warn", "inside-container")),
        ("docker", PROCESS, ("pass", "inside-container")),
        (None, Needs(KIMI), ("unknown", "inside-container")),
    ],
)
def test_inside_a_container_the_host_is_not_what_is_seen(inside, needs, expected):
    (finding,) = judge("inside-container", host(system={"container": inside}), needs)
    assert (finding.verdict, finding.id) == expected
    assert finding.severity == "info"


@pytest.mark.parametrize("name", HOSTS)
def test_hosts_that_are_well_are_left_in_peace(name):
    for check in [c.id for c in (*host_checks.CHECKS, *limits.CHECKS, *confinement.CHECKS)]:
        for needs in (Needs(recipe=DEMO), Needs(recipe=DEMO, runtime="process")):
            for finding in judge(check, HOSTS[name], needs):
                assert finding.verdict in ("pass", "skip", "unknown"), finding
                assert len(finding.title) <= 80


@pytest.mark.parametrize(
    ("free", "expected"),
    [(True, ("pass", "port")), (False, ("fail", "port-in-use")), (None, ("unknown", "port"))],
)
def test_port(free, expected):
    assert verdicts(judge("port", host(port={"free": free}))) == [expected]


def test_a_port_of_another_host_cannot_be_tried_from_here():
    facts = host(port={"free": False}, docker={"endpoint": "tcp://10.0.0.7:2376"})
    assert verdicts(judge("port", facts)) == [("unknown", "port")]
    assert verdicts(judge("port", facts, PROCESS)) == [("fail", "port-in-use")]


@pytest.mark.parametrize(
    ("recipe", "keys", "logins", "expected"),
    [
        (NIM, {"NGC_API_KEY": True}, (), ("pass", "key")),
        (NIM, {"NGC_API_KEY": False}, (), ("fail", "key-missing")),
        (NIM, {}, (), ("unknown", "key")),
        (NIM, {"NGC_API_KEY": False}, ("nvcr.io",), ("fail", "key-missing")),
        (NIM, {"NGC_API_KEY": True}, ("nvcr.io",), ("pass", "key")),
        (KIMI, {"HF_TOKEN": True}, (), ("pass", "key")),
        (KIMI, {"HF_TOKEN": False}, (), ("warn", "key-absent")),
        (DEMO, {}, (), ("skip", "key")),
        (None, {}, (), ("skip", "key")),
    ],
)
def test_key(recipe, keys, logins, expected):
    facts = host(credentials={"keys": keys, "logins": logins})
    assert verdicts(judge("key", facts, Needs(recipe))) == [expected]


def test_a_login_without_a_key_pulls_an_image_that_cannot_download_its_model():
    facts = host(credentials={"keys": {"NGC_API_KEY": False}, "logins": ("nvcr.io",)})
    (finding,) = judge("key", facts, Needs(NIM))
    assert (finding.verdict, finding.severity) == ("fail", "error")
    assert finding.title == "the image can be pulled, but the container has no key: NGC_API_KEY is not set"
    assert "NGC_API_KEY_FILE" in finding.fix


def test_a_key_that_is_asked_for_by_name_comes_before_the_recipe_s():
    facts = host(credentials={"keys": {"OTHER_KEY": True, "NGC_API_KEY": False}, "logins": ()})
    (finding,) = judge("key", facts, Needs(NIM, key="OTHER_KEY"))
    assert (finding.verdict, finding.title) == ("pass", "OTHER_KEY is set")


@pytest.mark.parametrize(
    ("check", "tools", "expected"),
    [
        ("front", {}, ("pass", "front")),
        ("front", {"nginx": None}, ("fail", "front-missing")),
        ("front", {"nginx_version": None}, ("pass", "front")),
        ("engine", {}, ("pass", "engine")),
        ("engine", {"vllm": None}, ("fail", "engine-missing")),
    ],
)
def test_tools_of_the_process_runtime(check, tools, expected):
    assert verdicts(judge(check, host(tools=tools), PROCESS)) == [expected]
    assert verdicts(judge(check, host(tools=tools), Needs(DEMO))) == [("skip", check)]


def test_tools_that_could_not_be_looked_for_are_not_said_to_be_missing():
    facts = host(tools={"nginx": None, "vllm": None}, problems=("tools: no answer in time",))
    assert verdicts(judge("front", facts, PROCESS)) == [("unknown", "front")]
    assert verdicts(judge("engine", facts, PROCESS)) == [("unknown", "engine")]


def test_titles_hold_what_was_observed():
    assert judge("driver", HEALTHY)[0].title == "driver 580.159.03 answers"
    assert judge("docker-version", HEALTHY)[0].title == "Docker Engine 29.5.1 (24.0 or later is needed)"
    assert judge("toolkit", HEALTHY)[0].title == "NVIDIA Container Toolkit 1.19.1 (1.14.0 or later is needed)"
    assert judge("port", HEALTHY)[0].title == "port 127.0.0.1:8000 is free"
