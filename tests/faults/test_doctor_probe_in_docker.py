"""Fault: a container does not see the GPUs that the host sees. A real daemon, simulated GPUs."""

import pytest

from tests.lib import lab

pytestmark = pytest.mark.lab

PROBE = ("doctor", "demo", "--gpus", "all", "--json", "--probe", "--image", lab.BASE_IMAGE)


def probe_finding(report):
    (finding,) = [f for f in report["findings"] if f["check"] == "probe"]
    return finding


def containers() -> list[str]:
    return lab.docker("ps", "-aq", "--filter", f"ancestor={lab.BASE_IMAGE}").stdout.split()


def test_a_container_sees_every_gpu_and_is_gone_afterwards(host, nimctl):
    before = containers()
    done = nimctl(*PROBE, env=host("2xH200"))
    finding = probe_finding(done.document)
    assert finding["verdict"] == "pass", finding
    assert finding["title"] == f"a container of {lab.BASE_IMAGE} sees 2 of 2 GPUs"
    assert done.code == 0
    assert containers() == before


def test_a_container_that_sees_fewer_gpus_than_the_host_had_is_named_with_those_that_are_missing(host, nimctl, home):
    saved = home / "facts.json"
    assert nimctl("doctor", "demo", "--save-facts", str(saved), env=host("8xH200")).code == 0
    done = nimctl(*PROBE, "--facts", str(saved), env=host("2xH200"))
    finding = probe_finding(done.document)
    assert (finding["verdict"], finding["id"], done.code) == ("fail", "probe-failed", 3)
    assert finding["title"].endswith("sees 2 of 8 GPUs")
    assert finding["cause"].count("GPU-") == 6
