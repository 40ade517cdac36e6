"""The probe: a container must see the GPUs that this host sees, and a finding says what it lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.injection import WORDS
from nimctl.doctor import inside
from nimctl.doctor.model import Needs
from nimctl.doctor.probe import judge, no_image, not_tried
from nimctl.doctor.probe_words import Said, commands, read
from tests.lib.lab import double_environment
from tests.unit.doctor.hosts import DEMO, gpu, gpus, host, inventory, without_gpus

TWO = host(gpus=inventory(*gpus(2)))
NEEDS = Needs(DEMO)
UUIDS = tuple(str(g.uuid) for g in gpus(2))
SMI = "GPU {0}: NVIDIA H200 (UUID: GPU-{0:08d})"


def said(mode="runtime", code=0, **parts):
    """What our script says in a container: by default two GPUs, no CUDA library, and a cache that can be written."""
    parts = {"cache": "", "nvml": {"error": None, "uuids": UUIDS}, "cuda": None, **parts}
    lines = [inside.MARK + json.dumps({name: value}) for name, value in parts.items() if value != "left out"]
    return Said(mode, code, "\n".join(["a warning first", *lines]))


def gpu_finding(*ways, facts=TWO, needs=NEEDS, note=""):
    return judge(facts, needs, ways, "ours:1", note)[0]


def test_every_gpu_is_seen_and_the_cache_can_be_written():
    found, cached = judge(TWO, NEEDS, [said()], "ours:1")
    assert (found.verdict, found.title) == ("pass", "a container of ours:1 sees 2 of 2 GPUs")
    assert found.evidence == (
        f"{WORDS['runtime']}: works; a run takes it",
        "CUDA was not tried: the image has no libcuda",
    )
    assert (cached.check, cached.verdict) == ("probe-cache", "pass")
    assert {found.group, cached.group} == {"probe"}


def test_cuda_is_started_where_the_image_has_it():
    assert "CUDA starts on 2" in gpu_finding(said(cuda={"code": 0, "count": 2})).evidence


@pytest.mark.parametrize(
    ("code", "error_id", "fix"),
    [
        (802, "cuda-not-ready", "nvidia-fabricmanager"),
        (803, "cuda-mismatch", "Reboot"),
        (804, "cuda-compat-refused", "driver 580"),
        (100, "cuda-no-device", "CUDA_VISIBLE_DEVICES"),
        (999, "probe-failed", "dmesg"),
    ],
)
def test_each_code_of_cuda_has_its_own_cause_and_fix(code, error_id, fix):
    finding = gpu_finding(said(cuda={"code": code, "count": 0}))
    assert (finding.verdict, finding.id) == ("fail", error_id)
    assert str(code) in finding.cause
    assert fix in finding.fix


def test_cuda_that_sees_fewer_gpus_than_nvml_is_a_failure_but_for_slices():
    finding = gpu_finding(said(cuda={"code": 0, "count": 1}))
    assert (finding.id, finding.title) == ("probe-failed", "CUDA in a container of ours:1 sees 1 of 2 GPUs")
    sliced = host(gpus=inventory(gpu(0, mig=True), gpu(1)))
    assert gpu_finding(said(cuda={"code": 0, "count": 8}), facts=sliced).verdict == "pass"


def test_any_image_without_python_is_asked_with_nvidia_smi():
    slices = "\n  MIG 1g.18gb Device 0: (UUID: MIG-1234)\n"
    output = "nimctl-cache ok\n" + SMI.format(0) + slices + SMI.format(1)
    found, cached = judge(TWO, NEEDS, [Said("cdi", 0, output)], "ubuntu")
    assert (found.verdict, cached.verdict) == ("pass", "pass")


def test_only_the_gpus_that_were_asked_for_are_expected():
    one = said(nvml={"error": None, "uuids": UUIDS[1:]})
    assert gpu_finding(one, needs=Needs(DEMO, gpus="device=1")).verdict == "pass"


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (said(nvml={"error": "libnvidia-ml.so.1: no such file", "uuids": []}), "libnvidia-ml.so.1: no such file"),
        (said(nvml={"error": None, "uuids": []}), "NVML lists no GPU"),
        (said(nvml={"error": None, "uuids": UUIDS[:1]}), "missing: GPU-00000001; not asked for: none"),
        (said(nvml={"error": None, "uuids": [*UUIDS, "GPU-9"]}), "missing: none; not asked for: GPU-9"),
        (said(code=1), "the command ended with 1"),
        (said(nvml="left out", cuda="left out"), "the container did not say what it sees"),
        (Said("gpus", 1, "Traceback: no module"), "the command ended with 1"),
        (Said("gpus", 0, ""), "the container did not say what it sees"),
        (Said("gpus", 0, "{}\n5\nnull\n"), "nvidia-smi lists no GPU"),
        (Said("gpus", 0, inside.MARK + "{cut\n" + inside.MARK + "[1]"), "nvidia-smi lists no GPU"),
        (Said("gpus", 0, inside.MARK + '{"nvml": 5, "cuda": [1], "cache": 3}'), "the container did not say"),
        (Said("gpus", 127, "sh: nvidia-smi: not found"), "the command ended with 127"),
    ],
)
def test_anything_else_fails_with_a_cause(what, cause):
    finding = gpu_finding(what)
    assert (finding.verdict, finding.id) == ("fail", "probe-failed")
    assert finding.cause.startswith(cause)
    assert finding.fix


def broken(mode="runtime", error_id="gpu-runtime-missing"):
    return Said(
        mode, error=NimctlError(error_id, "Docker refused", cause="unknown runtime nvidia", fix="Configure it.")
    )


def test_a_container_that_cannot_start_is_a_finding_with_the_daemons_own_id():
    finding = gpu_finding(broken())
    assert (finding.verdict, finding.id, finding.cause) == ("fail", "gpu-runtime-missing", "unknown runtime nvidia")


def test_a_way_that_works_is_kept_and_the_runs_own_is_named():
    finding = gpu_finding(broken(), said("gpus", nvml={"error": None, "uuids": []}), said("cdi"))
    assert (finding.verdict, finding.id) == ("warn", "probe-other-way")
    assert WORDS["cdi"] in finding.title
    assert "unknown runtime nvidia" in finding.cause
    assert "NIMCTL_GPU_MODE=cdi" in finding.fix
    assert finding.evidence == (
        f"{WORDS['runtime']}: fails, unknown runtime nvidia; a run takes it",
        f"{WORDS['gpus']}: fails, NVML lists no GPU",
        f"{WORDS['cdi']}: works",
    )


def test_ways_that_a_run_does_not_take_may_fail():
    finding = gpu_finding(said(), broken("cdi"))
    assert finding.verdict == "pass"
    assert f"{WORDS['cdi']}: fails, unknown runtime nvidia" in finding.evidence


def test_where_every_way_fails_the_runs_own_is_the_cause_and_all_are_listed():
    finding = gpu_finding(broken(), broken("gpus", "docker-refused"))
    assert (finding.id, len(finding.evidence)) == ("gpu-runtime-missing", 2)


def test_the_image_that_stands_in_for_another_is_said():
    assert "x stands in for y" in gpu_finding(said(), note="x stands in for y").evidence


def test_a_cache_that_the_containers_user_cannot_write_is_a_finding_of_its_own():
    found, cached = judge(TWO, NEEDS, [said(cache="rename: Operation not permitted")], "ours:1")
    assert found.verdict == "pass"
    assert (cached.verdict, cached.id) == ("fail", "cache-not-writable")
    assert cached.cause == "its user could not rename a file there: Operation not permitted"
    assert "nimctl cache init /data/nim" in cached.fix


def test_a_cache_that_was_not_tried_says_nothing():
    assert len(judge(TWO, NEEDS, [said(cache=None)], "ours:1")) == 1


def test_what_is_known_before_a_driver_hangs_is_not_lost():
    assert read(said(nvml="left out", cuda="left out")).cache == ""


def test_an_image_that_cannot_be_had_is_a_failure_with_the_way_out():
    finding = no_image(NimctlError("image-pull-failed", "no route", cause="the network is down", fix="Pull it."))
    assert (finding.verdict, finding.id, finding.fix) == ("fail", "image-pull-failed", "Pull it.")


def test_keys_in_the_output_are_masked():
    assert "CANARY" not in str(judge(TWO, NEEDS, [Said("gpus", 1, "key nvapi-CANARY0123456789")], "image"))


@pytest.mark.parametrize(
    ("facts", "needs", "verdict"),
    [
        (TWO, Needs(DEMO, gpus="none"), "skip"),
        (TWO, Needs(DEMO, "process"), "skip"),
        (host(gpus=without_gpus()), Needs(DEMO), "skip"),
        (TWO, Needs(DEMO, gpus="9"), "skip"),
        (host(TWO, docker={"state": "hangs"}), Needs(DEMO), "skip"),
        (host(gpus=inventory(*gpus(2, uuid=None))), Needs(DEMO), "unknown"),
    ],
)
def test_no_container_is_started_when_there_is_nothing_to_compare(facts, needs, verdict):
    finding = not_tried(facts, needs)
    assert finding is not None
    assert finding.verdict == verdict
    assert not_tried(TWO, NEEDS) is None


def run(argv, **environment):
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )


def test_the_script_runs_without_anything_of_ours_and_leaves_nothing_behind(tmp_path):
    script = Path(inside.__file__).read_text(encoding="utf-8")
    done = run([sys.executable, "-I", "-c", script, str(tmp_path)], LD_LIBRARY_PATH="")
    seen = read(Said("cdi", done.returncode, done.stdout))
    assert (done.returncode, seen.cache, seen.uuids) == (0, "", frozenset()), done.stderr
    assert list(tmp_path.iterdir()) == []


CUDA = """
int cuInit(unsigned flags) { return flags ? 1 : CODE; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
"""


@pytest.mark.parametrize(("code", "seen"), [(0, (0, 2)), (802, (802, 0))])
def test_the_script_asks_the_libraries_as_a_server_does(tmp_path, code, seen):
    environment = double_environment("2xH200", tmp_path)
    source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
    source.write_text(CUDA)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DCODE={code}", "-o", library, source], check=True, timeout=60)
    script = Path(inside.__file__).read_text(encoding="utf-8")
    libraries = {"LD_LIBRARY_PATH": f"{tmp_path}:{environment['LD_LIBRARY_PATH']}"}
    done = run(
        [sys.executable, "-I", "-c", script, "/nowhere"],
        **libraries,
        NVML_DOUBLE_JSON=environment["NVML_DOUBLE_JSON"],
    )
    what = read(Said("cdi", done.returncode, done.stdout))
    assert (what.cuda, len(what.uuids), what.cache) == (seen, 2, None), done.stderr
    assert all(uuid.startswith("GPU-") for uuid in what.uuids)


def test_the_script_says_which_step_failed(tmp_path):
    assert inside.cache(str(tmp_path / "not-there")) is None
    (tmp_path / "proc").symlink_to("/proc/self")
    assert str(inside.cache(str(tmp_path / "proc"))).startswith("make: ")


@pytest.mark.parametrize(("folder", "cache"), [("/tmp", ""), ("/proc/self", "make: refused"), ("/nowhere", None)])
def test_the_shell_does_the_same_where_there_is_no_python(tmp_path, folder, cache):
    for tool in ("sh", "mv", "rm", "cat"):
        (tmp_path / tool).symlink_to(f"/bin/{tool}")
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat <<X\n{SMI.format(0)}\n{SMI.format(1)}\nX\n")
    smi.chmod(0o755)
    argv = commands(folder)[0]
    done = run([str(tmp_path / "sh"), *argv[1:]], PATH=str(tmp_path))
    seen = read(Said("gpus", done.returncode, done.stdout))
    assert (seen.uuids, seen.cache) == (frozenset(UUIDS), cache), done.stderr
