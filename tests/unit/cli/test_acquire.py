"""An image is resolved once, taken exactly, and a tag that moved is never taken or kept in silence."""

from dataclasses import replace
from typing import Any

import pytest

from nimctl.cli import acquire
from nimctl.cli.config import load
from nimctl.cli.proofs import kept as kept_signatures
from nimctl.cli.pull import _described
from nimctl.cli.target import ImageChoice
from nimctl.core.errors import NimctlError
from nimctl.core.facts import DockerFacts
from nimctl.core.image_identity import ImageIdentity
from nimctl.core.image_names import local_tag
from nimctl.launch.docker import Engine, ImageInfo
from nimctl.render import Output
from nimctl.trust import keys
from nimctl.trust.signing import sign_image
from tests.lib.little_registry import LittleRegistry, little_registry
from tests.lib.remote_images import MadeImage, Shelf, digest, make_image

OLD, NEW = make_image(layers=[b"old"]), make_image(layers=[b"new"])


class Api:
    """The images of a classic store, by every name; `gives` is what a pull brings, whatever was asked for."""

    def __init__(self) -> None:
        self.images: dict[str, MadeImage] = {}
        self.digests: dict[str, str] = {}
        self.gives: MadeImage | None = None
        self.pulls: list[str] = []

    def have(self, image: MadeImage, repository: str, tag: str | None = None) -> None:
        exact = f"{repository}@{digest(image.manifest)}"
        self.digests[digest(image.config)] = exact
        for name in (exact, digest(image.config), *([f"{repository}:{tag}"] if tag else [])):
            self.images[name] = image

    def built(self, image: MadeImage, tag: str) -> None:
        self.images |= {tag: image, digest(image.config): image}

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise NimctlError("image-not-found", "no", cause="no", fix="no")
        id_ = digest(self.images[name].config)
        known = [self.digests[id_]] if id_ in self.digests else []
        return {"Id": id_, "RepoDigests": known, "Os": "linux", "Architecture": "amd64"}

    def pull(self, repository: str, tag: str, **_: Any) -> list[dict[str, Any]]:
        self.pulls.append(tag)
        image = self.gives or next(image for image in (OLD, NEW) if digest(image.manifest) == tag)
        self.have(image, repository)
        self.images[f"{repository}@{tag}"] = image
        return [{"status": "Pull complete", "id": digest(layer)[7:19]} for layer in image.layers]

    def tag(self, name: str, repository: str, tag: str, force: bool) -> None:
        self.images[f"{repository}:{tag}"] = self.images[name]

    def remove_image(self, name: str, force: bool) -> None:
        raise OSError("there is none")


