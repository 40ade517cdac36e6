"""A host whose Docker is its own service: a second daemon in a mount namespace, where it has the usual places.

There its socket is /var/run/docker.sock and its configuration /etc/docker/daemon.json, `systemctl` tells it to read
that again, and `nvidia-ctk` writes it. Outside of the namespace nothing of it can be seen, and the lab's engine is left
alone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Done, private_environment
from tests.lib import lab
from tests.lib.lab import engine, gpus
from tests.lib.lab.paths import paths

_SETUP = """set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$T/up,workdir=$T/work" /etc
mkdir -p /etc/docker
mount --bind "$T/etc-docker" /etc/docker
mount -t tmpfs tmpfs /run
exec dockerd --host unix:///var/run/docker.sock --config-file /etc/docker/daemon.json --data-root "$T/data" \
  --exec-root "$T/exec" --pidfile "$T/dockerd.pid" --storage-driver vfs --bridge none --iptables=false --ip6tables=false
"""
_SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$T/systemctl.log"
[ -e "$T/systemctl-fails" ] && { echo "Job for docker.service failed." >&2; exit 1; }
[ "$1 $2" = "reload docker" ] && exec kill -HUP "$(cat "$T/dockerd.pid")"
echo "systemctl (stand-in): cannot $*" >&2
exit 1
"""


@dataclass(frozen=True)
class OwnDocker:
    """The daemon: `folder` holds all of it, `configuration` is its daemon.json as seen from outside."""

    folder: Path
    pid: int
    environment: Mapping[str, str]

    @property
    def configuration(self) -> Path:
        """Its /etc/docker/daemon.json."""
        return self.folder / "etc-docker" / "daemon.json"

    @property
    def asked(self) -> list[str]:
        """What systemctl was asked for."""
        log = self.folder / "systemctl.log"
        return log.read_text().splitlines() if log.exists() else []

    def nimctl(self, *arguments: str) -> Done:
        """The real command line on that host."""
        return self._run([sys.executable, "-m", "nimctl", *arguments])

    def _run(self, argv: list[str]) -> Done:
        inside = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", f"--wd={self.folder}", *argv]
        done = subprocess.run(
            inside, env=dict(self.environment), capture_output=True, text=True, timeout=120, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def own_docker(folder: Path, home: Path, configuration: str) -> Iterator[OwnDocker]:
    """Have the daemon answer, with this configuration, on a host with two GPUs; it is gone afterwards."""
    place = paths()
    tools = folder / "bin"
    for name in ("up", "work", "etc-docker", "bin", "cdi"):
        (folder / name).mkdir()
    for name in ("nvidia-ctk", "nvidia-container-runtime"):
        shutil.copy(gpus.STANDINS / name, tools / name)
    (tools / "systemctl").write_text(_SYSTEMCTL)
    (tools / "systemctl").chmod(0o755)
    (folder / "etc-docker/daemon.json").write_text(configuration)
    daemon = {**engine.daemon_environment(place), "T": str(folder), "TMPDIR": str(folder)}
    environment = private_environment(lab.double_environment("2xH200", folder), home) | {
        "T": str(folder),
        "DOCKER_HOST": "unix:///var/run/docker.sock",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _SETUP], env=daemon, stdout=log, stderr=log, start_new_session=True
        )
    try:
        host = OwnDocker(folder, process.pid, environment)
        _wait(host, process)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(host: OwnDocker, process: subprocess.Popen[bytes]) -> None:
    asks = [
        "sh",
        "-c",
        f"exec {paths().unpacked}/usr/bin/docker -H unix:///var/run/docker.sock version >/dev/null 2>&1",
    ]
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if host._run(asks).code == 0:
            return
        time.sleep(0.1)
    raise AssertionError((host.folder / "log").read_text()[-2000:])
