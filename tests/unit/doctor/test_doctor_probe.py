"""The probe: a container must see the GPUs that this host sees."""

import json

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.gpus import GpuInventory
from nimctl.core.plain import to_plain
from nimctl.doctor.model import Needs
from nimctl.doctor.probe import OTHER_COMMAND, OUR_COMMAND, probe
from tests.unit.doctor.hosts import DEMO, gpus, host, inventory, without_gpus

TWO = host(gpus=inventory(*gpus(2)))
SMI = "GPU {0}: NVIDIA H200 (UUID: GPU-{0:08d})"


def container(output, code=0):
    calls = []

    def run(image, argv, spec):
        calls.append((image, tuple(argv), spec))
        return code, output

    run.calls = calls
    return run


def inside(*cards, state="ok", detail=None):
    return "a warning first\n" + json.dumps(to_plain(GpuInventory(state, detail=detail, gpus=cards)))


def test_our_image_sees_every_gpu():
    run = container(inside(*gpus(2)))
    finding = probe(TWO, Needs(DEMO), "ours:1", run, ours=True)
    assert (finding.verdict, finding.title) == ("pass", "a container of ours:1 sees 2 of 2 GPUs")
    assert run.calls == [("ours:1", OUR_COMMAND, "all")]


def test_any_other_image_is_asked_with_nvidia_smi():
    slices = "\n  MIG 1g.18gb Device 0: (UUID: MIG-1234)\n"
    run = container(SMI.format(0) + slices + SMI.format(1))
    assert probe(TWO, Needs(DEMO), "ubuntu", run, ours=False).verdict == "pass"
    assert run.calls == [("ubuntu", OTHER_COMMAND, "all")]


def test_only_the_gpus_that_were_asked_for_are_expected():
    run = container(inside(gpus(2)[1]))
    assert probe(TWO, Needs(DEMO, gpus="device=1"), "ours:1", run, ours=True).verdict == "pass"
    assert run.calls[0][2] == "device=1"


@pytest.mark.parametrize(
    ("output", "code", "ours", "cause"),
    [
        (inside(state="no-library", detail="NVML Shared Library Not Found"), 0, True, "NVML Shared Library Not Found"),
        (inside(*gpus(1)), 0, True, "missing: GPU-00000001; not asked for: none"),
        (inside(*gpus(3)), 0, True, "missing: none; not asked for: GPU-00000002"),
        (inside(*gpus(2)), 1, True, "the command ended with 1"),
        ("Traceback: no module named nimctl", 1, True, "the command ended with 1"),
        ("{}\n5\nnull\n", 0, True, "the container did not say what it sees"),
        ("", 0, False, "nvidia-smi lists no GPU"),
        ("exec: nvidia-smi: not found", 127, False, "the command ended with 127"),
    ],
)
def test_anything_else_fails_with_a_cause_and_what_was_seen(output, code, ours, cause):
    finding = probe(TWO, Needs(DEMO), "image", container(output, code), ours=ours)
    assert (finding.verdict, finding.id, finding.cause) == ("fail", "probe-failed", cause)
    assert finding.fix
    assert [line[:300] for line in output.splitlines()] == list(finding.evidence)


def test_a_container_that_cannot_start_is_a_finding():
    def run(image, argv, spec):
        raise NimctlError("docker-refused", "Docker refused", cause="unknown runtime nvidia", fix="Configure it.")

    finding = probe(TWO, Needs(DEMO), "image", run, ours=True)
    assert (finding.verdict, finding.id, finding.cause) == ("fail", "probe-failed", "unknown runtime nvidia")


def test_keys_in_the_output_are_masked():
    run = container("key nvapi-CANARY0123456789", 1)
    assert "CANARY" not in str(probe(TWO, Needs(DEMO), "image", run, ours=True))


@pytest.mark.parametrize(
    ("facts", "needs", "verdict"),
    [
        (TWO, Needs(DEMO, gpus="none"), "skip"),
        (TWO, Needs(DEMO, "process"), "skip"),
        (host(gpus=without_gpus()), Needs(DEMO), "skip"),
        (TWO, Needs(DEMO, gpus="9"), "skip"),
        (host(gpus=inventory(*gpus(2, uuid=None))), Needs(DEMO), "unknown"),
    ],
)
def test_no_container_is_started_when_there_is_nothing_to_compare(facts, needs, verdict):
    run = container("")
    assert probe(facts, needs, "image", run, ours=True).verdict == verdict
    assert run.calls == []
