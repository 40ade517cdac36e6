"""Simulated GPUs: builds the NVML double, describes it to containers by CDI, and switches the host's profile.

A profile is a file of tests/lib/nvml/profiles.py; `none` is a host without GPUs, without CDI and without the toolkit.
In a container the double shows the GPUs whose device node is there, as the driver does: the nodes are /dev/null under
the names of the real ones. One profile at a time: the CDI kind is nvidia.com/gpu, as the product asks for.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ..nvml import profiles
from . import engine
from .debian import install_on_host
from .paths import STORES, Paths, multiarch
from .steps import LabError, locked, run, step

NONE = "none"
SOURCES = Path(profiles.__file__).parent
STANDINS = Path(__file__).parent / "standins"
LIBRARY = "libnvidia-ml.so.1"
_SHARED = ("-shared", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}")
_FLAGS = ("-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-std=gnu99")


def build(folder: Path) -> Path:
    """Compile the double and the nvidia-smi stand-in below `folder`, once per source. Returns the library's folder."""
    files = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]
    done = folder / f"double-{digest}"
    if not done.exists():
        install_on_host({"cc": "gcc", "/usr/include/stdio.h": "libc6-dev"})
        unfinished = folder / f"double-{digest}.{os.getpid()}"
        unfinished.mkdir(parents=True)
        with step("compile the NVML double"):
            run(["cc", *_FLAGS, *_SHARED, "-o", unfinished / LIBRARY, SOURCES / "nvml_double.c"])
            run(["cc", *_FLAGS, "-o", unfinished / "nvidia-smi", SOURCES / "nvidia_smi.c", "-ldl"])
        unfinished.rename(done)
    return done


def prepare(paths: Paths) -> None:
    """Have the double built and the stand-ins in place; dockerd looks for the toolkit's hook when it starts."""
    double = build(paths.gpus)
    toolkit = paths.gpus / "toolkit"
    toolkit.mkdir(exist_ok=True)
    for standin in STANDINS.iterdir():
        shutil.copy(standin, toolkit / standin.name)
    host_commands = paths.gpus / "host-bin"  # what a user of a GPU host finds on PATH
    host_commands.mkdir(exist_ok=True)
    commands = [
        ("nvidia-smi", double / "nvidia-smi"),
        *((s.name, toolkit / s.name) for s in sorted(STANDINS.iterdir())),
    ]
    for name, target in commands:
        (host_commands / f".{name}").unlink(missing_ok=True)
        (host_commands / f".{name}").symlink_to(target)
        (host_commands / f".{name}").rename(host_commands / name)


def switch(paths: Paths, profile: str) -> None:
    """Make the machine the host of this name for containers and the nvidia runtime. LabError for an unknown name."""
    with locked(paths.run / "profile.lock"):
        spec = paths.cdi / "nvidia.json"
        if profile == NONE:
            spec.unlink(missing_ok=True)
        else:
            wanted = json.dumps(cdi_spec(build(paths.gpus), write_profile(paths, profile), host_of(profile)), indent=1)
            if not spec.exists() or spec.read_text() != wanted:
                spec.with_suffix(".new").write_text(wanted)
                spec.with_suffix(".new").rename(spec)
        for one in map(paths.with_store, STORES):
            if engine.answers(one):
                engine.reload(one, nvidia_runtime=profile != NONE)


def host_of(profile: str) -> dict[str, Any]:
    """The profile's description; LabError that lists the names for an unknown one."""
    try:
        return profiles.profile(profile)
    except KeyError:
        raise LabError(f"no host profile is called {profile}", f"use {NONE}, {', '.join(profiles.names())}") from None


def write_profile(paths: Paths, profile: str) -> Path:
    """Write the profile's JSON for the host and for containers. Returns their folder: `host.json`, `container.json`."""
    text, folder = host_text(profile), paths.gpus / "hosts" / profile
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "host.json").write_text(text)
    (folder / "container.json").write_text(json.dumps({**host_of(profile), "visible_by_device_nodes": True}, indent=1))
    return folder


def host_text(profile: str) -> str:
    """The profile as the text of the double's JSON file."""
    return json.dumps(host_of(profile), indent=1)


def cdi_spec(double: Path, profile: Path, host: dict[str, Any]) -> dict[str, Any]:
    """The CDI specification of a host: devices `all`, `0`.. and each GPU's UUID.

    https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
    """
    library = f"/usr/lib/{multiarch()}/{LIBRARY}"
    mounts = {
        library: double / LIBRARY,
        f"{library}.json": profile / "container.json",
        "/usr/bin/nvidia-smi": double / "nvidia-smi",
    }
    nodes = [_node(f"nvidia{gpu['minor']}") for gpu in host["gpus"]]
    named = [
        (name, [node])
        for gpu, node in zip(host["gpus"], nodes, strict=True)
        for name in (str(gpu["minor"]), gpu["uuid"])
    ]
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],  # as in real specs: the runtime hook has nothing left to do
            "deviceNodes": [_node("nvidiactl"), _node("nvidia-uvm")],
            "mounts": [
                {"hostPath": str(source), "containerPath": target, "options": ["ro", "nosuid", "nodev", "bind"]}
                for target, source in mounts.items()
            ],
        },
        "devices": [{"name": name, "containerEdits": {"deviceNodes": own}} for name, own in [*named, ("all", nodes)]],
    }


def _node(name: str) -> dict[str, Any]:
    return {"path": f"/dev/{name}", "hostPath": "/dev/null", "permissions": "rw", "fileMode": 0o666}
