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
        ("not-loaded", "demo", "all", ["driver-missing"], []),
        ("no-permission", "demo", "all", ["driver-missing"], []),
        ("driver-550", "demo", "all", ["driver-too-old", "cuda-too-old"], []),
        ("mig", "demo", "all", [], ["gpu-mig"]),
        ("busy", "demo", "all", [], ["gpu-busy"]),
        ("ecc", "demo", "all", [], ["gpu-ecc"]),
    ],
)
def test_what_the_doctor_says_of_a_host(folder, profile, model, gpus, fails, warns):
    report = doctor(lab.double_environment(profile, folder), model, gpus)
    assert ids(report, "fail") == fails
    assert ids(report, "warn") == warns


def test_every_gpu_is_described_by_what_nvml_says_of_it(folder):
    report = doctor(lab.double_environment("8xH200", folder))
    assert [f["title"] for f in report["findings"] if f["check"] == "gpus"] == ["8 x NVIDIA H200 (140.4 GiB each)"]
    told = [(g["uuid"], g["pci_id"]) for g in report["facts"]["gpus"]["gpus"]]
    assert told == [(g["uuid"], g["pci_bus_id"]) for g in profiles.profile("8xH200")["gpus"]]


def test_a_driver_that_hangs_in_its_library_holds_up_neither_the_answer_nor_the_end_of_the_program(folder):
    environment = lab.double_environment("2xH200", folder)
    host = folder / "hangs.json"
    host.write_text(json.dumps({**profiles.profile("2xH200"), "faults": {"nvmlInit": {"hang_ms": 3_600_000}}}))
    # That the process ends at all, within the hour that its thread sits in the library, is the proof.
    report = doctor({**environment, "NVML_DOUBLE_JSON": str(host)}, limit=1.0)
    assert ids(report, "fail") == ["driver-missing"]
    assert report["facts"]["problems"] == ["gpus: no answer in time"]
