"""NVIDIA's fabric manager, the service that joins GPUs behind NVSwitches into one fabric."""

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from nimctl.core.command import run
from nimctl.core.facts import FabricManagerFacts
from nimctl.doctor.observe.files import is_there

# https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/index.html
UNIT = "nvidia-fabricmanager.service"
_PROGRAM = "nv-fabricmanager"
# Where systemd reads units from, as far as packages and administrators put them there (systemd.unit(5)).
_UNIT_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_VERSION = re.compile(r"version is\s*:\s*(\d[\w.]*)", re.I)
_MOST_FOR_ONE = 2.0  # seconds


def look_at_fabric_manager(until: float, environment: Mapping[str, str], root: Path = Path("/")) -> FabricManagerFacts:
    """Its version and the state of its service, asked until `until` (of `time.monotonic`) at the latest.

    Programs are only started where their files are: on a host without fabric manager this takes no time.
    """
    service = _service(until, environment, root)
    version = None if service == "absent" and not _program(environment) else _version(until, environment)
    return FabricManagerFacts(version, service, _PROGRAM if version else None)


def _service(until: float, environment: Mapping[str, str], root: Path) -> str | None:
    if not is_there(root / "run/systemd/system"):  # sd_booted(3): systemd is not what runs this machine
        return None
    found = [is_there(root / folder / UNIT) for folder in _UNIT_FOLDERS]
    if True not in found:
        return None if None in found else "absent"
    argv = ("systemctl", "show", "--property=LoadState,ActiveState", UNIT)
    answer = run(argv, timeout=_time_for_one(until), env=environment)
    told = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    if told.get("LoadState") == "not-found":
        return "absent"
    if answer.ok and told.get("ActiveState"):
        return told["ActiveState"]
    # systemd keeps this link for as long as the unit is not inactive.
    return "active" if is_there(root / "run/systemd/units" / f"invocation:{UNIT}") else None


def _version(until: float, environment: Mapping[str, str]) -> str | None:
    program = _program(environment)
    if program is None:
        return None
    answer = run((program, "--version"), timeout=_time_for_one(until), env=environment)
    found = _VERSION.search(answer.stdout + answer.stderr)
    return found[1] if found else None


def _program(environment: Mapping[str, str]) -> str | None:
    return shutil.which(_PROGRAM, path=environment.get("PATH"))


def _time_for_one(until: float) -> float:
    return max(0.0, min(_MOST_FOR_ONE, until - time.monotonic()))
