"""What `run --locked` refuses before it looks at anything: no lock, and flags that the lock contradicts."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nimctl.cli import acquire, launching
from nimctl.cli.locks import contradictions
from nimctl.cli.locks import facts as lock_facts
from nimctl.cli.locks import file as lock_file
from nimctl.cli.locks import plan as locked_plan
from nimctl.cli.locks import run as locked_run
from nimctl.core.errors import NimctlError
from nimctl.launch.docker.engine import ImageInfo
from nimctl.lock.making import pinned
from nimctl.lock.writing import digest_of, write
from tests.unit.lock.locks import CONFIG, INDEX, MANIFEST, OTHER, WHOLE


def contradicts(**given: object) -> str:
    with pytest.raises(NimctlError) as caught:
        contradictions.refuse_contradictions(WHOLE, contradictions.Given(**given))  # type: ignore[arg-type]
    assert caught.value.id == "usage"
    return caught.value.message


def test_the_lock_is_the_default_file_or_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").write_text("{}")
    assert lock_file.file_of(None) == (Path("nimctl.lock"), None)
    assert lock_file.file_of("a.lock") == (Path("a.lock"), None)
    assert lock_file.file_of("other") == (Path("other"), None)
    assert lock_file.file_of("wrong/place.json") == (Path("wrong/place.json"), None)
    (tmp_path / "kimi-k2.5").write_text("{}")
    assert lock_file.file_of("kimi-k2.5") == (Path("nimctl.lock"), "kimi-k2.5")


def test_what_contradicts_the_lock_is_refused() -> None:
    assert "MODEL demo" in contradicts(model="demo")
    assert "--image other:1" in contradicts(image="other:1")
    assert "--profile vllm-int4-tp4-pp1" in contradicts(profile="vllm-int4-tp4-pp1")
    assert "engine arguments" in contradicts(engine_args=("--max-model-len", "9"))
    assert "--env OTHER" in contradicts(env=("OTHER=1",))
    assert "--env NIM_LOG_LEVEL" in contradicts(env=("NIM_LOG_LEVEL=INFO",))


def test_what_says_the_same_and_the_value_of_a_secret_are_no_contradiction() -> None:
    same = contradictions.Given(
        "kimi-k2.5",
        WHOLE.image.reference,
        ("NIM_LOG_LEVEL=DEBUG", "MY_API_KEY=hidden"),
        "vllm-int4-tp8-pp1",
        WHOLE.engine.arguments,
        "any-name",
    )
    assert contradictions.refuse_contradictions(WHOLE, same) is None


def test_secrets_come_from_the_caller_and_a_missing_one_is_named() -> None:
    found = contradictions.values_of(WHOLE.variables, {}, {"MY_API_KEY": "hidden"})
    assert found == [("NIM_LOG_LEVEL", "DEBUG"), ("MY_API_KEY", "hidden")]
    assert ("MY_API_KEY", "given") in contradictions.values_of(WHOLE.variables, {"MY_API_KEY": "given"}, {})
    with pytest.raises(NimctlError) as caught:
        contradictions.values_of(WHOLE.variables, {}, {})
    assert caught.value.id == "key-missing" and "MY_API_KEY" in caught.value.message


def test_a_lock_is_read_with_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "nimctl.lock"
    path.write_text(write(WHOLE))
    assert lock_file.read(path) == lock_file.Read(WHOLE, digest_of(path.read_bytes()), path)
    for wrong in (tmp_path / "missing", tmp_path):
        with pytest.raises(NimctlError) as caught:
            lock_file.read(wrong)
        assert caught.value.id == "lock-invalid"
        assert (caught.value.message == f"there is no {wrong}") is (wrong.name == "missing")


@pytest.mark.parametrize(
    ("address", "there"),
    [
        ("hf://a/b", "hf://a/b:123"),
        ("hf://a/b:main", "hf://a/b:123"),
        ("hf://a/b@v1?file=x.json", "hf://a/b:123?file=x.json"),
        ("builtin://demo", "builtin://demo"),
        ("s3://bucket/model", "s3://bucket/model"),
        ("ngc://org/team/model:1.0", "ngc://org/team/model:1.0"),
    ],
)
def test_weights_are_pinned_where_their_source_knows_revisions(address: str, there: str) -> None:
    assert pinned(address, "123") == there


def test_the_reference_that_is_pulled_names_the_locked_digest() -> None:
    assert locked_run.exact_reference(WHOLE.image) == f"registry.example:5000/nimctl/cuda@{WHOLE.image.digest}"
    assert locked_run.exact_reference(replace(WHOLE.image, digest=None)) == WHOLE.image.reference


@dataclass(frozen=True)
class Daemon:
    """A daemon with one image, which it finds by every name that it has."""

    image: ImageInfo

    def inspect_image(self, name: str) -> ImageInfo | None:
        return self.image if name in (self.image.id, *self.image.digests) else None


REPOSITORY = WHOLE.image.reference.rpartition(":")[0]


def on_this_host(id_: str, *digests: str, **labels: str) -> ImageInfo:
    named = tuple(f"{REPOSITORY}@{digest}" for digest in digests)
    return ImageInfo(id_, named, 1, "amd64", None, {name.replace("_", "."): value for name, value in labels.items()})


@pytest.mark.parametrize(
    ("here", "is_it"),
    [
        (on_this_host(CONFIG), True),  # built or loaded
        (on_this_host(CONFIG, INDEX), True),
        (on_this_host(CONFIG, MANIFEST, "sha256:" + "e" * 64), True),  # its name stood for several indexes
        (on_this_host(INDEX, INDEX), True),  # containerd's store
        (on_this_host(MANIFEST, MANIFEST), True),
        (on_this_host(CONFIG, "sha256:" + "e" * 64), False),  # the lock has the configuration of another image
        (on_this_host("sha256:" + "e" * 64, INDEX), False),
        (on_this_host(OTHER, OTHER), False),  # of another platform
    ],
)
def test_an_image_is_the_locked_one_only_where_the_daemon_agrees(here: ImageInfo, is_it: bool) -> None:
    found = lock_facts.held(WHOLE.image, Daemon(here))  # type: ignore[arg-type]
    assert (found == here) is is_it


def test_what_an_image_asks_of_the_host_is_asked_by_the_one_that_starts() -> None:
    here = on_this_host(CONFIG, INDEX, io_nimctl_engine="vllm")
    here = replace(here, labels={**here.labels, "io.nimctl.min-driver": "999"})
    facts = locked_plan._image_facts(WHOLE.image, here)
    assert (facts.present, facts.min_driver, facts.digest) == (True, "999", INDEX)
    assert locked_plan._image_facts(WHOLE.image, None).present is False


def test_an_image_that_was_built_here_has_no_digest_of_a_registry() -> None:
    in_containerd = on_this_host(INDEX, INDEX).built(WHOLE.image.reference)
    assert (in_containerd.digest, in_containerd.digests) == (None, (INDEX,))
    assert on_this_host(CONFIG).built(WHOLE.image.reference).config == CONFIG
    pushed = on_this_host(CONFIG, MANIFEST).built(WHOLE.image.reference)
    assert (pushed.digest, pushed.config) == (MANIFEST, CONFIG)


@pytest.mark.parametrize(
    ("known", "is_it"),
    [
        ({}, True),
        ({"digest": MANIFEST, "manifest": None}, True),  # the engine was given the manifest in the index
        ({"manifest": None, "config": None}, True),  # containerd's store has no more to say
        ({"manifest": OTHER}, False),
        ({"config": OTHER}, False),
    ],
)
def test_what_was_brought_is_the_locked_image_in_all_that_is_known(known: dict[str, str | None], is_it: bool) -> None:
    locked = WHOLE.image.identity
    found = acquire.Held(replace(locked, **known), CONFIG)  # type: ignore[arg-type]
    assert launching.is_locked(found, locked) is is_it
    assert not launching.is_locked(replace(found, id="sha256:" + "e" * 64), locked)
