"""Docker, the container toolkit, and the ways of GPUs into containers."""

import pytest

from nimctl.core.facts import CdiSpec
from nimctl.doctor.checks.toolkit import injection_modes
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import HEALTHY, KIMI, NIM_PAGE, gpus, host, inventory, judge, verdicts

SPEC = CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", (*map(str, range(8)), "all"))
NO_HOOK = {"hook": None}
NO_RUNTIME = {"runtimes": ("runc",)}


@pytest.mark.parametrize(
    ("state", "error_id", "fix"),
    [
        ("missing", "docker-missing", "https://docs.docker.com/engine/install/"),
        ("permission", "docker-permission", "sudo usermod -aG docker $USER"),
        ("unreachable", "docker-unreachable", "sudo systemctl start docker"),
        ("hangs", "docker-hangs", "sudo systemctl restart docker"),
    ],
)
def test_a_daemon_that_does_not_answer_has_one_cause_and_one_fix(state, error_id, fix):
    facts = host(docker={"state": state, "detail": "what the socket said"}, system={"groups": ("engineers",)})
    (finding,) = judge("docker", facts)
    assert (finding.verdict, finding.id) == ("fail", error_id)
    assert fix in finding.fix
    assert "what the socket said" in finding.evidence
    for check in ("docker-version", "gpu-runtime"):
        assert verdicts(judge(check, facts)) == [("skip", check)]


def test_who_is_in_the_docker_group_already_is_not_told_to_join_it():
    (finding,) = judge("docker", host(docker={"state": "permission"}))
    assert "usermod" not in finding.fix
    assert "ls -l /var/run/docker.sock" in finding.fix


def test_a_daemon_that_answers():
    (finding,) = judge("docker", HEALTHY)
    assert (finding.verdict, finding.title) == ("pass", "the Docker daemon answers on unix:///var/run/docker.sock")


@pytest.mark.parametrize("change", [{"rootless": True}, {"security_options": ("name=userns",)}])
def test_mapped_user_ids_are_said(change):
    answers, mapped = judge("docker", host(docker=change))
    assert answers.verdict == "pass"
    assert (mapped.verdict, mapped.id, mapped.severity) == ("warn", "docker-user-namespace", "info")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("24.0.0", ("pass", "docker-version")),
        ("24", ("pass", "docker-version")),
        ("29.1.0", ("pass", "docker-version")),
        ("26.1.5+dfsg1", ("pass", "docker-version")),
        ("23.0.6", ("fail", "docker-too-old")),
        ("20.10.24+dfsg1", ("fail", "docker-too-old")),
        ("0.0.0-dev", ("unknown", "docker-version")),
        ("library-import", ("unknown", "docker-version")),
        (None, ("unknown", "docker-version")),
    ],
)
def test_docker_version(version, expected):
    assert verdicts(judge("docker-version", host(docker={"version": version}))) == [expected]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.19.1", ("pass", "toolkit")),
        ("1.20.0-rc.1", ("pass", "toolkit")),
        ("1.19.0", ("warn", "toolkit-vulnerable")),
        ("1.14.0", ("warn", "toolkit-vulnerable")),
        ("1.14", ("warn", "toolkit-vulnerable")),
        ("1.18.1-0ubuntu1.2", ("unknown", "toolkit")),
        ("1.13.5", ("fail", "toolkit-too-old")),
        ("1.9.0", ("fail", "toolkit-too-old")),
        ("unknown", ("unknown", "toolkit")),
    ],
)
def test_toolkit_version(version, expected):
    assert verdicts(judge("toolkit", host(toolkit={"version": version}))) == [expected]


def test_a_toolkit_that_is_not_safe_is_named_with_its_bulletin():
    (finding,) = judge("toolkit", host(toolkit={"version": "1.17.8"}))
    assert "CVE-2026-24260" in finding.cause
    assert "https://github.com/NVIDIA/product-security/blob/main/2026/5850/5850.md" in finding.cause


def test_no_toolkit_fails_unless_gpus_get_in_anyway():
    nothing = host(toolkit={"version": None, "hook": None}, docker=NO_RUNTIME, cdi=())
    assert verdicts(judge("toolkit", nothing)) == [("fail", "toolkit-missing")]
    for way in ({"docker": HEALTHY.docker}, {"cdi": (SPEC,)}, {"toolkit": {"hook": "/usr/bin/hook"}}):
        assert verdicts(judge("toolkit", host(nothing, **way))) == [("unknown", "toolkit")]


