"""Locks against a real registry and a real engine: the same bytes, what moved is found, and nobody else is asked."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Done, Nimctl, private_environment
from tests.lib import lab
from tests.lib.checkpoints import write_folder
from tests.lib.documents import validate
from tests.lib.lab.push import push_image
from tests.lib.tiny_models import QWEN3

pytestmark = pytest.mark.lab

REPOSITORY = "open/lock-tests"
RUN = "lock-test"


@pytest.fixture
def env(home: Path) -> Iterator[dict[str, str]]:
    """A host without GPU; its run and its image are gone afterwards."""
    yield private_environment(lab.environment("none"), home) | {"NIMCTL_IMAGES_CPU": tag()}
    lab.docker("rm", "--force", RUN)
    for name in (tag(), f"{tag()}-other"):
        lab.docker("rmi", "--force", name)


def tag() -> str:
    return f"{lab.registry_info().address}/{REPOSITORY}:1"


def push(content: bytes) -> str:
    """Put another image under the tag."""
    return push_image(lab.registry_info(), f"{REPOSITORY}:1", {"hello": content})


def locked(home: Path) -> str:
    return (home / "nimctl.lock").read_text()


def test_a_lock_is_written_kept_and_held_against_what_moved(nimctl: Nimctl, env: dict[str, str], home: Path) -> None:
    first = push(b"#!/bin/sh\necho first\n")
    done = nimctl("lock", "demo", "--gpus", "none", "--json", env=env)
    assert done.code == 0, done.stderr
    validate(done.document)
    text = locked(home)
    validate(json.loads(text))
    assert f'"linux/amd64": "{first}"' in text or first in text
    for word in (str(home), "/tmp/home", "127.0.0.1:0", "20[2-9][0-9]-"):
        assert not re.search(word, text)

    pulled = lab.docker("pull", tag())
    assert pulled.returncode == 0, pulled.stderr
    again = nimctl("lock", "demo", "--gpus", "none", "--json", env=env)
    assert (again.code, again.document["changed"]) == (0, False)  # that the image is here now changes no byte
    assert locked(home) == text

    second = push(b"#!/bin/sh\necho second\n")
    kept = nimctl("lock", "--check", "--json", env=env)  # a run here would start the one that is here
    assert (kept.code, kept.document["moved"]) == (0, second)
    validate(kept.document)
    lab.docker("rmi", "--force", tag())
    moved = nimctl("lock", "--check", "--json", env=env)
    assert (moved.code, moved.error_id) == (3, "lock-differs")
    assert moved.document["differences"][0]["what"] == "image"
    validate(moved.document)


def test_a_locked_run_asks_nobody_and_drift_sees_what_was_changed(
    nimctl: Nimctl, env: dict[str, str], home: Path, tmp_path: Path
) -> None:
    push(b"locked")  # no program: the container is started, and is dead at once
    assert lab.docker("pull", tag()).returncode == 0
    assert nimctl("lock", "demo", "--gpus", "none", env=env).code == 0
    wanted = lab.docker("inspect", "--format", "{{.Id}}", tag()).stdout.strip()
    push(b"swapped")

    edited = (
        locked(home)
        .replace('"shm_bytes": 1073741824', '"shm_bytes": 1')
        .replace('"revision": "', '"revision": "0')
        .replace('"labels": {}', '"labels": {"io.nimctl.min-driver": "1"}')
    )
    (home / "edited.lock").write_text(edited)
    differs = nimctl("run", "--locked", "edited.lock", "--name", RUN, "--json", env=env)
    assert (differs.code, differs.error_id) == (3, "lock-differs")
    whats = [row["what"] for row in differs.document["differences"]]
    assert whats == ["image.labels.io.nimctl.min-driver", "weights.revision", "container.shm_bytes"]
    validate(differs.document)
    assert lab.docker("ps", "--all", "--quiet", "--filter", f"name={RUN}").stdout.strip() == ""

    run = ("run", "--locked", "--name", RUN, "--port", "18931", "--detach", "--json")
    started, asked = traced(*run, env=env, folder=tmp_path)
    assert started.code == 0, started.stderr
    assert asked == set()
    container = json.loads(lab.docker("inspect", RUN).stdout)[0]
    digest = "sha256:" + hashlib.sha256(locked(home).encode()).hexdigest()
    assert (container["Image"], container["Config"]["Labels"]["io.nimctl.lock"]) == (wanted, digest)

    same = nimctl("drift", RUN, "--json", env=env)
    assert same.code == 0, same.stderr
    validate(same.document)
    assert same.document["differences"] == []
    assert len(same.document["unseen"]) >= 2  # it has never served
    lab.docker("rm", "--force", RUN)

    label, variable = f"--label=io.nimctl.run={RUN}", "--env=LD_PRELOAD=/x.so"
    lab.docker("create", "--name", RUN, label, variable, "--pid=host", "--user=0:0", wanted, "/hello")
    other = nimctl("drift", RUN, "--json", env=env)
    assert (other.code, other.error_id) == (3, "drift-found")
    validate(other.document)
    found = {row["what"] for row in other.document["differences"]}
    assert {
        "variables.LD_PRELOAD",
        "container.cap_drop",
        "container.namespaces",
        "container.read_only",
        "container.user",
    } <= found
    assert not found & {"image", "engine.arguments"}  # these are the same


def test_a_locked_folder_is_checked_wherever_it_lies(nimctl: Nimctl, env: dict[str, str], tmp_path: Path) -> None:
    push(b"folder")
    config = write_folder(tmp_path / "checkpoint") / "config.json"
    config.write_text(json.dumps(QWEN3))
    folder = str(config.parent)
    assert nimctl("lock", folder, "--gpus", "none", env=env).code == 0
    assert nimctl("lock", "--check", folder, env=env).code == 0  # it is not below the current folder
    config.write_text(json.dumps(QWEN3 | {"vocab_size": 2000}) + " ")
    changed = nimctl("lock", "--check", folder, "--json", env=env)
    assert changed.error_id == "lock-differs"
    assert "weights.files.config.json" in [row["what"] for row in changed.document["differences"]]


def traced(*arguments: str, env: dict[str, str], folder: Path) -> tuple[Done, set[str]]:
    """The command line, and every address beyond this machine that it or a child of it spoke to."""
    trace = folder / "trace"
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    argv = ["strace", "-f", "-e", calls, "-o", str(trace), sys.executable, "-m", "nimctl", *arguments]
    done = subprocess.run(argv, env=env, cwd=env["HOME"], capture_output=True, text=True, timeout=120, check=False)
    found = re.findall(r'sin6?_addr=[^"]*"([^"]+)"', trace.read_text())
    assert "docker.sock" in trace.read_text()  # the trace sees what is spoken to
    return Done(done.returncode, done.stdout, done.stderr), {one for one in found if one not in ("127.0.0.1", "::1")}
