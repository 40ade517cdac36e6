"""What the doctor says of known holes: one line a component, loud only where it is sure and it matters."""

from dataclasses import replace

import pytest

from nimctl.core.facts import HostFacts, Package
from nimctl.doctor.checks import advisories as subject
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import DEMO, HEALTHY, KIMI, gpus, host, inventory, judge, verdicts, without_gpus

PROCESS = Needs(recipe=DEMO, runtime="process")


def driver(version: str | None, *packages: Package) -> HostFacts:
    return host(gpus=inventory(*gpus(8), driver=version), packages=packages)


def deb(name: str, version: str, origin: str | None) -> Package:
    return Package(name, version, "dpkg", origin)  # type: ignore[arg-type]


SAFE = host(
    driver("580.159.03", deb("nvidia-driver-580-open", "580.159.03-1ubuntu1", "upstream")),
    docker={"version": "29.5.1", "runc": "1.3.6", "kind": "engine"},
    toolkit={"version": "1.19.1", "mode": "auto"},
    tools={"vllm": "0.32.0"},
)


def test_a_host_with_all_fixes_is_silent():
    for check in subject.CHECKS:
        for needs in (Needs(recipe=KIMI), PROCESS):
            assert {f.verdict for f in check.judge(SAFE, needs)} <= {"pass", "skip"}, check.id
    assert verdicts(judge("advisories-vllm", SAFE, PROCESS)) == [("pass", "advisories-vllm")]


def test_a_driver_of_windows_is_not_judged_by_the_numbers_of_linux():
    (finding,) = judge("advisories-driver", host(driver("581.57"), system={"wsl": True}))
    assert (finding.verdict, "Windows" in finding.cause) == ("unknown", True)


@pytest.mark.parametrize(
    ("check", "name", "facts", "needs", "cve", "safe"),
    [
        ("advisories-driver", "driver-vulnerable", driver("580.95.05"), None, "CVE-2026-24187", "580.159.03"),
        (
            "advisories-toolkit",
            "toolkit-vulnerable",
            host(toolkit={"version": "1.17.7"}),
            None,
            "CVE-2025-23266",
            "1.19.1",
        ),
        (
            "advisories-toolkit",
            "toolkit-vulnerable",
            host(toolkit={"version": "1.19.0-1"}),
            None,
            "CVE-2026-24260",
            "1.19.1",
        ),
        (
            "advisories-docker",
            "docker-vulnerable",
            host(docker={"version": "28.5.2"}),
            None,
            "CVE-2026-41567",
            "29.5.1",
        ),
        ("advisories-runc", "runc-vulnerable", host(docker={"runc": "1.1.11"}), None, "CVE-2024-21626", "1.3.6"),
        (
            "advisories-vllm",
            "vllm-vulnerable",
            host(tools={"vllm": "0.17.1+cu129"}),
            PROCESS,
            "CVE-2026-48746",
            "0.30.0",
        ),
    ],
)
def test_an_unsafe_version_is_one_warning_with_its_worst_hole(check, name, facts, needs, cve, safe):
    (finding,) = judge(check, facts, needs)
    assert (finding.verdict, finding.id, finding.severity) == ("warn", name, "warning")
    assert cve in finding.cause
    assert "CVSS" in finding.cause
    assert "https://github.com/" in finding.cause
    assert safe in finding.fix
    assert len(finding.title) <= 70
    assert 2 <= len(finding.evidence) <= 8
    assert "as of 20" in finding.evidence[-1]


@pytest.mark.parametrize(
    ("change", "unjudged"),
    [
        # What dpkg says in a container or on this machine is not what brought the daemon of another one.
        ({"system": {"container": "docker"}}, {"driver", "toolkit", "docker", "runc"}),
        ({"docker": {"endpoint": "ssh://gpu-host", "version": "28.5.2", "runc": "1.1.11"}}, {"docker", "runc"}),
        ({"problems": ("packages: FileNotFoundError: no database",)}, {"driver", "toolkit", "docker", "runc"}),
        ({"system": {"container": "none"}}, set()),
        ({"system": {"container": None}}, set()),
    ],
)
def test_who_built_a_program_is_not_guessed_where_its_packages_cannot_be_seen(change, unjudged):
    old = host(driver("580.95.05"), docker={"version": "28.5.2", "runc": "1.1.11"}, toolkit={"version": "1.17.7"})
    checks = {c.id.removeprefix("advisories-"): c for c in subject.CHECKS if c.id != "advisories-vllm"}
    verdict = {name: c.judge(host(old, **change), Needs(KIMI))[0].verdict for name, c in checks.items()}
    assert {name for name, said in verdict.items() if said == "unknown"} == unjudged
    assert {said for name, said in verdict.items() if name not in unjudged} <= {"warn"}


def test_a_driver_branch_at_its_end_is_told_the_next_one():
    (finding,) = judge("advisories-driver", driver("570.211.01"))
    assert "no more fixes" in finding.title
    assert "580.159.03" in finding.fix


