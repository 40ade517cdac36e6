"""A machine to build on: an environment, a docker command of the test's own, pip's configuration."""

from pathlib import Path


def put_docker(machine: dict[str, str], build: str, *, buildx: str = "exit 0") -> None:
    """A docker command: `build` is the shell text that runs for `docker buildx bake`."""
    docker = Path(machine["PATH"].split(":")[0]) / "docker"
    docker.write_text(f'#!/bin/sh\nif [ "$1 $2" = "buildx version" ]; then {buildx}; fi\n{build}\n')
    docker.chmod(0o755)


def configure_pip(machine: dict[str, str], tmp_path: Path, text: str) -> None:
    (tmp_path / "pip.conf").write_text(text)
    machine["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")
