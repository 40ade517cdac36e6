"""Fault: Docker does not know NVIDIA's runtime. `nimctl doctor --fix` tells a real daemon, or puts everything back."""

import json
import os
import pty
import select
import subprocess
import sys

import pytest

from tests.lib.own_docker import own_docker
from tests.lib.users import needs_root

pytestmark = [pytest.mark.lab, needs_root]

BEFORE = '{"log-level": "warn", "features": {"buildkit": true}}\n'
FIX = ("doctor", "demo", "--gpus", "all", "--only", "docker", "--json", "--fix")


@pytest.fixture
def docker(home):
    folder = home / "d"
    folder.mkdir()
    with own_docker(folder, home, BEFORE) as host:
        yield host


def remedy(done):
    (found,) = done.document["remedies"]
    return found


def ids(done):
    return {f["id"] for f in done.document["findings"] if f["verdict"] == "fail"}


def test_the_runtime_is_brought_to_a_running_daemon_without_a_restart(docker):
    planned = docker.nimctl(*FIX)
    assert (planned.code, ids(planned)) == (3, {"gpu-runtime-missing"}), planned.stderr
    assert (remedy(planned)["id"], remedy(planned)["refused"]) == ("docker-runtime", None)
    assert (docker.configuration.read_text(), docker.asked) == (BEFORE, [])

    pid = (docker.folder / "dockerd.pid").read_text()
    done = docker.nimctl(*FIX, "--yes")
    assert remedy(done)["applied"], remedy(done)["error"]
    assert (done.code, ids(done)) == (0, set())
    assert docker.asked == ["reload docker"]
    assert (docker.folder / "dockerd.pid").read_text() == pid
    after = json.loads(docker.configuration.read_text())
    assert after.pop("runtimes").keys() == {"nvidia"}
    assert after == json.loads(BEFORE)
    (copy,) = docker.configuration.parent.glob("daemon.json.nimctl-*.bak")
    assert copy.read_text() == BEFORE
    assert docker.nimctl(*FIX, "--yes").document["remedies"] == []


def test_a_service_that_cannot_be_reloaded_leaves_the_configuration_as_it_was(docker):
    (docker.folder / "systemctl-fails").touch()
    done = docker.nimctl(*FIX, "--yes")
    error = remedy(done)["error"]
    assert (done.code, error["id"], remedy(done)["applied"]) == (3, "fix-failed", False)
    assert "Job for docker.service failed." in error["cause"]
    assert any(line.startswith("put back as it was: /etc/docker/daemon.json") for line in error["evidence"])
    assert docker.configuration.read_text() == BEFORE
    assert ids(done) == {"gpu-runtime-missing"}


@pytest.mark.parametrize(("answer", "changed"), [(b"y\n", True), (b"\n", False)])
def test_on_a_terminal_the_question_is_asked_and_its_answer_counts(docker, answer, changed):
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "nimctl", *(word for word in FIX if word != "--json")]
    inside = ["nsenter", f"--mount=/proc/{docker.pid}/ns/mnt", f"--wd={docker.folder}", *argv]
    process = subprocess.Popen(
        inside, env=dict(docker.environment), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    shown, answered = b"", False
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the terminal was closed: it has ended
                break
            shown += data
            if b"Apply 1 of them?" in shown and not answered:
                os.write(ours, answer)
                answered = True
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert answered, shown
    assert code == (0 if changed else 3)
    assert (docker.configuration.read_text() != BEFORE) == changed
    assert b"risk: reloads Docker" in shown
