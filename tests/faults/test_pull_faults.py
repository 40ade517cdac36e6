"""Fault: what a registry, a disk, a line and the clock can do to a pull. Real daemon, real registry."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from nimctl.launch.docker import Engine
from nimctl.launch.docker.keeping import Keeper, name_of
from nimctl.launch.docker.pull import PullPlan
from nimctl.registry.reference import parse
from nimctl.registry.resolving import resolve_image
from tests.conftest import Done, Nimctl, private_environment
from tests.lib import lab, nim_image
from tests.lib.lab import push as push_room
from tests.lib.remote_images import MANIFEST, make_image

pytestmark = pytest.mark.lab


@pytest.fixture
def host() -> dict[str, str]:
    return lab.environment("none")


@pytest.fixture
def named(request: pytest.FixtureRequest, host: dict[str, str]) -> Iterator[str]:
    """A reference of this test's own, in a repository that anyone may pull; its image is removed afterwards."""
    reference = f"{lab.registry_info().address}/open/pull-{request.node.name.split('[')[0][5:45].strip('_')}:1"
    yield reference
    docker(host, "rmi", "-f", reference)


def docker(host: dict[str, str], *words: str) -> str:
    done = subprocess.run(["docker", *words], env=host, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()


def push(reference: str, content: str) -> str:
    return lab.push_image(reference.partition("/")[2], {"file": content.encode()})


def pulled(nimctl: Nimctl, reference: str, host: dict[str, str], *words: str) -> Done:
    return nimctl("pull", reference, "--json", *words, env=host)


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def test_a_pull_ends_with_exactly_the_image_and_is_told_as_lines(nimctl: Nimctl, host, named):
    wanted = push(named, "one")
    done = pulled(nimctl, named, host)
    assert done.code == 0, done.stderr
    assert done.document["digest"] == wanted
    assert wanted in docker(host, "inspect", "-f", "{{.RepoDigests}}", named)
    told = [line for line in lines(done) if line["stage"] == "image"]
    assert {line["schema"] for line in told} == {"nimctl.progress/1"}
    assert {line["total"] for line in told} == {told[-1]["total"]}, "the total is known from the beginning"
    assert (told[-1]["state"], told[-1]["bytes"]) == ("done", told[-1]["total"])
    before = lab.served(named.partition("/")[2].partition(":")[0])
    assert pulled(nimctl, named, host).code == 0
    assert lab.served(named.partition("/")[2].partition(":")[0]).blobs - before.blobs == 1, "the configuration alone"


def test_a_moved_tag_is_taken_by_pull_and_said(nimctl: Nimctl, host, named):
    first = push(named, "one")
    docker(host, "pull", named)
    second = push(named, "two")
    done = pulled(nimctl, named, host)
    assert (done.document["was"], done.document["digest"]) == (first, second)
    assert f"digest-changed: {named} was {first}, now {second}" in done.stderr
    assert second in docker(host, "inspect", "-f", "{{.RepoDigests}}", named)


def test_a_platform_that_is_missing_is_named_with_those_that_exist(nimctl: Nimctl, host, named):
    image = push(named, "for others")
    lab.push_index(named.partition("/")[2], {"linux/s390x": image, "linux/ppc64le": image})
    done = pulled(nimctl, named, host)
    assert (done.error_id, done.code) == ("platform-missing", 5)
    assert "linux/s390x, linux/ppc64le" in done.stderr


def layer_of(reference: str) -> str:
    """The digest of the one layer of a pushed image."""
    repository, _, tag = reference.partition("/")[2].rpartition(":")
    folder = lab.paths().registry / "data/docker/registry/v2"
    link = (folder / f"repositories/{repository}/_manifests/tags/{tag}/current/link").read_text().strip()
    manifest = json.loads(lab.faults.blob_file(lab.paths(), link).read_text())
    return str(manifest["layers"][0]["digest"])


def test_a_layer_that_rots_on_the_registrys_disk_is_refused_by_docker(nimctl: Nimctl, host, named):
    push(named, "rot" * 500)
    with lab.rotten_blob(layer_of(named), 700):
        done = pulled(nimctl, named, host)
    assert (done.error_id, done.code) == ("image-tampered", 5), done.stderr
    assert docker(host, "images", "-q", named) == ""


def test_a_manifest_that_was_changed_is_refused_before_docker_is_asked(nimctl: Nimctl, host, named):
    wanted = push(named, "manifest")
    file = lab.faults.blob_file(lab.paths(), wanted)
    good = file.read_bytes()
    file.write_bytes(good.replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    try:
        done = pulled(nimctl, f"{named.rpartition(':')[0]}@{wanted}", host)
    finally:
        file.write_bytes(good)
    assert (done.error_id, done.code) == ("image-tampered", 5), done.stderr


@pytest.mark.parametrize(
    ("folder", "error_id", "code"),
    [("busy", "image-rate-limited", 5), ("down", "image-pull-failed", 5)],
)
def test_a_registry_that_refuses_is_one_clear_error(nimctl: Nimctl, host, tmp_path, folder, error_id, code):
    configuration = lab.docker_config(tmp_path / "docker", key=lab.registry_info().key)
    env = {**host, "DOCKER_CONFIG": str(configuration)}
    done = pulled(nimctl, f"{lab.registry_info().address}/{folder}/tiny:1", env)
    assert (done.error_id, done.code) == (error_id, code), done.stderr


def test_layers_that_are_unpacked_are_not_fetched_again(host, monkeypatch):
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, host[name])
    repository = "open/pull-keeper"
    reference = f"{lab.registry_info().address}/{repository}:1"
    image = make_image(layers=[push_room._layer({name: name.encode()}) for name in ("first", "second")])
    client = push_room._Client(lab.registry_info(), repository)
    for body in (*image.layers, image.config):
        client.upload(body)
    client.call("PUT", "manifests/1", image.manifest, {"Content-Type": MANIFEST})
    with closing(Engine.connect(20)) as engine:
        remote = resolve_image(parse(reference), None, engine.platform)
        plan = PullPlan(remote.identity, tuple((one.digest, one.size) for one in remote.layers), remote.diff_ids)
        keeper = Keeper(engine, plan)
        try:
            engine.pull(plan)
            keeper.keep(1)
            docker(host, "rmi", "-f", reference)
            before = lab.served(repository)
            engine.pull(plan)
            assert (lab.served(repository) - before).blobs == 2, "the configuration and the second layer"
            keeper.done()
            assert engine.inspect_image(name_of(plan)) is None
        finally:
            docker(host, "rmi", "-f", reference)
            docker(host, "rmi", "-f", name_of(plan))


def test_with_progress_json_all_of_stderr_is_lines_of_json(nimctl: Nimctl, host, named):
    done = pulled(nimctl, named, host, "--progress", "json")
    assert (done.error_id, done.code) == ("image-not-found", 5)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in told][-1] == "error" and told[-1]["id"] == "image-not-found"
    assert any(line["event"] == "note" and named in line["text"] for line in told)


