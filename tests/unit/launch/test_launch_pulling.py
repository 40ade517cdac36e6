"""A pull goes on after what passes, stops at what stays, and keeps finished layers meanwhile."""

import io
import json
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.pull_progress import PullProgress
from nimctl.launch.docker import engine, keeping
from nimctl.launch.docker.errors import Doing, failure, id_of_sentence
from nimctl.launch.docker.pull import PullPlan, advance, begin
from nimctl.launch.docker.pulling import PAUSES, pull_patiently

MB = 2**20
UNWRITTEN = "failed to register layer: lchown /x: there might be insufficient UIDs or GIDs"
NAMES = ("a" * 12, "b" * 12, "c" * 12)
DIGESTS = tuple(f"sha256:{name}{'0' * 52}" for name in NAMES)
IDENTITY = ImageIdentity("r.example:5000/x/y:1", DIGESTS[0], DIGESTS[1], DIGESTS[2], "linux/amd64")
PLAN = PullPlan(IDENTITY, tuple((digest, 100 * MB) for digest in DIGESTS), ("sha256:1", "sha256:2", "sha256:3"))


def broken(error_id: str = "image-pull-failed", cause: str = "connection reset by peer") -> NimctlError:
    return NimctlError(error_id, "no", cause=cause, fix="Wait.")