@pytest.fixture
def registry(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NIM_DISABLE_MODEL_DOWNLOAD", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with little_registry() as running:
        yield running


def publish(registry: LittleRegistry, image: MadeImage) -> str:
    shelf = Shelf()
    shelf.put("1", image)
    registry.content = shelf.content
    return f"{registry.address}/a/b:1"


def engine() -> Engine:
    return Engine(Api(), DockerFacts("ok", endpoint="tcp://far", architecture="x86_64", containerd_store=False))


def pull(reference: str, daemon: Engine) -> acquire.Held:
    return acquire.pull_image(reference, daemon, Output.choose("pull"), load({}))


def ensure(reference: str, daemon: Engine) -> acquire.Held:
    choice = ImageChoice(reference, "a test", "pull")
    return acquire.ensure_image(choice, "cpu", daemon, Output.choose("run"), load({}))


@pytest.mark.parametrize(
    ("name", "digests", "only_here"),
    [
        ("my/own:1", [], True),  # classic store: built or loaded
        (local_tag("cpu"), ["nimctl/cpu@" + digest(b"its own")], True),  # containerd's store, built here
        ("registry.example/a:1", ["registry.example/a@" + digest(b"its own")], False),  # the same store, pulled
    ],
)
def test_what_was_never_in_a_registry_is_told_in_both_stores(name, digests, only_here):
    daemon = engine()
    daemon.api.inspect_image = lambda _: {"Id": digest(b"its own"), "RepoDigests": digests, "Os": "linux"}
    assert acquire.is_only_here(name, daemon) is only_here


def test_what_is_not_here_is_asked_for():
    assert not acquire.is_only_here("my/own:1", engine())


def test_labels_that_ask_too_much_are_refused_before_a_layer_is_pulled(registry):
    wanted = {"io.nimctl.min-driver": "999"}
    reference, daemon = publish(registry, make_image(labels=wanted)), engine()
    seen = []

    def admit(labels):
        seen.append(dict(labels))
        raise NimctlError("driver-too-old", "no", cause="no", fix="no")

    choice = ImageChoice(reference, "a test", "pull")
    with pytest.raises(NimctlError) as raised:
        acquire.ensure_image(choice, "cuda", daemon, Output.choose("run"), load({}), admit=admit)
    assert (raised.value.id, seen, daemon.api.pulls) == ("driver-too-old", [wanted], [])


def test_what_is_pulled_is_the_manifest_and_held_by_its_id(registry):
    reference, daemon = publish(registry, OLD), engine()
    held = pull(reference, daemon)
    assert daemon.api.pulls == [digest(OLD.manifest)]
    assert (held.id, held.digest, held.was) == (digest(OLD.config), digest(OLD.manifest), None)
    assert daemon.api.images[reference] is OLD
    assert pull(reference, daemon).id == held.id and len(daemon.api.pulls) == 1, "it is here already"


def test_another_image_than_promised_gets_no_name(registry):
    reference, daemon = publish(registry, OLD), engine()
    daemon.api.gives = NEW
    with pytest.raises(NimctlError) as caught:
        pull(reference, daemon)
    assert (caught.value.id, caught.value.exit_code) == ("image-tampered", 5)
    assert reference not in daemon.api.images


def test_pull_takes_what_the_tag_stands_for_now_and_says_so(registry, capsys):
    reference, daemon = publish(registry, OLD), engine()
    pull(reference, daemon)
    publish(registry, NEW)
    held = pull(reference, daemon)
    assert (held.was, held.id) == (digest(OLD.manifest), digest(NEW.config))
    assert daemon.api.images[reference] is NEW
    told = capsys.readouterr().out
    assert f"digest-changed: {reference} was {digest(OLD.manifest)}, now {digest(NEW.manifest)}" in told


def test_was_and_manifest_are_of_one_kind_where_the_tag_stands_for_an_index(registry, capsys):
    shelf, other = Shelf(), make_image("linux/arm64")
    shelf.put("1", OLD, other)
    registry.content = shelf.content
    reference, daemon = f"{registry.address}/a/b:1", engine()
    first = pull(reference, daemon)
    shelf.put("1", NEW, other)
    second = pull(reference, daemon)
    assert second.was == first.identity.manifest == digest(OLD.manifest) != first.digest
    assert f"was {second.was}, now {digest(NEW.manifest)}" in capsys.readouterr().out
    document = _described(reference, second)
    assert (document["was"], document["manifest"]) == (second.was, digest(NEW.manifest))


@pytest.mark.parametrize(
    ("taken", "called", "name"),
    [
        (False, "{}:1", "{}:1"),
        (True, "{}:1", "{}:locked-" + digest(OLD.manifest)[7:19]),
        (False, None, "{}:locked-" + digest(OLD.manifest)[7:19]),
    ],
)
def test_what_comes_by_digest_has_a_name_that_was_free(registry, taken, called, name):
    reference, daemon = publish(registry, OLD), engine()
    repository = reference.removesuffix(":1")
    if taken:
        daemon.api.have(NEW, repository, "1")
    known = ImageIdentity(called.format(repository), None, None, None, "linux/amd64") if called else None
    choice = ImageChoice(f"{repository}@{digest(OLD.manifest)}", "the lock", "pull", known)
    for _ in range(2):
        held = acquire.ensure_image(choice, "cpu", daemon, Output.choose("run"), load({}))
    assert held.id == digest(OLD.config)
    assert [tag for tag, image in daemon.api.images.items() if image is OLD and "sha256" not in tag] == [
        name.format(repository)
    ]
    assert not taken or daemon.api.images[reference] is NEW


def test_run_keeps_the_one_that_is_here_and_says_so(registry, capsys):
    reference, daemon = publish(registry, OLD), engine()
    pull(reference, daemon)
    publish(registry, NEW)
    held = ensure(reference, daemon)
    assert held.id == digest(OLD.config) and len(daemon.api.pulls) == 1
    told = capsys.readouterr().out
    assert "digest-changed" in told and digest(NEW.manifest) in told and "kept" in told


def test_run_knows_all_digests_of_an_image_that_is_still_the_newest(registry, capsys):
    reference, daemon = publish(registry, OLD), engine()
    pull(reference, daemon)
    held = ensure(reference, daemon)
    assert held.identity.digests == (digest(OLD.manifest), digest(OLD.config))
    assert "digest-changed" not in capsys.readouterr().out


def test_run_starts_what_is_here_when_the_registry_does_not_answer_and_asks_nobody_offline(
    registry, capsys, monkeypatch
):
    reference, daemon = publish(registry, OLD), engine()
    pull(reference, daemon)
    registry.content = {"none": ("", b"")}
    assert ensure(reference, daemon).id == digest(OLD.config)
    assert "is not known" in capsys.readouterr().out
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(registry.seen)
    assert ensure(reference, daemon).id == digest(OLD.config)
    assert len(registry.seen) == before


@pytest.fixture
def strict(tmp_path, monkeypatch):
    """The user's own file: `require`, and one key for registry.test."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("NIMCTL_VERIFY", raising=False)
    private, public = keys.generate(tmp_path / "k", None)
    (tmp_path / "nimctl").mkdir()
    rule = f"trust: [{{images: registry.test/**, keys: {public}}}]"
    (tmp_path / "nimctl" / "config.yaml").write_text(f"verify: require\n{rule}\n")
    return private


def start_locked(daemon: Engine, reference: str, image: MadeImage, manifest: str | None) -> acquire.Held:
    claimed = ImageIdentity(reference, manifest, manifest, digest(image.config), "linux/amd64")
    choice = ImageChoice(reference, "the lock", "pull" if manifest else "build", claimed, digest(image.config))
    return acquire.ensure_image(choice, "cpu", daemon, Output.choose("run"), load({}))


def test_a_lock_lends_the_signature_of_one_image_to_no_other(strict):
    daemon, signed = engine(), digest(OLD.manifest)
    daemon.api.have(NEW, "registry.test/open/x", "1")
    claimed = ImageIdentity("registry.test/nim/x:1", signed, signed, digest(NEW.config), "linux/amd64")
    material = sign_image(keys.read_private(strict, None), "registry.test/nim/x", signed)
    kept_signatures.keep(claimed, material, [OLD.manifest])
    with pytest.raises(NimctlError) as raised:
        start_locked(daemon, claimed.reference, NEW, signed)
    assert raised.value.exit_code == 5 and raised.value.id.startswith("signature-")
    kept_signatures.keep(replace(claimed, config=digest(OLD.config)), material, [OLD.manifest])
    daemon.api.built(OLD, "loaded:1")  # no registry gave it: its manifest's bytes name it
    held = start_locked(daemon, claimed.reference, OLD, signed)
    assert held.proof is not None
    assert (held.proof.verdict, held.proof.digest) == ("good", signed)


def test_a_lock_does_not_say_what_was_built_here(strict):
    daemon, ours = engine(), local_tag("cpu")
    daemon.api.have(NEW, "other.test/open/x", "1")
    for reference in ("other.test/open/x:1", ours):
        with pytest.raises(NimctlError) as raised:
            start_locked(daemon, reference, NEW, None)
        assert raised.value.id == "trust-invalid"
    daemon.api.built(OLD, ours)
    held = start_locked(daemon, ours, OLD, None)
    assert held.proof is not None
    assert held.proof.verdict == "built-here"
    with pytest.raises(NimctlError):
        start_locked(daemon, ours, NEW, None)
    daemon.api.have(OLD, ours.partition(":")[0])  # a registry gave it
    with pytest.raises(NimctlError):
        start_locked(daemon, ours, OLD, None)


def test_an_image_of_docker_hub_is_known_by_the_name_that_docker_gives_it():
    info = ImageInfo("sha256:1", ("ubuntu@sha256:2",), 1, "amd64", None, {})
    assert info.digest("docker.io/library/ubuntu:24.04") == info.digest("ubuntu:24.04") == "sha256:2"
    assert info.digest("other.example/ubuntu:24.04") is None


def test_the_identity_of_an_image_in_either_store():
    classic = ImageInfo("sha256:c", ("r/x@sha256:m",), 1, "arm64", None, {}, "linux")
    assert classic.identity("r/x:1") == ImageIdentity("r/x:1", "sha256:m", None, "sha256:c", "linux/arm64")
    containerd = ImageInfo("sha256:m", ("r/x@sha256:m",), 1, "amd64", None, {}, "linux")
    assert containerd.identity("r/x:1").digests == ("sha256:m",)
    built = ImageInfo("sha256:c", (), 1, "amd64", None, {}, "linux")
    assert built.identity("mine:1").digests == ("sha256:c",)
