"""Driver, CUDA and GPUs: what passes, what fails, what cannot be told."""

from dataclasses import replace

import pytest

from nimctl.core.gpus import GpuProcess
from nimctl.doctor.model import Needs
from tests.unit.doctor.hosts import (
    DEMO,
    GIB,
    HEALTHY,
    KIMI,
    NIM,
    gpu,
    gpus,
    host,
    inventory,
    judge,
    verdicts,
    without_gpus,
)

CPU = Needs(recipe=DEMO, gpus="none")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("580.95.05", ("pass", "driver")),
        ("580", ("pass", "driver")),
        ("610.12", ("pass", "driver")),
        ("579.99", ("fail", "driver-too-old")),
        ("535.309.01", ("fail", "driver-too-old")),
        (None, ("unknown", "driver")),
        ("r580-custom", ("unknown", "driver")),
    ],
)
def test_driver_version(version, expected):
    assert verdicts(judge("driver", host(gpus={"driver": version}))) == [expected]


@pytest.mark.parametrize(
    ("state", "error_id", "fix"),
    [
        ("no-library", "driver-missing", "driver-installation-guide"),
        ("driver-not-loaded", "driver-missing", "sudo modprobe nvidia"),
        ("mismatch", "driver-mismatch", "sudo rmmod nvidia_uvm"),
        ("no-permission", "driver-missing", "/dev/nvidia"),
        ("failed", "driver-missing", "sudo dmesg"),
    ],
)
def test_a_driver_that_does_not_answer_has_one_cause_and_one_fix(state, error_id, fix):
    (finding,) = judge("driver", host(gpus=without_gpus(state)))
    assert (finding.verdict, finding.id) == ("fail", error_id)
    assert fix in finding.fix
    assert finding.evidence == ("NVML says no",)


def test_every_state_of_the_inventory_is_judged_and_the_rest_waits_for_the_driver():
    facts = host(gpus=without_gpus())
    for check in ("cuda", "gpus", "gpu-choice", "gpu-memory", "gpu-fit"):
        assert verdicts(judge(check, facts)) == [("skip", check)]


def test_under_wsl_the_driver_belongs_into_windows():
    (finding,) = judge("driver", host(gpus=without_gpus(), system={"wsl": True}))
    assert "Windows" in finding.fix


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("12.9", ("pass", "cuda")),
        ("13.0", ("pass", "cuda")),
        ("12.10", ("pass", "cuda")),
        ("12.8", ("fail", "cuda-too-old")),
        (None, ("unknown", "cuda")),
    ],
)
def test_cuda_version(version, expected):
    assert verdicts(judge("cuda", host(gpus={"cuda": version}))) == [expected]


def test_inventory_names_models_and_memory():
    (finding,) = judge("gpus", HEALTHY)
    assert finding.verdict == "pass"
    assert finding.title == "8 x NVIDIA H200 (141.0 GiB each)"
    assert finding.evidence[0] == "GPU 0: NVIDIA H200, 141.0 GiB, 00000000:10:00.0, GPU-00000000"


def test_a_driver_without_gpus():
    assert verdicts(judge("gpus", host(gpus=inventory()))) == [("fail", "gpu-missing")]


def test_a_lost_gpu_is_named_and_the_others_are_still_listed():
    facts = host(gpus=inventory(gpu(0), gpu(1, error="lost: GPU is lost"), gpu(2)))
    lost, rest = judge("gpus", facts)
    assert (lost.verdict, lost.id) == ("fail", "gpu-lost")
    assert lost.title == "1 of 3 GPUs do not answer: 1"
    assert "GPU 1: lost: GPU is lost" in lost.evidence
    assert rest.title.startswith("2 x NVIDIA H200")


def test_a_gpu_that_says_nothing_about_itself_is_no_failure():
    (finding,) = judge("gpus", host(gpus=inventory(gpu(0, name=None, memory_total=None, uuid=None, pci_id=None))))
    assert finding.verdict == "pass"
    assert finding.title == "1 x GPU of unknown model"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, ("pass", "gpu-choice")),
        ("all", ("pass", "gpu-choice")),
        ("2", ("pass", "gpu-choice")),
        ("device=0,7", ("pass", "gpu-choice")),
        ("9", ("fail", "gpu-spec-invalid")),
        ("0,12", ("fail", "gpu-spec-invalid")),
        ("all of them", ("fail", "gpu-spec-invalid")),
    ],
)
def test_choice_of_gpus(spec, expected):
    assert verdicts(judge("gpu-choice", HEALTHY, Needs(recipe=KIMI, gpus=spec))) == [expected]


