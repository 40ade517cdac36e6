"""Which runtime and device the demo uses on this host, and why, as shell assignments."""

import json
import shlex
import subprocess
import sys

doctor = [sys.executable, "-m", "nimctl", "doctor", "demo", "--json", "--only", "docker,gpu-runtime"]
report = json.loads(subprocess.run(doctor, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout)
if "facts" not in report:
    raise SystemExit(f"nimctl doctor failed: {report.get('error', {}).get('message')}")
docker, gpus = report["facts"]["docker"], report["facts"]["gpus"]

WHY_NO_DOCKER = {
    "missing": "there is none on this host",
    "permission": "this user may not use it",
    "hangs": "it does not answer",
    "unreachable": "it cannot be reached",
}
failed = [f["title"] for f in report["findings"] if f["verdict"] == "fail"]
if docker["state"] == "ok" and not failed and not docker["buildx"]:
    failed = ["it has no buildx to build the image with"]
runtime = "docker" if docker["state"] == "ok" and not failed else "process"
device = "cuda" if gpus["gpus"] else "cpu"
why_not = WHY_NO_DOCKER.get(docker["state"]) or "; ".join(failed)
why = [
    f"Docker Engine {docker['version']} answers: the demo runs in a container"
    if runtime == "docker"
    else f"no usable Docker Engine ({why_not}): the demo runs as a process of this host",
    f"NVML finds {len(gpus['gpus'])} GPU(s): it runs on them"
    if device == "cuda"
    else f"NVML finds no GPU ({gpus['detail'] or 'none listed'}): it runs on the CPU",
]
for name, value in (("RUNTIME", runtime), ("DEVICE", device), ("WHY", "; ".join(why))):
    sys.stdout.write(f"{name}={shlex.quote(value)}\n")
