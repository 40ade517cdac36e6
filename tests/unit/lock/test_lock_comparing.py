"""Locks held against each other, and against what runs: every field's change is found, what is unknown is none."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimctl.core.fetch.manifest import File
from nimctl.lock.comparing import compare, same_image
from nimctl.lock.drift import Confinement, Seen, drift, options_of
from nimctl.lock.model import Lock, LockedImage, LockedOption
from tests.unit.lock.locks import CONFIG, INDEX, MANIFEST, OTHER, WHOLE, locks

# For people, or what is known by another field: the schema is one, and a version decides nothing by itself.
_NOT_COMPARED = {"schema", "nimctl"}


@settings(deadline=None, max_examples=40)
@given(locks())
def test_a_lock_does_not_differ_from_itself(lock: Lock) -> None:
    assert compare(lock, lock) == ()
    assert compare(lock, replace(lock, nimctl="9.9.9")) == ()


def leaves(value: Any, put: Callable[[Any], Any], path: str = "") -> list[tuple[str, Any]]:
    """The lock with each of its values changed in turn, by the path of what was changed."""
    if isinstance(value, File):  # without a digest a file is not compared by one
        changes: list[File] = [replace(value, path=value.path + "x"), replace(value, size=value.size + 1)]
        if value.digest:
            flipped = value.digest[:-1] + ("0" if value.digest[-1] != "0" else "1")
            changes.append(replace(value, digest=flipped))
        return [(path, put(changed)) for changed in changes]
    if is_dataclass(value) and not isinstance(value, type):
        return [
            found
            for f in fields(value)
            if f.name not in _NOT_COMPARED and not (path == "weights" and f.name == "bytes")
            for found in leaves(
                getattr(value, f.name),
                lambda new, name=f.name: put(replace(value, **{name: new})),
                f"{path}.{f.name}".strip("."),
            )
        ]
    if isinstance(value, dict):
        inner = [
            found
            for key, item in value.items()
            for found in leaves(item, lambda new, key=key: put({**value, key: new}), f"{path}.{key}")
        ]
        gone = [(path, put({k: v for k, v in value.items() if k != key})) for key in value]
        return inner + gone + [(path, put({**value, "added": next(iter(value.values()))}))]
    if isinstance(value, tuple):
        inner = [
            found
            for i, item in enumerate(value)
            for found in leaves(item, lambda new, i=i: put((*value[:i], new, *value[i + 1 :])), f"{path}.{i}")
        ]
        return [*inner, (path, put(value[:-1]))]
    return [(path, put(_other(value)))]


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    return "something"


CHANGES = leaves(WHOLE, lambda lock: lock)


def test_the_changes_are_of_every_part() -> None:
    assert {path.partition(".")[0] for path, _ in CHANGES} == {f.name for f in fields(Lock)} - _NOT_COMPARED
    assert len(CHANGES) > 50


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=lambda i: f"{i}-{CHANGES[i][0]}")
def test_every_change_is_found_on_either_side(number: int) -> None:
    path, changed = CHANGES[number]
    if path == "image.manifests" and set(changed.image.manifests) != set(WHOLE.image.manifests):
        return  # a manifest that one side does not know is no difference
    for rows in (compare(WHOLE, changed), compare(changed, WHOLE)):
        assert rows, path
        assert rows[0].what.partition(".")[0] == path.partition(".")[0]
        assert all(row.locked != row.here and row.fix for row in rows)


def test_what_one_side_does_not_know_is_no_difference() -> None:
    assert WHOLE.weights is not None
    here = replace(
        WHOLE,
        image=replace(WHOLE.image, digest=None, manifests={}),
        weights=replace(WHOLE.weights, files=tuple(replace(file, digest=None) for file in WHOLE.weights.files)),
        engine=replace(WHOLE.engine, options=None),
    )
    assert compare(WHOLE, here) == compare(here, WHOLE) == ()


def test_another_platform_has_its_own_way_out() -> None:
    here = replace(WHOLE, image=replace(WHOLE.image, platform="linux/arm64"))
    assert [row.fix for row in compare(WHOLE, here) if row.what == "image.platform"] == [
        "Start it on the platform that it was locked on, or lock it on this one: `nimctl lock`."
    ]


def test_an_address_with_another_revision_is_one_difference() -> None:
    assert WHOLE.weights is not None
    moved = replace(WHOLE.weights, source="hf://moonshotai/Kimi-K2.5:" + "6" * 40, revision="6" * 40)
    assert [row.what for row in compare(WHOLE, replace(WHOLE, weights=moved))] == ["weights.revision"]
    other = replace(moved, source="hf://moonshotai/Kimi-K2.6:" + "6" * 40)
    rows = compare(WHOLE, replace(WHOLE, weights=other))
    assert [row.what for row in rows] == ["weights.source", "weights.revision"]


@pytest.mark.parametrize(
    ("here", "same"),
    [
        (LockedImage("x", "linux/amd64", config=CONFIG), True),
        (LockedImage("x", "linux/amd64", config=OTHER), False),
        (LockedImage("x", "linux/amd64", digest=INDEX), True),  # containerd's store knows no configuration
        (LockedImage("x", "linux/amd64", digest=MANIFEST), True),
        (LockedImage("x", "linux/amd64", digest=INDEX, config="sha256:" + "e" * 64), False),
        (LockedImage("x", "linux/amd64", digest="sha256:" + "e" * 64), False),
    ],
)
def test_an_image_is_the_same_by_its_digests_alone(here: LockedImage, same: bool) -> None:
    assert same_image(WHOLE.image, here) is same
    assert same_image(here, WHOLE.image) is same


# --- what runs ---

ENGINE = (
    "/opt/vllm", "serve", "/cache/snapshot", "--uds", "/tmp/s", "--tensor-parallel-size", "8", "--served-model-name",
    "a", "b", "--limit-mm-per-prompt", '{"vision_chunk":4}', "--no-enforce-eager",
)  # fmt: skip


def seen(**changes: Any) -> Seen:
    assert WHOLE.weights is not None and WHOLE.layout is not None
    given = {"NIM_LOG_LEVEL": "DEBUG", "MY_API_KEY": "hidden", "NIM_RECIPE": "kimi-k2.5", "HF_TOKEN_FILE": "/run/x"}
    found = Seen(
        image=CONFIG,
        labels={},
        variables=changes.get("given", given),
        given=given,
        argv=WHOLE.engine.arguments,
        image_argv=(),
        confinement=Confinement(WHOLE.container),
        engine=ENGINE,
        metadata={
            "selectedModelProfileId": WHOLE.layout.id,
            "selectedModelProfile": WHOLE.layout.profile,
            "tensorParallelSize": 8,
            "pipelineParallelSize": 1,
            "gpus": 8,
        },
        manifest={
            "source": "hf://moonshotai/Kimi-K2.5",
            "revision": WHOLE.weights.revision,
            "files": [
                {"path": f.path, "size": f.size, "sha256": (f.digest or "").partition("sha256:")[2] or None}
                for f in WHOLE.weights.files
            ],
        },
        started_from="sha256:lock",
    )
    return replace(found, **changes)


def whats(found: Seen, lock: Lock = WHOLE) -> list[str]:
    return [row.what for row in drift(lock, "sha256:lock", found).rows]


def test_what_was_started_from_the_lock_has_not_drifted() -> None:
    found = drift(WHOLE, "sha256:lock", seen())
    assert found.rows == ()
    assert found.unseen == ()


def test_what_is_locked_and_the_image_has_by_itself_is_no_drift() -> None:
    given = {name: value for name, value in seen().given.items() if name != "NIM_LOG_LEVEL"}
    assert whats(seen(variables=seen().variables, given=given)) == []
    bare = replace(WHOLE, engine=replace(WHOLE.engine, arguments=()))
    assert whats(seen(argv=("serve",), image_argv=("serve",)), bare) == []
    assert whats(seen(image_argv=WHOLE.engine.arguments)) == []
    assert whats(seen(argv=(), image_argv=("serve",)), bare) == ["engine.arguments"]


def changed_manifest(**changes: Any) -> dict[str, Any]:
    return {**(seen().manifest or {}), **changes}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"image": "sha256:" + "e" * 64}, "image"),
        ({"argv": ()}, "engine.arguments"),
        ({"engine": (*ENGINE, "--max-num-seqs", "9")}, "engine.options.max-num-seqs"),
        ({"engine": ENGINE[:-1]}, "engine.options.enforce-eager"),
        ({"engine": (*ENGINE[:6], "4", *ENGINE[7:])}, "engine.options.tensor-parallel-size"),
        ({"given": {}}, "variables.NIM_LOG_LEVEL"),
        ({"given": {**seen().given, "NIM_LOG_LEVEL": "INFO"}}, "variables.NIM_LOG_LEVEL"),
        ({"given": {**seen().given, "LD_PRELOAD": "/x.so"}}, "variables.LD_PRELOAD"),
        ({"given": {**seen().given, "NIM_MODEL_PROFILE": "vllm-int4-tp4-pp1"}}, "variables.NIM_MODEL_PROFILE"),
        ({"given": {**seen().given, "NIM_MODEL_PATH": "hf://other/model"}}, "weights.source"),
        ({"manifest": changed_manifest(revision="6" * 40)}, "weights.revision"),
        ({"manifest": changed_manifest(source="hf://other/model")}, "weights.source"),
        ({"manifest": changed_manifest(files=[])}, "weights.files.config.json"),
        ({"metadata": {**(seen().metadata or {}), "selectedModelProfileId": "x"}}, "layout.id"),
        ({"metadata": {**(seen().metadata or {}), "gpus": 4}}, "gpus.count"),
        ({"confinement": Confinement(WHOLE.container, {"privileged": ("yes",)})}, "container.privileged"),
        ({"confinement": Confinement(WHOLE.container, {"mounts": ("/host",)})}, "container.mounts"),
        ({"confinement": Confinement(replace(WHOLE.container, read_only=False))}, "container.read_only"),
        ({"confinement": Confinement(replace(WHOLE.container, cap_drop=()))}, "container.cap_drop"),
    ],
)  # fmt: skip
def test_each_drift_is_named(change: dict[str, Any], what: str) -> None:
    rows = drift(WHOLE, "sha256:lock", seen(**change)).rows
    assert what in [row.what for row in rows]
    assert all(row.fix for row in rows)


def test_the_values_of_secrets_are_not_told() -> None:
    given = {**seen().given, "OTHER_API_KEY": "very-hidden"}
    rows = drift(WHOLE, "sha256:lock", seen(given=given)).rows
    assert [(row.what, row.here) for row in rows] == [("variables.OTHER_API_KEY", "***")]
    without = {name: value for name, value in seen().given.items() if name != "MY_API_KEY"}
    assert whats(seen(given=without)) == ["variables.MY_API_KEY"]


def test_what_cannot_be_seen_is_said_and_is_no_drift() -> None:
    found = drift(WHOLE, "sha256:lock", seen(metadata=None, manifest=None, engine=None, started_from=None))
    assert found.rows == ()
    assert len(found.unseen) == 4
    other = drift(WHOLE, "sha256:other", seen())
    assert other.rows == () and "another lock file" in other.unseen[0]


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.lists(st.none() | st.text(max_size=3))))
def test_a_server_that_answers_junk_is_no_crash(junk: dict[str, Any]) -> None:
    drift(WHOLE, "sha256:lock", seen(manifest={**junk, "files": junk.get("", [{}])}, metadata=junk))


def test_options_are_read_back_as_a_lock_has_them() -> None:
    assert WHOLE.engine.options is not None
    wanted = {name: one.value for name, one in WHOLE.engine.options.items()}
    assert options_of(ENGINE) == wanted
    assert isinstance(WHOLE.engine.options["enforce-eager"], LockedOption)


def test_a_folder_has_drifted_by_its_files_alone() -> None:
    assert WHOLE.weights is not None
    folder = replace(WHOLE, weights=replace(WHOLE.weights, source="folder", revision="local"))
    served = changed_manifest(source="/opt/nim/model", revision="model")
    assert whats(seen(manifest=served), folder) == []
    assert "weights.files.config.json" in whats(seen(manifest={**served, "files": []}), folder)