def test_mixed_gpus_fail_only_when_they_are_chosen_together():
    mixed = host(gpus=inventory(gpu(0), gpu(1), gpu(2, name="NVIDIA H100 80GB HBM3")))
    (finding,) = judge("gpu-choice", mixed)
    assert (finding.verdict, finding.id) == ("fail", "gpus-mixed")
    assert finding.fix.endswith("--gpus device=0,1")
    assert verdicts(judge("gpu-choice", mixed, Needs(gpus="0,1"))) == [("pass", "gpu-choice")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mig": True}, "gpu-mig"),
        ({"compute_mode": "prohibited"}, "gpu-compute-mode"),
        ({"ecc_uncorrected": 3}, "gpu-ecc"),
    ],
)
def test_oddities_of_chosen_gpus_are_warnings(change, expected):
    facts = host(gpus=inventory(gpu(0), gpu(1, **change)))
    (finding,) = judge("gpu-choice", facts)
    assert (finding.verdict, finding.id) == ("warn", expected)
    assert "GPU 1" in finding.title
    assert verdicts(judge("gpu-choice", facts, Needs(gpus="device=0"))) == [("pass", "gpu-choice")]


def test_busy_memory_is_a_warning_that_names_who_holds_it():
    busy = gpu(1, memory_free=10 * GIB, processes=(GpuProcess(4711, 131 * GIB), GpuProcess(4712, None)))
    (finding,) = judge("gpu-memory", host(gpus=inventory(gpu(0), busy)))
    assert (finding.verdict, finding.id) == ("warn", "gpu-busy")
    assert "pid 4711 (131.0 GiB), pid 4712 (?)" in finding.evidence[0]


@pytest.mark.parametrize(
    ("free", "expected"),
    [(141, ("pass", "gpu-memory")), (130, ("pass", "gpu-memory")), (129, ("warn", "gpu-busy"))],
)
def test_free_memory_is_held_against_what_vllm_reserves(free, expected):
    assert verdicts(judge("gpu-memory", host(gpus=inventory(*gpus(2, memory_free=free * GIB))))) == [expected]


def test_free_memory_that_is_not_told():
    assert verdicts(judge("gpu-memory", host(gpus=inventory(*gpus(2, memory_free=None))))) == [
        ("unknown", "gpu-memory")
    ]


@pytest.mark.parametrize(
    ("recipe", "cards", "expected"),
    [
        (KIMI, gpus(8), ("pass", "gpu-fit")),
        (KIMI, gpus(2), ("fail", "no-layout")),
        (KIMI, gpus(8, memory_total=None), ("unknown", "gpu-fit")),
        (NIM, gpus(8), ("pass", "gpu-fit")),
        (NIM, gpus(3), ("fail", "no-layout")),
        (replace(NIM, weights_bytes=None), gpus(8), ("unknown", "gpu-fit")),
        (DEMO, gpus(1, memory_total=24 * GIB), ("pass", "gpu-fit")),
        (None, gpus(8), ("skip", "gpu-fit")),
    ],
)
def test_room_for_the_weights(recipe, cards, expected):
    assert verdicts(judge("gpu-fit", host(gpus=inventory(*cards)), Needs(recipe=recipe))) == [expected]


def test_room_is_judged_for_the_gpus_that_were_chosen():
    assert verdicts(judge("gpu-fit", HEALTHY, Needs(recipe=KIMI, gpus="2"))) == [("fail", "no-layout")]
    assert verdicts(judge("gpu-fit", HEALTHY, Needs(recipe=KIMI, gpus="99"))) == [("skip", "gpu-fit")]


@pytest.mark.parametrize(
    "check", ["driver", "cuda", "gpus", "gpu-choice", "gpu-memory", "gpu-fit", "toolkit", "gpu-runtime"]
)
def test_on_the_cpu_nothing_is_asked_of_gpus(check):
    (finding,) = judge(check, host(gpus=without_gpus(), toolkit={"version": None, "hook": None}), CPU)
    assert (finding.verdict, finding.cause) == ("skip", "no GPU was asked for")
