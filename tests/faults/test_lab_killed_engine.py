"""Fault: the lab's daemons are killed or stand still while a container runs, and leftovers pile up.

What is left is ended, and the next start works; what is only slow is waited for.
"""

import io
import os
import signal
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.lab import base_image, control, engine, gpus
from tests.lib.lab.paths import Paths, paths
from tests.lib.lab.steps import running_pid

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def prepared_lab() -> Iterator[Paths]:
    """A lab of its own beside the running one, from the same packages and the same base image."""
    with tempfile.TemporaryDirectory(prefix="lab-", dir="/var/tmp") as folder:  # socket paths are short there
        own, shared = Paths(Path(folder)), paths()
        own.make()
        own.unpacked.rmdir()
        own.unpacked.symlink_to(shared.unpacked)
        (own.apt / "unpacked").symlink_to(shared.apt / "unpacked")
        own.base_tarball.parent.mkdir()
        own.base_tarball.symlink_to(shared.base_tarball)
        gpus.prepare(own)
        engine.start_engine(own)
        try:
            base_image.ensure_base_image(own)
            yield own
        finally:
            control.down(own)
            Path(f"{folder}.lock").unlink()


@pytest.fixture
def second_lab(prepared_lab: Paths) -> Paths:
    engine.start_engine(prepared_lab)
    return prepared_lab


def start_container_and_kill_the_daemons(lab: Paths) -> int:
    """Returns the pid of the container's first process."""
    name = engine.docker(lab, "run", "-d", base_image.IMAGE, "sleep", "infinity").strip()
    pid = int(engine.docker(lab, "inspect", "--format", "{{.State.Pid}}", name))
    for daemon in ("dockerd.pid", "containerd.pid"):
        running = running_pid(lab.run / daemon)
        assert running is not None
        os.kill(running, signal.SIGKILL)
    return pid


def processes_of(lab: Paths) -> list[str]:
    """Command lines that name the lab's run folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(lab.run) in line:
            found.append(line)
    return found


def test_down_ends_the_container_and_leaves_nothing(second_lab: Paths) -> None:
    pid = start_container_and_kill_the_daemons(second_lab)
    assert Path(f"/proc/{pid}").exists()
    control.down(second_lab)
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    assert processes_of(second_lab) == []
    assert f" {second_lab.state}/" not in Path("/proc/mounts").read_text()
    assert not Path("/sys/class/net", second_lab.bridge).exists()


def test_up_starts_again_and_runs_containers(second_lab: Paths) -> None:
    pid = start_container_and_kill_the_daemons(second_lab)
    engine.start_engine(second_lab)
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    assert engine.docker(second_lab, "run", "--rm", base_image.IMAGE, "echo", "hello") == "hello\n"


def test_a_daemon_that_is_only_slow_is_waited_for(second_lab: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a second start must not end everybody's containers."""
    pid = running_pid(second_lab.run / "dockerd.pid")
    assert pid is not None
    monkeypatch.setattr(engine, "PATIENCE", 0.1)
    os.kill(pid, signal.SIGSTOP)
    goes_on = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
    goes_on.start()
    try:
        assert not engine.answers(second_lab)
        engine.start_engine(second_lab)
    finally:
        goes_on.join()
    assert running_pid(second_lab.run / "dockerd.pid") == pid


def test_images_that_lost_their_name_are_deleted(
    second_lab: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each build of an image takes the name from the one before, of gigabytes."""
    ids = []
    for content in (b"old", b"new"):
        with tarfile.open(tmp_path / "one.tar", "w") as layer:
            entry = tarfile.TarInfo("file")
            entry.size = len(content)
            layer.addfile(entry, io.BytesIO(content))
        ids.append(engine.docker(second_lab, "import", tmp_path / "one.tar", "again:1").strip())
    engine.remove_leftovers(second_lab)
    assert set(ids) < set(engine.docker(second_lab, "images", "--quiet", "--no-trunc").split())  # too young
    monkeypatch.setattr(engine, "LEFTOVERS_KEPT", "-1m")  # until a minute from now: Docker counts whole seconds
    engine.remove_leftovers(second_lab)
    left = engine.docker(second_lab, "images", "--quiet", "--no-trunc").split()
    assert ids[0] not in left and ids[1] in left
