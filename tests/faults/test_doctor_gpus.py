"""Fault: a driver or a GPU that is not well, as the real pynvml reports it from a simulated host."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib import lab
from tests.lib.nvml import profiles

pytestmark = pytest.mark.lab

# The doctor of a process whose libnvidia-ml.so.1 is the double; Docker and toolkit are well, so that GPUs alone count.
DOCTOR = """
import json, os, sys
from pathlib import Path
from nimctl.core.facts import DockerFacts
from nimctl.core.recipes import load
from nimctl.doctor.facts import Subject, gather
from nimctl.doctor.model import Needs
from nimctl.doctor.runner import run_checks
docker = DockerFacts("ok", version="28.5.2", runtimes=("nvidia",))
subject = Subject(cache=Path("/nonexistent/cache"), host="127.0.0.1", port=0, environment=os.environ, uid=1000)
facts = gather(subject, docker_facts=lambda timeout: docker, limit=float(sys.argv[1]), after_docker=0.5)
needs = Needs(load(sys.argv[2]), gpus=sys.argv[3])
print(json.dumps(run_checks(facts, needs, only=["gpu"]).to_json()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("double")


def doctor(environment: dict[str, str], model: str = "demo", gpus: str = "all", limit: float = 30.0):
    argv = [sys.executable, "-c", DOCTOR, str(limit), model, gpus]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ids(report, verdict):
    return [f["id"] for f in report["findings"] if f["verdict"] == verdict]


@pytest.mark.parametrize(
    ("profile", "model", "gpus", "fails", "warns"),
    [
        ("1xH200", "demo", "all", [], []),
        ("8xH200", "kimi-k2.5", "all", [], []),
        ("8xB200", "kimi-k2.5", "8", [], []),
        ("2xH200", "kimi-k2.5", "all", ["no-layout"], []),
        ("2xH200", "demo", "9", ["gpu-spec-invalid"], []),
        ("mixed", "demo", "all", ["gpus-mixed"], []),
        ("lost", "demo", "all", ["gpu-lost"], []),
        ("mismatch", "demo", "all", ["driver-mismatch"], []),
        ("driver-550", "demo", "all", ["driver-too-old"], []),
        ("mig", "demo", "all", [], ["gpu-mig"]),
        ("busy", "demo", "all", [], ["gpu-busy"]),
        ("ecc", "demo", "all", [], ["gpu-ecc", "gpu-row-remap-pending"]),
        ("fabric-down", "demo", "all", ["gpu-fabric-down"], []),
        ("lost-midway", "demo", "all", ["gpu-lost"], []),
        ("a100-mig", "demo", "all", [], ["gpu-mig"]),
        ("4xGB200", "demo", "all", [], []),
        ("72xGB200", "demo", "all", [], []),
        ("8xA100", "demo", "all", [], []),
        ("4xL40S", "demo", "all", [], []),
        ("8xRTXPRO6000", "demo", "all", [], []),
        ("1xT4", "demo", "all", [], []),
        ("1024xH200", "demo", "all", [], []),
    ],
)
def test_what_the_doctor_says_of_a_host(folder, profile, model, gpus, fails, warns):
    report = doctor(lab.double_environment(profile, folder), model, gpus)
    assert ids(report, "fail") == fails
    assert ids(report, "warn") == warns


@pytest.mark.parametrize("profile", ["not-loaded", "no-permission"])
def test_a_driver_that_does_not_start_is_one_failure(folder, profile):
    """Which of the reasons it is, kernel and PCI bus tell: those of this machine, which may have no GPU at all."""
    report = doctor(lab.double_environment(profile, folder))
    (failure,) = ids(report, "fail")
    assert failure.startswith(("driver-", "gpu-missing"))
    assert ids(report, "warn") == []


def test_every_gpu_is_described_by_what_nvml_says_of_it(folder):
    report = doctor(lab.double_environment("8xH200", folder))
    assert [f["title"] for f in report["findings"] if f["check"] == "gpus"] == ["8 x NVIDIA H200 (140.4 GiB each)"]
    told = [(g["uuid"], g["pci_id"]) for g in report["facts"]["gpus"]["gpus"]]
    assert told == [(g["uuid"], g["pci_bus_id"]) for g in profiles.profile("8xH200")["gpus"]]


def test_a_gpu_that_shares_the_hosts_memory_is_no_broken_one(folder):
    report = doctor(lab.double_environment("gb10", folder))
    assert ids(report, "fail") == []
    assert [f["verdict"] for f in report["findings"] if f["check"] == "gpus"] == ["pass"]
    (gpu,) = report["facts"]["gpus"]["gpus"]
    assert (gpu["unified_memory"], gpu["memory_total"], gpu["error"]) == (True, None, None)


def test_who_holds_memory_is_told_by_name(folder):
    environment = lab.double_environment("busy", folder)
    host = profiles.profile("busy")
    with subprocess.Popen(["sleep", "300"]) as holder:
        try:
            host["gpus"][1]["processes"] = [{"pid": holder.pid, "memory_used": 119_000 * profiles.MIB}]
            (folder / "held.json").write_text(json.dumps(host))
            report = doctor({**environment, "NVML_DOUBLE_JSON": str(folder / "held.json")})
        finally:
            holder.kill()
    (told,) = report["facts"]["gpus"]["gpus"][1]["processes"]
    named = Path("/proc/self/ns/pid").readlink() == Path("pid:[4026531836]")  # else NVML's numbers are not ours
    assert (told["pid"], told["name"]) == (holder.pid, "sleep" if named else None)
    assert ids(report, "warn") == ["gpu-busy"]


def test_a_gpu_that_hangs_does_not_hide_the_others(folder):
    report = doctor(lab.double_environment("hangs", folder), limit=4.0)
    assert ids(report, "fail") == ["gpu-lost"]
    gpus = report["facts"]["gpus"]["gpus"]
    assert [gpu["index"] for gpu in gpus if gpu["error"]] == [5]
    assert [gpu["memory_total"] is not None for gpu in gpus].count(True) == 7
    assert len(report["facts"]["gpus"]["links"]) == 7 * 6 // 2
    assert report["facts"]["problems"] == []


def test_a_driver_that_hangs_in_its_library_holds_up_neither_the_answer_nor_the_end_of_the_program(folder):
    environment = lab.double_environment("2xH200", folder)
    host = folder / "hangs.json"
    host.write_text(json.dumps({**profiles.profile("2xH200"), "faults": {"nvmlInit": {"hang_ms": 3_600_000}}}))
    # That the process ends at all, within the hour that its thread sits in the library, is the proof.
    report = doctor({**environment, "NVML_DOUBLE_JSON": str(host)}, limit=1.0)
    assert ids(report, "fail") == ["driver-hangs"]
    assert report["facts"]["problems"] == ["gpus: no answer in time"]
