"""The environment of a process on a simulated host: which engine, which GPUs, which commands on PATH."""

import os
from pathlib import Path

from nimctl.images import local_tag

from . import base_image, engine, gpus, registry
from .paths import Paths


def simulated_host(paths: Paths, profile: str) -> dict[str, str]:
    """Switch the machine to `profile`; returns the variables of its processes, see `variables` for the keys."""
    gpus.switch(paths, profile)
    return variables(paths, profile)


def variables(paths: Paths, profile: str) -> dict[str, str]:
    """The variables that make a process run on the simulated host.

    DOCKER_HOST, DOCKER_CONFIG, NIMCTL_BUILD_BASE, PATH always; with GPUs LD_LIBRARY_PATH (the double),
    NVML_DOUBLE_JSON and NIMCTL_IMAGES_CUDA; LAB_REGISTRY (host:port) and LAB_REGISTRY_KEY while the registry runs.
    """
    path = [str(paths.unpacked / "usr/bin"), os.environ.get("PATH", engine.DEFAULT_PATH)]
    found = {"DOCKER_HOST": f"unix://{paths.docker_socket}", "DOCKER_CONFIG": str(paths.docker_config)}
    found["NIMCTL_BUILD_BASE"] = base_image.IMAGE  # no registry of the outside world can be pulled from here
    if profile != gpus.NONE:
        path.insert(0, str(paths.gpus / "host-bin"))
        found["LD_LIBRARY_PATH"] = _before(gpus.build(paths.gpus), "LD_LIBRARY_PATH")
        found["NVML_DOUBLE_JSON"] = str(gpus.write_profile(paths, profile) / "host.json")
        # There is no CUDA here: where a GPU host takes our cuda image, this one takes the cpu image, whose ranks run as
        # processes on the CPU in the layout of the simulated GPUs.
        found["NIMCTL_IMAGES_CUDA"] = local_tag("cpu")
    if registry.answers(paths):
        info = registry.info(paths)
        found |= {"LAB_REGISTRY": info.address, "LAB_REGISTRY_KEY": info.key}
    lab_folders = {str(folder) for folder in (paths.gpus / "host-bin", paths.unpacked / "usr/bin")}
    rest = [part for part in path[-1].split(":") if part not in lab_folders]  # `env` may be evaluated twice in a shell
    return {**found, "PATH": ":".join([*path[:-1], *rest])}


def _before(folder: Path, variable: str) -> str:
    parts = os.environ.get(variable, "").split(":")
    rest = [part for part in parts if part and not part.startswith(f"{folder.parent}/")]
    return ":".join([str(folder), *rest])
