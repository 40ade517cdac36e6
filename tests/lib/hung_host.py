"""A host on which Docker, NVML and DNS all hang at once: each accepts the question and never answers."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lib import lab

SILENT_RESOLVER = "127.0.0.213"  # of the loopback network, so that nothing leaves this machine
FOR_EVER_MS = 60_000


@dataclass(frozen=True)
class HungHost:
    """The environment of its processes, and how a command is run there (with its own /etc/resolv.conf)."""

    environment: Mapping[str, str]
    prefix: tuple[str, ...]

    def argv(self, *arguments: str) -> list[str]:
        """The real command line on this host."""
        return [*self.prefix, sys.executable, "-m", "nimctl", *arguments]


def why_not() -> str | None:
    """Why there can be no such host here; None when there can."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "only root can give one process a resolver of its own"
    return None


@contextmanager
def hung_host(
    folder: Path, base: Mapping[str, str], *, hang: Sequence[str] = ("docker", "nvml", "dns")
) -> Iterator[HungHost]:
    """Such a host below `folder`; `hang` says what hangs. `base` is the environment to change."""
    environment, prefix = dict(base), ()
    with ExitStack() as stack:
        if "docker" in hang:
            daemon = stack.enter_context(socket.socket(socket.AF_UNIX))
            daemon.bind(str(folder / "docker.sock"))
            daemon.listen(64)
            environment["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        if "nvml" in hang:
            environment |= _stuck_driver(folder, environment)
        if "dns" in hang:
            resolver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            resolver.bind((SILENT_RESOLVER, 53))
            (folder / "resolv.conf").write_text(f"nameserver {SILENT_RESOLVER}\n")
            mount = f'mount --bind "{folder}/resolv.conf" /etc/resolv.conf && exec "$@"'
            prefix = ("unshare", "--mount", "sh", "-c", mount, "sh")
        yield HungHost(environment, prefix)


def _stuck_driver(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    double = lab.double_environment("8xH200", folder)
    host = json.loads(Path(double["NVML_DOUBLE_JSON"]).read_text())
    stuck = folder / "stuck.json"
    stuck.write_text(json.dumps({**host, "faults": {"*": {"hang_ms": FOR_EVER_MS}}}))
    return {"LD_LIBRARY_PATH": double["LD_LIBRARY_PATH"], "NVML_DOUBLE_JSON": str(stuck)}
