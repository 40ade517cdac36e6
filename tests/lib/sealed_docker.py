"""A host without any way out: a Docker daemon in namespaces of its own, where only loopback and its own bridge exist.

There is no route to anywhere, no name server that answers, and nothing of it is left when it ends: it is the first
process of its process namespace.
"""

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lib.lab import engine
from tests.lib.lab.paths import paths

BRIDGE = "sealed0"
_SETUP = """set -e
mount --make-rprivate /
ip link set lo up
ip link add $B type bridge
ip address add 10.99.0.1/24 dev $B
ip link set $B up
dockerd --host unix://$T/docker.sock --config-file $T/daemon.json --data-root $T/data --exec-root $T/exec \
  --pidfile $T/dockerd.pid --bridge $B --iptables=false --ip6tables=false --ip-masq=false > $T/log 2>&1 &
wait $!
"""


@dataclass(frozen=True)
class SealedDocker:
    """The daemon: `folder` holds all of it, `pid` is the first process inside."""

    folder: Path
    pid: int

    @property
    def socket(self) -> Path:
        """Where it answers; a Unix socket, so from outside too."""
        return self.folder / "docker.sock"

    def inside(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs `argv` in there, in the folder of the caller."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", f"--wd={Path.cwd()}"]
        return [*enter, *map(str, argv)]

    def run(self, argv: Sequence[str | Path], env: Mapping[str, str], timeout: float = 300) -> "Ran":
        """Run it in there."""
        done = subprocess.run(
            self.inside(argv), env=dict(env), capture_output=True, text=True, timeout=timeout, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def attempts(self) -> dict[str, int]:
        """Packets that anybody in there tried to send out, or that a container had forwarded: counters of the kernel.

        https://docs.kernel.org/networking/snmp_counter.html
        """
        found: dict[str, int] = {}
        for name, wanted in (("snmp", ("OutNoRoutes", "ForwDatagrams")), ("netstat", ("InNoRoutes",))):
            text = self.run(["cat", f"/proc/net/{name}"], {}).stdout.splitlines()
            for head, row in zip(text[::2], text[1::2], strict=True):
                for key, value in zip(head.split(), row.split(), strict=True):
                    if key in wanted and head.startswith(("Ip:", "IpExt:")):
                        found[key] = int(value)
        return found

    def left(self) -> int:
        """Packets that were sent by an interface that leads out of the namespace. There is none, so 0."""
        sent = 0
        for line in self.run(["cat", "/proc/net/dev"], {}).stdout.splitlines()[2:]:
            name, _, figures = line.partition(":")
            if name.strip() not in ("lo", BRIDGE) and not name.strip().startswith("veth"):
                sent += int(figures.split()[9])
        return sent


@dataclass(frozen=True)
class Ran:
    """A finished program."""

    code: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def sealed_docker(folder: Path) -> Iterator[SealedDocker]:
    """Have the daemon answer in the existing `folder`, whose path is short; nothing of it runs afterwards."""
    (folder / "daemon.json").write_text('{"exec-opts": ["native.cgroupdriver=cgroupfs"]}')
    daemon = {**engine.daemon_environment(paths()), "T": str(folder), "B": BRIDGE, "TMPDIR": str(folder)}
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "setup.log").open("wb") as log:
        process = subprocess.Popen(["unshare", *namespaces, "sh", "-c", _SETUP], env=daemon, stdout=log, stderr=log)
    try:
        host = SealedDocker(folder, _first_inside(process))
        _wait(host, process)
        yield host
    finally:
        process.kill()
        process.wait()


def _first_inside(process: "subprocess.Popen[bytes]") -> int:
    until = time.monotonic() + 10
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if found := children.read_text().split():
                return int(found[0])
        time.sleep(0.01)
    raise AssertionError("nothing was started in the namespaces")


def _wait(host: SealedDocker, process: "subprocess.Popen[bytes]") -> None:
    client = [str(paths().unpacked / "usr/bin/docker"), "-H", f"unix://{host.socket}", "version"]
    until = time.monotonic() + 60
    env = {**os.environ, "DOCKER_CONFIG": str(host.folder)}
    while time.monotonic() < until and process.poll() is None:
        if subprocess.run(client, env=env, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    logs = [(host.folder / name) for name in ("setup.log", "log")]
    raise AssertionError(f"{shlex.join(client)}: " + "".join(p.read_text()[-2000:] for p in logs if p.exists()))
