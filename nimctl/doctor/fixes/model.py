"""The words of mending: what a remedy is, and what it may cost. Pure."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nimctl.core.facts import HostFacts

Risk = Literal["none", "permissions", "gpu-setting", "kernel-module", "service", "docker-reload", "docker-restart"]

RISKS: Mapping[Risk, str] = {
    "none": "none: one file, or nothing that runs notices",
    "permissions": "changes group and mode of everything in the folder",
    "gpu-setting": "changes a setting of the GPUs until the next boot",
    "kernel-module": "loads kernel modules",
    "service": "starts a service",
    "docker-reload": "reloads Docker's configuration; running containers go on",
    "docker-restart": "restarts Docker; running containers stop unless live-restore is on",
}


@dataclass(frozen=True)
class Remedy:
    """One change of the host that mends findings.

    `mends` are the ids of those findings, `commands` what to type, in order, with `sudo` where the caller is not root.
    `changes` is one sentence. `backs_up` are files that are kept beside themselves before the first command, and put
    back when one fails. `refused` says why it must not be applied now; empty: it may. `docker` tells what the last
    command does to Docker, and `runtime` names the runtime that Docker must know afterwards.
    """

    id: str
    mends: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    changes: str
    risk: Risk
    backs_up: tuple[str, ...] = ()
    refused: str = ""
    docker: Literal["", "reload", "restart"] = ""
    runtime: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The commands as they are typed into a shell."""
        return tuple(shlex.join(argv) for argv in self.commands)

    def to_json(self) -> dict[str, Any]:
        """The remedy as a part of the document of `nimctl doctor --fix --json`."""
        return {
            "id": self.id,
            "mends": list(self.mends),
            "commands": [list(argv) for argv in self.commands],
            "changes": self.changes,
            "risk": self.risk,
            "backs_up": list(self.backs_up),
            "refused": self.refused or None,
        }


def as_root(facts: HostFacts, *argv: str) -> tuple[str, ...]:
    """The command for root: with `sudo` where the caller is somebody else."""
    return argv if facts.system.uid == 0 else ("sudo", *argv)


def without_root(facts: HostFacts) -> str:
    """Why a command for root is not applied; empty where the caller is root."""
    return "" if facts.system.uid == 0 else "it needs root: type the commands, or start nimctl itself with sudo"
