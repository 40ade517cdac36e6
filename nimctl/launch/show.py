"""A launch plan for people and scripts: the equal command, the reasons, the JSON document. Pure."""

import csv
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nimctl.core.cdi import KIND
from nimctl.core.plain import to_plain
from nimctl.core.secret import MASK, Secret
from nimctl.launch.model import EnvVar, GpuRequest, LaunchPlan

_GIB = 2**30
_VISIBLE = "NVIDIA_VISIBLE_DEVICES"


def docker_run_line(plan: LaunchPlan) -> str:
    """The `docker run` command that starts exactly this plan, one flag a line, quoted for a POSIX shell.

    Keys are never in it: files are mounted, and variables that hold a key are named without a value, which makes
    docker take them from the shell that runs the command.
    """
    flags = ["docker run --detach", f"--name={shlex.quote(plan.name)}"]
    flags += _gpu_flags(plan.gpu)
    if plan.user:
        flags.append(f"--user {plan.user}")
    flags += [f"--cap-drop {name}" for name in plan.security.cap_drop]
    if plan.security.no_new_privileges:
        flags.append("--security-opt no-new-privileges")
    if plan.security.read_only:
        flags.append("--read-only")
    flags += [f"--tmpfs {shlex.quote(f'{path}:{how}')}" for path, how in plan.security.tmpfs.items()]
    flags.append(f"--shm-size={size(plan.shm_bytes)}")
    flags += [f"-e {s.name}" for s in plan.secrets if s.source is None]
    flags += [f"-e {shlex.quote(variable)}" for variable in gpu_environment(plan.gpu, plan.env)]
    flags += [f"-e {_variable(e)}" for e in plan.env]
    flags += [f"-v {shlex.quote(volume)}" for volume in volumes(plan)]
    flags += [f"--mount {shlex.quote(_key_mount(s.source, s.target))}" for s in plan.secrets if s.source and s.target]
    ip = f"[{plan.port.host_ip}]" if ":" in plan.port.host_ip else plan.port.host_ip
    flags.append(f"-p {shlex.quote(f'{ip}:{plan.port.host}:{plan.port.container}')}")
    flags.append(f"--stop-timeout {plan.stop_timeout}")
    flags += [f"--label {shlex.quote(f'{k}={v}')}" for k, v in plan.container_labels.items()]
    flags.append(shlex.join([plan.exact.name if plan.exact else plan.image or "", *plan.argv]))
    return " \\\n  ".join(flags)


def volumes(plan: LaunchPlan) -> list[str]:
    """Every folder as docker's `-v` takes it. Key files are no volumes: see `docker_run_line`."""
    return [f"{m.source}:{m.target}" + (":ro" if m.read_only else "") for m in plan.mounts]


def _key_mount(source: str, target: str) -> str:
    """A key file as `--mount` takes it, which is one line of CSV. `-v` would make a folder of a file that is gone."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["type=bind", f"source={source}", f"target={target}", "readonly"])
    return line.getvalue()


def gpu_environment(gpu: GpuRequest, given: Sequence[EnvVar] = ()) -> list[str]:
    """What tells the nvidia runtime its GPUs where `--gpus` cannot; a value that was given by hand is kept."""
    if gpu.mode != "runtime-env" or any(variable.name == _VISIBLE for variable in given):
        return []
    return [f"{_VISIBLE}={','.join(gpu.devices)}"]


def _gpu_flags(gpu: GpuRequest) -> list[str]:
    if gpu.mode == "none":
        return []
    if gpu.mode == "cdi":
        return [f"--device {KIND}={name}" for name in gpu.devices]
    if gpu.mode == "runtime-env":
        return ["--runtime=nvidia"]
    # docker reads the value as CSV, so a list of devices needs double quotes of its own inside the shell's.
    devices = "all" if gpu.devices == ("all",) else shlex.quote(f'"device={",".join(gpu.devices)}"')
    return [*(["--runtime=nvidia"] if gpu.mode == "runtime" else []), f"--gpus {devices}"]


def _variable(variable: EnvVar) -> str:
    if isinstance(variable.value, Secret):
        return variable.name
    return shlex.quote(f"{variable.name}={variable.value}")


def size(count: int) -> str:
    """Bytes as docker reads them: `32GB` is 32 GiB to docker."""
    return f"{count // _GIB}GB" if count and count % _GIB == 0 else str(count)


def process_command(plan: LaunchPlan, state_dir: Path | None = None) -> tuple[tuple[str, ...], dict[str, str | Secret]]:
    """The argv and the additional environment that run this plan as a process of this host.

    `state_dir` is the run's own folder, where the server leaves its socket and `startup.json`.
    """
    environment: dict[str, str | Secret] = {e.name: e.value for e in plan.env}
    if state_dir is not None:
        environment["NIMCTL_STATE_DIR"] = str(state_dir)
    return (sys.executable, "-m", "entrypoint", *plan.argv), environment


def process_line(plan: LaunchPlan, state_dir: Path | None = None) -> str:
    """The same as a command for a POSIX shell, with the values of keys left to the shell."""
    argv, environment = process_command(plan, state_dir)
    words = [
        f'{name}="${name}"' if isinstance(value, Secret) else f"{name}={shlex.quote(value)}"
        for name, value in environment.items()
    ]
    return " \\\n  ".join(["env", *words, shlex.join(argv)])


def explain(plan: LaunchPlan) -> list[tuple[str, str, str, str]]:
    """Every setting of the plan as (what, value, origin, why)."""
    rows = [(what, v.value, v.origin, v.why) for what, v in plan.settings.items()]
    rows += [(e.name, MASK if isinstance(e.value, Secret) else e.value, e.origin, e.why) for e in plan.env]
    rows += [(m.target, m.source, "derived", m.why) for m in plan.mounts]
    rows += [(f"key {s.name}", s.target or "environment", "derived", "by name, never by value") for s in plan.secrets]
    return rows


def to_json(plan: LaunchPlan) -> dict[str, Any]:
    """The plan as a `nimctl.launch-plan/1` document, with the equal command."""
    document: dict[str, Any] = to_plain(plan)
    for variable in document["env"]:
        if isinstance(variable["value"], Secret):
            variable["value"] = None
    document["command"] = docker_run_line(plan) if plan.runtime == "docker" else process_line(plan)
    return document