class Api:
    """The calls of docker-py that a keeper makes."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.removed: list[str] = []
        self.labelled: dict[str, list[str]] = {}
        self.fails = False

    def load_image(self, data: bytes, quiet: bool) -> list[Any]:
        if self.fails:
            raise OSError("no")
        self.loaded.append(data)
        return []

    def images(self, filters: dict[str, str]) -> list[dict[str, str]]:
        return [{"Id": image} for image in self.labelled.get(filters["label"], [])]

    def remove_image(self, name: str, force: bool) -> None:
        self.removed.append(name)


class Daemon:
    """An engine whose every try is a function: it gets the reporter, and returns or raises."""

    def __init__(self, *tries: Callable[[Callable[[PullProgress], None]], None], containerd: bool = False) -> None:
        self.tries = list(tries)
        self.attempts = 0
        self.api = Api()
        self.facts = DockerFacts("ok", containerd_store=containerd)

    def pull(self, plan: PullPlan, login: object, *, attempt: int, on_event: Any, silence: float) -> Any:
        self.attempts += 1
        assert attempt == self.attempts
        self.tries.pop(0)(on_event)
        return SimpleNamespace(id=DIGESTS[2])

    def inspect_image_raw(self, name: str) -> Any:
        if not self.api.loaded or name != keeping.name_of(PLAN):
            return None
        layers = unpacked(self.api.loaded[-1])[1]["rootfs"]["diff_ids"]
        return {"Id": f"sha256:{len(self.api.loaded)}", "RootFS": {"Layers": layers}}


def reports(*statuses: str, then: BaseException | None = None) -> Callable[[Callable[[PullProgress], None]], None]:
    """A try that says these statuses of the lowest layers, one each, and then fails or ends."""

    def run(on_event: Callable[[PullProgress], None]) -> None:
        progress = begin(PLAN)
        for name, status in zip(NAMES, statuses, strict=False):
            progress = advance(progress, {"id": name, "status": status})
            on_event(progress)
        if then:
            raise then

    return run


def pull(daemon: Daemon, told: list[tuple[str, float]] | None = None) -> Any:
    def on_retry(error: NimctlError, seconds: float) -> None:
        if told is not None:
            told.append((error.id, seconds))

    return pull_patiently(daemon, PLAN, on_retry=on_retry, sleep=lambda _: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("error_id", ["image-pull-failed", "image-rate-limited", "docker-unreachable"])
def test_what_passes_is_tried_again_and_told(error_id):
    told: list[tuple[str, float]] = []
    daemon = Daemon(reports(then=broken(error_id)), reports(then=broken(error_id)), reports())
    assert pull(daemon, told).id == DIGESTS[2]
    assert told == [(error_id, PAUSES[0]), (error_id, PAUSES[1])]


@pytest.mark.parametrize(
    "error",
    [
        broken("key-refused"),
        broken("image-tampered"),
        broken("disk-full"),
        broken(cause="x509: certificate signed by unknown authority"),
        broken(cause="server gave HTTP response to HTTPS client"),
        broken(cause="nothing was heard for 300 s"),
        broken(cause="Proxy Authentication Required"),
        failure(id_of_sentence(UNWRITTEN, Doing("pulling", "pull"), otherwise="image-pull-failed"), "no", UNWRITTEN),
    ],
)
def test_what_does_not_pass_is_not_tried_again(error):
    daemon = Daemon(reports(then=error))
    with pytest.raises(NimctlError) as caught:
        pull(daemon)
    assert caught.value is error and daemon.attempts == 1


def test_patience_ends_when_nothing_comes_any_more():
    daemon = Daemon(*[reports(then=broken()) for _ in range(20)])
    with pytest.raises(NimctlError):
        pull(daemon)
    assert daemon.attempts == len(PAUSES) + 1


def test_patience_begins_anew_with_every_byte():
    few = [reports("Download complete", then=broken()) for _ in range(len(PAUSES))]
    more = [reports("Download complete", "Download complete", then=broken()) for _ in range(len(PAUSES))]
    daemon = Daemon(*few, *more, reports())
    assert pull(daemon).id == DIGESTS[2]


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {name: json.loads(tar.extractfile(name).read()) for name in tar.getnames()}  # type: ignore[union-attr]
    (manifest,) = files["manifest.json"]
    return manifest, files[manifest["Config"]]


LABEL = "io.nimctl.partial-of=r.example:5000/x/y"


def test_finished_layers_are_held_by_an_image_until_all_are_here():
    daemon = Daemon(reports("Pull complete", "Pull complete", then=broken()), reports())
    daemon.api.labelled[LABEL] = ["sha256:2", "sha256:of another tag"]
    pull(daemon)
    held = [unpacked(data) for data in daemon.api.loaded]
    assert [config["rootfs"]["diff_ids"] for _, config in held] == [["sha256:1"], ["sha256:1", "sha256:2"]]
    assert {f"{name}={value}" for _, config in held for name, value in config["config"]["Labels"].items()} == {LABEL}
    assert all(manifest["RepoTags"] == [keeping.name_of(PLAN)] for manifest, _ in held)
    assert daemon.api.removed == ["sha256:1", *daemon.api.labelled[LABEL]], "the one before; all when it is whole"


def test_what_a_killed_pull_left_is_replaced_by_more_layers_and_never_by_fewer():
    daemon = Daemon(reports("Already exists", "Already exists", "Pull complete"))
    daemon.api.loaded.append(keeping.archive(PLAN, 2))
    pull(daemon)
    assert len(daemon.api.loaded) == 2 and daemon.api.removed == ["sha256:1"]
    assert unpacked(daemon.api.loaded[1])[1]["rootfs"]["diff_ids"] == list(PLAN.diff_ids)


def test_ctrl_c_leaves_the_finished_layers():
    daemon = Daemon(reports("Pull complete", then=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        pull(daemon)
    assert len(daemon.api.loaded) == 1 and not daemon.api.removed


def test_containerds_store_needs_none_of_it():
    daemon = Daemon(reports("Pull complete", then=broken()), reports(), containerd=True)
    pull(daemon)
    assert (daemon.api.loaded, daemon.api.removed) == ([], [])


def test_a_daemon_that_takes_no_keeper_is_pulled_from_all_the_same():
    daemon = Daemon(reports("Pull complete", "Pull complete", "Pull complete"))
    daemon.api.fails = True
    assert pull(daemon).id == DIGESTS[2]


def test_two_tags_of_one_repository_have_a_keeper_each():
    other = PullPlan(replace(IDENTITY, reference="r.example:5000/x/y:2", manifest=DIGESTS[2]))
    assert keeping.name_of(other) != keeping.name_of(PLAN)


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_killed_pull_left_or_a_daemon_refuses_is_not_asked_about_at_every_event(monkeypatch, fails):
    daemon, looks = Daemon(), list[str]()
    daemon.api.fails = fails
    if not fails:
        daemon.api.loaded.append(keeping.archive(PLAN, 2))
    found = daemon.inspect_image_raw

    def look(name: str) -> Any:
        looks.append(name)
        return found(name)

    monkeypatch.setattr(daemon, "inspect_image_raw", look)
    keeper = keeping.Keeper(daemon, PLAN)  # type: ignore[arg-type]
    progress = advance(begin(PLAN), {"status": "Already exists", "id": NAMES[0]})
    for _ in range(5):
        keeper.note(progress)
    assert len(looks) == 1
    assert len(daemon.api.loaded) == (0 if fails else 1)


def test_a_pull_that_says_nothing_is_reported_all_the_same(monkeypatch):
    monkeypatch.setattr(engine, "_BEAT", 0.001)
    seen: list[PullProgress] = []
    enough = threading.Event()

    def stream(*_: object, **__: object) -> Any:
        yield {"id": NAMES[0], "status": "Downloading", "progressDetail": {"current": MB, "total": 100 * MB}}
        assert enough.wait(20), "nothing was reported meanwhile"

    def on_event(progress: PullProgress) -> None:
        seen.append(progress)
        if len(seen) == 4:
            enough.set()

    api = SimpleNamespace(
        pull=stream, tag=lambda *_, **__: None, inspect_image=lambda _: {"Id": DIGESTS[2], "RepoDigests": []}
    )
    engine.Engine(api, DockerFacts("ok")).pull(PLAN, on_event=on_event, silence=30)
    assert {(one.done, one.phase, one.detail) for one in seen} == {(MB, "fetching", f"Downloading {NAMES[0]}")}
