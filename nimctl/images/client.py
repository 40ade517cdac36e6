"""The running `docker buildx` client: that it exists, what it writes line by line, and that it always ends."""

import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nimctl.core.command import DOCKER_LOGINS, run, without_keys
from nimctl.core.errors import NimctlError

STALL_S = 1800.0  # the longest silence: one wheel of 1 GB at 0.6 MB/s


def require_buildx(env: Mapping[str, str]) -> None:
    """Raise `docker-missing` without a docker command, `image-build-failed` without its buildx plugin."""
    if not shutil.which("docker", path=env.get("PATH")):
        raise NimctlError(
            "docker-missing",
            "images are built by Docker, and there is no docker command",
            cause="no executable named docker is on PATH",
            fix="install Docker Engine 24 or newer with its buildx plugin",
        )
    answer = run(["docker", "buildx", "version"], timeout=20.0, env=env)
    if not answer.ok:
        raise NimctlError(
            "image-build-failed",
            "docker has no buildx plugin",
            cause="images are built by `docker buildx bake`, and `docker buildx version` failed",
            fix="install the package docker-buildx-plugin (Docker's own) or docker-buildx (Debian's)",
            evidence=answer.stderr.splitlines()[:3],
        )


@contextmanager
def started(argv: Sequence[str], env: Mapping[str, str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The running client with both outputs in one pipe; whatever happens, it has ended when the block ends."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=without_keys(env, keep=DOCKER_LOGINS),  # docker pushes with it
        cwd=folder,
        text=True,
        errors="replace",
    )
    try:
        yield process
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def lines_of(process: "subprocess.Popen[str]", *, stall_s: float = STALL_S) -> Iterator[str]:
    """The client's output line by line until it closes it; raises `image-build-failed` after `stall_s` of silence."""
    output = process.stdout
    if output is None:
        raise ValueError("the process has no output pipe")
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        with output:
            for line in output:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, name="build-output", daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=stall_s)
        except queue.Empty:
            raise NimctlError(
                "image-build-failed",
                f"the build wrote nothing for {stall_s / 60:.0f} minutes and was stopped",
                cause="a download hangs, or the builder does",
                fix="run it again: finished steps are kept; check the network and `docker buildx ls`",
            ) from None
        if line is None:
            return
        yield line