def test_the_mitigation_of_the_worst_hole_is_named():
    (finding,) = judge("advisories-toolkit", host(toolkit={"version": "1.17.7"}))
    assert "disable-cuda-compat-lib-hook" in finding.fix


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"toolkit": {"version": "1.16.1", "mode": "cdi"}}, "CVE-2024-0132"),
        ({"toolkit": {"version": "1.17.4", "mode": "legacy"}}, "CVE-2025-23266"),
        ({"toolkit": {"version": "1.17.7", "features": ("disable-cuda-compat-lib-hook",)}}, "CVE-2025-23266"),
        ({"toolkit": {"version": "1.17.7"}, "docker": {"default_runtime": "crun"}}, "CVE-2025-23266"),
    ],
)
def test_configuration_that_removes_a_hole_removes_it_from_the_line(change, gone):
    (finding,) = judge("advisories-toolkit", host(**change))
    assert finding.id == "toolkit-vulnerable"
    assert not any(gone in line for line in (finding.cause, *finding.evidence))


def test_a_low_score_and_an_unseen_precondition_are_information():
    (low,) = judge("advisories-runc", host(docker={"runc": "1.3.3"}))
    assert (low.verdict, low.severity) == ("warn", "info")
    assert "CVE-2026-41579" in low.cause


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        ("advisories-runc", host(docker={"runc": "1.1.5+ds1"})),
        (
            "advisories-runc",
            host(docker={"runc": "1.1.5"}, packages=(deb("runc", "1.1.5+ds1-1+deb12u1", "distribution"),)),
        ),
        (
            "advisories-docker",
            host(docker={"version": "24.0.7"}, packages=(deb("docker.io", "24.0.7-0ubuntu4.1", "distribution"),)),
        ),
        ("advisories-docker", host(docker={"version": "20.10.24+dfsg1"})),
        (
            "advisories-docker",
            host(
                docker={"version": "25.0.8"}, packages=(Package("docker", "25.0.8-1.amzn2023", "rpm", "distribution"),)
            ),
        ),
        (
            "advisories-driver",
            driver("580.95.05", deb("nvidia-driver-580-server", "580.95.05-0ubuntu0.24.04.2", "distribution")),
        ),
        ("advisories-driver", driver("580.95.05", Package("kmod-nvidia", "580.95.05-1.el9", "rpm", "distribution"))),
        ("advisories-driver", driver("580.95.05", deb("libcuda1", "580.95.05-1~pop", None))),
        ("advisories-toolkit", host(toolkit={"version": "1.18.1-0ubuntu1.2"})),
        (
            "advisories-toolkit",
            host(
                toolkit={"version": "1.17.4"},
                packages=(Package("nvidia-container-toolkit", "1.17.4-2.el9", "rpm", "distribution"),),
            ),
        ),
        ("advisories-docker", host(docker={"version": "28.5.2"}, problems=("packages: no answer from rpm",))),
    ],
)
def test_what_a_distribution_built_is_never_accused(check, facts):
    (finding,) = judge(check, facts)
    assert (finding.verdict, finding.id, finding.severity) == ("unknown", check, "info")
    assert finding.cause


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        ("advisories-driver", driver("580.95.05", deb("nvidia-driver-580-open", "580.95.05-1ubuntu1", "upstream"))),
        ("advisories-driver", driver("580.95.05")),  # NVIDIA's installer, no package
        # An old package that was left behind does not speak for another driver.
        (
            "advisories-driver",
            driver(
                "580.95.05",
                deb("libnvidia-compute-535", "535.247.01-0ubuntu0.22.04.1", "distribution"),
                deb("nvidia-driver-580-open", "580.95.05-1ubuntu1", "upstream"),
            ),
        ),
        ("advisories-toolkit", host(toolkit={"version": "1.17.7-1"})),
        (
            "advisories-docker",
            host(
                docker={"version": "28.5.2"}, packages=(deb("docker-ce", "5:28.5.2-1~debian.12~bookworm", "upstream"),)
            ),
        ),
        (
            "advisories-runc",
            host(docker={"runc": "1.2.5"}, packages=(deb("containerd.io", "1.7.27-1", "upstream"),)),
        ),
    ],
)
def test_what_its_maker_built_is_judged_by_its_number(check, facts):
    assert [f.verdict for f in judge(check, facts)] == ["warn"]


@pytest.mark.parametrize(
    ("check", "facts", "needs"),
    [
        ("advisories-driver", HEALTHY, Needs(recipe=DEMO, gpus="none")),
        ("advisories-driver", replace(HEALTHY, gpus=without_gpus()), None),
        ("advisories-toolkit", HEALTHY, PROCESS),
        ("advisories-toolkit", host(toolkit={"version": None}), None),
        ("advisories-docker", HEALTHY, PROCESS),
        ("advisories-docker", host(docker={"state": "missing"}), None),
        ("advisories-docker", host(docker={"kind": "podman"}), None),
        ("advisories-docker", host(docker={"version": None}), None),
        ("advisories-runc", host(docker={"runc": None}), None),
        ("advisories-runc", host(docker={"runc": "1.1.11", "default_runtime": "crun"}), None),
        ("advisories-vllm", HEALTHY, None),
        ("advisories-vllm", host(tools={"vllm": None}), PROCESS),
    ],
)
def test_when_the_question_does_not_arise(check, facts, needs):
    assert [f.verdict for f in judge(check, facts, needs)] == ["skip"]


def test_versions_that_cannot_be_read_are_said_to_be_so():
    for check, facts, needs in (
        ("advisories-docker", host(docker={"version": "library-import"}), None),
        ("advisories-vllm", host(tools={"vllm": "0.22.1rc2.dev12+g0123abcd"}), PROCESS),
    ):
        (finding,) = judge(check, facts, needs)
        assert finding.verdict == "unknown"
        assert "no released version" in finding.cause