def test_a_toolkit_that_could_not_be_looked_for_is_not_said_to_be_missing():
    nothing = host(
        toolkit={"version": None, "hook": None}, docker=NO_RUNTIME, cdi=(), problems=("toolkit: no answer in time",)
    )
    assert verdicts(judge("toolkit", nothing)) == [("unknown", "toolkit")]
    assert verdicts(judge("gpu-runtime", nothing)) == [("unknown", "gpu-runtime")]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, ("runtime", "gpus", "cdi")),
        ({"docker": NO_RUNTIME}, ("gpus", "cdi")),
        ({"docker": NO_RUNTIME, "toolkit": NO_HOOK}, ("cdi",)),
        ({"docker": {"cdi_spec_dirs": None}}, ("runtime", "gpus")),
        ({"docker": {"cdi_spec_dirs": ("/run/elsewhere",)}}, ("runtime", "gpus")),
        ({"cdi": (CdiSpec("/etc/cdi/nvidia.yaml", problem="not YAML"),)}, ("runtime", "gpus")),
        ({"cdi": (CdiSpec("/etc/cdi/other.yaml", "example.com/net", ("all",)),)}, ("runtime", "gpus")),
        ({"cdi": (CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ()),)}, ("runtime", "gpus")),
    ],
)
def test_ways_of_gpus_into_containers(parts, expected):
    assert injection_modes(host(**parts)) == expected


def test_the_ways_that_are_open_are_named():
    (finding,) = judge("gpu-runtime", HEALTHY)
    assert finding.verdict == "pass"
    assert "--runtime=nvidia" in finding.title
    assert "--device nvidia.com/gpu" in finding.title


@pytest.mark.parametrize(
    ("parts", "fix"),
    [
        ({"cdi": ()}, "sudo nvidia-ctk runtime configure --runtime=docker"),
        ({"cdi": (), "toolkit": {"version": None, "hook": None}}, "install-guide"),
        ({"docker": {**NO_RUNTIME, "cdi_spec_dirs": None}}, '{"features": {"cdi": true}}'),
    ],
)
def test_no_way_for_gpus(parts, fix):
    (finding,) = judge("gpu-runtime", host(**{"docker": NO_RUNTIME, "toolkit": NO_HOOK, **parts}))
    assert (finding.verdict, finding.id) == ("fail", "gpu-runtime-missing")
    assert fix in finding.fix


def test_a_stale_specification_fails_when_it_is_the_only_way_and_warns_otherwise():
    stale = (CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ("0", "1", "all")),)
    only = host(cdi=stale, docker=NO_RUNTIME, toolkit=NO_HOOK, gpus=inventory(*gpus(3)))
    (finding,) = judge("gpu-runtime", only)
    assert (finding.verdict, finding.id) == ("fail", "gpu-runtime-missing")
    assert finding.title == "the CDI specification does not know GPU 2"
    assert verdicts(judge("gpu-runtime", host(cdi=stale))) == [("warn", "cdi-stale"), ("pass", "gpu-runtime")]
    assert verdicts(judge("gpu-runtime", only, Needs(recipe=KIMI, gpus="2"))) == [("pass", "gpu-runtime")]


@pytest.mark.parametrize("devices", [("all",), tuple(f"GPU-{i:08d}" for i in range(8))])
def test_specifications_by_uuid_or_for_all_gpus_are_not_stale(devices):
    facts = host(cdi=(CdiSpec("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", devices),))
    assert verdicts(judge("gpu-runtime", facts)) == [("pass", "gpu-runtime")]


def test_a_broken_specification_of_nvidia_is_said_and_of_others_is_not():
    broken = CdiSpec("/etc/cdi/nvidia.yaml", problem="line 3: no")
    other = CdiSpec("/etc/cdi/vendor.yaml", problem="line 1: no")
    assert verdicts(judge("gpu-runtime", host(cdi=(broken, other)))) == [
        ("warn", "cdi-unreadable"),
        ("pass", "gpu-runtime"),
    ]


def test_a_page_that_uses_the_nvidia_runtime_says_when_there_is_none():
    found = verdicts(judge("gpu-runtime", host(docker=NO_RUNTIME), Needs(recipe=NIM_PAGE)))
    assert found == [("pass", "gpu-runtime"), ("warn", "nvidia-runtime-missing")]


@pytest.mark.parametrize("check", ["docker", "docker-version", "toolkit", "gpu-runtime"])
def test_the_process_runtime_asks_nothing_of_docker(check):
    (finding,) = judge(check, host(docker={"state": "missing"}), Needs(recipe=KIMI, runtime="process"))
    assert (finding.verdict, finding.cause) == ("skip", "the process runtime uses no container")