def test_containerds_store_gives_up_at_once_and_nimctl_does_not(nimctl: Nimctl, named):
    second = lab.environment("none", "containerd")
    wanted = push(named, "x" * 5000)
    repository, _, _ = named.partition("/")[2].partition(":")
    try:
        with lab.fault(repository, status=503, times=1, after=1):
            done = pulled(nimctl, named, second)
        assert done.code == 0, done.stderr
        assert "trying again in 1 s" in done.stderr
        assert docker(second, "inspect", "-f", "{{.Id}}", named) == wanted
    finally:
        docker(second, "rmi", "-f", named)


def test_a_token_that_is_not_taken_any_more_in_a_pull_is_asked_for_again(nimctl: Nimctl, host, named):
    push(named, "token")
    repository = named.partition("/")[2].partition(":")[0]
    with lab.fault(repository, status=401, times=1, after=1):
        done = pulled(nimctl, named, host)
    assert done.code == 0, done.stderr


def test_the_weights_of_an_image_that_fetches_its_own(nimctl: Nimctl, host, tmp_path, monkeypatch):
    reference = nim_image.push("open/pull-nim:1", tmp_path)
    cache = tmp_path / "cache"
    env = {**host, "NGC_API_KEY": "nvapi-canary-0123456789"}
    words = ("kimi-k2.5-nim", "--image", reference, "--weights", "--gpus", "none", "--cache", str(cache))
    monkeypatch.setenv("DOCKER_HOST", host["DOCKER_HOST"])
    try:
        done = nimctl("pull", *words, "--json", env=env)
        assert done.code == 0, done.stderr
        assert (cache / "ngc/weights").read_bytes() == nim_image.WEIGHTS
        assert done.document["weights"]["new_bytes"] >= len(nim_image.WEIGHTS)
        assert "nvapi-canary" not in done.stderr + done.stdout
        (cache / "said").write_text("wait")
        stop_when_it_waits([*words], {**private_environment(env, tmp_path), "NGC_API_KEY": env["NGC_API_KEY"]})
        assert docker(host, "ps", "-aq", "--filter", "name=kimi-k2.5-nim-weights") == "", "it is always removed"
    finally:
        docker(host, "rmi", "-f", reference)


def stop_when_it_waits(words: list[str], env: dict[str, str]) -> None:
    """Ctrl-C once the container is there."""
    command = [sys.executable, "-m", "nimctl", "pull", *words, "--progress", "plain"]
    quiet = subprocess.DEVNULL
    with (
        closing(Engine.connect(20)) as engine,  # a docker command for each look would take the CPU that nimctl needs
        subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet) as process,
    ):
        try:
            until = time.monotonic() + 60
            while not ((found := engine.inspect("kimi-k2.5-nim-weights")) and found["State"]["Running"]):
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < until, "its container does not start"
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
